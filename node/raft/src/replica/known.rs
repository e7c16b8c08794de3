//! Who had a log once: so that a member whose data directory was emptied does not pass for a new one.
//!
//! What such a member acknowledged and voted is gone, and with it the reason why a quorum can be trusted. It can't know that
//! itself; but the others remember that it had a log, and tell it when it comes without one. And a member that never held or
//! promised anything, as far as it knows, is careful: it votes only among others like it, and confirms no leadership, until
//! a leader has brought it up.

use super::{Effect, Replica, Violation};
use crate::{
    ids::{EntryId, Index, Moment, NodeId},
    message::{Body, Emptied},
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
}

impl Hash for Known {
    /// How far a log reached is told to operators, and decides nothing.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.is_new.hash(state);
        self.had_log.len().hash(state);
        self.had_log.keys().for_each(|member| member.hash(state));
    }
}

impl Known {
    pub(super) fn new(is_new: bool, had_log: impl IntoIterator<Item = (NodeId, Index)>) -> Self {
        Self { is_new, had_log: had_log.into_iter().collect() }
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

    /// A member remembers that this one had a log. If this one knows nothing of that, its directory was emptied.
    pub(super) fn told_emptied(&mut self, from: NodeId, emptied: Emptied, out: &mut Vec<Effect>) {
        if self.known.is_new && self.membership().contains(from) {
            out.push(Effect::Halt(Violation::Emptied { known_at: emptied.known_at, by: from }));
        }
    }
}
