//! What an X509-SVID says about itself (X509-SVID, sections 2 to 4 and 5.2), beyond what the TLS library looks at: its chain, its
//! times, and that it is no authority.
//!
//! A reader of DER for the few extensions that matter, and not a library for certificates: the TLS library has read the
//! whole of it before, strictly.

use std::str;

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;
const BOOLEAN: u8 = 0x01;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
/// `[3]` of a certificate: its extensions.
const EXTENSIONS: u8 = 0xa3;
/// `[6]` of a general name: a URI.
const URI: u8 = 0x86;

/// 2.5.29.15
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
/// 2.5.29.17
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
/// 2.5.29.37
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
/// 1.3.6.1.5.5.7.3.1
const SERVER_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];
/// 1.3.6.1.5.5.7.3.2
const CLIENT_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];

/// `digitalSignature`, `keyCertSign` and `cRLSign` (RFC 5280, section 4.2.1.3), in the first byte of the bits.
const DIGITAL_SIGNATURE: u8 = 0x80;
const SIGNS_CERTIFICATES: u8 = 0x04 | 0x02;

/// The one URI of a leaf certificate.
///
/// # Errors
/// Why the certificate is no X509-SVID of a workload.
pub fn leaf_uri(certificate: &[u8]) -> Result<&str, &'static str> {
    let malformed = "cannot be read";
    let mut extensions = extensions(certificate).ok_or(malformed)?;
    let (mut names, mut usage, mut extended) = (None, None, None);
    while !extensions.0.is_empty() {
        let (id, critical, value) = extension(&mut extensions).ok_or(malformed)?;
        let place = match id {
            SUBJECT_ALT_NAME => &mut names,
            KEY_USAGE => &mut usage,
            EXTENDED_KEY_USAGE => &mut extended,
            _ => continue,
        };
        if place.replace((critical, value)).is_some() {
            return Err("has an extension twice");
        }
    }
    let (critical, usage) = usage.ok_or("does not say what its key is for")?;
    let bits = key_usage(usage).ok_or(malformed)?;
    if !critical || bits & DIGITAL_SIGNATURE == 0 {
        return Err("has a key that is not for signatures");
    }
    if bits & SIGNS_CERTIFICATES != 0 {
        return Err("has a key that signs certificates, so it is no workload's");
    }
    if let Some((_, purposes)) = extended {
        let purposes = purposes_of(purposes).ok_or(malformed)?;
        if !purposes.contains(&SERVER_AUTH) || !purposes.contains(&CLIENT_AUTH) {
            return Err("is not for servers and clients alike");
        }
    }
    let (_, names) = names.ok_or("has no SPIFFE ID")?;
    match uris(names).ok_or(malformed)?[..] {
        [] => Err("has no SPIFFE ID"),
        [uri] => str::from_utf8(uri).map_err(|_| malformed),
        _ => Err("has several URIs, where a SPIFFE ID is the only one"),
    }
}

/// The one URI of an authority's certificate, by which a trust domain says that it is its own; `None` without any.
///
/// # Errors
/// Why it says nothing that could be relied on.
pub fn authority_uri(certificate: &[u8]) -> Result<Option<&str>, &'static str> {
    let malformed = "cannot be read";
    let mut extensions = extensions(certificate).ok_or(malformed)?;
    let mut names = None;
    while !extensions.0.is_empty() {
        let (id, _critical, value) = extension(&mut extensions).ok_or(malformed)?;
        if id == SUBJECT_ALT_NAME && names.replace(value).is_some() {
            return Err("has an extension twice");
        }
    }
    match names.map_or(Some(Vec::new()), uris).ok_or(malformed)?[..] {
        [] => Ok(None),
        [uri] => str::from_utf8(uri).map(Some).map_err(|_| malformed),
        _ => Err("has several URIs, where a SPIFFE ID is the only one"),
    }
}

/// What is left to read.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next value: its tag and its content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, length], rest) = self.0.split_first_chunk()?;
        let (length, rest) = match length {
            0..=0x7f => (usize::from(length), rest),
            // As many bytes of length; three are 16 MiB, more than TLS carries.
            0x81..=0x83 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
                (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }

    /// The only value that there is.
    fn only(mut self, tag: u8) -> Option<&'a [u8]> {
        self.expect(tag).filter(|_| self.0.is_empty())
    }
}

/// RFC 5280, section 4.1. A certificate of version 1 has none.
fn extensions(certificate: &[u8]) -> Option<Der<'_>> {
    let mut signed = Der(Der(certificate).only(SEQUENCE)?);
    let mut fields = Der(signed.expect(SEQUENCE)?);
    loop {
        match fields.next() {
            Some((EXTENSIONS, wrapped)) => return Der(wrapped).only(SEQUENCE).map(Der),
            Some(_) => {}
            None => return Some(Der(&[])),
        }
    }
}

/// Its id, whether it is critical, and its value.
fn extension<'a>(extensions: &mut Der<'a>) -> Option<(&'a [u8], bool, &'a [u8])> {
    let mut parts = Der(extensions.expect(SEQUENCE)?);
    let id = parts.expect(OBJECT_IDENTIFIER)?;
    let (tag, content) = parts.next()?;
    match tag {
        BOOLEAN => Some((id, content == [0xff], parts.only(OCTET_STRING)?)),
        OCTET_STRING if parts.0.is_empty() => Some((id, false, content)),
        _ => None,
    }
}

