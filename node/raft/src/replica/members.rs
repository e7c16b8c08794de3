//! Membership changes: one at a time, through a joint configuration (paper §6).
//!
//! ```text
//!                 change                    commit                       commit
//!   C-old ──────────────────▶ C-old,new ───────────────▶ C-new ───────────────────────▶ done; a leader that
//!     │   only learners, addresses or metadata change      ▲                            is not in it transfers
//!     └────────────────────────────────────────────────────┘                            its leadership
//! ```
//!
//! A configuration is in force from the moment it is in a node's log, committed or not. The leader
//! at the time when a joint configuration is committed appends the one that follows. That replaces
//! the joint one as the configuration in force, so it happens once.
//!
//! **Invariant:** a leader appends a configuration only if the one before it is committed, and so
//! is an entry of its own term. The one exception changes no member: a leader's first entry may
//! give the configuration in force the cluster's id.
//!
//! A removed node can't know of its removal: it receives no entries any more, and an
//! uncommitted configuration in its log may be taken back. So while it hears no leader it sends
//! pre-vote requests, and a member that hears a leader answers with [`Body::Removed`]. A leader
//! that was removed knows.

use super::{
    effect::Effect,
    state::{Replica, Role},
};
use crate::{
    batch::BatchBuilder,
    change::Change,
    entry::Kind,
    ids::{EntryId, Index, Moment, NodeId},
    membership::Membership,
    message::{Body, Phase, Removed},
    quorum,
    refused::ChangeRefused,
};
use alloc::vec::Vec;

impl Replica {
    /// Begins a membership change. Returns the index of its first configuration, or that of the
    /// configuration in force if the change would not alter it. The change is complete when the
    /// configuration in force is committed and no longer joint ([`Replica::is_settled`]).
    ///
    /// # Errors
    /// If it can't begin now, or does not apply to the configuration in force: then
    /// nothing has happened.
    pub fn change(&mut self, now: Moment, change: &Change, out: &mut Vec<Effect>) -> Result<Index, ChangeRefused> {
        let Role::Leader(leadership) = &self.role else { return Err(ChangeRefused::NotLeader) };
        let index = self.memberships.current_index();
        if self.commit < leadership.first {
            return Err(ChangeRefused::NotReady);
        }
        if !self.is_settled() {
            return Err(ChangeRefused::Pending { index });
        }
        if leadership.transfer.is_some() {
            return Err(ChangeRefused::TransferInProgress);
        }
        let current = self.membership();
        let target = change.target(current, index)?;
        if target == *current {
            return Ok(index);
        }
        if target.incoming() != current.incoming() {
            self.could_go_on_as(now, &target)?;
        }
        let next = if target.incoming() != current.incoming() { current.toward(&target) } else { target };
        self.append_configuration(now, &next, out);
        Ok(self.log.last().index)
    }

