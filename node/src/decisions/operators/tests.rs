use super::*;
use quorate_raft::{Membership, MetadataUpdate, Term};
use std::time::Duration;

const THIS: NodeId = NodeId(1);
const LEADER: NodeId = NodeId(2);
const OTHER: NodeId = NodeId(3);
const NEW: NodeId = NodeId(4);
const MS: fn(u64) -> Duration = Duration::from_millis;

#[test]
fn a_request_is_carried_out_by_the_leader_and_waits_for_one() {
    let mut world = World::new(LEADING);
    world.offer(add(NEW));
    world.offer(Administration::TransferLeadership(None));
    assert_eq!((world.changes.len(), world.transfers.len()), (1, 1));
    let mut world = World::new(FOLLOWER);
    world.offer(add(NEW));
    assert_eq!(world.requests(), [LEADER]);
    let mut world = World::new(LEADERLESS);
    world.offer(add(NEW));
    assert!(world.sent.is_empty());
    world.routing = FOLLOWER;
    world.event(|operators, now, view, out| operators.leader_changed(now, view, out));
    assert_eq!(world.requests(), [LEADER]);
}

#[test]
fn a_forwarded_request_is_served_here_or_refused() {
    for (routing, is_outside) in [(FOLLOWER, false), (LEADERLESS, false), (LEADING, true)] {
        let mut world = World::new(routing);
        world.arrive(OTHER, is_outside, add(NEW));
        world.arrive(OTHER, is_outside, Administration::TransferLeadership(None));
        let refused = [refusal(&add(NEW)), refusal(&Administration::TransferLeadership(None))];
        assert_eq!(world.replies(), refused.map(|outcome| (OTHER, outcome)));
    }
    let mut world = World::new(LEADING);
    world.arrive(OTHER, false, add(NEW));
    assert_eq!(world.changes.len(), 1);
}

#[test]
fn a_second_copy_of_a_request_is_neither_carried_out_nor_answered() {
    let mut world = World::new(LEADING);
    world.arrive_as((OTHER, Term(7), false), 3, add(NEW));
    world.routing = LEADERLESS;
    world.arrive_as((OTHER, Term(7), false), 3, add(NEW));
    world.arrive_as((OTHER, Term(7), true), 3, add(NEW));
    assert_eq!((world.changes.len(), world.duplicates), (1, 2));
    assert!(world.replies().is_empty(), "it would be told of a refusal while the change is under way");
}

#[test]
fn a_request_that_may_have_been_taken_before_a_restart_has_an_unknown_outcome() {
    let mut world = World::new(LEADING);
    world.arrive_as((OTHER, Term(5), false), 3, add(NEW));
    assert!(world.changes.is_empty());
    assert_eq!(world.replies(), [(OTHER, AdministerOutcome::Unknown)]);
    world.arrive_as((OTHER, Term(6), false), 4, add(NEW));
    assert_eq!(world.changes.len(), 1);
}

#[test]
fn the_operators_that_wait_are_bounded() {
    let mut world = World::new(LEADERLESS);
    for _ in 0..OPERATORS_MAX {
        world.offer(add(NEW));
    }
    assert!(world.told.is_empty());
    let one_more = world.offer(add(NEW));
    assert_eq!(world.told[&one_more], refusal(&add(NEW)));
}

#[test]
fn an_answer_counts_once_and_from_the_leader_that_was_asked() {
    let mut world = World::new(FOLLOWER);
    let operator = world.offer(add(NEW));
    let outcome = AdministerOutcome::Changed(Index(11));
    world.answer(OTHER, outcome.clone());
    assert!(world.told.is_empty() && !world.operators.are_answered());
    world.answer(LEADER, outcome.clone());
    assert_eq!(world.told[&operator], outcome);
    assert!(world.operators.are_answered());
    world.answer(LEADER, AdministerOutcome::Unknown);
}

#[test]
fn one_change_is_under_way_at_a_time() {
    let mut world = World::new(LEADING);
    let first = world.offer(add(NEW));
    let pending = AdministerOutcome::ChangeRefused(ChangeRefused::Pending { index: Index(10) });
    let while_tried = world.offer(add(NodeId(5)));
    assert_eq!(world.told[&while_tried], pending);
    world.tried(Ok(Index(11)));
    let later = world.offer(add(NodeId(5)));
    assert_eq!(world.told[&later], pending);
    assert!(world.operators.has_change() && !world.told.contains_key(&first));
}

