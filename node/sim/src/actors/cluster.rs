//! A simulated cluster: its parts, and the deaths and starts of its nodes.

use super::{
    clients::Clients,
    machine::Registers,
    member::{self, Member, State, address_of},
    observer::SharedObserver,
    operators::Operator,
    process::Process,
    sessions,
    sound_disks::may_scatter,
    timers,
    wire::{Endpoint, Wire},
};
use crate::plan::{Fault, Plan, Planned, Power};
use quorate::{NodeId, Snapshots, metrics::Metrics};
use quorate_raft::Term;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{collections::BTreeMap, time::Duration};

/// The cluster under a plan, as one run carries it out.
pub(super) struct Cluster<'a> {
    pub(super) plan: &'a Plan,
    pub(super) now: Duration,
    pub(super) random: SmallRng,
    pub(super) members: Vec<Member>,
    pub(super) wire: Wire,
    pub(super) clients: Clients,
    pub(super) operator: Operator,
    pub(super) metrics: Metrics,
    /// Faults of the plan that have not begun.
    pub(super) ahead: std::slice::Iter<'a, Planned>,
    /// The faults in effect, with their ends.
    pub(super) under_way: Vec<(Duration, &'a Fault)>,
    /// The leader of each term that had one.
    pub(super) leaders: BTreeMap<Term, NodeId>,
    /// The node that told of its election, for each term.
    pub(super) elected: BTreeMap<Term, NodeId>,
    pub(super) observer: SharedObserver,
}

impl<'a> Cluster<'a> {
    pub(super) fn new(plan: &'a Plan, observer: &SharedObserver) -> Self {
        let wire = Wire::new(plan.seed, observer.clone());
        Self {
            plan,
            now: Duration::ZERO,
            random: SmallRng::seed_from_u64(plan.seed ^ 0xac7012),
            members: (1..=plan.nodes).map(|id| Member::new(NodeId(id), plan.told(NodeId(id)))).collect(),
            wire,
            clients: Clients::new(plan, observer.clone()),
            operator: Operator::default(),
            metrics: Metrics::new(),
            ahead: plan.faults.iter(),
            under_way: Vec::new(),
            leaders: BTreeMap::new(),
            elected: BTreeMap::new(),
            observer: observer.clone(),
        }
    }

    /// A node dies with its unsynced writes treated as `power` says, and starts again after `down`.
    pub(super) fn kill(&mut self, id: NodeId, power: Power, down: Duration) {
        let seed = self.random.random();
        let torn = self.random.random_range(0..3_000);
        let may_scatter = may_scatter(&self.members, &self.observer) && !self.plan.spares_disks();
        let power = if power == Power::Scattered && !may_scatter { Power::Torn } else { power };
        if !self.is_up(id) {
            return;
        }
        // Messages that its actors send while they are dropped reach no other node.
        self.wire.remove(id);
        self.observer.lock().disk(id).disk.halt();
        let until = self.now + down;
        self.member(id).died(until);
        self.clients.died(self.now, id);
        let mut observer = self.observer.lock();
        observer.disk(id).disk.crash(member::fate(power, seed, torn));
        observer.report.count(member::what_is_left(power), 1);
        observer.trace.hash(&("dies", id));
        observer.say(format_args!("{id} dies, its unsynced writes: {power:?}"));
    }

    /// Starts the nodes that have reached the end of their downtime.
    pub(super) fn start_due(&mut self) {
        for at in 0..self.members.len() {
            let member = &mut self.members[at];
            if matches!(member.state, State::Down { until } if until <= self.now) {
                self.start(at);
            }
        }
    }

    fn start(&mut self, at: usize) {
        let (plan, id) = (self.plan, self.members[at].id);
        let snapshots = Snapshots::default()
            .with_every_entries(plan.snapshot_every)
            .with_every_bytes(0)
            .with_keep_entries(plan.keep_entries + self.members[at].told.draws % 5);
        let lives = self.members[at].next_life();
        let release = timers::are_used(plan).then(|| self.release_of(at, lives));
        let builder = quorate::Node::builder(id, "simulated")
            .voters((1..=plan.nodes).map(|id| (NodeId(id), address_of(NodeId(id)))));
        let builder = match plan.witness {
            Some(witness) => builder.witness(witness),
            None => builder,
        };
        let builder = builder
            .network(Endpoint(self.wire.clone()))
            .storage(self.members[at].storage(plan, &self.observer))
            .timing(self.members[at].timing(plan))
            .limits(self.members[at].limits())
            .snapshots(snapshots)
            .sessions(sessions::bounds(plan))
            .metrics(&self.metrics)
            .seed(plan.seed << 20 | lives << 4 | id.0);
        // A service raises the version that it writes by itself.
        let builder = match release {
            Some(release) => builder.writes_version(0).applies_versions(0..=release),
            None => builder.writes_version(self.members[at].release),
        };
        self.observer.lock().say(format_args!("{id} starts, of release {}", self.members[at].next_release()));
        let machine = Registers::new(id, release, member::ballast(plan), self.observer.clone());
        let started = Process::start(builder, machine, &self.observer);
        let (now, sole) = (self.now, plan.nodes == 1);
        let mut observer = self.observer.lock();
        let member = &mut self.members[at];
        match started {
            Ok(process) => {
                member.state = State::Up(Box::new(process));
                observer.report.count("starts", 1);
            }
            Err(error) => {
                let words = error.to_string();
                observer.say(format_args!("{id} does not start: {words}"));
                let disk = observer.disk(id);
                // Recovery repairs damage, for an entry has two places. Unreadable data is
                // left to the operator, and so is misplaced data that could be the end of
                // the acknowledged log.
                let is_out = disk.is_damaged && (disk.disk.is_worn() || disk.is_misplaced);
                let may_wait = disk.disk.is_halted() || member.is_full || member.fails_with.is_some();
                disk.disk.crash(quorate_storage_testing::Crash::Keep);
                self.wire.remove(id);
                member.died(now + Duration::from_millis(100));
                if observer.releases.explain(member, &words) {
                    observer.report.count("releases too old", 1);
                    member.is_mended(observer.twin.version());
                } else if sole && words.contains("discard_unproven") {
                    member.discards = true;
                } else if may_wait {
                    member.fails_with = None;
                } else if is_out {
                    observer.report.count("refused for good", 1);
                    member.state = State::Out;
                } else {
                    observer.fail(format!("recovery: node {id} does not start, and could: {words}"));
                }
            }
        }
    }

    /// The release of the typed service with which a member starts.
    fn release_of(&mut self, at: usize, lives: u64) -> u32 {
        let releases: Vec<_> = self.members.iter().map(|member| member.release).collect();
        let (draw, has_faults) = (self.random.random_range(0..100), self.now < self.plan.length);
        let member = &mut self.members[at];
        let next = Plan::next_release(member.release, releases.into_iter());
        member.is_rolled_back = false;
        if lives > 1 && has_faults {
            member.choose_release(draw, next);
        }
        let release = member.next_release();
        member.running = release;
        self.observer.lock().releases.started(member.id, release);
        release
    }

    pub(super) fn is_up(&self, id: NodeId) -> bool {
        matches!(self.members[id.0 as usize - 1].state, State::Up(_))
    }

    pub(super) fn member(&mut self, id: NodeId) -> &mut Member {
        &mut self.members[id.0 as usize - 1]
    }

    pub(super) fn ids(&self) -> Vec<NodeId> {
        self.members.iter().map(|member| member.id).collect()
    }
}
