//! Survey: reads a member's directory without a change.

use crate::{
    contract::{Recovered, SnapshotSource, StorageError, StorageOp, Unobserved},
    disk::{Disk, RealDisk},
    salvage::overlay::Overlay,
    wal::{Header, Identity, LOCK, Segment, Wal, hard_state, log::Log},
};
use quorate_raft::{Batch, ClusterId, EntryId, Faulty, HardState, Index, Kind, Membership, NodeId, Term};
use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The content of a member's directory, as the member would recover it at a start.
///
/// The same recovery reads it, over a disk that keeps writes in memory: as much as the newest
/// segment has. Nothing in the directory changes. The survey holds the directory's lock, so that no
/// node runs on it meanwhile.
pub struct Survey {
    dir: PathBuf,
    cluster: String,
    member: NodeId,
    found: Recovered,
    log: Log,
}

/// Bytes of a log that are read at once.
const READ_BYTES: usize = 64 << 10;

/// The reason why a directory can't be surveyed, in one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SurveyError {
    /// It is locked: its member runs, and the cluster may too.
    #[error(transparent)]
    InUse(StorageError),
    /// It does not exist, holds no member's data, or a member would refuse to start on it: the line
    /// says where it is damaged. Another directory may do.
    #[error(transparent)]
    Unusable(StorageError),
}

impl Survey {
    /// Reads a directory.
    ///
    /// # Errors
    /// See [`SurveyError`].
    pub fn of(dir: impl AsRef<Path>) -> Result<Self, SurveyError> {
        Self::on(Arc::new(RealDisk), dir)
    }

