//! A world in which a law does not hold, cut down as long as it still does not hold.

use super::world::{Source, World};

/// The smallest world that still fails. Parts are dropped one at a time, until none can be dropped.
pub fn smallest(mut world: World, fails: impl Fn(&World) -> bool) -> World {
    loop {
        let before = size(&world);
        for (count, drop) in DROPS {
            let mut at = count(&world);
            while at > 0 {
                at = (at - 1).min(count(&world));
                let mut less = world.clone();
                drop(&mut less, at);
                if size(&less) < size(&world) && fails(&less) {
                    world = less;
                }
            }
        }
        if size(&world) == before {
            return world;
        }
    }
}

/// How many parts of a kind there are, and how to drop one of them.
type Drop = (fn(&World) -> usize, fn(&mut World, usize));

const DROPS: &[Drop] = &[
    (|world| world.asks.len(), drop_ask),
    (|world| world.sources.len(), drop_source),
    (|world| world.sources.iter().map(clauses).sum(), drop_clause),
    (|world| world.entities.len(), drop_entity),
    (parents, drop_parent),
    (attributes, drop_attribute),
    (|world| world.asks.iter().map(|ask| ask.context.len()).sum(), drop_context),
];

fn size(world: &World) -> usize {
    DROPS.iter().map(|(count, _)| count(world)).sum()
}

fn drop_ask(world: &mut World, at: usize) {
    // A world without a question holds every law.
    if world.asks.len() > 1 {
        world.asks.remove(at);
    }
}

/// A template goes with its links.
fn drop_source(world: &mut World, at: usize) {
    if at >= world.sources.len() {
        return;
    }
    if let Source::Template { id: dropped, .. } = world.sources.remove(at) {
        world.sources.retain(|source| !matches!(source, Source::Link { template, .. } if *template == dropped));
    }
}

/// The clauses of a policy stand in lines of their own, behind its scope.
fn clauses(source: &Source) -> usize {
    source.text().map_or(0, |text| text.lines().count() - 1)
}

fn drop_clause(world: &mut World, at: usize) {
    let mut left = at;
    for source in &mut world.sources {
        let of_this = clauses(source);
        if let (true, Source::Policy { text, .. } | Source::Template { text, .. }) = (left < of_this, &mut *source) {
            let mut lines: Vec<&str> = text.trim_end_matches(';').lines().collect();
            lines.remove(left + 1);
            *text = lines.join("\n") + ";";
            return;
        }
        left -= of_this;
    }
}

fn drop_entity(world: &mut World, at: usize) {
    if at < world.entities.len() {
        world.entities.remove(at);
    }
}

fn parents(world: &World) -> usize {
    world.entities.iter().map(|entity| entity.parents.len()).sum()
}

fn drop_parent(world: &mut World, at: usize) {
    let mut left = at;
    for entity in &mut world.entities {
        if left < entity.parents.len() {
            entity.parents.remove(left);
            return;
        }
        left -= entity.parents.len();
    }
}

fn attributes(world: &World) -> usize {
    world.entities.iter().map(|entity| entity.attributes.len() + entity.tags.len()).sum()
}

fn drop_attribute(world: &mut World, at: usize) {
    let mut left = at;
    for map in world.entities.iter_mut().flat_map(|entity| [&mut entity.attributes, &mut entity.tags]) {
        if let Some(name) = map.keys().nth(left).cloned() {
            map.remove(&name);
            return;
        }
        left -= map.len();
    }
}

fn drop_context(world: &mut World, at: usize) {
    let mut left = at;
    for ask in &mut world.asks {
        if let Some(name) = ask.context.keys().nth(left).cloned() {
            ask.context.remove(&name);
            return;
        }
        left -= ask.context.len();
    }
}
