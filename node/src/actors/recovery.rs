//! The recovery of a node before its actors run: it opens the storage, and restores the state
//! machine from the newest snapshot.

use super::messages::Restore;
use crate::{
    error::{Failure, RestoreError, StartError},
    events::{Events, What},
    observe::ObservedStorage,
};
use actix::prelude::*;
use quorate_raft::{Faulty, Index, Log, NodeId, Replica, Skip, SnapshotBase};
use quorate_storage::{Completions, OpenSnapshot, Recover, Recovered, Storage, StorageError};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Recovers the storage, and gives its content in the form that the rules take. The time of its syncs
/// is told if it means something (`is_timed`): not where all actors share a thread.
pub(super) async fn recover(
    storage: &Storage,
    cluster: &str,
    member: NodeId,
    completions: Completions,
    observer: ObservedStorage,
    events: &Events,
) -> Result<quorate_raft::Recovered, StartError> {
    let request = Recover { cluster: cluster.to_owned(), member, completions, observer: Arc::new(observer) };
    let recovered = storage
        .recover
        .send(request)
        .await
        .map_err(|_| StorageError::new("the storage actor died while it recovered the log"))??;
    let Recovered { hard_state, base, terms, last, last_checksum, faulty, snapshot, memberships, .. } = recovered;
    let covered = snapshot.as_ref().map_or(Index(0), |snapshot| snapshot.base.last.index);
    events.term_is(hard_state.term);
    for repair in &recovered.repairs {
        events.tell(What::RecoveryRepaired { what: repair.clone() });
    }
    if base.index > covered {
        let damaged: Vec<_> = recovered.repairs.iter().filter(|line| line.contains(".snapshot")).cloned().collect();
        let found = if damaged.is_empty() { "no snapshot is there".to_owned() } else { damaged.join("; ") };
        events.tell(What::StateLost { up_to: base.index, found });
    }
    if let Some(first) = faulty.first() {
        events.tell(What::EntriesLost { count: faulty.len() as u64, first: first.id });
    }
    events.tell(What::Recovered { last });
    Ok(quorate_raft::Recovered {
        hard_state,
        log: Log::new(base, terms, last, last_checksum),
        faulty,
        snapshot: snapshot.map(|snapshot| snapshot.base),
        memberships,
        has_voted: recovered.has_voted,
        holdings: recovered.holdings,
    })
}

/// Leaves the state of the newest snapshot out, as if the disk had lost it: a leader's snapshot takes
/// its place. That one must not end earlier, so the log begins after the snapshot that was left out.
pub(super) fn discard_state(events: &Events, recovered: &mut quorate_raft::Recovered) -> Option<SnapshotBase> {
    let base = recovered.snapshot.take()?;
    events.tell(What::StateDiscarded { last: base.last });
    recovered.log.compact(base.last, Some(base.last_checksum));
    recovered.faulty.retain(|faulty| faulty.id.index > base.last.index);
    Some(base)
}

/// The most entries that an error names.
const NAMED_MAX: usize = 8;

/// Refuses to start the only voter if its log lost a part: no other node has a copy to heal it
/// with, and to wait for one would look like a hang.
pub(super) fn refuse_if_alone(replica: &Replica, faulty: &[Faulty]) -> Result<(), StartError> {
    if replica.membership().voters() != [replica.id()] {
        return Ok(());
    }
    if let Some(index) = replica.lost_up_to() {
        return Err(StartError::Storage(StorageError::new(format!(
            "the snapshot that covers the entries up to {index} is missing, damaged or discarded, and this is the only voter: no other \
             node has a copy; put the data directory back from a backup"
        ))));
    }
    if faulty.is_empty() {
        return Ok(());
    }
    let mut named: Vec<_> = faulty.iter().take(NAMED_MAX).map(|entry| entry.id.to_string()).collect();
    named.extend((faulty.len() > NAMED_MAX).then(|| format!("{} more", faulty.len() - NAMED_MAX)));
    let lost = format!(
        "the disk lost the payload of {} ({}, index@term), and this is the only voter: no other node has a copy",
        if faulty.len() == 1 { "an entry".to_owned() } else { format!("{} entries", faulty.len()) },
        named.join(", ")
    );
    let backup = "put the data directory back from a backup";
    if faulty.iter().any(|entry| entry.was_durable) {
        return Err(StartError::Storage(StorageError::new(format!("{lost}; {backup}"))));
    }
    Err(StartError::InDoubt(format!(
        "{lost}; if the power failed while this was written, no client was told that it was, and the storage may discard it \
         (Wal::discard_unproven); otherwise {backup}"
    )))
}

/// Refuses to start if the log ends before an entry that was committed and durable here: its end
/// was lost without a trace.
pub(super) fn refuse_if_tail_lost(replica: &Replica) -> Result<(), StartError> {
    let Some((last, held)) = replica.lost_tail() else { return Ok(()) };
    Err(StartError::Storage(StorageError::new(format!(
        "the log ends at entry {last}, and entry {held} was committed and durable here: the disk lost the end of the log without a \
         trace; remove this member and add a new one with an empty data directory under a new id, or, if it is the only voter, restore \
         a backup"
    ))))
}

/// Refuses to start a witness as a full copy, or a full copy as a witness.
pub(super) fn refuse_if_not_as_configured(replica: &Replica) -> Result<(), StartError> {
    if replica.is_as_configured() {
        return Ok(());
    }
    Err(StartError::Config(Failure::NotAsConfigured { is_witness: replica.is_witness() }.to_string()))
}

/// Restores the state machine from the newest snapshot, on its own thread, and waits for the
/// result. Gives the entries that were skipped up to that snapshot.
pub(super) async fn restore(storage: &Storage, applier: Recipient<Restore>) -> Result<BTreeSet<Skip>, StartError> {
    let source = storage
        .open_snapshot
        .send(OpenSnapshot)
        .await
        .map_err(|_| StorageError::new("the storage actor died while it opened the newest snapshot"))??;
    let (done, restored) = oneshot::channel();
    applier.do_send(Restore { source, done: Some(done) });
    Ok(restored.await.unwrap_or(Err(RestoreError::Panicked))?)
}
