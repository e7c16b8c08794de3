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
//! use quorate_storage::StorageHandle;
//! use quorate_storage_testing::{
//!     LossyLog,
//!     conformance::{self, Harness},
//! };
//! use quorate_raft::Index;
//!
//! #[derive(Default)]
//! struct Place(LossyLog);
//!
//! impl Harness for Place {
//!     fn open(&self) -> StorageHandle {
//!         self.0.storage()
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
mod harness;
mod identity;
mod model;
mod probe;
mod repair;
mod snapshots;

pub use harness::{Fault, Harness, OnSimulatedDisk};

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
