//! The policies of a bundle: parsed, annotated, linked, validated strictly, and checked for names that nothing declares.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use cedar_policy::{PolicySet, Schema};

use super::cedar::{self, Entity, EntityType, SlotEnv, SlotId, Template, uid};
use super::engine::{Builder, Engine};
use super::grantable::has_resource_slot;
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
        let limits = texts.limits()?;
        for (file, text) in texts.of(Kind::Policies) {
            read_file(file, text, &limits, between, |policy, template| {
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
        // Which templates there are is known once all is read.
        let (mut visited, mut named) = (0, Vec::new());
        let policies = Self::read(texts, between, |policy, template| {
            named.extend(literals::of(template).filter(|uid| is_template(uid)).map(|uid| (visited, uid.clone())));
            visited += 1;
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
        policies.check_templates(&named)?;
        for policy in &policies.written {
            let (Some(terms), Some(template)) = (policy.grantable, &policy.template) else { continue };
            let fits = fitting(schema, &validation, template);
            if has_resource_slot(template) && fits.is_empty() {
                let message = format!("policy `{}`: nothing that there is can fill its `?resource`", policy.info.id);
                return Err(policy.wrong(message));
            }
            builder
                .add_grantable(policy.info.clone(), terms, template, fits)
                .ok_or_else(|| policy.wrong(format!("policy `{}`: its scope cannot be a grant's", policy.info.id)))?;
        }
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

    /// Whether what policies name as templates for grants is such a template.
    fn check_templates(&self, named: &[(usize, Arc<cedar::EntityUID>)]) -> Result<(), BundleError> {
        let all: HashSet<&str> =
            self.written.iter().filter(|it| it.grantable.is_some()).map(|it| it.info.id.as_str()).collect();
        let unknown = named.iter().find(|(_, uid)| !all.contains(cedar::id_of(uid)));
        match unknown.and_then(|(at, uid)| Some((self.written.get(*at)?, uid))) {
            None => Ok(()),
            Some((policy, uid)) => {
                let what = "is no template of this bundle that has `@grant`";
                Err(policy.wrong(names(&policy.info.id, uid, what)))
            }
        }
    }

    /// All of them, as Cedar's public API takes them.
    pub(super) fn set(texts: &Texts<'f>) -> Result<PolicySet, BundleError> {
        let mut set = cedar::PolicySet::new();
        let policies = Self::read(texts, &|| {}, |policy, template| match static_policy(policy, template)? {
            Some(made) => set.add(made).map_err(|error| policy.wrong(error.to_string())),
            // For the links that grants are.
            None if policy.grantable.is_some() => {
                set.add_template((**template).clone()).map_err(|error| policy.wrong(error.to_string()))
            }
            None => Ok(()),
        })?;
        for link in &policies.links {
            set.add(link.policy(&policies.written)?).map_err(|error| link.wrong(error.to_string()))?;
        }
        Ok(set.into())
    }

    /// Templates that nothing links and no grant may: they do nothing.
    fn unlinked(&self) -> impl Iterator<Item = &str> {
        let linked: HashSet<usize> = self.links.iter().map(|link| link.template).collect();
        let templates = self.written.iter().enumerate().filter(|(_, policy)| policy.template.is_some());
        let idle = templates.filter(move |(at, policy)| !linked.contains(at) && policy.grantable.is_none());
        idle.map(|(_, policy)| policy.info.id.as_str())
    }
}

/// The entity types with which a template is valid where it says `?resource`: what Cedar's own validator accepts of each.
fn fitting(schema: &Schema, validation: &Validation<'_>, template: &Arc<Template>) -> Vec<EntityType> {
    let (Some(agent), true) = (cedar::entity_type("Agent"), has_resource_slot(template)) else { return Vec::new() };
    let core: &cedar::ValidatorSchema = schema.as_ref();
    let fits = |ty: &&EntityType| {
        let values = [(SlotId::principal(), uid(&agent, "spiffe://a/a")), (SlotId::resource(), uid(ty, "a"))];
        let slots: SlotEnv = values.into_iter().collect();
        let Ok(link) = Template::link(template.clone(), cedar::PolicyID::from_string("link"), slots) else {
            return false;
        };
        let mut set = cedar::PolicySet::new();
        set.add(link).is_ok() && {
            let judged = validation.judge(&set.into());
            judged.validation_passed_without_warnings()
        }
    };
    let mut types: Vec<EntityType> = core.entity_type_names().filter(fits).cloned().collect();
    types.sort();
    types
}

fn is_template(uid: &cedar::EntityUID) -> bool {
    uid.entity_type().to_string() == "Template"
}

fn names(id: &str, uid: &cedar::EntityUID, what: &str) -> String {
    format!("policy `{id}` names `{uid}`, which {what}")
}
