//! The rules of one issuer of tokens, as configured. Each issuer has its own: what one may say, another may not.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, de};

use super::algorithm::Algorithm;

/// The rules for the access tokens of one issuer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// A short name of the operator's choice: the first part of the ids of its users and groups.
    pub name: String,
    /// Its `iss`, compared byte by byte.
    pub issuer: String,
    /// What Palisade's targets are called there: one of them has to be in `aud`.
    pub audiences: Vec<String>,
    /// Which signatures count.
    #[serde(default = "algorithms", deserialize_with = "algorithms_by_name")]
    pub algorithms: Vec<Algorithm>,
    /// Which `typ` an access token has: in lower case, without `application/`; `""` for none.
    #[serde(default = "types")]
    pub types: Vec<String>,
    /// Claims that a token has to have beside `iss`, `sub`, `aud` and `exp`.
    #[serde(default = "required_claims")]
    pub required_claims: Vec<String>,
    /// By how much its clock may differ, in seconds.
    #[serde(default = "leeway_seconds")]
    pub leeway_seconds: i64,
    /// Longest time from `iat` to `exp`, in seconds.
    #[serde(default = "max_lifetime_seconds")]
    pub max_lifetime_seconds: i64,
    /// The claim that names the user's groups.
    #[serde(default = "groups_claim")]
    pub groups_claim: String,
    /// Claims without one of which a token is about no user: for issuers whose tokens of agents have a `sub` of their own.
    #[serde(default)]
    pub user_claims: Vec<String>,
    /// Which workload an actor is, where its `sub` is not a SPIFFE ID itself: by `sub` of `act`, or by `client_id`.
    #[serde(default)]
    pub actors: BTreeMap<String, String>,
    /// Most agents in a chain of delegation.
    #[serde(default = "max_delegation_depth")]
    pub max_delegation_depth: usize,
    /// Whether a token counts that is bound neither to a certificate, nor to a key, nor to the workload that presents it.
    #[serde(default)]
    pub unbound: Unbound,
    /// For whom its logout tokens are (OpenID Connect Back-Channel Logout): its clients whose back channel leads here. Without
    /// one none are taken.
    #[serde(default)]
    pub logout_audiences: Vec<String>,
    /// Where its keys come from.
    pub keys: Source,
}

impl Issuer {
    /// A name of this issuer's, told apart from those of all others.
    #[must_use]
    pub fn own(&self, name: &str) -> String {
        format!("{}/{name}", self.name)
    }
}

/// What happens to a token that whoever steals it could use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unbound {
    /// It is refused.
    #[default]
    Deny,
    /// It counts.
    Accept,
}

fn algorithms() -> Vec<Algorithm> {
    vec![Algorithm::Es256, Algorithm::Ps256, Algorithm::Rs256, Algorithm::Ed25519]
}

fn algorithms_by_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Algorithm>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    let named = |name: String| {
        Algorithm::named(&name).ok_or_else(|| {
            let all = Algorithm::ALL.map(Algorithm::name).join(", ");
            de::Error::custom(format!("`{name}` is none of {all}"))
        })
    };
    names.into_iter().map(named).collect()
}

fn types() -> Vec<String> {
    vec!["at+jwt".into()]
}

/// Those of RFC 9068, section 2.2.
fn required_claims() -> Vec<String> {
    ["client_id", "iat", "jti"].map(String::from).into()
}

const fn leeway_seconds() -> i64 {
    5
}

const fn max_lifetime_seconds() -> i64 {
    3_600
}

fn groups_claim() -> String {
    "groups".into()
}

const fn max_delegation_depth() -> usize {
    4
}

/// A trust domain whose JWT-SVIDs are verified.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustDomain {
    /// Its name.
    pub name: String,
    /// Where its SPIFFE bundle comes from.
    pub keys: Source,
}

/// A day, in seconds.
pub const DAY_SECONDS: u64 = 24 * 3_600;

/// Where keys come from: `file`, `url`, `discovery` or `workload_api`, one of them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Source {
    /// A file with a JSON Web Key Set, or with a SPIFFE bundle.
    pub file: Option<PathBuf>,
    /// Its URL: `https`, or `http` to this machine itself where private addresses are allowed.
    pub url: Option<String>,
    /// Whether the issuer is asked for the URL (`/.well-known/openid-configuration`).
    pub discovery: bool,
    /// Whether the SPIFFE Workload API hands them out.
    pub workload_api: bool,
    /// With a `url`: the SPIFFE ID of the server there, which proves itself by that and not by its host's name (the profile
    /// `https_spiffe`; SPIFFE Federation, section 5.2.2).
    pub endpoint_spiffe_id: Option<String>,
    /// A file with a SPIFFE bundle of the trust domain, by whose authorities that server proves itself the first time.
    pub bootstrap_file: Option<PathBuf>,
    /// How often to look, in seconds, unless the provider says less often (`Cache-Control: max-age`), or a bundle at a URL
    /// something else (`spiffe_refresh_hint`).
    pub refresh_seconds: u64,
    /// How long keys count after they were last fetched, in seconds. After that there are none.
    pub max_age_seconds: u64,
    /// Whether the provider may have an address that is not reachable from everywhere: a private or a loopback one.
    pub allow_private_addresses: bool,
    /// Certificates, as PEM, of authorities that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Time for one exchange, from the name's resolution to the last byte, in milliseconds.
    pub timeout_ms: u64,
}

impl Default for Source {
    fn default() -> Self {
        Self {
            file: None,
            url: None,
            discovery: false,
            workload_api: false,
            endpoint_spiffe_id: None,
            bootstrap_file: None,
            refresh_seconds: 300,
            max_age_seconds: DAY_SECONDS,
            allow_private_addresses: false,
            ca_file: None,
            timeout_ms: 2_000,
        }
    }
}
