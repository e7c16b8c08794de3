//! The nodes of one cluster and the wire between them, with the operations on both.

use super::{
    clock::Clock,
    digest::digest,
    disk::{Disk, Torn},
    events::Event,
    fixtures,
    node::{Actor, Ask, Context, Note, Running, Tell},
    nodes::{Beside, Node, Nodes, replicas, slot},
    oracle::{
        Oracle,
        deliveries::{Before, DeliveryChecks},
    },
    quorum,
    rules::{Checks, Rules},
    step_checks::Checked,
};
use quorate_raft::{
    Batch, Body, Change, ChangeRefused, Effect, Index, Kind, MachineVersions, Membership, Message, Moment, NodeId,
    Outgoing, Phase, ReadToken, Replica, ReplicationOutput, Role, Settings, Violation,
};
use rand::rngs::SmallRng;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// A cluster. Cloning is cheap: unchanged parts are shared.
#[derive(Clone)]
pub struct World {
    /// The nodes, 1 first.
    pub nodes: Vec<Arc<Node>>,
    /// Messages sent and not yet delivered, in the order of sending.
    pub wire: Vec<Arc<Envelope>>,
    /// Directions of links on which nothing gets through.
    pub cut: BTreeSet<(NodeId, NodeId)>,
    /// Nodes with disks that finish nothing.
    pub stuck: BTreeSet<NodeId>,
    /// The true time, from which each node's clock may differ.
    pub now: Moment,
    /// The nodes' clocks, 1 first.
    pub clocks: Vec<Clock>,
    /// The safety oracle.
    pub oracle: Arc<Oracle>,
    /// News that nodes showed, in order; tests look at it and clear it.
    pub notes: Vec<(NodeId, Note)>,
    /// The source of election timeouts; without it all timeouts are the shortest.
    pub timeouts: Option<SmallRng>,
    /// Nodes with directories that were emptied or put back: they may, and must, refuse to go on.
    pub emptied: BTreeSet<NodeId>,
    /// Nodes that learned that they were removed, and stopped.
    pub removed: BTreeSet<NodeId>,
    /// The state machine versions of nodes from their next start on; other nodes have
    /// those of the settings.
    pub machines: BTreeMap<NodeId, MachineVersions>,
    /// The rules of nodes from their next start on; other nodes have those of the world.
    pub told: BTreeMap<NodeId, Arc<Rules>>,
    /// The members, until a log says otherwise.
    members: Arc<Membership>,
    rules: Arc<Rules>,
    deliveries: DeliveryChecks,
    buffers: Buffers,
}

/// Buffers used again at every step, and empty in between.
#[derive(Clone, Default)]
struct Buffers {
    sent: Vec<Outgoing>,
    notes: Vec<Note>,
    effects: Vec<Effect>,
    outputs: Vec<ReplicationOutput>,
}

/// A message on its way.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Envelope {
    /// The node that sent it.
    pub from: NodeId,
    /// The node that it is for.
    pub to: NodeId,
    /// The term and the body.
    pub message: Message,
    /// The digest of the other fields; 0 unless [`Rules::digests`] is set.
    pub digest: u128,
}

impl World {
    /// A cluster of running nodes 1 to `nodes` with empty disks.
    #[must_use]
    pub fn new(nodes: u64) -> Self {
        Self::with(vec![Disk::default(); nodes as usize], fixtures::settings())
    }

    /// A cluster of running nodes with these disks and settings.
    #[must_use]
    pub fn with(disks: Vec<Disk>, settings: Settings) -> Self {
        Self::ruled(disks, Rules::new(settings))
    }

    /// A cluster of running nodes with these disks and rules.
    ///
    /// # Panics
    /// If the disks violate a property.
    #[must_use]
    pub fn ruled(disks: Vec<Disk>, rules: Rules) -> Self {
        let mut world = Self::down(disks, rules);
        for id in world.ids() {
            world.must(Event::Restart(id));
        }
        world
    }

