//! Entries as lines: for people, and as JSON.

use jiff::Timestamp;
use serde::Serialize;

use super::super::control::show::{is_odd, plain};
use crate::auditor::entry::time;
use crate::auditor::select::is_permit;
use crate::proto;
use crate::proto::DecisionRecord;
use crate::proto::entry::Kind;

/// The end of a line.
const NEWLINE: &str = "\n";

/// An entry on one line, for people.
pub(super) fn text(kind: &Kind) -> String {
    let at = time(kind).map_or_else(|| "-".into(), moment);
    let told = match kind {
        Kind::Decision(record) => return format!("{at}  {}{NEWLINE}", decision(record)),
        Kind::Gap(gap) => format!("GAP      {} records were not kept", gap.lost_records),
        Kind::Overruled(overruled) => {
            let (reason, id) = (&overruled.reason, &overruled.decision_id);
            format!("OVERRULED  {}  the decision was not answered, but a denial  {}", column(reason), column(id))
        }
        Kind::Start(start) => {
            let (origin, version) = (column(&start.origin), column(&start.version));
            format!("START    epoch {}: {origin} (Palisade {version})", start.number)
        }
        Kind::End(end) => format!("END      epoch {} is next", end.next),
        Kind::Restart(restart) => format!(
            "RESTART  Palisade {}: {} entries were in no checkpoint, {} bytes of one were cut",
            column(&restart.version),
            restart.replayed,
            restart.cut_bytes
        ),
    };
    format!("{at}  {told}{NEWLINE}")
}

/// A moment in UTC, in milliseconds; `-` for one that is none.
fn moment(time: &proto::Timestamp) -> String {
    Timestamp::new(time.seconds, time.nanos).map_or_else(|_| "-".into(), |time| format!("{time:.3}"))
}

/// A text as one column: two spaces begin the next one, so that in it there are none, nor any at its ends.
fn column(text: &str) -> String {
    if text.is_empty() {
        return "-".into();
    }
    let mut column = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    let mut is_behind_space = true;
    while let Some(c) = characters.next() {
        let is_odd_space = c == ' ' && (is_behind_space || characters.peek().is_none());
        if is_odd_space {
            column.push_str("\\u{20}")
        } else {
            column.push_str(&plain(c.encode_utf8(&mut [0; 4])))
        }
        is_behind_space = c == ' ';
    }
    column
}

/// A decision: verdict, reason, caller, action, resource, user and id.
fn decision(record: &DecisionRecord) -> String {
    let verdict = if is_permit(record) { "PERMIT" } else { "DENIAL" };
    let caller = record.caller.as_ref();
    let last = record.calls.last();
    let action = last.map_or("", |call| &call.action);
    let more = match record.calls.len() {
        0 | 1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    let columns = [
        verdict,
        &record.reason,
        caller.map_or("", |caller| &caller.spiffe_id),
        &format!("{action}{more}"),
        last.map_or("", |call| &call.resource),
        caller.map_or("", |caller| &caller.user),
        &record.decision_id,
    ];
    columns.map(column).join("  ")
}

/// What a line of JSON is of what is neither a decision nor a gap: a member says which.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Other<'k> {
    Overruled(&'k proto::Overruled),
    Start(&'k proto::EpochStart),
    End(&'k proto::EpochEnd),
    Restart(&'k proto::Restart),
}

/// An entry on one line, in the protobuf JSON mapping.
///
/// # Errors
/// If it has no JSON form.
pub(super) fn json(kind: &Kind) -> Result<String, String> {
    let written = match kind {
        Kind::Decision(record) => serde_json::to_string(record),
        Kind::Gap(gap) => serde_json::to_string(gap),
        Kind::Overruled(overruled) => serde_json::to_string(&Other::Overruled(overruled)),
        Kind::Start(start) => serde_json::to_string(&Other::Start(start)),
        Kind::End(end) => serde_json::to_string(&Other::End(end)),
        Kind::Restart(restart) => serde_json::to_string(&Other::Restart(restart)),
    };
    Ok(harmless(written.map_err(|error| format!("an entry has no JSON form: {error}"))?) + NEWLINE)
}

/// The same JSON, with nothing that a terminal takes for a command: what JSON leaves as it is, it has in texts alone.
pub(super) fn harmless(json: String) -> String {
    if !json.chars().any(is_odd) {
        return json;
    }
    let mut text = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_odd(c) {
            // Those behind U+FFFF are two units in JSON.
            c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| text.push_str(&format!("\\u{unit:04x}")));
        } else {
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hostile() -> Kind {
        let caller = proto::Caller {
            spiffe_id: "spiffe://x/\u{1b}[2J".into(),
            user: "\u{9b}31m\u{202e}\u{e0041}".into(),
            ..Default::default()
        };
        let call = proto::CallRecord { action: "a\nb".into(), ..Default::default() };
        let time = Some(proto::Timestamp { seconds: 1_772_619_300, nanos: 5_000_000 });
        let record =
            DecisionRecord { caller: Some(caller), calls: vec![call; 2], verdict: 1, time, ..Default::default() };
        Kind::Decision(record)
    }

    #[test]
    fn nothing_is_a_command_to_a_terminal() {
        let line = text(&hostile());
        assert_eq!(
            line,
            "2026-03-04T10:15:00.005Z  PERMIT  -  spiffe://x/\\u{1b}[2J  a\\nb (and 1 more)  -  \\u{9b}31m\\u{202e}\\u{e0041}  -\n"
        );
        let line = json(&hostile()).unwrap();
        assert!(!line.trim_end().contains(is_odd), "{line}");
        let read: DecisionRecord = serde_json::from_str(&line).unwrap();
        assert_eq!(Kind::Decision(read), hostile());
    }

    #[test]
    fn a_column_is_one_column_whatever_is_in_it() {
        let told = |target: &str| {
            let call = proto::CallRecord { resource: target.into(), ..Default::default() };
            let record =
                DecisionRecord { calls: vec![call], verdict: 2, decision_id: "id".into(), ..Default::default() };
            text(&Kind::Decision(record))
        };
        for (resource, there) in [
            ("a b", "a b"),
            ("x  alice", "x \\u{20}alice"),
            (" x ", "\\u{20}x\\u{20}"),
            ("   ", "\\u{20}\\u{20}\\u{20}"),
            ("", "-"),
        ] {
            assert_eq!(told(resource), format!("-  DENIAL  -  -  -  {there}  -  id\n"));
        }
    }

    #[test]
    fn what_is_no_decision_says_what_it_is() {
        let overruled = Kind::Overruled(proto::Overruled { decision_id: "7".into(), ..Default::default() });
        assert_eq!(json(&overruled).unwrap(), "{\"overruled\":{\"decisionId\":\"7\"}}\n");
        assert_eq!(json(&Kind::Gap(proto::Gap { time: None, lost_records: 5 })).unwrap(), "{\"lostRecords\":\"5\"}\n");
    }
}
