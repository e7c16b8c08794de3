//! The paper, sentence by sentence: each rule of Figure 2 and each property of Figure 3 of Ongaro
//! and Ousterhout, *In Search of an Understandable Consensus Algorithm* (extended version). Every
//! test quotes its rule, and says where these rules go further than the figure (pre-vote, conflict
//! hints, durability in parallel).

use quorate_raft::{AppendOutcome, Effect, Index, NodeId, Phase, Replica, Role, Term, Violation};
use quorate_world::{
    events::Event,
    fixtures::{
        append, append_reply, at, batch, changing, disk_of, halted, hear, heartbeat, id, lead, log_of, persist_all,
        persists, promised, replica, request_vote, sent, settings, snapshot_chunk, snapshot_of, stand, terms, vote,
        vote_reply, voters,
    },
    node::Note,
    oracle::Replicas,
    world::World,
};

// ---- RequestVote RPC: receiver implementation ----

/// 1. "Reply false if term < currentTerm (§5.1)."
#[test]
fn a_vote_is_denied_to_a_candidate_of_an_earlier_term() {
    let mut voter = replica(1, 3, 5, None, &[1]);
    let effects = hear(&mut voter, at(0), 2, 4, request_vote(Phase::Vote, 1, id(9, 4)));
    assert_eq!(vote_reply(&effects), Some((Term(5), false)), "the denial names the later term");
    assert_eq!(voter.vote(), None);
}

/// 2. "If votedFor is null or candidateId, and candidate's log is at least as up-to-date as
///    receiver's log, grant vote (§5.2, §5.4)."
#[test]
fn a_vote_is_granted_to_the_first_candidate_whose_log_is_up_to_date() {
    let mut voter = replica(1, 3, 5, None, &[1, 2]);
    let effects = hear(&mut voter, at(0), 2, 5, request_vote(Phase::Vote, 1, id(2, 2)));
    assert_eq!(vote_reply(&effects), Some((Term(5), true)));
    assert_eq!(voter.vote(), Some(NodeId(2)));
    persist_all(&mut voter, &effects);

    let another = hear(&mut voter, at(0), 3, 5, request_vote(Phase::Vote, 1, id(2, 2)));
    assert_eq!(vote_reply(&another), Some((Term(5), false)), "one vote a term");
    let again = hear(&mut voter, at(0), 2, 5, request_vote(Phase::Vote, 2, id(2, 2)));
    assert_eq!(vote_reply(&again), Some((Term(5), true)), "the same candidate may ask again");
}

/// 2., second half, and §5.4.1: "If the logs have last entries with different terms, then the log
/// with the later term is more up-to-date. If the logs end with the same term, then whichever log
/// is longer is more up-to-date."
#[test]
fn a_vote_is_denied_to_a_candidate_whose_log_is_less_up_to_date() {
    for (last, granted) in [(id(9, 2), false), (id(2, 3), false), (id(3, 3), true), (id(4, 3), true), (id(1, 4), true)]
    {
        for phase in [Phase::Vote, Phase::PreVote] {
            let mut voter = replica(1, 3, 5, None, &[1, 3, 3]);
            let effects = hear(&mut voter, at(0), 2, 5, request_vote(phase, 1, last));
            assert_eq!(vote_reply(&effects), Some((Term(5), granted)), "{last} in the {phase:?} phase");
        }
    }
}

/// Figure 2, "Persistent state on all servers: (Updated on stable storage before
/// responding to RPCs)".
#[test]
fn a_granted_vote_leaves_only_once_it_is_durable() {
    let mut voter = replica(1, 3, 5, None, &[]);
    let effects = hear(&mut voter, at(0), 2, 6, request_vote(Phase::Vote, 1, id(0, 0)));
    assert!(sent(&effects).is_empty(), "nothing leaves at once");
    let last = persists(&effects).last().copied().expect("a write");
    assert_eq!(last.hard_state.map(|state| (state.term, state.vote)), Some((Term(6), Some(NodeId(2)))));
    assert_eq!(last.then.len(), 1, "the vote travels with the write");

    let again = hear(&mut voter, at(0), 2, 6, request_vote(Phase::Vote, 2, id(0, 0)));
    assert!(sent(&again).is_empty(), "nor does it when asked again before");
    let rival = hear(&mut voter, at(0), 3, 6, request_vote(Phase::Vote, 1, id(0, 0)));
    assert!(sent(&rival).is_empty(), "a denial tells of the term, and waits for it too");
    persist_all(&mut voter, &rival);
    let late = hear(&mut voter, at(0), 3, 6, request_vote(Phase::Vote, 2, id(0, 0)));
    assert_eq!(sent(&late).len(), 1, "once durable, the answer is immediate");
}

