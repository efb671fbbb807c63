//! From the bytes of a check to the bytes of the answer, with the default bundle: OK is only said for a permit, and
//! what is decided is what Cedar's own authorizer says.

use std::sync::OnceLock;

use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use jiff::Timestamp;
use palisade::authz::comparison::{self, Asked};
use palisade::authz::decision::Verdict;
use palisade::authz::facts::Facts;
use palisade::authz::identity::IdentitySource;
use palisade::authz::limits::Limits;
use palisade::authz::policy::{Bundle, Reference};
use palisade::authz::request::Request;
use palisade::authz::{self, Active, Settings};
use palisade::envoy::{request, response};
use palisade::store::files;

#[path = "../../../tests/decisions/generated.rs"]
mod generated;

pub fn run(input: &[u8]) {
    generated::agree(input);
    let Ok(request) = request::decode(input) else { return };
    decide(&request, IdentitySource::SourcePrincipal);
    decide(&request, IdentitySource::Xfcc);
}

/// Decides a request and checks the answer against the verdict, and the verdict against Cedar.
pub fn decide(request: &Request<'_>, source: IdentitySource) {
    static DEFAULT: OnceLock<(Active, Reference, Settings)> = OnceLock::new();
    let (active, reference, settings) = DEFAULT.get_or_init(|| {
        let files = files::read(&super::repository().join("cedar")).expect("the default bundle can be read");
        let bundle = Bundle::load(&files, files::digest(&files)).expect("the default bundle is valid");
        let settings = Settings {
            trust_domains: vec!["example.org".into()],
            limits: Limits::default(),
            tokens: std::sync::Arc::default(),
            seal: authz::seal::Seal::default(),
        };
        let reference = Reference::load(&files).expect("the default bundle is valid");
        (Active::Loaded(Box::new(bundle)), reference, settings)
    });
    // A Wednesday morning, when customers may be changed.
    let now = Timestamp::from_second(1_772_619_300).expect("a moment");
    let facts = Facts::at(now);
    let decision = authz::authorize(active, settings, source, request, &facts);
    let permitted = matches!(decision.verdict, Verdict::Permit(_));

    let answer = response::build(&decision, "the-decision-id").message();
    let code = answer.status.expect("every answer has a status").code;
    assert_eq!(code == 0, permitted);
    match answer.http_response.expect("every answer says what to do") {
        HttpResponse::OkResponse(_) => assert!(permitted),
        HttpResponse::DeniedResponse(denied) => {
            assert!(!permitted && denied.body.contains("the-decision-id"));
            serde_json::from_str::<serde_json::Value>(&denied.body).expect("the body of a denial is JSON");
        }
        HttpResponse::ErrorResponse(_) => panic!("Envoy may let that pass"),
    }
    if permitted {
        assert!(decision.caller.is_some() && decision.target.is_some());
        let earned = |evaluation: &authz::decision::Evaluation| {
            !evaluation.policies.is_empty() && evaluation.failures.is_empty()
        };
        assert!(decision.evaluations.iter().all(earned));
    }

    let Active::Loaded(bundle) = active else { return };
    let asked = Asked { bundle, settings, source, request, facts: &facts };
    assert_eq!(comparison::check(reference, &asked, &decision), Ok(()), "Cedar's own authorizer says otherwise");
}
