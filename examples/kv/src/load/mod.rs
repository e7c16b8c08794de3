//! Load on a cluster, and a check of its effects: for the [`demo`](crate::demo), and for tests
//! that kill nodes.
//!
//! [`Writers`] write unique keys as fast as they are answered, and record the answers in a
//! [`Ledger`]; [`check`] compares the ledger with the contents of the nodes.

mod check;
mod delay;
mod ledger;
mod writers;

pub(crate) use check::check_counted;
pub use check::{Verdict, check};
pub use delay::MachineDelay;
pub use ledger::{Ledger, Service, Write, WriteOutcome};
pub use writers::{LoadOptions, Writers, first_write};
