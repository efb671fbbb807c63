//! What is accepted is printed byte for byte, and its parts make up the whole.

use palisade::authz::identity::spiffe::{SpiffeId, is_trust_domain};

pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(id) = SpiffeId::parse(text) else { return };
    assert_eq!(id.as_str(), text);
    assert_eq!(format!("spiffe://{}{}", id.trust_domain(), id.path()), text);
    assert!(is_trust_domain(id.trust_domain()));
    assert!(text.is_ascii() && !text.contains(['%', '?', '#', ',', '@']) && !text.ends_with('/'));
    if let Some((namespace, account)) = id.namespace_and_service_account() {
        assert_eq!(format!("/ns/{namespace}/sa/{account}"), id.path());
    }
}
