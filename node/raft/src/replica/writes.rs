//! Pending writes, and the durable part of the log.

use super::{effect::Persist, start::HardState};
use crate::ids::{Index, Moment, NodeId, Term};
use alloc::collections::VecDeque;

/// Pending writes, in order, and the index up to which the log is durable.
#[derive(Clone, Hash, Debug)]
pub(super) struct Writes {
    sequence: u64,
    pending: VecDeque<Write>,
    pending_bytes: usize,
    /// The latest term and vote that were written; `voted_sequence` is the sequence of that write.
    voted: (Term, Option<NodeId>),
    voted_sequence: u64,
    completed: u64,
    durable: Index,
}

#[derive(Clone, Hash, Debug)]
struct Write {
    sequence: u64,
    since: Moment,
    /// The last entry of the log once this is durable; lowered by a later truncation.
    log_last: Index,
    bytes: usize,
    /// The campaign whose own vote this write makes durable.
    vote_for_self: Option<u64>,
}

impl Writes {
    pub(super) fn new(durable: Index, state: &HardState) -> Self {
        Self {
            sequence: 0,
            pending: VecDeque::new(),
            pending_bytes: 0,
            voted: (state.term, state.vote),
            voted_sequence: 0,
            completed: 0,
            durable,
        }
    }

    /// Numbers a request and records its effect once complete: the log is durable up to `log_last`,
    /// and so is the own `vote` of a campaign.
    pub(super) fn start(&mut self, since: Moment, mut persist: Persist, log_last: Index, vote: Option<u64>) -> Persist {
        self.sequence += 1;
        persist.sequence = self.sequence;
        // A promise that is written with the same term and vote holds back no message that depends
        // on term and vote alone.
        if let Some(state) = persist.hard_state
            && self.voted != (state.term, state.vote)
        {
            (self.voted, self.voted_sequence) = ((state.term, state.vote), self.sequence);
        }
        if let Some(from) = persist.truncate_from {
            let keep = from.previous();
            self.durable = self.durable.min(keep);
            for write in &mut self.pending {
                write.log_last = write.log_last.min(keep);
            }
        }
        let bytes = persist.batch.iter().chain(&persist.repair).map(|batch| batch.bytes().len()).sum();
        self.pending_bytes += bytes;
        self.pending.push_back(Write { sequence: self.sequence, since, log_last, bytes, vote_for_self: vote });
        persist
    }

    /// Handles a completion; returns the campaign whose own vote became durable with it,
    /// if one did.
    pub(super) fn completed(&mut self, sequence: u64) -> Option<u64> {
        let mut vote = None;
        self.completed = self.completed.max(sequence.min(self.sequence));
        while let Some(write) = self.pending.front().filter(|write| write.sequence <= self.completed) {
            self.durable = write.log_last;
            self.pending_bytes -= write.bytes;
            vote = write.vote_for_self.or(vote);
            self.pending.pop_front();
        }
        vote
    }

    /// A durable snapshot covers the log up to `index`. Pending entries after it stay if the
    /// log `keeps` them.
    pub(super) fn covered(&mut self, index: Index, keeps: bool) {
        let moved = |last: Index| if keeps { last.max(index) } else { index };
        self.durable = moved(self.durable);
        for write in &mut self.pending {
            write.log_last = moved(write.log_last);
        }
    }

    /// The last entry that is durable.
    pub(super) fn durable(&self) -> Index {
        self.durable
    }

    /// Number of bytes of entries that are not durable yet.
    pub(super) fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Since when the oldest write has been waiting.
    pub(super) fn waiting_since(&self) -> Option<Moment> {
        self.pending.front().map(|write| write.since)
    }

    /// Whether everything so far is durable.
    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// Whether the current term and vote are durable.
    pub(super) fn hard_state_is_durable(&self) -> bool {
        self.completed >= self.voted_sequence
    }

    /// The sequence of the latest write.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Whether this write is done.
    pub(super) fn is_done(&self, sequence: u64) -> bool {
        self.completed >= sequence
    }
}
