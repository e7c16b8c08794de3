//! Versions of the state machine, as far as elections mind them. What they mean is the service's business.

/// What a node's state machine writes, and what it applies.
///
/// A leader's commands and snapshots are of the version that its machine writes. So a voter votes only for whoever writes what it can
/// apply, and nobody comes to lead whose entries a quorum could not apply. A node of an older release may lead newer ones;
/// a newer one leads as soon as a quorum applies what it writes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct MachineVersions {
    /// The version of what this node's machine writes: of the commands that its release proposes, and of its snapshots.
    pub writes: u32,
    /// The oldest version that it applies.
    pub oldest: u32,
    /// The newest version that it applies.
    pub newest: u32,
}

impl MachineVersions {
    /// Whether the machine can apply what is of this version.
    #[must_use]
    pub fn apply(&self, version: u32) -> bool {
        (self.oldest..=self.newest).contains(&version)
    }
}
