//! What is decided does not depend on the thread that decides: Cedar gives up where little stack is left, and skips the
//! policy, a forbid included.

use palisade::authz::identity::IdentitySource;
use palisade::authz::reason::Reason;
use palisade::authz::request::Request;
use palisade::authz::{Active, authorize};

use super::chance;
use super::default_bundle;
use crate::support::{self, BodyForm, HeaderForm};

const KIB: usize = 1024;

fn on_a_stack_of<T: Send>(bytes: usize, decide: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(bytes).spawn_scoped(scope, decide).unwrap();
        thread.join().unwrap()
    })
}

fn status_request() -> Request<'static> {
    const CRM: &str = "spiffe://example.org/ns/tools/sa/crm";
    chance::http("spiffe://example.org/ns/agents/sa/coder", CRM, None, "GET", "/status", None)
}

/// A forbid for which the stack is too short denies all the same, and says that it failed.
#[test]
fn a_short_stack_never_permits() {
    let mut files = support::default_files();
    let conditions = vec!["context.local.hour < 99"; 200].join(" && ");
    let text = format!("@id(\"deep\")\n@reason(\"r\")\nforbid (principal, action, resource) when {{ {conditions} }};");
    let permitted = Active::Loaded(Box::new(support::load(&files).unwrap()));
    files.insert("policies/deep.cedar".into(), text.into_bytes());
    let active = Active::Loaded(Box::new(support::load(&files).unwrap()));
    let (request, settings) = (status_request(), support::settings());
    let facts = support::facts(support::OFFICE);
    let decide = |active| authorize(active, &settings, IdentitySource::SourcePrincipal, &request, &facts);
    assert!(on_a_stack_of(32 * KIB * KIB, || support::is_permit(&decide(&permitted))), "without the forbid");
    // Cedar evaluates nothing with less than 100 KiB; what is above is for reading the request.
    let stacks = [32 * KIB, 8 * KIB, 4 * KIB, 2 * KIB, KIB, 512, 256];
    let reasons: Vec<Option<Reason>> =
        stacks.iter().map(|stack| on_a_stack_of(stack * KIB, || decide(&active).reason())).collect();
    for (stack, reason) in stacks.iter().zip(&reasons) {
        assert!(matches!(reason, Some(Reason::PolicyForbids | Reason::PolicyError)), "{stack} KiB: {reason:?}");
    }
    assert_eq!(reasons.first(), Some(&Some(Reason::PolicyForbids)));
    assert_eq!(reasons.last(), Some(&Some(Reason::PolicyError)), "the shortest stack was long enough");
}

/// The same requests ten thousand times, on many threads at once, each with a stack of its own size.
#[test]
fn every_thread_decides_alike() {
    use proptest::strategy::{Strategy as _, ValueTree as _};
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let requests: Vec<Request> =
        (0..25).map(|_| chance::default_request().new_tree(&mut runner).unwrap().current()).collect();
    let messages: Vec<Vec<u8>> =
        requests.iter().map(|request| support::encode(request, HeaderForm::Listed, BodyForm::Raw)).collect();
    let decide_all = || {
        let decide = |message: &Vec<u8>| {
            let (decision, answer) =
                support::decide(default_bundle(), IdentitySource::SourcePrincipal, support::OFFICE, message);
            support::transcript(&decision, &answer)
        };
        messages.iter().map(decide).collect::<Vec<String>>()
    };
    let first = decide_all();
    for verdict in ["Permit(", "PolicyForbids", "NoPolicyPermits"] {
        assert!(first.iter().any(|said| said.contains(verdict)), "no request ends in {verdict}");
    }
    // An optimised build needs a twelfth of the stack of one that is not.
    let least = if cfg!(debug_assertions) { 2 * KIB } else { 256 };
    std::thread::scope(|scope| {
        for at in 0..40 {
            let stack = (least + at * 200) * KIB;
            let again = || (0..10).for_each(|_| assert_eq!(decide_all(), first));
            std::thread::Builder::new().stack_size(stack).spawn_scoped(scope, again).unwrap();
        }
    });
}
