//! Every interleaving of a small world: from a first state, everything that can happen within the stated bounds happens,
//! in every order, and what must hold (`quorate_world::witness`) is checked in every state.
//!
//! A state is the whole cluster (replicas, ballots, progress, disks, messages under way, and the witness's memory) and what
//! is left of the bounds. Visited states are remembered by a 128-bit digest. The search is depth first, so the path to a
//! violation is at hand, and ends only when nothing is left: each test prints how many states there were.
//!
//! What is left out of the interleavings, and why that hides nothing:
//!
//! - **Within a node everything but the disk is prompt.** The actors of a node share no state; a message between two of
//!   them that is delayed looks, from outside, like the message from a peer (or from the disk) that caused it being delayed,
//!   and those are delayed at will. The simulator interleaves the inner messages too.
//! - **The wire is a bag.** Any message may arrive at any time after it was sent, or never: a message that is lost is one
//!   that this exploration never delivers, so losses, delays and reordering need no events of their own. Duplicates do.
//!   For the same reason an arrival that changes nothing but the bag leads to nothing new, and is not followed.
//! - **What can't be heard any more is lost.** A reply of a term before the one on its receiver's disk, or one for a candidate or
//!   leader of that term who is none any more, is ignored for ever: it is taken off the wire at once, or it would tell apart states
//!   that behave alike.
//! - **Time is not modelled.** Election timeouts are zero: nobody is protected by having heard a leader, any timer may go
//!   off at any time, and any append may count as lost at any time. Every behaviour of a timed cluster is among these.
//! - Where a bound says `pre_vote: false`, every pre-vote is won at once. A pre-vote changes nothing at its voters and
//!   promises nothing, so all it decides is whether the campaign goes on, and here it always may.
//!
//! `cargo test -p quorate-raft --test explore -- --ignored --nocapture` explores larger bounds; it takes some minutes.

use quorate_raft::{
    Body, Change, Credit, Index, Membership, Message, NodeId, Phase, Role, Term, TransferSettings, Vote,
};
use quorate_world::{
    digest::digest,
    disk::{Disk, Fault, Torn},
    event::Event,
    make,
    node::{Actor, is_pre_vote},
    rules::Rules,
    world::{Node, World},
};
use std::{
    collections::HashSet,
    hash::{BuildHasherDefault, Hash, Hasher},
    time::{Duration, Instant},
};

#[test]
fn no_interleaving_of_elections_with_pre_vote_breaks_a_promise() {
    let bounds = Bounds { pre_vote: true, terms: 1, timeouts: [1, 1, 0], ..Bounds::default() };
    explore("elections with pre-vote", cluster(), bounds);
}

#[test]
fn no_interleaving_of_elections_a_crash_and_a_duplicate_breaks_a_promise() {
    let bounds = Bounds { terms: 2, timeouts: [1, 1, 0], crashes: 1, repeats: 1, ..Bounds::default() };
    explore("elections with a crash and a duplicate", cluster(), bounds);
}

#[test]
fn no_interleaving_of_replication_and_a_crash_breaks_a_promise() {
    let bounds = Bounds { replicates: true, log: 3, crashes: 1, proposals: 2, ..Bounds::default() };
    explore("replication of two entries with a crash", led_by_1(), bounds);
}

#[test]
fn no_interleaving_of_replication_a_change_of_leader_and_a_crash_breaks_a_promise() {
    explore("replication, a change of leader and a crash", led_by_1(), Bounds { crashes: 1, ..change_of_leader() });
}

#[test]
fn no_interleaving_of_reads_and_a_change_of_leader_serves_a_stale_read() {
    let bounds = Bounds { proposals: 0, reads: 2, ..change_of_leader() };
    explore("reads and a change of leader", led_by_1(), bounds);
}

#[test]
fn no_interleaving_of_figure_8_loses_a_committed_entry() {
    let bounds = Bounds { replicates: true, terms: 5, timeouts: [0, 0, 1], ..Bounds::default() };
    explore("Figure 8 with three nodes", figure_8(), bounds);
}

