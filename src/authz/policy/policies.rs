//! The policies of a bundle: parsed, annotated, linked, validated strictly, and checked for names that nothing declares.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use cedar_policy::{PolicySet, Schema};

use super::cedar::{self, Entity, Template};
use super::engine::{Builder, Engine};
use super::links::{self, Link};
use super::literals::{self, Nameable};
use super::load::Texts;
use super::source::{BundleError, Kind};
use super::validation::Validation;
use super::written::{Written, alone, judge, read_file, static_policy, there_twice};

/// The policies with the places they come from.
pub(super) struct Policies<'f> {
    /// Static policies and templates, in the order of the bundle.
    written: Vec<Written<'f>>,
    /// What fills the templates, in the order of the bundle.
    links: Vec<Link<'f>>,
}

impl<'f> Policies<'f> {
    /// Reads policies, templates and links. `visit` is shown each policy and template as it is parsed: what it does not
    /// keep is gone with its piece of the file, for syntax trees are much larger than what is made of them. `between` is called
    /// between two pieces.
    fn read(
        texts: &Texts<'f>,
        between: &dyn Fn(),
        mut visit: impl FnMut(&Written<'f>, &Arc<Template>) -> Result<(), BundleError>,
    ) -> Result<Self, BundleError> {
        let mut written: Vec<Written<'f>> = Vec::new();
        let mut by_id: HashMap<String, usize> = HashMap::new();
        for (file, text) in texts.of(Kind::Policies) {
            read_file(file, text, between, |policy, template| {
                let before = by_id.insert(policy.info.id.clone(), written.len()).and_then(|at| written.get(at));
                if let Some(before) = before {
                    return Err(policy.wrong(there_twice(&policy.info.id, &before.place())));
                }
                visit(&policy, &template)?;
                written.push(policy);
                Ok(())
            })?;
        }
        if written.is_empty() {
            let message =
                "there is no policy at all, so nothing could ever be permitted; expected at least one *.cedar file";
            return Err(BundleError::new("", message));
        }
        let links = links::read(texts, &written, &by_id)?;
        Ok(Self { written, links })
    }

    /// Compiles the policies of a bundle for `actions`, all of them valid and about what there is.
    pub(super) fn compile(
        texts: &Texts<'f>,
        schema: &Schema,
        nameable: &Nameable<'_>,
        actions: Vec<Arc<Entity>>,
        between: &dyn Fn(),
    ) -> Result<(Engine, Vec<String>), BundleError> {
        let (validation, mut builder) = (Validation::new(schema), Builder::default());
        let policies = Self::read(texts, between, |policy, template| {
            if !validation.accepts(template) {
                judge(&validation, policy, &alone(policy, template)?)?;
            }
            for uid in literals::of(template) {
                nameable.check(uid).map_err(|what| policy.wrong(names(&policy.info.id, uid, &what)))?;
            }
            match static_policy(policy, template)? {
                Some(made) => builder.add(policy.info.clone(), &made).map_err(|error| policy.wrong(error)),
                None => Ok(()),
            }
        })?;
        links::validate(&validation, &policies.written, &policies.links)?;
        for link in &policies.links {
            for uid in link.values() {
                nameable.check(uid).map_err(|what| link.wrong(names(&link.info.id, uid, &what)))?;
            }
            let made = link.policy(&policies.written)?;
            builder.add(link.info.clone(), &made).map_err(|error| link.wrong(error))?;
        }
        Ok((builder.finish(actions), policies.unlinked().map(str::to_owned).collect()))
    }

    /// All of them, as Cedar's public API takes them.
    pub(super) fn set(texts: &Texts<'f>) -> Result<PolicySet, BundleError> {
        let mut set = cedar::PolicySet::new();
        let policies = Self::read(texts, &|| {}, |policy, template| match static_policy(policy, template)? {
            Some(made) => set.add(made).map_err(|error| policy.wrong(error.to_string())),
            None => Ok(()),
        })?;
        for link in &policies.links {
            set.add(link.policy(&policies.written)?).map_err(|error| link.wrong(error.to_string()))?;
        }
        Ok(set.into())
    }

    /// Templates that nothing links: they do nothing.
    fn unlinked(&self) -> impl Iterator<Item = &str> {
        let linked: HashSet<usize> = self.links.iter().map(|link| link.template).collect();
        let templates = self.written.iter().enumerate().filter(|(_, policy)| policy.template.is_some());
        templates.filter(move |(at, _)| !linked.contains(at)).map(|(_, policy)| policy.info.id.as_str())
    }
}

fn names(id: &str, uid: &cedar::EntityUID, what: &str) -> String {
    format!("policy `{id}` names `{uid}`, which {what}")
}
