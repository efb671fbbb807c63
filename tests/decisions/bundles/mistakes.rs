//! The mistakes, in the order of the files of a bundle, each with the message it gets.

mod actions;
mod entities;
mod files;
mod links;
mod moving;
mod names;
mod policies;
mod targets;
mod tools;

use super::Mistake;

/// Every mistake that is refused.
pub fn mistakes() -> impl Iterator<Item = &'static Mistake> {
    let all = [
        files::MISTAKES,
        actions::MISTAKES,
        policies::MISTAKES,
        links::MISTAKES,
        moving::MISTAKES,
        names::MISTAKES,
        entities::MISTAKES,
        tools::MISTAKES,
        targets::MISTAKES,
    ];
    all.into_iter().flatten()
}

/// Mistakes that are accepted, and why: whoever refuses one moves it up.
pub const ACCEPTED: &[Mistake] = &[
    Mistake {
        name: "message on a permit",
        edit: |edit| {
            edit.policy("@id(\"new\")\n@reason(\"r\")\n@message(\"welcome\")\npermit (principal, action, resource);")
        },
        message: "a permit has nobody to tell anything",
    },
    Mistake {
        name: "user group that nothing declares",
        edit: |edit| {
            edit.policy("@id(\"new\")\n@reason(\"r\")\npermit (principal, action == Action::\"ping\", resource) when { context has user && context.user in UserGroup::\"finanace\" };")
        },
        message: "users come with verified tokens, and their groups with them",
    },
    Mistake {
        name: "a target behind one that takes all its calls",
        edit: |edit| edit.replace("targets.toml", "path_prefix = \"/mcp\"", ""),
        message: "the first target that matches is taken",
    },
];
