//! Strict validation of policies at level 1: what Cedar's validator says, without walking every policy through
//! every action.
//!
//! Cedar type checks each policy twice (for the types, and for the level) in every combination of an action, a principal
//! type and a resource type. A policy is false outside of the actions of its scope, and actions that differ in their
//! arguments alone are one to a policy that reads none. So [`Validation::accepts`] looks at what is left, once. It
//! only ever accepts: what it does not know to be right goes to Cedar's own validator, which has the last word and words
//! the errors. A property test holds that nothing is accepted here that Cedar refuses.

use cedar_policy::{PolicySet, Schema, ValidationMode, ValidationResult, Validator};
use foldhash::{HashMap, HashMapExt as _, HashSet, HashSetExt as _};

use super::cedar::{
    self, ActionConstraint, BinaryOp, EntityType, EntityUID, ExprKind, PolicyCheck, RequestEnv, Template, Type,
    Typechecker, TypedExpr, ValidatorSchema, Var,
};
use super::declared;
use super::needs::Needs;

/// Policies may dereference principal, action, resource and entities of the context, and no further:
/// that keeps the entities of a query a handful (Cedar RFC 76).
const DEREFERENCE_LEVEL: u32 = 1;

/// Validates policies against one schema.
pub struct Validation<'s> {
    schema: &'s ValidatorSchema,
    checker: Typechecker<'s>,
    environments: Vec<Environment<'s>>,
    /// Which of them a scope is about that names an action exactly, or one that the action is in.
    by_action: HashMap<EntityUID, Vec<usize>>,
    by_group: HashMap<EntityUID, Vec<usize>>,
    /// Whether everything that the schema names is declared in it.
    is_complete: bool,
    validator: Validator,
}

/// The types of everything that a query about one action can be about.
struct Environment<'s> {
    types: RequestEnv<'s>,
    /// The same number for environments that differ in action and arguments alone.
    class: usize,
}

impl<'s> Validation<'s> {
    /// A validator for policies under this schema.
    #[must_use]
    pub fn new(schema: &'s Schema) -> Self {
        let core: &ValidatorSchema = schema.as_ref();
        let mut classes: HashMap<(&EntityType, &EntityType, String), usize> = HashMap::new();
        let (mut environments, mut by_action) = (Vec::new(), HashMap::<EntityUID, Vec<usize>>::new());
        for types in core.unlinked_request_envs(cedar::ValidationMode::Strict) {
            let RequestEnv::DeclaredAction { principal, action, resource, context, .. } = &types else { continue };
            let next = classes.len();
            let class = *classes.entry((principal, resource, declared::without_input(context))).or_insert(next);
            by_action.entry((*action).clone()).or_default().push(environments.len());
            environments.push(Environment { types, class });
        }
        let mut by_group = by_action.clone();
        for group in core.action_ids() {
            let members = group.descendants().filter_map(|member| by_action.get(member)).flatten();
            by_group.entry(group.name().clone()).or_default().extend(members);
        }
        let checker = Typechecker::new(core, cedar::ValidationMode::Strict);
        let (is_complete, validator) = (schema.is_complete(), Validator::new(schema.clone()));
        Self { schema: core, checker, environments, by_action, by_group, is_complete, validator }
    }

    /// Whether this policy is known to be valid, and to give no warning.
    #[must_use]
    pub fn accepts(&self, policy: &Template) -> bool {
        self.is_complete
            && policy.is_static()
            && cedar::Validator::validate_entity_types_and_literals(self.schema, policy).next().is_none()
            && cedar::confusable_string_checks(std::iter::once(policy)).next().is_none()
            && self.type_checks(policy)
    }

    fn type_checks(&self, policy: &Template) -> bool {
        let tells_actions_apart = policy.non_scope_constraints().is_some_and(|condition| {
            Needs::of(condition).has_input()
                || condition.subexpressions().any(|expr| matches!(expr.expr_kind(), ExprKind::Var(Var::Action)))
        });
        let (mut seen, mut can_hold) = (HashSet::new(), false);
        for at in self.relevant(policy.action_constraint()) {
            let Some(environment) = self.environments.get(at) else { return false };
            if !seen.insert(if tells_actions_apart { at } else { environment.class }) {
                continue;
            }
            match self.checker.typecheck_by_single_request_env(policy, &environment.types) {
                PolicyCheck::Success(typed) if is_shallow(&typed) => can_hold = true,
                PolicyCheck::Irrelevant(errors, typed) if errors.is_empty() && is_shallow(&typed) => {}
                PolicyCheck::Success(_) | PolicyCheck::Irrelevant(..) | PolicyCheck::Fail(_) => return false,
            }
        }
        can_hold
    }

    fn relevant(&self, actions: &ActionConstraint) -> Vec<usize> {
        match actions {
            ActionConstraint::Any => (0..self.environments.len()).collect(),
            ActionConstraint::Eq(action) => self.by_action.get(&**action).cloned().unwrap_or_default(),
            ActionConstraint::In(actions) => {
                actions.iter().filter_map(|action| self.by_group.get(&**action)).flatten().copied().collect()
            }
        }
    }

    /// What Cedar's validator says.
    #[must_use]
    pub fn judge(&self, policies: &PolicySet) -> ValidationResult {
        self.validator.validate_with_level(policies, ValidationMode::Strict, DEREFERENCE_LEVEL)
    }
}

/// Whether nothing but principal, action, resource and entities of the context is looked into. Knows the usual forms, not
/// all there are.
fn is_shallow(condition: &TypedExpr) -> bool {
    condition.subexpressions().all(|expr| match expr.expr_kind() {
        ExprKind::GetAttr { expr, .. } | ExprKind::HasAttr { expr, .. } => match expr.data() {
            Some(Type::Record { .. }) => true,
            Some(Type::Entity(_)) => is_at_hand(expr),
            _ => false,
        },
        ExprKind::BinaryApp { op: BinaryOp::In | BinaryOp::HasTag | BinaryOp::GetTag, arg1, .. } => is_at_hand(arg1),
        // `context has mcp.name`
        ExprKind::ExtHasAttr { expr, attrs } => {
            let chain: Vec<&str> = attrs.iter().map(AsRef::as_ref).collect();
            is_at_hand(expr) && expr.data().as_ref().is_some_and(|ty| stays_in_records(ty, &chain))
        }
        _ => true,
    })
}

/// Whether an entity is a variable, or an attribute of a record that is one.
fn is_at_hand(entity: &TypedExpr) -> bool {
    match entity.expr_kind() {
        ExprKind::Var(_) => true,
        ExprKind::GetAttr { expr, .. } => matches!(expr.data(), Some(Type::Record { .. })) && is_at_hand(expr),
        _ => false,
    }
}

/// Whether every attribute of a chain but the last is a record, so that looking it up meets no entity.
fn stays_in_records(ty: &Type, chain: &[&str]) -> bool {
    let Type::Record { attrs, .. } = ty else { return false };
    match chain {
        [] => false,
        [_last] => true,
        [name, rest @ ..] => attrs.get_attr(name).is_some_and(|next| stays_in_records(&next.attr_type, rest)),
    }
}
