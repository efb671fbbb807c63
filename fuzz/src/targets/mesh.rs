//! What operators hand to `palisade mesh lint`, and what a running Envoy says: it is told, or it is an error.

use palisade::mesh::{Settings, lint};

/// A file.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let settings = Settings { body_bytes: 65_536, envoy_version: None, namespace: "default".into() };
    match lint(&[("file".into(), text.into())], &settings) {
        Err(error) => assert!(error.starts_with("file: "), "{error}"),
        Ok(report) => {
            assert!(!report.checked.is_empty() || !report.skipped.is_empty() || !report.findings.is_empty());
            assert!(report.text().lines().count() > report.findings.len());
            let told: serde_json::Value = serde_json::from_str(&report.json()).expect("it is JSON");
            assert_eq!(told["findings"].as_array().map(Vec::len), Some(report.findings.len()));
        }
    }
}
