//! Limits: how much may happen, by name. A permit with `@limit("name")` counts only while that limit holds.
//!
//! `limits.toml` of the bundle says what a limit measures (a rate, a quota of each window of time, or calls at one time), whose
//! use is counted together, and what a call costs. What is counted lies outside the core, in [`meter::Meter`]s by [`Limit::key`].

pub mod meter;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;

use super::call::json::Json;
use super::digest::sha256;
use super::policy::source::BundleError;
use jiff::Timestamp;

/// Most limits of a bundle: each is looked at where policies read `context.usage`.
const MAX_LIMITS: usize = 256;
/// Longest name, in bytes.
const MAX_NAME_BYTES: usize = 64;
/// Most units of anything, and most seconds of a window: 366 days.
const MAX_UNITS: u64 = 1_000_000_000_000;
const MAX_SECONDS: u64 = 366 * 86_400;

/// What tells uses of a limit apart: the digest of its definition and of whose use it is.
pub type Key = [u8; 32];

/// Room for what a key is the digest of, as it mostly is: it is made for each limit of each call.
const KEY_BYTES: usize = 256;

/// `limits.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    limit: Vec<Written>,
    denials: Option<Rate>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    #[serde(default)]
    per: Vec<Part>,
    rate: Option<Rate>,
    quota: Option<Quota>,
    concurrent: Option<Concurrent>,
    cost: Option<Cost>,
}

/// What uses are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The calling workload.
    Agent,
    /// The user for whom it calls; all calls without one are together.
    User,
    /// The target.
    Server,
    /// The tool; calls that are about none are together.
    Tool,
    /// The task that the call says it is for, if the caller has a grant for it; all other calls are together.
    Task,
}

/// So many units in so many seconds, evenly, but for a burst (GCRA).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Units.
    pub units: u64,
    /// Seconds.
    #[serde(default = "one")]
    pub seconds: u64,
    /// Units at one moment after a time without any; absent is `units`.
    pub burst: Option<u64>,
}

/// So many units in each window of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Units.
    pub units: u64,
    /// How long a window is, in seconds: 3600 is each hour, 86400 each day, as UTC has them.
    pub seconds: u64,
}

/// So many calls at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Concurrent {
    /// Calls.
    pub calls: u64,
    /// After how many seconds a call whose end nobody told of counts as over.
    pub seconds: u64,
}

/// What a call takes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// The argument that says how many units, as a JSON pointer (RFC 6901) into the arguments: `/limit`.
    pub argument: String,
    /// Units of a call without it.
    #[serde(default = "one")]
    pub default: u64,
    /// Most units that a call may take.
    pub max: u64,
}

impl Cost {
    /// The names that the pointer consists of, from the outermost.
    pub fn names(&self) -> impl Iterator<Item = String> {
        self.argument.split('/').skip(1).map(|name| name.replace("~1", "/").replace("~0", "~"))
    }
}

const fn one() -> u64 {
    1
}

/// What a limit measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// A rate.
    Rate(Rate),
    /// A quota.
    Quota(Quota),
    /// Calls at one time.
    Concurrent(Concurrent),
}

/// A limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Its name.
    pub name: Box<str>,
    /// What uses are told apart by, in order.
    pub per: Vec<Part>,
    /// What it measures.
    pub measure: Measure,
    /// What a call takes; absent is one unit.
    pub cost: Option<Cost>,
    /// What it is, so that uses under another definition are others.
    print: [u8; 32],
}

/// What of a call tells its use of a limit apart; `None` for what there is not.
#[derive(Clone, Copy, Debug, Default)]
pub struct Whose<'w> {
    /// SPIFFE ID.
    pub agent: &'w str,
    /// `<issuer>/<subject>`
    pub user: Option<&'w str>,
    /// Name of the target.
    pub server: &'w str,
    /// `<server>/<tool>`
    pub tool: Option<&'w str>,
    /// The task, if the caller has a grant for it.
    pub task: Option<&'w str>,
}

/// A use of a limit, still to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Take {
    /// The limit.
    pub limit: Arc<Limit>,
    /// Whose use it is.
    pub key: Key,
    /// How many units.
    pub units: u64,
}

