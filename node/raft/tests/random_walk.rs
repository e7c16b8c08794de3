//! Long random walks: everything that can happen to a cluster happens, in any order, and what must hold holds after every
//! step. Then the faults stop, and the cluster must recover: elect, commit, and agree.
//!
//! A walk is a function of its seed; a failure names it. `QUORATE_WALK_SEED=7 cargo test --test random_walk` walks that one
//! alone, `QUORATE_WALKS=5000` that many.

use quorate_raft::{Credit, Index, NodeId, quorum};
use quorate_world::{
    disk::{Disk, Fault, Torn},
    make,
    node::{Actor, Note},
    world::{Event, Rules, World},
};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{env, time::Duration};

/// Steps of one walk before its faults stop.
const STEPS: usize = 10_000;
/// Milliseconds of a healthy cluster within which it must have recovered.
const RECOVERY_MS: u64 = 20_000;

#[test]
fn three_nodes_keep_every_promise_on_every_walk_and_recover() {
    walks(3, 60);
}

#[test]
fn five_nodes_keep_every_promise_on_every_walk_and_recover() {
    walks(5, 60);
}

fn walks(nodes: u64, default: u64) {
    let number = |name: &str| env::var(name).ok().map(|value| value.parse::<u64>().expect("a number"));
    let seeds = match number("QUORATE_WALK_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("QUORATE_WALKS").unwrap_or(default),
    };
    let (mut committed, mut terms, mut seen) = (0, 0, Seen::default());
    for seed in seeds.clone() {
        let mut walk = Walk::new(nodes, seed);
        if let Err(violated) = walk.walk() {
            panic!("{nodes} nodes, seed {seed}, at {:?}: {violated}", walk.world.now.0);
        }
        let last = walk.world.witness.last_committed();
        seen.add(walk.seen);
        (committed, terms) = (committed + last.index.0, terms + last.term.0);
    }
    println!("{nodes} nodes: {} walks, {committed} entries committed, {terms} terms, {seen:?}", seeds.clone().count());
    assert!(committed > 0 && (seeds.count() < 50 || seen.damaged > 0));
}

/// What happened in a walk.
#[derive(Clone, Copy, Default, Debug)]
struct Seen {
    /// Disks that lost something, and states that a snapshot replaced.
    damaged: u64,
    restored: u64,
    /// Appends that a full disk refused.
    refused_full: u64,
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.damaged += other.damaged;
        self.restored += other.restored;
        self.refused_full += other.refused_full;
    }
}

struct Walk {
    world: World,
    random: SmallRng,
    reads: u64,
    seen: Seen,
    /// Chances in 1,000 a step, drawn anew for each walk: some are calm, some are not.
    faults: Faults,
}

struct Faults {
    drop: u32,
    repeat: u32,
    reorder: u32,
    crash: u32,
    cut: u32,
    /// Snapshots, in 1,000 steps within nodes; in walks without, logs are never cut.
    snapshot: u32,
    /// Whether a torn write may leave entries of which only the identity is there.
    tear: bool,
    /// Damage, in 1,000 restarts.
    damage: u32,
    full: u32,
}

impl Walk {
    fn new(nodes: u64, seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut settings = make::settings();
        settings.cache_bytes_max = random.random_range(0..2_000);
        settings.unapplied_entries_max = random.random_range(1..20);
        let credit = Credit {
            messages: random.random_range(1..8),
            entries: random.random_range(1..16),
            bytes: random.random_range(100..2_000),
            append_bytes: random.random_range(60..1_000),
            probe_bytes: random.random_range(0..200),
            retry_after: Duration::from_millis(100),
            retry_max: Duration::from_millis(500),
        };
        let rules = Rules { credit, keep_entries: random.random_range(0..3), ..Rules::new(settings) };
        // A member that is new, or was emptied, can't tell what it lost, and counts as lost itself until it is brought up. So
        // there is damage only among members that took part before.
        let has_voted = random.random_bool(0.7);
        let mut disk = Disk::default();
        disk.has_voted = has_voted;
        let mut world = World::ruled(vec![disk; nodes as usize], rules);
        world.timeouts = Some(SmallRng::seed_from_u64(seed ^ 0x5eed));
        let faults = Faults {
            drop: random.random_range(0..200),
            repeat: random.random_range(0..100),
            reorder: random.random_range(0..500),
            crash: random.random_range(0..6),
            cut: random.random_range(0..10),
            snapshot: if random.random_bool(0.7) { random.random_range(1..60) } else { 0 },
            tear: has_voted && random.random_bool(0.8),
            damage: if has_voted { random.random_range(0..600) } else { 0 },
            full: if random.random_bool(0.2) { 4 } else { 0 },
        };
        Self { world, random, reads: 0, seen: Seen::default(), faults }
    }

