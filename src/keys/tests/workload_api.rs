//! The Workload API: what it may say over time, with a clock that is told to go on, and then over a real socket.

mod socket;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::*;
use crate::keys::workload_api::{Bundles, Ended, Stream};

const HOUR: u64 = 3_600;

/// A Workload API that says what it is told to.
#[derive(Clone, Debug, Default)]
pub(super) struct Streams(Arc<Mutex<Api>>);

#[derive(Debug, Default)]
struct Api {
    /// What each new stream begins with.
    opening: Opening,
    opened: Vec<Instant>,
    /// To the stream that is open.
    live: Option<mpsc::UnboundedSender<Opening>>,
}

#[derive(Clone, Debug, Default)]
enum Opening {
    #[default]
    Silence,
    Bundles(Bundles),
    Ends(Ended),
    Panic,
}

impl Streams {
    fn with(bundles: Bundles) -> Self {
        let streams = Self::default();
        streams.opens_with(Opening::Bundles(bundles));
        streams
    }

    fn opens_with(&self, opening: Opening) {
        self.0.lock().unwrap().opening = opening;
    }

    /// On the stream that is open.
    fn says(&self, what: Opening) {
        self.0.lock().unwrap().live.as_ref().unwrap().send(what).unwrap();
    }

    fn opened(&self) -> Vec<Instant> {
        self.0.lock().unwrap().opened.clone()
    }
}

impl Stream for Streams {
    async fn stream(&self, updates: mpsc::Sender<Bundles>) -> Ended {
        let (sender, mut steps) = mpsc::unbounded_channel();
        {
            let mut api = self.0.lock().unwrap();
            api.opened.push(Instant::now());
            sender.send(api.opening.clone()).unwrap();
            api.live = Some(sender);
        }
        while let Some(step) = steps.recv().await {
            match step {
                Opening::Silence => {}
                Opening::Bundles(bundles) => updates.send(bundles).await.unwrap(),
                Opening::Ends(ended) => return ended,
                Opening::Panic => panic!("a library's mistake"),
            }
        }
        std::future::pending().await
    }
}

fn failed() -> Opening {
    Opening::Ends(Ended::Failed("the socket broke".into()))
}

fn denied() -> Opening {
    Opening::Ends(Ended::Denied("no identity issued".into()))
}

/// Key sets by trust domain.
fn bundles<const N: usize>(all: [(&str, &str); N]) -> Bundles {
    all.into_iter().map(|(name, keys)| (name.to_owned(), Bytes::copy_from_slice(keys.as_bytes()))).collect()
}

fn of_workload_api() -> Source {
    Source { workload_api: true, ..Source::default() }
}

/// Started with `a.test` and `b.test`, and each looked at once.
async fn start_following(streams: &Streams, source: Source, refresh_seconds: u64) -> Keys {
    let config = WorkloadApi { refresh_seconds, ..WorkloadApi::default() };
    let sources = ["a.test", "b.test"].map(|name| (domain(name), source.clone()));
    let fetcher = |_: &Source, _: &_| Err::<Provider, _>("nothing is fetched".to_owned());
    let stream = || Ok(streams.clone());
    let keys = Keys::start_with(sources.into(), &Handle::current(), fetcher, stream, &config).unwrap();
    keys.attempted().await;
    keys
}

async fn start(streams: &Streams) -> Keys {
    start_following(streams, of_workload_api(), 300).await
}

fn error(keys: &Keys, name: &str) -> Option<String> {
    keys.trust_domains[name].status().error
}

