//! Reading a bundle directory.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use aws_lc_rs::digest;

use crate::authz::hex;
use crate::authz::policy::source::{BundleError, Kind, SourceFile};

/// Most files in a bundle.
pub(super) const MAX_FILES: usize = 20_000;
/// Largest sum of all files, in bytes.
pub(super) const MAX_BYTES: u64 = 256 * 1024 * 1024;
/// Deepest nesting of directories.
pub(super) const MAX_DEPTH: usize = 8;

/// Readings before giving up.
const TRIES: usize = 20;

/// Reads every file that belongs to the bundle in `directory`. Names that begin with a dot (Kubernetes keeps
/// its own links there), what editors leave beside a file, `tests/` and `*.md` do not.
///
/// # Errors
/// [`BundleError`] for what cannot be read, and for a bundle beyond its bounds.
pub fn read(directory: &Path) -> Result<Vec<SourceFile>, BundleError> {
    let mut reading = Reading { files: Vec::new(), bytes: 0 };
    reading.directory(directory, "", 0)?;
    reading.files.sort_by(|a, b| a.name.cmp(&b.name));
    if reading.files.is_empty() {
        return Err(BundleError::new("", format!("`{}` holds no bundle", directory.display())));
    }
    Ok(reading.files)
}

/// Reads a directory that may be in the middle of being changed: what is returned was read twice, `pause`
/// apart, with the same content. A writer that rests for longer between two files, or within one, is taken at
/// its word: only a rename (of a link, as Kubernetes does it, or of a file) changes a bundle at once.
///
/// # Errors
/// As [`read`]; also if the directory does not stop changing.
pub fn read_stable(directory: &Path, pause: Duration) -> Result<(Vec<SourceFile>, String), BundleError> {
    let mut before = read(directory).map(|files| digest(&files));
    for _ in 0..TRIES {
        std::thread::sleep(pause);
        let now = read(directory).map(|files| (digest(&files), files));
        match (&before, now) {
            (Ok(before), Ok((digest, files))) if *before == digest => return Ok((files, digest)),
            (Err(before), Err(error)) if *before == error => return Err(error),
            (_, now) => before = now.map(|(digest, _)| digest),
        }
    }
    Err(BundleError::new("", format!("`{}` does not stop changing", directory.display())))
}

struct Reading {
    files: Vec<SourceFile>,
    bytes: u64,
}

impl Reading {
    fn directory(&mut self, path: &Path, prefix: &str, depth: usize) -> Result<(), BundleError> {
        let failed =
            |error: std::io::Error| BundleError::new(prefix, format!("cannot read `{}`: {error}", path.display()));
        if depth > MAX_DEPTH {
            return Err(BundleError::new(prefix, format!("directories are nested deeper than {MAX_DEPTH}")));
        }
        for entry in fs::read_dir(path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Ok(base) = entry.file_name().into_string() else {
                return Err(BundleError::new(prefix, "holds a file whose name is not UTF-8"));
            };
            let name = if prefix.is_empty() { base.clone() } else { format!("{prefix}/{base}") };
            let hides = |original: &str| Kind::of(original).is_some();
            // Kubernetes and editors have names that begin with a dot; `.#x.cedar` is a lock, and leads nowhere.
            if let Some(hidden) = base.strip_prefix('.') {
                if hides(hidden) && !hidden.starts_with('#') {
                    return Err(BundleError::new(
                        &name,
                        "is hidden; expected its name without the dot, or no such file",
                    ));
                }
                continue;
            }
            // `metadata` follows links: a Kubernetes volume is made of them.
            let metadata = fs::metadata(entry.path())
                .map_err(|error| BundleError::new(&name, format!("cannot be read, or leads nowhere: {error}")))?;
            if let Some(original) = original_of(&base) {
                if !metadata.is_file() || !path.join(original).is_file() {
                    return Err(BundleError::new(
                        &name,
                        format!("is what an editor left of `{original}`, which is gone"),
                    ));
                }
                continue;
            }
            if metadata.is_dir() && prefix.is_empty() && base == "tests" {
                continue;
            }
            if let Some(titled) = base.strip_suffix(".md").filter(|_| metadata.is_file()) {
                if hides(titled) {
                    return Err(BundleError::new(
                        &name,
                        format!("is it a document or `{titled}`? expected another name"),
                    ));
                }
                continue;
            }
            if metadata.is_dir() {
                self.directory(&entry.path(), &name, depth + 1)?;
            } else if metadata.is_file() {
                self.file(&entry.path(), name)?;
            } else {
                // Reading a pipe would wait for its writer.
                return Err(BundleError::new(&name, "is neither a file nor a directory"));
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, name: String) -> Result<(), BundleError> {
        let failed = |error: std::io::Error| BundleError::new(&name, format!("cannot be read: {error}"));
        let mut bytes = Vec::new();
        let left = MAX_BYTES.saturating_sub(self.bytes);
        fs::File::open(path).map_err(failed)?.take(left + 1).read_to_end(&mut bytes).map_err(failed)?;
        self.bytes += bytes.len() as u64;
        if self.bytes > MAX_BYTES || self.files.len() >= MAX_FILES {
            return Err(BundleError::new(
                "",
                format!("the bundle has more than {MAX_FILES} files or {MAX_BYTES} bytes"),
            ));
        }
        self.files.push(SourceFile { name, bytes });
        Ok(())
    }
}

/// The file beside which an editor left this one: a backup (`x.cedar~`, `x.cedar.~1~`), or what was not saved
/// (`#x.cedar#`). To refuse the bundle for it would hold up the very change that was just saved.
fn original_of(name: &str) -> Option<&str> {
    if let Some(backup) = name.strip_suffix('~') {
        let numbered = backup.rsplit_once(".~").filter(|(_, n)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
        return Some(numbered.map_or(backup, |(original, _)| original));
    }
    name.strip_prefix('#')?.strip_suffix('#')
}

/// The digest that names a bundle: SHA-256 over the names and contents of its files, each preceded by its
/// length, in the order of names.
#[must_use]
pub fn digest(files: &[SourceFile]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for file in files {
        for part in [file.name.as_bytes(), &file.bytes] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
    }
    format!("sha256:{}", hex::encode(context.finish().as_ref()))
}
