//! The `palisade` command: parse, dispatch, exit.

use std::process::ExitCode;

/// Memory stays flat under many small, short-lived allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    palisade::cli::run()
}
