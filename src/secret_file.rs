//! Files of which nobody else may know what is in them.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Permissions that such a file has not: the group may read it, and nobody else may do anything.
const OF_OTHERS: u32 = 0o027;

/// What is in it, up to `most` bytes: who gets so many does not know that it is all.
///
/// # Errors
/// Why it is not read, behind the file's name.
pub fn read(path: &Path, most: usize) -> Result<Vec<u8>, String> {
    let unread = |error| format!("cannot be read: {error}");
    // Before it is opened: to open a pipe is to wait for whoever writes to it.
    if !std::fs::metadata(path).map_err(unread)?.is_file() {
        return Err("is no file".into());
    }
    let file = File::open(path).map_err(unread)?;
    let mode = file.metadata().map_err(unread)?.permissions().mode();
    if mode & OF_OTHERS != 0 {
        return Err(format!("others may use it: its mode is {:04o}, and has to be 0640 at most", mode & 0o7777));
    }
    let mut bytes = Vec::with_capacity(most);
    file.take(most as u64).read_to_end(&mut bytes).map_err(unread)?;
    Ok(bytes)
}
