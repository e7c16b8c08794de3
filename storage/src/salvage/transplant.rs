//! The directory of a new cluster's first member.

use super::Choice;
use crate::{
    contract::{SnapshotSource, StorageError, StorageOp, Unobserved},
    salvage::overlay::Overlay,
    snapshots::Backup,
    wal::{
        Outcome, Wal,
        log::Log,
        unfinished::{self, Stage},
    },
};
use quorate_raft::{
    Batch, BatchBuilder, ClusterId, Cut, EntryId, HardState, Index, Kind, Membership, NodeId, Persist, SnapshotBase,
    Term, internal,
};
use std::{
    io::Write,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// The only member of the new cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMember {
    /// The new cluster's name: must differ from the old one's.
    pub cluster: String,
    /// The member's id.
    pub member: NodeId,
    /// The address that later members will dial.
    pub address: String,
    /// The time by the operator's clock: in seconds since 1970 it is the new cluster's generation,
    /// unless the data is of a cluster with a higher one.
    pub now: SystemTime,
    /// Drawn at random, for the rest of the new cluster's id, so that two clusters of one name can
    /// be told apart.
    pub random: u128,
}

/// The result of a transplant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transplanted {
    /// The last entry that was kept.
    pub kept: EntryId,
    /// The log's last entry, after `kept`: the new configuration.
    pub last: EntryId,
    /// The new cluster's id.
    pub cluster_id: ClusterId,
}

/// Bytes of entries that are read, and made durable, at a time.
const BYTES_AT_ONCE: usize = 4 << 20;
/// Bytes of a snapshot that are copied at a time.
const PIECE_BYTES: usize = 256 << 10;

/// Makes the directory `into`, which must be empty or not exist, from the chosen ones. When it
/// returns `Ok`, all of it is durable and was read back. **A crash leaves nothing that could be
/// taken for a member's directory**: a node refuses it, or finds nothing.
///
/// # Errors
/// If the name is the old cluster's, the clock is wrong by decades, `into` holds anything, or either
/// side fails. An unfinished directory stays, to be removed.
pub fn transplant(choice: &Choice<'_>, into: &Wal, to: &NewMember) -> Result<Transplanted, StorageError> {
    refuse_same(choice.chosen().cluster(), to)?;
    let to = Target { member: to, cluster_id: new_id(to, choice.generation())? };
    write(into, to, choice.open_snapshot()?, choice.last(), choice.term(), |from| choice.read(from, BYTES_AT_ONCE))
}

/// Like [`transplant`], from a backup alone: the new log begins after the last entry
/// that it covers.
///
/// # Errors
/// As [`transplant`].
pub fn restore(backup: Backup, into: &Wal, to: &NewMember) -> Result<Transplanted, StorageError> {
    refuse_same(backup.cluster(), to)?;
    let SnapshotBase { last, membership, .. } = &backup.snapshot().base;
    let (last, old) = (*last, membership.cluster_id());
    let to = Target { member: to, cluster_id: new_id(to, old.map_or(0, ClusterId::generation))? };
    write(into, to, Some(backup.into_source()), last, last.term, |_| Ok(Vec::new()))
}

/// Checks that `into` may become a new member's directory: it is empty or does not exist.
/// [`transplant`] and [`restore`] check it first; a command that only reports may check it too.
///
/// # Errors
/// If it holds anything, or can't be read.
pub fn check_target(into: &Wal) -> Result<(), StorageError> {
    unfinished::refuse_unless_empty(&*into.disk, &into.dir).map_err(|failure| failure.error)
}

fn refuse_same(cluster: &str, to: &NewMember) -> Result<(), StorageError> {
    if cluster != to.cluster {
        return Ok(());
    }
    Err(StorageError::new(format!(
        "{cluster:?} is the old cluster's name: its members could join the new one by accident; choose another name"
    )))
}

/// The id of a cluster that is made of the data of one of generation `old`.
fn new_id(to: &NewMember, old: u32) -> Result<ClusterId, StorageError> {
    let seconds = to.now.duration_since(UNIX_EPOCH).ok().and_then(|since| u32::try_from(since.as_secs()).ok());
    let Some(seconds) = seconds else {
        return Err(StorageError::new("the clock shows a time before 1970 or after 2106: set it, and try again"));
    };
    let Some(above) = old.checked_add(1) else {
        return Err(StorageError::new(format!(
            "the old cluster has generation {old}, and there is none above it: tokens of the new one would not be higher"
        )));
    };
    Ok(ClusterId::new(seconds.max(above), to.random))
}

/// The new cluster.
#[derive(Clone, Copy)]
struct Target<'a> {
    member: &'a NewMember,
    cluster_id: ClusterId,
}

fn write(
    into: &Wal,
    to: Target<'_>,
    snapshot: Option<Box<dyn SnapshotSource>>,
    kept: EntryId,
    term_seen: Term,
    read: impl Fn(Index) -> Result<Vec<Batch>, StorageError>,
) -> Result<Transplanted, StorageError> {
    let (dir, disk) = (into.dir.as_path(), &*into.disk);
    let line = |failure: crate::wal::Failure| failure.error;
    unfinished::refuse_unless_empty(disk, dir).map_err(line)?;
    let begun = Wal { stage: Stage::Begun, ..into.clone() };
    let (log, _) = Log::open(&begun, &to.member.cluster, to.member.member, Arc::new(Unobserved)).map_err(line)?;
    let new = New { log, last: EntryId::default(), checksum: 0, to };
    let made = new.fill(snapshot, kept, term_seen, read).and_then(|made| {
        made.check(into, to)?;
        unfinished::finish(disk, dir).map_err(line)?;
        Ok(Transplanted { kept, last: made.last, cluster_id: to.cluster_id })
    });
    made.map_err(|error| {
        let dir = dir.display();
        let line = format!("{error}; {dir} is not whole, no node will start on it: remove it before you try again");
        error.with_line(line)
    })
}

