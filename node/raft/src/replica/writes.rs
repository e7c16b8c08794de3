//! The writes that are under way, and how far the log is durable.

use super::{HardState, Persist};
use crate::{
    ids::{Index, Moment, NodeId, Term},
    mutants::{Mutant, live},
};
use alloc::collections::VecDeque;

/// The writes that are under way, and what is durable.
#[derive(Clone, Hash, Debug)]
pub(super) struct Writes {
    sequence: u64,
    pending: VecDeque<Write>,
    pending_bytes: usize,
    /// The latest term and vote that were written, and with which request.
    voted: (Term, Option<NodeId>),
    voted_sequence: u64,
    completed: u64,
    durable: Index,
}

#[derive(Clone, Hash, Debug)]
struct Write {
    sequence: u64,
    since: Moment,
    /// Where the log ends once this is durable; lowered when a later truncation cuts below.
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

    /// Numbers a request and remembers what its completion will make durable: the log up to `log_last`, and the `vote`
    /// of a campaign for itself.
    pub(super) fn start(&mut self, since: Moment, mut persist: Persist, log_last: Index, vote: Option<u64>) -> Persist {
        self.sequence += 1;
        persist.sequence = self.sequence;
        // A promise that is written beside the same term and vote holds back nothing that only those allow.
        if let Some(state) = persist.hard_state
            && self.voted != (state.term, state.vote)
        {
            (self.voted, self.voted_sequence) = ((state.term, state.vote), self.sequence);
        }
        if let Some(from) = persist.truncate_from.filter(|_| !live(Mutant::TruncationKeepsDurable)) {
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

    /// Takes note of a completion; gives the campaign whose own vote became durable with it, if one did.
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

    /// A durable snapshot covers the log up to `index`. What was being written behind that stays if the log `keeps` it.
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

    /// How many bytes of entries are not durable yet.
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

    /// The latest request.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Whether this request is done.
    pub(super) fn is_done(&self, sequence: u64) -> bool {
        self.completed >= sequence
    }
}
