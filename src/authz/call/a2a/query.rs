//! The query of a path, read strictly: names as they are, values decoded once, nothing twice.

use std::borrow::Cow;

use crate::authz::call::Unreadable;
use crate::authz::percent;
use crate::authz::reason::Reason;

/// The parameters of the query behind `target`, a path as it was sent, each of which has to be one of `known`.
///
/// # Errors
/// [`Reason::ProtocolParamsMalformed`] for a parameter that is not known, there twice or without a value; for a `+`, which
/// is a space to some, a `;`, which ends a parameter to some, and whatever is not UTF-8 when it is decoded, or a control
/// character.
pub fn read<'a>(target: &'a str, known: &[&'static str]) -> Result<Vec<(&'static str, Cow<'a, str>)>, Unreadable> {
    let Some((_, query)) = target.split_once('?') else { return Ok(Vec::new()) };
    let mut all: Vec<(&'static str, Cow<'a, str>)> = Vec::new();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').ok_or_else(|| malformed("a parameter has no value"))?;
        let name = known.iter().find(|known| **known == name).ok_or_else(|| malformed("a parameter is not known"))?;
        if all.iter().any(|(other, _)| other == name) {
            return Err(malformed("a parameter is there twice"));
        }
        all.push((*name, decoded(value).ok_or_else(|| malformed("the value of a parameter is ambiguous"))?));
    }
    Ok(all)
}

fn malformed(what: &str) -> Unreadable {
    Unreadable::because(Reason::ProtocolParamsMalformed, format!("the query: {what}"))
}

fn decoded(value: &str) -> Option<Cow<'_, str>> {
    if value.contains(['+', ';', '#']) || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    percent::decoded(value).filter(|text| !text.chars().any(char::is_control))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["a", "b"];

    #[test]
    fn values_are_decoded_once() {
        let all = read("/x?a=1%2B1&b=%25%32%35", KNOWN).unwrap();
        assert_eq!(all, [("a", Cow::from("1+1")), ("b", Cow::from("%25"))]);
        assert_eq!(read("/x", KNOWN).unwrap(), []);
        assert_eq!(read("/x?a=", KNOWN).unwrap(), [("a", Cow::from(""))]);
        assert_eq!(read("/x?a=%C3%A4%20=?", KNOWN).unwrap(), [("a", Cow::from("ä =?"))]);
    }

    #[test]
    fn whatever_two_readers_take_differently_is_refused() {
        for query in [
            "", "a", "c=1", "A=1", "%61=1", "a[]=1", "a=1&a=1", "a=1&&b=1", "&a=1", "a=1&", "a=1+1", "a=1;b=2", "a=%",
            "a=%2", "a=%zz", "a=%+1", "a=%00", "a=%0a", "a=%ff", "a=ä", "a=1 ", "a=1#b",
        ] {
            assert!(read(&format!("/x?{query}"), KNOWN).is_err(), "{query}");
        }
    }
}
