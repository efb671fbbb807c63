//! Headers that mirror parts of the body, so that a proxy can route by them (MCP 2026-07-28, "Streamable HTTP,
//! Server Validation"). A proxy and the server must never see two calls in one request.

use std::borrow::Cow;

use base64::Engine;

use super::methods::{Method, STATELESS};
use crate::authz::call::json::Json;
use crate::authz::call::{Place, Unreadable};
use crate::authz::reason::Reason;

/// Before the name of a mirrored argument.
pub const PARAM: &str = "mcp-param-";

/// Each is looked up among all arguments. A tool that mirrors so many routes by hardly any of them.
const MAX_PARAMS: usize = 32;

/// What the headers say.
pub struct Mirrors<'a> {
    method: Option<&'a str>,
    name: Option<&'a str>,
    /// Name behind [`PARAM`], in lower case, and value.
    params: Vec<(&'a str, &'a str)>,
}

/// An argument that a tool asks to be mirrored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// What the header is called behind [`PARAM`], in lower case.
    pub header: String,
    /// The names of the members that lead to the argument.
    pub path: Vec<String>,
}

impl Mirror {
    /// The argument, if it has a value: for `null` there is no header.
    fn value<'j, 'b>(&self, arguments: &'j Json<'b>) -> Option<&'j Json<'b>> {
        let value = self.path.iter().try_fold(arguments, |at, name| at.get(name))?;
        Some(value).filter(|value| **value != Json::Null)
    }
}

/// What the body says.
pub struct Mirrored<'v> {
    pub action: &'v str,
    /// `None` for a method that no revision knows.
    pub known: Option<&'static Method>,
    pub is_request: bool,
    pub params: &'v Json<'v>,
    pub arguments: Option<&'v Json<'v>>,
    /// What the tool asks to be mirrored, if its schema is registered.
    pub mirrors: Option<&'v [Mirror]>,
    pub meta_version: Option<&'v str>,
    /// Of the header.
    pub version: Option<&'v str>,
}

impl<'a> Mirrors<'a> {
    /// # Errors
    /// [`Reason::HeaderDuplicate`] for one that is there twice, [`Reason::McpHeaderMismatch`] for more than
    /// [`MAX_PARAMS`].
    pub fn of(place: &Place<'a, '_>) -> Result<Self, Unreadable> {
        let mut params = Vec::new();
        for (header, _) in place.http.headers.iter() {
            if let Some(name) = header.strip_prefix(PARAM) {
                params.extend(single(place, header)?.map(|value| (name, value)));
                if params.len() > MAX_PARAMS {
                    return Err(mismatch(format!("`mcp-param-*`: more than {MAX_PARAMS}")));
                }
            }
        }
        Ok(Self { method: single(place, "mcp-method")?, name: single(place, "mcp-name")?, params })
    }

    /// Where there is nothing to mirror (a GET, a DELETE, a response), no header may.
    ///
    /// # Errors
    /// [`Reason::McpHeaderMismatch`]
    pub fn absent(&self) -> Result<(), Unreadable> {
        let given = [self.method.map(|_| "mcp-method"), self.name.map(|_| "mcp-name")].into_iter().flatten().next();
        match given.or_else(|| (!self.params.is_empty()).then_some("mcp-param-*")) {
            None => Ok(()),
            Some(header) => Err(mismatch(format!("`{header}`: there is nothing that it could mirror"))),
        }
    }

