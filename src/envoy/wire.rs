//! The protobuf wire format, written in one piece (protobuf's "Encoding" document).

const VARINT: u32 = 0;
const LENGTH_DELIMITED: u32 = 2;

/// Appends a field that is a number; 0 is what an absent one means (proto3).
pub fn put_number(out: &mut Vec<u8>, number: u32, value: u32) {
    if value != 0 {
        put_varint(out, (number << 3) | VARINT);
        put_varint(out, value);
    }
}

/// Appends a field that is a text, of less than 4 GB.
pub fn put_text(out: &mut Vec<u8>, number: u32, text: &str) {
    put_varint(out, (number << 3) | LENGTH_DELIMITED);
    put_varint(out, u32::try_from(text.len()).unwrap_or(u32::MAX));
    out.extend_from_slice(text.as_bytes());
}

/// Appends a field that is a message, which `fill` writes.
pub fn put_message(out: &mut Vec<u8>, number: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    put_varint(out, (number << 3) | LENGTH_DELIMITED);
    let start = out.len();
    fill(out);
    // The length is known only now. What moves is short, and more than one pass over it would cost more.
    let end = out.len();
    put_varint(out, u32::try_from(end - start).unwrap_or(u32::MAX));
    let length = out.len() - end;
    if let Some(written) = out.get_mut(start..) {
        written.rotate_right(length);
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u32) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            return out.push(low & 0x7f);
        }
        out.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_prost_reads() {
        #[derive(Clone, PartialEq, prost::Message)]
        struct Tree {
            #[prost(uint32, tag = "1")]
            number: u32,
            #[prost(string, tag = "2")]
            text: String,
            #[prost(message, optional, boxed, tag = "17")]
            child: Option<Box<Tree>>,
        }
        fn put(out: &mut Vec<u8>, tree: &Tree) {
            put_number(out, 1, tree.number);
            put_text(out, 2, &tree.text);
            if let Some(child) = &tree.child {
                put_message(out, 17, |out| put(out, child));
            }
        }
        let mut tree = Tree::default();
        for (at, number) in [0, 1, 127, 128, 255, 16_383, 16_384, u32::MAX].into_iter().enumerate() {
            // Lengths on both sides of one, two and three bytes.
            tree = Tree {
                number,
                text: "x".repeat([0, 1, 110, 127, 128, 16_100, 20_000, 3][at]),
                child: Some(tree.into()),
            };
            let mut bytes = Vec::new();
            put(&mut bytes, &tree);
            assert_eq!(prost::Message::decode(&*bytes), Ok(tree.clone()));
        }
    }
}
