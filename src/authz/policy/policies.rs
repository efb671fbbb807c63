//! The policies of a bundle: parsed, annotated, validated strictly, and checked for names that nothing declares.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use cedar_policy::{PolicyId, PolicySet, Schema, ValidationMode, Validator};

use super::cedar;
use super::engine::PolicyInfo;
use super::entities::MAX_ENDPOINT_DEPTH;
use super::load::Texts;
use super::nesting;
use super::source::{BundleError, Kind};
use super::store::Store;
use crate::authz::call::http::{canonical_path, segment_prefix};
use crate::authz::identity::spiffe::{self, SpiffeId};
use crate::authz::target::{Protocol, Target};

/// Policies may dereference principal, action, resource and entities of the context, and no further:
/// that keeps the entities of a query a handful (Cedar RFC 76).
const DEREFERENCE_LEVEL: u32 = 1;
/// Annotations that Palisade knows; any other one is a misspelling.
const ANNOTATIONS: &[&str] = &["id", "reason", "message", "control"];
/// Entity types whose literals in policies have to exist: a misspelled group in a `forbid` would silently
/// never match.
const DECLARED_LITERALS: &[&str] = &["AgentGroup", "ServerGroup", "ToolGroup", "Server", "Tool"];

/// The policies with the places they come from.
pub(super) struct Policies<'f> {
    pub(super) set: PolicySet,
    /// In the order of the bundle.
    places: Vec<Place<'f>>,
    /// Where in `places` a policy is.
    by_id: HashMap<PolicyId, usize>,
}

/// A policy and where it comes from.
struct Place<'f> {
    id: PolicyId,
    file: &'f str,
    text: &'f str,
    info: Arc<PolicyInfo>,
}

impl<'f> Policies<'f> {
    pub(super) fn read(texts: &Texts<'f>) -> Result<Self, BundleError> {
        let mut all = Self { set: PolicySet::new(), places: Vec::new(), by_id: HashMap::new() };
        for (name, text) in texts.of(Kind::Policies) {
            nesting::check(text, false).map_err(|deep| BundleError::at(name, text, deep.at, deep.what))?;
            let set: PolicySet =
                text.parse().map_err(|errors: cedar_policy::ParseErrors| match errors.iter().next() {
                    Some(first) => BundleError::diagnostic(name, text, first),
                    None => BundleError::new(name, errors.to_string()),
                })?;
            // A file that is being written is empty for a moment, and its forbids must not vanish with it.
            if set.is_empty() {
                return Err(BundleError::new(name, "holds no policy; remove the file if that is meant"));
            }
            // A template does nothing until it is linked, which no file can do yet: a forbid would lie there, dead.
            if let Some(template) = set.templates().next() {
                let at = offset(template.as_ref().loc());
                return Err(BundleError::at(name, text, at, "templates (`?principal`, `?resource`) are not supported"));
            }
            for policy in set.policies() {
                let annotations: Vec<(&str, &str)> = policy.annotations().collect();
                let forbids = policy.effect() == cedar_policy::Effect::Forbid;
                let at = offset(policy.as_ref().loc());
                let core: &cedar::Policy = policy.as_ref();
                if core.non_scope_constraints().is_some_and(nesting::is_too_deep) {
                    let message = format!(
                        "the conditions of a policy are nested deeper than {} levels, of which each `&&`, `||` or other \
                         operator of a chain is one: compare with a set, or write several policies",
                        nesting::MAX_LEVELS
                    );
                    return Err(BundleError::at(name, text, at, message));
                }
                let info = info(name, text, at, &annotations, forbids)?;
                let id = PolicyId::new(&info.id);
                if all.by_id.insert(id.clone(), all.places.len()).is_some() {
                    return Err(BundleError::at(name, text, at, format!("policy id `{}` is there twice", info.id)));
                }
                all.set
                    .add(policy.new_id(id.clone()))
                    .map_err(|error| BundleError::at(name, text, at, error.to_string()))?;
                all.places.push(Place { id, file: name, text, info: Arc::new(info) });
            }
        }
        if all.places.is_empty() {
            let message =
                "there is no policy at all, so nothing could ever be permitted; expected at least one *.cedar file";
            return Err(BundleError::new("", message));
        }
        Ok(all)
    }

