//! Asking for a login inside the protocol: a multi-round-trip request of MCP 2026-07-28, for clients that can open a URL.
//!
//! Instead of an HTTP challenge the answer is a result, `input_required`, with the URL where the user logs in and a state. The
//! client repeats the call with the state, and with the new token that the login made. The state permits nothing: the
//! policies are asked anew. It holds the client to the call that was shown to the user.
//!
//! The state is the name of the request for input, under which the client answers it. `requestState` would be the place for
//! it, but the repeated call reaches the server as it is, and a server with states of its own (the official SDK's) refuses
//! one that it did not give out, while it passes over answers that it did not ask for.

use super::call::Call;
use super::call::json::Json;
use super::digest::sha256;
use super::identity::spiffe::SpiffeId;
use super::seal::Seal;
use super::target::Target;

/// How long a client may take to come back, in seconds.
const STATE_SECONDS: i64 = 600;
const PURPOSE: &str = "step-up";

/// What a client says of multi-round-trip requests beside a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Round<'a> {
    /// The name in `params.inputResponses` that is a state of ours.
    pub state: Option<std::borrow::Cow<'a, str>>,
    /// Whether it declares `elicitation.url` for this very request: then it can be asked to open a URL.
    pub opens_urls: bool,
}

/// Seals states for the calls of one request.
#[derive(Clone, Debug)]
pub struct Sealer<'a> {
    /// The key.
    pub seal: &'a Seal,
    /// The caller.
    pub agent: SpiffeId,
    /// The target.
    pub target: &'a Target,
    /// The moment, in seconds since 1970.
    pub now: i64,
}

impl Sealer<'_> {
    /// The state for a call that has to come back; `None` where it can not be asked for inside the protocol.
    #[must_use]
    pub fn state_for(&self, call: &Call<'_>) -> Option<String> {
        let is_possible = call.round.opens_urls && call.id.is_some() && self.target.step_up_url.is_some();
        is_possible.then(|| {
            self.with_call(call, |bound| self.seal.close(PURPOSE, bound, self.now.saturating_add(STATE_SECONDS)))
        })?
    }

    /// Whether a call comes back with a state of ours that is not for it: another caller's, another call's, or an old one. One that
    /// an instance with another key sealed is passed over, for no state permits anything.
    #[must_use]
    pub fn is_misused(&self, call: &Call<'_>) -> bool {
        let state = call.round.state.as_deref().filter(|state| self.seal.is_ours(state));
        state.is_some_and(|state| !self.with_call(call, |bound| self.seal.opens(state, PURPOSE, bound, self.now)))
    }

    fn with_call<T>(&self, call: &Call<'_>, then: impl FnOnce(&[&[u8]]) -> T) -> T {
        let arguments = call.arguments.as_ref().map(digest);
        let digest = arguments.as_ref().map_or(&[][..], |digest| digest);
        then(&[self.agent.as_str().as_bytes(), self.target.name.as_bytes(), call.action.as_bytes(), digest])
    }
}

/// SHA-256 of a value whose members may come in any order, and whose white space does not count. A number counts as it is
/// written.
fn digest(json: &Json<'_>) -> [u8; 32] {
    let mut bytes = Vec::new();
    write(json, &mut bytes);
    sha256(&bytes)
}

fn write(json: &Json<'_>, out: &mut Vec<u8>) {
    let mut put = |kind: u8, length: usize, bytes: &[u8]| {
        out.push(kind);
        out.extend((length as u64).to_be_bytes());
        out.extend(bytes);
    };
    match json {
        Json::Null => put(b'n', 0, &[]),
        Json::Bool(value) => put(b'b', usize::from(*value), &[]),
        Json::Number(text) => put(b'#', text.len(), text.as_bytes()),
        Json::String(text) => put(b'"', text.len(), text.as_bytes()),
        Json::Array(items) => {
            put(b'[', items.len(), &[]);
            items.iter().for_each(|item| write(item, out));
        }
        Json::Object(members) => {
            put(b'{', members.len(), &[]);
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
            for (name, value) in members {
                write(&Json::String(name.clone()), out);
                write(value, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::limits::Limits;

    fn of(text: &str) -> [u8; 32] {
        digest(&Json::parse(text.as_bytes(), &Limits::DEFAULT).unwrap())
    }

    #[test]
    fn the_same_arguments_have_one_digest_and_others_another() {
        assert_eq!(of(r#"{"a": 1, "b": [true, null, "x"]}"#), of(r#"{"b":[true,null,"\u0078"],"a":1}"#));
        let all = [
            "{}",
            "[]",
            "null",
            "true",
            "false",
            "\"\"",
            "0",
            "1",
            "1.0",
            "\"1\"",
            "{\"a\":1}",
            "{\"a\":\"1\"}",
            "{\"b\":1}",
            "[1]",
            "[[1]]",
            "[1,1]",
            "[\"a\",1]",
            "{\"a\":{}}",
            "{\"a\":[]}",
            "{\"a\":1,\"b\":1}",
            "{\"a\":{\"b\":1}}",
        ];
        for (at, one) in all.iter().enumerate() {
            for other in all.iter().skip(at + 1) {
                assert_ne!(of(one), of(other), "{one} {other}");
            }
        }
    }
}
