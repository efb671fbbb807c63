//! A configuration is taken or refused with one line that names the file.

use std::path::Path;

use palisade::config::Config;

pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match Config::parse("palisade.toml", text, Path::new("/etc/palisade")) {
        Ok(config) => {
            assert!(!config.listener.is_empty() && !config.identity.trust_domains.is_empty());
            assert!(config.server.check_message_bytes >= config.limits.body_bytes + config.limits.header_bytes);
            let _zone = config.zone();
        }
        Err(error) => {
            let message = error.to_string();
            assert!(message.starts_with("palisade.toml") && !message.contains('\n'), "{message}");
        }
    }
}
