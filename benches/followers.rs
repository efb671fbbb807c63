//! What one store bears: thousands of sidecars that follow it, as far as it can see, in this one process. Each is the code of a sidecar
//! (`palisade::shared`) with a connection of its own, and what it is told it only remembers.
//!
//! `followers FOLLOWERS ENTRIES ROUNDS`; starts a `redis-server` on a free port and restarts it, empty. `cargo bench` runs it without
//! arguments, which does nothing.

#![expect(
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "it is run for what it prints, and stops at the first surprise"
)]

mod delays;
mod memory;

use std::collections::HashMap;
use std::error::Error;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use palisade::shared::{Config, Entry, Known, Replica, Shared, StoreState, Tombstone, View};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};

/// The allocator of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Between two changes.
const PAUSE: Duration = Duration::from_millis(500);
/// For how long it is looked at while nothing happens.
const QUIET: Duration = Duration::from_secs(20);
/// Between two looks at the store.
const LOOK: Duration = Duration::from_millis(50);
/// Whatever takes longer than that does not happen.
const PATIENCE: Duration = Duration::from_secs(300);
/// As long as what a hold with a reason of a line is, sealed.
const SEALED_BYTES: usize = 320;

type ById<T> = HashMap<Arc<str>, T>;

/// What all followers tell whoever measures.
struct All {
    /// How many are in touch.
    in_touch: AtomicUsize,
    changed: Notify,
    told: mpsc::UnboundedSender<(Arc<str>, Instant)>,
}

/// One that remembers what it is told.
struct Follower {
    all: Arc<All>,
    was_in_touch: Mutex<bool>,
    known: Mutex<(ById<Entry>, ById<Tombstone>)>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Replica for Follower {
    fn known(&self, wants: &dyn Fn(Known<'_>) -> bool) -> Vec<Arc<str>> {
        let known = locked(&self.known);
        let entries = known.0.values().filter(|entry| wants(Known::Entry(&entry.id, entry.expires)));
        let gone = known.1.values().filter(|gone| wants(Known::Gone(&gone.id, gone.at)));
        entries.map(|entry| &entry.id).chain(gone.map(|gone| &gone.id)).cloned().collect()
    }

    fn sealed(&self, ids: &[Arc<str>]) -> View {
        let known = locked(&self.known);
        let entries = ids.iter().filter_map(|id| known.0.get(id)).cloned();
        View { entries: entries.collect(), gone: ids.iter().filter_map(|id| known.1.get(id)).cloned().collect() }
    }

    fn merge(&self, view: View) -> View {
        let at = Instant::now();
        let mut known = locked(&self.known);
        let (entries, gone) = &mut *known;
        for tombstone in view.gone {
            entries.remove(&tombstone.id);
            let id = tombstone.id.clone();
            if gone.insert(id.clone(), tombstone).is_none() {
                let _nobody_measures = self.all.told.send((id, at));
            }
        }
        for entry in view.entries {
            let id = entry.id.clone();
            if !gone.contains_key(&id) && entries.insert(id.clone(), entry).is_none() {
                let _nobody_measures = self.all.told.send((id, at));
            }
        }
        View::default()
    }

    fn forgotten(&self, _id: &str) {}

    fn state(&self, state: StoreState) {
        let is = state == StoreState::InTouch;
        let was = std::mem::replace(&mut *locked(&self.was_in_touch), is);
        match (was, is) {
            (false, true) => self.all.in_touch.fetch_add(1, Ordering::SeqCst),
            (true, false) => self.all.in_touch.fetch_sub(1, Ordering::SeqCst),
            _ => return,
        };
        self.all.changed.notify_one();
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    // `cargo bench` says `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [followers, entries, rounds] = arguments.as_slice() else { return Ok(()) };
    let crowd = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(crowd.handle(), followers.parse()?, entries.parse()?, rounds.parse()?))
}

async fn measure(crowd: &Handle, count: usize, entries: usize, rounds: usize) -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut store = Store::start(dir.path(), port)?;
    let config = Config { urls: vec![format!("redis://127.0.0.1:{port}")], ..Config::default() };
    let (sender, mut told) = mpsc::unbounded_channel();
    let all = Arc::new(All { in_touch: AtomicUsize::new(0), changed: Notify::new(), told: sender });
    let before = memory::of("self").0;
    let start = Instant::now();
    let follower = |runtime: &Handle| {
        let follower = Follower { all: all.clone(), was_in_touch: Mutex::default(), known: Mutex::default() };
        Shared::start(config.clone(), Arc::new(follower), runtime)
    };
    // Whoever changes something does not wait for the others to have their turn on a core.
    let first = follower(&Handle::current())?;
    let others: Vec<Shared> = (1..count).map(|_| follower(crowd)).collect::<Result<_, _>>()?;
    all.in_touch(count).await?;
    println!("all {count} in touch {:.1} s after they started at one moment", start.elapsed().as_secs_f64());
    for number in 0..entries {
        first.put(&entry(&format!("standing-{number}"))).await?;
        // One after the other, as far as all of them on one core can follow.
        everybody(&mut told, count).await?;
    }
    let each = (memory::of("self").0.saturating_sub(before)) / count;
    println!(
        "{entries} entries are known to all; {each} KB resident for each, {} MB of the store",
        memory::of(&store.id()).0 / 1024
    );

    let (of_store, of_us) = (busy(&store.id())?, busy("self")?);
    sleep(QUIET).await;
    let share = |now: Duration, was: Duration| (now - was).as_secs_f64() / QUIET.as_secs_f64() * 100.0;
    println!(
        "in quiet: the store keeps a core busy for {:.0} %, the followers one for {:.0} %",
        share(busy(&store.id())?, of_store),
        share(busy("self")?, of_us)
    );

    delays::head();
    let (mut added, mut removed) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let id = format!("round-{round}");
        sleep(PAUSE).await;
        let start = Instant::now();
        first.put(&entry(&id)).await?;
        added.extend(everybody(&mut told, count).await?.into_iter().map(|at| at.saturating_duration_since(start)));
        sleep(PAUSE).await;
        let start = Instant::now();
        first.remove(&[Tombstone { id: id.as_str().into(), sealed: sealed(), at: 0 }]).await?;
        removed.extend(everybody(&mut told, count).await?.into_iter().map(|at| at.saturating_duration_since(start)));
    }
    delays::row("an entry: until each was told", added);
    delays::row("its end: until each was told", removed);