// ---- AppendEntries RPC: receiver implementation ----

/// 1. "Reply false if term < currentTerm (§5.1)."
#[test]
fn an_append_of_an_earlier_term_is_rejected() {
    let mut follower = replica(1, 3, 5, None, &[1]);
    let entries = Some(batch(4, 2, 1, 0));
    let effects = hear(&mut follower, at(0), 2, 4, append(1, id(1, 1), 1, entries));
    assert_eq!((append_reply(&effects), persists(&effects).len()), (None, 0), "it is not acknowledged");
    assert_eq!(sent(&effects)[0].message.term, Term(5), "the answer names the later term");
    assert_eq!((terms(&follower), follower.commit()), (vec![1], Index(0)), "nothing is taken from it");
    assert_eq!(follower.leader(), None);
}

/// 2. "Reply false if log doesn't contain an entry at prevLogIndex whose term matches prevLogTerm
///    (§5.3)", with the hint of §5.3: "the follower can include the term of the conflicting entry
///    and the first index it stores for that term".
#[test]
fn an_append_is_rejected_where_the_log_lacks_the_entry_before_it() {
    let mut follower = replica(1, 3, 5, None, &[1, 1, 2, 2, 2]);
    let rejected = |follower: &mut _, previous| {
        append_reply(&hear(follower, at(0), 2, 5, append(1, previous, 0, None))).expect("an answer")
    };
    let (last, conflict) = (Index(5), id(3, 2));
    let outcome = rejected(&mut follower, id(4, 3));
    assert_eq!(
        outcome,
        AppendOutcome::Rejected { previous: Index(4), conflict, last, log_last: last },
        "another term there"
    );
    let outcome = rejected(&mut follower, id(9, 4));
    assert_eq!(
        outcome,
        AppendOutcome::Rejected { previous: Index(9), conflict, last, log_last: last },
        "nothing there"
    );
    assert_eq!(terms(&follower), [1, 1, 2, 2, 2], "a rejected append changes nothing");
}

/// 3. "If an existing entry conflicts with a new one (same index but different terms), delete the
///    existing entry and all that follow it (§5.3)."
#[test]
fn a_conflicting_entry_is_deleted_with_all_that_follow_it() {
    let mut follower = replica(1, 3, 5, None, &[1, 2, 2, 2]);
    let log = log_of(&[1, 5]);
    let effects = hear(&mut follower, at(0), 2, 5, append(1, id(1, 1), 0, Some(log[1].clone())));
    assert_eq!(terms(&follower), [1, 5]);
    let last = persists(&effects).last().copied().expect("a write");
    assert_eq!((last.truncate_from, last.batch.as_ref()), (Some(Index(2)), Some(&log[1])));
}

/// 3., the "if": entries that do not conflict stay, and so do entries after them; the append may be
/// an old one.
#[test]
fn entries_that_match_are_kept_with_all_that_follow_them() {
    let mut follower = replica(1, 3, 5, None, &[1, 2, 2, 2]);
    let log = log_of(&[1, 2, 2, 2]);
    let old = log[1].up_to(Index(2));
    let effects = hear(&mut follower, at(0), 2, 5, append(1, id(1, 1), 0, old));
    assert_eq!(terms(&follower), [1, 2, 2, 2]);
    assert!(persists(&effects).iter().all(|persist| persist.truncate_from.is_none() && persist.batch.is_none()));
    assert_eq!(append_reply(&effects), Some(AppendOutcome::Matched { matched: Index(2) }), "it vouches for no more");
}

