//! Reads: the callers that wait for an index to read at, and what each may be served.
//!
//! Callers that ask together wait together, under one token of this node's rules or one request to
//! the leader. Reading twice is harmless, so a request that is lost on its way is asked again,
//! until its callers' deadlines.

use super::{
    freshness::{Freshness, Granted},
    request_ids::RequestIds,
};
use crate::{
    actors::messages::{ReadCaller, Wants},
    error::ReadError,
};
use quorate_raft::{Index, Moment, NodeId, ReadToken};
use std::collections::{BTreeMap, VecDeque};
use tokio::time::Instant;

/// The readers that wait, and the proofs that bounded reads rest on.
pub(crate) struct Reads {
    deferred: VecDeque<Group>,
    here: BTreeMap<ReadToken, Group>,
    at_leader: BTreeMap<u64, (NodeId, Group)>,
    freshness: Freshness,
    ids: RequestIds,
}

/// Readers that asked together.
pub(crate) struct Group {
    pub(crate) callers: Vec<ReadCaller>,
    /// An answer covers all that was committed at this moment. Without meaning while the
    /// group is deferred.
    pub(crate) asked: Moment,
    /// The highest index that was known to be committed here then.
    pub(crate) committed: Index,
    pub(crate) deadline: Instant,
}

/// The replica's part in a read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) applied: Index,
    pub(crate) last_log: Index,
    pub(crate) has_leader: bool,
    pub(crate) is_storage_full: bool,
}

/// The leader's answer to a request.
pub(crate) enum Answer {
    /// It covers all that was committed when the group asked.
    Index(Group),
    /// It covers less than this node knew to be committed: the members that elected the
    /// leader lost data.
    DataLost(Group),
}

impl Reads {
    /// `life` is random: it differs from that of every earlier process of this node.
    pub(crate) fn new(life: u32) -> Self {
        Self {
            deferred: VecDeque::new(),
            here: BTreeMap::new(),
            at_leader: BTreeMap::new(),
            freshness: Freshness::default(),
            ids: RequestIds::new(life),
        }
    }

    /// The permission to serve a bounded read from the proofs there are; `None` for other reads,
    /// and if none suffices.
    pub(crate) fn grant(&self, caller: &ReadCaller, now: Moment, view: &View) -> Option<Granted> {
        match caller {
            ReadCaller::Here { wants: Wants::Within { bounds, called }, .. } => {
                self.freshness.grant(*bounds, *called, now, view.applied)
            }
            _ => None,
        }
    }

    /// All that was committed at `asked` is covered by `index`, the answer to these callers,
    /// which arrives `now`.
    pub(crate) fn proven(&mut self, asked: Moment, index: Index, callers: &[ReadCaller], now: Moment) {
        // Bounded reads rest on no lease: an answer by lease proves nothing to them.
        if !callers.iter().any(ReadCaller::is_by_lease) {
            self.freshness.proven(asked, index, now);
        }
    }

    /// The answer to a caller whose group was answered with `index`.
    pub(crate) fn answer(
        &self,
        caller: &ReadCaller,
        index: Index,
        now: Moment,
        view: &View,
    ) -> Result<Granted, ReadError> {
        match caller {
            ReadCaller::Here { wants: Wants::Within { .. }, .. } => {
                self.grant(caller, now, view).ok_or_else(|| self.refusal(caller, now, view))
            }
            // No entry is taken here any more: the read would wait in vain.
            ReadCaller::Here { .. } if view.is_storage_full && index > view.last_log => Err(ReadError::StorageFull),
            _ => Ok(Granted { index, bounded: None }),
        }
    }

    /// The refusal of a caller that no node can answer.
    pub(crate) fn refusal(&self, caller: &ReadCaller, now: Moment, view: &View) -> ReadError {
        match caller {
            ReadCaller::Here { wants: Wants::Within { .. }, .. } => self.freshness.too_stale(now, view.applied),
            _ if view.is_storage_full && !view.has_leader => ReadError::StorageFull,
            _ => ReadError::NoLeader,
        }
    }

    /// No leader can be reached: these wait for one.
    pub(crate) fn defer(&mut self, callers: Vec<ReadCaller>, deadline: Instant) {
        if !callers.is_empty() {
            self.deferred.push_back(Group { callers, asked: Moment::default(), committed: Index(0), deadline });
        }
    }

    /// All deferred readers, taken out.
    pub(crate) fn take_deferred(&mut self) -> Vec<ReadCaller> {
        self.deferred.drain(..).flat_map(|group| group.callers).collect()
    }

    /// A group asks this node's own leadership: gives the token under which the rules will answer.
    pub(crate) fn asked_here(&mut self, group: Group) -> ReadToken {
        let token = self.ids.next();
        self.here.insert(token, group);
        token
    }

    /// A group asks the leader: gives the id of the request.
    pub(crate) fn asked_leader(&mut self, leader: NodeId, group: Group) -> u64 {
        let request = self.ids.next();
        self.at_leader.insert(request, (leader, group));
        request
    }

