//! What a configuration names on the machine where it is to run: looked at, not opened.

use std::path::Path;

use super::{Config, Mistake, mistake};

impl Config {
    /// Refuses what could not start here: directories that are missing, and files behind keys.
    pub(super) fn check_files(&self) -> Result<(), Mistake> {
        if !self.bundle.path.is_dir() {
            return Err(mistake(&["bundle.path", "bundle"], no_directory("bundle.path", &self.bundle.path)));
        }
        if let Some(path) = self.record.file() {
            let missing = folder_is_missing(path);
            missing.map_or(Ok(()), |folder| Err(mistake(&["record.path"], no_directory("record.path", folder))))?;
        }
        if let Some(file) = self.audit.key_file.as_deref().filter(|file| !file.is_file()) {
            let message = format!("`audit.key_file`: there is no such file: `{}`", file.display());
            return Err(mistake(&["audit.key_file"], message));
        }
        if let Some(folder) = self.audit.anchor_file.as_deref().and_then(folder_is_missing) {
            return Err(mistake(&["audit.anchor_file"], no_directory("audit.anchor_file", folder)));
        }
        for (at, listener) in self.listener.iter().enumerate() {
            if let Some(folder) = listener.unix.as_deref().and_then(folder_is_missing) {
                return Err(mistake(&[&format!("listener.{at}.unix")], no_directory("listener.unix", folder)));
            }
        }
        if let Some(folder) = self.state.journal.as_deref().and_then(folder_is_missing) {
            return Err(mistake(&["state.journal"], no_directory("state.journal", folder)));
        }
        if let Some(folder) = self.control.unix.as_deref().and_then(folder_is_missing) {
            return Err(mistake(&["control.unix"], no_directory("control.unix", folder)));
        }
        if let Some((key, file)) = self.control.missing_file() {
            let message = format!("`control.{key}`: there is no such file: `{}`", file.display());
            return Err(mistake(&[&format!("control.{key}"), "control"], message));
        }
        if let Some((key, file)) = self.missing_file_of_shared() {
            let message = format!("`shared.{key}`: there is no such file: `{}`", file.display());
            return Err(mistake(&[&format!("shared.{key}"), "shared"], message));
        }
        if let Some(file) = self.secret.file.as_deref().filter(|file| !file.is_file()) {
            let message = format!("`secret.file`: there is no such file: `{}`", file.display());
            return Err(mistake(&["secret.file", "secret"], message));
        }
        for (at, server) in self.tool_server.iter().enumerate() {
            for (key, file) in [("token_file", &server.token_file), ("ca_file", &server.ca_file)] {
                if let Some(file) = file.as_deref().filter(|file| !file.is_file()) {
                    let message = format!("`tool_server.{key}`: there is no such file: `{}`", file.display());
                    return Err(mistake(&[&format!("tool_server.{at}.{key}")], message));
                }
            }
        }
        self.check_key_files()
    }

    fn check_key_files(&self) -> Result<(), Mistake> {
        let issuers = self.issuer.iter().enumerate().map(|(at, issuer)| (format!("issuer.{at}"), &issuer.keys));
        let domains = self.trust_domain.iter().enumerate();
        let domains = domains.map(|(at, domain)| (format!("trust_domain.{at}"), &domain.keys));
        for (owner, keys) in issuers.chain(domains) {
            let files = [("file", &keys.file), ("ca_file", &keys.ca_file), ("bootstrap_file", &keys.bootstrap_file)];
            for (key, file) in files {
                if let Some(file) = file.as_deref().filter(|file| !file.is_file()) {
                    let message = format!("`keys.{key}`: there is no such file: `{}`", file.display());
                    return Err(mistake(&[&format!("{owner}.keys.{key}"), &format!("{owner}.keys")], message));
                }
            }
        }
        Ok(())
    }
}

fn no_directory(key: &str, path: &Path) -> String {
    format!("`{key}`: there is no such directory: `{}`", path.display())
}

/// The folder that a file would be made in, if it is not there.
fn folder_is_missing(path: &Path) -> Option<&Path> {
    path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir())
}
