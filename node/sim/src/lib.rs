//! Simulation of whole clusters under every fault, each run a function of one seed.
//!
//! A [`Plan`] says which faults a cluster meets, and when; two layers carry it out:
//!
//! - [`Layer::Pure`]: the pure pieces of `quorate-raft`, scheduled at random: internal messages as
//!   well as wire messages are events, in order between any two actors, in any order otherwise.
//!   Millions of steps a second, every invariant checked after every step.
//! - [`Layer::Actors`]: the real actors, the real codec, the real write-ahead log over a
//!   simulated disk, each node with a clock of its own. The replies to callers are
//!   checked for linearizability.
//!
//! At the end of a plan its faults stop, and the cluster must heal, agree and serve.
//!
//! The command `quorate-sim` runs seeds, replays one, shortens a plan that fails, and hunts
//! mutants. Tests of real processes cover the parts that can't be simulated: real QUIC, a
//! real disk, signals.

mod actors;
mod freshness;
pub mod linearizability;
pub mod mutants;
mod outsiders;
pub mod plan;
pub mod pure;
mod report;
pub mod runs;
pub mod saved;
pub mod shrink;
mod trace;

pub use plan::Plan;
pub use report::{Outcome, Report};
pub use trace::Trace;

/// The part of the system that carries a plan out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layer {
    /// The pure pieces of `quorate-raft`, without tasks or I/O.
    Pure,
    /// The real actors, over a simulated network and disk.
    Actors,
}

impl Layer {
    /// Carries out a plan. The same plan has the same outcome and the same trace.
    #[must_use]
    pub fn run(self, plan: &Plan, trace: &mut Trace) -> Outcome {
        match self {
            Self::Pure => pure::run(plan, trace),
            Self::Actors => actors::run(plan, trace),
        }
    }
}
