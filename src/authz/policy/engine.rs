//! Asking the policies: only those whose scope can match, each once, and an error is never skipped.
//!
//! The index finds the policies that a query can be about, their scopes are tested, and what is left, the
//! candidates, are evaluated. Leaving out a policy whose scope is false is sound: scope tests never fail, and a
//! false scope makes the policy false (Cedar's Lean model, `isAuthorized_eq_for_scope_based_policy_slice`). What Cedar's own authorizer says
//! over all policies is the same, errors and their order included; `Reference` is there to check.

mod explained;

use std::sync::Arc;

use foldhash::HashMap;

use super::candidates::{Own, Query};
use super::cedar::{
    Context, Entities, Entity, EntityType, EntityUID, EntityUIDEntry, EvaluationError, Evaluator, Expr, Extensions,
    Literal, NoEntitiesSchema, Policy, Request, SlotEnv, TCComputation, Template, Value, ValueKind,
};
use super::demands::Demands;
use super::grantable::{Grantable, Granted, Terms, order};
use super::index::{Candidate, Index, Keys, Relevant};
use super::needs::{Needs, Party};
use super::scope::{ActionScope, Known, Names, Scope};
use crate::authz::metering::Limit;
use crate::authz::state::grant::Grant;

/// What is said about a policy in records and explanations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyInfo {
    /// `@id`; of a link its `newId`.
    pub id: String,
    /// Of a link the `@id` of its template.
    pub template: Option<Arc<str>>,
    /// `@reason`, shown in the record.
    pub reason: Arc<str>,
    /// `@message`, shown to the caller of a denial.
    pub message: Option<Arc<str>>,
    /// `@control`, ids of the catalogues it implements.
    pub control: Option<Arc<str>>,
    /// `@step_up` and `@scopes`: what it demands of the caller's token.
    pub demands: Option<Arc<Demands>>,
    /// `@limit`: those that have to hold for it to count.
    pub limits: Arc<[Arc<Limit>]>,
    /// Of the link that a grant is, the grant.
    pub grant: Option<Arc<Grant>>,
    /// Whether it is a `forbid`.
    pub forbids: bool,
}

/// A policy that failed to evaluate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The policy.
    pub policy: Arc<PolicyInfo>,
    /// What Cedar says; names attributes and types, never values of arguments.
    pub error: &'static str,
}

/// The evidence that policies permit a call. Only [`Engine::decide`] can make one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Satisfied {
    permits: Vec<Arc<PolicyInfo>>,
}

impl Satisfied {
    /// The permits that were satisfied; never empty.
    #[must_use]
    pub fn permits(&self) -> &[Arc<PolicyInfo>] {
        &self.permits
    }

    /// The evidence that is left of the permits for which `counts` is true, if any is, and the other permits.
    #[must_use]
    pub fn keep(self, counts: impl Fn(&PolicyInfo) -> bool) -> (Option<Self>, Vec<Arc<PolicyInfo>>) {
        // Nearly always: few permits demand anything.
        if self.permits.iter().all(|policy| counts(policy)) {
            return (Some(self), Vec::new());
        }
        let (permits, others): (Vec<_>, Vec<_>) = self.permits.into_iter().partition(|policy| counts(policy));
        ((!permits.is_empty()).then_some(Self { permits }), others)
    }
}

/// What the policies say about one query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// At least one permit, no forbid, no error.
    Permitted(Satisfied),
    /// At least one forbid; permits that it overrules, and errors of other policies, are listed beside.
    Forbidden {
        /// The forbids, never empty.
        forbids: Vec<Arc<PolicyInfo>>,
        /// The permits.
        permits: Vec<Arc<PolicyInfo>>,
        /// The errors.
        failures: Vec<Failure>,
    },
    /// No forbid, but a policy that applied failed to evaluate.
    Failed(Vec<Failure>),
    /// Nothing failed, nothing permits.
    NotPermitted,
    /// The query could not be put to Cedar at all: a bug of ours.
    Broken,
}

