//! The client against a gRPC server behind a Unix socket.

use std::convert::Infallible;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request as HttpRequest, Response as HttpResponse};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, ServerStreamingService};
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower_service::Service;

use super::*;
use crate::keys::workload_api::{Entry, JwtBundlesRequest, JwtBundlesResponse, Socket};

type Message = Result<JwtBundlesResponse, Status>;

/// Says to each stream what it is told to, one message after the other.
#[derive(Clone, Debug)]
struct Agent(Arc<Mutex<Vec<Message>>>);

/// What is left to say, and then nothing, for ever.
struct Messages(Vec<Message>);

impl tokio_stream::Stream for Messages {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Option<Message>> {
        match self.0.pop() {
            Some(Err(status)) if status.code() == tonic::Code::Ok => Poll::Ready(None),
            Some(message) => Poll::Ready(Some(message)),
            None => Poll::Pending,
        }
    }
}

impl ServerStreamingService<JwtBundlesRequest> for Agent {
    type Response = JwtBundlesResponse;
    type ResponseStream = Messages;
    type Future = std::future::Ready<Result<Response<Messages>, Status>>;

    fn call(&mut self, request: Request<JwtBundlesRequest>) -> Self::Future {
        // As the specification has it.
        let secure = request.metadata().get("workload.spiffe.io").is_some_and(|value| value == "true");
        let messages: Vec<Message> = self.0.lock().unwrap().iter().rev().cloned().collect();
        std::future::ready(match (secure, messages.last()) {
            (false, _) => Err(Status::invalid_argument("no security header")),
            (true, Some(Err(status))) if messages.len() == 1 && status.code() != tonic::Code::Ok => Err(status.clone()),
            (true, _) => Ok(Response::new(Messages(messages))),
        })
    }
}

impl Service<HttpRequest<Body>> for Agent {
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        let agent = self.clone();
        Box::pin(async move {
            if request.uri().path() != "/SpiffeWorkloadAPI/FetchJWTBundles" {
                return Ok(Status::unimplemented("no such method").into_http());
            }
            let codec = ProstCodec::<JwtBundlesResponse, JwtBundlesRequest>::default();
            Ok(Grpc::new(codec).server_streaming(agent, request).await)
        })
    }
}

impl NamedService for Agent {
    const NAME: &'static str = "SpiffeWorkloadAPI";
}

/// An agent behind a socket of its own, as long as the task lives.
fn serve(path: &Path, messages: Vec<Message>) -> tokio::task::JoinSet<()> {
    let listener = UnixListenerStream::new(UnixListener::bind(path).unwrap());
    let agent = Agent(Arc::new(Mutex::new(messages)));
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move { Server::builder().add_service(agent).serve_with_incoming(listener).await.unwrap() });
    tasks
}

fn message(all: &[(&str, &str)]) -> JwtBundlesResponse {
    let entry = |(name, keys): &(&str, &str)| Entry {
        trust_domain: format!("spiffe://{name}"),
        keys: Bytes::copy_from_slice(keys.as_bytes()),
    };
    JwtBundlesResponse { bundles: all.iter().map(entry).collect() }
}

/// The end of a stream without a status of its own.
fn ends() -> Message {
    Err(Status::ok(""))
}

/// What a stream from there brings, and why it ends.
async fn stream(path: &Path) -> (Vec<Bundles>, Ended) {
    let (sender, mut updates) = mpsc::channel(1);
    let socket = Socket::new(path.to_owned());
    let reading = async {
        let mut all = Vec::new();
        while let Some(bundles) = updates.recv().await {
            all.push(bundles);
        }
        all
    };
    let (ended, all) = tokio::join!(socket.stream(sender), reading);
    (all, ended)
}

/// Of an agent that says this.
async fn said(messages: Vec<Message>) -> (Vec<Bundles>, Ended) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("api.sock");
    let _serving = serve(&path, messages);
    stream(&path).await
}

