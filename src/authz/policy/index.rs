//! Which policies can apply to a query, found by looking up instead of walking.
//!
//! At load every policy is put on one list per action (or action group) of its scope: under the entity that
//! its principal or its resource has to be or to be in, whichever of the two fewer policies name. A query looks
//! under its principal, its resource and their ancestors. A policy that is on none of these lists has a scope,
//! or a first condition, that is false for the query; such a policy is false, and no part of it that could fail
//! is ever evaluated (Cedar's Lean model: `isAuthorized_eq_for_sound_policy_slice`).
//!
//! A policy that names neither has no such entity: it is evaluated for every call about its actions. How many of them
//! there are is what a call costs at least, so they are counted and bounded ([`Index::unindexed`]).

use std::cmp::Reverse;

use foldhash::{HashMap, HashMapExt as _};

use super::cedar::{BinaryOp, Expr, ExprKind, Literal, Var};
use super::scope::{ActionScope, Known, Named, Names, Scope};

/// The place of a policy in the bundle.
pub type At = u32;

/// The lists of all actions.
#[derive(Debug, Default)]
pub struct Index {
    lists: Vec<Lists>,
    /// By what scopes say of the action.
    by_action: HashMap<Entry, usize>,
}

/// What a list of policies says of the action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Entry {
    Any,
    Is(Named),
    In(Named),
}

#[derive(Debug)]
struct Lists {
    by_principal: HashMap<Named, Vec<At>>,
    by_resource: HashMap<Named, Vec<At>>,
    /// Policies that name neither: evaluated for every query about the action.
    rest: Vec<At>,
}

/// The lists that queries about one action look at.
#[derive(Debug)]
pub struct Relevant(Box<[usize]>);

/// Where a candidate was found: what of the query the index looked it up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It names neither principal nor resource.
    Unindexed,
    /// By the principal, which is this or in it.
    Principal(Named),
    /// By the resource, which is this or in it.
    Resource(Named),
}

/// A policy that may apply to a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The policy.
    pub at: At,
    /// Why it is one.
    pub found: Found,
}

/// What a policy can be found by.
#[derive(Debug, Default)]
pub struct Keys {
    principal: Vec<Named>,
    resource: Vec<Named>,
}

/// A side of a scope, and an entity that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    Principal(Named),
    Resource(Named),
}

impl Keys {
    /// The keys of a policy of this scope, with these conditions.
    pub fn of(principal: &Scope, resource: &Scope, condition: Option<&Expr>, names: &mut Names) -> Self {
        let mut keys = Self::default();
        keys.principal.extend(principal.named());
        keys.resource.extend(resource.named());
        if let Some(condition) = condition {
            keys.of_condition(condition, names);
        }
        keys
    }

    /// What the first conditions say, as long as none of them can fail: `principal == …`, `principal in …`, and
    /// the same of the resource. `&&` evaluates from left to right, so once one is false nothing else is looked at.
    fn of_condition(&mut self, condition: &Expr, names: &mut Names) {
        for part in leading(condition).into_iter().take_while(|part| is_total(part)) {
            let ExprKind::BinaryApp { op: BinaryOp::Eq | BinaryOp::In, arg1, arg2 } = part.expr_kind() else {
                continue;
            };
            let ExprKind::Lit(Literal::EntityUID(uid)) = arg2.expr_kind() else { continue };
            match arg1.expr_kind() {
                ExprKind::Var(Var::Principal) => self.principal.push(names.number(uid)),
                ExprKind::Var(Var::Resource) => self.resource.push(names.number(uid)),
                _ => {}
            }
        }
    }

    fn both(&self) -> impl Iterator<Item = Key> {
        let principal = self.principal.iter().copied().map(Key::Principal);
        principal.chain(self.resource.iter().copied().map(Key::Resource))
    }
}

impl Index {
    /// Indexes policies in the order of the bundle.
    #[must_use]
    pub fn new(policies: &[(&ActionScope, Keys)]) -> Self {
        // How many policies of an action name an entity: the fewer, the better it tells them apart.
        let mut counts: HashMap<(Entry, Key), u32> = HashMap::new();
        for (action, keys) in policies {
            for entry in entries(action) {
                for key in keys.both() {
                    *counts.entry((entry, key)).or_default() += 1;
                }
            }
        }
        let mut index = Self::default();
        for (at, (action, keys)) in (0..).zip(policies) {
            for entry in entries(action) {
                let best = keys.both().min_by_key(|key| counts.get(&(entry, *key)).copied());
                let lists = index.lists_of(entry);
                match best {
                    Some(Key::Principal(named)) => lists.by_principal.entry(named).or_default().push(at),
                    Some(Key::Resource(named)) => lists.by_resource.entry(named).or_default().push(at),
                    None => lists.rest.push(at),
                }
            }
        }
        index
    }