#[test]
fn no_interleaving_of_a_snapshot_for_a_follower_that_is_behind_loses_an_entry() {
    let bounds = Bounds { replicates: true, log: 3, crashes: 1, heartbeats: 1, proposals: 1, ..Bounds::default() };
    explore("a snapshot, sent, and a crash", a_follower_behind_a_cut(), bounds);
    let bounds = Bounds { snapshots: 1, crashes: 0, heartbeats: 2, proposals: 0, ..bounds };
    explore("a snapshot and a cut, and a follower that is behind", a_follower_behind(), bounds);
    let bounds = Bounds { crashes: 1, heartbeats: 1, ..bounds };
    explore("a snapshot, a cut and a crash", a_follower_behind(), bounds);
}

#[test]
fn no_interleaving_of_lost_payloads_and_a_change_of_leader_loses_an_entry() {
    let bounds = Bounds { replicates: true, terms: 2, timeouts: [1, 1, 0], ..Bounds::default() };
    for timeouts in [[0, 0, 1], [0, 1, 0]] {
        explore("two disks lost what the others have", with_lost_payloads(), Bounds { timeouts, ..bounds });
    }
    explore("the remains of a torn write", with_a_torn_write(), bounds);
}

#[test]
fn no_interleaving_of_torn_writes_loses_an_entry() {
    let bounds = Bounds {
        replicates: true,
        log: 2,
        proposals: 1,
        tears_payloads: true,
        crashes: 1,
        heartbeats: 1,
        ..Bounds::default()
    };
    explore("a torn write", led_by_1(), bounds);
}

#[test]
fn no_interleaving_of_a_change_of_members_loses_an_entry_or_elects_two() {
    for (what, change) in CHANGES {
        explore(&format!("{what}, and two campaign"), led_by_1_with_a_learner(), changed(change, [0, 1, 1]));
        let bounds = Bounds { repeats: 1, ..changed(change, [0, 1, 0]) };
        explore(&format!("{what}, one campaigns, and a duplicate"), led_by_1_with_a_learner(), bounds);
    }
    explore("a third voter is added, and campaigns", led_by_1_with_a_learner(), changed(&[grows], [0, 0, 1]));
    explore(
        "two of three voters are removed, and one campaigns",
        led_by_1_out_of_reach_of_3(),
        changed(&[shrinks], [0, 1, 0]),
    );
    explore(
        "two of three voters are removed one by one, and one campaigns",
        led_by_1_out_of_reach_of_3(),
        changed(&[leaves_3, shrinks], [0, 1, 0]),
    );
}

#[test]
fn no_interleaving_of_a_change_of_members_and_a_crash_loses_an_entry_or_elects_two() {
    for (what, change) in CHANGES {
        let bounds = Bounds { crashes: 1, ..changed(change, [0, 1, 0]) };
        explore(&format!("{what}, one crashes and one campaigns"), led_by_1_with_a_learner(), bounds);
    }
}

#[test]
fn no_interleaving_of_a_change_of_members_a_handover_and_a_read_serves_a_stale_read() {
    for (what, change) in CHANGES {
        let bounds = Bounds { handovers: 1, reads: 1, ..changed(change, [0; 3]) };
        explore(&format!("{what}, a handover and a read"), led_by_1_with_a_learner(), bounds);
    }
}

#[test]
fn no_interleaving_of_a_handover_loses_an_entry_or_serves_a_stale_read() {
    let bounds = Bounds { replicates: true, terms: 2, log: 3, handovers: 1, ..Bounds::default() };
    explore("a handover and an entry", led_by_1(), Bounds { proposals: 1, ..bounds });
    explore("a handover and a read", led_by_1(), Bounds { reads: 1, ..bounds });
}

