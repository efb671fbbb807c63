//! What is shared, and how it is written at the store.

use std::sync::Arc;

use bytes::Bytes;

use super::lost::Lost;

/// Longest id, in bytes.
pub const MAX_ID_BYTES: usize = 128;
/// Longest text of an entry or a tombstone as sealed, in bytes.
pub const MAX_SEALED_BYTES: usize = 32 * 1024;
/// The same as the store has it: with a moment and a colon before it.
pub(super) const MAX_VALUE_BYTES: usize = MAX_SEALED_BYTES + 24;

/// Something that is shared until it is removed. It never changes: the first one of an id is the one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// 1 to 128 of `A-Z a-z 0-9 - _ . : / @ = +`.
    pub id: Arc<str>,
    /// What it says, for those who can unseal it.
    pub sealed: Bytes,
    /// From when on it may be dropped by anybody, in seconds since 1970.
    pub expires: Option<u64>,
}

/// That an entry was removed. It wins over the entry, whichever comes first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// Of the entry.
    pub id: Arc<str>,
    /// What it says, for those who can unseal it.
    pub sealed: Bytes,
    /// When, in seconds since 1970, by the store's clock if it was told when it happened: it is forgotten after the retention. One
    /// that need not be remembered for so long has an earlier moment.
    pub at: u64,
}

/// What somebody knows: to be merged with what somebody else does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// What was added.
    pub entries: Vec<Entry>,
    /// What was removed. Of an id that is in both the tombstone counts.
    pub gone: Vec<Tombstone>,
}

/// Something at the store that says nothing: as it stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Strange {
    pub(super) id: Arc<str>,
    /// Among entries, or else among tombstones.
    pub(super) is_entry: bool,
    pub(super) value: Vec<u8>,
}

/// What somebody knows of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known<'k> {
    /// An entry of this id, and from when on it may be dropped, in seconds since 1970.
    Entry(&'k str, Option<u64>),
    /// A tombstone of this id, and when it was made, in seconds since 1970.
    Gone(&'k str, u64),
}

impl View {
    /// All of it, as it stands at the store.
    pub(super) fn written(&self) -> impl Iterator<Item = Strange> {
        let strange = |id: &Arc<str>, is_entry, value| Strange { id: id.clone(), is_entry, value };
        let entries = self.entries.iter().map(move |entry| strange(&entry.id, true, entry.written()));
        entries.chain(self.gone.iter().map(move |gone| strange(&gone.id, false, written(gone.at, &gone.sealed))))
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.gone.is_empty()
    }
}

/// Whether a text can be the id of something shared.
#[must_use]
pub fn is_id(id: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/@=+".contains(&byte);
    !id.is_empty() && id.len() <= MAX_ID_BYTES && id.bytes().all(is_plain)
}

/// Whether this can be shared.
pub(super) fn fits(id: &str, sealed: &[u8]) -> Result<(), Lost> {
    if !is_id(id) {
        return Err(Lost::Unfit("its id is none"));
    }
    if sealed.len() > MAX_SEALED_BYTES {
        return Err(Lost::Unfit("it is too long"));
    }
    Ok(())
}

impl Entry {
    /// As the store has it.
    pub(super) fn written(&self) -> Vec<u8> {
        written(self.expires.unwrap_or(0), &self.sealed)
    }

    pub(super) fn read(id: &str, value: &[u8]) -> Option<Self> {
        let (moment, sealed) = read(id, value)?;
        Some(Self { id: id.into(), sealed, expires: Some(moment).filter(|moment| *moment > 0) })
    }
}

impl Tombstone {
    pub(super) fn read(id: &str, value: &[u8]) -> Option<Self> {
        let (at, sealed) = read(id, value)?;
        Some(Self { id: id.into(), sealed, at })
    }
}

fn written(moment: u64, sealed: &[u8]) -> Vec<u8> {
    let mut value = format!("{moment}:").into_bytes();
    value.extend_from_slice(sealed);
    value
}

fn read(id: &str, value: &[u8]) -> Option<(u64, Bytes)> {
    let colon = value.iter().position(|byte| *byte == b':')?;
    let (moment, sealed) = value.split_at_checked(colon)?;
    let sealed = sealed.get(1..)?;
    fits(id, sealed).ok()?;
    // In its one spelling: what is read is what stands there.
    let text = std::str::from_utf8(moment).ok()?;
    let moment: u64 = text.parse().ok().filter(|moment: &u64| moment.to_string() == text)?;
    Some((moment, Bytes::copy_from_slice(sealed)))
}

/// A change, as the store tells it to all who listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) number: u64,
    /// The digest of all changes before it.
    pub(super) was: Box<str>,
    /// The digest of all changes up to it.
    pub(super) is: Box<str>,
    pub(super) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    Added(Entry),
    Removed(Tombstone),
    /// It was over.
    Forgotten(Arc<str>),
}

impl Change {
    pub(super) fn read(message: &[u8]) -> Option<Self> {
        let mut parts = message.splitn(6, |byte| *byte == b' ');
        let mut text = || std::str::from_utf8(parts.next()?).ok();
        let (number, was, is, change, id) = (text()?.parse().ok()?, text()?, text()?, text()?, text()?);
        let value = parts.next()?;
        let what = match change {
            "+" => What::Added(Entry::read(id, value)?),
            "-" => What::Removed(Tombstone::read(id, value)?),
            "x" if is_id(id) => What::Forgotten(id.into()),
            _ => return None,
        };
        Some(Self { number, was: was.into(), is: is.into(), what })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for (sealed, expires) in [(&b""[..], None), (b"1:2 3\0\xff", Some(7)), (b":", Some(u64::MAX))] {
            let entry = Entry { id: "a/b:c".into(), sealed: Bytes::copy_from_slice(sealed), expires };
            assert_eq!(Entry::read(&entry.id, &entry.written()), Some(entry));
        }
        for wrong in ["", ":", "x:", "-1:", "+1:", "01:", "1", "18446744073709551616:"] {
            assert_eq!(Entry::read("a", wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(Entry::read("a b", b"0:"), None);
        assert_eq!(Entry::read("a", &[b"0:", &[b'x'; MAX_SEALED_BYTES + 1][..]].concat()), None);
    }

    #[test]
    fn changes_are_read_whole_or_not_at_all() {
        let change = Change::read(b"7 - abc + id 0:two words").unwrap();
        assert_eq!((change.number, &*change.was, &*change.is), (7, "-", "abc"));
        assert!(matches!(change.what, What::Added(entry) if &entry.sealed[..] == b"two words"));
        assert_eq!(Change::read(b"8 a b x id ").unwrap().what, What::Forgotten("id".into()));
        for wrong in ["", "7", "7 - a + id", "x - a + id 0:", "7 - a ? id 0:", "7 - a + id x", "7 - a - id x"] {
            assert_eq!(Change::read(wrong.as_bytes()), None, "{wrong}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_comes_is_a_panic(message in proptest::collection::vec(proptest::num::u8::ANY, 0..80)) {
            let _read = Change::read(&message);
            let _read = Entry::read("a", &message);
        }
    }
}
