//! Large commands: they enter the log one batch's worth at a time, so that small ones need not wait
//! for all of them.
//!
//! Entries are committed in log order, so a command appended after ten megabytes waits until ten
//! megabytes are on the disks of a majority. Large commands therefore wait here, in their order,
//! until the ones appended before are committed, and small commands pass them. A command that waits
//! here has had no effect. A wait is as short as a few commits; a command that waits too long is
//! refused as overload. Admission control bounds the number that waits.

use super::callers::{Caller, Proposal};
use quorate_raft::{Index, Moment};
use std::{collections::VecDeque, time::Duration};

/// A command of at least this many bytes is large. Smaller ones are sent together; a network
/// carries this much in about a millisecond.
pub(crate) const LARGE_BYTES: usize = 64 << 10;

/// The large commands that wait at a leader to be appended.
#[derive(Debug)]
pub(crate) struct LargeCommands<W, C> {
    waiting: VecDeque<Proposal<W, C>>,
    /// The last index that the latest large commands can have in the log: with its commit the next
    /// ones may follow.
    last: Index,
}

impl<W, C> LargeCommands<W, C> {
    pub(crate) fn new() -> Self {
        Self { waiting: VecDeque::new(), last: Index(0) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The proposals that may be appended now to a log that ends at `end`, large ones last.
    /// The others wait.
    pub(crate) fn admit(
        &mut self,
        proposals: Vec<Proposal<W, C>>,
        (end, commit): (Index, Index),
        bytes_max: usize,
    ) -> Vec<Proposal<W, C>> {
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

    /// Another node leads, or none: the indexes of this node's log say nothing of the commands
    /// that it appended.
    pub(crate) fn leader_changed(&mut self) {
        self.last = Index(0);
    }

    /// Whether some of those that wait may be appended at this commit index.
    pub(crate) fn is_due(&self, commit: Index) -> bool {
        self.last <= commit && !self.waiting.is_empty()
    }

    /// All that wait, taken out to be proposed again.
    pub(crate) fn take(&mut self) -> Vec<Proposal<W, C>> {
        std::mem::take(&mut self.waiting).into()
    }

    /// The commands that are past their deadline, or were proposed here longer ago than
    /// `patience`, taken out.
    pub(crate) fn expire(&mut self, now: Moment, patience: Duration) -> Vec<Proposal<W, C>> {
        let is_over = |proposal: &Proposal<W, C>| match &proposal.caller {
            Caller::Here { .. } => proposal.is_late(now) || proposal.caller.has_waited(patience, now),
            Caller::There { .. } => proposal.is_late(now),
        };
        let (over, waiting): (Vec<_>, Vec<_>) = self.waiting.drain(..).partition(is_over);
        self.waiting = waiting.into();
        over
    }
}

fn is_large<W, C>(proposal: &Proposal<W, C>) -> bool {
    proposal.payload.len() >= LARGE_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use quorate_raft::{Kind, NodeId, Term};

    const BATCH: usize = 3 * LARGE_BYTES;
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn small_commands_pass_large_ones_that_wait() {
        let mut world = World::new();
        assert_eq!(world.admit(&[1, LARGE_BYTES, 2], 10, 10), [1, 2, LARGE_BYTES], "large ones go last");
        // Entry 13 is the large one: until it is committed no other is appended.
        assert_eq!(world.admit(&[LARGE_BYTES, 3, LARGE_BYTES - 1], 13, 12), [3, LARGE_BYTES - 1]);
        assert!(world.due(12).is_empty());
        assert_eq!(world.due(13), [LARGE_BYTES]);
        assert!(world.large.is_empty());
    }

    #[test]
    fn a_batch_of_large_commands_is_appended_at_a_time() {
        let mut world = World::new();
        let four = [LARGE_BYTES; 4];
        assert_eq!(world.admit(&four, 0, 0), four[..3]);
        assert!(world.due(2).is_empty());
        assert_eq!(world.due(3), four[3..]);
        assert_eq!(world.admit(&[2 * BATCH, LARGE_BYTES], 3, 3), [2 * BATCH], "a larger one goes alone");
        assert!(!world.large.is_empty());
    }

    #[test]
    fn after_a_change_of_leader_the_ones_that_wait_are_proposed_again_at_once() {
        let mut world = World::new();
        world.admit(&[LARGE_BYTES; 4], 0, 0);
        world.large.leader_changed();
        assert_eq!(world.due(0), [LARGE_BYTES]);
    }

    #[test]
    fn a_command_waits_for_no_longer_than_its_caller() {
        let mut world = World::new();
        world.admit(&[BATCH], 0, 0);
        let deadline = world.now.plus(SECOND);
        let there = Caller::There { node: NodeId(2), request: 1, term: Term(1), permit: () };
        let waiting = vec![
            world.proposal(LARGE_BYTES, Some(deadline)),
            world.proposal(LARGE_BYTES + 1, None),
            Proposal { caller: there, ..world.proposal(LARGE_BYTES + 2, None) },
        ];
        assert!(world.large.admit(waiting, (Index(1), Index(0)), BATCH).is_empty());
        let mut expired = |after: Duration| sizes(&world.large.expire(world.now.plus(after), SECOND * 2));
        assert!(expired(SECOND - Duration::from_millis(1)).is_empty());
        assert_eq!(expired(SECOND), [LARGE_BYTES]);
        assert_eq!(expired(SECOND * 2), [LARGE_BYTES + 1]);
        assert!(expired(SECOND * 100).is_empty(), "the node that forwarded it watches its deadline");
    }

    struct World {
        large: LargeCommands<(), ()>,
        now: Moment,
    }

    impl World {
        fn new() -> Self {
            Self { large: LargeCommands::new(), now: Moment::default() }
        }

        fn proposal(&self, bytes: usize, until: Option<Moment>) -> Proposal<(), ()> {
            let caller = Caller::Here { asked: self.now, waiter: () };
            Proposal { kind: Kind::Command, payload: Bytes::from(vec![0; bytes]), caller, until }
        }

        /// Proposes commands of these sizes to a log that ends at `end`; gives the sizes of those
        /// that are appended.
        fn admit(&mut self, bytes: &[usize], end: u64, commit: u64) -> Vec<usize> {
            let proposals = bytes.iter().map(|bytes| self.proposal(*bytes, None)).collect();
            sizes(&self.large.admit(proposals, (Index(end), Index(commit)), BATCH))
        }

        fn due(&mut self, commit: u64) -> Vec<usize> {
            if self.large.is_due(Index(commit)) { sizes(&self.large.take()) } else { Vec::new() }
        }
    }

    fn sizes(proposals: &[Proposal<(), ()>]) -> Vec<usize> {
        proposals.iter().map(|proposal| proposal.payload.len()).collect()
    }
}