    /// Header and body must say the same, whatever the revision. From 2026-07-28 on a request says method, name and
    /// version in both (a notification need not), and before it nothing says what an `mcp-param-*` is: it is refused.
    ///
    /// `mcp-name` is required of the methods that the transport names. The tasks extension asks its clients for it too
    /// (SEP-2663), and not all of them know. Beside a method that no revision knows it may be any text of its parameters.
    ///
    /// Which arguments are mirrored is said by the schema that the tool is registered with: each of them that has a value has
    /// its header, and there is no other. Of a tool without one, an `mcp-param-*` is held against the argument of its own name,
    /// without regard to case. Such a tool may mirror an argument under another name, or one further down; that is
    /// refused, for which one it is cannot be known from the message. Nor can it be known that it asks for a header that is
    /// missing.
    ///
    /// # Errors
    /// [`Reason::McpHeaderMismatch`]; [`Reason::ProtocolParamsMalformed`] if the body lacks the version.
    pub fn check(&self, body: &Mirrored<'_>) -> Result<(), Unreadable> {
        let mirroring = body.version == Some(STATELESS);
        match self.method {
            Some(method) if method == body.action => {}
            None if !(mirroring && body.is_request) => {}
            _ => return Err(mismatch("`mcp-method`: not the method of the body")),
        }
        match self.name {
            Some(name) if decode_sentinel(name).is_ok_and(|name| body.may_be_called(&name)) => {}
            None if !(mirroring && body.has_to_be_called()) => {}
            _ => return Err(mismatch("`mcp-name`: not the name, URI or task of the body")),
        }
        match body.meta_version {
            Some(meta) if Some(meta) == body.version => {}
            None if !(mirroring && body.is_request) => {}
            Some(_) => return Err(mismatch("`params._meta`: not the version of the header")),
            None => {
                let detail = "`params._meta`: the version is missing";
                return Err(Unreadable::because(Reason::ProtocolParamsMalformed, detail));
            }
        }
        let agrees = |(name, value): &(&str, &str)| {
            let argument = body.arguments.and_then(|arguments| argument(arguments, name));
            argument.is_some_and(|argument| says(argument, value))
        };
        if let (true, Some(mirrors)) = (mirroring && body.action == "tools/call", body.mirrors) {
            return self.check_params(mirrors, body.arguments);
        }
        if self.params.is_empty() || (mirroring && body.action == "tools/call" && self.params.iter().all(agrees)) {
            Ok(())
        } else {
            Err(mismatch("`mcp-param-*`: not the argument of that name"))
        }
    }
}

impl Mirrored<'_> {
    fn may_be_called(&self, name: &str) -> bool {
        let is_it = |value: &Json<'_>| value.as_str() == Some(name);
        match self.known {
            Some(method) => method.about.and_then(|member| self.params.get(member)).is_some_and(is_it),
            None => self.params.members().unwrap_or_default().iter().any(|(_, value)| is_it(value)),
        }
    }

    fn has_to_be_called(&self) -> bool {
        let member = self.known.and_then(|method| method.about).filter(|member| *member != "taskId");
        // One that the body lacks as well is refused for that.
        member.and_then(|member| self.params.get(member)).is_some_and(|value| value.as_str().is_some())
    }
}

impl Mirrors<'_> {
    /// Each argument that is to be mirrored, and has a value, is; and nothing else.
    fn check_params(&self, mirrors: &[Mirror], arguments: Option<&Json<'_>>) -> Result<(), Unreadable> {
        if self.params.iter().any(|(name, _)| !mirrors.iter().any(|mirror| mirror.header == *name)) {
            return Err(mismatch("`mcp-param-*`: no argument of the tool is mirrored under that name"));
        }
        for mirror in mirrors {
            let header = self.params.iter().find(|(name, _)| mirror.header == *name).map(|(_, value)| *value);
            let value = arguments.and_then(|arguments| mirror.value(arguments));
            let problem = match (header, value) {
                (None, None) => continue,
                (Some(header), Some(value)) if says(value, header) => continue,
                (Some(_), Some(_)) => "not the argument that the tool mirrors there",
                (Some(_), None) => "the call has no such argument",
                (None, Some(_)) => "missing, and the tool asks for it",
            };
            return Err(mismatch(format!("`{PARAM}{}`: {problem}", mirror.header)));
        }
        Ok(())
    }
}

fn mismatch(detail: impl Into<Cow<'static, str>>) -> Unreadable {
    Unreadable::because(Reason::McpHeaderMismatch, detail)
}

