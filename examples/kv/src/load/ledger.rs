//! What was written and what the clients were told: a client's side of the promise.

use crate::client::ClientError;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// One write of a key that nobody else writes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Write {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
    /// What became of it.
    pub told: Told,
}

/// What its client was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// It is in the log for good: it must be on every node.
    Acknowledged,
    /// It did not and will not take effect: it must be on none.
    Refused,
    /// It may be on every node or on none.
    Unknown,
}

impl Told {
    /// What an outcome tells.
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

/// Every write, noted as of unknown outcome before it is sent, and corrected when its answer comes: a writer that is
/// cut off in between leaves the right note behind.
#[derive(Clone, Debug)]
pub struct Ledger {
    book: Arc<Mutex<Book>>,
    acknowledged: watch::Sender<usize>,
}

#[derive(Debug)]
struct Book {
    writes: Vec<Write>,
    /// When each was sent.
    sent: Vec<Instant>,
    /// When the last one was acknowledged, or the watch began.
    last: Instant,
    longest_gap: Duration,
    slowest: Duration,
}

/// How clients were served since [`Ledger::watch`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Service {
    /// The longest time in which no write of anybody was acknowledged.
    pub longest_gap: Duration,
    /// The longest that a write took which was acknowledged.
    pub slowest_write: Duration,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

impl Ledger {
    /// One without entries.
    #[must_use]
    pub fn new() -> Self {
        let (last, zero) = (Instant::now(), Duration::ZERO);
        let book = Book { writes: Vec::new(), sent: Vec::new(), last, longest_gap: zero, slowest: zero };
        Self { book: Arc::new(Mutex::new(book)), acknowledged: watch::Sender::new(0) }
    }

    /// Notes a write that is about to be sent, and returns its place.
    pub fn begin(&self, key: String, value: String) -> usize {
        let mut book = self.book();
        book.writes.push(Write { key, value, told: Told::Unknown });
        book.sent.push(Instant::now());
        book.writes.len() - 1
    }

    /// Notes what its client was told.
    pub fn end(&self, place: usize, told: Told) {
        let mut book = self.book();
        if let Some(write) = book.writes.get_mut(place) {
            write.told = told;
        }
        if told == Told::Acknowledged {
            book.acknowledged(place);
            drop(book);
            self.acknowledged.send_modify(|count| *count += 1);
        }
    }

    /// How many were acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        *self.acknowledged.borrow()
    }

    /// Waits until so many are.
    pub async fn reaches(&self, count: usize) {
        // It ends only with the sender, which lives as long as this.
        let _ = self.acknowledged.subscribe().wait_for(|acknowledged| *acknowledged >= count).await;
    }

    /// Everything noted.
    #[must_use]
    pub fn writes(&self) -> Vec<Write> {
        self.book().writes.clone()
    }

    /// Measures the service from now on.
    pub fn watch(&self) {
        let mut book = self.book();
        (book.last, book.longest_gap, book.slowest) = (Instant::now(), Duration::ZERO, Duration::ZERO);
    }

    /// How the service was since [`Ledger::watch`], up to the last acknowledged write.
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
