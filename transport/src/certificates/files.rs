//! Files of certificates and keys: written once with their mode, and replaced in pairs.

use super::{CertificateError, Issued};
use rcgen::{KeyPair, PublicKeyData};
use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

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
        let files = Pair::of(dir, name);
        write_new(&files.key, &self.key_pem, KEY_MODE)?;
        write_new(&files.certificate, &self.certificate_pem, CERTIFICATE_MODE)
    }

    /// Replaces `NAME.pem` and `NAME.key` in `dir`. Both new files are complete on disk beside the
    /// old ones, as `NAME.pem.new` and `NAME.key.new`, before each is renamed: first the key. They
    /// have owner and group of the old ones, and the mode, unless others could read a key or write a
    /// certificate by it.
    ///
    /// Up to the first rename the old pair is in use, after the second the new one. A reader in
    /// between finds the new key and the old certificate, which do not belong together; a crash
    /// there is completed by the next replacement before its own. The caller excludes other writers
    /// of `dir`.
    ///
    /// # Errors
    /// [`CertificateError::LeftOver`] if `NAME.pem.new` is there alone and of another key;
    /// [`CertificateError::Owner`]; or if a file can't be written.
    pub fn replace(&self, dir: &Path, name: &str) -> Result<(), CertificateError> {
        self.replace_until(dir, name, usize::MAX)
    }

    /// The same, ended after `steps` of its steps as if by a crash.
    fn replace_until(&self, dir: &Path, name: &str, steps: usize) -> Result<(), CertificateError> {
        resume(dir, name)?;
        let (old, new) = (Pair::of(dir, name), Pair::new_of(dir, name));
        let all: [&dyn Fn() -> Result<(), CertificateError>; 6] = [
            // In this order: a new certificate without its key would look like a replacement that
            // was interrupted between its renames.
            &|| remove(&new.certificate),
            &|| remove(&new.key),
            &|| write_new(&new.key, &self.key_pem, KEY_MODE).and_then(|()| keep_access(&old.key, &new.key, is_private)),
            &|| {
                write_new(&new.certificate, &self.certificate_pem, CERTIFICATE_MODE)?;
                keep_access(&old.certificate, &new.certificate, |mode, _| mode & 0o022 == 0)?;
                sync(dir)
            },
            &|| rename(&new.key, &old.key).and_then(|()| sync(dir)),
            &|| rename(&new.certificate, &old.certificate).and_then(|()| sync(dir)),
        ];
        all.into_iter().take(steps).try_for_each(|step| step())
    }
}

/// Completes a replacement of `NAME.pem` and `NAME.key` in `dir` that a crash ended between its two
/// renames; does nothing otherwise.
fn resume(dir: &Path, name: &str) -> Result<(), CertificateError> {
    let (old, new) = (Pair::of(dir, name), Pair::new_of(dir, name));
    if !new.certificate.exists() || new.key.exists() {
        return Ok(());
    }
    if !belong_together(&new.certificate, &old.key)? {
        return Err(CertificateError::LeftOver { path: new.certificate, key: old.key });
    }
    rename(&new.certificate, &old.certificate).and_then(|()| sync(dir))
}

struct Pair {
    certificate: PathBuf,
    key: PathBuf,
}

impl Pair {
    fn of(dir: &Path, name: &str) -> Self {
        Self { certificate: dir.join(format!("{name}.pem")), key: dir.join(format!("{name}.key")) }
    }

    fn new_of(dir: &Path, name: &str) -> Self {
        Self { certificate: dir.join(format!("{name}.pem.new")), key: dir.join(format!("{name}.key.new")) }
    }
}

fn belong_together(certificate: &Path, key: &Path) -> Result<bool, CertificateError> {
    let (certificate, key) = (read(certificate)?, read(key)?);
    Ok(KeyPair::from_pem(&key).is_ok_and(|key| is_of_key(&certificate, &key)))
}

/// Whether the first certificate in a PEM text is of this key.
pub(super) fn is_of_key(certificate_pem: &str, key: &KeyPair) -> bool {
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(certificate_pem.as_bytes()) else { return false };
    pem.parse_x509().is_ok_and(|certificate| certificate.public_key().raw == key.subject_public_key_info())
}

pub(super) fn read(path: &Path) -> Result<String, CertificateError> {
    fs::read_to_string(path).map_err(|source| CertificateError::Io { path: path.to_owned(), source })
}

