//! Reading the files of a bundle: schema, targets, registries and entities.

use std::collections::BTreeSet;
use std::sync::Arc;

use cedar_policy::{Entities, Schema, SchemaFragment};
use serde::Deserialize;

use super::cedar::{self, EntityUID, entity_type, uid};
use super::entities;
use super::entities::ingest::{Ingest, Source};
use super::entities::store::Store;
use super::expansion;
use super::nesting;
use super::registry::Registry;
use super::source::{ABOUT, BundleError, Chain, Kind, SourceFile, place_of, quoted};
use crate::authz::call::{a2a, http};
use crate::authz::identity::spiffe::SpiffeId;
use crate::authz::metering::LimitSet;
use crate::authz::request::Connection;
use crate::authz::target::{Match, Protocol, Target, TokenUse};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetsFile {
    #[serde(default)]
    target: Vec<Target>,
}

/// `bundle.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AboutFile {
    version: String,
}

/// Longest version of a bundle, in bytes.
const MAX_VERSION_BYTES: usize = 64;

/// The files of a bundle as texts, by kind, each kind in the order of names.
pub(super) struct Texts<'f> {
    files: Vec<(Kind, &'f str, &'f str)>,
}

impl<'f> Texts<'f> {
    pub(super) fn sort(files: &'f [SourceFile]) -> Result<Self, BundleError> {
        let mut sorted = Vec::with_capacity(files.len());
        for file in files {
            let kind = Kind::of(&file.name).ok_or_else(|| {
                let known = "*.cedarschema, *.cedar, *.links.json, *.entities.json, *.tools.json, targets.toml, limits.toml, bundle.toml or *.md";
                BundleError::new(&file.name, format!("a bundle knows no such file; expected {known}"))
            })?;
            let text =
                std::str::from_utf8(&file.bytes).map_err(|_| BundleError::new(&file.name, "is not UTF-8 text"))?;
            if text.starts_with('\u{feff}') || text.contains('\0') {
                return Err(BundleError::new(&file.name, "holds a byte order mark or NUL; expected plain UTF-8 text"));
            }
            sorted.push((kind, file.name.as_str(), text));
        }
        sorted.sort_by_key(|(_, name, _)| *name);
        Ok(Self { files: sorted })
    }

    pub(super) fn of(&self, kind: Kind) -> impl Iterator<Item = (&'f str, &'f str)> {
        self.files.iter().filter(move |(other, ..)| *other == kind).map(|(_, name, text)| (*name, *text))
    }

    /// All schema files are one schema: they are put behind one another, so that the place of any error, also
    /// of one between two files, leads back to its file.
    pub(super) fn schema(&self) -> Result<Schema, BundleError> {
        let mut whole = String::new();
        let mut begins = Vec::new();
        for (name, text) in self.of(Kind::Schema) {
            nesting::check(text, true).map_err(|deep| BundleError::at(name, text, deep.at, deep.what))?;
            begins.push((whole.len(), name, text));
            whole.push_str(text);
            whole.push('\n');
        }
        if begins.is_empty() {
            return Err(BundleError::new("", "there is no schema; expected at least one *.cedarschema file"));
        }
        let placed = |error: &dyn miette::Diagnostic| {
            let label = error.labels().and_then(|mut labels| labels.next());
            let file = label.and_then(|label| {
                begins.iter().rev().find(|(begin, ..)| *begin <= label.offset()).map(|found| (label.offset(), found))
            });
            let unplaced = BundleError::diagnostic("*.cedarschema", "", error);
            match file {
                Some((offset, (begin, name, text))) => BundleError::at(name, text, offset - begin, unplaced.message),
                None => BundleError { line: None, ..unplaced },
            }
        };
        // File by file first: a syntax error must not run over into the next file.
        let mut fragments = Vec::new();
        for (name, text) in self.of(Kind::Schema) {
            let (fragment, _warnings) = SchemaFragment::from_cedarschema_str(text)
                .map_err(|error| BundleError::diagnostic(name, text, &error))?;
            let json = fragment.to_json_value().map_err(|error| BundleError::diagnostic(name, text, &error))?;
            fragments.push(json);
        }
        expansion::check(&fragments).map_err(|message| BundleError::new("*.cedarschema", message))?;
        let (schema, _warnings) = Schema::from_cedarschema_str(&whole).map_err(|error| placed(&error))?;
        if !schema.is_complete() {
            let message = "`external` stands for what another schema declares; expected everything declared here";
            return Err(self.schema_error(&["external ".to_owned()], message));
        }
        Ok(schema)
    }

