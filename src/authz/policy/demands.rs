//! What a policy demands of the token behind a call, beside its condition: a login of a kind (`@step_up`), scopes
//! (`@scopes`).
//!
//! A condition says no and leaves it at that. A demand says what would do: a permit whose demands are not met counts for
//! nothing, and where nothing else permits the call, the answer names what is missing, so that the client can go and get
//! it (RFC 9470, section 3; RFC 6750, section 3.1). A forbid decides by its condition alone; its demands say how to be rid
//! of it. So what an annotation changes is always towards less, or words.

use std::sync::Arc;

use super::{PolicyInfo, Satisfied};
use crate::authz::decision::Denial;
use crate::authz::reason::Reason;
use crate::authz::token::claims::Claims;

/// Longest value of such an annotation, in bytes: it becomes a header.
const MAX_BYTES: usize = 512;
/// The longest age of a login that can be demanded, in seconds: beyond a year nobody asks.
const MAX_AGE_SECONDS: i64 = 366 * 86_400;
const MAX_AGE: &str = "max_age=";

/// What is demanded; empty lists and `None` demand nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demands {
    /// One of these has to be `acr`; the first is preferred.
    pub acr_values: Vec<String>,
    /// How long ago the user may have logged in, in seconds: `auth_time`.
    pub max_age_seconds: Option<i64>,
    /// All of these have to be in `scope`.
    pub scopes: Vec<String>,
}

/// What a caller's token shows.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'c> {
    /// Its claims; `None` without a token whose issuer says more than who it is.
    pub claims: Option<&'c Claims>,
    /// The moment, in seconds since 1970.
    pub now: i64,
}

impl Demands {
    /// What two annotations demand: `@step_up("urn:example:mfa max_age=300")`, `@scopes("crm:read crm:export")`.
    ///
    /// # Errors
    /// What is expected instead.
    pub fn parse(step_up: Option<&str>, scopes: Option<&str>) -> Result<Option<Self>, String> {
        let mut demands = Self::default();
        for item in step_up.map(|text| items("step_up", text)).transpose()?.into_iter().flatten() {
            match item.strip_prefix(MAX_AGE) {
                None => demands.acr_values.push(item),
                Some(_) if demands.max_age_seconds.is_some() => {
                    return Err("`@step_up`: `max_age` is there twice".into());
                }
                Some(age) => demands.max_age_seconds = Some(seconds(age)?),
            }
        }
        demands.scopes = scopes.map(|text| items("scopes", text)).transpose()?.unwrap_or_default();
        Ok(demands.is_any().then_some(demands))
    }

    /// Whether anything is demanded.
    #[must_use]
    pub const fn is_any(&self) -> bool {
        self.is_login() || !self.scopes.is_empty()
    }

    /// Whether a login is.
    #[must_use]
    pub const fn is_login(&self) -> bool {
        !self.acr_values.is_empty() || self.max_age_seconds.is_some()
    }

    /// What of it `shown` does not meet; empty if all is met. Of scopes, all that are demanded are named if one is
    /// missing: a client that asks for a token with the others alone would lose what it has.
    #[must_use]
    pub fn unmet(&self, shown: &Shown<'_>) -> Self {
        let Some(claims) = shown.claims else { return self.clone() };
        let is_strong =
            self.acr_values.is_empty() || claims.acr.as_ref().is_some_and(|acr| self.acr_values.contains(acr));
        let is_fresh = self
            .max_age_seconds
            .is_none_or(|most| claims.authenticated.is_some_and(|moment| shown.now.saturating_sub(moment) <= most));
        let granted = claims.scopes.as_deref().unwrap_or_default();
        let mut unmet = Self::default();
        if !is_strong || !is_fresh {
            // Both, whichever is missing: one login has to do.
            unmet.acr_values.clone_from(&self.acr_values);
            unmet.max_age_seconds = self.max_age_seconds;
        }
        if !self.scopes.iter().all(|scope| granted.contains(scope)) {
            unmet.scopes.clone_from(&self.scopes);
        }
        unmet
    }

