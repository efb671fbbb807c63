//! Rules about the source itself: who may know whom, how long a file may be, and that nothing is left unsaid.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use palisade::authz::reason::Reason;

use crate::support;

/// Hard limit of a source file, its tests included.
const MAX_LINES: usize = 500;

/// Which modules of the crate a module may name, besides itself. `authz` is the core; only `app` and `cli` wire.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("admin", &["authz"]),
    (
        "app",
        &[
            "admin",
            "audit",
            "authz",
            "capture",
            "config",
            "control",
            "envoy",
            "journal",
            "keys",
            "logout",
            "proto",
            "replay",
            "secret_file",
            "sessions",
            "shared",
            "state",
            "store",
            "telemetry",
            "tokens",
            "tools",
        ],
    ),
    ("audit", &["authz", "proto", "secret_file", "tlog"]),
    // Reads what `audit` wrote, and knows nothing of how.
    ("auditor", &["authz", "proto", "tlog"]),
    ("authz", &[]),
    ("capture", &["authz"]),
    (
        "cli",
        &[
            "app", "auditor", "authz", "capture", "config", "control", "envoy", "keys", "mesh", "proto", "store",
            "tlog", "tokens", "tools",
        ],
    ),
    // The configuration is composed of each module's own part.
    ("config", &["audit", "authz", "keys", "shared", "telemetry"]),
    ("control", &["authz", "proto", "tls"]),
    ("envoy", &["authz"]),
    ("journal", &[]),
    ("keys", &["authz", "tls"]),
    ("logout", &[]),
    // Reads the configuration of others, and knows nothing of Palisade's own.
    ("mesh", &["authz"]),
    ("proto", &["authz"]),
    ("replay", &[]),
    // Files of secrets, for more than one shell.
    ("secret_file", &[]),
    ("sessions", &["authz"]),
    ("shared", &["authz"]),
    ("state", &["authz"]),
    ("store", &["authz"]),
    ("telemetry", &["authz"]),
    // The mathematics and formats of a log, for who writes and who reads one.
    ("tlog", &["authz"]),
    // What more than one shell does at the TLS library.
    ("tls", &[]),
    ("tokens", &["authz"]),
    ("tools", &["authz"]),
];

/// What the core may not name: it has no clock, no sockets, no files, no threads and no log.
const NOT_IN_THE_CORE: &[&str] = &[
    "tokio",
    "tonic",
    "prost",
    "hyper",
    "tracing",
    "opentelemetry",
    "prometheus",
    "envoy_types",
    "std::fs",
    "std::net",
    "std::env",
    "std::thread",
    "std::process",
    "std::io",
    "SystemTime::now",
    "Instant",
    "rand",
    "async fn",
    "println",
    "eprintln",
];

/// Words that say that something is not finished, spelled so that this file does not hold them.
const UNFINISHED: &[&str] =
    &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("HA", "CK"), concat!("dbg", "!(")];

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["utils", "util", "common", "helpers", "helper", "misc", "manager", "types"];

struct Source {
    /// Path from the root of the repository.
    path: String,
    text: String,
}

impl Source {
    /// The code that ships: without comments and without the tests at its end.
    fn code(&self) -> String {
        let end = self.text.find("\n#[cfg(test)]").unwrap_or(self.text.len());
        let lines = self.text[..end].lines().map(|line| match line.find("//") {
            // A URL in a text is no comment.
            Some(at) if !line[..at].ends_with(':') => &line[..at],
            _ => line,
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// The top module that the file belongs to.
    fn module(&self) -> &str {
        let below = self.path.strip_prefix("src/").unwrap();
        below.split(['/', '.']).next().unwrap()
    }
}

fn sources() -> Vec<Source> {
    let root = support::repository();
    let path = |path: &Path| path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
    support::walk(&root.join("src"), ".rs")
        .iter()
        .map(|file| Source { path: path(file), text: support::read(file) })
        .collect()
}

/// Whether `code` names `word` as a whole: not as a part of a longer name.
fn names(code: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back().is_none_or(|c| !is_name(c));
        let after = code[at + word.len()..].chars().next().is_none_or(|c| !is_name(c));
        before && after
    })
}

/// The modules of this crate that a file names: `crate::x`, and `crate::{x, y}`.
fn modules_named(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
        let Some(group) = rest.strip_prefix('{') else {
            found.insert(word(rest));
            continue;
        };
        let mut depth = 1;
        let mut item = String::new();
        for c in group.chars() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 || (depth == 1 && c == ',') {
                found.insert(word(item.trim()));
                item.clear();
                if depth == 0 {
                    break;
                }
            } else {
                item.push(c);
            }
        }
    }
    found.remove("");
    found
}

