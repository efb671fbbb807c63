//! Whether what is configured about tokens makes sense together.

use super::{Config, Mistake, mistake};
use crate::authz::identity::spiffe::{SpiffeId, is_trust_domain};
use crate::authz::token::claims::REGISTERED;
use crate::authz::token::issuer::Issuer;
use crate::authz::token::presented::Role;

/// Longest name of an issuer, in bytes: it is a part of every user's id.
const MAX_NAME_BYTES: usize = 64;

impl Config {
    /// Issuers, trust domains, and where tokens stand.
    pub(super) fn check_tokens(&self) -> Result<(), Mistake> {
        for (at, issuer) in self.issuer.iter().enumerate() {
            let wrong = |key: &str, message: String| mistake(&[&format!("issuer.{at}.{key}"), "issuer"], message);
            check_issuer(issuer)
                .map_err(|(key, message)| wrong(key, format!("issuer `{}`: {message}", issuer.name)))?;
            let before = self.issuer.iter().take(at);
            if before.clone().any(|other| other.name == issuer.name) {
                return Err(wrong(
                    "name",
                    format!("`issuer.name`: another issuer is called `{}` already", issuer.name),
                ));
            }
            if before.clone().any(|other| other.issuer == issuer.issuer) {
                return Err(wrong("issuer", format!("`issuer.issuer`: `{}` is there twice", issuer.issuer)));
            }
        }
        for (at, domain) in self.trust_domain.iter().enumerate() {
            let key = format!("trust_domain.{at}.name");
            if !is_trust_domain(&domain.name) {
                let message = format!("`trust_domain.name`: `{}` is no trust domain name (a-z 0-9 . - _)", domain.name);
                return Err(mistake(&[&key, "trust_domain"], message));
            }
            if self.trust_domain.iter().take(at).any(|other| other.name == domain.name) {
                let message = format!("`trust_domain.name`: `{}` is there twice", domain.name);
                return Err(mistake(&[&key, "trust_domain"], message));
            }
        }
        self.check_sources()?;
        self.check_places()
    }

    fn check_sources(&self) -> Result<(), Mistake> {
        for (at, (owner, source)) in self.keys().iter().enumerate() {
            let table = match at.checked_sub(self.issuer.len()) {
                None => format!("issuer.{at}"),
                Some(at) => format!("trust_domain.{at}"),
            };
            source.location(owner).map_err(|error| {
                let key = error.key.map(|key| format!("{table}.keys.{key}")).unwrap_or_default();
                mistake(&[&key, &format!("{table}.keys"), &table], format!("keys of {owner}: {error}"))
            })?;
        }
        self.check_workload_api()
    }

    fn check_workload_api(&self) -> Result<(), Mistake> {
        let place = |key: &str| format!("workload_api.{key}");
        let following: Vec<_> = self.trust_domain.iter().enumerate().filter(|(_, it)| it.keys.workload_api).collect();
        let Some((first, _)) = following.first() else {
            let message = "`workload_api.socket` is for a `[[trust_domain]]` with `keys = { workload_api = true }`, and there is none";
            return if self.workload_api.socket.is_empty() {
                Ok(())
            } else {
                Err(mistake(&[&place("socket")], message))
            };
        };
        let first = format!("trust_domain.{first}.keys.workload_api");
        if self.workload_api.socket.is_empty() {
            let message = "`workload_api` needs the `socket` of `[workload_api]`: SPIFFE_ENDPOINT_SOCKET is not read";
            return Err(mistake(&[&first, &place("socket")], message));
        }
        self.workload_api.path().map_err(|message| mistake(&[&place("socket")], message))?;
        for (at, domain) in following {
            if domain.keys.max_age_seconds / 2 < self.workload_api.refresh_seconds {
                let message = "`max_age_seconds` has to be at least twice `workload_api.refresh_seconds`: one failure must \
                               not cost the keys";
                return Err(mistake(
                    &[&format!("trust_domain.{at}.keys.max_age_seconds"), &place("refresh_seconds")],
                    message,
                ));
            }
        }
        Ok(())
    }

