use super::*;
use std::time::Duration;

const THIS: NodeId = NodeId(1);
const LEADER: NodeId = NodeId(2);
const OTHER: NodeId = NodeId(3);
const MS: fn(u64) -> Duration = Duration::from_millis;
const AT: fn(u64) -> Moment = |ms| Moment(Duration::from_millis(ms));

#[test]
fn readers_ask_the_leader_or_wait_for_one() {
    let mut world = World::leading();
    world.offer(&[Wants::Confirmed, Wants::ByLease, Wants::Confirmed]);
    assert_eq!(world.asks.iter().map(|(_, by_lease)| *by_lease).collect::<Vec<_>>(), [true, false]);
    let mut world = World::following();
    world.offer(&[Wants::Confirmed, Wants::Confirmed, Wants::ByLease]);
    assert_eq!(world.requests().len(), 2, "those that ask alike share a request");
    let mut world = World::leaderless();
    world.offer(&[Wants::Confirmed]);
    assert!(world.sent.is_empty());
    world.view.routing = FOLLOWER;
    world.event(|reads, now, view, out| reads.leader_reachable(now, view, out));
    assert_eq!(world.requests().len(), 1);
}

#[test]
fn readers_gather_only_while_they_would_not_be_answered_sooner() {
    let mut world = World::leading();
    assert!(!world.reads.may_gather(&world.view));
    world.view.is_confirming = true;
    assert!(world.reads.may_gather(&world.view), "they would wait for the next round");
    let mut world = World::following();
    for _ in 0..REQUESTS_MAX {
        assert!(!world.reads.may_gather(&world.view));
        world.offer(&[Wants::Confirmed]);
    }
    assert!(world.reads.may_gather(&world.view));
    world.answer(LEADER, world.requests()[0], Some(9));
    assert!(!world.reads.may_gather(&world.view));
    assert!(!World::leaderless().reads.may_gather(&World::leaderless().view));
}

#[test]
fn an_answer_counts_once_and_from_the_leader_that_was_asked() {
    let mut world = World::following();
    let reader = world.offer(&[Wants::Confirmed]);
    let request = world.requests()[0];
    world.answer(OTHER, request, Some(9));
    assert!(world.told.is_empty());
    world.answer(LEADER, request, Some(9));
    assert_eq!(world.told[&reader], Ok(Granted { index: Index(9), bounded: None }));
    world.answer(LEADER, request, Some(9));
    world.answer(LEADER, request, None);
}

#[test]
fn a_leader_that_covers_less_than_was_committed_here_lost_data() {
    let mut world = World::following();
    world.view.committed = Index(7);
    let (one, two) = (world.offer(&[Wants::Confirmed]), world.offer(&[Wants::Confirmed]));
    let requests = world.requests();
    world.answer(LEADER, requests[0], Some(6));
    assert_eq!(world.losses, [(LEADER, Index(6), Index(7))]);
    assert_eq!(world.told[&one], Err(ReadError::NoLeader));
    world.answer(LEADER, requests[1], Some(7));
    assert!(world.told[&two].is_ok());
}

#[test]
fn a_leadership_that_ends_defers_its_own_readers_and_refuses_those_of_others() {
    let mut world = World::leading();
    let own = world.offer(&[Wants::Confirmed]);
    world.event(|reads, now, view, out| {
        reads.arrived((OTHER, false), ReadIndex { request: 7, by_lease: false }, now, view, out);
    });
    let tokens: Vec<_> = world.asks.iter().map(|(token, _)| *token).collect();
    world.view.routing = LEADERLESS;
    world.event(|reads, now, view, out| reads.failed(&tokens, now, view, out));
    assert_eq!(world.replies(), [(OTHER, ReadIndexReply { request: 7, index: None })]);
    assert!(!world.told.contains_key(&own));
    world.view.routing = FOLLOWER;
    world.event(|reads, now, view, out| reads.leader_reachable(now, view, out));
    assert_eq!(world.requests().len(), 1);
}

#[test]
fn a_request_to_a_lost_or_earlier_leader_is_made_again() {
    let mut world = World::following();
    world.offer(&[Wants::Confirmed]);
    world.event(|reads, now, view, out| reads.peer_lost(OTHER, now, view, out));
    assert_eq!(world.requests().len(), 1);
    world.event(|reads, now, view, out| reads.peer_lost(LEADER, now, view, out));
    assert_eq!(world.requests().len(), 2);
    world.view.routing = routing::View { known_leader: Some(OTHER), leader: Some(OTHER), ..FOLLOWER };
    world.event(|reads, now, view, out| reads.leader_changed(now, view, out));
    assert_eq!(world.sent.last().expect("a request").to, OTHER);
    world.now = AT(0).plus(world.reads.timing.proposal_timeout);
    world.event(|reads, now, view, out| reads.leader_changed(now, view, out));
    assert_eq!(world.told[&1], Err(ReadError::NoLeader), "it waited for long enough");
    assert_eq!(world.requests().len(), 3);
}

