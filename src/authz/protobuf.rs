//! The protobuf wire format, read in place (protobuf's "Encoding" document).
//!
//! What is needed of a message is borrowed from it, not copied. What no encoder writes is malformed here: a group, a
//! number in more bytes than it takes, a text that is no UTF-8; and where it is read with [`once`], a field that is there
//! twice.

/// The bytes are no message of the expected kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// The payload of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// A number of variable length: an integer, a truth value, a member of an enumeration.
    Number(u64),
    /// Four or eight bytes: nothing that is read here is one.
    Fixed,
    /// A text, bytes or a message.
    Bytes(&'a [u8]),
}

impl<'a> Payload<'a> {
    /// The payload as bytes or as a message.
    ///
    /// # Errors
    /// If it is none.
    pub const fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Self::Number(_) | Self::Fixed => Err(Malformed),
            Self::Bytes(bytes) => Ok(bytes),
        }
    }

    /// The payload as a number of at most 32 bits.
    ///
    /// # Errors
    /// If it is none, or a larger one.
    pub fn number(self) -> Result<u32, Malformed> {
        match self {
            Self::Number(number) => u32::try_from(number).map_err(|_| Malformed),
            Self::Fixed | Self::Bytes(_) => Err(Malformed),
        }
    }

    /// The payload as a text.
    ///
    /// # Errors
    /// If it is none, or no UTF-8.
    pub fn text(self) -> Result<&'a str, Malformed> {
        simdutf8::basic::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }
}

/// The fields of a message, in the order in which they were written: number and payload.
///
/// After an error there are no more.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The fields of `message`.
    #[must_use]
    pub const fn of(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn field(&mut self) -> Result<(u32, Payload<'a>), Malformed> {
        let tag = u32::try_from(self.varint()?).map_err(|_| Malformed)?;
        let (number, wire_type) = (tag >> 3, tag & 0b111);
        let payload = match wire_type {
            0 => Payload::Number(self.varint()?),
            1 => {
                self.take(8)?;
                Payload::Fixed
            }
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                Payload::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Payload::Fixed
            }
            _ => return Err(Malformed),
        };
        if number == 0 { Err(Malformed) } else { Ok((number, payload)) }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Seven bits a byte, the lowest first, at most ten bytes, and no more than it takes.
    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut number = 0_u64;
        for at in 0..10 {
            let (&byte, rest) = self.rest.split_first().ok_or(Malformed)?;
            self.rest = rest;
            // The tenth byte has room for one bit, and a last byte without any adds nothing: no encoder writes it.
            if (at == 9 && byte > 1) || (at > 0 && byte == 0) {
                return Err(Malformed);
            }
            number |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Malformed)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Payload<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// Puts the value of a field in its place, which has to be empty: of a field that is there twice, one reader
/// takes the first, another the last, and protobuf merges messages.
///
/// # Errors
/// If the place is taken.
pub fn once<T>(place: &mut Option<T>, value: T) -> Result<(), Malformed> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(message: &[u8]) -> Result<Vec<(u32, Payload<'_>)>, Malformed> {
        Fields::of(message).collect()
    }

    #[test]
    fn fields_of_every_wire_type_are_read() {
        let message = [
            0x08, 0x96, 0x01, // 1: varint
            0x12, 0x02, b'h', b'i', // 2: bytes
            0x1d, 1, 2, 3, 4, // 3: 32 bits
            0x21, 1, 2, 3, 4, 5, 6, 7, 8, // 4: 64 bits
            0x12, 0x00, // 2: empty
        ];
        let fields = all(&message).unwrap();
        let expected = [
            (1, Payload::Number(150)),
            (2, Payload::Bytes(b"hi")),
            (3, Payload::Fixed),
            (4, Payload::Fixed),
            (2, Payload::Bytes(b"")),
        ];
        assert_eq!(fields, expected);
        assert_eq!(fields[1].1.text(), Ok("hi"));
        assert_eq!(fields[0].1.text(), Err(Malformed));
        assert_eq!(Payload::Bytes(b"\xff").text(), Err(Malformed));
    }

    #[test]
    fn whatever_else_is_malformed() {
        let longest = [&[0x08][..], &[0xff; 9], &[0x01]].concat();
        assert_eq!(all(&longest), Ok(vec![(1, Payload::Number(u64::MAX))]));
        for message in [
            &[0x08][..],
            &[0x80],
            &[0x12, 0x03, b'h', b'i'],
            &[0x1d, 1, 2, 3],
            &[0x21, 1, 2, 3, 4, 5, 6, 7],
            // Groups, wire types that do not exist, field number 0.
            &[0x0b, 0x0c],
            &[0x0e],
            &[0x0f],
            &[0x00, 0x01],
            // A tag beyond 32 bits, lengths beyond the message, a number beyond 64 bits or ten bytes.
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            &[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
            &[0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00],
            // More bytes than it takes: of a number, of a tag, of a length.
            &[0x08, 0x80, 0x00],
            &[0x88, 0x00, 0x01],
            &[0x12, 0x81, 0x00, b'h'],
        ] {
            assert_eq!(all(message), Err(Malformed), "{message:x?}");
        }
        assert_eq!(Fields::of(&[0x80]).count(), 1, "nothing comes after an error");
    }

    #[test]
    fn a_place_is_taken_once() {
        let mut place = None;
        assert_eq!(once(&mut place, 1), Ok(()));
        assert_eq!(once(&mut place, 1), Err(Malformed));
    }
}