/// How one policy took part in a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Its action, principal or resource scope does not match, or a first condition of this kind.
    OutOfScope(&'static str),
    /// It was evaluated: what of the call led to it, and whether its conditions hold, or why they failed.
    Candidate(String, Result<bool, &'static str>),
}

/// The policies, compiled.
#[derive(Debug)]
pub struct Engine {
    policies: Vec<Compiled>,
    names: Names,
    index: Index,
    actions: Vec<Action>,
    by_name: HashMap<String, usize>,
    /// The templates that grants may link.
    grantable: Vec<Grantable>,
    by_template: HashMap<String, usize>,
}

/// What is kept of a policy; the links of a template share its conditions.
#[derive(Debug)]
struct Compiled {
    info: Arc<PolicyInfo>,
    action: ActionScope,
    principal: Scope,
    resource: Scope,
    condition: Option<Arc<Expr>>,
    /// What of the context it can read.
    needs: Needs,
}

#[derive(Debug)]
struct Action {
    known: Known,
    relevant: Relevant,
}

/// Policies being compiled, one after the other, in the order of the bundle.
#[derive(Default)]
pub struct Builder {
    names: Names,
    policies: Vec<Compiled>,
    keys: Vec<Keys>,
    grantable: Vec<Grantable>,
}

impl Builder {
    /// Compiles a template that grants may link; `None` if it cannot be one. `fits` are the types of what may fill its
    /// `?resource`.
    pub fn add_grantable(
        &mut self,
        info: Arc<PolicyInfo>,
        terms: Terms,
        template: &Template,
        fits: Vec<EntityType>,
    ) -> Option<()> {
        self.grantable.push(Grantable::new(info, terms, template, fits, &mut self.names)?);
        Some(())
    }

    /// Compiles a policy, static or linked.
    ///
    /// # Errors
    /// What is wrong with it: its scope holds an unfilled template slot.
    pub fn add(&mut self, info: Arc<PolicyInfo>, policy: &Policy) -> Result<(), String> {
        let (compiled, keys) = Compiled::new(info, policy, &mut self.names)?;
        self.policies.push(compiled);
        self.keys.push(keys);
        Ok(())
    }

    /// Indexes the policies for `actions`.
    #[must_use]
    pub fn finish(self, actions: Vec<Arc<Entity>>) -> Engine {
        let Self { names, policies, keys, grantable } = self;
        let keyed: Vec<(&ActionScope, Keys)> = policies.iter().map(|policy| &policy.action).zip(keys).collect();
        let index = Index::new(&keyed);
        drop(keyed);
        let actions: Vec<Action> = actions
            .into_iter()
            .map(|entity| {
                let known = names.known(entity);
                Action { relevant: index.relevant(&known), known }
            })
            .collect();
        let id = |action: &Action| super::cedar::id_of(action.known.uid()).to_owned();
        let by_name = actions.iter().enumerate().map(|(at, action)| (id(action), at)).collect();
        let by_template = grantable.iter().enumerate().map(|(at, template)| (template.info.id.clone(), at)).collect();
        Engine { policies, names, index, actions, by_name, grantable, by_template }
    }
}

impl Engine {
    /// Compiles `policies` (static or linked, in order) for `actions`.
    ///
    /// # Errors
    /// As [`Builder::add`].
    pub fn new(
        policies: impl IntoIterator<Item = (Arc<PolicyInfo>, Policy)>,
        actions: Vec<Arc<Entity>>,
    ) -> Result<Self, String> {
        let mut builder = Builder::default();
        for (info, policy) in policies {
            builder.add(info, &policy)?;
        }
        Ok(builder.finish(actions))
    }

    /// An entity, as queries take it.
    #[must_use]
    pub fn known(&self, entity: Arc<Entity>) -> Known {
        self.names.known(entity)
    }

    /// The index of the action with this id.
    #[must_use]
    pub fn action(&self, id: &str) -> Option<usize> {
        self.by_name.get(id).copied()
    }

    /// The uid of an action.
    #[must_use]
    pub fn action_uid(&self, action: usize) -> Option<&EntityUID> {
        self.actions.get(action).map(|action| action.known.uid())
    }

    /// The template that grants may link, by its id.
    #[must_use]
    pub fn grantable(&self, template: &str) -> Option<&Grantable> {
        self.grantable.get(*self.by_template.get(template)?)
    }

    /// All templates that grants may link, in the order of the bundle.
    pub fn grantables(&self) -> impl Iterator<Item = &Grantable> {
        self.grantable.iter()
    }

    /// Of some grants those that cover an action on a resource, by template, in the order of the bundle.
    #[must_use]
    pub fn granted<'g>(
        &self,
        action: usize,
        resource: &Known,
        grants: impl Iterator<Item = &'g Arc<Grant>>,
    ) -> Vec<Granted> {
        let mut all: Vec<Granted> = Vec::new();
        let Some(action) = self.actions.get(action) else { return all };
        for grant in grants {
            let Some(template) = self.by_template.get(&*grant.template).copied() else { continue };
            let grantable = self.grantable.get(template);
            let counts = |it: &Grantable| {
                // As the bundle has it now: it may have been sorry since the grant was issued.
                it.covers(&action.known, resource, grant.resource.as_ref()) && it.admits(grant).is_ok()
            };
            if !grantable.is_some_and(counts) {
                continue;
            }
            match all.iter_mut().find(|granted| granted.template == template) {
                Some(granted) => granted.grants.push(grant.clone()),
                None => all.push(Granted { template, grants: vec![grant.clone()] }),
            }
        }
        all.sort_by_key(|granted| granted.template);
        all.iter_mut().for_each(|granted| order(&mut granted.grants));
        all
    }

    /// The ids of the templates that are linked by these grants.
    pub fn templates<'g>(&'g self, granted: &'g [Granted]) -> impl Iterator<Item = &'g str> {
        granted.iter().filter_map(|granted| Some(self.grantable.get(granted.template)?.info.id.as_str()))
    }

    /// A query: an action (from [`Engine::action`]), a principal and a resource with their ancestors, the grants that cover them,
    /// and the context with entities of its own, made once it is known what of it the candidates can read.
    ///
    /// # Errors
    /// What `context` says.
    pub fn query<E>(
        &self,
        action: usize,
        principal: Arc<Known>,
        resource: Arc<Known>,
        granted: Vec<Granted>,
        context: impl FnOnce(Needs, &[Granted]) -> Result<(Context, Own), E>,
    ) -> Result<Query, E> {
        let (candidates, needs) = self.candidates(action, &principal, &resource);
        let of_grants = granted.iter().filter_map(|granted| self.grantable.get(granted.template));
        let needs = of_grants.fold(needs, |needs, template| needs.union(template.needs));
        let context = context(needs, &granted)?;
        Ok(Query::of(action, principal, resource, (candidates, granted, needs), context))
    }

    /// The policies whose scope holds for an action, a principal and a resource, in the order of the bundle; and what of the
    /// context they can read.
    fn candidates(&self, action: usize, principal: &Known, resource: &Known) -> (Vec<Candidate>, Needs) {
        let Some(action) = self.actions.get(action) else { return (Vec::new(), Needs::ALL) };
        let mut candidates = self.index.candidates(&action.relevant, principal, resource);
        let mut needs = Needs::default();
        candidates.retain(|candidate| {
            // Kept if it is not there, so that evaluating it says that something is broken.
            let Some(policy) = self.policies.get(candidate.at as usize) else { return true };
            let applies = policy.principal.matches(principal) && policy.resource.matches(resource);
            if applies {
                needs = needs.union(policy.needs);
            }
            applies
        });
        (candidates, needs)
    }

    /// How many actions there are.
    #[must_use]
    pub const fn actions(&self) -> usize {
        self.actions.len()
    }

    /// How many policies there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.policies.len()
    }

    /// What is said of each policy, in the order of the bundle.
    pub fn infos(&self) -> impl Iterator<Item = &PolicyInfo> {
        self.policies.iter().map(|compiled| &*compiled.info)
    }

    /// Whether there is no policy at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// What the policies say.
    #[must_use]
    pub fn decide(&self, query: &Query) -> Answer {
        let (mut permits, mut forbids, mut failures) = (Vec::new(), Vec::new(), Vec::new());
        let evaluated = self.evaluate(query, |policy, outcome| match outcome {
            Ok(false) => {}
            Ok(true) if policy.forbids => forbids.push(policy),
            Ok(true) => permits.push(policy),
            Err(error) => failures.push(Failure { policy, error }),
        });
        if evaluated.is_none() {
            Answer::Broken
        } else if !forbids.is_empty() {
            Answer::Forbidden { forbids, permits, failures }
        } else if !failures.is_empty() {
            // Cedar skips a policy that errors, a forbid included. Rule 2: an error is a denial.
            Answer::Failed(failures)
        } else if permits.is_empty() {
            Answer::NotPermitted
        } else {
            Answer::Permitted(Satisfied { permits })
        }
    }

    /// Evaluates the candidates of a query in the order of the bundle, and then the templates that grants link; `None` if that
    /// could not be done.
    fn evaluate(
        &self,
        query: &Query,
        mut visit: impl FnMut(Arc<PolicyInfo>, Result<bool, &'static str>),
    ) -> Option<()> {
        let action = self.actions.get(query.action())?;
        let extensions = Extensions::all_available();
        // Of the others no more is read than their uids.
        let parties = [
            (Party::Principal, Some(query.principal().entity())),
            (Party::Action, Some(action.known.entity())),
            (Party::Resource, Some(query.resource().entity())),
            (Party::User, query.own().user.as_ref()),
            (Party::Usage, query.own().usage.as_ref()),
        ];
        let needed = parties.into_iter().filter(|(party, _)| query.needs().looks_into(*party));
        let slice = needed.filter_map(|(_, entity)| entity.cloned()).chain(query.own().others.iter().cloned());
        // Each entity carries its whole ancestry, so there is nothing to compute and nothing to conflict.
        let entities = Entities::new()
            .add_entities(slice, None::<&NoEntitiesSchema>, TCComputation::AssumeAlreadyComputed, extensions)
            .ok()?;
        let known = |uid: &EntityUID| EntityUIDEntry::known(uid.clone(), None);
        let request = Request::new_unchecked(
            known(query.principal().uid()),
            known(action.known.uid()),
            known(query.resource().uid()),
            Some(query.context().clone()),
        );
        let evaluator = Evaluator::new(request, &entities, extensions);
        // Slots are in scopes alone, which are compared already.
        let slots = SlotEnv::new();
        for candidate in query.candidates() {
            let policy = self.policies.get(candidate.at as usize)?;
            visit(policy.info.clone(), evaluate(policy.condition.as_deref(), &evaluator, &slots));
        }
        // One condition is one answer, however many grants link its template.
        for granted in query.granted() {
            let (template, grant) = (self.grantable.get(granted.template)?, granted.grants.first()?);
            visit(template.info_of(grant), evaluate(template.condition.as_deref(), &evaluator, &slots));
        }
        Some(())
    }
}

