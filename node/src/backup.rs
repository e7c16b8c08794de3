//! A consistent copy of the state, taken while the cluster runs.

use crate::{
    actors::messages::{Request, SourceCaller},
    error::BackupError,
    machine::StateMachine,
    node::Node,
    results::Consistency,
};
use quorate_storage::{StorageError, snapshots::Export};
use tokio::sync::oneshot;

impl<M: StateMachine> Node<M> {
    /// A backup: the file of a snapshot that has every write that any node acknowledged before this
    /// was called. Any node makes one, and the cluster goes on meanwhile.
    ///
    /// The node asks the leader for the commit index, waits until it has applied all entries up to
    /// it, [takes a snapshot](Self::snapshot), which also compacts this node's log, and opens it.
    /// The returned export reads the file piece by piece, and **blocks**: read it on a thread that
    /// may block. It stays readable when newer snapshots replace this one, and holds the space of
    /// the file until it is dropped.
    ///
    /// [`storage::snapshots::Backup`](quorate_storage::snapshots::Backup) reads such a file, and
    /// [`storage::salvage::restore`](quorate_storage::salvage::restore) makes the first member of a
    /// new cluster from it.
    ///
    /// # Errors
    /// If there is no leader, the snapshot can't be taken or opened, too much is in flight, or
    /// the node stops.
    pub async fn backup(&self) -> Result<Export, BackupError> {
        self.read(Consistency::Linearizable, |_| ()).await?;
        let taken = self.snapshot().await?;
        let (answer, answered) = oneshot::channel();
        let shared = &*self.shared;
        shared.requests.send(Request::OpenNewest(SourceCaller { answer })).map_err(|_| BackupError::Stopped)?;
        let source = answered.await.map_err(|_| BackupError::Stopped)?.map_err(BackupError::Failed)?;
        let last = source.snapshot().base.last;
        if last.index < taken.index {
            let what =
                format!("the newest snapshot ends at entry {last}, but one was taken that ends at {}", taken.index);
            return Err(BackupError::Failed(StorageError::new(what)));
        }
        Export::new(source, &shared.cluster, shared.id).map_err(BackupError::Failed)
    }
}
