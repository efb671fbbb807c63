//! A bundle as one file (`.tar.gz`), for those who fetch it: unpacked strictly, for what is packed may be anything.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, FileType};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use aws_lc_rs::digest;
use flate2::read::MultiGzDecoder;
use tar::{Archive, EntryType};

use super::files::{MAX_BYTES, MAX_DEPTH, MAX_FILES};
use crate::authz::hex;

/// Largest archive, in bytes.
pub const MAX_ARCHIVE_BYTES: usize = 64 * 1024 * 1024;
/// Largest header of what is more than a name of its own, in bytes: a long name, or attributes.
const MAX_EXTENSION_BYTES: u64 = 16 * 1024;

/// Unpacks `archive`, if its SHA-256 is `digest` (lower-case hexadecimal digits), beside `link`, and makes `link` lead there: at once,
/// so that nobody finds half a bundle. What `link` led to before stays. Gives back the directory. Whoever else installs there waits.
///
/// # Errors
/// Another digest; what is no archive of regular files with plain names, or larger than a bundle may be; a disk that fails;
/// something at `link` that is no link.
pub fn install(archive: &[u8], digest: &str, link: &Path) -> Result<PathBuf, String> {
    let found = hex::encode(digest::digest(&digest::SHA256, archive).as_ref());
    if found != digest {
        return Err(format!("its SHA-256 is {found}, and not {digest}"));
    }
    let failed = |what: &Path| {
        let what = what.display().to_string();
        move |error: io::Error| format!("{what}: {error}")
    };
    if fs::symlink_metadata(link).is_ok_and(|found| !found.is_symlink()) {
        return Err(format!("{}: is there already, and is no link to a bundle", link.display()));
    }
    let name =
        link.file_name().and_then(|name| name.to_str()).ok_or_else(|| format!("{}: has no name", link.display()))?;
    let beside = link.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(beside).map_err(failed(beside))?;
    let locked = link.with_file_name(format!(".{name}.lock"));
    let lock = fs::File::create(&locked).map_err(failed(&locked))?;
    lock.lock().map_err(failed(&locked))?;

    let making = Making(link.with_file_name(format!(".{name}.making")));
    // What an attempt left that was killed.
    making.remove().map_err(failed(&making.0))?;
    fs::create_dir(&making.0).map_err(failed(&making.0))?;
    unpack(archive, &making.0)?;
    let name = format!("{name}-{digest}");
    let directory = link.with_file_name(&name);
    // One that is there is what it says only if it has the same in it.
    if !is_same(&making.0, &directory).map_err(failed(&directory))? {
        if directory.exists() {
            fs::remove_dir_all(&directory).map_err(failed(&directory))?;
        }
        fs::rename(&making.0, &directory).map_err(failed(&directory))?;
    }
    let next = link.with_file_name(format!(".{name}.link"));
    if fs::symlink_metadata(&next).is_ok() {
        fs::remove_file(&next).map_err(failed(&next))?;
    }
    std::os::unix::fs::symlink(&name, &next).map_err(failed(&next))?;
    fs::rename(&next, link).map_err(failed(link))?;
    Ok(directory)
}

/// A directory that is gone when nobody makes it any more.
struct Making(PathBuf);

impl Making {
    fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        // The next attempt tries again.
        let _or_left = self.remove();
    }
}

/// Whether two directories have the same files, with the same in them, and nothing else.
fn is_same(one: &Path, other: &Path) -> io::Result<bool> {
    let listed = |directory: &Path| -> io::Result<Option<BTreeMap<OsString, FileType>>> {
        match fs::read_dir(directory) {
            Ok(entries) => entries
                .map(|entry| entry.and_then(|it| Ok((it.file_name(), it.file_type()?))))
                .collect::<Result<_, _>>()
                .map(Some),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(error),
        }
    };
    let (Some(left), Some(right)) = (listed(one)?, listed(other)?) else { return Ok(false) };
    if left != right {
        return Ok(false);
    }
    for (name, kind) in left {
        let (one, other) = (one.join(&name), other.join(&name));
        let is_same = if kind.is_dir() { is_same(&one, &other)? } else { fs::read(one)? == fs::read(other)? };
        if !is_same {
            return Ok(false);
        }
    }
    Ok(true)
}

