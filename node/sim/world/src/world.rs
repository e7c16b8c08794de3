//! The nodes of one cluster, what is on the wire between them, and what tests may do to both.

use super::{
    digest::digest,
    disk::{Disk, Fault, Torn},
    make,
    node::{Actor, Ask, Context, Note, Running, Tell},
    witness::Witness,
};
use quorate_raft::{
    Credit, Index, Kind, Membership, Message, Moment, NodeId, Outgoing, Phase, ReadToken, Replica, Settings,
    TransferSettings,
};
use rand::{Rng, rngs::SmallRng};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// A cluster. Cloning is cheap: what did not change is shared.
#[derive(Clone)]
pub struct World {
    pub nodes: Vec<Arc<Node>>,
    /// What was sent and not yet delivered, in the order of sending.
    pub wire: Vec<Arc<Letter>>,
    /// Ways on which nothing gets through, one direction each.
    pub cut: BTreeSet<(NodeId, NodeId)>,
    /// Nodes whose disks do not finish anything.
    pub stuck: BTreeSet<NodeId>,
    pub now: Moment,
    pub witness: Arc<Witness>,
    /// What nodes showed, in order; tests look at it and clear it.
    pub notes: Vec<(NodeId, Note)>,
    pub timeouts: Option<SmallRng>,
    rules: Arc<Rules>,
}

/// One member: what survives a crash, and what does not.
#[derive(Clone, Hash, Debug)]
pub struct Node {
    pub id: NodeId,
    pub disk: Disk,
    pub running: Option<Running>,
}

/// A message on its way.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Letter {
    pub from: NodeId,
    pub to: NodeId,
    pub message: Message,
    /// Of the rest.
    pub digest: u128,
}

/// What all nodes are told.
#[derive(Clone, Debug)]
pub struct Rules {
    pub settings: Settings,
    pub credit: Credit,
    /// Whether everything within a node but its disk happens at once, in one step with what caused it.
    pub prompt: bool,
    /// How many entries stay in front of a snapshot's end when the log is cut.
    pub keep_entries: u64,
    /// How large every snapshot is, and in which pieces it is sent.
    pub snapshot_bytes: u64,
    pub transfer: TransferSettings,
    /// Whether what must hold of all logs is checked; not where one of them is damaged on purpose.
    pub logs_match: bool,
    /// Who belongs to the cluster, as far as no log says otherwise.
    pub membership: Option<Membership>,
}

impl Rules {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            credit: Credit::default(),
            prompt: false,
            keep_entries: 0,
            snapshot_bytes: 3,
            transfer: TransferSettings { chunk_bytes: 1, window_bytes: 2, ..TransferSettings::default() },
            logs_match: true,
            membership: None,
        }
    }
}

impl std::hash::Hash for Rules {
    /// They never change.
    fn hash<H: std::hash::Hasher>(&self, _: &mut H) {}
}

/// What can happen.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// The message at this place on the wire arrives.
    Deliver(usize),
    /// It arrives and stays on the wire, to arrive again.
    Repeat(usize),
    /// It is lost.
    Drop(usize),
    /// An actor of a node handles its next task.
    Act(NodeId, Actor),
    /// A node's `Consensus` hears what an actor told it.
    Listen(NodeId, Actor),
    /// A node's election timer goes off.
    Timeout(NodeId),
    /// A node's pre-vote is won, whatever its voters would say: a pre-vote promises nothing.
    WinPreVote(NodeId),
    /// A leader's heartbeats are due; what was under way for too long counts as lost.
    Heartbeat(NodeId),
    /// A client gives a leader this many commands.
    Propose(NodeId, u64),
    /// A client asks a node to read.
    Read(NodeId, ReadToken),
    /// A node is to take a snapshot of its state.
    Snapshot(NodeId),
    /// A node's disk has soon no room for entries, or has again.
    Full(NodeId, bool),
    /// A node that is down loses the payload of an entry.
    Lose(NodeId, Index, Fault),
    /// A node that is down loses its snapshot.
    LoseSnapshot(NodeId),
    /// A node loses everything but its disk; the write under way may be torn.
    Crash(NodeId, Option<Torn>),
    /// It starts again.
    Restart(NodeId),
}

impl World {
    /// A cluster of running nodes 1 to `nodes` with empty disks.
    pub fn new(nodes: u64) -> Self {
        Self::with(vec![Disk::default(); nodes as usize], make::settings())
    }