    /// The rules confirmed these tokens: gives the callers, and when they asked.
    pub(crate) fn answered_here(&mut self, tokens: Vec<ReadToken>) -> Vec<(Moment, Vec<ReadCaller>)> {
        let groups = tokens.into_iter().filter_map(|token| self.here.remove(&token));
        groups.map(|group| (group.asked, group.callers)).collect()
    }

    /// The rules could not confirm these tokens: this node leads no more. Its own readers wait for
    /// the next leader; gives those of other nodes, to be refused.
    pub(crate) fn failed(&mut self, tokens: Vec<ReadToken>) -> Vec<ReadCaller> {
        let mut others = Vec::new();
        for token in tokens {
            let Some(Group { callers, deadline, .. }) = self.here.remove(&token) else { continue };
            let (here, there): (Vec<_>, Vec<_>) =
                callers.into_iter().partition(|caller| matches!(caller, ReadCaller::Here { .. }));
            self.defer(here, deadline);
            others.extend(there);
        }
        others
    }

    /// The leader answered a request with `index`; `None` if the group was answered or refused
    /// before, or asked another node.
    pub(crate) fn leader_answered(&mut self, from: NodeId, request: u64, index: Index) -> Option<Answer> {
        let group = self.take_asked(from, request)?;
        Some(if index < group.committed { Answer::DataLost(group) } else { Answer::Index(group) })
    }

    /// The leader refused a request: gives its callers.
    pub(crate) fn leader_refused(&mut self, from: NodeId, request: u64) -> Vec<ReadCaller> {
        self.take_asked(from, request).map_or_else(Vec::new, |group| group.callers)
    }

    fn take_asked(&mut self, from: NodeId, request: u64) -> Option<Group> {
        self.at_leader.get(&request).filter(|(leader, _)| *leader == from)?;
        self.at_leader.remove(&request).map(|(_, group)| group)
    }

    /// Another node leads, or none: gives the callers that asked the leader before.
    pub(crate) fn leader_changed(&mut self) -> Vec<ReadCaller> {
        std::mem::take(&mut self.at_leader).into_values().flat_map(|(_, group)| group.callers).collect()
    }

    /// The link to `peer` was lost: gives the callers that asked it.
    pub(crate) fn peer_lost(&mut self, peer: NodeId) -> Vec<ReadCaller> {
        let lost = self.at_leader.extract_if(.., |_, (leader, _)| *leader == peer);
        lost.flat_map(|(_, (_, group))| group.callers).collect()
    }

    /// Callers past their deadlines, taken out.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<ReadCaller> {
        let mut late = Vec::new();
        let deferred = self.deferred.iter_mut();
        let asked = self.here.values_mut().chain(self.at_leader.values_mut().map(|(_, group)| group));
        for group in deferred.chain(asked) {
            let deadline = group.deadline;
            late.extend(group.callers.extract_if(.., |caller| caller.deadline(deadline) <= now));
        }
        self.deferred.retain(|group| !group.callers.is_empty());
        self.here.retain(|_, group| !group.callers.is_empty());
        self.at_leader.retain(|_, (_, group)| !group.callers.is_empty());
        late
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decisions::freshness::Bounds;
    use std::time::Duration;
    use tokio::sync::oneshot;

    const SECOND: Duration = Duration::from_secs(1);
    const LEADER: NodeId = NodeId(2);
    const VIEW: View = View { applied: Index(5), last_log: Index(9), has_leader: true, is_storage_full: false };
    const AT: fn(u64) -> Moment = |ms| Moment(Duration::from_millis(ms));

    #[test]
    fn an_answer_counts_once_and_from_the_leader_that_was_asked() {
        let mut world = World::new();
        let request = world.ask_leader(vec![world.caller(Wants::Confirmed)], 0);
        assert!(world.reads.leader_answered(NodeId(3), request, Index(9)).is_none());
        assert!(matches!(world.reads.leader_answered(LEADER, request, Index(9)), Some(Answer::Index(_))));
        assert!(world.reads.leader_answered(LEADER, request, Index(9)).is_none());
        assert!(world.reads.leader_refused(LEADER, request).is_empty());
    }

    #[test]
    fn a_leader_that_covers_less_than_was_committed_here_lost_data() {
        let mut world = World::new();
        let (less, all) = (world.ask_leader(Vec::new(), 7), world.ask_leader(Vec::new(), 7));
        assert!(matches!(world.reads.leader_answered(LEADER, less, Index(6)), Some(Answer::DataLost(_))));
        assert!(matches!(world.reads.leader_answered(LEADER, all, Index(7)), Some(Answer::Index(_))));
    }

    #[test]
    fn a_leadership_that_ends_defers_its_own_readers_and_gives_back_those_of_others() {
        let mut world = World::new();
        let token = world.ask_here(vec![world.caller(Wants::Confirmed), there(1), world.caller(Wants::ByLease)]);
        assert!(matches!(world.reads.failed(vec![token, token + 1])[..], [ReadCaller::There { request: 1, .. }]));
        assert_eq!(world.reads.take_deferred().len(), 2);
        assert!(world.reads.take_deferred().is_empty());
    }

