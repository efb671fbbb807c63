//! Which sessions have ended: what issuers said so, for as long as a token can live that was issued before.
//!
//! It is memory of this process, and bounded. What it cannot know it does not believe: whether a session ended before the
//! start, or after there was no room for one more. Tokens of that time are refused, and a client gets a new one for a session
//! that goes on.

pub mod waiting;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use crate::authz::reason::Reason;
use crate::authz::token::holder::has_user;
use crate::authz::token::logout::Ended;
use crate::authz::token::{Authority, Refused, Rules, Token, Tokens};

/// Most ends that are forgotten at once, for calls wait meanwhile: none for longer than some 0.1 ms.
const AT_ONCE: usize = 256;

/// What has ended.
pub struct Sessions {
    most: usize,
    held: RwLock<Held>,
}

struct Held {
    /// By issuer: tokens of these are over that were issued up to a moment, in seconds since 1970.
    ended: HashMap<Arc<Whose>, Over>,
    /// The same by when no such token can live any more.
    by_until: BTreeSet<(i64, Arc<Whose>)>,
    /// By issuer: tokens that were issued up to this moment are not believed.
    unknown_until: Vec<Option<i64>>,
    /// By issuer: until when the tokens of ends could live that are forgotten. Such a token has expired, unless the clock was
    /// ahead when its end was forgotten.
    forgotten_until: HashMap<usize, i64>,
}

/// The issuer, by its place, and which of its tokens.
type Whose = (usize, Which);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Which {
    /// Those of a session.
    Session(String),
    /// Those of a user that name no session: they may be of any that ended.
    Nameless(String),
    /// Those of whatever user that name no session: one ended of which it was not said whose it is.
    NamelessOfAnybody,
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
    fn remember(&mut self, of: Whose, over: Over, most: usize, now: i64) -> bool {
        self.forget(now);
        if let Some((of, before)) = self.ended.get_key_value(&of).map(|(of, before)| (of.clone(), *before)) {
            let later =
                Over { issued_until: before.issued_until.max(over.issued_until), until: before.until.max(over.until) };
            self.by_until.remove(&(before.until, of.clone()));
            self.by_until.insert((later.until, of.clone()));
            self.ended.insert(of, later);
            return true;
        }
        if self.ended.len() >= most {
            return false;
        }
        let of = Arc::new(of);
        self.by_until.insert((over.until, of.clone()));
        self.ended.insert(of, over);
        true
    }

    /// Forgets ends that are over, some at once; whether there may be more.
    fn forget(&mut self, now: i64) -> bool {
        for _ in 0..AT_ONCE {
            let Some((until, of)) = self.by_until.first().filter(|(until, _)| *until <= now) else { return false };
            let forgotten = self.forgotten_until.entry(of.0).or_insert(*until);
            *forgotten = (*forgotten).max(*until);
            self.ended.remove(of);
            self.by_until.pop_first();
        }
        true
    }
}

impl Sessions {
    /// Remembers up to `most` ends. `unknown_until` has, by issuer, up to when it is not known what ended: the start, for those
    /// that tell of ends at all.
    #[must_use]
    pub fn new(most: usize, unknown_until: Vec<Option<i64>>) -> Self {
        let (ended, by_until, forgotten_until) = Default::default();
        let held = Held { ended, by_until, unknown_until, forgotten_until };
        Self { most, held: RwLock::new(held) }
    }

    /// Remembers an end; `false` if there is no room for it, so that no token of its issuer counts that was issued before. `now`
    /// is in seconds since 1970.
    ///
    /// A logout token names a session, a user or both (OpenID Connect Back-Channel Logout 1.0, section 2.4). With a user alone, all of
    /// the user's sessions have ended. With a session, tokens that name it are over whenever they were made, and of those that name
    /// none and are older any may be of it: those of its user, or without one those of all users of the issuer.
    pub fn end(&self, ended: &Ended, now: i64) -> bool {
        let session = ended.session.clone().map(|session| (Which::Session(session), i64::MAX));
        let others = match (&ended.subject, &session) {
            (Some(subject), None) => Which::User(subject.clone()),
            (Some(subject), Some(_)) => Which::Nameless(subject.clone()),
            (None, _) => Which::NamelessOfAnybody,
        };
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let mut has_room = true;
        for (which, issued_until) in session.into_iter().chain([(others, ended.at)]) {
            has_room &= held.remember((ended.issuer, which), Over { issued_until, until: ended.until }, self.most, now);
        }
        if !has_room && let Some(unknown) = held.unknown_until.get_mut(ended.issuer) {
            *unknown = (*unknown).max(Some(ended.at));
        }
        has_room
    }

