//! Lost-data guard: detects members whose data directory was emptied, or rolled back to
//! an earlier state.
//!
//! The acknowledgements and votes of such a member are gone, and with them the reason to trust a
//! quorum that counts it. The member itself can't know that. So each node remembers, for good, the
//! *holding* of every member: the last committed entry up to which that member durably acknowledged
//! the log. A sound disk never holds less again, as only uncommitted entries are ever truncated. A
//! member that comes with less is told so ([`Body::Emptied`]), is neither elected nor brought up to
//! date, is reported, and stops.
//!
//! A message with less may be old: it waited in a cut link while its sender acknowledged more. So
//! there are two ways to a report:
//!
//! - A leader names a member by an answer that proves the loss ([`Replica::proves_loss`]). So a
//!   voter that leads, or protects a leader, only denies its vote to a candidate with less.
//! - Any other voter names a candidate by its request, and tells it: no leader may be left to do
//!   so.
//!
//! A leader knows the holdings of its own leadership exactly. It tells them to all members
//! ([`Body::Holdings`]) every [`Replica::HOLDINGS_EVERY`], so that a later leader, or a survivor,
//! knows them too.
//!
//! A node's own holding survives its restart, unlike its commit index: no leader's log replaces
//! entries up to it, not even that of a leader elected by a majority that lost its data.
//!
//! A member that never held or promised anything, as far as its disk knows, is new or was emptied.
//! It is careful: until a leader has brought it up to date, it votes only among others like it, and
//! confirms no leadership.
//!
//! **Invariant:** a holding is a fact about the past, so neither delay nor repetition of a message
//! makes it wrong.
//!
//! # Limits
//!
//! A sound member is named if an old request of it arrives where no leader is heard any more, and
//! the voter knows of later acknowledgements. No rule can exclude that: the first request of an
//! emptied member equals, to the last byte, the first one that this member ever sent. Only the
//! report is wrong; the member goes on.

use super::{
    effect::{Effect, MessageRefusal, Violation},
    leadership::Leadership,
    observation::Denial,
    state::{Replica, Role},
};
use crate::{
    ids::{EntryId, Index, Moment, NodeId},
    message::{AppendOutcome, AppendReply, Body, Emptied, Holdings, Vote},
    progress::Progress,
    quorum,
};
use alloc::vec::Vec;
use core::time::Duration;

/// Holdings of more nodes than this are not remembered: a cluster never has that many,
/// former members included.
const HOLDINGS_MAX: usize = 4096;

impl Replica {
    /// The interval in which a leader tells the members' holdings, and the shortest one in which
    /// they are written. Later acknowledgements are known to the leader alone.
    pub const HOLDINGS_EVERY: Duration = Duration::from_secs(5);

