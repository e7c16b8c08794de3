//! The steps of scenarios: elect a node, cut a link, let everything settle. Each panics with the
//! property that a step violates.

use super::{
    disk::Fault,
    events::Event,
    node::{Actor, Note, Running},
    world::World,
};
use quorate_raft::{Index, Kind, Membership, Message, NodeId, ReadToken, Replica, Replication, Term};
use std::time::Duration;

/// More steps than a cluster can need to come to rest.
const SETTLE_STEPS_MAX: usize = 200_000;

impl World {
    /// Makes `event` happen.
    ///
    /// # Panics
    /// With the property that no longer holds.
    #[track_caller]
    pub fn must(&mut self, event: Event) {
        if let Err(violated) = self.step(event.clone()) {
            panic!("{event:?}: {violated}");
        }
    }

    /// Delivers everything under way, in order, and finishes the writes of every disk that is not
    /// stuck. No node times out. Returns every message that arrived.
    #[track_caller]
    pub fn settle(&mut self) -> Vec<(NodeId, NodeId, Message)> {
        self.settle_but(|_, _, _| false)
    }

    /// The same, but messages for which `lost` holds are lost.
    #[track_caller]
    pub fn settle_but(&mut self, lost: impl Fn(NodeId, NodeId, &Message) -> bool) -> Vec<(NodeId, NodeId, Message)> {
        let mut arrived = Vec::new();
        for _ in 0..SETTLE_STEPS_MAX {
            if self.within_nodes() {
                continue;
            }
            let Some(envelope) = self.wire.first().cloned() else { return arrived };
            let (from, to) = (envelope.from, envelope.to);
            if lost(from, to, &envelope.message) {
                self.must(Event::Drop(0));
                continue;
            }
            if !self.cut.contains(&(from, to)) && self.running(to).is_some() {
                arrived.push((from, to, envelope.message.clone()));
            }
            self.must(Event::Deliver(0));
        }
        panic!("the cluster never comes to rest");
    }

    /// The same, until some node leads.
    #[track_caller]
    pub fn settle_until_led(&mut self) {
        while self.leaders().is_empty() {
            if !self.within_nodes() {
                assert!(!self.wire.is_empty(), "the cluster is at rest, and nobody leads");
                self.must(Event::Deliver(0));
            }
        }
    }

    /// Finishes everything within the nodes, and delivers nothing; stuck disks stay stuck.
    #[track_caller]
    pub fn settle_within(&mut self) {
        while self.within_nodes() {}
    }

    /// Takes one step within some node; false if nothing is left.
    #[track_caller]
    fn within_nodes(&mut self) -> bool {
        for id in self.ids() {
            let Some(running) = self.running(id) else { continue };
            let (mut acting, told) = (running.asked.actors(), running.told.actors().next());
            if let Some(actor) = told {
                self.must(Event::Listen(id, actor));
                return true;
            }
            let stuck = self.stuck.contains(&id);
            let on_disk = |actor: &Actor| matches!(actor, Actor::Disk | Actor::Keeper);
            if let Some(actor) = acting.find(|actor| !(stuck && on_disk(actor))) {
                self.must(Event::Act(id, actor));
                return true;
            }
        }
        false
    }

    /// Lets time pass, in true milliseconds; nothing else happens.
    pub fn pass(&mut self, milliseconds: u64) {
        self.now = self.now.plus(Duration::from_millis(milliseconds));
    }

    /// `id` campaigns once no node has heard a leader for longer than any election
    /// timeout, and everything settles.
    #[track_caller]
    pub fn elect(&mut self, id: u64) {
        // A new member that some voter does not answer stands at its second pre-vote.
        for _ in 0..=u8::from(self.replica(id).is_new()) {
            if !self.replica(id).is_leader() {
                self.pass(400);
                self.must(Event::Timeout(NodeId(id)));
                self.settle();
            }
        }
        assert!(self.replica(id).is_leader(), "{id} was not elected");
        self.beat(id);
    }

    /// `id` times out and campaigns, if it hears no leader; everything settles.
    #[track_caller]
    pub fn timeout_of(&mut self, id: u64) {
        self.must(Event::Timeout(NodeId(id)));
        self.settle();
    }

    /// `id`, if it leads, sends heartbeats, and everything settles.
    #[track_caller]
    pub fn beat(&mut self, id: u64) {
        self.must(Event::Heartbeat(NodeId(id)));
        self.settle();
    }

    /// `id` is given `commands`, and everything settles.
    #[track_caller]
    pub fn propose(&mut self, id: u64, commands: u64) {
        self.must(Event::Propose(NodeId(id), commands));
        self.settle();
    }

    /// `id`, which leads, changes the membership, and everything settles.
    #[track_caller]
    pub fn change(&mut self, id: u64, membership: &Membership) {
        let now = self.now;
        self.on(NodeId(id), |node, context| {
            let mut batch = node.replica.next_batch(0).expect("it leads");
            batch.push(Kind::Membership, &membership.encode());
            let batch = batch.finish().expect("an entry");
            node.rule(context, |replica, out| replica.propose(now, batch, out));
        })
        .expect("what must hold");
        self.settle();
    }

