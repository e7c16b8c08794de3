//! The state of a walk: one cluster, its surroundings, and what the run has counted so far.
//!
//! The modules beside this one make things happen to it.

use super::{
    agenda::{Agenda, power_of},
    automatic::Automatic,
    client::Clients,
    machine::Machine,
    network::Network,
    operator::Operator,
};
use crate::{Plan, Report, Trace, freshness::Past, plan::Power};
use quorate_raft::{ClockDrift, Credit, Membership, Moment, NodeId};
use quorate_world::{
    disk::Disk,
    fixtures,
    oracle::Oracle,
    rules::{Checks, Rules},
    world::World,
};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// The approximate number of steps in a plan's length: clients rest longer where there
/// would be more.
pub(super) const STEPS: u64 = 10_000;
/// Interval between two looks at timers, clients and the plan.
pub(super) const TICK: Duration = Duration::from_millis(1);

/// A cluster that meets the faults of a plan, and the state of its surroundings.
pub(super) struct Walk<'a> {
    pub(super) plan: &'a Plan,
    pub(super) trace: &'a mut Trace,
    pub(super) report: Report,
    pub(super) random: SmallRng,
    pub(super) world: World,
    pub(super) network: Network,
    /// The number of lives that nodes have had.
    pub(super) lives: u32,
    pub(super) machines: Vec<Machine>,
    pub(super) clients: Clients,
    /// The entries that were committed, and since when.
    pub(super) past: Past,
    pub(super) agenda: Agenda,
    pub(super) operator: Operator,
    pub(super) automatic: Automatic,
    /// Whether the members change, or one is a witness: then no disk loses durable data.
    pub(super) reshapes: bool,
    pub(super) next_tick: Duration,
    /// The average time of a step, in nanoseconds.
    pub(super) pace: u64,
    pub(super) steps: u64,
    pub(super) digest: u64,
    /// Whether a torn write may leave entries of which only the identity is known.
    pub(super) tears: bool,
    /// Whether all members took part before: only such members can tell what they lost.
    pub(super) settled: bool,
    /// Whether logs are ever compacted.
    pub(super) cuts: bool,
    pub(super) reckless: bool,
    pub(super) healing: bool,
    pub(super) full: Option<Oracle>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(plan: &'a Plan, trace: &'a mut Trace, full: Option<Oracle>) -> Self {
        let mut random = SmallRng::seed_from_u64(plan.seed ^ 0x70e5_11fe);
        let nodes = plan.nodes as usize;
        let mut report = Report { runs: 1, ..Report::default() };
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
            && plan.faults.iter().any(|planned| power_of(&planned.fault) == Some(Power::Scattered));
        let snapshots = || plan.faults.iter().any(|planned| planned.fault.kind() == "snapshot");
        let network = Network::new(nodes);
        Self {
            machines: (0..nodes).map(|at| Machine::new(network.lanes_to(at))).collect(),
            cuts: plan.snapshot_every > 0 || snapshots(),
            clients: Clients::new(plan),
            past: Past::new(plan),
            agenda: Agenda::new(plan),
            operator: Operator::default(),
            automatic: Automatic::of(plan),
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

    pub(super) fn now(&self) -> Duration {
        self.world.now.0
    }

    /// Adds a line to the trace, if it keeps text.
    pub(super) fn say(&mut self, text: impl FnOnce() -> String) {
        if self.trace.has_text() {
            let now = self.now();
            self.trace.say(now, &text());
        }
    }

    /// Two walks with the same digest did the same.
    pub(super) fn mix(&mut self, code: u64, id: NodeId) {
        let what = code << 8 | id.0;
        let time = self.world.now.0.as_nanos() as u64;
        self.digest = (self.digest.rotate_left(23) ^ what ^ time << 16).wrapping_mul(0x9e37_79b9_7f4a_7c15);
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
        settings.clock_drift_max = ClockDrift::new(per_mille + told.spared, Duration::from_micros(1));
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