    #[test]
    fn requests_to_a_lost_or_earlier_leader_are_given_back() {
        let mut world = World::new();
        world.ask_leader(vec![world.caller(Wants::Confirmed)], 0);
        assert!(world.reads.peer_lost(NodeId(3)).is_empty());
        assert_eq!(world.reads.peer_lost(LEADER).len(), 1);
        world.ask_leader(vec![world.caller(Wants::Confirmed)], 0);
        assert_eq!(world.reads.leader_changed().len(), 1);
        assert!(world.reads.leader_changed().is_empty());
    }

    #[test]
    fn callers_wait_until_the_deadline_of_their_group_or_their_own() {
        let mut world = World::new();
        let within = Wants::Within { bounds: bounds(500), called: AT(0) };
        world.ask_leader(vec![world.caller(Wants::Confirmed), world.caller(within)], 0);
        world.reads.defer(vec![world.caller(Wants::Confirmed)], world.now + SECOND * 2);
        let token = world.ask_here(vec![world.caller_until(world.now + SECOND * 3)]);
        let mut expired = |after: Duration| world.reads.expire(world.now + after).len();
        assert_eq!(expired(Duration::from_millis(499)), 0);
        assert_eq!(expired(Duration::from_millis(500)), 1, "its answer would be too old");
        assert_eq!(expired(SECOND), 1);
        assert_eq!(expired(SECOND * 2), 1);
        assert_eq!(world.reads.answered_here(vec![token]).len(), 1, "it said that it waits for longer");
    }

    #[test]
    fn an_answer_proves_something_to_bounded_reads_unless_it_rests_on_a_lease() {
        let mut world = World::new();
        let bounded = world.caller(Wants::Within { bounds: bounds(100), called: AT(50) });
        assert_eq!(world.reads.grant(&bounded, AT(60), &VIEW), None);
        world.reads.proven(AT(40), Index(5), &[world.caller(Wants::ByLease)], AT(60));
        assert_eq!(world.reads.grant(&bounded, AT(60), &VIEW), None);
        assert_eq!(
            world.reads.answer(&bounded, Index(5), AT(60), &VIEW),
            Err(ReadError::TooStale { age: None, entries: None })
        );
        world.reads.proven(AT(40), Index(5), &[world.caller(Wants::Confirmed)], AT(60));
        assert!(world.reads.grant(&bounded, AT(60), &VIEW).is_some_and(|granted| granted.index == Index(5)));
        assert_eq!(world.reads.grant(&world.caller(Wants::Confirmed), AT(60), &VIEW), None, "it always asks");
    }

    #[test]
    fn a_full_disk_refuses_reads_that_wait_for_entries() {
        let world = World::new();
        let (own, full) = (world.caller(Wants::Confirmed), View { is_storage_full: true, ..VIEW });
        let answer = |caller: &ReadCaller, index| world.reads.answer(caller, Index(index), AT(0), &full);
        assert_eq!(answer(&own, 9), Ok(Granted { index: Index(9), bounded: None }));
        assert_eq!(answer(&own, 10), Err(ReadError::StorageFull));
        assert!(answer(&there(1), 10).is_ok(), "the other node may have the entry");
        assert_eq!(world.reads.refusal(&own, AT(0), &full), ReadError::NoLeader);
        assert_eq!(world.reads.refusal(&own, AT(0), &View { has_leader: false, ..full }), ReadError::StorageFull);
    }

    struct World {
        reads: Reads,
        now: Instant,
    }

    impl World {
        fn new() -> Self {
            Self { reads: Reads::new(1), now: Instant::now() }
        }

        fn caller(&self, wants: Wants) -> ReadCaller {
            ReadCaller::Here { answer: oneshot::channel().0, asked: self.now, wants, until: None }
        }

        fn caller_until(&self, until: Instant) -> ReadCaller {
            let (answer, asked) = (oneshot::channel().0, self.now);
            ReadCaller::Here { answer, asked, wants: Wants::Confirmed, until: Some(until) }
        }

        fn group(&self, callers: Vec<ReadCaller>, committed: u64) -> Group {
            Group { callers, asked: AT(0), committed: Index(committed), deadline: self.now + SECOND }
        }

        fn ask_here(&mut self, callers: Vec<ReadCaller>) -> ReadToken {
            let group = self.group(callers, 0);
            self.reads.asked_here(group)
        }

        fn ask_leader(&mut self, callers: Vec<ReadCaller>, committed: u64) -> u64 {
            let group = self.group(callers, committed);
            self.reads.asked_leader(LEADER, group)
        }
    }

    fn there(request: u64) -> ReadCaller {
        ReadCaller::There { node: NodeId(4), request, by_lease: false }
    }

    fn bounds(ms: u64) -> Bounds {
        Bounds { max_age: Some(Duration::from_millis(ms)), max_entries: None }
    }
}
