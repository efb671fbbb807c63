//! In which schemes a caller is challenged for a token (RFC 9110, section 11.6.1; RFC 9449, section 7.1).

use super::Rules;
use super::presented::{Role, Scheme, scheme_of};
use crate::authz::reason::Challenge;
use crate::authz::request::HttpRequest;
use crate::authz::target::Target;

/// The header of schemes.
const HEADER: &str = "authorization";

/// The schemes of a challenge, in the order to write them.
///
/// What is wrong with a token is told in the scheme by which it was presented: there its client looks for it. Beside a token with
/// a scheme there may be some in headers of their own, as if presented by `Bearer`: then it is told in both, since either may be
/// the one. Who has none is told of each by which one would be taken. `Bearer` is first: some clients read no other and nothing
/// behind the first.
#[must_use]
pub fn schemes(
    challenge: Challenge,
    http: Option<&HttpRequest<'_>>,
    target: Option<&Target>,
    rules: &Rules,
) -> &'static [Scheme] {
    let takes_schemes = || rules.places.iter().any(|place| place.header == HEADER && place.role != Role::Chain);
    match challenge {
        Challenge::None => &[],
        Challenge::Proof(_) => &[Scheme::Dpop],
        Challenge::Token(_) if takes_schemes() && presented_by(http) == Some(Scheme::Dpop) => {
            if has_others(http, rules) { &[Scheme::Bearer, Scheme::Dpop] } else { &[Scheme::Dpop] }
        }
        // No issuer, none that binds tokens to keys; no origins, none whose proofs could be compared.
        Challenge::Needed
            if takes_schemes()
                && !rules.issuers.is_empty()
                && target.is_some_and(|target| !target.origins.is_empty()) =>
        {
            &[Scheme::Bearer, Scheme::Dpop]
        }
        Challenge::Token(_) | Challenge::Needed => &[Scheme::Bearer],
    }
}

fn presented_by(http: Option<&HttpRequest<'_>>) -> Option<Scheme> {
    scheme_of(http?.headers.single(HEADER).ok()??).map(|(scheme, _)| scheme)
}

/// Whether headers without schemes carry tokens.
fn has_others(http: Option<&HttpRequest<'_>>, rules: &Rules) -> bool {
    let carries = |header: &str| http.is_some_and(|http| http.headers.contains(header));
    rules.places.iter().any(|place| place.header != HEADER && carries(&place.header))
}
