//! A simulated cluster in time: the world, with the time of each delivery, timer and write. One step
//! is one of them, the earliest first. Nothing here reads a clock: equal seeds and equal deeds give
//! equal clusters.
//!
//! **Bounds.** At most [`FLIGHTS_MAX`] messages are on their way; the oldest are lost then. A log is
//! compacted once [`LOG_ENTRIES`] entries are applied.

use super::{
    news::{News, Observer},
    scenarios::Script,
    words,
};
use quorate::{NodeId, Term};
use quorate_raft::{Credit, Membership, Moment, Settings};
use quorate_world::{
    disk::Disk,
    events::{Actor, Ask, Event},
    fixtures,
    node::Note,
    rules::{Checks, Rules},
    world::{Envelope, World},
};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

pub(super) const HEARTBEAT: Duration = Duration::from_millis(500);
pub(super) const ELECTION: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(4));
/// The time that a message takes, at least and at most.
const LATENCY_MS: (u64, u64) = (200, 400);
/// The time that a disk takes for a write.
const WRITE: Duration = Duration::from_millis(80);
/// The messages on their way, at most.
const FLIGHTS_MAX: usize = 400;
/// Entries that are applied before a log is compacted.
const LOG_ENTRIES: u64 = 40;
/// The time by which a message is delayed by hand.
pub(super) const DELAY: Duration = Duration::from_secs(1);

/// A message on its way.
#[derive(Clone, Hash, Debug)]
pub(super) struct Flight {
    pub(super) id: u64,
    pub(super) envelope: Arc<Envelope>,
    pub(super) sent: Duration,
    pub(super) due: Duration,
}

/// An event that is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// The message with this id arrives.
    Arrival(u64),
    /// The election timer of a node runs out.
    Timer(NodeId),
    /// The heartbeats of a leader are due.
    Heartbeat(NodeId),
    /// The disk of a node completes a task.
    Disk(NodeId),
    /// The snapshot of a node is durable.
    Keeper(NodeId),
    /// A node begins to take a snapshot.
    Snapshot(NodeId),
}

/// The moment of a crash that is planned.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Trap {
    /// When its next write begins: nothing of it is on the disk.
    BeforeWrite,
    /// When its next write is on the disk, before anything that waits for it is sent.
    AfterWrite,
}

/// The cluster, and the time of each event to come.
#[derive(Clone)]
pub(super) struct Simulation {
    pub(super) world: World,
    pub(super) flights: Vec<Flight>,
    pub(super) traps: BTreeMap<NodeId, Trap>,
    pub(super) observers: BTreeMap<NodeId, Observer>,
    /// The nodes that are down, and since when.
    pub(super) down: BTreeMap<NodeId, Duration>,
    /// Times that messages take on some links, in place of random ones.
    pub(super) latencies: BTreeMap<(NodeId, NodeId), Duration>,
    /// Messages for which it holds are lost when they are sent.
    pub(super) loses: Option<fn(&Simulation, &Envelope) -> bool>,
    pub(super) script: Script,
    /// The last step or deed in words.
    pub(super) last: String,
    /// The violated property, after which nothing happens any more.
    pub(super) broken: Option<String>,
    /// Events since they were last taken.
    pub(super) news: Vec<News>,
    random: SmallRng,
    next_flight: u64,
    pub(super) commands: u64,
    disks: BTreeMap<NodeId, Duration>,
    keepers: BTreeMap<NodeId, Duration>,
    beats: BTreeMap<NodeId, (Term, Duration)>,
    /// The applied entry at which a snapshot was last begun.
    snapshots: BTreeMap<NodeId, u64>,
}

