//! What a request says beside its parameters: the protocol's version, and the extensions it asks for (A2A 1.0, section
//! 3.2.6; the header of 0.3 had another name).

use std::borrow::Cow;

use super::operations::Generation;
use crate::authz::call::{Unreadable, uri};
use crate::authz::reason::Reason;
use crate::authz::request::HttpRequest;

/// The version's name, in a header (in any case) and in a query.
pub const VERSION: &str = "A2A-Version";
const VERSION_HEADER: &str = "a2a-version";
/// Most extensions that headers may ask for.
const MAX_EXTENSIONS: usize = 64;
const EXTENSION_HEADERS: &[&str] = &["a2a-extensions", "x-a2a-extensions"];

/// The version that a request states, in a header, in the query, or in both alike; `None` if in neither.
///
/// # Errors
/// [`Reason::HeaderDuplicate`], [`Reason::A2aVersionUnsupported`], [`Reason::A2aVersionMismatch`]
pub fn version(http: &HttpRequest<'_>, query: &[(&str, Cow<'_, str>)]) -> Result<Option<Generation>, Unreadable> {
    let header = http.headers.single(VERSION_HEADER).map_err(|_| Reason::HeaderDuplicate)?;
    let parameter = query.iter().find(|(name, _)| *name == VERSION).map(|(_, value)| value.as_ref());
    match (header.map(known).transpose()?, parameter.map(known).transpose()?) {
        (Some(header), Some(parameter)) if header != parameter => {
            Err(Unreadable::because(Reason::A2aVersionMismatch, "header and query state two versions"))
        }
        (header, parameter) => Ok(header.or(parameter)),
    }
}

/// An empty one means 0.3 (A2A 1.0, section 3.6.2).
fn known(version: &str) -> Result<Generation, Reason> {
    let stated = if version.is_empty() { Generation::V0_3.as_str() } else { version };
    Generation::ALL.into_iter().find(|known| known.as_str() == stated).ok_or(Reason::A2aVersionUnsupported)
}

/// Refuses a request that is called as one generation calls it, and states the other: a server may go by either.
///
/// # Errors
/// [`Reason::A2aVersionMismatch`]
pub fn agree(stated: Option<Generation>, called: Generation) -> Result<(), Unreadable> {
    if stated.unwrap_or(Generation::V0_3) == called {
        return Ok(());
    }
    let detail = match called {
        Generation::V0_3 => "a name of 0.3, and `A2A-Version` is another",
        Generation::V1_0 => "a name of 1.0, and `A2A-Version` is not 1.0: without one it would be 0.3",
    };
    Err(Unreadable::because(Reason::A2aVersionMismatch, detail))
}

/// The extensions that the headers ask for.
///
/// # Errors
/// [`Reason::HeaderMalformed`] for anything but URIs in their one spelling, and for more than [`MAX_EXTENSIONS`].
pub fn extensions<'a>(http: &'a HttpRequest<'a>) -> Result<Vec<Cow<'a, str>>, Reason> {
    let headers = http.headers.iter().filter(|(name, value)| EXTENSION_HEADERS.contains(name) && !value.is_empty());
    let all = headers.flat_map(|(_, value)| value.split(',')).map(|extension| extension.trim_matches([' ', '\t']));
    let is_known = |(at, uri): &(usize, &str)| *at < MAX_EXTENSIONS && uri::is_plain(uri);
    all.enumerate()
        .map(|it| if is_known(&it) { Ok(Cow::Borrowed(it.1)) } else { Err(Reason::HeaderMalformed) })
        .collect()
}
