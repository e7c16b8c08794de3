//! Membership changes: joint configurations, learners, removed nodes.

use quorate_raft::{
    Body, Change, ChangeRefused, Effect, Index, Member, MemberKind, MemberMetadata, Membership, MetadataFlaw,
    MetadataUpdate, NodeId, Phase, Removed,
};
use quorate_world::{
    disk::Disk,
    events::Event,
    fixtures::{append, at, changing, hear, id, lead, log_of, persist_all, replica, request_vote, settings, voters},
    node::Note,
    rules::Rules,
    world::World,
};

/// A world of `nodes` nodes; the first `members` belong to the cluster, and node 1 leads.
fn world(nodes: u64, members: u64) -> World {
    let membership = Some(voters(members));
    let disks = vec![Disk::default(); nodes as usize];
    let mut world = World::ruled(disks, Rules { membership, ..Rules::new(settings()) });
    world.elect(1);
    world
}

fn change(world: &mut World, id: u64, change: Change) -> Result<Index, ChangeRefused> {
    let (now, mut outcome) = (world.now, Err(ChangeRefused::NotLeader));
    world
        .on(NodeId(id), |node, context| {
            node.rule(context, |replica, out| outcome = replica.change(now, &change, out));
        })
        .expect("what must hold");
    outcome
}

/// Adds and promotes a node, and lets everything settle.
fn admit(world: &mut World, id: u64) {
    change(world, 1, Change::add(NodeId(id), format!("node-{id}"))).expect("a learner may come at any time");
    world.settle();
    world.beat(1);
    change(world, 1, Change::promote(NodeId(id))).expect("it has caught up");
    world.settle();
    world.beat(1);
}

fn leader_of(world: &World) -> Option<NodeId> {
    world.leaders().first().map(|(_, leader)| *leader)
}

fn removed(world: &World) -> Vec<NodeId> {
    world.removed.iter().copied().collect()
}

/// "A change is accepted before the leader has committed an entry of its own term."
#[test]
fn no_change_is_accepted_before_the_leader_has_committed_in_its_own_term() {
    let mut leader = replica(1, 3, 1, None, &[1]);
    let led = lead(&mut leader, at(0));
    persist_all(&mut leader, &led);
    let mut out = Vec::new();
    let add = Change::add(NodeId(4), "four");
    assert_eq!(leader.change(at(0), &add, &mut out), Err(ChangeRefused::NotReady));
    assert!(out.is_empty(), "nothing has happened");
    leader.matched(at(0), NodeId(2), leader.log().last().index, &mut out);
    assert_eq!(leader.change(at(0), &add, &mut out), Ok(Index(3)));
}

/// Thesis §4.1: a learner is added by one entry; a change of the voters goes through a joint
/// configuration (paper §6).
#[test]
fn voters_change_through_a_joint_configuration_and_learners_at_once() {
    let mut world = world(4, 3);
    change(&mut world, 1, Change::add(NodeId(4), "four")).expect("it leads");
    world.settle();
    assert_eq!(world.replica(1).membership().learners(), [NodeId(4)]);
    assert!(!world.replica(1).membership().is_joint());
    world.beat(1);
    assert_eq!(world.log(4), world.log(1), "the learner has the log");
    let index = change(&mut world, 1, Change::set_voters([1, 2, 4].map(NodeId))).expect("it has caught up");
    assert!(world.replica(1).membership().is_joint());
    assert_eq!(world.replica(1).membership_index(), index);
    world.settle();
    let settled = world.replica(1).membership().clone();
    assert_eq!((settled.incoming(), settled.outgoing()), (&[1, 2, 4].map(NodeId)[..], &[][..]));
    assert_eq!(settled.address(NodeId(4)), Some("four"), "addresses travel with the configuration");
    assert_eq!(world.replica(1).membership_index(), index.next(), "completed once");
    world.beat(1);
    assert_eq!(world.replica(4).membership(), &settled);
}

