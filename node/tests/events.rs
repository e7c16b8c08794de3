//! The events of whole nodes: what a reader of the stream and of the log learns of elections,
//! refused votes, transfers, members and snapshots.

mod support;

use quorate::{
    Change, Consistency, Index, Limits, NodeId, Snapshots, Term,
    events::{
        CampaignResult, Denial, Event, EventReader, Phase, Received, Severity, StepDown, TransferFailure, WAITING_MAX,
        What,
    },
};
use quorate_raft::{Body, EntryId, Heartbeat, Message, RequestVote, Vote};
use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};
use support::{Cluster, Journal, Ledger, Plan, Puppet, simulate, soon};
use tokio::time::sleep;
use tracing::{
    Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

#[test]
fn an_election_is_told_with_its_ballots_votes_and_leader() {
    simulate(async {
        let cluster = Cluster::of_three(1).await;
        let leader = cluster.settled().await;
        let told = told_by(&cluster, leader);
        let term = cluster.status(leader).term;
        let place = |what: &str, is_it: &dyn Fn(&What) -> bool| {
            told.iter().rposition(|event| is_it(&event.what)).unwrap_or_else(|| panic!("no {what} in {}", texts(&told)))
        };
        let asks = |asked: Phase| move |what: &What| matches!(what, What::CampaignStarted { phase, for_term, .. } if *phase == asked && *for_term == term);
        let wins = |asked: Phase| {
            move |what: &What| {
                matches!(what, What::CampaignEnded { phase, result: CampaignResult::Won, granted, .. }
                if *phase == asked && granted.len() >= 2 && granted.contains(&leader))
            }
        };
        let order = [
            place("pre-vote", &asks(Phase::PreVote)),
            place("won pre-vote", &wins(Phase::PreVote)),
            place("vote", &asks(Phase::Vote)),
            place("won vote", &wins(Phase::Vote)),
            place(
                "leader",
                &|what| matches!(what, What::LeaderElected { votes } if votes.len() >= 2 && votes.contains(&leader)),
            ),
            place("first commit", &|what| matches!(what, What::FirstCommit { .. })),
        ];
        assert!(order.is_sorted(), "{order:?} in {}", texts(&told));
        let elected = &told[order[4]];
        assert_eq!((elected.kind(), elected.term), ("leader_elected", term));
        assert_eq!(elected.reference(), Some("paper §5.2, §5.4.2, §8"));
        assert!(elected.text().starts_with(&format!("Node {leader} leads term {term}, with the votes of nodes ")));
        assert!(told[order[0]].text().starts_with(&format!("Node {leader} heard no leader for ")), "{}", texts(&told));

        let (mut voters, mut answers) = (0, 0);
        for id in cluster.others(leader) {
            let told = told_by(&cluster, id);
            let follows = |event: &&Arc<Event>| event.what == What::LeaderFollowed { leader } && event.term == term;
            assert!(told.iter().any(|event| follows(&event)), "{}", texts(&told));
            voters += count(&told, |what| {
                matches!(what, What::VoteCast { phase: Phase::Vote, candidate, denial: None, for_term, .. }
                if *candidate == leader && *for_term == term)
            });
        }
        answers += count(&told, |what| matches!(what, What::VoteReceived { phase: Phase::Vote, denial: None, .. }));
        assert!(voters >= 1 && answers >= 1, "{voters} voted, {answers} votes arrived");
    });
}

#[test]
fn a_candidate_knows_the_reason_of_a_denied_vote_and_the_time_that_the_answer_took() {
    simulate(async {
        let mut cluster = Cluster::vacant(Plan::default());
        let mut first = Puppet::start(&cluster.network, NodeId(2), NodeId(1)).await;
        let _second = Puppet::start(&cluster.network, NodeId(3), NodeId(1)).await;
        cluster.start(NodeId(1)).await;
        let mut events = cluster.node(NodeId(1)).events();
        let campaign = first.hear("a request", asks(Phase::PreVote)).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        let denial = Some(Denial::OldTerm { term: Term(9) });
        first.say(Term(0), Body::Vote(Vote { phase: Phase::PreVote, campaign, denial }));
        let event = next(&mut events, "the answer", |what| matches!(what, What::VoteReceived { .. })).await;
        let What::VoteReceived { voter, denial: told, took_ms, .. } = event.what else { unreachable!("picked") };
        assert_eq!((voter, told), (NodeId(2), denial));
        assert!((5..100).contains(&took_ms), "{took_ms} ms");
        assert_eq!(event.text(), "Node 1 is denied the pre-vote of node 2: it is in term 9 already.");
        assert_eq!(event.reference(), Some("paper §5.1"));
    });
}

#[test]
fn a_denied_vote_has_its_reason() {
    simulate(async {
        let mut cluster = Cluster::vacant(Plan::default());
        let first = Puppet::start(&cluster.network, NodeId(2), NodeId(1)).await;
        let second = Puppet::start(&cluster.network, NodeId(3), NodeId(1)).await;
        cluster.start(NodeId(1)).await;
        let mut events = cluster.node(NodeId(1)).events();
        let denied = What::VoteCast {
            phase: Phase::PreVote,
            candidate: NodeId(3),
            for_term: Term(6),
            last: EntryId::default(),
            denial: Some(Denial::HearsLeader { leader: Some(NodeId(2)) }),
            more: 0,
        };
        first.say(Term(5), Body::Heartbeat(Heartbeat { round: 0, commit: Index(0) }));
        cluster.until("a leader", |view| view[&NodeId(1)].leader).await;
        second.say(Term(5), request(Phase::PreVote));
        let event = next(&mut events, "a denied pre-vote", |what| *what == denied).await;
        assert_eq!(event.text(), "Node 1 denies node 3 its pre-vote for term 6: it hears node 2, which leads.");
        assert_eq!(event.reference(), Some("thesis §4.2.3, §9.6"));
        assert!(event.why().is_some_and(|why| why.contains("depose")));

        // The leader is silent; one candidate gets the vote of the term, the other does not.
        cluster.until("a forgotten leader", |view| view[&NodeId(1)].leader.is_none().then_some(())).await;
        first.say(Term(9), request(Phase::Vote));
        second.say(Term(9), request(Phase::Vote));
        let granted = |what: &What| matches!(what, What::VoteCast { phase: Phase::Vote, denial: None, .. });
        let event = next(&mut events, "a vote", granted).await;
        assert_eq!(event.text(), "Node 1 votes for node 2 in term 9.");
        let event =
            next(&mut events, "a denied vote", |what| matches!(what, What::VoteCast { denial: Some(_), .. })).await;
        assert_eq!(event.text(), "Node 1 denies node 3 its vote for term 9: it has voted for node 2 in this term.");
        assert_eq!(event.severity(), Severity::Info);
        second.say(Term(7), request(Phase::PreVote));
        let event =
            next(&mut events, "a denied pre-vote", |what| matches!(what, What::VoteCast { denial: Some(_), .. })).await;
        assert_eq!(event.text(), "Node 1 denies node 3 its pre-vote for term 8: it is in term 9 already.");
    });
}

#[test]
fn a_vote_is_denied_to_a_shorter_log_with_both_ends() {
    simulate(async {
        let (mut cluster, ledger) = (Cluster::of_three(1).await, Ledger::default());
        let leader = cluster.settled().await;
        let [short, voter] = cluster.others(leader)[..] else { panic!("three nodes") };
        cluster.stop(short).await;
        ledger.propose(cluster.node(leader), "more").await.expect("an acknowledgement");
        let puppet = Puppet::start(&cluster.network, short, voter).await;
        let mut events = cluster.node(voter).events();
        cluster.faults.isolate(leader);
        cluster.until("a forgotten leader", |view| view[&voter].leader.is_none().then_some(())).await;
        let term = cluster.status(voter).term;
        let last = EntryId::new(term, Index(1));
        let Body::RequestVote(request) = request(Phase::PreVote) else { unreachable!("it is one") };
        puppet.say(term, Body::RequestVote(RequestVote { last, ..request }));
        let event = next(&mut events, "a denied vote", |what| matches!(what, What::VoteCast { .. })).await;
        let own = cluster.status(voter).last_log;
        let text = format!(
            "Node {voter} denies node {short} its pre-vote for term {}: its own log ends at entry {own} of term {term}, that of node \
             {short} at entry 1 of term {term}.",
            term.next()
        );
        assert_eq!((event.text(), event.reference()), (text, Some("paper §5.4.1")));
    });
}

#[test]
fn a_follower_that_was_away_is_silent_then_heard_and_then_up_to_date() {
    simulate(async {
        let (cluster, ledger) = (Cluster::of_three(1).await, Ledger::default());
        let leader = cluster.settled().await;
        let away = cluster.others(leader)[0];
        let mut events = cluster.node(leader).events();
        cluster.faults.isolate(away);
        let event = next(&mut events, "a silent follower", |what| matches!(what, What::FollowerSilent { .. })).await;
        assert_eq!((event.peer(), event.severity()), (Some(away), Severity::Warn));
        ledger.propose(cluster.node(leader), "more").await.expect("an acknowledgement");
        cluster.faults.heal();
        next(&mut events, "a follower", |what| matches!(what, What::FollowerHeard { peer, .. } if *peer == away)).await;
        let event = next(&mut events, "its log", |what| matches!(what, What::FollowerCaughtUp { .. })).await;
        assert!(event.text().starts_with(&format!("Node {leader} has brought node {away} up to date, after ")));
    });
}

#[test]
fn the_silence_of_a_leader_is_counted_from_its_last_message_through_all_campaigns() {
    simulate(async {
        let cluster = Cluster::of_three(1).await;
        let leader = cluster.settled().await;
        let alone = cluster.others(leader)[0];
        let mut events = cluster.node(alone).events();
        cluster.faults.isolate(alone);
        let mut began = None;
        for _ in 0..4 {
            let asks = |what: &What| matches!(what, What::CampaignStarted { phase: Phase::PreVote, .. });
            let event = next(&mut events, "a campaign", asks).await;
            let What::CampaignStarted { silence_ms: Some(silence), .. } = event.what else { panic!("{event:?}") };
            let heard = event.at_ms - silence;
            assert!(heard.abs_diff(*began.get_or_insert(heard)) <= 1, "{}", event.text());
        }
    });
}

#[test]
fn a_split_vote_ends_a_campaign_without_a_majority() {
    simulate(async {
        let mut cluster = Cluster::vacant(Plan::default());
        let mut first = Puppet::start(&cluster.network, NodeId(2), NodeId(1)).await;
        let _second = Puppet::start(&cluster.network, NodeId(3), NodeId(1)).await;
        cluster.start(NodeId(1)).await;
        let mut events = cluster.node(NodeId(1)).events();
        let campaigns = std::iter::repeat_n((), 2);
        for () in campaigns {
            // A new node waits for the answers of all in its first campaign.
            let campaign = first.hear("a request", asks(Phase::PreVote)).await;
            first.say(Term(0), Body::Vote(Vote { phase: Phase::PreVote, campaign, denial: None }));
        }
        first.hear("a request for its vote", asks(Phase::Vote)).await;
        let ended = |what: &What| matches!(what, What::CampaignEnded { phase: Phase::Vote, .. });
        let event = next(&mut events, "the end of the campaign", ended).await;
        let What::CampaignEnded { result, granted, denied, for_term, .. } = &event.what else { unreachable!("picked") };
        assert_eq!((*result, &granted[..], &denied[..]), (CampaignResult::TimedOut, &[NodeId(1)][..], &[][..]));
        let text = format!("Node 1 has the votes of node 1 alone for term {for_term}: no majority in time");
        assert!(event.text().starts_with(&text), "{}", event.text());
        assert!(event.why().is_some_and(|why| why.contains("votes can split")));
    });
}

#[test]
fn a_leader_steps_down_with_its_cause() {
    simulate(async {
        let cluster = Cluster::of_three(1).await;
        let leader = cluster.settled().await;
        let led = cluster.status(leader).term;
        let mut events = cluster.node(leader).events();
        cluster.faults.isolate(leader);
        let event = next(&mut events, "the end of a leadership", |what| matches!(what, What::SteppedDown { .. })).await;
        assert_eq!(event.what, What::SteppedDown { led, cause: StepDown::NoQuorum });
        let text = format!("Node {leader} no longer leads term {led}: it heard no majority for an election timeout.");
        assert_eq!((event.text(), event.reference()), (text, Some("thesis §6.2")));
        cluster.leader_among(&cluster.others(leader)).await;
        cluster.faults.heal();
        let event = next(&mut events, "a later term", |what| matches!(what, What::TermChanged { .. })).await;
        assert!(event.term > led, "{}", event.text());
        next(&mut events, "another leader", |what| matches!(what, What::LeaderFollowed { .. })).await;
    });
}

#[test]
fn a_leadership_transfer_is_told_with_its_result() {
    simulate(async {
        let cluster = Cluster::of_three(1).await;
        let old = cluster.settled().await;
        let target = cluster.others(old)[0];
        let mut events = cluster.node(old).events();
        soon("a transfer", cluster.node(old).transfer(Some(target))).await.expect("it leads");
        next(&mut events, "the beginning", |what| *what == What::TransferBegan { to: target, why: None }).await;
        let stepped =
            next(&mut events, "the end of a leadership", |what| matches!(what, What::SteppedDown { .. })).await;
        assert!(
            matches!(stepped.what, What::SteppedDown { cause: StepDown::LaterTerm { from, .. }, .. } if from == target)
        );
        let done = next(&mut events, "the end", |what| matches!(what, What::TransferDone { .. })).await;
        assert_eq!(done.text(), format!("Node {old} has transferred leadership to node {target}."));
        assert_eq!(done.reference(), Some("thesis §3.10"));

        let mut events = cluster.node(target).events();
        cluster.faults.isolate(old);
        assert!(soon("a refusal", cluster.node(target).transfer(Some(old))).await.is_err());
        let event = next(&mut events, "a failure", |what| matches!(what, What::TransferFailed { .. })).await;
        assert_eq!(event.what, What::TransferFailed { to: Some(old), cause: TransferFailure::TimedOut });
    });
}

#[test]
fn a_change_of_the_members_is_told_by_each_node_twice_for_each_configuration() {
    simulate(async {
        let mut cluster = Cluster::start_all(Plan { joiners: 1, ..Plan::default() }).await;
        cluster.start(NodeId(4)).await;
        let leader = cluster.leader_among(&[1, 2, 3].map(NodeId)).await;
        let mut readers: Vec<_> = cluster.members().map(|id| cluster.node(id).events()).collect();
        let node = cluster.node(leader);
        soon(
            "a change",
            node.change(Change::set_voters([
                (NodeId(1), "node-1"),
                (NodeId(2), "node-2"),
                (NodeId(3), "node-3"),
                (NodeId(4), "node-4"),
            ])),
        )
        .await
        .expect("a change");
        for events in &mut readers {
            let changes = |what: &What| matches!(what, What::MembersChanged { .. });
            let mut told = Vec::new();
            loop {
                let event = next(events, "a configuration", changes).await;
                let What::MembersChanged { voters, outgoing, learners, committed, .. } = &event.what else {
                    unreachable!()
                };
                told.push((voters.len(), outgoing.len(), learners.len(), *committed));
                if told.last() == Some(&(4, 0, 0, true)) {
                    assert!(event.text().ends_with("to be committed: nodes 1, 2, 3 and 4 vote."), "{}", event.text());
                    break;
                }
            }
            let expected = [(3, 0, 1, false), (3, 0, 1, true), (4, 3, 0, false), (4, 0, 0, false)];
            // When the joint configuration is committed, the next may be in force already.
            told.retain(|seen| ![(3, 0, 0, true), (4, 3, 0, true)].contains(seen));
            assert_eq!(told[..told.len() - 1], expected, "a learner, a joint configuration, and the end");
        }
        let mut events = cluster.node(leader).events();
        soon("a refusal", cluster.node(leader).change(Change::promote(NodeId(9)))).await.expect_err("no such member");
        let event = next(&mut events, "a refusal", |what| matches!(what, What::ChangeRefused { .. })).await;
        assert!(event.text().contains("which was refused: "), "{}", event.text());
    });
}

#[test]
fn a_snapshot_is_told_by_both_sides() {
    simulate(async {
        let snapshots = Snapshots::default().with_keep_entries(0);
        let (mut cluster, ledger) =
            (Cluster::start_all(Plan { snapshots, ..Plan::default() }).await, Ledger::default());
        let leader = cluster.settled().await;
        let away = cluster.others(leader)[0];
        cluster.stop(away).await;
        for nth in 0..20 {
            ledger.propose(cluster.node(leader), format!("{nth}")).await.expect("an acknowledgement");
        }
        let mut sends = cluster.node(leader).events();
        cluster.node(leader).snapshot().await.expect("a snapshot");
        let built = next(&mut sends, "a snapshot", |what| matches!(what, What::SnapshotBuilt { .. })).await;
        assert!(
            built.index() >= Some(Index(20)) && built.text().contains("wrote a snapshot up to entry"),
            "{}",
            built.text()
        );
        cluster.start_as(away, Journal::default(), |builder| builder).await;
        let mut receives = cluster.node(away).events();
        next(&mut sends, "the beginning", |what| matches!(what, What::SnapshotSending { peer, .. } if *peer == away))
            .await;
        next(&mut receives, "the beginning", |what| matches!(what, What::SnapshotReceiving { .. })).await;
        next(&mut receives, "the end", |what| matches!(what, What::SnapshotReceived { from, .. } if *from == leader))
            .await;
        next(&mut receives, "the state", |what| matches!(what, What::SnapshotInstalled { .. })).await;
        let sent = next(&mut sends, "the end", |what| matches!(what, What::SnapshotSent { .. })).await;
        assert_eq!((sent.peer(), sent.reference()), (Some(away), Some("paper §7, Figure 13")));
        cluster.settled().await;
    });
}

#[test]
fn a_slow_reader_is_told_how_many_events_it_lost() {
    simulate(async {
        let (cluster, candidate) = led_by_a_puppet().await;
        let mut slow = cluster.node(NodeId(1)).events();
        let mut quick = cluster.node(NodeId(1)).events();
        let (mut seen, asked) = (0, WAITING_MAX as u64 + 50);
        for nth in 0..asked {
            candidate.say(Term(6 + nth), Body::Heartbeat(Heartbeat { round: 0, commit: Index(0) }));
            while !matches!(soon("an event", quick.next()).await, Some(Received::Event(event)) if event.kind() == "leader_followed")
            {
                seen += 1;
            }
            seen += 1;
        }
        let Some(Received::Lost(lost)) = slow.next().await else { panic!("nothing is lost") };
        assert_eq!(lost, seen - WAITING_MAX as u64);
        let Some(Received::Event(event)) = slow.next().await else { panic!("the rest follows") };
        let first = quick.recent().last().map_or(0, |event| event.id) + lost + 1;
        assert_eq!(event.id, first, "none is missing but those");
    });
}

#[test]
fn the_lines_of_the_log_are_the_sentences_of_the_events_each_once() {
    let lines = Lines::default();
    let _guards = (tracing::subscriber::set_default(lines.clone()), tracing::Dispatch::new(Lines::default()));
    simulate(async {
        let cluster = Cluster::of_three(1).await;
        let leader = cluster.settled().await;
        soon("a transfer", cluster.node(leader).transfer(None)).await.expect("another leads");
        cluster.settled().await;
        for id in cluster.ids() {
            let told: Vec<_> = told_by(&cluster, id).iter().map(|event| line_of(event)).collect();
            let logged: Vec<_> = lines.of(id).into_iter().take(told.len()).collect();
            assert_eq!(logged, told);
        }
    });
}

#[test]
fn repeated_lines_are_summed_up() {
    let lines = Lines::default();
    let _guards = (tracing::subscriber::set_default(lines.clone()), tracing::Dispatch::new(Lines::default()));
    simulate(async {
        let (cluster, candidate) = led_by_a_puppet().await;
        let mut events = cluster.node(NodeId(1)).events();
        for term in 6..46 {
            candidate.say(Term(term), Body::Heartbeat(Heartbeat { round: 0, commit: Index(0) }));
            next(&mut events, "another leader", |what| matches!(what, What::LeaderFollowed { .. })).await;
        }
        sleep(Duration::from_secs(11)).await;
        let lines = lines.of(NodeId(1)).into_iter();
        let follows = lines.filter(|line| line.kind == "leader_followed" && line.text.contains("node 3"));
        let text = |term| format!("Node 1 follows node 3, the leader of term {term}.");
        let last = format!("{} (and 34 more like it)", text(45));
        let told: Vec<_> = follows.map(|line| line.text).collect();
        assert_eq!(told, (6..11).map(text).chain([last]).collect::<Vec<_>>());
    });
}

#[test]
fn a_vote_that_is_denied_again_and_again_is_told_once_in_ten_seconds() {
    simulate(async {
        let (cluster, candidate) = led_by_a_puppet().await;
        let mut events = cluster.node(NodeId(1)).events();
        for _ in 0..40 {
            candidate.say(Term(5), request(Phase::PreVote));
        }
        let mut denied =
            async || next(&mut events, "a denied vote", |what| matches!(what, What::VoteCast { .. })).await.text();
        let text = "Node 1 denies node 3 its pre-vote for term 6: it hears node 2, which leads";
        assert_eq!(denied().await, format!("{text}."));
        assert_eq!(denied().await, format!("{text}; 38 more alike since it last said so."));
    });
}

#[test]
fn the_same_seed_gives_the_same_events() {
    let run = || {
        simulate(async {
            let cluster = Cluster::of_three(7).await;
            let leader = cluster.settled().await;
            cluster.faults.isolate(leader);
            cluster.leader_among(&cluster.others(leader)).await;
            cluster.faults.heal();
            cluster.settled().await;
            let of = |id| told_by(&cluster, id).into_iter().map(|event| Event { wall_ms: 0, ..(*event).clone() });
            cluster.ids().into_iter().flat_map(of).collect::<Vec<_>>()
        })
    };
    let first = run();
    assert!(first.len() > 30, "{}", first.len());
    assert_eq!(first, run());
}

#[test]
fn a_node_that_ends_says_so_last_and_ends_the_stream() {
    simulate(async {
        let mut cluster = Cluster::of_three(1).await;
        let leader = cluster.settled().await;
        let follower = cluster.others(leader)[0];
        let mut events = cluster.node(follower).events();
        cluster.stop(follower).await;
        let mut last = None;
        while let Some(Received::Event(event)) = soon("the end", events.next()).await {
            last = Some(event);
        }
        assert_eq!(last.map(|event| event.text()), Some(format!("Node {follower} shuts down.")));
    });
}

#[test]
fn no_entry_makes_an_event() {
    simulate(async {
        let (cluster, ledger) = (Cluster::of_three(1).await, Ledger::default());
        let leader = cluster.settled().await;
        sleep(Duration::from_secs(1)).await;
        let mut readers: Vec<_> = cluster.ids().into_iter().map(|id| cluster.node(id).events()).collect();
        for nth in 0..500 {
            ledger.propose(cluster.node(leader), format!("{nth}")).await.expect("an acknowledgement");
        }
        cluster.settled().await;
        let told: Vec<_> = readers.iter_mut().filter_map(EventReader::try_next).collect();
        assert_eq!(told, []);
    });
}

#[test]
fn overload_is_told_at_its_begin_and_its_end() {
    simulate(async {
        let limits = Limits::default().with_max_in_flight_proposals(1);
        let cluster = Cluster::start_all(Plan { limits, ..Plan::default() }).await;
        let leader = cluster.settled().await;
        let (node, mut events) = (cluster.node(leader), cluster.node(leader).events());
        let (first, second) = tokio::join!(node.propose("one"), node.propose("two"));
        assert!(first.is_ok() && second.is_err(), "{first:?}, {second:?}");
        let event = next(&mut events, "a refusal", |what| matches!(what, What::OverloadBegan { .. })).await;
        assert!(event.text().starts_with(&format!("Node {leader} refuses callers: ")), "{}", event.text());
        next(&mut events, "the end of it", |what| matches!(what, What::OverloadEnded { .. })).await;
    });
}

#[test]
fn a_lease_is_told_when_it_is_held_and_when_it_is_given_up() {
    simulate(async {
        let cluster = Cluster::of_three(1).await;
        let leader = cluster.settled().await;
        let (node, mut events) = (cluster.node(leader), cluster.node(leader).events());
        let reads = async {
            loop {
                node.read(Consistency::Lease, |_| ()).await.expect("it leads");
                sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            () = reads => {}
            held = next(&mut events, "a lease", |what| *what == What::LeaseHeld) => {
                assert_eq!(held.reference(), Some("thesis §6.4.1"));
            }
        }
        soon("a transfer", node.transfer(None)).await.expect("another leads");
        next(&mut events, "its end", |what| matches!(what, What::LeaseLost { .. })).await;
    });
}

/// Node 1, which hears node 2 lead in term 5; the returned puppet is node 3.
async fn led_by_a_puppet() -> (Cluster, Puppet) {
    let mut cluster = Cluster::vacant(Plan::default());
    let leader = Puppet::start(&cluster.network, NodeId(2), NodeId(1)).await;
    let candidate = Puppet::start(&cluster.network, NodeId(3), NodeId(1)).await;
    cluster.start(NodeId(1)).await;
    tokio::task::spawn_local(async move {
        loop {
            leader.say(Term(5), Body::Heartbeat(Heartbeat { round: 0, commit: Index(0) }));
            sleep(Duration::from_millis(20)).await;
        }
    });
    cluster.until("a leader", |view| view[&NodeId(1)].leader).await;
    (cluster, candidate)
}

fn told_by(cluster: &Cluster, id: NodeId) -> Vec<Arc<Event>> {
    cluster.node(id).events().recent().to_vec()
}

fn count(told: &[Arc<Event>], is_it: impl Fn(&What) -> bool) -> usize {
    told.iter().filter(|event| is_it(&event.what)).count()
}

fn texts(told: &[Arc<Event>]) -> String {
    told.iter().map(|event| format!("\n  {:>6} ms  {}", event.at_ms, event.text())).collect()
}

/// The next event of this form; earlier ones are dropped.
async fn next(events: &mut EventReader, name: &str, is_it: impl Fn(&What) -> bool) -> Arc<Event> {
    soon(name, async {
        loop {
            match events.next().await {
                Some(Received::Event(event)) if is_it(&event.what) => return event,
                Some(Received::Event(_)) => {}
                other => panic!("{name}: {other:?}"),
            }
        }
    })
    .await
}

fn request(phase: Phase) -> Body {
    Body::RequestVote(RequestVote {
        phase,
        campaign: 1,
        last: EntryId::default(),
        by_transfer: false,
        machine_version: 0,
    })
}

fn asks(phase: Phase) -> impl FnMut(&Message) -> Option<u64> {
    move |message| match message.body {
        Body::RequestVote(request) if request.phase == phase => Some(request.campaign),
        _ => None,
    }
}

/// A line of the log.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct Line {
    level: String,
    node: u64,
    term: u64,
    index: Option<u64>,
    peer: Option<u64>,
    kind: String,
    text: String,
}

fn line_of(event: &Event) -> Line {
    Line {
        level: format!("{:?}", event.severity()).to_uppercase(),
        node: event.node.0,
        term: event.term.0,
        index: event.index().map(|index| index.0),
        peer: event.peer().map(|peer| peer.0),
        kind: event.kind().to_owned(),
        text: event.text(),
    }
}

/// Catches the lines that are made of events.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<Line>>>);

impl Lines {
    fn of(&self, node: NodeId) -> Vec<Line> {
        self.0.lock().expect("no panic").iter().filter(|line| line.node == node.0).cloned().collect()
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("quorate::")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line { level: event.metadata().level().to_string(), ..Line::default() };
        event.record(&mut line);
        self.0.lock().expect("no panic").push(line);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

impl Visit for Line {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "node" => self.node = value,
            "term" => self.term = value,
            "index" => self.index = Some(value),
            "peer" => self.peer = Some(value),
            _ => {}
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "kind" {
            value.clone_into(&mut self.kind);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.text = format!("{value:?}");
        }
    }
}