    /// Both, as one challenge: a login that meets either, the shorter age, and all scopes; `None` if no one login does.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Option<Self> {
        if self.acr_values.is_empty() {
            self.acr_values.clone_from(&other.acr_values);
        } else if !other.acr_values.is_empty() {
            self.acr_values.retain(|value| other.acr_values.contains(value));
            if self.acr_values.is_empty() {
                return None;
            }
        }
        self.max_age_seconds = self.max_age_seconds.into_iter().chain(other.max_age_seconds).min();
        let more = other.scopes.iter().filter(|scope| !self.scopes.contains(scope)).cloned().collect::<Vec<_>>();
        self.scopes.extend(more);
        Some(self)
    }
}

impl Demands {
    /// The denial of a caller that has to come back with another token.
    #[must_use]
    pub fn ask_for(self, shown: &Shown<'_>) -> Denial {
        let reason = if shown.claims.is_none() {
            Reason::TokenAbsent
        } else if self.is_login() {
            Reason::StepUpRequired
        } else {
            Reason::ScopeInsufficient
        };
        Denial { demands: Some(Box::new(self)), ..reason.into() }
    }
}

/// Lets those permits count alone whose demands are met, and gives the others beside. Without any, the first one says what would do.
///
/// # Errors
/// [`Reason::TokenAbsent`], [`Reason::StepUpRequired`] or [`Reason::ScopeInsufficient`]
pub fn hold(satisfied: Satisfied, shown: &Shown<'_>) -> (Result<Satisfied, Denial>, Vec<Arc<PolicyInfo>>) {
    let (kept, demanding) = satisfied.keep(|policy| unmet(policy, shown).is_none());
    let first = || demanding.iter().find_map(|policy| unmet(policy, shown)).unwrap_or_default();
    (kept.ok_or_else(|| first().ask_for(shown)), demanding)
}

/// What would lift forbids, where each of them says what, and it is not met: all of that, and what the permits demand that they
/// overrule, for nobody should log in anew only to be refused again.
#[must_use]
pub fn lifting(forbids: &[Arc<PolicyInfo>], permits: &[Arc<PolicyInfo>], shown: &Shown<'_>) -> Option<Demands> {
    let lifted = forbids.iter().try_fold(Demands::default(), |all, policy| all.and(&unmet(policy, shown)?))?;
    let least = permits.iter().map(|policy| unmet(policy, shown).unwrap_or_default()).min_by_key(Demands::is_any)?;
    lifted.and(&least)
}

/// What of a policy's demands is not met, if anything is not.
fn unmet(policy: &PolicyInfo, shown: &Shown<'_>) -> Option<Demands> {
    policy.demands.as_ref().map(|demands| demands.unmet(shown)).filter(Demands::is_any)
}

/// The items of an annotation, each of characters that a quoted header value holds as they are (RFC 6749, section 3.3, for
/// scopes), separated by single spaces.
fn items(name: &str, text: &str) -> Result<Vec<String>, String> {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    let items: Vec<String> = text.split(' ').map(str::to_owned).collect();
    let is_fine = text.len() <= MAX_BYTES && items.iter().all(|item| !item.is_empty() && item.bytes().all(is_plain));
    let expected = || {
        format!(
            "`@{name}`: expected names separated by single spaces, of up to {MAX_BYTES} visible ASCII characters without `\"` and `\\`"
        )
    };
    if is_fine { Ok(items) } else { Err(expected()) }
}

