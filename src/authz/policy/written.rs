//! Policies and templates as they are written: parsed a piece of a file at a time, annotated, each with its place.

use std::sync::Arc;

use cedar_policy::PolicySet;

use super::cedar::{self, Policy, Template};
use super::demands::Demands;
use super::engine::PolicyInfo;
use super::grantable::{self, Terms};
use super::nesting;
use super::source::{BundleError, line_of};
use super::validation::Validation;
use crate::authz::metering::{Limit, LimitSet};

/// Annotations that Palisade knows; any other one is a misspelling.
const ANNOTATIONS: &[&str] = &["id", "reason", "message", "control", "step_up", "scopes", "limit", "grant"];

/// Longest id, in bytes: it is in every record of what it decides, and a line of what is told to people.
const MAX_ID_BYTES: usize = 256;
/// Longest other annotation, in bytes: records repeat it.
const MAX_ANNOTATION_BYTES: usize = 2048;

/// How many policies are parsed at once: as many as take a fraction of a millisecond.
const PIECE: usize = 16;

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

/// A policy or a template, and where it comes from.
pub(super) struct Written<'f> {
    pub(super) file: &'f str,
    pub(super) text: &'f str,
    /// Where in the text it begins.
    at: usize,
    /// Where in the text the piece begins that it was parsed with.
    piece: usize,
    pub(super) info: Arc<PolicyInfo>,
    /// What links are made of; of a static policy nothing is kept here.
    pub(super) template: Option<Arc<Template>>,
    /// What grants may say that link it, if they may.
    pub(super) grantable: Option<Terms>,
}

/// A policy that needs no link; `None` for a template.
pub(super) fn static_policy(policy: &Written<'_>, template: &Arc<Template>) -> Result<Option<Policy>, BundleError> {
    if !template.is_static() {
        return Ok(None);
    }
    Template::try_as_policy(template.clone()).map(Some).map_err(|error| policy.wrong(error.to_string()))
}

/// One policy or template, as Cedar's public API takes it.
pub(super) fn alone(policy: &Written<'_>, template: &Arc<Template>) -> Result<PolicySet, BundleError> {
    let mut set = cedar::PolicySet::new();
    let added = match static_policy(policy, template)? {
        Some(made) => set.add(made).map_err(|error| error.to_string()),
        None => set.add_template((**template).clone()).map_err(|error| error.to_string()),
    };
    added.map_err(|error| policy.wrong(error))?;
    Ok(set.into())
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
}

/// Strict validation at level 1 by Cedar itself; warnings are errors too, for they name policies that can never apply.
///
/// # Errors
/// The first thing that is wrong with a policy, or the first warning, by their places.
pub(super) fn judge(validation: &Validation<'_>, policy: &Written<'_>, set: &PolicySet) -> Result<(), BundleError> {
    let judged = validation.judge(set);
    let place = |found: &dyn miette::Diagnostic| {
        found.labels().and_then(|mut labels| labels.next()).map_or(0, |label| label.offset())
    };
    let say =
        |found: &dyn miette::Diagnostic| BundleError::diagnostic_from(policy.file, policy.text, policy.piece, found);
    let error = judged.validation_errors().min_by_key(|error| (place(*error), error.to_string()));
    let warning = judged.validation_warnings().min_by_key(|warning| (place(*warning), warning.to_string()));
    match error.map(|error| say(error)).or_else(|| warning.map(|warning| say(warning))) {
        Some(wrong) => Err(wrong),
        None => Ok(()),
    }
}

