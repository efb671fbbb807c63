//! The question of a control call: what it is about as an entity, and what its context holds.

use std::sync::Arc;

use super::bundle::Bundle;
use super::candidates::{Own, Query};
use super::cedar::{self, Entity, EntityUID, Value, entity_type, id_of, uid};
use super::context::{self, Pairs, add_proved, moment, record, text};
use super::entities::entity;
use super::literals;
use super::needs::Needs;
use crate::authz::control::{Command, Controller};
use crate::authz::facts::Facts;
use crate::authz::identity::spiffe::SpiffeId;
use crate::authz::reason::Reason;
use crate::authz::state::grant::Grant;
use crate::authz::state::hold::{About, Hold, Subject};
use crate::authz::token::Rules;

/// The id of the one entity that stands for everything.
pub(super) const MESH: &str = "mesh";

impl Bundle {
    /// The question of a control call.
    ///
    /// # Errors
    /// [`Reason::InternalError`] if the schema lacks its action.
    pub fn control_query(
        &self,
        controller: &Controller,
        command: &Command,
        facts: &Facts,
        rules: &Rules,
    ) -> Result<Query, Reason> {
        let action = self.engine().action(command.action().id()).ok_or(Reason::InternalError)?;
        let principal = self.agent(&controller.caller.agent).ok_or(Reason::InternalError)?;
        let about = match command {
            Command::Hold(hold) | Command::Release(hold) => self.held(&hold.subject, rules),
            Command::Grant(grant) | Command::Revoke(grant) => bare("Template", &grant.template),
            Command::Complete(task) => bare("Task", task),
            Command::Status | Command::Watch => bare("Mesh", MESH),
        };
        let resource = Arc::new(self.engine().known(about.ok_or(Reason::InternalError)?));
        let held = controller.caller.proved.speaks();
        let testimony = held.and_then(|held| self.testimony(held, &controller.caller.agent, rules));
        self.engine().query(action, principal, resource, Vec::new(), |_, _| {
            let (mut pairs, mut own) = (Pairs::new(), Own::default());
            pairs.extend(moment(facts.now).map(|now| ("now", now)));
            pairs.push(("local", context::local(facts)));
            if let Some(testimony) = testimony.as_deref() {
                add_proved(&mut pairs, Needs::ALL, testimony);
                own.user = testimony.user.as_ref().map(|(user, _)| user.clone());
            }
            pairs.extend(command.hold().map(|hold| ("hold", hold_facts(hold))));
            if let Some(grant) = command.grant() {
                pairs.push(("grant", self.grant_facts(grant, &mut own.others).ok_or(Reason::InternalError)?));
            }
            Ok((context::of(pairs), own))
        })
    }

    /// Whether there can be calls about this, or about what is in it.
    ///
    /// # Errors
    /// Why not, for people.
    pub fn can_be(&self, resource: &EntityUID) -> Result<(), String> {
        literals::check_named(self.store(), self.targets(), resource)
    }

    /// What is held, as an entity with all that it is in. Of what there is not there is the name alone: that there is none is told
    /// to whoever may hold it.
    fn held(&self, subject: &Subject, rules: &Rules) -> Option<Arc<Entity>> {
        self.known_of(subject, rules).or_else(|| bare(subject.about().entity_type(), subject.id()))
    }

    fn known_of(&self, subject: &Subject, rules: &Rules) -> Option<Arc<Entity>> {
        let (about, id) = (subject.about(), subject.id());
        let ty = about.entity_type();
        let tool = || {
            let (server, name) = id.split_once('/')?;
            let server = self.server(server)?;
            let registered = server.tools.get(name).map(|tool| tool.entity.entity().clone());
            registered.or_else(|| Some(Arc::new(self.store().unregistered_tool(server.entity.entity(), name))))
        };
        match about {
            About::Everything => bare(ty, MESH),
            About::Agent => Some(self.agent(&SpiffeId::parse(id).ok()?)?.entity().clone()),
            About::Namespace => within(ty, id, "TrustDomain", id.split('/').next()?),
            About::User => self.user_named(id, rules),
            About::Server => Some(self.server(id)?.entity.entity().clone()),
            About::Tool => tool(),
            About::Bundle | About::TrustDomain | About::Session | About::Token | About::Task => bare(ty, id),
        }
    }

    /// A user of whom nothing is known but the name, and what the bundle says.
    fn user_named(&self, id: &str, rules: &Rules) -> Option<Arc<Entity>> {
        let me = uid(&self.store().types().user, id);
        let (issuer, subject) = rules.issuers.iter().find_map(|issuer| {
            let subject = id.strip_prefix(&issuer.name)?.strip_prefix('/')?;
            Some((issuer.issuer.as_str(), subject))
        })?;
        let listed = self.store().get(&me);
        let above = listed.iter().flat_map(|listed| listed.ancestors().cloned());
        let attributes = [("issuer", issuer), ("subject", subject)];
        Some(Arc::new(entity(me, attributes.map(|(name, value)| (name, text(value))), above.collect())))
    }

    /// `context.grant`; the entities that it names are added to `others`.
    fn grant_facts(&self, grant: &Grant, others: &mut Vec<Arc<Entity>>) -> Option<Value> {
        let agent = self.agent(&SpiffeId::parse(&grant.agent).ok()?)?.entity().clone();
        let mut members = vec![
            ("agent", Value::from(agent.uid().clone())),
            ("author", text(&grant.author.agent)),
            ("reason", text(&grant.reason)),
            ("until", moment(grant.until)?),
        ];
        others.push(agent);
        members.extend(grant.calls.map(|calls| ("calls", i64::try_from(calls).unwrap_or(i64::MAX).into())));
        members.extend(grant.task.as_deref().map(|task| ("task", text(task))));
        members.extend(grant.user.as_deref().map(|user| ("user", text(user))));
        if let Some(resource) = &grant.resource {
            members.push(("resource", text(&resource.to_string())));
            let types = self.store().types();
            let is = |ty: &cedar::EntityType| resource.entity_type() == ty;
            let id = id_of(resource);
            // What there is not is no fact; that there is none is told to whoever may grant.
            if let Some(tool) = self.store().get(resource).filter(|_| is(&types.tool)) {
                members.push(("tool", Value::from(tool.uid().clone())));
                others.push(tool);
            }
            // A tool's and an endpoint's id begin with their server's.
            let server = if is(&types.server) { Some(id) } else { id.split('/').next() };
            let has_one = is(&types.server) || is(&types.tool) || is(&types.endpoint);
            if let Some(server) = server.filter(|_| has_one).and_then(|name| self.server(name)) {
                members.push(("server", Value::from(server.entity.uid().clone())));
                others.push(server.entity.entity().clone());
            }
        }
        Some(record(members))
    }
}

fn hold_facts(hold: &Hold) -> Value {
    let mut members = vec![("author", text(&hold.author.agent)), ("reason", text(&hold.reason))];
    members.extend(hold.until.and_then(moment).map(|until| ("until", until)));
    record(members)
}

/// An entity of which there is nothing but its name.
fn bare(ty: &str, id: &str) -> Option<Arc<Entity>> {
    Some(Arc::new(Entity::with_uid(uid(&entity_type(ty)?, id))))
}

/// An entity that is in another one.
fn within(ty: &str, id: &str, of: &str, parent: &str) -> Option<Arc<Entity>> {
    let parent = uid(&entity_type(of)?, parent);
    Some(Arc::new(entity(uid(&entity_type(ty)?, id), [], vec![parent])))
}