    fn lists_of(&mut self, entry: Entry) -> &mut Lists {
        let at = *self.by_action.entry(entry).or_insert(self.lists.len());
        if at == self.lists.len() {
            self.lists.push(Lists { by_principal: HashMap::new(), by_resource: HashMap::new(), rest: Vec::new() });
        }
        #[expect(clippy::indexing_slicing, reason = "it has just been made, if it was not there")]
        &mut self.lists[at]
    }

    /// The lists for an action.
    #[must_use]
    pub fn relevant(&self, action: &Known) -> Relevant {
        let exact = action.itself().map(Entry::Is);
        let groups = action.within().iter().copied().map(Entry::In);
        let entries = exact.into_iter().chain(groups).chain([Entry::Any]);
        Relevant(entries.filter_map(|entry| self.by_action.get(&entry).copied()).collect())
    }

    /// The policies that can apply, in the order of the bundle, each once.
    #[must_use]
    pub fn candidates(&self, relevant: &Relevant, principal: &Known, resource: &Known) -> Vec<Candidate> {
        let mut found = Vec::new();
        for lists in relevant.0.iter().filter_map(|at| self.lists.get(*at)) {
            found.extend(lists.rest.iter().map(|at| Candidate { at: *at, found: Found::Unindexed }));
            look_up(&lists.by_principal, principal, Found::Principal, &mut found);
            look_up(&lists.by_resource, resource, Found::Resource, &mut found);
        }
        found.sort_unstable_by_key(|candidate| candidate.at);
        // An action can be in two groups that one policy names.
        found.dedup_by_key(|candidate| candidate.at);
        found
    }

    /// What the most policies of one list are looked up by, and how many they are.
    #[must_use]
    pub fn most_looked_up(&self) -> Option<(Found, usize)> {
        let principals =
            |lists: &Lists| longest(&lists.by_principal).map(|(named, count)| (Found::Principal(named), count));
        let resources =
            |lists: &Lists| longest(&lists.by_resource).map(|(named, count)| (Found::Resource(named), count));
        let all = self.lists.iter().flat_map(|lists| principals(lists).into_iter().chain(resources(lists)));
        all.max_by_key(|(_, count)| *count)
    }

    /// The policies that every query about an action evaluates, whatever its principal and resource, in the order of
    /// the bundle.
    #[must_use]
    pub fn unindexed(&self, relevant: &Relevant) -> Vec<At> {
        let lists = relevant.0.iter().filter_map(|at| self.lists.get(*at));
        let mut all: Vec<At> = lists.flat_map(|lists| &lists.rest).copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

fn longest(by: &HashMap<Named, Vec<At>>) -> Option<(Named, usize)> {
    by.iter().map(|(named, policies)| (*named, policies.len())).max_by_key(|(named, count)| (*count, Reverse(*named)))
}

/// The policies that `known` or something that it is in leads to.
fn look_up(by: &HashMap<Named, Vec<At>>, known: &Known, found: impl Fn(Named) -> Found, all: &mut Vec<Candidate>) {
    if by.is_empty() {
        return;
    }
    for named in known.within() {
        let policies = by.get(named).map_or(&[][..], Vec::as_slice);
        all.extend(policies.iter().map(|at| Candidate { at: *at, found: found(*named) }));
    }
}

fn entries(action: &ActionScope) -> Vec<Entry> {
    match action {
        ActionScope::Any => vec![Entry::Any],
        ActionScope::Is(named) => vec![Entry::Is(*named)],
        ActionScope::In(named) => named.iter().copied().map(Entry::In).collect(),
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

/// Whether a condition is true or false for every query, and never fails. Knows the usual forms, not all there are.
fn is_total(condition: &Expr) -> bool {
    let entity = |expr: &Expr| matches!(expr.expr_kind(), ExprKind::Var(Var::Principal | Var::Action | Var::Resource));
    let value = |expr: &Expr| matches!(expr.expr_kind(), ExprKind::Var(_) | ExprKind::Lit(_));
    match condition.expr_kind() {
        ExprKind::BinaryApp { op: BinaryOp::Eq, arg1, arg2 } => value(arg1) && value(arg2),
        ExprKind::BinaryApp { op: BinaryOp::In, arg1, arg2 } => {
            entity(arg1) && (entity(arg2) || matches!(arg2.expr_kind(), ExprKind::Lit(Literal::EntityUID(_))))
        }
        ExprKind::HasAttr { expr, .. } => matches!(expr.expr_kind(), ExprKind::Var(_)),
        ExprKind::Is { expr, .. } => entity(expr),
        _ => false,
    }
}
