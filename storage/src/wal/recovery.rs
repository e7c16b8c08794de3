//! Recovery: opens a directory, and proves its owner and that no acknowledged entry is missing, or
//! refuses it, naming file and offset.
//!
//! Every segment is read to its end. Damage to one place of an entry is restored from the other; an
//! entry with a lost record keeps its identity. Only the newest segment can have a torn write,
//! because an older one was synced before it got a successor. The newest one is copied and synced,
//! so that nothing depends on pages that a failed sync left in memory as clean.

use super::{
    CLUSTER_BYTES_MAX, Failure, Identity, LOCK, Outcome, Wal, failed,
    hard_state::{self, HardStateFile},
    header::Layout,
    headroom::{self, Space},
    holdings,
    inventory::Inventory,
    log::Log,
    named_ahead,
    next_segment::{self, NextSegment},
    segment::{SEQUENCE_MAX, Segment, damaged},
    shortage::Shortages,
};
use crate::{
    contract::{Recovered, StorageObserver, StorageOp},
    disk::Disk,
    snapshots::SnapshotStore,
};
use quorate_raft::NodeId;
use std::{any::Any, io, path::Path, sync::Arc};

impl Log {
    /// Locks a directory, and recovers its log.
    pub(crate) fn open(
        wal: &Wal,
        cluster: &str,
        member: NodeId,
        observer: Arc<dyn StorageObserver>,
    ) -> Outcome<(Self, Recovered)> {
        let (dir, disk) = (&wal.dir, &*wal.disk);
        let lock = lock(disk, dir, cluster)?;
        let identity = Identity { cluster: cluster.to_owned(), member };
        let names = disk.list(dir).map_err(failed(StorageOp::Read, dir))?;
        wal.stage.check(disk, dir, &names)?;
        let mut sequences: Vec<u64> = names.iter().filter_map(|name| Segment::sequence_of(name)).collect();
        sequences.sort_unstable();
        if let Some(sequence) = sequences.last().copied().filter(|newest| *newest > SEQUENCE_MAX) {
            let path = dir.join(Segment::name(sequence));
            return Err(Failure::open(damaged(&path, 0, "no log has so many segments")));
        }
        let hard_state = Arc::new(open_hard_state(wal, &identity, &names, &sequences)?);
        named_ahead::remove_unused(disk, dir, &mut sequences, &hard_state)?;
        next_segment::remove_leftovers(disk, dir)?;
        holdings::remove_leftover(disk, dir)?;
        let (holdings, unreadable) = holdings::read(disk, dir, &identity)?;
        let (snapshots, found) = SnapshotStore::open(wal.disk.clone(), dir, cluster, member, observer.clone())
            .map_err(Failure::of(StorageOp::Open))?;
        let snapshot = found.snapshots.into_iter().next();

        let mut inventory = Inventory { repairs: found.repairs, ..Inventory::default() };
        inventory.repairs.extend(unreadable);
        let mut next_segment = NextSegment::new(wal.disk.clone(), dir, Layout::of(wal.sizes, 0, 0), hard_state.clone());
        let files =
            inventory.read(wal, &identity, &sequences, hard_state.state(), snapshot.as_ref(), &mut next_segment)?;
        let has_headroom = headroom::reserve(disk, dir, wal.sizes.headroom)?;
        let mut log = Self {
            disk: wal.disk.clone(),
            dir: dir.clone(),
            identity,
            sizes: wal.sizes,
            hard_state,
            staged_state: None,
            sealed: files.sealed,
            active: files.active,
            is_published: false,
            is_named: false,
            staged: Vec::new(),
            staged_bytes: 0,
            staged_slots: Vec::new(),
            staged_places: Vec::new(),
            staged_after: 0,
            last_group: (0, 0),
            late_slots: Vec::new(),
            is_table_synced: true,
            closing: None,
            marks: files.marks,
            superseded: files.superseded,
            cut_off: Vec::new(),
            cut_to: None,
            repaired: Vec::new(),
            cleared: Vec::new(),
            base: inventory.base,
            base_checksum: inventory.base_checksum,
            terms: inventory.terms,
            last: inventory.last,
            last_checksum: inventory.last_checksum,
            faulty: inventory.faulty,
            holdings,
            space: if has_headroom { Space::Enough } else { Space::None },
            next_segment,
            shortages: Shortages::new(Arc::clone(&observer)),
            on_full: None,
            snapshots,
            observer,
            lock,
        };
        log.publish()?;
        if wal.discards_unproven {
            log.discard_unproven(&mut inventory.repairs)?;
        }
        inventory.memberships.retain(|(index, _)| *index <= log.last.index);
        let recovered = Recovered {
            hard_state: log.hard_state.state(),
            base: log.base,
            terms: log.terms.clone(),
            last: log.last,
            last_checksum: log.last_checksum,
            faulty: log.faulty.clone(),
            snapshot,
            memberships: inventory.memberships,
            has_voted: log.hard_state.has_voted(),
            holdings: log.holdings.iter().map(|(member, index)| (*member, *index)).collect(),
            repairs: inventory.repairs,
        };
        // Checked here, not only after a sync: the recovered entries may fill the segment, and the
        // caller must learn whether there is space for another.
        log.prepare();
        Ok((log, recovered))
    }