fn remove(path: &Path) -> Result<(), CertificateError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(CertificateError::Io { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), CertificateError> {
    fs::rename(from, to).map_err(|source| CertificateError::Io { path: to.to_owned(), source })
}

/// Gives a new file owner and group of the old one, and the mode if it `is_allowed`, by the mode and
/// whether root owns the file: the process that reads the old one must be able to read the new one.
#[cfg(unix)]
fn keep_access(old: &Path, new: &Path, is_allowed: fn(u32, bool) -> bool) -> Result<(), CertificateError> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
    let failed = |source| CertificateError::Io { path: new.to_owned(), source };
    let was = match fs::metadata(old) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        was => was.map_err(|source| CertificateError::Io { path: old.to_owned(), source })?,
    };
    let (uid, gid) = (was.uid(), was.gid());
    let file = fs::File::open(new).map_err(failed)?;
    let is = file.metadata().map_err(failed)?;
    if (is.uid(), is.gid()) != (uid, gid) {
        let refused = |source| CertificateError::Owner { path: old.to_owned(), uid, gid, source };
        fchown(&file, Some(uid), Some(gid)).map_err(refused)?;
    }
    let mode = was.mode() & 0o777;
    if is_allowed(mode, uid == 0) {
        file.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed)?;
    }
    file.sync_all().map_err(failed)
}

#[cfg(not(unix))]
fn keep_access(_: &Path, _: &Path, _: fn(u32, bool) -> bool) -> Result<(), CertificateError> {
    Ok(())
}

/// Makes the directory's entries durable, so that renames reach the disk in their order.
fn sync(dir: &Path) -> Result<(), CertificateError> {
    #[cfg(unix)]
    fs::File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|source| CertificateError::Io { path: dir.to_owned(), source })?;
    #[cfg(not(unix))]
    let _ = dir;
    Ok(())
}

/// Replaces a file that is no secret, or makes it. The new one is complete on disk beside it, as
/// `PATH.new`, before it is renamed, and keeps owner, group and mode of the old one, unless others
/// could write it. The caller excludes other writers of its directory.
///
/// # Errors
/// [`CertificateError::Owner`], or why it can't be written; the old file stays.
pub fn replace(path: &Path, contents: &str, mode: u32) -> Result<(), CertificateError> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    remove(&new)?;
    write_new(&new, contents, mode)?;
    keep_access(path, &new, |mode, _| mode & 0o022 == 0)?;
    rename(&new, path)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    sync(parent.unwrap_or(Path::new(".")))
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

/// Whether a secret's file is private, by PostgreSQL's rule: this process's user or root owns it,
/// and its owner alone has access, or it is root's and a group may read it, which is how Kubernetes
/// gives a secret to a process that is not root (`fsGroup`). Before a file is read, prefer
/// [`read_private`].
///
/// # Errors
/// In words without the path: it can't be examined, another user owns it, or others have access.
pub fn check_private(path: &Path) -> Result<(), String> {
    check(&fs::metadata(path).map_err(unreadable)?)
}

/// Reads a secret's file that [`check_private`] accepts. It is opened once, so that the bytes are
/// those of the file that was examined. They are zeroed when they are dropped.
///
/// # Errors
/// As [`check_private`], or it can't be read.
pub fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut file = fs::File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    check(&metadata)?;
    // A buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0) + 1));
    file.read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

fn unreadable(error: io::Error) -> String {
    format!("can't be read ({error}): check the path and its permissions")
}

#[cfg(unix)]
fn check(metadata: &fs::Metadata) -> Result<(), String> {
    use std::os::unix::fs::MetadataExt;
    access(metadata.mode() & 0o777, metadata.uid(), rustix::process::geteuid().as_raw())
}

#[cfg(not(unix))]
fn check(_: &fs::Metadata) -> Result<(), String> {
    Ok(())
}

/// The same, by mode and owner of the file, and the user of this process.
#[cfg(unix)]
fn access(mode: u32, owner: u32, own: u32) -> Result<(), String> {
    if owner != 0 && owner != own {
        return Err(format!(
            "the key belongs to another user (uid {owner}, not {own}): run as that user, or chown it to this one or to root"
        ));
    }
    if !is_private(mode, owner == 0) {
        return Err(format!("the key is open to other users (mode {mode:04o}): chmod 600 it, or 640 if root owns it"));
    }
    Ok(())
}

