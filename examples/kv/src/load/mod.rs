//! Load on a cluster, and what became of it: for the [`demo`](crate::demo), and for tests that kill.
//!
//! [`Writers`] write keys of their own as fast as they are answered, and note in a [`Ledger`] what they were told; [`check`]
//! holds that against what the nodes have.

mod check;
mod delay;
mod ledger;
mod writers;

pub use check::{Verdict, check};
pub use delay::MachineDelay;
pub use ledger::{Ledger, Service, Told, Write};
pub use writers::{Pace, Writers, first_write};