#[test]
fn no_interleaving_of_a_witness_that_breaks_ties_loses_an_entry() {
    explore("a witness and a change of leader", led_by_1_with_a_witness(), change_of_leader());
    let bounds = Bounds { timeouts: [2, 0, 0], ..change_of_leader() };
    explore("a witness that is called on", led_by_1_with_a_witness(), bounds);
    let bounds = Bounds { timeouts: [0, 1, 0], crashes: 1, proposals: 0, ..bounds };
    explore("a witness, a change of leader and a crash", led_by_1_with_a_witness(), bounds);
}

#[test]
#[ignore = "larger bounds: minutes"]
fn larger_tie_breaks() {
    let bounds = Bounds { timeouts: [2, 0, 1], crashes: 1, ..change_of_leader() };
    explore("a witness that is called on, and a crash", led_by_1_with_a_witness(), bounds);
}

#[test]
#[ignore = "larger bounds: minutes"]
fn larger_changes_of_members() {
    for (what, change) in CHANGES {
        let bounds = Bounds { terms: 3, log: 5, ..changed(change, [0, 1, 1]) };
        explore(&format!("{what}, and two campaign, one behind the other"), led_by_1_with_a_learner(), bounds);
    }
    let first = led_by_1_with_a_learner;
    explore("a third voter is added, and one campaigns", first(), changed(&[grows], [0, 1, 0]));
    explore("a third voter is added, and two campaign", first(), changed(&[grows], [0, 1, 1]));
    let bounds = Bounds { terms: 1, log: 5, proposals: 1, ..changed(&[replaces], [0; 3]) };
    explore("a follower is replaced beside an entry", first(), bounds);
}

#[test]
#[ignore = "larger bounds: minutes"]
fn larger_snapshots() {
    let bounds = Bounds { replicates: true, terms: 2, log: 3, timeouts: [0, 1, 0], ..Bounds::default() };
    explore("a snapshot and a change of leader", a_follower_behind_a_cut(), Bounds { heartbeats: 1, ..bounds });
    let bounds = Bounds { snapshots: 2, crashes: 1, proposals: 1, heartbeats: 1, timeouts: [0; 3], ..bounds };
    explore("snapshots, cuts, an entry and a crash", a_follower_behind(), bounds);
}

#[test]
#[ignore = "larger bounds: minutes"]
fn larger_repairs() {
    let bounds = Bounds { replicates: true, terms: 2, timeouts: [1, 2, 0], ..Bounds::default() };
    explore("two disks lost what the others have, and one asks twice", with_lost_payloads(), bounds);
    let bounds = Bounds { timeouts: [1, 2, 0], ..bounds };
    explore("the remains of a torn write, asked about twice", with_a_torn_write(), bounds);
    explore(
        "a torn write and a change of leader",
        led_by_1(),
        Bounds { tears_payloads: true, crashes: 1, ..change_of_leader() },
    );
}

#[test]
#[ignore = "larger bounds: minutes"]
fn larger_elections() {
    let bounds = Bounds { terms: 2, timeouts: [1, 1, 1], crashes: 1, ..Bounds::default() };
    explore("elections of three candidates with a crash", cluster(), bounds);
    let bounds = Bounds { pre_vote: true, timeouts: [1, 1, 0], crashes: 1, ..Bounds::default() };
    explore("elections with pre-vote and a crash", cluster(), bounds);
}

#[test]
#[ignore = "larger bounds: minutes"]
fn larger_replication() {
    explore("a duplicate and a change of leader", led_by_1(), Bounds { repeats: 1, ..change_of_leader() });
    let bounds = Bounds { proposals: 0, heartbeats: 1, ..change_of_leader() };
    explore("a retry and a change of leader", led_by_1(), bounds);
}

#[test]
#[ignore = "larger bounds: minutes"]
fn larger_reads() {
    explore("a read, an entry and a change of leader", led_by_1(), Bounds { reads: 1, ..change_of_leader() });
}

