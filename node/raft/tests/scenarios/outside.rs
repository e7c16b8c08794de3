//! Messages from outside the configuration: of a node that was removed, and of one that never was a
//! member. Each kind of message from each kind of sender, in each state of the receiver.

use quorate_raft::{
    AdministerOutcome, Administered, Administration, AppendOutcome, AppendReply, Body, Change, Effect, Emptied,
    Holdings, Index, Membership, Message, MessageRefusal, NodeId, Observe, Phase, Propose, ProposeReply, ReadIndex,
    ReadIndexReply, Removed, Repair, RepairOutcome, RepairReply, Replica, Report, RequestVote, Role, SnapshotOutcome,
    SnapshotReply, Term, TimeoutNow,
};
use quorate_world::{
    disk::Disk,
    events::Event,
    fixtures::{
        append, at, batch, changing, disk_of, hear, heartbeat, heartbeat_reply, id, lead, log_of, persist_all,
        settings, snapshot_chunk, snapshot_of, vote, vote_reply, voters,
    },
    rules::Rules,
    world::World,
};
use std::collections::BTreeSet;

/// No cluster gets to this term; one message from it used to bring the whole cluster there.
const LAST_TERM: u64 = u64::MAX / 2 - 1;
const LEARNER: u64 = 4;
const REMOVED: u64 = 5;
const NEVER_A_MEMBER: u64 = 9;

/// Whether a receiver hears a leader, and its role.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    HearsLeader,
    HearsNone,
    Campaigns,
    Leads,
}

const STATES: [State; 4] = [State::HearsLeader, State::HearsNone, State::Campaigns, State::Leads];

/// Node 1 of voters 1, 2 and 3, of which 3 is the witness, and learner 4, in term 5. Node 5 was a
/// voter, and a committed entry removed it.
fn receiver(state: State) -> Replica {
    let members = voters(3).with_learners([NodeId(LEARNER)]).with_witness(Some(NodeId(3)));
    let before = Membership::of_voters([1, 2, 3, REMOVED].map(NodeId))
        .with_learners([NodeId(LEARNER)])
        .with_witness(Some(NodeId(3)));
    let mut disk = disk_of(5, None, &[]);
    let first = log_of(&[1]).remove(0);
    disk.append(&first);
    disk.append(&changing(1, 2, first.checksum(), &members));
    let mut replica = Replica::new(NodeId(1), before, disk.recover(), settings());
    hear(&mut replica, at(10_000), 2, 5, append(1, id(2, 1), 2, None));
    assert_eq!((replica.commit(), replica.is_outside(NodeId(REMOVED))), (Index(2), true));
    match state {
        State::HearsLeader | State::HearsNone => {}
        State::Campaigns => replica.election_timeout(now(state), Term(5), &mut Vec::new()),
        State::Leads => {
            let led = lead(&mut replica, now(state));
            persist_all(&mut replica, &led);
            replica.matched(now(state), NodeId(2), Index(3), &mut Vec::new());
            assert_eq!(replica.commit(), Index(3));
        }
    }
    replica
}

/// The time when a message arrives: soon after the leader was heard, or long after.
fn now(state: State) -> quorate_raft::Moment {
    match state {
        State::HearsLeader => at(10_001),
        State::HearsNone | State::Campaigns | State::Leads => at(20_000),
    }
}

