//! What an issuer sends when a user logs out: believed like a token, and remembered. One whose key is not known yet waits for it.

use std::sync::Arc;

use super::pipeline::{self, Pipeline};
use crate::authz::reason::Reason;
use crate::authz::token::logout::Ended;
use crate::authz::token::{Authority, Keyring, Refused};
use crate::keys::Looks;
use crate::logout::{Logouts, Unbelieved};
use crate::sessions::waiting::Kept;

impl Logouts for Pipeline {
    fn logout(&self, token: &str) -> Result<(), Unbelieved> {
        let now = pipeline::now().as_second();
        let keyring = Arc::clone(&self.parts.keys.keyring());
        self.believe(token, now, &keyring).map_err(|refused| {
            let Some(Authority::Issuer(issuer)) = refused.lacks_key_of else {
                return Unbelieved::Refused(refused.reason.wire().title);
            };
            if refused.reason == Reason::TokenKeyUnknown {
                self.parts.keys.unknown_key(&Authority::Issuer(issuer));
            }
            let Kept { is_kept, dropped, expired } = self.parts.waiting.keep(issuer, token, now);
            self.count("waiting", u64::from(is_kept));
            self.count("dropped", dropped);
            self.tell_expired(issuer, expired);
            // Keys that came in between are looked at by nobody else before the next ones.
            if !Arc::ptr_eq(&keyring, &self.parts.keys.keyring()) {
                self.look_again(issuer, false);
            }
            Unbelieved::Later
        })
    }
}

/// Looks at the logout tokens that wait for a key of an issuer, whenever that was looked for.
pub(super) async fn follow(pipeline: Arc<Pipeline>, issuer: usize, mut looks: Looks) {
    while let Some(fetched) = looks.next().await {
        // A thread of its own: there may be hundreds of signatures to verify. Should a library panic on one, that one is gone, and
        // the others are looked at.
        let look = || {
            let pipeline = pipeline.clone();
            tokio::task::spawn_blocking(move || pipeline.look_again(issuer, fetched))
        };
        while look().await.is_err() {
            pipeline.count("dropped", 1);
            tracing::error!(issuer = pipeline.issuer(issuer), "reading a logout token panicked; it is dropped");
        }
    }
}

impl Pipeline {
    /// Each is held to the rules as of when it came: it was in time, and waited for us.
    fn look_again(&self, issuer: usize, fetched: bool) {
        let keyring = Arc::clone(&self.parts.keys.keyring());
        let expired = self.parts.waiting.look(issuer, fetched, pipeline::now().as_second(), |token, arrived| {
            self.believe(token, arrived, &keyring).is_err_and(|refused| refused.lacks_key_of.is_some())
        });
        self.tell_expired(issuer, expired);
    }

    /// Believes a logout token that came at a moment, and remembers what ended.
    fn believe(&self, token: &str, arrived: i64, keyring: &Keyring) -> Result<(), Refused> {
        let ended = Ended::read(token, &self.parts.settings.tokens, keyring, arrived).inspect_err(|refused| {
            let Refused { reason, detail, lacks_key_of } = refused;
            self.count("refused", u64::from(lacks_key_of.is_none()));
            // Whoever reaches the port can send any: at this level they are not everybody's to read.
            tracing::debug!(%reason, detail, "a logout token is not believed");
        })?;
        let issuer = self.issuer(ended.issuer);
        if self.parts.sessions.end(&ended, pipeline::now().as_second()) {
            self.count("accepted", 1);
            let (session, user) = (ended.session.is_some(), ended.subject.is_some());
            tracing::info!(issuer, session, user, "a session ended, or all of a user's");
        } else {
            self.count("overflow", 1);
            tracing::error!(
                issuer,
                "no room for one more end of a session: no token that this issuer made before counts"
            );
        }
        Ok(())
    }

    fn tell_expired(&self, issuer: usize, expired: u64) {
        if expired > 0 {
            self.count("expired", expired);
            let issuer = self.issuer(issuer);
            tracing::warn!(issuer, expired, "logout tokens are given up: the keys that signed them never became known");
        }
    }

    fn count(&self, outcome: &str, times: u64) {
        self.parts.metrics.tokens.logouts.with_label_values(&[outcome]).inc_by(times);
    }

    fn issuer(&self, at: usize) -> &str {
        self.parts.settings.tokens.issuers.get(at).map_or("", |issuer| issuer.name.as_str())
    }
}
