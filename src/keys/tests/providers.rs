//! What providers, files and bundles may say.

use std::io::Write;
use std::process::Command;

use tracing_subscriber::fmt::MakeWriter;

use super::*;

const DOMAIN_URL: &str = "https://spire.test/bundle";
/// The private half of a key that should never have been published.
const PRIVATE: &str = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";

/// Log lines of this thread.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_set_of_keys_leaves_the_one_before() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt().with_writer(lines.clone()).finish();
    let _log = tracing::subscriber::set_default(subscriber);
    // With one subscriber in the process, a line that another test's thread logs first would be off for this one as well:
    // that thread has none, and is the one asked. With two all are.
    let _second = tracing::Dispatch::new(tracing_subscriber::fmt().with_writer(std::io::sink).finish());

    let provider = Provider::with(KEYS, &set(&["a"]));
    let keys = start(&provider, vec![(issuer("main"), url(KEYS))]).await;
    let good = of_issuer(&keys, 0).unwrap();
    let many: Vec<String> = (0..10_000).map(|at| format!("k{at}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let private =
        format!(r#"{{"keys":[{},{{"kty":"OKP","crv":"Ed25519","x":"{PRIVATE}","d":"{PRIVATE}"}}]}}"#, key("b", ""));
    let half = set(&["b"]);
    let few_and_long = format!(r#"{{"keys":[{}],"padding":"{}"}}"#, key("b", ""), "x".repeat(256 * 1024));
    let wrong = [
        ("", "no JSON"),
        ("<html>maintenance</html>", "no JSON"),
        ("\u{feff}{}", "no JSON"),
        ("null", "no list `keys`"),
        ("[]", "no list `keys`"),
        ("{}", "no list `keys`"),
        (r#"{"error":"temporarily_unavailable"}"#, "no list `keys`"),
        // Its metadata; one key without the set around it.
        (r#"{"issuer":"https://idp.test","jwks_uri":"https://idp.test/keys"}"#, "no list `keys`"),
        (&key("b", ""), "no list `keys`"),
        (r#"{"keys":null}"#, "no list `keys`"),
        (r#"{"keys":[null,7,"b",[]]}"#, "no key that can be used"),
        (r#"{"keys":{}}"#, "no list `keys`"),
        (r#"{"keys":[]}"#, "no key that can be used"),
        (r#"{"keys":[{"kty":"oct","kid":"b"}]}"#, "no key that can be used"),
        (r#"{"keys":[{"kty":"oct","kid":"b","k":"c2VjcmV0"}]}"#, "private member `k`"),
        (&set(&["b"]).replace("]}", "]"), "no JSON"),
        (half.split_at(half.len() / 2).0, "no JSON"),
        (&half.replace(r#""keys""#, r#""keys":[],"keys""#), "no JSON"),
        (&format!("{}{}", set(&["b"]), set(&["c"])), "no JSON"),
        (&set(&["b", "b"]), "two keys of one `kid`"),
        (&set(&many[..65]), "more than 64 keys"),
        // 900 KB of them, which are not even read.
        (&set(&many), "longer than 262144 bytes"),
        (&few_and_long, "longer than 262144 bytes"),
        (&private, "private member `d`"),
    ];
    for (body, error) in &wrong {
        // Another test that says a line first, on a thread where nobody listens, would have it said nowhere.
        tracing::callsite::rebuild_interest_cache();
        provider.says(KEYS, body);
        next_attempt(&keys.issuers[0]).await;
        let status = keys.statuses().remove(0);
        let said = status.error.unwrap();
        assert!(said.contains(error), "{said}");
        assert!(Arc::ptr_eq(&good, &of_issuer(&keys, 0).unwrap()), "{error}");
        assert_eq!(status.keys, 1);
    }
    assert_eq!(keys.statuses()[0].failures, wrong.len() as u64);
    let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("private member `d`") && log.contains("issuer `main`"), "{log}");
    assert!(!log.contains(PRIVATE) && !keys.statuses()[0].error.as_ref().unwrap().contains(PRIVATE));

    provider.says(KEYS, &set(&["b"]));
    next_attempt(&keys.issuers[0]).await;
    assert!(has(of_issuer(&keys, 0).as_ref(), "b") && keys.statuses()[0].error.is_none(), "good keys again");
}

#[tokio::test(start_paused = true)]
async fn an_error_is_bounded_and_one_line() {
    let provider = Provider::default();
    provider.answers(KEYS, Answer::Error(FetchError::Tls(format!("\n\u{1b}[31m{}", "long ".repeat(1_000)))));
    let keys = start(&provider, vec![(issuer("main"), url(KEYS))]).await;
    let error = keys.statuses().remove(0).error.unwrap();
    assert!(error.len() == 300 && !error.contains(char::is_control), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failure_and_not_the_end() {
    let provider = Provider::with(KEYS, &set(&["a"]));
    let keys = start(&provider, vec![(issuer("main"), url(KEYS))]).await;
    provider.answers(KEYS, Answer::Panic);
    next_attempt(&keys.issuers[0]).await;
    assert!(keys.statuses()[0].error.as_ref().unwrap().contains("panicked"));
    assert!(has(of_issuer(&keys, 0).as_ref(), "a"));
    provider.says(KEYS, &set(&["b"]));
    next_attempt(&keys.issuers[0]).await;
    assert!(has(of_issuer(&keys, 0).as_ref(), "b"));
}

#[tokio::test(start_paused = true)]
async fn keys_are_rotated_with_overlap_and_what_is_gone_is_gone() {
    let (a, b) = (key("a", ""), key("b", ""));
    let provider = Provider::with(KEYS, &format!(r#"{{"keys":[{a}]}}"#));
    let keys = start(&provider, vec![(issuer("main"), url(KEYS))]).await;
    let first = of_issuer(&keys, 0).unwrap();
    let signed_with = first.find(Some("a")).unwrap().clone();

    // The same text: nobody who remembers what was verified has to look again.
    next_attempt(&keys.issuers[0]).await;
    assert!(Arc::ptr_eq(&first, &of_issuer(&keys, 0).unwrap()));

    provider.says(KEYS, &format!(r#"{{"keys":[{b},{a}]}}"#));
    next_attempt(&keys.issuers[0]).await;
    let both = of_issuer(&keys, 0).unwrap();
    assert!(both.holds(&signed_with) && both.find(Some("b")).is_some());

    provider.says(KEYS, &format!(r#"{{"keys":[{b}]}}"#));
    next_attempt(&keys.issuers[0]).await;
    let last = of_issuer(&keys, 0).unwrap();
    assert!(!last.holds(&signed_with) && last.find(Some("a")).is_none());
    assert_eq!(keys.statuses()[0].keys, 1);
}

#[tokio::test(start_paused = true)]
async fn the_keys_of_one_are_nobody_elses() {
    let provider = Provider::with(KEYS, &set(&["a"]));
    let other = "https://other.test/keys";
    provider.says(other, &set(&["b"]));
    provider.says(DOMAIN_URL, &bundle("", &["c"]));
    let sources = vec![
        (issuer("main"), url(KEYS)),
        (domain("b.test"), url(DOMAIN_URL)),
        (issuer("other"), url(other)),
        // The same place, for two who share it: two sets all the same.
        (domain("c.test"), url(DOMAIN_URL)),
    ];
    let keys = start(&provider, sources).await;
    let names: Vec<_> = keys.statuses().iter().map(|status| status.owner.to_string()).collect();
    assert_eq!(names, ["issuer `main`", "issuer `other`", "trust domain `b.test`", "trust domain `c.test`"]);
    for (set, id) in [
        (of_issuer(&keys, 0), "a"),
        (of_issuer(&keys, 1), "b"),
        (of_domain(&keys, "b.test"), "c"),
        (of_domain(&keys, "c.test"), "c"),
    ] {
        assert!(has(set.as_ref(), id));
        assert_eq!(set.unwrap().len(), 1);
    }

    provider.says(other, &set(&["d"]));
    next_attempt(&keys.issuers[1]).await;
    assert!(has(of_issuer(&keys, 0).as_ref(), "a") && has(of_issuer(&keys, 1).as_ref(), "d"));
    // An issuer's keys are none of a trust domain, and the other way round.
    provider.says(DOMAIN_URL, &set(&["e"]));
    provider.says(KEYS, &bundle("", &["f"]));
    next_attempt(&keys.trust_domains["b.test"]).await;
    next_attempt(&keys.issuers[0]).await;
    assert!(has(of_issuer(&keys, 0).as_ref(), "a") && has(of_domain(&keys, "b.test").as_ref(), "c"));
}

#[tokio::test(start_paused = true)]
async fn an_issuer_says_where_its_keys_are() {
    let metadata = format!(r#"{{"issuer":"https://idp.test","jwks_uri":"{KEYS}","scopes_supported":["openid"]}}"#);
    let provider = Provider::with(METADATA, &metadata);
    provider.says_for(KEYS, &set(&["a"]), seconds(600));
    let keys = start(&provider, vec![(issuer("main"), discovery())]).await;
    assert!(has(of_issuer(&keys, 0).as_ref(), "a"));
    assert_eq!((provider.asked(METADATA).len(), provider.asked(KEYS).len()), (1, 1));

    // They move.
    let elsewhere = "https://keys.test/1";
    provider.says(METADATA, &metadata.replace(KEYS, elsewhere));
    provider.says(elsewhere, &set(&["b"]));
    next_attempt(&keys.issuers[0]).await;
    assert!(has(of_issuer(&keys, 0).as_ref(), "b"));
    let asked = provider.asked(METADATA);
    assert_pause(asked[0], asked[1], seconds(600));
}

#[tokio::test(start_paused = true)]
async fn metadata_of_another_issuer_and_keys_from_anywhere_are_refused() {
    let provider = Provider::with(KEYS, &set(&["a"]));
    for (metadata, error) in [
        (format!(r#"{{"issuer":"https://evil.test","jwks_uri":"{KEYS}"}}"#), "another issuer"),
        (format!(r#"{{"issuer":"https://idp.test/","jwks_uri":"{KEYS}"}}"#), "another issuer"),
        (format!(r#"{{"issuer":"https://IDP.test","jwks_uri":"{KEYS}"}}"#), "another issuer"),
        (format!(r#"{{"issuer":["https://idp.test"],"jwks_uri":"{KEYS}"}}"#), "another issuer"),
        (format!(r#"{{"issuer":"https://idp.test","issuer":"https://idp.test","jwks_uri":"{KEYS}"}}"#), "no JSON"),
        (format!(r#"{{"jwks_uri":"{KEYS}"}}"#), "another issuer"),
        (r#"{"issuer":"https://idp.test"}"#.into(), "no `jwks_uri`"),
        (r#"{"issuer":"https://idp.test","jwks_uri":7}"#.into(), "no `jwks_uri`"),
        (r#"{"issuer":"https://idp.test","jwks_uri":"http://idp.test/keys"}"#.into(), "not fetched"),
        (r#"{"issuer":"https://idp.test","jwks_uri":"file:///keys"}"#.into(), "not fetched"),
        (r#"{"issuer":"https://idp.test","jwks_uri":"https://a:b@idp.test/keys"}"#.into(), "not fetched"),
        (format!(r#"{{"issuer":"https://idp.test","jwks_uri":"{KEYS}""#), "no JSON"),
    ] {
        provider.says(METADATA, &metadata);
        let keys = start(&provider, vec![(issuer("main"), discovery())]).await;
        let said = keys.statuses().remove(0).error.unwrap();
        assert!(said.contains(error), "{metadata}: {said}");
        assert!(of_issuer(&keys, 0).is_none());
    }
    // Where `http` to this machine is allowed, metadata over TLS still do not lead there.
    provider.says(METADATA, r#"{"issuer":"https://idp.test","jwks_uri":"http://127.0.0.1/keys"}"#);
    let source = Source { allow_private_addresses: true, ..discovery() };
    let keys = start(&provider, vec![(issuer("main"), source)]).await;
    assert!(keys.statuses()[0].error.as_ref().unwrap().contains("not `https`"));
    assert_eq!(provider.asked(KEYS).len(), 0);
    provider.answers(METADATA, Answer::Error(FetchError::Redirect(302)));
    next_attempt(&keys.issuers[0]).await;
    assert_eq!(
        keys.statuses()[0].error.as_deref(),
        Some("the metadata: the provider redirects, which is not followed (status 302)")
    );
}

#[tokio::test(start_paused = true)]
async fn a_bundle_that_is_older_than_one_before_is_refused() {
    let numbered = |sequence: u64, id: &str| bundle(&format!(r#""spiffe_sequence":{sequence},"#), &[id]);
    let provider = Provider::with(DOMAIN_URL, &numbered(7, "a"));
    let keys = start(&provider, vec![(domain("b.test"), url(DOMAIN_URL))]).await;
    let slot = &keys.trust_domains["b.test"];
    for (body, in_force) in [
        (numbered(6, "b"), "a"),
        (numbered(0, "b"), "a"),
        (numbered(7, "c"), "c"),
        (numbered(8, "d"), "d"),
        (numbered(7, "c"), "d"),
        // Without a number the latest counts (SPIFFE Federation, section 4.2); an older number is still older.
        (bundle("", &["e"]), "e"),
        (numbered(7, "c"), "e"),
        (bundle(r#""spiffe_sequence":-1,"#, &["f"]), "e"),
        (r#"{"keys":[],"spiffe_sequence":9}"#.into(), "e"),
        (numbered(9, "g"), "g"),
    ] {
        provider.says(DOMAIN_URL, &body);
        next_attempt(slot).await;
        assert!(has(of_domain(&keys, "b.test").as_ref(), in_force), "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn files_are_read_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (jwks, bundled) = (folder.path().join("keys.json"), folder.path().join("bundle.json"));
    std::fs::write(&jwks, set(&["a"])).unwrap();
    std::fs::write(&bundled, bundle(r#""spiffe_sequence":2,"spiffe_refresh_hint":30,"#, &["b"])).unwrap();
    let source = Source { max_age_seconds: 1_000, ..file(&jwks) };
    // In force when the start is over, without a wait.
    let keys =
        try_start(&Provider::default(), vec![(issuer("main"), source), (domain("b.test"), file(&bundled))]).unwrap();
    let started = Instant::now();
    assert!(has(of_issuer(&keys, 0).as_ref(), "a") && has(of_domain(&keys, "b.test").as_ref(), "b"));

    std::fs::write(&jwks, set(&["c"])).unwrap();
    std::fs::write(&bundled, bundle(r#""spiffe_sequence":1,"#, &["d"])).unwrap();
    next_attempt(&keys.trust_domains["b.test"]).await;
    assert!(has(of_domain(&keys, "b.test").as_ref(), "b"));
    // The hint of a bundle is for its endpoint, not for a file.
    assert!(started.elapsed() >= seconds(300));

    sleep(seconds(375)).await;
    assert!(has(of_issuer(&keys, 0).as_ref(), "c"));

    std::fs::remove_file(&jwks).unwrap();
    next_attempt(&keys.issuers[0]).await;
    assert!(has(of_issuer(&keys, 0).as_ref(), "c"));
    sleep(seconds(1_000)).await;
    assert!(of_issuer(&keys, 0).is_none());
    assert!(of_domain(&keys, "b.test").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_missing_or_wrong_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    let refused =
        |path: &Path| try_start(&Provider::default(), vec![(issuer("main"), file(path))]).unwrap_err().to_string();
    assert!(refused(&path).contains("No such file"));
    assert!(refused(folder.path()).contains("is no file"));
    for (body, error) in [
        (String::new(), "no JSON"),
        (r#"{"keys":[]}"#.into(), "no key that can be used"),
        (format!("{}{}", set(&["a"]), " ".repeat(256 * 1024)), "longer than 262144 bytes"),
        (bundle("", &["a"]), "not for signatures"),
    ] {
        std::fs::write(&path, body).unwrap();
        let said = refused(&path);
        assert!(said.starts_with("keys of issuer `main`: ") && said.contains(error), "{said}");
    }
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert!(refused(&pipe).contains("is no file"));
}

#[tokio::test(start_paused = true)]
async fn sources_that_make_no_sense_stop_the_start() {
    let provider = Provider::default();
    let refused = |sources| try_start(&provider, sources).unwrap_err().to_string();
    assert!(refused(vec![(issuer("main"), Source::default())]).contains("one source"));
    assert!(refused(vec![(domain("Upper.test"), url(DOMAIN_URL))]).contains("no trust domain name"));
    assert!(refused(vec![(domain("b.test"), discovery())]).contains("no discovery"));
    let twice = vec![(domain("b.test"), url(DOMAIN_URL)), (domain("b.test"), url(KEYS))];
    assert!(refused(twice).contains("several sources"));
    assert!(refused(vec![(issuer("main"), url("https://user:secret@idp.test"))]).ends_with("a user or a password"));
    assert!(provider.asked(KEYS).is_empty());
}
