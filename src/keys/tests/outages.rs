//! What tokens are worth while their provider is down, slow, or says something else than its keys.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;
use crate::authz::reason::Reason;
use crate::authz::token::issuer::Issuer;
use crate::authz::token::presented::Role;
use crate::authz::token::{Rules, verify};
use crate::keys::fetch::MAX_BYTES;
use crate::keys::https::{MAX_HEAD_BYTES, request};

/// 2026-11-20T00:00:00Z, when each test begins.
const T0: i64 = 1_795_132_800;
/// What a wire holds in flight, in bytes.
const IN_FLIGHT: usize = 1_024;
const HUGE: usize = 100_000_000;

/// An issuer that signs tokens whatever its provider says, and who is to believe them.
struct Signer {
    pair: Ed25519KeyPair,
    rules: Rules,
    began: Instant,
}

impl Signer {
    fn new() -> Self {
        let rules = json!({"name": "main", "issuer": "https://idp.test", "audiences": ["a"], "keys": {"url": KEYS}});
        let issuer: Issuer = serde_json::from_value(rules).unwrap();
        let rules = Rules { issuers: vec![issuer], ..Rules::default() };
        Self { pair: Ed25519KeyPair::generate().unwrap(), rules, began: Instant::now() }
    }

    /// The set that it publishes.
    fn set(&self) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.pair.public_key());
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "own", "x": x}]}).to_string()
    }

    /// Whether a token that is made at this moment is believed with the keys in force; why not, if not.
    fn believed(&self, keys: &Keys) -> Result<(), Reason> {
        let now = T0 + i64::try_from(self.began.elapsed().as_secs()).unwrap();
        let part = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!(
            "{}.{}",
            part(json!({"alg": "EdDSA", "kid": "own", "typ": "at+jwt"})),
            part(
                json!({"iss": "https://idp.test", "sub": "u", "aud": "a", "client_id": "c", "jti": "j", "iat": now, "exp": now + 60})
            )
        );
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(self.pair.sign(signed.as_bytes())));
        verify(&token, Role::User, &self.rules, &keys.keyring(), now).map(drop).map_err(|refused| refused.reason)
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_are_believed_for_as_long_as_the_last_good_keys_may_be() {
    const MAX_AGE: u64 = 7_200;
    let signer = Signer::new();
    let provider = Provider::with(KEYS, &signer.set());
    let source = Source { max_age_seconds: MAX_AGE, ..url(KEYS) };
    let keys = start(&provider, vec![(issuer("main"), source)]).await;
    let fetched = provider.asked(KEYS)[0];
    provider.is_down(KEYS);
    // Every minute of the first hour, and of the second.
    while fetched.elapsed() + seconds(60) < seconds(MAX_AGE) {
        assert_eq!(signer.believed(&keys), Ok(()), "after {:?}", fetched.elapsed());
        sleep(seconds(60)).await;
    }
    assert!(provider.asked(KEYS).len() > 20, "it is asked all the time");
    sleep(seconds(MAX_AGE + 1) - fetched.elapsed()).await;
    assert_eq!(signer.believed(&keys), Err(Reason::TokenKeysUnavailable));
    sleep(seconds(MAX_AGE)).await;
    assert_eq!(signer.believed(&keys), Err(Reason::TokenKeysUnavailable), "they do not come back by themselves");

    provider.says(KEYS, &signer.set());
    next_attempt(&keys.issuers[0]).await;
    assert_eq!(signer.believed(&keys), Ok(()));
}

/// An hour of everything that a provider can do wrong, in turn, and then good keys again.
#[tokio::test(start_paused = true)]
async fn whatever_a_provider_does_for_an_hour_tokens_are_believed() {
    let signer = Signer::new();
    let provider = Provider::with(KEYS, &signer.set());
    let keys = start(&provider, vec![(issuer("main"), url(KEYS))]).await;
    let good = of_issuer(&keys, 0).unwrap();
    let other = set(&["own"]);
    let page = |body: &[u8]| Answer::Page(Page { body: body.to_vec(), fresh_for: Some(seconds(u64::MAX)) });
    let wrong = [
        Answer::Error(FetchError::Connect("connection refused".into())),
        Answer::Error(FetchError::Tls("unknown issuer".into())),
        Answer::Error(FetchError::Exchange("connection closed before message completed".into())),
        Answer::Error(FetchError::Status(503)),
        Answer::Error(FetchError::Redirect(302)),
        Answer::Error(FetchError::TooLong),
        Answer::Slow,
        Answer::Panic,
        page(b"<!doctype html><title>503</title>"),
        page(&other.as_bytes()[..other.len() / 2]),
        page(br#"{"error":"temporarily_unavailable"}"#),
        page(br#"{"keys":[]}"#),
        page(format!(r#"{{"keys":[{},{}]}}"#, key("own", ""), key("own", "")).as_bytes()),
        page(b"\xff\xfe{\0}\0"),
    ];
    let began = Instant::now();
    for answer in wrong.iter().cycle() {
        provider.answers(KEYS, answer.clone());
        next_attempt(&keys.issuers[0]).await;
        assert_eq!(signer.believed(&keys), Ok(()), "{answer:?}");
        assert!(Arc::ptr_eq(&good, &of_issuer(&keys, 0).unwrap()), "{answer:?}");
        if began.elapsed() > seconds(3_600) {
            break;
        }
    }
    let status = keys.statuses().remove(0);
    assert!(status.failures >= wrong.len() as u64 && status.successes == 1, "{status:?}");

    // Once it says its keys again, those that it says count, and no others.
    provider.says(KEYS, &other);
    next_attempt(&keys.issuers[0]).await;
    assert_eq!(signer.believed(&keys), Err(Reason::TokenSignatureInvalid));
    provider.says(KEYS, &signer.set());
    next_attempt(&keys.issuers[0]).await;
    assert_eq!((signer.believed(&keys), &keys.statuses()[0].error), (Ok(()), &None));
}

/// A provider of 100 MB at the other end of a wire, in memory: what it could send is what was read, and what is in flight.
/// Says what came of it, and how many bytes it could send.
async fn poured(head: &str) -> (Result<Page, FetchError>, usize) {
    let (own, mut theirs) = duplex(IN_FLIGHT);
    let provider = async {
        let mut question = Vec::new();
        while !question.ends_with(b"\r\n\r\n") {
            question.push(theirs.read_u8().await.unwrap());
        }
        theirs.write_all(head.as_bytes()).await.unwrap();
        let mut sent = head.len();
        // Until whoever asked has heard enough.
        while sent < HUGE && theirs.write_all(&[b' '; 64]).await.is_ok() {
            sent += 64;
        }
        sent
    };
    let url = KEYS.parse().unwrap();
    tokio::join!(request(own, &url), provider)
}

#[tokio::test]
async fn of_a_hundred_megabytes_no_more_is_read_than_keys_may_be_long() {
    for head in ["HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\n"] {
        let (page, sent) = poured(head).await;
        assert_eq!(page, Err(FetchError::TooLong));
        // Up to the limit, and at most what a buffer takes at once beyond it.
        assert!((MAX_BYTES..=head.len() + MAX_BYTES + MAX_HEAD_BYTES + IN_FLIGHT).contains(&sent), "{sent}");
    }
    // A head without an end is no different.
    let (page, sent) = poured("HTTP/1.1 200 OK\r\nX: ").await;
    assert!(matches!(page, Err(FetchError::Exchange(_))), "{page:?}");
    assert!(sent <= 2 * MAX_HEAD_BYTES + IN_FLIGHT, "{sent}");
}
