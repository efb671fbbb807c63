//! Tokens as a server meets them: what of them is verified, what is on record, and what ends at the proxy.

use std::fmt::Write as _;

use opentelemetry_proto::tonic::common::v1::any_value::Value as Attribute;
use serde_json::{Value, json};

use crate::proofs::{Signer, now};
use crate::support::ask::{Ask, agent};
use crate::support::client::Answer;
use crate::support::otlp::{Receiver, value};
use crate::support::{App, Setup, hex, replace};

fn sha256(text: &str) -> String {
    hex(&palisade::authz::digest::sha256(text.as_bytes()))
}

/// An issuer, and a server that believes it.
struct World {
    issuer: Signer,
    app: App,
}

impl World {
    /// `edit` changes the targets of the default bundle.
    fn new(setup: Setup, edit: impl Fn(&str) -> String) -> Self {
        let issuer = Signer::new();
        std::fs::write(setup.path().join("jwks.json"), json!({"keys": [issuer.jwk()]}).to_string()).unwrap();
        let mut tables = String::new();
        for (header, role) in [("authorization", "user"), ("x-agent-token", "agent"), ("x-delegation", "chain")] {
            writeln!(tables, "[[token]]\nheader = \"{header}\"\nrole = \"{role}\"").unwrap();
        }
        let (bot, coder) = (agent("support-bot"), agent("coder"));
        write!(
            tables,
            "[[issuer]]\nname = \"idp\"\nissuer = \"https://idp.example\"\naudiences = [\"crm\"]\n\
             keys = {{ file = \"jwks.json\" }}\nrequired_claims = []\nmax_delegation_depth = 2\n\
             actors = {{ \"bot\" = \"{bot}\", \"coder\" = \"{coder}\" }}\n"
        )
        .unwrap();
        let targets = setup.bundle().join("targets.toml");
        replace(&targets, &edit(&std::fs::read_to_string(&targets).unwrap()));
        Self { issuer, app: setup.tables(&tables).set("comparison", "one_in", 1).start() }
    }

    fn token(&self, changes: &Value) -> String {
        let mut claims = json!({"iss": "https://idp.example", "sub": "alice", "aud": "crm", "client_id": "bot",
            "iat": now() - 60, "exp": now() + 600, "scope": "read"});
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        self.issuer.sign(&json!({"alg": "ES256", "typ": "at+jwt"}), &claims)
    }

    /// The bot's token of the user, behind the coder's.
    fn two(&self) -> (String, String) {
        let coder = self.token(&json!({"jti": "of-coder", "aud": "bot", "act": {"sub": "coder"}}));
        (self.token(&json!({"jti": "of-bot", "act": {"sub": "bot", "act": {"sub": "coder"}}})), coder)
    }

    fn check(&self, ask: Ask, headers: &[(&str, &str)]) -> Answer {
        self.app.check(&headers.iter().fold(ask, |ask, (name, value)| ask.header(name, value)))
    }