/// 4. "Append any new entries not already in the log", and "(Updated on stable storage before
///    responding to RPCs)".
#[test]
fn new_entries_are_appended_and_acknowledged_once_durable() {
    let mut follower = replica(1, 3, 5, None, &[1, 5]);
    let log = log_of(&[1, 5, 5, 5]);
    let effects = hear(&mut follower, at(0), 2, 5, append(7, id(1, 1), 0, Some(log[1].clone())));
    assert_eq!(terms(&follower), [1, 5, 5, 5]);
    let persist = persists(&effects)[0];
    assert_eq!(
        (persist.truncate_from, persist.batch.as_ref()),
        (None, log[1].from(Index(3)).as_ref()),
        "only what is new"
    );
    assert!(sent(&effects).is_empty(), "no acknowledgement leaves before the entries are durable");
    assert_eq!(append_reply(&effects), Some(AppendOutcome::Matched { matched: Index(4) }));
    assert_eq!(follower.durable(), Index(2));

    let again = hear(&mut follower, at(0), 2, 5, append(7, id(1, 1), 0, Some(log[1].clone())));
    assert!(sent(&again).is_empty(), "nor does that of a duplicate");
    persist_all(&mut follower, &again);
    assert_eq!(follower.durable(), Index(4));
}

/// 5. "If leaderCommit > commitIndex, set commitIndex = min(leaderCommit, index of
///    last new entry)."
#[test]
fn a_follower_commits_no_further_than_the_append_vouches_for() {
    let mut follower = replica(1, 3, 5, None, &[1, 1, 1, 1]);
    hear(&mut follower, at(0), 2, 5, append(1, id(2, 1), 4, None));
    assert_eq!(follower.commit(), Index(2), "the rest may not be the leader's");
    hear(&mut follower, at(0), 2, 5, append(1, id(4, 1), 3, None));
    assert_eq!(follower.commit(), Index(3), "nor further than the leader");
    hear(&mut follower, at(0), 2, 5, append(1, id(4, 1), 1, None));
    assert_eq!(follower.commit(), Index(3), "and it never goes back");
}

// ---- Rules for servers: all servers ----

/// All servers, 1. "If commitIndex > lastApplied: increment lastApplied, apply log[lastApplied] to
/// state machine (§5.3)." Here a follower applies an entry only when it is durable as well.
#[test]
fn committed_entries_are_applied_in_order_and_once() {
    let mut follower = replica(1, 3, 5, None, &[]);
    let log = log_of(&[5, 5, 5]);
    let effects = hear(&mut follower, at(0), 2, 5, append(1, id(0, 0), 2, Some(log[0].clone())));
    let applied = |effects: &[Effect]| -> Vec<u64> {
        let batches =
            effects.iter().filter_map(|effect| if let Effect::Apply(batch) = effect { Some(batch) } else { None });
        batches.flat_map(|batch| batch.first().0..=batch.last().0).collect()
    };
    assert!(applied(&effects).is_empty(), "not durable yet");
    assert_eq!(applied(&persist_all(&mut follower, &effects)), [1, 2]);
    let effects = hear(&mut follower, at(0), 2, 5, append(1, id(3, 5), 3, None));
    assert_eq!(applied(&effects), [3]);
}

/// All servers, 2. "If RPC request or response contains term T > currentTerm: set currentTerm = T,
/// convert to follower (§5.1)." (A pre-vote carries no new term, and a node that hears a leader
/// ignores campaigns: thesis §9.6, §4.2.3.)
#[test]
fn a_message_of_a_later_term_makes_anyone_a_follower_of_it() {
    let bodies = [
        append(1, id(0, 0), 0, None),
        heartbeat(0, 0),
        vote(Phase::Vote, 1, false),
        quorate_world::fixtures::matched(1, 1),
    ];
    for body in bodies {
        let mut leader = replica(1, 3, 5, None, &[]);
        lead(&mut leader, at(0));
        let effects = hear(&mut leader, at(0), 2, 9, body.clone());
        assert_eq!((leader.term(), leader.vote(), leader.is_leader()), (Term(9), None, false), "{body:?}");
        assert!(effects.contains(&Effect::StopReplicators));
        assert_eq!(persists(&effects)[0].hard_state.map(|state| state.term), Some(Term(9)));
    }
    let mut voter = replica(1, 3, 5, None, &[]);
    hear(&mut voter, at(0), 2, 9, request_vote(Phase::Vote, 1, id(0, 0)));
    assert_eq!(voter.term(), Term(9), "so does a request for a vote");
}

