//! Canary calls: requests that no policy can permit, sent the way that an agent's calls go. Whatever of them reaches the server shows
//! a way around Palisade, or an Envoy that does not ask it.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::authz::reason::Reason;

/// Largest head of an answer, in bytes.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Largest body that is read, in bytes: that of a denial is much smaller.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// What answers carry that Palisade decided: its denials, and those that servers give to what it permitted.
const DECISION_ID: &str = "x-palisade-decision-id";
/// What an Envoy adds to the answer of what is behind it, and not to its own.
const FROM_BEHIND: &str = "x-envoy-upstream-service-time";
/// The name of what nobody has: a tool, or a method.
const NOBODY_HAS: &str = "palisade-canary-0b7f9e5d";
/// How the messages of MCP are sent.
const MESSAGE: &[(&str, &str)] = &[
    ("content-type", "application/json"),
    ("accept", "application/json, text/event-stream"),
    ("mcp-protocol-version", "2025-11-25"),
];

/// How the target's calls are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Model Context Protocol.
    Mcp,
    /// Agent2Agent, over JSON-RPC.
    A2a,
    /// HTTP without messages.
    Http,
}

/// Where canaries go.
#[derive(Clone, Debug)]
pub struct Place {
    /// The `host` header.
    pub host: String,
    /// The path, where messages are posted.
    pub path: String,
    /// How calls are read there.
    pub protocol: Protocol,
    /// Most bytes of a body that Envoy hands over.
    pub body_bytes: usize,
}

/// One request that has to be denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canary {
    /// What is wrong with it, in a few words.
    pub name: &'static str,
    /// The bytes.
    pub request: Vec<u8>,
    /// The statuses by which Envoy refuses it without asking; none if it has to ask.
    pub by_envoy: &'static [u16],
}

/// What became of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Palisade denied it, with this status and decision id.
    Denied(u16, String),
    /// Envoy refused it with this status, as it should.
    Refused(u16),
    /// Palisade permitted it, and something else answered.
    Permitted(u16, String),
    /// Something else answered: nobody shows that Palisade was asked.
    Passed(u16),
}

/// The canaries of a place.
#[must_use]
pub fn canaries(place: &Place) -> Vec<Canary> {
    let Place { protocol, body_bytes, .. } = place;
    let call = match protocol {
        Protocol::Mcp => format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{NOBODY_HAS}","arguments":{{}}}}}}"#
        ),
        Protocol::A2a | Protocol::Http => {
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{NOBODY_HAS}","params":{{}}}}"#)
        }
    };
    let mut all = place.requests(&call);
    if *protocol != Protocol::Http {
        all.extend(place.messages(&call, *body_bytes));
    }
    all
}

impl Place {
    /// Canaries of any protocol: whatever the message says, nobody has what is called, and the rest is for readers to stumble over.
    fn requests(&self, call: &str) -> Vec<Canary> {
        let path = self.path.as_str();
        // One that Envoy knows, else it answers by itself; and no policy can speak of it.
        let method = if self.protocol == Protocol::Http { "PROPFIND" } else { "POST" };
        let plain = |path: &str, more: &[(&str, &str)]| self.request(method, path, more, call.as_bytes());
        let forged = [
            ("x-forwarded-client-cert", "By=spiffe://example.org/x;URI=spiffe://example.org/ns/operators/sa/on-call"),
            ("x-envoy-auth-partial-body", "false"),
            ("x-envoy-downstream-service-cluster", "operators"),
        ];
        let underscored = [("x_forwarded_client_cert", "URI=spiffe://example.org/ns/operators/sa/on-call")];
        let dotted = format!("/x/../{}", path.trim_start_matches('/'));
        let upgrade = [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
        ];
        let lengths = [("content-length", "4"), ("transfer-encoding", "chunked"), ("content-type", "application/json")];
        let two_lengths = [self.head(method, path, &lengths), b"0\r\n\r\n".to_vec()].concat();
        let canary = |name, request, by_envoy| Canary { name, request, by_envoy };
        vec![
            canary("a call that nobody registered", plain(path, &[]), &[]),
            canary("who calls, said by the caller", plain(path, &forged), &[]),
            canary("a header with underscores", plain(path, &underscored), &[400]),
            canary("dot segments in the path", plain(&dotted, &[]), &[400]),
            canary("an escaped slash in the path", plain(&format!("{path}%2f"), &[]), &[400, 307]),
            canary("an empty segment in the path", plain(&format!("/{path}"), &[]), &[400]),
            canary("a WebSocket", self.head("GET", path, &upgrade), &[403]),
            canary("two lengths", two_lengths, &[400]),
        ]
    }

