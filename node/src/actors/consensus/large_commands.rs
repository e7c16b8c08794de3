//! Large commands take turns, so that small ones need not wait behind all of them.
//!
//! The log is one line: whoever stands behind ten megabytes waits until ten megabytes are on a majority's disks. So of the large
//! ones only a batch's worth is in the log and not committed at a time. The others wait here, in their order, and small ones
//! pass them. Nothing has happened to what waits here. It never waits for long: each turn is as short as a commit, and those
//! who wait for too long are told that there is too much to do. How many may wait is bounded by the gates.

use crate::actors::messages::{Caller, Proposal};
use quorate_raft::Index;
use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;

/// A command of so many bytes is large. Smaller ones are sent together, and a network carries this much in about a
/// millisecond.
pub(super) const LARGE_BYTES: usize = 64 << 10;

/// The large commands of a leader's callers that wait for their turn.
#[derive(Default)]
pub(super) struct LargeCommands {
    waiting: VecDeque<Proposal>,
    /// The last entry of the turn that was taken last: with its commit the next one begins.
    last: Index,
}

impl LargeCommands {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Of what is to be appended to a log that ends at `end`, what may be now, the large behind the small. The rest waits.
    pub(super) fn admit(
        &mut self,
        proposals: Vec<Proposal>,
        (end, commit): (Index, Index),
        bytes_max: usize,
    ) -> Vec<Proposal> {
        if proposals.iter().all(|proposal| !is_large(proposal)) {
            return proposals;
        }
        let (large, mut now): (Vec<_>, Vec<_>) = proposals.into_iter().partition(is_large);
        self.waiting.extend(large);
        if self.last <= commit {
            let mut bytes = 0;
            while let Some(next) =
                self.waiting.pop_front_if(|next| bytes == 0 || bytes + next.payload.len() <= bytes_max)
            {
                bytes += next.payload.len();
                now.push(next);
            }
            self.last = Index(end.0 + now.len() as u64);
        }
        now
    }

    /// Somebody else leads, or nobody: what is in the log tells nothing of whose turn it is.
    pub(super) fn leader_changed(&mut self) {
        self.last = Index(0);
    }

    /// Those who wait, if some of them have their turn when everything up to `commit` is committed: to be taken again.
    pub(super) fn due(&mut self, commit: Index) -> Vec<Proposal> {
        if self.last <= commit { std::mem::take(&mut self.waiting).into() } else { Vec::new() }
    }

    /// Those who have waited for as long as anybody may.
    pub(super) fn expire(&mut self, now: Instant, patience: Duration) -> Vec<Proposal> {
        let is_over = |proposal: &Proposal| match &proposal.caller {
            Caller::Here(waiter) => proposal.is_late(now) || waiter.asked + patience <= now,
            Caller::There { .. } => proposal.is_late(now),
        };
        let (over, waiting): (Vec<_>, Vec<_>) = self.waiting.drain(..).partition(is_over);
        self.waiting = waiting.into();
        over
    }
}

fn is_large(proposal: &Proposal) -> bool {
    proposal.payload.len() >= LARGE_BYTES
}
