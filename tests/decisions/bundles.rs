//! Bundles with one mistake in them: each is refused as a whole, with one line that names the file, the line where there
//! is one, and what was expected.

mod mistakes;

use std::collections::BTreeSet;

use mistakes::{ACCEPTED, mistakes};
use palisade::authz::policy::source::BundleError;
use palisade::store::files;

use crate::support::{self, Files};

/// A mistake: what is done to the repository's bundle, and what is said about it.
struct Mistake {
    name: &'static str,
    edit: fn(&mut Edit),
    message: &'static str,
}

/// The files of a bundle, being changed.
struct Edit(Files);

impl Edit {
    fn text(&self, file: &str) -> String {
        String::from_utf8(self.0.get(file).unwrap_or_else(|| panic!("no file {file}")).clone()).unwrap()
    }

    /// Replaces the first `from` in a file by `to`.
    fn replace(&mut self, file: &str, from: &str, to: &str) {
        let text = self.text(file);
        assert!(text.contains(from), "{file} holds no {from:?}");
        self.0.insert(file.to_owned(), text.replacen(from, to, 1).into_bytes());
    }

    /// A file with this content, or a new content for it.
    fn write(&mut self, file: &str, text: impl AsRef<[u8]>) {
        self.0.insert(file.to_owned(), text.as_ref().to_vec());
    }

    fn remove(&mut self, file: &str) {
        self.0.remove(file).unwrap_or_else(|| panic!("no file {file}"));
    }

    /// The bundle with one more policy, in a file of its own that begins with an empty line.
    fn policy(&mut self, text: &str) {
        self.write("policies/new.cedar", format!("\n{text}"));
    }
}

/// Whether a text is the expected one; `‹any›` stands for what Cedar says differently from run to run.
fn fits(text: &str, expected: &str) -> bool {
    let mut pieces = expected.split("‹any›");
    let Some(mut rest) = pieces.next().and_then(|first| text.strip_prefix(first)) else { return false };
    for piece in pieces {
        match (piece, rest.find(piece)) {
            ("", _) => rest = "",
            (_, Some(at)) => rest = &rest[at + piece.len()..],
            (_, None) => return false,
        }
    }
    rest.is_empty()
}

/// What is said of the bundle after `edit`.
fn refused(edit: fn(&mut Edit)) -> Result<(), BundleError> {
    let mut changed = Edit(support::default_files());
    edit(&mut changed);
    support::load(&changed.0).map(drop)
}

#[test]
fn the_bundle_without_a_mistake_is_loaded() {
    assert_eq!(refused(|_| {}), Ok(()));
}

