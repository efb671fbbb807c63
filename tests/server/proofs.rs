//! Proofs that tokens are the caller's own, and what is remembered of them while checks are served.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use envoy_types::pb::envoy::config::core::v3::HeaderValueOption;
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use palisade::authz::token::nonce::Nonces;
use serde_json::{Value, json};

use crate::support::ask::{Ask, agent};
use crate::support::client::{Answer, header};
use crate::support::{App, CLIENTS, Setup, eventually, run};

const REMEMBERED: &str = "palisade_proofs_remembered";
const KEY_FILE: &str = "nonce.key";

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
struct Client {
    key: Signer,
    token: String,
}

impl Client {
    /// And the setup of a server that believes its issuer.
    fn new() -> (Self, Setup) {
        Self::with(Setup::new())
    }

    fn with(setup: Setup) -> (Self, Setup) {
        let (issuer, key) = (Signer::new(), Signer::new());
        std::fs::write(setup.path().join("jwks.json"), json!({"keys": [issuer.jwk()]}).to_string()).unwrap();
        let setup = setup.tables(&format!(
            "[[token]]\nheader = \"authorization\"\nrole = \"user\"\n[[issuer]]\nname = \"idp\"\n\
             issuer = \"https://idp.example\"\naudiences = [\"crm\"]\nkeys = {{ file = \"jwks.json\" }}\n\
             actors = {{ \"bot\" = \"{}\" }}\n",
            agent("support-bot")
        ));
        let claims = json!({"iss": "https://idp.example", "sub": "alice", "aud": "crm", "client_id": "bot", "jti": "t",
            "iat": now() - 60, "exp": now() + 600, "cnf": {"jkt": key.thumbprint()}});
        let token = issuer.sign(&json!({"alg": "ES256", "typ": "at+jwt"}), &claims);
        (Self { key, token }, setup)
    }

    /// A proof of its own id, with changes.
    fn proof(&self, changes: &Value) -> String {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let id = format!("proof-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut claims = json!({"jti": id, "htm": "POST", "htu": "https://crm.example.org/mcp", "iat": now(),
            "ath": sha256(&self.token)});
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        self.key.sign(&json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": self.key.jwk()}), &claims)
    }

    fn ask(&self, ask: Ask, proof: &str) -> Ask {
        ask.header("authorization", &format!("DPoP {}", self.token)).header("dpop", proof)
    }

    fn permitted(&self, proof: &str) -> Ask {
        self.ask(Ask::permitted(), proof)
    }
}

/// The headers of an answer that reach the caller.
fn to_caller(answer: &Answer) -> &[HeaderValueOption] {
    match answer.response.http_response.as_ref().unwrap() {
        HttpResponse::OkResponse(ok) => &ok.response_headers_to_add,
        HttpResponse::DeniedResponse(denied) => &denied.headers,
        other => panic!("{other:?}"),
    }
}