    /// Nothing configured is silently ignored: whoever may be believed has to have a place to be heard, and the other way
    /// round.
    fn check_places(&self) -> Result<(), Mistake> {
        for (at, place) in self.token.iter().enumerate() {
            let key = format!("token.{at}.header");
            let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            if place.header.is_empty() || !place.header.bytes().all(is_name) {
                let message = format!("`token.header`: `{}` is no header name (a-z 0-9 -)", place.header);
                return Err(mistake(&[&key, "token"], message));
            }
            if place.header == "dpop" {
                let message = "`token.header`: `dpop` carries proofs, and no token";
                return Err(mistake(&[&key, "token"], message));
            }
            if self.token.iter().take(at).any(|other| other.header == place.header) {
                return Err(mistake(&[&key, "token"], format!("`token.header`: `{}` is there twice", place.header)));
            }
        }
        let chain = self.token.iter().position(|place| place.role == Role::Chain);
        if let Some(at) = chain {
            if self.token.iter().any(|place| place.role == Role::Chain && place.header == "authorization") {
                let message = "`token.header`: a chain is a list of tokens, which `authorization` does not hold";
                return Err(mistake(&[&format!("token.{at}.header"), "token"], message));
            }
            if !self.token.iter().any(|place| place.role == Role::User) {
                let message = "`token.role`: a `chain` leads to a user's token, and no `[[token]]` has the role `user`";
                return Err(mistake(&[&format!("token.{at}.role"), "token"], message));
            }
        }
        let believes = !self.issuer.is_empty() || !self.trust_domain.is_empty();
        match (believes, self.token.is_empty()) {
            (true, true) => {
                return Err(mistake(
                    &["issuer", "trust_domain"],
                    "no `[[token]]` says which header carries tokens, so none would be looked for",
                ));
            }
            (false, false) => {
                let message =
                    "`[[token]]` without an `[[issuer]]` or a `[[trust_domain]]`: every token would be refused";
                return Err(mistake(&["token"], message));
            }
            _ => {}
        }
        if self.trust_domain.is_empty() != self.svid.audiences.is_empty() {
            let message = "`svid.audiences` and `[[trust_domain]]` belong together: JWT-SVIDs for whom, and from whom";
            return Err(mistake(&["svid.audiences", "trust_domain"], message));
        }
        if !self.trust_domain.is_empty() && !self.token.iter().any(|place| place.role == Role::Agent) {
            let message =
                "`[[trust_domain]]`: a JWT-SVID is the agent's own token, and no `[[token]]` has the role `agent`";
            return Err(mistake(&["trust_domain", "token"], message));
        }
        Ok(())
    }
}