    /// An error at the first of `needles` that a schema file holds.
    pub(super) fn schema_error(&self, needles: &[String], message: &str) -> BundleError {
        let place = needles.iter().find_map(|needle| {
            self.of(Kind::Schema).find_map(|(name, text)| place_of(text, needle).map(|at| (name, text, at)))
        });
        match place {
            Some((name, text, at)) => BundleError::at(name, text, at, message),
            None => BundleError::new("", message),
        }
    }

    pub(super) fn targets(&self) -> Result<Vec<Arc<Target>>, BundleError> {
        let Some((name, text)) = self.of(Kind::Targets).min_by_key(|(name, _)| name.len()) else {
            return Err(BundleError::new("", "there is no targets.toml"));
        };
        if let Some((other, _)) = self.of(Kind::Targets).find(|(other, _)| *other != name) {
            return Err(BundleError::new(name, format!("there is `{other}` as well; expected one in a bundle")));
        }
        let file: TargetsFile = read_toml(name, text)?;
        let mut names = BTreeSet::new();
        for target in &file.target {
            let wrong = |message: String| BundleError::new(name, format!("target `{}`: {message}", target.name));
            check_target(target).map_err(wrong)?;
            if !names.insert(target.name.clone()) {
                return Err(wrong("is there twice".into()));
            }
        }
        Ok(file.target.into_iter().map(Arc::new).collect())
    }

    /// What the author of the bundle calls it, if there is a `bundle.toml`.
    pub(super) fn version(&self) -> Result<Option<Arc<str>>, BundleError> {
        let mut files = self.of(Kind::About);
        let Some((name, text)) = files.next() else { return Ok(None) };
        if let Some((other, _)) = files.chain([(name, text)]).find(|(other, _)| *other != ABOUT) {
            return Err(BundleError::new(other, format!("is not at the top of the bundle, where `{ABOUT}` has to be")));
        }
        let AboutFile { version } = read_toml(name, text)?;
        let is_plain = version.bytes().all(|byte| byte.is_ascii_graphic());
        if version.is_empty() || version.len() > MAX_VERSION_BYTES || !is_plain {
            let message = format!("`version`: expected 1 to {MAX_VERSION_BYTES} printable ASCII characters, no spaces");
            return Err(BundleError::near(name, text, "version", message));
        }
        Ok(Some(version.into()))
    }

    pub(super) fn limits(&self) -> Result<LimitSet, BundleError> {
        let Some((name, text)) = self.of(Kind::Limits).min_by_key(|(name, _)| name.len()) else {
            return Ok(LimitSet::default());
        };
        if let Some((other, _)) = self.of(Kind::Limits).find(|(other, _)| *other != name) {
            return Err(BundleError::new(name, format!("there is `{other}` as well; expected one in a bundle")));
        }
        LimitSet::parse(name, text)
    }

    pub(super) fn registries(&self, targets: &[Arc<Target>]) -> Result<Vec<(&'f str, Registry)>, BundleError> {
        let mut registries: Vec<(&str, Registry)> = Vec::new();
        for (name, text) in self.of(Kind::Tools) {
            let registry = Registry::parse(name, text)?;
            let wrong = |message: String| Err(BundleError::new(name, message));
            match targets.iter().find(|target| *target.name == *registry.server) {
                None => {
                    return wrong(format!(
                        "server `{}` is no target: targets.toml needs a `[[target]]` of that name",
                        registry.server
                    ));
                }
                Some(target) if target.protocol != Protocol::Mcp => {
                    return wrong(format!("server `{}` does not speak mcp, so it has no tools", registry.server));
                }
                Some(_) if registries.iter().any(|(_, other)| other.server == registry.server) => {
                    return wrong(format!("server `{}` has another registry already", registry.server));
                }
                Some(_) => registries.push((name, registry)),
            }
        }
        Ok(registries)
    }

