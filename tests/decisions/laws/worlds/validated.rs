//! Policies that are accepted without asking Cedar's validator are policies that it accepts.

use std::sync::atomic::{AtomicUsize, Ordering};

use cedar_policy::{Schema, ValidationMode, Validator};
use palisade::authz::policy::cedar;
use palisade::authz::policy::validation::Validation;

use super::asked::policies;
use super::dice::Dice;
use super::expressions::Writer;
use super::model::Model;
use super::policies::policy;
use super::world::{Slots, Source, Uid};
use super::{given, in_parallel};

/// Policies for one schema.
const POLICIES: usize = 20;
/// Policies in all, if `LAWS_POLICIES` does not say more.
const CASES: u64 = 2_000;

/// How the policies fared.
#[derive(Debug, Default)]
struct Fared {
    accepted: AtomicUsize,
    /// Valid, but only Cedar's validator knew.
    asked: AtomicUsize,
    refused: AtomicUsize,
}

fn schema(seed: u64) -> (Model, Schema, Vec<Uid>) {
    let model = Model::by_chance(&mut Dice::new(seed));
    let text = model.text();
    let (schema, _) = Schema::from_cedarschema_str(&text).unwrap_or_else(|error| panic!("{error:?}\n{text}"));
    let named = model.types.iter().flat_map(|ty| ["one", "two"].map(|id| Uid { ty: ty.name, id: id.to_owned() }));
    let named = named.collect();
    (model, schema, named)
}

fn accepted_means_valid(seed: u64, fared: &Fared) {
    let (model, schema, named) = schema(seed);
    let (validation, validator) = (Validation::new(&schema), Validator::new(schema.clone()));
    let dice = &mut Dice::new(!seed);
    for _ in 0..POLICIES {
        let wild = [0, 0, 4, 15, 40][dice.below(5)];
        let slots = Slots { principal: dice.percent(10), resource: dice.percent(10) };
        let mut writer = Writer::new(&model, &named, wild, dice);
        writer.deep = writer.dice.percent(50);
        let text = policy(&mut writer, slots);
        let id = "policy".to_owned();
        let source =
            if slots.principal || slots.resource { Source::Template { id, text } } else { Source::Policy { id, text } };
        let set = policies(std::slice::from_ref(&source));
        let result = validator.validate_with_level(&set, ValidationMode::Strict, 1);
        let valid = result.validation_passed_without_warnings();
        let core: &cedar::PolicySet = set.as_ref();
        let accepted = core.all_templates().all(|template| validation.accepts(template));
        assert!(
            valid || !accepted,
            "seed {seed}: accepted, but {result:?}\n{}\n{}",
            source.text().unwrap(),
            model.text()
        );
        let count = match (accepted, valid) {
            (true, _) => &fared.accepted,
            (false, true) => &fared.asked,
            (false, false) => &fared.refused,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn what_is_accepted_is_valid() {
    let cases = given("LAWS_POLICIES").unwrap_or(CASES);
    let first = given("LAWS_SEED").unwrap_or(1);
    let fared = Fared::default();
    in_parallel(cases.div_ceil(POLICIES as u64), |number| accepted_means_valid(first + number, &fared));
    println!("{fared:?}");
    let [accepted, refused] = [&fared.accepted, &fared.refused].map(|count| count.load(Ordering::Relaxed));
    let few = usize::try_from(cases / 5).unwrap();
    assert!(accepted > few && refused > few, "too few of a kind: {fared:?}");
}
