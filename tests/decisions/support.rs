//! What all modules share: the way of one request through the real code, and bundles made of files.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use envoy_types::pb::envoy::config::core::v3::address::Address as PbAddress;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{Address, HeaderMap, HeaderValue, SocketAddress};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{
    HttpRequest, Peer, Request as PbRequest, TlsSession,
};
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest, CheckResponse};
use palisade::authz::decision::{Decision, Verdict};
use palisade::authz::facts::Facts;
use palisade::authz::identity::IdentitySource;
use palisade::authz::limits::Limits;
use palisade::authz::policy::source::{BundleError, SourceFile};
use palisade::authz::policy::{Bundle, Reference};
use palisade::authz::reason::Reason;
use palisade::authz::request::{Body, Request};
use palisade::authz::seal::Seal;
use palisade::authz::{Active, Settings, authorize};
use palisade::envoy::{request, response};
use palisade::store::files;
use prost::Message;
use std::sync::Arc;

/// The decision id of every test: ids come from outside the core.
pub const DECISION_ID: &str = "0192f0c4-0000-7000-8000-000000000001";
/// A Wednesday, 10:15 UTC.
pub const OFFICE: &str = "2026-03-04T10:15:00Z";
/// The same Wednesday, late.
pub const NIGHT: &str = "2026-03-04T23:15:00Z";
/// The Saturday after it, at noon.
pub const WEEKEND: &str = "2026-03-07T12:00:00Z";

/// The repository's root.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A folder of these tests.
pub fn here(folder: &str) -> PathBuf {
    repository().join("tests/decisions").join(folder)
}

/// A text file of the repository.
pub fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file below a folder with this ending, in the order of paths.
pub fn walk(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Whether the text of a test says that this is the reason, by its name or by its code.
pub fn expects(test: &str, reason: Reason) -> bool {
    let (name, code) = (format!("Reason::{reason:?}"), format!("\"{}\"", reason.code()));
    let is_whole = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric());
    test.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .any(|line| line.contains(&code) || line.match_indices(&name).any(|(at, _)| is_whole(&line[at + name.len()..])))
}

/// The files of a bundle, by name, to be changed before they are loaded.
pub type Files = BTreeMap<String, Vec<u8>>;

/// The repository's own bundle.
pub fn default_files() -> Files {
    files::read(&repository().join("cedar")).unwrap().into_iter().map(|file| (file.name, file.bytes)).collect()
}

/// A bundle of `bundles/`, on top of the shared part of the schema.
pub fn bundle_files(name: &str) -> Files {
    let mut all: Files = files::read(&here("bundles").join(name))
        .unwrap_or_else(|error| panic!("{name}: {error}"))
        .into_iter()
        .map(|file| (file.name, file.bytes))
        .collect();
    let shared = "palisade.cedarschema".to_owned();
    let path = repository().join("cedar").join(&shared);
    all.entry(shared).or_insert_with(|| read(&path).into_bytes());
    all
}

/// Validates files into a bundle.
pub fn load(all: &Files) -> Result<Bundle, BundleError> {
    let all = sources(all);
    Bundle::load(&all, files::digest(&all))
}

/// The same after another bundle, of which it takes what did not change.
pub fn load_after(all: &Files, previous: &Bundle) -> Result<Bundle, BundleError> {
    let all = sources(all);
    Bundle::load_after(&all, files::digest(&all), Some(previous))
}

/// The same, as the shell hands them to the core.
pub fn sources(all: &Files) -> Vec<SourceFile> {
    all.iter().map(|(name, bytes)| SourceFile { name: name.clone(), bytes: bytes.clone() }).collect()
}

/// A loaded bundle by name: `None` is the repository's own, `none` is no bundle at all.
pub fn active(name: Option<&str>) -> Active {
    let all = match name {
        None => default_files(),
        Some("none") => return Active::Missing,
        Some(name) => bundle_files(name),
    };
    Active::Loaded(Box::new(load(&all).unwrap_or_else(|error| panic!("{}: {error}", name.unwrap_or("cedar")))))
}

/// A bundle in force, and Cedar's own authorizer over the same files.
pub struct Compared {
    pub active: Active,
    pub reference: Reference,
}

impl Compared {
    pub fn load(all: &Files) -> Result<Self, BundleError> {
        let active = Active::Loaded(Box::new(load(all)?));
        Ok(Self { active, reference: Reference::load(&sources(all))? })
    }
}

/// Bundles, each loaded once.
#[derive(Default)]
pub struct Bundles(HashMap<String, Active>);

impl Bundles {
    /// The bundle of this name; `None` is the repository's own.
    pub fn of(&mut self, name: Option<&str>) -> &Active {
        self.0.entry(name.unwrap_or_default().to_owned()).or_insert_with(|| active(name))
    }
}

/// The bundle behind an [`Active`].
pub fn loaded(active: &Active) -> &Bundle {
    let Active::Loaded(bundle) = active else { panic!("no bundle") };
    bundle
}

/// One trust domain, default limits.
pub fn settings() -> Settings {
    Settings {
        trust_domains: vec!["example.org".into()],
        limits: Limits::default(),
        tokens: Arc::default(),
        seal: Seal::default(),
    }
}

/// The facts of a moment, in UTC.
pub fn facts(now: &str) -> Facts {
    Facts::at(now.parse().unwrap_or_else(|error| panic!("{now}: {error}")))
}

