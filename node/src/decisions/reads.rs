//! Reads: the readers that wait for an index to read at, and what each may be served.
//!
//! Readers that ask together wait together, under one token of this node's rules or one request to
//! the leader. Reading twice is harmless, so a request that is lost on its way is asked again,
//! until its readers' deadlines.
//!
//! **The time of an event is read from the clock after the readers were taken from their queue.** A
//! lease that holds then holds at a moment between the question and the answer; a process that
//! stands still before or after that does no harm.

use super::{
    freshness::{Bounds, Freshness, Granted},
    request_ids::RequestIds,
    routing::{self, Route},
};
use crate::{config::Timing, error::ReadError};
use quorate_raft::{Body, Index, Message, Moment, NodeId, Outgoing, ReadIndex, ReadIndexReply, ReadToken, Term};
use std::collections::{BTreeMap, VecDeque};

/// The readers that wait, and the proofs that bounded reads rest on. A method takes one event and
/// pushes [`Effect`]s, which its caller performs in order. `W` is the way to answer a reader of
/// this node.
#[derive(Debug)]
pub struct Reads<W> {
    deferred: VecDeque<Group<W>>,
    here: BTreeMap<ReadToken, Group<W>>,
    at_leader: BTreeMap<u64, (NodeId, Group<W>)>,
    freshness: Freshness,
    ids: RequestIds,
    timing: Timing,
}

/// The caller that waits for an index to read at.
#[derive(Debug)]
pub enum Reader<W> {
    /// A caller of this node's handle.
    Here {
        waiter: W,
        asked: Moment,
        wants: Wants,
        /// Its deadline; without one, the node's settings decide.
        until: Option<Moment>,
    },
    /// Another node, for its callers.
    There { node: NodeId, request: u64, by_lease: bool },
}

/// The promise that a read of this node's handle wants.
#[derive(Clone, Copy, Debug)]
pub enum Wants {
    /// Linearizable, confirmed by a quorum.
    Confirmed,
    /// Linearizable, if the leader's lease can be trusted.
    ByLease,
    /// No staler than the bounds, for a read that was called for at this moment.
    Within { bounds: Bounds, called: Moment },
}

/// The node's part in the cluster, and its log.
#[derive(Clone, Copy, Debug)]
pub struct View {
    pub routing: routing::View,
    pub applied: Index,
    pub last_log: Index,
    /// The highest index that is known to be committed.
    pub committed: Index,
    /// This node leads, and confirms that to earlier readers.
    pub is_confirming: bool,
}

/// A decision, to be carried out.
#[derive(Debug)]
pub enum Effect<W> {
    /// Ask this node's own leadership, at this moment, for an index. [`Reads::ready`] or
    /// [`Reads::failed`] answers the token.
    Ask {
        asked: Moment,
        token: ReadToken,
        by_lease: bool,
    },
    Send(Outgoing),
    /// Tell a reader of this node.
    Answer {
        waiter: W,
        outcome: Result<Granted, ReadError>,
    },
    /// Report that the members that elected this leader lost data: it has committed nothing after
    /// `index`, and `committed` is committed here.
    DataLost {
        leader: NodeId,
        index: Index,
        committed: Index,
    },
}

/// The requests to the leader that are under way while further readers gather for the next one: with
/// two, one is on its way there while the other comes back.
const REQUESTS_MAX: usize = 2;

/// Readers that asked together.
#[derive(Debug)]
struct Group<W> {
    readers: Vec<Reader<W>>,
    /// An answer covers all that was committed at this moment. Without meaning while the
    /// group is deferred.
    asked: Moment,
    /// The highest index that was known to be committed here then.
    committed: Index,
    deadline: Moment,
}

impl<W> Reader<W> {
    /// Whether the leader may answer by its lease.
    fn is_by_lease(&self) -> bool {
        matches!(self, Self::Here { wants: Wants::ByLease, .. } | Self::There { by_lease: true, .. })
    }

    fn is_forwarded(&self) -> bool {
        matches!(self, Self::There { .. })
    }

