//! What is being asked: reading a request once, strictly, into calls that policies can be asked about.
//!
//! The reader is chosen by the target's configured protocol, never guessed from the bytes. A request
//! that cannot be read without doubt is [`Unreadable`], with the reason; there is no "unknown" call.

pub mod a2a;
pub mod canonical;
pub mod content;
pub mod grpc;
pub mod http;
pub mod json;
pub mod json_rpc;
pub mod mcp;
pub mod origin;
pub mod uri;

use std::borrow::Cow;

use super::limits::Limits;
use super::reason::Reason;
use super::request::{HttpRequest, Request};
use super::state::hold::is_task;
use super::step_up::Round;
use super::target::{Binding, Protocol, Target};
use super::traceparent::TraceParent;
use content::Content;
use json::Json;
use json_rpc::Reply;
use mcp::Mirror;

/// One thing to be decided. A request is one call, but for a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call<'a> {
    /// The Cedar action id; for a tool call, of the tool's own action.
    pub action: Cow<'a, str>,
    /// What it acts on, below the server.
    pub resource: Resource<'a>,
    /// The protocol's own method, where it has one.
    pub method: Option<Cow<'a, str>>,
    /// Arguments of a tool call.
    pub arguments: Option<Json<'a>>,
    /// Protocol facts for the context.
    pub facts: ProtocolFacts<'a>,
    /// The JSON-RPC id, as JSON text.
    pub id: Option<String>,
    /// What the client says of multi-round-trip requests.
    pub round: Round<'a>,
    /// The span that the client says it is in, in the message itself.
    pub trace: Option<TraceParent>,
    /// A task that the message names beside what it is about.
    pub related: Option<String>,
}

/// The resource of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource<'a> {
    /// The target itself.
    Server,
    /// A tool of an MCP server, by its name there.
    Tool(Cow<'a, str>),
    /// An HTTP or gRPC route, by its canonical path.
    Endpoint(Cow<'a, str>),
}

/// Facts that only some protocols have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ProtocolFacts<'a> {
    /// None.
    #[default]
    None,
    /// `context.mcp`
    Mcp {
        /// `MCP-Protocol-Version`, where it was sent; of an `initialize` what it proposes.
        protocol_version: Option<Cow<'a, str>>,
        /// The session, where the request names one.
        session: Option<Cow<'a, str>>,
        /// What the message is about.
        about: mcp::About<'a>,
    },
    /// `context.a2a`
    A2a(Box<a2a::Facts<'a>>),
    /// Of `context.connection` what is not in the request as it stands.
    Opaque {
        /// The name in the TLS handshake, in lower case.
        sni: Option<String>,
    },
}

/// A request, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading<'a> {
    /// The calls; never empty.
    pub calls: Vec<Call<'a>>,
    /// How an answer has to be addressed.
    pub reply: Reply,
    /// The body.
    pub body: Content<'a>,
    /// Canonical authority, lower case, without port; empty for a TCP check.
    pub host: String,
    /// Canonical path, without query; empty for a TCP check.
    pub path: &'a str,
    /// The task that the request says it is for, in the header `x-palisade-task`.
    pub task: Option<&'a str>,
}

/// A request that could not be read, and how its refusal has to be addressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Why.
    pub reason: Reason,
    /// Where, for the operator: a header, or a path into the body, and never a value.
    pub detail: Option<Cow<'static, str>>,
    /// How the denial is addressed, as far as that could be read.
    pub reply: Reply,
    /// The protocol's revision that was asked for, if it is one that nobody knows here.
    pub requested: Option<Box<str>>,
}

impl Unreadable {
    /// Unreadable for what stands at a place.
    pub fn because(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { detail: Some(detail.into()), ..reason.into() }
    }

    /// The same, addressed.
    #[must_use]
    pub fn to(self, reply: Reply) -> Self {
        Self { reply, ..self }
    }
}

impl From<Reason> for Unreadable {
    fn from(reason: Reason) -> Self {
        Self { reason, detail: None, reply: Reply::None, requested: None }
    }
}

/// Which arguments of a tool headers mirror, by the tool's name; `None` if nobody said.
pub type Mirroring<'c> = dyn Fn(&str) -> Option<&'c [Mirror]> + 'c;

