//! Agent2Agent protocol, 0.3 and 1.0, over JSON-RPC, HTTP+JSON and gRPC: an operation is one action, whatever it is called
//! and however it is sent. The other agent is the resource.
//!
//! Which binding a request is in its path says, within what the target is configured to have. Each reader comes to the
//! same form ([`Asked`]), and the rules are about that.

mod grpc;
mod messages;
mod operations;
mod parameters;
mod query;
mod rest;
mod service;

use std::borrow::Cow;

use super::json::Json;
use super::json_rpc::{self, Message, Reply};
use super::{Call, Place, ProtocolFacts, Resource, Unreadable};
use crate::authz::call::http::segment_prefix;
use crate::authz::reason::Reason;
use crate::authz::request::HttpRequest;
use crate::authz::target::{Binding, Protocol, Target};
use operations::{OPERATIONS, Operation, Subject, by_json_rpc};
use parameters::Named;

pub use operations::Generation;
pub use parameters::Parameters;

/// Where an agent's card is published: 0.3 and later, and 0.2.
const CARD_PATHS: &[&str] = &["/.well-known/agent-card.json", "/.well-known/agent.json"];
const CARD: &str = "a2a:card";
const REGISTERS_WEBHOOK: &str = "CreateTaskPushNotificationConfig";

const MEDIA_TYPES: &[&str] = &["application/json", "application/a2a+json"];

/// An operation that is asked for, as every binding comes to it.
struct Asked<'a> {
    operation: &'static Operation,
    generation: Generation,
    /// The parameters, under the names of the generation's JSON.
    params: Json<'a>,
    /// What the path says.
    named: Named<'a>,
}

/// What a request says, for `context.a2a`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts<'a> {
    /// How it was sent.
    pub binding: Binding,
    /// The generation; of the public card, where the request states one.
    pub generation: Option<Generation>,
    /// The parameters.
    pub parameters: Parameters<'a>,
    /// Extensions that headers or message name.
    pub extensions: Vec<Cow<'a, str>>,
    /// Which card is asked for, if one is.
    pub card: Option<&'static str>,
}

/// Checks that a target's bindings can be told apart by their paths.
///
/// # Errors
/// One sentence: a binding twice, none, one that no request could reach, or a path that two of them have.
pub fn check(target: &Target) -> Result<(), String> {
    let bindings = target.bindings.as_deref().unwrap_or(&[Binding::JsonRpc]);
    if target.protocol != Protocol::A2a {
        let is_given = target.bindings.is_some() || target.rest_prefix.is_some();
        return if is_given {
            Err("`bindings` and `rest_prefix` are for targets that speak a2a".into())
        } else {
            Ok(())
        };
    }
    let is_again = |(at, binding): (usize, &Binding)| bindings.iter().skip(at + 1).any(|other| other == binding);
    if bindings.is_empty() || bindings.iter().enumerate().any(is_again) {
        return Err("`bindings` names at least one binding, and none twice".into());
    }
    if target.rest_prefix.is_some() && !target.speaks(Binding::HttpJson) {
        return Err("`rest_prefix` is for the binding HTTP+JSON, which is not among `bindings`".into());
    }
    if !target.message_paths.is_empty() && !target.speaks(Binding::JsonRpc) {
        return Err("`message_paths` are for the binding JSONRPC, which is not among `bindings`".into());
    }
    let is_below = |path: &str| target.matches.path_prefix.as_deref().is_none_or(|prefix| segment_prefix(prefix, path));
    if target.speaks(Binding::Grpc) && !Generation::ALL.iter().any(|generation| is_below(generation.service())) {
        return Err("the binding GRPC has paths of its own, and none is below `match.path_prefix`".into());
    }
    if target.rest_prefix.as_deref().is_some_and(|prefix| !is_below(prefix)) {
        return Err("`rest_prefix` is not below `match.path_prefix`".into());
    }
    let is_another = |path: &str| {
        let below = target.below_rest_prefix(path).filter(|_| target.speaks(Binding::HttpJson));
        CARD_PATHS.contains(&path)
            || below.is_some_and(|path| rest::generation_at(path).is_some())
            || (target.speaks(Binding::Grpc) && grpc::generation_at(path).is_some())
    };
    match target.own_message_paths().find(|path| target.speaks(Binding::JsonRpc) && is_another(path)) {
        Some(path) => {
            Err(format!("messages are posted to `{path}`, which is a path of another binding, or of the card"))
        }
        None => Ok(()),
    }
}

/// The binding of a canonical path at a target.
#[must_use]
pub fn binding_at(target: &Target, path: &str) -> Option<Binding> {
    let speaks = |binding| target.speaks(binding);
    if speaks(Binding::JsonRpc) && target.takes_messages_at(path) {
        Some(Binding::JsonRpc)
    } else if speaks(Binding::Grpc) && grpc::generation_at(path).is_some() {
        Some(Binding::Grpc)
    } else {
        let below = target.below_rest_prefix(path).filter(|_| speaks(Binding::HttpJson));
        below.and_then(rest::generation_at).map(|_| Binding::HttpJson)
    }
}

/// How a denial is written at a path of a target, before anything of the request was read.
#[must_use]
pub fn reply_at(target: &Target, path: Option<&str>) -> Reply {
    match path.and_then(|path| binding_at(target, path)) {
        Some(Binding::JsonRpc) => Reply::None,
        // Whoever waits for a gRPC status sends what gRPC is sent as.
        Some(Binding::Grpc) => Reply::Http,
        Some(Binding::HttpJson) => {
            let generation = path.and_then(|path| target.below_rest_prefix(path)).and_then(rest::generation_at);
            Reply::Rest(generation.unwrap_or(Generation::V1_0))
        }
        None if target.speaks(Binding::JsonRpc) => Reply::None,
        None if target.speaks(Binding::HttpJson) => Reply::Rest(Generation::V1_0),
        None => Reply::Http,
    }
}