/// Nodes publish their metadata by themselves: an operator is not refused for that.
#[test]
fn a_change_waits_for_one_of_metadata_alone() {
    let mut world = World::new(LEADING);
    let operators = [describe(OTHER), add(NEW), describe(THIS)].map(|what| world.offer(what));
    assert_eq!((world.changes.len(), world.told.len()), (1, 0));
    (world.index, world.is_settled) = (Index(11), false);
    world.tried(Ok(Index(11)));
    assert_eq!((world.changes.len(), world.told.len()), (1, 0), "it is not committed");
    world.is_settled = true;
    world.event(|operators, now, view, out| operators.end_change_if_done(now, view, out));
    let pending = AdministerOutcome::ChangeRefused(ChangeRefused::Pending { index: Index(11) });
    assert_eq!(world.told[&operators[0]], AdministerOutcome::Changed(Index(11)));
    assert_eq!(world.changes.last(), Some(&Change::add(NEW, "new").resumed()));
    assert_eq!(world.told.get(&operators[1]), None, "it is under way");
    assert_eq!(world.told[&operators[2]], pending, "and may take long");
}

#[test]
fn a_change_waits_for_one_of_metadata_no_longer_than_for_a_leader() {
    let mut world = World::new(LEADING);
    world.offer(describe(OTHER));
    world.is_settled = false;
    world.tried(Ok(Index(11)));
    let waits = world.offer(add(NEW));
    let wait = world.timing().leader_wait;
    world.expire_at(Moment::default().plus(wait - MS(1)));
    assert!(world.told.is_empty());
    world.expire_at(Moment::default().plus(wait));
    let pending = AdministerOutcome::ChangeRefused(ChangeRefused::Pending { index: Index(10) });
    assert_eq!(world.told[&waits], pending);
    // The leadership ends: a change that still waits goes where others go.
    let waits = world.offer(add(NEW));
    world.routing = FOLLOWER;
    world.event(|operators, now, view, out| operators.end_change_if_done(now, view, out));
    assert_eq!((world.requests(), world.told.get(&waits)), (vec![LEADER], None));
}

#[test]
fn the_operator_of_a_change_is_told_once_it_is_committed() {
    let mut world = World::new(LEADING);
    let operator = world.offer(add(NEW));
    world.index = Index(11);
    world.event(|operators, now, view, out| operators.end_change_if_done(now, view, out));
    assert!(world.told.is_empty(), "a step is judged when all its effects are performed");
    world.is_settled = false;
    world.tried(Ok(Index(11)));
    assert!(world.told.is_empty());
    world.is_settled = true;
    world.event(|operators, now, view, out| operators.end_change_if_done(now, view, out));
    assert_eq!(world.told[&operator], AdministerOutcome::Changed(Index(11)));
    assert!(!world.operators.has_change());
}

#[test]
fn a_step_that_is_refused_for_now_is_tried_again() {
    let mut world = World::new(LEADING);
    let operator = world.offer(add(NEW));
    world.tried(Err(ChangeRefused::NotReady));
    assert_eq!(world.changes.len(), 1);
    world.expire_at(world.now);
    assert_eq!(world.changes.len(), 2);
    world.tried(Err(ChangeRefused::NotLeader));
    assert_eq!(world.told[&operator], AdministerOutcome::ChangeRefused(ChangeRefused::NotLeader));
}

#[test]
fn a_change_that_makes_no_sense_is_refused_at_once() {
    let mut world = World::new(LEADING);
    let operator = world.offer(Administration::Change(Change::remove(NEW)));
    assert!(matches!(world.told[&operator], AdministerOutcome::ChangeRefused(_)));
    assert!(world.changes.is_empty() && !world.operators.has_change());
}

