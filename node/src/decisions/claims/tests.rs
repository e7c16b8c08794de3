use super::*;
use crate::comparison::Owed;

const LEADS: View = View { this: NodeId(1), term: Term(3), is_leader: true, leader: None };
const FOLLOWS: View = View { this: NodeId(2), term: Term(3), is_leader: false, leader: Some(NodeId(1)) };

#[test]
fn a_leader_appends_what_it_owes_once_a_term() {
    let mut claims = owing(&[4, 5]);
    assert_eq!(claims.next(|| at(0), &LEADS), Step::Append(payloads(&[4, 5])));
    assert_eq!(claims.next(|| at(9_000), &LEADS), Step::None, "it is in this leader's log");
    claims.compared(owed(&[5, 6]));
    assert_eq!(claims.next(|| at(9_000), &LEADS), Step::Append(payloads(&[6])));
    let later = View { term: Term(5), ..LEADS };
    assert_eq!(claims.next(|| at(9_000), &later), Step::Append(payloads(&[5, 6])), "the others may be lost");
    claims.compared(owed(&[]));
    assert_eq!(claims.next(|| at(9_000), &View { term: Term(6), ..LEADS }), Step::None);
}

#[test]
fn a_follower_states_what_it_owes_until_it_is_in_the_log() {
    let mut claims = owing(&[4]);
    assert_eq!(claims.next(|| at(0), &View { leader: None, ..FOLLOWS }), Step::None, "no leader can be reached");
    assert_eq!(claims.next(|| at(0), &FOLLOWS), stated(&[4]));
    assert_eq!(claims.next(|| at(999), &FOLLOWS), Step::None);
    claims.compared(owed(&[4, 5]));
    assert_eq!(claims.next(|| at(999), &FOLLOWS), stated(&[5]), "a new one is stated at once");
    assert_eq!(claims.next(|| at(1_000), &FOLLOWS), stated(&[4, 5]), "and does not delay the one before");
    assert_eq!(claims.next(|| at(1_000), &View { term: Term(4), ..FOLLOWS }), stated(&[4, 5]), "to the next leader");
    claims.compared(owed(&[]));
    assert_eq!(claims.next(|| at(99_000), &FOLLOWS), Step::None, "an idle cluster says nothing");
}

#[test]
fn a_halted_machine_owes_nothing() {
    let mut claims = owing(&[4]);
    claims.machine_halted();
    assert_eq!((claims.next(|| at(0), &FOLLOWS), claims.next(|| at(0), &LEADS)), (Step::None, Step::None));
}

#[test]
fn a_leader_appends_each_claim_of_a_follower_once() {
    let mut claims = Claims::default();
    claims.compared(Comparison { oldest: 3, claimed: [(NodeId(2), [4].into())].into(), ..Comparison::default() });
    for (from, window, is_taken) in
        [(2, 4, false), (2, 6, true), (2, 6, false), (3, 2, false), (3, 3, true), (2, 5, true), (2, 5, false)]
    {
        assert_eq!(claims.heard(NodeId(from), window, 9, &LEADS), is_taken, "of node {from}, window {window}");
    }
    assert!(!claims.heard(NodeId(2), 7, 9, &FOLLOWS), "it does not lead");
    assert!(claims.heard(NodeId(2), 5, 9, &View { term: Term(4), ..LEADS }), "the last leadership may have lost it");
    for window in [9, 10, 1 << 40, u64::MAX] {
        assert!(!claims.heard(NodeId(2), window, 9, &LEADS), "window {window} is not over");
    }
    assert!(claims.heard(NodeId(2), 8, 9, &LEADS));
}

#[test]
fn a_snapshot_waits_for_the_claims_of_copies_that_keep_up() {
    let mut claims = open(&[1], &[]);
    let mut may_send = |ms, ends, claimants: &[u64]| may_send_to(&mut claims, ms, (3, 3), ends, claimants);
    assert!(may_send(0, 2_047, &[1, 2]), "no open window precedes its end");
    assert!(!may_send(0, 2_048, &[1, 2]), "node 2 may differ");
    assert!(may_send(0, 2_048, &[1]), "there is none to wait for");
    assert!(may_send(0, 2_048, &[1, 3]), "its own claim is not waited for");
    assert!(!may_send(5_000, 2_048, &[1, 2]));
    assert!(!may_send(14_999, 2_048, &[1, 2]));
    assert!(may_send(15_000, 2_048, &[1, 2]), "the wait ends");
    assert!(may_send(15_100, 2_048, &[1, 2]), "its file is open now");
    claims.compared(Comparison::default());
    let mut unclaimed = open(&[2], &[]);
    assert!(!may_send_to(&mut unclaimed, 0, (3, 3), 2_048, &[1, 2]));
    assert!(may_send_to(&mut unclaimed, 0, (3, 3), 2_048, &[1]), "its own claim has none to be compared with");
    assert!(may_send_to(&mut claims, 0, (3, 3), 1 << 40, &[1, 2]), "agreed");
}

