//! Proofs that tokens are the caller's own, and what is remembered of them while checks are served.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use envoy_types::pb::envoy::config::core::v3::HeaderValueOption;
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use palisade::authz::secret::Secret;
use palisade::authz::token::nonce::Nonces;
use serde_json::{Value, json};

use crate::shared_secret::sharing;
use crate::support::ask::{Ask, agent};
use crate::support::client::{Answer, header};
use crate::support::{CLIENTS, Setup, eventually, run};

const REMEMBERED: &str = "palisade_proofs_remembered";

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn sha256(text: &str) -> String {
    encode(digest(&SHA256, text.as_bytes()))
}

#[expect(clippy::disallowed_methods, reason = "a proof says when it was made")]
pub fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// Somebody who signs: an issuer, or a client.
pub struct Signer {
    pair: EcdsaKeyPair,
    x: String,
    y: String,
}

impl Signer {
    pub fn new() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let [x, y] = [1..33, 33..65].map(|at| encode(&pair.public_key().as_ref()[at]));
        Self { pair, x, y }
    }

    pub fn jwk(&self) -> Value {
        json!({"kty": "EC", "crv": "P-256", "x": self.x, "y": self.y})
    }

    fn thumbprint(&self) -> String {
        sha256(&format!(r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#, self.x, self.y))
    }

    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", encode(signature))
    }
}

/// An agent with a token of the user that is bound to its key.
pub struct Client {
    issuer: Arc<Signer>,
    key: Signer,
    token: String,
    /// Its service account.
    name: &'static str,
}

impl Client {
    /// And the setup of a server that believes its issuer.
    pub fn new() -> (Self, Setup) {
        Self::with(Setup::new())
    }

    pub fn with(setup: Setup) -> (Self, Setup) {
        let issuer = Arc::new(Signer::new());
        std::fs::write(setup.path().join("jwks.json"), json!({"keys": [issuer.jwk()]}).to_string()).unwrap();
        let setup = setup.tables(&format!(
            "[[token]]\nheader = \"authorization\"\nrole = \"user\"\n[[issuer]]\nname = \"idp\"\n\
             issuer = \"https://idp.example\"\naudiences = [\"crm\"]\nkeys = {{ file = \"jwks.json\" }}\n\
             actors = {{ \"support-bot\" = \"{}\", \"analyst\" = \"{}\" }}\n",
            agent("support-bot"),
            agent("analyst")
        ));
        (Self::of(issuer, "support-bot"), setup)
    }

    fn of(issuer: Arc<Signer>, name: &'static str) -> Self {
        let key = Signer::new();
        let claims = json!({"iss": "https://idp.example", "sub": "alice", "aud": "crm", "client_id": name, "jti": "t",
            "iat": now() - 60, "exp": now() + 600, "cnf": {"jkt": key.thumbprint()}});
        let token = issuer.sign(&json!({"alg": "ES256", "typ": "at+jwt"}), &claims);
        Self { issuer, key, token, name }
    }

    /// The same agent, with a key and a token more.
    fn with_another_key(&self) -> Self {
        Self::of(self.issuer.clone(), self.name)
    }

    /// Another agent.
    fn colleague(&self) -> Self {
        Self::of(self.issuer.clone(), "analyst")
    }

    /// A proof of its own id, with changes.
    pub fn proof(&self, changes: &Value) -> String {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let id = format!("proof-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut claims = json!({"jti": id, "htm": "POST", "htu": "https://crm.example.org/mcp", "iat": now(),
            "ath": sha256(&self.token)});
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        self.key.sign(&json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": self.key.jwk()}), &claims)
    }

    pub fn ask(&self, ask: Ask, proof: &str) -> Ask {
        ask.header("authorization", &format!("DPoP {}", self.token)).header("dpop", proof)
    }

    pub fn permitted(&self, proof: &str) -> Ask {
        self.ask(Ask { principal: agent(self.name), ..Ask::permitted() }, proof)
    }
}

/// The headers of an answer that reach the caller.
pub fn to_caller(answer: &Answer) -> &[HeaderValueOption] {
    match answer.response.http_response.as_ref().unwrap() {
        HttpResponse::OkResponse(ok) => &ok.response_headers_to_add,
        HttpResponse::DeniedResponse(denied) => &denied.headers,
        other => panic!("{other:?}"),
    }
}