/// The one argument of a header's name, which has lost its case.
#[must_use]
pub fn argument<'j, 'b>(arguments: &'j Json<'b>, name: &str) -> Option<&'j Json<'b>> {
    let mut named = arguments.members()?.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
    match (named.next(), named.next()) {
        (Some((_, value)), None) => Some(value),
        _ => None,
    }
}

/// Whether a header's value is this argument's: a text, an integer as it is written in the body, or a truth value.
/// Nothing else can be mirrored.
#[must_use]
pub fn says(argument: &Json<'_>, value: &str) -> bool {
    match argument {
        Json::String(text) => decode_sentinel(value).is_ok_and(|value| value == *text),
        Json::Number(text) => argument.as_i64().is_some() && value == *text,
        Json::Bool(truth) => value == if *truth { "true" } else { "false" },
        Json::Null | Json::Array(_) | Json::Object(_) => false,
    }
}

/// `=?base64?…?=` carries a text that is no plain header value; its markers are case-sensitive.
///
/// # Errors
/// [`Reason::McpHeaderMismatch`] if what it carries is no base64, or no UTF-8, or a value without it is no plain one.
pub fn decode_sentinel(value: &str) -> Result<Cow<'_, str>, Reason> {
    let Some(encoded) = value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) else {
        let is_plain = value.bytes().all(|b| matches!(b, b'\t' | 0x20..=0x7e));
        return if is_plain { Ok(Cow::Borrowed(value)) } else { Err(Reason::McpHeaderMismatch) };
    };
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).map_err(|_| Reason::McpHeaderMismatch)?;
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| Reason::McpHeaderMismatch)
}

/// A header of which there may be one.
///
/// # Errors
/// [`Reason::HeaderDuplicate`]
pub fn single<'a>(place: &Place<'a, '_>, name: &str) -> Result<Option<&'a str>, Unreadable> {
    place.http.headers.single(name).map_err(|_| Unreadable::because(Reason::HeaderDuplicate, shown(name)))
}

/// A header's name for the operator. Behind [`PARAM`] the client chose it.
fn shown(name: &str) -> String {
    if name.starts_with(PARAM) { "`mcp-param-*`".to_owned() } else { format!("`{name}`") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_is_mirrored_in_one_spelling() {
        let text = |text: &'static str| Json::String(text.into());
        for (argument, value) in [
            (text("eu"), "eu"),
            (text("é"), "=?base64?w6k=?="),
            (text(""), ""),
            (text("7"), "7"),
            (Json::Number("7"), "7"),
            (Json::Number("-7"), "-7"),
            (Json::Bool(true), "true"),
            (Json::Bool(false), "false"),
        ] {
            assert!(says(&argument, value), "{argument:?} {value}");
        }
        for (argument, value) in [
            (text("eu"), "EU"),
            (text("eu"), "us"),
            (text("eu"), "eu,us"),
            (text("é"), "=?BASE64?w6k=?="),
            (text("é"), "=?base64?!?="),
            (Json::Number("7"), "07"),
            (Json::Number("7"), "7.0"),
            (Json::Number("7.0"), "7.0"),
            (Json::Bool(true), "True"),
            (Json::Bool(true), "1"),
            (Json::Null, "null"),
            (Json::Null, ""),
            (Json::Array(vec![text("eu")]), "eu"),
            (Json::Object(Vec::new()), "{}"),
        ] {
            assert!(!says(&argument, value), "{argument:?} {value}");
        }
    }

    #[test]
    fn a_header_names_one_argument_or_none() {
        let of = |keys: &[&'static str]| Json::Object(keys.iter().map(|key| ((*key).into(), Json::Null)).collect());
        assert!(argument(&of(&["tenantId", "region"]), "tenantid").is_some());
        assert!(argument(&of(&["tenantId", "TenantID"]), "tenantid").is_none());
        assert!(argument(&of(&["tenant_id"]), "tenantid").is_none());
        assert!(argument(&of(&["tenant_id"]), "tenant-id").is_none());
        assert!(argument(&Json::Null, "x").is_none());
    }
}
