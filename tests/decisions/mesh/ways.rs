//! Ways around the check that Envoy's configuration has: other spellings of what is known, and places where nobody looks.

use super::Break;

const CA: &str = "trusted_ca: { filename: \"/x/ca.pem\" }";

/// In `tools.yaml`: enumerations in any case, and by their numbers, as Envoy takes them.
pub(super) const ENUMERATIONS: &[Break] = &[
    ("forward_client_cert_details: SANITIZE", "forward_client_cert_details: 4", &["forwarded-identity"]),
    ("forward_client_cert_details: SANITIZE", "forward_client_cert_details: 1", &["forwarded-identity"]),
    ("details: SANITIZE", "details: always_forward_only", &["forwarded-identity"]),
    ("details: SANITIZE", "details: something_new", &["forwarded-identity"]),
    ("details: SANITIZE", "details: 2", &["appended-identity"]),
    ("details: SANITIZE", "details: 3", &[]),
    ("details: SANITIZE", "details: sanitize_set", &[]),
    (CA, "trusted_ca: { filename: x }\n                  trust_chain_verification: accept_untrusted", &["any-peer"]),
    (CA, "trusted_ca: { filename: x }\n                  trust_chain_verification: 1", &["any-peer"]),
    (CA, "trusted_ca: { filename: x }\n                  trust_chain_verification: 0", &[]),
    ("failure_mode_allow: false", "filter_enabled: { default_value: { numerator: 100, denominator: 2 } }", CONDITIONAL),
    ("failure_mode_allow: false", "filter_enabled: { default_value: { numerator: 100, denominator: 1 } }", CONDITIONAL),
    (
        "failure_mode_allow: false",
        "filter_enabled: { default_value: { numerator: 100, denominator: million } }",
        CONDITIONAL,
    ),
    ("failure_mode_allow: false", "filter_enabled: { default_value: { numerator: 100, denominator: 7 } }", CONDITIONAL),
    ("failure_mode_allow: false", "filter_enabled: { default_value: { numerator: 100, denominator: hundred } }", &[]),
    ("failure_mode_allow: false", "filter_enabled: { default_value: { numerator: 10000, denominator: 1 } }", &[]),
    ("slashes_action: REJECT_REQUEST", "slashes_action: 1", &["path-spellings"]),
    ("slashes_action: REJECT_REQUEST", "slashes_action: 2", &[]),
    ("underscores_action: REJECT_REQUEST", "underscores_action: 0", &["header-underscores"]),
    ("underscores_action: REJECT_REQUEST", "underscores_action: drop_header", &[]),
    ("code: ServiceUnavailable", "code: serviceunavailable", &[]),
];

const CONDITIONAL: &[&str] = &["conditional-check"];
