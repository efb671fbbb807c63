//! The last element of `x-forwarded-client-cert`, for listeners behind a waypoint.
//!
//! Envoy writes `By=…;Hash=…;Subject="…";URI=…;DNS=…`, elements separated by commas, the nearest hop
//! last. Envoy does not escape URI and DNS values, so a hostile certificate could inject pairs: the
//! tokenizer knows quotes, and an element that names a key twice is refused. Only the last element is
//! vouched for by the proxy that asks us; everything left of it is what the peer sent.

/// Why the header yields no identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum XfccError {
    /// Envoy 1.38 and later can write the header as JSON; that form is not read.
    #[error("the JSON form is not supported")]
    Json,
    /// Unbalanced quotes, or a pair without `=`.
    #[error("the last element is malformed")]
    Malformed,
    /// A key is there twice: a certificate may have injected it.
    #[error("a key is there twice in the last element")]
    Duplicate,
}

/// The `URI` value of the last element; `None` where the peer had none.
///
/// # Errors
/// [`XfccError`] when the header cannot be read without doubt.
pub fn last_uri(header: &str) -> Result<Option<String>, XfccError> {
    last(header, "uri")
}

/// The `Hash` value of the last element: SHA-256 of the peer's certificate, in hexadecimal digits; `None` where the proxy states
/// none.
///
/// # Errors
/// [`XfccError`] when the header cannot be read without doubt.
pub fn last_hash(header: &str) -> Result<Option<String>, XfccError> {
    last(header, "hash")
}

fn last(header: &str, wanted: &str) -> Result<Option<String>, XfccError> {
    if header.trim_start().starts_with(['[', '{']) {
        return Err(XfccError::Json);
    }
    let elements = split_outside_quotes(header, ',')?;
    let Some(last) = elements.last() else { return Ok(None) };
    let mut seen = Vec::new();
    let mut found = None;
    for pair in split_outside_quotes(last, ';')? {
        let (key, value) = pair.split_once('=').ok_or(XfccError::Malformed)?;
        let key = key.trim().to_ascii_lowercase();
        // A certificate may have many DNS names, but an SVID has exactly one URI.
        if key != "dns" && seen.contains(&key) {
            return Err(XfccError::Duplicate);
        }
        if key == wanted {
            found = Some(unquote(value)).filter(|text| !matches!(text.as_str(), "" | "-"));
        }
        seen.push(key);
    }
    Ok(found)
}

/// Splits at `separator` wherever it is outside double quotes; `\"` inside quotes is a literal quote.
fn split_outside_quotes(text: &str, separator: char) -> Result<Vec<&str>, XfccError> {
    let mut parts = Vec::new();
    let (mut start, mut quoted, mut escaped) = (0, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            c if c == separator && !quoted => {
                parts.push(text.get(start..at).ok_or(XfccError::Malformed)?);
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    if quoted {
        return Err(XfccError::Malformed);
    }
    parts.push(text.get(start..).ok_or(XfccError::Malformed)?);
    Ok(parts)
}

fn unquote(value: &str) -> String {
    let value = value.trim();
    value
        .strip_prefix('"')
        .and_then(|v| v.strip_suffix('"'))
        .map_or_else(|| value.to_owned(), |v| v.replace("\\\"", "\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_element_counts() {
        let header =
            "By=spiffe://e/w;URI=spiffe://e/admin,By=spiffe://e/w;Hash=ab;Subject=\"CN=a,O=\\\"b;c\";URI=spiffe://e/a";
        assert_eq!(last_uri(header), Ok(Some("spiffe://e/a".into())));
        assert_eq!(last_uri("By=spiffe://e/w;URI=\"spiffe://e/a\""), Ok(Some("spiffe://e/a".into())));
    }

    #[test]
    fn the_hash_of_the_last_element_counts() {
        assert_eq!(last_hash("Hash=aa;URI=spiffe://e/admin,Hash=bb;URI=spiffe://e/a"), Ok(Some("bb".into())));
        assert_eq!(last_hash("Hash=aa;URI=spiffe://e/admin,URI=spiffe://e/a"), Ok(None));
        assert_eq!(last_hash("Hash=aa;hash=bb"), Err(XfccError::Duplicate));
    }

    #[test]
    fn an_absent_peer_is_absent() {
        assert_eq!(last_uri("By=spiffe://e/w;URI="), Ok(None));
        assert_eq!(last_uri("By=spiffe://e/w;URI=-"), Ok(None));
        assert_eq!(last_uri("By=spiffe://e/w;Hash=00"), Ok(None));
    }

    #[test]
    fn doubt_is_refused() {
        assert_eq!(last_uri("[{\"uri\":\"spiffe://e/a\"}]"), Err(XfccError::Json));
        assert_eq!(last_uri("URI=spiffe://e/a;URI=spiffe://e/b"), Err(XfccError::Duplicate));
        assert_eq!(last_uri("By=a;uri=spiffe://e/a;URI=spiffe://e/b"), Err(XfccError::Duplicate));
        assert_eq!(last_uri("Subject=\"CN=a;URI=spiffe://e/a"), Err(XfccError::Malformed));
        assert_eq!(last_uri(""), Err(XfccError::Malformed));
        assert_eq!(last_uri("URI=spiffe://e/a,"), Err(XfccError::Malformed));
        assert_eq!(last_uri("nonsense"), Err(XfccError::Malformed));
    }
}
