//! Cedar's own authorizer over a whole bundle: the yardstick for [`Engine::decide`](super::engine::Engine::decide).
//!
//! It holds every policy, the schema and all entities a second time, so it is built from the files when somebody wants to
//! compare (`palisade check`, tests, fuzzing); a sidecar that serves has none.

use std::collections::BTreeSet;

use cedar_policy::{Authorizer, Entities, PolicySet, Response, Schema};

use super::bundle::Bundle;
use super::cedar::{self, EntityUID};
use super::engine::Query;
use super::load::Texts;
use super::policies::Policies;
use super::source::{BundleError, SourceFile};

/// Policies, schema and entities of a bundle, as Cedar's public API takes them.
#[derive(Debug)]
pub struct Reference {
    policies: PolicySet,
    schema: Schema,
    entities: Entities,
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
        let policies = Policies::read(&texts)?.set()?;
        let entities = texts.entities(&schema, &targets, &registries)?;
        Ok(Self { policies, schema, entities })
    }

    /// What Cedar's own authorizer says over all policies and entities, with the request validated against the schema:
    /// slow. `query` is one of `bundle`, made of the same files, and has to hold the whole context.
    ///
    /// # Errors
    /// What Cedar says if the request does not fit the schema.
    pub fn decide(&self, bundle: &Bundle, query: Query) -> Result<Response, String> {
        let action = bundle.engine().action_uid(query.action).ok_or("no such action")?;
        let known = |uid: &EntityUID| (uid.clone(), None);
        let schema: &cedar::ValidatorSchema = self.schema.as_ref();
        let request = cedar::Request::new(
            known(query.principal.uid()),
            known(action),
            known(query.resource.uid()),
            query.context,
            Some(schema),
            cedar::Extensions::all_available(),
        )
        .map_err(|error| error.to_string())?;
        let own = [query.principal, query.resource].map(|known| cedar_policy::Entity::from((**known.entity()).clone()));
        let entities =
            self.entities.clone().upsert_entities(own, Some(&self.schema)).map_err(|error| error.to_string())?;
        Ok(Authorizer::new().is_authorized(&request.into(), &self.policies, &entities))
    }

    /// The ids of the entities of a type that policies name, in order.
    #[must_use]
    pub fn named(&self, ty: &str) -> BTreeSet<String> {
        let literals = self.policies.policies().flat_map(cedar_policy::Policy::entity_literals);
        literals.filter(|uid| uid.type_name().to_string() == ty).map(|uid| uid.id().unescaped().to_owned()).collect()
    }
}