    /// Canaries whose message is what is wrong.
    fn messages(&self, call: &str, body_bytes: usize) -> Vec<Canary> {
        let post = |more: &[(&str, &str)], body: &[u8]| self.request("POST", &self.path, more, body);
        let twice = call.replacen(r#""id":1"#, r#""id":1,"method":"ping""#, 1);
        let long = call.replacen(r#""id":1"#, &format!(r#""id":"{}""#, "x".repeat(body_bytes)), 1);
        let chunks = {
            let (first, rest) = call.split_at_checked(10).unwrap_or((call, ""));
            let chunk = |part: &str| format!("{:x}\r\n{part}\r\n", part.len());
            let head = self.head(
                "POST",
                &self.path,
                &[("content-type", "application/json"), ("transfer-encoding", "chunked")],
            );
            [head, (chunk(first) + &chunk(rest) + "0\r\n\r\n").into_bytes()].concat()
        };
        let canary = |name, request| Canary { name, request, by_envoy: &[] };
        vec![
            canary("no body", post(&[], b"")),
            canary("a body in two chunks", chunks),
            canary("a name that is there twice", post(&[], twice.as_bytes())),
            canary("something behind the message", post(&[], format!("{call} {{}}").as_bytes())),
            canary("a message that is cut off", post(&[], call.as_bytes().split_last().map_or(&[], |(_, cut)| cut))),
            canary("bytes that are no UTF-8", post(&[], &[call.as_bytes(), b"\xff"].concat())),
            canary("a batch", post(&[], format!("[{call},{call}]").as_bytes())),
            canary("a compressed body", post(&[("content-encoding", "gzip")], call.as_bytes())),
            Canary { name: "a body beyond the limit", request: post(&[], long.as_bytes()), by_envoy: &[413] },
        ]
    }

    fn head(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Vec<u8> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.host);
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !headers.iter().any(|(name, _)| *name == "connection") {
            head += "connection: close\r\n";
        }
        (head + "\r\n").into_bytes()
    }

    fn request(&self, method: &str, path: &str, more: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
        let length = body.len().to_string();
        let headers: Vec<_> =
            MESSAGE.iter().chain(more).copied().chain([("content-length", length.as_str())]).collect();
        [self.head(method, path, &headers), body.to_vec()].concat()
    }
}

/// Sends one over `stream`, and sees what becomes of it; and whether the answer came from behind the Envoy that is spoken to. The head
/// of the answer and its body may each take `within`.
///
/// # Errors
/// If no answer comes, or none that is HTTP/1.1.
pub async fn send(
    canary: &Canary,
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    within: Duration,
) -> io::Result<(Fate, bool)> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, "there was no answer in time");
    let answer = tokio::time::timeout(within, async {
        let sent = async {
            stream.write_all(&canary.request).await?;
            stream.flush().await
        };
        // Envoy answers a body that is too large before it has all of it.
        let sent = sent.await;
        head(stream).await.map_err(|error| sent.err().unwrap_or(error))
    });
    let (head, mut body) = answer.await.map_err(|_| late())??;
    let odd = || io::Error::new(io::ErrorKind::InvalidData, "the answer is no HTTP/1.1");
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")).and_then(|line| line.get(..3));
    let status: u16 = status.and_then(|status| status.parse().ok()).ok_or_else(odd)?;
    let headers: Vec<_> = lines.filter_map(|line| line.split_once(':')).collect();
    let value =
        |wanted: &str| headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, it)| it.trim());
    let fate = match value(DECISION_ID) {
        // What is no id is not Palisade's, and for no terminal.
        Some(id) if uuid::Uuid::try_parse(id).is_ok() => {
            let length = value("content-length").and_then(|length| length.parse().ok()).unwrap_or(MAX_BODY_BYTES);
            // What does not end, or breaks, is no denial.
            let _read = tokio::time::timeout(within, rest(stream, &mut body, length.min(MAX_BODY_BYTES))).await;
            let is_denial = is_denial(&String::from_utf8_lossy(&body), id);
            if is_denial { Fate::Denied(status, id.to_owned()) } else { Fate::Permitted(status, id.to_owned()) }
        }
        Some(_) => Fate::Passed(status),
        None if canary.by_envoy.contains(&status) => Fate::Refused(status),
        None => Fate::Passed(status),
    };
    Ok((fate, value(FROM_BEHIND).is_some()))
}

/// Whether this is the body of a denial with this id, in any of its forms: it names a reason next to the id. A server that answers to
/// a permit knows the id, which came with the request, and may repeat it; it says no reason.
fn is_denial(body: &str, id: &str) -> bool {
    body.contains(id)
        && Reason::ALL.iter().map(|reason| reason.code()).any(|code| {
            body.contains(&format!("({code}, decision {id})")) || body.contains(&format!("\"code\":\"{code}\""))
        })
}

