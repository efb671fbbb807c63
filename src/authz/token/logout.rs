//! A logout token (OpenID Connect Back-Channel Logout 1.0, section 2.6): an issuer says that a user's session has ended.

use super::Refused;
use super::claims::{REGISTERED, Reader, issuer_of};
use super::issuer::Issuer;
use super::jws::{Compact, object};
use super::verified::{Authority, Keyring, Rules, check_algorithm, check_audience, signed_by};
use crate::authz::reason::Reason;

/// The event that makes it one.
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// What has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The issuer, by its place in the rules.
    pub issuer: usize,
    /// The session, its `sid`; without one all of the user's.
    pub session: Option<String>,
    /// The user, its `sub`.
    pub subject: Option<String>,
    /// Tokens that were issued up to then may be of it, in seconds since 1970: when it ended, and the leeway of clocks.
    pub at: i64,
    /// Until when tokens can live that were issued before.
    pub until: i64,
}

impl Ended {
    /// Reads and believes a logout token that came at `now`, in seconds since 1970.
    ///
    /// # Errors
    /// [`Refused`], with the first rule that it breaks. Where that is its key, which may be known later, `lacks_key_of` has the
    /// issuer that it names.
    pub fn read(text: &str, rules: &Rules, keyring: &Keyring, now: i64) -> Result<Self, Refused> {
        let compact = Compact::read(text)?;
        let json = object(&compact.payload, "claims", &[&REGISTERED[..], &["events"]].concat())?;
        if compact.header.typ.as_deref() != Some("logout+jwt") {
            return Err(Refused::new(Reason::TokenTypeRefused, "`typ` is not `logout+jwt`"));
        }
        let named = issuer_of(&json)?;
        let takes = |issuer: &Issuer| Some(issuer.issuer.as_str()) == named && !issuer.logout_audiences.is_empty();
        let found = rules.issuers.iter().enumerate().find(|(_, issuer)| takes(issuer));
        let unknown = || Refused::new(Reason::TokenIssuerUnknown, "no logout tokens are taken from this issuer");
        let (at, issuer) = found.ok_or_else(unknown)?;
        check_algorithm(&compact.header, issuer)?;
        let authority = Authority::Issuer(at);
        signed_by(&compact, &authority, keyring.issuers.get(at).cloned().flatten()).map_err(|refused| {
            let is_later = matches!(refused.reason, Reason::TokenKeyUnknown | Reason::TokenKeysUnavailable);
            Refused { lacks_key_of: is_later.then_some(authority), ..refused }
        })?;

        let reader = Reader(&json);
        let issued = reader.required("iat", Reader::seconds)?;
        let expires = reader.required("exp", Reader::seconds)?;
        reader.required("jti", Reader::name)?;
        check_audience(&reader.required("aud", Reader::texts)?, &issuer.logout_audiences)?;
        if json.get("nonce").is_some() {
            return Err(Refused::new(Reason::TokenTypeRefused, "a logout token has no `nonce`"));
        }
        let event = json.get("events").and_then(|events| events.get(EVENT)).and_then(|event| event.members());
        if event.is_none() {
            return Err(Refused::new(Reason::TokenClaimMissing, "`events` holds no back-channel logout"));
        }
        // However late it comes, it ends what ended; beyond `until` no token is left that it could end.
        let until = issued.saturating_add(issuer.max_lifetime_seconds + 2 * issuer.leeway_seconds);
        if now >= expires.saturating_add(issuer.leeway_seconds) || now >= until {
            return Err(Refused::new(Reason::TokenExpired, "it is too old"));
        }
        if issued > now.saturating_add(issuer.leeway_seconds) {
            return Err(Refused::new(Reason::TokenNotYetValid, "`iat` is to come"));
        }
        let (session, subject) = (reader.name("sid")?, reader.name("sub")?);
        if session.is_none() && subject.is_none() {
            return Err(Refused::new(Reason::TokenClaimMissing, "neither `sid` nor `sub`"));
        }
        Ok(Self { issuer: at, session, subject, at: issued.saturating_add(issuer.leeway_seconds), until })
    }
}
