//! `palisade bundle`: bundles that are somewhere else.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Subcommand;
use http::header::HOST;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;

use super::control::span;
use super::dial::Dial;
use super::{complain, exit, print};
use crate::store::archive::{MAX_ARCHIVE_BYTES, install};

/// Get a bundle from where it is kept
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Fetch(Fetch),
}

/// Fetch a bundle that is one file, if it is the one that is meant
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The file is a .tar.gz of a bundle's directory (`tar -C my-bundle -czf bundle.tar.gz .`). It is taken only if its SHA-256 is the one \
that is given, so it does not matter who keeps it. It is unpacked beside LINK, and then LINK leads there: `[bundle] path` of a \
Palisade that runs may be LINK, and it takes the new one as it takes any change. To have another bundle, fetch it by its own digest.")]
struct Fetch {
    /// Where it is: https://, or http://, for its digest is known
    #[arg(value_name = "URL")]
    url: Uri,
    /// The SHA-256 of the file: 64 hexadecimal digits, as `sha256sum` prints it
    #[arg(long, value_name = "HEX", value_parser = digest)]
    sha256: String,
    /// The link to make
    #[arg(long, value_name = "LINK")]
    into: PathBuf,
    /// Authorities that are trusted beside the system's, as PEM
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// How long it may take
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = span::duration)]
    timeout: Duration,
}

fn digest(text: &str) -> Result<String, String> {
    let is_right = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_right.then(|| text.to_ascii_lowercase()).ok_or_else(|| "expected 64 hexadecimal digits".into())
}

/// Runs the command.
#[must_use]
pub fn run(arguments: &Arguments) -> u8 {
    let Command::Fetch(fetch) = &arguments.command;
    match fetch.run() {
        Ok(told) => print(&told, exit::OK),
        Err(why) => {
            complain(&format!("{}: {why}", fetch.url));
            exit::FAILURE
        }
    }
}

impl Fetch {
    fn run(&self) -> Result<String, String> {
        if self.url.host().is_none() || !matches!(self.url.scheme_str(), Some("https" | "http")) {
            return Err("expected https:// or http:// with a host".into());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let got = runtime.map_err(|error| error.to_string())?.block_on(async {
            let got = tokio::time::timeout(self.timeout, self.get()).await;
            got.unwrap_or_else(|_| Err("it did not come in time".into()))
        });
        let directory = install(&got?, &self.sha256, &self.into)?;
        Ok(format!("{} leads to {}\n", self.into.display(), directory.display()))
    }

    async fn get(&self) -> Result<Bytes, String> {
        let milliseconds = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
        let stream = Dial::new(self.ca_file.clone(), milliseconds)?.to(&self.url).await?;
        let failed = |error: hyper::Error| format!("no answer: {error}");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let connection = tokio::spawn(connection);
        let path = self.url.path_and_query().map_or("/", |path| path.as_str());
        let host = self.url.authority().map_or("", |authority| authority.as_str());
        let request = Request::get(path).header(HOST, host).body(Empty::<Bytes>::new());
        let answer = sender.send_request(request.map_err(|error| error.to_string())?).await.map_err(failed)?;
        // No redirect is followed.
        if answer.status() != StatusCode::OK {
            return Err(format!("the answer is {}", answer.status()));
        }
        let body = Limited::new(answer.into_body(), MAX_ARCHIVE_BYTES).collect().await;
        connection.abort();
        Ok(body.map_err(|error| format!("it did not come whole: {error}"))?.to_bytes())
    }
}