    /// Strict validation at level 1; warnings are errors too, for they name policies that can never apply.
    pub(super) fn validate(&self, schema: &Schema) -> Result<(), BundleError> {
        let result =
            Validator::new(schema.clone()).validate_with_level(&self.set, ValidationMode::Strict, DEREFERENCE_LEVEL);
        let errors = result.validation_errors().map(|error| Found::new(self, error.policy_id(), error));
        let warnings = result.validation_warnings().map(|warning| Found::new(self, warning.policy_id(), warning));
        let error = errors.min_by(Found::by_place).map(Found::say);
        match error.or_else(|| warnings.min_by(Found::by_place).map(Found::say)) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Groups, servers and tools that policies name have to exist; what is made per call has to be what can be made.
    pub(super) fn check_literals(&self, store: &Store, targets: &[Arc<Target>]) -> Result<(), BundleError> {
        for Place { id, file: name, text, .. } in &self.places {
            let Some(policy) = self.set.policy(id) else { continue };
            let at = offset(policy.as_ref().loc());
            for literal in policy.entity_literals() {
                let (ty, written) = (literal.type_name().to_string(), literal.to_string());
                let wrong = |what: String| {
                    Err(BundleError::at(name, text, at, format!("policy `{id}` names `{written}`, which {what}")))
                };
                if DECLARED_LITERALS.contains(&ty.as_str()) && !store.contains(literal.as_ref()) {
                    return wrong("nothing in the bundle declares".into());
                }
                if let Err(what) = check_made(&ty, literal.id().unescaped(), targets) {
                    return wrong(what);
                }
            }
        }
        Ok(())
    }

    pub(super) fn compiled(&self) -> Vec<(Arc<PolicyInfo>, cedar::Policy)> {
        self.places
            .iter()
            .filter_map(|place| {
                let policy: &cedar::Policy = self.set.policy(&place.id)?.as_ref();
                Some((place.info.clone(), policy.clone()))
            })
            .collect()
    }
}

/// What is said of a policy: its annotations, all of them known.
fn info(
    file: &str,
    text: &str,
    at: usize,
    annotations: &[(&str, &str)],
    forbids: bool,
) -> Result<PolicyInfo, BundleError> {
    let wrong = |message: String| Err(BundleError::at(file, text, at, message));
    let value = |name: &str| annotations.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    if let Some((unknown, _)) = annotations.iter().find(|(key, _)| !ANNOTATIONS.contains(key)) {
        return wrong(format!("annotation `@{unknown}` is unknown; expected one of @{}", ANNOTATIONS.join(", @")));
    }
    let Some(id) = value("id").filter(|id| !id.is_empty()) else {
        return wrong("this policy has no `@id(\"…\")`".into());
    };
    let Some(reason) = value("reason").filter(|reason| !reason.is_empty()) else {
        return wrong(format!("policy `{id}` has no `@reason(\"…\")`"));
    };
    Ok(PolicyInfo { id, reason, message: value("message"), control: value("control"), forbids })
}

/// Something that the validator says, with its place. One schema's mistake may be found in every policy, so
/// only the one that is told is put into words.
struct Found<'p, E> {
    place: Option<&'p Place<'p>>,
    offset: usize,
    error: &'p E,
}

impl<'p, E: miette::Diagnostic> Found<'p, E> {
    fn new(policies: &'p Policies<'_>, id: &PolicyId, error: &'p E) -> Self {
        let offset = error.labels().and_then(|mut labels| labels.next()).map_or(0, |label| label.offset());
        Self { place: policies.by_id.get(id).and_then(|at| policies.places.get(*at)), offset, error }
    }

    /// The first by place is told: which one it is must not depend on a hash.
    fn by_place(&self, other: &Self) -> Ordering {
        let place = |found: &Self| (found.place.map(|place| place.file), found.offset);
        place(self).cmp(&place(other)).then_with(|| self.error.to_string().cmp(&other.error.to_string()))
    }

    fn say(self) -> BundleError {
        match self.place {
            Some(place) => BundleError::diagnostic(place.file, place.text, self.error),
            None => BundleError::new("", self.error.to_string()),
        }
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
        "Namespace" if !is_namespace(id) => {
            Err("no caller is in: expected `<trust domain>/<namespace>`, such as `example.org/agents`".into())
        }
        "Endpoint" => check_endpoint(id, targets).map_err(|expected| format!("no call can be about: {expected}")),
        _ => Ok(()),
    }
}

/// Whether an agent of this namespace has a SPIFFE ID.
fn is_namespace(id: &str) -> bool {
    let Some((trust_domain, namespace)) = id.split_once('/') else { return false };
    SpiffeId::parse(&format!("spiffe://{trust_domain}/ns/{namespace}/sa/account"))
        .is_ok_and(|agent| agent.namespace_and_service_account() == Some((namespace, "account")))
}

/// Endpoints are made per call, from the target's name and the canonical path.
fn check_endpoint(id: &str, targets: &[Arc<Target>]) -> Result<(), &'static str> {
    let (server, path) = id.find('/').and_then(|at| id.split_at_checked(at)).ok_or("expected `server/path`")?;
    let has_endpoints = |target: &Target| matches!(target.protocol, Protocol::Http | Protocol::Grpc);
    let Some(target) = targets.iter().find(|target| *target.name == *server && has_endpoints(target)) else {
        return Err("expected the name of an http or grpc target before the first `/`");
    };
    // What lies above the prefix holds all that is below it.
    let reachable = |prefix: &String| segment_prefix(prefix, path) || segment_prefix(path, prefix);
    if !target.matches.path_prefix.as_ref().is_none_or(reachable) {
        return Err("its path is outside of the target's `path_prefix`");
    }
    match canonical_path(path) {
        Ok(canonical) if canonical == path && path.matches('/').count() > MAX_ENDPOINT_DEPTH => {
            Err("expected at most 32 `/` in its path")
        }
        Ok(canonical) if canonical == path => Ok(()),
        _ => Err("its path is not in canonical form"),
    }
}

fn offset(loc: Option<&cedar::Loc>) -> usize {
    loc.map_or(0, |loc| loc.span.offset())
}
