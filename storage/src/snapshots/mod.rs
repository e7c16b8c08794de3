//! Snapshots as files of a directory beside the log: each of them whole, or not there at all.
//!
//! [`SnapshotStore`] owns the files called `*.snapshot` and `*.snapshot.new` of one directory, laid
//! out by [`format`] as `FORMAT.md` says. It never decides when to save a snapshot, or whether the
//! log may be compacted. An error here fails one save or read, and never ends the log. Its users
//! are the `LogWriter` and any other storage that keeps snapshots in files. Its
//! [sinks](SnapshotSink) and [sources](SnapshotSource) live on their users' threads.

mod backup;
mod export;
mod flaw;
pub(crate) mod format;
mod sink;
mod source;
#[cfg(test)]
mod tests;

pub use backup::Backup;
pub use export::Export;

use crate::{
    contract::{SnapshotSink, SnapshotSource, StorageError, StorageObserver, StorageOp},
    disk::Disk,
    wal::{CLUSTER_BYTES_MAX, Failure, Identity, Outcome, SHORTAGE_REMEDY},
};
use flaw::{Flaw, REPLACED, trouble};
use quorate_raft::{EntryId, Index, NodeId, Snapshot, SnapshotBase, Term};
use sink::FileSink;
use source::FileSource;
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The snapshots in a directory.
///
/// A snapshot gets its name when it is complete: it is written under a temporary one, synced,
/// renamed, and the directory is synced. The newest two are kept, until
/// [`remove_older_than`](Self::remove_older_than): if the newest is found damaged, the log may
/// still reach back to the other.
///
/// A directory may have one store at a time: **its owner holds a lock that outlives the store**.
/// After the store is dropped, open sinks fail to finish, and open sources stay readable.
pub struct SnapshotStore {
    shared: Arc<Shared>,
}

/// The result of [`SnapshotStore::open`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Found {
    /// The snapshots, newest first. The first one was read to its last byte and is undamaged, even
    /// if it is not the newest file; of the others the beginning and the end were read.
    pub snapshots: Vec<Snapshot>,
    /// A line for the operator per file that was removed because it was unfinished, or ignored
    /// because it is damaged.
    pub repairs: Vec<String>,
}