    /// A cluster of nodes with these disks, none of them started.
    #[must_use]
    pub fn down(disks: Vec<Disk>, rules: Rules) -> Self {
        let node = |(at, disk)| Arc::new(Node { id: NodeId(at as u64 + 1), disk, running: None });
        let nodes: Vec<_> = disks.into_iter().enumerate().map(node).collect();
        let members = rules.membership.clone().unwrap_or_else(|| fixtures::voters(nodes.len() as u64));
        Self {
            members: Arc::new(members.with_witness(rules.witness)),
            clocks: vec![Clock::default(); nodes.len()],
            nodes,
            wire: Vec::new(),
            cut: BTreeSet::new(),
            stuck: BTreeSet::new(),
            now: fixtures::at(10_000),
            oracle: Arc::default(),
            notes: Vec::new(),
            timeouts: None,
            emptied: BTreeSet::new(),
            removed: BTreeSet::new(),
            machines: BTreeMap::new(),
            told: BTreeMap::new(),
            rules: Arc::new(rules),
            deliveries: DeliveryChecks::default(),
            buffers: Buffers::default(),
        }
    }

    /// Makes `event` happen. An event that can't happen does nothing.
    ///
    /// # Errors
    /// The property that no longer holds.
    pub fn step(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Deliver(at) | Event::Repeat(at) => {
                let repeats = matches!(event, Event::Repeat(_));
                let envelope = if repeats { Arc::clone(&self.wire[at]) } else { self.wire.remove(at) };
                if self.cut.contains(&(envelope.from, envelope.to)) { Ok(()) } else { self.deliver(envelope) }
            }
            Event::Drop(at) => {
                self.wire.remove(at);
                Ok(())
            }
            Event::Act(id, actor) => self.act(id, actor),
            Event::Listen(id, actor) => self.enter(id, |node, context| {
                node.listen(context, actor);
            }),
            Event::Timeout(id) => self.enter(id, |node, context| {
                let (now, term) = (context.now, node.armed_in);
                node.rule(context, |replica, out| replica.election_timeout(now, term, out));
            }),
            Event::WinPreVote(id) => self.enter(id, |node, _| {
                if let Some(ballot) = node.ballot.take_if(|ballot| ballot.phase == Phase::PreVote) {
                    let (term, campaign) = (ballot.term, ballot.campaign);
                    node.tell(Actor::Collector, Tell::Decided { term, campaign, won: true });
                }
            }),
            Event::Heartbeat(id) => self.enter(id, |node, context| {
                if node.leads() {
                    node.ask_replicators(&Ask::Beat);
                    let now = context.now;
                    node.rule(context, |replica, out| replica.tick(now, out));
                }
            }),
            // A refused change has no effect.
            Event::Change(id, change) => self.change_members(id, &change, &mut Err(ChangeRefused::NotLeader)),
            Event::TransferLeadership(id, to) => self.enter(id, |node, context| {
                let now = context.now;
                node.rule(context, |replica, out| {
                    let _ = replica.transfer_leadership(now, to, out);
                });
            }),
            Event::Propose(id, commands) => self.propose_to(id, 0..commands),
            Event::Read(id, token) => self.read_at(id, token, false),
            Event::ReadByLease(id, token) => self.read_at(id, token, true),
            Event::Snapshot(id) => self.enter(id, |node, _| node.take_snapshot()),
            Event::Full(id, full) => {
                self.enter(id, |node, context| node.rule(context, |replica, out| replica.storage_full(full, out)))
            }
            Event::Lose(id, index, fault) => self.damage(id, |disk| disk.lose(index, fault)),
            Event::LoseSnapshot(id) => self.damage(id, Disk::lose_snapshot),
            Event::Crash(id, torn) => self.lose_power(id, 0, torn),
            Event::Restart(id) => self.start(id),
            Event::Wait => {
                self.pass(1);
                Ok(())
            }
        }
    }

    /// An operator asks a leader for a change of the members. `outcome` is what the rules say.
    ///
    /// # Errors
    /// The property that no longer holds.
    pub fn change_members(
        &mut self,
        id: NodeId,
        change: &Change,
        outcome: &mut Result<Index, ChangeRefused>,
    ) -> Result<(), String> {
        self.enter(id, |node, context| {
            let now = context.now;
            let before = node.replica.membership_index();
            let knows_commits = matches!(node.replica.role(), Role::Leader(it) if it.first <= node.replica.commit());
            let is_settled = node.replica.is_settled();
            node.rule(context, |replica, out| *outcome = replica.change(now, change, out));
            if node.replica.membership_index() > before && !(knows_commits && is_settled) {
                let why =
                    if knows_commits { "the one under way is through" } else { "anything is committed in its term" };
                context.broken = Err(format!("changes: {id} begins {change:?} before {why}"));
            }
        })
    }

    fn read_at(&mut self, id: NodeId, token: ReadToken, by_lease: bool) -> Result<(), String> {
        Arc::make_mut(&mut self.oracle).read_asked(token);
        if self.running(id).is_some() {
            self.deliveries.read_asked(id, token, by_lease);
        }
        self.enter(id, |node, context| {
            let now = context.now;
            node.rule(context, |replica, out| match by_lease {
                true => replica.read_by_lease(now, token, out),
                false => replica.read(now, token, out),
            });
        })
    }

    /// Delivers a message; at a node that is down it is lost.
    ///
    /// # Errors
    /// The property that no longer holds.
    pub fn deliver(&mut self, envelope: Arc<Envelope>) -> Result<(), String> {
        let Envelope { from, to, message, .. } = Arc::unwrap_or_clone(envelope);
        let now = self.now_of(to);
        let mut arrival = self.deliveries.arrival(from, to, &message);
        let (term, answers_heartbeat) = (message.term, matches!(message.body, Body::HeartbeatReply(_)));
        let entered = self.enter(to, |node, context| {
            node.rule(context, |replica, out| {
                let before = Before::of(replica, from, now);
                match message.is_forwarded() {
                    // The caller serves the rest of it.
                    true => replica.receive_term(now, from, &message, out),
                    false => replica.receive(now, from, message, out),
                }
                arrival.heard(now, before, replica, out);
            });
            if answers_heartbeat && term == node.replica.term() {
                node.heard(from);
            }
        });
        self.deliveries.arrived(arrival, now)?;
        entered
    }

    /// Gives a node these commands of a client, in one batch; nothing happens unless it leads.
    ///
    /// # Errors
    /// The property that no longer holds.
    pub fn propose_to(&mut self, id: NodeId, commands: impl Iterator<Item = u64>) -> Result<(), String> {
        self.enter(id, |node, context| {
            let batch = node.replica.next_batch(0).filter(|_| !node.replica.holds_proposals());
            if let Some(mut batch) = batch {
                commands.for_each(|command| batch.push(Kind::Command, &command.to_le_bytes()));
                let (now, batch) = (context.now, batch.finish().expect("at least one command"));
                node.rule(context, |replica, out| replica.propose(now, batch, out));
            }
        })
    }

    /// Gives a node a batch of commands, which continues its log; nothing happens unless it leads.
    ///
    /// # Errors
    /// The property that no longer holds.
    pub fn propose_batch(&mut self, id: NodeId, batch: Batch) -> Result<(), String> {
        self.enter(id, |node, context| {
            let now = context.now;
            node.rule(context, |replica, out| replica.propose(now, batch, out));
        })
    }

    /// A leader offers its newest snapshot to a peer.
    ///
    /// # Errors
    /// The property that no longer holds.
    pub fn offer_snapshot(&mut self, id: NodeId, peer: NodeId) -> Result<(), String> {
        self.enter(id, |node, context| node.offer_snapshot(context, peer))
    }

    /// A node loses everything but its disk. The disk still gets the first `written` of the waiting
    /// writes, unacknowledged, and the part of the next one that `torn` names.
    ///
    /// # Errors
    /// The property that no longer holds.
    pub fn lose_power(&mut self, id: NodeId, written: usize, torn: Option<Torn>) -> Result<(), String> {
        let node = self.node_mut(id);
        if let Some(running) = node.running.take() {
            let mut writes = running.asked.of(Actor::Disk).filter_map(|ask| match ask {
                Ask::Persist(persist) => Some(persist),
                _ => None,
            });
            writes.by_ref().take(written).for_each(|persist| node.disk.persist(persist));
            if let (Some(persist), Some(torn)) = (writes.next(), torn) {
                node.disk.persist_torn(persist, torn);
            }
        }
        self.check(id, true)
    }

    /// Empties the directory of a node that is down.
    ///
    /// # Errors
    /// The property that no longer holds.
    pub fn empty(&mut self, id: NodeId) -> Result<(), String> {
        self.emptied.insert(id);
        self.damage(id, Disk::wipe)
    }

    /// Puts the directory of a node that is down back to its state when `copy` was taken.
    ///
    /// # Errors
    /// The property that no longer holds.
    pub fn put_back(&mut self, id: NodeId, copy: Disk) -> Result<(), String> {
        self.emptied.insert(id);
        self.damage(id, |disk| disk.put_back(copy))
    }

    fn damage(&mut self, id: NodeId, damage: impl FnOnce(&mut Disk)) -> Result<(), String> {
        let node = self.node_mut(id);
        assert!(node.running.is_none(), "a disk is damaged while its node is down");
        damage(&mut node.disk);
        self.check(id, false)
    }

    fn start(&mut self, id: NodeId) -> Result<(), String> {
        let rules = Arc::clone(self.told.get(&id).unwrap_or(&self.rules));
        // A node that is not among the members waits to be added.
        let members = if self.members.contains(id) { Membership::clone(&self.members) } else { Membership::default() };
        let now = self.now_of(id);
        let is_witness = self.rules.witness == Some(id);
        let Self { nodes, timeouts, deliveries, machines, .. } = self;
        let node = Arc::make_mut(&mut nodes[slot(id)]);
        if node.running.is_none() {
            let machine = machines.get(&id).copied().unwrap_or(rules.settings.machine);
            let settings = Settings { machine, is_witness, ..rules.settings };
            let replica = Replica::new(id, members, node.disk.recover(), settings).started(now);
            deliveries.starts(id, node.disk.hard_state, replica.is_new(), settings.election_timeout_min, now);
            let mut context = Context {
                now,
                disk: &mut node.disk,
                sent: Vec::new(),
                notes: Vec::new(),
                ruled: true,
                effects: Vec::new(),
                outputs: Vec::new(),
                timeouts: timeouts.as_mut(),
                broken: Ok(()),
            };
            node.running = Some(Running::new(replica, rules, &mut context));
        }
        self.check(id, true)
    }

    fn act(&mut self, id: NodeId, actor: Actor) -> Result<(), String> {
        self.enter(id, |node, context| {
            node.act(context, actor);
        })
    }

    /// Lets one node act, finishes everything within it that is prompt, and puts its
    /// messages on the wire.
    ///
    /// # Errors
    /// The property that no longer holds.
    pub fn on(&mut self, id: NodeId, act: impl FnOnce(&mut Running, &mut Context<'_>)) -> Result<(), String> {
        self.enter(id, |node, context| {
            context.ruled = true;
            act(node, context);
        })
    }

    /// The same, for an `act` that changes the replica by its rules alone.
    fn enter(&mut self, id: NodeId, act: impl FnOnce(&mut Running, &mut Context<'_>)) -> Result<(), String> {
        let (now, prompt) = (self.now_of(id), self.rules.prompt);
        let Self { nodes, timeouts, buffers, .. } = self;
        let node = Arc::make_mut(&mut nodes[slot(id)]);
        let Some(running) = &mut node.running else { return Ok(()) };
        let Buffers { sent, notes, effects, outputs } = std::mem::take(buffers);
        let timeouts = timeouts.as_mut();
        let (disk, broken) = (&mut node.disk, Ok(()));
        let mut context = Context { now, disk, sent, notes, ruled: false, effects, outputs, timeouts, broken };
        act(running, &mut context);
        while prompt && within(running, &mut context) {}
        let Context { mut sent, mut notes, effects, outputs, ruled, broken, .. } = context;
        let said = sent.drain(..).try_for_each(|outgoing| self.send(id, outgoing));
        let heeded = notes.drain(..).try_for_each(|note| self.heed(id, note));
        self.buffers = Buffers { sent, notes, effects, outputs };
        broken.and(said).and(heeded)?;
        self.check(id, ruled)
    }

    fn send(&mut self, from: NodeId, outgoing: Outgoing) -> Result<(), String> {
        let now = self.now_of(from);
        let Self { nodes, oracle, rules, deliveries, emptied, .. } = self;
        deliveries.leaves(from, &outgoing, now)?;
        let Outgoing { to, message } = outgoing;
        let cluster = Nodes { nodes, rules, emptied };
        Arc::make_mut(oracle).leaves(from, to, &message, &cluster)?;
        if slot(to) >= nodes.len() {
            return Ok(()); // a member that a test only names
        }
        let digest = if rules.digests { digest(&(from, to, &message)) } else { 0 };
        self.wire.push(Arc::new(Envelope { from, to, message, digest }));
        Ok(())
    }

    fn heed(&mut self, id: NodeId, note: Note) -> Result<(), String> {
        match &note {
            Note::Halt(Violation::DataLost { .. } | Violation::RolledBack { .. }) if self.emptied.contains(&id) => {
                self.node_mut(id).running = None;
            }
            // The node may have been added again since without having heard of it; then its
            // operator starts it again.
            Note::Removed { .. } => {
                self.removed.insert(id);
                self.node_mut(id).running = None;
            }
            Note::Halt(violation) => return Err(format!("halt: {id} halts: {violation}")),
            Note::ReadsReady { index, tokens } => {
                let Self { nodes, deliveries, oracle, clocks, now, emptied, .. } = self;
                let (oracle, running) = (Arc::make_mut(oracle), nodes[slot(id)].running.as_ref());
                for token in tokens {
                    oracle.read_ready(*token, *index)?;
                    if let Some(Running { replica, .. }) = running {
                        let others = Beside { replica, nodes, clocks, now: now.0, emptied };
                        deliveries.read_ready(id, *token, replica.membership(), &others)?;
                    }
                }
            }
            Note::ReadsFailed { tokens } => {
                let oracle = Arc::make_mut(&mut self.oracle);
                for token in tokens {
                    oracle.read_failed(*token);
                    self.deliveries.read_failed(id, *token);
                }
            }
            Note::Applied(batch) if self.rules.checks == Checks::Changes => {
                Arc::make_mut(&mut self.oracle).state_machines.state_after(
                    id,
                    batch.last(),
                    batch.checksum().into(),
                )?;
            }
            Note::Restored(base) if self.rules.checks == Checks::Changes => {
                Arc::make_mut(&mut self.oracle).state_machines.state_after(
                    id,
                    base.last.index,
                    base.last_checksum.into(),
                )?;
            }
            Note::Applied(_) | Note::Restored(_) | Note::Refused(_) | Note::Diverged { .. } => {}
            Note::Observed(_) => {}
            Note::MachineUnknown | Note::LeadershipTransferEnded { .. } => {}
            Note::DataLost { .. } | Note::SnapshotWanted { .. } => {}
        }
        self.notes.push((id, note));
        Ok(())
    }

    /// Checks the properties after a step in which only `id` did anything, and its replica only
    /// if it was `ruled`.
    fn check(&mut self, id: NodeId, ruled: bool) -> Result<(), String> {
        self.checked().after_step(id, ruled)
    }

    /// Checks all properties of all nodes as they are now, whatever was checked before.
    ///
    /// # Errors
    /// The property that does not hold.
    pub fn check_all(&mut self) -> Result<(), String> {
        self.checked().all()
    }

    fn checked(&mut self) -> Checked<'_> {
        let Self { nodes, oracle, members, rules, .. } = self;
        Checked { nodes, oracle, members, rules }
    }

    /// Makes another oracle check everything that it checks after a step.
    ///
    /// # Errors
    /// The property that does not hold.
    pub fn check_by(&self, oracle: &mut Oracle) -> Result<(), String> {
        oracle.check(self.replicas(), &self.nodes, &self.members)
    }

    /// Checks that every leader with a lease, by its own clock, may have it. Not for worlds in
    /// which clocks leap: no leader may have one there.
    ///
    /// # Errors
    /// The property that does not hold.
    pub fn check_leases(&self) -> Result<(), String> {
        let Self { nodes, deliveries, clocks, now, emptied, .. } = self;
        for replica in self.replicas().filter(|replica| replica.is_leader()) {
            if replica.lease_left(self.now_of(replica.id())).is_some() {
                let others = Beside { replica, nodes, clocks, now: now.0, emptied };
                deliveries.lease(replica.id(), replica.membership(), &others)?;
            }
        }
        Ok(())
    }

    /// Whether a node leads, or protects a leader by its own clock.
    #[must_use]
    pub fn is_led(&self, id: NodeId) -> bool {
        let leads = self.running(id).is_some_and(|running| running.replica.is_leader());
        leads || self.deliveries.protects(id, self.now_of(id))
    }

    /// Checks that a quorum can apply the entries of a node that has just become leader.
    ///
    /// # Errors
    /// The property that does not hold.
    pub fn check_versions(&self, leader: NodeId) -> Result<(), String> {
        let Some(running) = self.running(leader) else { return Ok(()) };
        let (version, members) = (running.replica.machine().writes, running.replica.membership());
        // A node that is down may be on its way to a later release, never to an earlier one.
        if quorum::reached(members, |id| self.machine_of(id).apply(version)) {
            return Ok(());
        }
        Err(format!("versions: {leader} leads and writes version {version}, which no quorum of {members:?} applies"))
    }

    /// All nodes, whether they are members or not.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (1..=self.nodes.len() as u64).map(NodeId)
    }

    /// The members by the newest configuration that was ever seen committed.
    #[must_use]
    pub fn members(&self) -> &Membership {
        self.oracle.members().unwrap_or(&self.members)
    }

    /// Whether the nodes for which `agrees` holds are a quorum of the members.
    pub fn is_quorum(&self, agrees: impl Fn(&Node) -> bool) -> bool {
        quorum::reached(self.members(), |id| agrees(self.node(id)))
    }

    /// The versions of a node's state machine, from its next start on.
    #[must_use]
    pub fn machine_of(&self, id: NodeId) -> MachineVersions {
        self.machines.get(&id).copied().unwrap_or(self.rules.settings.machine)
    }

    /// The time by a node's clock.
    #[must_use]
    pub fn now_of(&self, id: NodeId) -> Moment {
        self.clocks[slot(id)].at(self.now.0)
    }

    /// The node `id`, running or not.
    #[must_use]
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[slot(id)]
    }

    /// The node `id`, mutable; its shared state is copied first.
    #[must_use]
    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        Arc::make_mut(&mut self.nodes[slot(id)])
    }

    /// The volatile state of `id`; `None` while it is down.
    #[must_use]
    pub fn running(&self, id: NodeId) -> Option<&Running> {
        self.node(id).running.as_ref()
    }

    /// The replicas of all running nodes.
    pub fn replicas(&self) -> impl Iterator<Item = &Replica> + Clone {
        replicas(&self.nodes)
    }
}

/// Takes one step within a node, except on its disk; false if nothing is left.
fn within(node: &mut Running, context: &mut Context<'_>) -> bool {
    let actor = node.asked.actors().find(|actor| !matches!(actor, Actor::Disk | Actor::Keeper));
    let told = node.told.actors().next();
    told.is_some_and(|actor| node.listen(context, actor)) || actor.is_some_and(|actor| node.act(context, actor))
}