/// Decides the bytes of a check message, as the server does.
pub fn decide(active: &Active, source: IdentitySource, now: &str, message: &[u8]) -> (Decision, CheckResponse) {
    let decision = match request::decode(message) {
        Err(reason) => Decision::deny(reason),
        Ok(request) => authorize(active, &settings(), source, &request, &facts(now)),
    };
    let answer = response::build(&decision, DECISION_ID).message();
    (decision, answer)
}

/// How Envoy writes headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderForm {
    /// `headers`: a map, repeated headers joined by commas.
    Joined,
    /// `header_map` with `value`.
    Listed,
    /// `header_map` with `raw_value` (`encode_raw_headers`).
    ListedRaw,
}

/// How Envoy writes the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyForm {
    /// `raw_body` (`pack_as_bytes`).
    Raw,
    /// `body`.
    Text,
}

/// Encodes a request as Envoy would. The fields that Palisade must not look at are filled with lies.
pub fn encode(request: &Request<'_>, headers: HeaderForm, body: BodyForm) -> Vec<u8> {
    let peer = |principal: &str| Peer {
        principal: principal.to_owned(),
        service: "spiffe://example.org/ns/agents/sa/analyst".into(),
        labels: [("app".to_owned(), "analyst".to_owned())].into(),
        ..Peer::default()
    };
    let extensions = request.target_extension.iter().map(|target| ("palisade.target".to_owned(), target.to_string()));
    let http = request.http.as_ref().map(|http| {
        let fields = || http.headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut pb = HttpRequest {
            id: "1234567890".into(),
            method: http.method.to_string(),
            path: http.path.to_string(),
            host: http.host.to_string(),
            scheme: "https".into(),
            protocol: "HTTP/2".into(),
            size: -1,
            ..HttpRequest::default()
        };
        let pseudo = [(":method".to_owned(), "GET".to_owned()), (":path".to_owned(), "/status".to_owned())];
        match headers {
            HeaderForm::Joined => {
                for (name, value) in pseudo.into_iter().chain(fields()) {
                    // The same name in another case is another key of the map.
                    let name = if pb.headers.contains_key(&name) { name.to_ascii_uppercase() } else { name };
                    pb.headers.insert(name, value);
                }
            }
            form => {
                let raw = form == HeaderForm::ListedRaw;
                let field = |(key, value): (String, String)| HeaderValue {
                    key,
                    raw_value: if raw { value.clone().into_bytes() } else { Vec::new() },
                    value: if raw { String::new() } else { value },
                };
                pb.header_map = Some(HeaderMap { headers: pseudo.into_iter().chain(fields()).map(field).collect() });
            }
        }
        match (&http.body, body) {
            (Body::Absent, _) => {}
            (Body::Raw(bytes), BodyForm::Raw) => pb.raw_body = bytes.to_vec(),
            (Body::Raw(bytes), BodyForm::Text) => pb.body = String::from_utf8(bytes.to_vec()).unwrap(),
            (Body::Text(text), BodyForm::Raw) => pb.raw_body = text.as_bytes().to_vec(),
            (Body::Text(text), BodyForm::Text) => pb.body = text.to_string(),
        }
        pb
    });
    let address = request.connection.destination.map(|destination| {
        let port_specifier = Some(PortSpecifier::PortValue(destination.port().into()));
        let address = destination.ip().to_string();
        let socket = SocketAddress { address, port_specifier, ..SocketAddress::default() };
        Address { address: Some(PbAddress::SocketAddress(socket)) }
    });
    let check = CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(peer(&request.source_principal)),
            destination: Some(Peer { address, ..peer(&request.destination_principal) }),
            tls_session: request.connection.sni.as_ref().map(|sni| TlsSession { sni: sni.to_string() }),
            request: http.map(|http| PbRequest { http: Some(http), ..PbRequest::default() }),
            context_extensions: extensions.collect(),
            ..AttributeContext::default()
        }),
    };
    check.encode_to_vec()
}

/// The ids of the policies that decided, call by call, in order.
pub fn policies(decision: &Decision) -> Vec<String> {
    decision.evaluations.iter().flat_map(|evaluation| &evaluation.policies).map(|policy| policy.id.clone()).collect()
}

/// Whether the call may pass.
pub fn is_permit(decision: &Decision) -> bool {
    matches!(decision.verdict, Verdict::Permit(_))
}

/// Everything that is decided and said about a call, to compare two decisions byte for byte.
pub fn transcript(decision: &Decision, answer: &CheckResponse) -> String {
    // Dynamic metadata is a map without order; its three members are looked at elsewhere.
    format!("{decision:?}\n{:?}\n{:?}", answer.status, answer.http_response)
}

/// A header of a denial.
pub fn header(answer: &CheckResponse, name: &str) -> Option<String> {
    let Some(HttpResponse::DeniedResponse(denied)) = answer.http_response.as_ref() else { return None };
    let mut headers = denied.headers.iter().filter_map(|option| option.header.as_ref());
    headers.find(|header| header.key == name).map(|header| header.value.clone())
}

/// The HTTP status and the body of a denial.
pub fn denied(answer: &CheckResponse) -> Option<(i32, &str)> {
    match answer.http_response.as_ref()? {
        HttpResponse::DeniedResponse(denied) => {
            Some((denied.status.as_ref().map_or(0, |status| status.code), &denied.body))
        }
        _ => None,
    }
}
