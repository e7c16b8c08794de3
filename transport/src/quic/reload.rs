//! Reloading of credentials while the network runs.

use std::sync::Arc;
use tokio::sync::Notify;

/// Asks a network to read its files again, such as on SIGHUP. Cheap to clone; usable from any
/// thread.
#[derive(Clone, Debug, Default)]
pub struct Reloader {
    asked: Arc<Notify>,
}

impl Reloader {
    /// Asks for a reload now, whether the files have changed or not. Returns at once: the log and the
    /// [`NetworkObserver`](crate::NetworkObserver) have the result. A network that has not
    /// started reads its files again when it starts; one that has ended does nothing.
    pub fn reload(&self) {
        self.asked.notify_one();
    }
}
