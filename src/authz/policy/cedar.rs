//! The one door to `cedar-policy-core`.
//!
//! The public `cedar-policy` API walks every policy on each call, rebuilds the scope expression each
//! time, and builds its entity store anew. The evaluator below it takes single policies and shared
//! entities, which is what makes a decision cost what its few candidates cost. Its maintainers promise no
//! stability for it, hence the exact version pin in `Cargo.toml` and this module: nothing else in
//! Palisade names the crate. Policies are parsed and type checked through it as well; what that does not accept at once goes
//! to the public validator, and [`super::Reference`] asks the public authorizer, to compare with.

use std::sync::LazyLock;

pub use cedar_policy_core::ast::{
    ActionConstraint, BinaryOp, Context, Effect, Eid, Entity, EntityReference, EntityType, EntityUID, EntityUIDEntry,
    Expr, ExprKind, Literal, Name, PartialValue, Policy, PolicyID, PolicySet, PrincipalOrResourceConstraint, Request,
    RestrictedExpr, SlotEnv, SlotId, Template, Value, ValueKind, Var,
};
pub use cedar_policy_core::entities::{Dereference, Entities, NoEntitiesSchema, TCComputation};
pub use cedar_policy_core::evaluator::{EvaluationError, Evaluator, RestrictedEvaluator};
pub use cedar_policy_core::extensions::Extensions;
pub use cedar_policy_core::parser::{Loc, parse_policyset};
pub use cedar_policy_core::validator::typecheck::{PolicyCheck, Typechecker};
pub use cedar_policy_core::validator::types::{AttributeType, RequestEnv, Type};
pub use cedar_policy_core::validator::{
    ValidationMode, Validator, ValidatorEntityTypeKind, ValidatorSchema, confusable_string_checks,
};

/// An expression with the types that the validator found.
pub type TypedExpr = Expr<Option<Type>>;

/// An entity type by its name; `None` if that is no valid Cedar type name, written as Cedar itself would.
#[must_use]
pub fn entity_type(name: &str) -> Option<EntityType> {
    EntityType::from_normalized_str(name).ok()
}

/// An entity uid.
#[must_use]
pub fn uid(entity_type: &EntityType, id: &str) -> EntityUID {
    EntityUID::from_components(entity_type.clone(), Eid::new(id), None)
}

/// The id of an entity, without its type.
#[must_use]
pub fn id_of(uid: &EntityUID) -> &str {
    uid.eid().as_ref()
}

/// An entity uid as Cedar writes it, `Type::"id"`.
#[must_use]
pub fn text_of(uid: &EntityUID) -> String {
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\'' | b'\\');
    let id = id_of(uid);
    // Nearly every id: nothing of it is escaped, which takes Cedar longer to find out.
    if id.bytes().all(is_plain) {
        return [&uid.entity_type().to_string(), "::\"", id, "\""].concat();
    }
    uid.to_string()
}

/// Calls a one-argument extension constructor (`datetime`, `decimal`, `ipaddr`'s `ip`, `duration`) on
/// text; `None` if the text is none of that type.
#[must_use]
pub fn extension_value(constructor: &str, text: &str) -> Option<Value> {
    // Reading a name takes a parser, and longer than all the rest.
    static NAMES: LazyLock<Vec<(&str, Name)>> = LazyLock::new(|| {
        let named = |name| Some((name, Name::parse_unqualified_name(name).ok()?));
        ["datetime", "decimal", "duration", "ip"].into_iter().filter_map(named).collect()
    });
    let (_, name) = NAMES.iter().find(|(known, _)| *known == constructor)?;
    let call = RestrictedExpr::call_extension_fn(name.clone(), [RestrictedExpr::val(text)]);
    RestrictedEvaluator::new(Extensions::all_available()).interpret(call.as_borrowed()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cedars_own() {
        let plain: String = (' '..='~').collect();
        let each = (0_u8..=0x7f).map(|byte| char::from(byte).to_string());
        let others = ["", &plain, "a b/c?d=e", "ü", "a\u{301}", "\u{301}", "\u{200b}", "tab\tq\"s'b\\", "crm/get"];
        for ty in ["Tool", "Some::Space::Agent"] {
            let ty = entity_type(ty).unwrap();
            for id in each.clone().chain(others.map(String::from)) {
                let uid = uid(&ty, &id);
                assert_eq!(text_of(&uid), uid.to_string());
            }
        }
    }
}
