//! The bundle of a SPIFFE trust domain: a JSON Web Key Set that also says how new it is, and when to look again (SPIFFE
//! Trust Domain and Bundle, section 4).
//!
//! Who a caller is by its certificate is Envoy's business. The authorities of X.509 certificates are here for one thing: the
//! server that gives out the bundle may prove itself by them.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::keys::{KeySet, Use, document, entries};
use crate::authz::call::json::Json;

/// What the bundle of a trust domain says.
#[derive(Clone, Debug)]
pub struct SpiffeBundle {
    /// The keys that sign its JWT-SVIDs.
    pub keys: KeySet,
    /// The certificates of the authorities that sign its X509-SVIDs: DER that nobody has read yet.
    pub authorities: Vec<Vec<u8>>,
    /// Grows with every change of the bundle.
    pub sequence: Option<u64>,
    /// How often it wants to be looked at.
    pub refresh_hint: Option<Duration>,
}

impl SpiffeBundle {
    /// Reads a bundle.
    ///
    /// # Errors
    /// Why it is refused, in words that hold none of its values. One without any key for JWT-SVIDs is refused as well: the
    /// keys before stay until they are too old.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let json = document(text)?;
        Ok(Self {
            sequence: number(&json, "spiffe_sequence")?,
            refresh_hint: number(&json, "spiffe_refresh_hint")?.map(Duration::from_secs),
            keys: KeySet::read(&json, Use::JwtSvid)?,
            authorities: authorities(&json)?,
        })
    }
}

/// What is believed of a trust domain before its bundle endpoint was asked for the first time (SPIFFE Federation,
/// section 5.2.2): its authorities, and how new they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    /// As in [`SpiffeBundle`].
    pub authorities: Vec<Vec<u8>>,
    /// As in [`SpiffeBundle`].
    pub sequence: Option<u64>,
}

impl Bootstrap {
    /// Reads a bundle, which need not hold any key for JWT-SVIDs.
    ///
    /// # Errors
    /// Why it is refused, in words that hold none of its values.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let json = document(text)?;
        Ok(Self { authorities: authorities(&json)?, sequence: number(&json, "spiffe_sequence")? })
    }
}

/// The first value of `x5c` is the authority (X509-SVID, section 6.2); a key without one is left out.
fn authorities(json: &Json<'_>) -> Result<Vec<Vec<u8>>, String> {
    let certificate = |key: &Json<'_>| match key.get("x5c") {
        Some(Json::Array(chain)) => STANDARD.decode(chain.first()?.as_str()?).ok(),
        _ => None,
    };
    let authorities = entries(json)?.iter().filter(|key| key.get("use").and_then(Json::as_str) == Some("x509-svid"));
    Ok(authorities.filter_map(certificate).collect())
}

/// A whole number up to 2^53 - 1, beyond which the strict reader takes none; counting so far takes longer than keys last.
fn number(json: &Json<'_>, name: &str) -> Result<Option<u64>, String> {
    let Some(value) = json.get(name) else { return Ok(None) };
    let number = value.as_i64().and_then(|number| u64::try_from(number).ok());
    number.map(Some).ok_or_else(|| format!("`{name}` is no whole number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    const Y: &str = "-Vx3QKZPNqSZyFKG2WUkqBvlV9oQuIoSNfZTgh8SiqQ";

    fn bundle(members: &str, purpose: &str) -> Result<SpiffeBundle, String> {
        let key = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{X}","kid":"k","use":"{purpose}"}}"#);
        let other = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{Y}","use":"x509-svid","x5c":["MIIB"]}}"#);
        SpiffeBundle::parse(format!(r#"{{{members}"keys":[{other},{key}]}}"#).as_bytes())
    }

    #[test]
    fn a_bundle_says_how_new_it_is_and_when_to_look_again() {
        let said = bundle(r#""spiffe_sequence":9007199254740991,"spiffe_refresh_hint":60,"#, "jwt-svid").unwrap();
        assert_eq!(said.sequence, Some(9_007_199_254_740_991));
        assert_eq!(said.refresh_hint, Some(Duration::from_secs(60)));
        assert_eq!(said.keys.len(), 1);
        assert!(said.keys.find(Some("k")).is_some());
        assert_eq!(said.authorities, [b"0\x82\x01"]);

        let silent = bundle("", "jwt-svid").unwrap();
        assert_eq!((silent.sequence, silent.refresh_hint), (None, None));
    }

    #[test]
    fn authorities_are_first_certificates_of_their_keys() {
        let read = |keys: &str| Bootstrap::parse(format!(r#"{{"spiffe_sequence":7,"keys":[{keys}]}}"#).as_bytes());
        let two = r#"{"kty":"EC","use":"x509-svid","x5c":["MAA=","MAE="]},{"use":"x509-svid","x5c":["MQA="]}"#;
        assert_eq!(
            read(two).unwrap(),
            Bootstrap { authorities: vec![b"0\0".into(), b"1\0".into()], sequence: Some(7) }
        );
        for none in [
            "",
            r#"{"use":"x509-svid"}"#,
            r#"{"use":"x509-svid","x5c":[]}"#,
            r#"{"use":"x509-svid","x5c":"MAA="}"#,
            r#"{"use":"x509-svid","x5c":["MAA"]}"#,
            r#"{"use":"x509-svid","x5c":["_-A="]}"#,
            r#"{"use":"x509-svid","x5c":[["MAA="]]}"#,
            r#"{"use":"jwt-svid","x5c":["MAA="]}"#,
            r#"{"use":"X509-SVID","x5c":["MAA="]}"#,
            r#"{"x5c":["MAA="]}"#,
        ] {
            assert_eq!(read(none).unwrap().authorities, Vec::<Vec<u8>>::new(), "{none}");
        }
        assert!(read(r#"{"use":"x509-svid","x5c":["MAA="],"d":"AA"}"#).unwrap_err().contains("private member `d`"));
        assert!(read(&vec!["{}"; 65].join(",")).unwrap_err().contains("more than 64"));
        assert!(Bootstrap::parse(b"{}").is_err() && Bootstrap::parse(b"").is_err());
    }

    #[test]
    fn a_bundle_that_is_not_clear_is_refused() {
        for members in [
            r#""spiffe_sequence":-1,"#,
            r#""spiffe_sequence":1.5,"#,
            r#""spiffe_sequence":"1","#,
            r#""spiffe_sequence":9007199254740992,"#,
            r#""spiffe_sequence":1,"spiffe_sequence":2,"#,
            r#""spiffe_refresh_hint":null,"#,
            r#""spiffe_refresh_hint":1e3,"#,
        ] {
            assert!(bundle(members, "jwt-svid").is_err(), "{members}");
        }
        assert_eq!(bundle("", "x509-svid").unwrap_err(), "has no key that can be used");
        assert_eq!(bundle("", "JWT-SVID").unwrap_err(), "has no key that can be used");
        assert!(SpiffeBundle::parse(br#"{"keys":[]}"#).is_err());
        assert!(SpiffeBundle::parse(&vec![b' '; 300 * 1024]).is_err());
    }
}
