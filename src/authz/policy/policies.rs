//! The policies of a bundle: parsed, annotated, linked, validated strictly, and checked for names that nothing declares.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use cedar_policy::{PolicySet, Schema};

use super::cedar::{self, Policy, Template};
use super::engine::PolicyInfo;
use super::links::{self, Link};
use super::literals::{self, Nameable};
use super::load::Texts;
use super::nesting;
use super::source::{BundleError, Kind, line_of};
use super::validation::Validation;

/// Annotations that Palisade knows; any other one is a misspelling.
const ANNOTATIONS: &[&str] = &["id", "reason", "message", "control"];

/// Longest id, in bytes: it is in every record of what it decides, and a line of what is told to people.
const MAX_ID_BYTES: usize = 256;
/// Longest other annotation, in bytes: records repeat it.
const MAX_ANNOTATION_BYTES: usize = 2048;

/// Whether a text can be the id of a policy.
///
/// # Errors
/// What is expected instead.
pub(super) fn check_id(id: &str) -> Result<(), String> {
    if id.trim().is_empty() || id.len() > MAX_ID_BYTES || id.chars().any(char::is_control) {
        return Err(format!("expected an id of 1 to {MAX_ID_BYTES} bytes, not blank and without control characters"));
    }
    Ok(())
}

/// The policies with the places they come from.
pub(super) struct Policies<'f> {
    /// Static policies and templates, in the order of the bundle.
    written: Vec<Written<'f>>,
    /// What fills the templates, in the order of the bundle.
    links: Vec<Link<'f>>,
}

/// A policy or a template, and where it comes from.
pub(super) struct Written<'f> {
    pub(super) file: &'f str,
    pub(super) text: &'f str,
    /// Where in the text it begins.
    at: usize,
    pub(super) info: Arc<PolicyInfo>,
    pub(super) template: Arc<Template>,
}

impl<'f> Policies<'f> {
    pub(super) fn read(texts: &Texts<'f>) -> Result<Self, BundleError> {
        let mut written: Vec<Written<'f>> = Vec::new();
        let mut by_id: HashMap<String, usize> = HashMap::new();
        for (file, text) in texts.of(Kind::Policies) {
            for policy in read_file(file, text)? {
                let before = by_id.insert(policy.info.id.clone(), written.len()).and_then(|at| written.get(at));
                if let Some(before) = before {
                    return Err(policy.wrong(there_twice(&policy.info.id, &before.place())));
                }
                written.push(policy);
            }
        }
        if written.is_empty() {
            let message =
                "there is no policy at all, so nothing could ever be permitted; expected at least one *.cedar file";
            return Err(BundleError::new("", message));
        }
        let links = links::read(texts, &written, &by_id)?;
        Ok(Self { written, links })
    }

    /// Strict validation at level 1; warnings are errors too, for they name policies that can never apply.
    pub(super) fn validate(&self, schema: &Schema) -> Result<(), BundleError> {
        let validation = Validation::new(schema);
        let mut warned = None;
        for policy in self.written.iter().filter(|policy| !validation.accepts(&policy.template)) {
            let (error, warning) = judge(&validation, policy, &policy.set()?);
            match error {
                Some(error) => return Err(error),
                None => warned = warned.or(warning),
            }
        }
        match warned {
            Some(warning) => Err(warning),
            None => links::validate(&validation, &self.written, &self.links),
        }
    }

    /// Groups, servers and tools that policies name have to exist; what is made per call has to be what can be made.
    pub(super) fn check_literals(&self, nameable: &Nameable<'_>) -> Result<(), BundleError> {
        let said =
            |id: &str, uid: &cedar::EntityUID, what: String| format!("policy `{id}` names `{uid}`, which {what}");
        for policy in &self.written {
            for uid in literals::of(&policy.template) {
                nameable.check(uid).map_err(|what| policy.wrong(said(&policy.info.id, uid, what)))?;
            }
        }
        for link in &self.links {
            for uid in link.values() {
                nameable.check(uid).map_err(|what| link.wrong(said(&link.info.id, uid, what)))?;
            }
        }
        Ok(())
    }

    /// What the engine evaluates: the static policies, then the links.
    pub(super) fn linked(&self) -> impl Iterator<Item = Result<(Arc<PolicyInfo>, Policy), BundleError>> {
        let fixed = self.written.iter().filter(|policy| policy.template.is_static()).map(|policy| {
            let made = Template::try_as_policy(policy.template.clone());
            made.map(|made| (policy.info.clone(), made)).map_err(|error| policy.wrong(error.to_string()))
        });
        fixed.chain(self.links.iter().map(|link| Ok((link.info.clone(), link.policy(&self.written)?))))
    }

    /// All of them, as Cedar's public API takes them.
    pub(super) fn set(&self) -> Result<PolicySet, BundleError> {
        let mut set = cedar::PolicySet::new();
        for policy in self.linked() {
            set.add(policy?.1).map_err(|error| BundleError::new("", error.to_string()))?;
        }
        Ok(set.into())
    }

    /// Templates that nothing links: they do nothing.
    pub(super) fn unlinked(&self) -> impl Iterator<Item = &str> {
        let linked: HashSet<usize> = self.links.iter().map(|link| link.template).collect();
        let templates = self.written.iter().enumerate().filter(|(_, policy)| !policy.template.is_static());
        templates.filter(move |(at, _)| !linked.contains(at)).map(|(_, policy)| policy.info.id.as_str())
    }
}

