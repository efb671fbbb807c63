//! What is given to a client to keep, and believed when it comes back: an expiry and a MAC over it and over whatever it is
//! bound to. It holds nothing else, so there is nothing in it to read.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// How each begins: others put texts of their own into the same places.
const PREFIX: &str = "palisade.v1.";

/// A key that seals; without one nothing is sealed and nothing opens.
#[derive(Clone, Default)]
pub struct Seal(Option<hmac::Key>);

impl Seal {
    /// Seals with a key.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        Self(Some(hmac::Key::new(hmac::HMAC_SHA256, key)))
    }

    /// A text that opens until `expires` (seconds since 1970) for the same purpose and what it is bound to; `None` without a
    /// key.
    #[must_use]
    pub fn close(&self, purpose: &str, bound: &[&[u8]], expires: i64) -> Option<String> {
        let key = self.0.as_ref()?;
        let tag = hmac::sign(key, &message(purpose, bound, expires));
        Some(format!("{PREFIX}{}.{expires}.{}", name(key), URL_SAFE_NO_PAD.encode(tag)))
    }

    /// Whether a text looks like one that was sealed, with whatever key.
    #[must_use]
    pub fn looks_sealed(text: &str) -> bool {
        text.starts_with(PREFIX)
    }

    /// Whether a text was sealed with this key, or pretends to be.
    #[must_use]
    pub fn is_ours(&self, text: &str) -> bool {
        let name = text.strip_prefix(PREFIX).and_then(|rest| rest.split('.').next());
        self.0.as_ref().is_some_and(|key| name == Some(&self::name(key)))
    }

    /// Whether a text was sealed for this purpose and these, and has not expired.
    #[must_use]
    pub fn opens(&self, text: &str, purpose: &str, bound: &[&[u8]], now: i64) -> bool {
        let rest = text.strip_prefix(PREFIX).filter(|_| self.is_ours(text)).and_then(|rest| rest.split_once('.'));
        let (Some(key), Some((expires, tag))) = (&self.0, rest.and_then(|(_, rest)| rest.split_once('.'))) else {
            return false;
        };
        let (Ok(seconds), Ok(tag)) = (expires.parse::<i64>(), URL_SAFE_NO_PAD.decode(tag)) else { return false };
        // In its one spelling, and in constant time.
        seconds.to_string() == expires
            && now < seconds
            && hmac::verify(key, &message(purpose, bound, seconds), &tag).is_ok()
    }
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Seal(with a key)" } else { "Seal(without a key)" })
    }
}

/// What a key is called: it tells keys apart, and nothing of one.
fn name(key: &hmac::Key) -> String {
    let tag = hmac::sign(key, b"palisade: name of a key");
    URL_SAFE_NO_PAD.encode(tag.as_ref().get(..6).unwrap_or_default())
}

/// Every part with its length before it: no two lists have the same bytes.
fn message(purpose: &str, bound: &[&[u8]], expires: i64) -> Vec<u8> {
    let mut message = expires.to_be_bytes().to_vec();
    for part in std::iter::once(purpose.as_bytes()).chain(bound.iter().copied()) {
        message.extend((part.len() as u64).to_be_bytes());
        message.extend(part);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_for_what_it_was_sealed_for() {
        let seal = Seal::new(&[7; 32]);
        let text = seal.close("step-up", &[b"ab", b"c"], 1_000).unwrap();
        assert!(
            seal.is_ours(&text)
                && !Seal::new(&[8; 32]).is_ours(&text)
                && seal.opens(&text, "step-up", &[b"ab", b"c"], 999)
        );
        for (purpose, bound, now) in [
            ("step-up", &[&b"ab"[..], b"c"][..], 1_000),
            ("step-up", &[b"a", b"bc"], 999),
            ("step-up", &[b"ab"], 999),
            ("step-up", &[b"ab", b"c", b""], 999),
            ("step-u", &[b"pab", b"c"], 999),
            ("other", &[b"ab", b"c"], 999),
        ] {
            assert!(!seal.opens(&text, purpose, bound, now), "{purpose} {bound:?} {now}");
        }
        assert!(!Seal::new(&[8; 32]).opens(&text, "step-up", &[b"ab", b"c"], 999));
        assert!(!Seal::default().opens(&text, "step-up", &[b"ab", b"c"], 999));
        assert_eq!(Seal::default().close("step-up", &[], 1_000), None);
    }

    #[test]
    fn no_letter_of_it_can_be_another() {
        let seal = Seal::new(&[7; 32]);
        let text = seal.close("p", &[b"x"], 1_000).unwrap();
        let letters: Vec<char> = text.chars().collect();
        for (at, letter) in letters.iter().enumerate() {
            for other in ['0', '1', 'A', '_', '.', '-', '+', ' '] {
                let mut changed = letters.clone();
                changed[at] = other;
                let changed: String = changed.into_iter().collect();
                assert!(other == *letter || !seal.opens(&changed, "p", &[b"x"], 999), "{changed}");
            }
            let cut: String = letters.iter().take(at).collect();
            assert!(!seal.opens(&cut, "p", &[b"x"], 999));
        }
        for wrong in
            ["", "palisade.v1.", "palisade.v1.9", "palisade.v1.9.", "palisade.v1.-1.AA", "palisade.v1.01000.AA"]
        {
            assert!(!seal.opens(wrong, "p", &[b"x"], -10), "{wrong}");
        }
        let moved = text.replacen(".1000.", ".01000.", 1);
        assert!(moved != text && !seal.opens(&moved, "p", &[b"x"], 999));
    }
}
