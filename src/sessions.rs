//! Which sessions have ended: what issuers said so, for as long as a token can live that was issued before.
//!
//! It is memory of this process, and bounded. What it cannot know it does not believe: whether a session ended before the
//! start, or after there was no room for one more. Tokens of that time are refused, and a client gets a new one for a session
//! that goes on.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use crate::authz::reason::Reason;
use crate::authz::token::logout::Ended;
use crate::authz::token::{Authority, Refused, Token, Tokens};

/// What has ended.
pub struct Sessions {
    most: usize,
    held: RwLock<Held>,
}

struct Held {
    /// By issuer: tokens of these are over that were issued up to a moment, in seconds since 1970.
    ended: HashMap<(usize, Whose), Over>,
    /// When the first of them is over, or before.
    oldest: i64,
    /// By issuer: tokens that were issued up to this moment are not believed.
    unknown_until: Vec<Option<i64>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Whose {
    /// Those of a session.
    Session(String),
    /// Those of a user that name no session: they may be of any that ended.
    Nameless(String),
    /// All of a user.
    User(String),
}

#[derive(Clone, Copy)]
struct Over {
    issued_until: i64,
    /// From when on no such token can live any more.
    until: i64,
}

impl Held {
    /// Remembers an end; `false` if it is a new one and there is no room for it.
    fn remember(&mut self, of: (usize, Whose), over: Over, most: usize, now: i64) -> bool {
        if let Some(before) = self.ended.get_mut(&of) {
            before.issued_until = before.issued_until.max(over.issued_until);
            before.until = before.until.max(over.until);
            return true;
        }
        // Rarely: what is over stays until there is no room.
        if self.ended.len() >= most && self.oldest <= now {
            self.ended.retain(|_, over| over.until > now);
            self.oldest = self.ended.values().map(|over| over.until).min().unwrap_or(i64::MAX);
        }
        if self.ended.len() >= most {
            return false;
        }
        self.oldest = self.oldest.min(over.until);
        self.ended.insert(of, over);
        true
    }
}

impl Sessions {
    /// Remembers up to `most` ends. `unknown_until` has, by issuer, up to when it is not known what ended: the start, for those
    /// that tell of ends at all.
    #[must_use]
    pub fn new(most: usize, unknown_until: Vec<Option<i64>>) -> Self {
        Self { most, held: RwLock::new(Held { ended: HashMap::new(), oldest: i64::MAX, unknown_until }) }
    }

    /// Remembers an end; `false` if there is no room for it, so that no token of its issuer counts that was issued before. `now`
    /// is in seconds since 1970.
    pub fn end(&self, ended: &Ended, now: i64) -> bool {
        let session = ended.session.clone().map(|session| (Whose::Session(session), i64::MAX));
        let user = ended
            .subject
            .clone()
            .map(|subject| (if session.is_some() { Whose::Nameless(subject) } else { Whose::User(subject) }, ended.at));
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let mut has_room = true;
        for (whose, issued_until) in session.into_iter().chain(user) {
            has_room &= held.remember((ended.issuer, whose), Over { issued_until, until: ended.until }, self.most, now);
        }
        if !has_room && let Some(unknown) = held.unknown_until.get_mut(ended.issuer) {
            *unknown = (*unknown).max(Some(ended.at));
        }
        has_room
    }

    /// Whether a token is of a session that goes on, as far as is known.
    ///
    /// # Errors
    /// [`Reason::SessionEnded`]
    pub fn check(&self, token: &Token) -> Result<(), Refused> {
        let Authority::Issuer(issuer) = token.authority else { return Ok(()) };
        let refused = |detail: &str| Err(Refused::new(Reason::SessionEnded, detail));
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let unknown = held.unknown_until.get(issuer).copied().flatten();
        if unknown.is_some_and(|unknown| token.claims.issued.is_none_or(|at| at <= unknown)) {
            return refused("issued before a moment up to which ends of sessions are not known here");
        }
        if held.ended.is_empty() {
            return Ok(());
        }
        let claims = &token.claims;
        let session = match &claims.session {
            Some(session) => Whose::Session(session.clone()),
            None => Whose::Nameless(claims.subject.clone()),
        };
        let is_over = |whose| {
            let over = held.ended.get(&(issuer, whose));
            over.is_some_and(|over| claims.issued.is_none_or(|at| at <= over.issued_until))
        };
        if is_over(session) || is_over(Whose::User(claims.subject.clone())) {
            return refused("its issuer said so");
        }
        Ok(())
    }

    /// The same for all tokens of a request: one of a session that is over fails them.
    #[must_use]
    pub fn of(&self, tokens: Tokens) -> Tokens {
        let Tokens::Verified(all) = &tokens else { return tokens };
        match all.iter().map(|believed| self.check(&believed.token)).find_map(Result::err) {
            Some(refused) => Tokens::Failed(refused),
            None => tokens,
        }
    }

    /// How many ends are remembered.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.held.read().unwrap_or_else(PoisonError::into_inner).ended.len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::authz::call::json::Json;
    use crate::authz::limits::Limits;
    use crate::authz::token::presented::{Role, Scheme};
    use crate::authz::token::{Believed, claims::Claims, verified};