    /// The time after which no answer helps this reader: its own deadline, else `deadline`, and for
    /// a bounded read no later than the age that it allows.
    fn deadline(&self, deadline: Moment) -> Moment {
        let Self::Here { asked, wants, until, .. } = self else { return deadline };
        let deadline = until.unwrap_or(deadline);
        match wants {
            // An answer to a question of now is too old by then.
            Wants::Within { bounds: Bounds { max_age: Some(age), .. }, .. } => asked.plus(*age).min(deadline),
            _ => deadline,
        }
    }
}

type Effects<W> = Vec<Effect<W>>;

impl<W> Reads<W> {
    /// `life` is random: it differs from that of every earlier process of this node.
    pub fn new(life: u32, timing: Timing) -> Self {
        Self {
            deferred: VecDeque::new(),
            here: BTreeMap::new(),
            at_leader: BTreeMap::new(),
            freshness: Freshness::default(),
            ids: RequestIds::new(life),
            timing,
        }
    }

    /// Callers of this node want to read. Bounded reads that a proof allows are granted, and an
    /// index is asked for the others.
    pub fn offered(&mut self, mut readers: Vec<Reader<W>>, now: Moment, view: &View, out: &mut Effects<W>) {
        let by_proof: Vec<_> = readers.extract_if(.., |reader| self.grant(reader, now, view).is_some()).collect();
        for reader in by_proof {
            if let Some(granted) = self.grant(&reader, now, view) {
                answer(reader, Ok(granted), view, out);
            }
        }
        let (by_lease, rest): (Vec<_>, Vec<_>) = readers.into_iter().partition(Reader::is_by_lease);
        self.ask(by_lease, true, now, view, out);
        self.ask(rest, false, now, view, out);
    }

    /// Whether readers that want the index of a quorum may gather: they get no earlier answer if they
    /// ask now. They ask when a peer has answered the round, or the leader a request.
    pub fn may_gather(&self, view: &View) -> bool {
        match view.routing.route(false) {
            Route::Here => view.is_confirming,
            Route::Forward(_) => self.at_leader.len() >= REQUESTS_MAX,
            Route::Defer | Route::Refuse => false,
        }
    }

    /// Another node asks for an index. `is_outside` says that the configuration does not name it.
    pub fn arrived(
        &mut self,
        (from, is_outside): (NodeId, bool),
        ReadIndex { request, by_lease }: ReadIndex,
        now: Moment,
        view: &View,
        out: &mut Effects<W>,
    ) {
        let reader = Reader::There { node: from, request, by_lease };
        if is_outside {
            self.refuse(vec![reader], now, view, out);
        } else {
            self.ask(vec![reader], by_lease, now, view, out);
        }
    }

    /// This node's leadership confirmed these tokens: all that was committed when they were asked
    /// for is covered by `index`.
    pub fn ready(&mut self, index: Index, tokens: &[ReadToken], now: Moment, view: &View, out: &mut Effects<W>) {
        for group in tokens.iter().filter_map(|token| self.here.remove(token)).collect::<Vec<_>>() {
            self.covered(group, index, now, view, out);
        }
    }

    /// This node's leadership ended before it confirmed these tokens. Its own readers wait for
    /// the next leader; those of other nodes are refused.
    pub fn failed(&mut self, tokens: &[ReadToken], now: Moment, view: &View, out: &mut Effects<W>) {
        let mut others = Vec::new();
        for token in tokens {
            let Some(Group { readers, deadline, .. }) = self.here.remove(token) else { continue };
            let (there, here): (Vec<_>, Vec<_>) = readers.into_iter().partition(Reader::is_forwarded);
            self.defer(here, deadline);
            others.extend(there);
        }
        self.refuse(others, now, view, out);
    }

