//! The body of a request, read when somebody asks for it: a protocol whose messages are in it, or a policy.

use std::cell::OnceCell;

use crate::authz::digest::sha256;
use crate::authz::limits::Limits;
use crate::authz::reason::Reason;
use crate::authz::request::HttpRequest;

/// The body of a request. A protocol that has its messages in it has asked for it by now; else it is a fact, and what it is, whether
/// all of it is there and what its digest is, costs nothing unless a policy reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content<'a> {
    /// Where it is, and how long it may be; `None` if there can be none.
    of: Option<(&'a HttpRequest<'a>, usize)>,
    digest: OnceCell<[u8; 32]>,
}

impl<'a> Content<'a> {
    /// The body of a request.
    #[must_use]
    pub fn of(http: &'a HttpRequest<'a>, limits: &Limits) -> Self {
        Self { of: Some((http, limits.body_bytes)), digest: OnceCell::new() }
    }

    /// All of it; `None` if there is none.
    ///
    /// # Errors
    /// As [`HttpRequest::whole_body`].
    pub fn whole(&self) -> Result<Option<&'a [u8]>, Reason> {
        self.of.map_or(Ok(None), |(http, most)| http.whole_body(most))
    }

    /// How long it is, in bytes, and its SHA-256, which is computed once; `None` if there is none, or not the whole.
    #[must_use]
    pub fn length_and_digest(&self) -> Option<(usize, &[u8; 32])> {
        let bytes = self.whole().ok()??;
        Some((bytes.len(), self.digest.get_or_init(|| sha256(bytes))))
    }

    /// Its SHA-256, if that was asked for.
    #[must_use]
    pub fn digest_if_asked(&self) -> Option<[u8; 32]> {
        self.digest.get().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::request::Body;

    #[test]
    fn a_digest_is_computed_once_and_for_somebody() {
        let http = HttpRequest { body: Body::Raw(b"hello".into()), ..HttpRequest::default() };
        let content = Content::of(&http, &Limits::DEFAULT);
        assert_eq!((content.whole(), content.digest_if_asked()), (Ok(Some(&b"hello"[..])), None));
        let (length, digest) = content.length_and_digest().unwrap();
        assert_eq!((length, digest), (5, &sha256(b"hello")));
        assert!(std::ptr::eq(digest, content.length_and_digest().unwrap().1));
        assert_eq!(content.digest_if_asked(), Some(*digest));
    }

    #[test]
    fn what_is_not_the_whole_body_has_no_digest() {
        let text = Body::Text("hello!".into());
        for (body, most, reason) in
            [(text.clone(), 6, Reason::BodyNotRaw), (Body::Raw(b"hello".into()), 4, Reason::BodyTooLarge)]
        {
            let http = HttpRequest { body, ..HttpRequest::default() };
            let content = Content::of(&http, &Limits { body_bytes: most, ..Limits::DEFAULT });
            assert_eq!((content.whole(), content.length_and_digest()), (Err(reason), None));
            assert_eq!(content.digest_if_asked(), None);
        }
        assert_eq!((Content::default().whole(), Content::default().length_and_digest()), (Ok(None), None));
    }
}
