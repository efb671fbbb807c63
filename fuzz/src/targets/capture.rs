//! A recorded check is read, decided, captured again, and is the same check after that.

use palisade::authz::identity::IdentitySource;
use palisade::authz::request::Request;
use palisade::capture::Capture;

pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(Ok(request)) = Capture::parse(text).map(Capture::request) else { return };
    super::check_request::decide(&request, IdentitySource::SourcePrincipal);

    let again = |request: &Request, redact| {
        let text = serde_json::to_string(&Capture::of(request, redact)).expect("a capture is JSON");
        Capture::parse(&text).and_then(Capture::request).expect("what is written can be read")
    };
    // Once written, names of headers are in lower case, and in order where Envoy sent a map.
    let written = again(&request, false);
    assert_eq!(again(&written, false), written);
    let redacted = again(&written, true);
    assert_eq!(redacted.source_principal, written.source_principal);
    assert_eq!(redacted.http.map(|http| http.method), written.http.map(|http| http.method));
}
