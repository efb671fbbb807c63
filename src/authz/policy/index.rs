//! Which policies can apply to a query, found by looking up instead of walking.
//!
//! At load every policy is put on one list per action (or action group) of its scope: under the entity that
//! its principal or its resource has to be or to be in, whichever of the two fewer policies name. A query looks
//! under its principal, its resource and their ancestors. A policy that is on none of these lists has a scope,
//! or a first condition, that is false for the query; such a policy is false, and no part of it that could fail
//! is ever evaluated (Cedar's Lean model: `isAuthorized_eq_for_sound_policy_slice`).

use std::sync::Arc;

use foldhash::{HashMap, HashMapExt as _};

use super::cedar::{
    ActionConstraint, BinaryOp, Entity, EntityReference, EntityUID, Expr, ExprKind, Literal, Policy,
    PrincipalOrResourceConstraint, Var,
};

/// The place of a policy in the bundle.
pub type At = u32;
/// An entity that some policy's scope names.
type Named = u32;

/// The lists of all actions.
#[derive(Debug, Default)]
pub struct Index {
    named: HashMap<EntityUID, Named>,
    actions: HashMap<EntityUID, Lists>,
    any_action: Lists,
}

#[derive(Debug, Default)]
struct Lists {
    by_principal: HashMap<Named, Vec<At>>,
    by_resource: HashMap<Named, Vec<At>>,
    /// Policies that name neither: evaluated for every query about the action.
    rest: Vec<At>,
}

/// What a policy can be found by.
struct Keys {
    actions: Vec<Option<EntityUID>>,
    principal: Vec<Named>,
    resource: Vec<Named>,
}

/// A side of a scope, and an entity that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    Principal(Named),
    Resource(Named),
}

impl Index {
    /// Indexes policies in the order of the bundle.
    #[must_use]
    pub fn new<'p>(policies: impl Iterator<Item = &'p Policy>) -> Self {
        let mut index = Self::default();
        let all: Vec<Keys> = policies.map(|policy| index.keys(policy)).collect();
        // How many policies of an action name an entity: the fewer, the better it tells them apart.
        let mut counts: HashMap<(Option<&EntityUID>, Key), usize> = HashMap::new();
        for keys in &all {
            for action in &keys.actions {
                for key in keys.both() {
                    *counts.entry((action.as_ref(), key)).or_default() += 1;
                }
            }
        }
        let mut places = Vec::new();
        for (at, keys) in (0..).zip(&all) {
            for action in &keys.actions {
                let best = keys.both().min_by_key(|key| counts.get(&(action.as_ref(), *key)).copied());
                places.push((action.clone(), best, at));
            }
        }
        for (action, key, at) in places {
            let lists = match action {
                None => &mut index.any_action,
                Some(action) => index.actions.entry(action).or_default(),
            };
            match key {
                Some(Key::Principal(named)) => lists.by_principal.entry(named).or_default().push(at),
                Some(Key::Resource(named)) => lists.by_resource.entry(named).or_default().push(at),
                None => lists.rest.push(at),
            }
        }
        index
    }

    fn keys(&mut self, policy: &Policy) -> Keys {
        let actions = match policy.action_constraint() {
            ActionConstraint::Any => vec![None],
            ActionConstraint::Eq(action) => vec![Some((**action).clone())],
            ActionConstraint::In(actions) => {
                let mut all: Vec<_> = actions.iter().map(|action| Some((**action).clone())).collect();
                all.sort();
                all.dedup();
                all
            }
        };
        let mut keys = Keys { actions, principal: Vec::new(), resource: Vec::new() };
        keys.principal.extend(self.of_scope(policy.principal_constraint().as_inner()));
        keys.resource.extend(self.of_scope(policy.resource_constraint().as_inner()));
        if let Some(condition) = policy.non_scope_constraints() {
            self.of_condition(condition, &mut keys);
        }
        keys
    }

    fn of_scope(&mut self, constraint: &PrincipalOrResourceConstraint) -> Option<Named> {
        use PrincipalOrResourceConstraint as C;
        match constraint {
            C::Eq(reference) | C::In(reference) | C::IsIn(_, reference) => match reference {
                EntityReference::EUID(uid) => Some(self.name(uid)),
                EntityReference::Slot(_) => None,
            },
            C::Any | C::Is(_) => None,
        }
    }

    /// What the first conditions say, as long as none of them can fail: `principal == …`, `principal in …`, and
    /// the same of the resource. `&&` evaluates from left to right, so once one is false nothing else is looked at.
    fn of_condition(&mut self, condition: &Expr, keys: &mut Keys) {
        for part in leading(condition) {
            let ExprKind::BinaryApp { op: BinaryOp::Eq | BinaryOp::In, arg1, arg2 } = part.expr_kind() else { return };
            let (ExprKind::Var(side), ExprKind::Lit(Literal::EntityUID(uid))) = (arg1.expr_kind(), arg2.expr_kind())
            else {
                return;
            };
            match side {
                Var::Principal => keys.principal.push(self.name(uid)),
                Var::Resource => keys.resource.push(self.name(uid)),
                // Total as well, but no key.
                Var::Action | Var::Context => {}
            }
        }
    }

    fn name(&mut self, uid: &Arc<EntityUID>) -> Named {
        let next = u32::try_from(self.named.len()).unwrap_or(u32::MAX);
        *self.named.entry((**uid).clone()).or_insert(next)
    }

    /// The policies that can apply, in the order of the bundle, each once.
    #[must_use]
    pub fn candidates(&self, action: &Entity, principal: &Entity, resource: &Entity) -> Vec<At> {
        let principals = self.names_of(principal);
        let resources = self.names_of(resource);
        let mut found = Vec::new();
        let own = std::iter::once(action.uid()).chain(action.ancestors());
        for lists in own.filter_map(|uid| self.actions.get(uid)).chain([&self.any_action]) {
            found.extend(&lists.rest);
            found.extend(principals.iter().filter_map(|named| lists.by_principal.get(named)).flatten());
            found.extend(resources.iter().filter_map(|named| lists.by_resource.get(named)).flatten());
        }
        found.sort_unstable();
        // An action can be in two groups that one policy names.
        found.dedup();
        found
    }

    fn names_of(&self, entity: &Entity) -> Vec<Named> {
        std::iter::once(entity.uid()).chain(entity.ancestors()).filter_map(|uid| self.named.get(uid).copied()).collect()
    }
}

impl Keys {
    fn both(&self) -> impl Iterator<Item = Key> {
        let principal = self.principal.iter().copied().map(Key::Principal);
        principal.chain(self.resource.iter().copied().map(Key::Resource))
    }
}

/// The operands of the outermost `&&`s, from left to right.
fn leading(condition: &Expr) -> Vec<&Expr> {
    let (mut stack, mut parts) = (vec![condition], Vec::new());
    while let Some(expr) = stack.pop() {
        match expr.expr_kind() {
            ExprKind::And { left, right } => stack.extend([&**right, &**left]),
            _ => parts.push(expr),
        }
    }
    parts
}
