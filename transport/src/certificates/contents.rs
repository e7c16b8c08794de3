//! The contents of files that may be replaced while they are in use.

use ring::digest::{SHA256, digest};
use std::{fs, io, path::Path};
use zeroize::Zeroizing;

/// The contents of some files, for comparison with what they had before.
///
/// Compares bytes and not times of modification, so that a file that is reached over a symbolic link
/// counts as changed once the link names another directory, as Kubernetes replaces mounted files.
/// Keeps a digest of each file (SHA-256) and none of its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents(Vec<Result<[u8; 32], io::ErrorKind>>);

impl Contents {
    /// Reads the files. A file that can't be read counts as changed when it can be read again, or
    /// fails in another way.
    pub fn of<'a>(files: impl IntoIterator<Item = &'a Path>) -> Self {
        Self(files.into_iter().map(|file| digest_of(file).map_err(|error| error.kind())).collect())
    }
}

fn digest_of(file: &Path) -> io::Result<[u8; 32]> {
    let bytes = Zeroizing::new(fs::read(file)?);
    let mut digest_bytes = [0; 32];
    digest_bytes.copy_from_slice(digest(&SHA256, &bytes).as_ref());
    Ok(digest_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn contents_differ_once_bytes_presence_or_the_target_of_a_link_differ() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let at = |name: &str| dir.path().join(name);
        for name in ["a", "b"] {
            fs::create_dir(at(name)).expect("made");
            fs::write(at(name).join("cert"), name).expect("written");
        }
        symlink("a", at("data")).expect("linked");
        let (linked, own) = (at("data").join("cert"), at("own"));
        let now = || Contents::of([&*linked, &*own]);

        let mut before = now();
        fs::write(&own, "1").expect("written");
        assert_ne!(before, now(), "a file is there");
        before = now();
        fs::write(&own, "1").expect("written");
        assert_eq!(before, now(), "written with the same bytes");
        let mut changed = |what: &str| {
            let after = now();
            assert_ne!(before, after, "{what}");
            before = after;
        };
        fs::write(&own, "2").expect("written");
        changed("it has other bytes");
        symlink("b", at("data.new")).expect("linked");
        fs::rename(at("data.new"), at("data")).expect("renamed");
        changed("the link names another directory");
        fs::remove_file(&own).expect("removed");
        changed("it is gone");
    }
}