fn unpack(archive: &[u8], into: &Path) -> Result<(), String> {
    let wrong = |error: io::Error| format!("is no .tar.gz: {error}");
    // One byte more than may be there, to tell what is too much from what just fits; headers of 512 bytes beside.
    let most = MAX_BYTES + (MAX_FILES as u64) * 4 * 512;
    let opened = || Archive::new(MultiGzDecoder::new(archive).take(most));
    // Before anything of it is in memory or on the disk.
    let mut left = MAX_BYTES;
    for entry in opened().entries().map_err(wrong)?.raw(true) {
        let entry = entry.map_err(wrong)?;
        let is_file = matches!(entry.header().entry_type(), EntryType::Regular | EntryType::Continuous);
        if !is_file && entry.size() > MAX_EXTENSION_BYTES {
            return Err(format!("has a name or attributes of more than {MAX_EXTENSION_BYTES} bytes"));
        }
        left = left.checked_sub(entry.size()).ok_or_else(|| format!("has more than {MAX_BYTES} bytes"))?;
    }
    let mut unpacked = opened();
    let mut names = BTreeSet::new();
    for entry in unpacked.entries().map_err(wrong)? {
        let mut entry = entry.map_err(wrong)?;
        let path = entry.path().map_err(wrong)?.into_owned();
        let shown = path.display().to_string().escape_debug().to_string();
        let kind = entry.header().entry_type();
        let Some(name) = plain(&path) else {
            return Err(format!("`{shown}`: a name that leads elsewhere, or that cannot be shown"));
        };
        match kind {
            EntryType::Directory => continue,
            EntryType::XGlobalHeader => continue,
            EntryType::Regular => {}
            _ => return Err(format!("`{shown}`: is no regular file")),
        }
        if names.len() >= MAX_FILES || name.components().count() > MAX_DEPTH {
            return Err(format!("`{shown}`: is one file, or one directory within another, too many"));
        }
        if !names.insert(name.clone()) {
            return Err(format!("`{shown}`: is there twice"));
        }
        write(&mut entry, &into.join(&name)).map_err(|error| format!("`{shown}`: {error}"))?;
    }
    // An archive that was cut ends early; whatever else there is belongs to none.
    if names.is_empty() { Err("holds no file".into()) } else { Ok(()) }
}

/// The path without `.`, if every part of it is a name that can be shown.
fn plain(path: &Path) -> Option<PathBuf> {
    let is_shown = |name: &OsStr| name.to_str().is_some_and(|name| !name.chars().any(char::is_control));
    path.components()
        .filter(|part| !matches!(part, Component::CurDir))
        .map(|part| if let Component::Normal(name) = part { Some(name).filter(|name| is_shown(name)) } else { None })
        .collect()
}

