//! Hostile proofs, each beside one that differs in nothing else and is right: `proofs.json`.
//!
//! A case changes one thing of a good call of the agent `bot`, whose token is bound to its key: of the proof as cases of tokens
//! do, and also its `jwk`; or of the request. The way of the token is that of the server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use palisade::authz::call::origin::Origin;
use palisade::authz::decision::{Decision, Verdict};
use palisade::authz::digest::sha256;
use palisade::authz::reason::Reason;
use palisade::authz::request::{Headers, Request};
use palisade::authz::token::nonce::Nonces;
use palisade::authz::token::presented::{Place, Role};
use palisade::authz::token::verified::{Authority, Rules};
use palisade::authz::token::{Keyring, Tokens};
use palisade::tokens::{Keyrings, Verifier};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::caller::{World, change, own_rules};
use super::{Change, SIGNERS, T0, caller, ec_jwk, encode, jws, keyring, merged, okp_jwk, rsa_jwk, token};
use crate::support;
use palisade::authz::token::issuer::Unbound;

#[derive(Debug, Deserialize)]
struct Case {
    id: String,
    why: String,
    /// `right`, or the code of a reason.
    reason: String,
    near: Option<Map<String, Value>>,
    #[serde(flatten)]
    change: Map<String, Value>,
}

/// What is different from a good call.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Differs {
    /// The proof, as of tokens.
    proof: Map<String, Value>,
    /// Merged into its `jwk`.
    jwk: Map<String, Value>,
    /// Whose key its `jwk` is: `client` unless said otherwise.
    jwk_of: Option<String>,
    /// To whose key the token is bound, or `none`.
    bound_to: Option<String>,
    /// Other claims of the token.
    token: Map<String, Value>,
    /// The claims of another token, for which the proof is.
    proof_for: Option<Map<String, Value>>,
    /// Instead of one header: `none`, `twice`, `joined`, `in_capitals`.
    sent: Option<String>,
    scheme: Option<String>,
    header: Option<String>,
    method: Option<String>,
    path: Option<String>,
    host: Option<String>,
    /// The target's, instead of its own.
    origins: Option<Vec<String>>,
    /// Nonces are required, and the proof has the one of so many seconds ago.
    nonce_age: Option<i64>,
    nonces: bool,
}

fn jwk_of(who: &str) -> Value {
    let signers = &*SIGNERS;
    let mut jwk = match who {
        "client" => ec_jwk("k", "sig", &signers.client),
        "thief" => ec_jwk("k", "sig", &signers.thief),
        "ed" => okp_jwk("k", &signers.ed),
        "rsa" => rsa_jwk("k", &signers.other),
        other => panic!("{other}"),
    };
    for name in ["kid", "use"] {
        jwk.as_object_mut().unwrap().remove(name);
    }
    jwk
}

/// RFC 7638: all that makes a key, in order.
fn thumbprint(who: &str) -> String {
    let members: BTreeMap<String, Value> = serde_json::from_value(jwk_of(who)).unwrap();
    encode(sha256(json!(members).to_string().as_bytes()))
}

/// The default bundle, where nothing else is asked for.
static PLAIN: LazyLock<World> = LazyLock::new(|| World::new([]));

fn nonces() -> Nonces {
    Nonces::new(&[7; 32], 60)
}

impl Differs {
    fn token(&self, claims: &Map<String, Value>) -> String {
        let cnf = match self.bound_to.as_deref().unwrap_or("client") {
            "none" => json!({}),
            who => json!({"cnf": {"jkt": thumbprint(who)}}),
        };
        token(&change(json!({ "claims": merged(cnf, claims) })))
    }

    fn proof(&self) -> String {
        let of: Change = serde_json::from_value(Value::Object(self.proof.clone())).unwrap();
        let jwk = merged(jwk_of(self.jwk_of.as_deref().unwrap_or("client")), &self.jwk);
        let header = json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": jwk});
        let token = self.token(self.proof_for.as_ref().unwrap_or(&self.token));
        let mut claims = json!({"jti": "p", "htm": "POST", "htu": "https://crm.example.org/mcp", "iat": T0,
            "ath": encode(sha256(token.as_bytes()))});
        if let Some(age) = self.nonce_age {
            claims["nonce"] = nonces().at(T0 - age).into();
        }
        jws(&of, header, claims, "client")
    }