/// Every kind of message, each with the claims that would do most harm.
fn messages(replica: &Replica) -> Vec<Body> {
    let last = replica.log().last();
    let request = |phase, by_transfer| {
        Body::RequestVote(RequestVote {
            phase,
            campaign: 7,
            last: id(1 << 40, 1 << 40),
            by_transfer,
            machine_version: 0,
        })
    };
    let next = batch(last.term.0, last.index.0 + 1, 1, replica.log().last_checksum());
    let snapshot = snapshot_of(1 << 20, 1);
    let rejected =
        AppendOutcome::Rejected { previous: last.index, conflict: id(0, 0), last: Index(0), log_last: Index(0) };
    let reply = |outcome| Body::AppendReply(AppendReply { epoch: 1, outcome });
    let repair_reply =
        |outcome| Body::RepairReply(RepairReply { from: last, outcome, batch: Some(log_of(&[1]).remove(0)) });
    vec![
        request(Phase::PreVote, false),
        request(Phase::PreVote, true),
        request(Phase::Vote, false),
        request(Phase::Vote, true),
        vote(Phase::PreVote, 1, true),
        vote(Phase::Vote, 2, true),
        append(u64::MAX, last, u64::MAX, None),
        append(u64::MAX, last, u64::MAX, Some(next)),
        append(u64::MAX, id(1, 9), u64::MAX, None),
        reply(AppendOutcome::Matched { matched: last.index }),
        reply(rejected),
        reply(AppendOutcome::Diverged { at: last }),
        reply(AppendOutcome::NeedsSnapshot { from: last.index }),
        heartbeat(u64::MAX, u64::MAX),
        heartbeat_reply(1),
        Body::Propose(Propose { commands: Vec::new(), payloads: Default::default() }),
        Body::ProposeReply(ProposeReply { outcomes: Vec::new(), replies: Default::default() }),
        Body::ReadIndex(ReadIndex { request: 1, by_lease: true }),
        Body::ReadIndexReply(ReadIndexReply { request: 1, index: Some(Index(u64::MAX)) }),
        snapshot_chunk(u64::MAX, &snapshot, 0, b"abc"),
        Body::SnapshotReply(SnapshotReply {
            epoch: 1,
            last,
            outcome: SnapshotOutcome::Installed { index: last.index },
        }),
        Body::Repair(Repair { from: last, to: last.index }),
        Body::Repair(Repair { from: id(1 << 40, 1), to: Index(u64::MAX) }),
        repair_reply(RepairOutcome::Here),
        repair_reply(RepairOutcome::Absent),
        Body::Emptied(Emptied { known_at: Index(u64::MAX) }),
        Body::Holdings(Holdings { members: vec![(NodeId(1), Index(u64::MAX))] }),
        Body::TimeoutNow(TimeoutNow { last }),
        Body::Removed(Removed { at: Index(u64::MAX) }),
        Body::Administer(quorate_raft::Administer {
            request: 1,
            what: Administration::Change(Change::remove(NodeId(1))),
        }),
        Body::Administered(Administered { request: 1, outcome: AdministerOutcome::Changed(Index(u64::MAX)) }),
        Body::Observe(Observe { every_ms: 100, for_ms: 2000, wanted: Vec::new() }),
        Body::Report(Report { of: NodeId(1), age_ms: 0, bytes: Default::default() }),
    ]
}

/// A number for each kind; a new kind does not compile here until it has one.
fn kind(body: &Body) -> usize {
    match body {
        Body::RequestVote(_) => 0,
        Body::Vote(_) => 1,
        Body::Append(_) => 2,
        Body::AppendReply(_) => 3,
        Body::Heartbeat(_) => 4,
        Body::HeartbeatReply(_) => 5,
        Body::Propose(_) => 6,
        Body::ProposeReply(_) => 7,
        Body::ReadIndex(_) => 8,
        Body::ReadIndexReply(_) => 9,
        Body::SnapshotChunk(_) => 10,
        Body::SnapshotReply(_) => 11,
        Body::Repair(_) => 12,
        Body::RepairReply(_) => 13,
        Body::Emptied(_) => 14,
        Body::TimeoutNow(_) => 15,
        Body::Removed(_) => 16,
        Body::Administer(_) => 17,
        Body::Administered(_) => 18,
        Body::Holdings(_) => 19,
        Body::Observe(_) => 20,
        Body::Report(_) => 21,
    }
}

const KINDS: usize = 22;

fn ends(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Halt(_) | Effect::Removed { .. }))
}

fn is_stranger(effect: &Effect) -> bool {
    matches!(effect, Effect::Refused { reason: MessageRefusal::Stranger, .. })
}

/// Term, vote and leader, and all else that a message from outside must not move.
fn what_counts(replica: &Replica) -> impl PartialEq + std::fmt::Debug + use<> {
    let role = core::mem::discriminant(replica.role());
    let log = (replica.commit(), replica.log().last(), replica.membership().clone());
    (replica.term(), replica.vote(), replica.leader(), role, log)
}

