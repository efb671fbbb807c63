//! The secret of this instance: a file's, which others may share, or one of this start alone.

use std::path::Path;

use aws_lc_rs::rand;

use super::StartError;
use crate::authz::secret::Secret;
use crate::secret_file;

/// The secret of a file; without one, of this start.
///
/// # Errors
/// [`StartError::Secret`]
pub(super) fn of(file: Option<&Path>) -> Result<Secret, StartError> {
    let bytes = match file {
        Some(path) => read(path).map_err(|why| StartError::Secret(format!("file {}: {why}", path.display())))?,
        None => random()?,
    };
    Ok(Secret::new(&bytes))
}

fn random() -> Result<[u8; Secret::BYTES], StartError> {
    let mut bytes = [0; Secret::BYTES];
    rand::fill(&mut bytes).map_err(|_| StartError::Secret("the system gives no random bytes".into()))?;
    Ok(bytes)
}

/// Strictly: what is too short is no secret, and of what is too long somebody else may read another part.
fn read(path: &Path) -> Result<[u8; Secret::BYTES], String> {
    let bytes = secret_file::read(path, Secret::BYTES + 1)?;
    bytes.try_into().map_err(|_| format!("has to have exactly {} bytes", Secret::BYTES))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// What tells secrets apart.
    fn nonce(file: Option<&Path>) -> Result<String, String> {
        let secret = of(file).map_err(|error| error.to_string())?;
        Ok(secret.nonces(60).unwrap().at(1_795_132_800))
    }

    #[test]
    fn each_start_has_a_secret_of_its_own_unless_a_file_holds_one() {
        assert_ne!(nonce(None), nonce(None));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("palisade.key");
        std::fs::write(&path, [7; 32]).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert_eq!(nonce(Some(&path)), nonce(Some(&path)));
        assert_eq!(nonce(Some(&path)), Ok(Secret::new(&[7; 32]).nonces(60).unwrap().at(1_795_132_800)));
    }

    #[test]
    fn what_is_no_secret_stops_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("palisade.key");
        let mistake = |file: &Path| nonce(Some(file)).unwrap_err();
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
            assert!(error.contains(why) && !error.contains("kkkk"), "{error}");
        }
    }
}
