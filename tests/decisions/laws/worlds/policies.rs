//! Policies, templates and links by chance.

use super::dice::Dice;
use super::expressions::{About, Writer};
use super::model::Model;
use super::world::{Slots, Source, Uid};

/// The policies of a world; their order is the bundle's.
pub fn by_chance(model: &Model, named: &[Uid], dice: &mut Dice) -> Vec<Source> {
    let wild = [0, 4, 15, 40][dice.below(4)];
    // Now and then many, so that one list holds more than another.
    let policies = if dice.percent(6) { 40 } else { dice.between(2, 9) };
    let mut sources = Vec::new();
    for at in 0..policies {
        let id = format!("p{:02}", (at * 7 + 5) % 100);
        let text = policy(&mut Writer::new(model, named, wild, dice), Slots::default());
        sources.push(Source::Policy { id, text });
    }
    for at in 0..dice.below(4) {
        let slots = [(true, false), (false, true), (true, true)][dice.below(3)];
        let slots = Slots { principal: slots.0, resource: slots.1 };
        let template = format!("t{at}");
        let mut writer = Writer::new(model, named, wild, dice);
        let text = policy(&mut writer, slots);
        let mut linked = vec![Source::Template { id: template.clone(), text }];
        for link in 0..writer.dice.between(1, 6) {
            let principal = slots.principal.then(|| filling(&mut writer, |about| about.principal));
            let resource = slots.resource.then(|| filling(&mut writer, |about| about.resource));
            let id = format!("{}link{at}{link}", ["", "a", "z"][writer.dice.below(3)]);
            linked.push(Source::Link { id, template: template.clone(), principal, resource });
            // The same link once more, but for its id.
            if writer.dice.percent(15) {
                let mut again = linked.last().unwrap().clone();
                if let Source::Link { id, .. } = &mut again {
                    id.push_str("again");
                }
                linked.push(again);
            }
        }
        // Links stand anywhere behind their template.
        let mut place = dice.below(sources.len() + 1);
        for one in linked {
            sources.insert(place, one);
            place = dice.between(place + 1, sources.len());
        }
    }
    sources
}

fn filling(writer: &mut Writer<'_>, side: fn(&About) -> &'static str) -> Uid {
    let ty = side(&writer.about);
    if writer.dice.percent(50) { writer.uid(Some(ty)) } else { writer.uid_above(ty) }
}

/// One policy, or a template with these slots.
pub fn policy(writer: &mut Writer<'_>, slots: Slots) -> String {
    let (about, own) = (writer.about.clone(), writer.about.action);
    let leaf = writer.model.actions.iter().find(|action| action.name == own).unwrap();
    let principal = scope("principal", about.principal, leaf.principals.len(), slots.principal, writer);
    let resource = scope("resource", about.resource, leaf.resources.len(), slots.resource, writer);
    let action = action(writer);
    let effect = if writer.dice.percent(35) { "forbid" } else { "permit" };
    let mut text = format!("{effect} ({principal}, {action}, {resource})");
    let clauses = [0, 1, 1, 1, 1, 2, 2, 3][writer.dice.below(8)];
    for _ in 0..clauses {
        let keyword = if writer.dice.percent(80) { "when" } else { "unless" };
        text += &format!("\n{keyword} {{ {} }}", writer.condition());
    }
    text.push(';');
    text
}

/// The scope of a side; a tame one leaves no doubt about the type.
fn scope(side: &str, ty: &str, types: usize, slot: bool, writer: &mut Writer<'_>) -> String {
    let ty = ty.to_owned();
    if slot {
        return match writer.dice.below(4) {
            0 => format!("{side} == ?{side}"),
            1 => format!("{side} is {ty} in ?{side}"),
            _ => format!("{side} in ?{side}"),
        };
    }
    match writer.dice.below(10) {
        0 => format!("{side} == {}", writer.uid(Some(&ty))),
        1 | 2 => format!("{side} in {}", writer.uid_above(&ty)),
        3 | 4 => format!("{side} is {ty} in {}", writer.uid_above(&ty)),
        5..=8 if types == 1 || writer.dice.percent(writer.wild + 20) => side.to_owned(),
        _ => format!("{side} is {ty}"),
    }
}

fn action(writer: &mut Writer<'_>) -> String {
    let own = writer.about.action;
    let leaf = writer.model.actions.iter().find(|action| action.name == own);
    let groups = leaf.map_or(&[][..], |leaf| &leaf.groups[..]);
    let other = writer.dice.one_of(&writer.model.actions).name;
    match writer.dice.below(10) {
        0 | 1 => "action".into(),
        2 => format!("action in [Action::{own:?}, Action::{other:?}]"),
        3 | 4 if !groups.is_empty() => format!("action in Action::{:?}", writer.dice.one_of(groups)),
        5 if !groups.is_empty() => {
            format!("action in [Action::{own:?}, Action::{:?}]", writer.dice.one_of(groups))
        }
        6 if writer.dice.percent(10) => "action == Action::\"nowhere\"".into(),
        6 => format!("action in Action::{own:?}"),
        _ => format!("action == Action::{own:?}"),
    }
}
