//! A map from nodes to values. Nodes count from 1, without gaps.

use quorate_raft::NodeId;

/// A value for every node, made when it is first asked for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct PerNode<T>(Vec<T>);

impl<T: Default> PerNode<T> {
    pub(super) fn of(&mut self, id: NodeId) -> &mut T {
        let at = usize::try_from(id.0).unwrap_or(usize::MAX) - 1;
        if at >= self.0.len() {
            self.0.resize_with(at + 1, T::default);
        }
        &mut self.0[at]
    }

    /// The value of a node; `None` before it is made.
    pub(super) fn get(&self, id: NodeId) -> Option<&T> {
        self.0.get(usize::try_from(id.0).unwrap_or(usize::MAX) - 1)
    }
}

impl<T> Default for PerNode<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}
