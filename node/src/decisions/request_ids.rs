//! Ids of requests between nodes, and detection of duplicates.
//!
//! A network may repeat a message and delay it for any time, and a node may restart meanwhile. So
//! an answer to a request of one process of a node must not pass for an answer to a later process,
//! and no forwarded command may be taken twice.

use quorate_raft::{NodeId, Term};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Makes ids that no earlier process of this node has used: the upper half is a random number of
/// the process, the lower half counts.
#[derive(Debug)]
pub(crate) struct RequestIds {
    last: u64,
}

impl RequestIds {
    /// `life` is random: it differs from that of every earlier process of this node.
    pub(crate) fn new(life: u32) -> Self {
        Self { last: u64::from(life) << 32 }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.last = self.last.wrapping_add(1);
        self.last
    }
}

/// Tells the second copy of a forwarded request from a new one. A message with commands is named by
/// the id of its first command.
///
/// Messages that arrived before this node restarted are forgotten. They were sent in the term that
/// was recovered, or earlier, so a message from such a term may be a copy.
#[derive(Default, Debug)]
pub(crate) struct DuplicateFilter {
    recovered_in: Term,
    by_node: BTreeMap<NodeId, VecDeque<Life>>,
}

/// The ids that arrived from one process of a node: some above the floor, and possibly all
/// up to it.
#[derive(Debug)]
struct Life {
    number: u64,
    floor: u64,
    above: BTreeSet<u64>,
}

/// The use of a forwarded request, or of a message with forwarded commands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Arrival {
    /// It is new.
    New,
    /// It arrived before, or is too late to tell.
    Duplicate,
    /// A copy may have arrived before the restart, and been taken: the outcome is unknown.
    MayBeTaken,
    /// Its sender is outside the configuration: it is refused.
    FromOutside,
}

/// A message that this many later ones have overtaken counts as lost.
const OVERTAKEN_MAX: usize = 1024;
/// A copy that arrives after this many restarts of its sender is not detected.
const LIVES_MAX: usize = 4;

impl DuplicateFilter {
    /// Of a node that starts with what it had in the term `recovered_in`.
    pub(crate) fn since(recovered_in: Term) -> Self {
        Self { recovered_in, by_node: BTreeMap::new() }
    }

    /// Judges a message from a node that was let in, with the id of its first command and the term
    /// in which it was sent.
    pub(crate) fn arrived(&mut self, from: NodeId, id: u64, sent_in: Term, is_outside: bool) -> Arrival {
        if !self.is_new(from, id) {
            return Arrival::Duplicate;
        }
        if sent_in <= self.recovered_in && sent_in > Term(0) {
            // A refusal could be false, and to take its commands could be the second time.
            return Arrival::MayBeTaken;
        }
        // Judged last: a copy of a message that was taken while its sender was a member must not
        // be called refused.
        if is_outside {
            return Arrival::FromOutside;
        }
        Arrival::New
    }

    fn is_new(&mut self, from: NodeId, id: u64) -> bool {
        let lives = self.by_node.entry(from).or_default();
        let number = id >> 32;
        let at = lives.iter().position(|life| life.number == number).unwrap_or_else(|| {
            if lives.len() == LIVES_MAX {
                lives.pop_front();
            }
            lives.push_back(Life { number, floor: 0, above: BTreeSet::new() });
            lives.len() - 1
        });
        let life = &mut lives[at];
        let is_new = id > life.floor && life.above.insert(id);
        if life.above.len() > OVERTAKEN_MAX {
            life.floor = life.above.pop_first().unwrap_or(life.floor);
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_new_once() {
        let mut arrived = DuplicateFilter::default();
        let mut ids = RequestIds::new(7);
        let id = ids.next();
        assert!(arrived.is_new(NodeId(1), id));
        assert!(!arrived.is_new(NodeId(1), id));
        assert!(arrived.is_new(NodeId(2), id), "another node's ids are its own");
        assert!(arrived.is_new(NodeId(1), ids.next()));
        assert!(!arrived.is_new(NodeId(1), id));
    }

    #[test]
    fn commands_of_a_term_before_the_restart_may_have_been_taken() {
        let mut filter = DuplicateFilter::since(Term(3));
        let mut id = 0;
        let mut sent_in = |term| {
            id += 1;
            filter.arrived(NodeId(1), id, Term(term), false)
        };
        assert_eq!([2, 3, 4].map(&mut sent_in), [Arrival::MayBeTaken, Arrival::MayBeTaken, Arrival::New]);
        let mut filter = DuplicateFilter::since(Term(0));
        assert_eq!(filter.arrived(NodeId(1), 1, Term(0), false), Arrival::New, "no node led in term 0");
    }

    #[test]
    fn commands_from_outside_are_refused_unless_a_copy_of_them_may_have_been_taken() {
        let mut filter = DuplicateFilter::since(Term(3));
        assert_eq!(filter.arrived(NodeId(1), 1, Term(4), false), Arrival::New);
        assert_eq!(filter.arrived(NodeId(1), 1, Term(4), true), Arrival::Duplicate);
        assert_eq!(filter.arrived(NodeId(1), 2, Term(3), true), Arrival::MayBeTaken);
        assert_eq!(filter.arrived(NodeId(1), 3, Term(4), true), Arrival::FromOutside);
    }

    #[test]
    fn messages_that_overtook_each_other_are_all_new() {
        let mut arrived = DuplicateFilter::default();
        let mut ids = RequestIds::new(u32::MAX);
        let mut batch: Vec<u64> = (0..OVERTAKEN_MAX).map(|_| ids.next()).collect();
        batch.reverse();
        assert!(batch.iter().all(|name| arrived.is_new(NodeId(1), *name)));
        assert!(batch.iter().all(|name| !arrived.is_new(NodeId(1), *name)));
    }

    #[test]
    fn memory_is_bounded_and_a_forgotten_message_is_not_new() {
        let mut arrived = DuplicateFilter::default();
        for life in 0..10 {
            let mut ids = RequestIds::new(life);
            let first = ids.next();
            assert!(arrived.is_new(NodeId(1), first));
            for _ in 0..10 * OVERTAKEN_MAX {
                assert!(arrived.is_new(NodeId(1), ids.next()));
            }
            assert!(!arrived.is_new(NodeId(1), first));
        }
        let lives = &arrived.by_node[&NodeId(1)];
        assert_eq!(lives.len(), LIVES_MAX);
        assert!(lives.iter().all(|life| life.above.len() <= OVERTAKEN_MAX));
    }

    #[test]
    fn a_copy_from_an_earlier_process_of_its_sender_is_not_new() {
        let mut arrived = DuplicateFilter::default();
        let (before, after) = (RequestIds::new(9).next(), RequestIds::new(3).next());
        assert!(arrived.is_new(NodeId(1), before));
        assert!(arrived.is_new(NodeId(1), after));
        assert!(!arrived.is_new(NodeId(1), before));
        assert!(!arrived.is_new(NodeId(1), after));
    }
}