type Changes = fn() -> Change;

/// Of two voters, with one that has caught up beside them.
const CHANGES: [(&str, &[Changes]); 2] =
    [("a follower is replaced", &[replaces]), ("the leader is replaced", &[leaves])];

fn replaces() -> Change {
    Change::to([NodeId(1), NodeId(3)])
}

fn leaves() -> Change {
    Change::to([NodeId(2), NodeId(3)])
}

fn grows() -> Change {
    Change::to([1, 2, 3].map(NodeId))
}

fn leaves_3() -> Change {
    Change::to([NodeId(1), NodeId(2)])
}

fn shrinks() -> Change {
    Change::to([NodeId(1)])
}

fn changed(changes: &'static [Changes], timeouts: [u8; 3]) -> Bounds {
    Bounds { replicates: true, terms: 2, log: 4, timeouts, changes, ..Bounds::default() }
}

/// Node 2 may depose node 1.
fn change_of_leader() -> Bounds {
    Bounds { replicates: true, terms: 2, log: 3, timeouts: [0, 1, 0], proposals: 1, ..Bounds::default() }
}

/// How much may happen.
#[derive(Clone, Copy, Hash, Debug)]
struct Bounds {
    /// Whether pre-votes are asked for, or won at once.
    pre_vote: bool,
    /// Whether what leaders say is ever delivered. Without it an exploration is about elections alone.
    replicates: bool,
    /// Nobody campaigns in this term or later.
    terms: u64,
    /// Nobody proposes at this index or behind.
    log: u64,
    /// How often each node's election timer may go off.
    timeouts: [u8; 3],
    /// Crashes, of all nodes together; each may tear the write under way, and be followed by a restart at any time.
    crashes: u8,
    /// Messages that arrive a second time.
    repeats: u8,
    /// Heartbeats of all leaders together; with each, appends under way count as lost.
    heartbeats: u8,
    proposals: u8,
    reads: u8,
    /// Changes of the members, for which any leaders may be asked, in this order.
    changes: &'static [Changes],
    /// Handovers of all leaders together.
    handovers: u8,
    /// Snapshots of all nodes together.
    snapshots: u8,
    /// Whether a torn write may leave entries of which only the identity is there.
    tears_payloads: bool,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            pre_vote: false,
            replicates: false,
            terms: 1,
            log: 1,
            timeouts: [0; 3],
            crashes: 0,
            repeats: 0,
            heartbeats: 0,
            proposals: 0,
            reads: 0,
            changes: &[],
            handovers: 0,
            snapshots: 0,
            tears_payloads: false,
        }
    }
}

/// Three nodes that have just started.
fn cluster() -> World {
    started(vec![Disk::default(); 3])
}

/// Node 1 has led term 2, and node 3 term 3; each left an entry on its own disk alone. Now node 1 leads term 4, by the
/// vote of node 2.
fn figure_8() -> World {
    let disk = |term, terms: &[u64]| make::disk_of(term, None, terms);
    let mut world = started(vec![disk(3, &[1, 2]), disk(3, &[1]), disk(4, &[1, 3])]);
    world.isolate(3);
    world.must(Event::Timeout(NodeId(1)));
    world.settle_until_led();
    world.cut.clear();
    world.wire.retain(|letter| letter.to != NodeId(3) && !is_of_an_election(&letter.message));
    world
}

/// Node 1 leads term 1 and has committed two entries with node 2; node 3 has none of them, and can be reached again.
fn a_follower_behind() -> World {
    let mut world = cluster();
    world.elect(1);
    world.isolate(3);
    world.propose(1, 1);
    world.beat(1);
    world.cut.clear();
    assert_eq!((world.commit(2), world.replica(3).log().last().index), (2, Index(1)));
    world
}

/// The same, and node 1 has cut its log.
fn a_follower_behind_a_cut() -> World {
    let mut world = a_follower_behind();
    world.isolate(3);
    world.snapshot(1);
    world.cut.clear();
    assert_eq!(world.replica(1).log().base().index, Index(2));
    world
}