#[tokio::test]
async fn bundles_come_from_a_socket_as_often_as_they_change() {
    let (first, second) = (message(&[("a.test", "{}"), ("b.test", "[]")]), message(&[("a.test", "{}")]));
    let (all, ended) = said(vec![Ok(first), Ok(second), ends()]).await;
    assert_eq!(all, [bundles([("a.test", "{}"), ("b.test", "[]")]), bundles([("a.test", "{}")])]);
    assert_eq!(ended, Ended::Failed("the Workload API ended the stream".into()));
}

#[tokio::test]
async fn who_is_refused_is_told_apart_from_what_breaks() {
    let good = || Ok(message(&[("a.test", "{}")]));
    for (messages, taken, why) in [
        (vec![Err(Status::permission_denied("no identity issued"))], 0, None),
        (vec![good(), Err(Status::permission_denied("no identity issued"))], 1, None),
        (vec![Err(Status::unavailable("starting"))], 0, Some("starting")),
        (vec![good(), Err(Status::internal("broken"))], 1, Some("broken")),
        (vec![Err(Status::unimplemented("old"))], 0, Some("old")),
        (vec![good(), Ok(message(&[])), good()], 1, Some("no bundle of any trust domain")),
        (vec![Ok(message(&[("a.test", "{}"), ("a.test", "[]")]))], 0, Some("two bundles of one trust domain")),
        // The largest that is read is 4 MiB.
        (vec![good(), Ok(message(&[("a.test", &"x".repeat(4 * 1024 * 1024))]))], 1, Some("too large")),
    ] {
        let (all, ended) = said(messages).await;
        assert_eq!(all.len(), taken, "{ended:?}");
        match (ended, why) {
            (Ended::Denied(said), None) => assert!(said.contains("no identity issued"), "{said}"),
            (Ended::Failed(said), Some(why)) => assert!(said.contains(why), "{said}"),
            (ended, _) => panic!("{ended:?}"),
        }
    }
}

#[tokio::test]
async fn what_is_no_workload_api_is_an_error() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("api.sock");
    let failed = async |path: &Path| match stream(path).await {
        (all, Ended::Failed(why)) if all.is_empty() => why,
        other => panic!("{other:?}"),
    };
    assert!(failed(&path).await.contains("No such file"));
    std::fs::write(&path, "").unwrap();
    assert!(failed(&path).await.contains("Connection refused"));
    std::fs::remove_file(&path).unwrap();

    // It speaks something else, or hangs up.
    let listener = UnixListener::bind(&path).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        for answer in [&b""[..], b"HTTP/1.1 400 Bad Request\r\n\r\n"] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _preface = stream.read(&mut [0; 64]).await;
            let _gone = stream.write_all(answer).await;
        }
    });
    for _ in 0..2 {
        assert!(failed(&path).await.starts_with("the Workload API: "));
    }
}

/// The wait is for the timeout itself; how long it took is not asked.
#[tokio::test]
async fn an_agent_that_says_nothing_is_given_up_and_one_that_comes_late_is_found() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("api.sock");
    let silent = UnixListener::bind(&path).unwrap();
    let config =
        WorkloadApi { socket: format!("unix://{}", path.display()), timeout_ms: 200, ..WorkloadApi::default() };
    let sources = vec![(domain("a.test"), of_workload_api())];
    let keys = Keys::start(sources, &config, &Handle::current()).unwrap();
    keys.attempted().await;
    assert!(error(&keys, "a.test").unwrap().contains("did not answer within 200 ms"));

    drop(silent);
    std::fs::remove_file(&path).unwrap();
    let _serving = serve(&path, vec![Ok(message(&[("a.test", &set(&["k"]))]))]);
    keys.trust_domains["a.test"].state.subscribe().wait_for(|state| state.keys == 1).await.unwrap();
    assert!(has(of_domain(&keys, "a.test").as_ref(), "k"));

    // Nothing but the socket is asked, and it has to be named.
    let sources = vec![(domain("a.test"), of_workload_api())];
    let refused = Keys::start(sources, &WorkloadApi::default(), &Handle::current()).unwrap_err();
    assert!(refused.to_string().contains("workload_api.socket"), "{refused}");
}
