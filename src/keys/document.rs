//! From a source to the keys that it holds now: the file or the answer, and for an issuer that is asked for its keys first
//! its metadata.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use http::Uri;
use http::uri::Scheme;
use tokio_rustls::rustls::RootCertStore;

use super::endpoint::roots;
use super::fetch::{Fetch, MAX_BYTES, Page};
use super::source::{Location, Owner, Source};
use crate::authz::call::json::Json;
use crate::authz::limits::Limits;
use crate::authz::token::keys::{KeySet, Use};
use crate::authz::token::spiffe_bundle::{Bootstrap, SpiffeBundle};

/// Metadata are flat, apart from a few lists and signed statements.
const METADATA_LIMITS: Limits = Limits { json_depth: 16, json_values: 8_192, ..Limits::DEFAULT };

/// What a source holds.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) keys: KeySet,
    /// Of the text that the keys were read from: the same text is the same keys.
    pub(super) digest: [u8; 32],
    /// Which bundle of its trust domain it is.
    pub(super) sequence: Option<u64>,
    /// When to look again, if it is said.
    pub(super) again: Option<Again>,
    /// The authorities of a bundle: certificates that nobody has read yet.
    authorities: Vec<Vec<u8>>,
    /// The same for the endpoint that gave it out, which has to prove itself by them the next time.
    pub(super) roots: Option<Arc<RootCertStore>>,
}

/// When a provider wants to be asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// Its answer is good for so long, and earlier questions are for nothing.
    FreshFor(Duration),
    /// The bundle of a trust domain asks for this interval, shorter or longer than the configured one.
    Hint(Duration),
}

impl Document {
    pub(super) fn read(text: &[u8], fresh_for: Option<Duration>, owner: &Owner) -> Result<Self, String> {
        match owner {
            Owner::Issuer { .. } => {
                let keys = KeySet::parse(text, Use::Signatures)?;
                Ok(Self { again: fresh_for.map(Again::FreshFor), ..Self::of(text, keys) })
            }
            // Its own hint takes the place of what HTTP says (SPIFFE Federation, section 4.1).
            Owner::TrustDomain(_) => {
                let SpiffeBundle { keys, authorities, sequence, refresh_hint } = SpiffeBundle::parse(text)?;
                Ok(Self { sequence, again: refresh_hint.map(Again::Hint), authorities, ..Self::of(text, keys) })
            }
        }
    }

    /// The key set of a trust domain as the Workload API hands it out.
    pub(super) fn of_workload_api(text: &[u8]) -> Result<Self, String> {
        Ok(Self::of(text, KeySet::parse(text, Use::WorkloadApi)?))
    }

    /// Keys alone.
    fn of(text: &[u8], keys: KeySet) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, text).as_ref());
        Self { keys, digest: hash, sequence: None, again: None, authorities: Vec::new(), roots: None }
    }
}

/// Reads a file of keys.
///
/// # Errors
/// Why there is none, in words.
pub(super) fn read_file(path: &Path, owner: &Owner) -> Result<Document, String> {
    let text = file(path)?;
    let document = Document::read(&text, None, owner).map_err(|error| format!("`{}` {error}", path.display()))?;
    // What a bundle asks for is meant for its endpoint.
    Ok(Document { again: None, ..document })
}

/// Reads the bundle by whose authorities an endpoint proves itself the first time; beside them, which bundle it is.
///
/// # Errors
/// Why there is none, in words.
pub(super) fn read_bootstrap(path: &Path) -> Result<(Arc<RootCertStore>, Option<u64>), String> {
    let read = |text: &[u8]| {
        let Bootstrap { authorities, sequence } = Bootstrap::parse(text)?;
        Ok((roots(&authorities)?, sequence))
    };
    read(&file(path)?).map_err(|error: String| format!("`bootstrap_file`: `{}` {error}", path.display()))
}

fn file(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("`{}`: {error}", path.display());
    // Reading a pipe would wait for its writer.
    if !path.metadata().map_err(failed)?.is_file() {
        return Err(format!("`{}` is no file", path.display()));
    }
    let mut text = Vec::new();
    // One byte more than may be is enough to see that it is too long.
    let most = MAX_BYTES as u64 + 1;
    File::open(path).map_err(failed)?.take(most).read_to_end(&mut text).map_err(failed)?;
    Ok(text)
}

/// Brings what a source holds now.
///
/// # Errors
/// Why it brought nothing, in words that hold nothing of what was answered.
pub(super) async fn bring<F: Fetch>(
    location: &Location,
    owner: &Owner,
    source: &Source,
    fetcher: Option<&F>,
) -> Result<Document, String> {
    let page = match location {
        Location::File(path) => {
            let (path, owner) = (path.clone(), owner.clone());
            let read = tokio::task::spawn_blocking(move || read_file(&path, &owner));
            return read.await.unwrap_or_else(|_| Err("reading the file panicked".into()));
        }
        Location::Url(url) => get(fetcher, url, "the key set").await?,
        Location::Endpoint { url, .. } => get(fetcher, url, "the bundle").await?,
        Location::WorkloadApi => return Err("the Workload API is not asked for it alone".into()),
        Location::Discovery { issuer, metadata } => {
            let page = get(fetcher, metadata, "the metadata").await?;
            let url =
                keys_url(&page.body, issuer, metadata, source).map_err(|error| format!("the metadata {error}"))?;
            get(fetcher, &url, "the key set").await?
        }
    };
    let refused = |error| format!("the key set {error}");
    let mut document = Document::read(&page.body, page.fresh_for, owner).map_err(refused)?;
    if let Location::Endpoint { .. } = location {
        document.roots = Some(roots(&document.authorities).map_err(refused)?);
    }
    Ok(document)
}

async fn get<F: Fetch>(fetcher: Option<&F>, url: &Uri, what: &str) -> Result<Page, String> {
    let fetcher = fetcher.ok_or("nothing fetches it")?;
    fetcher.get(url).await.map_err(|error| format!("{what}: the provider {error}"))
}

/// Where the metadata of an issuer say that its keys are (OpenID Connect Discovery 1.0, sections 3 and 4.3).
fn keys_url(text: &[u8], issuer: &str, metadata: &Uri, source: &Source) -> Result<Uri, String> {
    let json = Json::parse(text, &METADATA_LIMITS).map_err(|reason| format!("are no JSON that is read: {reason}"))?;
    let member = |name: &str| json.get(name).and_then(Json::as_str);
    // Byte by byte: else an issuer could have another's keys taken for its own.
    if member("issuer") != Some(issuer) {
        return Err("are those of another issuer".into());
    }
    let url = member("jwks_uri").ok_or("have no `jwks_uri`")?;
    let url = source.url(url).map_err(|error| format!("have a `jwks_uri` that is not fetched: {error}"))?;
    if metadata.scheme() == Some(&Scheme::HTTPS) && url.scheme() != Some(&Scheme::HTTPS) {
        return Err("have a `jwks_uri` that is not fetched: it is not `https`, as they are".into());
    }
    Ok(url)
}
