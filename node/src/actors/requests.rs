//! The stream of the handles' requests.

use super::messages::Request;
use crate::decisions::proposals::BATCH_ENTRIES_MAX;
use std::{
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// The requests of handles, as a stream: those that have arrived since the last poll
/// form one batch.
pub(crate) struct Requests {
    received: mpsc::UnboundedReceiver<Request>,
    busy_poll: Duration,
    /// The time until which to poll again at once instead of sleeping. It is a time of the real
    /// clock, also where the clock of tokio is paused: a task that never sleeps would hold that
    /// clock back forever.
    looking_until: Option<Instant>,
}

impl Requests {
    pub(super) fn new(received: mpsc::UnboundedReceiver<Request>, busy_poll: Duration) -> Self {
        Self { received, busy_poll, looking_until: None }
    }
}

impl futures_util::Stream for Requests {
    type Item = Vec<Request>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut batch = Vec::new();
        match self.received.poll_recv_many(cx, &mut batch, BATCH_ENTRIES_MAX) {
            Poll::Ready(count) => {
                self.looking_until = (!self.busy_poll.is_zero()).then(|| Instant::now() + self.busy_poll);
                Poll::Ready((count > 0).then_some(batch))
            }
            Poll::Pending => {
                if self.looking_until.is_some_and(|until| Instant::now() < until) {
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
        }
    }
}
