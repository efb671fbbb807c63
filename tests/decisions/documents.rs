//! What documents tell people to write is what Palisade takes: configuration, targets, policies, and Envoy's filter.
//!
//! A block of `toml` is configuration that starts as it stands, beside the listener and the trust domains that every
//! configuration has. What is said behind `toml` is seen by this test alone: `toml more` goes with the blocks before it in the
//! same document, `toml target` holds keys of a `[[target]]`.

use std::path::{Path, PathBuf};

use palisade::config::Config;

use palisade::tools::rules::Rules;

use crate::support;

/// What every configuration has, and no document repeats.
const LISTENER: &str = "[[listener]]\ntcp = \"127.0.0.1:0\"\n";
const IDENTITY: &str = "[identity]\ntrust_domains = [\"example.org\"]\n";

/// What Envoy's filter has to be told; `SECURITY.md` says what for.
const EXT_AUTHZ: &[&str] = &[
    "failure_mode_allow: false",
    "status_on_error: { code: ServiceUnavailable }",
    "max_request_bytes: 65536",
    "allow_partial_message: false",
    "pack_as_bytes: true",
    "encode_raw_headers: true",
    "include_peer_certificate: true",
    "validate_mutations: true",
];

/// A block of code in a document.
struct Block {
    /// What stands behind the fence.
    info: String,
    /// Where it is, for messages.
    place: String,
    text: String,
}

/// Every document of the repository, by its path from the root.
fn documents() -> Vec<String> {
    let is_ours = |name: &str| !name.starts_with('.') && name != "target" && name != "node_modules";
    let (mut found, mut folders) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(support::repository().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let path = folder.join(&name);
            if !is_ours(&name) {
                continue;
            }
            if entry.path().is_dir() {
                folders.push(path);
            } else if name.ends_with(".md") {
                found.push(path.into_os_string().into_string().unwrap());
            }
        }
    }
    found.sort();
    found
}

fn blocks(document: &str) -> Vec<Block> {
    let text = support::read(&support::repository().join(document));
    let mut blocks: Vec<Block> = Vec::new();
    let mut is_open = false;
    for (at, line) in text.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), is_open) {
            (Some(info), false) => {
                let place = format!("{document}:{}", at + 1);
                blocks.push(Block { info: info.trim().to_owned(), place, text: String::new() });
                is_open = true;
            }
            (Some(_), true) => is_open = false,
            (None, true) => blocks.last_mut().unwrap().text += &format!("{line}\n"),
            (None, false) => {}
        }
    }
    assert!(!is_open, "{document}: its last block of code has no end");
    blocks
}

fn in_language(language: &str) -> Vec<Block> {
    let of = |block: &Block| block.info.split(' ').next() == Some(language);
    documents().iter().flat_map(|document| blocks(document)).filter(of).collect()
}

/// Configuration as a reader would have it who adds `text` to what every one has.
fn start_with(text: &str) -> Result<(), String> {
    let beside = |table: &str, lines: &'static str| if text.contains(table) { "" } else { lines };
    let whole = format!("{text}{}{}", beside("[[listener]]", LISTENER), beside("[identity]", IDENTITY));
    Config::parse("palisade.toml", &whole, Path::new("")).map(drop).map_err(|error| format!("{error}\nof:\n{whole}"))
}

/// The repository's own bundle, with more in one of its files.
fn load_with(file: &str, change: impl Fn(&str) -> String) -> Result<(), String> {
    let mut files = support::default_files();
    let before = files.remove(file).map(|bytes| String::from_utf8(bytes).unwrap()).unwrap_or_default();
    files.insert(file.to_owned(), change(&before).into_bytes());
    support::load(&files).map(drop).map_err(|error| error.to_string())
}

/// A target of its own, whose keys a document shows.
fn target(keys: &str) -> Result<(), String> {
    let text = format!(
        "\n[[target]]\nname = \"shown\"\nprotocol = \"http\"\n{keys}\n[target.match]\nauthority = \"shown.example\"\n"
    );
    load_with("targets.toml", |before| format!("{before}{text}"))
}

#[test]
fn configuration_in_documents_is_taken() {
    let mut wrong = Vec::new();
    let mut kinds = [0; 3];
    for document in documents() {
        let mut before = String::new();
        for block in blocks(&document).into_iter().filter(|block| block.info.split(' ').next() == Some("toml")) {
            let outcome = match block.info.as_str() {
                "toml" => {
                    kinds[0] += 1;
                    before += &block.text;
                    start_with(&block.text)
                }
                "toml more" => {
                    kinds[1] += 1;
                    before += &block.text;
                    start_with(&before)
                }
                "toml target" => {
                    kinds[2] += 1;
                    target(&block.text)
                }
                "toml targets" => load_with("targets.toml", |targets| format!("{targets}\n{}", block.text)),
                "toml limits" => load_with("limits.toml", |limits| {
                    format!("{}\n{}", limits.split("[denials]").next().unwrap(), block.text)
                }),
                "toml rules" => Rules::parse(&block.text).map(drop),
                other => Err(format!(
                    "`{other}`: a block is `toml`, `toml more`, `toml target`, `toml targets`, `toml limits` or `toml rules`"
                )),
            };
            wrong.extend(outcome.err().map(|error| format!("{}: {error}", block.place)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(!kinds.contains(&0), "of each kind there is one to look at: {kinds:?}");
}

/// What is refused above is refused for what it lacks.
#[test]
fn configuration_that_lacks_something_is_refused() {
    let domain = "[[trust_domain]]\nname = \"example.org\"\nkeys = { file = \"bundle.json\" }\n";
    assert!(start_with(domain).is_err_and(|error| error.contains("no `[[token]]`")), "{domain}");
    let with = |role: &str| {
        let token = format!("[[token]]\nheader = \"authorization\"\nrole = \"{role}\"\n");
        start_with(&format!("{token}[svid]\naudiences = [\"palisade\"]\n{domain}"))
    };
    assert_eq!(with("agent"), Ok(()));
    assert!(with("user").is_err_and(|error| error.contains("no `[[token]]` has the role `agent`")));
    assert!(start_with("[recrod]\npath = \"-\"\n").is_err());
    assert!(target("origin = [\"https://shown.example\"]\n").is_err());
}

#[test]
fn policies_in_documents_are_taken() {
    let blocks = in_language("cedar");
    for Block { place, text, .. } in &blocks {
        let outcome = load_with("policies/shown.cedar", |_| text.clone());
        assert_eq!(outcome, Ok(()), "{place}");
    }
    assert!(blocks.len() >= 3, "{}", blocks.len());
}

/// Whoever copies the filter from a document has all that Palisade rests on, as in the file that the mesh tests run.
#[test]
fn envoys_filter_is_told_all_that_it_has_to_be() {
    let is_filter = |block: &Block| block.text.contains("ext_authz.v3.ExtAuthz");
    let mut filters: Vec<_> = in_language("yaml").into_iter().filter(is_filter).map(|it| (it.place, it.text)).collect();
    assert!(!filters.is_empty(), "no document shows the filter");
    let file = "envoy/tools.yaml";
    filters.push((file.to_owned(), support::read(&support::repository().join(file))));
    let security = support::read(&support::repository().join("SECURITY.md"));
    for setting in EXT_AUTHZ {
        for (place, text) in &filters {
            assert!(text.contains(setting), "{place}: lacks `{setting}`");
        }
        let key = setting.split(':').next().unwrap();
        assert!(security.contains(key), "SECURITY.md does not say what `{key}` is for");
    }
}