/// Visits the policies and templates of a file, in its order.
pub(super) fn read_file<'f>(
    file: &'f str,
    text: &'f str,
    limits: &LimitSet,
    between: &dyn Fn(),
    mut visit: impl FnMut(Written<'f>, Arc<Template>) -> Result<(), BundleError>,
) -> Result<(), BundleError> {
    nesting::check(text, false).map_err(|deep| BundleError::at(file, text, deep.at, deep.what))?;
    let mut visited = 0;
    for (begin, piece) in nesting::pieces(text, PIECE) {
        between();
        let set = cedar::parse_policyset(piece).map_err(|errors| match errors.iter().next() {
            Some(first) => BundleError::diagnostic_from(file, text, begin, first),
            None => BundleError::new(file, errors.to_string()),
        })?;
        let offset = |template: &Template| template.loc().map_or(0, |loc| loc.span.offset());
        let mut templates: Vec<(usize, &Template)> =
            set.all_templates().map(|template| (begin + offset(template), template)).collect();
        templates.sort_by_key(|(at, _)| *at);
        visited += templates.len();
        for (at, template) in templates {
            let (policy, template) = read_policy(file, text, (begin, at), template, limits)?;
            visit(policy, template)?;
        }
    }
    // A file that is being written is empty for a moment, and its forbids must not vanish with it.
    if visited == 0 {
        return Err(BundleError::new(file, "holds no policy; remove the file if that is meant"));
    }
    Ok(())
}

fn read_policy<'f>(
    file: &'f str,
    text: &'f str,
    (piece, at): (usize, usize),
    policy: &Template,
    limits: &LimitSet,
) -> Result<(Written<'f>, Arc<Template>), BundleError> {
    if policy.non_scope_constraints().is_some_and(nesting::is_too_deep) {
        let message = format!(
            "the conditions of a policy are nested deeper than {} levels, of which each `&&`, `||` or other \
             operator of a chain is one: compare with a set, or write several policies",
            nesting::MAX_LEVELS
        );
        return Err(BundleError::at(file, text, at, message));
    }
    let wrong = |message| BundleError::at(file, text, at, message);
    let info = info(policy, limits).map_err(wrong)?;
    let grantable = grantable::terms(policy, &info).map_err(wrong)?;
    let whole = Arc::new(policy.new_id(cedar::PolicyID::from_string(&info.id)));
    let template = (!whole.is_static()).then(|| whole.clone());
    Ok((Written { file, text, at, piece, info: Arc::new(info), template, grantable }, whole))
}

/// What is said of a policy: its annotations, all of them known.
fn info(policy: &Template, limits: &LimitSet) -> Result<PolicyInfo, String> {
    let annotations = || policy.annotations().map(|(name, annotation)| (name.as_ref(), annotation.val.as_str()));
    let value = |name: &str| annotation(policy, name);
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
    let demands = Demands::parse(value("step_up"), value("scopes"));
    let forbids = policy.effect() == cedar::Effect::Forbid;
    let limits = value("limit").map(|names| named(names, limits, forbids)).transpose();
    Ok(PolicyInfo {
        id: id.to_owned(),
        template: None,
        reason: reason.into(),
        message: value("message").map(Into::into),
        control: value("control").map(Into::into),
        demands: demands.map_err(|wrong| format!("policy `{id}`: {wrong}"))?.map(Arc::new),
        limits: limits.map_err(|wrong| format!("policy `{id}`: {wrong}"))?.unwrap_or_default(),
        grant: None,
        forbids,
    })
}

/// The value of an annotation.
pub(super) fn annotation<'p>(policy: &'p Template, name: &str) -> Option<&'p str> {
    policy.annotations().find(|(key, _)| key.as_ref() == name).map(|(_, annotation)| annotation.val.as_str())
}

/// The limits that `@limit` names, separated by single spaces.
fn named(names: &str, limits: &LimitSet, forbids: bool) -> Result<Arc<[Arc<Limit>]>, String> {
    if forbids {
        return Err("`@limit` is of a permit: it counts only while the limit holds".into());
    }
    let find =
        |name: &str| limits.get(name).cloned().ok_or_else(|| format!("`@limit`: limits.toml has no limit `{name}`"));
    let found: Vec<_> = names.split(' ').map(find).collect::<Result<_, _>>()?;
    let twice = found.iter().enumerate().any(|(at, limit)| found.iter().take(at).any(|other| other.name == limit.name));
    if twice { Err("`@limit` names a limit twice".into()) } else { Ok(found.into()) }
}