    /// [`Survey::of`] on a given disk.
    ///
    /// # Errors
    /// As [`Survey::of`].
    pub fn on(disk: Arc<dyn Disk>, dir: impl AsRef<Path>) -> Result<Self, SurveyError> {
        let dir = dir.as_ref().to_owned();
        let names = disk.list(&dir).map_err(|error| {
            let remedy = "name a data directory, and be allowed to read it";
            SurveyError::Unusable(StorageError::io(StorageOp::Read, &dir, error, remedy))
        })?;
        if disk.lock_to_read(&dir.join(LOCK)).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            let dir = dir.display();
            let line = format!("a node runs on {dir}, or something else reads it; stop that first");
            return Err(SurveyError::InUse(StorageError::new(line)));
        }
        let overlay = Overlay::over(disk);
        let (identity, lost) = identify(&overlay, &dir, &names)?;
        let wal = Wal { disk: Arc::new(overlay), ..Wal::at(&dir) };
        let opened = Log::open(&wal, &identity.cluster, identity.member, Arc::new(Unobserved));
        let (log, mut found) = opened.map_err(|failure| SurveyError::Unusable(failure.error))?;
        if let Some(why) = lost {
            found.hard_state = HardState::new(found.last.term, None);
            found.repairs.insert(
                0,
                format!("term and vote are lost, and whether the newest segment is there is not known: {why}"),
            );
        }
        let survey = Self { dir, cluster: identity.cluster, member: identity.member, found, log };
        if survey.is_of_witness() {
            return Err(SurveyError::Unusable(StorageError::new(format!(
                "{} is of a witness, which keeps no commands; its log ends with entry {}: of what is committed up to there, the others \
                 given may lack something; name the directories of full copies",
                survey.dir.display(),
                survey.last()
            ))));
        }
        Ok(survey)
    }

    /// Whether it holds nothing but stubs, or nothing at all.
    fn is_of_witness(&self) -> bool {
        let is_down_for_it = self.membership().is_some_and(|members| members.witness() == Some(self.member));
        // The state of a full member begins with its sessions.
        let has_no_state = self.found.snapshot.as_ref().is_some_and(|snapshot| snapshot.bytes == 0);
        is_down_for_it || has_no_state || self.first_of_commands() == Some(Kind::Stub)
    }

    /// The kind of the first command or session entry, whole or as a stub.
    fn first_of_commands(&self) -> Option<Kind> {
        let mut next = self.found.base.index.next();
        while next <= self.found.last.index {
            // An unreadable entry is reported where it is needed.
            let batches = self.read(next, self.found.last.index, READ_BYTES).ok()?;
            next = batches.last()?.last().next();
            let mut kinds = batches.iter().flat_map(Batch::records).map(|record| record.kind);
            if let Some(kind) = kinds.find(|kind| !matches!(kind, Kind::Noop | Kind::Membership)) {
                return Some(kind);
            }
        }
        None
    }

    /// Path of the directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The name of the cluster that the directory belongs to.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The member that the directory belongs to.
    #[must_use]
    pub fn member(&self) -> NodeId {
        self.member
    }

    /// The recovered content.
    #[must_use]
    pub fn found(&self) -> &Recovered {
        &self.found
    }

    /// The last entry in its log or its snapshot.
    #[must_use]
    pub fn last(&self) -> EntryId {
        self.found.last
    }

    /// The highest term in its hard state and of its last entry.
    #[must_use]
    pub fn term(&self) -> Term {
        self.found.hard_state.term.max(self.found.last.term)
    }

    /// The newest configuration, committed or not; `None` if its log never had one, and it has no
    /// snapshot: then the nodes' configuration files have it.
    #[must_use]
    pub fn membership(&self) -> Option<&Membership> {
        let in_log = self.found.memberships.last().map(|(_, membership)| membership);
        in_log.or(self.found.snapshot.as_ref().map(|snapshot| &snapshot.base.membership))
    }

    /// The highest generation among the configurations in its log and its snapshot.
    pub(super) fn generation(&self) -> u32 {
        let in_log = self.found.memberships.iter().map(|(_, membership)| membership);
        let of_snapshot = self.found.snapshot.iter().map(|snapshot| &snapshot.base.membership);
        let ids = in_log.chain(of_snapshot).filter_map(Membership::cluster_id);
        ids.map(ClusterId::generation).max().unwrap_or(0)
    }

    /// The entry with exactly this id, if it is held and whole.
    pub(super) fn entry(&self, faulty: &Faulty) -> Result<Option<Batch>, StorageError> {
        let read = self.read(faulty.id.index, faulty.id.index, 0)?;
        Ok(read.into_iter().next().filter(|batch| (batch.last_id(), batch.checksum()) == (faulty.id, faulty.checksum)))
    }

    /// The entries of an inclusive range, up to the first faulty one, as far as they fit into
    /// `bytes_max`, but at least one.
    pub(super) fn read(&self, from: Index, to: Index, bytes_max: usize) -> Result<Vec<Batch>, StorageError> {
        self.log.read(from, to, bytes_max).map_err(|failure| failure.error)
    }

    /// The id and checksum of an entry that its log holds, or begins after.
    pub(super) fn id_at(&self, index: Index) -> Result<Option<(EntryId, u32)>, StorageError> {
        if !(self.found.base.index..=self.found.last.index).contains(&index) {
            return Ok(None);
        }
        self.log.entry(index).map(Some).map_err(|failure| failure.error)
    }

    pub(super) fn open_snapshot(&self) -> Result<Box<dyn SnapshotSource>, StorageError> {
        self.log.snapshots().open_newest()
    }
}

/// The owner of the directory. Term and vote may be lost, because they mean nothing to another
/// cluster: then a segment's header states the owner, a replacement is put in memory, and a line
/// for the operator is added.
fn identify(disk: &Overlay, dir: &Path, names: &[String]) -> Result<(Identity, Option<String>), SurveyError> {
    let lost = if names.iter().any(|name| name == hard_state::NAME) {
        match hard_state::identity(disk, dir) {
            Ok(identity) => return Ok((identity, None)),
            Err(failure) => failure.error.to_string(),
        }
    } else {
        let (dir, file) = (dir.display(), hard_state::NAME);
        format!("{dir} is no whole data directory: it has no {file}; name the directory of another member")
    };
    let segments = names.iter().rev().filter(|name| Segment::sequence_of(name).is_some());
    let owner = segments.filter_map(|name| Header::owner(&*disk.open(&dir.join(name)).ok()?)).next();
    let Some(identity) = owner else { return Err(SurveyError::Unusable(StorageError::new(lost))) };
    hard_state::stand_in(disk, dir, &identity).map_err(|failure| SurveyError::Unusable(failure.error))?;
    Ok((identity, Some(lost)))
}

impl fmt::Debug for Survey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Survey").field("dir", &self.dir).field("found", &self.found).finish_non_exhaustive()
    }
}
