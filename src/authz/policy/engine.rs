//! Asking the policies: only those whose scope can match, each once, and an error is never skipped.
//!
//! The index finds the policies that a query can be about, their scopes are tested, and what is left, the
//! candidates, are evaluated. Leaving out a policy whose scope is false is sound: scope tests never fail, and a
//! false scope makes the policy false (Cedar's Lean model, `isAuthorized_eq_for_scope_based_policy_slice`). What Cedar's own authorizer says
//! over all policies is the same, errors and their order included; `Reference` is there to check.

use std::sync::Arc;

use foldhash::HashMap;

use super::cedar::{
    ActionConstraint, Entities, Entity, EntityReference, EntityType, EntityUID, EntityUIDEntry, EvaluationError,
    Evaluator, Extensions, Literal, NoEntitiesSchema, Policy, PrincipalOrResourceConstraint, Request, TCComputation,
    Value, ValueKind,
};
use super::context::Needs;
use super::index::{At, Index};

/// What is said about a policy in records and explanations.
#[derive(Debug, PartialEq, Eq)]
pub struct PolicyInfo {
    /// `@id`
    pub id: String,
    /// `@reason`, shown in the record.
    pub reason: String,
    /// `@message`, shown to the caller of a denial.
    pub message: Option<String>,
    /// `@control`, ids of the catalogues it implements.
    pub control: Option<String>,
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
}