    /// Drops the entries at the end that are lost and not proven to have been synced, as the rest
    /// of a torn write.
    fn discard_unproven(&mut self, repairs: &mut Vec<String>) -> Outcome<()> {
        let Some(first) = self.faulty.iter().position(|faulty| !faulty.was_durable) else { return Ok(()) };
        if self.faulty[first..].iter().any(|faulty| faulty.was_durable) {
            return Ok(());
        }
        let (from, last) = (self.faulty[first].id, self.last);
        self.truncate(from.index, None)?;
        self.sync()?;
        repairs.push(format!(
            "discarded entries {from} to {last}, which are not proven to have been durable, as configured"
        ));
        self.forget_discarded()
    }
}

/// Locks a directory for a cluster of this name; creates it if it does not exist.
pub(crate) fn lock(disk: &dyn Disk, dir: &Path, cluster: &str) -> Outcome<Box<dyn Any + Send + Sync>> {
    if cluster.len() > CLUSTER_BYTES_MAX {
        let what = format_args!("the cluster's name has more than {CLUSTER_BYTES_MAX} bytes; choose a shorter one");
        return Err(Failure::open(what));
    }
    disk.create_dir(dir).map_err(failed(StorageOp::Create, dir))?;
    disk.lock(&dir.join(LOCK)).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => Failure::open(format_args!(
            "{} is in use by another process; stop that one or choose another data directory",
            dir.display()
        )),
        _ => failed(StorageOp::Open, &dir.join(LOCK))(error),
    })
}

fn open_hard_state(wal: &Wal, identity: &Identity, names: &[String], sequences: &[u64]) -> Outcome<HardStateFile> {
    let (dir, disk) = (&wal.dir, &*wal.disk);
    let is_new = sequences.is_empty() && !names.iter().any(|name| name.ends_with(".snapshot"));
    let hard_state = if names.iter().any(|name| name == hard_state::NAME) {
        HardStateFile::open(disk, dir, identity)?
    } else if is_new {
        HardStateFile::create(disk, dir, identity)?
    } else {
        return Err(Failure::open(format_args!(
            "{} holds a log but no {}: term and vote are lost; remove this member and add it under a new id",
            dir.display(),
            hard_state::NAME
        )));
    };
    if hard_state.segment() > sequences.last().copied().unwrap_or(0) {
        let path = dir.join(Segment::name(hard_state.segment()));
        return Err(Failure::open(damaged(&path, 0, "the segment is missing")));
    }
    Ok(hard_state)
}
