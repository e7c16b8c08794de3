//! The layer of pure pieces: one cluster of `quorate-world`, scheduled at random.
//!
//! A walk makes events happen one after the other, drawn at random: any actor of any node may
//! handle its next task, any node may handle a message of its actors, any message that is first in
//! its lane may arrive. Time advances a little with each, and leaps when nothing else can happen.
//! The faults of the plan come on top. All invariants are checked after every step; when the faults
//! are over, the cluster must come to rest, agree, and serve.
//!
//! - `steps`: one event, its results, and the checks that follow.
//! - `machines`: timers, pauses, crashes and restarts of nodes.
//! - `network`: the delivery of messages.
//! - `faults`: the effect of each fault of a plan.
//! - `damage`: the limits on damage to disks.
//! - `decisions`: the decisions of the product beside the rules.
//! - `clients`: reads and writes; `operators`: membership changes and leadership transfers.
//! - `recovery`: the requirements at the end.
//!
//! Nothing here knows the rules of Raft, only the properties of a cluster as seen from outside.

mod clients;
mod damage;
mod decisions;
mod faults;
mod machines;
mod network;
mod operators;
mod recovery;
mod steps;

use crate::{Outcome, Plan, Report, Trace, plan::Power};
use clients::Clients;
use faults::Agenda;
use machines::Machine;
use network::Network;
use operators::Operator;
use quorate_raft::{ClockDrift, Credit, Membership, Moment, NodeId};
use quorate_world::{
    disk::Disk,
    fixtures,
    oracle::Oracle,
    queues::{self, WRITERS},
    rules::{Checks, Rules},
    world::World,
};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{
    any::Any,
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

/// Carries out a plan. The same plan has the same outcome and the same trace.
#[must_use]
pub fn run(plan: &Plan, trace: &mut Trace) -> Outcome {
    Walk::new(plan, trace, None).ended()
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

/// The approximate number of steps in a plan's length: clients rest longer where there
/// would be more.
const STEPS: u64 = 10_000;
/// The faults end early after this many steps, so that every plan ends.
const STEPS_MAX: u64 = 60_000;
/// Interval between two looks at timers, clients and the plan.
const TICK: Duration = Duration::from_millis(1);

struct Walk<'a> {
    plan: &'a Plan,
    trace: &'a mut Trace,
    report: Report,
    random: SmallRng,
    world: World,
    network: Network,
    /// The number of lives that nodes have had.
    lives: u32,
    machines: Vec<Machine>,
    clients: Clients,
    /// Whether clients may read by lease; they may not where clocks leap.
    leases: bool,
    agenda: Agenda,
    operator: Operator,
    /// Whether the members change, or one is a witness: then no disk loses durable data.
    reshapes: bool,
    next_tick: Duration,
    /// The average time of a step, in nanoseconds.
    pace: u64,
    steps: u64,
    digest: u64,
    /// Whether a torn write may leave entries of which only the identity is known.
    tears: bool,
    /// Whether all members took part before: only such members can tell what they lost.
    settled: bool,
    /// Whether logs are ever compacted.
    cuts: bool,
    reckless: bool,
    healing: bool,
    full: Option<Oracle>,
}

impl<'a> Walk<'a> {
    fn new(plan: &'a Plan, trace: &'a mut Trace, full: Option<Oracle>) -> Self {
        let mut random = SmallRng::seed_from_u64(plan.seed ^ 0x70e5_11fe);
        let nodes = plan.nodes as usize;
        let mut report = Report { runs: 1, ..Report::default() };
        let drift = plan.clock_drift();
        let checks = Checks::Changes;
        let membership = members_at_first(plan);
        report.count("joint", u64::from(membership.as_ref().is_some_and(Membership::is_joint)));
        let reshapes = membership.is_some() || plan.witness.is_some();
        report.count("with a witness", u64::from(plan.witness.is_some()));
        let witness = plan.witness;
        let serves_needs = false;
        let mut rules = Rules { checks, membership, witness, serves_needs, ..Rules::new(fixtures::settings()) };
        // Short enough that leaders stop keeping their log for silent peers within a walk.
        rules.transfer.patience = Duration::from_secs(2);
        let of_each = (1..=plan.nodes).map(NodeId).map(|id| (id, Arc::new(rules_of(plan, id, &rules))));
        let of_each: BTreeMap<_, _> = of_each.collect();
        let differ = of_each.values().any(|rules| rules.settings.promise() != of_each[&NodeId(1)].settings.promise());
        report.count("with different timings", u64::from(differ));
        // A member that is new, or was emptied, can't tell what it lost, and counts as lost
        // itself until it is brought up to date. So disks are damaged only if all members
        // took part before.
        let settled = random.random_bool(0.75);
        let mut disk = Disk::default();
        disk.has_voted = settled;
        let mut world = World::down(vec![disk; nodes], rules);
        world.told = of_each;
        world.now = Moment::default();
        world.timeouts = Some(SmallRng::seed_from_u64(plan.seed ^ 0x5eed));
        let pace = [2_000, 10_000, 50_000, 200_000, 600_000, 1_200_000][random.random_range(0..6)];
        let tears = !reshapes
            && settled
            && plan.faults.iter().any(|planned| faults::power_of(&planned.fault) == Some(Power::Scattered));
        let snapshots = || plan.faults.iter().any(|planned| planned.fault.kind() == "snapshot");
        let network = Network::new(nodes);
        Self {
            machines: (0..nodes).map(|at| Machine::new(network.lanes_to(at))).collect(),
            cuts: plan.snapshot_every > 0 || snapshots(),
            clients: Clients::new(plan),
            leases: drift.is_some(),
            agenda: Agenda::new(plan),
            operator: Operator::default(),
            reshapes,
            plan,
            trace,
            report,
            random,
            world,
            network,
            lives: 0,
            next_tick: Duration::ZERO,
            pace,
            steps: 0,
            digest: plan.seed,
            tears,
            settled,
            reckless: false,
            healing: false,
            full,
        }
    }

    fn ended(mut self) -> Outcome {
        // The pieces panic where they see something impossible: that is a violation, too.
        let walked = catch_unwind(AssertUnwindSafe(|| self.walk()));
        let ended = walked.unwrap_or_else(|panic| Err(format!("panic: {}", words_of(&*panic))));
        if let Err(violation) = &ended {
            self.trace.say(self.now(), violation);
        }
        self.report.steps = self.steps;
        self.report.simulated = self.now();
        self.report.count("commits", self.world.oracle.last_committed().index.0);
        self.report.count("terms", self.world.replicas().map(|replica| replica.term().0).max().unwrap_or_default());
        self.trace.hash(&(self.digest, self.steps, self.now()));
        Outcome { report: self.report, violation: ended.err() }
    }

    fn walk(&mut self) -> Result<(), String> {
        for at in 0..self.machines.len() {
            self.restart(at)?;
        }
        while self.now() < self.plan.length && self.steps < STEPS_MAX {
            self.go_on(self.plan.length)?;
        }
        self.recover()
    }

    fn now(&self) -> Duration {
        self.world.now.0
    }

    /// Makes one event happen; if none can, time leaps to the next one, but not past `end`.
    fn go_on(&mut self, end: Duration) -> Result<(), String> {
        if self.now() >= self.next_tick {
            self.tick()?;
        }
        let mut passed = Duration::from_nanos(self.random.random_range(0..2 * self.pace));
        if !self.choose()? {
            passed = self.next_wake().min(end).saturating_sub(self.now()).max(Duration::from_micros(1));
            self.next_tick = self.now() + passed;
        }
        self.world.now = self.world.now.plus(passed);
        Ok(())
    }

    /// Draws the next event and makes it happen; false if there is none.
    fn choose(&mut self) -> Result<bool, String> {
        const NODES_MAX: usize = 5;
        let now = self.now();
        let mut envelopes = self.network.ready(now);
        let mut work = [(0, 0); NODES_MAX];
        let mut all = 0;
        for (at, machine) in self.machines.iter_mut().enumerate() {
            if machine.idle_until > now {
                envelopes &= !machine.lanes_to;
            } else if let Some(running) = &self.world.nodes[at].running {
                let mut asked = running.asked.waiting();
                if asked & WRITERS != 0 && machine.disk_is_slow(now, &mut self.report) {
                    asked &= !WRITERS;
                }
                work[at] = (asked, running.told.waiting());
                all += work[at].0.count_ones() + work[at].1.count_ones();
            }
        }
        let strays = u32::from(self.network.has_stray(now));
        all += envelopes.count_ones() + strays;
        if all == 0 {
            return Ok(false);
        }
        let mut nth = self.random.random_range(0..all);
        for (at, (asked, told)) in work.into_iter().enumerate() {
            let id = NodeId(at as u64 + 1);
            if nth < asked.count_ones() {
                self.act(id, queues::nth(asked, nth))?;
                return Ok(true);
            }
            nth -= asked.count_ones();
            if nth < told.count_ones() {
                self.listen(id, queues::nth(told, nth))?;
                return Ok(true);
            }
            nth -= told.count_ones();
        }
        let envelope = if nth < envelopes.count_ones() {
            (0..nth).for_each(|_| envelopes &= envelopes - 1);
            self.network.take(envelopes.trailing_zeros() as usize, now)
        } else {
            let machines = &self.machines;
            let idle_until = |to: NodeId| machines[to.0 as usize - 1].idle_until;
            self.network.take_stray(now, idle_until)
        };
        match envelope {
            Some(envelope) => self.arrive(envelope)?,
            None => self.steps += 1,
        }
        Ok(true)
    }
}

/// The rules that one node is started with.
fn rules_of(plan: &Plan, id: NodeId, all: &Rules) -> Rules {
    let told = plan.told(id);
    let mut random = SmallRng::seed_from_u64(told.draws);
    let random = &mut random;
    let mut settings = fixtures::settings();
    (settings.election_timeout_min, settings.election_timeout_max) = (told.shortest, 2 * told.shortest);
    settings.cache_bytes_max = random.random_range(0..2_000);
    settings.unapplied_entries_max = random.random_range(1..20);
    settings.promotion_lag_max = random.random_range(0..20);
    settings.stall_limit = Duration::from_millis(random.random_range(2_000..4_000));
    if let Some(per_mille) = plan.clock_drift() {
        // On some nodes the smallest valid value; the microsecond covers rounding.
        settings.clock_drift_max = ClockDrift { per_mille: per_mille + told.spared, fixed: Duration::from_micros(1) };
    }
    let credit = Credit {
        messages: random.random_range(1..8),
        entries: random.random_range(1..16),
        bytes: random.random_range(100..2_000),
        append_bytes: random.random_range(60..1_000),
        probe_bytes: random.random_range(0..200),
        retry_after: Duration::from_millis(random.random_range(50..150)),
        retry_max: Duration::from_millis(500),
    };
    let keep_entries = plan.keep_entries + u64::from(random.random_bool(0.5)) * random.random_range(0..6);
    Rules { settings, credit, keep_entries, ..all.clone() }
}

/// The first members: some clusters of five start in a joint configuration. Where the members
/// change, some nodes may have to be added first. In all other clusters every node is a
/// member for good.
fn members_at_first(plan: &Plan) -> Option<Membership> {
    let mut random = SmallRng::seed_from_u64(plan.seed ^ 0x2c0f);
    if plan.nodes == 5 && random.random_bool(0.3) {
        return Some(Membership::joint((1..=3).map(NodeId), (3..=5).map(NodeId)));
    }
    let count = random.random_range(1..=plan.nodes);
    plan.changes_members().then(|| Membership::of_voters((1..=count).map(NodeId)))
}

fn words_of(panic: &(dyn Any + Send)) -> &str {
    let words = panic.downcast_ref::<String>().map(String::as_str);
    words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("of something that is no text")
}