fn write(from: &mut impl Read, path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut file = fs::File::create_new(path)?;
    io::copy(from, &mut file)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use tar::{Builder, Header};

    use super::*;

    fn packed(build: impl FnOnce(&mut Builder<GzEncoder<Vec<u8>>>)) -> (Vec<u8>, String) {
        let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        build(&mut builder);
        let bytes = builder.into_inner().unwrap().finish().unwrap();
        let digest = hex::encode(digest::digest(&digest::SHA256, &bytes).as_ref());
        (bytes, digest)
    }

    /// An entry with a name that the library itself would not write.
    fn add(builder: &mut Builder<GzEncoder<Vec<u8>>>, name: &str, kind: EntryType, content: &[u8]) {
        let mut header = Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        if kind == EntryType::Symlink || kind == EntryType::Link {
            header.set_link_name("/etc/passwd").unwrap();
        }
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }

    #[test]
    fn a_bundle_is_there_as_a_whole_and_follows_another() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("bundle");
        for (text, more) in [("one", "./policies/a.cedar"), ("two", "policies/b.cedar"), ("one", "./policies/a.cedar")]
        {
            let (bytes, digest) = packed(|builder| {
                add(builder, "./", EntryType::Directory, b"");
                add(builder, "targets.toml", EntryType::Regular, text.as_bytes());
                add(builder, more, EntryType::Regular, b"permit");
            });
            let made = install(&bytes, &digest, &link).unwrap();
            assert_eq!(fs::read_to_string(link.join("targets.toml")).unwrap(), text);
            assert_eq!(fs::read_to_string(link.join(more)).unwrap(), "permit");
            assert_eq!(fs::canonicalize(&link).unwrap(), fs::canonicalize(&made).unwrap());
        }
        // Two bundles, the link and the lock; nothing that was begun.
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 4);
    }

    #[test]
    fn two_at_once_make_one_bundle_and_half_of_one_is_made_whole() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("bundle");
        let names: Vec<String> = (0..200).map(|number| format!("policies/{number}.cedar")).collect();
        let (bytes, digest) = packed(|builder| {
            names.iter().for_each(|name| add(builder, name, EntryType::Regular, name.as_bytes()));
        });
        let is_whole = || names.iter().all(|name| fs::read_to_string(link.join(name)).is_ok_and(|text| text == *name));
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..4).map(|_| scope.spawn(|| install(&bytes, &digest, &link))).collect();
            all.into_iter().for_each(|one| drop(one.join().unwrap().unwrap()));
        });
        assert!(is_whole());
        let made = fs::canonicalize(&link).unwrap();
        let spoil: [&dyn Fn(); 4] = [
            &|| fs::remove_file(made.join(&names[0])).unwrap(),
            &|| fs::write(made.join(&names[1]), "permit (principal, action, resource);").unwrap(),
            &|| fs::write(made.join("policies/more.cedar"), "").unwrap(),
            &|| {
                fs::remove_file(made.join(&names[2])).unwrap();
                std::os::unix::fs::symlink(&names[3], made.join(&names[2])).unwrap();
            },
        ];
        for spoil in spoil {
            spoil();
            install(&bytes, &digest, &link).unwrap();
            assert!(is_whole() && !link.join("policies/more.cedar").exists());
            assert!(fs::symlink_metadata(link.join(&names[2])).unwrap().is_file());
        }
    }

    #[test]
    fn what_is_no_bundle_is_refused_and_leaves_the_last_one() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("bundle");
        let (good, good_digest) = packed(|builder| add(builder, "targets.toml", EntryType::Regular, b"good"));
        install(&good, &good_digest, &link).unwrap();
        let file = EntryType::Regular;
        let cases: Vec<((Vec<u8>, String), &str)> = vec![
            ((good.clone(), "00".repeat(32)), "its SHA-256 is"),
            (packed(|builder| add(builder, "../x.cedar", file, b"")), "leads elsewhere"),
            (packed(|builder| add(builder, "/etc/x.cedar", file, b"")), "leads elsewhere"),
            (packed(|builder| add(builder, "a/../../x.cedar", file, b"")), "leads elsewhere"),
            (packed(|builder| add(builder, "x.cedar", EntryType::Symlink, b"")), "no regular file"),
            (packed(|builder| add(builder, "x.cedar", EntryType::Link, b"")), "no regular file"),
            (packed(|builder| add(builder, "x.cedar", EntryType::Fifo, b"")), "no regular file"),
            (packed(|builder| add(builder, "a/b/c/d/e/f/g/h/i.cedar", file, b"")), "too many"),
            (
                packed(|builder| {
                    add(builder, "x.cedar", file, b"1");
                    add(builder, "./x.cedar", file, b"2");
                }),
                "is there twice",
            ),
            (
                packed(|builder| {
                    add(builder, "x", file, b"1");
                    add(builder, "x/y.cedar", file, b"2");
                }),
                "x/y.cedar",
            ),
            (packed(|_| ()), "holds no file"),
            (packed(|builder| add(builder, "x\n.cedar", file, b"")), "`x\\n.cedar`: a name"),
            (packed(|builder| add(builder, "\u{1b}[2J.cedar", file, b"")), "`\\u{1b}[2J.cedar`: a name"),
            (
                packed(|builder| add(builder, "././@LongLink", EntryType::GNULongName, &[b'x'; 20_000])),
                "attributes of more",
            ),
            (packed(|builder| add(builder, "x", EntryType::XHeader, &[b'x'; 20_000])), "attributes of more"),
        ];
        let digest_of = |bytes: &[u8]| hex::encode(digest::digest(&digest::SHA256, bytes).as_ref());
        let mut plain = GzEncoder::new(Vec::new(), Compression::fast());
        plain.write_all(b"no tar").unwrap();
        let others = [b"no gzip".to_vec(), good[..good.len() / 2].to_vec(), plain.finish().unwrap(), Vec::new()];
        let others =
            others.map(|bytes| (digest_of(&bytes), bytes)).map(|(digest, bytes)| ((bytes, digest), "is no .tar.gz"));
        for ((bytes, digest), why) in cases.into_iter().chain(others) {
            let error = install(&bytes, &digest, &link).unwrap_err();
            assert!(error.contains(why), "{error}, expected {why}");
            assert_eq!(fs::read_to_string(link.join("targets.toml")).unwrap(), "good");
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3, "{why}");
        }
        // What somebody put there is not taken away.
        let own = directory.path().join("own");
        fs::create_dir(&own).unwrap();
        assert!(install(&good, &good_digest, &own).unwrap_err().contains("is no link"));
    }

    #[test]
    fn what_grows_has_a_bound() {
        let directory = tempfile::tempdir().unwrap();
        // A header that promises more than a bundle may have.
        let (bytes, digest) = packed(|builder| {
            let mut header = Header::new_gnu();
            header.set_path("x.cedar").unwrap();
            header.set_size(MAX_BYTES + 1);
            header.set_cksum();
            builder.append(&header, io::empty()).unwrap();
        });
        assert!(install(&bytes, &digest, &directory.path().join("bundle")).unwrap_err().contains("more than"));
    }
}
