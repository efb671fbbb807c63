//! What clients are given to bring back, at instances that share a secret and at others.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::proofs::{Client, nonce};
use crate::support::ask::{Ask, agent};
use crate::support::{App, Setup};

const FILE: &str = "palisade.key";

/// With a secret that has this byte 32 times.
pub fn sharing(setup: Setup, byte: u8) -> Setup {
    write(&setup, byte);
    setup.set("secret", "file", format!("{FILE:?}"))
}

fn write(setup: &Setup, byte: u8) {
    let path = setup.path().join(FILE);
    std::fs::write(&path, [byte; 32]).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn with(secret: Option<u8>, setup: Setup) -> Setup {
    match secret {
        None => setup,
        Some(byte) => sharing(setup, byte),
    }
}

/// Instances that share a secret take one another's nonces; others do not, so that a proof is good for one of them alone.
#[test]
fn nonces_are_an_instance_s_own_unless_a_secret_is_shared() {
    let start = |secret| {
        let (client, setup) = Client::with(with(secret, Setup::new().set("dpop", "nonces", "\"required\"")));
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

/// A call that the user has to log in for, by a client that can open a URL; it comes back with a state.
fn asking(client: &Client, limit: u32, state: Option<&str>) -> Ask {
    let capabilities = json!({"elicitation": {"url": {}}});
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": capabilities});
    let mut params =
        json!({"name": "query_customers", "arguments": {"segment": "startup", "limit": limit}, "_meta": meta});
    if let Some(state) = state {
        params["inputResponses"] = json!({state: {"action": "accept"}});
    }
    let call = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params});
    let mut ask = Ask::mcp("support-bot", call.to_string());
    ask.headers.retain(|(name, _)| name != "mcp-protocol-version");
    let ask = ask
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "tools/call")
        .header("mcp-name", "query_customers");
    client.ask(ask, &client.proof(&json!({})))
}

/// An instance that shares a secret opens what the other sealed, and holds the client to it; another passes over it, and asks anew.
#[test]
fn states_are_an_instance_s_own_unless_a_secret_is_shared() {
    let start = |secret| {
        let (client, setup) = Client::with(with(secret, Setup::new()));
        let targets = setup.bundle().join("targets.toml");
        let text = std::fs::read_to_string(&targets).unwrap();
        let text =
            text.replacen("tokens = \"verify\"", "tokens = \"verify\"\nstep_up_url = \"https://login.example.org\"", 1);
        std::fs::write(&targets, text).unwrap();
        let login = format!(
            "@id(\"login\") @reason(\"r\") @step_up(\"mfa\") forbid (principal == Agent::\"{}\", action, resource);",
            agent("support-bot")
        );
        std::fs::write(setup.bundle().join("policies/login.cedar"), login).unwrap();
        (client, setup.start())
    };
    let (one, other, apart, own) = (start(Some(7)), start(Some(7)), start(Some(8)), start(None));
    let reason =
        |(client, app): &(Client, App), limit, state: &str| app.check(&asking(client, limit, Some(state))).reason;
    let asked = one.1.check(&asking(&one.0, 3, None));
    assert_eq!(asked.reason, "step_up_required");
    let body: Value = serde_json::from_str(&asked.body).unwrap();
    let state = body["result"]["inputRequests"].as_object().unwrap().keys().next().unwrap().clone();
    for instance in [&one, &other] {
        assert_eq!(reason(instance, 3, &state), "step_up_required", "it is for this call, and permits nothing");
        assert_eq!(reason(instance, 4, &state), "request_state_invalid", "and for no other");
    }
    for instance in [&apart, &own] {
        assert_eq!(reason(instance, 3, &state), "step_up_required");
        assert_eq!(reason(instance, 4, &state), "step_up_required", "whatever it was for, nobody here knows");
    }
}

/// Nothing configured is silently ignored: a file that holds no secret stops the start.
#[test]
fn without_its_secret_nothing_starts() {
    let (setup, error) = Setup::new().set("secret", "file", format!("{FILE:?}")).refused();
    assert!(error.to_string().contains("palisade.key: cannot be read"), "{error}");
    std::fs::write(setup.path().join(FILE), "short").unwrap();
    std::fs::set_permissions(setup.path().join(FILE), std::fs::Permissions::from_mode(0o600)).unwrap();
    let (setup, error) = setup.refused();
    assert!(error.to_string().contains("exactly 32 bytes"), "{error}");
    write(&setup, 7);
    std::fs::set_permissions(setup.path().join(FILE), std::fs::Permissions::from_mode(0o644)).unwrap();
    let (setup, error) = setup.refused();
    assert!(error.to_string().contains("others may use it"), "{error}");
    write(&setup, 7);
    setup.start();
}
