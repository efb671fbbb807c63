//! The engine over whole small worlds made by chance: schema, entities, policies, templates, links, questions. What it
//! answers is what Cedar's own authorizer answers over every policy and every entity: the decision, the policies that
//! determine it, the errors and their order. `make laws CASES=…` asks as many questions as one likes.

mod asked;
mod coverage;
mod dice;
mod expressions;
mod model;
mod policies;
mod smallest;
mod validated;
mod world;

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use asked::Asked;
use coverage::Coverage;
use smallest::smallest;
use world::{Source, World};

/// Questions to one world.
const ASKS: usize = 25;
/// Questions in all, if `LAWS_CASES` does not say more.
const CASES: u64 = 10_000;
/// A long run says how far it is whenever so many more are asked.
const PROGRESS: usize = 100_000;
/// Evaluation in a build that is not optimised takes more stack than a test's thread has.
const STACK: usize = 32 * 1024 * 1024;

/// Asks every question of a world; what differs, if something does.
fn ask_all(world: &World, coverage: &mut Coverage, build: fn(&World) -> Asked) -> Result<(), String> {
    let asked = build(world);
    for ask in &world.asks {
        let met = asked.agree(ask).map_err(|difference| format!("{ask:?}\n{difference}"))?;
        coverage.count(world, ask, &met);
    }
    Ok(())
}

/// Does something for each number below `count`, on all processors.
fn in_parallel(count: u64, work: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(0);
    let work_on = || {
        while let Some(number) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|number| *number < count) {
            work(number);
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let spawn = |_| std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work_on).unwrap();
        let threads: Vec<_> = (0..threads).map(spawn).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// Asks all questions of as many worlds as it takes. The seed of a world is the first seed and its number, so that one
/// world alone can be had again.
fn ask_worlds(first: u64, cases: u64, build: fn(&World) -> Asked) -> Result<Coverage, String> {
    let (all, failed) = (Mutex::new(Coverage::default()), Mutex::new(None::<u64>));
    in_parallel(cases.div_ceil(ASKS as u64), |number| {
        if failed.lock().unwrap().is_some() {
            return;
        }
        let (seed, mut coverage) = (first + number, Coverage::default());
        if ask_all(&World::by_chance(seed, ASKS), &mut coverage, build).is_err() {
            let mut failed = failed.lock().unwrap();
            *failed = Some(failed.map_or(seed, |earlier| earlier.min(seed)));
        }
        let mut all = all.lock().unwrap();
        all.add(&coverage);
        if all.cases() / PROGRESS > (all.cases() - coverage.cases()) / PROGRESS {
            println!("{} questions, world {seed}", all.cases());
        }
    });
    match failed.into_inner().unwrap() {
        None => Ok(all.into_inner().unwrap()),
        Some(seed) => Err(tell(seed, build)),
    }
}

/// The smallest world in which the law does not hold, in words.
fn tell(seed: u64, build: fn(&World) -> Asked) -> String {
    let world =
        smallest(World::by_chance(seed, ASKS), |world| ask_all(world, &mut Coverage::default(), build).is_err());
    let difference = ask_all(&world, &mut Coverage::default(), build).unwrap_err();
    let mut text =
        format!("world {seed}, cut down (LAWS_SEED={seed} LAWS_CASES=1 asks it again):\n{}", world.model.text());
    for source in &world.sources {
        let _ = match source {
            Source::Policy { id, text: policy } | Source::Template { id, text: policy, .. } => {
                writeln!(text, "// {id}\n{policy}")
            }
            Source::Link { .. } => writeln!(text, "// {source:?}"),
        };
    }
    for entity in &world.entities {
        let _ = writeln!(text, "{entity:?}");
    }
    text + &difference
}

/// A number from the environment: how many questions, and the seed of the first world.
fn given(name: &str) -> Option<u64> {
    let text = std::env::var_os(name)?.into_string().unwrap();
    Some(text.parse().unwrap_or_else(|_| panic!("{name}: expected a number, not `{text}`")))
}

#[test]
fn the_engine_says_what_cedar_says() {
    let (seed, cases) = (given("LAWS_SEED").unwrap_or(1), given("LAWS_CASES").unwrap_or(CASES));
    let coverage = ask_worlds(seed, cases, Asked::new).unwrap_or_else(|difference| panic!("{difference}"));
    println!("worlds from seed {seed}:\n{coverage}");
    assert!(cases < CASES || coverage.missing().is_empty(), "{:#?}", coverage.missing());
}

/// The law would notice: here every bundle loses its first policy on its way into the engine.
#[test]
fn a_lost_policy_is_noticed() {
    let told = ask_worlds(1, CASES, Asked::without_the_first).unwrap_err();
    assert!(told.contains("is explained") || told.contains("the engine says"), "{told}");
    let policies = told.matches("permit (").count() + told.matches("forbid (").count();
    assert!(policies <= 2, "{told}");
}
