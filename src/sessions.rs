//! Which sessions have ended: what issuers said so, for as long as a token can live that was issued before.
//!
//! It is memory of this process, and bounded. What it cannot know it does not believe: whether a session ended before the
//! start, or after there was no room for one more. Tokens of that time are refused, and a client gets a new one for a session
//! that goes on.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use crate::authz::reason::Reason;
use crate::authz::token::logout::Ended;
use crate::authz::token::{Authority, Refused, Token};

/// What has ended.
pub struct Sessions {
    most: usize,
    held: RwLock<Held>,
}

struct Held {
    /// By issuer: tokens of these are over that were issued up to a moment, in seconds since 1970.
    ended: HashMap<(usize, Whose), Over>,
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

impl Sessions {
    /// Remembers up to `most` ends. `unknown_until` has, by issuer, up to when it is not known what ended: the start, for those
    /// that tell of ends at all.
    #[must_use]
    pub fn new(most: usize, unknown_until: Vec<Option<i64>>) -> Self {
        Self { most, held: RwLock::new(Held { ended: HashMap::new(), unknown_until }) }
    }

    /// Remembers an end; `false` if there is no room for it, so that no token of its issuer counts that was issued before. `now`
    /// is in seconds since 1970.
    pub fn end(&self, ended: &Ended, now: i64) -> bool {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        if held.ended.len() + 2 > self.most {
            held.ended.retain(|_, over| over.until > now);
        }
        if held.ended.len() + 2 > self.most {
            if let Some(unknown) = held.unknown_until.get_mut(ended.issuer) {
                *unknown = (*unknown).max(Some(ended.at));
            }
            return false;
        }
        let mut over = |whose: Whose, issued_until: i64| {
            let over = held.ended.entry((ended.issuer, whose)).or_insert(Over { issued_until, until: ended.until });
            over.issued_until = over.issued_until.max(issued_until);
            over.until = over.until.max(ended.until);
        };
        match (&ended.session, &ended.subject) {
            (Some(session), subject) => {
                over(Whose::Session(session.clone()), i64::MAX);
                if let Some(subject) = subject {
                    over(Whose::Nameless(subject.clone()), ended.at);
                }
            }
            (None, Some(subject)) => over(Whose::User(subject.clone()), ended.at),
            (None, None) => {}
        }
        true
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

    /// How many ends are remembered.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.held.read().unwrap_or_else(PoisonError::into_inner).ended.len()
    }
}