fn key_usage(value: &[u8]) -> Option<u8> {
    // Behind the number of bits that are not used.
    let (_unused, bits) = Der(value).only(BIT_STRING)?.split_first()?;
    bits.first().copied()
}

fn purposes_of(value: &[u8]) -> Option<Vec<&[u8]>> {
    let mut all = Der(Der(value).only(SEQUENCE)?);
    let mut purposes = Vec::new();
    while !all.0.is_empty() {
        purposes.push(all.expect(OBJECT_IDENTIFIER)?);
    }
    Some(purposes)
}

fn uris(value: &[u8]) -> Option<Vec<&[u8]>> {
    let mut names = Der(Der(value).only(SEQUENCE)?);
    let mut uris = Vec::new();
    while !names.0.is_empty() {
        let (tag, content) = names.next()?;
        if tag == URI {
            uris.push(content);
        }
    }
    Some(uris)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType};

    use super::*;

    const ID: &str = "spiffe://b.test/endpoint";

    fn leaf(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.subject_alt_names =
            vec![SanType::URI(ID.try_into().unwrap()), SanType::DnsName("b.test".try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyAgreement];
        change(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn a_leaf_has_one_uri_and_a_key_for_signatures() {
        use ExtendedKeyUsagePurpose::{ClientAuth, EmailProtection, ServerAuth};
        use KeyUsagePurpose::{CrlSign, DigitalSignature, KeyCertSign, KeyEncipherment};

        let said = |change: &dyn Fn(&mut CertificateParams)| leaf_uri(&leaf(change)).map(str::to_owned);
        assert_eq!(said(&|_| {}), Ok(ID.into()));
        assert_eq!(said(&|it| it.extended_key_usages = vec![EmailProtection, ClientAuth, ServerAuth]), Ok(ID.into()));

        for usages in [vec![], vec![KeyEncipherment]] {
            assert!(said(&|it| it.key_usages = usages.clone()).unwrap_err().contains("key"));
        }
        for usage in [KeyCertSign, CrlSign] {
            let error = said(&|it| it.key_usages = vec![DigitalSignature, usage]).unwrap_err();
            assert!(error.contains("signs certificates"));
        }
        for purposes in [vec![ServerAuth], vec![ClientAuth]] {
            assert!(said(&|it| it.extended_key_usages = purposes.clone()).unwrap_err().contains("alike"));
        }
        assert_eq!(said(&|it| it.subject_alt_names.truncate(0)), Err("has no SPIFFE ID"));
        assert_eq!(said(&|it| drop(it.subject_alt_names.remove(0))), Err("has no SPIFFE ID"));
        let second = SanType::URI("https://b.test/".try_into().unwrap());
        assert!(said(&|it| it.subject_alt_names.push(second.clone())).unwrap_err().contains("several"));
        let again = SanType::URI(ID.try_into().unwrap());
        assert!(said(&|it| it.subject_alt_names.push(again.clone())).unwrap_err().contains("several"));
    }

    #[test]
    fn an_authority_has_one_uri_or_none() {
        let said =
            |change: &dyn Fn(&mut CertificateParams)| authority_uri(&leaf(change)).map(|uri| uri.map(str::to_owned));
        assert_eq!(said(&|_| {}), Ok(Some(ID.into())));
        assert_eq!(said(&|it| drop(it.subject_alt_names.remove(0))), Ok(None));
        assert_eq!(said(&|it| it.subject_alt_names.clear()), Ok(None));
        let again = SanType::URI(ID.try_into().unwrap());
        assert!(said(&|it| it.subject_alt_names.push(again.clone())).unwrap_err().contains("several"));
        assert!(authority_uri(b"").is_err());
    }

    #[test]
    fn a_usage_that_is_not_critical_counts_for_none() {
        let mut certificate = leaf(|_| {});
        let at = certificate.windows(3).position(|bytes| bytes == KEY_USAGE).unwrap();
        assert_eq!(certificate[at + 3..at + 6], [BOOLEAN, 1, 0xff]);
        certificate[at + 5] = 0;
        assert!(leaf_uri(&certificate).unwrap_err().contains("not for signatures"));
    }

    #[test]
    fn a_certificate_that_is_cut_or_longer_is_refused() {
        let whole = leaf(|_| {});
        for length in 0..whole.len() {
            assert!(leaf_uri(&whole[..length]).is_err(), "{length}");
        }
        assert!(leaf_uri(&[&whole[..], &[0]].concat()).is_err());
    }

    proptest! {
        #[test]
        fn whatever_it_is_it_ends(bytes: Vec<u8>, at in 0_usize..600, byte: u8) {
            let _ends = (leaf_uri(&bytes), authority_uri(&bytes));
            let mut changed = leaf(|_| {});
            if let Some(place) = changed.get_mut(at) {
                *place = byte;
            }
            let _ends = leaf_uri(&changed);
        }
    }
}