/// A second change is refused while another is in progress.
#[test]
fn a_second_change_is_refused_while_one_is_under_way() {
    let mut world = world(4, 3);
    world.isolate(2);
    world.isolate(3);
    let index = change(&mut world, 1, Change::add(NodeId(4), "four")).expect("it leads");
    let second = change(&mut world, 1, Change::remove(NodeId(3)));
    assert_eq!(second, Err(ChangeRefused::Pending { index }));
}

/// Nor is a change that would leave the cluster to voters that are down: it would stand still.
#[test]
fn a_change_that_leaves_no_quorum_of_live_members_is_refused() {
    let mut world = world(3, 3);
    world.isolate(3);
    world.pass(400);
    world.beat(1);
    let refused = change(&mut world, 1, Change::remove(NodeId(2)));
    assert!(matches!(refused, Err(ChangeRefused::Behind { id: NodeId(3), .. })), "{refused:?}");
    change(&mut world, 1, Change::remove(NodeId(3))).expect("two are there");
}

/// A change of a configuration that is no longer in force is refused.
#[test]
fn a_change_that_expects_another_configuration_is_refused() {
    let mut world = world(4, 3);
    let add = Change::add(NodeId(4), "four");
    let index = change(&mut world, 1, add.expecting(Index(0))).expect("as expected");
    world.settle();
    let remove = Change::remove(NodeId(4));
    let refused = change(&mut world, 1, remove.clone().expecting(Index(0)));
    assert_eq!(refused, Err(ChangeRefused::Moved { expected: Index(0), found: index }));
    change(&mut world, 1, remove.expecting(index)).expect("as expected");
}

/// A member that would hold up every commit does not vote.
#[test]
fn a_learner_that_is_behind_or_silent_is_not_promoted() {
    let mut world = world(4, 3);
    world.isolate(4);
    change(&mut world, 1, Change::add(NodeId(4), "four")).expect("it leads");
    world.settle();
    let refused = change(&mut world, 1, Change::promote(NodeId(4)));
    assert!(matches!(refused, Err(ChangeRefused::Behind { id: NodeId(4), .. })), "{refused:?}");
    world.heal();
    world.beat(1);
    world.beat(1);
    change(&mut world, 1, Change::promote(NodeId(4))).expect("it has caught up now");
}

#[test]
fn a_change_that_does_not_apply_is_refused_with_its_reason() {
    let mut world = world(3, 3);
    let no = |world: &mut World, wish: Change| change(world, 1, wish).expect_err("it makes no sense");
    assert_eq!(no(&mut world, Change::promote(NodeId(9))), ChangeRefused::Unknown { id: NodeId(9) });
    assert_eq!(no(&mut world, Change::remove(NodeId(9))), ChangeRefused::Unknown { id: NodeId(9) });
    assert_eq!(no(&mut world, Change::set_voters([NodeId(9)])), ChangeRefused::BadAddress { id: NodeId(9) });
    let twice = Change::set_voters([NodeId(1), NodeId(1), NodeId(2)]);
    assert_eq!(no(&mut world, twice), ChangeRefused::Twice { id: NodeId(1) });
    assert_eq!(no(&mut world, Change::add(NodeId(9), "")), ChangeRefused::BadAddress { id: NodeId(9) });
    for nowhere in ["0.0.0.0:7001", "[::]:7001", "10.0.0.9:0"] {
        assert_eq!(no(&mut world, Change::add(NodeId(9), nowhere)), ChangeRefused::BadAddress { id: NodeId(9) });
        assert_eq!(no(&mut world, Change::move_to(NodeId(3), nowhere)), ChangeRefused::BadAddress { id: NodeId(3) });
    }
    assert_eq!(no(&mut world, Change::move_to(NodeId(9), "nine")), ChangeRefused::Unknown { id: NodeId(9) });
    assert_eq!(no(&mut world, Change::set_voters([] as [NodeId; 0])), ChangeRefused::NoVoters);
    let demotes = Change::remove(NodeId(2)).and(Change::add(NodeId(2), "two"));
    assert_eq!(no(&mut world, demotes), ChangeRefused::Demotes { id: NodeId(2) });
    let many = (10..80).map(|id| Change::add(NodeId(id), format!("node-{id}"))).reduce(Change::and).expect("some");
    assert_eq!(no(&mut world, many), ChangeRefused::TooMany);
    assert_eq!(change(&mut world, 2, Change::remove(NodeId(3))), Err(ChangeRefused::NotLeader));
    assert_eq!(change(&mut world, 1, Change::promote(NodeId(3))), Ok(Index(0)), "it votes already: nothing to do");
}