/// That an id is there twice; `before` is the place of the first.
pub(super) fn there_twice(id: &str, before: &str) -> String {
    format!("policy id `{id}` is there twice, first in {before}")
}

impl Written<'_> {
    /// File and line.
    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.file, line_of(self.text, self.at))
    }

    pub(super) fn wrong(&self, message: String) -> BundleError {
        BundleError::at(self.file, self.text, self.at, message)
    }

    /// It alone, as Cedar's public API takes it.
    pub(super) fn set(&self) -> Result<PolicySet, BundleError> {
        let mut set = cedar::PolicySet::new();
        let added = if self.template.is_static() {
            Template::try_as_policy(self.template.clone())
                .map_err(|error| error.to_string())
                .and_then(|policy| set.add(policy).map_err(|error| error.to_string()))
        } else {
            set.add_template((*self.template).clone()).map_err(|error| error.to_string())
        };
        added.map_err(|error| self.wrong(error))?;
        Ok(set.into())
    }
}

/// The first thing that is wrong with a policy, and the first warning, by their places.
pub(super) fn judge(
    validation: &Validation<'_>,
    policy: &Written<'_>,
    set: &PolicySet,
) -> (Option<BundleError>, Option<BundleError>) {
    let judged = validation.judge(set);
    let place = |found: &dyn miette::Diagnostic| {
        found.labels().and_then(|mut labels| labels.next()).map_or(0, |label| label.offset())
    };
    let say = |found: &dyn miette::Diagnostic| BundleError::diagnostic(policy.file, policy.text, found);
    let error = judged.validation_errors().min_by_key(|error| (place(*error), error.to_string()));
    let warning = judged.validation_warnings().min_by_key(|warning| (place(*warning), warning.to_string()));
    (error.map(|error| say(error)), warning.map(|warning| say(warning)))
}

/// The policies and templates of a file, in its order.
fn read_file<'f>(file: &'f str, text: &'f str) -> Result<Vec<Written<'f>>, BundleError> {
    nesting::check(text, false).map_err(|deep| BundleError::at(file, text, deep.at, deep.what))?;
    let set = cedar::parse_policyset(text).map_err(|errors| match errors.iter().next() {
        Some(first) => BundleError::diagnostic(file, text, first),
        None => BundleError::new(file, errors.to_string()),
    })?;
    let mut templates: Vec<(usize, &Template)> =
        set.all_templates().map(|template| (template.loc().map_or(0, |loc| loc.span.offset()), template)).collect();
    templates.sort_by_key(|(at, _)| *at);
    // A file that is being written is empty for a moment, and its forbids must not vanish with it.
    if templates.is_empty() {
        return Err(BundleError::new(file, "holds no policy; remove the file if that is meant"));
    }
    templates.into_iter().map(|(at, template)| read_policy(file, text, at, template)).collect()
}

fn read_policy<'f>(file: &'f str, text: &'f str, at: usize, policy: &Template) -> Result<Written<'f>, BundleError> {
    if policy.non_scope_constraints().is_some_and(nesting::is_too_deep) {
        let message = format!(
            "the conditions of a policy are nested deeper than {} levels, of which each `&&`, `||` or other \
             operator of a chain is one: compare with a set, or write several policies",
            nesting::MAX_LEVELS
        );
        return Err(BundleError::at(file, text, at, message));
    }
    let info = info(policy).map_err(|message| BundleError::at(file, text, at, message))?;
    let template = policy.new_id(cedar::PolicyID::from_string(&info.id));
    Ok(Written { file, text, at, info: Arc::new(info), template: Arc::new(template) })
}

/// What is said of a policy: its annotations, all of them known.
fn info(policy: &Template) -> Result<PolicyInfo, String> {
    let annotations = || policy.annotations().map(|(name, annotation)| (name.as_ref(), annotation.val.as_str()));
    let value = |name: &str| annotations().find(|(key, _)| *key == name).map(|(_, value)| value);
    if let Some((unknown, _)) = annotations().find(|(key, _)| !ANNOTATIONS.contains(key)) {
        return Err(format!("annotation `@{unknown}` is unknown; expected one of @{}", ANNOTATIONS.join(", @")));
    }
    let id = value("id").filter(|id| !id.is_empty()).ok_or("this policy has no `@id(\"…\")`")?;
    check_id(id).map_err(|expected| format!("`@id`: {expected}"))?;
    if let Some((name, _)) = annotations().find(|(_, value)| value.len() > MAX_ANNOTATION_BYTES) {
        return Err(format!("`@{name}` of policy `{id}` is longer than {MAX_ANNOTATION_BYTES} bytes"));
    }
    let Some(reason) = value("reason").filter(|reason| !reason.is_empty()) else {
        return Err(format!("policy `{id}` has no `@reason(\"…\")`"));
    };
    Ok(PolicyInfo {
        id: id.to_owned(),
        template: None,
        reason: reason.into(),
        message: value("message").map(Into::into),
        control: value("control").map(Into::into),
        forbids: policy.effect() == cedar::Effect::Forbid,
    })
}
