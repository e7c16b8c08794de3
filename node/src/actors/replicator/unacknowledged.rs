//! The time that a peer takes to acknowledge entries, for the metrics. No clock is read here.

use quorate_raft::{Append, Body, Index, Message, Moment};
use std::{collections::VecDeque, time::Duration};

/// When entries were sent that are not acknowledged. The credit of the peer bounds their number.
#[derive(Default)]
pub(super) struct Unacknowledged {
    /// The time of the rule that runs.
    pub(super) now: Moment,
    /// The epoch and the last entry of each append, oldest first.
    sent: VecDeque<(u64, Index, Moment)>,
}

impl Unacknowledged {
    /// A message leaves for the peer.
    pub(super) fn sends(&mut self, message: &Message) {
        if let Body::Append(Append { epoch, batch: Some(batch), .. }) = &message.body {
            while self.sent.pop_front_if(|(of, ..)| of != epoch).is_some() {}
            self.sent.push_back((*epoch, batch.last(), self.now));
        }
    }

    /// The peer has all entries up to `matched`: the time since the last append of these left.
    pub(super) fn acknowledged(&mut self, epoch: u64, matched: Index) -> Option<Duration> {
        let mut sent = None;
        while let Some((.., at)) = self.sent.pop_front_if(|(of, last, _)| *of == epoch && *last <= matched) {
            sent = Some(at);
        }
        sent.map(|at| self.now.since(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_raft::{BatchBuilder, EntryId, Kind, Term};

    #[test]
    fn an_acknowledgement_ends_the_wait_of_the_last_append_that_it_covers() {
        let mut waits = Unacknowledged::default();
        for (ms, epoch, first) in [(0, 1, 1), (5, 1, 3), (9, 1, 5)] {
            waits.now = at(ms);
            waits.sends(&append(epoch, Some(first)));
            waits.sends(&append(epoch, None));
        }
        waits.now = at(12);
        assert_eq!(waits.acknowledged(2, Index(6)), None, "of another epoch");
        assert_eq!(waits.acknowledged(1, Index(1)), None, "half of the first");
        assert_eq!(waits.acknowledged(1, Index(5)), Some(Duration::from_millis(7)), "the first two");
        assert_eq!(waits.acknowledged(1, Index(5)), None, "once");
        waits.sends(&append(2, Some(5)));
        waits.now = at(13);
        assert_eq!(waits.acknowledged(1, Index(6)), None, "of the epoch before");
        assert_eq!(waits.acknowledged(2, Index(6)), Some(Duration::from_millis(1)));
        assert!(waits.sent.is_empty());
    }

    /// An append of two entries, or a probe.
    fn append(epoch: u64, first: Option<u64>) -> Message {
        let batch = first.and_then(|first| {
            let mut builder = BatchBuilder::new(quorate_storage::checksum, Term(1), Index(first), 0, 64);
            builder.push(Kind::Command, b"one");
            builder.push(Kind::Command, b"two");
            builder.finish()
        });
        let (previous, commit) = (EntryId::default(), Index(0));
        Message {
            term: Term(1),
            body: Body::Append(Append { epoch, previous, previous_checksum: None, commit, batch }),
        }
    }

    fn at(ms: u64) -> Moment {
        Moment::default().plus(Duration::from_millis(ms))
    }
}