#[test]
fn a_node_that_is_a_member_is_not_added_and_the_refusal_names_its_capacity() {
    let mut world = world(4, 3);
    change(&mut world, 1, Change::add(NodeId(4), "four")).expect("it leads");
    world.settle();
    let before = world.replica(1).membership().clone();
    for (id, kind, address) in [(2, MemberKind::Voter, None), (4, MemberKind::Learner, Some("four".to_owned()))] {
        let refused = change(&mut world, 1, Change::add(NodeId(id), "elsewhere")).expect_err("it is a member");
        assert_eq!(refused, ChangeRefused::Member { id: NodeId(id), kind, address });
        assert!(refused.to_string().contains(&format!("node {id} is a {kind}")), "{refused}");
    }
    let elsewhere = [(NodeId(1), None), (NodeId(4), Some("elsewhere".to_owned()))];
    let elsewhere = elsewhere.map(|(id, address)| Member { id, address });
    let refused = change(&mut world, 1, Change::set_voters(elsewhere)).expect_err("only a move changes an address");
    assert!(matches!(refused, ChangeRefused::Member { id: NodeId(4), .. }), "{refused:?}");
    assert_eq!(world.replica(1).membership(), &before, "nothing has happened");
}

#[test]
fn no_two_members_are_dialled_at_one_address() {
    let mut world = world(5, 3);
    change(&mut world, 1, Change::add(NodeId(4), "10.0.0.4:7001")).expect("it leads");
    world.settle();
    let taken = |id| Err(ChangeRefused::AddressTaken { id: NodeId(id), by: NodeId(4) });
    assert_eq!(change(&mut world, 1, Change::add(NodeId(5), "10.0.0.4:07001")), taken(5));
    assert_eq!(change(&mut world, 1, Change::move_to(NodeId(2), "10.0.0.4:7001")), taken(2));
    let at_once = Change::remove(NodeId(4)).and(Change::add(NodeId(5), "10.0.0.4:7001"));
    assert_eq!(change(&mut world, 1, at_once), taken(5), "both are dialled until the change is committed");
    change(&mut world, 1, Change::remove(NodeId(4))).expect("it is a member");
    world.settle();
    change(&mut world, 1, Change::add(NodeId(5), "10.0.0.4:7001")).expect("the address is free again");
}

/// An address that an operator gave precedes the one that a node was started with; one from the
/// start of a cluster does not, for each node has its own.
#[test]
fn a_member_that_was_moved_is_dialled_at_its_new_address_by_every_node() {
    let mut world = world(3, 3);
    let index = change(&mut world, 1, Change::move_to(NodeId(3), "three").expecting(Index(0))).expect("it leads");
    let refused = change(&mut world, 1, Change::move_to(NodeId(3), "four").expecting(Index(0)));
    assert!(matches!(refused, Err(ChangeRefused::Moved { .. } | ChangeRefused::Pending { .. })), "{refused:?}");
    world.settle();
    world.beat(1);
    for id in 1..=3 {
        let membership = world.replica(id).membership();
        assert_eq!(membership.address_over(NodeId(3), Some("as configured")), Some("three"), "on node {id}");
        assert_eq!(membership.address_over(NodeId(2), Some("as configured")), Some("as configured"));
    }
    let again = change(&mut world, 1, Change::move_to(NodeId(3), "three"));
    assert_eq!(again, Ok(index), "it is there already: nothing to do");
    let joint = change(&mut world, 1, Change::remove(NodeId(2))).expect("two are there");
    assert!(joint > index);
    world.settle();
    assert_eq!(world.replica(1).membership().given_addresses(), [NodeId(3)], "it stays so through other changes");
    change(&mut world, 1, Change::remove(NodeId(3))).expect("one is there");
    world.settle();
    assert_eq!(world.replica(1).membership().given_addresses(), []);
}

