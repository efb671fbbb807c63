//! Asking the policies: only those whose scope can match, each once, and an error is never skipped.
//!
//! The index finds the policies that a query can be about, their scopes are tested, and what is left, the
//! candidates, are evaluated. Leaving out a policy whose scope is false is sound: scope tests never fail, and a
//! false scope makes the policy false (Cedar's Lean model, `isAuthorized_eq_for_scope_based_policy_slice`). What Cedar's own authorizer says
//! over all policies is the same, errors and their order included; `Reference` is there to check.

use std::cmp::Reverse;
use std::sync::Arc;

use foldhash::HashMap;

use super::candidates::Query;
use super::cedar::{
    Context, Entities, Entity, EntityUID, EntityUIDEntry, EvaluationError, Evaluator, Expr, Extensions, Literal,
    NoEntitiesSchema, Policy, Request, SlotEnv, TCComputation, Value, ValueKind,
};
use super::demands::Demands;
use super::index::{At, Candidate, Found, Index, Keys, Relevant};
use super::needs::{Needs, Party};
use super::scope::{ActionScope, Known, Names, Scope};

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

/// Why a policy is a candidate that names neither principal nor resource.
const UNINDEXED: &str = "every principal and resource";

/// Policies being compiled, one after the other, in the order of the bundle.
#[derive(Default)]
pub struct Builder {
    names: Names,
    policies: Vec<Compiled>,
    keys: Vec<Keys>,
}

impl Builder {
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
        let Self { names, policies, keys } = self;
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
        Engine { policies, names, index, actions, by_name }
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

    /// A query: an action (from [`Engine::action`]), a principal and a resource with their ancestors, and the context with the
    /// user in it, made once it is known what of it the candidates can read.
    ///
    /// # Errors
    /// What `context` says.
    pub fn query<E>(
        &self,
        action: usize,
        principal: Arc<Known>,
        resource: Arc<Known>,
        context: impl FnOnce(Needs) -> Result<(Context, Option<Arc<Entity>>), E>,
    ) -> Result<Query, E> {
        let candidates = self.candidates(action, &principal, &resource);
        let context = context(candidates.1)?;
        Ok(Query::of(action, principal, resource, candidates, context))
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

    /// A candidate, and what of the call led to it.
    #[must_use]
    pub(super) fn explain_candidate(&self, candidate: Candidate) -> Option<(&Arc<PolicyInfo>, String)> {
        let policy = self.policies.get(candidate.at as usize)?;
        let (side, scope, named) = match candidate.found {
            Found::Unindexed => return Some((&policy.info, UNINDEXED.to_owned())),
            Found::Principal(named) => ("principal", policy.principal, named),
            Found::Resource(named) => ("resource", policy.resource, named),
        };
        let operator = if scope.named() == Some(named) { scope.operator() } else { "in" };
        Some((&policy.info, format!("{side} {operator} {}", self.names.text(named)?)))
    }

    /// The policies that name neither a principal nor a resource, each with how many actions there are whose every call
    /// evaluates it; the most costly first.
    #[must_use]
    pub fn unindexed(&self) -> Vec<(&PolicyInfo, usize)> {
        let mut actions: HashMap<At, usize> = HashMap::default();
        for action in &self.actions {
            for at in self.index.unindexed(&action.relevant) {
                *actions.entry(at).or_default() += 1;
            }
        }
        let mut all: Vec<(At, usize)> = actions.into_iter().collect();
        all.sort_unstable_by_key(|(at, count)| (Reverse(*count), *at));
        all.into_iter().filter_map(|(at, count)| Some((&*self.policies.get(at as usize)?.info, count))).collect()
    }

    /// The action whose every call evaluates the most policies, whatever its principal and resource, and these policies.
    #[must_use]
    pub fn heaviest_action(&self) -> Option<(&EntityUID, Vec<&PolicyInfo>)> {
        let all = self.actions.iter().map(|action| (self.index.unindexed(&action.relevant), action.known.uid()));
        let heaviest = all.max_by(|(a, one), (b, other)| a.len().cmp(&b.len()).then_with(|| other.cmp(one)));
        let info = |at: At| self.policies.get(at as usize).map(|policy| &*policy.info);
        heaviest.map(|(policies, uid)| (uid, policies.into_iter().filter_map(info).collect()))
    }

    /// The principal or resource under which the most policies of an action are looked up, and how many they are.
    #[must_use]
    pub fn most_looked_up(&self) -> Option<(String, usize)> {
        let (found, count) = self.index.most_looked_up()?;
        let (side, named) = match found {
            Found::Unindexed => return None,
            Found::Principal(named) => ("principal", named),
            Found::Resource(named) => ("resource", named),
        };
        Some((format!("{side}, {}", self.names.text(named)?), count))
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
            Ok(true) if policy.info.forbids => forbids.push(policy.info.clone()),
            Ok(true) => permits.push(policy.info.clone()),
            Err(error) => failures.push(Failure { policy: policy.info.clone(), error }),
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

    /// How every policy of the bundle takes part in a query, in order. For explanations, not for decisions.
    #[must_use]
    pub fn explain(&self, query: &Query) -> Vec<(Arc<PolicyInfo>, Part)> {
        let in_action = |policy: &Compiled| {
            self.actions.get(query.action()).is_some_and(|action| policy.action.matches(&action.known))
        };
        let mut outcomes = Vec::with_capacity(query.candidates().len());
        if self.evaluate(query, |_, outcome| outcomes.push(outcome)).is_none() {
            return Vec::new();
        }
        let mut candidates = query.candidates().iter().copied().zip(outcomes).peekable();
        let parts = (0..).zip(&self.policies).map(|(at, policy)| {
            let part = if let Some((candidate, outcome)) = candidates.next_if(|(candidate, _)| candidate.at == at) {
                let why = self.explain_candidate(candidate).map(|(_, why)| why).unwrap_or_default();
                Part::Candidate(why, outcome)
            } else if !in_action(policy) {
                Part::OutOfScope("another action")
            } else if !policy.principal.matches(query.principal()) {
                Part::OutOfScope("another principal")
            } else if !policy.resource.matches(query.resource()) {
                Part::OutOfScope("another resource")
            } else {
                Part::OutOfScope("another case, by its first condition")
            };
            (policy.info.clone(), part)
        });
        parts.collect()
    }

    /// Evaluates the candidates of a query in the order of the bundle; `None` if that could not be done.
    fn evaluate(&self, query: &Query, mut visit: impl FnMut(&Compiled, Result<bool, &'static str>)) -> Option<()> {
        let action = self.actions.get(query.action())?;
        let extensions = Extensions::all_available();
        // Of the others no more is read than their uids.
        let parties = [
            (Party::Principal, Some(query.principal().entity())),
            (Party::Action, Some(action.known.entity())),
            (Party::Resource, Some(query.resource().entity())),
            (Party::User, query.user()),
        ];
        let needed = parties.into_iter().filter(|(party, _)| query.needs().looks_into(*party));
        let slice = needed.filter_map(|(_, entity)| entity.cloned());
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
            visit(policy, policy.evaluate(&evaluator, &slots));
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

    /// The policy's conditions; its scope is known to hold.
    fn evaluate(&self, evaluator: &Evaluator<'_>, slots: &SlotEnv) -> Result<bool, &'static str> {
        let Some(condition) = &self.condition else { return Ok(true) };
        match evaluator.interpret(condition, slots).map_err(|error| kind(&error))? {
            Value { value: ValueKind::Lit(Literal::Bool(holds)), .. } => Ok(holds),
            // `true && 1`: strict validation rules it out.
            _ => Err(WRONG_TYPE),
        }
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