/// The new log, unfinished.
struct New<'a> {
    log: Log,
    last: EntryId,
    checksum: u32,
    to: Target<'a>,
}

/// The written content, to compare with what is read back.
struct Made {
    snapshot: Option<SnapshotBase>,
    membership: Membership,
    last: EntryId,
}

impl New<'_> {
    fn fill(
        mut self,
        snapshot: Option<Box<dyn SnapshotSource>>,
        kept: EntryId,
        term_seen: Term,
        read: impl Fn(Index) -> Result<Vec<Batch>, StorageError>,
    ) -> Result<Made, StorageError> {
        let Target { member: NewMember { member, address, .. }, cluster_id } = self.to;
        let membership = Membership::of_addresses([(*member, address.clone())]).with_cluster_id(Some(cluster_id));
        let snapshot = snapshot.map(|source| self.copy_snapshot(source, &membership)).transpose()?;
        loop {
            let batches = read(self.last.index.next())?;
            if batches.is_empty() {
                break;
            }
            batches.iter().try_for_each(|batch| self.append(batch))?;
            self.sync()?;
        }
        if self.last != kept {
            let what =
                format!("entry {} is the last that could be read, not {kept}; survey the directory again", self.last);
            return Err(StorageError::new(what));
        }
        let term = term_seen.next();
        let mut batch = self.batch(term, self.last.index.next(), 0);
        batch.push(Kind::Internal, &internal::generation(cluster_id.generation()));
        batch.push(Kind::Membership, &membership.encode());
        self.persist(batch, Some(HardState::new(term, None)))?;
        self.sync()?;
        // With a synced table, no start has to judge whether this was synced.
        self.log.settle().and_then(|()| self.log.settle()).map_err(|failure| failure.error)?;
        Ok(Made { snapshot, membership, last: self.last })
    }

    /// Copies a snapshot, with the new configuration, and lets the log begin after it.
    fn copy_snapshot(
        &mut self,
        mut source: Box<dyn SnapshotSource>,
        membership: &Membership,
    ) -> Result<SnapshotBase, StorageError> {
        let old = source.snapshot().clone();
        let membership_index = old.base.last.index;
        let base = SnapshotBase { membership: membership.clone(), membership_index, ..old.base };
        let mut sink = self.log.snapshots().begin(base.clone(), Some((old.bytes, old.checksum)))?;
        let (mut buffer, mut at) = (vec![0; PIECE_BYTES], 0);
        loop {
            let count = source.read_at(&mut buffer, at)?;
            if count == 0 {
                break;
            }
            sink.write_all(&buffer[..count]).map_err(|error| StorageError::within(error, StorageOp::Write))?;
            at += count as u64;
        }
        sink.finish()?;
        let cut = Cut { to: base.last, checksum: Some(base.last_checksum) };
        self.stage(&Persist { cut: Some(cut), ..Persist::default() })?;
        (self.last, self.checksum) = (base.last, base.last_checksum);
        Ok(base)
    }

    /// Appends old entries unchanged, except that no-ops replace configurations.
    fn append(&mut self, old: &Batch) -> Result<(), StorageError> {
        let mut batch = self.batch(old.term(), old.first(), old.bytes().len());
        for record in old.records() {
            match record.kind {
                Kind::Membership => batch.push(Kind::Noop, &[]),
                kind => batch.push(kind, record.payload),
            }
        }
        self.persist(batch, None)
    }

    fn batch(&self, term: Term, first: Index, bytes: usize) -> BatchBuilder {
        BatchBuilder::new(crate::checksum, term, first, self.checksum, bytes)
    }

    fn persist(&mut self, batch: BatchBuilder, hard_state: Option<HardState>) -> Result<(), StorageError> {
        let batch = batch.finish();
        if let Some(batch) = &batch {
            (self.last, self.checksum) = (batch.last_id(), batch.checksum());
        }
        self.stage(&Persist { batch, hard_state, ..Persist::default() })
    }

    fn stage(&mut self, persist: &Persist) -> Result<(), StorageError> {
        self.log.stage(persist).map_err(|failure| failure.error)
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.log.sync().map_err(|failure| failure.error)
    }
}

impl Made {
    /// Reads all of it as a start would, without a change.
    fn check(&self, into: &Wal, Target { member: to, .. }: Target<'_>) -> Result<(), StorageError> {
        let over = Wal { stage: Stage::Unfinished, disk: Arc::new(Overlay::over(into.disk.clone())), ..into.clone() };
        let opened: Outcome<_> = Log::open(&over, &to.cluster, to.member, Arc::new(Unobserved));
        let (_, found) = opened.map_err(|failure| failure.error)?;
        let membership = found.memberships.last().map(|(_, membership)| membership);
        let is_same = found.last == self.last
            && found.faulty.is_empty()
            && found.hard_state == HardState::new(self.last.term, None)
            && membership == Some(&self.membership)
            && found.snapshot.map(|snapshot| snapshot.base) == self.snapshot;
        if is_same {
            return Ok(());
        }
        let dir = into.dir.display();
        Err(StorageError::new(format!("{dir} does not hold what was written to it; check the disk and the kernel log")))
    }
}
