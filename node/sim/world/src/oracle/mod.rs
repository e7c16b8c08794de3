//! The safety oracle: every property that must hold at all times, stated once, with a memory that
//! no crash erases.
//!
//! The simulated world and the simulation of the real actors tell it the same kinds of things: a
//! message leaves ([`Oracle::leaves`]), entries are sent, a state machine applied or restored
//! something ([`StateMachines`]), a caller is told of its command ([`Operations`]). The world shows
//! its replicas besides ([`Oracle::check`]); of the real actors no replica can be seen, so there the
//! properties of logs are checked on the messages.
//!
//! | property | says | source | checked on |
//! | --- | --- | --- | --- |
//! | election safety | at most one leader per term | Figure 3, §5.2 | replicas, messages |
//! | leader append-only | a leader never overwrites or deletes its entries | Figure 3, §5.3 | replicas |
//! | log matching | logs that match at an entry match up to it; one id has one content | Figure 3, §5.3 | replicas, entries sent |
//! | leader completeness | a leader has every entry that was committed in an earlier term | Figure 3, §5.4 | replicas, entries sent |
//! | state machine safety | no two nodes apply different commands at an index, and their states are equal | Figure 3, §5.4.3 | replicas, state machines, snapshots |
//! | commit rule | a leader commits only entries of its own term by counting | §5.4.2 | replicas |
//! | configuration | one index has one configuration | §6 | replicas |
//! | compaction | a log is cut only where a snapshot covers it, and it was committed | §7 | replicas |
//! | order of indexes | applied ≤ dispatched ≤ commit ≤ last; durable ≤ last | §5.3 | replicas |
//! | faulty entries | a lost entry is not applied, and its node does not lead | ARCHITECTURE.md | replicas |
//! | one vote | the votes that ever left a node name one candidate per term | §5.2 | messages |
//! | durable promises | the term, the vote, the promise and the entries that a message states are on the sender's disk | §5, Figure 2 "persistent state" | messages, disks |
//! | durable commits | a quorum remembers every committed entry, and a node that keeps commands has it whole | §5.4 | replicas, disks |
//! | tie-break | a witness never leads, and is sent no entry that no other node holds | ARCHITECTURE.md | messages, disks |
//! | leadership transfer | a node that is told to campaign holds all entries of its leader | thesis §3.10 | messages, disks |
//! | at most once | a command is applied at one index at most | ARCHITECTURE.md | callers, state machines |
//! | definite failures | a command that failed definitely is never applied | ARCHITECTURE.md | callers, state machines |
//! | acknowledged writes | a command was applied at the index that its caller is told | ARCHITECTURE.md | callers, state machines |
//! | linearizable reads | a read is served at or above all that was committed when it was asked for | thesis §6.4 | reads |
//!
//! The properties of a node's reaction to one message are in `deliveries`: up-to-date votes,
//! protected leaders, read index, lease, covered, epochs, discards, outsiders.
//!
//! `Oracle::check_changed` covers only the changes of a step, and finds the same violations as
//! [`Oracle::check`]: unchanged parts were checked before, and the memory only grows.

mod cluster;
pub(crate) mod deliveries;
mod messages;
mod operations;
mod outside;
mod per_node;
mod replicas;
mod state_machines;
pub mod witness;

use super::{disk::Disk, nodes::Node, quorum};
use messages::Messages;
use per_node::PerNode;
use quorate_raft::{EntryId, Index, Membership, Message, NodeId, ReadToken, Replica};
use replicas::Seen;
use std::{collections::BTreeMap, sync::Arc};

pub use cluster::{Cluster, Durable};
pub use operations::Operations;
pub use replicas::Replicas;
pub use state_machines::{Content, StateMachines};

/// The oracle of one cluster.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Oracle {
    replicas: Replicas,
    messages: Messages,
    /// What was applied, written and sent.
    pub state_machines: StateMachines,
    /// What callers were told of their commands.
    pub operations: Operations,
    /// For every read asked for, the last index committed at that time.
    reads: BTreeMap<ReadToken, Index>,
    /// The configurations that were ever seen committed, by the index of their entry.
    members: BTreeMap<Index, Membership>,
    /// The state of each node's replica when its changes were last checked.
    seen: PerNode<Seen>,
}

