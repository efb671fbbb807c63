//! What the questions came to: a law about nothing would hold as well.

use std::collections::BTreeMap;
use std::fmt;

use super::world::{Ask, Source, Uid, World};

/// How a question ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Permitted,
    Forbidden,
    Failed,
    NotPermitted,
}

/// What one question came to.
#[derive(Clone, Debug)]
pub struct Met {
    pub end: End,
    /// Policies that failed, and how.
    pub errors: Vec<(String, &'static str)>,
    /// Policies that hold.
    pub satisfied: Vec<String>,
    pub policies: usize,
    /// Those that were not left out.
    pub evaluated: usize,
    /// Whether one was left out whose scope holds, for its first conditions.
    pub left_out_in_scope: bool,
}

/// How many questions were of each kind.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    cases: usize,
    kinds: BTreeMap<&'static str, usize>,
}

/// How many of 10,000 questions are of a kind at the least: half of what there were when this was written.
const LEAST: &[(&str, usize)] = &[
    ("permitted", 600),
    ("forbidden", 800),
    ("denied for an error", 600),
    ("not permitted", 2500),
    ("with several errors", 200),
    ("forbidden, with errors beside", 150),
    ("a permit overridden", 150),
    ("error: attribute or tag of an entity", 400),
    ("error: attribute of a record", 130),
    ("error: type", 250),
    ("error: overflow", 50),
    ("error: extension", 60),
    ("a link holds", 300),
    ("several links hold", 120),
    ("a link fails", 150),
    ("principal not stored", 500),
    ("resource not stored", 500),
    ("principal that the action does not take", 250),
    ("resource that the action does not take", 250),
    ("several determine", 500),
    ("several candidates", 2000),
    ("policies left out", 9000),
    ("left out for a first condition", 400),
];

impl Coverage {
    pub fn count(&mut self, world: &World, ask: &Ask, met: &Met) {
        let stored = |uid: &Uid| world.entities.iter().any(|entity| entity.uid == *uid);
        let action = world.model.actions.iter().find(|action| action.name == ask.action).unwrap();
        let links: Vec<&str> = world.sources.iter().filter_map(Source::link).collect();
        let is_link = |id: &String| links.contains(&id.as_str());
        let failed = |kind| met.errors.iter().any(|(_, error)| *error == kind);
        self.cases += 1;
        for (kind, holds) in [
            ("permitted", met.end == End::Permitted),
            ("forbidden", met.end == End::Forbidden),
            ("denied for an error", met.end == End::Failed),
            ("not permitted", met.end == End::NotPermitted),
            ("with several errors", met.errors.len() > 1),
            ("forbidden, with errors beside", met.end == End::Forbidden && !met.errors.is_empty()),
            ("a permit overridden", met.end == End::Failed && !met.satisfied.is_empty()),
            ("error: attribute or tag of an entity", failed("an entity lacks an attribute or tag")),
            ("error: attribute of a record", failed("a record lacks an attribute")),
            ("error: type", failed("a value has the wrong type")),
            ("error: overflow", failed("an integer overflowed")),
            ("error: extension", failed("an extension function refused its argument")),
            ("a link holds", met.satisfied.iter().any(is_link)),
            ("several links hold", met.satisfied.iter().filter(|id| is_link(id)).count() > 1),
            ("a link fails", met.errors.iter().any(|(id, _)| is_link(id))),
            ("principal not stored", !stored(&ask.principal)),
            ("resource not stored", !stored(&ask.resource)),
            ("principal that the action does not take", !action.principals.contains(&ask.principal.ty)),
            ("resource that the action does not take", !action.resources.contains(&ask.resource.ty)),
            ("several determine", met.satisfied.len() > 1),
            ("several candidates", met.evaluated > 1),
            ("policies left out", met.evaluated < met.policies),
            ("left out for a first condition", met.left_out_in_scope),
        ] {
            *self.kinds.entry(kind).or_default() += usize::from(holds);
        }
    }

    pub fn add(&mut self, other: &Self) {
        self.cases += other.cases;
        for (kind, times) in &other.kinds {
            *self.kinds.entry(kind).or_default() += times;
        }
    }

    pub const fn cases(&self) -> usize {
        self.cases
    }

    /// The kinds of which there are too few.
    pub fn missing(&self) -> Vec<String> {
        let few = |(kind, least): &&(&str, usize)| self.kinds[kind] < least * self.cases / 10_000;
        LEAST.iter().filter(few).map(|(kind, least)| format!("{kind}: fewer than {least} of 10,000")).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>10} questions", self.cases)?;
        self.kinds.iter().try_for_each(|(kind, times)| writeln!(f, "{times:>10} {kind}"))
    }
}
