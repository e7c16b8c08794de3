//! Files of certificates and keys, written once and with their mode.

use super::{CertificateError, Issued};
use std::{fs, io::Write, path::Path};

/// The mode of a key's file.
pub const KEY_MODE: u32 = 0o600;
/// The mode of a certificate's file.
pub const CERTIFICATE_MODE: u32 = 0o644;

impl Issued {
    /// Writes `NAME.pem` and `NAME.key` to `dir`: for a node, name it `node-<id>`.
    ///
    /// # Errors
    /// If either exists, or can't be written.
    pub fn write(&self, dir: &Path, name: &str) -> Result<(), CertificateError> {
        write_new(&dir.join(format!("{name}.key")), &self.key_pem, KEY_MODE)?;
        write_new(&dir.join(format!("{name}.pem")), &self.certificate_pem, CERTIFICATE_MODE)
    }
}

/// Writes a file that must not exist yet, with `mode` from the first moment on.
///
/// # Errors
/// [`CertificateError::Exists`], or why it can't be written.
pub fn write_new(path: &Path, contents: &str, mode: u32) -> Result<(), CertificateError> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    let write = |mut file: fs::File| file.write_all(contents.as_bytes()).and_then(|()| file.sync_all());
    options.open(path).and_then(write).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => CertificateError::Exists { path: path.to_owned() },
        _ => CertificateError::Io { path: path.to_owned(), source: error },
    })
}

/// Whether a key's file is private, by PostgreSQL's rule: its owner alone has access, or it is
/// root's and a group may read it, which is how Kubernetes gives a secret to a process that is
/// not root (`fsGroup`).
///
/// # Errors
/// In words without the path: it can't be examined, or other users have access.
pub fn check_private(path: &Path) -> Result<(), String> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let metadata = fs::metadata(path)
            .map_err(|error| format!("can't be read ({error}): check the path and its permissions"))?;
        let mode = metadata.mode() & 0o777;
        if !is_private(mode, metadata.uid() == 0) {
            return Err(format!(
                "the key is open to other users (mode {mode:04o}): chmod 600 it, or 640 if root owns it"
            ));
        }
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

#[cfg(unix)]
const fn is_private(mode: u32, is_owned_by_root: bool) -> bool {
    mode & 0o077 == 0 || (is_owned_by_root && mode & 0o037 == 0)
}

#[cfg(all(test, unix))]
mod tests {
    use super::is_private;

    #[test]
    fn a_key_is_private_if_its_owner_alone_has_access_or_it_is_roots_and_a_group_reads_it() {
        for (mode, by_root, expected) in [
            (0o600, false, true),
            (0o400, false, true),
            (0o600, true, true),
            (0o640, true, true),
            (0o440, true, true),
            (0o640, false, false),
            (0o440, false, false),
            (0o660, true, false),
            (0o650, true, false),
            (0o644, true, false),
            (0o604, true, false),
            (0o644, false, false),
        ] {
            assert_eq!(is_private(mode, by_root), expected, "{mode:o}, owned by root: {by_root}");
        }
    }
}
