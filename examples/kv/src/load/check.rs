//! A comparison of the contents of all nodes with the recorded writes.

use super::ledger::{Write, WriteOutcome};
use crate::{
    client::ReadMode,
    cluster::{Cluster, ClusterError},
};
use bytes::Bytes;
use quorate::NodeId;
use quorate_progress::Counter;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::task::JoinSet;

/// Connections per node for reading.
const READERS: usize = 4;

/// The result of a check.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verdict {
    /// The number of acknowledged writes.
    pub acknowledged: usize,
    /// The number of writes of unknown outcome that took effect.
    pub unknown_present: usize,
    /// The number of writes of unknown outcome that did not take effect.
    pub unknown_absent: usize,
    /// The number of refused writes.
    pub refused: usize,
    /// Violations, one line each: an acknowledged write is missing, a refused one is present,
    /// or nodes differ.
    pub broken: Vec<String>,
}

/// Reads all keys locally on the given nodes, and compares them with the writes.
///
/// # Errors
/// If a node does not answer.
pub async fn check(cluster: &Cluster, on: &[NodeId], writes: Vec<Write>) -> Result<Verdict, ClusterError> {
    check_counted(cluster, on, writes, &Counter::default()).await
}

/// As [`check`]; counts the reads, one for each write and node.
pub(crate) async fn check_counted(
    cluster: &Cluster,
    on: &[NodeId],
    writes: Vec<Write>,
    read: &Counter,
) -> Result<Verdict, ClusterError> {
    let writes: Arc<[Write]> = writes.into();
    let mut nodes = Vec::new();
    for &id in on {
        nodes.push((id, read_all(cluster, id, &writes, read).await?));
    }
    let mut verdict = Verdict::default();
    for (at, write) in writes.iter().enumerate() {
        verdict.add(write, &nodes.iter().map(|(id, values)| (*id, values[at].as_deref())).collect::<Vec<_>>());
    }
    Ok(verdict)
}

impl Verdict {
    fn add(&mut self, write: &Write, found: &[(NodeId, Option<&[u8]>)]) {
        let Write { key, value, outcome } = write;
        let present = found.iter().filter(|(_, found)| found.is_some()).count();
        for (id, found) in found {
            if found.is_some_and(|found| found != value.as_bytes()) {
                self.broken.push(format!("{key} has a value on node {id} that no client wrote"));
            }
        }
        let everywhere = present == found.len();
        match outcome {
            WriteOutcome::Acknowledged => {
                self.acknowledged += 1;
                if !everywhere {
                    self.broken.push(format!("{key} was acknowledged and is on {present} of {} nodes", found.len()));
                }
            }
            WriteOutcome::Refused => {
                self.refused += 1;
                if present > 0 {
                    self.broken.push(format!("{key} was refused and is on {present} of {} nodes", found.len()));
                }
            }
            WriteOutcome::Unknown if everywhere => self.unknown_present += 1,
            WriteOutcome::Unknown if present == 0 => self.unknown_absent += 1,
            WriteOutcome::Unknown => self.broken.push(format!("{key} is on {present} of {} nodes", found.len())),
        }
    }
}

async fn read_all(
    cluster: &Cluster,
    id: NodeId,
    writes: &Arc<[Write]>,
    read: &Counter,
) -> Result<Vec<Option<Bytes>>, ClusterError> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        let (mut client, writes, next, read) =
            (cluster.client(&[id])?, Arc::clone(writes), Arc::clone(&next), read.clone());
        readers.spawn(async move {
            let mut found = Vec::new();
            while let Some((at, write)) =
                Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, writes.get(at)?)))
            {
                found.push((at, client.get(&write.key, ReadMode::Local).await?.value));
                read.add(1);
            }
            Ok::<_, ClusterError>(found)
        });
    }
    let mut values = vec![None; writes.len()];
    for found in readers.join_all().await {
        found?.into_iter().for_each(|(at, value)| values[at] = value);
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledged_write_missing_on_one_node_is_broken() {
        assert_eq!(judge(WriteOutcome::Acknowledged, [Some("v"), Some("v"), Some("v")]), 0);
        assert_eq!(judge(WriteOutcome::Acknowledged, [Some("v"), Some("v"), None]), 1);
        assert_eq!(judge(WriteOutcome::Acknowledged, [None, None, None]), 1);
    }

    #[test]
    fn a_write_of_unknown_outcome_is_on_all_nodes_or_on_none() {
        assert_eq!(judge(WriteOutcome::Unknown, [Some("v"), Some("v"), Some("v")]), 0);
        assert_eq!(judge(WriteOutcome::Unknown, [None, None, None]), 0);
        assert_eq!(judge(WriteOutcome::Unknown, [Some("v"), None, None]), 1);
    }

    #[test]
    fn a_refused_write_that_is_anywhere_is_broken() {
        assert_eq!(judge(WriteOutcome::Refused, [None, None, None]), 0);
        assert_eq!(judge(WriteOutcome::Refused, [Some("v"), Some("v"), Some("v")]), 1);
    }

    #[test]
    fn a_value_that_was_never_written_is_broken() {
        assert_eq!(judge(WriteOutcome::Acknowledged, [Some("v"), Some("x"), Some("v")]), 1);
    }

    fn judge(outcome: WriteOutcome, found: [Option<&str>; 3]) -> usize {
        let mut verdict = Verdict::default();
        let write = Write { key: "k".to_owned(), value: "v".to_owned(), outcome };
        let ids = [1, 2, 3].map(NodeId);
        verdict.add(&write, &ids.into_iter().zip(found.map(|value| value.map(str::as_bytes))).collect::<Vec<_>>());
        verdict.broken.len()
    }
}