/// Reads `request` as the target's protocol says. `mirrors` is what is registered of its tools.
///
/// # Errors
/// [`Unreadable`] with the first rule that the request breaks.
pub fn read<'a, 'c>(
    request: &'a Request<'a>,
    target: &'c Target,
    limits: &'c Limits,
    mirrors: &'c Mirroring<'c>,
) -> Result<Reading<'a>, Unreadable> {
    if target.protocol == Protocol::Opaque {
        return read_connection(request);
    }
    let Some(http) = &request.http else { return Err(Reason::CheckNotHttp.into()) };
    http.check_hygiene(limits)?;
    let host = http::canonical_host(&http.host).ok_or(Reason::HostMalformed)?;
    let path = http::canonical_path(&http.path)?;
    let body = Content::of(http, limits);
    let is_metadata = target.has_metadata_at(path);
    let whole = if target.protocol.has_messages() && !is_metadata { body.whole()? } else { None };
    let place = Place { http, body: whole, limits, target, mirrors };
    let (calls, reply) = match target.protocol {
        _ if is_metadata => (vec![http::read_metadata(http, &body, path)?], Reply::Http),
        Protocol::Mcp => mcp::read(&place, path)?,
        Protocol::A2a => a2a::read(&place, path)?,
        Protocol::Http => (vec![http::read(&http.method, path)?], Reply::Http),
        Protocol::Grpc => (vec![grpc::read(http, path)?], reply(target, Some(http))),
        Protocol::Opaque => return Err(Reason::InternalError.into()),
    };
    Ok(Reading { calls, reply, body, host, path, task: stated_task(http)? })
}

/// The header that says for which task a request is.
pub const TASK: &str = "x-palisade-task";

/// The task that a request says it is for.
fn stated_task<'a>(http: &'a HttpRequest<'a>) -> Result<Option<&'a str>, Unreadable> {
    match http.headers.single(TASK) {
        Ok(None) => Ok(None),
        Ok(Some(task)) if is_task(task) => Ok(Some(task)),
        Ok(Some(_)) => Err(Unreadable::because(Reason::HeaderMalformed, TASK)),
        Err(_) => Err(Unreadable::because(Reason::HeaderDuplicate, TASK)),
    }
}

/// What is not read is a connection, and to where. Of an HTTP request in it host and path are as sent: nothing vouches for
/// them.
fn read_connection<'a>(request: &'a Request<'a>) -> Result<Reading<'a>, Unreadable> {
    let facts = ProtocolFacts::Opaque { sni: request.connection.server_name()? };
    let call = Call { facts, ..Call::plain("opaque:connect", Resource::Server) };
    let http = request.http.as_ref();
    let host = http.map_or_else(String::new, |http| http.host.clone().into_owned());
    let path = http.map_or("", |http| &http.path);
    let task = http.map(stated_task).transpose()?.flatten();
    Ok(Reading { calls: vec![call], reply: Reply::Http, body: Content::default(), host, path, task })
}

/// How a denial is written for a target, before anything of the request was read.
#[must_use]
pub fn reply(target: &Target, http: Option<&HttpRequest<'_>>) -> Reply {
    let waits_for_status = http.is_some_and(grpc::wants_status);
    match target.protocol {
        Protocol::Grpc if waits_for_status => Reply::Grpc,
        Protocol::A2a if waits_for_status && target.speaks(Binding::Grpc) => Reply::Grpc,
        Protocol::A2a => {
            let path = http.and_then(|http| http::canonical_path(&http.path).ok());
            a2a::reply_at(target, path)
        }
        Protocol::Grpc => Reply::Http,
        // A stream, or the end of a session: there is no message to answer.
        Protocol::Mcp if http.is_some_and(|http| http.method != "POST") => Reply::Http,
        Protocol::Mcp | Protocol::Http | Protocol::Opaque => Reply::None,
    }
}

/// Every action that a call to a target of this protocol can turn out to be, tools apart.
pub fn actions(protocol: Protocol) -> impl Iterator<Item = &'static str> {
    let actions: Vec<&'static str> = match protocol {
        Protocol::Mcp => mcp::actions().collect(),
        Protocol::A2a => a2a::actions().collect(),
        Protocol::Http => http::METHODS.to_vec(),
        Protocol::Grpc => vec!["grpc:invoke"],
        Protocol::Opaque => vec!["opaque:connect"],
    };
    actions.into_iter()
}

/// What the protocol readers work on.
pub struct Place<'a, 'c> {
    /// The HTTP request.
    pub http: &'a HttpRequest<'a>,
    /// Its whole body, where the protocol has its messages in it.
    pub body: Option<&'a [u8]>,
    /// Limits.
    pub limits: &'c Limits,
    /// The target.
    pub target: &'c Target,
    /// What its tools ask to be mirrored.
    pub mirrors: &'c Mirroring<'c>,
}

impl<'a> Call<'a> {
    /// A call without arguments, facts or id.
    #[must_use]
    pub fn plain(action: impl Into<Cow<'a, str>>, resource: Resource<'a>) -> Self {
        Self {
            action: action.into(),
            resource,
            method: None,
            arguments: None,
            facts: ProtocolFacts::None,
            id: None,
            round: Round::default(),
            trace: None,
            related: None,
        }
    }
}