    /// The entities, as Cedar's public API takes them: for [`Reference`](super::Reference).
    pub(super) fn entities(
        &self,
        schema: &Schema,
        targets: &[Arc<Target>],
        registries: &[(&str, Registry)],
    ) -> Result<Entities, BundleError> {
        let mut all = own_entities(targets, registries);
        for (name, text) in self.of(Kind::Entities) {
            all.extend(entities::read_file(name, text)?);
        }
        Entities::from_json_value(all.into(), Some(schema))
            .map_err(|error| BundleError::diagnostic("*.entities.json", "", &Chain(&error)))
    }

    /// The entities; what the store of the bundle before holds of them already is not read again.
    pub(super) fn store(
        &self,
        schema: &Schema,
        targets: &[Arc<Target>],
        registries: &[(&str, Registry)],
        previous: Option<&Store>,
    ) -> Result<Store, BundleError> {
        let own = serde_json::Value::from(own_entities(targets, registries)).to_string();
        let mut sources = vec![Source { name: "targets.toml and *.tools.json", text: &own, own: true }];
        sources.extend(self.of(Kind::Entities).map(|(name, text)| Source { name, text, own: false }));
        let schema_texts: Vec<_> = self.of(Kind::Schema).collect();
        let read = |previous| {
            let read = Ingest::read(schema, &schema_texts, &sources, previous)?;
            self.check_groups(&read.store, targets, registries)?;
            read.settle()
        };
        match (read(previous), previous) {
            // What is wrong is said as at a start, and no update is refused that a start would take.
            (Err(_), Some(_)) => read(None),
            (result, _) => result,
        }
    }

    /// Whatever something is in has to be declared: a misspelled group would silently be a group of its own, of which no
    /// policy speaks. Here for what `targets.toml` and registries say; the store sees to the rest.
    fn check_groups(
        &self,
        store: &Store,
        targets: &[Arc<Target>],
        registries: &[(&str, Registry)],
    ) -> Result<(), BundleError> {
        let (Some(tool_group), Some(server_group)) = (entity_type("ToolGroup"), entity_type("ServerGroup")) else {
            return Err(BundleError::new("", "entity types"));
        };
        let mut configured: Vec<(&str, &str, &str, EntityUID)> = Vec::new();
        let targets_file = self.of(Kind::Targets).next().map_or("", |(name, _)| name);
        for target in targets {
            let groups = target.groups.iter().map(|group| uid(&server_group, group));
            configured.extend(groups.map(|group| (targets_file, "target", &*target.name, group)));
        }
        for (name, registry) in registries {
            for tool in &registry.tools {
                let groups = tool.groups.iter().map(|group| uid(&tool_group, group));
                configured.extend(groups.map(|group| (*name, "tool", tool.name.as_str(), group)));
            }
        }
        let Some((file, kind, who, group)) = configured.iter().find(|(.., group)| !store.contains(group)) else {
            return Ok(());
        };
        let text = self.files.iter().find(|(_, name, _)| name == file).map_or("", |(.., text)| text);
        let message = format!("{kind} `{who}` is in `{group}`, which nothing in the bundle declares");
        Err(BundleError::near(file, text, &quoted(cedar::id_of(group)), message))
    }
}

fn read_toml<T: serde::de::DeserializeOwned>(name: &str, text: &str) -> Result<T, BundleError> {
    toml::from_str(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        // Some messages have a second line, of what was expected.
        BundleError::at(name, text, offset, error.message().replace('\n', "; "))
    })
}

/// The entities that follow from targets and registries.
fn own_entities(targets: &[Arc<Target>], registries: &[(&str, Registry)]) -> Vec<serde_json::Value> {
    let servers = targets.iter().map(|target| entities::server_json(target));
    servers.chain(registries.iter().flat_map(|(_, registry)| entities::tools_json(registry))).collect()
}

/// Of a URL, as it can stand in JSON and in a browser's address.
fn is_url_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:/?@!$&'()*+,;=%".contains(&byte)
}