    /// Whether a token is of a session that goes on, as far as is known. `rules` are those that it was believed by.
    ///
    /// # Errors
    /// [`Reason::SessionEnded`]
    pub fn check(&self, token: &Token, rules: &Rules) -> Result<(), Refused> {
        let Authority::Issuer(issuer) = token.authority else { return Ok(()) };
        let refused = |detail: &str| Err(Refused::new(Reason::SessionEnded, detail));
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let unknown = held.unknown_until.get(issuer).copied().flatten();
        if unknown.is_some_and(|unknown| token.claims.issued.is_none_or(|at| at <= unknown)) {
            return refused("issued before a moment up to which ends of sessions are not known here");
        }
        let claims = &token.claims;
        let leeway = rules.issuers.get(issuer).map_or(0, |issuer| issuer.leeway_seconds);
        let dies = claims.expires.saturating_add(leeway);
        if held.forgotten_until.get(&issuer).is_some_and(|forgotten| dies <= *forgotten) {
            return refused("the clock went back to before what ended was forgotten");
        }
        if held.ended.is_empty() {
            return Ok(());
        }
        let over = |which| {
            let over = held.ended.get_key_value(&(issuer, which));
            over.filter(|(_, over)| claims.issued.is_none_or(|at| at <= over.issued_until))
        };
        let is_over = |which| over(which).is_some();
        if let Some(session) = &claims.session {
            if let Some((of, end)) = over(Which::Session(session.clone())) {
                let (of, outlives) = (of.clone(), dies > end.until);
                drop(held);
                if outlives {
                    self.remember_until(&of, dies);
                }
                return refused("its issuer said so");
            }
        } else if is_over(Which::Nameless(claims.subject.clone())) {
            return refused("its issuer said so");
        }
        if is_over(Which::User(claims.subject.clone())) {
            return refused("its issuer said so");
        }
        // A workload's own token is of nobody's session.
        if claims.session.is_none() && is_over(Which::NamelessOfAnybody) && has_user(token, rules) {
            return refused("it names no session, and its issuer ended one without saying whose");
        }
        Ok(())
    }

