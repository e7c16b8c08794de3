use super::*;
use crate::{actors::messages::Outcome, gate::Gate};
use quorate_metrics::Metrics;
use quorate_raft::{BatchBuilder, Kind};
use std::sync::Arc;
use tokio::sync::oneshot;

type Told = oneshot::Receiver<Result<Outcome, ProposeError>>;

#[test]
fn the_callers_of_a_committed_entry_are_found() {
    let mut world = World::new();
    let mut told = world.append(1, 1, 3);
    told.extend(world.append(4, 1, 2));
    assert_eq!(world.commit(1, 1, 2), [(Index(1), 2)]);
    assert_eq!(world.commit(3, 1, 3), [(Index(3), 1), (Index(4), 2)]);
    assert!(world.proposals.is_empty());
    assert!(told.iter_mut().all(|told| told.try_recv().is_err()), "the state machine answers these");
}

#[test]
fn a_caller_whose_place_another_entry_took_learns_that_it_will_never_be() {
    let mut world = World::new();
    let mut told = world.append(1, 1, 2);
    assert_eq!(world.commit(1, 2, 2), []);
    assert!(told.iter_mut().all(|told| told.try_recv() == Ok(Err(ProposeError::NoLeader))));
}

#[test]
fn a_caller_of_an_earlier_leadership_hides_none_of_a_later_one() {
    let mut world = World::new();
    // It led in term 2, was cut back to entry 5 by another leader, and leads again in term 4.
    let mut early = world.append(5, 2, 6);
    let mut late = world.append(6, 4, 3);
    assert_eq!(world.commit(5, 3, 1), []);
    assert_eq!(world.commit(6, 4, 3), [(Index(6), 3)], "these are of this leadership");
    assert!(early[..4].iter_mut().all(|told| told.try_recv() == Ok(Err(ProposeError::NoLeader))));
    assert!(early[4..].iter_mut().all(|told| told.try_recv().is_err()), "nothing is known of entries 9 and 10");
    assert!(late.iter_mut().all(|told| told.try_recv().is_err()), "the state machine answers these");
    late = world.append(9, 4, 1);
    assert_eq!(world.commit(9, 4, 1), [(Index(9), 1)]);
    assert_eq!(early[4].try_recv(), Ok(Err(ProposeError::NoLeader)));
    drop((early, late));
}

#[test]
fn a_caller_that_waits_too_long_learns_what_is_known() {
    let mut world = World::new();
    let (mut deferred, mut in_log) = (Vec::new(), world.append(1, 1, 2));
    for _ in 0..2 {
        let (caller, told) = world.caller();
        let proposal = Proposal { kind: Kind::Command, payload: Bytes::new(), caller, until: None };
        world.proposals.defer(vec![proposal], world.now);
        deferred.push(told);
    }
    world.proposals.leader_changed(None, world.now);
    assert!(world.proposals.expire(world.now, ProposeError::NoLeader).is_empty());
    assert!(deferred.iter_mut().all(|told| told.try_recv() == Ok(Err(ProposeError::NoLeader))));
    assert!(in_log.iter_mut().all(|told| told.try_recv() == Ok(Err(ProposeError::OutcomeUnknown))));
    assert!(world.proposals.is_empty());
}

#[test]
fn a_caller_of_an_entry_that_a_snapshot_covers_learns_that_the_outcome_is_unknown() {
    let mut world = World::new();
    let mut early = world.append(1, 1, 3);
    let mut across = world.append(4, 1, 4);
    let mut late = world.append(8, 1, 2);
    assert!(world.proposals.covered(Index(5)).is_empty(), "none of them is on another node");
    assert!(early.iter_mut().all(|told| told.try_recv() == Ok(Err(ProposeError::OutcomeUnknown))));
    assert!(across[..2].iter_mut().all(|told| told.try_recv() == Ok(Err(ProposeError::OutcomeUnknown))));
    assert!(across[2..].iter_mut().chain(&mut late).all(|told| told.try_recv().is_err()), "these still wait");
    assert_eq!(world.commit(6, 1, 4), [(Index(6), 2), (Index(8), 2)]);
}

/// A failure for good is not reported as worth another attempt, nor the reverse, and an unknown
/// outcome stays unknown.
#[test]
fn an_answer_keeps_its_meaning_on_its_way_to_the_node_that_forwarded() {
    use ProposeError::{DeadlinePassed, NoLeader, OutcomeUnknown, Overloaded, Skipped, Stopped, StorageFull, TooLarge};
    let retry_after = Duration::from_millis(20);
    // The error at the leader, and what the caller is told; nothing, if the next leader
    // is asked instead.
    let table = [
        (NoLeader, None),
        (StorageFull, None),
        (Stopped, None),
        (Overloaded { retry_after: Duration::from_secs(1) }, Some(Err(Overloaded { retry_after }))),
        (DeadlinePassed, Some(Err(DeadlinePassed))),
        (TooLarge { bytes: 7, max: 5 }, Some(Err(TooLarge { bytes: 7, max: 5 }))),
        (OutcomeUnknown, Some(Err(OutcomeUnknown))),
        (Skipped, Some(Ok(Err(Refusal::Skipped)))),
    ];
    for (error, told) in table {
        let mut world = World::new();
        let mut waits = world.forward("command", 1);
        let request = *world.proposals.forwarded.keys().next().expect("it was forwarded");
        let credit = world.gate.enter(0, None).expect("room");
        let there = Caller::There { node: NodeId(1), request, term: Term(1), credit };
        let (.., outcome) = world.proposals.tell(there, error).expect("another node's");
        let reply = ProposeReply { outcomes: vec![ForwardedOutcome { request, outcome }], replies: Bytes::new() };
        let again = world.proposals.outcomes_arrived(NodeId(2), reply, retry_after);
        assert_eq!((again.len(), waits.try_recv().ok()), (usize::from(told.is_none()), told), "{error}");
    }
}