    /// Whether the configuration in force is committed and not joint.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.memberships.current_index() <= self.commit && !self.membership().is_joint()
    }

    /// Index of the entry of the configuration in force; it may be before the log's beginning.
    #[must_use]
    pub fn membership_index(&self) -> Index {
        self.memberships.current_index()
    }

    /// The configurations in the log, each with its index; first the one as of the log's beginning.
    pub fn configurations(&self) -> impl DoubleEndedIterator<Item = &(Index, Membership)> {
        self.memberships.iter()
    }

    /// The nodes that this node talks to: the members, and, until the configuration in force is
    /// committed, those of the committed one, which may be needed to commit it.
    #[must_use]
    pub fn peers(&self) -> Vec<NodeId> {
        let mut peers = self.membership().peers_of(self.id);
        if self.memberships.current_index() > self.commit {
            peers.extend(self.memberships.at(self.commit).1.peers_of(self.id));
            peers.sort_unstable();
            peers.dedup();
        }
        peers
    }

    /// The number of entries that `peer` is known to lack, if this node leads and heard it lately.
    #[must_use]
    pub fn lag_of(&self, now: Moment, peer: NodeId) -> Option<u64> {
        let Role::Leader(leadership) = &self.role else { return None };
        let heard = leadership.heard.get(&peer)?;
        let recently = now.since(*heard) <= self.settings.election_timeout_max;
        recently.then(|| self.log.last().index.since(leadership.matched(peer)))
    }

    /// Whether this node leads, heard a member lately, and knows it to hold entries and lack few.
    #[must_use]
    pub fn keeps_up(&self, now: Moment, member: NodeId) -> bool {
        self.is_leader() && self.is_caught_up(now, member).is_ok()
    }

    /// Whether the cluster could go on with these voters: each new one has caught up, and so
    /// has a quorum.
    fn could_go_on_as(&self, now: Moment, target: &Membership) -> Result<(), ChangeRefused> {
        let new = target.incoming().iter().filter(|id| !self.membership().is_voter(**id));
        new.copied().try_for_each(|id| self.is_caught_up(now, id))?;
        let goes_on = |id| id == self.id || self.is_caught_up(now, id).is_ok();
        if quorum::reached(target, goes_on) {
            return Ok(());
        }
        let others = target.incoming().iter().copied().filter(|id| *id != self.id);
        others.map(|id| self.is_caught_up(now, id)).find(Result::is_err).unwrap_or(Ok(()))
    }

    /// Whether a member would not hold up the others as a voter. A node that holds nothing votes
    /// for no candidate with a log (see `lost_data`), so the member must durably hold entries.
    fn is_caught_up(&self, now: Moment, id: NodeId) -> Result<(), ChangeRefused> {
        let holds = matches!(&self.role, Role::Leader(leadership) if leadership.matched(id) > Index(0));
        let lag = self.lag_of(now, id).filter(|_| holds);
        if lag.is_some_and(|lag| lag <= self.settings.promotion_lag_max) {
            return Ok(());
        }
        Err(ChangeRefused::Behind { id, entries: lag.unwrap_or(self.log.last().index.0) })
    }

    fn append_configuration(&mut self, now: Moment, membership: &Membership, out: &mut Vec<Effect>) {
        let (last, checksum) = (self.log.last(), self.log.last_checksum());
        let mut batch = BatchBuilder::new(self.settings.checksum, self.term(), last.index.next(), checksum, 256);
        batch.push(Kind::Membership, &membership.encode());
        if let Some(batch) = batch.finish() {
            self.append(now, batch, out);
        }
    }

    /// The leader's commit index moved from `before`: takes the next step of the
    /// configuration in force.
    pub(super) fn continue_change(&mut self, now: Moment, before: Index, out: &mut Vec<Effect>) {
        let index = self.memberships.current_index();
        if index > self.commit {
            return;
        }
        if self.membership().is_joint() {
            let settled = self.membership().settled();
            self.append_configuration(now, &settled, out);
        } else if index > before {
            out.push(Effect::MembersChanged);
        }
        if !self.membership().is_joint() && !self.membership().is_voter(self.id) {
            self.depart(now, out);
        }
    }

    /// Whether this node may be needed as leader: it is a voter, or was one before an uncommitted
    /// configuration without it. It may be the only node that holds that configuration, which is
    /// then never committed unless it leads (thesis §4.2.2). Then it counts for no majority.
    pub(super) fn may_be_needed_as_leader(&self) -> bool {
        if self.is_witness() {
            return false;
        }
        let is_voter = |membership: &Membership| membership.is_voter(self.id);
        let has_left = || !self.membership().contains(self.id);
        is_voter(self.membership()) || (has_left() && self.memberships.since(self.commit).any(is_voter))
    }

    /// Whether a candidate has left the cluster, and this node can lead in its place: it has the
    /// candidate's whole log, and no configuration there that may be in force names the candidate.
    /// A removed node that restarts knows no commit index, so it campaigns. Elected again and
    /// again, because it may be faster than the members, it would hold the cluster up: members
    /// believe neither its commit index nor its request to take over.
    pub(super) fn replaces(&self, now: Moment, candidate: NodeId, last: EntryId) -> bool {
        last == self.log.last() && self.is_outside(candidate) && self.can_lead(now)
    }

    /// Whether this node, a voter, could lead if it were elected: its log is whole, and its disk
    /// has room and answers.
    pub(super) fn can_lead(&self, now: Moment) -> bool {
        let is_healthy = self.faults.is_empty() && !self.is_full && !self.is_stalled(now);
        is_healthy && self.membership().is_voter(self.id) && !self.is_witness()
    }

    /// Sends pre-vote requests to learn whether this node was removed: it can't lead, as far as it
    /// knows, and hears no leader. No ballot is open, so the answers elect no leader.
    pub(super) fn ask_whether_removed(&self, out: &mut Vec<Effect>) {
        out.extend(self.vote_requests(Phase::PreVote, false).map(Effect::Send));
    }

    /// Whether a node that asks for a vote, and whose log ends at `last`, was certainly removed. If
    /// so, it is told.
    pub(super) fn tells_removed(&mut self, now: Moment, from: NodeId, last: EntryId, out: &mut Vec<Effect>) -> bool {
        let at = self.memberships.current_index();
        // Without a leader, a later configuration that includes the asker again may yet need its
        // vote. And a node that is not a member by its own log lags itself.
        let may_tell = self.hears_leader(now) && self.membership().contains(self.id);
        // An uncommitted configuration may be taken back; and an asker with a longer log than this
        // one may be a member by a later configuration.
        let is_certain = at <= self.commit && at > Index(0) && last <= self.log.last();
        let is_removed = may_tell && is_certain && !self.membership().contains(from);
        if is_removed {
            self.say(now, from, Body::Removed(Removed { at }), out);
        }
        is_removed
    }

    /// A member says that a configuration without this node is committed.
    pub(super) fn told_removed(&mut self, now: Moment, from: NodeId, removed: Removed, out: &mut Vec<Effect>) {
        let index = self.memberships.current_index();
        // A node that was added again, or only just added, may get outdated messages from members
        // that lag; but a node that hears a leader belongs to its cluster.
        let is_named_here = self.membership().contains(self.id);
        let is_news = removed.at > index || (removed.at == index && !is_named_here);
        // Only a node that its own log does not name also believes a former member: the present
        // members may be unknown to it.
        let is_credible = self.memberships.ever_contained(from) && (!self.is_outside(from) || !is_named_here);
        // A leader that no configuration here names yet replicates to this node, so
        // it knows better.
        let is_led = self.leader.is_some() && (self.hears_leader(now) || !self.leader_is_member);
        if is_news && is_credible && !self.is_leader() && !is_led {
            out.push(Effect::Removed { at: removed.at });
        }
    }
}
