//! Where everything stands in the text of a configuration: from a key to its line, and from a place to its key.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::authz::policy::source::line_of;

/// Every key of a text with its place.
pub(super) struct Places<'a> {
    text: &'a str,
    entries: Vec<Entry>,
}

struct Entry {
    /// `server.deadline_ms`, or with a number for each table of an array: `listener.0.tcp`.
    path: String,
    line: usize,
    /// Where its value stands; none for a table.
    value: Option<Range<usize>>,
}

impl<'a> Places<'a> {
    /// Finds what can be found, also in a text with mistakes.
    pub(super) fn of(text: &'a str) -> Self {
        let mut places = Self { text, entries: Vec::new() };
        let (table, _mistakes) = DeTable::parse_recoverable(text);
        places.add_table("", table.get_ref());
        places
    }

    fn add_table(&mut self, parent: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let dot = if parent.is_empty() { "" } else { "." };
            self.add(format!("{parent}{dot}{}", key.get_ref()), key.span().start, value);
        }
    }

    fn add(&mut self, path: String, start: usize, value: &Spanned<DeValue<'_>>) {
        let line = line_of(self.text, start);
        match value.get_ref() {
            DeValue::Table(table) => {
                self.entries.push(Entry { path: path.clone(), line, value: None });
                self.add_table(&path, table);
            }
            DeValue::Array(array) if array.iter().any(|item| item.get_ref().is_table()) => {
                self.entries.push(Entry { path: path.clone(), line, value: None });
                for (at, item) in array.iter().enumerate() {
                    self.add(format!("{path}.{at}"), item.span().start, item);
                }
            }
            _ => self.entries.push(Entry { path, line, value: Some(value.span()) }),
        }
    }

    /// The line of a key or of the header of a table.
    pub(super) fn line(&self, path: &str) -> Option<usize> {
        self.entries.iter().find(|entry| entry.path == path).map(|entry| entry.line)
    }

    /// Line and message of what the parser says about a place, with the key unless the message has it.
    pub(super) fn explain(&self, span: Option<Range<usize>>, message: &str) -> (Option<usize>, String) {
        let message = &in_plain_words(message);
        let Some(span) = span else { return (None, message.to_owned()) };
        let line = line_of(self.text, span.start);
        let holds = |entry: &&Entry| entry.value.as_ref().is_some_and(|value| value.contains(&span.start));
        // A key without a value, and the header of a table, have their line only; the innermost comes last.
        let found = self.entries.iter().find(holds).or_else(|| self.entries.iter().rfind(|entry| entry.line == line));
        let path = found.map(|entry| entry.path.as_str()).or_else(|| self.text.get(span).filter(|text| is_name(text)));
        let Some(path) = path else { return (Some(line), message.to_owned()) };
        let names: Vec<&str> = path.split('.').filter(|name| name.parse::<usize>().is_err()).collect();
        let known = names.last().is_some_and(|name| message.contains(&format!("`{name}`")));
        let message = if known { message.to_owned() } else { format!("`{}`: {message}", names.join(".")) };
        (Some(line), message)
    }
}

/// What the parsers of Rust say, for who does not write Rust.
fn in_plain_words(message: &str) -> String {
    [
        ("invalid socket address syntax", "no address and port; expected them as in `127.0.0.1:9191`"),
        (
            "invalid type: map, expected a sequence",
            "a table of which there can be several; expected `[[…]]` around its name",
        ),
        ("expected usize", "expected a whole number"),
        ("expected u64", "expected a whole number"),
        ("expected u32", "expected a whole number"),
        ("expected f64", "expected a number"),
        ("expected a boolean", "expected true or false"),
    ]
    .into_iter()
    .fold(message.to_owned(), |message, (from, to)| message.replace(from, to))
}

/// A key that is not among the entries, because it is there twice.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}
