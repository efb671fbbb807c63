//! Which Palisade is asked, by what it is known, and how long it may take.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};

use super::{Failure, span};
use crate::authz::identity::spiffe::SpiffeId;
use crate::control::Files;
use crate::control::client::{self, Line, Server};

/// What names the socket where no option does.
const SOCKET_VARIABLE: &str = "PALISADE_CONTROL_SOCKET";
/// Longest token, in bytes.
const MAX_TOKEN_BYTES: usize = 32 * 1024;

/// Which Palisade is asked
#[derive(Debug, Args)]
#[command(next_help_heading = "Which Palisade is asked")]
pub struct Connection {
    /// Its Unix socket, `control.unix` of its configuration [default: $PALISADE_CONTROL_SOCKET]
    #[arg(long, value_name = "PATH", conflicts_with = "address")]
    socket: Option<PathBuf>,
    /// Its address, `control.tcp` of its configuration; both sides prove themselves by an X509-SVID
    #[arg(long, value_name = "HOST:PORT", requires_all = ["certificate", "key", "ca", "server_spiffe_id"])]
    address: Option<String>,
    /// Your X509-SVID, with the intermediate certificates behind it
    #[arg(long, value_name = "FILE", requires = "address")]
    certificate: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", requires = "address")]
    key: Option<PathBuf>,
    /// The authorities that are believed
    #[arg(long, value_name = "FILE", requires = "address")]
    ca: Option<PathBuf>,
    /// The SPIFFE ID of Palisade: no other workload of the authorities is taken for it
    #[arg(long, value_name = "ID", requires = "address", value_parser = spiffe_id)]
    server_spiffe_id: Option<SpiffeId>,
    /// Send what is in this file as `authorization: Bearer …`
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// How long connecting and the answer may take together
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = span::duration)]
    timeout: Duration,
}

/// A SPIFFE ID of the command line.
pub(super) fn spiffe_id(text: &str) -> Result<SpiffeId, String> {
    SpiffeId::parse(text).map_err(|error| error.to_string())
}

impl Connection {
    fn server(&self) -> Result<Server, String> {
        let Self { socket, address, certificate, key, ca, server_spiffe_id, .. } = self;
        if let (Some(address), Some(certificate), Some(key), Some(ca), Some(id)) =
            (address, certificate, key, ca, server_spiffe_id)
        {
            let files = Files { certificate: certificate.clone(), key: key.clone(), ca: ca.clone() };
            return Ok(Server::Tcp { address: address.clone(), files, id: id.clone() });
        }
        // An option would be repeated with each command of whoever is in a hurry.
        let socket = socket.clone().or_else(|| std::env::var_os(SOCKET_VARIABLE).map(PathBuf::from));
        let socket = socket.filter(|path| !path.as_os_str().is_empty());
        socket.map(Server::Unix).ok_or_else(|| format!("say which Palisade: --socket, ${SOCKET_VARIABLE} or --address"))
    }

    /// A connection to it.
    pub(super) async fn line(&self) -> Result<Line, Failure> {
        Ok(client::connect(&self.server()?).await?)
    }

    /// A request with the token, if there is one.
    pub(super) fn request<T>(&self, message: T) -> Result<Request<T>, Failure> {
        let mut request = Request::new(message);
        if let Some(token) = self.token()? {
            request.metadata_mut().insert("authorization", token);
        }
        Ok(request)
    }

    fn token(&self) -> Result<Option<MetadataValue<Ascii>>, String> {
        let Some(path) = &self.token_file else { return Ok(None) };
        let told = |error: &str| format!("{}: {error}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| told(&error.to_string()))?;
        let token = text.trim();
        // An error never says what is in it.
        let fits = (1..=MAX_TOKEN_BYTES).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic());
        let value = MetadataValue::try_from(format!("Bearer {token}")).ok().filter(|_| fits);
        let mut value = value.ok_or_else(|| told("holds no token: one line of visible ASCII"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// Whatever it is, within the time that there is.
    pub(super) async fn in_time<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let late = || Failure::from(format!("there was no answer within {}", span::told(self.timeout)));
        tokio::time::timeout(self.timeout, work).await.map_err(|_| late())?
    }
}