#[test]
fn a_leader_that_refused_is_asked_again_only_if_it_leads_another_term() {
    for (term, requests) in [(7, 1), (8, 2)] {
        let mut world = World::following();
        world.offer(&[Wants::Confirmed]);
        world.view.routing.term = Term(term);
        world.answer(LEADER, world.requests()[0], None);
        assert_eq!(world.requests().len(), requests);
    }
}

#[test]
fn a_leader_that_refuses_late_makes_no_reader_wait_for_another() {
    for is_late in [false, true] {
        let mut world = World::following();
        let reader = world.offer(&[Wants::Confirmed]);
        let patience = world.reads.timing.proposal_timeout;
        world.now = if is_late { Moment(patience) } else { Moment(patience - MS(1)) };
        world.answer(LEADER, world.requests()[0], None);
        assert_eq!(world.told.get(&reader), is_late.then_some(&Err(ReadError::NoLeader)));
    }
}

#[test]
fn a_node_that_does_not_lead_or_is_not_a_members_refuses_the_readers_of_another() {
    for (routing, is_outside) in [(FOLLOWER, false), (LEADING, true)] {
        let mut world = World::new(routing);
        world.event(|reads, now, view, out| {
            reads.arrived((OTHER, is_outside), ReadIndex { request: 7, by_lease: false }, now, view, out);
        });
        assert_eq!(world.replies(), [(OTHER, ReadIndexReply { request: 7, index: None })]);
        assert!(world.asks.is_empty());
    }
}

#[test]
fn readers_wait_until_the_deadline_of_their_group_or_their_own() {
    let mut world = World::following();
    let within = Wants::Within { bounds: bounds(500), called: AT(0) };
    world.offer(&[Wants::Confirmed, within]);
    let patient = world.offer_until(Wants::Confirmed, AT(3_000));
    let wait = u64::try_from(world.reads.timing.leader_wait.as_millis()).expect("it is short");
    let mut told_at = |ms| {
        world.now = AT(ms);
        world.event(|reads, now, view, out| reads.expire(now, view, out));
        world.told.len()
    };
    assert!(500 < wait && wait < 3_000);
    assert_eq!([499, 500, wait - 1, wait, 2_999, 3_000].map(&mut told_at), [0, 1, 1, 2, 2, 3]);
    assert_eq!(world.told[&patient], Err(ReadError::NoLeader));
}

#[test]
fn an_answer_proves_something_to_bounded_reads_unless_it_rests_on_a_lease() {
    let bounded = Wants::Within { bounds: bounds(100), called: AT(50) };
    for (wants, is_proven) in [(Wants::ByLease, false), (Wants::Confirmed, true)] {
        let mut world = World::leading();
        world.now = AT(40);
        world.offer(&[wants]);
        world.now = AT(60);
        let (token, _) = world.asks[0];
        world.event(|reads, now, view, out| reads.ready(Index(5), &[token], now, view, out));
        let reader = world.offer(&[bounded]);
        let granted = world.told.get(&reader).map(|outcome| outcome.is_ok_and(|granted| granted.index == Index(5)));
        assert_eq!(granted, is_proven.then_some(true), "otherwise it asks");
        let confirmed = world.offer(&[Wants::Confirmed]);
        assert!(!world.told.contains_key(&confirmed), "it always asks");
    }
}

#[test]
fn a_bounded_read_without_a_proof_is_refused_as_too_stale() {
    let mut world = World::leaderless();
    let reader = world.offer(&[Wants::Within { bounds: bounds(100), called: AT(0) }]);
    world.now = AT(100);
    world.event(|reads, now, view, out| reads.expire(now, view, out));
    assert_eq!(world.told[&reader], Err(ReadError::TooStale { age: None, entries: None }));
}

#[test]
fn a_full_disk_refuses_reads_that_wait_for_entries() {
    let mut world = World::following();
    world.view.routing.is_storage_full = true;
    let (in_log, after) = (world.offer(&[Wants::Confirmed]), world.offer(&[Wants::Confirmed]));
    let requests = world.requests();
    world.answer(LEADER, requests[0], Some(9));
    world.answer(LEADER, requests[1], Some(10));
    assert_eq!(world.told[&in_log], Ok(Granted { index: Index(9), bounded: None }));
    assert_eq!(world.told[&after], Err(ReadError::StorageFull));
    let leaderless = routing::View { is_storage_full: true, ..LEADERLESS };
    for (routing, error) in [(world.view.routing, ReadError::NoLeader), (leaderless, ReadError::StorageFull)] {
        let reader = world.offer(&[Wants::Confirmed]);
        world.view.routing = routing;
        world.now = world.now.plus(MS(60_000));
        world.event(|reads, now, view, out| reads.expire(now, view, out));
        assert_eq!(world.told[&reader], Err(error));
    }
}

