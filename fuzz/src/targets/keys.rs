//! Key sets and SPIFFE bundles: what is taken is JSON to another parser, bounded, without a private key; and how its
//! members are ordered means nothing.

use palisade::authz::token::keys::{KeySet, MAX_KEYS, MAX_SET_BYTES, Use};
use palisade::authz::token::spiffe_bundle::SpiffeBundle;
use serde_json::Value;

pub fn set(input: &[u8]) {
    let Ok(set) = KeySet::parse(input, Use::Signatures) else { return };
    let said = holds(&set, input);
    // Another parser writes it in another order.
    let again = KeySet::parse(said.to_string().as_bytes(), Use::Signatures).expect("the same keys");
    assert_eq!((again.len(), again.skipped().len()), (set.len(), set.skipped().len()));
    for id in ids(&said) {
        assert_eq!(set.find(Some(id)).map(|key| key.thumbprint()), again.find(Some(id)).map(|key| key.thumbprint()));
    }
}

pub fn bundle(input: &[u8]) {
    let Ok(bundle) = SpiffeBundle::parse(input) else { return };
    let said = holds(&bundle.keys, input);
    assert_eq!(bundle.sequence, said.get("spiffe_sequence").map(|number| number.as_u64().expect("a whole number")));
    let hint = said.get("spiffe_refresh_hint").map(|number| number.as_u64().expect("a whole number"));
    assert_eq!(bundle.refresh_hint.map(|hint| hint.as_secs()), hint);
    let keys = said["keys"].as_array().expect("a list");
    assert!(bundle.keys.len() <= keys.iter().filter(|key| key["use"] == "jwt-svid").count());
}

/// What holds for both; the document as another parser reads it.
fn holds(set: &KeySet, input: &[u8]) -> Value {
    assert!(input.len() <= MAX_SET_BYTES && (1..=MAX_KEYS).contains(&set.len()) && !set.is_empty());
    let said: Value = serde_json::from_slice(input).expect("taken, and no JSON");
    let keys = said["keys"].as_array().expect("a list");
    assert!(set.len() + set.skipped().len() <= keys.len());
    for key in keys {
        for private in ["d", "dp", "dq", "k", "oth", "p", "q", "qi"] {
            assert!(key.get(private).is_none(), "a private key was taken");
        }
    }
    for key in ids(&said).filter_map(|id| set.find(Some(id))) {
        assert!(set.holds(key) && key.id().is_some());
    }
    assert_eq!(set.find(None).is_some(), set.len() == 1);
    said
}

fn ids(said: &Value) -> impl Iterator<Item = &str> {
    said["keys"].as_array().into_iter().flatten().filter_map(|key| key["kid"].as_str())
}
