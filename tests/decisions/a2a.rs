//! A2A: one operation is the same in every binding and version, and its protobuf is read as others read it.

use std::collections::BTreeMap;

use palisade::authz::call::a2a::Parameters;
use palisade::authz::call::{self, Call, ProtocolFacts};
use palisade::authz::limits::Limits;
use palisade::authz::reason::Reason;
use palisade::authz::request::{Body, Headers, HttpRequest, Request};
use palisade::authz::target::{Protocol, Target};
use palisade::authz::{self, Active};
use proptest::prelude::*;

use crate::support::{self, Bundles};

fn parameters<'c>(call: &'c Call<'_>) -> &'c Parameters<'c> {
    match &call.facts {
        ProtocolFacts::A2a(facts) => &facts.parameters,
        other => panic!("{other:?}"),
    }
}

/// The control cases of each operation are written in every binding and version: they come to the same.
#[test]
fn an_operation_is_the_same_in_every_binding_and_version() {
    let mut bundles = Bundles::default();
    let mut said: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    crate::cases::for_each(|name, bundle, identity, now, request| {
        let Some((class, action)) = name.split_once("/control-") else { return };
        let action = action.trim_end_matches("-0.3");
        if !class.starts_with("a2a-") || !call::actions(Protocol::A2a).any(|known| known == action) {
            return;
        }
        let Active::Loaded(bundle) = bundles.of(bundle) else { panic!("{name}") };
        let facts = support::facts(now);
        let settings = support::settings();
        let (_, _, reading) = authz::read(bundle, &settings, identity, request, &facts).unwrap();
        let [call] = &reading.calls[..] else { panic!("{name}") };
        let mut parameters = parameters(call).clone();
        // The protobuf messages of 0.3 have no references.
        if action.starts_with("Send") && class == "a2a-grpc" && name.ends_with("-0.3") {
            parameters.references.push("mine-too".into());
        }
        let ProtocolFacts::A2a(facts) = &call.facts else { panic!("{name}") };
        assert_eq!(facts.generation.unwrap().as_str(), if name.ends_with("-0.3") { "0.3" } else { "1.0" }, "{name}");
        assert_eq!(
            facts.binding.as_str().replace([' ', '+'], "-").to_lowercase(),
            match class {
                "a2a-json-rpc" => "jsonrpc",
                "a2a-rest" => "http-json",
                _ => "grpc",
            }
        );
        let same = format!("{} {parameters:?} {:?} {:?}", call.action, facts.extensions, facts.card);
        said.entry(action.to_owned()).or_default().push((name.to_owned(), same));
    });
    assert_eq!(said.len(), 11);
    for (action, all) in &said {
        // gRPC of 0.3 has no ListTasks.
        assert_eq!(all.len(), if action == "ListTasks" { 5 } else { 6 }, "{action}");
        for (name, same) in all {
            assert_eq!(*same, all[0].1, "{name}, {}", all[0].0);
        }
    }
}

/// One forbid of one operation denies it in each of them, for that reason, and denies nothing else.
#[test]
fn what_is_forbidden_is_so_in_every_binding_and_version() {
    const FORBID: &str =
        "@id(\"none\") @reason(\"No messages\") forbid (principal, action == Action::\"SendMessage\", resource);";
    let mut files = support::bundle_files("agents");
    files.insert("none.cedar".into(), FORBID.into());
    let forbidding = Active::Loaded(Box::new(support::load(&files).unwrap()));
    let (mut denied, mut others) = (0, 0);
    crate::cases::for_each(|name, bundle, identity, now, request| {
        let Some((class, action)) = name.split_once("/control-") else { return };
        let action = action.trim_end_matches("-0.3");
        if !class.starts_with("a2a-") || !call::actions(Protocol::A2a).any(|known| known == action) {
            return;
        }
        assert_eq!(bundle, Some("agents"), "{name}");
        let decision = authz::authorize(&forbidding, &support::settings(), identity, request, &support::facts(now));
        let is_forbidden = action == "SendMessage";
        assert_eq!(decision.reason(), is_forbidden.then_some(Reason::PolicyForbids), "{name}");
        *(if is_forbidden { &mut denied } else { &mut others }) += 1;
    });
    // Two versions in three bindings; of the ten other operations, ListTasks is not in gRPC of 0.3.
    assert_eq!((denied, others), (6, 59));
}

