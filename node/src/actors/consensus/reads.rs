//! Who waits for a read index. Reading twice is harmless, so whatever is lost on the way is simply asked again, until its
//! deadline.

use super::names::Names;
use crate::{actors::messages::ReadCaller, error::ReadError};
use quorate_raft::{Index, NodeId, ReadToken};
use std::collections::{BTreeMap, VecDeque};
use tokio::time::Instant;

/// The readers that wait. Those who ask together wait together, under one token or one request.
pub(super) struct Reads {
    parked: VecDeque<Group>,
    here: BTreeMap<ReadToken, Group>,
    at_leader: BTreeMap<u64, (NodeId, Group)>,
    names: Names,
}

struct Group {
    callers: Vec<ReadCaller>,
    deadline: Instant,
}

type Answers = Vec<(ReadCaller, Result<Index, ReadError>)>;

impl Reads {
    pub(super) fn new(names: Names) -> Self {
        Self { parked: VecDeque::new(), here: BTreeMap::new(), at_leader: BTreeMap::new(), names }
    }

    /// Nobody leads that could be reached: these wait for somebody who does.
    pub(super) fn park(&mut self, callers: Vec<ReadCaller>, deadline: Instant) {
        if !callers.is_empty() {
            self.parked.push_back(Group { callers, deadline });
        }
    }

    /// Everything that is parked, taken out.
    pub(super) fn unpark(&mut self) -> Vec<ReadCaller> {
        self.parked.drain(..).flat_map(|group| group.callers).collect()
    }

    /// These are asked of this node's own leadership, under this token.
    pub(super) fn asked_here(&mut self, callers: Vec<ReadCaller>, deadline: Instant) -> ReadToken {
        let token = self.names.next();
        self.here.insert(token, Group { callers, deadline });
        token
    }

    /// These are asked of the leader, under this request.
    pub(super) fn asked_leader(&mut self, leader: NodeId, callers: Vec<ReadCaller>, deadline: Instant) -> u64 {
        let request = self.names.next();
        self.at_leader.insert(request, (leader, Group { callers, deadline }));
        request
    }

    /// The rules confirmed these.
    pub(super) fn ready(&mut self, index: Index, tokens: Vec<ReadToken>) -> Answers {
        self.of_tokens(tokens).map(|caller| (caller, Ok(index))).collect()
    }

    /// The rules could not confirm these: this node leads no more. Its own readers ask the next leader.
    pub(super) fn failed(&mut self, tokens: Vec<ReadToken>) -> Answers {
        let mut answers = Vec::new();
        for token in tokens {
            let Some(Group { callers, deadline }) = self.here.remove(&token) else { continue };
            let (here, there): (Vec<_>, Vec<_>) =
                callers.into_iter().partition(|caller| matches!(caller, ReadCaller::Here { .. }));
            self.park(here, deadline);
            answers.extend(there.into_iter().map(|caller| (caller, Err(ReadError::NoLeader))));
        }
        answers
    }

    fn of_tokens(&mut self, tokens: Vec<ReadToken>) -> impl Iterator<Item = ReadCaller> {
        tokens.into_iter().filter_map(|token| self.here.remove(&token)).flat_map(|group| group.callers)
    }

    /// The leader answered a request: gives who asked.
    pub(super) fn leader_answered(&mut self, from: NodeId, request: u64) -> Vec<ReadCaller> {
        if self.at_leader.get(&request).is_none_or(|(leader, _)| *leader != from) {
            return Vec::new(); // answered, or given up on, before
        }
        self.at_leader.remove(&request).map_or_else(Vec::new, |(_, group)| group.callers)
    }

    /// Another leads: gives those who asked the one before.
    pub(super) fn leader_changed(&mut self) -> Vec<ReadCaller> {
        std::mem::take(&mut self.at_leader).into_values().flat_map(|(_, group)| group.callers).collect()
    }

    /// The link to `peer` was lost: gives those who asked it.
    pub(super) fn peer_lost(&mut self, peer: NodeId) -> Vec<ReadCaller> {
        let lost = self.at_leader.extract_if(.., |_, (leader, _)| *leader == peer);
        lost.flat_map(|(_, (_, group))| group.callers).collect()
    }

    /// Gives up on whatever is past its deadline.
    pub(super) fn expire(&mut self, now: Instant) -> Answers {
        let mut late: Vec<Group> = Vec::new();
        while let Some(group) = self.parked.pop_front_if(|group| group.deadline <= now) {
            late.push(group);
        }
        late.extend(self.here.extract_if(.., |_, group| group.deadline <= now).map(|(_, group)| group));
        late.extend(self.at_leader.extract_if(.., |_, (_, group)| group.deadline <= now).map(|(_, (_, group))| group));
        late.into_iter().flat_map(|group| group.callers).map(|caller| (caller, Err(ReadError::NoLeader))).collect()
    }
}