/// A change of metadata is one configuration with the same voters; the rules for every other change
/// hold for it, too.
#[test]
fn metadata_changes_at_once_reaches_every_node_and_stays_through_other_changes() {
    let mut world = world(4, 3);
    let zone = |value: &str| MetadataUpdate::default().with_label("zone", value);
    let index = change(&mut world, 1, Change::describe(NodeId(2), zone("a"))).expect("it leads");
    assert!(!world.replica(1).membership().is_joint(), "no voter changes");
    let second = change(&mut world, 1, Change::describe(NodeId(3), zone("a")));
    assert_eq!(second, Err(ChangeRefused::Pending { index }), "one change at a time");
    assert_eq!(change(&mut world, 2, Change::describe(NodeId(3), zone("a"))), Err(ChangeRefused::NotLeader));
    world.settle();
    let again = change(&mut world, 1, Change::describe(NodeId(2), zone("a")));
    assert_eq!(again, Ok(index), "it is there already: nothing to do");
    let expecting = Change::describe(NodeId(3), zone("b")).expecting(Index(0));
    assert!(matches!(change(&mut world, 1, expecting), Err(ChangeRefused::Moved { .. })));
    let added = Change::add(NodeId(4), "four").and(Change::describe(NodeId(4), zone("d")));
    change(&mut world, 1, added).expect("it leads");
    world.settle();
    world.beat(1);
    let zone_of = |world: &World, on: u64, id: u64| {
        let metadata = world.replica(on).membership().metadata(NodeId(id)).cloned();
        metadata.and_then(|metadata| metadata.labels().get("zone").cloned())
    };
    for on in 1..=4 {
        assert_eq!([1, 2, 4].map(|id| zone_of(&world, on, id)), [None, Some("a".into()), Some("d".into())], "on {on}");
    }
    change(&mut world, 1, Change::set_voters([1, 2, 4].map(NodeId))).expect("it has caught up");
    assert!(world.replica(1).membership().is_joint());
    world.settle();
    assert_eq!((zone_of(&world, 1, 2), zone_of(&world, 1, 4)), (Some("a".into()), Some("d".into())));
    world.beat(1);
    change(&mut world, 1, Change::set_voters([1, 4].map(NodeId))).expect("they keep up");
    world.settle();
    assert_eq!(world.replica(1).membership().descriptions().len(), 1, "a node that left has none");
}

#[test]
fn a_member_that_publishes_the_same_metadata_again_changes_nothing() {
    let mut world = world(3, 3);
    let stated =
        |zone: &str| MemberMetadata::new(None, [("zone".to_owned(), zone.to_owned())].into()).expect("in bounds");
    let publish = |world: &mut World, zone: &str| {
        let index = change(world, 1, Change::publish(NodeId(2), stated(zone))).expect("it leads");
        world.settle();
        index
    };
    let first = publish(&mut world, "a");
    assert_eq!(publish(&mut world, "a"), first, "at its next start");
    let update = MetadataUpdate::default().with_label("zone", "b");
    let second = change(&mut world, 1, Change::describe(NodeId(2), update)).expect("it leads");
    world.settle();
    assert_eq!(publish(&mut world, "a"), second, "an operator's change is not taken back");
    assert!(publish(&mut world, "c") > second);
    assert_eq!(world.replica(1).membership().metadata(NodeId(2)), Some(&stated("c")), "its settings were changed");
}