/// What the policies say about one query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// At least one permit, no forbid, no error.
    Permitted(Satisfied),
    /// At least one forbid; errors of other policies are listed beside.
    Forbidden(Vec<Arc<PolicyInfo>>, Vec<Failure>),
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
    /// Its action, principal or resource scope does not match.
    OutOfScope(&'static str),
    /// A candidate; its conditions do not hold.
    NotSatisfied,
    /// A candidate; its conditions hold.
    Satisfied,
    /// A candidate; its conditions failed to evaluate.
    Failed(&'static str),
}

/// Everything a query is about.
pub struct Query {
    /// The principal with its ancestors.
    pub principal: Arc<Entity>,
    /// The index of the action, from [`Engine::action`].
    pub action: usize,
    /// The resource with its ancestors.
    pub resource: Arc<Entity>,
    /// The policies to ask, from [`Engine::candidates`].
    pub candidates: Candidates,
    /// The context.
    pub context: super::cedar::Context,
}

/// The policies, compiled.
#[derive(Debug)]
pub struct Engine {
    policies: Vec<Compiled>,
    index: Index,
    actions: Vec<Action>,
    by_name: HashMap<String, usize>,
}

#[derive(Debug)]
struct Compiled {
    info: Arc<PolicyInfo>,
    policy: Policy,
    principal: Scope,
    resource: Scope,
    /// The context attributes that it can read.
    needs: Needs,
}

#[derive(Debug)]
struct Action {
    uid: EntityUID,
    entity: Arc<Entity>,
}

/// The policies whose scope holds for a query, in the order of the bundle.
#[derive(Debug)]
pub struct Candidates {
    policies: Vec<At>,
    needs: Needs,
}

impl Candidates {
    /// The context attributes that they can read.
    #[must_use]
    pub const fn needs(&self) -> Needs {
        self.needs
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.policies.len()
    }

    /// Whether there is none: nothing permits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }
}

#[derive(Debug)]
enum Scope {
    Any,
    Eq(Arc<EntityUID>),
    In(Arc<EntityUID>),
    Is(Arc<EntityType>),
    IsIn(Arc<EntityType>, Arc<EntityUID>),
}

impl Scope {
    /// `None` for a template slot, which a linked policy no longer has.
    fn of(constraint: &PrincipalOrResourceConstraint) -> Option<Self> {
        use PrincipalOrResourceConstraint as C;
        let uid = |reference: &EntityReference| match reference {
            EntityReference::EUID(uid) => Some(uid.clone()),
            EntityReference::Slot(_) => None,
        };
        Some(match constraint {
            C::Any => Self::Any,
            C::Eq(reference) => Self::Eq(uid(reference)?),
            C::In(reference) => Self::In(uid(reference)?),
            C::Is(ty) => Self::Is(ty.clone()),
            C::IsIn(ty, reference) => Self::IsIn(ty.clone(), uid(reference)?),
        })
    }

    fn matches(&self, entity: &Entity) -> bool {
        let within = |uid: &EntityUID| entity.uid() == uid || entity.is_descendant_of(uid);
        match self {
            Self::Any => true,
            Self::Eq(uid) => entity.uid() == &**uid,
            Self::In(uid) => within(uid),
            Self::Is(ty) => entity.uid().entity_type() == &**ty,
            Self::IsIn(ty, uid) => entity.uid().entity_type() == &**ty && within(uid),
        }
    }
}

impl Engine {
    /// Compiles `policies` (static or linked, in order) for `actions`.
    ///
    /// # Errors
    /// The id of a policy whose scope holds an unfilled template slot.
    pub fn new(policies: Vec<(Arc<PolicyInfo>, Policy)>, actions: Vec<Arc<Entity>>) -> Result<Self, String> {
        let compiled: Result<Vec<Compiled>, String> = policies
            .into_iter()
            .map(|(info, policy)| {
                let principal = Scope::of(policy.principal_constraint().as_inner());
                let resource = Scope::of(policy.resource_constraint().as_inner());
                match (principal, resource) {
                    (Some(principal), Some(resource)) => {
                        let needs = policy.non_scope_constraints().map(Needs::of).unwrap_or_default();
                        Ok(Compiled { info, policy, principal, resource, needs })
                    }
                    _ => Err(info.id.clone()),
                }
            })
            .collect();
        let policies = compiled?;
        let index = Index::new(policies.iter().map(|compiled| &compiled.policy));
        let actions: Vec<Action> =
            actions.into_iter().map(|entity| Action { uid: entity.uid().clone(), entity }).collect();
        let by_name =
            actions.iter().enumerate().map(|(at, action)| (super::cedar::id_of(&action.uid).to_owned(), at)).collect();
        Ok(Self { policies, index, actions, by_name })
    }

    /// The index of the action with this id.
    #[must_use]
    pub fn action(&self, id: &str) -> Option<usize> {
        self.by_name.get(id).copied()
    }

    /// The uid of an action.
    #[must_use]
    pub fn action_uid(&self, action: usize) -> Option<&EntityUID> {
        self.actions.get(action).map(|action| &action.uid)
    }

    /// The policies whose scope holds for an action, a principal and a resource.
    #[must_use]
    pub fn candidates(&self, action: usize, principal: &Entity, resource: &Entity) -> Candidates {
        let Some(action) = self.actions.get(action) else {
            return Candidates { policies: Vec::new(), needs: Needs::ALL };
        };
        let mut policies = self.index.candidates(&action.entity, principal, resource);
        let mut needs = Needs::default();
        policies.retain(|at| {
            let Some(policy) = self.policies.get(*at as usize) else { return false };
            let applies = policy.principal.matches(principal) && policy.resource.matches(resource);
            if applies {
                needs = needs.union(policy.needs);
            }
            applies
        });
        Candidates { policies, needs }
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

    /// What the policies say, and how many were evaluated for it.
    #[must_use]
    pub fn decide(&self, query: Query) -> (Answer, usize) {
        let (mut permits, mut forbids, mut failures) = (Vec::new(), Vec::new(), Vec::new());
        let candidates = query.candidates.len();
        let evaluated = self.evaluate(query, |policy, outcome| match outcome {
            Ok(false) => {}
            Ok(true) if policy.info.forbids => forbids.push(policy.info.clone()),
            Ok(true) => permits.push(policy.info.clone()),
            Err(error) => failures.push(Failure { policy: policy.info.clone(), error }),
        });
        let answer = if evaluated.is_none() {
            Answer::Broken
        } else if !forbids.is_empty() {
            Answer::Forbidden(forbids, failures)
        } else if !failures.is_empty() {
            // Cedar skips a policy that errors, a forbid included. Rule 2: an error is a denial.
            Answer::Failed(failures)
        } else if permits.is_empty() {
            Answer::NotPermitted
        } else {
            Answer::Permitted(Satisfied { permits })
        };
        (answer, candidates)
    }

    /// How every policy of the bundle takes part in a query, in order. For explanations, not for decisions.
    #[must_use]
    pub fn explain(&self, query: Query) -> Vec<(Arc<PolicyInfo>, Part)> {
        let in_action = |policy| self.actions.get(query.action).is_some_and(|action| action.is_named_by(policy));
        let mut parts: Vec<(Arc<PolicyInfo>, Part)> = self
            .policies
            .iter()
            .map(|policy| {
                let part = if !in_action(&policy.policy) {
                    Part::OutOfScope("another action")
                } else if !policy.principal.matches(&query.principal) {
                    Part::OutOfScope("another principal")
                } else if !policy.resource.matches(&query.resource) {
                    Part::OutOfScope("another resource")
                } else {
                    Part::NotSatisfied
                };
                (policy.info.clone(), part)
            })
            .collect();
        let evaluated = self.evaluate(query, |policy, outcome| {
            if let Some((_, part)) = parts.iter_mut().find(|(info, _)| Arc::ptr_eq(info, &policy.info)) {
                *part = match outcome {
                    Ok(true) => Part::Satisfied,
                    Ok(false) => Part::NotSatisfied,
                    Err(error) => Part::Failed(error),
                };
            }
        });
        if evaluated.is_some() { parts } else { Vec::new() }
    }

    /// Evaluates the candidates of a query in the order of the bundle; `None` if that could not be done.
    fn evaluate(&self, query: Query, mut visit: impl FnMut(&Compiled, Result<bool, &'static str>)) -> Option<()> {
        let action = self.actions.get(query.action)?;
        let extensions = Extensions::all_available();
        let slice = [query.principal.clone(), query.resource.clone(), action.entity.clone()];
        // Each entity carries its whole ancestry, so there is nothing to compute and nothing to conflict.
        let entities = Entities::new()
            .add_entities(slice, None::<&NoEntitiesSchema>, TCComputation::AssumeAlreadyComputed, extensions)
            .ok()?;
        let known = |uid: &EntityUID| EntityUIDEntry::known(uid.clone(), None);
        let request = Request::new_unchecked(
            known(query.principal.uid()),
            known(&action.uid),
            known(query.resource.uid()),
            Some(query.context),
        );
        let evaluator = Evaluator::new(request, &entities, extensions);
        for policy in query.candidates.policies.iter().filter_map(|at| self.policies.get(*at as usize)) {
            visit(policy, policy.evaluate(&evaluator));
        }
        Some(())
    }
}

impl Compiled {
    /// The policy's conditions; its scope is known to hold.
    fn evaluate(&self, evaluator: &Evaluator<'_>) -> Result<bool, &'static str> {
        let Some(conditions) = self.policy.non_scope_constraints() else { return Ok(true) };
        match evaluator.interpret(conditions, self.policy.env()).map_err(|error| kind(&error))? {
            Value { value: ValueKind::Lit(Literal::Bool(holds)), .. } => Ok(holds),
            // Strict validation rules this out; the whole policy gives Cedar's own type error.
            _ => evaluator.evaluate(&self.policy).map_err(|error| kind(&error)),
        }
    }
}

impl Action {
    /// Whether a policy's scope is about this action.
    fn is_named_by(&self, policy: &Policy) -> bool {
        let is = |wanted: &EntityUID| *wanted == self.uid;
        match policy.action_constraint() {
            ActionConstraint::Any => true,
            ActionConstraint::Eq(wanted) => is(wanted),
            ActionConstraint::In(wanted) => {
                wanted.iter().any(|wanted| is(wanted) || self.entity.is_descendant_of(wanted))
            }
        }
    }
}

/// What kind of error it is. Cedar's own text may quote values of arguments, which must not leave.
#[must_use]
pub const fn kind(error: &EvaluationError) -> &'static str {
    match error {
        EvaluationError::EntityDoesNotExist(_) => "an entity does not exist",
        EvaluationError::EntityAttrDoesNotExist(_) => "an entity lacks an attribute or tag",
        EvaluationError::RecordAttrDoesNotExist(_) => "a record lacks an attribute",
        EvaluationError::FailedExtensionFunctionLookup(_) => "an extension function does not exist",
        EvaluationError::TypeError(_) => "a value has the wrong type",
        EvaluationError::WrongNumArguments(_) => "an extension function has the wrong number of arguments",
        EvaluationError::IntegerOverflow(_) => "an integer overflowed",
        EvaluationError::UnlinkedSlot(_) => "a template slot is not filled",
        EvaluationError::FailedExtensionFunctionExecution(_) => "an extension function refused its argument",
        EvaluationError::NonValue(_) => "a value is unknown",
        EvaluationError::RecursionLimit(_) => "the expression is nested too deeply",
    }
}