#[test]
fn every_module_names_only_what_it_may() {
    let allowed: BTreeMap<&str, &[&str]> = MAY_NAME.iter().copied().collect();
    let mut wrong = Vec::new();
    for source in sources() {
        let module = source.module();
        if matches!(module, "lib" | "main") {
            continue;
        }
        let Some(may) = allowed.get(module) else {
            wrong.push(format!("{}: module `{module}` has no entry in MAY_NAME", source.path));
            continue;
        };
        for named in modules_named(&source.code()) {
            if named != module && !may.contains(&named.as_str()) {
                wrong.push(format!("{}: `{module}` may not name `{named}`", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The shells do not know one another, whatever the table above comes to say.
#[test]
fn the_shells_do_not_know_one_another() {
    // All but the core, those who wire them, their configuration, types made of the record's schema, the formats of logs, files of
    // secrets, and what verifiers share.
    let is_shell =
        |module: &str| !["authz", "app", "cli", "config", "proto", "secret_file", "tlog", "tls"].contains(&module);
    for (module, may) in MAY_NAME.iter().filter(|(module, _)| is_shell(module)) {
        let others: Vec<_> = may.iter().filter(|named| is_shell(named)).collect();
        assert!(others.is_empty(), "{module}: {others:?}");
    }
    assert!(MAY_NAME.iter().any(|(module, may)| *module == "authz" && may.is_empty()));
}

#[test]
fn the_core_is_pure() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.module() == "authz") {
        let code = source.code();
        for word in NOT_IN_THE_CORE {
            if names(&code, word) {
                wrong.push(format!("{}: the core may not name `{word}`", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The crate that promises no stability has one door.
#[test]
fn one_file_names_the_evaluator() {
    let named: Vec<String> = sources()
        .into_iter()
        .filter(|source| names(&source.code(), "cedar_policy_core"))
        .map(|source| source.path)
        .collect();
    assert_eq!(named, ["src/authz/policy/cedar.rs"]);
}

#[test]
fn no_file_is_too_long() {
    let long: Vec<String> = sources()
        .iter()
        .map(|source| (source.text.lines().count(), &source.path))
        .filter(|(lines, _)| *lines > MAX_LINES)
        .map(|(lines, path)| format!("{path}: {lines} lines"))
        .collect();
    assert!(long.is_empty(), "more than {MAX_LINES} lines:\n{}", long.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for() {
    let mut wrong = Vec::new();
    for source in sources() {
        let first = source.text.lines().next().unwrap_or_default();
        if !first.starts_with("//! ") {
            wrong.push(format!("{}: the first line says what the file is for (`//! …`)", source.path));
        }
        let stem = source.path.rsplit('/').next().unwrap().trim_end_matches(".rs");
        if EMPTY_NAMES.contains(&stem) || stem == "mod" {
            wrong.push(format!("{}: the name says nothing", source.path));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_is_left_unfinished() {
    let root = support::repository();
    let mut wrong = Vec::new();
    for folder in ["src", "cedar", "proto", "tests/decisions", "docs"] {
        for ending in [".rs", ".cedar", ".cedarschema", ".toml", ".proto", ".md", ".json"] {
            for path in support::walk(&root.join(folder), ending) {
                let text = support::read(&path);
                for word in UNFINISHED.iter().filter(|word| names(&text, word)) {
                    wrong.push(format!("{}: `{word}`", path.strip_prefix(root).unwrap().display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Who reads a code in an answer or a record finds it in the guide.
#[test]
fn the_guide_explains_every_reason() {
    let guide = support::read(&support::repository().join("docs/why-denied.md"));
    let missing: Vec<&str> =
        Reason::ALL.iter().map(|reason| reason.code()).filter(|code| !guide.contains(&format!("`{code}`"))).collect();
    assert!(missing.is_empty(), "docs/why-denied.md lacks {missing:?}");
}

/// The guide's tables say what the code does: `| `code` | HTTP status | …`, and no code that no denial has.
#[test]
fn the_guide_and_the_table_agree() {
    let guide = support::read(&support::repository().join("docs/why-denied.md"));
    let table: BTreeMap<&str, u16> = Reason::ALL.iter().map(|reason| (reason.code(), reason.wire().http)).collect();
    let mut explained = BTreeSet::new();
    for line in guide.lines().filter_map(|line| line.strip_prefix("| `")) {
        let Some((code, rest)) = line.split_once("` | ") else { continue };
        let Some(http) = rest.split(' ').next().and_then(|text| text.parse::<u16>().ok()) else { continue };
        assert_eq!(table.get(code), Some(&http), "docs/why-denied.md: `{code}`");
        explained.insert(code);
    }
    assert_eq!(explained, table.keys().copied().collect(), "reasons with a row / reasons");
}