/// Three entries on every disk, the first of them committed for sure; node 1 lost the second, and node 2 the first.
fn with_lost_payloads() -> World {
    let mut disks = vec![make::disk_of(1, None, &[1, 1, 1]); 3];
    disks[0].lose(Index(2), Fault::Proven);
    disks[1].lose(Index(1), Fault::Proven);
    started(disks)
}

/// Nodes 1 and 3 have an entry; behind it node 2 has what a crash left of another.
fn with_a_torn_write() -> World {
    let mut disks = [&[1][..], &[1, 1], &[1]].map(|terms| make::disk_of(1, None, terms));
    disks[1].lose(Index(2), Fault::Torn);
    started(disks.into())
}

fn started(disks: Vec<Disk>) -> World {
    started_with(disks, None)
}

fn started_with(disks: Vec<Disk>, membership: Option<Membership>) -> World {
    started_as(disks, membership, None)
}

fn started_as(disks: Vec<Disk>, membership: Option<Membership>, witness: Option<NodeId>) -> World {
    let mut settings = make::settings();
    (settings.election_timeout_min, settings.election_timeout_max) = (Duration::ZERO, Duration::ZERO);
    let credit = Credit { retry_after: Duration::ZERO, retry_max: Duration::ZERO, ..Credit::default() };
    let transfer =
        TransferSettings { chunk_bytes: 1, window_bytes: 2, retry_after: Duration::ZERO, retry_max: Duration::ZERO };
    World::ruled(
        disks,
        Rules {
            credit,
            prompt: true,
            snapshot_bytes: 1,
            transfer,
            digests: true,
            membership,
            witness,
            ..Rules::new(settings)
        },
    )
}

/// Three nodes of which the first leads term 1 and has committed its no-op.
fn led_by_1() -> World {
    let mut world = cluster();
    world.elect(1);
    world
}

/// The same, and nodes 1 and 3 don't reach each other any more.
fn led_by_1_out_of_reach_of_3() -> World {
    let mut world = led_by_1();
    world.cut.extend([(1, 3), (3, 1)].map(|(from, to)| (NodeId(from), NodeId(to))));
    world
}

/// Nodes 1 and 2 vote, and the first leads term 1; node 3 is new, a learner, and has caught up.
fn led_by_1_with_a_learner() -> World {
    let mut world = started_with(vec![Disk::default(); 3], Some(Membership::of_voters([1, 2].map(NodeId))));
    world.elect(1);
    world.must(Event::Change(NodeId(1), Change::add(NodeId(3), "3")));
    world.settle();
    assert_eq!((world.commit(1), world.replica(3).log().last().index), (2, Index(2)));
    world
}

/// Nodes 1 and 2 keep all, node 3 is the witness, and the first leads term 1 and has committed its no-op.
fn led_by_1_with_a_witness() -> World {
    let mut world = started_as(vec![Disk::default(); 3], None, Some(NodeId(3)));
    world.elect(1);
    world
}

/// Visits every state within `bounds`.
fn explore(name: &str, first: World, bounds: Bounds) {
    let started = Instant::now();
    let mut visited: HashSet<u128, BuildHasherDefault<Already>> = HashSet::default();
    let mut path: Vec<Visit> = Vec::new();
    let (mut steps, mut deepest) = (0u64, 0);
    let first = State::new(first, bounds);
    visited.insert(first.digest());
    path.push(Visit::new(first));
    while let Some(visit) = path.last_mut() {
        let Some(event) = visit.events.pop() else {
            path.pop();
            continue;
        };
        let before = &visit.state;
        let mut state = before.clone();
        steps += 1;
        let stepped = state.step(&event);
        if stepped.is_ok() && state.only_lost_a_message_since(before) {
            continue;
        }
        if let Err(violated) = stepped {
            let story = path.iter().filter_map(|visit| visit.cause.clone()).chain([event]);
            let story: Vec<_> = story.map(|event| format!("  {event:?}")).collect();
            panic!("{name}: {violated}\nafter\n{}", story.join("\n"));
        }
        if visited.insert(state.digest()) {
            path.push(Visit { cause: Some(event), ..Visit::new(state) });
            deepest = deepest.max(path.len() - 1);
        }
    }
    let took = started.elapsed().as_secs_f32();
    println!("{name}: {} states, {steps} steps, {deepest} deep, exhausted in {took:.1} s: {bounds:?}", visited.len());
}