impl Simulation {
    /// A cluster of nodes with these disks, all of which start. Without a configuration every node
    /// votes.
    pub(super) fn new(seed: u64, disks: Vec<Disk>, membership: Option<Membership>) -> Self {
        let settings = Settings {
            election_timeout_min: ELECTION.0,
            election_timeout_max: ELECTION.1,
            stall_limit: Duration::from_secs(30),
            ..fixtures::settings()
        };
        let credit = Credit { retry_after: 3 * HEARTBEAT, retry_max: 6 * HEARTBEAT, ..Credit::default() };
        let mut rules = Rules { prompt: true, checks: Checks::Changes, observed: true, ..Rules::new(settings) };
        (rules.credit, rules.membership, rules.keep_entries) = (credit, membership, 4);
        (rules.snapshot_bytes, rules.transfer.chunk_bytes, rules.transfer.window_bytes) = (4_096, 2_048, 4_096);
        rules.transfer.patience = Duration::from_secs(30);
        let mut world = World::down(disks, rules);
        (world.now, world.timeouts) = (Moment::default(), Some(SmallRng::seed_from_u64(seed)));
        let mut simulation = Self {
            observers: world.ids().map(|id| (id, Observer::default())).collect(),
            world,
            flights: Vec::new(),
            traps: BTreeMap::new(),
            down: BTreeMap::new(),
            latencies: BTreeMap::new(),
            loses: None,
            script: Script::default(),
            last: String::new(),
            broken: None,
            news: Vec::new(),
            random: SmallRng::seed_from_u64(seed ^ 0x71fe),
            next_flight: 1,
            commands: 0,
            disks: BTreeMap::new(),
            keepers: BTreeMap::new(),
            beats: BTreeMap::new(),
            snapshots: BTreeMap::new(),
        };
        for id in simulation.world.ids() {
            simulation.start(id);
        }
        simulation
    }

    pub(super) fn now(&self) -> Duration {
        self.world.now.0
    }

    pub(super) fn ids(&self) -> Vec<NodeId> {
        self.world.ids().collect()
    }

    pub(super) fn is_up(&self, id: NodeId) -> bool {
        self.world.running(id).is_some()
    }

    /// The leader of the highest term.
    pub(super) fn leader(&self) -> Option<NodeId> {
        self.world.leaders().first().map(|(_, id)| *id)
    }

    /// The event that is due first, and its time.
    pub(super) fn next(&self) -> Option<(Duration, Next)> {
        if self.broken.is_some() {
            return None;
        }
        let arrivals = self.flights.iter().map(|flight| (flight.due, Next::Arrival(flight.id)));
        let disks = self.disks.iter().map(|(id, due)| (*due, Next::Disk(*id)));
        let keepers = self.keepers.iter().map(|(id, due)| (*due, Next::Keeper(*id)));
        let beats = self.beats.iter().map(|(id, (_, due))| (*due, Next::Heartbeat(*id)));
        let running = || self.world.nodes.iter().filter_map(|node| Some((node.id, node.running.as_ref()?)));
        let timers = running().map(|(id, running)| (running.deadline.0, Next::Timer(id)));
        let snapshots = running().filter_map(|(id, running)| {
            let (applied, tried) = (running.applied.0, self.snapshots.get(&id).copied().unwrap_or_default());
            let is_due = applied >= running.replica.snapshot_index().0 + LOG_ENTRIES && applied > tried;
            (is_due && !running.saving).then_some((self.now(), Next::Snapshot(id)))
        });
        let all = disks.chain(arrivals).chain(keepers).chain(beats).chain(timers).chain(snapshots);
        all.min_by_key(|(due, _)| *due).map(|(due, next)| (due.max(self.now()), next))
    }

    /// The next thing happens, at its time. Whether anything did.
    pub(super) fn step(&mut self) -> bool {
        let Some((due, next)) = self.next() else { return false };
        self.world.now = Moment(due);
        self.last = words::step(self, next);
        match next {
            Next::Arrival(id) => {
                if let Some(at) = self.flights.iter().position(|flight| flight.id == id) {
                    self.arrive(at);
                }
            }
            Next::Timer(id) => {
                self.on(id, None, |world| world.step(Event::Timeout(id)));
                self.disarm_twice(id);
            }
            Next::Heartbeat(id) => {
                if let Some((_, due)) = self.beats.get_mut(&id) {
                    *due += HEARTBEAT;
                }
                self.on(id, None, |world| world.step(Event::Heartbeat(id)));
            }
            Next::Disk(id) => {
                self.disks.remove(&id);
                self.write(id);
            }
            Next::Keeper(id) => {
                self.keepers.remove(&id);
                self.on(id, None, |world| world.step(Event::Act(id, Actor::Keeper)));
            }
            Next::Snapshot(id) => {
                let applied = self.world.running(id).map_or(0, |running| running.applied.0);
                self.snapshots.insert(id, applied);
                self.on(id, None, |world| world.step(Event::Snapshot(id)));
            }
        }
        self.follow_script();
        true
    }

    /// Lets time pass up to `to`, in which nothing happens.
    pub(super) fn pass_to(&mut self, to: Duration) {
        let free = self.next().map_or(to, |(due, _)| due.min(to));
        self.world.now = Moment(free.max(self.now()));
    }

