//! What is being asked: reading a request once, strictly, into calls that policies can be asked about.
//!
//! The reader is chosen by the target's configured protocol, never guessed from the bytes. A request
//! that cannot be read without doubt is [`Unreadable`], with the reason; there is no "unknown" call.

pub mod a2a;
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
use super::step_up::Round;
use super::target::{Protocol, Target};
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
        /// `MCP-Protocol-Version`, where it was sent.
        protocol_version: Option<String>,
        /// `params.name`
        name: Option<Cow<'a, str>>,
        /// `params.uri`
        uri: Option<Cow<'a, str>>,
    },
    /// `context.a2a`
    A2a {
        /// The task the message belongs to.
        task: Option<Cow<'a, str>>,
        /// The conversation context the message belongs to.
        context: Option<Cow<'a, str>>,
    },
}

/// A request, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading<'a> {
    /// The calls; never empty.
    pub calls: Vec<Call<'a>>,
    /// How an answer has to be addressed.
    pub reply: Reply,
    /// The whole body, where there is one.
    pub body: Option<&'a [u8]>,
    /// Canonical authority, lower case, without port; empty for a TCP check.
    pub host: String,
    /// Canonical path, without query; empty for a TCP check.
    pub path: Cow<'a, str>,
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
        Self { reason, detail: None, reply: Reply::None }
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
    let Some(http) = &request.http else {
        return if target.protocol == Protocol::Opaque {
            Ok(Reading::of(Call::plain("opaque:connect", Resource::Server), None, String::new(), Cow::Borrowed("")))
        } else {
            Err(Reason::CheckNotHttp.into())
        };
    };
    if target.protocol == Protocol::Opaque {
        // Nothing is read, so nothing is vouched for: host and path are as sent.
        let call = Call::plain("opaque:connect", Resource::Server);
        return Ok(Reading::of(call, None, http.host.clone().into_owned(), Cow::Borrowed(&http.path)));
    }
    http.check_hygiene(limits)?;
    let host = http::canonical_host(&http.host).ok_or(Reason::HostMalformed)?;
    let path = http::canonical_path(&http.path)?;
    let body = body(http, target, limits)?;
    let place = Place { http, body, limits, target, mirrors };
    let (calls, reply) = match target.protocol {
        _ if target.has_metadata_at(&path) => (vec![http::read_metadata(http, path.clone())?], Reply::Http),
        Protocol::Mcp if !target.takes_messages_at(&path) => return Err(Reason::PathUnexpected.into()),
        Protocol::Mcp => mcp::read(&place)?,
        Protocol::A2a => a2a::read(&place, &path)?,
        Protocol::Http => (vec![http::read(&http.method, path.clone())?], Reply::Http),
        Protocol::Grpc => (vec![grpc::read(http, path.clone())?], Reply::Http),
        Protocol::Opaque => return Err(Reason::InternalError.into()),
    };
    Ok(Reading { calls, reply, body, host, path })
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
    /// Its whole body.
    pub body: Option<&'a [u8]>,
    /// Limits.
    pub limits: &'c Limits,
    /// The target.
    pub target: &'c Target,
    /// What its tools ask to be mirrored.
    pub mirrors: &'c Mirroring<'c>,
}

impl<'a> Reading<'a> {
    fn of(call: Call<'a>, body: Option<&'a [u8]>, host: String, path: Cow<'a, str>) -> Self {
        Self { calls: vec![call], reply: Reply::Http, body, host, path }
    }
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
        }
    }
}

/// The body as the protocol needs it. HTTP and gRPC policies decide on method and path: a body that the
/// proxy did not buffer is absent there, but one that it cut or that is compressed is still unreadable.
fn body<'a>(http: &'a HttpRequest<'a>, target: &Target, limits: &Limits) -> Result<Option<&'a [u8]>, Reason> {
    match http.whole_body(limits) {
        Err(Reason::BodyMissing) if matches!(target.protocol, Protocol::Http | Protocol::Grpc) => Ok(None),
        outcome => outcome,
    }
}