/// An argument does not say what a call costs: it is no whole number from 0 to the limit's `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoCost;

impl Limit {
    /// What tells this use of it apart.
    #[must_use]
    pub fn key(&self, whose: &Whose<'_>) -> Key {
        let mut text = Vec::with_capacity(KEY_BYTES);
        text.extend(self.print);
        for part in &self.per {
            let value = match part {
                Part::Agent => Some(whose.agent),
                Part::User => whose.user,
                Part::Server => Some(whose.server),
                Part::Tool => whose.tool,
                Part::Task => whose.task,
            };
            // With a length before it, no two lists of names are one text; what is not there is no name.
            text.extend(value.map_or(u64::MAX, |value| value.len() as u64).to_be_bytes());
            text.extend(value.unwrap_or_default().as_bytes());
        }
        sha256(&text)
    }

    /// What a call with these arguments takes.
    ///
    /// # Errors
    /// [`NoCost`]
    pub fn units(&self, arguments: Option<&Json<'_>>) -> Result<u64, NoCost> {
        let Some(cost) = &self.cost else { return Ok(1) };
        let mut named = arguments;
        for name in cost.names() {
            let Some(json) = named else { break };
            // Of a list, no member could be named: what would be meant is not said.
            named = json.members().ok_or(NoCost).map(|_| json.get(&name))?;
        }
        let Some(value) = named else { return Ok(cost.default) };
        let units = value.as_i64().and_then(|units| u64::try_from(units).ok());
        units.filter(|units| *units <= cost.max).ok_or(NoCost)
    }

    /// The most units that can ever be taken at one time.
    #[must_use]
    pub const fn most(&self) -> u64 {
        match self.measure {
            Measure::Rate(rate) => rate.burst(),
            Measure::Quota(quota) => quota.units,
            Measure::Concurrent(concurrent) => concurrent.calls,
        }
    }
}

impl Rate {
    /// Units at one moment.
    #[must_use]
    pub const fn burst(&self) -> u64 {
        match self.burst {
            Some(burst) => burst,
            None => self.units,
        }
    }
}

/// The limits of a bundle.
#[derive(Clone, Debug, Default)]
pub struct LimitSet {
    limits: Vec<Arc<Limit>>,
    /// How many of its calls an agent may have denied; absent is [`DENIALS`].
    pub denials: Option<Rate>,
}

impl LimitSet {
    /// Reads `limits.toml`.
    ///
    /// # Errors
    /// [`BundleError`] with the first thing that is wrong.
    pub fn parse(file: &str, text: &str) -> Result<Self, BundleError> {
        let read: File = toml::from_str(text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            BundleError::at(file, text, offset, error.message().replace('\n', "; "))
        })?;
        let wrong = |name: &str, message: String| {
            BundleError::near(file, text, &format!("\"{name}\""), format!("limit `{name}`: {message}"))
        };
        if read.limit.len() > MAX_LIMITS {
            return Err(BundleError::new(file, format!("more than {MAX_LIMITS} limits")));
        }
        if let Some(denials) = &read.denials {
            check_rate("denials", denials).map_err(|message| BundleError::near(file, text, "[denials]", message))?;
        }
        let mut names = BTreeSet::new();
        let mut limits = Vec::with_capacity(read.limit.len());
        for written in read.limit {
            let name = written.name.clone();
            if !names.insert(name.clone()) {
                return Err(wrong(&name, "is there twice".into()));
            }
            limits.push(Arc::new(Limit::of(written).map_err(|message| wrong(&name, message))?));
        }
        Ok(Self { limits, denials: read.denials })
    }

    /// The limit of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Limit>> {
        self.limits.iter().find(|limit| *limit.name == *name)
    }

    /// All of them, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Limit>> {
        self.limits.iter()
    }
}