#[tokio::test(start_paused = true)]
async fn each_trust_domain_has_the_keys_of_its_own_bundle() {
    let streams =
        Streams::with(bundles([("a.test", &set(&["k"])), ("b.test", &set(&["k", "l"])), ("c.test", &set(&["m"]))]));
    let keys = start(&streams).await;
    let (a, b) = (of_domain(&keys, "a.test").unwrap(), of_domain(&keys, "b.test").unwrap());
    assert_eq!((a.len(), b.len()), (1, 2));
    assert!(!b.holds(a.find(Some("k")).unwrap()), "the same name is not the same key");
    // Whoever is not configured is nobody, whatever the agent knows of him.
    assert_eq!(keys.keyring().trust_domains.keys().collect::<Vec<_>>(), ["a.test", "b.test"]);

    // A change comes by itself; what did not change is the very set that it was.
    let changed = bundles([("a.test", &set(&["n"])), ("b.test", "")]);
    streams.says(Opening::Bundles(changed));
    next_attempt(&keys.trust_domains["b.test"]).await;
    assert!(has(of_domain(&keys, "a.test").as_ref(), "n") && !has(of_domain(&keys, "a.test").as_ref(), "k"));
    assert!(Arc::ptr_eq(&b, &of_domain(&keys, "b.test").unwrap()));
    assert_eq!(streams.opened().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn keys_for_jwt_svids_need_not_say_so_and_others_do_not_count() {
    let purposes =
        [("a", ""), ("b", "sig"), ("c", "jwt-svid"), ("d", "x509-svid"), ("e", "enc")].map(|(id, of)| key(id, of));
    let mixed = format!(r#"{{"keys":[{}]}}"#, purposes.join(","));
    let keys = start(&Streams::with(bundles([("a.test", &mixed), ("b.test", &mixed)]))).await;
    let set = of_domain(&keys, "a.test");
    assert_eq!(["a", "b", "c", "d", "e"].map(|id| has(set.as_ref(), id)), [true, true, true, false, false]);
}

#[tokio::test(start_paused = true)]
async fn a_bundle_that_vanishes_takes_its_keys_along_at_once_and_nobody_elses() {
    let both = bundles([("a.test", &set(&["k"])), ("b.test", &set(&["l"]))]);
    let streams = Streams::with(both.clone());
    let keys = start(&streams).await;
    let a = of_domain(&keys, "a.test").unwrap();

    streams.says(Opening::Bundles(both.clone().into_iter().take(1).collect()));
    next_attempt(&keys.trust_domains["b.test"]).await;
    assert!(of_domain(&keys, "b.test").is_none() && !keys.trust_domains["b.test"].status().is_available());
    assert!(error(&keys, "b.test").unwrap().contains("has no bundle of it"));
    assert!(Arc::ptr_eq(&a, &of_domain(&keys, "a.test").unwrap()));
    assert_eq!(error(&keys, "a.test"), None);

    streams.says(Opening::Bundles(both));
    next_attempt(&keys.trust_domains["b.test"]).await;
    assert!(has(of_domain(&keys, "b.test").as_ref(), "l"));
    assert_eq!(error(&keys, "b.test"), None);
}

#[tokio::test(start_paused = true)]
async fn a_workload_that_is_refused_has_no_keys_any_more() {
    let both = bundles([("a.test", &set(&["k"])), ("b.test", &set(&["l"]))]);
    let streams = Streams::with(both.clone());
    let keys = start(&streams).await;
    streams.opens_with(denied());
    streams.says(denied());
    next_attempt(&keys.trust_domains["b.test"]).await;
    for name in ["a.test", "b.test"] {
        assert!(of_domain(&keys, name).is_none());
        assert!(error(&keys, name).unwrap().contains("no identity issued"));
    }
    // Until it may again.
    streams.opens_with(Opening::Bundles(both));
    keys.trust_domains["b.test"].state.subscribe().wait_for(|state| state.keys > 0).await.unwrap();
    assert!(has(of_domain(&keys, "a.test").as_ref(), "k"));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_costs_nothing_until_keys_are_too_old() {
    let streams = Streams::with(bundles([("a.test", &set(&["k"])), ("b.test", &set(&["l"]))]));
    let keys = start_following(&streams, Source { max_age_seconds: HOUR, ..of_workload_api() }, 300).await;
    let fetched = streams.opened()[0];
    let a = of_domain(&keys, "a.test").unwrap();
    for what in [failed(), Opening::Silence, Opening::Panic] {
        streams.opens_with(what);
        if streams.opened().len() == 1 {
            streams.says(failed());
        }
        next_attempt(&keys.trust_domains["b.test"]).await;
        next_attempt(&keys.trust_domains["b.test"]).await;
        assert!(Arc::ptr_eq(&a, &of_domain(&keys, "a.test").unwrap()));
        assert!(error(&keys, "a.test").is_some());
    }
    sleep(seconds(HOUR - 1) - fetched.elapsed()).await;
    assert!(of_domain(&keys, "a.test").is_some());
    sleep(seconds(2)).await;
    assert!(of_domain(&keys, "a.test").is_none() && of_domain(&keys, "b.test").is_none());
    assert!(!keys.statuses()[0].is_available());

    streams.opens_with(Opening::Bundles(bundles([("a.test", &set(&["m"])), ("b.test", &set(&["n"]))])));
    keys.trust_domains["b.test"].state.subscribe().wait_for(|state| state.keys > 0).await.unwrap();
    assert!(has(of_domain(&keys, "a.test").as_ref(), "m"));
    assert_eq!(error(&keys, "a.test"), None);
}

#[tokio::test(start_paused = true)]
async fn a_bundle_that_cannot_be_read_costs_nobody_anything() {
    let own = set(&["k"]);
    let streams = Streams::with(bundles([("a.test", &own), ("b.test", &set(&["l"]))]));
    let keys = start(&streams).await;
    let b = of_domain(&keys, "b.test").unwrap();
    let duplicate = set(&["m"]).replacen(r#""kid":"m""#, r#""kid":"m","kid":"m""#, 1);
    let private = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA","d":"AA"}]}"#;
    for (text, why) in [
        ("", "no JSON"),
        ("{}", "no list `keys`"),
        (r#"{"keys":[]}"#, "no key that can be used"),
        (&format!(r#"{{"keys":[{}]}}"#, key("m", "x509-svid")), "no key that can be used"),
        (&set(&["m", "m"]), "two keys of one `kid`"),
        (&duplicate, "no JSON that is read"),
        (private, "private member `d`"),
        (&"x".repeat(300 * 1024), "longer than 262144 bytes"),
    ] {
        // The others' news count all the same.
        let id = format!("n{}", why.len());
        streams.says(Opening::Bundles(bundles([("a.test", &set(&[&id])), ("b.test", text)])));
        next_attempt(&keys.trust_domains["b.test"]).await;
        let said = error(&keys, "b.test").unwrap();
        assert!(said.contains(why), "{why}: {said}");
        assert!(Arc::ptr_eq(&b, &of_domain(&keys, "b.test").unwrap()));
        assert!(has(of_domain(&keys, "a.test").as_ref(), &id));
        assert_eq!(error(&keys, "a.test"), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_opened_anew_so_that_keys_stay_young() {
    let streams = Streams::with(bundles([("a.test", &set(&["k"])), ("b.test", &set(&["l"]))]));
    let keys = start_following(&streams, Source { max_age_seconds: 600, ..of_workload_api() }, 300).await;
    let a = of_domain(&keys, "a.test").unwrap();
    for _ in 0..HOUR {
        sleep(seconds(1)).await;
        assert!(Arc::ptr_eq(&a, &of_domain(&keys, "a.test").unwrap()));
    }
    let opened = streams.opened();
    assert!(opened.len() > 9);
    opened.windows(2).for_each(|pair| assert_pause(pair[0], pair[1], seconds(300)));
    assert_eq!(keys.statuses()[0].failures, 0);

    // One that is open and dead is found out.
    streams.opens_with(Opening::Silence);
    let slot = &keys.trust_domains["a.test"];
    slot.state.subscribe().wait_for(|state| state.error.is_some()).await.unwrap();
    assert!(error(&keys, "a.test").unwrap().contains("did not answer within 2000 ms"));
    slot.state.subscribe().wait_for(|state| state.keys == 0).await.unwrap();
    assert!(of_domain(&keys, "a.test").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_workload_api_that_is_not_there_is_tried_ever_more_seldom() {
    let streams = Streams::default();
    streams.opens_with(failed());
    let keys = start(&streams).await;
    assert!(of_domain(&keys, "a.test").is_none() && error(&keys, "b.test").is_some());
    sleep(seconds(HOUR)).await;
    let opened = streams.opened();
    for (pair, least) in opened.windows(2).zip([1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]) {
        assert_pause(pair[0], pair[1], seconds(least));
    }
    assert!(opened.len() >= 12);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_messages_is_taken_one_by_one() {
    let streams = Streams::with(bundles([("a.test", &set(&["k"])), ("b.test", &set(&["l"]))]));
    let keys = start(&streams).await;
    for _ in 0..10_000 {
        streams.says(Opening::Bundles(bundles([("a.test", &set(&["k"])), ("b.test", "")])));
    }
    sleep(seconds(100)).await;
    let taken = keys.trust_domains["a.test"].status().successes;
    assert!((90..=101).contains(&taken), "{taken}");
}

#[tokio::test(start_paused = true)]
async fn nobody_listens_after_the_end() {
    let streams = Streams::with(bundles([("a.test", &set(&["k"]))]));
    let keys = start(&streams).await;
    drop(keys);
    sleep(seconds(HOUR)).await;
    assert_eq!(streams.opened().len(), 1);
    // And without any trust domain there is nothing to follow.
    let fetcher = |_: &Source, _: &_| Err::<Provider, _>("nothing is fetched".to_owned());
    let stream = || Err::<Streams, _>("not to be opened".to_owned());
    assert!(Keys::start_with(Vec::new(), &Handle::current(), fetcher, stream, &WorkloadApi::default()).is_ok());
}
