//! The duties of every storage actor, as a suite of checks for any implementation.
//!
//! ```no_run
//! # async fn example() {
//! use quorate_storage::{Memory, MemoryLog};
//! use quorate_storage_testing::conformance;
//!
//! // Each call makes a new, empty place; its result opens that place, as often as it is called.
//! conformance::run(|| {
//!     let log = MemoryLog::new();
//!     move || Memory::shared(&log).storage()
//! })
//! .await;
//! # }
//! ```
//!
//! Run it within an actix `System` (for example under `#[actix::test]`). It panics with
//! the first violation.
//!
//! A function that opens a place is the minimum. A [`Harness`] that can also cut the power, make a
//! write fail or damage stored data gets the checks that need it; the [`Report`] lists the skipped
//! ones. A whole one, for a store in memory that can lose entries:
//!
//! ```
//! use quorate_storage::{Memory, MemoryLog, StorageHandle};
//! use quorate_storage_testing::conformance::{self, Harness};
//! use quorate_raft::Index;
//!
//! #[derive(Default)]
//! struct Place(MemoryLog);
//!
//! impl Harness for Place {
//!     fn open(&self) -> StorageHandle {
//!         Memory::shared(&self.0).storage()
//!     }
//!
//!     fn lose(&self, entry: Index) -> bool {
//!         self.0.lose(entry, true)
//!     }
//! }
//!
//! # actix::System::new().block_on(async {
//! let report = conformance::run(Place::default).await;
//! assert_eq!(report.skipped, ["power cuts", "failing writes and syncs", "damage"]);
//! # });
//! ```
//!
//! A store must keep the observer that came with [`Recover`](quorate_storage::Recover) for as long
//! as it holds anything that a second opener would find locked: the suite opens a place again when
//! the observer of the first opener is dropped.

mod crashes;
mod cut;
mod damage;
mod entries;
mod identity;
mod model;
mod probe;
mod repair;
mod snapshots;

use quorate_raft::Index;
use quorate_storage::contract::StorageHandle;

/// A place for a store's data, and the faults that a test can inject there. Each method but the
/// first returns whether it can inject its fault; by default none does.
pub trait Harness {
    /// A storage actor over this place, not yet started. It finds the data of earlier ones.
    fn open(&self) -> StorageHandle;

    /// Cuts the power, while a store may be open and busy: data that was not durable is lost, in
    /// part or whole, as `seed` chooses, and the old store has no further effect here. The next
    /// store opens the rest.
    fn crash(&self, seed: u64) -> bool {
        let _ = seed;
        false
    }

    /// Makes the next operation of this kind of the open store fail, once.
    fn fail_next(&self, fault: Fault) -> bool {
        let _ = fault;
        false
    }

    /// Damages the payload of an entry, while no store is open, and no other record of its
    /// identity. For stores that can tell
    /// ([`Recovered::faulty`](quorate_storage::Recovered::faulty)).
    fn lose(&self, entry: Index) -> bool {
        let _ = entry;
        false
    }

    /// Flips one stored bit, while no store is open; `seed` chooses it.
    fn damage(&self, seed: u64) -> bool {
        let _ = seed;
        false
    }
}

impl<Open: Fn() -> StorageHandle> Harness for Open {
    fn open(&self) -> StorageHandle {
        self()
    }
}

/// Kinds of operations that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A write to the disk.
    Write,
    /// A sync of written data.
    Sync,
}

/// The result of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The checks that were skipped, because the [`Harness`] can't inject their faults.
    pub skipped: Vec<&'static str>,
}

/// Runs every check, each in a new place.
///
/// # Panics
/// If one does not hold.
pub async fn run<H: Harness>(fresh: impl Fn() -> H) -> Report {
    entries::run(&fresh).await;
    identity::run(&fresh).await;
    snapshots::run(&fresh).await;
    cut::run(&fresh).await;
    let optional = [
        ("lost entries", repair::run(&fresh).await),
        ("power cuts", crashes::run(&fresh).await),
        ("failing writes and syncs", crashes::run_failing(&fresh).await),
        ("damage", damage::run(&fresh).await),
    ];
    Report { skipped: optional.into_iter().filter(|(_, was_run)| !was_run).map(|(name, _)| name).collect() }
}
