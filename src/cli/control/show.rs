//! Holds, grants and what is in force, for people: aligned columns, times in UTC with what remains, and nothing that a terminal would
//! take for a command.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::span::left;
use crate::proto;

/// Whether a terminal may take a character for more than text.
pub(in crate::cli) fn is_odd(c: char) -> bool {
    // Marks that turn the direction of what follows, and those that nobody sees, are no control characters, and mislead no less.
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2064}')
        || matches!(c, '\u{2066}'..='\u{2069}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// Text of somebody else on one line.
pub(in crate::cli) fn plain(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if is_odd(c) { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

/// Rows of columns that are as wide as what is in them; the last one is as wide as it is.
pub(super) fn aligned(rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            let width = cell.chars().count();
            match widths.get_mut(at) {
                Some(widest) => *widest = width.max(*widest),
                None => widths.push(width),
            }
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn time(time: &proto::Timestamp) -> Option<Timestamp> {
    Timestamp::new(time.seconds, 0).ok()
}

fn since(time_: Option<&proto::Timestamp>) -> String {
    time_.and_then(time).map_or_else(|| "-".into(), |time| time.to_string())
}

/// When it ends, and how long that is from now.
fn until(until: Option<&proto::Timestamp>, now: Timestamp, never: &str) -> String {
    match until.and_then(time) {
        None => never.to_owned(),
        Some(until) => match left(until, now) {
            Some(left) => format!("{until} ({left})"),
            None => format!("{until} (over)"),
        },
    }
}

/// A SPIFFE ID, and the user for whom it acted.
fn author(agent: &str, user: &str) -> String {
    if user.is_empty() { plain(agent) } else { plain(&format!("{agent} for {user}")) }
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".into() } else { plain(text) }
}

/// What the columns of a hold are.
pub(super) const HOLD: [&str; 6] = ["HOLD", "SUBJECT", "SINCE", "UNTIL", "BY", "REASON"];

/// A hold in columns.
pub(super) fn hold(hold: &proto::Hold, now: Timestamp) -> Vec<String> {
    vec![
        plain(&hold.id),
        plain(&hold.subject),
        since(hold.since.as_ref()),
        until(hold.until.as_ref(), now, "until released"),
        author(&hold.author, &hold.author_user),
        or_dash(&hold.reason),
    ]
}

/// What the columns of a grant are.
pub(super) const GRANT: [&str; 11] =
    ["GRANT", "TEMPLATE", "AGENT", "RESOURCE", "TASK", "USER", "CALLS", "SINCE", "UNTIL", "BY", "REASON"];

/// A grant in columns.
pub(super) fn grant(grant: &proto::Grant, now: Timestamp) -> Vec<String> {
    let calls = match (grant.calls_left, grant.calls) {
        (Some(left), Some(calls)) => format!("{left} of {calls}"),
        (None, Some(calls)) => calls.to_string(),
        (_, None) => "-".into(),
    };
    vec![
        plain(&grant.id),
        plain(&grant.template),
        plain(&grant.agent),
        or_dash(&grant.resource),
        or_dash(&grant.task),
        or_dash(&grant.user),
        calls,
        since(grant.since.as_ref()),
        until(grant.until.as_ref(), now, "-"),
        author(&grant.author, &grant.author_user),
        or_dash(&grant.reason),
    ]
}

/// A row with a word before it.
pub(super) fn told(word: &str, row: Vec<String>) -> Vec<String> {
    [vec![word.to_owned()], row].concat()
}

/// How it stands with the store, in words.
pub(super) fn store(state: i32) -> &'static str {
    match proto::StoreState::try_from(state) {
        Ok(proto::StoreState::NotShared) => "none: what is in force here is in force here alone",
        Ok(proto::StoreState::InTouch) => "in touch",
        Ok(proto::StoreState::Lost) => "lost",
        Ok(proto::StoreState::Unspecified) | Err(_) => "unknown",
    }
}

/// All that is in force.
pub(super) fn status(status: &proto::Status, now: Timestamp) -> String {
    let counted = |total: u64, listed: usize| {
        let listed = listed as u64;
        if status.cut && total > listed { format!("{total}, of which {listed} are listed") } else { total.to_string() }
    };
    let mut text = String::new();
    let _ = writeln!(text, "bundle  {}", or_dash(&status.bundle));
    let _ = writeln!(text, "store   {}", store(status.store));
    let _ = writeln!(text, "holds   {}", counted(status.holds_total, status.holds.len()));
    let _ = writeln!(text, "grants  {}", counted(status.grants_total, status.grants.len()));
    for complaint in &status.complaints {
        let _ = writeln!(text, "wrong   {}", plain(complaint));
    }
    let heading = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    if !status.holds.is_empty() {
        let rows = status.holds.iter().map(|it| hold(it, now));
        let _ = write!(text, "\n{}", aligned(&[heading(&HOLD)].into_iter().chain(rows).collect::<Vec<_>>()));
    }
    if !status.grants.is_empty() {
        let rows = status.grants.iter().map(|it| grant(it, now));
        let _ = write!(text, "\n{}", aligned(&[heading(&GRANT)].into_iter().chain(rows).collect::<Vec<_>>()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_a_command_to_a_terminal() {
        assert_eq!(plain("INC-42: \u{1b}[2J\r\nok é"), "INC-42: \\u{1b}[2J\\r\\nok é");
        assert_eq!(plain("a\u{202e}b"), "a\\u{202e}b");
    }

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let rows = [["a", "bbb", "c"], ["aaa", "é", ""]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(aligned(&rows), "a    bbb  c\naaa  é\n");
    }

    #[test]
    fn what_is_cut_is_told() {
        let status_ =
            proto::Status { holds: vec![proto::Hold::default()], cut: true, holds_total: 7, ..Default::default() };
        let text = status(&status_, Timestamp::UNIX_EPOCH);
        assert!(text.contains("holds   7, of which 1 are listed\ngrants  0\n\nHOLD  SUBJECT"), "{text}");
        assert!(text.contains("store   unknown\n"), "{text}");
    }
}