    let start = Instant::now();
    store.restart()?;
    // Most find it again before it counts as lost.
    while !(store.has()? == (entries, rounds) && store.listeners()? == count) {
        if start.elapsed() > PATIENCE {
            let (has, listeners) = (store.has()?, store.listeners()?);
            return Err(format!("after {PATIENCE:?} the store has {has:?}, and {listeners} listen").into());
        }
        sleep(LOOK).await;
    }
    all.in_touch(count).await?;
    println!(
        "the store restarted empty: it has everything again and all listen {:.1} s after, {:.1} s of its core",
        start.elapsed().as_secs_f64(),
        busy(&store.id())?.as_secs_f64()
    );
    println!("what it was asked meanwhile: {}", store.commands()?);
    drop(others);
    Ok(())
}

impl All {
    /// Waits until so many are in touch.
    async fn in_touch(&self, count: usize) -> Result<(), String> {
        let waiting = async {
            while self.in_touch.load(Ordering::SeqCst) != count {
                self.changed.notified().await;
            }
        };
        let now = || format!("after {PATIENCE:?}, {} of {count} are in touch", self.in_touch.load(Ordering::SeqCst));
        timeout(PATIENCE, waiting).await.map_err(|_late| now())
    }
}

/// When each was told what is new.
async fn everybody(
    told: &mut mpsc::UnboundedReceiver<(Arc<str>, Instant)>,
    count: usize,
) -> Result<Vec<Instant>, String> {
    let mut when = Vec::with_capacity(count);
    while when.len() < count {
        let missing = || format!("after {PATIENCE:?}, {} of {count} were not told", count - when.len());
        let next = timeout(PATIENCE, told.recv()).await.map_err(|_late| missing())?;
        when.push(next.ok_or("no follower is left")?.1);
    }
    Ok(when)
}

fn sealed() -> Bytes {
    Bytes::from(vec![b'x'; SEALED_BYTES])
}

fn entry(id: &str) -> Entry {
    Entry { id: id.into(), sealed: sealed(), expires: None }
}

/// A `redis-server` with nothing on disk.
struct Store<'d> {
    dir: &'d Path,
    port: u16,
    child: Child,
}

impl<'d> Store<'d> {
    fn start(dir: &'d Path, port: u16) -> Result<Self, Box<dyn Error>> {
        let port_text = port.to_string();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port_text, "--save", "", "--appendonly", "no"]);
        command.args(["--maxclients", "12000", "--tcp-backlog", "4096"]).current_dir(dir).stdout(Stdio::null());
        let store = Self { dir, port, child: command.spawn()? };
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if start.elapsed() > PATIENCE {
                return Err("redis-server does not listen".into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(store)
    }

    fn restart(&mut self) -> Result<(), Box<dyn Error>> {
        self.child.kill()?;
        self.child.wait()?;
        *self = Self::start(self.dir, self.port)?;
        Ok(())
    }

    fn id(&self) -> String {
        self.child.id().to_string()
    }

    fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port))?;
        redis::cmd(words.first().copied().unwrap_or_default()).arg(words.get(1..)).query(&mut client.get_connection()?)
    }

    /// How many entries and ends it has.
    fn has(&self) -> redis::RedisResult<(usize, usize)> {
        Ok((self.ask(&["HLEN", "palisade:{state}:entries"])?, self.ask(&["HLEN", "palisade:{state}:gone"])?))
    }

    /// How many are told of changes.
    fn listeners(&self) -> redis::RedisResult<usize> {
        self.ask::<(String, usize)>(&["PUBSUB", "NUMSUB", "palisade:{state}:changes"]).map(|(_, count)| count)
    }

    /// How often each command came, the most frequent ones.
    fn commands(&self) -> redis::RedisResult<String> {
        let all: String = self.ask(&["INFO", "commandstats"])?;
        let mut counts: Vec<(u64, &str)> = all
            .lines()
            .filter_map(|line| {
                let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
                Some((rest.split(',').next()?.parse().ok()?, name))
            })
            .collect();
        counts.sort_unstable_by(|one, other| other.cmp(one));
        let texts: Vec<String> = counts.iter().take(8).map(|(count, name)| format!("{name} {count}")).collect();
        Ok(texts.join(", "))
    }
}

impl Drop for Store<'_> {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// For how long the threads of a process were on a core, all together.
fn busy(process: &str) -> Result<Duration, Box<dyn Error>> {
    let mut busy = Duration::ZERO;
    for task in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        busy += Duration::from_nanos(text.split(' ').next().ok_or("no schedstat")?.parse()?);
    }
    Ok(busy)
}