const fn is_private(mode: u32, is_owned_by_root: bool) -> bool {
    mode & 0o077 == 0 || (is_owned_by_root && mode & 0o037 == 0)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::certificates::Authority;
    use quorate_raft::NodeId;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

    #[test]
    fn a_replacement_that_crashes_anywhere_leaves_a_pair_or_names_the_mismatch_and_is_completed_by_the_next() {
        let authority = Authority::create("demo").expect("an authority");
        let [first, second, third] = [1, 2, 3].map(|_| authority.issue_node(NodeId(1), &[]).expect("issued"));
        let belongs = |dir: &Path| belong_together(&dir.join("n.pem"), &dir.join("n.key")).expect("readable");
        let holds = |dir: &Path, issued: &Issued| {
            let is = |file: &str, text: &str| fs::read_to_string(dir.join(file)).expect("there") == text;
            is("n.pem", &issued.certificate_pem) && is("n.key", &issued.key_pem)
        };
        for steps in 0..=6 {
            let dir = tempfile::tempdir().expect("a directory");
            let dir = dir.path();
            first.write(dir, "n").expect("written");
            second.replace_until(dir, "n", steps).expect("no step fails");
            match steps {
                0..=4 => assert!(holds(dir, &first), "the old pair is in use, {steps}"),
                5 => assert!(!belongs(dir), "a reader tells that these do not belong together"),
                _ => assert!(holds(dir, &second), "the new pair is in use"),
            }
            resume(dir, "n").expect("resumed");
            assert!(belongs(dir), "{steps}");
            assert_eq!(holds(dir, &second), steps >= 5, "{steps}");
            third.replace(dir, "n").expect("replaced");
            assert!(holds(dir, &third), "{steps}");
            let mut left: Vec<_> =
                fs::read_dir(dir).expect("readable").map(|entry| entry.expect("an entry").file_name()).collect();
            left.sort();
            assert_eq!(left, ["n.key", "n.pem"], "{steps}");
            let mode = fs::metadata(dir.join("n.key")).expect("there").permissions().mode() & 0o777;
            assert_eq!(mode, KEY_MODE);
        }
    }

    #[test]
    fn a_replacement_keeps_owner_and_group_and_a_mode_that_keeps_the_key_private() {
        let authority = Authority::create("demo").expect("an authority");
        let issued = authority.issue_node(NodeId(1), &[]).expect("issued");
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path();
        issued.write(dir, "n").expect("written");
        let access = |file: &str| {
            let is = fs::metadata(dir.join(file)).expect("there");
            (is.uid(), is.gid(), is.mode() & 0o777)
        };
        let own = access("n.key");
        // Another owner is for root alone to give.
        let is_root = own.0 == 0;
        let owners = if is_root { &[(0, 4711), (4711, 4712)][..] } else { &[(own.0, own.1)] };
        for &(uid, gid) in owners {
            for (file, mode, becomes) in [
                ("n.key", 0o400, 0o400),
                ("n.key", 0o640, if uid == 0 { 0o640 } else { 0o600 }),
                ("n.key", 0o644, 0o600),
                ("n.pem", 0o440, 0o440),
                ("n.pem", 0o664, 0o644),
            ] {
                chown(dir.join(file), Some(uid), Some(gid)).expect("changed");
                fs::set_permissions(dir.join(file), fs::Permissions::from_mode(mode)).expect("changed");
                issued.replace(dir, "n").expect("replaced");
                assert_eq!(access(file), (uid, gid, becomes), "{file} {mode:o}");
            }
        }
    }

    #[test]
    fn a_new_file_that_was_half_written_is_replaced_and_one_of_another_key_is_named() {
        let authority = Authority::create("demo").expect("an authority");
        let [first, second] = [1, 2].map(|_| authority.issue_node(NodeId(1), &[]).expect("issued"));
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path();
        first.write(dir, "n").expect("written");
        fs::write(dir.join("n.key.new"), "-----BEGIN").expect("written");
        fs::write(dir.join("n.pem.new"), "-----BEGIN").expect("written");
        second.replace(dir, "n").expect("replaced");
        assert!(belong_together(&dir.join("n.pem"), &dir.join("n.key")).expect("readable"));

        fs::write(dir.join("n.pem.new"), &first.certificate_pem).expect("written");
        let error = first.replace(dir, "n").expect_err("it is of no use").to_string();
        assert!(error.contains("n.pem.new is left over") && error.contains("remove it"), "{error}");
        assert_eq!(fs::read_to_string(dir.join("n.key")).expect("there"), second.key_pem, "nothing was changed");
    }

    #[test]
    fn a_secret_of_another_user_than_root_and_this_one_is_refused() {
        for (owner, own, accepted) in [(7, 7, true), (0, 7, true), (0, 0, true), (8, 7, false), (8, 0, false)] {
            assert_eq!(access(0o600, owner, own).is_ok(), accepted, "of {owner}, read by {own}");
        }
        let error = access(0o600, 8, 0).expect_err("another's");
        assert!(error.contains("uid 8, not 0"), "{error}");
        access(0o640, 7, 7).expect_err("open to a group");

        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), "secret").expect("written");
        assert_eq!(read_private(file.path()).expect("this user's").as_slice(), b"secret");
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o604)).expect("changed");
        read_private(file.path()).expect_err("open to all");
    }

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