    /// The leader answered a request, in a message of `term`. The index of a sound leader covers
    /// all that was known to be committed here when the request was made; if it does not, nothing
    /// is read from that leader. Without an index it leads no more.
    pub fn answered(
        &mut self,
        (from, term): (NodeId, Term),
        ReadIndexReply { request, index }: ReadIndexReply,
        now: Moment,
        view: &View,
        out: &mut Effects<W>,
    ) {
        if self.at_leader.get(&request).is_none_or(|(leader, _)| *leader != from) {
            return; // answered, or given up on, before
        }
        let Some((_, group)) = self.at_leader.remove(&request) else { return };
        match index {
            Some(index) if index < group.committed => {
                out.push(Effect::DataLost { leader: from, index, committed: group.committed });
                self.refuse(group.readers, now, view, out);
            }
            Some(index) => self.covered(group, index, now, view, out),
            None if view.routing.would_refuse_again(from, term) => {
                let readers = self.without_late(group.readers, now, view, out);
                self.defer(readers, now.plus(self.timing.leader_wait));
            }
            None => self.retry(group.readers, now, view, out),
        }
    }

    /// A leader can be reached: deferred readers ask it.
    pub fn leader_reachable(&mut self, now: Moment, view: &View, out: &mut Effects<W>) {
        let deferred = self.deferred.drain(..).flat_map(|group| group.readers).collect();
        self.retry(deferred, now, view, out);
    }

    /// Another node leads, or none: the readers that asked the leader before ask again.
    pub fn leader_changed(&mut self, now: Moment, view: &View, out: &mut Effects<W>) {
        let stranded = std::mem::take(&mut self.at_leader).into_values().flat_map(|(_, group)| group.readers).collect();
        self.retry(stranded, now, view, out);
    }

    /// The link to `peer` was lost: the readers that asked it ask again.
    pub fn peer_lost(&mut self, peer: NodeId, now: Moment, view: &View, out: &mut Effects<W>) {
        let lost = self.at_leader.extract_if(.., |_, (leader, _)| *leader == peer);
        let stranded = lost.flat_map(|(_, (_, group))| group.readers).collect();
        self.retry(stranded, now, view, out);
    }

    /// Refuses the readers that are past their deadlines.
    pub fn expire(&mut self, now: Moment, view: &View, out: &mut Effects<W>) {
        let mut late = Vec::new();
        let deferred = self.deferred.iter_mut();
        let asked = self.here.values_mut().chain(self.at_leader.values_mut().map(|(_, group)| group));
        for group in deferred.chain(asked) {
            let deadline = group.deadline;
            late.extend(group.readers.extract_if(.., |reader| reader.deadline(deadline) <= now));
        }
        self.deferred.retain(|group| !group.readers.is_empty());
        self.here.retain(|_, group| !group.readers.is_empty());
        self.at_leader.retain(|_, (_, group)| !group.readers.is_empty());
        self.refuse(late, now, view, out);
    }

    /// Asks for an index, here or at the leader.
    fn ask(&mut self, mut readers: Vec<Reader<W>>, by_lease: bool, now: Moment, view: &View, out: &mut Effects<W>) {
        if readers.is_empty() {
            return;
        }
        let is_refused = |reader: &mut Reader<W>| view.routing.route(reader.is_forwarded()) == Route::Refuse;
        let refused = readers.extract_if(.., is_refused).collect();
        self.refuse(refused, now, view, out);
        if readers.is_empty() {
            return;
        }
        let deadline = now.plus(self.timing.leader_wait);
        let group = Group { readers, asked: now, committed: view.committed, deadline };
        match view.routing.route(false) {
            Route::Here => {
                let token = self.ids.next();
                self.here.insert(token, group);
                out.push(Effect::Ask { asked: now, token, by_lease });
            }
            Route::Forward(leader) => {
                let request = self.ids.next();
                self.at_leader.insert(request, (leader, group));
                out.push(send(leader, Body::ReadIndex(ReadIndex { request, by_lease }), view));
            }
            Route::Defer | Route::Refuse => self.defer(group.readers, deadline),
        }
    }

    /// Takes readers again after their request was lost on its way.
    fn retry(&mut self, readers: Vec<Reader<W>>, now: Moment, view: &View, out: &mut Effects<W>) {
        let readers = self.without_late(readers, now, view, out);
        self.offered(readers, now, view, out);
    }