#[test]
fn a_full_disk_of_the_leader_refuses_no_reader_of_another_node() {
    let mut world = World::leading();
    world.view.routing.is_storage_full = true;
    world.event(|reads, now, view, out| {
        reads.arrived((OTHER, false), ReadIndex { request: 7, by_lease: false }, now, view, out);
    });
    let (token, _) = world.asks[0];
    world.event(|reads, now, view, out| reads.ready(Index(10), &[token], now, view, out));
    let index = Some(Index(10));
    assert_eq!(world.replies(), [(OTHER, ReadIndexReply { request: 7, index })], "it may have the entry");
}

const FOLLOWER: routing::View = routing::View {
    is_leader: false,
    term: Term(7),
    known_leader: Some(LEADER),
    leader: Some(LEADER),
    is_stopping: false,
    holds_proposals: false,
    is_storage_full: false,
    halted_at: None,
    is_alone: false,
};
const LEADING: routing::View = routing::View { is_leader: true, known_leader: Some(THIS), leader: None, ..FOLLOWER };
const LEADERLESS: routing::View = routing::View { known_leader: None, leader: None, ..FOLLOWER };

/// The readers of one node, and everything that was decided about them. Readers are numbers.
struct World {
    reads: Reads<u64>,
    now: Moment,
    view: View,
    last_reader: u64,
    asks: Vec<(ReadToken, bool)>,
    sent: Vec<Outgoing>,
    told: BTreeMap<u64, Result<Granted, ReadError>>,
    losses: Vec<(NodeId, Index, Index)>,
}

impl World {
    fn leading() -> Self {
        Self::new(LEADING)
    }

    fn following() -> Self {
        Self::new(FOLLOWER)
    }

    fn leaderless() -> Self {
        Self::new(LEADERLESS)
    }

    fn new(routing: routing::View) -> Self {
        Self {
            reads: Reads::new(1, Timing::default().resolved()),
            now: AT(0),
            view: View { routing, applied: Index(5), last_log: Index(9), committed: Index(0), is_confirming: false },
            last_reader: 0,
            asks: Vec::new(),
            sent: Vec::new(),
            told: BTreeMap::new(),
            losses: Vec::new(),
        }
    }

    /// Lets an event happen, and records its effects.
    fn event(&mut self, event: impl FnOnce(&mut Reads<u64>, Moment, &View, &mut Vec<Effect<u64>>)) {
        let mut out = Vec::new();
        event(&mut self.reads, self.now, &self.view, &mut out);
        for effect in out {
            match effect {
                Effect::Ask { token, by_lease, .. } => self.asks.push((token, by_lease)),
                Effect::Send(outgoing) => self.sent.push(outgoing),
                Effect::Answer { waiter, outcome } => {
                    assert!(self.told.insert(waiter, outcome).is_none(), "reader {waiter} was told twice");
                }
                Effect::DataLost { leader, index, committed } => self.losses.push((leader, index, committed)),
            }
        }
    }

    /// Readers of this node ask together; gives the last of them.
    fn offer(&mut self, wants: &[Wants]) -> u64 {
        let readers = wants.iter().map(|wants| self.reader(*wants, None)).collect();
        self.event(|reads, now, view, out| reads.offered(readers, now, view, out));
        self.last_reader
    }

    fn offer_until(&mut self, wants: Wants, until: Moment) -> u64 {
        let reader = self.reader(wants, Some(until));
        self.event(|reads, now, view, out| reads.offered(vec![reader], now, view, out));
        self.last_reader
    }

    fn reader(&mut self, wants: Wants, until: Option<Moment>) -> Reader<u64> {
        self.last_reader += 1;
        Reader::Here { waiter: self.last_reader, asked: self.now, wants, until }
    }

    /// The leader of term 7 answers a request.
    fn answer(&mut self, from: NodeId, request: u64, index: Option<u64>) {
        let reply = ReadIndexReply { request, index: index.map(Index) };
        self.event(|reads, now, view, out| reads.answered((from, Term(7)), reply, now, view, out));
    }

    /// The requests to leaders.
    fn requests(&self) -> Vec<u64> {
        let request = |sent: &Outgoing| match &sent.message.body {
            Body::ReadIndex(ReadIndex { request, .. }) => Some(*request),
            _ => None,
        };
        self.sent.iter().filter_map(request).collect()
    }

    /// The answers to other nodes.
    fn replies(&self) -> Vec<(NodeId, ReadIndexReply)> {
        let reply = |sent: &Outgoing| match &sent.message.body {
            Body::ReadIndexReply(reply) => Some((sent.to, *reply)),
            _ => None,
        };
        self.sent.iter().filter_map(reply).collect()
    }
}

fn bounds(ms: u64) -> Bounds {
    Bounds { max_age: Some(MS(ms)), max_entries: None }
}