/// An age of a login. RFC 9470, section 3, has 0 as well, for a login at every call: but whoever logs in then has a token that is a
/// second old when it is shown, and is asked again, for ever.
fn seconds(text: &str) -> Result<i64, String> {
    let age = text.parse().ok().filter(|age| (1..=MAX_AGE_SECONDS).contains(age));
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    age.filter(|_| is_plain).ok_or_else(|| {
        format!(
            "`@step_up`: `max_age` is from 1 to {MAX_AGE_SECONDS} seconds, long enough for a client to come back with its new token"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demands(step_up: &str, scopes: &str) -> Demands {
        let given = |text: &'static str| (!text.is_empty()).then_some(text);
        let (step_up, scopes) = (step_up.to_owned().leak(), scopes.to_owned().leak());
        Demands::parse(given(step_up), given(scopes)).unwrap().unwrap_or_default()
    }

    fn claims(acr: Option<&str>, authenticated: Option<i64>, scope: Option<&str>) -> Claims {
        let mut json = serde_json::json!({"sub": "u", "aud": "a", "exp": 10});
        for (name, value) in [
            ("acr", acr.map(Into::into)),
            ("auth_time", authenticated.map(Into::into)),
            ("scope", scope.map(Into::into)),
        ] {
            if let Some(value) = value {
                json[name] = value;
            }
        }
        let text = json.to_string();
        let json =
            crate::authz::call::json::Json::parse(text.as_bytes(), &crate::authz::limits::Limits::DEFAULT).unwrap();
        Claims::read(&json).unwrap()
    }

    #[test]
    fn what_is_demanded_is_read() {
        let all = demands("urn:mfa urn:hwk max_age=300", "a b");
        assert_eq!((all.acr_values.len(), all.max_age_seconds, all.scopes.len()), (2, Some(300), 2));
        assert_eq!(demands("max_age=1", "").max_age_seconds, Some(1));
        assert_eq!(demands("max_age=31622400", "").max_age_seconds, Some(MAX_AGE_SECONDS));
        assert_eq!(Demands::parse(None, None), Ok(None));
        for (step_up, scopes) in [
            (Some(""), None),
            (None, Some("")),
            (Some(" mfa"), None),
            (Some("mfa  hwk"), None),
            (Some("m\"fa"), None),
            (Some("m\\fa"), None),
            (Some("m\tfa"), None),
            (Some("müfa"), None),
            (Some("max_age="), None),
            (Some("max_age=-1"), None),
            (Some("max_age=0"), None),
            (Some("max_age=00"), None),
            (Some("max_age=31622401"), None),
            (Some("max_age=+1"), None),
            (Some("max_age=1.5"), None),
            (Some("max_age=99999999999999999999"), None),
            (Some("max_age=1 max_age=2"), None),
            (None, Some("a  b")),
            (None, Some("a,\"b\"")),
        ] {
            assert!(Demands::parse(step_up, scopes).is_err(), "{step_up:?} {scopes:?}");
        }
        assert!(Demands::parse(Some(&"a".repeat(MAX_BYTES + 1)), None).is_err());
    }

    #[test]
    fn what_is_not_met_is_named_whole() {
        let all = demands("mfa hwk max_age=300", "a b");
        let unmet = |claims: &Claims, now| all.unmet(&Shown { claims: Some(claims), now });
        assert!(!unmet(&claims(Some("hwk"), Some(700), Some("b c a")), 1_000).is_any());
        // Absent, another one, too old by a second, from the future and so not old.
        for (acr, moment) in
            [(None, Some(700)), (Some("pwd"), Some(700)), (Some("hwk"), None), (Some("hwk"), Some(699))]
        {
            let unmet = unmet(&claims(acr, moment, Some("a b")), 1_000);
            assert_eq!((unmet.acr_values.len(), unmet.max_age_seconds, unmet.scopes.len()), (2, Some(300), 0));
        }
        assert!(!unmet(&claims(Some("mfa"), Some(1_003), Some("a b")), 1_000).is_any());
        for scope in [None, Some(""), Some("a"), Some("A b"), Some("a bb")] {
            let unmet = unmet(&claims(Some("mfa"), Some(1_000), scope), 1_000);
            assert!(!unmet.is_login() && unmet.scopes == ["a", "b"], "{scope:?}");
        }
        assert_eq!(all.unmet(&Shown { claims: None, now: 0 }), all);
    }

    #[test]
    fn several_make_one_challenge() {
        let both = demands("max_age=300", "a b").and(&demands("mfa max_age=60", "b c"));
        assert_eq!(both, Some(demands("mfa max_age=60", "a b c")));
        assert_eq!(demands("pwd mfa", "").and(&demands("mfa hwk", "")), Some(demands("mfa", "")));
        assert_eq!(demands("mfa", "").and(&demands("hwk", "")), None);
    }
}
