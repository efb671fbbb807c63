//! When providers are asked, and how long keys count.

use super::*;
use crate::authz::token::verified::Authority;

const DOMAIN_URL: &str = "https://spire.test/bundle";

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_down_for_an_hour_costs_nothing_and_for_longer_the_keys() {
    let provider = Provider::with(KEYS, &set(&["a"]));
    let source = Source { max_age_seconds: 7_200, ..url(KEYS) };
    let keys = start(&provider, vec![(issuer("main"), source)]).await;
    let first = of_issuer(&keys, 0).unwrap();

    provider.is_down(KEYS);
    sleep(seconds(3_600)).await;
    assert!(Arc::ptr_eq(&first, &of_issuer(&keys, 0).unwrap()));
    let status = keys.statuses().remove(0);
    assert!(status.is_available() && status.failures > 10 && status.age >= Some(seconds(3_600)), "{status:?}");
    assert!(status.error.unwrap().contains("connection refused"));

    provider.says(KEYS, &set(&["a"]));
    next_attempt(&keys.issuers[0]).await;
    assert_eq!(keys.statuses()[0].error, None);
    let fetched = *provider.asked(KEYS).last().unwrap();

    provider.is_down(KEYS);
    sleep(seconds(7_199) - fetched.elapsed()).await;
    assert!(of_issuer(&keys, 0).is_some());
    sleep(seconds(2)).await;
    assert!(of_issuer(&keys, 0).is_none());
    assert!(!keys.statuses()[0].is_available());

    provider.says(KEYS, &set(&["b"]));
    next_attempt(&keys.issuers[0]).await;
    assert!(has(of_issuer(&keys, 0).as_ref(), "b"));
}

#[tokio::test(start_paused = true)]
async fn the_same_keys_come_back_into_force_after_they_were_too_old() {
    let text = set(&["a"]);
    let provider = Provider::with(KEYS, &text);
    let keys = start(&provider, vec![(issuer("main"), url(KEYS))]).await;
    provider.is_down(KEYS);
    sleep(seconds(86_401)).await;
    assert!(of_issuer(&keys, 0).is_none());
    provider.says(KEYS, &text);
    next_attempt(&keys.issuers[0]).await;
    assert!(has(of_issuer(&keys, 0).as_ref(), "a"));
}