/// Every message from every node outside, in every distinct term, to a node in every state.
fn each_from_outside(mut check: impl FnMut(State, &Replica, Replica, &Body, u64, Vec<Effect>)) {
    let mut kinds = BTreeSet::new();
    for state in STATES {
        let before = receiver(state);
        let own = before.term().0;
        for (body, from) in
            messages(&before).into_iter().flat_map(|body| [(body.clone(), REMOVED), (body, NEVER_A_MEMBER)])
        {
            kinds.insert(kind(&body));
            for term in [own - 1, own, own + 1, own + 1_000, own + 1_001, LAST_TERM, LAST_TERM + 1, u64::MAX] {
                let mut after = before.clone();
                let effects = hear(&mut after, now(state), from, term, body.clone());
                check(state, &before, after, &body, term, effects);
            }
        }
    }
    assert_eq!(kinds.len(), KINDS, "a kind of message is missing");
}

#[test]
fn while_a_leader_is_heard_nothing_from_outside_changes_anything() {
    each_from_outside(|state, before, after, body, term, effects| {
        if !before.is_led(now(state)) {
            return;
        }
        assert_eq!(what_counts(&after), what_counts(before), "{state:?}: {body:?} in term {term}");
        // The receiver may tell or count something; nothing else happens.
        let is_harmless = |effect: &Effect| match effect {
            Effect::Send(outgoing) => !matches!(&outgoing.message.body, Body::Vote(vote) if vote.granted()),
            Effect::Refused { reason, .. } => [MessageRefusal::Stranger, MessageRefusal::Malformed].contains(reason),
            Effect::Observed(_) => true,
            _ => false,
        };
        assert!(effects.iter().all(is_harmless), "{state:?}: {body:?} in term {term} does {effects:?}");
    });
    let led = STATES.map(|state| receiver(state).is_led(now(state)));
    assert_eq!(led, [true, false, false, true]);
}

#[test]
fn nothing_from_outside_ends_a_node() {
    each_from_outside(|state, _, _, body, term, effects| {
        assert!(!ends(&effects), "{state:?}: {body:?} in term {term} ends it");
    });
}

/// Nor by a later message: the commit index of a node from outside is not believed, nor its
/// request to campaign.
#[test]
fn nothing_from_outside_commits_an_entry_or_makes_a_node_campaign_or_raises_the_term_far() {
    each_from_outside(|state, before, after, body, term, effects| {
        let what = format!("{state:?}: {body:?} in term {term} does {effects:?}");
        assert_eq!(after.commit(), before.commit(), "{what}");
        assert!(after.term().0 - before.term().0 <= 1_000, "{what}");
        assert!(after.term() == before.term() || after.term().0 <= term, "{what}");
        let counts = |effect: &Effect| {
            matches!(
                effect,
                Effect::CountVote { .. } | Effect::OpenBallot(_) | Effect::Acknowledged { .. } | Effect::Apply(_)
            )
        };
        assert!(!effects.iter().any(counts), "{what}");
        assert!(after.leader().is_none() || after.leader() == before.leader(), "nothing is forwarded to it: {what}");
    });
}

/// While no leader is heard, a later configuration may name a node that this one does not know: it
/// is voted for, and followed.
#[test]
fn without_a_leader_a_node_from_outside_is_voted_for_and_followed() {
    for from in [REMOVED, NEVER_A_MEMBER] {
        for rise in [1, 1_000] {
            let mut voter = receiver(State::HearsNone);
            let ask = |phase| {
                let last = id(3, 5);
                Body::RequestVote(RequestVote { phase, campaign: 1, last, by_transfer: false, machine_version: 0 })
            };
            let asked = hear(&mut voter, at(20_000), from, 5 + rise - 1, ask(Phase::PreVote));
            assert_eq!(vote_reply(&asked), Some((Term(5 + rise - 1), true)));
            let asked = hear(&mut voter, at(20_000), from, 5 + rise, ask(Phase::Vote));
            assert_eq!(vote_reply(&asked), Some((Term(5 + rise), true)));
            let heard = hear(&mut voter, at(20_000), from, 5 + rise, append(1, id(2, 1), 0, None));
            assert!(heard.contains(&Effect::LeaderHeard), "{heard:?}");
        }
    }
}

