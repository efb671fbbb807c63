//! What grants may say: templates with `@grant("seconds=28800 calls=50 task user")`.
//!
//! The annotation is the security engineer's word that grants may link a template, and the bounds of what they may say; without
//! it none may. The template's scope and conditions hold for a grant as they do for any link.

use std::sync::Arc;

use jiff::Timestamp;

use super::cedar::{
    self, Effect, EntityReference, EntityType, EntityUID, Expr, PrincipalOrResourceConstraint, Template,
};
use super::engine::PolicyInfo;
use super::needs::Needs;
use super::scope::{ActionScope, Known, Names, Scope};
use super::written::annotation;
use crate::authz::state::grant::Grant;

/// The longest that a grant may last, in seconds: a year is no just-in-time privilege.
pub const MAX_SECONDS: i64 = 31 * 86_400;
/// Most calls that a grant may allow, if it says how many.
const MAX_CALLS: u64 = 1_000_000;

/// The bounds of what grants may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// For how long, in seconds.
    pub seconds: i64,
    /// How many calls; absent, a grant need not say.
    pub calls: Option<u64>,
    /// Whether one has to be for a task.
    pub task: bool,
    /// Whether one has to be on a user's behalf.
    pub user: bool,
}

/// The terms of a template; `None` if no grant may link it.
///
/// # Errors
/// What is expected instead.
pub(super) fn terms(policy: &Template, info: &PolicyInfo) -> Result<Option<Terms>, String> {
    let Some(text) = annotation(policy, "grant") else { return Ok(None) };
    let wrong = |message: &str| Err(format!("policy `{}`: `@grant`: {message}", info.id));
    if policy.effect() != Effect::Permit {
        return wrong("a grant allows, so its template is a permit");
    }
    let is_slot = |constraint: &PrincipalOrResourceConstraint| {
        use PrincipalOrResourceConstraint as C;
        matches!(constraint, C::Eq(EntityReference::Slot(_)))
    };
    if !is_slot(policy.principal_constraint().as_inner()) {
        return wrong("a grant is one agent's: expected `principal == ?principal`");
    }
    let mut terms = Terms { seconds: 0, calls: None, task: false, user: false };
    let mut seen = Vec::new();
    for item in text.split(' ') {
        let (name, number) = item.split_once('=').map_or((item, None), |(name, number)| (name, Some(number)));
        if seen.contains(&name) {
            return wrong(&format!("`{name}` is there twice"));
        }
        seen.push(name);
        let whole = number.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit())).and_then(|n| n.parse().ok());
        match (name, number, whole) {
            ("seconds", _, Some(seconds)) if (1..=MAX_SECONDS).contains(&seconds) => terms.seconds = seconds,
            ("calls", _, Some(calls)) => {
                match u64::try_from(calls).ok().filter(|calls| (1..=MAX_CALLS).contains(calls)) {
                    Some(calls) => terms.calls = Some(calls),
                    None => return wrong(&format!("`calls` is from 1 to {MAX_CALLS}")),
                }
            }
            ("task", None, _) => terms.task = true,
            ("user", None, _) => terms.user = true,
            _ => {
                return wrong(&format!(
                    "expected `seconds=` (1 to {MAX_SECONDS}), and as it may be `calls=`, `task` and `user`, separated by single spaces"
                ));
            }
        }
    }
    if terms.seconds == 0 { wrong("`seconds=` says how long a grant may last") } else { Ok(Some(terms)) }
}

/// What a template says of the resource.
#[derive(Debug)]
enum Resource {
    /// The same for every grant.
    Said(Scope),
    /// What the grant names: `==`, of these types.
    Is(Vec<EntityType>),
    /// The same, or what is in it: `in`.
    In(Vec<EntityType>, Option<EntityType>),
}

/// A template that grants may link, compiled.
#[derive(Debug)]
pub struct Grantable {
    /// What is said of it.
    pub info: Arc<PolicyInfo>,
    /// What grants may say.
    pub terms: Terms,
    /// What of the context it can read.
    pub(super) needs: Needs,
    pub(super) condition: Option<Arc<Expr>>,
    action: ActionScope,
    resource: Resource,
}

/// Grants that link one template and cover a call, the one first that is to be used first.
#[derive(Clone, Debug)]
pub struct Granted {
    /// The place of the template.
    pub(super) template: usize,
    /// The grants; never empty.
    pub grants: Vec<Arc<Grant>>,
}

impl Grantable {
    /// Compiles a template. `fits` are the types of what may fill `?resource`.
    pub(super) fn new(
        info: Arc<PolicyInfo>,
        terms: Terms,
        template: &Template,
        fits: Vec<EntityType>,
        names: &mut Names,
    ) -> Option<Self> {
        use PrincipalOrResourceConstraint as C;
        let constraint = template.resource_constraint();
        let resource = match constraint.as_inner() {
            C::Eq(EntityReference::Slot(_)) => Resource::Is(fits),
            C::In(EntityReference::Slot(_)) => Resource::In(fits, None),
            C::IsIn(ty, EntityReference::Slot(_)) => Resource::In(fits, Some((**ty).clone())),
            said => Resource::Said(Scope::of(said, names)?),
        };
        let condition = template.non_scope_constraints_arc().cloned();
        let needs = condition.as_deref().map(Needs::of).unwrap_or_default();
        let action = ActionScope::of_template(template, names);
        Some(Self { info, terms, needs, condition, action, resource })
    }

