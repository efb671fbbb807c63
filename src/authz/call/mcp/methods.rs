//! The methods of MCP, and which revisions have them: `ClientRequest`, `ClientNotification`, `ServerRequest` and
//! `ServerNotification` of each revision's `schema.ts`, and the tasks extension of 2026-07-28 (SEP-2663).

/// Published revisions, oldest first. As texts they are in that order too.
pub const REVISIONS: &[&str] = &["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"];
/// The revision from which on a request stands alone: it mirrors method and name in headers and its version in the body;
/// there are no sessions, no GET, no DELETE, and no client that answers.
pub const STATELESS: &str = "2026-07-28";

/// Who sends a method, and whether an answer is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A request of a client.
    Request,
    /// A notification of a client.
    Notification,
    /// Servers alone send it.
    OfServers,
}

/// A method that some revision has.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// Its name, which is that of its action too.
    pub name: &'static str,
    kind: Kind,
    /// The first and the last revision that have it.
    since: &'static str,
    until: &'static str,
    /// The member of its parameters that says what it is about, and that `mcp-name` mirrors: a text.
    pub about: Option<&'static str>,
}

const FIRST: &str = "2024-11-05";
const TASKS: &str = "2025-11-25";
/// The last one before [`STATELESS`].
const LEGACY: &str = "2025-11-25";

const fn method(name: &'static str, kind: Kind, (since, until): (&'static str, &'static str)) -> Method {
    Method { name, kind, since, until, about: None }
}

const fn about(member: &'static str, method: Method) -> Method {
    Method { about: Some(member), ..method }
}

const fn request(name: &'static str, revisions: (&'static str, &'static str)) -> Method {
    method(name, Kind::Request, revisions)
}

const fn notification(name: &'static str, revisions: (&'static str, &'static str)) -> Method {
    method(name, Kind::Notification, revisions)
}

const fn of_servers(name: &'static str) -> Method {
    method(name, Kind::OfServers, (FIRST, STATELESS))
}

const METHODS: &[Method] = &[
    request("completion/complete", (FIRST, STATELESS)),
    request("initialize", (FIRST, LEGACY)),
    request("logging/setLevel", (FIRST, LEGACY)),
    request("ping", (FIRST, LEGACY)),
    about("name", request("prompts/get", (FIRST, STATELESS))),
    request("prompts/list", (FIRST, STATELESS)),
    request("resources/list", (FIRST, STATELESS)),
    about("uri", request("resources/read", (FIRST, STATELESS))),
    about("uri", request("resources/subscribe", (FIRST, LEGACY))),
    request("resources/templates/list", (FIRST, STATELESS)),
    about("uri", request("resources/unsubscribe", (FIRST, LEGACY))),
    request("server/discover", (STATELESS, STATELESS)),
    request("subscriptions/listen", (STATELESS, STATELESS)),
    about("taskId", request("tasks/cancel", (TASKS, STATELESS))),
    about("taskId", request("tasks/get", (TASKS, STATELESS))),
    request("tasks/list", (TASKS, LEGACY)),
    about("taskId", request("tasks/result", (TASKS, LEGACY))),
    about("taskId", request("tasks/update", (STATELESS, STATELESS))),
    about("name", request("tools/call", (FIRST, STATELESS))),
    request("tools/list", (FIRST, STATELESS)),
    notification("notifications/cancelled", (FIRST, STATELESS)),
    notification("notifications/initialized", (FIRST, LEGACY)),
    notification("notifications/progress", (FIRST, LEGACY)),
    notification("notifications/roots/list_changed", (FIRST, LEGACY)),
    notification("notifications/tasks/status", (TASKS, LEGACY)),
    of_servers("elicitation/create"),
    of_servers("notifications/elicitation/complete"),
    of_servers("notifications/message"),
    of_servers("notifications/prompts/list_changed"),
    of_servers("notifications/resources/list_changed"),
    of_servers("notifications/resources/updated"),
    of_servers("notifications/subscriptions/acknowledged"),
    of_servers("notifications/tasks"),
    of_servers("notifications/tools/list_changed"),
    of_servers("roots/list"),
    of_servers("sampling/createMessage"),
];

/// The names of what clients send.
pub fn of_clients() -> impl Iterator<Item = &'static str> {
    METHODS.iter().filter(|method| method.kind != Kind::OfServers).map(|method| method.name)
}

/// The method of this name, whoever sends it.
pub fn named(name: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.name == name)
}

/// The method that a client's message of this kind names under this version header: one of the table, or none if no
/// revision knows the name, which then is a plain one and like none of them.
///
/// # Errors
/// For the operator: what is wrong with the name there.
pub fn sent(name: &str, kind: Kind, version: Option<&str>) -> Result<Option<&'static Method>, &'static str> {
    match named(name) {
        Some(method) if method.kind == Kind::OfServers => Err("`method`: servers send it, not clients"),
        Some(method) if method.kind != kind && kind == Kind::Request => Err("`method`: a notification has no id"),
        Some(method) if method.kind != kind => Err("`method`: a request has an id"),
        Some(method) if !method.is_in(version) => Err("`method`: not in this revision"),
        Some(method) => Ok(Some(method)),
        None if !is_plain(name) => Err("`method`: no plain name"),
        None if METHODS.iter().any(|method| folded(method.name).eq(folded(name))) => {
            Err("`method`: looks like another one")
        }
        None => Ok(None),
    }
}

impl Method {
    /// Whether the revision of a version header has it. Without that header it may be any with sessions.
    fn is_in(&self, version: Option<&str>) -> bool {
        version.map_or(self.since < STATELESS, |version| (self.since..=self.until).contains(&version))
    }
}

