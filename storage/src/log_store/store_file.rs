//! Parts of a file for a [`LogStore`](crate::LogStore) of one's own: frames with checksums, the
//! durable replacement of a file, and errors with a remedy.
//!
//! They own no policy: the store decides which bytes it writes, when it syncs them, and whether a
//! frame that is not whole is the rest of a write that was never acknowledged, or damage.

use crate::{
    checksum,
    contract::{StorageError, StorageOp},
    disk::{Disk, File},
    wal,
};
use std::{
    io::{self, IoSlice},
    path::Path,
};

/// The bytes of a frame beside its body: the length before it, and the checksum after it.
pub const FRAME_OVERHEAD_BYTES: usize = 8;

/// Appends a frame: the body's length in 4 bytes, the body, and the CRC-32C of both, little-endian.
///
/// # Panics
/// If the body is longer than 4 GiB.
pub fn append_frame(to: &mut Vec<u8>, body: &[u8]) {
    let begin = to.len();
    let length = u32::try_from(body.len()).expect("a body of a store is at most 4 GiB long");
    to.extend_from_slice(&length.to_le_bytes());
    to.extend_from_slice(body);
    to.extend_from_slice(&checksum(0, &to[begin..]).to_le_bytes());
}

/// Takes a frame off the front of `bytes`, and returns its body. `None` if the bytes end within it,
/// or a bit of it is damaged; `bytes` then stays.
pub fn take_frame<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, _) = bytes.split_first_chunk()?;
    let end = (u32::from_le_bytes(*length) as usize).checked_add(4)?;
    let (framed, after) = bytes.split_at_checked(end)?;
    let (sum, after) = after.split_first_chunk()?;
    (checksum(0, framed) == u32::from_le_bytes(*sum)).then(|| {
        *bytes = after;
        &framed[4..]
    })
}

/// Replaces a file, or makes it, durably: after a crash it has the old content or the new one. The
/// new content is written under the name with `.new` appended, and synced before the file gets its
/// name.
///
/// # Errors
/// The disk's; final. The file may have either content.
pub fn replace(disk: &dyn Disk, path: &Path, content: &[u8]) -> Result<Box<dyn File>, StorageError> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    let unfinished = Path::new(&unfinished);
    wal::remove_if_there(disk, unfinished).map_err(|failure| failure.error)?;
    let file = disk.create(unfinished).map_err(failed(StorageOp::Create, unfinished))?;
    file.write_at(&mut [IoSlice::new(content)], 0).map_err(failed(StorageOp::Write, unfinished))?;
    file.sync_data().map_err(failed(StorageOp::Sync, unfinished))?;
    disk.rename(unfinished, path).map_err(failed(StorageOp::Rename, unfinished))?;
    // The parent of a bare name is the empty path, which no system call takes.
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    disk.sync_dir(dir).map_err(failed(StorageOp::Sync, dir))?;
    Ok(file)
}

/// For `map_err`: an error of the operating system as one line with the operation, the file, and a
/// remedy for the kind of error.
pub fn failed(operation: StorageOp, path: &Path) -> impl Fn(io::Error) -> StorageError {
    let failed = wal::failed(operation, path);
    move |error| failed(error).error
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_storage_testing::{Crash, Operation, SimulatedDisk};

    #[test]
    fn a_frame_is_taken_whole_or_not_at_all() {
        let mut bytes = Vec::new();
        append_frame(&mut bytes, b"one");
        append_frame(&mut bytes, b"");
        assert_eq!(bytes.len(), 3 + 2 * FRAME_OVERHEAD_BYTES);
        let mut rest = &bytes[..];
        assert_eq!((take_frame(&mut rest), take_frame(&mut rest)), (Some(&b"one"[..]), Some(&b""[..])));
        assert_eq!((take_frame(&mut rest), rest.len()), (None, 0));
        let first = 3 + FRAME_OVERHEAD_BYTES;
        for end in 0..first {
            assert_eq!(take_frame(&mut &bytes[..end]), None, "cut off after {end} bytes");
        }
        for bit in 0..first * 8 {
            let mut damaged = bytes[..first].to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let mut rest = &damaged[..];
            assert_eq!((take_frame(&mut rest), rest.len()), (None, first), "bit {bit}");
        }
    }

    #[test]
    fn a_replaced_file_has_the_old_content_or_the_new_after_a_crash_at_any_step() {
        // The first rename is the removal of what an earlier attempt left.
        let steps = [
            (Operation::Rename, 1),
            (Operation::Open, 1),
            (Operation::Write, 1),
            (Operation::Sync, 1),
            (Operation::Rename, 2),
            (Operation::SyncDir, 1),
        ];
        for (path, (operation, nth)) in ["dir/file", "file"].iter().flat_map(|path| steps.map(|step| (path, step))) {
            let path = Path::new(path);
            for crash in [Crash::Lose, Crash::Keep, Crash::Torn { bytes: 3 }] {
                let disk = SimulatedDisk::new();
                disk.create_dir(Path::new("dir")).expect("a directory");
                replace(&disk, path, b"old content").expect("it is written");
                disk.fail(operation, nth);
                let error = replace(&disk, path, b"new").expect_err("told to fail");
                assert!(error.to_string().starts_with("can't ") && error.operation().is_some(), "{error}");
                disk.crash(crash);
                let found = disk.contents(path).expect("it is there");
                assert!(
                    found == b"old content" || found == b"new",
                    "{path:?} {operation:?} {nth} {crash:?}: {found:?}"
                );
                replace(&disk, path, b"newer").expect("what an attempt left is replaced");
                disk.crash(Crash::Lose);
                assert_eq!(disk.contents(path).as_deref(), Some(&b"newer"[..]));
            }
        }
    }
}
