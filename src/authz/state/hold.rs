//! Holds, the kill switch: nothing more from, to or about whatever is held, until it is released.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;

use super::{Author, Map, change_at};
use crate::authz::hex;
use crate::authz::identity::spiffe::{SpiffeId, is_namespace, is_trust_domain};

/// Longest name of what can be held, in bytes: that of a SPIFFE ID.
const MAX_ID_BYTES: usize = 2_048;

/// The kinds of what can be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum About {
    /// Every call.
    Everything,
    /// Whatever is decided by a bundle, by its digest.
    Bundle,
    /// Workloads of a trust domain.
    TrustDomain,
    /// Workloads of a namespace: `<trust domain>/<namespace>`.
    Namespace,
    /// A workload, by its SPIFFE ID.
    Agent,
    /// A user: `<issuer>/<subject>`.
    User,
    /// A login: `<issuer>/<sid>`; or a session of MCP, as `sha256:` and the digest that records have.
    Session,
    /// A token: `<issuer>/<jti>`; or `sha256:` and the digest that records have.
    Token,
    /// A task.
    Task,
    /// A target.
    Server,
    /// A tool: `<server>/<tool>`.
    Tool,
}

impl About {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::Everything,
        Self::Bundle,
        Self::TrustDomain,
        Self::Namespace,
        Self::Agent,
        Self::User,
        Self::Session,
        Self::Token,
        Self::Task,
        Self::Server,
        Self::Tool,
    ];

    /// What it is called before the colon.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Everything => "everything",
            Self::Bundle => "bundle",
            Self::TrustDomain => "trust-domain",
            Self::Namespace => "namespace",
            Self::Agent => "agent",
            Self::User => "user",
            Self::Session => "session",
            Self::Token => "token",
            Self::Task => "task",
            Self::Server => "server",
            Self::Tool => "tool",
        }
    }

    /// The Cedar entity type of it.
    #[must_use]
    pub const fn entity_type(self) -> &'static str {
        match self {
            Self::Everything => "Mesh",
            Self::Bundle => "Bundle",
            Self::TrustDomain => "TrustDomain",
            Self::Namespace => "Namespace",
            Self::Agent => "Agent",
            Self::User => "User",
            Self::Session => "Session",
            Self::Token => "Token",
            Self::Task => "Task",
            Self::Server => "Server",
            Self::Tool => "Tool",
        }
    }

    /// What its names look like.
    const fn form(self) -> &'static str {
        match self {
            Self::Everything => "nothing",
            Self::Bundle => "`sha256:` and 64 hexadecimal digits in lower case",
            Self::TrustDomain => "the name of a trust domain, such as `example.org`",
            Self::Namespace => "`<trust domain>/<namespace>`, such as `example.org/agents`",
            Self::Agent => "the SPIFFE ID of a workload, such as `spiffe://example.org/ns/agents/sa/coder`",
            Self::User => "`<issuer>/<subject>`, such as `corp/alice`",
            Self::Session => "`<issuer>/<sid>`, or `sha256:` and the digest of an MCP session as records have it",
            Self::Token => "`<issuer>/<jti>`, or `sha256:` and the digest of a token as records have it",
            Self::Task => "a name of 1 to 256 visible ASCII characters",
            Self::Server => "the name of a target",
            Self::Tool => "`<server>/<tool>`, such as `crm/query_customers`",
        }
    }

    fn is_name(self, id: &str) -> bool {
        let is_plain = !id.is_empty() && id.len() <= MAX_ID_BYTES && !id.chars().any(char::is_control);
        let is_pair = || id.split_once('/').is_some_and(|(first, rest)| !first.is_empty() && !rest.is_empty());
        match self {
            Self::Everything => id.is_empty(),
            Self::Bundle => is_digest(id),
            Self::TrustDomain => is_trust_domain(id),
            Self::Namespace => is_namespace(id),
            Self::Agent => SpiffeId::parse(id).is_ok(),
            Self::User | Self::Tool => is_plain && is_pair(),
            Self::Session | Self::Token => is_plain && (is_digest(id) || (is_pair() && !id.starts_with("sha256:"))),
            Self::Task => is_task(id),
            Self::Server => is_plain && !id.contains('/'),
        }
    }
}

fn is_digest(id: &str) -> bool {
    id.strip_prefix("sha256:").is_some_and(|digits| hex::decode::<32>(digits).is_some())
}

/// Longest name of a task, in bytes.
const MAX_TASK_BYTES: usize = 256;