    /// The tokens on the record of a call.
    fn on_record(&self, answer: &Answer) -> Value {
        self.app.record(&answer.decision_id)["caller"].get("tokens").cloned().unwrap_or_default()
    }
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[test]
fn each_token_is_on_record_by_its_id_and_by_what_held_it() {
    let (receiver, address) = Receiver::start();
    let setup = Setup::new().set("telemetry", "otlp_endpoint", format!("\"http://{address}\"")).set(
        "telemetry",
        "permit_sample_ratio",
        "1.0",
    );
    let world = World::new(setup, str::to_owned);
    let (own, coder) = world.two();
    let agents = world.token(&json!({"sub": "bot"}));
    let own = bearer(&own);
    let headers = [("x-delegation", coder.as_str()), ("x-agent-token", &agents), ("authorization", &own)];
    let answer = world.check(Ask::permitted(), &headers);
    answer.assert_permit();
    let record = world.on_record(&answer);
    let of = |text: &str| sha256(text.trim_start_matches("Bearer ").rsplit_once('.').unwrap().0);
    assert_eq!(
        record,
        json!([
            {"role": "user", "issuer": "idp", "idSha256": sha256("of-bot"), "sha256": of(&own), "boundBy": ["act"],
             "subject": "alice"},
            {"role": "agent", "issuer": "idp", "sha256": of(&agents), "boundBy": ["client_id"], "subject": "bot"},
            {"role": "chain", "issuer": "idp", "idSha256": sha256("of-coder"), "sha256": of(&coder),
             "subject": "alice"},
        ])
    );
    let span = receiver.span(&answer.decision_id);
    let texts = |name: &str| {
        let Some(Attribute::ArrayValue(all)) = value(&span.attributes, name) else { panic!("{name}") };
        let text = |item: &Option<Attribute>| match item {
            Some(Attribute::StringValue(text)) => text.clone(),
            other => panic!("{other:?}"),
        };
        all.values.iter().map(|item| text(&item.value)).collect::<Vec<_>>()
    };
    assert_eq!(texts("authz.token.issuers"), ["idp", "idp", "idp"]);
    assert_eq!(texts("authz.token.ids"), ["of-bot", "", "of-coder"]);
    // The other agents' tokens end here, the caller's own do not.
    let removed = &answer.ok().headers_to_remove;
    assert!(removed.contains(&"x-delegation".to_owned()), "{removed:?}");
    assert!(!removed.iter().any(|name| headers[1..].iter().any(|(own, _)| name == own)), "{removed:?}");

    // Whoever stole it: which one it was is on record.
    let stolen = world.check(Ask::tool("coder", "query_customers", &json!({})), &headers[2..]);
    stolen.assert_denial("token_actor_mismatch", 401);
    assert_eq!(world.on_record(&stolen)[0]["idSha256"], sha256("of-bot"));
    // Of what is not right in itself nothing is.
    let cut = coder.rsplit_once('.').unwrap().0;
    let wrong = world.check(Ask::permitted(), &[("authorization", &own), ("x-delegation", cut)]);
    assert_eq!((wrong.reason.as_str(), world.on_record(&wrong)), ("token_malformed", Value::Null));
    let without = world.check(Ask::permitted(), &[]);
    without.assert_permit();
    assert_eq!(world.on_record(&without), Value::Null);

    // An id is the issuer's to choose, and may be anything: its digest is kept.
    for id in ["\"},{\\\u{202e}größe", &"ü".repeat(500)] {
        let answer = world.check(Ask::permitted(), &[("authorization", &bearer(&world.token(&json!({"jti": id}))))]);
        answer.assert_permit();
        let token = world.on_record(&answer)[0].clone();
        assert_eq!(token["idSha256"], sha256(id), "{token}");
    }
    assert_eq!(world.app.metric("palisade_comparison_differences_total", &[]), 0.0);
}

/// Signatures are what tokens cost: they are verified only where it is not known yet that nothing comes of it.
#[test]
fn what_nobody_uses_is_not_verified() {
    let edit = |targets: &str| targets.replacen("tokens = \"verify\"", "tokens = \"ignore\"", 1);
    let world = World::new(Setup::new(), edit);
    let status = || Ask::status("support-bot");
    let (own, coder) = world.two();
    let (own, rubbish) = (bearer(&own), "a.b.c, a.b.c");
    // The chain of two agents has one before the caller; a second one is not looked at, and neither is a first one then.
    let deep = world.check(status(), &[("authorization", &own), ("x-delegation", rubbish)]);
    deep.assert_denial("token_delegation_too_deep", 401);
    let one = world.check(status(), &[("authorization", &own), ("x-delegation", "a.b.c")]);
    assert_eq!(one.reason, "token_malformed");
    world.check(status(), &[("authorization", &own), ("x-delegation", &coder)]).assert_permit();
    // What is wrong with the caller's own comes first, whatever stands before it.
    let stranger = bearer(&world.token(&json!({"aud": "elsewhere"})));
    let wrong = world.check(status(), &[("x-delegation", rubbish), ("authorization", &stranger)]);
    assert_eq!(wrong.reason, "token_audience_mismatch");
    let alone = world.check(status(), &[("x-delegation", rubbish)]);
    assert_eq!(alone.reason, "token_chain_broken");

    // A target that ignores them has them verified by nobody, right or wrong.
    for headers in
        [&[("authorization", own.as_str()), ("x-delegation", &coder)][..], &[("authorization", "Basic eA==")]]
    {
        let answer = world.check(Ask::permitted(), headers);
        answer.assert_permit();
        assert_eq!(world.app.record(&answer.decision_id)["caller"], json!({"spiffeId": agent("support-bot")}));
        assert!(answer.ok().headers_to_remove.contains(&"x-delegation".to_owned()));
    }
    // Where no target is, they are no target's own.
    let nowhere = Ask { destination: String::new(), ..Ask::permitted() };
    assert_eq!(world.check(nowhere.clone(), &[("authorization", "Basic eA==")]).reason, "token_scheme_unsupported");
    assert_eq!(world.check(nowhere, &[("authorization", &own)]).reason, "target_unknown");
}
