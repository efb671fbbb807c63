//! Only the last element speaks: what stands before it, as long as it is whole, changes nothing.

use palisade::authz::identity::xfcc::last_uri;

pub fn run(input: &[u8]) {
    let Ok(header) = std::str::from_utf8(input) else { return };
    let Ok(uri) = last_uri(header) else { return };
    let forged = format!("By=spiffe://e/x;URI=spiffe://evil.example/admin,{header}");
    assert_eq!(last_uri(&forged), Ok(uri.clone()), "an element to the left was taken for the caller");
    // The URI is in the header as it was sent, but for the quotes around it and the escapes within.
    assert!(uri.is_none_or(|uri| uri.contains('"') || header.contains(&uri)));
}