impl Compiled {
    fn new(info: Arc<PolicyInfo>, policy: &Policy, names: &mut Names) -> Result<(Self, Keys), String> {
        let unfilled = || format!("policy `{}` has a slot that nothing fills", info.id);
        let principal = Scope::of(policy.principal_constraint().as_inner(), names).ok_or_else(unfilled)?;
        let resource = Scope::of(policy.resource_constraint().as_inner(), names).ok_or_else(unfilled)?;
        let condition = policy.non_scope_constraints_arc().cloned();
        let keys = Keys::of(&principal, &resource, condition.as_deref(), names);
        let needs = condition.as_deref().map(Needs::of).unwrap_or_default();
        let action = ActionScope::of(policy, names);
        Ok((Self { info, action, principal, resource, condition, needs }, keys))
    }
}

/// A policy's conditions; its scope is known to hold.
fn evaluate(condition: Option<&Expr>, evaluator: &Evaluator<'_>, slots: &SlotEnv) -> Result<bool, &'static str> {
    let Some(condition) = condition else { return Ok(true) };
    match evaluator.interpret(condition, slots).map_err(|error| kind(&error))? {
        Value { value: ValueKind::Lit(Literal::Bool(holds)), .. } => Ok(holds),
        // `true && 1`: strict validation rules it out.
        _ => Err(WRONG_TYPE),
    }
}

const WRONG_TYPE: &str = "a value has the wrong type";

/// What kind of error it is. Cedar's own text may quote values of arguments, which must not leave.
#[must_use]
pub const fn kind(error: &EvaluationError) -> &'static str {
    match error {
        EvaluationError::EntityDoesNotExist(_) => "an entity does not exist",
        EvaluationError::EntityAttrDoesNotExist(_) => "an entity lacks an attribute or tag",
        EvaluationError::RecordAttrDoesNotExist(_) => "a record lacks an attribute",
        EvaluationError::FailedExtensionFunctionLookup(_) => "an extension function does not exist",
        EvaluationError::TypeError(_) => WRONG_TYPE,
        EvaluationError::WrongNumArguments(_) => "an extension function has the wrong number of arguments",
        EvaluationError::IntegerOverflow(_) => "an integer overflowed",
        EvaluationError::UnlinkedSlot(_) => "a template slot is not filled",
        EvaluationError::FailedExtensionFunctionExecution(_) => "an extension function refused its argument",
        EvaluationError::NonValue(_) => "a value is unknown",
        EvaluationError::RecursionLimit(_) => "the expression is nested too deeply",
    }
}