    pub fn request(&self) -> Request<'static> {
        let mut request = caller::request("");
        let http = request.http.as_mut().unwrap();
        http.method = self.method.clone().unwrap_or_else(|| "POST".into()).into();
        http.path = self.path.clone().unwrap_or_else(|| "/mcp".into()).into();
        http.host = self.host.clone().unwrap_or_else(|| "crm.example.org".into()).into();
        let own = http.headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let (token, proof) = (self.token(&self.token), self.proof());
        let token = match (self.header.as_deref(), self.scheme.as_deref().unwrap_or("DPoP")) {
            (Some(header), _) => (header.to_owned(), token),
            (None, scheme) => ("authorization".to_owned(), format!("{scheme} {token}")),
        };
        let proofs = match self.sent.as_deref() {
            None => vec![("dpop", proof)],
            Some("none") => Vec::new(),
            Some("twice") => vec![("dpop", proof.clone()), ("dpop", proof)],
            Some("joined") => vec![("dpop", format!("{proof},{proof}"))],
            Some("in_capitals") => vec![("DPoP", proof)],
            Some(other) => panic!("{other}"),
        };
        let proofs = proofs.into_iter().map(|(name, proof)| (name.to_owned(), proof));
        let all: Vec<_> = own.chain([token]).chain(proofs).collect();
        http.headers = Headers::new(all, false);
        request
    }

    pub fn rules(&self) -> Rules {
        let mut rules = own_rules(Unbound::Deny);
        rules.places = [("authorization", Role::User), ("x-user-token", Role::User)]
            .map(|(header, role)| Place { header: header.into(), role })
            .into();
        rules.proofs.nonces = (self.nonces || self.nonce_age.is_some()).then(nonces);
        rules
    }

    fn decide(&self, own: &World) -> Decision {
        let (rules, request) = (Arc::new(self.rules()), self.request());
        let tokens = Verifier::new(rules.clone(), Box::new(Ring)).of(&request, T0);
        match &self.origins {
            None => own.decide_request(&rules, &request, tokens),
            Some(origins) => World::with_origins(origins).decide_request(&rules, &request, tokens),
        }
    }
}

pub struct Ring;

impl Keyrings for Ring {
    fn keyring(&self) -> Arc<Keyring> {
        Arc::new(keyring())
    }

    fn lacks(&self, authority: &Authority) {
        panic!("{authority:?}");
    }
}

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("proofs.json")).unwrap()
}

pub fn differs(change: Map<String, Value>) -> Differs {
    serde_json::from_value(Value::Object(change.clone())).unwrap_or_else(|error| panic!("{error}: {change:?}"))
}

/// The reasons that have a case here, or a test with a server that remembers.
pub fn reasons() -> BTreeSet<String> {
    cases().into_iter().map(|case| case.reason).filter(|reason| reason != "right").collect()
}