/// The nonce of an answer: none, or exactly one that nobody keeps for somebody else.
pub fn nonce(answer: &Answer) -> Option<String> {
    let all = to_caller(answer);
    let has = |name: &str| all.iter().any(|header| header.header.as_ref().unwrap().key == name);
    assert_eq!(has("dpop-nonce"), has("cache-control"));
    has("dpop-nonce").then(|| {
        assert_eq!(header(all, "cache-control"), "no-store");
        header(all, "dpop-nonce")
    })
}

#[track_caller]
fn assert_challenge(answer: &Answer, reason: &str, error: &str) {
    answer.assert_denial(reason, 401);
    let challenge = header(to_caller(answer), "www-authenticate");
    assert!(challenge.starts_with(&format!("DPoP error=\"{error}\", ")), "{challenge}");
    assert!(challenge.contains(", algs=\"ES256 "), "{challenge}");
}

#[test]
fn a_proof_is_used_once_whatever_comes_of_it() {
    let (client, setup) = Client::new();
    let mut app = setup.set("comparison", "one_in", 1).start();
    let (first, second) = (client.proof(&json!({"jti": "jti-of-the-first"})), client.proof(&json!({})));
    app.check(&client.permitted(&first)).assert_permit();
    let replayed = app.check(&client.permitted(&first));
    assert_challenge(&replayed, "token_proof_replayed", "invalid_dpop_proof");
    app.check(&client.permitted(&second)).assert_permit();
    // Signed anew, with an id that was used.
    let again = client.proof(&json!({"jti": "jti-of-the-first", "iat": now() - 1}));
    assert_challenge(&app.check(&client.permitted(&again)), "token_proof_replayed", "invalid_dpop_proof");
    // What the policies forbid, and what cannot be read, uses it up as well.
    for (ask, reason) in [(Ask::forbidden(), "policy_forbids"), (Ask::mcp("support-bot", "no JSON"), "json_malformed")]
    {
        let proof = client.proof(&json!({}));
        assert_eq!(app.check(&client.ask(ask, &proof)).reason, reason);
        assert_eq!(app.check(&client.permitted(&proof)).reason, "token_proof_replayed");
    }
    // What is wrong with it, or with who sends it, does not.
    let proof = client.proof(&json!({}));
    assert_eq!(
        app.check(&client.ask(Ask::tool("coder", "query_customers", &json!({})), &proof)).reason,
        "token_actor_mismatch"
    );
    assert_eq!(app.check(&client.permitted(&proof).header("dpop", &proof)).reason, "token_proof_duplicate");
    app.check(&client.permitted(&proof)).assert_permit();
    assert_eq!(app.metric(REMEMBERED, &[]), 5.0);
    // Whoever compares reads each call anew, and uses nothing up.
    eventually("comparisons", || (app.metric("palisade_comparisons_total", &[]) >= 3.0).then_some(()));
    assert_eq!(app.metric("palisade_comparison_differences_total", &[]), 0.0);
    assert_eq!(app.metric(REMEMBERED, &[]), 5.0);
    let record = app.record(&replayed.decision_id);
    assert_eq!((&record["verdict"], &record["reason"]), (&json!("DENIAL"), &json!("token_proof_replayed")));
    assert_eq!(record["caller"]["user"], "idp/alice");
    assert!(app.drain().in_time);
    let records = std::fs::read_to_string(app.records_path()).unwrap();
    for secret in ["jti-of-the-first", first.rsplit('.').next().unwrap(), &client.key.x, &client.token] {
        assert!(!records.contains(secret), "{secret}");
    }
}

#[test]
fn of_uses_at_one_moment_one_is_permitted() {
    let (client, setup) = Client::new();
    let app = setup.set("runtime", "worker_threads", 4).start();
    // Connections of their own, so that several threads decide.
    let clients: Vec<_> = (0..8).map(|_| crate::support::client::Client::tcp(app.tcp())).collect();
    clients.iter().for_each(|own| own.check(&Ask::status("coder")).assert_permit());
    for _ in 0..20 {
        let ask = client.permitted(&client.proof(&json!({})));
        let asked = clients.iter().map(|own| {
            let (own, ask) = (own.clone(), ask.clone());
            CLIENTS.spawn(async move { own.ask(&ask).await.unwrap() })
        });
        let asked: Vec<_> = asked.collect();
        let answers: Vec<_> = asked.into_iter().map(|answer| run(answer).unwrap()).collect();
        let (permits, replays) = (
            answers.iter().filter(|answer| answer.permits).count(),
            answers.iter().filter(|answer| answer.reason == "token_proof_replayed").count(),
        );
        assert_eq!((permits, replays), (1, 7));
    }
}