#[test]
fn every_mistake_gets_its_one_message() {
    let mut wrong = Vec::new();
    for Mistake { name, edit, message } in mistakes() {
        match refused(*edit) {
            Ok(()) => wrong.push(format!("{name}\n  accepted, expected: {message}")),
            Err(error) if !fits(&error.to_string(), message) => {
                wrong.push(format!("{name}\n       got: {error}\n  expected: {message}"));
            }
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{} of {} messages:\n{}", wrong.len(), mistakes().count(), wrong.join("\n"));
}

/// A reload that reads only what changed refuses what a start would refuse, in the same words.
#[test]
fn mistakes_in_entities_get_their_messages_after_a_good_bundle_too() {
    let good = support::load(&support::default_files()).unwrap();
    let mut tried = 0;
    for Mistake { name, edit, message } in mistakes() {
        if !message.contains("entities.json") && !message.contains("nothing in the bundle declares") {
            continue;
        }
        let mut changed = Edit(support::default_files());
        edit(&mut changed);
        let error = support::load_after(&changed.0, &good).map(drop).unwrap_err();
        assert!(fits(&error.to_string(), message), "{name}\n       got: {error}\n  expected: {message}");
        tried += 1;
    }
    assert!(tried > 20, "{tried}");
}

/// Of several mistakes the first is named, and always the same one: a reload that fails again is no news.
#[test]
fn the_same_bundle_is_refused_in_the_same_words() {
    let mut changing = Vec::new();
    for name in ["context attribute of another type", "input on an action that is no tool"] {
        let mistake = mistakes().find(|mistake| mistake.name == name).unwrap();
        let words: BTreeSet<String> = (0..10).map(|_| refused(mistake.edit).unwrap_err().to_string()).collect();
        if words.len() > 1 {
            changing.push(words);
        }
    }
    assert!(changing.is_empty(), "{changing:#?}");
}

#[test]
fn what_is_accepted_is_listed() {
    for Mistake { name, edit, message } in ACCEPTED {
        assert_eq!(refused(*edit), Ok(()), "{name} ({message})");
    }
}

/// A line that says nothing of where, or runs over several lines, or is in another tool's words, helps nobody.
#[test]
fn every_message_is_one_line_that_names_its_file() {
    const OF_THE_WHOLE: &[&str] = &["no schema", "no targets", "protocol action missing", "no policies"];
    for Mistake { name, message, .. } in mistakes() {
        assert!(!message.contains('\n'), "{name}");
        let (file, rest) = message.split_once(':').unwrap_or_default();
        let names_file = !file.is_empty() && !file.contains(' ') && rest.len() > 10;
        assert_eq!(names_file, !OF_THE_WHOLE.contains(name), "{name}: {message}");
    }
}

#[test]
fn a_folder_that_is_empty_or_absent_is_no_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display().to_string();
    assert_eq!(files::read(folder.path()).unwrap_err().to_string(), format!("`{path}` holds no bundle"));
    let absent = folder.path().join("absent");
    assert_eq!(
        files::read(&absent).unwrap_err().to_string(),
        format!("cannot read `{}`: No such file or directory (os error 2)", absent.display())
    );
}

#[test]
fn notes_tests_hidden_files_and_leftovers_of_editors_are_no_part_of_a_bundle() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in support::default_files() {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let before = files::digest(&files::read(folder.path()).unwrap());
    for name in [
        "NOTES.md",
        ".hidden",
        "..2026_03_04/x.cedar",
        "tests/case.json",
        "policies/README.md",
        // What vim, emacs and others leave while and after a file is edited.
        "policies/.agents.cedar.swp",
        "policies/agents.cedar~",
        "policies/agents.cedar.~12~",
        "targets.toml~",
        "policies/#agents.cedar#",
        "policies/.#agents.cedar",
    ] {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "nonsense").unwrap();
    }
    assert_eq!(files::digest(&files::read(folder.path()).unwrap()), before);
    // Everything else is read, and refused if it is nothing that a bundle knows: it may be a policy under a wrong name.
    for name in ["x.txt", "agents.cedar.bak", "agents.cedar.orig", "agents.cedar.swp", "#", "#agents.cedar", "a#"] {
        let path = folder.path().join("policies").join(name);
        std::fs::write(&path, "nonsense").unwrap();
        assert_ne!(files::digest(&files::read(folder.path()).unwrap()), before, "{name}");
        std::fs::remove_file(path).unwrap();
    }
    // What would hide a policy, or is left of one that is gone, may be a guardrail under a wrong name.
    for (name, what) in [
        ("gone.cedar~", "is what an editor left of `gone.cedar`, which is gone"),
        ("#gone.cedar#", "is what an editor left of `gone.cedar`, which is gone"),
        ("gone.cedar.~1~", "is what an editor left of `gone.cedar`, which is gone"),
        (".agents.cedar", "is hidden; expected its name without the dot, or no such file"),
        ("agents.cedar.md", "is it a document or `agents.cedar`? expected another name"),
    ] {
        let path = folder.path().join("policies").join(name);
        std::fs::write(&path, "nonsense").unwrap();
        let error = files::read(folder.path()).unwrap_err();
        assert_eq!(error.to_string(), format!("policies/{name}: {what}"));
        std::fs::remove_file(path).unwrap();
    }
    std::fs::rename(folder.path().join("policies"), folder.path().join("policies~")).unwrap();
    let error = files::read(folder.path()).unwrap_err();
    assert_eq!(error.to_string(), "policies~: is what an editor left of `policies`, which is gone");
    std::fs::rename(folder.path().join("policies~"), folder.path().join("policies")).unwrap();
    let link = folder.path().join("policies/linked.cedar");
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    let error = files::read(folder.path()).unwrap_err().to_string();
    assert!(error.starts_with("policies/linked.cedar: cannot be read, or leads nowhere: "), "{error}");
    std::fs::remove_file(link).unwrap();
    // A lock of emacs is a link to nowhere.
    std::os::unix::fs::symlink("somebody@somewhere.1", folder.path().join("policies/.#everyone.cedar")).unwrap();
    assert_eq!(files::digest(&files::read(folder.path()).unwrap()), before);
}

/// The digest is over names and contents, so that no two bundles share one.
#[test]
fn the_digest_tells_bundles_apart() {
    let digest = |files: &[(&str, &str)]| {
        let all: Vec<_> = files
            .iter()
            .map(|(name, text)| palisade::authz::policy::source::SourceFile {
                name: (*name).into(),
                bytes: text.as_bytes().to_vec(),
            })
            .collect();
        files::digest(&all)
    };
    let some = [
        digest(&[]),
        digest(&[("a", "")]),
        digest(&[("a", "b")]),
        digest(&[("ab", "")]),
        digest(&[("a", ""), ("b", "")]),
        digest(&[("b", ""), ("a", "")]),
    ];
    let different: BTreeSet<_> = some.iter().collect();
    assert_eq!(different.len(), some.len());
    assert!(some.iter().all(|text| text.starts_with("sha256:") && text.len() == 71));
}

/// Line ends of Windows mean the same; only the digest differs.
#[test]
fn carriage_returns_change_nothing() {
    let mut files = support::default_files();
    for bytes in files.values_mut() {
        *bytes = String::from_utf8(bytes.clone()).unwrap().replace('\n', "\r\n").into_bytes();
    }
    assert_eq!(support::load(&files).map(|bundle| bundle.engine().len()), Ok(crate::policies::policy_ids().len()));
}

/// What is kept of a policy must not be the file that it stands in: 10,000 times 3 MB would be 30 GB.
#[test]
fn ten_thousand_policies_in_one_file_are_loaded() {
    use std::fmt::Write as _;
    let mut text = String::new();
    for at in 0..10_000 {
        let agent = format!("spiffe://example.org/ns/agents/sa/agent-{at}");
        writeln!(text, "@id(\"many-{at}\")\n@reason(\"Agent {at} looks one customer up\")").unwrap();
        writeln!(text, "// {}", "a remark of some length ".repeat(6)).unwrap();
        writeln!(text, "permit (principal == Agent::\"{agent}\", action == Action::\"crm/get_customer\", resource);")
            .unwrap();
    }
    assert!(text.len() > 3_000_000, "{}", text.len());
    let mut files = support::default_files();
    let before = support::load(&files).unwrap().engine().len();
    files.insert("policies/many.cedar".into(), text.into_bytes());
    assert_eq!(support::load(&files).map(|bundle| bundle.engine().len()), Ok(before + 10_000));
}