#[test]
fn metadata_out_of_bounds_is_refused_by_the_leader() {
    let mut world = world(3, 3);
    let no = |world: &mut World, wish: Change| change(world, 1, wish).expect_err("out of bounds");
    let one = || MetadataUpdate::default();
    let key = MetadataFlaw::Key { key: "Zone".into() };
    let id = NodeId(2);
    let refused = no(&mut world, Change::describe(id, one().with_label("Zone", "a")));
    assert_eq!(refused, ChangeRefused::BadMetadata { id, flaw: key });
    let address = "javascript:alert(1)".to_owned();
    let refused = no(&mut world, Change::describe(id, one().with_client_address(Some(address.clone()))));
    assert_eq!(refused, ChangeRefused::BadMetadata { id, flaw: MetadataFlaw::ClientAddress { address } });
    let labels = (0..17).fold(one(), |update, at| update.with_label(format!("k{at}"), ""));
    let refused = no(&mut world, Change::describe(id, labels));
    assert_eq!(refused, ChangeRefused::BadMetadata { id, flaw: MetadataFlaw::TooManyLabels });
    assert_eq!(no(&mut world, Change::describe(NodeId(9), one())), ChangeRefused::Unknown { id: NodeId(9) });
    assert_eq!(
        no(&mut world, Change::publish(NodeId(9), MemberMetadata::default())),
        ChangeRefused::Unknown { id: NodeId(9) }
    );
    // 61 members with the longest metadata of their own, the most that a cluster has.
    let longest = || (0..16).map(|at| (format!("{:->63}", at), "v".repeat(255))).collect();
    let longest = MemberMetadata::new(None, longest()).expect("in bounds");
    let add = |id: u64| Change::add(NodeId(id), format!("node-{id}")).and(Change::publish(NodeId(id), longest.clone()));
    let many = (10..71).map(add).reduce(Change::and).expect("some");
    let refused = no(&mut world, many);
    assert!(matches!(refused, ChangeRefused::BadMetadata { flaw: MetadataFlaw::Total, .. }), "{refused}");
    let few = (10..30).map(add).reduce(Change::and).expect("some");
    change(&mut world, 1, few).expect("they fit");
    assert!(world.replica(1).membership().encode().len() < 257 << 10);
}

/// "The leader dies between the joint configuration and the final one: the next leader completes
/// it exactly once."
#[test]
fn the_next_leader_completes_a_joint_configuration_exactly_once() {
    let mut world = world(4, 3);
    change(&mut world, 1, Change::add(NodeId(4), "four")).expect("it leads");
    world.settle();
    world.beat(1);
    let joint = change(&mut world, 1, Change::set_voters([1, 2, 4].map(NodeId))).expect("it has caught up");
    // Every node gets it, and the leader hears no answer.
    world.cut_way(2, 1);
    world.cut_way(3, 1);
    world.cut_way(4, 1);
    world.settle();
    assert!(world.replica(2).membership().is_joint());
    world.must(Event::Crash(NodeId(1), None));
    world.heal();
    world.elect(2);
    world.beat(2);
    let settled = world.replica(2).membership().clone();
    assert_eq!((settled.incoming(), settled.is_joint()), (&[1, 2, 4].map(NodeId)[..], false));
    assert_eq!(world.replica(2).membership_index(), joint.next().next(), "behind the no-op of the new term");
    world.must(Event::Restart(NodeId(1)));
    for _ in 0..3 {
        world.pass(1000);
        world.beat(2);
    }
    assert_eq!(world.replica(1).membership(), &settled);
    assert_eq!(world.replica(2).log().last().index, joint.next().next(), "once");
}

