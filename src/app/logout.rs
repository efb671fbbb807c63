//! What an issuer sends when a user logs out: believed like a token, and remembered.

use super::pipeline::{self, Pipeline};
use crate::admin::{Logouts, Unbelieved};
use crate::authz::reason::Reason;
use crate::authz::token::Refused;
use crate::authz::token::logout::Ended;

impl Logouts for Pipeline {
    fn logout(&self, token: &str) -> Result<(), Unbelieved> {
        let count = |outcome: &str| self.parts.metrics.tokens.logouts.with_label_values(&[outcome]).inc();
        let now = pipeline::now().as_second();
        let ended =
            Ended::read(token, &self.parts.settings.tokens, &self.parts.keys.keyring(), now).inspect_err(|refused| {
                count("refused");
                if let Refused { reason: Reason::TokenKeyUnknown, lacks_key_of: Some(authority), .. } = refused {
                    self.parts.keys.unknown_key(authority);
                }
                let Refused { reason, detail, .. } = refused;
                // Whoever reaches the port can send any: at this level they are not everybody's to read.
                tracing::debug!(%reason, detail, "a logout token is not believed");
            });
        let ended = ended.map_err(|refused| match refused.reason {
            Reason::TokenKeyUnknown | Reason::TokenKeysUnavailable => Unbelieved::Later,
            reason => Unbelieved::Refused(reason.wire().title),
        })?;
        let issuer = self.parts.settings.tokens.issuers.get(ended.issuer).map_or("", |issuer| issuer.name.as_str());
        if self.parts.sessions.end(&ended, now) {
            count("accepted");
            tracing::info!(issuer, one = ended.session.is_some(), "a session ended, or all of a user's");
        } else {
            count("overflow");
            tracing::error!(
                issuer,
                "no room for one more end of a session: no token that this issuer made before counts"
            );
        }
        Ok(())
    }
}