#[test]
fn the_log_proves_which_commands_of_an_earlier_term_were_never_appended() {
    let mut world = World::new();
    let mut told: Vec<_> = [("taken", 1), ("lost", 1), ("session", 1), ("later", 2)]
        .into_iter()
        .map(|(payload, term)| world.forward(payload, term))
        .collect();
    world.proposals.leader_changed(Some(NodeId(3)), world.now + Duration::from_secs(5));
    assert_eq!(world.proposals.stranded_after(Term(1)), None, "the log says nothing of its own term");
    assert_eq!(world.proposals.stranded_after(Term(2)), Some(Index(4)));
    let stamped = [&[7; STAMP_BYTES][..], b"session"].concat();
    let batches = [
        batch(5, 1, &[(Kind::Command, b"taken"), (Kind::Session, &stamped)]),
        // Of another term: no copy of what was forwarded in the first.
        batch(7, 2, &[(Kind::Noop, b""), (Kind::Command, b"lost")]),
    ];
    let never = world.proposals.decide(Term(2), &batches, world.now);
    assert_eq!(never.iter().map(|proposal| &proposal.payload[..]).collect::<Vec<_>>(), [b"lost"]);
    assert_eq!(world.proposals.stranded_after(Term(2)), None, "the others were looked at");
    assert!(told.iter_mut().all(|told| told.try_recv().is_err()));
    world.proposals.expire(world.now, ProposeError::NoLeader);
    let heard: Vec<_> = told.iter_mut().map(|told| told.try_recv().ok()).collect();
    let unknown = Some(Err(ProposeError::OutcomeUnknown));
    assert_eq!(heard, [unknown.clone(), None, unknown, None], "the answer of the old leader did not come");
    drop(never);
}

#[test]
fn a_log_of_outlines_proves_nothing_of_forwarded_commands() {
    let mut world = World::new();
    let mut told = world.forward("unseen", 1);
    world.proposals.leader_changed(Some(NodeId(3)), world.now + Duration::from_secs(5));
    let batches = [batch(5, 1, &[(Kind::Stub, &[0; 48])]), batch(6, 2, &[(Kind::Noop, b"")])];
    assert!(world.proposals.decide(Term(2), &batches, world.now).is_empty());
    world.proposals.expire(world.now, ProposeError::NoLeader);
    assert_eq!(told.try_recv(), Ok(Err(ProposeError::OutcomeUnknown)));
}

fn batch(first: u64, term: u64, entries: &[(Kind, &[u8])]) -> Batch {
    let mut batch = BatchBuilder::new(quorate_storage::checksum, Term(term), Index(first), 0, 64);
    entries.iter().for_each(|(kind, payload)| batch.push(*kind, payload));
    batch.finish().expect("a batch")
}

struct World {
    proposals: Proposals,
    gate: Arc<Gate>,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let proposals = Proposals::new(1, Term(0), Gate::new(100, 100), &Limits::default(), Metrics::new().node(1));
        Self { proposals, gate: Gate::new(100, 100), now: Instant::now() }
    }

    fn caller(&self) -> (Caller, Told) {
        let (answer, told) = oneshot::channel();
        let credit = self.gate.enter(0, None).expect("room");
        (Caller::Here(crate::actors::messages::Waiter { answer, asked: self.now, credit }), told)
    }

    fn append(&mut self, first: u64, term: u64, count: u64) -> Vec<Told> {
        let (callers, told) = (0..count).map(|_| self.caller()).unzip();
        self.proposals.appended(Index(first), Term(term), callers, self.now + Duration::from_secs(5));
        told
    }

    /// Forwards a command to node 2, which leads this term; entry 4 was committed then.
    fn forward(&mut self, payload: &'static str, term: u64) -> Told {
        let (caller, told) = self.caller();
        let payload = Bytes::from_static(payload.as_bytes());
        let proposal = Proposal { kind: Kind::Command, payload, caller, until: None };
        let sent = Sent { to: NodeId(2), term: Term(term), after: Index(4) };
        self.proposals.forwarded(sent, proposal, self.now + Duration::from_secs(5));
        told
    }

    /// Commits `count` entries of one term; gives the indexes at which callers wait,
    /// and their numbers.
    fn commit(&mut self, first: u64, term: u64, count: u64) -> Vec<(Index, usize)> {
        let mut batch = BatchBuilder::new(quorate_storage::checksum, Term(term), Index(first), 0, 64);
        (0..count).for_each(|_| batch.push(Kind::Command, b""));
        let batch = batch.finish().expect("a batch");
        let taken = self.proposals.committed(&batch);
        let places = taken.iter().map(|callers| (callers.first, callers.callers.len())).collect();
        // The state machine would answer them.
        taken.into_iter().for_each(std::mem::forget);
        places
    }
}
