//! Logout tokens: hostile ones, each a change of one that is believed.

use palisade::authz::token::Keyring;
use palisade::authz::token::logout::Ended;
use palisade::authz::token::verified::{Authority, Rules};
use serde_json::{Value, json};

use super::{T0, keyring, rules, token};

const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

fn taking() -> Rules {
    let mut rules = rules();
    rules.issuers[0].logout_audiences = vec!["bot".into(), "other".into()];
    rules
}

fn logout(changed: &Value) -> String {
    let mut change = json!({"header": {"typ": "logout+jwt"}, "claims": {"aud": "bot", "client_id": null, "sid": "s1",
        "iat": T0, "exp": T0 + 120, "events": {EVENT: {}}}});
    for (part, members) in changed.as_object().unwrap() {
        match members.as_object() {
            None => change[part] = members.clone(),
            Some(members) => {
                for (name, value) in members {
                    change[part][name] = value.clone();
                }
            }
        }
    }
    token(&serde_json::from_value(change).unwrap())
}

fn read(changed: &Value, rules: &Rules) -> Result<Ended, &'static str> {
    Ended::read(&logout(changed), rules, &keyring(), T0).map_err(|refused| refused.reason.code())
}

#[test]
fn a_logout_token_says_what_ended() {
    let rules = taking();
    let until = T0 + rules.issuers[0].max_lifetime_seconds + 2 * rules.issuers[0].leeway_seconds;
    let ended = |session: Option<&str>, subject: Option<&str>| {
        Ok(Ended {
            issuer: 0,
            session: session.map(Into::into),
            subject: subject.map(Into::into),
            at: T0 + rules.issuers[0].leeway_seconds,
            until,
        })
    };
    assert_eq!(read(&json!({}), &rules), ended(Some("s1"), Some("alice")));
    assert_eq!(read(&json!({"claims": {"sid": null}}), &rules), ended(None, Some("alice")));
    assert_eq!(read(&json!({"claims": {"sub": null}}), &rules), ended(Some("s1"), None));
    assert!(read(&json!({"claims": {"aud": ["x", "other"]}}), &rules).is_ok());
    assert!(read(&json!({"header": {"typ": "application/LOGOUT+JWT"}}), &rules).is_ok());
    // However late it comes: what ended has ended.
    assert!(read(&json!({"claims": {"iat": T0 - rules.issuers[0].max_lifetime_seconds}}), &rules).is_ok());
}

#[test]
fn another_token_ends_nothing() {
    let rules = taking();
    for (changed, code) in [
        (json!({"header": {"typ": "at+jwt"}}), "token_type_refused"),
        (json!({"header": {"typ": null}}), "token_type_refused"),
        (json!({"header": {"typ": "JWT"}}), "token_type_refused"),
        (json!({"header": {"typ": "secevent+jwt"}}), "token_type_refused"),
        (json!({"header": {"crit": ["x"]}}), "token_extension_unsupported"),
        (json!({"header": {"jku": "https://evil.example"}}), "token_key_embedded"),
        (json!({"header": {"kid": "nobody"}}), "token_key_unknown"),
        (json!({"sign": "rsa_other"}), "token_signature_invalid"),
        (json!({"tamper": {"sid": "s2"}}), "token_signature_invalid"),
        (json!({"claims": {"iss": "https://evil.example"}}), "token_issuer_unknown"),
        (json!({"claims": {"iss": null}}), "token_issuer_unknown"),
        (json!({"claims": {"iss": ["https://idp.example"]}}), "token_claim_malformed"),
        (json!({"claims": {"aud": "https://crm.example/mcp"}}), "token_audience_mismatch"),
        (json!({"claims": {"aud": null}}), "token_claim_missing"),
        (json!({"claims": {"iat": null}}), "token_claim_missing"),
        (json!({"claims": {"exp": null}}), "token_claim_missing"),
        (json!({"claims": {"jti": null}}), "token_claim_missing"),
        (json!({"claims": {"sub": null, "sid": null}}), "token_claim_missing"),
        (json!({"claims": {"sid": 1}}), "token_claim_malformed"),
        (json!({"claims": {"sid": ""}}), "token_claim_malformed"),
        (json!({"claims": {"iat": "now"}}), "token_claim_malformed"),
        (json!({"claims": {"nonce": "n"}}), "token_type_refused"),
        (json!({"claims": {"events": null}}), "token_claim_missing"),
        (json!({"claims": {"events": {}}}), "token_claim_missing"),
        (json!({"claims": {"events": {EVENT: true}}}), "token_claim_missing"),
        (json!({"claims": {"events": [EVENT]}}), "token_claim_missing"),
        (json!({"claims": {"exp": T0 - 60}}), "token_expired"),
        (json!({"claims": {"iat": T0 - 3_610}}), "token_expired"),
        (json!({"claims": {"iat": T0 + 6}}), "token_not_yet_valid"),
        (json!({"raw": ""}), "token_malformed"),
        (json!({"raw": "a.b.c"}), "token_malformed"),
    ] {
        assert_eq!(read(&changed, &rules), Err(code), "{changed}");
    }
    // From an issuer that tells of none.
    assert_eq!(read(&json!({}), &super::rules()), Err("token_issuer_unknown"));
}

/// What its issuer may be about to publish: the token can be read again then. Anything else is final.
#[test]
fn a_key_that_is_not_known_is_told_with_its_issuer() {
    let rules = taking();
    let unknown = logout(&json!({"header": {"kid": "nobody"}}));
    let lacks = |text: &str, keyring: &Keyring| Ended::read(text, &rules, keyring, T0).unwrap_err().lacks_key_of;
    let none = Keyring { issuers: vec![None; keyring().issuers.len()], ..Keyring::default() };
    assert_eq!(lacks(&unknown, &keyring()), Some(Authority::Issuer(0)));
    assert_eq!(lacks(&unknown, &none), Some(Authority::Issuer(0)));
    assert_eq!(lacks(&logout(&json!({"sign": "rsa_other"})), &keyring()), None);
}

/// An access token is no logout token, and the other way round.
#[test]
fn the_two_kinds_exclude_one_another() {
    let rules = taking();
    let change = json!({"header": {"typ": "logout+jwt"}, "claims": {"events": {EVENT: {}}}});
    let text = token(&serde_json::from_value(change).unwrap());
    let refused = super::verify(&text, super::Role::User, &rules, &keyring(), T0).unwrap_err();
    assert_eq!(refused.reason.code(), "token_type_refused");
    let access = token(&serde_json::from_value(json!({"claims": {"aud": "bot"}})).unwrap());
    assert!(Ended::read(&access, &rules, &keyring(), T0).is_err());
}