impl Limit {
    fn of(written: Written) -> Result<Self, String> {
        let Written { name, mut per, rate, quota, concurrent, cost } = written;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(is_plain) {
            return Err(format!("a name is 1 to {MAX_NAME_BYTES} of A-Z a-z 0-9 - _ ."));
        }
        per.sort_unstable();
        if per.windows(2).any(|pair| pair.first() == pair.last()) {
            return Err("`per` names something twice".into());
        }
        let measure = match (rate, quota, concurrent) {
            (Some(rate), None, None) => Measure::Rate(rate),
            (None, Some(quota), None) => Measure::Quota(quota),
            (None, None, Some(concurrent)) => Measure::Concurrent(concurrent),
            _ => return Err("expected one of `rate`, `quota` and `concurrent`".into()),
        };
        match measure {
            Measure::Rate(rate) => check_rate("rate", &rate)?,
            Measure::Quota(Quota { units, seconds }) => check_numbers("quota", ("units", units), seconds)?,
            Measure::Concurrent(Concurrent { calls, seconds }) => {
                check_numbers("concurrent", ("calls", calls), seconds)?;
                if cost.is_some() {
                    return Err("`cost` is of a `rate` or a `quota`: a call is one call".into());
                }
            }
        }
        let mut limit = Self { name: name.into(), per, measure, cost, print: [0; 32] };
        if let Some(cost) = &limit.cost {
            if !cost.argument.starts_with('/') {
                return Err("`cost.argument` is a JSON pointer such as \"/limit\"".into());
            }
            let most = limit.most();
            if cost.max == 0 || cost.max > most {
                return Err(format!("`cost.max` is from 1 to {most}, what there is at one time"));
            }
            if cost.default > cost.max {
                return Err(format!("`cost.default` ({}) is above `cost.max` ({})", cost.default, cost.max));
            }
        }
        // The debug form has every member: whatever is changed makes it another.
        limit.print = sha256(format!("{limit:?}").as_bytes());
        Ok(limit)
    }
}

fn check_rate(table: &str, rate: &Rate) -> Result<(), String> {
    check_numbers(table, ("units", rate.units), rate.seconds)?;
    check_numbers(table, ("burst", rate.burst()), rate.seconds)?;
    // The state of a rate is a moment in microseconds.
    let micros = u128::from(rate.seconds) * 1_000_000 / u128::from(rate.units.max(1));
    if micros == 0 {
        return Err(format!("`{table}`: at most a million units in a second"));
    }
    let whole = micros * u128::from(rate.burst());
    if whole > u128::from(MAX_SECONDS) * 1_000_000 {
        return Err(format!("`{table}`: the whole `burst` has to come back within a year"));
    }
    Ok(())
}

fn check_numbers(table: &str, (key, units): (&str, u64), seconds: u64) -> Result<(), String> {
    if !(1..=MAX_UNITS).contains(&units) {
        return Err(format!("`{table}.{key}` is from 1 to {MAX_UNITS}"));
    }
    if !(1..=MAX_SECONDS).contains(&seconds) {
        return Err(format!("`{table}.seconds` is from 1 to {MAX_SECONDS}"));
    }
    Ok(())
}

/// How many of its calls an agent may have denied, if the bundle does not say.
pub const DENIALS: Rate = Rate { units: 20, seconds: 1, burst: Some(1_200) };

/// What tells the denied calls of agents apart.
#[must_use]
pub fn key_of_denials(agent: &str) -> Key {
    sha256(format!("denials of {agent}").as_bytes())
}

/// What is used of a limit, as far as it is known.
pub trait Usage: std::fmt::Debug + Send + Sync {
    /// Units that are used of a limit at a moment: of a rate what has not come back yet, of a quota those of its window, of calls
    /// those that go on.
    fn used(&self, limit: &Limit, key: &Key, now: Timestamp) -> u64;
}

/// What was used when it was first asked for, however often that is asked again.
#[derive(Debug)]
pub struct Noted {
    live: Arc<dyn Usage>,
    answers: Mutex<HashMap<Key, u64>>,
}

impl Noted {
    /// Notes what `live` answers.
    #[must_use]
    pub fn new(live: Arc<dyn Usage>) -> Self {
        Self { live, answers: Mutex::default() }
    }
}

impl Usage for Noted {
    fn used(&self, limit: &Limit, key: &Key, now: Timestamp) -> u64 {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        *answers.entry(*key).or_insert_with(|| self.live.used(limit, key, now))
    }
}

/// Nothing is used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unused;

impl Usage for Unused {
    fn used(&self, _limit: &Limit, _key: &Key, _now: Timestamp) -> u64 {
        0
    }
}
