//! What moves while calls flow, and the journal in which it outlives the process.

use std::sync::Arc;
use std::time::Duration;

use super::StartError;
use super::pipeline::{Pipeline, now};
use crate::config::Config;
use crate::config::state::State;
use crate::journal::{self, Journal};
use crate::shared;
use crate::state::{self, Change, Durable, Forget, InForce, Keep, NotKept, Room, Table};

/// Most holds where a store is shared, and most grants: together as many entries as it takes, so that grants leave holds their room.
const SHARED_HOLDS: usize = 65_536;
const SHARED_GRANTS: usize = shared::MAX_ENTRIES - SHARED_HOLDS;
/// How often what is over is taken out of memory.
const TIDY: Duration = Duration::from_secs(1);

/// What is in force, as the journal has it, and the journal.
///
/// # Errors
/// [`StartError::Journal`], [`StartError::State`]: without knowing what is held nothing may start.
pub(super) fn open(config: &Config) -> Result<(Arc<InForce>, Option<Journal>), StartError> {
    let State { journal: path, holds, grants, grants_per_agent, counted_uses } = &config.state;
    let is_shared = config.shared_store().is_some();
    let room = Room {
        holds: if is_shared { SHARED_HOLDS.min(*holds) } else { *holds },
        grants: if is_shared { SHARED_GRANTS.min(*grants) } else { *grants },
        grants_per_agent: *grants_per_agent,
        meters: *counted_uses,
        ends_seconds: config.shared_store().map_or(0, |shared| shared.retention_seconds),
    };
    let Some(path) = path else { return Ok((as_of_now(InForce::new(Vec::new(), Box::new(Forget), room)?), None)) };
    let (journal, mut kept) = Journal::open(path).map_err(|error| StartError::Journal(path.clone(), error))?;
    let tables = [
        (Table::Entries, journal::Table::Entries),
        (Table::Gone, journal::Table::Gone),
        (Table::Uses, journal::Table::Uses),
        (Table::Quotas, journal::Table::Meters),
    ];
    let of_table = |(table, at)| kept.take(at).into_iter().map(move |(key, value)| (table, key, value));
    let all = tables.into_iter().flat_map(of_table).collect();
    Ok((as_of_now(InForce::new(all, Box::new(Kept(journal.clone())), room)?), Some(journal)))
}

/// Before anything comes from others: an end that came before it is known what time it is would be as old as can be, and forgotten.
fn as_of_now(state: InForce) -> Arc<InForce> {
    state.latest(now());
    Arc::new(state)
}

struct Kept(Journal);

impl Keep for Kept {
    fn keep(&self, changes: Vec<Change>) -> Durable {
        let written = self.0.write(changes.into_iter().map(translated).collect());
        Box::pin(async move { written.await.map_err(|_| NotKept) })
    }
}

fn translated(change: Change) -> journal::Change {
    match change {
        Change::Put(table, key, value) => journal::Change::Put(place(table), key, value),
        Change::Remove(table, key) => journal::Change::Remove(place(table), key),
    }
}

const fn place(table: state::Table) -> journal::Table {
    match table {
        Table::Entries => journal::Table::Entries,
        Table::Gone => journal::Table::Gone,
        Table::Uses => journal::Table::Uses,
        Table::Quotas => journal::Table::Meters,
    }
}

/// Takes out of memory what is over, for ever.
pub(super) async fn tidy(pipeline: Arc<Pipeline>) {
    let mut ticks = tokio::time::interval(TIDY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        pipeline.parts.state.tidy(now());
    }
}

/// Keeps once more what could not be kept, for ever. It may wait for a disk, which nobody else does.
pub(super) async fn repair(pipeline: Arc<Pipeline>) {
    let mut ticks = tokio::time::interval(TIDY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        pipeline.parts.state.repair().await;
    }
}
