//! The node's monotonic clock. Rules see moments since the node started, never a wall clock.

use quorate_raft::Moment;
use tokio::time::Instant;

/// Gives moments. Tokio's clock, so that tests can pause it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { started: Instant::now() }
    }

    pub(crate) fn now(self) -> Moment {
        Moment(self.started.elapsed())
    }
}
