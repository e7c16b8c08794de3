//! Ids for what one node asks of another.
//!
//! A network may repeat a message, and hold it back for as long as it likes; a node may restart meanwhile. So no answer
//! to one life of a node may pass for an answer to its next, and no forwarded command may be taken twice.

use quorate_raft::{NodeId, Term};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Makes ids that no earlier life of this node has used: the upper half tells the life, by chance, and the lower
/// half counts.
#[derive(Debug)]
pub(super) struct RequestIds {
    last: u64,
}

impl RequestIds {
    /// `life` is random: it must differ from the one before a restart.
    pub(super) fn new(life: u32) -> Self {
        Self { last: u64::from(life) << 32 }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.last = self.last.wrapping_add(1);
        self.last
    }
}

/// Which messages with forwarded commands have arrived, so that a second copy of one is told from a new one. A message
/// is named by its first command.
///
/// What arrived at this node before it was restarted is forgotten. But that was in the term that was recovered, or an earlier
/// one: so of a message from such a term nobody can tell.
#[derive(Default, Debug)]
pub(super) struct DuplicateFilter {
    recovered_in: Term,
    by_node: BTreeMap<NodeId, VecDeque<Life>>,
}

/// The ids that arrived from one life of a node: some above the floor, and whatever there was below it.
#[derive(Debug)]
struct Life {
    number: u64,
    floor: u64,
    above: BTreeSet<u64>,
}

/// A message that as many later ones have overtaken counts as lost.
const OVERTAKEN_MAX: usize = 1024;
/// A copy that is delivered after so many restarts of its sender is not recognised any more.
const LIVES_MAX: usize = 4;

impl DuplicateFilter {
    /// At a node that starts with what it had in this term.
    pub(super) fn since(recovered_in: Term) -> Self {
        Self { recovered_in, by_node: BTreeMap::new() }
    }

    /// Whether a message that was sent in this term may have arrived before the restart, too: a copy of it, of which this node
    /// took the commands then, for all it knows.
    pub(super) fn is_from_before_restart(&self, sent_in: Term) -> bool {
        sent_in <= self.recovered_in && sent_in > Term(0)
    }

    /// Takes note of a message from a member; false if it has arrived before, or is too late to tell.
    pub(super) fn is_new(&mut self, from: NodeId, name: u64) -> bool {
        let lives = self.by_node.entry(from).or_default();
        let number = name >> 32;
        let at = lives.iter().position(|life| life.number == number).unwrap_or_else(|| {
            if lives.len() == LIVES_MAX {
                lives.pop_front();
            }
            lives.push_back(Life { number, floor: 0, above: BTreeSet::new() });
            lives.len() - 1
        });
        let life = &mut lives[at];
        let is_new = name > life.floor && life.above.insert(name);
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
    fn of_what_was_sent_before_a_restart_nobody_can_tell() {
        let arrived = DuplicateFilter::since(Term(3));
        assert!(arrived.is_from_before_restart(Term(3)) && arrived.is_from_before_restart(Term(2)));
        assert!(!arrived.is_from_before_restart(Term(4)));
        assert!(!DuplicateFilter::since(Term(0)).is_from_before_restart(Term(0)), "nobody led in that");
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
    fn what_is_remembered_is_bounded_and_what_was_forgotten_is_not_new() {
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
    fn a_copy_from_a_senders_life_before_is_not_new() {
        let mut arrived = DuplicateFilter::default();
        let (before, after) = (RequestIds::new(9).next(), RequestIds::new(3).next());
        assert!(arrived.is_new(NodeId(1), before));
        assert!(arrived.is_new(NodeId(1), after));
        assert!(!arrived.is_new(NodeId(1), before));
        assert!(!arrived.is_new(NodeId(1), after));
    }
}
