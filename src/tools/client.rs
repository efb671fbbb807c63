//! Asking a server for its tools over streamable HTTP, in the newest revision of MCP, or else in the ones with sessions.
//!
//! The server is not trusted: what it sends is bounded in size, pages and time (the caller's), no redirect is followed, and
//! what it answers is read strictly, later. The transport of 2024-11-05, with two endpoints, is not spoken.

use std::collections::HashSet;
use std::future::Future;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

use super::sse::Events;
use super::{LIMITS, MAX_BYTES};
use crate::authz::call::json::Json;

/// The revision that is tried first: it has no sessions, and says with each request what it is about.
const NEWEST: &str = "2026-07-28";
/// The one that is asked for in a session; the server may choose an older one.
const WITH_SESSIONS: &str = "2025-11-25";
const LIST: &str = "tools/list";
/// Most pages of a list.
const MAX_PAGES: usize = 200;
/// Largest head of an answer, in bytes.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Longest session id, in bytes.
const MAX_SESSION_BYTES: usize = 1_024;

/// Makes connections.
pub trait Connect: Sync {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// Connects to the host of a URL. An error is told in words that follow "the server".
    fn connect(&self, url: &Uri) -> impl Future<Output = Result<Self::Stream, String>> + Send;
}

/// Asks one server.
pub struct Client<'c, C> {
    /// What connects to it.
    pub connect: &'c C,
    /// Where it is.
    pub url: &'c Uri,
    /// A bearer token for it.
    pub token: Option<&'c str>,
}

/// What is said with each request.
struct Era {
    revision: String,
    session: Option<HeaderValue>,
}

impl Era {
    fn is_newest(&self) -> bool {
        self.revision == NEWEST
    }
}

/// Why there is no answer.
enum Failure {
    /// The server does not take such a request: it may take another one.
    NotTaken(String),
    /// Anything else.
    Failed(String),
}

impl Failure {
    fn into_words(self) -> String {
        match self {
            Self::NotTaken(why) | Self::Failed(why) => why,
        }
    }
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

/// An answer whose body is still to come.
struct Answer {
    response: Response<Incoming>,
    /// Drives the connection; ends with this.
    _driver: JoinSet<Result<(), hyper::Error>>,
}

impl<C: Connect> Client<'_, C> {
    /// The pages of the server's list of tools: a JSON-RPC response each.
    ///
    /// # Errors
    /// Why there is none, in words that follow "the server" and hold nothing of what it answered.
    pub async fn list(&self) -> Result<Vec<Vec<u8>>, String> {
        let newest = Era { revision: NEWEST.to_owned(), session: None };
        match self.pages(&newest).await {
            Ok(pages) => Ok(pages),
            Err(Failure::Failed(why)) => Err(why),
            Err(Failure::NotTaken(_)) => {
                let era = self.open().await.map_err(Failure::into_words)?;
                let pages = self.pages(&era).await.map_err(Failure::into_words);
                self.close(&era).await;
                pages
            }
        }
    }

    async fn pages(&self, era: &Era) -> Result<Vec<Vec<u8>>, Failure> {
        let (mut pages, mut bytes, mut seen) = (Vec::new(), 0, HashSet::new());
        let mut cursor: Option<String> = None;
        while pages.len() < MAX_PAGES {
            let params = cursor.as_ref().map_or_else(|| json!({}), |cursor| json!({ "cursor": cursor }));
            let id = pages.len() + 1;
            let (page, next) = self.page(era, params, id, MAX_BYTES - bytes).await?;
            bytes += page.len();
            pages.push(page);
            match next {
                None => return Ok(pages),
                Some(next) if !seen.insert(next.clone()) => {
                    return Err(Failure::Failed("lists the same page again and again".into()));
                }
                Some(next) => cursor = Some(next),
            }
        }
        Err(Failure::Failed(format!("lists more than {MAX_PAGES} pages of tools")))
    }

