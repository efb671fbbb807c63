//! Who asks, and that what is asked and answered arrives as it is.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use palisade::control::Refusal;
use palisade::proto::event::Event as What;
use palisade::proto::{self, PlaceHoldRequest, WatchRequest};
use serde_json::json;
use tokio::sync::watch;
use tonic::{Code, Request};

use super::fake::{OPERATOR, Served, event, grant, hold, own_user, status};
use crate::support::{CLIENTS, eventually, run};

fn place() -> PlaceHoldRequest {
    PlaceHoldRequest { subject: "everything".into(), reason: "INC-42".into(), seconds: 0 }
}

#[test]
fn every_method_asks_in_the_name_of_the_user() {
    let served = Served::unix();
    let mut client = served.client();
    let seen = |method: &str, request: serde_json::Value| {
        let seen = served.fake.last();
        assert_eq!((seen.method, &seen.request), (method, &request));
        assert_eq!((seen.peer.spiffe_id.as_str(), seen.peer.certificate_pem_url_encoded.as_str()), (OPERATOR, ""));
    };
    let placed = run(client.place_hold(PlaceHoldRequest { seconds: 1_800, ..place() })).unwrap().into_inner();
    assert_eq!(placed.shared, Some(true));
    assert_eq!(placed.hold.unwrap().subject, "everything");
    seen("place_hold", json!({"subject": "everything", "reason": "INC-42", "seconds": "1800"}));

    let request = proto::ReleaseHoldsRequest { hold: "everything".into(), reason: "over".into() };
    let released = run(client.release_holds(request)).unwrap().into_inner();
    assert_eq!(released.released, [hold("everything", "over", OPERATOR)]);
    seen("release_holds", json!({"hold": "everything", "reason": "over"}));

    let request = proto::IssueGrantRequest { template: "t".into(), calls: Some(0), seconds: 7, ..Default::default() };
    let issued = run(client.issue_grant(request)).unwrap().into_inner();
    assert_eq!(issued.grant.unwrap().calls, Some(0));
    seen("issue_grant", json!({"template": "t", "calls": "0", "seconds": "7"}));

    let request = proto::RevokeGrantsRequest { task: "patch-bug".into(), ..Default::default() };
    assert_eq!(run(client.revoke_grants(request)).unwrap().into_inner().revoked, [grant()]);
    seen("revoke_grants", json!({"task": "patch-bug"}));

    let request = proto::CompleteTaskRequest { task: "patch-bug".into() };
    assert!(run(client.complete_task(request)).unwrap().into_inner().revoked.is_empty());
    seen("complete_task", json!({"task": "patch-bug"}));

    let request = proto::GetStatusRequest { agent: "a".into(), task: String::new() };
    assert_eq!(run(client.get_status(request)).unwrap().into_inner(), status());
    seen("get_status", json!({"agent": "a"}));
}

#[test]
fn metadata_arrives_as_it_is_and_says_the_span() {
    let served = Served::unix();
    let mut client = served.client();
    let mut ask = |values: &[(&'static str, &'static str)]| {
        let mut request = Request::new(place());
        for (name, value) in values {
            request.metadata_mut().append(*name, value.parse().unwrap());
        }
        request.metadata_mut().insert_bin("x-bin", tonic::metadata::MetadataValue::from_bytes(b"\0"));
        run(client.place_hold(request)).unwrap();
        served.fake.last()
    };
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let seen = ask(&[("authorization", "Bearer a"), ("x-chain", "b"), ("x-chain", "c"), ("traceparent", parent)]);
    let values = |name: &str| {
        let named = seen.headers.iter().filter(|(found, _)| found == name);
        named.map(|(_, value)| value.as_str()).collect::<Vec<_>>()
    };
    assert_eq!((values("authorization"), values("x-chain")), (vec!["Bearer a"], vec!["b", "c"]));
    assert!(values("x-bin").is_empty());
    assert_eq!(seen.traceparent.unwrap().trace_id[0], 0x0a);
    assert!(ask(&[("traceparent", parent), ("traceparent", parent)]).traceparent.is_none(), "two are none");
    assert!(ask(&[]).traceparent.is_none());
}