    /// A cluster of running nodes with these disks.
    pub fn with(disks: Vec<Disk>, settings: Settings) -> Self {
        Self::ruled(disks, Rules::new(settings))
    }

    pub fn ruled(disks: Vec<Disk>, rules: Rules) -> Self {
        let node = |(at, disk)| Arc::new(Node { id: NodeId(at as u64 + 1), disk, running: None });
        let nodes: Vec<_> = disks.into_iter().enumerate().map(node).collect();
        let mut world = Self {
            nodes,
            wire: Vec::new(),
            cut: BTreeSet::new(),
            stuck: BTreeSet::new(),
            now: make::at(10_000),
            witness: Arc::default(),
            notes: Vec::new(),
            timeouts: None,
            rules: Arc::new(rules),
        };
        for id in world.ids() {
            world.must(Event::Restart(id));
        }
        world
    }

    /// Makes `event` happen. An error says what must hold and no longer does. An event that can't happen does nothing.
    pub fn step(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Deliver(at) | Event::Repeat(at) => {
                let repeats = matches!(event, Event::Repeat(_));
                let letter = if repeats { Arc::clone(&self.wire[at]) } else { self.wire.remove(at) };
                self.deliver(&letter)
            }
            Event::Drop(at) => {
                self.wire.remove(at);
                Ok(())
            }
            Event::Act(id, actor) => self.on(id, |node, context| {
                node.act(context, actor);
            }),
            Event::Listen(id, actor) => self.on(id, |node, context| {
                node.listen(context, actor);
            }),
            Event::Timeout(id) => self.on(id, |node, context| {
                let (now, term) = (context.now, node.armed_in);
                node.rule(context, |replica, out| replica.election_timeout(now, term, out));
            }),
            Event::WinPreVote(id) => self.on(id, |node, _| {
                if let Some(ballot) = node.ballot.take_if(|ballot| ballot.phase == Phase::PreVote) {
                    let (term, campaign) = (ballot.term, ballot.campaign);
                    node.tell(Actor::Collector, Tell::Decided { term, campaign, won: true });
                }
            }),
            Event::Heartbeat(id) => self.on(id, |node, _| {
                if node.leads() {
                    node.ask_replicators(&Ask::Beat { round: None });
                }
            }),
            Event::Propose(id, commands) => self.on(id, |node, context| {
                if let Some(mut batch) = node.replica.next_batch(0) {
                    (0..commands).for_each(|command| batch.push(Kind::Command, &command.to_le_bytes()));
                    let (now, batch) = (context.now, batch.finish().expect("at least one command"));
                    node.rule(context, |replica, out| replica.propose(now, batch, out));
                }
            }),
            Event::Read(id, token) => {
                Arc::make_mut(&mut self.witness).read_asked(token);
                self.on(id, |node, context| node.rule(context, |replica, out| replica.read(token, out)))
            }
            Event::Snapshot(id) => self.on(id, |node, _| node.take_snapshot()),
            Event::Full(id, full) => {
                self.on(id, |node, context| node.rule(context, |replica, out| replica.storage_full(full, out)))
            }
            Event::Lose(id, index, fault) => {
                assert!(self.running(id).is_none(), "a disk is damaged while its node is down");
                self.node_mut(id).disk.lose(index, fault);
                Ok(())
            }
            Event::LoseSnapshot(id) => {
                assert!(self.running(id).is_none(), "a disk is damaged while its node is down");
                self.node_mut(id).disk.snapshot = None;
                Ok(())
            }
            Event::Crash(id, torn) => self.crash_now(id, torn),
            Event::Restart(id) => self.start(id),
        }
    }

    fn deliver(&mut self, letter: &Letter) -> Result<(), String> {
        if self.cut.contains(&(letter.from, letter.to)) {
            return Ok(());
        }
        let (from, message) = (letter.from, letter.message.clone());
        self.on(letter.to, |node, context| {
            let now = context.now;
            node.rule(context, |replica, out| replica.receive(now, from, message, out));
        })
    }

    fn crash_now(&mut self, id: NodeId, torn: Option<Torn>) -> Result<(), String> {
        let node = self.node_mut(id);
        if let (Some(running), Some(torn)) = (&node.running, torn)
            && let Some(Ask::Persist(persist)) = running.asked.get(&Actor::Disk).and_then(|asks| asks.front())
        {
            node.disk.persist_torn(persist, torn);
        }
        node.running = None;
        self.check()
    }

    fn start(&mut self, id: NodeId) -> Result<(), String> {
        let rules = Arc::clone(&self.rules);
        let members = rules.membership.clone().unwrap_or_else(|| make::voters(self.nodes.len() as u64));
        let (now, timeout) = (self.now, self.timeout());
        let node = self.node_mut(id);
        if node.running.is_none() {
            let replica = Replica::new(id, members, node.disk.recover(), rules.settings);
            let mut context = Context { now, timeout, disk: &mut node.disk, sent: Vec::new(), notes: Vec::new() };
            node.running = Some(Running::new(replica, rules, &mut context));
        }
        self.check()
    }

    /// Lets one node do something, and everything within it that is prompt; puts on the wire what it says.
    pub fn on(&mut self, id: NodeId, act: impl FnOnce(&mut Running, &mut Context<'_>)) -> Result<(), String> {
        let (now, timeout, prompt) = (self.now, self.timeout(), self.rules.prompt);
        let node = self.node_mut(id);
        let Some(running) = &mut node.running else { return Ok(()) };
        let mut context = Context { now, timeout, disk: &mut node.disk, sent: Vec::new(), notes: Vec::new() };
        act(running, &mut context);
        while prompt && within(running, &mut context) {}
        let Context { sent, notes, .. } = context;
        self.send(id, sent)?;
        for note in notes {
            self.heed(id, note)?;
        }
        self.check()
    }

    fn send(&mut self, from: NodeId, sent: Vec<Outgoing>) -> Result<(), String> {
        let mut witness = Arc::clone(&self.witness);
        for outgoing in sent {
            let disk = &self.node(from).disk;
            let leader = self.replicas().find(|replica| replica.is_leader() && replica.term() == outgoing.message.term);
            Arc::make_mut(&mut witness).leaves(from, disk, leader, &outgoing)?;
            let Outgoing { to, message } = outgoing;
            let digest = digest(&(from, to, &message));
            self.wire.push(Arc::new(Letter { from, to, message, digest }));
        }
        self.witness = witness;
        Ok(())
    }

    fn heed(&mut self, id: NodeId, note: Note) -> Result<(), String> {
        match &note {
            Note::Halt(violation) => return Err(format!("{id} halts: {violation}")),
            Note::ReadsReady { index, tokens } => {
                let witness = Arc::make_mut(&mut self.witness);
                tokens.iter().try_for_each(|token| witness.read_ready(*token, *index))?;
            }
            Note::ReadsFailed { tokens } => {
                let witness = Arc::make_mut(&mut self.witness);
                tokens.iter().for_each(|token| witness.read_failed(*token));
            }
            Note::Applied(_) | Note::Restored(_) | Note::Refused(_) | Note::Diverged { .. } => {}
        }
        self.notes.push((id, note));
        Ok(())
    }

    fn check(&mut self) -> Result<(), String> {
        if !self.rules.logs_match {
            return Ok(());
        }
        let mut witness = std::mem::take(&mut self.witness);
        let disks: Vec<_> = self.nodes.iter().map(|node| &node.disk).collect();
        let checked = Arc::make_mut(&mut witness).check(self.replicas(), &disks);
        self.witness = witness;
        checked
    }

    fn timeout(&mut self) -> Duration {
        let (min, max) = (self.rules.settings.election_timeout_min, self.rules.settings.election_timeout_max);
        self.timeouts.as_mut().map_or(min, |random| random.random_range(min..=max))
    }

    pub fn ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (1..=self.nodes.len() as u64).map(NodeId)
    }

    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize - 1]
    }

    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        Arc::make_mut(&mut self.nodes[id.0 as usize - 1])
    }

    pub fn running(&self, id: NodeId) -> Option<&Running> {
        self.node(id).running.as_ref()
    }

    pub fn replicas(&self) -> impl Iterator<Item = &Replica> + Clone {
        self.nodes.iter().filter_map(|node| node.running.as_ref()).map(|running| &running.replica)
    }
}

/// One thing within a node, but for what its disk has to do; false if nothing is left.
fn within(node: &mut Running, context: &mut Context<'_>) -> bool {
    let (acting, listening) = node.busy();
    let actor = acting.into_iter().find(|actor| !matches!(actor, Actor::Disk | Actor::Keeper));
    listening.first().is_some_and(|actor| node.listen(context, *actor))
        || actor.is_some_and(|actor| node.act(context, actor))
}
