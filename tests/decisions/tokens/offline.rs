//! `palisade check` with tokens: verified with keys from files at the moment of the capture, or it says why not.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::{SIGNERS, rsa_jwk, token};
use crate::support;

const CODER: &str = "spiffe://example.org/ns/agents/sa/coder";
const CONFIG: &str = r#"
[[listener]]
tcp = "127.0.0.1:0"
[identity]
trust_domains = ["example.org"]
[[token]]
header = "authorization"
role = "user"
[[issuer]]
name = "silent"
issuer = "https://silent.example"
audiences = ["https://crm.example/mcp"]
keys = { discovery = true }
[[issuer]]
name = "idp"
issuer = "https://idp.example"
audiences = ["https://crm.example/mcp"]
keys = { file = "jwks.json" }
actors = { "bot" = "spiffe://example.org/ns/agents/sa/coder" }
"#;

/// A bundle whose status page does this with tokens, beside a configuration.
fn folder(tokens: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut files = support::default_files();
    let targets = String::from_utf8(files["targets.toml"].clone()).unwrap();
    let targets = targets.replace("name = \"crm-status\"", &format!("name = \"crm-status\"\ntokens = \"{tokens}\""));
    files.insert("targets.toml".into(), targets.into_bytes());
    for (name, bytes) in files {
        let path = folder.path().join("bundle").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    std::fs::write(folder.path().join("palisade.toml"), CONFIG).unwrap();
    let keys = json!({"keys": [rsa_jwk("rsa", &SIGNERS.rsa)]});
    std::fs::write(folder.path().join("jwks.json"), keys.to_string()).unwrap();
    folder
}

/// The exit code and what is said, of a call with this token.
fn check(folder: &Path, claims: Option<&Value>, redacted: bool, now: &str) -> (i32, String) {
    let change = |claims: &Value| serde_json::from_value(json!({ "claims": claims })).unwrap();
    let headers = match claims {
        Some(_) if redacted => json!({"authorization": "[redacted]"}),
        Some(claims) => json!({"authorization": format!("Bearer {}", token(&change(claims)))}),
        None => json!({}),
    };
    let capture = json!({"redacted": redacted, "attributes": {
        "source": {"principal": CODER},
        "destination": {"principal": "spiffe://example.org/ns/tools/sa/crm"},
        "request": {"http": {"method": "GET", "path": "/status", "host": "crm.example.org", "headers": headers}},
    }});
    let file = folder.join("request.json");
    std::fs::write(&file, capture.to_string()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_palisade"));
    command.arg("check").arg(file).arg("--bundle").arg(folder.join("bundle"));
    let output = command.arg("--config").arg(folder.join("palisade.toml")).args(["--now", now]).output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.code().unwrap(), text)
}

#[test]
fn a_capture_s_tokens_are_verified_with_keys_from_files() {
    let folder = folder("require");
    let ask = |claims: Option<&Value>, redacted| check(folder.path(), claims, redacted, "2026-11-20T00:01:00Z");
    let good = json!({});
    let verified = "note: its tokens are verified with keys from files";
    let unverified = "note: its tokens are not verified: ";
    let (code, text) = ask(Some(&good), false);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains(verified) && text.contains("verdict    PERMIT\n"), "{text}");
    let (code, text) = check(folder.path(), Some(&good), false, "2026-11-20T00:11:00Z");
    assert!(code == 10 && text.contains("verdict    DENIAL (token_expired): `exp` is over\n"), "{text}");
    for (claims, reason) in [
        (json!({"aud": "x"}), "token_audience_mismatch"),
        (json!({"client_id": "nobody"}), "token_unbound"),
        (json!({"iss": "https://nobody.example"}), "token_issuer_unknown"),
    ] {
        let (code, text) = ask(Some(&claims), false);
        assert!(code == 10 && text.contains(&format!("DENIAL ({reason})")) && text.contains(verified), "{text}");
    }
    let (code, text) = ask(None, false);
    assert!(code == 10 && text.contains("DENIAL (token_absent)") && !text.contains("note: "), "{text}");

    // What is not at hand is told, and nothing is fetched.
    let (code, text) = ask(Some(&json!({"iss": "https://silent.example"})), false);
    assert!(code == 10 && text.contains("DENIAL (token_absent)"), "{text}");
    let why = "keys would have to be fetched, and are read from files alone (not of issuer `silent`)";
    assert!(text.contains(&format!("{unverified}{why}")), "{text}");
    let (_, text) = ask(Some(&good), true);
    assert!(text.contains(&format!("{unverified}they were taken out of the capture")), "{text}");

    std::fs::write(folder.path().join("jwks.json"), "{").unwrap();
    let (code, text) = ask(Some(&good), false);
    assert!(code == 1 && text.contains("keys of issuer `idp`") && text.lines().count() == 1, "{text}");
}

/// Whoever reads the exit code alone takes no forged token for a good one.
#[test]
fn a_permit_beside_tokens_that_nobody_verified_has_a_code_of_its_own() {
    let folder = folder("verify");
    let ask = |claims: Option<&Value>, redacted| check(folder.path(), claims, redacted, "2026-11-20T00:01:00Z");
    let (forged, unverified) = (json!({}), "verdict    PERMIT; tokens not verified\n");
    std::fs::write(folder.path().join("jwks.json"), json!({"keys": [rsa_jwk("rsa", &SIGNERS.other)]}).to_string())
        .unwrap();
    let (code, text) = ask(Some(&forged), false);
    assert!(code == 10 && text.contains("verdict    DENIAL (token_signature_invalid)"), "{text}");
    let config = CONFIG.replace("{ file = \"jwks.json\" }", "{ url = \"https://idp.example/jwks\" }");
    std::fs::write(folder.path().join("palisade.toml"), config).unwrap();
    for redacted in [false, true] {
        let (code, text) = ask(Some(&forged), redacted);
        assert!(code == 12 && text.contains(unverified), "{code} {text}");
    }
    // Where there are none, nothing was left out.
    for redacted in [false, true] {
        let (code, text) = ask(None, redacted);
        assert!(code == 0 && text.contains("verdict    PERMIT\n"), "{code} {text}");
    }
}
