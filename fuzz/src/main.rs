//! One binary with all fuzz targets: linking takes longer than fuzzing for some seconds. `PALISADE_FUZZ_TARGET` names
//! the target, or `seeds` to write starting inputs for all of them; `fuzz/run` and `fuzz/smoke` set it.
#![no_main]

mod seeds;
mod targets;

use std::sync::OnceLock;

static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();

libfuzzer_sys::fuzz_target!(init: choose(), |input: &[u8]| {
    if let Some(target) = TARGET.get() {
        target(input);
    }
});

fn choose() {
    let name = std::env::var("PALISADE_FUZZ_TARGET").unwrap_or_default();
    if name == "seeds" {
        seeds::write();
        std::process::exit(0);
    }
    let target = targets::ALL.iter().find(|(known, _)| *known == name);
    let Some((_, target)) = target else {
        let names: Vec<_> = targets::ALL.iter().map(|(name, _)| *name).collect();
        eprintln!("PALISADE_FUZZ_TARGET is `{name}`; expected one of: {}", names.join(" "));
        std::process::exit(2);
    };
    TARGET.get_or_init(|| *target);
}