#[tokio::test(start_paused = true)]
async fn a_slow_provider_holds_nobody_up() {
    let provider = Provider::with(KEYS, &set(&["a"]));
    let keys = start(&provider, vec![(issuer("main"), url(KEYS))]).await;
    provider.answers(KEYS, Answer::Slow);
    let before = provider.asked(KEYS).len();
    // In the middle of the next attempt.
    while provider.asked(KEYS).len() == before {
        sleep(seconds(1)).await;
    }
    assert_eq!(keys.statuses()[0].failures, 0);
    assert!(of_issuer(&keys, 0).is_some());
    next_attempt(&keys.issuers[0]).await;
    assert!(keys.statuses()[0].error.as_ref().unwrap().contains("did not answer within 2000 ms"));
    assert!(of_issuer(&keys, 0).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_cannot_be_reached_at_the_start_is_asked_until_it_can() {
    let provider = Provider::default();
    provider.is_down(KEYS);
    let keys = start(&provider, vec![(issuer("main"), url(KEYS))]).await;
    assert!(of_issuer(&keys, 0).is_none() && !keys.statuses()[0].is_available());
    sleep(seconds(3_600)).await;
    let asked = provider.asked(KEYS);
    for (pair, least) in asked.windows(2).zip([1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]) {
        assert_pause(pair[0], pair[1], seconds(least));
    }
    assert!(asked.len() >= 12);

    provider.says(KEYS, &set(&["a"]));
    next_attempt(&keys.issuers[0]).await;
    assert!(keys.statuses()[0].is_available());

    // It is forgiven.
    provider.is_down(KEYS);
    next_attempt(&keys.issuers[0]).await;
    next_attempt(&keys.issuers[0]).await;
    let asked = provider.asked(KEYS);
    assert_pause(asked[asked.len() - 2], asked[asked.len() - 1], seconds(1));
}

#[tokio::test(start_paused = true)]
async fn what_a_provider_says_about_freshness_counts_within_bounds() {
    for (said, least) in [(None, 300), (Some(0), 300), (Some(299), 300), (Some(7_200), 7_200), (Some(u64::MAX), 43_200)]
    {
        let provider = Provider::default();
        match said {
            None => provider.says(KEYS, &set(&["a"])),
            Some(said) => provider.says_for(KEYS, &set(&["a"]), seconds(said)),
        }
        let keys = start(&provider, vec![(issuer("main"), url(KEYS))]).await;
        next_attempt(&keys.issuers[0]).await;
        let asked = provider.asked(KEYS);
        assert_pause(asked[0], asked[1], seconds(least));
    }
}

#[tokio::test(start_paused = true)]
async fn a_bundle_is_looked_at_as_often_as_it_wants() {
    for (members, fresh_for, least) in [
        ("", Some(7_200), 300),
        (r#""spiffe_refresh_hint":60,"#, Some(7_200), 60),
        (r#""spiffe_refresh_hint":1,"#, None, 30),
        (r#""spiffe_refresh_hint":7200,"#, None, 7_200),
    ] {
        let provider = Provider::default();
        let fresh_for = fresh_for.map(seconds);
        provider.answers(DOMAIN_URL, Answer::Page(Page { body: bundle(members, &["a"]).into(), fresh_for }));
        let keys = start(&provider, vec![(domain("b.test"), url(DOMAIN_URL))]).await;
        next_attempt(&keys.trust_domains["b.test"]).await;
        let asked = provider.asked(DOMAIN_URL);
        assert_pause(asked[0], asked[1], seconds(least));
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_unknown_keys_asks_at_most_every_thirty_seconds() {
    const HOUR: u64 = 3_600;
    let provider = Provider::with(KEYS, &set(&["a"]));
    let other = "https://other.test/keys";
    provider.says(other, &set(&["a"]));
    let long = |at| Source { refresh_seconds: 2 * HOUR, ..url(at) };
    let keys = start(&provider, vec![(issuer("main"), long(KEYS)), (issuer("other"), long(other))]).await;
    let first = of_issuer(&keys, 0).unwrap();
    for _ in 0..HOUR {
        for _ in 0..100 {
            keys.unknown_key(&Authority::Issuer(0));
            // Nobody's: not configured.
            keys.unknown_key(&Authority::Issuer(2));
            keys.unknown_key(&Authority::TrustDomain("b.test".into()));
        }
        sleep(seconds(1)).await;
    }
    let asked = provider.asked(KEYS);
    assert!(asked.windows(2).all(|pair| pair[1] - pair[0] >= seconds(30)));
    assert!((90..=121).contains(&asked.len()), "{}", asked.len());
    assert_eq!(provider.asked(other).len(), 1);
    assert!(Arc::ptr_eq(&first, &of_issuer(&keys, 0).unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_unknown_keys_does_not_stop_keys_from_becoming_too_old() {
    let provider = Provider::with(KEYS, &set(&["a"]));
    let keys = start(&provider, vec![(issuer("main"), Source { max_age_seconds: 600, ..url(KEYS) })]).await;
    provider.is_down(KEYS);
    for _ in 0..601 {
        assert!(of_issuer(&keys, 0).is_some());
        keys.unknown_key(&Authority::Issuer(0));
        sleep(Duration::from_millis(998)).await;
    }
    sleep(seconds(2)).await;
    assert!(of_issuer(&keys, 0).is_none());
}

#[tokio::test(start_paused = true)]
async fn an_unknown_key_brings_the_new_one_before_its_time() {
    let provider = Provider::with(KEYS, &set(&["a"]));
    let keys = start(&provider, vec![(issuer("main"), url(KEYS))]).await;
    sleep(seconds(100)).await;
    provider.says(KEYS, &set(&["b"]));
    keys.unknown_key(&Authority::Issuer(0));
    next_attempt(&keys.issuers[0]).await;
    let asked = provider.asked(KEYS);
    assert!(asked[1] - asked[0] <= seconds(101));
    assert!(has(of_issuer(&keys, 0).as_ref(), "b"));

    // Soon after an attempt the wish is kept until its time.
    provider.says(KEYS, &set(&["c"]));
    keys.unknown_key(&Authority::Issuer(0));
    next_attempt(&keys.issuers[0]).await;
    assert_pause(asked[1], provider.asked(KEYS)[2], seconds(30));
    assert!(has(of_issuer(&keys, 0).as_ref(), "c"));

    // It was one wish: what comes next is the ordinary look.
    next_attempt(&keys.issuers[0]).await;
    let asked = provider.asked(KEYS);
    assert_pause(asked[2], asked[3], seconds(300));
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_after_the_end() {
    let provider = Provider::with(KEYS, &set(&["a"]));
    let keys = start(&provider, vec![(issuer("main"), url(KEYS))]).await;
    drop(keys);
    sleep(seconds(86_400)).await;
    assert_eq!(provider.asked(KEYS).len(), 1);
}