#[test]
fn a_transfer_ends_when_another_node_leads_or_it_is_given_up() {
    let mut world = World::new(LEADING);
    let to_itself = world.transfer(Ok(THIS));
    assert_eq!(world.told[&to_itself], AdministerOutcome::Transferred(THIS));
    let refused = world.transfer(Err(TransferRefused::NotLeader));
    assert_eq!(world.told[&refused], AdministerOutcome::TransferRefused(TransferRefused::NotLeader));
    let given_up = world.transfer(Ok(LEADER));
    world.operators.transfer_ended(LEADER);
    assert!(world.operators.has_ended_transfer());
    world.event(|operators, _, view, out| operators.tell_of_ended_transfer(view, out));
    let why = TransferRefused::GivenUp { to: LEADER };
    assert_eq!(world.told[&given_up], AdministerOutcome::TransferRefused(why));
    assert!(!world.operators.has_ended_transfer());
    let (late, wait) =
        (world.transfer(Ok(LEADER)), world.timing().leader_wait + world.timing().election_timeout.1 * 10);
    world.expire_at(Moment(wait - MS(1)));
    assert!(!world.told.contains_key(&late));
    world.expire_at(Moment(wait));
    assert_eq!(world.told[&late], AdministerOutcome::Unknown);
    let done = world.transfer(Ok(LEADER));
    world.routing = LEADERLESS;
    world.event(|operators, now, view, out| operators.leader_changed(now, view, out));
    assert!(!world.told.contains_key(&done), "no node leads yet");
    world.routing = FOLLOWER;
    world.event(|operators, now, view, out| operators.leader_changed(now, view, out));
    assert_eq!(world.told[&done], AdministerOutcome::Transferred(LEADER));
}

#[test]
fn a_lost_link_leaves_the_outcome_unknown() {
    let mut world = World::new(FOLLOWER);
    let operator = world.offer(add(NEW));
    world.event(|operators, _, view, out| operators.peer_lost(OTHER, view, out));
    assert!(world.told.is_empty());
    world.event(|operators, _, view, out| operators.peer_lost(LEADER, view, out));
    assert_eq!(world.told[&operator], AdministerOutcome::Unknown);
}

#[test]
fn an_operator_waits_for_an_earlier_leader_for_a_while_only() {
    let mut world = World::new(FOLLOWER);
    let before = world.offer(add(NEW));
    world.routing = routing::View { known_leader: Some(OTHER), leader: Some(OTHER), ..FOLLOWER };
    world.event(|operators, now, view, out| operators.leader_changed(now, view, out));
    let after = world.offer(add(NEW));
    let (soon, late) =
        (world.timing().election_timeout.1 * 2, world.timing().catch_up_wait + world.timing().leader_wait * 2);
    world.expire_at(Moment(soon - MS(1)));
    assert!(world.told.is_empty());
    world.expire_at(Moment(soon));
    assert_eq!(world.told[&before], AdministerOutcome::Unknown);
    world.expire_at(Moment(late - MS(1)));
    assert!(!world.told.contains_key(&after));
    world.expire_at(Moment(late));
    assert_eq!(world.told[&after], AdministerOutcome::Unknown);
}

