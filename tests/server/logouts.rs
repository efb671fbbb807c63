//! Logout tokens of issuers, at the port that takes them.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::proofs::{Signer, now};
use crate::support::ask::{Ask, agent};
use crate::support::wire::{CHECK, Wire};
use crate::support::{App, Setup, connect_from, eventually};

const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
const LOGOUTS: &str = "palisade_logout_tokens_total";
const WAITING: &str = "palisade_logout_tokens_waiting";
const REFUSED: &str = "palisade_logout_connections_refused_total";

/// An issuer with a key of a name.
struct Issuer {
    kid: &'static str,
    key: Signer,
}

impl Issuer {
    fn new(kid: &'static str) -> Self {
        Self { kid, key: Signer::new() }
    }

    fn jwk(&self) -> Value {
        let mut jwk = self.key.jwk();
        jwk["kid"] = self.kid.into();
        jwk
    }

    fn sign(&self, typ: &str, claims: &Value, changes: &Value) -> String {
        let mut claims = claims.clone();
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(name);
            }
        }
        self.key.sign(&json!({"alg": "ES256", "typ": typ, "kid": self.kid}), &claims)
    }

    /// An access token of alice's.
    fn access(&self, changes: &Value) -> String {
        let claims = json!({"iss": "https://idp.example", "sub": "alice", "aud": "crm", "client_id": "bot", "jti": "t",
            "iat": now() - 60, "exp": now() + 600, "sid": "s1"});
        self.sign("at+jwt", &claims, changes)
    }

    fn logout(&self, changes: &Value) -> String {
        let claims = json!({"iss": "https://idp.example", "sub": "alice", "aud": "bot", "jti": "l", "iat": now(),
            "exp": now() + 120, "sid": "s1", "events": {EVENT: {}}});
        self.sign("logout+jwt", &claims, changes)
    }
}

/// A server that believes an issuer whose keys are there; `keys` is TOML.
fn setup(keys: &str) -> Setup {
    Setup::new()
        .set("sessions", "listen", "\"127.0.0.1:0\"")
        .set("sessions", "issued_before_start", "\"accept\"")
        .tables(&format!(
            "[[token]]\nheader = \"authorization\"\nrole = \"user\"\n[[token]]\nheader = \"x-delegation\"\nrole = \"chain\"\n\
             [[issuer]]\nname = \"idp\"\n\
             issuer = \"https://idp.example\"\naudiences = [\"crm\"]\nlogout_audiences = [\"bot\"]\n\
             actors = {{ \"bot\" = \"{}\" }}\nkeys = {keys}\n",
            agent("support-bot")
        ))
}

/// The same, with the keys in a file.
fn with_file(issuer: &Issuer) -> Setup {
    let setup = setup("{ file = \"jwks.json\" }");
    std::fs::write(setup.path().join("jwks.json"), json!({"keys": [issuer.jwk()]}).to_string()).unwrap();
    setup
}

/// An issuer's server of keys: it hangs up until it has some.
fn serve_keys() -> (SocketAddr, Arc<Mutex<Option<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, keys) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(None::<String>)));
    let served = keys.clone();
    // It ends with the process.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let Some(body) = served.lock().unwrap().clone() else { continue };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                match stream.read(&mut byte) {
                    Ok(1) => head.push(byte[0]),
                    _ => break,
                }
            }
            let length = body.len();
            let _gone = write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
        }
    });
    (address, keys)
}

fn port(app: &App) -> SocketAddr {
    app.running().logout.unwrap()
}

/// Sends a request; its status and head in lower case, or nothing if the connection was closed unanswered.
fn send(mut stream: TcpStream, request: &str) -> Option<(u16, String)> {
    stream.write_all(request.as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let status = text.split(' ').nth(1)?.parse().unwrap();
    Some((status, text.to_lowercase()))
}

fn post(path: &str, kind: &str, form: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: palisade\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{form}",
        form.len()
    )
}

fn log_out(app: &App, token: &str) -> (u16, String) {
    let form = format!("logout_token={token}");
    let request = post("/backchannel-logout", "application/x-www-form-urlencoded", &form);
    send(connect_from("127.0.0.1", port(app)), &request).unwrap()
}

fn ask(token: &str) -> Ask {
    Ask::permitted().header("authorization", &format!("Bearer {token}"))
}

fn count(app: &App, outcome: &str) -> f64 {
    app.metric(LOGOUTS, &[("outcome", outcome)])
}