/// The nonce of an answer: none, or exactly one that nobody keeps for somebody else.
fn nonce(answer: &Answer) -> Option<String> {
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
    let app = setup.set("dpop", "remembered_proofs", 2).start();
    let first = client.proof(&json!({}));
    app.check(&client.permitted(&first)).assert_permit();
    app.check(&client.permitted(&client.proof(&json!({})))).assert_permit();
    for _ in 0..5 {
        app.check(&client.permitted(&client.proof(&json!({})))).assert_denial("token_proofs_full", 503);
    }
    app.check(&client.permitted(&first)).assert_denial("token_proof_replayed", 401);
    assert_eq!(app.metric(REMEMBERED, &[]), 2.0);
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
    write_key(&setup, 7);
    let setup = setup.set("dpop", "nonces", "\"required\"").set("dpop", "nonce_seconds", SECONDS);
    let app = setup.set("dpop", "nonce_key_file", format!("{KEY_FILE:?}")).start();
    let with = |nonce: &str| app.check(&client.permitted(&client.proof(&json!({"nonce": nonce}))));

    let refused = app.check(&client.permitted(&client.proof(&json!({}))));
    assert_challenge(&refused, "token_proof_nonce_missing", "use_dpop_nonce");
    let handed_out = nonce(&refused).unwrap();
    let answer = with(&handed_out);
    answer.assert_permit();
    assert_eq!(nonce(&answer), None, "it is fresh");

    // Of the slice before: it counts, and the client gets another one. The slice may turn while this is asked.
    let nonces = Nonces::new(&[7; 32], SECONDS);
    let renewed = eventually("an answer within one slice", || {
        let slice = now() / SECONDS;
        let answer = with(&nonces.at(now() - SECONDS));
        (now() / SECONDS == slice).then_some(answer)
    });
    renewed.assert_permit();
    let fresh = nonce(&renewed).unwrap();
    with(&fresh).assert_permit();

    for wrong in [nonces.at(now() - 3 * SECONDS), Nonces::new(&[8; 32], SECONDS).at(now()), String::new()] {
        let refused = with(&wrong);
        assert_challenge(&refused, "token_proof_nonce_invalid", "use_dpop_nonce");
        with(&nonce(&refused).unwrap()).assert_permit();
    }
    // Another mistake is told first, and gets no nonce.
    let stolen = app.check(&client.permitted(&client.proof(&json!({"htu": "https://evil.example/mcp"}))));
    assert_challenge(&stolen, "token_proof_uri_mismatch", "invalid_dpop_proof");
    assert_eq!(nonce(&stolen), None);
}

/// Instances that share a key take one another's nonces; others do not, so that a proof is good for one of them alone.
#[test]
fn nonces_are_an_instance_s_own_unless_a_key_is_shared() {
    let start = |key: Option<u8>| {
        let setup = Setup::new().set("dpop", "nonces", "\"required\"");
        let setup = match key {
            None => setup,
            Some(byte) => {
                write_key(&setup, byte);
                setup.set("dpop", "nonce_key_file", format!("{KEY_FILE:?}"))
            }
        };
        let (client, setup) = Client::with(setup);
        (client, setup.start())
    };
    let of = |(client, app): &(Client, App), nonce: &str| {
        app.check(&client.permitted(&client.proof(&json!({"nonce": nonce})))).reason
    };
    let handed_out =
        |(client, app): &(Client, App)| nonce(&app.check(&client.permitted(&client.proof(&json!({}))))).unwrap();
    let (one, other, apart) = (start(Some(7)), start(Some(7)), start(None));
    assert_eq!(of(&other, &handed_out(&one)), "");
    assert_eq!(of(&apart, &handed_out(&one)), "token_proof_nonce_invalid");
    assert_eq!(of(&one, &handed_out(&apart)), "token_proof_nonce_invalid");
    assert_eq!(of(&apart, &handed_out(&apart)), "");
}

/// Nothing configured is silently ignored: a key that is none stops the start.
#[test]
fn without_its_key_nothing_starts() {
    let setup = Setup::new().set("dpop", "nonces", "\"required\"");
    let (setup, error) = setup.set("dpop", "nonce_key_file", format!("{KEY_FILE:?}")).refused();
    assert!(error.to_string().contains("nonce.key: cannot be read"), "{error}");
    std::fs::write(setup.path().join(KEY_FILE), "short").unwrap();
    std::fs::set_permissions(setup.path().join(KEY_FILE), std::fs::Permissions::from_mode(0o600)).unwrap();
    let (setup, error) = setup.refused();
    assert!(error.to_string().contains("exactly 32 bytes"), "{error}");
    write_key(&setup, 7);
    std::fs::set_permissions(setup.path().join(KEY_FILE), std::fs::Permissions::from_mode(0o644)).unwrap();
    let (setup, error) = setup.refused();
    assert!(error.to_string().contains("others may use it"), "{error}");
    write_key(&setup, 7);
    setup.start();
}

fn write_key(setup: &Setup, byte: u8) {
    let path = setup.path().join(KEY_FILE);
    std::fs::write(&path, [byte; 32]).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
