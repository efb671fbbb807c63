//! Where tokens are in a request, and whose they are.

use std::borrow::Cow;

use serde::Deserialize;

use super::Refused;
use super::jws::MAX_TOKEN_BYTES;
use crate::authz::percent;
use crate::authz::reason::Reason;
use crate::authz::request::HttpRequest;

/// Whose token a header carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The user's, handed to the agent that calls.
    User,
    /// The calling agent's own.
    Agent,
    /// Those of the agents before it, through which the user's authority came to it: separated by commas, the first agent's
    /// first.
    Chain,
}

impl Role {
    /// The name that it has in the configuration, and in records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Agent => "agent",
            Self::Chain => "chain",
        }
    }
}

/// A header that carries a token.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The header's name, in lower case. `authorization` carries a token behind its scheme, another header nothing but a
    /// token.
    pub header: String,
    /// Whose token it is.
    pub role: Role,
}

/// How a token is presented (RFC 9110, section 11.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `Bearer`, or a header of its own.
    Bearer,
    /// `DPoP` (RFC 9449, section 7.1).
    Dpop,
}

/// A token as it was presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presented<'r> {
    /// Whose it is.
    pub role: Role,
    /// How.
    pub scheme: Scheme,
    /// The token.
    pub text: &'r str,
}

/// Most tokens of agents before the caller: no issuer allows more.
const MAX_CHAIN: usize = 12;

/// Finds the tokens of a request, at most one for each role but [`Role::Chain`], whose tokens are the last ones.
///
/// # Errors
/// [`Reason::HeaderDuplicate`], [`Reason::TokenMalformed`] for an empty header, [`Reason::TokenSchemeUnsupported`], and
/// [`Reason::TokenInQuery`] (RFC 9700, section 4.3.2: a token in a URI ends up in logs).
pub fn find<'r>(http: &'r HttpRequest<'_>, places: &[Place]) -> Result<Vec<Presented<'r>>, Refused> {
    if !places.is_empty() && has_token_in_query(&http.path) {
        return Err(Refused::new(Reason::TokenInQuery, "`access_token` in the query"));
    }
    // Some servers take `_` for `-`: what is read there has to be what was verified.
    let folds = |name: &str| places.iter().any(|place| place.header == name.replace('_', "-"));
    if http.headers.with_underscores().any(folds) {
        return Err(Refused::new(Reason::HeaderOverride, "a header with `_` that looks like one that carries a token"));
    }
    let mut found: Vec<Presented<'r>> = Vec::new();
    for Place { header, role } in places {
        let value = http.headers.single(header);
        let value = value.map_err(|_| Refused::new(Reason::HeaderDuplicate, format!("`{header}` is there twice")))?;
        let Some(value) = value else { continue };
        if found.iter().any(|other| other.role == *role) {
            return Err(Refused::new(Reason::HeaderDuplicate, "two headers carry a token of one kind"));
        }
        if *role == Role::Chain {
            let all: Vec<&str> = value.splitn(MAX_CHAIN + 1, ',').map(str::trim_ascii).collect();
            if all.len() > MAX_CHAIN {
                return Err(Refused::new(Reason::TokenDelegationTooDeep, format!("more than {MAX_CHAIN} agents")));
            }
            for text in all {
                check_size(header, text)?;
                found.push(Presented { role: *role, scheme: Scheme::Bearer, text });
            }
            continue;
        }
        let (scheme, text) = if header == "authorization" { split(value)? } else { (Scheme::Bearer, value) };
        check_size(header, text)?;
        found.push(Presented { role: *role, scheme, text });
    }
    found.sort_by_key(|presented| presented.role == Role::Chain);
    Ok(found)
}

/// Before it is hashed or split: what is too long costs nothing.
fn check_size(header: &str, text: &str) -> Result<(), Refused> {
    if text.len() > MAX_TOKEN_BYTES {
        return Err(Refused::new(Reason::TokenTooLong, format!("longer than {MAX_TOKEN_BYTES} bytes")));
    }
    if text.is_empty() {
        return Err(Refused::new(Reason::TokenMalformed, format!("`{header}` is empty")));
    }
    Ok(())
}

fn split(value: &str) -> Result<(Scheme, &str), Refused> {
    let unsupported = "`authorization` has neither a Bearer nor a DPoP token";
    scheme_of(value).ok_or_else(|| Refused::new(Reason::TokenSchemeUnsupported, unsupported))
}

/// The scheme of `authorization` and what stands behind it. Schemes compare without case (RFC 9110, section 11.1); one space
/// stands between.
pub(super) fn scheme_of(value: &str) -> Option<(Scheme, &str)> {
    let (scheme, text) = value.split_once(' ').unwrap_or((value, ""));
    let known = [("bearer", Scheme::Bearer), ("dpop", Scheme::Dpop)];
    let (_, scheme) = known.into_iter().find(|(name, _)| scheme.eq_ignore_ascii_case(name))?;
    Some((scheme, text))
}

fn has_token_in_query(path: &str) -> bool {
    let Some((_, query)) = path.split_once('?') else { return false };
    let is_it = |name: Cow<'_, str>| name.eq_ignore_ascii_case("access_token");
    let name = |pair: &str| percent::decoded(pair.split('=').next().unwrap_or_default()).is_some_and(is_it);
    query.split(['&', ';']).any(name)
}