// ---- Rules for servers: followers (§5.2) ----

/// Followers, 1. "Respond to RPCs from candidates and leaders."
#[test]
fn a_follower_answers_candidates_and_leaders() {
    let bodies = [
        (request_vote(Phase::PreVote, 1, id(0, 0)), "a pre-vote"),
        (request_vote(Phase::Vote, 1, id(0, 0)), "a vote"),
        (append(1, id(0, 0), 0, None), "an append"),
        (heartbeat(3, 0), "a heartbeat"),
    ];
    for term in [3, 5, 7] {
        for (body, what) in bodies.clone() {
            let mut follower = replica(1, 3, 5, None, &[]);
            let effects = hear(&mut follower, at(0), 2, term, body);
            let answers = sent(&effects).len() + promised(&effects).len();
            assert_eq!(answers, 1, "{what} of term {term} gets one answer");
        }
    }
}

/// Followers, 2. "If election timeout elapses without receiving AppendEntries RPC from current
/// leader or granting vote to candidate: convert to candidate" — here to pre-candidate first.
#[test]
fn a_follower_that_hears_no_leader_campaigns() {
    let mut follower = replica(1, 3, 5, None, &[]);
    let mut out = Vec::new();
    hear(&mut follower, at(1_000), 2, 5, heartbeat(0, 0));
    follower.election_timeout(at(1_100), Term(5), &mut out);
    assert_eq!(*follower.role(), Role::Follower, "it heard its leader a moment ago");
    assert_eq!(out, [Effect::ArmTimer]);
    follower.election_timeout(at(1_150), Term(5), &mut out);
    assert_eq!(*follower.role(), Role::PreCandidate);
    assert_eq!(follower.term(), Term(5), "a pre-vote raises no term");

    let mut voter = replica(1, 3, 5, None, &[]);
    let effects = hear(&mut voter, at(0), 2, 6, request_vote(Phase::Vote, 1, id(0, 0)));
    assert!(effects.contains(&Effect::ArmTimer), "granting a vote starts the timeout anew");
}

// ---- Rules for servers: candidates (§5.2) ----

/// Candidates, 1. "On conversion to candidate, start election: increment currentTerm, vote for
/// self, reset election timer, send RequestVote RPCs to all other servers" — after a won pre-vote,
/// and once term and vote are durable.
#[test]
fn a_candidate_raises_its_term_votes_for_itself_and_asks_all_others() {
    let mut node = replica(1, 3, 5, Some(2), &[1]);
    let mut out = Vec::new();
    node.election_timeout(at(0), Term(5), &mut out);
    let pre_votes = sent(&out).into_iter().map(|asked| asked.to).collect::<Vec<_>>();
    assert_eq!((pre_votes, node.vote()), (vec![NodeId(2), NodeId(3)], Some(NodeId(2))));
    let ballot = quorate_world::fixtures::opened(&out).expect("a pre-vote");
    out.clear();
    node.election_won(at(0), ballot.term, ballot.campaign, &mut out);
    assert_eq!((node.term(), node.vote(), node.role()), (Term(6), Some(NodeId(1)), &Role::Candidate));
    assert!(out.contains(&Effect::ArmTimer));
    assert!(sent(&out).is_empty(), "requests wait until its own vote is durable");
    assert!(!out.iter().any(|effect| matches!(effect, Effect::CountVote { .. })), "and so does its own vote");
    let asked: Vec<_> = promised(&out).into_iter().map(|asked| (asked.to, asked.message.term)).collect();
    assert_eq!(asked, [(NodeId(2), Term(6)), (NodeId(3), Term(6))]);
    let durable = persist_all(&mut node, &out);
    assert!(
        matches!(durable[..], [Effect::CountVote { voter: NodeId(1), denial: None, .. }]),
        "its own vote counts then"
    );
}

/// Candidates, 2. "If votes received from majority of servers: become leader."
#[test]
fn a_majority_of_votes_makes_a_leader() {
    let mut world = World::new(5);
    world.crash(4);
    world.crash(5);
    world.elect(1);
    assert_eq!(world.leaders(), [(Term(1), NodeId(1))]);
    let mut world = World::new(5);
    [3, 4, 5].into_iter().for_each(|id| world.crash(id));
    world.pass(400);
    world.must(Event::Timeout(NodeId(1)));
    world.must(Event::WinPreVote(NodeId(1)));
    world.settle();
    assert_eq!(world.leaders(), [], "two of five are no majority");
}