    fn walk(&mut self) -> Result<(), String> {
        for _ in 0..STEPS {
            let event = self.next_event();
            self.seen.damaged += u64::from(matches!(event, Some(Event::Lose(..) | Event::LoseSnapshot(_))));
            self.step(event)?;
            for (_, note) in self.world.notes.drain(..) {
                self.seen.restored += u64::from(matches!(note, Note::Restored(_)));
                self.seen.refused_full += u64::from(note == Note::Refused("storage_full"));
            }
        }
        self.recover()
    }

    /// One event, and at times a partition or the end of one; time passes as it likes.
    fn next_event(&mut self) -> Option<Event> {
        let ids: Vec<_> = self.world.ids().collect();
        let id = ids[self.random.random_range(0..ids.len())];
        let chance = self.random.random_range(0..1_000);
        if chance < self.faults.cut {
            let other = ids[self.random.random_range(0..ids.len())];
            match self.random.random_range(0..4) {
                0 => self.world.isolate(id.0),
                1 => self.world.cut_way(id.0, other.0),
                _ => self.world.heal(),
            }
        }
        if self.random.random_range(0..1_000) < self.faults.crash {
            let torn = [None, Some(Torn::Truncated), Some(Torn::Appended), Some(Torn::Named)];
            let tears = if self.faults.tear { 4 } else { 3 };
            return Some(match self.world.running(id) {
                Some(_) => Event::Crash(id, torn[self.random.random_range(0..tears)]),
                None => self.damage(id).unwrap_or(Event::Restart(id)),
            });
        }
        if self.random.random_range(0..1_000) < self.faults.full {
            return Some(Event::Full(id, self.random.random_bool(0.5)));
        }
        if self.random.random_range(0..1_000) < self.faults.snapshot {
            return Some(Event::Snapshot(id));
        }
        match self.random.random_range(0..100) {
            0..6 => {
                self.world.pass(self.random.random_range(1..40));
                self.due()
            }
            6..9 => Some(Event::Heartbeat(id)),
            9..15 => Some(Event::Propose(id, self.random.random_range(1..4))),
            15..18 => {
                self.reads += 1;
                Some(Event::Read(id, self.reads))
            }
            18..60 => self.within(id),
            _ => self.on_the_wire(),
        }
    }

    /// Damage to the disk of a node that is down, as long as everything can still be told: nobody loses the last copy of an
    /// entry that may be committed, and where logs are cut, a majority lose nothing.
    fn damage(&mut self, id: NodeId) -> Option<Event> {
        if self.random.random_range(0..1_000) >= self.faults.damage {
            return None;
        }
        let nodes = &self.world.nodes;
        let majority = quorum::majority(nodes.len());
        let others = || nodes.iter().filter(|node| node.id != id).map(|node| &node.disk);
        let most_are_sound = others().filter(|disk| disk.is_sound()).count() >= majority;
        if self.faults.snapshot > 0 && !most_are_sound {
            return None;
        }
        let disk = &self.world.node(id).disk;
        if disk.base.index > Index(0) && self.random.random_range(0..4) == 0 {
            let base = disk.base;
            return others().any(|disk| disk.holds(base)).then_some(Event::LoseSnapshot(id));
        }
        let whole = disk.whole();
        let lost = *whole.get(self.random.random_range(0..whole.len().max(1)))?;
        let remembered = others().filter(|disk| disk.remembers(lost)).count() + 1;
        let held = others().filter(|disk| disk.holds(lost)).count();
        // Without proof that it was durable it counts as torn: that is survived once an entry, not on several disks at once.
        let doubted = others().any(|disk| disk.doubts(lost));
        let fault = if !doubted && self.random.random_bool(0.3) { Fault::Unproven } else { Fault::Proven };
        // The only copy of an entry that can't have been committed may go, too: but not where a copy that is still on its way may be
        // torn, for then nobody could tell the two cases apart.
        let surely_uncommitted = remembered < majority && most_are_sound && !self.faults.tear;
        (held > 0 || surely_uncommitted).then_some(Event::Lose(id, lost.index, fault))
    }

