//! The search: depth first, through every state that can be reached.

use crate::bounds::Bounds;
use quorate_raft::{Body, Index, Message, NodeId, Phase, Role, Term, Vote};
use quorate_world::{
    digest::digest,
    disk::Torn,
    events::Event,
    node::{Actor, is_pre_vote},
    nodes::Node,
    world::World,
};
use std::{
    collections::HashSet,
    hash::{BuildHasherDefault, Hasher},
    time::Instant,
};

/// Visits every state within `bounds`.
pub(crate) fn explore(name: &str, first: World, bounds: Bounds) {
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

/// A state on the path, and the events that can still happen in it.
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

    /// Whether only a message arrived since `before`, and was ignored. Every event that can happen
    /// from here can also happen from `before`, where that message is never delivered: this state
    /// needs no visit.
    fn only_lost_a_message_since(&self, before: &State) -> bool {
        self.digests == before.digests
            && self.world.wire.len() < before.world.wire.len()
            && self.world.oracle == before.world.oracle
    }

    /// The identity of this state. The wire is a bag, so the order of sending is not part of it.
    fn digest(&self) -> u128 {
        let wire = self.world.wire.iter().fold(0u128, |sum, envelope| sum.wrapping_add(envelope.digest));
        digest(&(self.digests, wire, &*self.world.oracle, self.left))
    }

    /// All events that can happen now.
    fn events(&self) -> Vec<Event> {
        let (world, left) = (&self.world, &self.left);
        let mut events = Vec::new();
        let mut seen: Vec<u128> = Vec::new();
        for (at, envelope) in world.wire.iter().enumerate() {
            if world.running(envelope.to).is_some() && !seen.contains(&envelope.digest) {
                seen.push(envelope.digest);
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
            may(left.leases > 0 && running.leads(), Event::ReadByLease(id, u64::from(left.leases) << 8));
            may(left.leadership_transfers > 0 && running.leads(), Event::TransferLeadership(id, None));
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
        events.extend((left.waits > 0).then_some(Event::Wait));
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
            Event::Change(id, _) | Event::TransferLeadership(id, _) => id,
            Event::Wait => NodeId(1),
        };
        let left = &mut self.left;
        match event {
            Event::Timeout(_) => left.timeouts[slot(id)] -= 1,
            Event::Repeat(_) => left.repeats -= 1,
            Event::Heartbeat(_) => left.heartbeats -= 1,
            Event::Propose(..) => left.proposals -= 1,
            Event::Read(..) => left.reads -= 1,
            Event::ReadByLease(..) => left.leases -= 1,
            Event::Wait => left.waits -= 1,
            Event::Snapshot(_) => left.snapshots -= 1,
            Event::Change(..) => left.changes = &left.changes[1..],
            Event::TransferLeadership(..) => left.leadership_transfers -= 1,
            Event::Crash(..) => left.crashes -= 1,
            _ => {}
        }
        self.world.step(event.clone())?;
        if matches!(event, Event::Timeout(_)) && !self.left.pre_vote {
            self.world.wire.retain(|envelope| !is_pre_vote(&envelope.message));
            self.world.step(Event::WinPreVote(id))?;
        }
        if !self.left.replicates {
            self.world.wire.retain(|envelope| is_of_an_election(&envelope.message));
        }
        let world = &mut self.world;
        world.wire.retain(|envelope| !is_dead(world.nodes[slot(envelope.to)].as_ref(), &envelope.message));
        self.world.notes.clear();
        self.digests[slot(id)] = digest(self.world.node(id));
        Ok(())
    }
}

/// Whether the message changes nothing and causes nothing, whenever it arrives.
fn is_dead(to: &Node, message: &Message) -> bool {
    // A crash takes a node back to what is on its disk.
    let durable = to.disk.hard_state.term;
    let has_role = |role: fn(&Role) -> bool| to.running.as_ref().is_some_and(|running| role(running.replica.role()));
    match &message.body {
        Body::Vote(Vote { phase: Phase::Vote, .. }) => {
            // A node that stands for election again does so in a later term.
            let counts = message.term == durable && has_role(|role| matches!(role, Role::Candidate));
            message.term <= durable && !counts
        }
        Body::AppendReply(_) | Body::HeartbeatReply(_) | Body::SnapshotReply(_) => {
            // No node leads a term twice. But a node that may still lead it for the first time also
            // gets answers from nodes that it made follow.
            let counts = has_role(|role| matches!(role, Role::Leader(_) | Role::Candidate));
            message.term < durable || (message.term == durable && !counts)
        }
        Body::Vote(_) | Body::RepairReply(_) | Body::SnapshotChunk(_) | Body::TimeoutNow(_) => message.term < durable,
        _ => false,
    }
}

pub(crate) fn is_of_an_election(message: &Message) -> bool {
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
