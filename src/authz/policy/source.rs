//! What a bundle is made of: named files, and the errors that point into them.

use std::fmt;
use std::fmt::Write as _;

/// One file of a bundle: its path below the bundle's directory, and its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Relative path, `/`-separated.
    pub name: String,
    /// Content.
    pub bytes: Vec<u8>,
}

/// The file that says what a bundle is called, at the top of it.
pub const ABOUT: &str = "bundle.toml";

/// What a file of a bundle holds, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `*.cedarschema`
    Schema,
    /// `*.cedar`
    Policies,
    /// `*.entities.json`
    Entities,
    /// `*.links.json`
    Links,
    /// `*.tools.json`
    Tools,
    /// `targets.toml`
    Targets,
    /// `limits.toml`
    Limits,
    /// `bundle.toml`
    About,
}

impl Kind {
    /// The kind of the file with this name; `None` for a name that a bundle does not know.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        let base = name.rsplit('/').next().unwrap_or(name);
        match base {
            "targets.toml" => Some(Self::Targets),
            "limits.toml" => Some(Self::Limits),
            ABOUT => Some(Self::About),
            _ if base.ends_with(".cedarschema") => Some(Self::Schema),
            _ if base.ends_with(".cedar") => Some(Self::Policies),
            _ if base.ends_with(".entities.json") => Some(Self::Entities),
            _ if base.ends_with(".links.json") => Some(Self::Links),
            _ if base.ends_with(".tools.json") => Some(Self::Tools),
            _ => None,
        }
    }
}

/// Why a bundle was refused: one message that names the file, the line where there is one, and what was
/// expected.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub struct BundleError {
    /// File below the bundle's directory; empty where the bundle as a whole is wrong.
    pub file: String,
    /// Line, counted from 1.
    pub line: Option<usize>,
    /// What is wrong, and what was expected.
    pub message: String,
}

impl BundleError {
    /// An error about a file as a whole, or about the bundle if `file` is empty.
    #[must_use]
    pub fn new(file: &str, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line: None, message: message.into() }
    }

    /// An error at a byte offset of `text`.
    #[must_use]
    pub fn at(file: &str, text: &str, offset: usize, message: impl Into<String>) -> Self {
        Self { line: Some(line_of(text, offset)), ..Self::new(file, message) }
    }

    /// An error at the first place of `needle` in `text`, or about the whole file if it is not there.
    #[must_use]
    pub fn near(file: &str, text: &str, needle: &str, message: impl Into<String>) -> Self {
        match place_of(text, needle) {
            Some(offset) => Self::at(file, text, offset, message),
            None => Self::new(file, message),
        }
    }

    /// An error of a JSON reader, whose message tells the place once more.
    #[must_use]
    pub fn json(file: &str, error: &serde_json::Error) -> Self {
        let message = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let message = message.strip_suffix(&place).unwrap_or(&message);
        Self { line: Some(error.line().max(1)), ..Self::new(file, message) }
    }

    /// An error of a Cedar parser or validator: the first labelled place, the message and its help.
    #[must_use]
    pub fn diagnostic(file: &str, text: &str, error: &dyn miette::Diagnostic) -> Self {
        Self::diagnostic_from(file, text, 0, error)
    }

    /// The same of a part of the text that begins at `begin`.
    #[must_use]
    pub fn diagnostic_from(file: &str, text: &str, begin: usize, error: &dyn miette::Diagnostic) -> Self {
        let mut message = error.to_string();
        let label = error.labels().and_then(|mut labels| labels.next());
        if let Some(text) = label.as_ref().and_then(|label| label.label()) {
            let _ = write!(message, ": {text}");
        }
        if let Some(help) = error.help() {
            let _ = write!(message, " ({help})");
        }
        // One error is one line, whatever the parser's texts hold.
        let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
        match label {
            Some(label) => Self::at(file, text, begin + label.offset(), message),
            None => Self::new(file, message),
        }
    }
}

impl fmt::Display for BundleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.file.as_str(), self.line) {
            ("", _) => write!(f, "{}", self.message),
            (file, None) => write!(f, "{file}: {}", self.message),
            (file, Some(line)) => write!(f, "{file}:{line}: {}", self.message),
        }
    }
}

/// Where `needle` stands first in a text, comments (`//`, `#`) apart.
#[must_use]
pub fn place_of(text: &str, needle: &str) -> Option<usize> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let code = ["//", "#"].iter().filter_map(|mark| line.find(mark)).min().unwrap_or(line.len());
        if let Some(at) = line.find(needle).filter(|at| *at < code) {
            return Some(start + at);
        }
        start += line.len();
    }
    None
}

/// The line of a byte offset, counted from 1.
#[must_use]
pub fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|b| *b == b'\n').count()
}

/// A text as JSON writes it.
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// An error with its causes in one sentence: Cedar's entity errors keep the interesting part in them.
#[derive(Debug)]
pub struct Chain<'e, E>(pub &'e E);

impl<E: std::error::Error> std::fmt::Display for Chain<'_, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl<E: std::error::Error> std::error::Error for Chain<'_, E> {}
impl<E: std::error::Error> miette::Diagnostic for Chain<'_, E> {}
