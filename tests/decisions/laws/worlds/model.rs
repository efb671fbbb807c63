//! Schemas by chance: who there is, what is known of them, and what can be done.

use std::fmt::Write as _;

use super::dice::Dice;

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ty {
    Bool,
    Long,
    Text,
    Entity(&'static str),
    Texts,
    Entities(&'static str),
    Decimal,
    Ip,
    Moment,
    Span,
    /// `{x: Long, y?: String}`
    Card,
}

impl Ty {
    fn written(self) -> String {
        match self {
            Self::Bool => "Bool".into(),
            Self::Long => "Long".into(),
            Self::Text => "String".into(),
            Self::Entity(of) => of.into(),
            Self::Texts => "Set<String>".into(),
            Self::Entities(of) => format!("Set<{of}>"),
            Self::Decimal => "decimal".into(),
            Self::Ip => "ipaddr".into(),
            Self::Moment => "datetime".into(),
            Self::Span => "duration".into(),
            Self::Card => "{x: Long, y?: String}".into(),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Attribute {
    pub name: &'static str,
    pub ty: Ty,
    pub required: bool,
}

#[derive(Clone, Debug)]
pub struct EntityType {
    pub name: &'static str,
    /// Types of which an entity of this one can be a member.
    pub within: Vec<&'static str>,
    pub attributes: Vec<Attribute>,
    pub tags: Option<Ty>,
}

/// What can be done.
#[derive(Clone, Debug)]
pub struct Action {
    pub name: &'static str,
    pub groups: Vec<&'static str>,
    pub principals: Vec<&'static str>,
    pub resources: Vec<&'static str>,
    pub context: Vec<Attribute>,
}

/// A schema.
#[derive(Clone, Debug)]
pub struct Model {
    pub types: Vec<EntityType>,
    pub principals: Vec<&'static str>,
    pub resources: Vec<&'static str>,
    pub groups: Vec<&'static str>,
    /// Groups of actions, then what can be asked for. A group takes nobody.
    pub actions: Vec<Action>,
}

const PRINCIPALS: &[&str] = &["Agent", "Person", "Ops::Bot"];
const RESOURCES: &[&str] = &["Tool", "Doc", "Net::Node"];
const GROUPS: &[&str] = &["Team", "Fleet::Unit"];
const ACTION_GROUPS: &[&str] = &["any kind", "reads", "writes"];
const ACTIONS: &[&str] = &["read", "tools/call", "write", "delete", "lab/run"];
pub const NAMES: &[&str] =
    &["level", "name", "on", "owner", "labels", "peers", "price", "address", "since", "span", "card"];

impl Model {
    pub fn by_chance(dice: &mut Dice) -> Self {
        let (principals, resources) = (dice.some_of(PRINCIPALS), dice.some_of(RESOURCES));
        let groups = dice.some_of(GROUPS);
        let mut model = Self { types: Vec::new(), principals, resources, groups, actions: Vec::new() };
        let all = [model.principals.clone(), model.resources.clone(), model.groups.clone()].concat();
        for name in &all {
            let is_group = model.groups.contains(name);
            let mut within: Vec<&str> = model.groups.iter().copied().filter(|_| is_group || dice.percent(85)).collect();
            // Agents of an agent, documents in a document.
            within.extend(Some(*name).filter(|_| !is_group && dice.percent(40)));
            let attributes = attributes(dice, &all, if is_group { 2 } else { 6 });
            let tags = [None, Some(Ty::Text), Some(Ty::Long), Some(Ty::Texts)][dice.below(4)];
            model.types.push(EntityType { name, within, attributes, tags });
        }
        let mut above: Vec<&str> = Vec::new();
        for name in dice.some_of(ACTION_GROUPS) {
            let groups = above.iter().copied().filter(|_| dice.percent(60)).collect();
            let nobody = Vec::new();
            model.actions.push(Action { name, groups, principals: nobody, resources: Vec::new(), context: Vec::new() });
            above.push(name);
        }
        // Actions that are alike but for their arguments, as tools are.
        let alike = (dice.some_of(&model.principals), dice.some_of(&model.resources), attributes(dice, &all, 6));
        for name in dice.some_of(ACTIONS) {
            let groups = above.iter().copied().filter(|_| dice.percent(50)).collect();
            let own = (dice.some_of(&model.principals), dice.some_of(&model.resources), attributes(dice, &all, 6));
            let (principals, resources, mut context) = if dice.percent(35) { own } else { alike.clone() };
            // What is most often different from one action to another.
            if dice.percent(60) {
                let ty = [Ty::Card, Ty::Card, Ty::Long, Ty::Text, Ty::Texts, Ty::Bool][dice.below(6)];
                context.push(Attribute { name: "input", ty, required: dice.percent(70) });
            }
            model.actions.push(Action { name, groups, principals, resources, context });
        }
        model
    }

    pub fn entity_type(&self, name: &str) -> Option<&EntityType> {
        self.types.iter().find(|known| known.name == name)
    }

    /// The actions that somebody can ask for.
    pub fn leaves(&self) -> Vec<&Action> {
        self.actions.iter().filter(|action| !action.principals.is_empty()).collect()
    }

    /// In Cedar's schema language.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for one in &self.types {
            let (namespace, name) = one.name.split_once("::").unwrap_or(("", one.name));
            let within = if one.within.is_empty() { String::new() } else { format!(" in [{}]", one.within.join(", ")) };
            let tags = one.tags.map(|ty| format!(" tags {}", ty.written())).unwrap_or_default();
            let entity = format!("entity {name}{within} {{ {} }}{tags};", record(&one.attributes));
            if namespace.is_empty() {
                let _ = writeln!(text, "{entity}");
            } else {
                let _ = writeln!(text, "namespace {namespace} {{ {entity} }}");
            }
        }
        for one in &self.actions {
            let groups: Vec<String> = one.groups.iter().map(|group| format!("{group:?}")).collect();
            let within = if groups.is_empty() { String::new() } else { format!(" in [{}]", groups.join(", ")) };
            let _ = write!(text, "action {:?}{within}", one.name);
            if !one.principals.is_empty() {
                let (principals, resources) = (one.principals.join(", "), one.resources.join(", "));
                let context = record(&one.context);
                let _ = write!(
                    text,
                    " appliesTo {{ principal: [{principals}], resource: [{resources}], context: {{ {context} }} }}"
                );
            }
            text += ";\n";
        }
        text
    }
}

fn record(attributes: &[Attribute]) -> String {
    let one = |it: &Attribute| format!("{}{}: {}", it.name, if it.required { "" } else { "?" }, it.ty.written());
    attributes.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Attributes: mostly each of the type that its name suggests, so that types agree often, but not always.
fn attributes(dice: &mut Dice, entities: &[&'static str], most: usize) -> Vec<Attribute> {
    let mut names = dice.some_of(NAMES);
    while names.len() > most {
        names.remove(dice.below(names.len()));
    }
    let attribute = |name| {
        let of = dice.one_of(entities);
        let suggested = if dice.percent(85) { name } else { dice.one_of(NAMES) };
        let ty = match suggested {
            "level" => Ty::Long,
            "name" => Ty::Text,
            "on" => Ty::Bool,
            "owner" => Ty::Entity(of),
            "labels" => Ty::Texts,
            "peers" => Ty::Entities(of),
            "price" => Ty::Decimal,
            "address" => Ty::Ip,
            "since" => Ty::Moment,
            "span" => Ty::Span,
            _ => Ty::Card,
        };
        Attribute { name, ty, required: dice.percent(60) }
    };
    names.into_iter().map(attribute).collect()
}