#[test]
fn nothing_is_forgotten_to_make_room() {
    let (client, setup) = Client::new();
    let other = client.colleague();
    let app = setup.set("dpop", "remembered_proofs", 3).set("dpop", "remembered_proofs_per_agent", 2).start();
    let permits = |client: &Client| app.check(&client.permitted(&client.proof(&json!({})))).assert_permit();
    let first = client.proof(&json!({}));
    app.check(&client.permitted(&first)).assert_permit();
    permits(&client);
    // Its share: that is its own doing, and nobody else's trouble.
    for _ in 0..5 {
        app.check(&client.permitted(&client.proof(&json!({})))).assert_denial("token_proofs_too_many", 429);
        // Another key is no other agent.
        let key = client.with_another_key();
        app.check(&key.permitted(&key.proof(&json!({})))).assert_denial("token_proofs_too_many", 429);
    }
    app.check(&client.permitted(&first)).assert_denial("token_proof_replayed", 401);
    permits(&other);
    // All there is room for.
    app.check(&other.permitted(&other.proof(&json!({})))).assert_denial("token_proofs_full", 503);
    app.check(&client.permitted(&first)).assert_denial("token_proof_replayed", 401);
    assert_eq!(app.metric(REMEMBERED, &[]), 3.0);
    // Who needs no proof is not held up.
    app.check(&Ask::permitted()).assert_permit();
}

/// What one process remembered the next does not know, so a proof that it may have seen counts no more.
#[test]
fn a_start_forgets_nothing_that_could_be_sent_again() {
    let (client, setup) = Client::new();
    let before = client.proof(&json!({"iat": now() - 1}));
    let app = setup.start();
    app.check(&client.permitted(&before)).assert_denial("token_proof_replayed", 401);
    app.check(&client.permitted(&client.proof(&json!({})))).assert_permit();
}

#[test]
fn a_nonce_is_asked_for_handed_out_and_renewed() {
    const SECONDS: i64 = 3_600;
    let (client, setup) = Client::new();
    let setup = setup.set("dpop", "nonces", "\"required\"").set("dpop", "nonce_seconds", SECONDS);
    let app = sharing(setup, 7).start();
    let with = |nonce: &str| app.check(&client.permitted(&client.proof(&json!({"nonce": nonce}))));

    let refused = app.check(&client.permitted(&client.proof(&json!({}))));
    assert_challenge(&refused, "token_proof_nonce_missing", "use_dpop_nonce");
    let handed_out = nonce(&refused).unwrap();
    let answer = with(&handed_out);
    answer.assert_permit();
    assert_eq!(nonce(&answer), None, "it is fresh");

    // Of the slice before: it counts, and the client gets another one. The slice may turn while this is asked.
    let nonces = Secret::new(&[7; 32]).nonces(SECONDS).unwrap();
    let renewed = eventually("an answer within one slice", || {
        let slice = now() / SECONDS;
        let answer = with(&nonces.at(now() - SECONDS));
        (now() / SECONDS == slice).then_some(answer)
    });
    renewed.assert_permit();
    let fresh = nonce(&renewed).unwrap();
    with(&fresh).assert_permit();

    for wrong in [nonces.at(now() - 3 * SECONDS), Nonces::new(&[7; 32], SECONDS).at(now()), String::new()] {
        let refused = with(&wrong);
        assert_challenge(&refused, "token_proof_nonce_invalid", "use_dpop_nonce");
        with(&nonce(&refused).unwrap()).assert_permit();
    }
    // Another mistake is told first, and gets no nonce.
    let stolen = app.check(&client.permitted(&client.proof(&json!({"htu": "https://evil.example/mcp"}))));
    assert_challenge(&stolen, "token_proof_uri_mismatch", "invalid_dpop_proof");
    assert_eq!(nonce(&stolen), None);
}