#[derive(Clone, PartialEq, prost::Message)]
struct Webhook {
    #[prost(string, tag = "1")]
    tenant: String,
    #[prost(string, tag = "3")]
    task: String,
    #[prost(string, tag = "4")]
    url: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Configuration {
    #[prost(message, optional, tag = "2")]
    webhook: Option<Webhook>,
    #[prost(int32, optional, tag = "3")]
    history: Option<i32>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Message {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    context: String,
    #[prost(string, tag = "3")]
    task: String,
    #[prost(int32, tag = "4")]
    role: i32,
    #[prost(bytes = "vec", repeated, tag = "5")]
    parts: Vec<Vec<u8>>,
    #[prost(string, repeated, tag = "7")]
    extensions: Vec<String>,
    #[prost(string, repeated, tag = "8")]
    references: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Send {
    #[prost(string, tag = "1")]
    tenant: String,
    #[prost(message, optional, tag = "2")]
    message: Option<Message>,
    #[prost(message, optional, tag = "3")]
    configuration: Option<Configuration>,
}

fn sent() -> impl Strategy<Value = Send> {
    let text = || "[a-z]{0,3}";
    let webhook = (text(), text()).prop_map(|(tenant, task)| Webhook { tenant, task, url: "https://h/".into() });
    let configuration = (prop::option::of(webhook), prop::option::of(any::<i32>()))
        .prop_map(|(webhook, history)| Configuration { webhook, history });
    let lists = (prop::collection::vec("urn:[a-z]{1,2}", 0..3), prop::collection::vec("[a-z]{1,3}", 0..3));
    let message = (text(), text(), 0..4_i32, prop::collection::vec(any::<Vec<u8>>(), 0..2), lists).prop_map(
        |(context, task, role, parts, (extensions, references))| Message {
            id: "m".into(),
            context,
            task,
            role: role.min(1),
            parts,
            extensions,
            references,
        },
    );
    (text(), prop::option::weighted(0.9, message), prop::option::of(configuration))
        .prop_map(|(tenant, message, configuration)| Send { tenant, message, configuration })
}

fn read<T>(message: &[u8], look: impl FnOnce(&[Call<'_>]) -> T) -> Option<T> {
    let mut body = vec![0];
    body.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    body.extend_from_slice(message);
    let headers = Headers::new([("content-type", "application/grpc"), ("a2a-version", "1.0")], false);
    let request = Request {
        http: Some(HttpRequest {
            method: "POST".into(),
            path: "/lf.a2a.v1.A2AService/SendMessage".into(),
            host: "peer.example.org".into(),
            headers,
            body: Body::Raw(body.into()),
        }),
        ..Request::default()
    };
    let target: Target =
        toml::from_str("name = 'peer'\nprotocol = 'a2a'\nbindings = ['GRPC']\nmatch.authority = 'peer.example.org'")
            .unwrap();
    call::read(&request, &target, &Limits::default(), &|_| None).ok().map(|reading| look(&reading.calls))
}

/// What is read of a message is what the generated reader reads of it.
fn is_read_alike(bytes: &[u8]) -> Result<bool, TestCaseError> {
    let outcome = read(bytes, |calls| {
        let sent: Send = prost::Message::decode(bytes).expect("what is accepted is a message");
        let message = sent.message.clone().unwrap_or_default();
        let first = parameters(&calls[0]);
        let webhook = sent.configuration.and_then(|configuration| configuration.webhook);
        let said = |text: &Option<std::borrow::Cow<'_, str>>| text.as_deref().unwrap_or_default().to_owned();
        let same = said(&first.tenant) == sent.tenant
            && said(&first.task) == message.task
            && said(&first.context) == message.context
            && first.references == message.references
            && first.extensions == message.extensions
            && message.role == 1
            && calls.len() == 1 + usize::from(webhook.is_some())
            && calls.get(1).is_none_or(|call| said(&parameters(call).webhook) == webhook.unwrap_or_default().url);
        (same, format!("{calls:?}\n{sent:?}", sent = message))
    });
    match outcome {
        None => Ok(false),
        Some((same, told)) => {
            prop_assert!(same, "{}", told);
            Ok(true)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4096) })]

    #[test]
    fn messages_are_read_as_the_generated_types_read_them(
        sent in sent(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 0..3),
    ) {
        let mut bytes = prost::Message::encode_to_vec(&sent);
        let is_right = changes.is_empty()
            && sent.message.as_ref().is_some_and(|message| message.role == 1)
            && sent.configuration.as_ref().and_then(|all| all.webhook.as_ref()).is_none();
        for (at, byte, kind) in changes {
            let at = at.index(bytes.len() + 1);
            match kind {
                0 => bytes.insert(at, byte),
                1 if at < bytes.len() => bytes[at] = byte,
                _ => bytes.truncate(at),
            }
        }
        let accepted = is_read_alike(&bytes)?;
        prop_assert!(accepted || !is_right, "{:?}", sent);
    }

    #[test]
    fn any_bytes_are_read_alike_or_refused(bytes in any::<Vec<u8>>()) {
        is_read_alike(&bytes)?;
    }
}