/// A state on the path, and what else can happen in it.
struct Visit {
    state: State,
    cause: Option<Event>,
    events: Vec<Event>,
}

impl Visit {
    fn new(state: State) -> Self {
        let events = state.events();
        Self { state, cause: None, events }
    }
}

#[derive(Clone)]
struct State {
    world: World,
    left: Bounds,
    digests: [u128; 3],
}

impl State {
    fn new(world: World, left: Bounds) -> Self {
        let digests = [0, 1, 2].map(|at| digest(&*world.nodes[at]));
        Self { world, left, digests }
    }

    /// Whether all that happened is that a message arrived and was ignored. Whatever can happen from here can happen from
    /// `before` too, where that message is never delivered: this state needs no visit.
    fn only_lost_a_message_since(&self, before: &State) -> bool {
        self.digests == before.digests
            && self.world.wire.len() < before.world.wire.len()
            && self.world.witness == before.world.witness
    }

    /// What tells this state from others. The wire is a bag, so the order of sending does not.
    fn digest(&self) -> u128 {
        let wire = self.world.wire.iter().fold(0u128, |sum, letter| sum.wrapping_add(letter.digest));
        digest(&(self.digests, wire, &*self.world.witness, self.left))
    }

    /// Everything that can happen now.
    fn events(&self) -> Vec<Event> {
        let (world, left) = (&self.world, &self.left);
        let mut events = Vec::new();
        let mut seen: Vec<u128> = Vec::new();
        for (at, letter) in world.wire.iter().enumerate() {
            if world.running(letter.to).is_some() && !seen.contains(&letter.digest) {
                seen.push(letter.digest);
                events.push(Event::Deliver(at));
                events.extend((left.repeats > 0).then_some(Event::Repeat(at)));
            }
        }
        for id in world.ids() {
            let Some(running) = world.running(id) else {
                events.extend((!world.removed.contains(&id)).then_some(Event::Restart(id)));
                continue;
            };
            let replica = &running.replica;
            let mut may = |may: bool, event: Event| events.extend(may.then_some(event));
            may(running.unpersisted() > 0, Event::Act(id, Actor::Disk));
            may(running.asked.has(Actor::Keeper), Event::Act(id, Actor::Keeper));
            may(left.snapshots > 0 && running.applied > replica.snapshot_index(), Event::Snapshot(id));
            may(left.timeouts[slot(id)] > 0 && replica.term() < Term(left.terms), Event::Timeout(id));
            may(left.heartbeats > 0 && running.leads(), Event::Heartbeat(id));
            let room = replica.log().last().index < Index(left.log);
            may(left.proposals > 0 && running.leads() && room, Event::Propose(id, 1));
            may(left.reads > 0 && running.leads(), Event::Read(id, left.reads.into()));
            may(left.handovers > 0 && running.leads(), Event::HandOver(id, None));
            if let Some(change) = left.changes.first().filter(|_| running.leads()) {
                events.push(Event::Change(id, change()));
            }
            let mut may = |may: bool, event: Event| events.extend(may.then_some(event));
            may(left.crashes > 0, Event::Crash(id, None));
            let tears = left.crashes > 0 && running.unpersisted() > 0;
            may(tears, Event::Crash(id, Some(Torn::Truncated)));
            may(tears, Event::Crash(id, Some(Torn::Appended)));
            may(tears && left.tears_payloads, Event::Crash(id, Some(Torn::Named)));
        }
        events
    }