    /// Remembers an end for longer: a token of its session was made after it, by an issuer that goes on renewing it, and lives
    /// that long.
    fn remember_until(&self, of: &Arc<Whose>, until: i64) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let Some(over) = held.ended.get_mut(of).filter(|over| over.until < until) else { return };
        let before = std::mem::replace(&mut over.until, until);
        held.by_until.remove(&(before, of.clone()));
        held.by_until.insert((until, of.clone()));
    }

    /// The same for all tokens of a request: one of a session that is over ends them.
    #[must_use]
    pub fn of(&self, tokens: Tokens, rules: &Rules) -> Tokens {
        let Tokens::Verified(all) = tokens else { return tokens };
        match all.iter().map(|believed| self.check(&believed.token, rules)).find_map(Result::err) {
            Some(refused) => Tokens::Ended(refused, all),
            None => Tokens::Verified(all),
        }
    }

    /// How many ends are remembered that are not over. `now` is in seconds since 1970.
    #[must_use]
    pub fn remembered(&self, now: i64) -> usize {
        loop {
            // Taken anew each time, so that no call waits for long.
            let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
            if !held.forget(now) {
                return held.ended.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::authz::call::json::Json;
    use crate::authz::limits::Limits;
    use crate::authz::token::presented::{Role, Scheme};
    use crate::authz::token::{Believed, claims::Claims, verified};

    /// Of two issuers, one of which maps a client of its own to a workload.
    fn rules() -> Rules {
        let issuer = |name: &str| {
            json!({"name": name, "issuer": name, "audiences": ["a"], "keys": {"file": "x"},
                "actors": {"agent": "spiffe://example.org/agent"}})
        };
        Rules { issuers: serde_json::from_value(json!([issuer("a"), issuer("b")])).unwrap(), ..Rules::default() }
    }

    fn token(issuer: usize, claims: &serde_json::Value) -> Token {
        let mut all = serde_json::json!({"sub": "alice", "aud": "a", "client_id": "bot", "exp": 9_999, "iat": 1_000});
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
        sessions.check(&token(0, &claims), &rules()).is_err_and(|refused| refused.reason == Reason::SessionEnded)
    }

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
        assert!(sessions.check(&token(1, &json!({"sid": "s1"})), &rules()).is_ok(), "of another issuer");
        // Whoever's it is.
        assert!(sessions.end(&ended(Some("s3"), None, 1_000), 1_000));
        assert!(is_over(&sessions, json!({"sid": "s3", "sub": "bob"})));
    }

    #[test]
    fn all_sessions_of_a_user_end_that_are_older() {
        let sessions = Sessions::new(100, vec![None]);
        assert!(sessions.end(&ended(None, Some("alice"), 1_000), 1_000));
        assert!(is_over(&sessions, json!({"sid": "s1"})) && is_over(&sessions, json!({})));
        assert!(!is_over(&sessions, json!({"sid": "s2", "iat": 1_001})), "a login since");
        // A session of a later login ends: what names no session may be of that one.
        assert!(sessions.end(&ended(Some("s2"), Some("alice"), 1_100), 1_099));
        assert!(is_over(&sessions, json!({"iat": 1_100})) && !is_over(&sessions, json!({"iat": 1_100, "sid": "s4"})));
        // Told late, the earlier end takes nothing back.
        assert!(sessions.end(&ended(None, Some("alice"), 900), 1_099));
        assert!(is_over(&sessions, json!({"sid": "s1"})));
    }

    /// An issuer that goes on renewing what it ended: it stays over for as long as such tokens come.
    #[test]
    fn a_session_stays_over_as_long_as_a_token_of_it_lives_that_came() {
        let sessions = Sessions::new(100, vec![None]);
        assert!(sessions.end(&ended(Some("s1"), Some("alice"), 1_000), 1_000));
        let renewed = || json!({"sid": "s1", "iat": 1_050, "exp": 1_150});
        assert!(is_over(&sessions, renewed()));
        assert_eq!(sessions.remembered(1_100), 1, "the session, and not the user's older tokens");
        assert!(is_over(&sessions, renewed()));
        assert_eq!(sessions.remembered(1_154), 1, "give or take the clocks");
        assert_eq!(sessions.remembered(1_155), 0);
    }

    #[test]
    fn a_clock_that_was_ahead_brings_nothing_back() {
        let sessions = Sessions::new(100, vec![None, None]);
        assert!(sessions.end(&ended(Some("s1"), Some("alice"), 1_000), 1_000));
        assert_eq!(sessions.remembered(5_000), 0);
        let of = |exp: i64| json!({"sid": "s1", "exp": exp});
        assert!(is_over(&sessions, of(1_095)), "the end held for it");
        assert!(!is_over(&sessions, of(1_096)));
        assert!(sessions.check(&token(1, &of(1_095)), &rules()).is_ok(), "of another issuer");
    }

    #[test]
    fn what_is_not_known_is_not_believed() {
        let started = Sessions::new(100, vec![Some(1_000), None]);
        assert!(is_over(&started, json!({})) && is_over(&started, json!({"iat": null})));
        assert!(!is_over(&started, json!({"iat": 1_001})));
        assert!(started.check(&token(1, &json!({})), &rules()).is_ok(), "this issuer tells of no ends");

        let full = Sessions::new(1, vec![None, None]);
        assert!(full.end(&ended(None, Some("alice"), 1_000), 1_000));
        assert!(full.end(&ended(None, Some("alice"), 1_001), 1_001), "what is remembered needs no room");
        assert!(!full.end(&ended(None, Some("carol"), 1_010), 1_010), "no room");
        assert!(is_over(&full, json!({"sub": "bob", "iat": 1_010})), "no token of the issuer from before counts");
        assert!(!is_over(&full, json!({"sub": "bob", "iat": 1_011})));
        assert!(full.check(&token(1, &json!({})), &rules()).is_ok());
        // What no token can be of any more makes room.
        assert!(full.end(&ended(None, Some("carol"), 1_200), 1_200));
        assert_eq!(full.remembered(1_200), 1);
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
        assert!(matches!(sessions.of(Tokens::Verified(vec![good()]), &rules()), Tokens::Verified(_)));
        let bad = Tokens::Verified(vec![believed(Role::Chain, "s1"), good()]);
        assert!(
            matches!(sessions.of(bad, &rules()), Tokens::Ended(refused, all) if refused.reason == Reason::SessionEnded && all.len() == 2)
        );
        assert!(matches!(sessions.of(Tokens::Absent, &rules()), Tokens::Absent));
    }

    /// Nobody knows whose it is, so it may be anybody's; but what names its session is known.
    #[test]
    fn a_session_of_nobody_knows_whom_ends_what_names_no_session() {
        let sessions = Sessions::new(100, vec![None, None]);
        assert!(sessions.end(&ended(Some("s1"), None, 1_000), 1_000));
        assert!(is_over(&sessions, json!({"sid": "s1"})));
        assert!(is_over(&sessions, json!({})) && is_over(&sessions, json!({"sub": "bob"})));
        assert!(is_over(&sessions, json!({"sub": "bob", "iat": null})));
        assert!(!is_over(&sessions, json!({"sub": "bob", "sid": "s2"})));
        assert!(!is_over(&sessions, json!({"sub": "bob", "iat": 1_001})), "a client gets a new one");
        assert!(sessions.check(&token(1, &json!({})), &rules()).is_ok(), "of another issuer");
        // A workload's own is of no session.
        assert!(!is_over(&sessions, json!({"sub": "bot"})) && !is_over(&sessions, json!({"sub": "agent"})));
        // With its user it is that user's alone.
        let sessions = Sessions::new(100, vec![None]);
        assert!(sessions.end(&ended(Some("s1"), Some("alice"), 1_000), 1_000));
        assert!(is_over(&sessions, json!({})) && !is_over(&sessions, json!({"sub": "bob"})));
    }

    #[test]
    fn what_is_over_is_forgotten_and_not_counted() {
        let sessions = Sessions::new(10_000, vec![None]);
        for number in 0..1_000 {
            assert!(sessions.end(&ended(None, Some(&number.to_string()), 1_000 + number), 1_000));
        }
        assert_eq!(sessions.remembered(1_000), 1_000);
        assert_eq!(sessions.remembered(1_100), 999, "one of them is over");
        // Told once more, it lasts as long as the later one.
        assert!(sessions.end(&ended(None, Some("1"), 2_000), 1_100));
        assert_eq!(sessions.remembered(1_600), 500);
        assert_eq!(sessions.remembered(2_099), 1);
        assert!(is_over(&sessions, json!({"sub": "1"})));
        assert_eq!(sessions.remembered(2_100), 0);
        let held = sessions.held.read().unwrap();
        assert!(held.ended.is_empty() && held.by_until.is_empty());
    }

    /// What is remembered now makes room for what comes, and nobody has to ask.
    #[test]
    fn an_end_forgets_some_that_are_over() {
        let sessions = Sessions::new(10_000, vec![None]);
        for number in 0..1_000 {
            assert!(sessions.end(&ended(None, Some(&number.to_string()), 1_000), 1_000));
        }
        assert!(sessions.end(&ended(None, Some("new"), 1_100), 1_100));
        let held = sessions.held.read().unwrap();
        assert_eq!((held.ended.len(), held.by_until.len()), (1_001 - AT_ONCE, 1_001 - AT_ONCE));
    }
}