    /// Whether a grant of it covers an action on a resource.
    #[must_use]
    pub(super) fn covers(&self, action: &Known, resource: &Known, named: Option<&EntityUID>) -> bool {
        self.action.matches(action)
            && match (&self.resource, named) {
                (Resource::Said(scope), None) => scope.matches(resource),
                (Resource::Is(fits), Some(uid)) => fits.contains(uid.entity_type()) && resource.uid() == uid,
                (Resource::In(fits, ty), Some(uid)) => {
                    fits.contains(uid.entity_type())
                        && ty.as_ref().is_none_or(|ty| resource.uid().entity_type() == ty)
                        && (resource.uid() == uid || resource.entity().is_descendant_of(uid))
                }
                // A bundle may have changed its mind since the grant was issued.
                (Resource::Said(_), Some(_)) | (Resource::Is(_) | Resource::In(..), None) => false,
            }
    }

    /// Whether a grant says what it has to, and no more than it may.
    ///
    /// # Errors
    /// What it has to say, for people.
    pub fn admits(&self, grant: &Grant) -> Result<(), String> {
        let Terms { seconds, calls, task, user } = self.terms;
        let fits = |fits: &[EntityType], uid: &EntityUID| {
            if fits.contains(uid.entity_type()) {
                return Ok(());
            }
            let types: Vec<String> = fits.iter().map(ToString::to_string).collect();
            Err(format!("its resource has to be a {}, not a {}", types.join(" or a "), uid.entity_type()))
        };
        match (&self.resource, &grant.resource) {
            (Resource::Said(_), Some(_)) => return Err("its template says which resource: a grant names none".into()),
            (Resource::Is(_) | Resource::In(..), None) => return Err("it has to name a resource".into()),
            (Resource::Is(types) | Resource::In(types, _), Some(uid)) => fits(types, uid)?,
            (Resource::Said(_), None) => {}
        }
        let lasts = grant.until.as_second().saturating_sub(grant.since.as_second());
        if grant.until <= grant.since {
            return Err("it would be over before it begins".into());
        }
        if lasts > seconds {
            return Err(format!("it may last {seconds} seconds, not {lasts}"));
        }
        match (calls, grant.calls) {
            (Some(most), None) => return Err(format!("it has to say how many calls it allows, at most {most}")),
            (Some(most), Some(calls)) if calls > most => {
                return Err(format!("it may allow {most} calls, not {calls}"));
            }
            (_, Some(0)) => return Err("it would allow no call".into()),
            _ => {}
        }
        if task && grant.task.is_none() {
            return Err("it has to name a task".into());
        }
        if user && grant.user.is_none() {
            return Err("it has to name the user on whose behalf it is".into());
        }
        Ok(())
    }

    /// What is said of the link that a grant is.
    pub(super) fn info_of(&self, grant: &Arc<Grant>) -> Arc<PolicyInfo> {
        let PolicyInfo { reason, message, control, demands, limits, forbids, .. } = &*self.info;
        Arc::new(PolicyInfo {
            id: grant.id.clone(),
            template: Some(grant.template.clone()),
            reason: reason.clone(),
            message: message.clone(),
            control: control.clone(),
            demands: demands.clone(),
            limits: limits.clone(),
            grant: Some(grant.clone()),
            forbids: *forbids,
        })
    }

    /// The types of what may fill `?resource`; none if the template has no such slot.
    #[must_use]
    pub fn resource_types(&self) -> &[EntityType] {
        match &self.resource {
            Resource::Said(_) => &[],
            Resource::Is(fits) | Resource::In(fits, _) => fits,
        }
    }
}

/// What a call has to be for a grant to count, beside what its template says.
#[derive(Clone, Copy)]
pub struct Asking<'a> {
    /// The user for whom the caller acts, by a verified token.
    pub user: Option<&'a str>,
    /// The task that the call says it is for.
    pub task: Option<&'a str>,
    /// The moment.
    pub now: Timestamp,
}

impl Asking<'_> {
    /// Whether a grant is in force, for this user and this task.
    #[must_use]
    pub fn meets(&self, grant: &Grant) -> bool {
        let said = |wanted: &Option<String>, given: Option<&str>| wanted.is_none() || wanted.as_deref() == given;
        !grant.is_over(self.now) && said(&grant.user, self.user) && said(&grant.task, self.task)
    }
}

/// The order in which grants are used: those without a number of calls first, then the ones that end first.
pub(super) fn order(grants: &mut [Arc<Grant>]) {
    grants.sort_by(|a, b| (a.calls.is_some(), a.until, &a.id).cmp(&(b.calls.is_some(), b.until, &b.id)));
}

/// Whether a slot of a template is `?resource`.
pub(super) fn has_resource_slot(template: &Template) -> bool {
    template.slots().any(|found| found.id == cedar::SlotId::resource())
}
