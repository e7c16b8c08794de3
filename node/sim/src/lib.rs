//! Whole clusters under every fault, each a function of one seed.
//!
//! Trust is earned by what was tried. A [`Plan`] says what goes wrong with a cluster, and when; two layers carry it out:
//!
//! - [`Layer::Pure`]: the pure pieces of `quorate-raft`, scheduled by us: internal messages as well as wire messages are events,
//!   in order between any two actors, in any order otherwise. Millions of steps a second, every invariant after every step.
//! - [`Layer::Actors`]: the real actors, the real codec, the real write-ahead log over a simulated disk, each node with a clock
//!   of its own. What callers were told is checked for linearizability.
//!
//! At the end of a plan its faults stop, and the cluster must heal, agree and serve.
//!
//! The command `quorate-sim` runs seeds, replays one, shortens a plan that fails, and lets mutants live. What can't be simulated
//! (real QUIC, a real disk, signals) stays with the tests of real processes.

mod actors;
pub mod hunt;
pub mod linearizability;
mod outsiders;
pub mod plan;
pub mod pure;
mod report;
pub mod runs;
pub mod saved;
pub mod shrink;
mod trace;

pub use plan::Plan;
pub use report::Report;
pub use trace::Trace;

/// What carries a plan out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layer {
    /// The pure pieces.
    Pure,
    /// The real actors.
    Actors,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What it did.
    pub report: Report,
    /// What must hold and did not, as in `election safety: 1 and 2 both led term 3`: the property, a colon, the facts.
    pub violation: Option<String>,
}

impl Layer {
    /// Carries out a plan. Same plan, same outcome, same trace.
    #[must_use]
    pub fn run(self, plan: &Plan, trace: &mut Trace) -> Outcome {
        match self {
            Self::Pure => pure::run(plan, trace),
            Self::Actors => actors::run(plan, trace),
        }
    }
}