/// "A joint configuration found on restart counts one majority instead of two."
#[test]
fn a_joint_configuration_that_is_found_on_restart_needs_both_majorities() {
    let mut world = world(5, 3);
    for id in [4, 5] {
        change(&mut world, 1, Change::add(NodeId(id), format!("node-{id}"))).expect("it leads");
        world.settle();
        world.beat(1);
    }
    change(&mut world, 1, Change::set_voters([1, 4, 5].map(NodeId))).expect("they have caught up");
    for id in 2..=5 {
        world.cut_way(id, 1);
    }
    world.settle();
    for id in 1..=5 {
        world.must(Event::Crash(NodeId(id), None));
    }
    world.heal();
    for id in [1, 4, 5] {
        world.must(Event::Restart(NodeId(id)));
    }
    assert!(world.replica(4).membership().is_joint(), "found in the log");
    world.must(Event::Timeout(NodeId(4)));
    world.settle();
    assert!(leader_of(&world).is_none(), "all of the new voters, and one of the three old ones");
    world.must(Event::Restart(NodeId(2)));
    world.elect(4);
    world.beat(4);
    assert!(!world.replica(4).membership().is_joint(), "with two of the old ones it goes on");
}

/// "A promoted learner that has not heard of its promotion must vote when asked."
#[test]
fn a_learner_that_has_not_heard_of_its_promotion_votes_when_asked() {
    let mut learner = quorate_raft::Replica::new(
        NodeId(4),
        voters(3).with_learners([NodeId(4)]),
        Disk::default().recover(),
        settings(),
    );
    let asked = request_vote(Phase::Vote, 1, learner.log().last());
    let effects = hear(&mut learner, at(1000), 2, 5, asked);
    let granted = effects.iter().any(|effect| match effect {
        Effect::Persist(persist) => {
            persist.then.iter().any(|said| matches!(&said.message.body, Body::Vote(vote) if vote.granted()))
        }
        _ => false,
    });
    assert!(granted, "{effects:?}");
}

/// A leader that was removed leads until that is committed, transfers leadership, and learns that
/// it is removed.
#[test]
fn a_removed_leader_steps_down_only_after_the_commit_and_hands_over_first() {
    let mut world = world(3, 3);
    world.isolate(2);
    world.isolate(3);
    change(&mut world, 1, Change::remove(NodeId(1))).expect("it leads");
    world.settle();
    assert!(world.replica(1).is_leader(), "nothing is committed");
    world.heal();
    let term = world.term(1);
    world.beat(1);
    world.beat(1);
    assert_eq!(removed(&world), [NodeId(1)]);
    let leader = leader_of(&world).expect("a node was told to campaign");
    assert!(
        [2, 3].contains(&leader.0) && world.term(leader.0) == term + 1,
        "{leader} in term {}",
        world.term(leader.0)
    );
    assert_eq!(world.replica(leader.0).membership().voters(), [2, 3].map(NodeId));
}

/// Thesis §4.2.2: a leader that appended a configuration without itself, and died before any other
/// node had it, has to lead once more: only it has the entry, and the others need its vote.
#[test]
fn a_leader_that_leaves_and_alone_has_the_configuration_without_it_leads_again() {
    let mut world = world(2, 2);
    change(&mut world, 1, Change::remove(NodeId(1))).expect("it leads");
    // The joint configuration is committed, and no node hears of the next one.
    world.settle_but(|from, _, message| {
        from == NodeId(1) && matches!(&message.body, Body::Append(append) if append.previous.index >= Index(2))
    });
    assert_eq!(
        (world.replica(1).membership(), world.replica(2).membership().is_joint()),
        (&Membership::of_voters([NodeId(2)]), true)
    );
    world.must(Event::Crash(NodeId(1), None));
    world.must(Event::Restart(NodeId(1)));
    world.pass(400);
    world.must(Event::Timeout(NodeId(2)));
    world.settle();
    assert!(leader_of(&world).is_none(), "it lacks the entry");
    world.pass(400);
    world.must(Event::Timeout(NodeId(1)));
    world.settle();
    for _ in 0..3 {
        world.pass(300);
        if let Some(leader) = leader_of(&world) {
            world.beat(leader.0);
        }
    }
    assert_eq!((removed(&world), leader_of(&world)), (vec![NodeId(1)], Some(NodeId(2))));
}