    /// A node whose election timer is due.
    fn due(&self) -> Option<Event> {
        let due = |id: &NodeId| self.world.running(*id).is_some_and(|running| running.deadline <= self.world.now);
        self.world.ids().find(due).map(Event::Timeout)
    }

    fn within(&mut self, id: NodeId) -> Option<Event> {
        let running = self.world.running(id)?;
        let events = running.asked.actors().map(|actor: Actor| Event::Act(id, actor));
        let events: Vec<_> = events.chain(running.told.actors().map(|actor| Event::Listen(id, actor))).collect();
        (!events.is_empty()).then(|| events[self.random.random_range(0..events.len())].clone())
    }

    fn on_the_wire(&mut self) -> Option<Event> {
        let waiting = self.world.wire.len();
        if waiting == 0 {
            return None;
        }
        let chance = self.random.random_range(0..1_000);
        let reorder = chance < self.faults.reorder || waiting > 300;
        let at = if reorder { self.random.random_range(0..waiting) } else { 0 };
        let fate = self.random.random_range(0..1_000);
        Some(match fate {
            _ if fate < self.faults.drop || waiting > 300 => Event::Drop(at),
            _ if fate < self.faults.drop + self.faults.repeat => Event::Repeat(at),
            _ => Event::Deliver(at),
        })
    }

    fn step(&mut self, event: Option<Event>) -> Result<(), String> {
        event
            .map_or(Ok(()), |event| self.world.step(event.clone()).map_err(|violated| format!("{event:?}: {violated}")))
    }

    /// The faults are over: within a bounded time somebody leads, commits a new entry, and all have it.
    fn recover(&mut self) -> Result<(), String> {
        self.world.heal();
        for id in self.world.ids().collect::<Vec<_>>() {
            self.step(Some(Event::Restart(id)))?;
            self.step(Some(Event::Full(id, false)))?;
        }
        let before = self.world.witness.last_committed();
        let mut proposed_in = None;
        for millisecond in 0..RECOVERY_MS {
            self.world.settle();
            self.world.notes.clear();
            self.world.pass(1);
            while let Some(event) = self.due() {
                self.step(Some(event))?;
            }
            let Some((term, leader)) = self.world.leaders().first().copied() else { continue };
            if millisecond % 50 == 0 {
                self.step(Some(Event::Heartbeat(leader)))?;
            }
            if millisecond % 50 == 10 && proposed_in != Some(term) {
                proposed_in = Some(term);
                self.step(Some(Event::Propose(leader, 1)))?;
            }
            if self.agreed() && self.world.witness.last_committed() > before && proposed_in == Some(term) {
                return Ok(());
            }
        }
        let state = self.world.replicas().map(|replica| {
            let log = format!("{}..{}", replica.log().base(), replica.log().last());
            let (faulty, lost) = (replica.first_faulty(), replica.lost_up_to());
            let (id, term, new) = (replica.id(), replica.term(), replica.is_new());
            format!(
                "\n{id}: term {term} log {log} snapshot {} faulty {faulty:?} lost {lost:?} new {new}",
                replica.snapshot_index()
            )
        });
        Err(format!("it does not recover within {RECOVERY_MS} ms: {}", state.collect::<String>()))
    }

    /// Whether every node has applied everything that is in any log.
    fn agreed(&self) -> bool {
        let last = self.world.replicas().map(|replica| replica.log().last()).max();
        self.world
            .replicas()
            .all(|replica| Some(replica.log().last()) == last && replica.applied_index() == replica.log().last().index)
    }
}
