//! Which tokens were believed before: what was verified once is looked up, until it expires or its key is gone.
//!
//! A token is known by its text, and looked up by a hash of its end, which is the signature, that nobody outside can aim at. A few
//! hash to one bucket, and the one that came longest ago makes room, so the memory is bounded whoever calls; and nobody waits: who finds a bucket busy
//! verifies anew. What was refused is not remembered.

use std::hash::BuildHasher as _;
use std::sync::{Arc, RwLock};

use crate::authz::reason::Reason;
use crate::authz::request::Request;
use crate::authz::token::holder::check_depth;
use crate::authz::token::presented::{Presented, Role, find};
use crate::authz::token::{Authority, Believed, Keyring, Refused, Rules, Token, Tokens, verify};

/// How many tokens are remembered: buckets, and tokens in each, of at most 8 KiB of text and what it says.
const BUCKETS: usize = 512;
const AT_EACH: usize = 4;
/// By how many bytes at its end a token is looked up: each of a signature's 64 or more is a matter of chance.
const END: usize = 64;

/// Where keys come from. Neither waits.
pub trait Keyrings: Send + Sync {
    /// The keys in force.
    fn keyring(&self) -> Arc<Keyring>;
    /// A token named a key that its authority does not have: there may be a new one.
    fn lacks(&self, authority: &Authority);
}

/// What believes tokens.
pub struct Verifier {
    rules: Arc<Rules>,
    keys: Box<dyn Keyrings>,
    buckets: Box<[RwLock<Bucket>]>,
    hasher: foldhash::fast::RandomState,
}

/// Tokens with their texts, the one that came last first.
type Bucket = Vec<(Box<str>, Arc<Token>)>;

impl Verifier {
    /// Believes tokens by `rules`, with the keys that are in force at the time.
    #[must_use]
    pub fn new(rules: Arc<Rules>, keys: Box<dyn Keyrings>) -> Self {
        let buckets = if rules.places.is_empty() { 0 } else { BUCKETS };
        let buckets = (0..buckets).map(|_| RwLock::new(Bucket::new())).collect();
        Self { rules, keys, buckets, hasher: foldhash::fast::RandomState::default() }
    }

    /// What becomes of the tokens of a request. `now` is in seconds since 1970.
    #[must_use]
    pub fn of(&self, request: &Request<'_>, now: i64) -> Tokens {
        let Some(http) = request.http.as_ref().filter(|_| !self.rules.places.is_empty()) else { return Tokens::Absent };
        let found = match find(http, &self.rules.places) {
            Ok(found) if found.is_empty() => return Tokens::Absent,
            Ok(found) => found,
            Err(refused) => return Tokens::Failed(refused),
        };
        self.believe_all(&found, now).map_or_else(Tokens::Failed, Tokens::Verified)
    }

    fn believe_all(&self, found: &[Presented<'_>], now: i64) -> Result<Vec<Believed>, Refused> {
        // The caller's own are the first: by them it is known how many there may be before it, so that depth costs nothing.
        let (own, before) = found.split_at(found.partition_point(|presented| presented.role != Role::Chain));
        let believe = |presented: &Presented<'_>| {
            let token = self.believe(presented.text, presented.role, now)?;
            Ok(Believed { role: presented.role, scheme: presented.scheme, token })
        };
        let mut all = Vec::with_capacity(found.len());
        for presented in own {
            all.push(believe(presented)?);
        }
        if !before.is_empty() {
            check_depth(before.len(), &all, &self.rules)?;
        }
        for presented in before {
            all.push(believe(presented)?);
        }
        Ok(all)
    }