impl SnapshotStore {
    /// Opens the snapshots in `dir`, which is created if it does not exist; removes unfinished
    /// files; and reads the newest to its end, as fast as the disk allows, because only that shows
    /// that it is whole.
    ///
    /// # Errors
    /// If the disk fails, or a snapshot belongs to another member, or to a newer program. Damage is
    /// no error: a damaged file is ignored, and removed when a newer snapshot replaces it.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: impl AsRef<Path>,
        cluster: &str,
        member: NodeId,
        observer: Arc<dyn StorageObserver>,
    ) -> Result<(Self, Found), StorageError> {
        if cluster.len() > CLUSTER_BYTES_MAX {
            let what = format!("the cluster's name has more than {CLUSTER_BYTES_MAX} bytes; choose a shorter one");
            return Err(StorageError::new(what));
        }
        let (dir, identity) = (dir.as_ref().to_owned(), Identity { cluster: cluster.to_owned(), member });
        disk.create_dir(&dir).map_err(trouble(StorageOp::Create, &dir))?;
        let names = disk.list(&dir).map_err(trouble(StorageOp::Read, &dir))?;
        let mut found = Found { snapshots: Vec::new(), repairs: remove_unfinished(&*disk, &dir, &names)? };

        let mut lasts: Vec<EntryId> = names.iter().filter_map(|name| last_of(name)).collect();
        lasts.sort_unstable_by_key(|last| coverage(*last));
        let mut files = Vec::new();
        for last in lasts.into_iter().rev() {
            let path = dir.join(name_of(last));
            match check(&*disk, &path, last, &identity, found.snapshots.is_empty()) {
                Ok(source) => {
                    files.push(SnapshotFile { last, bytes: source.file_bytes(), is_whole: true });
                    found.snapshots.push(source.snapshot().clone());
                }
                Err(Flaw::Damaged(what)) => {
                    // Only for the sum of sizes; 0 if it can't be read.
                    let bytes = disk.open(&path).and_then(|file| file.length()).unwrap_or(0);
                    files.push(SnapshotFile { last, bytes, is_whole: false });
                    found.repairs.push(format!("ignored a snapshot: {what}; {REPLACED}"));
                }
                Err(Flaw::Refused(error) | Flaw::Short(error)) => return Err(error),
            }
        }
        let shared = Shared {
            chunk_bytes: format::CHUNK_BYTES,
            publishing: Mutex::new(Publishing { is_closed: false, begun: 0 }),
            files: Mutex::new(files),
            disk,
            dir,
            identity,
            observer,
        };
        Ok((Self { shared: Arc::new(shared) }, found))
    }

    /// Begins to write a snapshot. It counts once it is [finished](SnapshotSink::finish); dropping
    /// the sink removes it. Several may be written at once. The bytes go to the disk on the thread
    /// that writes them, through a buffer of 256 KiB, and are synced as they come, so that a sync
    /// of another file never waits long for them. After an error nothing more can be written.
    ///
    /// With `expected`, the finished snapshot must have this size in bytes and this checksum.
    ///
    /// # Errors
    /// If the file can't be made.
    pub fn begin(
        &self,
        base: SnapshotBase,
        expected: Option<(u64, u32)>,
    ) -> Result<Box<dyn SnapshotSink>, StorageError> {
        Ok(Box::new(FileSink::begin(&self.shared, base, expected)?))
    }

    /// Opens the snapshot with the highest index. It can be read until the source is dropped, even
    /// if it is removed meanwhile.
    ///
    /// # Errors
    /// If there is none, it can't be read, or is damaged at its beginning or end.
    pub fn open_newest(&self) -> Result<Box<dyn SnapshotSource>, StorageError> {
        self.try_open_newest().map_err(|failure| failure.error)
    }

    /// [`SnapshotStore::open_newest`], with a failure that says whether it was a shortage.
    pub(crate) fn try_open_newest(&self) -> Outcome<Box<dyn SnapshotSource>> {
        // While the list is locked, the file stays: it is taken off the list before it is removed.
        let files = self.shared.files();
        let newest = newest(&files).ok_or_else(|| {
            let dir = self.shared.dir.display();
            Failure::open(format_args!("{dir} holds no snapshot; there is one once it was saved"))
        })?;
        let path = self.shared.dir.join(name_of(newest));
        let source = check(&*self.shared.disk, &path, newest, &self.shared.identity, false).map_err(|flaw| {
            let is_shortage = matches!(flaw, Flaw::Short(_));
            if !is_shortage {
                self.shared.observer.failed(StorageOp::Read);
            }
            Failure { op: StorageOp::Open, error: flaw.into_error(), is_full: false, is_shortage }
        })?;
        Ok(Box::new(source))
    }

    /// Removes the snapshots with a last entry before `to`, on another thread. To be called when
    /// the log durably begins after `to`: no log continues those. The newest one always stays.
    pub fn remove_older_than(&self, to: Index) {
        let newest = newest(&self.shared.files());
        self.shared.remove(|file| file.last.index < to && Some(file.last) != newest);
    }

    /// The size of all finished files in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shared.files().iter().map(|file| file.bytes).sum()
    }
}

impl fmt::Debug for SnapshotStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotStore").field("dir", &self.shared.dir).finish_non_exhaustive()
    }
}

impl Drop for SnapshotStore {
    /// Waits for a snapshot that is being published, so that the next owner finds the
    /// directory at rest.
    fn drop(&mut self) {
        self.shared.publishing().is_closed = true;
    }
}

/// State shared by a store and its sinks.
struct Shared {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    identity: Identity,
    chunk_bytes: usize,
    observer: Arc<dyn StorageObserver>,
    /// Locked while files get or lose their names. Taken before `files`.
    publishing: Mutex<Publishing>,
    /// The finished files, newest first. Locked for moments only: the `LogWriter` waits for it.
    files: Mutex<Vec<SnapshotFile>>,
}

struct Publishing {
    /// The store was dropped: the directory may belong to another one.
    is_closed: bool,
    /// Number of temporary names used.
    begun: u64,
}

#[derive(Clone, Copy)]
struct SnapshotFile {
    last: EntryId,
    bytes: u64,
    /// Whether no damage is known.
    is_whole: bool,
}

/// The most snapshots that are kept, not counting damaged ones.
const KEPT_MAX: usize = 2;

impl Shared {
    fn publishing(&self) -> MutexGuard<'_, Publishing> {
        self.publishing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn files(&self) -> MutexGuard<'_, Vec<SnapshotFile>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a complete and synced file its name, durably.
    fn publish(self: &Arc<Self>, unfinished: &Path, last: EntryId, bytes: u64) -> Result<(), StorageError> {
        let path = self.dir.join(name_of(last));
        let publishing = self.publishing();
        if publishing.is_closed {
            let dir = self.dir.display();
            return Err(StorageError::new(format!("{dir} was closed before its snapshot was finished; save it again")));
        }
        self.disk.rename(unfinished, &path).map_err(trouble(StorageOp::Rename, unfinished))?;
        let is_new = !self.files().iter().any(|file| file.last == last && file.is_whole);
        if let Err(error) = self.disk.sync_dir(&self.dir) {
            // After a failed sync it is unknown whether the name is durable. If the file replaced
            // one that the log may depend on, it stays: either of them is whole.
            if is_new {
                let _ = self.disk.remove(&path);
            }
            return Err(trouble(StorageOp::Sync, &self.dir)(error));
        }
        {
            let mut files = self.files();
            files.retain(|other| other.last != last);
            files.push(SnapshotFile { last, bytes, is_whole: true });
            files.sort_unstable_by_key(|file| std::cmp::Reverse(coverage(file.last)));
        }
        drop(publishing);
        let kept: Vec<EntryId> =
            self.files().iter().filter(|file| file.is_whole).take(KEPT_MAX).map(|file| file.last).collect();
        let newest = kept.first().copied();
        self.remove(|file| {
            !kept.contains(&file.last) && newest.is_some_and(|newest| coverage(file.last) < coverage(newest))
        });
        Ok(())
    }