#[test]
fn a_wait_of_an_earlier_leadership_is_none_of_a_later_one() {
    let mut claims = open(&[1], &[]);
    assert!(!may_send_to(&mut claims, 0, (3, 3), 2_048, &[1, 2]));
    assert!(may_send_to(&mut claims, 10_000, (3, 3), 2_048, &[1, 2]), "the wait ends");
    assert!(!may_send_to(&mut claims, 10_001, (5, 3), 2_048, &[1, 2]), "this node was elected again");
    assert!(!may_send_to(&mut claims, 20_000, (5, 3), 2_048, &[1, 2]));
    assert!(may_send_to(&mut claims, 20_001, (5, 3), 2_048, &[1, 2]));
}

#[test]
fn a_peer_waits_for_claims_once_a_snapshot_that_it_is_sent() {
    let mut claims = open(&[1], &[]);
    assert!(!may_send_to(&mut claims, 0, (3, 3), 2_048, &[1, 2]));
    assert!(!may_send_to(&mut claims, 9_000, (3, 4), 2_048, &[1, 2]), "another peer begins to wait");
    assert!(may_send_to(&mut claims, 30_000, (3, 3), 4_096, &[1, 2]), "a newer one, after a long build");
    claims.snapshot_sent(NodeId(3));
    assert!(!may_send_to(&mut claims, 30_001, (3, 3), 4_096, &[1, 2]), "the next wait");
    assert!(may_send_to(&mut claims, 30_001, (3, 4), 4_096, &[1, 2]), "that of another peer goes on");
}

#[test]
fn the_clock_is_read_only_while_a_claim_is_owed_to_another_node() {
    let unread = || -> Moment { unreachable!("no claim, no clock") };
    assert_eq!(owing(&[]).next(unread, &FOLLOWS), Step::None);
    assert_eq!(owing(&[4]).next(unread, &LEADS), Step::Append(payloads(&[4])));
    assert_eq!(owing(&[4]).next(unread, &View { leader: None, ..FOLLOWS }), Step::None);
}

#[test]
fn in_a_dispute_only_a_copy_that_discarded_its_state_gets_a_snapshot() {
    let mut claims = open(&[1, 2], &[1, 2]);
    claims.state_lost(NodeId(3));
    for node in [2, 3] {
        assert!(!may_send_to(&mut claims, 0, (3, node), 2_048, &[]), "no wait ends it");
        assert!(!may_send_to(&mut claims, 99_000, (3, node), 2_048, &[]));
    }
    claims.state_lost(NodeId(2));
    assert!(may_send_to(&mut claims, 0, (3, 2), 2_048, &[]));
    claims.acknowledged(NodeId(2));
    assert!(!may_send_to(&mut claims, 0, (3, 2), 2_048, &[]), "it has a state again");
}

#[test]
fn a_copy_that_was_found_to_differ_gets_a_snapshot_after_that() {
    let mut claims = Claims::default();
    claims.compared(Comparison { found: [(NodeId(2), Index(70))].into(), ..Comparison::default() });
    assert_eq!((claims.ends_at_least(NodeId(2)), claims.ends_at_least(NodeId(3))), (Index(70), Index(0)));
}

/// Whether node 1, which leads this term, may send a snapshot to this peer.
fn may_send_to(claims: &mut Claims, ms: u64, (term, peer): (u64, u64), ends: u64, claimants: &[u64]) -> bool {
    let claimants = claimants.iter().copied().map(NodeId);
    claims.may_send(at(ms), (Term(term), NodeId(1), NodeId(peer)), Index(ends), claimants)
}

fn owing(windows: &[u64]) -> Claims {
    Claims { comparison: owed(windows), ..Claims::default() }
}

fn owed(windows: &[u64]) -> Comparison {
    let owed = windows.iter().zip(payloads(windows)).map(|(window, payload)| Owed { window: *window, payload });
    Comparison { owed: owed.collect(), ..Comparison::default() }
}

fn open(claimed: &[u64], disputing: &[u64]) -> Claims {
    let nodes = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
    let open = Open { sound_up_to: Index(2_047), disputing: nodes(disputing), claimed: nodes(claimed) };
    Claims { comparison: Comparison { open: Some(open), ..Comparison::default() }, ..Claims::default() }
}

fn payloads(windows: &[u64]) -> Vec<Bytes> {
    windows.iter().map(|window| Bytes::from(window.to_string())).collect()
}

fn stated(windows: &[u64]) -> Step {
    Step::State { to: NodeId(1), payloads: payloads(windows) }
}

fn at(ms: u64) -> Moment {
    Moment::default().plus(Duration::from_millis(ms))
}
