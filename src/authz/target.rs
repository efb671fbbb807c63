//! Targets: the upstreams that calls go to, as configured in the bundle.

use std::sync::Arc;

use serde::Deserialize;

use super::call::http::{canonical_host, canonical_path, segment_prefix};
use super::call::origin::Origin;
use super::reason::Reason;
use super::request::Request;

/// The protocol spoken to a target; it decides how a call is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Model Context Protocol over HTTP.
    Mcp,
    /// Agent2Agent protocol, in the target's bindings.
    A2a,
    /// Plain HTTP.
    Http,
    /// gRPC, by method.
    Grpc,
    /// Nothing is read: the decision rests on caller and target alone.
    Opaque,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Self; 5] = [Self::Mcp, Self::A2a, Self::Http, Self::Grpc, Self::Opaque];

    /// The name used in configuration, records and metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mcp => "mcp",
            Self::A2a => "a2a",
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Opaque => "opaque",
        }
    }

    /// Whether its messages are bodies, so that each is read, whatever policies there are.
    #[must_use]
    pub const fn has_messages(self) -> bool {
        matches!(self, Self::Mcp | Self::A2a)
    }
}

/// A binding of A2A, by the name that agent cards have for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Binding {
    /// JSON-RPC 2.0 over HTTP.
    #[serde(rename = "JSONRPC")]
    JsonRpc,
    /// HTTP and JSON, "REST".
    #[serde(rename = "HTTP+JSON")]
    HttpJson,
    /// gRPC.
    #[serde(rename = "GRPC")]
    Grpc,
}

impl Binding {
    /// The name that agent cards and policies have for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::JsonRpc => "JSONRPC",
            Self::HttpJson => "HTTP+JSON",
            Self::Grpc => "GRPC",
        }
    }
}

/// How denials are written for an MCP target (its SDK clients differ in what they survive).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum McpDenial {
    /// HTTP 403 (or the reason's own status) with a JSON-RPC error that keeps the id.
    #[default]
    #[serde(rename = "http_403")]
    Http403,
    /// HTTP 200 with a JSON-RPC error: every SDK reads it as an error of this one call.
    #[serde(rename = "json_rpc_200")]
    JsonRpc200,
    /// HTTP 200 with a tool result `isError`: the text reaches the model.
    #[serde(rename = "tool_error_200")]
    ToolError200,
}

/// Whether JSON-RPC batches may pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Batches {
    /// Any batch is unreadable.
    #[default]
    Refuse,
    /// Each message is decided; one denial denies all. Only where the MCP revision has batches.
    AllOrNothing,
}

/// What becomes of calls of tools that no registry names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unregistered {
    /// They are denied before any policy is asked.
    #[default]
    Deny,
    /// Policies decide, about the action `mcp:unregistered`: nothing is known of such a tool but its name, nor of its arguments.
    Policy,
}

/// What becomes of the tokens of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenUse {
    /// They are verified, where the configuration says that they are looked for.
    #[default]
    Verify,
    /// The same, and a request without one is refused before any policy is asked, so that its client learns where to get one.
    Require,
    /// They are the target's business alone, and nobody else's proof: a service of somebody else with tokens of its own.
    Ignore,
}

/// What becomes of the header with the tokens of the agents before the caller, once a call is permitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChainUse {
    /// It ends at the proxy: other agents' tokens are evidence for the decision, and no server's business.
    #[default]
    Remove,
    /// The target gets it: an agent that hands the user's authority on, and has to show these tokens to the next one.
    Pass,
}

/// The URL of protected-resource metadata (RFC 9728, section 3).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ResourceMetadata {
    url: String,
    path_at: usize,
}

/// Where such metadata is (RFC 9728, section 3.1), before the path of the resource.
const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

impl ResourceMetadata {
    /// The URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &str {
        self.url.get(self.path_at..).unwrap_or_default()
    }
}

impl TryFrom<String> for ResourceMetadata {
    type Error = String;

