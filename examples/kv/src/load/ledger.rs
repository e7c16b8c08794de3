//! A record of all writes and of the answers that clients got.

use crate::client::ClientError;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// One write, to a key that has no other writer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Write {
    /// The key, unique to this write.
    pub key: String,
    /// The value that was written.
    pub value: String,
    /// The answer that the client got.
    pub outcome: WriteOutcome,
}

/// The answer to a write, as far as a check needs it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteOutcome {
    /// Committed: it must be on every node.
    Acknowledged,
    /// Did not and will not take effect: it must be on no node.
    Refused,
    /// Unknown: it may be on all nodes or on none.
    Unknown,
}

impl WriteOutcome {
    /// Classifies the outcome of a client's call.
    pub fn of<T>(outcome: &Result<T, ClientError>) -> Self {
        match outcome {
            Ok(_) => Self::Acknowledged,
            Err(ClientError::OutcomeUnknown { .. } | ClientError::Unreadable { .. }) => Self::Unknown,
            Err(
                ClientError::Setup(_)
                | ClientError::Mismatch { .. }
                | ClientError::Unreachable { .. }
                | ClientError::Refused { .. },
            ) => Self::Refused,
        }
    }
}

/// All writes. A write is recorded as unknown before it is sent, and updated when its answer
/// arrives, so a writer that is cancelled in between leaves a correct record.
#[derive(Clone, Debug)]
pub struct Ledger {
    book: Arc<Mutex<Book>>,
    acknowledged: watch::Sender<usize>,
}

#[derive(Debug)]
struct Book {
    writes: Vec<Write>,
    /// The time at which each write was sent.
    sent: Vec<Instant>,
    /// The time of the last acknowledgement, or of [`Ledger::watch`].
    last: Instant,
    longest_gap: Duration,
    slowest: Duration,
}

/// The service that clients got since [`Ledger::watch`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Service {
    /// The longest time without an acknowledged write of any client.
    pub longest_gap: Duration,
    /// The longest time that an acknowledged write took.
    pub slowest_write: Duration,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

impl Ledger {
    /// A ledger without entries.
    #[must_use]
    pub fn new() -> Self {
        let (last, zero) = (Instant::now(), Duration::ZERO);
        let book = Book { writes: Vec::new(), sent: Vec::new(), last, longest_gap: zero, slowest: zero };
        Self { book: Arc::new(Mutex::new(book)), acknowledged: watch::Sender::new(0) }
    }

    /// Records a write that is about to be sent; returns its position.
    pub fn begin(&self, key: String, value: String) -> usize {
        let mut book = self.book();
        book.writes.push(Write { key, value, outcome: WriteOutcome::Unknown });
        book.sent.push(Instant::now());
        book.writes.len() - 1
    }

    /// Records the answer to a write.
    pub fn end(&self, place: usize, outcome: WriteOutcome) {
        let mut book = self.book();
        if let Some(write) = book.writes.get_mut(place) {
            write.outcome = outcome;
        }
        if outcome == WriteOutcome::Acknowledged {
            book.acknowledged(place);
            drop(book);
            self.acknowledged.send_modify(|count| *count += 1);
        }
    }

    /// The number of acknowledged writes so far.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        *self.acknowledged.borrow()
    }

    /// Waits until `count` writes are acknowledged.
    pub async fn reaches(&self, count: usize) {
        // The wait can only end early if the sender is dropped, which lives as long as `self`.
        let _ = self.acknowledged.subscribe().wait_for(|acknowledged| *acknowledged >= count).await;
    }

    /// A copy of all recorded writes.
    #[must_use]
    pub fn writes(&self) -> Vec<Write> {
        self.book().writes.clone()
    }

    /// Starts measuring the service.
    pub fn watch(&self) {
        let mut book = self.book();
        (book.last, book.longest_gap, book.slowest) = (Instant::now(), Duration::ZERO, Duration::ZERO);
    }

    /// The service from [`Ledger::watch`] to the last acknowledged write.
    #[must_use]
    pub fn service(&self) -> Service {
        let book = self.book();
        Service { longest_gap: book.longest_gap, slowest_write: book.slowest }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn acknowledged(&mut self, place: usize) {
        let now = Instant::now();
        self.longest_gap = self.longest_gap.max(now.duration_since(self.last));
        self.last = now;
        if let Some(sent) = self.sent.get(place) {
            self.slowest = self.slowest.max(now.duration_since(*sent));
        }
    }
}
