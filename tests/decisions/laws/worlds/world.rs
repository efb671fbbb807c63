//! Small worlds by chance: entities, policies, links and requests, all of them as what can be printed.

use std::fmt;

use serde_json::{Map, Value, json};

use super::dice::Dice;
use super::model::{Attribute, Model, Ty};
use super::policies;

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uid {
    pub ty: &'static str,
    pub id: String,
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::\"{}\"", self.ty, self.id.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

impl Uid {
    pub fn json(&self) -> Value {
        json!({"type": self.ty, "id": self.id})
    }
}

/// An entity of the store.
#[derive(Clone, Debug)]
pub struct Entity {
    pub uid: Uid,
    pub parents: Vec<Uid>,
    pub attributes: Map<String, Value>,
    pub tags: Map<String, Value>,
}

/// What stands in the bundle; the place in the list is the place in the bundle.
#[derive(Clone, Debug)]
pub enum Source {
    Policy { id: String, text: String },
    Template { id: String, text: String },
    Link { id: String, template: String, principal: Option<Uid>, resource: Option<Uid> },
}

/// Which slots a template has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slots {
    pub principal: bool,
    pub resource: bool,
}

impl Source {
    /// What is written in Cedar.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Policy { text, .. } | Self::Template { text, .. } => Some(text),
            Self::Link { .. } => None,
        }
    }

    /// The id of a link.
    pub fn link(&self) -> Option<&str> {
        match self {
            Self::Link { id, .. } => Some(id),
            Self::Policy { .. } | Self::Template { .. } => None,
        }
    }
}

/// A request.
#[derive(Clone, Debug)]
pub struct Ask {
    pub principal: Uid,
    pub action: &'static str,
    pub resource: Uid,
    pub context: Map<String, Value>,
}

#[derive(Clone, Debug)]
pub struct World {
    pub model: Model,
    pub entities: Vec<Entity>,
    pub sources: Vec<Source>,
    pub asks: Vec<Ask>,
}

/// Entities that nobody stored, of every type.
const NOWHERE: &str = "nowhere";
const TEXTS: &[&str] = &["", "a", "secret", "x*y", "été", "top secret plan"];
pub const TAGS: &[&str] = &["team", "rank"];

impl World {
    pub fn by_chance(seed: u64, asks: usize) -> Self {
        let dice = &mut Dice::new(seed);
        let model = Model::by_chance(dice);
        let uids = uids(&model, dice);
        let entities = entities(&model, &uids, dice);
        let sources = policies::by_chance(&model, &named(&model, &uids), dice);
        let asks = (0..asks).map(|_| ask(&model, &uids, dice)).collect();
        Self { model, entities, sources, asks }
    }
}

/// Everybody who is stored, those first in whom others can be.
fn uids(model: &Model, dice: &mut Dice) -> Vec<Uid> {
    // Now and then a long chain of groups: ancestors are looked up, however many there are.
    let groups = if dice.percent(10) { 22 } else { dice.between(2, 6) };
    let mut all = Vec::new();
    for at in 0..groups {
        all.push(Uid { ty: dice.one_of(&model.groups), id: format!("g{at}") });
    }
    for ty in model.principals.iter().chain(&model.resources) {
        for at in 0..dice.between(1, 4) {
            // Ids that two types share, and ids that need quoting.
            let id = [format!("e{at}"), format!("{ty} {at}"), format!("\"é\\{at}")][dice.below(3)].clone();
            all.push(Uid { ty, id });
        }
    }
    all
}

/// Those whom policies name: the stored ones, and some who are not.
fn named(model: &Model, uids: &[Uid]) -> Vec<Uid> {
    let missing = model.types.iter().map(|ty| Uid { ty: ty.name, id: NOWHERE.to_owned() });
    uids.iter().cloned().chain(missing).collect()
}