/// "A removed node keeps campaigning and disrupts": it changes no other node's term, and learns
/// that it was removed.
#[test]
fn a_removed_node_that_missed_its_removal_disrupts_no_member_and_is_told() {
    let mut world = world(3, 3);
    world.isolate(3);
    change(&mut world, 1, Change::remove(NodeId(3))).expect("it leads");
    world.settle();
    world.beat(1);
    assert!(world.replica(3).membership().contains(NodeId(3)), "it has not heard of it");
    let term = world.term(1);
    world.heal();
    world.pass(400);
    world.beat(1);
    world.must(Event::Timeout(NodeId(3)));
    world.settle();
    assert_eq!((world.term(1), world.replica(1).is_leader()), (term, true));
    assert_eq!(removed(&world), [NodeId(3)]);
    assert!(world.notes.iter().any(|(id, note)| *id == NodeId(3) && matches!(note, Note::Removed { .. })));
}

/// The same, if it has the configuration without it and never heard that it is committed: it asks.
#[test]
fn a_removed_node_that_does_not_vote_any_more_asks_where_it_stands() {
    let mut world = world(3, 3);
    world.cut_way(1, 3);
    change(&mut world, 1, Change::remove(NodeId(3))).expect("it leads");
    world.heal();
    world.settle();
    world.pass(400);
    world.beat(1);
    world.must(Event::Timeout(NodeId(3)));
    world.settle();
    assert_eq!(removed(&world), [NodeId(3)]);
}

/// The voters that it knows may be gone themselves: it asks every node that it ever heard of.
#[test]
fn a_node_removed_long_ago_asks_every_node_it_ever_knew() {
    let mut world = world(3, 3);
    change(&mut world, 1, Change::set_voters([NodeId(1)])).expect("it leads");
    world.settle();
    world.beat(1);
    world.must(Event::Crash(NodeId(3), None));
    world.must(Event::Restart(NodeId(3)));
    world.pass(400);
    world.must(Event::Timeout(NodeId(3)));
    assert!(
        world.wire.iter().any(|envelope| (envelope.from, envelope.to) == (NodeId(3), NodeId(2))),
        "{:?}",
        world.wire
    );
}

/// An outdated message from a member that lags does not stop a node that was added again since.
#[test]
fn a_node_added_again_is_not_stopped_by_news_of_an_earlier_removal() {
    let mut node = replica(4, 4, 5, None, &[1, 1]);
    let removed = Body::Removed(Removed { at: Index(0) });
    let effects = hear(&mut node, at(0), 2, 5, removed);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Removed { .. })), "{effects:?}");
    let effects = hear(&mut node, at(0), 2, 5, Body::Removed(Removed { at: Index(9) }));
    assert!(effects.contains(&Effect::Removed { at: Index(9) }));
}

/// A removed node may have been added again by an entry that the teller lacks, and may be needed to
/// elect the node that has the entry: without a leader, no node is told of its removal. Nor does a
/// node tell that is not a member by its own log: it lags.
#[test]
fn only_a_member_that_hears_a_leader_tells_a_removed_node() {
    let tells = |configuration: &Membership, asked_at| {
        let mut node = replica(2, 4, 1, None, &[1]);
        let change = changing(1, 2, log_of(&[1])[0].checksum(), configuration);
        hear(&mut node, at(0), 1, 1, append(1, id(1, 1), 2, Some(change)));
        let effects = hear(&mut node, at(asked_at), 4, 1, request_vote(Phase::PreVote, 1, id(1, 1)));
        let is_told = |body: &Body| *body == Body::Removed(Removed { at: Index(2) });
        effects.iter().any(|effect| matches!(effect, Effect::Send(sent) if is_told(&sent.message.body)))
    };
    assert!(tells(&voters(3), 10));
    assert!(!tells(&voters(3), 10_000), "it hears no node any more");
    assert!(!tells(&Membership::of_voters([NodeId(1), NodeId(3)]), 10), "it is no member itself");
}

