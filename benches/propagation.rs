//! How long a hold takes to be in force everywhere: placed at one process, and watched at all the others.
//!
//! `propagation ROUNDS SOCKET…`, the sockets at which control is asked for; the holds are placed at the first. With one alone it is
//! the one that is watched. `cargo bench` runs it without arguments, which does nothing.

#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "it is run for what it prints, and stops at the first surprise"
)]

mod delays;

use std::error::Error;
use std::time::{Duration, Instant};

use palisade::control::client::{self, Line, Server};
use palisade::proto::event::Event as What;
use palisade::proto::{GetStatusRequest, PlaceHoldRequest, ReleaseHoldsRequest, StoreState, WatchRequest};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// The allocator of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Between two commands: whoever stops an agent does so while nothing else of the kind is under way.
const PAUSE: Duration = Duration::from_millis(200);
/// Whatever takes longer than that has not arrived.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a watcher was told, and when.
struct Told {
    who: usize,
    what: What,
    at: Instant,
}

/// Times of one kind of command.
#[derive(Default)]
struct Times {
    /// Until it was answered.
    answered: Vec<Duration>,
    /// Until each watcher was told.
    told: Vec<Duration>,
    /// Until the last of them was.
    last: Vec<Duration>,
}

fn main() -> Result<(), Box<dyn Error>> {
    // `cargo bench` says `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [rounds, first, others @ ..] = arguments.as_slice() else { return Ok(()) };
    let watched = if others.is_empty() { std::slice::from_ref(first) } else { others };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(rounds.parse()?, first, watched))
}

async fn measure(rounds: usize, first: &str, watched: &[String]) -> Result<(), Box<dyn Error>> {
    let (sender, mut told) = mpsc::unbounded_channel();
    let is_shared = watched.len() > 1 || watched[0] != first;
    for (who, socket) in watched.iter().enumerate() {
        let line = ready(socket, is_shared).await?;
        tokio::spawn(watch(who, line, sender.clone()));
    }
    drop(sender);
    // Each is told the state first: from then on it misses nothing.
    everybody(&mut told, watched.len(), |what| matches!(what, What::Status(_))).await?;
    let mut line = ready(first, is_shared).await?;
    let (mut holding, mut releasing) = (Times::default(), Times::default());
    for round in 0..rounds {
        let subject = format!("agent:spiffe://example.org/ns/agents/sa/round-{round}");
        let reason = "Made for a measurement".to_owned();
        sleep(PAUSE).await;
        let start = Instant::now();
        let hold = PlaceHoldRequest { subject: subject.clone(), reason: reason.clone(), seconds: 0 };
        let is_it = |what: &What| matches!(what, What::Held(hold) if hold.subject == subject);
        let (answer, seen) = tokio::join!(
            async {
                line.client.place_hold(hold).await.map(|reply| (is_told(reply.into_inner().shared), start.elapsed()))
            },
            everybody(&mut told, watched.len(), is_it)
        );
        holding.add(start, answer?, &seen?)?;
        sleep(PAUSE).await;
        let start = Instant::now();
        let release = ReleaseHoldsRequest { hold: subject.clone(), reason };
        let is_it = |what: &What| matches!(what, What::Released(hold) if hold.subject == subject);
        let (answer, seen) = tokio::join!(
            async {
                line.client
                    .release_holds(release)
                    .await
                    .map(|reply| (is_told(reply.into_inner().shared), start.elapsed()))
            },
            everybody(&mut told, watched.len(), is_it)
        );
        releasing.add(start, answer?, &seen?)?;
    }
    delays::head();
    holding.print("hold");
    releasing.print("release");
    Ok(())
}

/// A connection to a process that is in touch with the store, if there is one: finding it is not what is measured.
async fn ready(socket: &str, is_shared: bool) -> Result<Line, Box<dyn Error>> {
    let mut line = client::connect(&Server::Unix(socket.into())).await?;
    let start = Instant::now();
    loop {
        let status = line.client.get_status(GetStatusRequest::default()).await?.into_inner();
        match status.store() {
            StoreState::InTouch if is_shared => return Ok(line),
            StoreState::NotShared if !is_shared => return Ok(line),
            other if start.elapsed() > PATIENCE => return Err(format!("{socket}: its store is {other:?}").into()),
            _ => sleep(PAUSE).await,
        }
    }
}

/// Hands on what one process tells, for ever.
async fn watch(who: usize, mut line: Line, told: mpsc::UnboundedSender<Told>) {
    let mut events = line.client.watch(WatchRequest {}).await.expect("a watch").into_inner();
    while let Some(event) = events.message().await.expect("an event") {
        let at = Instant::now();
        // Of the store, one may be told at any time.
        if let Some(what) = event.event.filter(|what| !matches!(what, What::Store(_))) {
            told.send(Told { who, what, at }).expect("somebody who measures");
        }
    }
}

/// When each watcher was told what is waited for, once each; nothing else may be told meanwhile.
async fn everybody(
    told: &mut mpsc::UnboundedReceiver<Told>,
    watchers: usize,
    is_it: impl Fn(&What) -> bool,
) -> Result<Vec<Instant>, String> {
    let mut when: Vec<Option<Instant>> = vec![None; watchers];
    for seen in 0..watchers {
        let missing = || format!("after {PATIENCE:?}, {} of {watchers} were not told", watchers - seen);
        let next = timeout(PATIENCE, told.recv()).await.map_err(|_late| missing())?;
        let Told { who, what, at } = next.ok_or("no watcher is left")?;
        if !is_it(&what) || when[who].replace(at).is_some() {
            return Err(format!("watcher {who} was told what nobody expected: {what:?}"));
        }
    }
    Ok(when.into_iter().flatten().collect())
}

/// Whether everybody heard, if there is anybody.
fn is_told(shared: Option<bool>) -> bool {
    shared != Some(false)
}

impl Times {
    fn add(&mut self, start: Instant, (shared, answered): (bool, Duration), told: &[Instant]) -> Result<(), String> {
        if !shared {
            return Err("what was done was not told to the store".into());
        }
        let told = told.iter().map(|at| at.saturating_duration_since(start));
        self.last.extend(told.clone().max());
        self.told.extend(told);
        self.answered.push(answered);
        Ok(())
    }

    fn print(self, name: &str) {
        delays::row(&format!("{name}: until each other was told"), self.told);
        delays::row(&format!("{name}: until the last was"), self.last);
        delays::row(&format!("{name}: until it was answered"), self.answered);
    }
}
