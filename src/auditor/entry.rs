//! Entries: read only as they are written.

use prost::Message as _;

use crate::proto::entry::Kind;
use crate::proto::{Entry, Timestamp};

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
    entry.kind.ok_or_else(|| "it is empty".into())
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
}