/// Whether a text can be the name of a task: what a header holds as it is.
#[must_use]
pub fn is_task(name: &str) -> bool {
    (1..=MAX_TASK_BYTES).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
}

/// What is held.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject {
    about: About,
    id: Box<str>,
}

impl Subject {
    /// One of a kind, by its name.
    ///
    /// # Errors
    /// What a name of this kind looks like.
    pub fn new(about: About, id: &str) -> Result<Self, String> {
        if about.is_name(id) {
            return Ok(Self { about, id: id.into() });
        }
        Err(format!("after `{}:` there has to be {}", about.as_str(), about.form()))
    }

    /// Its kind.
    #[must_use]
    pub const fn about(&self) -> About {
        self.about
    }

    /// Its name; empty for everything.
    #[must_use]
    pub const fn id(&self) -> &str {
        &self.id
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.about.as_str())?;
        if self.id.is_empty() { Ok(()) } else { write!(f, ":{}", self.id) }
    }
}

impl FromStr for Subject {
    type Err = String;

    /// `everything`, or a kind and a name: `agent:spiffe://example.org/ns/agents/sa/coder`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, id) = text.split_once(':').unwrap_or((text, ""));
        match About::ALL.into_iter().find(|about| about.as_str() == kind) {
            Some(About::Everything) if text != kind => Err("expected `everything` and nothing behind it".into()),
            Some(about) => Self::new(about, id),
            None => {
                let kinds: Vec<&str> = About::ALL.into_iter().skip(1).map(About::as_str).collect();
                Err(format!("expected `everything`, or one of {} with `:` and a name behind it", kinds.join(", ")))
            }
        }
    }
}

/// A hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// UUID version 7, as text.
    pub id: String,
    /// What is held.
    pub subject: Subject,
    /// Why, for people.
    pub reason: String,
    /// Who placed it.
    pub author: Author,
    /// When.
    pub since: Timestamp,
    /// Until when; `None` until it is released.
    pub until: Option<Timestamp>,
}

impl Hold {
    /// Whether it is in force at a moment.
    #[must_use]
    pub fn holds(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

type ById = Map<String, Arc<Hold>>;

/// The holds that are known.
#[derive(Clone, Debug, Default)]
pub struct Holds {
    by_id: ById,
    /// By kind, in the order of [`About::ALL`], and name.
    by_subject: [Map<Box<str>, ById>; About::ALL.len()],
}

impl Holds {
    /// Whether there is none at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.size()
    }

    /// The hold with this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Arc<Hold>> {
        self.by_id.get(id)
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Hold>> {
        self.by_id.values()
    }

    /// Whether there is one on anything of a kind. Of most kinds there is mostly none, and then no name has to be put together and
    /// looked up: each call would have to for eleven.
    #[must_use]
    pub fn has_any(&self, about: About) -> bool {
        self.by_subject.get(about as usize).is_some_and(|by_name| !by_name.is_empty())
    }

    /// Those on exactly this, in no order.
    pub fn on(&self, about: About, id: &str) -> impl Iterator<Item = &Arc<Hold>> {
        let by_name = self.by_subject.get(about as usize).filter(|by_name| !by_name.is_empty());
        let found = by_name.and_then(|by_name| by_name.get(id));
        found.into_iter().flat_map(Map::values)
    }

    /// One on exactly this that is in force: the oldest, so that the same is told of the same call.
    #[must_use]
    pub fn in_force(&self, about: About, id: &str, now: Timestamp) -> Option<&Arc<Hold>> {
        self.on(about, id).filter(|hold| hold.holds(now)).min_by(|a, b| a.id.cmp(&b.id))
    }

    /// Puts one in; one with the same id is replaced.
    pub fn insert(&mut self, hold: Arc<Hold>) {
        self.remove(&hold.id);
        self.change_same(&hold.subject, |same| same.insert_mut(hold.id.clone(), hold.clone()));
        self.by_id.insert_mut(hold.id.clone(), hold);
    }

    /// Takes one out.
    pub fn remove(&mut self, id: &str) -> Option<Arc<Hold>> {
        let hold = self.by_id.get(id).cloned()?;
        self.by_id.remove_mut(id);
        self.change_same(&hold.subject, |same| {
            same.remove_mut(id);
        });
        Some(hold)
    }

    /// Changes those on exactly this.
    fn change_same(&mut self, subject: &Subject, change: impl FnOnce(&mut ById)) {
        if let Some(by_name) = self.by_subject.get_mut(subject.about as usize) {
            change_at(by_name, &subject.id, change);
        }
    }
}
