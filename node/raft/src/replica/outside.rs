//! Messages from outside the configuration: a removed node's certificate stays valid, and a node
//! that never was a member may have one.
//!
//! A later configuration that this node does not know yet may name the sender, and the sender may
//! lead by it. So while no leader is heard, a node from outside is voted for and followed (thesis
//! §4.1); otherwise a cluster could not elect the member that it added last. All other messages
//! from outside are refused, and counted as `stranger`.
//!
//! **Invariant:** while a leader is heard, no message from outside changes term, vote or leader.
//!
//! **Invariant:** no message from outside stops a node. A contradiction stops it only if both
//! sides are members.
//!
//! A leader from outside is followed until a configuration in its log names it. Until then it is
//! not protected against elections, answers to it back no lease and no read, its commit index is
//! not believed, no request is forwarded to it, and a member that claims the same term replaces it.
//!
//! # Limits
//!
//! - A node from outside can send entries, or a snapshot, with a configuration that names it, to a
//!   node that hears no leader. No rule distinguishes it from a member that was added while this
//!   node was away. None of that is possible while a leader is heard.
//! - While no leader is heard, it can raise the term again and again, and so hold up an election as
//!   long as it sends. Each message raises the term by 1,000 at most; 2^63 takes 9 * 10^15 of them,
//!   292 years at a million a second. A smaller limit, or none of these steps, would lock out a
//!   member that was away while its cluster's other members were all replaced: no member that it
//!   knows is left to show it the term.
//! - A node without a configuration (it waits to be added) follows every node, at any term: it
//!   knows no member that it could ask. If it was led more than 2^32 terms ahead, members refuse
//!   its messages from then on; it needs an empty directory and a new id. Otherwise the cluster
//!   adopts its term when it is added, which costs one election.

use super::{
    effect::{Effect, MessageRefusal, Violation},
    state::Replica,
};
use crate::{
    ids::{Moment, NodeId, Term},
    message::{Body, Phase},
};
use alloc::vec::Vec;
use core::cmp::Ordering;

impl Replica {
    /// The most by which one message of a node that is not a member raises the term, unless a
    /// member has shown that term, too. A thousand terms are five minutes of failed elections at
    /// the default timing, far more than a node that was away has missed. If it has missed more,
    /// the members' answers to its next pre-vote show it the term, or further messages raise it.
    const UNPROVEN_RISE_MAX: u64 = 1_000;
    /// No message raises the term by more than this, from any sender: at one election per
    /// millisecond it takes 49 days, so such a term is damaged, or was forged towards a node that
    /// waited to be added. The term limit is out of reach of 2^31 such messages.
    const RISE_MAX: u64 = 1 << 32;

    /// Whether a node belongs neither to the committed configuration nor to a later one. A leader
    /// that was a member stays one to the end of its leadership: it leads until the configuration
    /// without it is committed, and then transfers leadership. To a node without a configuration no
    /// node is outside.
    #[must_use]
    pub fn is_outside(&self, id: NodeId) -> bool {
        let leads = self.leader == Some(id) && self.leader_is_member;
        let is_named = || self.memberships.since(self.commit).any(|membership| membership.contains(id));
        !self.membership().is_empty() && !leads && !is_named()
    }