/// Reads an A2A request: an operation, or a GET of the agent card. `path` is canonical.
///
/// # Errors
/// [`Unreadable`], addressed as far as that is known.
pub fn read<'a>(place: &Place<'a, '_>, path: &'a str) -> Result<(Vec<Call<'a>>, Reply), Unreadable> {
    let reply = super::reply(place.target, Some(place.http));
    match (binding_at(place.target, path), &*place.http.method) {
        (Some(Binding::JsonRpc), "POST") => return read_json_rpc(place),
        (Some(Binding::JsonRpc), _) => return Err(Reason::MethodUnsupported.into()),
        (Some(Binding::Grpc), _) => grpc::generation_at(path)
            .ok_or(Unreadable::from(Reason::PathUnexpected))
            .and_then(|generation| grpc::read(place, generation))
            .and_then(|asked| calls(place, Binding::Grpc, asked)),
        (Some(Binding::HttpJson), _) => place
            .target
            .below_rest_prefix(path)
            .ok_or(Unreadable::from(Reason::PathUnexpected))
            .and_then(|path| rest::read(place, path))
            .and_then(|asked| calls(place, Binding::HttpJson, asked)),
        (None, "GET") if CARD_PATHS.contains(&path) => return Ok((vec![read_card(place)?], Reply::Http)),
        (None, method) if method == "POST" || place.target.speaks(Binding::HttpJson) => {
            Err(Reason::PathUnexpected.into())
        }
        (None, _) => Err(Reason::MethodUnsupported.into()),
    }
    .map(|calls| (calls, reply.clone()))
    .map_err(|unreadable| unreadable.to(reply))
}

fn read_json_rpc<'a>(place: &Place<'a, '_>) -> Result<(Vec<Call<'a>>, Reply), Unreadable> {
    let json = json_rpc::body(place, MEDIA_TYPES)?;
    if matches!(json, Json::Array(_)) {
        return Err(Reason::BatchRefused.into());
    }
    // A2A has no notifications and no responses from the client.
    let Message::Request { id, method, params } = Message::read(json)? else {
        return Err(Unreadable::because(Reason::JsonRpcMalformed, "expected a request"));
    };
    let reply = Reply::One(id.clone());
    let asked = by_json_rpc(&method).ok_or(Unreadable::from(Reason::ProtocolMethodUnknown));
    let read = asked.and_then(|(operation, generation)| {
        let query = query::read(&place.http.path, &[service::VERSION])?;
        service::agree(service::version(place.http, &query)?, generation)?;
        let params = params.unwrap_or(Json::Object(Vec::new()));
        calls(place, Binding::JsonRpc, Asked { operation, generation, params, named: Named::default() })
    });
    match read {
        Ok(calls) => Ok((calls.into_iter().map(|call| Call { id: Some(id.clone()), ..call }).collect(), reply)),
        Err(unreadable) => Err(unreadable.to(reply)),
    }
}

/// The calls that an operation is. A message that registers a webhook along the way is two, and both have to be permitted:
/// whoever may not send results to an address of the caller's choice may not do it inside another method either.
fn calls<'a>(place: &Place<'a, '_>, binding: Binding, asked: Asked<'a>) -> Result<Vec<Call<'a>>, Unreadable> {
    let Asked { operation, generation, params, named } = asked;
    let http: &'a HttpRequest<'a> = place.http;
    let mut extensions = service::extensions(http)?;
    let parameters = parameters::read(operation, generation, &params, named)?;
    extensions.extend(parameters.extensions.iter().cloned());
    let card = (operation.subject == Subject::Card).then_some("extended");
    let facts = Facts { binding, generation: Some(generation), parameters, extensions, card };
    if operation.subject == Subject::Message && facts.parameters.webhook.is_some() {
        let parameters = Parameters { webhook: None, ..facts.parameters.clone() };
        let message = Facts { parameters, ..facts.clone() };
        return Ok(vec![called(operation.action, message), called(REGISTERS_WEBHOOK, facts)]);
    }
    Ok(vec![called(operation.action, facts)])
}

fn read_card<'a>(place: &Place<'a, '_>) -> Result<Call<'a>, Unreadable> {
    if place.body.is_some() {
        return Err(Reason::BodyUnexpected.into());
    }
    let query = query::read(&place.http.path, &[service::VERSION])?;
    let facts = Facts {
        binding: Binding::HttpJson,
        generation: service::version(place.http, &query)?,
        parameters: Parameters::default(),
        extensions: service::extensions(place.http)?,
        card: Some("public"),
    };
    Ok(called(CARD, facts))
}

fn called<'a>(action: &'static str, facts: Facts<'a>) -> Call<'a> {
    Call {
        method: Some(Cow::Borrowed(action)),
        facts: ProtocolFacts::A2a(Box::new(facts)),
        ..Call::plain(action, Resource::Server)
    }
}

/// Every action of this protocol.
pub fn actions() -> impl Iterator<Item = &'static str> {
    OPERATIONS.iter().map(|operation| operation.action).chain([CARD])
}

/// Whether this is a method of JSON-RPC, in either generation.
#[must_use]
pub fn is_method(method: &str) -> bool {
    by_json_rpc(method).is_some()
}

/// Whether `params.id` of this method is a task; elsewhere it names something else, or nothing.
#[must_use]
pub fn names_task_by_id(method: &str) -> bool {
    by_json_rpc(method).is_some_and(|(operation, generation)| parameters::is_task(operation.subject, generation))
}
