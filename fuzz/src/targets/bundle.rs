//! One file of the default bundle is replaced: the first byte says which. It is taken or refused with one line.

use std::sync::OnceLock;

use palisade::authz::policy::Bundle;
use palisade::authz::policy::source::SourceFile;
use palisade::store::files;

pub fn run(input: &[u8]) {
    let Some((which, bytes)) = input.split_first() else { return };
    let mut files = default_files().to_vec();
    let at = usize::from(*which) % files.len();
    files[at].bytes = bytes.to_vec();
    let digest = files::digest(&files);
    match Bundle::load(&files, digest.clone()) {
        Ok(bundle) => assert_eq!(bundle.digest(), digest),
        Err(error) => {
            let message = error.to_string();
            assert!(!message.trim().is_empty() && !message.contains('\n'), "{message}");
        }
    }
}

/// The files of the default bundle, in the order in which the first byte counts them.
pub fn default_files() -> &'static [SourceFile] {
    static FILES: OnceLock<Vec<SourceFile>> = OnceLock::new();
    FILES.get_or_init(|| files::read(&super::repository().join("cedar")).expect("the default bundle can be read"))
}