#[test]
fn a_logout_is_told_at_a_port_of_its_own() {
    let issuer = Issuer::new("a");
    let app = with_file(&issuer).start();
    let (one, other) = (issuer.access(&json!({})), issuer.access(&json!({"sid": "s2"})));
    app.check(&ask(&one)).assert_permit();
    let (status, head) = log_out(&app, &issuer.logout(&json!({})));
    assert_eq!(status, 200, "{head}");
    assert!(head.contains("cache-control: no-store") && head.ends_with("\r\n\r\n"), "{head}");
    app.check(&ask(&one)).assert_denial("session_ended", 401);
    app.check(&ask(&other)).assert_permit();
    assert_eq!((count(&app, "accepted"), app.metric("palisade_session_ends_remembered", &[])), (1.0, 2.0));

    // Without its user: whoever's token names no session.
    let nameless = issuer.access(&json!({"sid": null, "sub": "bob"}));
    let nameless = nameless.as_str();
    app.check(&ask(nameless)).assert_permit();
    assert_eq!(log_out(&app, &issuer.logout(&json!({"sub": null, "sid": "s3"}))).0, 200);
    app.check(&ask(nameless)).assert_denial("session_ended", 401);
    app.check(&ask(&other)).assert_permit();

    // Nothing else is there, and it is nowhere else.
    let get =
        |path: &str| send(connect_from("127.0.0.1", port(&app)), &format!("GET {path} HTTP/1.1\r\nhost: p\r\n\r\n"));
    for (path, status) in [("/metrics", 404), ("/readyz", 404), ("/healthz", 404), ("/backchannel-logout", 405)] {
        assert_eq!(get(path).unwrap().0, status, "{path}");
    }
    let form = format!("logout_token={}", issuer.logout(&json!({})));
    let request = post("/backchannel-logout", "application/x-www-form-urlencoded", &form);
    assert_eq!(send(connect_from("127.0.0.1", app.running().admin), &request).unwrap().0, 404);
}

/// Whose session it was, or whose token somebody stole: on record, and never as the caller's.
#[test]
fn for_whom_a_token_is_is_on_record_if_its_issuer_signed_it() {
    let issuer = Issuer::new("a");
    let app = with_file(&issuer).start();
    assert_eq!(log_out(&app, &issuer.logout(&json!({}))).0, 200);
    let (ended, other) = (issuer.access(&json!({})), issuer.access(&json!({"sub": "bob", "sid": null})));
    let forged = Issuer::new("a").access(&json!({}));
    let expired = issuer.access(&json!({"iat": now() - 600, "exp": now() - 60}));
    let stolen = Ask { principal: agent("coder"), ..ask(&other) };
    let both = |ask: Ask, before: &str| ask.header("x-delegation", before);
    let (alice, bob) = (("alice", Some("s1")), ("bob", None));
    for (ask, reason, whose) in [
        (ask(&ended), "session_ended", vec![alice]),
        (both(ask(&other), &ended), "session_ended", vec![bob, alice]),
        (both(ask(&other), &other), "token_chain_broken", vec![bob, bob]),
        (stolen, "token_actor_mismatch", vec![bob]),
        (ask(&forged), "token_signature_invalid", vec![]),
        (ask(&expired), "token_expired", vec![]),
        (both(ask(&other), &forged), "token_signature_invalid", vec![]),
        (ask(&other), "", vec![bob]),
    ] {
        let answer = app.check(&ask);
        assert_eq!(answer.reason, reason);
        let caller = app.record(&answer.decision_id)["caller"].clone();
        let tokens = caller["tokens"].as_array().cloned().unwrap_or_default();
        let of = |token: &Value, name: &str| token[name].as_str().map(str::to_owned);
        let found: Vec<_> = tokens.iter().map(|token| (of(token, "subject"), of(token, "session"))).collect();
        let whose: Vec<_> = whose.iter().map(|(sub, sid)| (Some((*sub).to_owned()), sid.map(str::to_owned))).collect();
        assert_eq!(found, whose, "{reason}: {caller}");
        // Only of the one that is the caller's is the rest said.
        assert_eq!(caller.get("user").is_some(), reason.is_empty(), "{reason}: {caller}");
        assert!(caller.get("session").is_none(), "{reason}: {caller}");
    }
}

