//! Properties of a witness: it neither leads nor keeps commands, and another node holds the entries
//! that are sent to it.

use super::cluster::{Cluster, Durable, is_over};
use quorate_raft::{Batch, Body, Message, NodeId, Persist, Phase};

/// Checks a write that a node requests: the witness writes no commands.
///
/// # Errors
/// The property that does not hold.
pub fn writes(node: NodeId, persist: &Persist, witness: Option<NodeId>) -> Result<(), String> {
    if Some(node) != witness {
        return Ok(());
    }
    let mut records = [&persist.batch, &persist.repair].into_iter().flatten().flat_map(Batch::records);
    match records.any(|record| record.kind.has_stub()) {
        true => Err(format!("tie-break: {node} writes commands")),
        false => Ok(()),
    }
}

/// The witness does not act as a leader or a candidate, and the entries sent to it are durable at a
/// node that keeps commands.
pub(super) fn tie_break(
    witness: NodeId,
    from: NodeId,
    to: NodeId,
    message: &Message,
    cluster: &impl Cluster,
) -> Result<(), String> {
    let leads = match &message.body {
        Body::RequestVote(request) => request.phase == Phase::Vote,
        body => matches!(body, Body::Append(_) | Body::Heartbeat(_) | Body::SnapshotChunk(_)),
    };
    if from == witness && leads {
        return Err(format!("tie-break: {from} keeps no commands, and says {message:?} to {to}"));
    }
    let Body::Append(append) = &message.body else { return Ok(()) };
    let Some(last) = append.batch.as_ref().filter(|_| to == witness).map(Batch::last_id) else { return Ok(()) };
    let is_kept = cluster.disks().any(|(id, disk)| id != witness && disk.holds(last));
    if is_kept || is_over(message.term, cluster) {
        return Ok(());
    }
    Err(format!("tie-break: {from} sends {to} entry {last}, which no other node holds"))
}
