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
    let is = |at: usize, sign: u8| bytes.get(at) == Some(&sign);
    let part = |from: usize, to: usize| bytes.get(from..to).unwrap_or_default();
    let start = usize::from(is(0, b'-'));
    let point = digits_end(bytes, start)?;
    // Behind a leading zero nothing is left of the integer.
    if is(start, b'0') && point > start + 1 {
        return Err(Reason::JsonMalformed);
    }
    let end = if is(point, b'.') { digits_end(bytes, point + 1)? } else { point };
    let has_exponent = is(end, b'e') || is(end, b'E');
    // Nearly all numbers are so: few digits are kept, and nothing is far from one.
    if end - start <= KEPT_DIGITS && !has_exponent {
        // `-0` is 0 to some (Python), a floating-point number to others (serde_json), and not everybody keeps its sign.
        return if part(0, end) == b"-0" { Err(Reason::JsonNumberForm) } else { Ok(end) };
    }
    if end == point && !has_exponent {
        // Texts of one length are in the order of their numbers.
        let digits = part(start, end);
        let is_exact = digits.len() == MAX_INTEGER.len() && digits <= MAX_INTEGER;
        return if is_exact { Ok(end) } else { Err(Reason::JsonNumberRange) };
    }
    let (mut length, mut exponent) = (end, 0);
    if has_exponent {
        let minus = is(end + 1, b'-');
        let digits = end + 1 + usize::from(minus || is(end + 1, b'+'));
        length = digits_end(bytes, digits)?;
        let power = value(part(digits, length));
        exponent = if minus { -power } else { power };
    }
    let decimal = Decimal::of(part(start, point), part(point + 1, end), exponent);
    check(&decimal, part(start, length)).map(|()| length)
}

/// Where the digits end that begin here; there has to be one.
fn digits_end(bytes: &[u8], start: usize) -> Result<usize, Reason> {
    let mut end = start;
    while bytes.get(end).is_some_and(u8::is_ascii_digit) {
        end += 1;
    }
    if end == start { Err(Reason::JsonMalformed) } else { Ok(end) }
}

/// What digits say; beyond any bound it does not matter how far.
fn value(digits: &[u8]) -> i64 {
    digits.iter().fold(0_i64, |value, digit| value.saturating_mul(10).saturating_add(i64::from(digit - b'0')))
}

fn without_zeros_before(mut digits: &[u8]) -> &[u8] {
    while let [b'0', rest @ ..] = digits {
        digits = rest;
    }
    digits
}

fn without_zeros_behind(mut digits: &[u8]) -> &[u8] {
    while let [rest @ .., b'0'] = digits {
        digits = rest;
    }
    digits
}

/// A number without its sign, as it is written: the digits from the first to the last that is not zero, and where they stand.
#[derive(PartialEq)]
struct Decimal {
    /// The first of them, as many as there may be.
    digits: u64,
    count: usize,
    /// The power of ten of the first one.
    power: i64,
}

impl Decimal {
    fn of(integer: &[u8], fraction: &[u8], exponent: i64) -> Self {
        let place = |digits: usize| i64::try_from(digits).unwrap_or(i64::MAX);
        let (integer, fraction) = (without_zeros_before(integer), without_zeros_behind(fraction));
        let behind_point = if integer.is_empty() { without_zeros_before(fraction) } else { fraction };
        let above =
            if integer.is_empty() { place(behind_point.len()) - place(fraction.len()) } else { place(integer.len()) };
        let integer = if fraction.is_empty() { without_zeros_behind(integer) } else { integer };
        let count = integer.len() + behind_point.len();
        let kept = integer.iter().chain(behind_point).take(MOST_DIGITS);
        let digits = kept.fold(0_u64, |digits, digit| digits * 10 + u64::from(digit - b'0'));
        Self { digits, count, power: exponent.saturating_add(above - 1) }
    }

    /// What stands in the text of a floating-point number (`1.5e-7`).
    fn written(text: &str) -> Option<Self> {
        let (digits, power) = text.split_once('e')?;
        let (integer, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        Some(Self::of(integer.as_bytes(), fraction.as_bytes(), power.parse().ok()?))
    }

    /// Whether it is the shortest text of a number, and of several the nearest. Halfway between two, one writer takes the even one
    /// (JavaScript), another the other one (Rust).
    fn is_shortest(&self, number: f64) -> bool {
        let is = |text: String| Self::written(&text).as_ref() == Some(self);
        let shortest = format!("{:e}", number.abs());
        let even = |digits: usize| format!("{:.*e}", digits - 1, number.abs());
        Self::written(&shortest)
            .is_some_and(|known| known == *self || (known.count == self.count && is(even(known.count))))
    }
}

/// Whether floating point keeps it. Time is linear in the length of its text, which is read only if it may be in doubt.
fn check(decimal: &Decimal, text: &[u8]) -> Result<(), Reason> {
    // Zero is zero, however it is written.
    if decimal.count == 0 || (decimal.count <= KEPT_DIGITS && USUAL_POWERS.contains(&decimal.power)) {
        return Ok(());
    }
    if decimal.power >= INFINITE_POWER {
        return Err(Reason::JsonNumberRange);
    }
    if decimal.count > MOST_DIGITS {
        return Err(Reason::JsonNumberForm);
    }
    let read: f64 = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(Reason::JsonMalformed)?;
    if read.is_infinite() {
        return Err(Reason::JsonNumberRange);
    }
    // What is less than the smallest normal number has fewer bits, and is zero to whoever flushes it.
    if read.is_normal() && decimal.is_shortest(read) { Ok(()) } else { Err(Reason::JsonNumberForm) }
}
