//! A disk in memory that can crash or fail at any operation, and forgets what a real one may forget.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use redb::StorageBackend;

/// Numbers by chance, from a seed (SplitMix64).
#[derive(Debug)]
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ (mixed >> 31)) % end.max(1) as u64).unwrap()
    }
}

/// What goes wrong, and at the how manieth operation that changes something.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// From then on every operation fails.
    Crash(usize),
    /// It fails alone.
    Fail(usize, io::ErrorKind),
}

/// A machine with one disk. Its clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Machine(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug)]
enum Pending {
    Write(usize, Vec<u8>),
    Length(usize),
}

#[derive(Debug, Default)]
struct State {
    /// What reads give.
    seen: Vec<u8>,
    /// What is on the disk for certain.
    durable: Vec<u8>,
    /// What came since, in its order.
    pending: Vec<Pending>,
    operations: usize,
    syncs: usize,
    faults: Vec<Fault>,
    crashed: bool,
    sync_fails: bool,
    held: bool,
    chance: Option<Chance>,
}

/// While it is there, syncs wait.
pub struct Held(Machine);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.state().held = false;
        self.0.0.1.notify_all();
    }
}

impl Machine {
    /// One with a disk that holds this, and what will go wrong.
    pub fn with(disk: Vec<u8>, faults: Vec<Fault>, seed: u64) -> Self {
        let machine = Self::default();
        let state = State { seen: disk.clone(), durable: disk, faults, chance: Some(Chance(seed)), ..State::default() };
        *machine.state() = state;
        machine
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap()
    }

    /// How many operations there were that change something.
    pub fn operations(&self) -> usize {
        self.state().operations
    }

    pub fn syncs(&self) -> usize {
        self.state().syncs
    }

    pub fn hold_syncs(&self) -> Held {
        self.state().held = true;
        Held(self.clone())
    }

    /// The next sync fails, alone.
    pub fn fail_the_next_sync(&self, seed: u64) {
        let mut state = self.state();
        state.chance = Some(Chance(seed));
        state.sync_fails = true;
    }

    /// Every operation fails, or none any more.
    pub fn set_broken(&self, broken: bool) {
        self.state().crashed = broken;
    }

    /// What is on the disk for certain.
    pub fn copy_of_disk(&self) -> Vec<u8> {
        self.state().durable.clone()
    }

    /// What reads give.
    pub fn seen(&self) -> Vec<u8> {
        self.state().seen.clone()
    }

    /// What the next start finds when the power ends now: of what was not synced, each write is there, is not, or is in
    /// part. Lengths are a file system's own, and come in their order.
    pub fn power_off(&self) -> Vec<u8> {
        let state = &mut *self.state();
        state.crashed = true;
        let chance = state.chance.get_or_insert(Chance(0));
        let mut disk = state.durable.clone();
        let lengths = state.pending.iter().filter(|pending| matches!(pending, Pending::Length(_))).count();
        let mut lengths = chance.below(lengths + 1);
        for pending in state.pending.drain(..) {
            match pending {
                Pending::Length(length) if lengths > 0 => {
                    disk.resize(length, 0);
                    lengths -= 1;
                }
                Pending::Length(_) => {}
                Pending::Write(at, bytes) => match chance.below(3) {
                    0 => {}
                    1 => put(&mut disk, at, &bytes),
                    _ => {
                        let (one, other) = (chance.below(bytes.len() + 1), chance.below(bytes.len() + 1));
                        let (start, end) = (one.min(other), one.max(other));
                        put(&mut disk, at + start, &bytes[start..end]);
                    }
                },
            }
        }
        disk
    }
}

/// As far as the disk goes: what is beyond a length that was lost is lost with it.
fn put(disk: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(room) = disk.get_mut(at..) {
        let length = room.len().min(bytes.len());
        room[..length].copy_from_slice(&bytes[..length]);
    }
}

impl State {
    /// Counts an operation, and says whether it fails.
    fn step(&mut self) -> io::Result<()> {
        let number = self.operations;
        self.operations += 1;
        self.crashed |= self.faults.contains(&Fault::Crash(number));
        if self.crashed {
            return Err(io::Error::other("no power"));
        }
        let failed = self.faults.iter().find_map(|fault| match fault {
            Fault::Fail(at, kind) if *at == number => Some(*kind),
            _ => None,
        });
        failed.map_or(Ok(()), |kind| Err(kind.into()))
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.seen.len(), "beyond the end");
        put(&mut self.seen, at, bytes);
        self.pending.push(Pending::Write(at, bytes.to_vec()));
    }

    /// The pages that could not be written are taken for written: a second sync does not write them. What is read is
    /// the new content still, or the old one again, as systems differ.
    fn sync_failed(&mut self) {
        let mut chance = self.chance.take().unwrap_or(Chance(0));
        let mut lengths = Vec::new();
        for pending in self.pending.drain(..) {
            match pending {
                Pending::Write(at, bytes) if chance.below(2) == 0 => put(&mut self.durable, at, &bytes),
                Pending::Write(..) => {}
                Pending::Length(length) => lengths.push(length),
            }
        }
        if chance.below(2) == 0 {
            self.seen.clone_from(&self.durable);
            lengths.iter().for_each(|length| self.seen.resize(*length, 0));
        }
        self.pending = lengths.into_iter().map(Pending::Length).collect();
        self.chance = Some(chance);
    }
}

impl StorageBackend for Machine {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        if state.crashed {
            return Err(io::Error::other("no power"));
        }
        let at = usize::try_from(offset).unwrap();
        let bytes = state.seen.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        let length = usize::try_from(len).unwrap();
        state.seen.resize(length, 0);
        state.pending.push(Pending::Length(length));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        while state.held {
            state = self.0.1.wait(state).unwrap();
        }
        let step = state.step();
        if let Err(error) = if std::mem::take(&mut state.sync_fails) { Err(io::Error::other("lost")) } else { step } {
            if !state.crashed {
                state.sync_failed();
            }
            return Err(error);
        }
        state.syncs += 1;
        let State { pending, durable, .. } = &mut *state;
        for pending in pending.drain(..) {
            match pending {
                Pending::Write(at, bytes) => put(durable, at, &bytes),
                Pending::Length(length) => durable.resize(length, 0),
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let at = usize::try_from(offset).unwrap();
        if let Err(error) = state.step() {
            // A part of it may have got there; of a crash, all of it.
            let written = if state.crashed { data.len() } else { data.len() / 2 };
            state.write(at, &data[..written]);
            return Err(error);
        }
        state.write(at, data);
        Ok(())
    }
}
