//! Internal entries: when a leader appends one for the layer of services.
//!
//! Each names the term in which it may be appended, and is appended in that term by its leader, or
//! never: a node leads a term once. It is not forwarded, and admission control does not count it.
//! While a leadership transfer holds proposals, entries wait, as ticks do; the end of the leadership
//! drops them.
//!
//! **Bound:** the senders': the performer has at most [`PLACES`](crate::service::performer::PLACES)
//! results without an applied completion, each leadership raises the version once a release, and
//! [`claims`](super::claims) offers one entry a node and window.

use super::ticks::View;
use bytes::Bytes;
use quorate_raft::{Index, Term, record::OVERHEAD_BYTES};
use std::collections::VecDeque;

/// A leadership of this node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leading {
    pub term: Term,
    /// Its first entry. Once that is applied, everything that earlier leaders committed is.
    pub first: Index,
}

/// An entry that a leader is to append.
#[derive(Clone, PartialEq, Eq)]
pub struct InternalEntry {
    /// The term in which it is appended, or never.
    pub term: Term,
    /// As [`Internal::encode`](crate::service::internal::Internal::encode) makes it.
    pub payload: Bytes,
}

impl std::fmt::Debug for InternalEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InternalEntry")
            .field("term", &self.term)
            .field("payload", &format_args!("{} B", self.payload.len()))
            .finish()
    }
}

/// The entries that wait to be appended, in the order of their arrival.
#[derive(Default, Debug)]
pub struct InternalEntries {
    waiting: VecDeque<InternalEntry>,
}

impl InternalEntries {
    /// Takes an entry. [`InternalEntries::next`] tells when it is appended.
    pub fn offered(&mut self, entry: InternalEntry) {
        self.waiting.push_back(entry);
    }

    /// Whether no entry waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The payloads of the next batch, which are appended now: as many as fit into `bytes_max`, and
    /// one at least. Entries of a term that this node does not lead are dropped.
    pub fn next(&mut self, view: &View, bytes_max: usize) -> Vec<Bytes> {
        self.waiting.retain(|entry| view.is_leader && entry.term == view.term);
        let (mut payloads, mut bytes) = (Vec::new(), 0);
        if view.holds_proposals {
            return payloads;
        }
        while let Some(InternalEntry { payload, .. }) = self.waiting.pop_front_if(|next| {
            bytes += OVERHEAD_BYTES + next.payload.len();
            payloads.is_empty() || bytes <= bytes_max
        }) {
            payloads.push(payload);
        }
        payloads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEADS: View = View { is_leader: true, term: Term(3), holds_proposals: false };

    #[test]
    fn an_entry_is_appended_by_the_leader_of_its_term_once() {
        let mut entries = of(&[(3, "a"), (3, "b")]);
        assert_eq!(entries.next(&LEADS, 1_000), ["a", "b"]);
        assert_eq!(entries.next(&LEADS, 1_000), [""; 0]);
    }

    #[test]
    fn an_entry_of_another_term_is_dropped() {
        let mut entries = of(&[(2, "earlier"), (3, "a"), (4, "later")]);
        assert_eq!(entries.next(&LEADS, 1_000), ["a"]);
        assert_eq!(entries.next(&View { term: Term(4), ..LEADS }, 1_000), [""; 0], "it was not kept for its term");
    }

    #[test]
    fn a_node_that_leads_no_more_drops_what_waited() {
        let mut entries = of(&[(3, "a")]);
        assert_eq!(entries.next(&View { is_leader: false, ..LEADS }, 1_000), [""; 0]);
        assert_eq!(entries.next(&LEADS, 1_000), [""; 0]);
    }

    #[test]
    fn entries_wait_while_a_transfer_holds_proposals() {
        let mut entries = of(&[(3, "a")]);
        assert_eq!(entries.next(&View { holds_proposals: true, ..LEADS }, 1_000), [""; 0]);
        assert_eq!(entries.next(&LEADS, 1_000), ["a"], "the leader goes on");
        let mut entries = of(&[(3, "a")]);
        let deposed = View { is_leader: false, holds_proposals: true, ..LEADS };
        assert_eq!((entries.next(&deposed, 1_000), entries.next(&LEADS, 1_000)), (vec![], vec![]));
    }

    #[test]
    fn a_batch_has_its_bytes_at_most_and_one_entry_at_least() {
        let mut entries = of(&[(3, "a"), (3, "b"), (3, "c")]);
        assert_eq!(entries.next(&LEADS, 2 * (OVERHEAD_BYTES + 1)), ["a", "b"]);
        entries.offered(InternalEntry { term: Term(3), payload: "d".into() });
        assert_eq!(entries.next(&LEADS, 1), ["c"]);
        assert_eq!(entries.next(&LEADS, 1), ["d"]);
    }

    fn of(entries: &[(u64, &'static str)]) -> InternalEntries {
        let waiting =
            entries.iter().map(|(term, payload)| InternalEntry { term: Term(*term), payload: (*payload).into() });
        InternalEntries { waiting: waiting.collect() }
    }
}