    fn step(&mut self, event: &Event) -> Result<(), String> {
        let id = match event.clone() {
            Event::Deliver(at) | Event::Repeat(at) | Event::Drop(at) => self.world.wire[at].to,
            Event::Act(id, _) | Event::Listen(id, _) | Event::Crash(id, _) => id,
            Event::Timeout(id) | Event::WinPreVote(id) | Event::Heartbeat(id) | Event::Restart(id) => id,
            Event::Propose(id, _) | Event::Read(id, _) | Event::ReadByLease(id, _) => id,
            Event::Snapshot(id) | Event::Full(id, _) => id,
            Event::Lose(id, ..) | Event::LoseSnapshot(id) => id,
            Event::Change(id, _) | Event::HandOver(id, _) => id,
        };
        let left = &mut self.left;
        match event {
            Event::Timeout(_) => left.timeouts[slot(id)] -= 1,
            Event::Repeat(_) => left.repeats -= 1,
            Event::Heartbeat(_) => left.heartbeats -= 1,
            Event::Propose(..) => left.proposals -= 1,
            Event::Read(..) => left.reads -= 1,
            Event::Snapshot(_) => left.snapshots -= 1,
            Event::Change(..) => left.changes = &left.changes[1..],
            Event::HandOver(..) => left.handovers -= 1,
            Event::Crash(..) => left.crashes -= 1,
            _ => {}
        }
        self.world.step(event.clone())?;
        if matches!(event, Event::Timeout(_)) && !self.left.pre_vote {
            self.world.wire.retain(|letter| !is_pre_vote(&letter.message));
            self.world.step(Event::WinPreVote(id))?;
        }
        if !self.left.replicates {
            self.world.wire.retain(|letter| is_of_an_election(&letter.message));
        }
        let world = &mut self.world;
        world.wire.retain(|letter| !is_dead(world.nodes[slot(letter.to)].as_ref(), &letter.message));
        self.world.notes.clear();
        self.digests[slot(id)] = digest(self.world.node(id));
        Ok(())
    }
}

/// Whether the message changes nothing and brings about nothing, whenever it arrives.
fn is_dead(to: &Node, message: &Message) -> bool {
    // A crash takes a node back to what is on its disk.
    let durable = to.disk.hard_state.term;
    let has_role = |role: fn(&Role) -> bool| to.running.as_ref().is_some_and(|running| role(running.replica.role()));
    match &message.body {
        Body::Vote(Vote { phase: Phase::Vote, .. }) => {
            // Whoever stands for election again does so in a later term.
            let counts = message.term == durable && has_role(|role| matches!(role, Role::Candidate));
            message.term <= durable && !counts
        }
        Body::AppendReply(_) | Body::HeartbeatReply(_) | Body::SnapshotReply(_) => {
            // Nobody leads a term twice; but who still may lead it for the first time is answered, too, by whom it made follow.
            let counts = has_role(|role| matches!(role, Role::Leader(_) | Role::Candidate));
            message.term < durable || (message.term == durable && !counts)
        }
        Body::Vote(_) | Body::RepairReply(_) | Body::SnapshotChunk(_) | Body::TimeoutNow(_) => message.term < durable,
        _ => false,
    }
}

fn is_of_an_election(message: &Message) -> bool {
    matches!(message.body, Body::RequestVote(_) | Body::Vote(_))
}

fn slot(id: NodeId) -> usize {
    id.0 as usize - 1
}

/// A digest needs no further hashing.
#[derive(Default)]
struct Already(u64);

impl Hasher for Already {
    fn write(&mut self, bytes: &[u8]) {
        unreachable!("digests are written whole, not as {bytes:?}");
    }

    fn write_u128(&mut self, digest: u128) {
        self.0 = digest as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