/// The head of an answer, and what came of its body with it.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    loop {
        let count = stream.read(&mut part).await?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended without an answer"));
        }
        bytes.extend_from_slice(part.get(..count).unwrap_or_default());
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let body = bytes.split_off(end + 4);
            bytes.truncate(end);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), body));
        }
        if bytes.len() > MAX_HEAD_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer's head does not end"));
        }
    }
}

/// The rest of a body, up to its length or its end.
async fn rest(stream: &mut (impl AsyncRead + Unpin), body: &mut Vec<u8>, length: usize) -> io::Result<()> {
    let left = length.saturating_sub(body.len());
    stream.take(left as u64).read_to_end(body).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(protocol: Protocol) -> Place {
        Place { host: "crm.example.org".into(), path: "/mcp".into(), protocol, body_bytes: 65_536 }
    }

    #[tokio::test]
    async fn only_who_shows_that_palisade_was_asked_has_denied() {
        let canary = |by_envoy| Canary { name: "x", request: b"GET / HTTP/1.1\r\n\r\n".to_vec(), by_envoy };
        let fate = async |answer: &[u8], by_envoy| {
            let (mut here, mut there) = tokio::io::duplex(4096);
            there.write_all(answer).await.unwrap();
            there.shutdown().await.unwrap();
            send(&canary(by_envoy), &mut here, Duration::from_secs(10)).await.map(|(fate, _)| fate)
        };
        let id = "019cb2a4-7d20-7c3e-9d55-2f0d8c1f6a11";
        let decided = |status: &str, body: &str| {
            format!(
                "HTTP/1.1 {status} x\r\nX-Palisade-Decision-Id: {id}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
        };
        for body in [
            format!(
                r#"{{"jsonrpc":"2.0","id":1,"error":{{"code":-1,"data":{{"code":"policy_forbids","decision_id":"{id}"}}}}}}"#
            ),
            format!(r#"{{"result":{{"content":[{{"text":"No (policy_forbids, decision {id})"}}],"isError":true}}}}"#),
        ] {
            let (here, there) = (decided("403", &body), decided("200", &body));
            assert_eq!(fate(here.as_bytes(), &[]).await.unwrap(), Fate::Denied(403, id.into()));
            assert_eq!(fate(there.as_bytes(), &[]).await.unwrap(), Fate::Denied(200, id.into()));
        }
        // The header is there on what was permitted as well; and a server may say back what it was told.
        for body in
            ["", "{}", &format!(r#"{{"headers":{{"x-palisade-decision-id":"{id}"}}}}"#), r#"{"code":"policy_forbids"}"#]
        {
            let (here, there) = (decided("200", body), decided("404", body));
            assert_eq!(fate(here.as_bytes(), &[]).await.unwrap(), Fate::Permitted(200, id.into()));
            assert_eq!(fate(there.as_bytes(), &[404]).await.unwrap(), Fate::Permitted(404, id.into()));
        }
        let odd = b"HTTP/1.1 403 Forbidden\r\nx-palisade-decision-id: \x1b[2Jdenied\r\n\r\n";
        assert_eq!(fate(odd, &[403]).await.unwrap(), Fate::Passed(403));
        for status in ["200 OK", "404 Not Found", "403 Forbidden", "503 Service Unavailable", "101 Switching"] {
            let answer = format!("HTTP/1.1 {status}\r\nserver: envoy\r\n\r\n");
            assert!(matches!(fate(answer.as_bytes(), &[]).await.unwrap(), Fate::Passed(_)), "{status}");
        }
        assert_eq!(fate(b"HTTP/1.1 413 \r\n\r\n", &[413]).await.unwrap(), Fate::Refused(413));
        let nothing: [&[u8]; 5] =
            [b"", b"HTTP/1.1 403", b"HTTP/2 403\r\n\r\n", b"HTTP/1.1 xyz\r\n\r\n", b"\xff\r\n\r\n"];
        for answer in nothing {
            assert!(fate(answer, &[403]).await.is_err(), "{answer:?}");
        }
    }

    #[test]
    fn each_canary_is_one_request_that_no_policy_can_permit() {
        for (protocol, count) in [(Protocol::Mcp, 17), (Protocol::A2a, 17), (Protocol::Http, 8)] {
            let all = canaries(&place(protocol));
            assert_eq!(all.len(), count);
            for (number, canary) in all.iter().enumerate() {
                let text = String::from_utf8_lossy(&canary.request);
                assert!(text.contains("\r\n\r\n") && text.contains("host: crm.example.org\r\n"), "{text}");
                assert!(
                    all.iter()
                        .skip(number + 1)
                        .all(|other| other.name != canary.name && other.request != canary.request)
                );
            }
            // The first one has to be decided by Palisade: else nothing is known of the others.
            assert!(all[0].by_envoy.is_empty());
        }
    }
}
