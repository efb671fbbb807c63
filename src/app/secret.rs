//! The secret behind nonces: a file's, or one of this start alone.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use aws_lc_rs::rand;

use super::StartError;
use crate::authz::token::nonce::Nonces;
use crate::config::dpop::{Dpop, NonceUse};

/// Permissions that a secret has not: the group may read it, and nobody else may do anything.
const OF_OTHERS: u32 = 0o027;

/// What makes nonces, where proofs need them.
///
/// # Errors
/// [`StartError::NonceKey`]
pub(super) fn make(dpop: &Dpop) -> Result<Option<Nonces>, StartError> {
    if dpop.nonces == NonceUse::Off {
        return Ok(None);
    }
    let key = match &dpop.nonce_key_file {
        Some(path) => read(path).map_err(|why| StartError::NonceKey(format!("file {}: {why}", path.display())))?,
        None => random()?,
    };
    Ok(Some(Nonces::new(&key, dpop.nonce_seconds)))
}

fn random() -> Result<[u8; Nonces::KEY_BYTES], StartError> {
    let mut key = [0; Nonces::KEY_BYTES];
    rand::fill(&mut key).map_err(|_| StartError::NonceKey("the system gives no random bytes".into()))?;
    Ok(key)
}

/// Strictly: what is too short is no secret, and of what is too long somebody else may read another part.
fn read(path: &Path) -> Result<[u8; Nonces::KEY_BYTES], String> {
    let file = File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    let metadata = file.metadata().map_err(|error| format!("cannot be read: {error}"))?;
    if !metadata.is_file() {
        return Err("is no file".into());
    }
    let mode = metadata.permissions().mode();
    if mode & OF_OTHERS != 0 {
        return Err(format!("others may use it: its mode is {:04o}, and has to be 0640 at most", mode & 0o7777));
    }
    let mut bytes = Vec::with_capacity(Nonces::KEY_BYTES);
    let most = Nonces::KEY_BYTES as u64 + 1;
    file.take(most).read_to_end(&mut bytes).map_err(|error| format!("cannot be read: {error}"))?;
    bytes.try_into().map_err(|_| format!("has to have exactly {} bytes", Nonces::KEY_BYTES))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::*;

    const NOW: i64 = 1_795_132_800;

    fn of(file: Option<&Path>) -> Result<Option<Nonces>, String> {
        let dpop = Dpop { nonces: NonceUse::Required, nonce_key_file: file.map(Path::to_path_buf), ..Dpop::default() };
        make(&dpop).map_err(|error| error.to_string())
    }

    #[test]
    fn each_start_has_a_secret_of_its_own_unless_a_file_holds_one() {
        assert!(make(&Dpop::default()).unwrap().is_none());
        let nonce = |file| of(file).unwrap().unwrap().at(NOW);
        assert_ne!(nonce(None), nonce(None));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nonce.key");
        std::fs::write(&path, [7; 32]).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert_eq!(nonce(Some(&path)), nonce(Some(&path)));
        assert_eq!(nonce(Some(&path)), Nonces::new(&[7; 32], 60).at(NOW));
    }

    #[test]
    fn what_is_no_secret_stops_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nonce.key");
        let mistake = |file: &Path| of(Some(file)).map(drop).unwrap_err();
        assert!(mistake(&path).contains("cannot be read"));
        assert!(mistake(folder.path()).contains("is no file"));
        for (bytes, mode, why) in [
            (32, 0o644, "its mode is 0644"),
            (32, 0o660, "its mode is 0660"),
            (32, 0o601, "its mode is 0601"),
            (31, 0o600, "exactly 32 bytes"),
            (33, 0o600, "exactly 32 bytes"),
            (0, 0o600, "exactly 32 bytes"),
            (1 << 20, 0o600, "exactly 32 bytes"),
        ] {
            std::fs::write(&path, vec![b'k'; bytes]).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = mistake(&path);
            assert!(error.contains(why) && !error.contains("kk"), "{error}");
        }
    }
}