/// Members of the configuration in force raise the term to any that they show; others only once a
/// member has shown that term.
#[test]
fn a_term_far_ahead_counts_once_a_member_shows_it() {
    let far = 5 + 1_001;
    for (from, counts) in [(2, true), (3, true), (LEARNER, true), (REMOVED, false), (NEVER_A_MEMBER, false)] {
        let mut node = receiver(State::HearsNone);
        hear(&mut node, at(20_000), from, far, heartbeat(0, 0));
        assert_eq!(node.term() == Term(far), counts, "{from}");
        // A pre-vote shows the term, and changes nothing.
        let mut node = receiver(State::HearsNone);
        let pre_vote =
            RequestVote { phase: Phase::PreVote, campaign: 1, last: id(9, 9), by_transfer: false, machine_version: 0 };
        hear(&mut node, at(20_000), 2, far, Body::RequestVote(pre_vote));
        assert_eq!(node.term(), Term(5));
        hear(&mut node, at(20_000), from, far, heartbeat(0, 0));
        assert_eq!(node.term(), Term(far), "{from}, and a member has shown it");
        hear(&mut node, at(20_000), NEVER_A_MEMBER, far + 1_001, heartbeat(0, 0));
        let rise = if counts { 0 } else { 1_000 };
        assert_eq!(node.term(), Term(far + rise), "{from}: a term that was shown counts for no later one");
    }
}

/// A member was away while all other members that it knows were replaced, and while the term rose
/// by more than one message may raise it. The leader, and a candidate that needs its vote, reach it
/// all the same: each message raises the term by a thousand.
#[test]
fn a_member_far_behind_is_reached_by_a_leader_and_by_a_candidate_that_it_does_not_know() {
    const FAR: u64 = 5 + 4_500;
    let last = id(FAR - 1, 9);
    let ask =
        |phase| Body::RequestVote(RequestVote { phase, campaign: 1, last, by_transfer: false, machine_version: 0 });
    let mut node = receiver(State::HearsNone);
    let terms = core::array::from_fn(|_| {
        hear(&mut node, at(20_000), NEVER_A_MEMBER, FAR, heartbeat(0, 0));
        node.term().0
    });
    assert_eq!(terms, [1_005, 2_005, 3_005, 4_005, FAR]);
    assert_eq!((node.vote(), node.is_led(at(20_000))), (None, false), "it promised nothing meanwhile");

    let mut node = receiver(State::HearsNone);
    let elected = (FAR..FAR + 9).find(|term| {
        let asked = hear(&mut node, at(20_000), NEVER_A_MEMBER, term - 1, ask(Phase::PreVote));
        assert_eq!(vote_reply(&asked), Some((Term(term - 1), true)), "each of its elections gets further");
        let asked = hear(&mut node, at(20_000), NEVER_A_MEMBER, *term, ask(Phase::Vote));
        vote_reply(&asked) == Some((Term(*term), true))
    });
    assert_eq!(elected, Some(FAR + 4));
}

/// A node that was removed and starts again knows no commit index, and campaigns. A voter that has
/// all its entries, and could lead itself, does not elect it: it could lead, but neither commit nor
/// transfer leadership. With more entries it may be the only one that can.
#[test]
fn a_removed_node_is_not_elected_by_a_voter_that_could_lead_in_its_place() {
    let asked = |mut voter: Replica, from: u64, last| {
        let ask =
            |phase| Body::RequestVote(RequestVote { phase, campaign: 1, last, by_transfer: false, machine_version: 0 });
        let phases = [(4, Phase::PreVote), (6, Phase::Vote)];
        let votes = phases.map(|(term, phase)| hear(&mut voter, at(20_000), from, term.max(5), ask(phase)));
        votes.map(|effects| vote_reply(&effects).expect("it is answered").1)
    };
    let voter = || receiver(State::HearsNone);
    let last = voter().log().last();
    assert_eq!(asked(voter(), REMOVED, last), [false, false]);
    assert_eq!(asked(voter(), REMOVED, id(last.term.0, last.index.0 + 1)), [true, true]);
    assert_eq!(asked(voter(), 2, last), [true, true], "members are elected as ever");
    let mut full = voter();
    full.storage_full(true, &mut Vec::new());
    assert_eq!(asked(full, REMOVED, last), [true, true], "a node with a full disk does not lead");
}