#[test]
fn what_is_no_logout_token_is_refused() {
    let issuer = Issuer::new("a");
    let app = with_file(&issuer).start();
    let good = issuer.logout(&json!({}));
    let form = "application/x-www-form-urlencoded";
    for (kind, body, status) in [
        (form, String::new(), 400),
        (form, "logout_token=".into(), 400),
        (form, "logout_token=a.b.c".into(), 400),
        (form, format!("logout_token={good}&logout_token={good}"), 400),
        (form, format!("token={good}"), 400),
        ("application/json", format!("logout_token={good}"), 400),
        (form, format!("logout_token={}", issuer.access(&json!({}))), 400),
        (form, format!("logout_token={}", Issuer::new("a").logout(&json!({}))), 400),
        (form, format!("logout_token={}", "x".repeat(20_000)), 413),
    ] {
        let (found, head) =
            send(connect_from("127.0.0.1", port(&app)), &post("/backchannel-logout", kind, &body)).unwrap();
        assert_eq!(found, status, "{kind} {body}: {head}");
    }
    assert_eq!((count(&app, "accepted"), count(&app, "waiting")), (0.0, 0.0));
    app.check(&ask(&issuer.access(&json!({})))).assert_permit();
}

/// Most issuers send it once.
#[test]
fn a_logout_token_waits_for_its_key() {
    let (old, new, rubbish) = (Issuer::new("old"), Issuer::new("new"), Issuer::new("new"));
    let (address, keys) = serve_keys();
    let publish = |issuers: &[&Issuer]| {
        let all: Vec<Value> = issuers.iter().map(|issuer| issuer.jwk()).collect();
        *keys.lock().unwrap() = Some(json!({ "keys": all }).to_string());
    };
    let source = format!("{{ url = \"http://{address}/jwks\", allow_private_addresses = true, refresh_seconds = 1 }}");
    let app = setup(&source).start();
    let tokens: Vec<String> = ["s1", "s2", "s3"].iter().map(|sid| old.access(&json!({"sid": sid}))).collect();
    let outcomes = || -> Vec<String> { tokens.iter().map(|token| app.check(&ask(token)).reason.clone()).collect() };
    let waiting = |number: f64| (app.metric(WAITING, &[("owner", "idp")]) == number).then_some(());

    // No keys are known at all.
    let first = old.logout(&json!({"sid": "s1"}));
    for _ in 0..2 {
        let (status, head) = log_out(&app, &first);
        assert!(status == 503 && head.contains("\r\nretry-after: 30\r\n"), "{head}");
    }
    assert!(waiting(1.0).is_some(), "it waits once, however often it comes");
    assert_eq!((count(&app, "waiting"), count(&app, "refused")), (2.0, 0.0));
    publish(&[&old]);
    eventually("the end that was told before the keys came", || (count(&app, "accepted") == 1.0).then_some(()));
    assert!(waiting(0.0).is_some());
    assert_eq!(outcomes(), ["session_ended", "", ""]);

    // A key that is not there yet; and somebody who only says so.
    assert_eq!(log_out(&app, &new.logout(&json!({"sid": "s2"}))).0, 503);
    assert_eq!(log_out(&app, &rubbish.logout(&json!({"sid": "s3"}))).0, 503);
    assert!(waiting(2.0).is_some());
    assert_eq!(outcomes(), ["session_ended", "", ""]);
    publish(&[&old, &new]);
    eventually("both to be done with", || waiting(0.0));
    assert_eq!((count(&app, "accepted"), count(&app, "refused")), (2.0, 1.0));
    assert_eq!(outcomes(), ["session_ended", "session_ended", ""]);
}

/// One issuer's rubbish has its own share, and what finds no place is counted.
#[test]
fn rubbish_with_unknown_keys_is_bounded_and_told() {
    let issuer = Issuer::new("a");
    let app = with_file(&issuer).start();
    let rubbish = Issuer::new("nobody");
    let honest = issuer.logout(&json!({}));
    for number in 0..513 {
        assert_eq!(log_out(&app, &rubbish.logout(&json!({"jti": number.to_string()}))).0, 503);
    }
    assert_eq!((count(&app, "waiting"), count(&app, "dropped")), (512.0, 1.0));
    assert_eq!(app.metric(WAITING, &[("owner", "idp")]), 512.0);
    // Of another issuer's name nothing is kept.
    assert_eq!(log_out(&app, &rubbish.logout(&json!({"iss": "https://other.example"}))).0, 400);
    // What can be believed needs no place.
    assert_eq!(log_out(&app, &honest).0, 200);
    assert_eq!(count(&app, "accepted"), 1.0);
}