    /// Whether this node never held an entry and never voted, as far as its own disk knows.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.guard.is_new
    }

    /// The holding of a member, or of this node itself: the last committed entry up to which it is
    /// known to have durably acknowledged the log. `None` if it is not known to have had a log.
    #[must_use]
    pub fn holding_of(&self, member: NodeId) -> Option<Index> {
        let remembered = self.guard.holdings.get(&member).copied();
        let Role::Leader(leadership) = &self.role else { return remembered };
        let matched = leadership.matched(member).min(self.commit);
        remembered.max(Some(matched).filter(|matched| *matched > Index(0)))
    }

    /// The last entry of this node's log and its holding, if the log ends before the holding: its
    /// disk lost entries without a trace.
    #[must_use]
    pub fn lost_tail(&self) -> Option<(Index, Index)> {
        let last = self.log.last().index;
        self.guard.holdings.get(&self.id).copied().filter(|held| *held > last).map(|held| (last, held))
    }

    /// The last entry of this log that is known to be committed, by this run of the node or
    /// an earlier one.
    #[must_use]
    pub fn known_committed(&self) -> Index {
        let held = self.guard.holdings.get(&self.id);
        held.map_or(self.commit, |held| self.commit.max((*held).min(self.log.last().index)))
    }

    /// `member` durably has a log: remembers that for good.
    pub(super) fn learn_log_of(&mut self, member: NodeId, last: Index, out: &mut Vec<Effect>) {
        let is_news = || !self.guard.holdings.contains_key(&member) && self.membership().contains(member);
        if last > Index(0) && is_news() {
            self.remember(alloc::vec![(member, Index(0))], out);
        }
    }

    /// Remembers those of the holdings that are new, for good.
    fn remember(&mut self, holdings: Vec<(NodeId, Index)>, out: &mut Vec<Effect>) {
        let mut members = holdings;
        members.retain(|(member, index)| {
            let known = self.guard.holdings.get(member).copied();
            let is_news = known < Some(*index) && (known.is_some() || self.guard.holdings.len() < HOLDINGS_MAX);
            if is_news {
                self.guard.holdings.insert(*member, *index);
            }
            is_news
        });
        if !members.is_empty() {
            out.push(Effect::Remember { members });
        }
    }

    /// Remembers the holdings that this leadership knows, this node's own among them.
    pub(super) fn remember_holdings(&mut self, out: &mut Vec<Effect>) {
        let own = (self.id, self.commit.min(self.writes.durable()));
        let Role::Leader(leadership) = &self.role else { return };
        let matched = leadership.matched.iter().map(|(member, matched)| (*member, self.commit.min(*matched)));
        let held = matched.chain([own]).filter(|(_, index)| *index > Index(0)).collect();
        self.remember(held, out)
    }

    /// Tells the members each other's holdings when it is time, also without changes, for a message
    /// may be lost.
    pub(super) fn tell_holdings(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let Role::Leader(Leadership { since, .. }) = &self.role else { return };
        let told = self.guard.told.filter(|(term, _)| *term == self.term());
        if now.since(told.map_or(*since, |(_, at)| at)) < Self::HOLDINGS_EVERY {
            return;
        }
        self.remember_holdings(out);
        self.guard.told = Some((self.term(), now));
        let members: Vec<_> = self.guard.holdings.iter().map(|(member, index)| (*member, *index)).collect();
        for peer in self.peers() {
            self.say(now, peer, Body::Holdings(Holdings { members: members.clone() }), out);
        }
    }

    /// A leader tells the members' holdings. This node's own among them is the leader's
    /// memory of it.
    pub(super) fn holdings_told(&mut self, from: NodeId, told: Holdings, out: &mut Vec<Effect>) {
        if !self.is_trusted(from) {
            return out.push(Effect::Refused { from, reason: MessageRefusal::Stranger });
        }
        let own = told.members.iter().find(|(member, _)| *member == self.id).map(|(_, held)| *held);
        if self.halts_as_lost(from, own.unwrap_or_default(), out) {
            return;
        }
        let others = told.members.into_iter().filter(|(member, _)| *member != self.id);
        let here = self.commit.min(self.writes.durable());
        let here = (here > Index(0)).then_some((self.id, here));
        self.remember(others.chain(here).collect(), out);
    }

    /// The holding of `member`, whose log ends at `last`, if it had more than that, or had a log and
    /// comes as a new one.
    pub(super) fn held_more(&mut self, member: NodeId, last: Index, is_new: bool) -> Option<Index> {
        let held = self.holding_of(member)?;
        if last >= held && !is_new {
            self.guard.lost.remove(&member);
            return None;
        }
        Some(held)
    }

    /// The same, and the member is told.
    ///
    /// The message may be old; then the member knows better and goes on. It is told all the same,
    /// and its request is refused.
    pub(super) fn comes_with_less(
        &mut self,
        now: Moment,
        member: NodeId,
        last: Index,
        is_new: bool,
        out: &mut Vec<Effect>,
    ) -> bool {
        let Some(held) = self.held_more(member, last, is_new) else { return false };
        self.say(now, member, Body::Emptied(Emptied { known_at: held }), out);
        true
    }

    /// A peer acknowledged an append of this epoch.
    pub(super) fn note_acknowledged(&mut self, peer: NodeId, epoch: u64) {
        let latest = self.guard.acknowledged.entry(peer).or_default();
        *latest = (*latest).max((self.hard_state.term, epoch));
    }

    /// Whether an answer in this epoch that names less than the member held proves a loss. A member
    /// that lost data was restarted, so a later epoch began; an answer of an epoch in which it
    /// acknowledged an append may have been repeated, or overtaken. An answer without an epoch is
    /// one to a heartbeat, which never names more than the member has acknowledged by then.
    pub(super) fn proves_loss(&self, member: NodeId, epoch: u64) -> bool {
        let acknowledged = self.guard.acknowledged.get(&member).copied().unwrap_or_default();
        epoch == Progress::NO_EPOCH || (self.term(), epoch) > acknowledged
    }

    /// Reports, once, that `member` came with less than it held.
    pub(super) fn name_lost(&mut self, member: NodeId, last: Index, out: &mut Vec<Effect>) {
        let Some(held) = self.holding_of(member) else { return };
        if self.guard.lost.insert(member, last) != Some(last) {
            let is_lost = |id| self.guard.lost.contains_key(&id);
            let is_last_copy = !quorum::reached(self.membership(), |id| !is_lost(id));
            out.push(Effect::DataLost { member, last, held, is_last_copy });
        }
    }

    /// A leader's log lacks the entry at `index`, which is committed here: the members that elected
    /// it lost the entry. The leader is told. This node, which may have the last good copy, stops.
    pub(super) fn contradicted(&mut self, now: Moment, leader: NodeId, index: Index, out: &mut Vec<Effect>) {
        if self.comes_with_less(now, leader, index.previous(), false, out) {
            self.name_lost(leader, index.previous(), out);
        }
        out.push(self.violated_by(leader, Violation::CommittedConflict { index, leader }));
    }

    /// Whether a member came with less than it held, and has not come with more since.
    pub(super) fn is_known_lost(&self, member: NodeId) -> bool {
        self.guard.lost.contains_key(&member)
    }

    /// Whether the sender of this append or chunk has yet to hear where this member's log ends:
    /// then it is told.
    ///
    /// A snapshot would make a member that lost its log pass for whole, and so would the log from
    /// its first entry on, for which no earlier entry is compared. (Any other append is rejected by
    /// itself, and the leader then remembers the holding.) So these are rejected, too, once. Unless
    /// the leader remembers more, it begins an epoch in which they are taken.
    pub(super) fn is_stranger_to(
        &mut self,
        now: Moment,
        from: NodeId,
        (epoch, previous): (u64, Index),
        out: &mut Vec<Effect>,
    ) -> bool {
        let (term, last) = (self.term(), self.log.last().index);
        let told = self.guard.introduced.filter(|(in_term, to, _)| (*in_term, *to) == (term, from));
        let lacks = self.guard.is_new || last < previous;
        if !lacks || told.is_some_and(|(_, _, in_epoch)| epoch > in_epoch) {
            return false;
        }
        self.guard.introduced = told.or(Some((term, from, epoch)));
        let conflict = if self.guard.is_new { EntryId::default() } else { self.conflict_at(previous) };
        let outcome = AppendOutcome::Rejected { previous, conflict, last, log_last: last };
        self.say(now, from, Body::AppendReply(AppendReply { epoch, outcome }), out);
        true
    }

    /// Whether a won pre-vote must not elect this node yet: the first of a new member, until all
    /// voters answered or the election timer goes off again. Other emptied members would elect it
    /// at once; a voter that remembers its log says so in its answer.
    pub(super) fn waits_for_answers(&mut self) -> bool {
        let waits = self.guard.is_new && self.guard.waits_in.is_none_or(|waits_in| waits_in == self.campaign);
        let others = || self.membership().voters().into_iter().filter(|voter| *voter != self.id);
        let waits = waits && !others().all(|voter| self.guard.answered.contains(&voter));
        if waits {
            self.guard.waits_in = Some(self.campaign);
        }
        waits
    }

    /// Whether this new member gives its campaign up, and waits again in the next one: a voter that
    /// hears a leader leaves it to that leader to find a loss, so it does not say what it remembers.
    pub(super) fn gives_way_to_leader(&mut self, vote: &Vote) -> bool {
        let gives_way = self.guard.is_new && matches!(vote.denial, Some(Denial::HearsLeader { .. }));
        if gives_way {
            self.guard.waits_in = None;
        }
        gives_way
    }

    /// A voter answered a pre-vote. Returns whether that was the last answer that this new
    /// member waited for.
    pub(super) fn was_last_answer(&mut self, from: NodeId) -> bool {
        if !self.guard.is_new {
            return false;
        }
        self.guard.answered.insert(from);
        self.guard.waits_in == Some(self.campaign) && !self.waits_for_answers()
    }

    /// A member tells this node its holding. If this node has less, its disk was emptied
    /// or rolled back.
    pub(super) fn told_data_lost(&mut self, from: NodeId, emptied: Emptied, out: &mut Vec<Effect>) {
        if !self.is_trusted(from) {
            return;
        }
        if self.guard.is_new {
            out.push(Effect::Halt(Violation::DataLost { known_at: emptied.known_at, by: from }));
        } else {
            self.halts_as_lost(from, emptied.known_at, out);
        }
    }

    /// Whether this node once held more than it has: then it stops.
    pub(super) fn halts_as_lost(&mut self, by: NodeId, known_at: Index, out: &mut Vec<Effect>) -> bool {
        let last = self.log.last().index;
        let is_lost = last < known_at;
        if is_lost {
            out.push(Effect::Halt(match last == Index(0) {
                true => Violation::DataLost { known_at, by },
                false => Violation::RolledBack { last, known_at, by },
            }));
        }
        is_lost
    }

    /// Whether `from` may tell this node its holding: a member; or, while this node waits to be
    /// added and has no configuration, its leader.
    fn is_trusted(&self, from: NodeId) -> bool {
        self.membership().contains(from) || (self.membership().is_empty() && self.leader == Some(from))
    }
}