#[test]
fn no_message_at_all_raises_the_term_to_its_limit() {
    for from in [2, 3, LEARNER, REMOVED, NEVER_A_MEMBER] {
        for state in STATES {
            let mut node = receiver(state);
            for body in messages(&node) {
                hear(&mut node, now(state), from, LAST_TERM, body);
            }
            assert!(node.term().0 < 10, "{from} raises it to {}", node.term());
        }
    }
}

/// Messages of members are handled in every state, as before.
#[test]
fn members_are_heard() {
    for from in [2, 3, LEARNER] {
        let mut node = receiver(State::HearsLeader);
        let refused = hear(&mut node, at(10_001), from, 6, heartbeat(0, 2));
        assert!(!refused.iter().any(is_stranger));
        assert_eq!((node.term(), node.leader()), (Term(6), Some(NodeId(from))));
    }
    for (from, granted) in [(2, true), (LEARNER, false), (REMOVED, false), (NEVER_A_MEMBER, false)] {
        let mut node = receiver(State::HearsLeader);
        let last = id(3, 5);
        let asks = RequestVote { phase: Phase::Vote, campaign: 1, last, by_transfer: true, machine_version: 0 };
        let effects = hear(&mut node, at(10_001), from, 6, Body::RequestVote(asks));
        assert_eq!(
            vote_reply(&effects).is_some_and(|(_, granted)| granted),
            granted,
            "leadership is transferred to voters alone"
        );
    }
    let mut node = receiver(State::HearsLeader);
    let two = hear(&mut node, at(10_001), 3, 5, heartbeat(0, 0));
    assert!(ends(&two), "two members that lead one term break Raft");
}

/// A member that leads replaces a node from outside that claimed its term first.
#[test]
fn a_member_that_leads_takes_the_place_of_a_pretender() {
    let mut node = receiver(State::HearsNone);
    hear(&mut node, at(20_000), NEVER_A_MEMBER, 6, append(1, id(2, 1), 9, None));
    assert_eq!((node.term(), node.leader(), node.is_led(at(20_000))), (Term(6), None, false));
    let granted = |node: &Replica| {
        let last = id(3, 5);
        let asks = RequestVote { phase: Phase::PreVote, campaign: 1, last, by_transfer: false, machine_version: 0 };
        vote_reply(&hear(&mut node.clone(), at(20_000), 2, 6, Body::RequestVote(asks)))
    };
    assert_eq!(granted(&node), Some((Term(6), true)), "and a pretender is not protected");
    let heard = hear(&mut node, at(20_000), 2, 6, append(1, id(2, 1), 2, None));
    assert!(!ends(&heard));
    assert_eq!((node.leader(), node.is_led(at(20_000))), (Some(NodeId(2)), true));
    let pretends = hear(&mut node, at(20_001), NEVER_A_MEMBER, 6, append(1, id(2, 1), 2, None));
    assert_eq!(pretends, [Effect::Refused { from: NodeId(NEVER_A_MEMBER), reason: MessageRefusal::Stranger }]);
}

/// A node without a configuration waits to be added: it follows at any term, and two pretenders
/// don't stop it.
#[test]
fn a_node_that_waits_to_be_added_follows_at_any_term_and_outlives_two_pretenders() {
    let mut node = Replica::new(NodeId(7), Membership::default(), Disk::default().recover(), settings());
    hear(&mut node, at(0), 1, LAST_TERM, append(1, id(9, 9), 0, None));
    assert_eq!((node.term(), node.leader()), (Term(LAST_TERM), Some(NodeId(1))));
    let effects = hear(&mut node, at(0), 2, LAST_TERM, append(1, id(9, 9), 0, None));
    assert_eq!(effects, [Effect::Refused { from: NodeId(2), reason: MessageRefusal::Stranger }]);
}

/// A leader that removes itself transfers leadership when that is committed, though it is no longer
/// a member then.
#[test]
fn a_leader_that_leaves_is_heard_to_the_end() {
    let mut node = receiver(State::HearsNone);
    let without_2 = Membership::of_voters([1, 3].map(NodeId));
    let last = node.log().last_checksum();
    let change = changing(6, 3, last, &without_2);
    let effects = hear(&mut node, at(20_000), 2, 6, append(1, id(2, 1), 3, Some(change)));
    persist_all(&mut node, &effects);
    assert_eq!((node.commit(), node.is_outside(NodeId(2)), node.leader()), (Index(3), false, Some(NodeId(2))));
    let told = hear(&mut node, at(20_001), 2, 6, Body::TimeoutNow(TimeoutNow { last: id(3, 6) }));
    assert!(told.iter().any(|effect| matches!(effect, Effect::OpenBallot(_))), "{told:?}");
    assert_eq!((node.role(), node.term()), (&Role::Candidate, Term(7)));
    let late = hear(&mut node, at(20_002), 2, 7, heartbeat(0, 0));
    assert!(!ends(&late));
}