    /// Admits a message, or returns the reason to refuse it. A message of a leader or candidate
    /// whose term is too far ahead is refused, but raises the term as far as one message may: so
    /// the sender's next ones come through.
    pub(super) fn admit(
        &mut self,
        now: Moment,
        from: NodeId,
        term: Term,
        body: &Body,
        out: &mut Vec<Effect>,
    ) -> Result<(), MessageRefusal> {
        let is_outside = self.is_outside(from);
        if is_outside && !self.heeds_from_outside(now, from, term, body) {
            return Err(MessageRefusal::Stranger);
        }
        if term <= self.term() {
            return Ok(());
        }
        let may_rise = self.may_rise_to(from, term);
        if self.proves_terms(from) {
            self.shown_term = self.shown_term.max(term);
        }
        // Pre-votes, `Removed`, `Emptied`, `Holdings` and reports do not raise the term.
        let is_about_terms = match body {
            Body::RequestVote(request) => request.phase == Phase::Vote,
            Body::Removed(_) | Body::Emptied(_) | Body::Holdings(_) | Body::Observe(_) | Body::Report(_) => false,
            _ => true,
        };
        if may_rise || !is_about_terms {
            return Ok(());
        }
        // Answers are left out: a removed node with a late term would pass it on through others
        // that were removed, and so depose leaders.
        if matches!(body, Body::RequestVote(_) | Body::Append(_) | Body::Heartbeat(_) | Body::SnapshotChunk(_)) {
            self.adopt_of(now, from, Term(self.term().0 + Self::UNPROVEN_RISE_MAX), term, out);
        }
        Err(MessageRefusal::Stranger)
    }

    /// Whether a message from outside is handled: requests of nodes that lead, or may come to lead,
    /// while no leader is heard here; and those that change nothing.
    fn heeds_from_outside(&self, now: Moment, from: NodeId, term: Term, body: &Body) -> bool {
        match body {
            Body::RequestVote(request) if request.phase == Phase::PreVote => true,
            Body::RequestVote(_) => !self.refuses_elections(now),
            Body::Repair(_) => !self.hears_leader(now),
            Body::Append(_) | Body::Heartbeat(_) | Body::SnapshotChunk(_) => match term.cmp(&self.term()) {
                // The sender is told the later term.
                Ordering::Less => true,
                Ordering::Equal => self.leader.is_none_or(|leader| leader == from),
                Ordering::Greater => !self.hears_leader(now),
            },
            // Judged by a rule of its own.
            Body::Removed(_) => true,
            _ => false,
        }
    }

    /// Whether no message can raise the term this far.
    pub(super) fn is_out_of_reach(&self, term: Term) -> bool {
        term.0.saturating_sub(self.term().0) > Self::RISE_MAX && !self.membership().is_empty()
    }

    /// Whether a message of `from` may raise the term to this one.
    fn may_rise_to(&self, from: NodeId, term: Term) -> bool {
        term.0.saturating_sub(self.term().0) <= Self::UNPROVEN_RISE_MAX
            || term <= self.shown_term
            || self.proves_terms(from)
    }

    /// Whether a term that the node shows is one that the cluster has reached.
    fn proves_terms(&self, id: NodeId) -> bool {
        self.membership().is_empty() || self.membership().contains(id)
    }

    /// Forgets a shown term once the own term has reached it.
    pub(super) fn forget_shown_term(&mut self) {
        self.shown_term = if self.shown_term > self.term() { self.shown_term } else { Term(0) };
    }

    /// Whether a leader may have transferred leadership to this node: to voters only.
    pub(super) fn may_be_told_to_campaign(&self, id: NodeId) -> bool {
        self.memberships.since(self.commit).any(|membership| membership.is_voter(id))
    }

    /// Entries or a snapshot of the leader have arrived, perhaps with a configuration
    /// that names it.
    pub(super) fn recognise_leader(&mut self, now: Moment) {
        if !self.leader_is_member && self.leader.is_some_and(|leader| !self.is_outside(leader)) {
            self.leader_is_member = true;
            self.leader_contact = Some(now);
        }
    }

    /// Whether the leader's commit index counts: a leader that no configuration here names may have
    /// left long ago.
    pub(super) fn believes_commit(&self) -> bool {
        self.leader_is_member
    }

    /// The effect of a message that contradicts the rules: this node stops, unless the
    /// sender is outside.
    pub(super) fn violated_by(&self, from: NodeId, violation: Violation) -> Effect {
        // A node without a configuration can't tell members from others. Only that it was started
        // as another kind than it was added as must be reported at once.
        let is_unsure = self.membership().is_empty() && !matches!(violation, Violation::Mistaken { .. });
        if is_unsure || self.is_outside(from) {
            return Effect::Refused { from, reason: MessageRefusal::Stranger };
        }
        Effect::Halt(violation)
    }
}
