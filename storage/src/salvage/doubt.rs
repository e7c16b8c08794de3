//! Discarding the rest of an unacknowledged write after a power failure.

use crate::{
    contract::{Recovered, StorageError, Unobserved},
    wal::{Wal, log::Log},
};
use quorate_raft::NodeId;
use std::sync::Arc;

/// Opens the directory as a start does, discards the entries at the log's end that have a lost
/// payload and are not proven to have been durable, and closes it again. Returns the content
/// afterwards. **Only for the only voter of a cluster:** with other voters, a discarded entry may
/// have been acknowledged.
///
/// # Errors
/// If the directory is in use, belongs to another member, or can't be recovered or written.
pub fn discard_unproven(wal: &Wal, cluster: &str, member: NodeId) -> Result<Recovered, StorageError> {
    let wal = wal.clone().discard_unproven(true);
    let (_, recovered) = Log::open(&wal, cluster, member, Arc::new(Unobserved)).map_err(|failure| failure.error)?;
    Ok(recovered)
}