    fn try_from(url: String) -> Result<Self, String> {
        // In a mesh an agent may well say `http`, and its proxy speaks TLS.
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        let at = rest.and_then(|rest| rest.find('/').map(|at| (at, url.len() - rest.len() + at)));
        let path_at = at.filter(|(slash, path_at)| {
            let host = rest.and_then(|rest| rest.get(..*slash)).unwrap_or_default();
            let path = url.get(*path_at..).unwrap_or_default();
            canonical_host(host).is_some()
                && segment_prefix(WELL_KNOWN, path)
                && canonical_path(path).as_deref() == Ok(path)
                && !path.contains('?')
        });
        match path_at {
            Some((_, path_at)) => Ok(Self { url, path_at }),
            None => Err(format!("expected a URL whose path begins with {WELL_KNOWN}, without a query")),
        }
    }
}

/// One target of `targets.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Name; the Cedar entity is `Server::"name"`.
    pub name: Arc<str>,
    /// Protocol.
    pub protocol: Protocol,
    /// `Server.classification`.
    pub classification: Option<String>,
    /// `ServerGroup` parents of the server.
    #[serde(default)]
    pub groups: Vec<String>,
    /// How denials are written, for JSON-RPC protocols; absent is the default.
    #[serde(default)]
    pub denial: Option<McpDenial>,
    /// Whether batches may pass, for MCP; absent is the default.
    #[serde(default)]
    pub batches: Option<Batches>,
    /// What becomes of calls of tools that no registry names, for MCP; absent is the default.
    #[serde(default)]
    pub unregistered_tools: Option<Unregistered>,
    /// What becomes of tokens.
    #[serde(default)]
    pub tokens: TokenUse,
    /// What becomes of the tokens of the agents before the caller.
    #[serde(default)]
    pub chain: ChainUse,
    /// What the target itself is called in the `aud` of tokens (RFC 8707): one of them has to be there, beside what the issuer's
    /// rules ask for. Empty: those rules suffice.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// Where a user logs in anew or more strongly, for MCP clients that can open a URL when they are asked to; without it
    /// they get the HTTP challenge.
    #[serde(default)]
    pub step_up_url: Option<String>,
    /// Where the target says which issuers and scopes it takes (RFC 9728).
    #[serde(default)]
    pub resource_metadata: Option<ResourceMetadata>,
    /// Before its paths, what its clients call it: for the `htu` of DPoP proofs. Without one it takes no proofs.
    #[serde(default)]
    pub origins: Vec<Origin>,
    /// The web pages whose scripts may call it, for MCP; see [`Origin::admit`].
    #[serde(default)]
    pub allowed_origins: Vec<Origin>,
    /// The exact paths to which messages are posted, for MCP and A2A; see [`Target::takes_messages_at`].
    #[serde(default)]
    pub message_paths: Vec<String>,
    /// The exact paths at which a GET opens the server's stream, for MCP servers whose two endpoints are apart (2024-11-05);
    /// see [`Target::streams_at`].
    #[serde(default)]
    pub stream_paths: Vec<String>,
    /// In which bindings an A2A target takes calls; absent is JSON-RPC alone.
    #[serde(default)]
    pub bindings: Option<Vec<Binding>>,
    /// What stands before the paths of the binding HTTP+JSON; absent is `match.path_prefix`, or nothing.
    #[serde(default)]
    pub rest_prefix: Option<String>,
    /// Which checks are for this target.
    #[serde(rename = "match")]
    pub matches: Match,
}

impl Target {
    /// Whether its protected-resource metadata is at this canonical path.
    #[must_use]
    pub fn has_metadata_at(&self, path: &str) -> bool {
        self.resource_metadata.as_ref().is_some_and(|metadata| metadata.path() == path)
    }

    /// Whether an A2A target takes calls in this binding.
    #[must_use]
    pub fn speaks(&self, binding: Binding) -> bool {
        self.bindings.as_deref().unwrap_or(&[Binding::JsonRpc]).contains(&binding)
    }

