//! Ends of sessions, as configured.

use std::net::SocketAddr;

use serde::Deserialize;

use super::{Config, Mistake, mistake};

/// What is remembered of ends of sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sessions {
    /// Where issuers send logout tokens: a TCP address. Without one nothing listens.
    pub listen: Option<SocketAddr>,
    /// Most ends that are remembered, each for as long as a token can live that was issued before.
    pub remembered_ends: usize,
    /// What becomes of tokens that were issued before the start, by issuers that tell of ends.
    pub issued_before_start: BeforeStart,
}

/// What becomes of tokens of which nobody here knows whether their session has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BeforeStart {
    /// They are refused: clients get new ones for sessions that go on.
    #[default]
    Refuse,
    /// They count.
    Accept,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { listen: None, remembered_ends: 65_536, issued_before_start: BeforeStart::Refuse }
    }
}

impl Config {
    pub(super) fn check_sessions(&self) -> Result<(), Mistake> {
        if !(16..=10_000_000).contains(&self.sessions.remembered_ends) {
            return Err(mistake(&["sessions.remembered_ends"], "`remembered_ends` has to be from 16 to 10000000"));
        }
        let tells = self.issuer.iter().position(|issuer| !issuer.logout_audiences.is_empty());
        match (self.sessions.listen, tells) {
            (None, Some(at)) => {
                let message = "`logout_audiences` needs `listen` in `[sessions]`: logout tokens would arrive nowhere";
                Err(mistake(&[&format!("issuer.{at}.logout_audiences")], message))
            }
            (Some(_), None) => {
                let message =
                    "`sessions.listen`: no issuer has `logout_audiences`, so no logout token would be believed";
                Err(mistake(&["sessions.listen"], message))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const BASE: &str = "[[listener]]\ntcp = \"127.0.0.1:9191\"\n[identity]\ntrust_domains = [\"example.org\"]\n\
                        [[token]]\nheader = \"authorization\"\nrole = \"user\"\n[[issuer]]\nname = \"corp\"\n\
                        issuer = \"https://idp.example\"\naudiences = [\"a\"]\nkeys = { discovery = true }\n";
    const TELLS: &str = "logout_audiences = [\"bot\"]\n";

    fn parse(parts: &[&str]) -> Result<Config, String> {
        let text = [&[BASE], parts].concat().concat();
        Config::parse("p.toml", &text, Path::new("/etc/palisade")).map_err(|error| error.to_string())
    }

    fn listen(address: &str) -> String {
        format!("[sessions]\nlisten = \"{address}\"\n")
    }

    #[test]
    fn logout_tokens_arrive_somewhere_and_are_believed_by_somebody() {
        let config = parse(&[TELLS, &listen("127.0.0.1:9193")]).unwrap();
        assert_eq!(config.sessions.listen, Some(([127, 0, 0, 1], 9193).into()));
        assert_eq!(parse(&[]).unwrap().sessions.listen, None, "without one nothing listens");
        for (parts, message) in [
            (&[TELLS][..], "p.toml:13: `logout_audiences` needs `listen` in `[sessions]`"),
            (&[&listen("127.0.0.1:9193")], "p.toml:14: `sessions.listen`: no issuer has `logout_audiences`"),
            (&[TELLS, &listen("9193")], "p.toml:15: `sessions.listen`: no address and port"),
            (&[TELLS, &listen("127.0.0.1:9192")], "p.toml:15: `sessions.listen`: a listener has the address"),
            (&[TELLS, &listen("0.0.0.0:9191")], "p.toml:15: `sessions.listen`: a listener has the address"),
            (&[TELLS, "[sessions]\nremembered_ends = 1\n"], "p.toml:15: `remembered_ends` has to be from"),
        ] {
            let error = parse(parts).unwrap_err();
            assert!(error.starts_with(message), "{error} / {message}");
        }
    }
}