impl Oracle {
    /// Checks all nodes as they are now. `members` is the configuration until a later
    /// one is seen committed.
    ///
    /// # Errors
    /// The property that does not hold.
    pub fn check<'a>(
        &mut self,
        replicas: impl Iterator<Item = &'a Replica> + Clone,
        nodes: &[Arc<Node>],
        members: &Membership,
    ) -> Result<(), String> {
        replicas.clone().for_each(|replica| self.learn_members(replica));
        self.replicas.check(replicas)?;
        let members = self.members().unwrap_or(members);
        self.replicas.committed().try_for_each(|entry| durable_commit(entry, nodes, members))
    }

    /// The same, if only `changed` did anything since the last check of either kind, and its disk
    /// holds no less than then, except from `less_from` on.
    pub(super) fn check_changed<'a>(
        &mut self,
        changed: NodeId,
        replicas: impl Iterator<Item = &'a Replica> + Clone,
        nodes: &[Arc<Node>],
        members: &Membership,
        less_from: Option<Index>,
    ) -> Result<(), String> {
        replicas.clone().filter(|replica| replica.id() == changed).for_each(|replica| self.learn_members(replica));
        let seen = self.seen.of(changed);
        let news = self.replicas.check_changed(changed, seen, replicas)?;
        let members = self.members.last_key_value().map_or(members, |(_, members)| members);
        // A disk can hold too little only where it holds less than before, or
        // where more was committed.
        for entry in news.into_iter().flat_map(|(from, to)| self.replicas.committed_in(from, to)) {
            durable_commit(entry, nodes, members)?;
        }
        for entry in less_from.into_iter().flat_map(|from| self.replicas.committed_in(from, Index(u64::MAX))) {
            durable_commit(entry, nodes, members)?;
        }
        Ok(())
    }

    /// The newest configuration that was ever seen committed; `None` while the cluster still
    /// has its first one.
    #[must_use]
    pub fn members(&self) -> Option<&Membership> {
        self.members.last_key_value().map(|(_, members)| members)
    }

    fn learn_members(&mut self, replica: &Replica) {
        let known = self.members.last_key_value().map_or(Index(0), |(known, _)| *known);
        let news = replica.configurations().rev().take_while(|(index, _)| *index > known);
        for (index, membership) in news.filter(|(index, _)| *index <= replica.commit()) {
            self.members.insert(*index, membership.clone());
        }
    }

    /// Checks a message as it leaves `from` for `to`.
    ///
    /// # Errors
    /// The property that does not hold.
    pub fn leaves(
        &mut self,
        from: NodeId,
        to: NodeId,
        message: &Message,
        cluster: &impl Cluster,
    ) -> Result<(), String> {
        self.messages.leaves(from, to, message, cluster, &mut self.replicas)
    }

    /// From `less` on, the disk of a node may hold less than before.
    pub(crate) fn holds_less(&mut self, node: NodeId, less: Index) {
        self.messages.holds_less(node, less);
    }

    /// A state machine applied the command of entry `index`. True if no other has before.
    ///
    /// # Errors
    /// If another one applied another command there, or passed by without one.
    pub fn command_applied(&mut self, node: NodeId, index: Index, digest: u64) -> Result<bool, String> {
        self.state_machines.command_applied(node, index, digest, self.replicas.last_term_led())
    }

    /// Records a read as it is asked for.
    pub fn read_asked(&mut self, token: ReadToken) {
        let committed = self.last_committed().index;
        self.reads.insert(token, committed);
    }

    /// Records that a read may be served at `index`.
    ///
    /// # Errors
    /// The property that does not hold.
    pub fn read_ready(&mut self, token: ReadToken, index: Index) -> Result<(), String> {
        match self.reads.remove(&token) {
            Some(committed) if committed <= index => Ok(()),
            Some(committed) => Err(format!(
                "linearizable reads: {committed} was committed when read {token} was asked, served at {index}"
            )),
            None => Err(format!("linearizable reads: read {token} was never asked for, or is answered twice")),
        }
    }

    /// Records that a read can't be served.
    pub fn read_failed(&mut self, token: ReadToken) {
        self.reads.remove(&token);
    }

    /// Whether this read no longer waits: it was answered, or failed.
    #[must_use]
    pub fn was_answered(&self, token: ReadToken) -> bool {
        !self.reads.contains_key(&token)
    }

    /// The entries that were ever seen committed, in order.
    pub fn committed(&self) -> impl Iterator<Item = EntryId> {
        self.replicas.committed()
    }

    /// The last entry that was ever seen committed.
    pub fn last_committed(&self) -> EntryId {
        self.replicas.committed().next_back().unwrap_or_default()
    }
}

/// Checks that the disks of a quorum remember a committed entry, and that at least
/// one holds it whole.
fn durable_commit(entry: EntryId, nodes: &[Arc<Node>], members: &Membership) -> Result<(), String> {
    let disk = |id: NodeId| nodes.iter().find(|node| node.id == id).map(|node| &node.disk);
    let remembers = |id| disk(id).is_some_and(|disk| disk.remembers(entry));
    // A leader commits by the newest configuration of its log, which a later leader may remove:
    // by the settled one that follows a joint one, or by a joint one that no other node has. A
    // leader elected by the previous configuration has the entry all the same: the two quorums
    // have a voter in common.
    let leading = nodes.iter().filter_map(|node| node.running.as_ref()).filter(|running| running.leads());
    let by_leader =
        || leading.map(|running| running.replica.membership()).any(|members| quorum::reached(members, remembers));
    let by_half = || members.is_joint() && quorum::reached(&members.settled(), remembers);
    let remembered = quorum::reached(members, remembers) || by_half() || by_leader();
    let keeps = |node: &Node| members.witness() != Some(node.id) && node.disk.holds(entry);
    if remembered && nodes.iter().any(|node| keeps(node)) {
        return Ok(());
    }
    let count = |counts: fn(&Disk, EntryId) -> bool| nodes.iter().filter(|node| counts(&node.disk, entry)).count();
    let (remember, hold) = (count(Disk::remembers), count(Disk::holds));
    Err(format!("durable commits: {entry} was committed, {remember} disks remember it and {hold} hold it"))
}