    /// Performs what the scenario has for this moment.
    pub(super) fn follow_script(&mut self) {
        while let Some(deed) = self.script.due(self) {
            let now = self.now();
            self.script.reached(now);
            deed(self);
        }
    }

    fn write(&mut self, id: NodeId) {
        let is_write = self.world.running(id).and_then(|running| running.asked.of(Actor::Disk).next());
        let is_write = matches!(is_write, Some(Ask::Persist(_)));
        match self.traps.get(&id).copied().filter(|_| is_write) {
            None => self.on(id, None, |world| world.step(Event::Act(id, Actor::Disk))),
            Some(trap) => {
                self.traps.remove(&id);
                let (written, says) = match trap {
                    Trap::BeforeWrite => (0, "crashes before its write is on the disk: the write is lost."),
                    Trap::AfterWrite => {
                        (1, "crashes when its write is on the disk, before the messages that wait for it are sent.")
                    }
                };
                self.lose_power(id, written, says);
            }
        }
    }

    /// A timer that ran out is armed again, or it would run out for ever.
    pub(super) fn disarm_twice(&mut self, id: NodeId) {
        let now = self.now();
        if let Some(running) = &mut self.world.node_mut(id).running
            && running.deadline.0 <= now
        {
            running.deadline = Moment(now + ELECTION.0);
        }
    }

    pub(super) fn arrive(&mut self, at: usize) {
        let flight = self.flights.remove(at);
        let Envelope { from, to, .. } = *flight.envelope;
        if !self.world.cut.contains(&(from, to)) {
            let envelope = Arc::clone(&flight.envelope);
            self.on(to, Some(&flight.envelope), |world| world.deliver(envelope));
        }
    }

    /// Lets a node act, sends its messages, and takes note of what happened.
    pub(super) fn on(
        &mut self,
        id: NodeId,
        arrived: Option<&Envelope>,
        act: impl FnOnce(&mut World) -> Result<(), String>,
    ) {
        if let Err(violated) = act(&mut self.world) {
            self.broken = Some(violated);
        }
        for envelope in std::mem::take(&mut self.world.wire) {
            self.send(envelope);
        }
        let notes: Vec<Note> = std::mem::take(&mut self.world.notes).into_iter().map(|(_, note)| note).collect();
        let now = self.now();
        if let Some(observer) = self.observers.get_mut(&id) {
            self.news.extend(observer.look(self.world.node(id), arrived, &notes, now));
        }
        if !self.is_up(id) {
            self.down.entry(id).or_insert(now);
        }
        self.schedule(id);
    }

    fn send(&mut self, envelope: Arc<Envelope>) {
        if self.loses.is_some_and(|loses| loses(self, &envelope)) {
            return;
        }
        let (now, link) = (self.now(), (envelope.from, envelope.to));
        let random = Duration::from_millis(self.random.random_range(LATENCY_MS.0..=LATENCY_MS.1));
        let latency = self.latencies.get(&link).copied().unwrap_or(random);
        let of_link = self.flights.iter().filter(|flight| (flight.envelope.from, flight.envelope.to) == link);
        // A connection keeps the order of its messages; what was delayed by hand is overtaken.
        let before = of_link.map(|flight| flight.due).filter(|due| *due < now + 2 * latency).max();
        let due = (now + latency).max(before.map_or(Duration::ZERO, |before| before + Duration::from_millis(1)));
        self.flights.push(Flight { id: self.next_flight, envelope, sent: now, due });
        self.next_flight += 1;
        if self.flights.len() > FLIGHTS_MAX {
            self.flights.remove(0);
        }
    }

    /// Gives the tasks of a node's disk, and the heartbeats of a leader, their times.
    fn schedule(&mut self, id: NodeId) {
        let now = self.now();
        let Some(running) = self.world.running(id) else {
            self.disks.remove(&id);
            self.keepers.remove(&id);
            self.beats.remove(&id);
            return;
        };
        match running.asked.has(Actor::Disk) {
            true => _ = self.disks.entry(id).or_insert(now + WRITE),
            false => _ = self.disks.remove(&id),
        }
        match running.asked.has(Actor::Keeper) {
            true => _ = self.keepers.entry(id).or_insert(now + 2 * WRITE),
            false => _ = self.keepers.remove(&id),
        }
        match running.leads().then(|| running.replica.term()) {
            None => _ = self.beats.remove(&id),
            Some(term) if self.beats.get(&id).is_none_or(|(of, _)| *of != term) => {
                self.beats.insert(id, (term, now + HEARTBEAT));
            }
            Some(_) => {}
        }
    }
}
