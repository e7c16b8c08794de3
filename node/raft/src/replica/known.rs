//! Who had a log once: so that a member whose data directory was emptied does not pass for a new one.
//!
//! What such a member acknowledged and voted is gone, and with it the reason why a quorum can be trusted. It can't know that
//! itself; but the others remember that it had a log, and tell it when it comes without one. And a member that never held or
//! promised anything, as far as it knows, is careful: it votes only among others like it, and confirms no leadership, until
//! a leader has brought it up.

use super::{Effect, Replica, Violation};
use crate::{
    ids::{EntryId, Index, Moment, NodeId, Term},
    message::{AppendOutcome, AppendReply, Body, Emptied},
};
use alloc::{collections::BTreeMap, vec::Vec};
use core::hash::{Hash, Hasher};

/// What a replica knows of its own past and the others'.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// This member never held an entry, and never voted: it is new, or it was emptied.
    pub(super) is_new: bool,
    /// Members that had a log, and how far each was known to reach at first.
    had_log: BTreeMap<NodeId, Index>,
    /// If this member is new: whom it told so when it was sent what would make it whole, in which term, and in which epoch.
    introduced: Option<(Term, NodeId, u64)>,
}

impl Hash for Known {
    /// How far a log reached is told to operators, and decides nothing.
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.is_new, self.introduced).hash(state);
        self.had_log.len().hash(state);
        self.had_log.keys().for_each(|member| member.hash(state));
    }
}

impl Known {
    pub(super) fn new(is_new: bool, had_log: impl IntoIterator<Item = (NodeId, Index)>) -> Self {
        Self { is_new, had_log: had_log.into_iter().collect(), introduced: None }
    }
}

impl Replica {
    /// Whether this node never held an entry and never voted, as far as its own disk knows.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.known.is_new
    }

    /// `member`'s log reaches this far: remembers for good that it had one.
    pub(super) fn learn_log_of(&mut self, member: NodeId, index: Index, out: &mut Vec<Effect>) {
        let is_news = || !self.known.had_log.contains_key(&member) && self.membership().contains(member);
        if index > Index(0) && is_news() {
            self.known.had_log.insert(member, index);
            out.push(Effect::Remember { member, index });
        }
    }

    /// Whether `member` comes with an empty log and had one before: then it is told.
    pub(super) fn is_emptied(&mut self, now: Moment, member: NodeId, last: EntryId, out: &mut Vec<Effect>) -> bool {
        if last.index != Index(0) {
            return false;
        }
        let Some(known_at) = self.known.had_log.get(&member).copied() else { return false };
        self.say(now, member, Body::Emptied(Emptied { known_at }), out);
        true
    }

    /// Whether the leader that sends this has yet to hear that this member comes with nothing: then it is told.
    ///
    /// A snapshot would make one that was emptied pass for whole, and so would the log from its first entry on, which fits behind
    /// nothing. Any other append finds out by itself: it is rejected, and the leader remembers. So these are rejected, too, once; and the
    /// leader, unless it remembers, begins an epoch in which they are taken.
    pub(super) fn is_stranger_to(
        &mut self,
        now: Moment,
        from: NodeId,
        (epoch, previous): (u64, Index),
        out: &mut Vec<Effect>,
    ) -> bool {
        let term = self.term();
        let told = self.known.introduced.filter(|(in_term, to, _)| (*in_term, *to) == (term, from));
        if !self.known.is_new || told.is_some_and(|(_, _, in_epoch)| epoch > in_epoch) {
            return false;
        }
        self.known.introduced = told.or(Some((term, from, epoch)));
        let outcome = AppendOutcome::Rejected { previous, conflict: EntryId::default(), last: Index(0) };
        self.say(now, from, Body::AppendReply(AppendReply { epoch, outcome }), out);
        true
    }

    /// A member remembers that this one had a log. If this one knows nothing of that, its directory was emptied.
    pub(super) fn told_emptied(&mut self, from: NodeId, emptied: Emptied, out: &mut Vec<Effect>) {
        if self.known.is_new && self.membership().contains(from) {
            out.push(Effect::Halt(Violation::Emptied { known_at: emptied.known_at, by: from }));
        }
    }
}
