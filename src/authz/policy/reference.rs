//! Cedar's own authorizer over a whole bundle: the yardstick for [`Engine::decide`](super::engine::Engine::decide).
//!
//! It holds every policy and the schema a second time, so it is built from the files when somebody wants to compare:
//! `palisade check`, tests and fuzzing over all entities, as Cedar itself parsed them; a server with `[comparison]` over those of
//! each query, because a second copy of a million entities would cost gigabytes. A server without it has none.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use cedar_policy::{Authorizer, Decision, Entities, PolicyId, PolicySet, Response, Schema, SlotId};

use super::bundle::Bundle;
use super::candidates::Query;
use super::cedar::{self, Context, Entity, EntityUID};
use super::demands::Demands;
use super::literals;
use super::load::Texts;
use super::policies::Policies;
use super::source::{BundleError, SourceFile};

/// Policies, schema and entities of a bundle, as Cedar's public API takes them.
#[derive(Debug)]
pub struct Reference {
    policies: PolicySet,
    schema: Schema,
    known: Known,
}

/// The entities over which Cedar decides, besides principal and resource.
#[derive(Debug)]
enum Known {
    /// All of the bundle's.
    All(Entities),
    /// These actions, and what the query names, from the bundle.
    OfTheQuery(Entities),
}

impl Reference {
    /// Reads the files of a bundle; whether they are one that may be in force is for [`Bundle::load`] to say.
    ///
    /// # Errors
    /// [`BundleError`] for what cannot be read.
    pub fn load(files: &[SourceFile]) -> Result<Self, BundleError> {
        let texts = Texts::sort(files)?;
        let schema = texts.schema()?;
        let targets = texts.targets()?;
        let registries = texts.registries(&targets)?;
        let policies = Policies::set(&texts)?;
        let entities = texts.entities(&schema, &targets, &registries)?;
        Ok(Self { policies, schema, known: Known::All(entities) })
    }

    /// The same without a copy of the entities: each query brings its own, with all that they are in. Policies can read no
    /// others, for they are validated at level 1.
    ///
    /// # Errors
    /// [`BundleError`] for what cannot be read.
    pub fn load_without_entities(files: &[SourceFile]) -> Result<Self, BundleError> {
        let texts = Texts::sort(files)?;
        let schema = texts.schema()?;
        let policies = Policies::set(&texts)?;
        let actions = schema.action_entities().map_err(|error| BundleError::new("*.cedarschema", error.to_string()))?;
        Ok(Self { policies, schema, known: Known::OfTheQuery(actions) })
    }

    /// What Cedar's own authorizer says over all policies, with the request validated against the schema: slow. `query` is
    /// one of `bundle`, made of the same files, and has to hold the whole context.
    ///
    /// # Errors
    /// What Cedar says if the request does not fit the schema.
    pub fn decide(&self, bundle: &Bundle, query: &Query) -> Result<Response, String> {
        let action = bundle.engine().action_uid(query.action()).ok_or("no such action")?;
        let known = |uid: &EntityUID| (uid.clone(), None);
        let schema: &cedar::ValidatorSchema = self.schema.as_ref();
        let (entities, above) = match &self.known {
            Known::All(entities) => (entities, Vec::new()),
            Known::OfTheQuery(actions) => (actions, others(bundle, query)),
        };
        // What Cedar read from the files itself counts; of the rest the last one of a uid.
        let own = above.into_iter().chain([query.principal().entity().clone(), query.resource().entity().clone()]);
        let core: &cedar::Entities = entities.as_ref();
        let unread = own.filter(|entity| !matches!(core.entity(entity.uid()), cedar::Dereference::Data(_)));
        // A user is more than a file says of it: its groups and claims are the token's.
        let own = unread.chain(query.own().iter().cloned());
        let own: Vec<_> = own.map(|entity| cedar_policy::Entity::from((*entity).clone())).collect();
        let request = cedar::Request::new(
            known(query.principal().uid()),
            known(action),
            known(query.resource().uid()),
            query.context().clone(),
            Some(schema),
            cedar::Extensions::all_available(),
        )
        .map_err(|error| error.to_string())?;
        let entities = entities.clone().upsert_entities(own, Some(&self.schema)).map_err(|error| error.to_string())?;
        let (request, authorizer) = (request.into(), Authorizer::new());
        let response = authorizer.is_authorized(&request, &self.policies, &entities);
        if query.granted().is_empty() {
            return Ok(response);
        }
        let grants = self.grants(query)?;
        Ok(together(&response, &authorizer.is_authorized(&request, &grants, &entities)))
    }

