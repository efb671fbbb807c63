//! What a configuration names on the machine where it is to run: looked at, not opened.

use std::path::Path;

use super::{Config, Mistake, mistake};

impl Config {
    /// Refuses what could not start here: directories that are missing.
    pub(super) fn check_files(&self) -> Result<(), Mistake> {
        if !self.bundle.path.is_dir() {
            return Err(mistake(&["bundle.path", "bundle"], no_directory("bundle.path", &self.bundle.path)));
        }
        if self.record.path.as_os_str() != "-" {
            let missing = folder_is_missing(&self.record.path);
            missing.map_or(Ok(()), |folder| Err(mistake(&["record.path"], no_directory("record.path", folder))))?;
        }
        for (at, listener) in self.listener.iter().enumerate() {
            if let Some(folder) = listener.unix.as_deref().and_then(folder_is_missing) {
                return Err(mistake(&[&format!("listener.{at}.unix")], no_directory("listener.unix", folder)));
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
