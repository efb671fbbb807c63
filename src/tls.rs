//! What verifiers of certificates have in common, whomever each believes: who verifies the signatures of a handshake, and what is
//! told of a certificate that is refused.

use std::error;
use std::fmt::Display;
use std::io;

use tokio_rustls::rustls::{CertificateError, Error, OtherError};

/// The methods of a verifier that leave the signatures of a handshake to the TLS library: with the algorithms in this field.
macro_rules! signatures_by {
    ($($field:ident).+) => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &::tokio_rustls::rustls::pki_types::CertificateDer<'_>,
            signature: &::tokio_rustls::rustls::DigitallySignedStruct,
        ) -> Result<::tokio_rustls::rustls::client::danger::HandshakeSignatureValid, ::tokio_rustls::rustls::Error> {
            ::tokio_rustls::rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.$($field).+)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &::tokio_rustls::rustls::pki_types::CertificateDer<'_>,
            signature: &::tokio_rustls::rustls::DigitallySignedStruct,
        ) -> Result<::tokio_rustls::rustls::client::danger::HandshakeSignatureValid, ::tokio_rustls::rustls::Error> {
            ::tokio_rustls::rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.$($field).+)
        }

        fn supported_verify_schemes(&self) -> Vec<::tokio_rustls::rustls::SignatureScheme> {
            self.$($field).+.supported_schemes()
        }
    };
}
pub(crate) use signatures_by;

/// A certificate is refused. Why is read behind "the certificate", and [`handshake_error`] finds it again.
pub(crate) fn refused(why: impl Display) -> Error {
    let words: Box<dyn error::Error + Send + Sync> = format!("the certificate {why}").into();
    Error::InvalidCertificate(CertificateError::Other(OtherError(words.into())))
}

/// What went wrong with a handshake, in the words of whoever refused the certificate.
pub(crate) fn handshake_error(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(Error::InvalidCertificate(CertificateError::Other(other))) => other.to_string(),
        _ => error.to_string(),
    }
}