/// Candidates, 3. "If AppendEntries RPC received from new leader: convert to follower."
#[test]
fn a_candidate_follows_the_leader_of_its_term() {
    for body in [append(1, id(0, 0), 0, None), heartbeat(0, 0)] {
        let mut candidate = replica(1, 3, 5, None, &[]);
        stand(&mut candidate, at(0));
        let effects = hear(&mut candidate, at(0), 2, 6, body);
        assert_eq!((candidate.role(), candidate.leader()), (&Role::Follower, Some(NodeId(2))));
        assert!(effects.contains(&Effect::CloseBallot));
        assert_eq!(candidate.vote(), Some(NodeId(1)), "its vote in this term stays given");
    }
}

/// Candidates, 4. "If election timeout elapses: start new election" — with a pre-vote, so that
/// terms do not rise in vain.
#[test]
fn a_candidate_that_times_out_campaigns_again() {
    let mut candidate = replica(1, 3, 5, None, &[]);
    let first = stand(&mut candidate, at(0));
    let mut out = Vec::new();
    candidate.election_timeout(at(300), Term(6), &mut out);
    let second = quorate_world::fixtures::opened(&out).expect("another campaign");
    assert_eq!((candidate.role(), candidate.term()), (&Role::PreCandidate, Term(6)));
    assert!(second.campaign > first.campaign);
}

// ---- Rules for servers: leaders ----

/// Leaders, 1. "Upon election: send initial empty AppendEntries RPCs (heartbeat) to each server;
/// repeat during idle periods to prevent election timeouts (§5.2)" — here a no-op to append, so
/// that replicators have something to send.
#[test]
fn a_new_leader_makes_itself_known_and_keeps_its_followers_from_campaigning() {
    let mut world = World::new(3);
    world.elect(1);
    for _ in 0..10 {
        world.pass(100);
        world.beat(1);
        world.timeout_of(2);
        world.timeout_of(3);
    }
    assert_eq!(world.leaders(), [(Term(1), NodeId(1))]);
    assert_eq!([2, 3].map(|id| world.replica(id).leader()), [Some(NodeId(1)); 2]);
}

/// Leaders, 2. "If command received from client: append entry to local log, respond after entry
/// applied to state machine (§5.3)."
#[test]
fn a_command_is_appended_replicated_and_applied() {
    let mut world = World::new(3);
    world.elect(1);
    world.notes.clear();
    world.propose(1, 2);
    let applied = world.notes.iter().find_map(|(id, note)| match note {
        Note::Applied(batch) if *id == NodeId(1) => Some((batch.first(), batch.last())),
        _ => None,
    });
    assert_eq!(applied, Some((Index(2), Index(3))), "behind the leader's no-op");
    world.beat(1);
    assert_eq!([1, 2, 3].map(|id| world.log(id)), [(); 3].map(|()| vec![1, 1, 1]));
    assert_eq!([1, 2, 3].map(|id| world.replica(id).applied_index()), [Index(3); 3]);
}

/// Leaders, 3. "If last log index ≥ nextIndex for a follower: send AppendEntries RPC with
/// log entries starting at nextIndex. If successful: update nextIndex and matchIndex for
/// follower (§5.3). If AppendEntries fails because of log inconsistency: decrement nextIndex
/// and retry (§5.3)."
#[test]
fn a_leader_finds_where_logs_agree_and_replicates_from_there() {
    use quorate_world::fixtures::disk_of;
    let disks = vec![disk_of(3, None, &[1, 1, 3]), disk_of(3, None, &[1, 1, 3]), disk_of(2, None, &[1, 2, 2, 2])];
    let mut world = World::with(disks, quorate_world::fixtures::settings());
    world.elect(1);
    assert_eq!(world.log(3), [1, 1, 3, 4]);
    let progress = world.replicator(1, 3).progress();
    assert_eq!((progress.matched(), progress.next()), (Index(4), Index(5)));
}

