//! Numbers of JSON that every parser reads as they are written.
//!
//! Some parsers read every number as 64 bits of floating point (JavaScript), some keep all its digits (Python's `decimal`,
//! PostgreSQL), some tell integers from others (Go, Java, serde_json). So an integer is one up to 2^53 - 1 (RFC 7493,
//! section 2.2), and any other number is the shortest text of the floating-point number that it is read as, but for how the
//! text puts it: then whoever rounds and whoever does not has the same value. RFC 8785 writes numbers so, and so do
//! JavaScript, Python, Go, Java and Rust by default.

use crate::authz::reason::Reason;

/// The largest integer, and below zero the smallest.
const MAX_INTEGER: &[u8] = b"9007199254740991";
/// As many digits as floating point keeps whatever they are (`DBL_DIG`): two numbers of so many digits are two numbers there.
const KEPT_DIGITS: usize = 15;
/// As many digits as the shortest text of one can have.
const MOST_DIGITS: usize = 17;
/// Well within what is neither infinite nor rounded to fewer bits: powers of ten up to this, and down to its inverse.
const USUAL_POWERS: std::ops::RangeInclusive<i64> = -300..=300;
/// There is no finite number from this power of ten on.
const INFINITE_POWER: i64 = 309;

/// The length of the number at the beginning: `-? (0|[1-9][0-9]*) (.[0-9]+)? ([eE][+-]?[0-9]+)?`
///
/// # Errors
/// [`Reason::JsonMalformed`], [`Reason::JsonNumberRange`] or [`Reason::JsonNumberForm`].
pub(super) fn length(bytes: &[u8]) -> Result<usize, Reason> {
    let after = |at: usize| bytes.get(at..).unwrap_or_default();
    let sign = usize::from(bytes.first() == Some(&b'-'));
    let integer = digits(after(sign))?;
    // Behind a leading zero nothing is left of the integer.
    if integer.len() > 1 && integer.first() == Some(&b'0') {
        return Err(Reason::JsonMalformed);
    }
    let mut end = sign + integer.len();
    let fraction = if bytes.get(end) == Some(&b'.') { digits(after(end + 1))? } else { &[] };
    end += if fraction.is_empty() { 0 } else { 1 + fraction.len() };
    let has_exponent = matches!(bytes.get(end), Some(b'e' | b'E'));
    // Nearly all numbers are so: few digits are kept, and nothing is far from one.
    if integer.len() + fraction.len() <= KEPT_DIGITS && !has_exponent {
        // `-0` is 0 to some (Python), a floating-point number to others (serde_json), and not everybody keeps its sign.
        return if end == 2 && bytes.starts_with(b"-0") { Err(Reason::JsonNumberForm) } else { Ok(end) };
    }
    if fraction.is_empty() && !has_exponent {
        // Texts of one length are in the order of their numbers.
        let is_exact = integer.len() == MAX_INTEGER.len() && integer <= MAX_INTEGER;
        return if is_exact { Ok(end) } else { Err(Reason::JsonNumberRange) };
    }
    let mut exponent = 0;
    if has_exponent {
        let minus = bytes.get(end + 1) == Some(&b'-');
        end += 1 + usize::from(minus || bytes.get(end + 1) == Some(&b'+'));
        let power = digits(after(end))?;
        end += power.len();
        exponent = if minus { -value(power) } else { value(power) };
    }
    let number = Decimal { integer, fraction, exponent };
    number.check(bytes.get(..end).unwrap_or_default()).map(|()| end)
}

/// The digits at the beginning, of which there has to be one.
fn digits(bytes: &[u8]) -> Result<&[u8], Reason> {
    let end = bytes.iter().position(|b| !b.is_ascii_digit()).unwrap_or(bytes.len());
    bytes.get(..end).filter(|digits| !digits.is_empty()).ok_or(Reason::JsonMalformed)
}

/// What digits say; beyond any bound it does not matter how far.
fn value(digits: &[u8]) -> i64 {
    digits.iter().fold(0_i64, |value, digit| value.saturating_mul(10).saturating_add(i64::from(digit - b'0')))
}

/// A number with a fraction or an exponent.
struct Decimal<'a> {
    integer: &'a [u8],
    fraction: &'a [u8],
    exponent: i64,
}

impl Decimal<'_> {
    /// Whether floating point keeps it. Time is linear in its length, and it is read only if it may be in doubt.
    fn check(&self, number: &[u8]) -> Result<(), Reason> {
        let all = || self.integer.iter().chain(self.fraction).copied();
        let not_zero = |digit: u8| digit != b'0';
        // Zero is zero, however it is written.
        let Some(first) = all().position(not_zero) else { return Ok(()) };
        let end = self.integer.len() + self.fraction.len() - all().rev().position(not_zero).unwrap_or(0);
        let significant = end - first;
        let place = |digits: usize| i64::try_from(digits).unwrap_or(i64::MAX);
        // The power of ten of the first digit.
        let power = self.exponent.saturating_add(place(self.integer.len()) - 1 - place(first));
        if significant <= KEPT_DIGITS && USUAL_POWERS.contains(&power) {
            return Ok(());
        }
        if power >= INFINITE_POWER {
            return Err(Reason::JsonNumberRange);
        }
        if significant > MOST_DIGITS {
            return Err(Reason::JsonNumberForm);
        }
        let read: f64 =
            std::str::from_utf8(number).ok().and_then(|number| number.parse().ok()).ok_or(Reason::JsonMalformed)?;
        if read.is_infinite() {
            return Err(Reason::JsonNumberRange);
        }
        // What is less than the smallest normal number has fewer bits, and is zero to whoever flushes it.
        let shortest = format!("{:e}", read.abs());
        let (digits, shortest_power) = shortest.split_once('e').unwrap_or_default();
        let same_digits = digits.bytes().filter(|digit| *digit != b'.').eq(all().take(end).skip(first));
        let is_kept = read.is_normal() && same_digits && shortest_power.parse() == Ok(power);
        if is_kept { Ok(()) } else { Err(Reason::JsonNumberForm) }
    }
}
