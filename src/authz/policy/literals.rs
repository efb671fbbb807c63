//! The entities that policies name: each has to be one that there can be, or a misspelled forbid would never match.

use std::sync::Arc;

use super::cedar::{
    EntityReference, EntityUID, ExprKind, Literal, PrincipalOrResourceConstraint, Template, ValidatorEntityTypeKind,
    ValidatorSchema, id_of,
};
use super::control::MESH;
use super::entities::MAX_ENDPOINT_DEPTH;
use super::entities::store::Store;
use crate::authz::call::http::{canonical_path, segment_prefix};
use crate::authz::identity::spiffe::{self, SpiffeId};
use crate::authz::target::{Protocol, Target};

/// Entity types whose entities are made per call: no file has to declare them. What a file could declare has to be there.
const MADE: &[&str] = &[
    "Agent",
    "Namespace",
    "TrustDomain",
    "Endpoint",
    "User",
    "UserGroup",
    "Mesh",
    "Bundle",
    "Session",
    "Token",
    "Task",
    "Template",
];

/// What can be named.
pub(super) struct Nameable<'b> {
    pub(super) store: &'b Store,
    pub(super) targets: &'b [Arc<Target>],
    pub(super) schema: &'b ValidatorSchema,
}

impl Nameable<'_> {
    /// # Errors
    /// What is wrong with the name, to go on after "which".
    pub(super) fn check(&self, uid: &EntityUID) -> Result<(), String> {
        let ty = uid.entity_type().to_string();
        if MADE.contains(&ty.as_str()) {
            return check_made(&ty, id_of(uid), self.targets);
        }
        let is_there = match self.schema.get_entity_type(uid.entity_type()).map(|ty| &ty.kind) {
            Some(ValidatorEntityTypeKind::Enum(ids)) => ids.iter().any(|id| id == uid.eid()),
            _ => self.store.contains(uid),
        };
        if is_there { Ok(()) } else { Err("nothing in the bundle declares".into()) }
    }
}

/// Whether there can be an entity of this name, as [`Nameable::check`], of a type without a list of names in the schema.
///
/// # Errors
/// What is wrong with the name, for people.
pub(super) fn check_named(store: &Store, targets: &[Arc<Target>], uid: &EntityUID) -> Result<(), String> {
    let ty = uid.entity_type().to_string();
    if MADE.contains(&ty.as_str()) {
        return check_made(&ty, id_of(uid), targets);
    }
    if store.contains(uid) { Ok(()) } else { Err("nothing in the bundle declares it".into()) }
}

/// The entities that a policy names in its scope and its conditions, actions left out.
pub(super) fn of(policy: &Template) -> impl Iterator<Item = &Arc<EntityUID>> {
    let scope = [policy.principal_constraint().as_inner(), policy.resource_constraint().as_inner()];
    let conditions = policy.non_scope_constraints().into_iter().flat_map(|condition| condition.subexpressions());
    let in_conditions = conditions.filter_map(|expr| match expr.expr_kind() {
        ExprKind::Lit(Literal::EntityUID(uid)) => Some(uid),
        _ => None,
    });
    scope.into_iter().filter_map(of_scope).chain(in_conditions).filter(|uid| !uid.is_action())
}

fn of_scope(constraint: &PrincipalOrResourceConstraint) -> Option<&Arc<EntityUID>> {
    use PrincipalOrResourceConstraint as C;
    match constraint {
        C::Eq(EntityReference::EUID(uid))
        | C::In(EntityReference::EUID(uid))
        | C::IsIn(_, EntityReference::EUID(uid)) => Some(uid),
        // Any, a type alone, or a slot.
        C::Any | C::Is(_) | C::Eq(_) | C::In(_) | C::IsIn(..) => None,
    }
}

/// Whether there can be an entity with this id, where the type's entities are made per call: from the caller's SPIFFE
/// ID, or from the target's name and the canonical path.
fn check_made(ty: &str, id: &str, targets: &[Arc<Target>]) -> Result<(), String> {
    match ty {
        "Agent" => SpiffeId::parse(id).map(drop).map_err(|error| format!("is no SPIFFE ID: {error}")),
        "TrustDomain" if !spiffe::is_trust_domain(id) => {
            Err("no caller is of: expected the name of a trust domain, such as `example.org`".into())
        }
        "Namespace" if !spiffe::is_namespace(id) => {
            Err("no caller is in: expected `<trust domain>/<namespace>`, such as `example.org/agents`".into())
        }
        "Mesh" if id != MESH => Err("there is none of: expected `Mesh::\"mesh\"`".into()),
        "Endpoint" => check_endpoint(id, targets).map_err(|expected| format!("no call can be about: {expected}")),
        _ => Ok(()),
    }
}

/// Endpoints are made per call, from the target's name and the canonical path.
fn check_endpoint(id: &str, targets: &[Arc<Target>]) -> Result<(), &'static str> {
    let (server, path) = id.find('/').and_then(|at| id.split_at_checked(at)).ok_or("expected `server/path`")?;
    let has_endpoints = |target: &Target| matches!(target.protocol, Protocol::Http | Protocol::Grpc);
    let has_any = |target: &Target| has_endpoints(target) || target.resource_metadata.is_some();
    let Some(target) = targets.iter().find(|target| *target.name == *server && has_any(target)) else {
        return Err("expected the name of an http or grpc target before the first `/`");
    };
    // What lies above the prefix holds all that is below it.
    let reachable = |prefix: &String| segment_prefix(prefix, path) || segment_prefix(path, prefix);
    let is_below = has_endpoints(target) && target.matches.path_prefix.as_ref().is_none_or(reachable);
    let is_metadata = target.resource_metadata.as_ref().is_some_and(|metadata| segment_prefix(path, metadata.path()));
    if !is_below && !is_metadata {
        return Err("its path is neither below the target's `path_prefix` nor that of its `resource_metadata`");
    }
    match canonical_path(path) {
        Ok(canonical) if canonical == path && path.matches('/').count() > MAX_ENDPOINT_DEPTH => {
            Err("expected at most 32 `/` in its path")
        }
        Ok(canonical) if canonical == path => Ok(()),
        _ => Err("its path is not in canonical form"),
    }
}
