//! The handle of a watch of the cluster.

use super::view::ClusterView;
use std::sync::Arc;
use tokio::sync::watch;

/// The views of the cluster that a node makes while it is watched.
pub(crate) type Views = Option<Arc<ClusterView>>;

/// A watch of the cluster: the states of all members, brought together at one node. The node
/// collects them while a watch exists, and stops soon after the last one is dropped.
#[derive(Debug)]
pub struct ClusterWatch {
    views: watch::Receiver<Views>,
}

impl ClusterWatch {
    pub(crate) fn new(mut views: watch::Receiver<Views>) -> Self {
        views.mark_changed();
        Self { views }
    }

    /// Waits for a view that this watch has not returned yet: about ten a second. A slow caller
    /// skips views. `None` once the node has ended.
    pub async fn next(&mut self) -> Option<Arc<ClusterView>> {
        loop {
            self.views.changed().await.ok()?;
            if let Some(view) = self.views.borrow_and_update().clone() {
                return Some(view);
            }
        }
    }
}
