//! The layer of pure pieces: one cluster of `quorate-world`, scheduled at random.
//!
//! A walk makes events happen one after the other, drawn at random: any actor of any node may
//! handle its next task, any node may handle a message of its actors, any message that is first in
//! its lane may arrive. Time advances a little with each, and leaps when nothing else can happen.
//! The faults of the plan come on top. All invariants are checked after every step; when the faults
//! are over, the cluster must come to rest, agree, and serve.
//!
//! - `schedule`: which event comes next; `steps`: one event, its results, and the checks that follow.
//! - `machines`: timers, pauses, crashes and restarts of nodes.
//! - `network`: the delivery of messages.
//! - `faults`: the effect of each fault of a plan; `damage`: the limits on damage to disks.
//! - `deciding`: the decisions of the product beside the rules, with `commands`, `reads`, `administration`,
//!   `automation`, `snapshots` and `stopping`.
//! - `clients`: reads and writes; `operators`: membership changes and leadership transfers.
//! - `recovery`: the requirements at the end.
//! - `copies`: the comparison of the copies of a service, on a log of its own.
//!
//! All of them act on one `Walk`. `agenda`, `client`, `decisions`, `machine` and
//! `operator` have the state that it consists of.
//!
//! Nothing here knows the rules of Raft, only the properties of a cluster as seen from outside.

mod administration;
mod agenda;
mod automatic;
mod automation;
mod client;
mod clients;
mod commands;
mod copies;
mod damage;
mod deciding;
mod decisions;
mod faults;
mod machine;
mod machines;
mod network;
mod operator;
mod operators;
mod reads;
mod recovery;
mod schedule;
mod snapshots;
mod steps;
mod stopping;
mod walk;

use crate::{Outcome, Plan, Trace};
use quorate_world::oracle::Oracle;
use walk::Walk;

/// Carries out a plan. The same plan has the same outcome and the same trace.
#[must_use]
pub fn run(plan: &Plan, trace: &mut Trace) -> Outcome {
    let mut outcome = Walk::new(plan, trace, None).ended();
    if outcome.violation.is_none() {
        match copies::check(plan.seed) {
            Ok(counts) => counts.into_iter().for_each(|(what, more)| outcome.report.count(what, more)),
            Err(violation) => outcome.violation = Some(violation),
        }
    }
    outcome
}

/// Like `run`, but checks each step twice: also by an oracle that looks at everything, and both
/// must find the same. It takes many times as long.
#[must_use]
pub fn run_checked_twice(plan: &Plan, trace: &mut Trace, damage: Damage) -> Outcome {
    let mut walk = Walk::new(plan, trace, Some(Oracle::default()));
    walk.reckless = damage == Damage::Reckless;
    walk.ended()
}

/// The damage that disks may suffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Damage {
    /// Damage that a cluster must survive.
    Survivable,
    /// Any damage, to see that the checks notice it.
    Reckless,
}
