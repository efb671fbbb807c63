//! A world as the engine has it and as Cedar has it, and one question to both.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use cedar_policy::{
    AuthorizationError, Authorizer, Context, Decision, Entities, EntityUid, EvaluationError, Policy, PolicyId,
    PolicySet, SlotId, Template,
};
use palisade::authz::policy::candidates::Own;
use palisade::authz::policy::cedar::{self, Entity, EntityUID, EntityUIDEntry, Evaluator, Extensions};
use palisade::authz::policy::engine::{Answer, Engine, Failure, Part, PolicyInfo};
use palisade::authz::policy::grantable::Granted;
use palisade::authz::policy::scope::Known;
use serde_json::{Map, Value, json};

use super::coverage::{End, Met};
use super::world::{Ask, Source, Uid, World};

/// A world, built twice.
pub struct Asked {
    engine: Engine,
    /// In the order of the bundle.
    policies: Vec<(Arc<PolicyInfo>, cedar::Policy)>,
    set: PolicySet,
    entities: Entities,
    stored: HashMap<EntityUID, Arc<Known>>,
}

/// What is said to a question, in one form for both.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Permitted(Vec<String>),
    Forbidden(Vec<String>, Vec<(String, &'static str)>),
    Failed(Vec<(String, &'static str)>),
    NotPermitted,
    Broken,
}

impl Asked {
    pub fn new(world: &World) -> Self {
        Self::with(world, |_| true)
    }

    /// The first policy is lost on its way into the engine: a law that holds all the same is none.
    pub fn without_the_first(world: &World) -> Self {
        Self::with(world, |at| at > 0)
    }

    fn with(world: &World, is_kept: fn(usize) -> bool) -> Self {
        let set = policies(&world.sources);
        let compiled = |source: &Source| {
            let (Source::Policy { id, .. } | Source::Link { id, .. }) = source else { return None };
            let policy = set.policy(&PolicyId::new(id)).unwrap();
            let forbids = policy.effect() == cedar_policy::Effect::Forbid;
            let template = policy.template_id().map(|template| Arc::from(template.to_string()));
            let info = PolicyInfo {
                id: id.clone(),
                template,
                reason: "".into(),
                message: None,
                control: None,
                demands: None,
                limits: Arc::default(),
                grant: None,
                forbids,
            };
            let core: &cedar::Policy = policy.as_ref();
            Some((Arc::new(info), core.clone()))
        };
        let policies: Vec<_> = world.sources.iter().filter_map(compiled).collect();
        let entities = Entities::from_json_value(entities(world), None).unwrap_or_else(|error| panic!("{error:?}"));
        let core: &cedar::Entities = entities.as_ref();
        let all: Vec<Arc<Entity>> = core.iter().cloned().map(Arc::new).collect();
        let actions = all.iter().filter(|one| one.uid().is_action()).cloned().collect();
        let kept = policies.iter().enumerate().filter(|(at, _)| is_kept(*at)).map(|(_, policy)| policy.clone());
        let engine = Engine::new(kept, actions).unwrap();
        let known = |entity: Arc<Entity>| (entity.uid().clone(), Arc::new(engine.known(entity)));
        let stored = all.into_iter().map(known).collect();
        Self { engine, policies, set, entities, stored }
    }

    /// The law: the engine says what Cedar says, and every policy that it leaves out is false.
    pub fn agree(&self, ask: &Ask) -> Result<Met, String> {
        let context = Context::from_json_value(Value::Object(ask.context.clone()), None).unwrap();
        let (principal, resource) = (self.entity(&ask.principal), self.entity(&ask.resource));
        let action = self.engine.action(ask.action).unwrap();
        let core: &cedar::Context = context.as_ref();
        let whole = |_, _: &[Granted]| Ok::<_, std::convert::Infallible>((core.clone(), Own::default()));
        let Ok(query) = self.engine.query(action, principal.clone(), resource.clone(), Vec::new(), whole);
        let known = |uid: &EntityUID| EntityUIDEntry::known(uid.clone(), None);
        let action_uid = self.engine.action_uid(action).unwrap();
        let request = cedar::Request::new_unchecked(
            known(principal.uid()),
            known(action_uid),
            known(resource.uid()),
            Some(core.clone()),
        );
        let response = Authorizer::new().is_authorized(&request.clone().into(), &self.set, &self.entities);
        let wanted = self.wanted(&response);
        let said = Said::from(self.engine.decide(&query));
        if said != wanted {
            return Err(format!("the engine says {said:?}\nCedar says {wanted:?}"));
        }
        let parts = self.engine.explain(&query);
        let core: &cedar::Entities = self.entities.as_ref();
        let evaluator = Evaluator::new(request, core, Extensions::all_available());
        self.left_out_are_false(&parts, &response, &evaluator)?;
        let is_left_out = |part: &Part| matches!(part, Part::OutOfScope(_));
        let holds = |part: &Part| matches!(part, Part::Candidate(_, Ok(true)));
        let mut left_out = self.policies.iter().zip(&parts).filter(|(_, (_, part))| is_left_out(part));
        Ok(Met {
            end: wanted.end(),
            errors: wanted.errors().to_vec(),
            satisfied: parts.iter().filter(|(_, part)| holds(part)).map(|(info, _)| info.id.clone()).collect(),
            left_out_in_scope: left_out.any(|((_, policy), _)| scope_holds(policy, &evaluator)),
            policies: parts.len(),
            evaluated: query.candidates().len(),
        })
    }

    /// Somebody who is not stored has no attributes and is in nothing.
    fn entity(&self, uid: &Uid) -> Arc<Known> {
        let uid = cedar::uid(&cedar::entity_type(uid.ty).unwrap(), &uid.id);
        self.stored.get(&uid).cloned().unwrap_or_else(|| Arc::new(self.engine.known(Arc::new(Entity::with_uid(uid)))))
    }

    /// What has to be said: Cedar's answer, but that an error is a denial where nothing is forbidden.
    fn wanted(&self, response: &cedar_policy::Response) -> Said {
        let errors: Vec<(String, &'static str)> = response
            .diagnostics()
            .errors()
            .map(|AuthorizationError::PolicyEvaluationError(error)| {
                (error.policy_id().to_string(), kind(error.inner()))
            })
            .collect();
        // Cedar's are a set; the engine has to say them in the order of the bundle, each once.
        let reasons: BTreeSet<&str> = response.diagnostics().reason().map(AsRef::as_ref).collect();
        let in_order = self.policies.iter().map(|(info, _)| &info.id).filter(|id| reasons.contains(id.as_str()));
        let determining: Vec<String> = in_order.cloned().collect();
        assert_eq!(determining.len(), reasons.len());
        match response.decision() {
            Decision::Deny if !determining.is_empty() => Said::Forbidden(determining, errors),
            _ if !errors.is_empty() => Said::Failed(errors),
            Decision::Allow => Said::Permitted(determining),
            Decision::Deny => Said::NotPermitted,
        }
    }

    /// How each policy takes part: satisfied and failed ones are, and those left out are false without an error.
    fn left_out_are_false(
        &self,
        parts: &[(Arc<PolicyInfo>, Part)],
        response: &cedar_policy::Response,
        evaluator: &Evaluator<'_>,
    ) -> Result<(), String> {
        let reasons: BTreeSet<&str> = response.diagnostics().reason().map(AsRef::as_ref).collect();
        let denied = response.decision() == Decision::Deny;
        for ((info, policy), (explained, part)) in self.policies.iter().zip(parts) {
            if info.id != explained.id {
                return Err(format!("policy `{}` is explained in the place of `{}`", explained.id, info.id));
            }
            // Cedar names every policy that failed and every forbid that holds, but permits only where none does.
            let holds = if denied && !info.forbids && !reasons.is_empty() {
                evaluator.evaluate(policy).map_err(|error| kind(&error))
            } else {
                let failed =
                    response.diagnostics().errors().find_map(|AuthorizationError::PolicyEvaluationError(error)| {
                        (error.policy_id().to_string() == info.id).then(|| kind(error.inner()))
                    });
                failed.map_or_else(|| Ok(reasons.contains(info.id.as_str())), Err)
            };
            let explained = match part {
                Part::OutOfScope(_) => Ok(false),
                Part::Candidate(_, outcome) => outcome.map_err(same),
            };
            if explained != holds {
                return Err(format!("policy `{}` is explained as {part:?}, Cedar says {holds:?}", info.id));
            }
        }
        if parts.len() == self.policies.len() { Ok(()) } else { Err("not every policy is explained".into()) }
    }
}

impl Said {
    fn end(&self) -> End {
        match self {
            Self::Permitted(_) => End::Permitted,
            Self::Forbidden(..) => End::Forbidden,
            Self::Failed(_) => End::Failed,
            Self::NotPermitted | Self::Broken => End::NotPermitted,
        }
    }

    fn errors(&self) -> &[(String, &'static str)] {
        match self {
            Self::Forbidden(_, errors) | Self::Failed(errors) => errors,
            Self::Permitted(_) | Self::NotPermitted | Self::Broken => &[],
        }
    }
}

impl From<Answer> for Said {
    fn from(answer: Answer) -> Self {
        let ids = |all: &[Arc<PolicyInfo>]| all.iter().map(|info| info.id.clone()).collect();
        let failures =
            |all: Vec<Failure>| all.iter().map(|failure| (failure.policy.id.clone(), same(failure.error))).collect();
        match answer {
            Answer::Permitted(satisfied) => Self::Permitted(ids(satisfied.permits())),
            Answer::Forbidden { forbids, failures: errors, .. } => Self::Forbidden(ids(&forbids), failures(errors)),
            Answer::Failed(errors) => Self::Failed(failures(errors)),
            Answer::NotPermitted => Self::NotPermitted,
            Answer::Broken => Self::Broken,
        }
    }
}

/// Whether a policy's scope holds, as Cedar evaluates it.
fn scope_holds(policy: &cedar::Policy, evaluator: &Evaluator<'_>) -> bool {
    let written = policy.template();
    let (action, principal, resource) =
        (written.action_constraint(), written.principal_constraint(), written.resource_constraint());
    [action.as_expr(), principal.as_expr(), resource.as_expr()]
        .iter()
        .all(|scope| evaluator.interpret(scope, policy.env()).unwrap() == cedar::Value::from(true))
}

/// The policies and templates under their ids, the links of templates among them, in the order of the bundle.
pub fn policies(sources: &[Source]) -> PolicySet {
    let mut set = PolicySet::new();
    for source in sources {
        match source {
            Source::Policy { id, text } => {
                let policy = Policy::parse(Some(PolicyId::new(id)), text);
                set.add(policy.unwrap_or_else(|error| panic!("{error:?}\n{text}"))).unwrap();
            }
            Source::Template { id, text } => {
                let template = Template::parse(Some(PolicyId::new(id)), text);
                set.add_template(template.unwrap_or_else(|error| panic!("{error:?}\n{text}"))).unwrap();
            }
            Source::Link { id, template, principal, resource } => {
                let filled = [(SlotId::principal(), principal), (SlotId::resource(), resource)];
                let values = filled.into_iter().filter_map(|(slot, uid)| Some((slot, public(uid.as_ref()?)))).collect();
                set.link(PolicyId::new(template), PolicyId::new(id), values).unwrap();
            }
        }
    }
    set
}

fn public(uid: &Uid) -> EntityUid {
    EntityUid::from_type_name_and_id(uid.ty.parse().unwrap(), cedar_policy::EntityId::new(&uid.id))
}

/// The store, with the actions of the schema in it.
fn entities(world: &World) -> Value {
    let stored = world.entities.iter().map(|one| {
        let parents: Vec<Value> = one.parents.iter().map(Uid::json).collect();
        json!({"uid": one.uid.json(), "attrs": one.attributes, "parents": parents, "tags": one.tags})
    });
    let action = |name: &str| json!({"type": "Action", "id": name});
    let actions = world.model.actions.iter().map(|one| {
        let parents: Vec<Value> = one.groups.iter().map(|group| action(group)).collect();
        json!({"uid": action(one.name), "attrs": Map::new(), "parents": parents})
    });
    stored.chain(actions).collect()
}

/// What kind of error the engine has to name for one of Cedar's.
fn kind(error: &EvaluationError) -> &'static str {
    use EvaluationError as E;
    same(match error {
        E::EntityDoesNotExist(_) | E::EntityAttrDoesNotExist(_) => "an entity lacks an attribute or tag",
        E::RecordAttrDoesNotExist(_) => "a record lacks an attribute",
        E::TypeError(_) => "a value has the wrong type",
        E::IntegerOverflow(_) => "an integer overflowed",
        E::FailedExtensionFunctionExecution(_) => "an extension function refused its argument",
        other => panic!("an error that no world should come to: {other}"),
    })
}

/// An entity that is not stored is made for the call, so there it lacks the attribute.
fn same(error: &'static str) -> &'static str {
    if error == "an entity does not exist" { "an entity lacks an attribute or tag" } else { error }
}