/// Leaders, 4. "If there exists an N such that N > commitIndex, a majority of matchIndex[i] ≥ N,
/// and log[N].term == currentTerm: set commitIndex = N (§5.3, §5.4)." The leader's own disk is
/// one of them.
#[test]
fn a_leader_commits_entries_of_its_own_term_that_a_majority_has() {
    let mut leader = replica(1, 5, 2, None, &[1, 2]);
    let led = lead(&mut leader, at(0));
    let mut out = Vec::new();
    for (peer, index) in [(2, 2), (3, 2), (4, 2), (5, 2)] {
        leader.matched(at(0), NodeId(peer), Index(index), &mut out);
    }
    assert_eq!(leader.commit(), Index(0), "all have entry 2, of an earlier term: nothing is committed by counting it");
    leader.matched(at(0), NodeId(2), Index(3), &mut out);
    leader.matched(at(0), NodeId(3), Index(3), &mut out);
    assert_eq!(leader.commit(), Index(0), "two of five, and its own disk has not finished");
    persist_all(&mut leader, &led);
    assert_eq!(leader.commit(), Index(3), "with its own disk it is three, and all before are committed too");
}

// ---- Figure 3: properties that hold at all times ----

/// Election Safety: "at most one leader can be elected in a given term. §5.2"
#[test]
fn two_candidates_of_one_term_never_both_lead() {
    let mut world = World::new(3);
    world.pass(400);
    for id in [1, 2] {
        world.must(Event::Timeout(NodeId(id)));
        world.must(Event::WinPreVote(NodeId(id)));
    }
    world.settle();
    let [one, two] = [1, 2].map(|id| world.term(id));
    assert_eq!((one, two, world.leaders().len()), (1, 1, 1), "node 3 decides between them");
    let mut oracle = Replicas::default();
    let mut leaders = [1, 2].map(|id| replica(id, 3, 5, None, &[]));
    leaders.iter_mut().for_each(|leader| drop(lead(leader, at(0))));
    assert!(oracle.check(leaders.iter()).is_err_and(|violated| violated.contains("election safety")));
}

/// Leader Append-Only: "a leader never overwrites or deletes entries in its log; it only appends
/// new entries. §5.3"
#[test]
fn a_leader_never_takes_entries_from_another() {
    let mut leader = replica(1, 3, 5, None, &[1, 1]);
    lead(&mut leader, at(0));
    let before = leader.log().clone();
    let effects = hear(&mut leader, at(0), 2, 6, append(1, id(1, 1), 0, Some(batch(6, 2, 1, 0))));
    let violation = Violation::TwoLeaders { term: Term(6), one: NodeId(1), other: NodeId(2) };
    assert_eq!(halted(&effects), Some(violation), "there can be no other in its term");
    assert_eq!(*leader.log(), before);
}

/// Log Matching: "if two logs contain an entry with the same index and term, then the logs are
/// identical in all entries up through the given index. §5.3"
#[test]
fn equal_ids_with_different_content_before_them_are_noticed() {
    let mut follower = replica(1, 3, 5, None, &[5, 5]);
    let stranger = batch(5, 3, 1, 0xbad);
    let effects = hear(&mut follower, at(0), 2, 5, append(1, id(2, 5), 0, Some(stranger.clone())));
    assert_eq!(append_reply(&effects), Some(AppendOutcome::Diverged { at: id(2, 5) }));
    assert!(effects.contains(&Effect::Diverged { at: id(2, 5), with: NodeId(2) }));
    assert_eq!(
        (terms(&follower), halted(&effects)),
        (vec![5, 5], None),
        "one of the two is damaged, and it is unknown which"
    );
    let effects = hear(&mut follower, at(0), 2, 5, append(1, id(2, 5), 3, Some(stranger)));
    let violation = Violation::Diverged { at: id(2, 5), leader: NodeId(2) };
    assert_eq!(halted(&effects), Some(violation), "the leader has committed in its own term: a quorum has its log");
    let mut oracle = Replicas::default();
    let logs = [replica(1, 3, 5, None, &[1, 2, 4]), replica(2, 3, 5, None, &[1, 3, 4])];
    assert!(oracle.check(logs.iter()).is_err_and(|violated| violated.contains("log matching")));
}