    /// The rest of a canonical path behind the prefix of the binding HTTP+JSON, with its slash.
    #[must_use]
    pub fn below_rest_prefix<'p>(&self, path: &'p str) -> Option<&'p str> {
        let prefix = self.rest_prefix.as_deref().or(self.matches.path_prefix.as_deref()).unwrap_or_default();
        path.strip_prefix(prefix.trim_end_matches('/')).filter(|rest| rest.starts_with('/'))
    }

    /// Whether JSON-RPC messages are posted to this canonical path: one of `message_paths`; where none are given,
    /// `match.path_prefix` itself, or else `/mcp` for MCP and `/` for A2A.
    ///
    /// At another path, the server may offer another binding (REST), which takes its orders from the path and
    /// ignores the message that was decided on.
    #[must_use]
    pub fn takes_messages_at(&self, path: &str) -> bool {
        self.own_message_paths().any(|known| known == path)
    }

    /// The paths to which messages are posted, see [`Target::takes_messages_at`].
    pub fn own_message_paths(&self) -> impl Iterator<Item = &str> {
        let usual = if self.protocol == Protocol::A2a { "/" } else { "/mcp" };
        let usual = self.matches.path_prefix.as_deref().unwrap_or(usual);
        let is_usual = self.message_paths.is_empty();
        self.message_paths.iter().map(String::as_str).chain(is_usual.then_some(usual))
    }

    /// Whether a GET of this canonical path opens the server's stream: one of `stream_paths`, or where none are given any
    /// to which messages are posted.
    #[must_use]
    pub fn streams_at(&self, path: &str) -> bool {
        if self.stream_paths.is_empty() {
            return self.takes_messages_at(path);
        }
        self.stream_paths.iter().any(|known| known == path)
    }
}

/// Conditions on a check; all that are given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// `destination.principal`, whole.
    pub destination_principal: Option<String>,
    /// The authority without its port, lower case. The client chooses it: safe only where the proxy
    /// routes by it as well.
    pub authority: Option<String>,
    /// `context_extensions["palisade.target"]`, set by the proxy's configuration.
    pub context_extension: Option<String>,
    /// The path or a prefix of it that ends at a segment.
    pub path_prefix: Option<String>,
    /// The name that the client asked for when it began TLS (RFC 6066, section 3), lower case. The client chooses it: safe only
    /// where the proxy routes by it as well.
    pub sni: Option<String>,
    /// The port of the proxy at which the connection arrived.
    pub port: Option<u16>,
}

impl Match {
    /// Whether any condition is given; a target without one would take every call.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.destination_principal.is_none()
            && self.authority.is_none()
            && self.context_extension.is_none()
            && self.path_prefix.is_none()
            && self.sni.is_none()
            && self.port.is_none()
    }

    /// Whether the conditions hold that the client has no part in.
    fn holds_but_for_names_and_path(&self, request: &Request<'_>) -> bool {
        self.destination_principal.as_ref().is_none_or(|want| request.destination_principal == *want)
            && self.context_extension.as_ref().is_none_or(|want| request.target_extension.as_deref() == Some(want))
            && self.port.is_none_or(|want| request.connection.destination.is_some_and(|it| it.port() == want))
    }

    fn sni_holds(&self, request: &Request<'_>) -> Result<bool, Reason> {
        let Some(want) = &self.sni else { return Ok(true) };
        Ok(request.connection.server_name()?.is_some_and(|name| name == *want))
    }

    fn host_holds(&self, request: &Request<'_>) -> Result<bool, Reason> {
        let (Some(want), Some(http)) = (&self.authority, &request.http) else { return Ok(self.authority.is_none()) };
        canonical_host(&http.host).map(|host| host == *want).ok_or(Reason::HostMalformed)
    }
}

/// The first target, in file order, whose conditions all hold.
///
/// # Errors
/// [`Reason::PathAmbiguous`], [`Reason::HostMalformed`] or [`Reason::SniMalformed`] if that depends on how path, host or SNI
/// are read: the target that the request is taken for must be the one it reaches.
pub fn find<'t>(targets: &'t [Arc<Target>], request: &Request<'_>) -> Result<Option<&'t Arc<Target>>, Reason> {
    for target in targets.iter().filter(|target| target.matches.holds_but_for_names_and_path(request)) {
        if !target.matches.sni_holds(request)? || !target.matches.host_holds(request)? {
            continue;
        }
        let Some(prefix) = &target.matches.path_prefix else { return Ok(Some(target)) };
        let Some(http) = &request.http else { continue };
        let path = canonical_path(&http.path)?;
        // A host has one well-known path for each of its resources, which is not below them (RFC 9728, section 3.1).
        if segment_prefix(prefix, path) || target.has_metadata_at(path) {
            return Ok(Some(target));
        }
    }
    Ok(None)
}