#[test]
fn a_user_that_is_nobody_is_told_so() {
    let served = Served::unix_for(&BTreeMap::from([(own_user() + 1, OPERATOR.to_owned())]));
    let mut client = served.client();
    let expected = format!("user {} of this machine is not among `unix_users` of `[control]`", own_user());
    let refused = run(client.place_hold(place())).unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::Unauthenticated, expected.as_str()));
    let refused = run(client.watch(WatchRequest {})).unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::Unauthenticated, expected.as_str()));
    assert!(served.fake.seen().is_empty());
}

#[test]
fn refusals_are_statuses_with_what_is_known_of_them() {
    let served = Served::unix();
    let mut client = served.client();
    for (refusal, metadata) in [
        (Refusal::new(Code::NotFound, "there is no such hold"), [None; 3]),
        (
            Refusal {
                reason: Some("policy_forbids"),
                decision_id: Some("0192".into()),
                ..Refusal::new(Code::PermissionDenied, "not for „you“\nat night")
            },
            [Some("policy_forbids"), Some("0192"), None],
        ),
        (Refusal { retry_after: Some(7), ..Refusal::new(Code::Unavailable, "later") }, [None, None, Some("7")]),
        (Refusal::new(Code::InvalidArgument, ""), [None; 3]),
    ] {
        served.fake.refuses(refusal.clone());
        let statuses = [
            run(client.place_hold(place())).unwrap_err(),
            run(client.get_status(proto::GetStatusRequest::default())).unwrap_err(),
            run(client.watch(WatchRequest {})).unwrap_err(),
        ];
        for status in statuses {
            assert_eq!((status.code(), status.message()), (refusal.code, refusal.message.as_str()));
            let said = ["palisade-reason", "palisade-decision-id", "retry-after"]
                .map(|name| status.metadata().get(name).map(|value| value.to_str().unwrap()));
            assert_eq!(said, metadata);
        }
    }
}

#[test]
fn a_panic_is_an_answer_and_ends_nothing_else() {
    let served = Served::unix();
    let mut client = served.client();
    served.fake.panics.store(true, Ordering::SeqCst);
    assert_eq!(run(client.place_hold(place())).unwrap_err().code(), Code::Internal);
    served.fake.panics.store(false, Ordering::SeqCst);
    run(client.place_hold(place())).unwrap();
}

#[test]
fn what_was_begun_goes_on_when_whoever_asked_goes_away() {
    let mut served = Served::unix();
    let (open, gate) = watch::channel(false);
    *served.fake.gate.lock().unwrap() = Some(gate);
    let mut client = served.client();
    let asking = CLIENTS.spawn(async move { client.place_hold(place()).await });
    eventually("the call", || served.fake.seen().first().cloned());
    asking.abort();
    assert!(run(asking).unwrap_err().is_cancelled());
    // Serving ends no sooner than it.
    served.stop();
    open.send_replace(true);
    served.ended();
    assert_eq!(served.fake.finished.load(Ordering::SeqCst), 1);
}

#[test]
fn a_watch_tells_each_change_until_serving_ends() {
    let mut served = Served::unix();
    let mut client = served.client();
    let mut events = run(client.watch(WatchRequest {})).unwrap().into_inner();
    let mut next = || run(events.message());
    assert_eq!(next().unwrap(), Some(event(What::Status(status()))));
    for what in [What::Held(hold("everything", "x", OPERATOR)), What::Ended(grant()), What::Store(3)] {
        served.fake.tell(what.clone());
        assert_eq!(next().unwrap(), Some(event(what)));
    }
    served.stop();
    let ended = next().unwrap_err();
    assert_eq!((ended.code(), ended.message()), (Code::Unavailable, "this server ends; watch again, or another one"));
    served.ended();
}

#[test]
fn a_watch_ends_as_it_is_told() {
    let served = Served::unix();
    let mut client = served.client();
    let mut watching = |end: &dyn Fn()| {
        let mut events = run(client.watch(WatchRequest {})).unwrap().into_inner();
        assert!(run(events.message()).unwrap().is_some());
        end();
        run(events.message())
    };
    let refused = watching(&|| {
        let refusal = Refusal { reason: Some("policy_forbids"), ..Refusal::new(Code::PermissionDenied, "no longer") };
        served.fake.watchers.lock().unwrap().pop().unwrap().try_send(Err(refusal)).unwrap();
    });
    let refused = refused.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, "no longer"));
    assert_eq!(refused.metadata().get("palisade-reason").unwrap(), "policy_forbids");
    assert_eq!(watching(&|| served.fake.watchers.lock().unwrap().clear()).unwrap(), None);
}