    /// The templates that grants link for a query, each linked by the first of its grants.
    fn grants(&self, query: &Query) -> Result<PolicySet, String> {
        let mut set = PolicySet::new();
        for grant in query.granted().iter().filter_map(|granted| granted.grants.first()) {
            let template = self.policies.template(&PolicyId::new(&grant.template)).ok_or("no such template")?;
            let values = [(SlotId::principal(), query.principal().uid().clone())].into_iter();
            let values = values.chain(grant.resource.iter().map(|resource| (SlotId::resource(), resource.clone())));
            let values = values.map(|(slot, uid)| (slot, cedar_policy::EntityUid::from(uid))).collect();
            let wrong = |error: cedar_policy::PolicySetError| error.to_string();
            set.add_template(template.clone()).map_err(wrong)?;
            set.link(template.id().clone(), PolicyId::new(&grant.id), values).map_err(wrong)?;
        }
        Ok(set)
    }

    /// What a policy, or the template of a link, demands of the caller's token, by its annotations as Cedar read them.
    ///
    /// # Errors
    /// What is wrong with them, which a bundle that was loaded has none of.
    pub fn demands(&self, query: &Query, policy: &PolicyId) -> Result<Option<Demands>, String> {
        let mut grants = query.granted().iter().filter_map(|granted| granted.grants.first());
        let grant = grants.find(|grant| grant.id == *AsRef::<str>::as_ref(policy));
        let template = grant.map(|grant| PolicyId::new(&grant.template));
        let annotation = |name: &str| match &template {
            Some(template) => self.policies.template(template).and_then(|template| template.annotation(name)),
            None => self.policies.annotation(policy, name),
        };
        Demands::parse(annotation("step_up"), annotation("scopes"))
    }

    /// The ids of the entities of a type that policies and links name, in order.
    #[must_use]
    pub fn named(&self, ty: &str) -> BTreeSet<String> {
        let core: &cedar::PolicySet = self.policies.as_ref();
        let written = core.all_templates().flat_map(literals::of).map(|uid| &**uid);
        let filled = core.policies().flat_map(|policy| policy.env().values());
        let of_type = written.chain(filled).filter(|uid| uid.entity_type().to_string() == ty);
        of_type.map(|uid| cedar::id_of(uid).to_owned()).collect()
    }
}

/// What Cedar says over two sets of policies is what it says over both together: each policy stands for itself.
fn together(one: &Response, other: &Response) -> Response {
    let both = [one, other];
    let is_forbidden = |response: &&Response| {
        response.decision() == Decision::Deny && response.diagnostics().reason().next().is_some()
    };
    let forbidden = both.iter().any(is_forbidden);
    let decides = |response: &&&Response| is_forbidden(response) == forbidden;
    let permitted = !forbidden && both.iter().any(|response| response.decision() == Decision::Allow);
    let reason = both.iter().filter(decides).flat_map(|response| response.diagnostics().reason().cloned()).collect();
    let errors = both.iter().flat_map(|response| response.diagnostics().errors().cloned()).collect();
    Response::new(if permitted { Decision::Allow } else { Decision::Deny }, reason, errors)
}

/// The entities that the context of a query names, and whatever they, the principal and the resource are in.
fn others(bundle: &Bundle, query: &Query) -> Vec<Arc<Entity>> {
    let get = |uid: &EntityUID| bundle.store().get(uid);
    let named: HashSet<EntityUID> = match query.context() {
        Context::Value(attributes) => attributes.values().flat_map(cedar::Value::all_literal_uids).collect(),
        // Palisade makes no context with unknowns in it.
        Context::RestrictedResidual(_) => HashSet::new(),
    };
    let named: Vec<Arc<Entity>> = named.iter().filter_map(get).collect();
    let roots = named.iter().chain(query.own().iter()).chain([query.principal().entity(), query.resource().entity()]);
    let above: HashSet<&EntityUID> = roots.flat_map(|entity| entity.ancestors()).collect();
    above.into_iter().filter_map(get).chain(named.iter().cloned()).collect()
}
