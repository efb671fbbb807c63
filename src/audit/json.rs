//! Records as JSON lines: the protobuf JSON mapping of `palisade.v1.DecisionRecord` and `Gap`.

use jiff::Timestamp;

use super::commitment::Redaction;
use super::encode::message;
use crate::authz::record::Record;
use crate::proto;

/// Appends one record as a line; `false` if it has no JSON form, and nothing was appended.
#[must_use]
pub fn line(lines: &mut Vec<u8>, record: &Record, redaction: &Redaction) -> bool {
    append(lines, &message(record, redaction))
}

/// Appends a gap as a line.
pub fn gap(lines: &mut Vec<u8>, lost_records: u64) {
    #[expect(clippy::disallowed_methods, reason = "a gap has no decision whose moment it could bear")]
    let now = Timestamp::try_from(std::time::SystemTime::now()).unwrap_or_default();
    // A time and a number have a JSON form.
    let _appended = append(lines, &proto::Gap { time: Some(now.into()), lost_records });
}

fn append(lines: &mut Vec<u8>, line: &impl serde::Serialize) -> bool {
    let start = lines.len();
    let written = serde_json::to_writer(&mut *lines, line).is_ok();
    if written {
        lines.push(b'\n');
    } else {
        // Never half a line.
        lines.truncate(start);
    }
    written
}