/// "A learner restarts as a voter."
#[test]
fn a_learner_restarts_as_a_learner() {
    let mut world = world(4, 3);
    change(&mut world, 1, Change::add(NodeId(4), "four")).expect("it leads");
    world.settle();
    world.beat(1);
    world.must(Event::Crash(NodeId(4), None));
    world.must(Event::Restart(NodeId(4)));
    assert!(!world.replica(4).membership().is_voter(NodeId(4)));
    assert_eq!(world.replica(4).membership().learners(), [NodeId(4)]);
    world.must(Event::Timeout(NodeId(4)));
    world.settle();
    assert!(world.replica(1).is_leader() && !world.replica(4).is_leader());
}

/// "A wedged peer's pending call blocks the removal of that peer."
#[test]
fn a_peer_that_answers_nothing_is_removed_all_the_same() {
    let mut world = world(3, 3);
    world.propose(1, 1);
    world.isolate(3);
    world.propose(1, 3);
    change(&mut world, 1, Change::remove(NodeId(3))).expect("it leads");
    world.settle();
    assert_eq!(world.replica(1).membership(), &voters(2));
    assert!(world.replica(1).is_settled());
    assert!(!world.running(NodeId(1)).expect("it runs").replicators.contains_key(&NodeId(3)));
}

/// A read that waits for voters that then leave is answered by those that stay.
#[test]
fn a_read_does_not_wait_for_removed_voters() {
    let mut world = world(2, 2);
    world.cut_way(2, 1);
    world.must(Event::Read(NodeId(1), 7));
    world.settle();
    world.heal();
    change(&mut world, 1, Change::remove(NodeId(2))).expect("it was heard a moment ago");
    // Only appends and their answers get through.
    world.settle_but(|_, _, message| matches!(&message.body, Body::HeartbeatReply(_)));
    assert_eq!(world.replica(1).membership(), &voters(1));
    assert_eq!(world.answered_reads().0.len(), 1);
}

/// A read round in progress may need voters that were added since: they hear of it, too.
#[test]
fn a_read_round_reaches_a_member_that_is_added_while_it_is_open() {
    let mut world = world(3, 2);
    world.cut_way(1, 2);
    world.must(Event::Read(NodeId(1), 7));
    world.settle();
    world.heal();
    change(&mut world, 1, Change::add(NodeId(3), "three")).expect("it leads");
    world.settle();
    let round = world.replica(1).read_round();
    let told = world.settle_but(|_, _, _| false);
    drop(told);
    world.must(Event::Heartbeat(NodeId(1)));
    world.settle_within();
    let beats = world.wire.iter().filter(|envelope| envelope.to == NodeId(3));
    let rounds: Vec<_> = beats
        .filter_map(|envelope| match &envelope.message.body {
            Body::Heartbeat(heartbeat) => Some(heartbeat.round),
            _ => None,
        })
        .collect();
    assert_eq!(rounds, [round], "and not none");
    assert!(round > 0);
}

/// A whole cluster is replaced, member by member, and goes on.
#[test]
fn every_member_is_replaced_one_by_one() {
    let mut world = world(6, 3);
    for (joins, leaves) in [(4, 2), (5, 3)] {
        admit(&mut world, joins);
        change(&mut world, 1, Change::remove(NodeId(leaves))).expect("one by one");
        world.settle();
        world.beat(1);
    }
    admit(&mut world, 6);
    change(&mut world, 1, Change::remove(NodeId(1))).expect("the leader itself");
    world.settle();
    let leader = leader_of(&world).expect("it transferred leadership");
    world.beat(leader.0);
    world.propose(leader.0, 3);
    world.beat(leader.0);
    assert_eq!(world.replica(leader.0).membership().voters(), [4, 5, 6].map(NodeId));
    for id in 4..=6 {
        assert_eq!(world.log(id), world.log(leader.0));
    }
    assert_eq!(world.members(), &Membership::clone(world.replica(leader.0).membership()));
}
