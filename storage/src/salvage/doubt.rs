//! Discards what a power cut left of a write that no client was told of.

use crate::{
    contract::{Recovered, StorageError, Unobserved},
    wal::{Wal, log::Log},
};
use quorate_raft::NodeId;
use std::sync::Arc;

/// Opens the directory as a start does, discards the entries at the log's end whose payload is lost and that are not proven to have
/// been durable, and closes it again. Says what is there afterwards. **Only for the only voter of a cluster:** where there are
/// others, an entry that is discarded here may be one that was acknowledged.
///
/// # Errors
/// If the directory is in use, belongs to another member, or can't be recovered or written.
pub fn discard_unproven(wal: &Wal, cluster: &str, member: NodeId) -> Result<Recovered, StorageError> {
    let wal = wal.clone().discard_unproven(true);
    let (_, recovered) = Log::open(&wal, cluster, member, Arc::new(Unobserved)).map_err(|failure| failure.error)?;
    Ok(recovered)
}