    /// Opens a session (2025-11-25, "Lifecycle").
    async fn open(&self) -> Result<Era, Failure> {
        let asked = Era { revision: WITH_SESSIONS.to_owned(), session: None };
        let params = json!({
            "protocolVersion": WITH_SESSIONS,
            "capabilities": {},
            "clientInfo": { "name": "palisade", "version": env!("CARGO_PKG_VERSION") },
        });
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params });
        // The version is agreed on by this very request, so no header says it yet.
        let answer = self.post(&Era { revision: String::new(), ..asked }, "initialize", &body).await?;
        let session = answer.response.headers().get("mcp-session-id").cloned();
        if session.as_ref().is_some_and(|session| session.len() > MAX_SESSION_BYTES) {
            return Err(Failure::Failed("gave a session id that is too long".into()));
        }
        let message = message(answer, 1, MAX_BYTES).await?;
        let revision = {
            let json = parse(&message)?;
            let version = json.get("result").and_then(|result| result.get("protocolVersion")).and_then(Json::as_str);
            version.map(str::to_owned).ok_or_else(|| Failure::Failed("opened no session".into()))?
        };
        let era = Era { revision, session };
        let body = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        let answer = self.post(&era, "notifications/initialized", &body).await?;
        match answer.response.status() {
            status if status.is_success() => Ok(era),
            status => Err(refused(status)),
        }
    }

    /// Ends a session. A server that keeps it forgets it by itself.
    async fn close(&self, era: &Era) {
        if era.session.is_some() {
            let _nobody_minds = self.send(era, Method::DELETE, "", Bytes::new()).await;
        }
    }

    /// A page of the list, and where it goes on.
    async fn page(
        &self,
        era: &Era,
        mut params: Value,
        id: usize,
        most: usize,
    ) -> Result<(Vec<u8>, Option<String>), Failure> {
        if let (true, Value::Object(members)) = (era.is_newest(), &mut params) {
            let meta = json!({
                "io.modelcontextprotocol/protocolVersion": NEWEST,
                "io.modelcontextprotocol/clientCapabilities": {},
                "io.modelcontextprotocol/clientInfo": { "name": "palisade", "version": env!("CARGO_PKG_VERSION") },
            });
            members.insert("_meta".into(), meta);
        }
        let body = json!({ "jsonrpc": "2.0", "id": id, "method": LIST, "params": params });
        let answer = self.post(era, LIST, &body).await?;
        let message = message(answer, id, most).await?;
        let json = parse(&message)?;
        let Some(result) = json.get("result") else {
            return Err(Failure::NotTaken(format!("answers `{LIST}` with an error")));
        };
        let next = match result.get("nextCursor") {
            None | Some(Json::Null) => None,
            Some(Json::String(cursor)) => Some(cursor.clone().into_owned()),
            Some(_) => return Err(Failure::Failed("gave a cursor that is no text".into())),
        };
        drop(json);
        Ok((message, next))
    }

    async fn post(&self, era: &Era, method: &str, body: &Value) -> Result<Answer, Failure> {
        self.send(era, Method::POST, method, Bytes::from(body.to_string())).await
    }

    async fn send(&self, era: &Era, verb: Method, method: &str, body: Bytes) -> Result<Answer, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::Failed(format!("does not exchange messages: {error}"));
        let stream = self.connect.connect(self.url).await?;
        let mut client = hyper::client::conn::http1::Builder::new();
        client.max_buf_size(MAX_HEAD_BYTES);
        let handshake = client.handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| failed(&error))?;
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let mut request = Request::builder()
            .method(verb)
            .uri(self.url.path_and_query().map_or("/", |path| path.as_str()))
            .header(header::HOST, self.url.authority().map_or("", |authority| authority.as_str()))
            .header(header::USER_AGENT, concat!("palisade/", env!("CARGO_PKG_VERSION")))
            .header(header::ACCEPT, "application/json, text/event-stream")
            .header(header::CONNECTION, "close");
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if !era.revision.is_empty() {
            request = request.header("mcp-protocol-version", &era.revision);
        }
        if era.is_newest() {
            request = request.header("mcp-method", method);
        }
        if let Some(session) = &era.session {
            request = request.header("mcp-session-id", session);
        }
        if let Some(token) = self.token {
            let mut value = HeaderValue::try_from(format!("Bearer {token}"))
                .map_err(|_| "got a token that is no header value".to_owned())?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        let request = request.body(Full::new(body)).map_err(|error| failed(&error))?;
        let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
        Ok(Answer { response, _driver: driver })
    }
}

/// What a status says. Those by which servers of other revisions turn a request away are no failures yet.
fn refused(status: StatusCode) -> Failure {
    let code = status.as_u16();
    match code {
        300..=399 => Failure::Failed(format!("redirects, which is not followed (status {code})")),
        401 | 403 => Failure::Failed(format!("wants another token, or one (status {code})")),
        400 | 404 | 405 | 406 | 415 | 422 => {
            Failure::NotTaken(format!("does not take such messages there (status {code})"))
        }
        _ => Failure::Failed(format!("answered with status {code}")),
    }
}

/// The JSON-RPC response to the request of this id, alone or as the event of a stream.
async fn message(answer: Answer, id: usize, most: usize) -> Result<Vec<u8>, Failure> {
    let Answer { response, _driver } = answer;
    let status = response.status();
    if status != StatusCode::OK {
        return Err(refused(status));
    }
    if response.headers().get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(Failure::Failed("answered with an encoding that was not asked for".into()));
    }
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let mut events = match kind.as_str() {
        "application/json" => None,
        "text/event-stream" => Some(Events::default()),
        _ => return Err(Failure::NotTaken("answered with neither JSON nor a stream of events".into())),
    };
    let (mut body, mut whole, mut bytes) = (response.into_body(), Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::Failed(format!("does not end its answer: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        bytes += data.len();
        if bytes > most {
            return Err(Failure::Failed(format!("answered with more than {MAX_BYTES} bytes")));
        }
        let Some(events) = &mut events else {
            whole.extend_from_slice(&data);
            continue;
        };
        for event in events.take(&data) {
            if is_response(&event, id) {
                return Ok(event);
            }
        }
    }
    match events {
        None => Ok(whole),
        Some(_) => Err(Failure::Failed("ended its stream without an answer".into())),
    }
}

fn is_response(event: &[u8], id: usize) -> bool {
    let Ok(json) = Json::parse(event, &LIMITS) else { return false };
    matches!(json.get("id"), Some(Json::Number(text)) if *text == id.to_string())
        && (json.get("result").is_some() || json.get("error").is_some())
}

fn parse(message: &[u8]) -> Result<Json<'_>, Failure> {
    Json::parse(message, &LIMITS)
        .map_err(|reason| Failure::Failed(format!("answered with no JSON that every parser reads alike ({reason})")))
}