/// Leader Completeness: "if a log entry is committed in a given term, then that entry will be
/// present in the logs of the leaders for all higher-numbered terms. §5.4"
#[test]
fn only_a_node_with_all_committed_entries_is_elected() {
    let mut world = World::new(3);
    world.elect(1);
    world.isolate(3);
    world.propose(1, 2);
    assert_eq!(world.commit(1), 3);
    world.crash(1);
    world.heal();
    world.pass(400);
    world.timeout_of(3);
    assert_eq!(world.leaders(), [], "3 lacks what is committed");
    world.elect(2);
    assert_eq!(world.log(3), world.log(2));
}

/// State Machine Safety: "if a server has applied a log entry at a given index to its state
/// machine, no other server will ever apply a different log entry for the same index. §5.4.3"
#[test]
fn a_leader_that_contradicts_a_committed_entry_is_not_followed() {
    let mut follower = replica(1, 3, 5, None, &[1, 1]);
    hear(&mut follower, at(0), 2, 5, append(1, id(2, 1), 2, None));
    assert_eq!(follower.commit(), Index(2));
    let effects = hear(&mut follower, at(0), 3, 6, append(1, id(1, 1), 2, Some(batch(6, 2, 1, 0))));
    assert_eq!(halted(&effects), Some(Violation::CommittedConflict { index: Index(2), leader: NodeId(3) }));
    let effects = hear(&mut follower, at(0), 3, 6, append(1, id(2, 6), 2, None));
    assert_eq!(halted(&effects), Some(Violation::CommittedConflict { index: Index(2), leader: NodeId(3) }));
    assert_eq!(terms(&follower), [1, 1], "what is committed stays");
}

// ---- §7, log compaction, and the InstallSnapshot RPC (Figure 13) ----

/// "The snapshot also includes a small amount of metadata: the last included index is the index of
/// the last entry in the log that the snapshot replaces (the last entry the state machine had
/// applied), and the last included term is the term of this entry. These are preserved to support
/// the AppendEntries consistency check for the first log entry following the snapshot, since that
/// entry needs a previous log index and term."
#[test]
fn the_entry_behind_a_snapshot_is_checked_against_its_last() {
    let mut disk = disk_of(5, None, &[1, 1, 2]);
    let before = log_of(&[1, 1, 2])[1].checksum();
    disk.compact(Index(3), voters(3));
    let mut follower = Replica::new(NodeId(1), voters(3), disk.recover(), settings());
    let reply = |follower: &mut _, previous, batch| {
        append_reply(&hear(follower, at(0), 2, 5, append(1, previous, 0, batch))).expect("an answer")
    };
    assert_eq!(reply(&mut follower, id(3, 2), None), AppendOutcome::Matched { matched: Index(3) });
    let entry = Some(batch(5, 4, 1, before));
    assert_eq!(reply(&mut follower, id(3, 2), entry), AppendOutcome::Matched { matched: Index(4) });
    let conflict = hear(&mut follower, at(0), 2, 5, append(1, id(3, 4), 0, None));
    assert!(halted(&conflict).is_some(), "what a snapshot covers was committed: no leader has another entry there");
}

/// "To enable cluster membership changes (Section 6), the snapshot also includes the latest
/// configuration in the log as of last included index."
#[test]
fn a_snapshot_includes_the_configuration_as_of_its_last_entry() {
    let mut disk = disk_of(5, None, &[1]);
    let change = changing(5, 2, log_of(&[1])[0].checksum(), &voters(5));
    disk.append(&change);
    let replica = Replica::new(NodeId(1), voters(3), disk.recover(), settings());
    assert_eq!((replica.membership_at(Index(1)), replica.membership_at(Index(2))), (&voters(3), &voters(5)));
}

/// "Once a server completes writing a snapshot, it may delete all log entries up through the last
/// included index, as well as any prior snapshot."
#[test]
fn a_log_is_deleted_up_through_a_snapshot_and_no_further() {
    let mut world = World::new(3);
    world.elect(1);
    world.propose(1, 3);
    world.must(Event::Snapshot(NodeId(1)));
    world.must(Event::Propose(NodeId(1), 2));
    world.settle();
    assert_eq!((world.replica(1).log().base(), world.log(1)), (id(4, 1), vec![1, 1]));
    assert_eq!(world.log(2), vec![1; 6], "every server takes snapshots independently");
}