    fn token(issuer: usize, claims: &serde_json::Value) -> Token {
        let mut all = serde_json::json!({"sub": "alice", "aud": "a", "exp": 9_999, "iat": 1_000});
        for (name, value) in claims.as_object().unwrap() {
            all[name] = value.clone();
            if value.is_null() {
                all.as_object_mut().unwrap().remove(name);
            }
        }
        let text = all.to_string();
        let json = Json::parse(text.as_bytes(), &Limits::DEFAULT).unwrap();
        verified::tests::token(Authority::Issuer(issuer), Claims::read(&json).unwrap())
    }

    fn ended(session: Option<&str>, subject: Option<&str>, at: i64) -> Ended {
        Ended { issuer: 0, session: session.map(Into::into), subject: subject.map(Into::into), at, until: at + 100 }
    }

    fn is_over(sessions: &Sessions, claims: serde_json::Value) -> bool {
        sessions.check(&token(0, &claims)).is_err_and(|refused| refused.reason == Reason::SessionEnded)
    }

    use serde_json::json;

    #[test]
    fn a_session_that_ended_is_over_and_no_other() {
        let sessions = Sessions::new(100, vec![None, None]);
        assert!(sessions.end(&ended(Some("s1"), Some("alice"), 1_000), 1_000));
        assert!(is_over(&sessions, json!({"sid": "s1"})));
        assert!(is_over(&sessions, json!({"sid": "s1", "iat": 2_000})), "whenever a token of it was made");
        assert!(is_over(&sessions, json!({})), "one that names no session may be of this one");
        assert!(is_over(&sessions, json!({"iat": null})));
        assert!(!is_over(&sessions, json!({"iat": 1_001})));
        assert!(!is_over(&sessions, json!({"sid": "s2"})));
        assert!(!is_over(&sessions, json!({"sub": "bob"})));
        assert!(sessions.check(&token(1, &json!({"sid": "s1"}))).is_ok(), "of another issuer");
        // Without a user, a token has to name the session.
        assert!(sessions.end(&ended(Some("s3"), None, 1_000), 1_000));
        assert!(is_over(&sessions, json!({"sid": "s3", "sub": "bob"})) && !is_over(&sessions, json!({"sub": "bob"})));
    }

    #[test]
    fn all_sessions_of_a_user_end_that_are_older() {
        let sessions = Sessions::new(100, vec![None]);
        assert!(sessions.end(&ended(None, Some("alice"), 1_000), 1_000));
        assert!(is_over(&sessions, json!({"sid": "s1"})) && is_over(&sessions, json!({})));
        assert!(!is_over(&sessions, json!({"sid": "s2", "iat": 1_001})), "a login since");
        // A session of a later login ends: what names no session may be of that one.
        assert!(sessions.end(&ended(Some("s2"), Some("alice"), 1_100), 1_100));
        assert!(is_over(&sessions, json!({"iat": 1_100})) && !is_over(&sessions, json!({"iat": 1_100, "sid": "s4"})));
        // Told late, the earlier end takes nothing back.
        assert!(sessions.end(&ended(None, Some("alice"), 900), 1_100));
        assert!(is_over(&sessions, json!({"sid": "s1"})));
    }

    #[test]
    fn what_is_not_known_is_not_believed() {
        let started = Sessions::new(100, vec![Some(1_000), None]);
        assert!(is_over(&started, json!({})) && is_over(&started, json!({"iat": null})));
        assert!(!is_over(&started, json!({"iat": 1_001})));
        assert!(started.check(&token(1, &json!({}))).is_ok(), "this issuer tells of no ends");

        let full = Sessions::new(1, vec![None, None]);
        assert!(full.end(&ended(None, Some("alice"), 1_000), 1_000));
        assert!(full.end(&ended(None, Some("alice"), 1_001), 1_001), "what is remembered needs no room");
        assert!(!full.end(&ended(Some("s1"), None, 1_010), 1_010), "no room");
        assert!(is_over(&full, json!({"sub": "bob", "iat": 1_010})), "no token of the issuer from before counts");
        assert!(!is_over(&full, json!({"sub": "bob", "iat": 1_011})));
        assert!(full.check(&token(1, &json!({}))).is_ok());
        // What no token can be of any more makes room.
        assert!(full.end(&ended(Some("s2"), None, 1_200), 1_200));
        assert_eq!(full.remembered(), 1);
    }

    #[test]
    fn one_token_of_several_is_enough() {
        let sessions = Sessions::new(100, vec![None]);
        assert!(sessions.end(&ended(Some("s1"), None, 1_000), 1_000));
        let believed = |role, sid: &str| Believed {
            role,
            scheme: Scheme::Bearer,
            token: Arc::new(token(0, &json!({ "sid": sid }))),
        };
        let good = || believed(Role::User, "s2");
        assert!(matches!(sessions.of(Tokens::Verified(vec![good()])), Tokens::Verified(_)));
        let bad = Tokens::Verified(vec![believed(Role::Chain, "s1"), good()]);
        assert!(matches!(sessions.of(bad), Tokens::Failed(refused) if refused.reason == Reason::SessionEnded));
        assert!(matches!(sessions.of(Tokens::Absent), Tokens::Absent));
    }
}