#[test]
fn a_request_that_found_no_leader_had_no_effect() {
    let mut world = World::new(LEADERLESS);
    let operator = world.offer(add(NEW));
    let wait = world.timing().leader_wait;
    world.expire_at(Moment(wait - MS(1)));
    assert!(world.told.is_empty());
    world.expire_at(Moment(wait));
    assert_eq!(world.told[&operator], refusal(&add(NEW)));
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

fn describe(id: NodeId) -> Administration {
    Administration::Change(Change::describe(id, MetadataUpdate::default().with_label("zone", "a")))
}

fn add(id: NodeId) -> Administration {
    Administration::Change(Change::add(id, "new"))
}

/// The operators of one node, and everything that was decided about them. Operators are numbers.
struct World {
    operators: Operators<u64>,
    now: Moment,
    routing: routing::View,
    membership: Membership,
    index: Index,
    is_settled: bool,
    last_operator: u64,
    told: BTreeMap<u64, AdministerOutcome>,
    sent: Vec<Outgoing>,
    changes: Vec<Change>,
    transfers: Vec<Operator<u64>>,
    last_arrived: u64,
    duplicates: u64,
}

impl World {
    /// Nodes 1 to 3 vote since entry 10.
    fn new(routing: routing::View) -> Self {
        Self {
            operators: Operators::new(1, Term(5), Timing::default().resolved()),
            now: Moment::default(),
            routing,
            membership: Membership::of_addresses([1, 2, 3].map(|id| (NodeId(id), format!("a{id}")))),
            index: Index(10),
            is_settled: true,
            last_operator: 0,
            told: BTreeMap::new(),
            sent: Vec::new(),
            changes: Vec::new(),
            transfers: Vec::new(),
            last_arrived: 0,
            duplicates: 0,
        }
    }

    fn timing(&self) -> Timing {
        self.operators.timing
    }

    /// Lets an event happen, and records its effects.
    fn event(&mut self, event: impl FnOnce(&mut Operators<u64>, Moment, &View<'_>, &mut Vec<Effect<u64>>)) {
        let change = membership_change::View {
            membership: &self.membership,
            index: self.index,
            is_settled: self.is_settled,
            is_leader: self.routing.is_leader,
        };
        let mut out = Vec::new();
        event(&mut self.operators, self.now, &View { this: THIS, routing: self.routing, change }, &mut out);
        for effect in out {
            match effect {
                Effect::Send(outgoing) => self.sent.push(outgoing),
                Effect::Answer { waiter, outcome } => {
                    assert!(self.told.insert(waiter, outcome).is_none(), "operator {waiter} was told twice");
                }
                Effect::Change(change) => self.changes.push(change),
                Effect::Transfer { operator, .. } => self.transfers.push(operator),
                Effect::Duplicate { .. } => self.duplicates += 1,
            }
        }
    }

    /// An operator of this node asks; gives the operator.
    fn offer(&mut self, what: Administration) -> u64 {
        self.last_operator += 1;
        let operator = Operator::Here(self.last_operator);
        self.event(|operators, now, view, out| operators.offered(what, operator, now, view, out));
        self.last_operator
    }

    fn arrive(&mut self, from: NodeId, is_outside: bool, what: Administration) {
        self.last_arrived += 1;
        self.arrive_as((from, Term(7), is_outside), self.last_arrived, what);
    }

    fn arrive_as(&mut self, from: (NodeId, Term, bool), request: u64, what: Administration) {
        let administer = Administer { request, what };
        self.event(|operators, now, view, out| operators.arrived(from, administer, now, view, out));
    }

    fn tried(&mut self, outcome: Result<Index, ChangeRefused>) {
        self.event(|operators, now, view, out| operators.change_tried(outcome, now, view, out));
    }

    /// An operator asks for a transfer, and the rules answer so.
    fn transfer(&mut self, outcome: Result<NodeId, TransferRefused>) -> u64 {
        let number = self.offer(Administration::TransferLeadership(None));
        let operator = self.transfers.pop().expect("it is to be tried");
        self.event(|operators, now, view, out| operators.transfer_tried(operator, outcome, now, view, out));
        number
    }

    fn answer(&mut self, from: NodeId, outcome: AdministerOutcome) {
        let request = self.sent.iter().find_map(|sent| match &sent.message.body {
            Body::Administer(administer) => Some(administer.request),
            _ => None,
        });
        let administered = Administered { request: request.expect("a request"), outcome };
        self.event(|operators, _, view, out| operators.answered(from, administered, view, out));
    }

    fn expire_at(&mut self, now: Moment) {
        self.now = now;
        self.event(|operators, now, view, out| operators.expire(now, view, out));
    }

    /// The receivers of forwarded requests.
    fn requests(&self) -> Vec<NodeId> {
        let is_request = |sent: &&Outgoing| matches!(sent.message.body, Body::Administer(_));
        self.sent.iter().filter(is_request).map(|sent| sent.to).collect()
    }

    /// The answers to other nodes.
    fn replies(&self) -> Vec<(NodeId, AdministerOutcome)> {
        let reply = |sent: &Outgoing| match &sent.message.body {
            Body::Administered(administered) => Some((sent.to, administered.outcome.clone())),
            _ => None,
        };
        self.sent.iter().filter_map(reply).collect()
    }
}