/// Whoever opens connections and sends nothing whole makes room for whoever does.
#[test]
fn half_sent_requests_keep_no_logout_out() {
    let issuer = Issuer::new("a");
    let app = with_file(&issuer).start();
    let half = "POST /backchannel-logout HTTP/1.1\r\nhost: p\r\ncontent-type: application/x-www-form-urlencoded\r\n\
                content-length: 9999\r\n\r\nlogout_token=";
    let mut crowd: Vec<TcpStream> = ["127.0.0.2", "127.0.0.3"]
        .into_iter()
        .flat_map(|from| (0..16).map(move |_| from))
        .map(|from| {
            let mut stream = connect_from(from, port(&app));
            let _closed_already = stream.write_all(half.as_bytes());
            stream
        })
        .collect();
    for number in 0..5 {
        let sid = format!("s{number}");
        assert_eq!(log_out(&app, &issuer.logout(&json!({"sid": sid}))).0, 200);
        app.check(&ask(&issuer.access(&json!({"sid": sid})))).assert_denial("session_ended", 401);
    }
    assert!(app.metric(REFUSED, &[]) > 0.0, "those of one host are one peer's, and are counted");
    // Those that kept their places lose them for being slow, and are told nothing either.
    for stream in &mut crowd {
        let mut said = Vec::new();
        let _reset = stream.read_to_end(&mut said);
        assert!(said.is_empty(), "{}", String::from_utf8_lossy(&said));
    }
}

/// However it trickles.
#[test]
fn a_body_that_does_not_end_loses_its_place() {
    let issuer = Issuer::new("a");
    let app = with_file(&issuer).start();
    let mut slow = connect_from("127.0.0.1", port(&app));
    slow.write_all(b"POST /backchannel-logout HTTP/1.1\r\nhost: p\r\ncontent-length: 9999\r\n\r\n").unwrap();
    // A byte whenever nothing has come for so long.
    slow.set_read_timeout(Some(std::time::Duration::from_millis(50))).unwrap();
    let mut said = [0];
    let trickled = (0..9999).find(|_| {
        let _closed_already = slow.write_all(b"x");
        !matches!(slow.read(&mut said), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    });
    assert!(trickled.is_some() && said == [0], "closed, and not answered");
    assert_eq!(log_out(&app, &issuer.logout(&json!({}))).0, 200);
}

/// Each port has places of its own, and nobody takes all of them.
#[test]
fn a_crowd_at_one_port_keeps_nobody_from_the_other() {
    let issuer = Issuer::new("a");
    let app = with_file(&issuer).start();
    let crowd =
        |address: &str, at: SocketAddr| -> Vec<TcpStream> { (0..50).map(|_| connect_from(address, at)).collect() };
    let at_admin: Vec<_> = ["127.0.0.1", "127.0.0.2"].map(|from| crowd(from, app.running().admin)).into();
    assert_eq!(log_out(&app, &issuer.logout(&json!({}))).0, 200);
    drop(at_admin);

    let at_port = crowd("127.0.0.1", port(&app));
    eventually("those who made room", || {
        let text = send(connect_from("127.0.0.1", app.running().admin), "GET /metrics HTTP/1.1\r\nhost: p\r\n\r\n")?.1;
        (crate::support::metric(text.split_once("\r\n\r\n")?.1, REFUSED, &[]) >= 34.0).then_some(())
    });
    let form = format!("logout_token={}", issuer.logout(&json!({"sid": "s2"})));
    let request = post("/backchannel-logout", "application/x-www-form-urlencoded", &form);
    assert_eq!(send(connect_from("127.0.0.2", port(&app)), &request).unwrap().0, 200, "whoever comes last has a place");
    app.check(&ask(&issuer.access(&json!({"sid": "s4"})))).assert_permit();
    drop(at_port);
}

/// As long as calls are answered, sessions end.
#[test]
fn the_port_outlives_draining() {
    let issuer = Issuer::new("a");
    let mut app = with_file(&issuer).set("server", "drain_seconds", 30).start();
    let (admin, port) = (app.running().admin, port(&app));
    let wire = Wire::open(app.tcp());
    let mut held = wire.stream(CHECK, &[]);
    eventually("one check in flight", || (app.metric("palisade_checks_in_flight", &[]) == 1.0).then_some(()));
    let draining = app.drain_aside();
    eventually("503 while draining", || Some(crate::support::get(admin, "/readyz")).filter(|got| got.0 == 503));
    let form = format!("logout_token={}", issuer.logout(&json!({})));
    let request = post("/backchannel-logout", "application/x-www-form-urlencoded", &form);
    assert_eq!(send(connect_from("127.0.0.1", port), &request).unwrap().0, 200);
    held.send(&ask(&issuer.access(&json!({}))).framed(), true);
    held.reply().answer().assert_denial("session_ended", 401);
    assert!(draining.join().unwrap().in_time);
}
