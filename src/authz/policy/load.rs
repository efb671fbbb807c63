//! Reading the files of a bundle: schema, targets, registries and entities.

use std::collections::BTreeSet;
use std::sync::Arc;

use cedar_policy::{Entities, Schema, SchemaFragment};
use serde::Deserialize;

use super::entities;
use super::registry::Registry;
use super::source::{BundleError, Kind, SourceFile};
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
                let known = "*.cedarschema, *.cedar, *.entities.json, *.tools.json, targets.toml or *.md";
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

    pub(super) fn schema(&self) -> Result<Schema, BundleError> {
        let mut fragments = Vec::new();
        for (name, text) in self.of(Kind::Schema) {
            let (fragment, _warnings) = SchemaFragment::from_cedarschema_str(text)
                .map_err(|error| BundleError::diagnostic(name, text, &error))?;
            fragments.push(fragment);
        }
        if fragments.is_empty() {
            return Err(BundleError::new("", "there is no schema; expected at least one *.cedarschema file"));
        }
        let (name, text) = self.of(Kind::Schema).next().unwrap_or_default();
        Schema::from_schema_fragments(fragments).map_err(|error| BundleError::diagnostic(name, text, &error))
    }

    pub(super) fn targets(&self) -> Result<Vec<Arc<Target>>, BundleError> {
        let Some((name, text)) = self.of(Kind::Targets).next() else {
            return Err(BundleError::new("", "there is no targets.toml"));
        };
        let file: TargetsFile = toml::from_str(text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            BundleError::at(name, text, offset, error.message())
        })?;
        let mut names = BTreeSet::new();
        for target in &file.target {
            let wrong = |message: &str| BundleError::new(name, format!("target `{}`: {message}", target.name));
            if target.name.is_empty() || target.name.contains('/') {
                return Err(wrong("a name is not empty and holds no `/`"));
            }
            if !names.insert(target.name.clone()) {
                return Err(wrong("is there twice"));
            }
            if target.matches.is_empty() {
                return Err(wrong("`match` names no condition, so it would take every call"));
            }
            if let Some(principal) = &target.matches.destination_principal
                && let Err(error) = SpiffeId::parse(principal)
            {
                return Err(wrong(&format!("`destination_principal` is no SPIFFE ID: {error}")));
            }
            if target.matches.path_prefix.as_deref().is_some_and(|path| !path.starts_with('/')) {
                return Err(wrong("`path_prefix` has to start with `/`"));
            }
            if target
                .matches
                .authority
                .as_deref()
                .is_some_and(|host| crate::authz::call::http::canonical_host(host).as_deref() != Some(host))
            {
                return Err(wrong("`authority` has to be a lower-case host without port"));
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
        parse("*.entities.json", all)
    }
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
