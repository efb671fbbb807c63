//! The list of an epoch's checkpoints, one after the other: it may be longer than memory.

use std::io::Read;

use super::source::SourceError;
use crate::tlog::note::MAX_NOTE_BYTES;

/// How a signature begins (an em dash).
const SIGNATURE: &[u8] = "\u{2014}".as_bytes();
/// How much is read at a time.
const PIECE: usize = 64 * 1024;

/// The notes of a list.
pub(super) struct Notes<'r> {
    reader: Box<dyn Read + Send + 'r>,
    path: String,
    buffer: Vec<u8>,
    /// Where in it the next one begins.
    at: usize,
    has_ended: bool,
    /// How many there were.
    pub count: u64,
}

/// What comes next in a list.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A whole note.
    Note(String),
    /// Nothing more; so many bytes are left behind the last whole one.
    End(usize),
    /// What is no note: nothing behind it can be found.
    Wrong(String),
}

impl<'r> Notes<'r> {
    /// Of a file that is called so.
    pub fn new(reader: Box<dyn Read + Send + 'r>, path: String) -> Self {
        Self { reader, path, buffer: Vec::new(), at: 0, has_ended: false, count: 0 }
    }

    /// The next one.
    pub fn next(&mut self) -> Result<Next, SourceError> {
        loop {
            let rest = self.buffer.get(self.at..).unwrap_or_default();
            match length(rest, self.has_ended) {
                Found::Whole(length) => {
                    let note = rest.get(..length).unwrap_or_default().to_vec();
                    self.at += length;
                    return Ok(match String::from_utf8(note) {
                        Ok(note) => {
                            self.count += 1;
                            Next::Note(note)
                        }
                        Err(_) => Next::Wrong("it is no text".into()),
                    });
                }
                Found::Wrong => return Ok(Next::Wrong("it has no signature behind its text".into())),
                Found::Part if rest.len() > MAX_NOTE_BYTES => {
                    return Ok(Next::Wrong(format!("it has more than {MAX_NOTE_BYTES} bytes")));
                }
                Found::Part if self.has_ended => return Ok(Next::End(rest.len())),
                Found::Part => self.fill()?,
            }
        }
    }

    fn fill(&mut self) -> Result<(), SourceError> {
        self.buffer.drain(..self.at.min(self.buffer.len()));
        self.at = 0;
        let piece = (&mut self.reader).take(PIECE as u64).read_to_end(&mut self.buffer);
        let read = piece.map_err(|error| SourceError::Failed(self.path.clone(), error.to_string()))?;
        self.has_ended = read == 0;
        Ok(())
    }
}

enum Found {
    Whole(usize),
    Part,
    Wrong,
}

/// How long the first note is: its text, an empty line, and all lines that begin as signatures do.
fn length(bytes: &[u8], is_all: bool) -> Found {
    let Some(empty) = memchr::memmem::find(bytes, b"\n\n") else { return Found::Part };
    let body = empty + 2;
    let mut end = body;
    loop {
        let rest = bytes.get(end..).unwrap_or_default();
        if rest.len() < SIGNATURE.len() && (!is_all || SIGNATURE.starts_with(rest)) && !(is_all && end > body) {
            return Found::Part;
        }
        if !rest.starts_with(SIGNATURE) {
            return if end > body { Found::Whole(end) } else { Found::Wrong };
        }
        match memchr::memchr(b'\n', rest) {
            Some(line) => end += line + 1,
            None if is_all && end > body => return Found::Whole(end),
            None => return Found::Part,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that gives a byte at a time.
    struct Slow(Vec<u8>, usize);

    impl Read for Slow {
        fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
            let Some(byte) = self.0.get(self.1) else { return Ok(0) };
            to[0] = *byte;
            self.1 += 1;
            Ok(1)
        }
    }

    fn all(bytes: &[u8]) -> (Vec<String>, Next) {
        let mut notes = Notes::new(Box::new(Slow(bytes.to_vec(), 0)), "list".into());
        let mut whole = Vec::new();
        loop {
            match notes.next().unwrap() {
                Next::Note(note) => whole.push(note),
                other => return (whole, other),
            }
        }
    }

    #[test]
    fn notes_are_told_apart_wherever_the_list_is_cut() {
        let notes =
            ["a\n1\nx\n\n\u{2014} a b\n", "a\n2\ny\n\n\u{2014} a b\n\u{2014} w c\n", "a\n3\nz\n\n\u{2014} a b\n"];
        let file = notes.concat().into_bytes();
        for cut in 0..=file.len() {
            let (whole, end) = all(&file[..cut]);
            let ends: Vec<usize> = notes
                .iter()
                .scan(0, |at, note| {
                    *at += note.len();
                    Some(*at)
                })
                .collect();
            let count = ends.iter().filter(|end| **end <= cut).count();
            // A second signature that is cut leaves a note with one.
            if !(ends[0] < cut && cut < ends[1] && whole.len() == 2) {
                assert_eq!(whole, notes[..count], "{cut}");
            }
            assert!(matches!(end, Next::End(_)), "{cut}: {end:?}");
        }
        assert!(matches!(all(b"a\n\nb\n").1, Next::Wrong(_)));
        assert!(matches!(all(&vec![b'a'; MAX_NOTE_BYTES + 2]).1, Next::Wrong(_)));
        assert_eq!(all(b""), (vec![], Next::End(0)));
    }
}