    /// Takes files off the list, then removes them on another thread: that takes long
    /// for large ones.
    fn remove(self: &Arc<Self>, is_superfluous: impl Fn(&SnapshotFile) -> bool) {
        let mut taken = Vec::new();
        self.files().retain(|file| {
            let goes = is_superfluous(file);
            taken.extend(goes.then_some(*file));
            !goes
        });
        if taken.is_empty() {
            return;
        }
        let shared = Arc::clone(self);
        let mut gone: Vec<EntryId> = taken.iter().map(|file| file.last).collect();
        let started = self.disk.in_background(Box::new(move || {
            let publishing = shared.publishing();
            let (disk, dir) = (&shared.disk, &shared.dir);
            // A snapshot that was saved again meanwhile has the name now.
            gone.retain(|last| !publishing.is_closed && !shared.files().iter().any(|file| file.last == *last));
            let removed = gone.iter().try_for_each(|last| disk.remove(&dir.join(name_of(*last))));
            if let Err(error) = removed.and_then(|()| disk.sync_dir(dir)) {
                let dir = dir.display();
                tracing::warn!(%error, %dir, "can't remove a snapshot that a newer one replaces; the next start tries again");
            }
        }));
        if let Err(error) = started {
            self.observer.ran_short();
            let dir = self.dir.display();
            tracing::warn!(%error, %dir, "can't start a thread to remove old snapshots; they go with the next one; {SHORTAGE_REMEDY}");
            let mut files = self.files();
            files.extend(taken);
            files.sort_unstable_by_key(|file| std::cmp::Reverse(coverage(file.last)));
        }
    }
}

/// Opens a snapshot and checks that it is the one in its name: beginning and end, or all of it.
fn check(
    disk: &dyn Disk,
    path: &Path,
    last: EntryId,
    identity: &Identity,
    to_the_end: bool,
) -> Result<FileSource, Flaw> {
    let mut source = FileSource::open(disk, path, identity)?;
    let covered = source.snapshot().base.last;
    if covered != last {
        return Err(Flaw::damaged(path, 16, format_args!("it covers the log up to {covered}, not {last}")));
    }
    if to_the_end {
        source.verify()?;
    }
    Ok(source)
}

/// The snapshot with the highest index; `files` is in that order.
fn newest(files: &[SnapshotFile]) -> Option<EntryId> {
    files.iter().find(|file| file.is_whole).map(|file| file.last)
}

/// The order of snapshots.
fn coverage(last: EntryId) -> (Index, Term) {
    (last.index, last.term)
}

const SUFFIX: &str = ".snapshot";
const SUFFIX_UNFINISHED: &str = ".snapshot.new";
const INDEX_DIGITS: usize = 20;

/// The name of the file of the snapshot after this entry.
pub(crate) fn name_of(last: EntryId) -> String {
    format!("{:0INDEX_DIGITS$}-{}{SUFFIX}", last.index.0, last.term.0)
}

fn last_of(name: &str) -> Option<EntryId> {
    let (index, term) = name.strip_suffix(SUFFIX)?.split_once('-')?;
    let last = EntryId::new(Term(term.parse().ok()?), Index(index.parse().ok()?));
    (name_of(last) == name).then_some(last)
}

fn remove_unfinished(disk: &dyn Disk, dir: &Path, names: &[String]) -> Result<Vec<String>, StorageError> {
    let mut removed = Vec::new();
    for name in names.iter().filter(|name| name.ends_with(SUFFIX_UNFINISHED)) {
        let path = dir.join(name);
        disk.remove(&path).map_err(trouble(StorageOp::Remove, &path))?;
        removed.push(format!("removed {}, a snapshot that was never finished", path.display()));
    }
    if !removed.is_empty() {
        disk.sync_dir(dir).map_err(trouble(StorageOp::Sync, dir))?;
    }
    Ok(removed)
}