fn entities(model: &Model, uids: &[Uid], dice: &mut Dice) -> Vec<Entity> {
    let is_chain = uids.iter().filter(|uid| model.groups.contains(&uid.ty)).count() > 20;
    let pool = named(model, uids);
    let mut all: Vec<Entity> = Vec::new();
    for (at, uid) in uids.iter().enumerate() {
        let ty = model.entity_type(uid.ty).unwrap();
        let mut parents: Vec<Uid> = Vec::new();
        for (above, parent) in uids[..at].iter().enumerate() {
            let next = is_chain && above + 1 == at && model.groups.contains(&uid.ty);
            if ty.within.contains(&parent.ty) && (next || dice.percent(if is_chain { 6 } else { 35 })) {
                parents.push(parent.clone());
            }
        }
        // In a group that nothing stores.
        if dice.percent(10) {
            parents.push(Uid { ty: dice.one_of(&model.groups), id: NOWHERE.to_owned() });
        }
        let attributes = filled(&ty.attributes, &pool, dice);
        let mut tags = Map::new();
        if let Some(ty) = ty.tags {
            for tag in dice.some_of(TAGS) {
                tags.insert(tag.to_owned(), value(ty, &pool, dice));
            }
        }
        all.push(Entity { uid: uid.clone(), parents, attributes, tags });
    }
    // Some whom policies name and others are in are missing, their own ancestors with them.
    all.retain(|_| !dice.percent(8));
    all
}

fn ask(model: &Model, uids: &[Uid], dice: &mut Dice) -> Ask {
    let leaves = model.leaves();
    let leaf = dice.one_of(&leaves);
    // Now and then for a whole group of actions, which nobody can ask for.
    let action = if dice.percent(4) { dice.one_of(&model.actions).name } else { leaf.name };
    let principal = side(&leaf.principals, uids, dice);
    let resource = side(&leaf.resources, uids, dice);
    let mut context = filled(&leaf.context, uids, dice);
    if dice.percent(5) {
        context.insert("surplus".into(), json!(1));
    }
    Ask { principal, action, resource, context }
}

fn side(types: &[&'static str], uids: &[Uid], dice: &mut Dice) -> Uid {
    match dice.below(20) {
        0 => Uid { ty: dice.one_of(types), id: NOWHERE.to_owned() },
        // Anybody at all, also one whom the action does not take.
        1 => dice.one_of(uids),
        _ => {
            let fitting: Vec<&Uid> = uids.iter().filter(|uid| types.contains(&uid.ty)).collect();
            dice.one_of(&fitting).clone()
        }
    }
}

/// Values for attributes: now and then one is missing that should be there, or of another type.
fn filled(attributes: &[Attribute], pool: &[Uid], dice: &mut Dice) -> Map<String, Value> {
    let mut all = Map::new();
    for attribute in attributes {
        if dice.percent(if attribute.required { 97 } else { 60 }) {
            let ty = if dice.percent(3) { Ty::Long } else { attribute.ty };
            all.insert(attribute.name.to_owned(), value(ty, pool, dice));
        }
    }
    all
}

fn value(ty: Ty, pool: &[Uid], dice: &mut Dice) -> Value {
    let entity = |of: &str, dice: &mut Dice| {
        let fitting: Vec<&Uid> = pool.iter().filter(|uid| uid.ty == of).collect();
        let uid = if fitting.is_empty() { dice.one_of(pool) } else { dice.one_of(&fitting).clone() };
        json!({"__entity": uid.json()})
    };
    let extension = |function: &str, argument: &str| json!({"__extn": {"fn": function, "arg": argument}});
    match ty {
        Ty::Bool => json!(dice.percent(50)),
        Ty::Long => json!([0, 1, -1, 5, 7, i64::MAX, i64::MIN][dice.below(7)]),
        Ty::Text => json!(dice.one_of(TEXTS)),
        Ty::Entity(of) => entity(of, dice),
        Ty::Texts => (0..dice.below(4)).map(|_| json!(dice.one_of(TEXTS))).collect(),
        Ty::Entities(of) => (0..dice.below(4)).map(|_| entity(of, dice)).collect(),
        Ty::Decimal => extension("decimal", dice.one_of(&["0.0", "1.5", "-922337203685477.5808"])),
        Ty::Ip => extension("ip", dice.one_of(&["10.1.2.3", "127.0.0.1", "::1", "10.0.0.0/8"])),
        Ty::Moment => extension("datetime", dice.one_of(&["2026-03-04T10:15:00Z", "1970-01-01", "9999-12-31"])),
        Ty::Span => extension("duration", dice.one_of(&["1h", "-1d", "106751991167d"])),
        Ty::Card => {
            let mut card = json!({"x": dice.below(3)});
            if dice.percent(50) {
                card["y"] = json!(dice.one_of(TEXTS));
            }
            card
        }
    }
}
