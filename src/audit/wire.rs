//! Writing protobuf messages straight into bytes, in their canonical form: fields in the order of their numbers, nothing that is
//! empty, lengths as short as they can be.

/// A message that is being written. Whoever writes it names its fields in the order of their numbers.
pub struct Message<'b> {
    bytes: &'b mut Vec<u8>,
}

const VARINT: u32 = 0;
const DELIMITED: u32 = 2;

impl<'b> Message<'b> {
    /// One that is appended to these bytes.
    pub const fn on(bytes: &'b mut Vec<u8>) -> Self {
        Self { bytes }
    }

    /// A number, unless it is zero.
    pub fn number(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.required_number(field, value);
        }
    }

    /// A number that says something also if it is zero.
    pub fn required_number(&mut self, field: u32, value: u64) {
        self.key(field, VARINT);
        varint(self.bytes, value);
    }

    /// A text, unless it is empty.
    pub fn text(&mut self, field: u32, value: &str) {
        if !value.is_empty() {
            self.item(field, value);
        }
    }

    /// A text of several, which is there though it be empty.
    pub fn item(&mut self, field: u32, value: &str) {
        self.key(field, DELIMITED);
        varint(self.bytes, value.len() as u64);
        self.bytes.extend_from_slice(value.as_bytes());
    }

    /// Bytes as a text of lower-case hexadecimal digits.
    pub fn hex(&mut self, field: u32, value: &[u8]) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        self.key(field, DELIMITED);
        varint(self.bytes, value.len() as u64 * 2);
        let start = self.bytes.len();
        self.bytes.resize(start + value.len() * 2, 0);
        let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0');
        let (pairs, _) = self.bytes.get_mut(start..).unwrap_or_default().as_chunks_mut::<2>();
        for (pair, byte) in pairs.iter_mut().zip(value) {
            *pair = [digit(byte >> 4), digit(byte & 15)];
        }
    }

    /// A message, which is there though it be empty.
    pub fn message(&mut self, field: u32, write: impl FnOnce(&mut Message<'_>)) {
        self.encoded(field, |bytes| write(&mut Message { bytes }));
    }

    /// A message that something else appends.
    pub fn encoded(&mut self, field: u32, append: impl FnOnce(&mut Vec<u8>)) {
        self.key(field, DELIMITED);
        let start = self.bytes.len();
        // Nearly every length has one byte or two.
        self.bytes.extend_from_slice(&[0, 0]);
        append(self.bytes);
        let length = self.bytes.len() - start - 2;
        match (u8::try_from(length), self.bytes.get_mut(start..)) {
            (Ok(byte), Some([first, rest @ ..])) if byte < 0x80 => {
                *first = byte;
                rest.copy_within(1.., 0);
                self.bytes.pop();
            }
            _ => {
                let (digits, count) = digits(length as u64);
                let digits = digits.get(..count).unwrap_or_default();
                self.bytes.splice(start..start + 2, digits.iter().copied());
            }
        }
    }

    /// A moment (`google.protobuf.Timestamp`).
    pub fn time(&mut self, field: u32, time: jiff::Timestamp) {
        self.message(field, |message| {
            // Two's complement, as the format has it.
            message.number(1, time.as_second().cast_unsigned());
            message.number(2, i64::from(time.subsec_nanosecond()).cast_unsigned());
        });
    }

    fn key(&mut self, field: u32, kind: u32) {
        varint(self.bytes, u64::from(field << 3 | kind));
    }
}

fn varint(bytes: &mut Vec<u8>, value: u64) {
    match u8::try_from(value) {
        Ok(byte) if byte < 0x80 => bytes.push(byte),
        _ => {
            let (digits, count) = digits(value);
            bytes.extend_from_slice(digits.get(..count).unwrap_or_default());
        }
    }
}

fn digits(mut value: u64) -> ([u8; 10], usize) {
    let (mut digits, mut count) = ([0; 10], 0);
    for digit in &mut digits {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        count += 1;
        *digit = if value == 0 { low & 0x7f } else { low | 0x80 };
        if value == 0 {
            break;
        }
    }
    (digits, count)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::proto;

    #[test]
    fn what_is_written_is_what_prost_writes() {
        for length in [0, 1, 2, 100, 126, 127, 128, 129, 1_000, 16_380, 16_384, 20_000] {
            for number in [0, 1, 127, 128, 16_383, 16_384, u64::MAX >> 1, u64::MAX] {
                let text = "ü".repeat(length / 2) + &"x".repeat(length % 2);
                let gap = proto::Gap { time: Some(jiff::Timestamp::MAX.into()), lost_records: number };
                let over = proto::Overruled {
                    time: Some(jiff::Timestamp::MIN.into()),
                    decision_id: text.clone(),
                    reason: "ab".into(),
                };
                let mut bytes = Vec::new();
                Message::on(&mut bytes).message(2, |it| {
                    it.time(1, jiff::Timestamp::MAX);
                    it.number(2, number);
                });
                assert_eq!(bytes, proto::Entry { kind: Some(proto::entry::Kind::Gap(gap)) }.encode_to_vec());
                bytes.clear();
                Message::on(&mut bytes).message(3, |it| {
                    it.time(1, jiff::Timestamp::MIN);
                    it.text(2, &text);
                    it.hex(3, &[0xab]);
                });
                assert_eq!(bytes, proto::Entry { kind: Some(proto::entry::Kind::Overruled(over)) }.encode_to_vec());
            }
        }
    }
}
