//! The entries of a node's log that contradict the leader's, as two reports prove it.
//!
//! Two entries at one index with different terms are different entries, and no later entry of the two
//! logs is the same (Log Matching, paper §5.3). Each report has the last terms of its log, so the first
//! difference among them is found without asking; entries before those terms are not judged.

use super::report::{NodeReport, TermStart};
use quorate_metrics::NodeRole;
use quorate_raft::{Index, Log, Term};
use std::ops::RangeInclusive;

/// The terms of a report: the last ones of the log.
pub(crate) const TERMS_MAX: usize = 8;

/// The last terms of a log, oldest first.
pub(crate) fn last_terms(log: &Log) -> Vec<TermStart> {
    let runs = log.runs();
    let runs = &runs[runs.len().saturating_sub(TERMS_MAX)..];
    runs.iter().map(|(first, term)| TermStart { term: *term, first: *first }).collect()
}

impl NodeReport {
    /// The entries of this node's log that contradict the log of `leader`: a leader removes them, and
    /// none was ever committed. `None` unless both reports prove it: entries of a term before the last
    /// eight of either log are not compared, and neither is the log of a node that knows a later term.
    #[must_use]
    pub fn conflict_with(&self, leader: &Self) -> Option<RangeInclusive<Index>> {
        if leader.role != NodeRole::Leader || self.node == leader.node || self.term > leader.term {
            return None;
        }
        let (own, theirs) = (self.terms.first()?.first, leader.terms.first()?.first);
        let (from, to) = (own.max(theirs), self.last.min(leader.last));
        // Between two of these the terms of both logs stay the same.
        let starts = self.terms.iter().chain(&leader.terms).map(|start| start.first);
        let differs = |at: &Index| term_at(&self.terms, *at) != term_at(&leader.terms, *at);
        let first = starts.filter(|at| (from..=to).contains(at) && differs(at)).min()?;
        Some(first..=self.last)
    }
}

/// The term of an entry that is not before the first of these.
fn term_at(terms: &[TermStart], at: Index) -> Option<Term> {
    terms.iter().rev().find(|start| start.first <= at).map(|start| start.term)
}

#[cfg(test)]
mod tests {
    use super::{super::report::tests::full, *};
    use quorate_raft::NodeId;

    #[test]
    fn entries_conflict_from_the_first_with_another_term_to_the_end() {
        // Figure 7 of the paper, with the leader at the top: its logs (d), (e) and (f).
        let leader = [(1, 1), (4, 4), (6, 5), (8, 6)];
        let of = |terms: &[(u64, u64)], last| conflict(terms, last, &leader, 10);
        assert_eq!(of(&leader, 10), None);
        assert_eq!(of(&leader[..2], 5), None, "it lacks entries");
        assert_eq!(of(&[(1, 1), (4, 4), (6, 5), (8, 6), (11, 7)], 12), None, "more than the leader has is no proof");
        assert_eq!(of(&[(1, 1), (4, 4)], 7), Some((6, 7)));
        assert_eq!(of(&[(1, 1), (4, 2), (7, 3)], 11), Some((4, 11)));
        assert_eq!(of(&[(1, 1), (4, 2), (7, 3)], 5), Some((4, 5)));
    }

    #[test]
    fn terms_that_a_report_does_not_have_are_not_judged() {
        let leader = [(1_000, 7), (1_400, 9)];
        assert_eq!(conflict(&[(1, 1), (900, 8)], 999, &leader, 1_500), None, "before the leader's terms");
        assert_eq!(conflict(&[(1, 1), (900, 8)], 1_200, &leader, 1_500), Some((1_000, 1_200)), "from where they begin");
        assert_eq!(conflict(&[(1_450, 8)], 1_460, &leader, 1_500), Some((1_450, 1_460)));
        assert_eq!(conflict(&[], 0, &leader, 1_500), None, "an empty log");
    }

    #[test]
    fn no_log_is_compared_with_that_of_a_node_that_does_not_lead_or_is_of_an_earlier_term() {
        let (leader, own) = ([(1, 1), (4, 6)], [(1, 1), (4, 2)]);
        let base = || (report(2, &own, 9), report(1, &leader, 9));
        let (follower, mut other) = base();
        other.role = NodeRole::Follower;
        assert_eq!(follower.conflict_with(&other), None);
        let (mut later, leads) = base();
        later.term = Term(9);
        assert_eq!(later.conflict_with(&leads), None, "its entries may be those of a later leader");
        assert_eq!(leads.conflict_with(&leads), None);
    }

    #[test]
    fn a_report_has_the_last_terms_of_a_log() {
        let runs = (1..=20).map(|nth| (Index(nth * 10), Term(nth))).collect();
        let log = Log::new(Default::default(), runs, quorate_raft::EntryId::new(Term(20), Index(205)), 0);
        let terms = last_terms(&log);
        assert_eq!((terms.len(), terms[0]), (TERMS_MAX, TermStart { term: Term(13), first: Index(130) }));
    }

    fn conflict(own: &[(u64, u64)], last: u64, leader: &[(u64, u64)], leader_last: u64) -> Option<(u64, u64)> {
        let range = report(2, own, last).conflict_with(&report(1, leader, leader_last))?;
        Some((range.start().0, range.end().0))
    }

    /// A report of term 8, of a log with the first index of each of its terms.
    fn report(node: u64, terms: &[(u64, u64)], last: u64) -> NodeReport {
        let terms = terms.iter().map(|(first, term)| TermStart { term: Term(*term), first: Index(*first) }).collect();
        NodeReport { node: NodeId(node), terms, last: Index(last), ..full() }
    }
}