/// "The leader must occasionally send snapshots to followers that lag behind. This happens when the
/// leader has already discarded the next log entry that it needs to send to a follower." The other
/// followers do not wait for it.
#[test]
fn a_follower_whose_next_entry_was_discarded_gets_the_snapshot() {
    let mut world = World::new(3);
    world.elect(1);
    world.isolate(3);
    world.propose(1, 4);
    world.snapshot(1);
    world.heal();
    let arrived = world.settle();
    let chunks = arrived.iter().filter(|(_, to, message)| *to == NodeId(3) && message.is_bulk()).count();
    assert!(chunks > 1, "in pieces");
    assert_eq!((world.replica(3).log().base(), world.up(3).state), (id(5, 1), world.up(1).state));
    world.propose(1, 1);
    assert_eq!(world.log(3), world.log(1), "and then entries again");
    assert!(world.replica(2).log().base() == id(0, 0));
}

/// Figure 13, 1.: "Reply immediately if term < currentTerm". The sender learns of the later term
/// from the reply to its next append.
#[test]
fn a_piece_of_an_earlier_term_is_not_taken() {
    let mut follower = replica(1, 3, 5, None, &[1]);
    assert_eq!(hear(&mut follower, at(0), 2, 4, snapshot_chunk(1, &snapshot_of(9, 3), 0, b"abc")), []);
    assert_eq!(follower.leader(), None);
}

/// Figure 13, 6.: "If existing log entry has same index and term as snapshot's last included entry,
/// retain log entries following it and reply."
#[test]
fn entries_that_follow_a_snapshot_are_retained() {
    let mut follower = replica(1, 3, 5, None, &[1, 1, 2, 2]);
    let log = log_of(&[1, 1, 2, 2]);
    let mut base = snapshot_of(3, 2).base;
    base.last_checksum = log[1].up_to(Index(3)).expect("3").checksum();
    let mut out = Vec::new();
    follower.snapshot_received(at(0), NodeId(2), 1, &base, &mut out);
    assert_eq!((follower.log().base(), terms(&follower), follower.commit()), (id(3, 2), vec![2], Index(3)));
    assert_eq!(promised(&out).len(), 1);
}

/// Figure 13, 7. and 8.: "Discard the entire log. Reset state machine using snapshot contents (and
/// load snapshot's cluster configuration)."
#[test]
fn a_log_that_a_snapshot_contradicts_or_exceeds_is_discarded() {
    for (log, last) in [(&[1, 1, 1, 1][..], (3, 2)), (&[1], (3, 2))] {
        let mut follower = replica(1, 3, 5, None, log);
        let mut base = snapshot_of(last.0, last.1).base;
        base.membership = voters(5);
        let mut out = Vec::new();
        follower.snapshot_received(at(0), NodeId(2), 1, &base, &mut out);
        assert_eq!((follower.log().base(), terms(&follower)), (id(3, 2), vec![]));
        assert!(out.contains(&Effect::Restore(base)));
        assert_eq!(follower.membership(), &voters(5));
        assert_eq!((follower.durable(), follower.log().last_checksum()), (Index(3), 0xabcd));
        persist_all(&mut follower, &out);
        assert_eq!(follower.durable(), Index(3));
    }
}

/// "If instead the follower receives a snapshot that describes a prefix of its log (due to
/// retransmission or by mistake), then log entries covered by the snapshot are deleted but entries
/// following the snapshot are still valid and must be retained." Here not even the covered ones are
/// deleted: the node's own log reaches further.
#[test]
fn a_snapshot_of_a_prefix_that_is_committed_changes_nothing() {
    let mut follower = replica(1, 3, 5, None, &[1, 1, 1]);
    hear(&mut follower, at(0), 2, 5, append(1, id(3, 1), 3, None));
    let mut base = snapshot_of(2, 1).base;
    base.last_checksum = log_of(&[1, 1])[0].checksum();
    let mut out = Vec::new();
    follower.snapshot_received(at(0), NodeId(2), 1, &base, &mut out);
    assert_eq!((terms(&follower), persists(&out).len()), (vec![1, 1, 1], 0));
}
