//! Tokens of a recorded check, verified with what is at hand: keys from files, and nothing that would have to be fetched.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

use crate::authz::Settings;
use crate::authz::reason::Reason;
use crate::authz::request::Request;
use crate::authz::token::presented::Place;
use crate::authz::token::{Authority, Keyring, Refused, Tokens};
use crate::config::Config;
use crate::keys;
use crate::tokens::{Keyrings, Verifier};

/// Keys that nobody looks for again.
struct Fixed(Arc<Keyring>);

impl Keyrings for Fixed {
    fn keyring(&self) -> Arc<Keyring> {
        self.0.clone()
    }

    fn lacks(&self, _: &Authority) {}
}

/// What becomes of the tokens of a request.
#[derive(Default)]
pub(super) struct Looked {
    /// As what policies see them.
    pub(super) tokens: Tokens,
    /// What has to be known about it.
    pub(super) note: Option<String>,
    /// Whether there are some that were not verified: a permit says nothing then.
    pub(super) unverified: bool,
}

/// What becomes of the tokens of a request at that moment.
///
/// # Errors
/// One line: the configuration or a file of keys cannot be read.
pub(super) fn tokens(
    config: &Path,
    settings: &Settings,
    request: &Request<'_>,
    now: Timestamp,
    redacted: bool,
) -> Result<Looked, String> {
    let carries = |place: &Place| request.http.as_ref().is_some_and(|http| http.headers.contains(&place.header));
    if redacted && settings.tokens.places.iter().any(carries) {
        return Ok(unverified("they were taken out of the capture"));
    }
    let sources = Config::load(config).map_err(|error| error.to_string())?.keys();
    let (keyring, others) = keys::read_files(&sources).map_err(|error| error.to_string())?;
    let verifier = Verifier::new(settings.tokens.clone(), Box::new(Fixed(Arc::new(keyring))));
    Ok(match verifier.of(request, now.as_second()) {
        Tokens::Absent => Looked::default(),
        Tokens::Failed(Refused { reason: Reason::TokenKeysUnavailable, .. }) => {
            let others: Vec<String> = others.iter().map(ToString::to_string).collect();
            let why = "keys would have to be fetched, and are read from files alone";
            unverified(&format!("{why} (not of {})", others.join(", ")))
        }
        tokens => {
            let note = "its tokens are verified with keys from files; of sessions that ended, proofs that were used and nonces \
                        the server alone knows";
            Looked { tokens, note: Some(note.to_owned()), unverified: false }
        }
    })
}

fn unverified(why: &str) -> Looked {
    let note = format!(
        "its tokens are not verified: {why}. Policies see nothing of them, and the server may decide otherwise"
    );
    Looked { tokens: Tokens::Absent, note: Some(note), unverified: true }
}