/// Longest name of a method that no revision knows, in bytes.
const MAX_METHOD_BYTES: usize = 64;

/// Names of methods of extensions: words of ASCII letters, digits, `_`, `-` and `.`, separated by single slashes. They
/// begin with a letter, and not with `rpc.`, which JSON-RPC 2.0 keeps for itself.
fn is_plain(name: &str) -> bool {
    let is_word = |word: &str| {
        let in_word = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
        word.bytes().all(in_word) && word.bytes().any(|b| b.is_ascii_alphanumeric())
    };
    name.len() <= MAX_METHOD_BYTES
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && !name.get(..4).is_some_and(|prefix| prefix.eq_ignore_ascii_case("rpc."))
        && name.split('/').all(is_word)
}

/// What is left of a plain name for a server that takes signs and case for the same.
fn folded(name: &str) -> impl Iterator<Item = u8> {
    name.bytes().filter(u8::is_ascii_alphanumeric).map(|b| b.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The methods of clients, by revision, as their `schema.ts` has them.
    #[test]
    fn each_revision_has_its_methods() {
        let has = |revision: &str, kind: Kind| -> Vec<&str> {
            let of_kind = METHODS.iter().filter(|method| method.kind == kind && method.is_in(Some(revision)));
            of_kind.map(|method| method.name).collect()
        };
        let first = [
            "completion/complete",
            "initialize",
            "logging/setLevel",
            "ping",
            "prompts/get",
            "prompts/list",
            "resources/list",
            "resources/read",
            "resources/subscribe",
            "resources/templates/list",
            "resources/unsubscribe",
            "tools/call",
            "tools/list",
        ];
        let told = [
            "notifications/cancelled",
            "notifications/initialized",
            "notifications/progress",
            "notifications/roots/list_changed",
        ];
        for revision in ["2024-11-05", "2025-03-26", "2025-06-18"] {
            assert_eq!(has(revision, Kind::Request), first, "{revision}");
            assert_eq!(has(revision, Kind::Notification), told, "{revision}");
        }
        let tasks = ["tasks/cancel", "tasks/get", "tasks/list", "tasks/result"];
        let mut with_tasks = [&first[..], &tasks].concat();
        with_tasks.sort_unstable();
        assert_eq!(has("2025-11-25", Kind::Request), with_tasks);
        assert_eq!(has("2025-11-25", Kind::Notification), [&told[..], &["notifications/tasks/status"]].concat());
        let gone = ["initialize", "logging/setLevel", "ping", "resources/subscribe", "resources/unsubscribe"];
        let mut newest: Vec<&str> = first.into_iter().filter(|name| !gone.contains(name)).collect();
        newest.extend(["server/discover", "subscriptions/listen", "tasks/cancel", "tasks/get", "tasks/update"]);
        newest.sort_unstable();
        assert_eq!(has("2026-07-28", Kind::Request), newest);
        assert_eq!(has("2026-07-28", Kind::Notification), ["notifications/cancelled"]);
    }

    #[test]
    fn without_a_version_it_is_a_revision_with_sessions() {
        for name in ["initialize", "tools/call", "tasks/list"] {
            assert!(matches!(sent(name, Kind::Request, None), Ok(Some(_))), "{name}");
        }
        for name in ["server/discover", "subscriptions/listen", "tasks/update"] {
            assert!(sent(name, Kind::Request, None).is_err(), "{name}");
        }
    }

    #[test]
    fn only_plain_names_like_no_other_are_of_an_extension() {
        for name in ["x", "acme/rotate", "com.acme/rotate-keys", "tools/delete", "a/b/c", "Rpc/x", "tools/call2"] {
            for kind in [Kind::Request, Kind::Notification] {
                for version in [None, Some("2025-06-18"), Some("2026-07-28")] {
                    assert!(matches!(sent(name, kind, version), Ok(None)), "{name}");
                }
            }
        }
        let long = "x".repeat(65);
        for name in [
            "",
            " ",
            "/",
            "a/",
            "/a",
            "a//b",
            "a/./b",
            "a/../b",
            "1a",
            "-a",
            "a b",
            "a\n",
            "a\0",
            "é",
            "tооls/call",
            "mcp:stream",
            "mcp:unknown",
            "$/cancel",
            "rpc.discover",
            "RPC.x",
            "a?b",
            "a#b",
            "a%2fb",
            "a\\b",
            "a:b",
            &long,
            "Tools/Call",
            "tools.call",
            "tools_call",
            "toolscall",
            "tools/call.",
            "TOOLS/LIST",
            "PING",
            "p-i.n_g",
            "Roots/List",
            "notifications/Message",
        ] {
            assert!(sent(name, Kind::Request, None).is_err(), "{name}");
        }
        assert!(matches!(sent(&"x".repeat(64), Kind::Request, None), Ok(None)));
    }

    #[test]
    fn a_method_keeps_its_kind_and_its_side() {
        assert!(sent("tools/call", Kind::Notification, None).is_err());
        assert!(sent("notifications/initialized", Kind::Request, None).is_err());
        for method in METHODS.iter().filter(|method| method.kind == Kind::OfServers) {
            for kind in [Kind::Request, Kind::Notification] {
                assert!(sent(method.name, kind, None).is_err(), "{}", method.name);
                assert!(sent(method.name, kind, Some(STATELESS)).is_err(), "{}", method.name);
            }
        }
    }

    #[test]
    fn names_fold_apart() {
        for (at, method) in METHODS.iter().enumerate() {
            assert!(METHODS.iter().skip(at + 1).all(|other| !folded(other.name).eq(folded(method.name))));
            assert!(REVISIONS.contains(&method.since) && REVISIONS.contains(&method.until));
            assert!(method.since <= method.until);
        }
    }
}