#[test]
fn each_hostile_proof_is_refused_for_its_own_reason() {
    let world = &*PLAIN;
    let (mut findings, mut ids) = (Vec::new(), BTreeSet::new());
    for case in cases() {
        assert!(ids.insert(case.id.clone()), "{}: twice", case.id);
        let decision = differs(case.change).decide(world);
        let said = decision.reason().map_or("right", Reason::code);
        if said != case.reason {
            findings.push(format!("{} ({}): {said}, not {}: {:?}", case.id, case.why, case.reason, decision.verdict));
        }
        // Nothing is used up by a proof that is not right, and everything by one that is.
        let is_used = decision.possession.is_some();
        let may_be_used = case.reason == "right" || !decision.evaluations.is_empty();
        if is_used && !may_be_used && !case.reason.starts_with("path_") {
            findings.push(format!("{}: used up", case.id));
        }
        if let Verdict::Denial(denial) = &decision.verdict {
            let detail = denial.detail.as_deref().unwrap_or_default();
            if detail.is_empty() || ["evil.example", "mallory", "secret"].iter().any(|value| detail.contains(value)) {
                findings.push(format!("{}: {detail}", case.id));
            }
        }
        if let Some(near) = case.near {
            let near = differs(near).decide(world);
            if near.reason().is_some() {
                findings.push(format!("{}: the one beside it is refused: {:?}", case.id, near.verdict));
            }
        }
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
    assert!(ids.len() > 90, "{}", ids.len());
}

/// Whatever else is wrong with a call whose proof is right, the proof is used up; and a proof beside a token that is not the caller's
/// is not.
#[test]
fn a_right_proof_is_used_up_by_whatever_it_came_with() {
    let world = &*PLAIN;
    let used = |change: Value| {
        let Value::Object(change) = change else { panic!("{change}") };
        let decision = differs(change).decide(world);
        (decision.reason(), decision.possession.map(|proof| proof.until))
    };
    assert_eq!(used(json!({})), (None, Some(T0 + 60)));
    // Read, and refused behind the tokens.
    let get = json!({"method": "PUT", "proof": {"claims": {"htm": "PUT"}}});
    assert_eq!(used(get), (Some(Reason::MethodUnsupported), Some(T0 + 60)));
    let other = "spiffe://example.org/ns/agents/sa/other";
    assert_eq!(used(json!({"token": {"client_id": other}})), (Some(Reason::TokenActorMismatch), None));
    assert_eq!(used(json!({"token": {"exp": T0 - 60, "iat": T0 - 600}})), (Some(Reason::TokenExpired), None));
}

/// A fresh nonce is for whom it is of use: who lacks one, and who has an old one.
#[test]
fn a_nonce_is_handed_out_where_it_is_needed() {
    let world = &*PLAIN;
    let nonce = |change: Value| {
        let Value::Object(change) = change else { panic!("{change}") };
        let decision = differs(change).decide(world);
        (decision.reason(), decision.nonce)
    };
    let fresh = Some(nonces().at(T0));
    assert_eq!(nonce(json!({"nonces": true})), (Some(Reason::TokenProofNonceMissing), fresh.clone()));
    assert_eq!(nonce(json!({"nonce_age": 120})), (Some(Reason::TokenProofNonceInvalid), fresh.clone()));
    assert_eq!(nonce(json!({"nonce_age": 60})), (None, fresh));
    assert_eq!(nonce(json!({"nonce_age": 0})), (None, None));
    assert_eq!(nonce(json!({})), (None, None));
    let unsigned = json!({"nonces": true, "proof": {"sign": "thief"}});
    assert_eq!(nonce(unsigned), (Some(Reason::TokenProofSignatureInvalid), None));
}

/// Whether policies see that the token is bound: to a key alone, of a client that is mapped to no workload.
#[test]
fn a_proof_binds_a_token_and_delegates_nothing() {
    let bound = "context has session && context.session.bound && !(context has delegation)";
    let world = World::new([bound]);
    let Value::Object(unmapped) = json!({"token": {"client_id": "unmapped"}}) else { panic!() };
    let decision = differs(unmapped.clone()).decide(&world);
    assert_eq!(decision.reason(), None);
    assert!(support::policies(&decision).contains(&"asked 0".to_owned()));
    let Value::Object(bearer) = json!({"bound_to": "none", "scheme": "Bearer", "sent": "none"}) else { panic!() };
    let decision = differs(unmapped.into_iter().chain(bearer).collect()).decide(&world);
    assert_eq!(decision.reason(), Some(Reason::TokenUnbound));
}

/// Where no token is there, a proof is the target's own matter: that of a token endpoint, for one.
#[test]
fn a_proof_without_a_token_is_nobody_s() {
    let world = &*PLAIN;
    let differs = Differs::default();
    let mut request = differs.request();
    let http = request.http.as_mut().unwrap();
    let rest: Vec<_> = http.headers.iter().filter(|(name, _)| *name != "authorization").collect();
    http.headers = Headers::new(
        rest.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<Vec<_>>(),
        false,
    );
    let rules = Arc::new(differs.rules());
    let tokens = Verifier::new(rules.clone(), Box::new(Ring)).of(&request, T0);
    assert!(matches!(tokens, Tokens::Absent));
    let decision = world.decide_request(&rules, &request, tokens);
    assert_eq!((decision.reason(), decision.possession), (None, None));
}

impl World {
    /// With other origins of the target.
    fn with_origins(origins: &[String]) -> Self {
        let all: Vec<_> = origins.iter().map(|text| Origin::try_from(text.clone()).unwrap()).collect();
        let list = all.iter().map(|origin| format!("{:?}", origin.as_str())).collect::<Vec<_>>().join(", ");
        Self::edited([], |targets| {
            targets.replacen("origins = [\"https://crm.example.org\"]", &format!("origins = [{list}]"), 1)
        })
    }
}
