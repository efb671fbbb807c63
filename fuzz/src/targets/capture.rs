//! A recorded check is read, decided, captured again, and is the same check after that.

use palisade::authz::identity::IdentitySource;
use palisade::authz::request::Request;
use palisade::authz::target::Protocol;
use palisade::capture::{Capture, Values};

pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(Ok(request)) = Capture::parse(text).map(Capture::request) else { return };
    super::check_request::decide(&request, IdentitySource::SourcePrincipal);

    let again = |request: &Request, values| {
        let text = serde_json::to_string(&Capture::of(request, values)).expect("a capture is JSON");
        Capture::parse(&text).and_then(Capture::request).expect("what is written can be read")
    };
    // Once written, names of headers are in lower case, and in order where Envoy sent a map.
    let written = again(&request, Values::Kept);
    assert_eq!(again(&written, Values::Kept), written);
    for protocol in Protocol::ALL.map(Some).into_iter().chain([None]) {
        let redacted = again(&written, Values::Redacted(protocol));
        assert_eq!(redacted.source_principal, written.source_principal);
        let method = |request: &Request| request.http.as_ref().map(|http| http.method.clone().into_owned());
        assert_eq!(method(&redacted), method(&written));
    }
}
