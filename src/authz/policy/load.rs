//! Reading the files of a bundle: schema, targets, registries and entities.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use cedar_policy::{Entities, Schema, SchemaFragment};
use serde::Deserialize;

use super::cedar::{self, EntityUID, entity_type, uid};
use super::entities;
use super::expansion;
use super::nesting;
use super::registry::Registry;
use super::source::{BundleError, Kind, SourceFile, place_of};
use crate::authz::call::http;
use crate::authz::identity::spiffe::SpiffeId;
use crate::authz::target::{Protocol, Target};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetsFile {
    #[serde(default)]
    target: Vec<Target>,
}

/// The files of a bundle as texts, by kind, each kind in the order of names.
pub(super) struct Texts<'f> {
    files: Vec<(Kind, &'f str, &'f str)>,
}

impl<'f> Texts<'f> {
    pub(super) fn sort(files: &'f [SourceFile]) -> Result<Self, BundleError> {
        let mut sorted = Vec::with_capacity(files.len());
        for file in files {
            let kind = Kind::of(&file.name).ok_or_else(|| {
                let known = "*.cedarschema, *.cedar, *.links.json, *.entities.json, *.tools.json, targets.toml or *.md";
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
        let file: TargetsFile = toml::from_str(text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            BundleError::at(name, text, offset, error.message())
        })?;
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

    pub(super) fn registries(&self, targets: &[Arc<Target>]) -> Result<Vec<(&'f str, Registry)>, BundleError> {
        let mut registries: Vec<(&str, Registry)> = Vec::new();
        for (name, text) in self.of(Kind::Tools) {
            let registry = Registry::parse(name, text)?;
            let wrong = |message: String| Err(BundleError::new(name, message));
            match targets.iter().find(|target| *target.name == *registry.server) {
                None => return wrong(format!("server `{}` is no target", registry.server)),
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

    pub(super) fn entities(
        &self,
        schema: &Schema,
        targets: &[Arc<Target>],
        registries: &[(&str, Registry)],
    ) -> Result<Entities, BundleError> {
        let mut own: Vec<serde_json::Value> = targets.iter().map(|target| entities::server_json(target)).collect();
        own.extend(registries.iter().flat_map(|(_, registry)| entities::tools_json(registry)));
        let parse = |name: &str, json: Vec<serde_json::Value>| {
            Entities::from_json_value(serde_json::Value::Array(json), Some(schema))
                .map_err(|error| BundleError::diagnostic(name, "", &Chain(&error)))
        };
        // Each file on its own first, so that an error names its file.
        let mut all = own.clone();
        for (name, text) in self.of(Kind::Entities) {
            let json = entities::read_file(name, text)?;
            parse(name, json.clone())?;
            all.extend(json);
        }
        parse("targets.toml and *.tools.json", own)?;
        let whole = parse("*.entities.json", all)?;
        self.check_groups(&whole, targets, registries)?;
        Ok(whole)
    }

    /// Whatever something is in has to be declared: a misspelled group would silently be a group of its own, of which no
    /// policy speaks. Only namespaces and trust domains follow from SPIFFE IDs.
    fn check_groups(
        &self,
        entities: &Entities,
        targets: &[Arc<Target>],
        registries: &[(&str, Registry)],
    ) -> Result<(), BundleError> {
        let core: &cedar::Entities = entities.as_ref();
        let declared: HashSet<&EntityUID> = core.iter().map(cedar::Entity::uid).collect();
        let (Some(tool_group), Some(server_group)) = (entity_type("ToolGroup"), entity_type("ServerGroup")) else {
            return Err(BundleError::new("", "entity types"));
        };
        let undeclared =
            |who: String, group: &EntityUID| format!("{who} is in `{group}`, which nothing in the bundle declares");
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
        if let Some((file, kind, who, group)) = configured.iter().find(|(.., group)| !declared.contains(group)) {
            let text = self.files.iter().find(|(_, name, _)| name == file).map_or("", |(.., text)| text);
            let message = undeclared(format!("{kind} `{who}`"), group);
            return Err(BundleError::near(file, text, &quoted(cedar::id_of(group)), message));
        }
        let follows = |parent: &EntityUID| entities::ID_TYPES.contains(&parent.entity_type().to_string().as_str());
        let lost = |entity: &cedar::Entity| {
            entity.parents().filter(|parent| !follows(parent) && !declared.contains(parent)).min().cloned()
        };
        let first = core.iter().filter_map(|entity| Some((entity.uid(), lost(entity)?))).min();
        let Some((member, group)) = first else { return Ok(()) };
        let id = quoted(cedar::id_of(member));
        let message = undeclared(format!("`{member}`"), &group);
        let place = self.of(Kind::Entities).find(|(_, text)| text.contains(&id));
        Err(place.map_or_else(
            || BundleError::new("*.entities.json", message.clone()),
            |(name, text)| BundleError {
                line: Some(entities::line_of_id(text, &id)),
                ..BundleError::new(name, message.clone())
            },
        ))
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// What the types of `targets.toml` cannot say.
fn check_target(target: &Target) -> Result<(), String> {
    let (matches, protocol) = (&target.matches, target.protocol);
    if target.name.is_empty() || target.name.contains('/') {
        return Err("a name is not empty and holds no `/`".into());
    }
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
    let is_path = |path: &String| path.starts_with('/') && http::canonical_path(path).as_deref() == Ok(path);
    if !target.message_paths.iter().all(is_path) {
        return Err("`message_paths` have to be paths as requests have them: no query, no dot segments".into());
    }
    if !target.message_paths.is_empty() && !matches!(protocol, Protocol::Mcp | Protocol::A2a) {
        return Err("`message_paths` are for targets that speak mcp or a2a".into());
    }
    if target.denial.is_some() && !matches!(protocol, Protocol::Mcp | Protocol::A2a) {
        return Err("`denial` is for targets that speak mcp or a2a".into());
    }
    if target.batches.is_some() && protocol != Protocol::Mcp {
        return Err("`batches` is for targets that speak mcp".into());
    }
    Ok(())
}

/// An error with its causes in one sentence: Cedar's entity errors keep the interesting part in them.
#[derive(Debug)]
struct Chain<'e, E>(&'e E);

impl<E: std::error::Error> std::fmt::Display for Chain<'_, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl<E: std::error::Error> std::error::Error for Chain<'_, E> {}
impl<E: std::error::Error> miette::Diagnostic for Chain<'_, E> {}