/// Node 4 was added while node 3 was away. Then the leader dies, and node 4 needs the vote of node
/// 3, which has not heard of it.
#[test]
fn a_node_that_lags_elects_a_member_of_which_it_has_not_heard() {
    let membership = Some(voters(3));
    let mut world = World::ruled(vec![Disk::default(); 4], Rules { membership, ..Rules::new(settings()) });
    world.elect(1);
    world.isolate(3);
    for change in [Change::add(NodeId(4), "four"), Change::promote(NodeId(4))] {
        world.must(Event::Change(NodeId(1), change));
        world.settle();
        world.beat(1);
    }
    assert!(world.replica(4).membership().is_voter(NodeId(4)) && world.replica(1).is_settled());
    assert!(world.replica(3).is_outside(NodeId(4)));
    world.crash(1);
    world.pass(400);
    world.timeout_of(4);
    assert_eq!(world.leaders(), [], "two of four are none");
    world.heal();
    world.pass(400);
    world.timeout_of(4);
    assert_eq!(world.leaders().first().map(|(_, leader)| *leader), Some(NodeId(4)));
    assert!(!world.replica(3).is_outside(NodeId(4)), "its log says so by now");
    world.beat(4);
    assert_eq!((world.replica(3).leader(), world.commit(3)), (Some(NodeId(4)), world.commit(4)));
}

/// The attack of one message: a vote request in the last term, or a thousand terms ahead, to every
/// node of a healthy cluster.
#[test]
fn one_vote_request_of_a_removed_node_neither_deposes_the_leader_nor_bricks_the_cluster() {
    for term in [LAST_TERM, 1_001, 2] {
        let mut world = World::new(3);
        world.elect(1);
        let attack = RequestVote {
            phase: Phase::Vote,
            campaign: 1,
            last: id(1 << 40, 1 << 40),
            by_transfer: true,
            machine_version: 0,
        };
        for (to, body) in (1..=3).flat_map(|to| [(to, Body::RequestVote(attack)), (to, heartbeat(1, 1 << 40))]) {
            let now = world.now;
            let hears = |replica: &mut Replica, out: &mut Vec<Effect>| {
                replica.receive(now, NodeId(NEVER_A_MEMBER), Message { term: Term(term), body }, out);
            };
            world.on(NodeId(to), |node, context| node.rule(context, hears)).expect("what must hold");
        }
        world.settle();
        assert_eq!((world.leaders(), world.term(2), world.term(3)), (vec![(Term(1), NodeId(1))], 1, 1));
        world.propose(1, 1);
        world.beat(1);
        assert_eq!(world.commit(2), 2);
        (1..=3).for_each(|id| world.crash(id));
        (1..=3).for_each(|id| world.restart(id));
        world.elect(2);
        assert_eq!(world.term(2), 2);
    }
}

/// A node that waits to be added can be led to any term. Its later messages, as a learner, raise no
/// other node's term.
#[test]
fn a_learner_that_was_led_astray_leads_no_member_to_the_last_term() {
    let mut leader = receiver(State::Leads);
    let stale = Body::AppendReply(AppendReply {
        epoch: 0,
        outcome: AppendOutcome::Rejected { previous: Index(3), conflict: id(0, 0), last: Index(0), log_last: Index(0) },
    });
    let effects = hear(&mut leader, at(20_000), LEARNER, LAST_TERM, stale.clone());
    assert_eq!(effects, [Effect::Refused { from: NodeId(LEARNER), reason: MessageRefusal::Malformed }]);
    assert_eq!((leader.is_leader(), leader.term()), (true, Term(6)));
    // One that is less far ahead costs an election, and belongs.
    hear(&mut leader, at(20_000), LEARNER, 6 + (1 << 32), stale);
    assert_eq!((leader.is_leader(), leader.term()), (false, Term(6 + (1 << 32))));
}
