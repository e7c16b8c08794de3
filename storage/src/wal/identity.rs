//! The owner of a directory, which every file names, and the lock of its process.

use quorate_raft::NodeId;
use std::fmt;

/// The owner of the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name of the cluster, at most 255 bytes.
    pub cluster: String,
    /// The member, unique within the cluster.
    pub member: NodeId,
}

/// The most bytes of a cluster's name for which the files have room.
pub(crate) const CLUSTER_BYTES_MAX: usize = 255;

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "member {} of cluster {:?}", self.member, self.cluster)
    }
}

/// The file that a process locks while it has the directory open.
pub(crate) const LOCK: &str = "lock";
