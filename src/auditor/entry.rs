//! Entries: read only as they are written.

use prost::Message as _;

use crate::proto::entry::Kind;
use crate::proto::{DecisionRecord, Entry, Mode, Timestamp, Verdict};

/// Reads an entry whose encoding is the canonical one. `scratch` is only there to be used again.
///
/// # Errors
/// If it is none, has something in it that this version does not know, or could be encoded otherwise.
pub fn decode(bytes: &[u8], scratch: &mut Vec<u8>) -> Result<Kind, String> {
    let entry = Entry::decode(bytes).map_err(|_| "it is no entry".to_owned())?;
    scratch.clear();
    entry.encode(scratch).map_err(|_| "it cannot be encoded".to_owned())?;
    if scratch != bytes {
        return Err("it is not encoded as an entry is, or has in it what this version does not know".into());
    }
    let kind = entry.kind.ok_or("it is empty")?;
    check(&kind)?;
    Ok(kind)
}

/// What an encoding alone does not say: it has a time, all its times are possible, and its numbers are those that have a meaning.
fn check(kind: &Kind) -> Result<(), String> {
    let is_time = |time: &Timestamp| time.nanos >= 0 && jiff::Timestamp::new(time.seconds, time.nanos).is_ok();
    if !is_time(time(kind).ok_or("it has no time")?) {
        return Err("its time is none".into());
    }
    let Kind::Decision(DecisionRecord { decision_id, verdict, mode, control, .. }) = kind else { return Ok(()) };
    if decision_id.is_empty() {
        return Err("it has no id".into());
    }
    match Verdict::try_from(*verdict) {
        Ok(Verdict::Permit | Verdict::Denial) => {}
        _ => return Err(format!("its verdict is {verdict}, which this version does not know")),
    }
    if Mode::try_from(*mode).is_err() {
        return Err(format!("its mode is {mode}, which this version does not know"));
    }
    let Some(control) = control else { return Ok(()) };
    let holds = control.holds.iter().flat_map(|hold| [&hold.since, &hold.until]);
    let grants = control.grants.iter().flat_map(|grant| [&grant.since, &grant.until]);
    if holds.chain(grants).flatten().all(is_time) { Ok(()) } else { Err("a time in it is none".into()) }
}

/// When it was, as it says itself.
#[must_use]
pub fn time(kind: &Kind) -> Option<&Timestamp> {
    match kind {
        Kind::Decision(record) => record.time.as_ref(),
        Kind::Gap(gap) => gap.time.as_ref(),
        Kind::Overruled(overruled) => overruled.time.as_ref(),
        Kind::Start(start) => start.time.as_ref(),
        Kind::End(end) => end.time.as_ref(),
        Kind::Restart(restart) => restart.time.as_ref(),
    }
}

/// A time as one number: nanoseconds since 1970.
#[must_use]
pub fn nanoseconds(time: &Timestamp) -> i128 {
    i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{EpochEnd, Gap};

    #[test]
    fn an_entry_is_read_as_it_is_written_and_not_otherwise() {
        let kind = Kind::Gap(Gap { time: Some(Timestamp { seconds: 5, nanos: 6 }), lost_records: 7 });
        let bytes = Entry { kind: Some(kind.clone()) }.encode_to_vec();
        let mut scratch = Vec::new();
        assert_eq!(decode(&bytes, &mut scratch), Ok(kind));
        let end = Entry { kind: Some(Kind::End(EpochEnd::default())) }.encode_to_vec();
        let twice = [bytes.clone(), bytes.clone()].concat();
        let unknown = [bytes.clone(), vec![0xf8, 0x7f, 1]].concat();
        // The same number in two bytes instead of one.
        let long = [&[0x12, 3, 0x10, 0x87, 0][..]].concat();
        let out_of_order = vec![0x12, 6, 0x10, 7, 0x0a, 2, 0x08, 5];
        for wrong in
            [vec![], twice, unknown, [bytes, end].concat(), long, out_of_order, vec![0xff; 9], vec![0x12, 0xff]]
        {
            assert!(decode(&wrong, &mut scratch).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn numbers_without_a_meaning_and_impossible_times_are_refused() {
        let time = |seconds, nanos| Some(Timestamp { seconds, nanos });
        let right = DecisionRecord { decision_id: "a".into(), time: time(5, 6), verdict: 1, ..Default::default() };
        let read = |kind: Kind| decode(&Entry { kind: Some(kind) }.encode_to_vec(), &mut Vec::new());
        assert!(read(Kind::Decision(right.clone())).is_ok());
        assert!(read(Kind::Decision(DecisionRecord { verdict: 2, mode: 1, ..right.clone() })).is_ok());
        let times = [time(5, -1), time(5, 1_000_000_000), time(1 << 62, 0), time(i64::MIN, 0), None];
        for wrong in times.iter().map(|time| DecisionRecord { time: *time, ..right.clone() }) {
            assert!(read(Kind::Decision(wrong)).is_err());
        }
        for verdict in [0, -1, 3, 9] {
            assert!(read(Kind::Decision(DecisionRecord { verdict, ..right.clone() })).is_err(), "{verdict}");
        }
        assert!(read(Kind::Decision(DecisionRecord { mode: 9, ..right.clone() })).is_err());
        assert!(read(Kind::Decision(DecisionRecord { decision_id: String::new(), ..right.clone() })).is_err());
        let hold = crate::proto::Hold { until: time(5, -1), ..Default::default() };
        let control = crate::proto::ControlRecord { holds: vec![hold], ..Default::default() };
        assert!(read(Kind::Decision(DecisionRecord { control: Some(control), ..right })).is_err());
        for time in times {
            assert!(read(Kind::Gap(Gap { time, lost_records: 1 })).is_err());
        }
        assert!(read(Kind::Decision(DecisionRecord::default())).is_err());
    }
}
