//! A body is read where its protocol or a policy reads it, and else it is nobody's business: not how long it is, not whether
//! it is all there, not what it hashes to.

use std::sync::OnceLock;

use palisade::authz::decision::Decision;
use palisade::authz::digest::sha256;
use palisade::authz::identity::IdentitySource;
use palisade::authz::reason::Reason;
use palisade::authz::record::RequestSummary;
use palisade::authz::request::{Body, Headers, Request};
use palisade::authz::{Active, authorize};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::laws::chance::http;
use crate::support::{self, OFFICE};

const CALLER: &str = "spiffe://example.org/ns/agents/sa/caller";

/// A call of the target `web`, with a body and more headers.
fn page(method: &str, body: Body<'static>, more: &[(&str, &str)]) -> Request<'static> {
    let mut request = http(CALLER, "", None, method, "/public/a", None);
    put_body(&mut request, body, more);
    request.http.as_mut().unwrap().host = "api.example.org".into();
    request
}

/// The length is not stated.
fn put_body(request: &mut Request<'static>, body: Body<'static>, more: &[(&str, &str)]) {
    let part = request.http.as_mut().unwrap();
    let more = more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let fields = part.headers.iter().filter(|(name, _)| *name != "content-length");
    let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).chain(more);
    part.headers = Headers::new(fields.collect::<Vec<_>>(), false);
    part.body = body;
}

fn raw(bytes: &[u8]) -> Body<'static> {
    Body::Raw(bytes.to_vec().into())
}

fn decide(request: &Request) -> (Decision, RequestSummary) {
    static BUNDLE: OnceLock<Active> = OnceLock::new();
    let active = BUNDLE.get_or_init(|| support::active(Some("protocols")));
    let (settings, facts) = (support::settings(), support::facts(OFFICE));
    let decision = authorize(active, &settings, IdentitySource::SourcePrincipal, request, &facts);
    let summary = RequestSummary::of(request, &decision);
    (decision, summary)
}

#[test]
fn a_digest_is_computed_for_who_reads_it() {
    // No policy about a PUT reads the body, one about a POST does.
    for (method, digest) in [("PUT", None), ("POST", Some(sha256(b"hello")))] {
        let (decision, summary) = decide(&page(method, raw(b"hello"), &[]));
        assert!(support::is_permit(&decision), "{method}");
        assert_eq!((decision.body_sha256, summary.body_sha256, summary.body_bytes), (digest, digest, 5), "{method}");
    }
    // Of a message no policy here reads the body as a whole, but it is read, and on record also where that fails.
    for (body, reason) in
        [(&br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#[..], None), (b"{", Some(Reason::JsonMalformed))]
    {
        let mut request = http(CALLER, "", Some("notes"), "POST", "/mcp", None);
        put_body(&mut request, raw(body), &[]);
        let (decision, summary) = decide(&request);
        assert_eq!((decision.reason(), decision.body_sha256), (reason, None));
        assert_eq!(summary.body_sha256, Some(sha256(body)));
    }
    // Nobody's body.
    let mut nowhere = page("POST", raw(b"hello"), &[]);
    nowhere.http.as_mut().unwrap().host = "elsewhere.example.org".into();
    let (decision, summary) = decide(&nowhere);
    assert_eq!((decision.reason(), summary.body_sha256, summary.body_bytes), (Some(Reason::TargetUnknown), None, 5));
}

/// What may be said of a body, and how it may be there.
fn said() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let codings = select(vec!["gzip", "br", "zstd", "unknown", "", "identity, gzip"]);
    let fields = (codings, select(vec!["0", "3", "1000000"]), select(vec!["true", "", "maybe"])).prop_map(
        |(coding, length, partial)| {
            vec![("content-encoding", coding), ("content-length", length), ("x-envoy-auth-partial-body", partial)]
        },
    );
    fields.prop_flat_map(|fields| subsequence(fields, 0..=3))
}

fn body() -> impl Strategy<Value = Body<'static>> {
    prop_oneof![
        1 => Just(Body::Absent),
        3 => proptest::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| Body::Raw(bytes.into())),
        2 => "[a-z!]{0,20}".prop_map(|text| Body::Text(text.into())),
        1 => (65_536..65_600_usize).prop_map(|length| Body::Raw(vec![b'x'; length].into())),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Where nobody reads it, whatever it is and whatever is said of it changes nothing. Where a policy reads it, it is the body that
    /// was sent, or there is no call.
    #[test]
    fn a_body_matters_to_who_reads_it(body in body(), said in said()) {
        let (unread, summary) = decide(&page("PUT", body.clone(), &said));
        prop_assert!(support::is_permit(&unread), "{:?}", unread.reason());
        prop_assert_eq!((unread.body_sha256, summary.body_sha256), (None, None));

        let (read, _) = decide(&page("POST", body.clone(), &said));
        let says = |name: &str| said.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        let bytes = body.bytes().unwrap_or_default();
        let is_whole = says("x-envoy-auth-partial-body").is_none()
            && says("content-length").map_or(!bytes.is_empty(), |length| length == bytes.len().to_string())
            && (says("content-encoding").is_none() || bytes.is_empty())
            && !matches!(&body, Body::Text(text) if text.contains('!'));
        if is_whole && bytes.len() <= 64 {
            prop_assert!(support::is_permit(&read), "{:?}", read.reason());
            prop_assert_eq!(read.body_sha256, (!bytes.is_empty()).then(|| sha256(bytes)));
        } else {
            prop_assert!(read.reason().is_some());
            prop_assert!(read.evaluations.iter().all(|evaluation| evaluation.policies.len() == usize::from(is_whole && bytes.len() <= 65_536)));
        }
    }
}