    fn believe(&self, text: &str, role: Role, now: i64) -> Result<Arc<Token>, Refused> {
        let keyring = self.keys.keyring();
        let bucket = self.bucket(text);
        let is_it = |(known, token): &&(Box<str>, Arc<Token>)| token.role == role && **known == *text;
        let remembered = bucket.and_then(|bucket| bucket.try_read().ok());
        let remembered = remembered.and_then(|held| held.iter().find(is_it).map(|(_, token)| token.clone()));
        if let Some(token) = remembered.filter(|token| keyring.still_holds(token)) {
            token.check_time(now)?;
            return Ok(token);
        }
        let verified = verify(text, role, &self.rules, &keyring, now);
        if let Err(Refused { reason: Reason::TokenKeyUnknown, lacks_key_of: Some(authority), .. }) = &verified {
            self.keys.lacks(authority);
        }
        let token = Arc::new(verified?);
        if let Some(mut held) = bucket.and_then(|bucket| bucket.try_write().ok()) {
            held.retain(|(known, token)| **known != *text || token.role != role);
            held.truncate(AT_EACH - 1);
            held.insert(0, (text.into(), Arc::clone(&token)));
        }
        Ok(token)
    }

    fn bucket(&self, text: &str) -> Option<&RwLock<Bucket>> {
        let end = text.as_bytes().last_chunk::<END>().map_or(text.as_bytes(), <[u8; END]>::as_slice);
        let at = self.hasher.hash_one(end).checked_rem(self.buckets.len() as u64)?;
        self.buckets.get(usize::try_from(at).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    use super::*;
    use crate::authz::request::{Headers, HttpRequest};
    use crate::authz::token::keys::{KeySet, Use};

    const NOW: i64 = 1_795_132_800;

    /// Keys that a test changes, and what was found lacking.
    #[derive(Default)]
    struct Ring {
        ring: Mutex<Arc<Keyring>>,
        lacking: Mutex<Vec<Authority>>,
    }

    impl Keyrings for Arc<Ring> {
        fn keyring(&self) -> Arc<Keyring> {
            self.ring.lock().unwrap().clone()
        }

        fn lacks(&self, authority: &Authority) {
            self.lacking.lock().unwrap().push(authority.clone());
        }
    }

    impl Ring {
        fn set(&self, pairs: &[(&str, &Ed25519KeyPair)]) {
            let key = |(kid, pair): &(&str, &Ed25519KeyPair)| json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": URL_SAFE_NO_PAD.encode(pair.public_key())});
            let text = json!({"keys": pairs.iter().map(key).collect::<Vec<_>>()}).to_string();
            let set = KeySet::parse(text.as_bytes(), Use::Signatures).unwrap();
            *self.ring.lock().unwrap() = Arc::new(Keyring { issuers: vec![Some(Arc::new(set))], ..Keyring::default() });
        }
    }

    fn verifier(ring: &Arc<Ring>) -> Verifier {
        let rules =
            json!([{"name": "idp", "issuer": "https://idp.example", "audiences": ["a"], "keys": {"file": "x"}}]);
        let rules = Rules {
            places: serde_json::from_value(json!([{"header": "authorization", "role": "user"}])).unwrap(),
            issuers: serde_json::from_value(rules).unwrap(),
            svid_audiences: Vec::new(),
            ..Rules::default()
        };
        Verifier::new(Arc::new(rules), Box::new(ring.clone()))
    }

    fn token(kid: &str, pair: &Ed25519KeyPair, id: &str) -> String {
        let part = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!(
            "{}.{}",
            part(json!({"alg": "EdDSA", "kid": kid, "typ": "at+jwt"})),
            part(json!({"iss": "https://idp.example", "sub": "u", "aud": "a", "client_id": "c", "jti": id,
                "iat": NOW, "exp": NOW + 60}))
        );
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(pair.sign(signed.as_bytes())))
    }

    fn ask(verifier: &Verifier, token: &str, now: i64) -> Result<Arc<Token>, Reason> {
        let headers = Headers::new([("authorization", format!("Bearer {token}"))], false);
        let request = Request { http: Some(HttpRequest { headers, ..HttpRequest::default() }), ..Request::default() };
        match verifier.of(&request, now) {
            Tokens::Verified(all) => Ok(Arc::clone(&all[0].token)),
            Tokens::Failed(refused) => Err(refused.reason),
            Tokens::Ended(..) | Tokens::Absent => panic!("there is one"),
        }
    }

    #[test]
    fn what_was_believed_is_believed_until_it_expires_or_its_key_is_gone() {
        let (ring, pair, other) =
            (Arc::new(Ring::default()), Ed25519KeyPair::generate().unwrap(), Ed25519KeyPair::generate().unwrap());
        let verifier = verifier(&ring);
        let text = token("k", &pair, "1");
        assert_eq!(ask(&verifier, &text, NOW).unwrap_err(), Reason::TokenKeysUnavailable);
        ring.set(&[("k", &pair)]);
        let first = ask(&verifier, &text, NOW).unwrap();
        assert!(Arc::ptr_eq(&first, &ask(&verifier, &text, NOW + 64).unwrap()), "looked up");
        assert_eq!(ask(&verifier, &text, NOW + 65).unwrap_err(), Reason::TokenExpired);
        // A new set with the same key in it changes nothing.
        ring.set(&[("new", &other), ("k", &pair)]);
        assert!(Arc::ptr_eq(&first, &ask(&verifier, &text, NOW).unwrap()));
        // Another key under the same name is another key.
        ring.set(&[("k", &other)]);
        assert_eq!(ask(&verifier, &text, NOW).unwrap_err(), Reason::TokenSignatureInvalid);
        ring.set(&[("new", &other)]);
        assert_eq!(ask(&verifier, &text, NOW).unwrap_err(), Reason::TokenKeyUnknown);
        assert_eq!(*ring.lacking.lock().unwrap(), [Authority::Issuer(0)]);
        *ring.ring.lock().unwrap() = Arc::new(Keyring { issuers: vec![None], ..Keyring::default() });
        assert_eq!(ask(&verifier, &text, NOW).unwrap_err(), Reason::TokenKeysUnavailable);
    }

    #[test]
    fn the_memory_is_bounded_and_nobody_waits() {
        let (ring, pair) = (Arc::new(Ring::default()), Ed25519KeyPair::generate().unwrap());
        ring.set(&[("k", &pair)]);
        let verifier = verifier(&ring);
        let most = BUCKETS * AT_EACH;
        for number in 0..most + most / 2 {
            let text = token("k", &pair, &number.to_string());
            let id = ask(&verifier, &text, NOW).unwrap().claims.id.clone();
            assert_eq!(id, Some(number.to_string()), "the one that was asked for");
        }
        let count: usize = verifier.buckets.iter().map(|bucket| bucket.read().unwrap().len()).sum();
        assert!(count <= most && count > most / 2, "{count}");
        assert!(verifier.buckets.iter().all(|bucket| bucket.read().unwrap().len() <= AT_EACH));
        let busy: Vec<_> = verifier.buckets.iter().map(|bucket| bucket.write().unwrap()).collect();
        assert!(ask(&verifier, &token("k", &pair, "0"), NOW).is_ok());
        drop(busy);
    }

    /// Far fewer than there is room for: hardly one has to be verified twice.
    #[test]
    fn tokens_that_take_turns_stay_known() {
        let (ring, pair) = (Arc::new(Ring::default()), Ed25519KeyPair::generate().unwrap());
        ring.set(&[("k", &pair)]);
        let verifier = verifier(&ring);
        let texts: Vec<String> = (0..300).map(|number| token("k", &pair, &number.to_string())).collect();
        let first: Vec<_> = texts.iter().map(|text| ask(&verifier, text, NOW).unwrap()).collect();
        let again =
            texts.iter().zip(&first).filter(|(text, first)| Arc::ptr_eq(first, &ask(&verifier, text, NOW).unwrap()));
        assert!(again.count() >= 290);
    }

    #[test]
    fn nothing_is_looked_for_unless_configured() {
        let verifier = Verifier::new(Arc::default(), Box::new(Arc::new(Ring::default())));
        let headers = Headers::new([("authorization", "Bearer x")], false);
        let request = Request { http: Some(HttpRequest { headers, ..HttpRequest::default() }), ..Request::default() };
        assert!(matches!(verifier.of(&request, NOW), Tokens::Absent) && verifier.buckets.is_empty());
    }
}