    /// Refuses the readers that must not wait for another leader: none does after
    /// `proposal_timeout`, or after its own deadline, regardless of the number of leaders.
    fn without_late(
        &self,
        mut readers: Vec<Reader<W>>,
        now: Moment,
        view: &View,
        out: &mut Effects<W>,
    ) -> Vec<Reader<W>> {
        let patience = self.timing.proposal_timeout;
        let is_late = |reader: &mut Reader<W>| match reader {
            Reader::Here { asked, .. } => {
                let deadline = asked.plus(patience);
                reader.deadline(deadline) <= now
            }
            Reader::There { .. } => false,
        };
        let late = readers.extract_if(.., is_late).collect();
        self.refuse(late, now, view, out);
        readers
    }

    /// No leader can be reached: these wait for one.
    fn defer(&mut self, readers: Vec<Reader<W>>, deadline: Moment) {
        if !readers.is_empty() {
            self.deferred.push_back(Group { readers, asked: Moment::default(), committed: Index(0), deadline });
        }
    }

    /// All that was committed when these readers asked is covered by `index`.
    fn covered(&mut self, group: Group<W>, index: Index, now: Moment, view: &View, out: &mut Effects<W>) {
        // Bounded reads rest on no lease: an answer by lease proves nothing to them.
        if !group.readers.is_empty() && !group.readers.iter().any(Reader::is_by_lease) {
            self.freshness.proven(group.asked, index);
        }
        for reader in group.readers {
            let outcome = self.outcome(&reader, index, now, view);
            answer(reader, outcome, view, out);
        }
    }

    /// The answer to a reader of a group that was answered with `index`.
    fn outcome(&self, reader: &Reader<W>, index: Index, now: Moment, view: &View) -> Result<Granted, ReadError> {
        match reader {
            Reader::Here { wants: Wants::Within { .. }, .. } => {
                self.grant(reader, now, view).ok_or_else(|| self.refusal(reader, now, view))
            }
            // No entry is taken here any more: the read would wait in vain.
            Reader::Here { .. } if view.routing.is_storage_full && index > view.last_log => Err(ReadError::StorageFull),
            _ => Ok(Granted { index, bounded: None }),
        }
    }

    /// The permission to serve a bounded read from the proofs there are; `None` for other reads,
    /// and if none suffices.
    fn grant(&self, reader: &Reader<W>, now: Moment, view: &View) -> Option<Granted> {
        match reader {
            Reader::Here { wants: Wants::Within { bounds, called }, .. } => {
                self.freshness.grant(*bounds, *called, now, view.applied)
            }
            _ => None,
        }
    }

    /// No node can tell these readers the index that they need.
    fn refuse(&self, readers: Vec<Reader<W>>, now: Moment, view: &View, out: &mut Effects<W>) {
        for reader in readers {
            let refusal = self.refusal(&reader, now, view);
            answer(reader, Err(refusal), view, out);
        }
    }

    fn refusal(&self, reader: &Reader<W>, now: Moment, view: &View) -> ReadError {
        match reader {
            Reader::Here { wants: Wants::Within { .. }, .. } => self.freshness.too_stale(now, view.applied),
            _ if view.routing.is_storage_full && view.routing.known_leader.is_none() => ReadError::StorageFull,
            _ => ReadError::NoLeader,
        }
    }
}

fn answer<W>(reader: Reader<W>, outcome: Result<Granted, ReadError>, view: &View, out: &mut Effects<W>) {
    out.push(match reader {
        Reader::Here { waiter, .. } => Effect::Answer { waiter, outcome },
        Reader::There { node, request, .. } => {
            let index = outcome.ok().map(|granted| granted.index);
            send(node, Body::ReadIndexReply(ReadIndexReply { request, index }), view)
        }
    });
}

fn send<W>(to: NodeId, body: Body, view: &View) -> Effect<W> {
    Effect::Send(Outgoing { to, message: Message { term: view.routing.term, body } })
}

#[cfg(test)]
mod tests;