    /// Takes the next step that is possible within the nodes or on the wire.
    ///
    /// # Errors
    /// The property that does not hold.
    pub fn step_any(&mut self) -> Result<(), String> {
        let busy = self.ids().find_map(|id| {
            let running = self.running(id)?;
            let listen = running.told.actors().next().map(|actor| Event::Listen(id, actor));
            listen.or(running.asked.actors().next().map(|actor| Event::Act(id, actor)))
        });
        match busy {
            Some(event) => self.step(event),
            None if self.wire.is_empty() => Ok(()),
            None => self.step(Event::Deliver(0)),
        }
    }

    /// Whether nothing is under way.
    pub fn is_at_rest(&self) -> bool {
        self.wire.is_empty() && self.nodes.iter().all(|node| node.running.as_ref().is_none_or(Running::is_at_rest))
    }

    /// A client asks `id` for a read.
    #[track_caller]
    pub fn read(&mut self, id: u64, token: ReadToken) {
        self.must(Event::Read(NodeId(id), token));
    }

    /// The same, where a lease of `id` suffices.
    #[track_caller]
    pub fn read_by_lease(&mut self, id: u64, token: ReadToken) {
        self.must(Event::ReadByLease(NodeId(id), token));
    }

    /// `id` loses everything but its disk.
    #[track_caller]
    pub fn crash(&mut self, id: u64) {
        self.must(Event::Crash(NodeId(id), None));
    }

    /// `id` starts again.
    #[track_caller]
    pub fn restart(&mut self, id: u64) {
        self.must(Event::Restart(NodeId(id)));
    }

    /// `id` keeps a snapshot of its applied entries, and compacts its log; everything settles.
    #[track_caller]
    pub fn snapshot(&mut self, id: u64) {
        self.must(Event::Snapshot(NodeId(id)));
        self.settle();
    }

    /// `id`, which is down, loses the payloads of these entries, which were durable.
    #[track_caller]
    pub fn lose(&mut self, id: u64, entries: impl IntoIterator<Item = u64>) {
        entries.into_iter().for_each(|index| self.must(Event::Lose(NodeId(id), Index(index), Fault::Proven)));
    }

    /// Cuts the link from `from` to `to`, in this direction only.
    pub fn cut_way(&mut self, from: u64, to: u64) {
        self.cut.insert((NodeId(from), NodeId(to)));
    }

    /// Cuts the link in both directions.
    pub fn cut_link(&mut self, one: u64, other: u64) {
        self.cut_way(one, other);
        self.cut_way(other, one);
    }

    /// Cuts all links of `id`, in both directions.
    pub fn isolate(&mut self, id: u64) {
        self.ids().filter(|other| other.0 != id).for_each(|other| self.cut_link(id, other.0));
    }

    /// Restores all links, and tells the replicators of leaders.
    #[track_caller]
    pub fn heal(&mut self) {
        for (from, to) in std::mem::take(&mut self.cut) {
            if let Some(running) = &mut self.node_mut(from).running
                && running.leads()
            {
                running.ask(Actor::Replicator(to), super::node::Ask::LinkChanged);
            }
        }
    }

    /// Delivers the first message on the wire for which `is` holds, before any other.
    #[track_caller]
    pub fn deliver_first(&mut self, is: impl Fn(NodeId, NodeId, &Message) -> bool) {
        let at = self.wire.iter().position(|envelope| is(envelope.from, envelope.to, &envelope.message));
        self.must(Event::Deliver(at.expect("such a message is on the wire")));
        self.settle_within();
    }

    /// The replica of `id`, which runs.
    #[track_caller]
    pub fn replica(&self, id: u64) -> &Replica {
        &self.up(id).replica
    }

    /// The volatile state of `id`, which runs.
    #[track_caller]
    pub fn up(&self, id: u64) -> &Running {
        self.running(NodeId(id)).expect("the node runs")
    }

    /// The replicator of `of`, which leads, to `peer`.
    #[track_caller]
    pub fn replicator(&self, of: u64, peer: u64) -> &Replication {
        self.up(of).replicators.get(&NodeId(peer)).expect("it leads")
    }

    /// The nodes that lead, the latest term first.
    pub fn leaders(&self) -> Vec<(Term, NodeId)> {
        let mut leaders: Vec<_> =
            self.replicas().filter(|replica| replica.is_leader()).map(|leader| (leader.term(), leader.id())).collect();
        leaders.sort_unstable_by(|a, b| b.cmp(a));
        leaders
    }

    /// The commit index of `id`.
    #[track_caller]
    pub fn commit(&self, id: u64) -> u64 {
        self.replica(id).commit().0
    }

    /// The current term of `id`.
    #[track_caller]
    pub fn term(&self, id: u64) -> u64 {
        self.replica(id).term().0
    }

    /// The terms of the entries in a running node's log.
    #[track_caller]
    pub fn log(&self, id: u64) -> Vec<u64> {
        super::fixtures::terms(self.replica(id))
    }

    /// The reads that were answered, each with its index, and the reads that failed,
    /// since the last call.
    pub fn answered_reads(&mut self) -> (Vec<(ReadToken, Index)>, Vec<ReadToken>) {
        let (mut ready, mut failed) = (Vec::new(), Vec::new());
        for (_, note) in std::mem::take(&mut self.notes) {
            match note {
                Note::ReadsReady { index, tokens } => ready.extend(tokens.into_iter().map(|token| (token, index))),
                Note::ReadsFailed { tokens } => failed.extend(tokens),
                _ => {}
            }
        }
        (ready, failed)
    }
}
