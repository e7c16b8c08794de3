//! The stream of the handles' requests.

use super::messages::Request;
use crate::{
    admission::Admission,
    decisions::{batches::waits_for_more, proposals::BATCH_ENTRIES_MAX},
};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// The requests of handles, as a stream of batches.
pub(crate) struct Requests {
    received: mpsc::UnboundedReceiver<Request>,
    /// Counts the callers that are inside.
    admission: Arc<Admission>,
    /// The turns for which the requests that have arrived have waited for more of them, and since when: a time
    /// of the runtime's clock, which a simulation stops.
    turns: u32,
    since: Option<tokio::time::Instant>,
    busy_poll: Duration,
    /// The time until which to poll again at once instead of sleeping. It is a time of the real
    /// clock, also where the clock of tokio is paused: a task that never sleeps would hold that
    /// clock back forever.
    looking_until: Option<Instant>,
}

impl Requests {
    pub(super) fn new(
        received: mpsc::UnboundedReceiver<Request>,
        admission: Arc<Admission>,
        busy_poll: Duration,
    ) -> Self {
        Self { received, admission, turns: 0, since: None, busy_poll, looking_until: None }
    }
}

impl futures_util::Stream for Requests {
    type Item = Vec<Request>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let waited = self.since.map_or(Duration::ZERO, |since| since.elapsed());
        if waits_for_more(self.received.len(), self.admission.inside(), self.turns, waited) {
            self.since.get_or_insert_with(tokio::time::Instant::now);
            self.turns += 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        (self.turns, self.since) = (0, None);
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

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{FutureExt, StreamExt};

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_for_callers_that_are_inside_until_they_have_asked_or_some_turns_have_passed() {
        let admission = Admission::new(2, 2);
        let _inside = [1, 1].map(|bytes| admission.enter(bytes, None).expect("room"));
        let (ask, received) = mpsc::unbounded_channel();
        let mut requests = Requests::new(received, admission, Duration::ZERO);
        ask.send(Request::RenewLease).expect("it is read");
        assert!(requests.next().now_or_never().is_none(), "the other caller has not asked");
        ask.send(Request::RenewLease).expect("it is read");
        let both = requests.next().now_or_never().flatten().map(|batch| batch.len());
        assert_eq!(both, Some(2), "no caller is left to be waited for");
        ask.send(Request::RenewLease).expect("it is read");
        let one = tokio::time::timeout(Duration::from_secs(1), requests.next()).await;
        assert_eq!(one.expect("it wakes itself").map(|batch| batch.len()), Some(1));
    }
}