/// What the types of its `match` cannot say.
fn check_match(matches: &Match) -> Result<(), String> {
    if matches.is_empty() {
        return Err("`match` names no condition, so it would take every call".into());
    }
    if let Some(Err(error)) = matches.destination_principal.as_deref().map(SpiffeId::parse) {
        return Err(format!("`destination_principal` is no SPIFFE ID: {error}"));
    }
    if let Some(prefix) = matches.path_prefix.as_deref() {
        if !prefix.starts_with('/') {
            return Err("`path_prefix` has to start with `/`".into());
        }
        if http::canonical_path(prefix).as_deref() != Ok(prefix) {
            return Err("`path_prefix` has to be a path as requests have it: no query, no dot segments".into());
        }
    }
    if matches.authority.as_deref().is_some_and(|host| http::canonical_host(host).as_deref() != Some(host)) {
        return Err("`authority` has to be a lower-case host without port".into());
    }
    let is_server_name = |sni: &String| {
        let connection = Connection { sni: Some(sni.as_str().into()), ..Connection::default() };
        connection.server_name().is_ok_and(|name| name.as_ref() == Some(sni))
    };
    if !matches.sni.as_ref().is_none_or(is_server_name) {
        return Err("`sni` has to be a lower-case host name".into());
    }
    Ok(())
}

/// What the types of `targets.toml` cannot say.
fn check_target(target: &Target) -> Result<(), String> {
    let (matches, protocol) = (&target.matches, target.protocol);
    if target.name.is_empty() || target.name.contains('/') {
        return Err("a name is not empty and holds no `/`".into());
    }
    check_match(matches)?;
    let is_path = |path: &String| path.starts_with('/') && http::canonical_path(path).as_deref() == Ok(path);
    for (key, paths) in [("message_paths", &target.message_paths), ("stream_paths", &target.stream_paths)] {
        if !paths.iter().all(is_path) {
            return Err(format!("`{key}` have to be paths as requests have them: no query, no dot segments"));
        }
    }
    if target.rest_prefix.as_ref().is_some_and(|prefix| !is_path(prefix) || prefix.ends_with('/')) {
        return Err("`rest_prefix` has to be a path as requests have it, without a slash at its end".into());
    }
    a2a::check(target)?;
    if !target.message_paths.is_empty() && !matches!(protocol, Protocol::Mcp | Protocol::A2a) {
        return Err("`message_paths` are for targets that speak mcp or a2a".into());
    }
    if !target.stream_paths.is_empty() && protocol != Protocol::Mcp {
        return Err("`stream_paths` are for targets that speak mcp".into());
    }
    if !target.allowed_origins.is_empty() && protocol != Protocol::Mcp {
        return Err("`allowed_origins` are for targets that speak mcp".into());
    }
    if target.denial.is_some() && !matches!(protocol, Protocol::Mcp | Protocol::A2a) {
        return Err("`denial` is for targets that speak mcp or a2a".into());
    }
    if target.audiences.iter().any(String::is_empty) {
        return Err("`audiences` are names of the target in tokens, and none is empty".into());
    }
    if target.tokens == TokenUse::Ignore && (!target.audiences.is_empty() || target.resource_metadata.is_some()) {
        return Err("`audiences` and `resource_metadata` mean nothing where `tokens` are ignored".into());
    }
    let is_url = |url: &String| {
        let host = url.strip_prefix("https://").and_then(|rest| rest.split(['/', '?']).next());
        host.is_some_and(|host| http::canonical_host(host).is_some()) && url.bytes().all(is_url_byte)
    };
    if !target.step_up_url.as_ref().is_none_or(is_url) {
        return Err("`step_up_url` is an https URL without a fragment".into());
    }
    if target.step_up_url.is_some() && (protocol != Protocol::Mcp || target.tokens == TokenUse::Ignore) {
        return Err("`step_up_url` is for targets that speak mcp and whose tokens are not ignored".into());
    }
    if protocol == Protocol::Opaque && target.resource_metadata.is_some() {
        return Err("`resource_metadata` is read with the path of a request, which opaque targets do not read".into());
    }
    if target.unregistered_tools.is_some() && protocol != Protocol::Mcp {
        return Err("`unregistered_tools` is for targets that speak mcp".into());
    }
    if target.batches.is_some() && protocol != Protocol::Mcp {
        return Err("`batches` is for targets that speak mcp".into());
    }
    Ok(())
}