/// What is wrong with an issuer: the key and what it has to be.
fn check_issuer(issuer: &Issuer) -> Result<(), (&'static str, String)> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    if !(1..=MAX_NAME_BYTES).contains(&issuer.name.len()) || !issuer.name.bytes().all(is_plain) {
        return Err(("name", "`name` has to be of up to 64 of a-z 0-9 - _ .".into()));
    }
    if issuer.issuer.is_empty() {
        return Err(("issuer", "`issuer` is the `iss` of its tokens".into()));
    }
    if issuer.audiences.is_empty() || issuer.audiences.iter().any(String::is_empty) {
        return Err(("audiences", "`audiences` says for whom its tokens are; without one any token would do".into()));
    }
    if issuer.algorithms.is_empty() {
        return Err(("algorithms", "`algorithms` is empty, so no token would be believed".into()));
    }
    if issuer.groups_claim.is_empty() || REGISTERED.contains(&issuer.groups_claim.as_str()) {
        return Err((
            "groups_claim",
            "`groups_claim` is the name of a claim that names groups and means nothing else".into(),
        ));
    }
    let is_type = |typ: &String| typ.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase());
    if issuer.types.is_empty() || !issuer.types.iter().all(is_type) {
        return Err(("types", "`types` holds types in lower case, without `application/`, or `\"\"` for none".into()));
    }
    if issuer.logout_audiences.iter().any(String::is_empty) {
        return Err(("logout_audiences", "`logout_audiences` names clients, and none is empty".into()));
    }
    if !issuer.logout_audiences.is_empty() && !issuer.required_claims.iter().any(|claim| claim == "iat") {
        let message =
            "`logout_audiences` needs `iat` in `required_claims`: it says which tokens are older than a logout";
        return Err(("required_claims", message.into()));
    }
    for (key, value, least, most) in [
        ("leeway_seconds", issuer.leeway_seconds, 0, 300),
        ("max_lifetime_seconds", issuer.max_lifetime_seconds, 1, 7 * 86_400),
        ("max_delegation_depth", i64::try_from(issuer.max_delegation_depth).unwrap_or(i64::MAX), 1, 12),
    ] {
        if !(least..=most).contains(&value) {
            return Err((key, format!("`{key}` has to be from {least} to {most}")));
        }
    }
    match issuer.actors.iter().find(|(_, id)| SpiffeId::parse(id).is_err()) {
        None => Ok(()),
        Some((name, id)) => Err(("actors", format!("`actors`: `{name}` is mapped to `{id}`, which is no SPIFFE ID"))),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::authz::token::algorithm::Algorithm;
    use crate::authz::token::issuer::Unbound;
    use crate::authz::token::presented::{Place, Role};
    use crate::keys::source::Owner;

    const BASE: &str = "[[listener]]\ntcp = \"127.0.0.1:0\"\n[identity]\ntrust_domains = [\"example.org\"]\n";
    const TOKEN: &str = "[[token]]\nheader = \"authorization\"\nrole = \"user\"\n";
    const AGENT: &str = "[[token]]\nheader = \"x-svid\"\nrole = \"agent\"\n";
    const ISSUER: &str = "[[issuer]]\nname = \"corp\"\nissuer = \"https://idp.example\"\naudiences = [\"a\"]\n\
                          keys = { discovery = true }\n";
    const DOMAIN: &str = "[[trust_domain]]\nname = \"partner.example\"\nkeys = { file = \"b.json\" }\n";
    const SVID: &str = "[svid]\naudiences = [\"palisade\"]\n";

    fn parse(parts: &[&str]) -> Result<Config, String> {
        let text = [&[BASE], parts].concat().concat();
        Config::parse("p.toml", &text, Path::new("/etc/palisade")).map_err(|error| error.to_string())
    }

    #[test]
    fn tokens_are_configured_by_issuer() {
        let config = parse(&[TOKEN, AGENT, ISSUER, DOMAIN, SVID]).unwrap();
        let rules = config.tokens();
        let place = |header: &str, role| Place { header: header.into(), role };
        assert_eq!(rules.places, [place("authorization", Role::User), place("x-svid", Role::Agent)]);
        assert_eq!(rules.svid_audiences, ["palisade"]);
        let issuer = &rules.issuers[0];
        assert_eq!((issuer.leeway_seconds, issuer.max_lifetime_seconds, issuer.max_delegation_depth), (5, 3_600, 4));
        assert_eq!((issuer.unbound, issuer.groups_claim.as_str()), (Unbound::Deny, "groups"));
        assert_eq!((&*issuer.types, issuer.required_claims.len()), (&["at+jwt".to_owned()][..], 3));
        assert!(issuer.algorithms.contains(&Algorithm::Es256) && !issuer.algorithms.contains(&Algorithm::Rs512));
        let [(corp, _), (partner, source)] = &config.keys()[..] else { panic!("{:?}", config.keys()) };
        assert_eq!((corp.name(), partner), ("corp", &Owner::TrustDomain("partner.example".into())));
        assert_eq!(source.file.as_deref(), Some(Path::new("/etc/palisade/b.json")));
        assert!(parse(&[]).is_ok_and(|config| config.tokens().places.is_empty() && config.keys().is_empty()));
    }

    #[test]
    fn what_makes_no_sense_is_told_with_its_line() {
        let with = |key: &str, value: &str| {
            let changed = ISSUER.lines().filter(|line| !line.starts_with(&format!("{key} ="))).collect::<Vec<_>>();
            format!("{}\n{key} = {value}\n", changed.join("\n"))
        };
        for (key, value, why) in [
            ("name", "\"a/b\"", "`name` has to be"),
            ("name", "\"\"", "`name` has to be"),
            ("issuer", "\"\"", "`issuer` is the `iss`"),
            ("audiences", "[]", "without one any token would do"),
            ("audiences", "[\"\"]", "without one any token would do"),
            ("algorithms", "[]", "no token would be believed"),
            ("algorithms", "[\"HS256\"]", "`HS256` is none of RS256"),
            ("algorithms", "[\"none\"]", "`none` is none of RS256"),
            ("types", "[]", "`types` holds types"),
            ("types", "[\"AT+JWT\"]", "`types` holds types"),
            ("leeway_seconds", "301", "has to be from 0 to 300"),
            ("leeway_seconds", "-1", "has to be from 0 to 300"),
            ("max_lifetime_seconds", "0", "has to be from 1 to 604800"),
            ("max_delegation_depth", "0", "has to be from 1 to 12"),
            ("actors", "{ bot = \"bot\" }", "`bot` is mapped to `bot`, which is no SPIFFE ID"),
            ("groups_claim", "\"scope\"", "means nothing else"),
            ("unbound", "\"allow\"", "allow"),
            ("audience", "\"a\"", "`audience`"),
            ("keys", "{}", "one source"),
            ("keys", "{ file = \"a\", discovery = true }", "one source"),
            ("keys", "{ url = \"http://idp.example/jwks\" }", "https"),
            ("keys", "{ file = \"a\", refresh_seconds = 0 }", "`refresh_seconds` has to be from"),
        ] {
            let error = parse(&[TOKEN, &with(key, value)]).map(drop).unwrap_err();
            assert!(error.starts_with("p.toml:") && error.contains(why), "{key} = {value}: {error}");
        }
        let second = ISSUER.replace("corp", "other");
        let same_url = ISSUER.replace("https://idp.example", "https://other.example");
        let following = DOMAIN.replace("file = \"b.json\"", "workload_api = true");
        let hurried = following.replace("true", "true, max_age_seconds = 700");
        let socket = "[workload_api]\nsocket = \"unix:///run/api.sock\"\nrefresh_seconds = 400\n";
        let tcp = "[workload_api]\nsocket = \"tcp://127.0.0.1:8081\"\n";
        assert!(parse(&[AGENT, SVID, socket, &following]).is_ok());
        for (parts, why) in [
            (&[TOKEN, SVID, socket, DOMAIN][..], "p.toml:11: `workload_api.socket` is for a `[[trust_domain]]`"),
            (&[TOKEN, SVID, &following], "p.toml:12: `workload_api` needs the `socket`"),
            (&[TOKEN, SVID, tcp, &following], "p.toml:11: `workload_api.socket` has to be `unix://`"),
            (&[TOKEN, SVID, socket, &hurried], "p.toml:15: `max_age_seconds` has to be at least twice"),
            (&[ISSUER][..], "p.toml:5: no `[[token]]` says which header carries tokens"),
            (&[TOKEN], "p.toml:5: `[[token]]` without an `[[issuer]]`"),
            (&[TOKEN, TOKEN, ISSUER], "p.toml:9: `token.header`: `authorization` is there twice"),
            (&["[[token]]\nheader = \"X-A\"\nrole = \"user\"\n", ISSUER], "p.toml:6: `token.header`: `X-A`"),
            (
                &["[[token]]\nheader = \"x-chain\"\nrole = \"chain\"\n", ISSUER],
                "p.toml:7: `token.role`: a `chain` leads to",
            ),
            (
                &["[[token]]\nheader = \"authorization\"\nrole = \"chain\"\n", ISSUER],
                "p.toml:6: `token.header`: a chain is a list",
            ),
            (
                &["[[token]]\nheader = \"dpop\"\nrole = \"user\"\n", ISSUER],
                "p.toml:6: `token.header`: `dpop` carries proofs",
            ),
            (&[TOKEN, ISSUER, &second], "p.toml:15: `issuer.issuer`: `https://idp.example` is there twice"),
            (&[TOKEN, ISSUER, &same_url], "p.toml:14: `issuer.name`: another issuer is called `corp`"),
            (&[TOKEN, DOMAIN], "`svid.audiences` and `[[trust_domain]]` belong together"),
            (&[TOKEN, SVID, DOMAIN], "p.toml:10: `[[trust_domain]]`: a JWT-SVID is the agent's own token"),
            (&[TOKEN, ISSUER, SVID], "`svid.audiences` and `[[trust_domain]]` belong together"),
            (&[TOKEN, SVID, DOMAIN, DOMAIN], "`trust_domain.name`: `partner.example` is there twice"),
        ] {
            let error = parse(parts).map(drop).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
