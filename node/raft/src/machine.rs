//! Versions of the state machine, as far as elections depend on them. Their meaning is
//! the service's own.

/// The version that a node's state machine writes, and the versions that it applies.
///
/// A leader's commands and snapshots have the version that its machine writes. A voter grants its
/// vote only to a candidate with a version that it can apply, so a quorum can apply the entries of
/// every leader that is elected. A node of an older release may lead newer ones; a newer one may lead as
/// soon as a quorum applies what it writes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct MachineVersions {
    /// The version of the commands that this node proposes and of the snapshots that it writes.
    pub writes: u32,
    /// The oldest version that it applies.
    pub oldest: u32,
    /// The newest version that it applies.
    pub newest: u32,
}

impl MachineVersions {
    /// Whether the machine applies this version.
    #[must_use]
    pub fn apply(&self, version: u32) -> bool {
        (self.oldest..=self.newest).contains(&version)
    }
}
