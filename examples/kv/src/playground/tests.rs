//! Tests of the pure driver: equal moves have equal effects, and each scenario shows what it claims.

use super::{
    scenarios::Scenario,
    simulation::{Flight, Simulation},
    stages::{candidates, is_split},
    tape::{Deed, Tape},
};
use quorate::{Index, NodeId, Term, events::Phase};
use quorate_raft::Body;
use quorate_world::digest::digest;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::time::Duration;

/// More steps than a scenario takes.
const STEPS_MAX: usize = 20_000;
const SEEDS: u64 = 40;

/// The digest of all that determines what happens next, and of what was told.
fn state(simulation: &Simulation) -> (u128, String, Duration) {
    let world = &simulation.world;
    let cut: Vec<_> = world.cut.iter().collect();
    let traps: Vec<_> = simulation.traps.iter().collect();
    let digest = digest(&(&world.nodes, &world.now, &simulation.flights, cut, traps));
    let rest = format!("{:?} {:?} {:?}", simulation.next(), simulation.observers, simulation.script);
    (digest, rest, simulation.now())
}

/// Steps until a condition holds.
fn until(simulation: &mut Simulation, what: &str, holds: impl Fn(&Simulation) -> bool) {
    for _ in 0..STEPS_MAX {
        assert_eq!(simulation.broken, None, "{what}");
        if holds(simulation) {
            return;
        }
        assert!(simulation.step(), "{what}: nothing happens any more");
    }
    panic!("{what}: not within {STEPS_MAX} steps: {:#?}", texts(simulation));
}

fn texts(simulation: &mut Simulation) -> Vec<String> {
    std::mem::take(&mut simulation.news).into_iter().map(|news| news.told.text).collect()
}

fn term(simulation: &Simulation, id: u64) -> Term {
    simulation.world.node(NodeId(id)).disk.hard_state.term
}

fn log(simulation: &Simulation, id: u64) -> Vec<u64> {
    simulation.world.log(id)
}

#[test]
fn a_step_back_leads_to_the_very_state_before_whatever_was_done_in_between() {
    for (seed, scenario) in (0..).zip(Scenario::ALL) {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut tape = Tape::new(scenario.begin(5, seed));
        let mut states = vec![state(&tape.simulation)];
        for _ in 0..400 {
            if random.random_ratio(1, 6) {
                let node = NodeId(random.random_range(1..=5));
                let other = NodeId(node.0 % 5 + 1);
                let flights = &tape.simulation.flights;
                let message = if flights.is_empty() { 0 } else { flights[random.random_range(0..flights.len())].id };
                let deeds = [
                    Deed::Write { node: None },
                    Deed::Deliver { message },
                    Deed::Drop { message },
                    Deed::Delay { message },
                    Deed::Cut { from: node, to: other },
                    Deed::Heal { from: node, to: other },
                    Deed::Crash { node },
                    Deed::CrashBeforeWrite { node },
                    Deed::CrashAfterWrite { node },
                    Deed::Start { node },
                    Deed::Timeout { node },
                ];
                if tape.perform(deeds[random.random_range(0..deeds.len())]).is_err() {
                    continue;
                }
            } else if !tape.step() {
                break;
            }
            assert_eq!(tape.simulation.broken, None, "{scenario:?}, seed {seed}");
            states.push(state(&tape.simulation));
        }
        assert_eq!(tape.position() as usize + 1, states.len());
        let last = states.len() - 1;
        for position in (0..last).rev() {
            assert!(tape.back(), "{scenario:?}: move {position}");
            assert_eq!(state(&tape.simulation), states[position], "{scenario:?}: move {position}");
        }
        assert!(!tape.back(), "before the first move");
    }
}

#[test]
fn the_past_is_bounded_and_what_is_kept_of_it_can_be_taken_back() {
    let mut tape = Tape::new(Scenario::Election.begin(3, 1));
    for _ in 0..20_000 {
        assert!(tape.step());
    }
    assert_eq!(tape.position(), 20_000);
    let mut back = 0;
    while tape.back() {
        back += 1;
        if back > 300 {
            break;
        }
    }
    assert_eq!(back, 301);
    assert!(tape.kept() >= 8_192 - 301, "{}", tape.kept());
}

#[test]
fn an_election_ends_with_one_leader_whom_all_follow() {
    for seed in 0..SEEDS {
        for nodes in [1, 3, 5] {
            let mut simulation = Scenario::Election.begin(nodes, seed);
            until(&mut simulation, "an election", |simulation| simulation.script.is_over());
            assert_eq!(simulation.world.leaders().len(), 1);
            let told = texts(&mut simulation);
            assert!(told.iter().any(|text| text.contains("leads term")), "{told:?}");
        }
    }
}

#[test]
fn a_split_vote_has_two_candidates_in_one_term_without_a_winner_then_a_leader_in_a_later_term() {
    for seed in 0..SEEDS {
        let mut simulation = Scenario::SplitVote.begin(5, seed);
        until(&mut simulation, "two candidates", |simulation| candidates(simulation).len() == 2);
        let of = candidates(&simulation);
        assert_eq!(of, [NodeId(2), NodeId(3)], "seed {seed}");
        let split = term(&simulation, 2).max(simulation.world.replica(2).term());
        until(&mut simulation, "a split", is_split);
        for (id, votes) in [(2, [2, 4]), (3, [3, 5])] {
            let ballot = simulation.observers[&NodeId(id)].ballot.as_ref().expect("a campaign");
            let mut granted = ballot.granted.clone();
            granted.sort_unstable();
            assert_eq!(granted, votes.map(NodeId), "seed {seed}");
            assert_eq!(simulation.world.replica(id).term(), split);
        }
        assert_eq!(simulation.leader(), None);
        until(&mut simulation, "a leader", |simulation| simulation.leader().is_some());
        let leader = simulation.leader().expect("it was waited for");
        assert!(simulation.world.replica(leader.0).term() > split, "seed {seed}");
        let told = texts(&mut simulation);
        let says = |part: &str| told.iter().any(|text| text.contains(part));
        let split = split.0;
        assert!(says(&format!("Node 4 votes for node 2 in term {split}.")), "{told:#?}");
        assert!(says(&format!("Node 5 votes for node 3 in term {split}.")), "{told:#?}");
        assert!(says(&format!("alone for term {split}: no majority in time")), "{told:#?}");
        assert!(simulation.script.is_over());
    }
}

#[test]
fn the_logs_of_figure_7_become_those_of_the_leader_and_conflicting_entries_are_told_and_removed() {
    for seed in 0..SEEDS {
        let mut simulation = Scenario::Figure7.begin(5, seed);
        until(&mut simulation, "a leader", |simulation| simulation.leader().is_some());
        assert_eq!(simulation.leader(), Some(NodeId(1)));
        assert_eq!(term(&simulation, 1), Term(8));
        let shown = serde_json::to_value(super::view::extra(&Tape::new(simulation.clone()), true, 1.0)).expect("JSON");
        let logs = &shown["playground"]["logs"];
        for (id, conflict) in [(4, 11), (5, 11), (6, 6), (7, 4)] {
            assert_eq!(logs[id.to_string()]["conflict"], conflict, "node {id}: {logs}");
        }
        until(&mut simulation, "equal logs", |simulation| simulation.script.is_over());
        for id in 2..=7 {
            assert_eq!(log(&simulation, id), log(&simulation, 1), "node {id}, seed {seed}");
        }
        let told = texts(&mut simulation);
        let says = |part: &str| told.iter().any(|text| text.contains(part));
        assert!(says("Node 7 removes entries 4 to 11, which were not committed and conflict"), "{told:#?}");
        assert!(says("Node 6 removes entries 6 to 7"), "{told:#?}");
        assert!(says("hears that the log of node 7 differs"), "{told:#?}");
    }
}

#[test]
fn a_leader_that_is_cut_off_steps_down_and_its_uncommitted_entry_is_replaced() {
    for seed in 0..SEEDS {
        let mut simulation = Scenario::Partition.begin(5, seed);
        until(&mut simulation, "the end", |simulation| simulation.script.is_over());
        let told = texts(&mut simulation);
        assert!(told.iter().any(|text| text.starts_with("Node 1 no longer leads term")), "{told:#?}");
        assert!(told.iter().any(|text| text.starts_with("Node 1 removes entry")), "{told:#?}");
        assert_eq!(log(&simulation, 1), log(&simulation, simulation.leader().expect("one leads").0));
    }
}

#[test]
fn an_entry_of_an_earlier_term_on_a_majority_is_not_committed_and_is_replaced() {
    for seed in 0..SEEDS {
        let mut simulation = Scenario::Figure8.begin(5, seed);
        until(&mut simulation, "the majority", |simulation| simulation.script.stage == 2);
        for id in [2, 3] {
            assert_eq!(log(&simulation, id), [1, 2], "seed {seed}");
        }
        assert_eq!(log(&simulation, 1), [1, 2, 4]);
        assert_eq!(simulation.world.replica(1).commit(), Index(0), "seed {seed}");
        until(&mut simulation, "its end", |simulation| simulation.script.is_over());
        for id in [2, 3, 4, 5] {
            assert_eq!(log(&simulation, id)[..2], [1, 3], "node {id}, seed {seed}");
        }
    }
}

#[test]
fn members_change_through_a_joint_configuration() {
    for seed in 0..SEEDS {
        let mut simulation = Scenario::Members.begin(5, seed);
        until(&mut simulation, "the end", |simulation| simulation.script.is_over());
        let told = texts(&mut simulation);
        let says = |part: &str| told.iter().any(|text| text.contains(part));
        assert!(says("nodes 4 and 5 only learn"), "{told:#?}");
        assert!(says("until the change is done"), "{told:#?}");
        assert_eq!(simulation.world.members().voters(), [1, 4, 5].map(NodeId));
    }
}

#[test]
fn a_crash_before_a_write_loses_it_and_one_after_it_loses_the_answer_alone() {
    for (deed, is_written) in
        [(Deed::CrashBeforeWrite { node: NodeId(2) }, false), (Deed::CrashAfterWrite { node: NodeId(2) }, true)]
    {
        let mut tape = Tape::new(Scenario::SplitVote.begin(5, 3));
        let before = term(&tape.simulation, 2);
        tape.perform(deed).expect("it runs");
        let mut steps = 0;
        while tape.simulation.is_up(NodeId(2)) {
            assert!(tape.step() && steps < STEPS_MAX);
            steps += 1;
        }
        // The write of a candidate has its term and its vote for itself; its requests wait for it.
        let hard_state = tape.simulation.world.node(NodeId(2)).disk.hard_state;
        let voted = (hard_state.term, hard_state.vote) == (before.next(), Some(NodeId(2)));
        assert_eq!(voted, is_written, "{hard_state:?}");
        let asks = |flight: &Flight| {
            let Body::RequestVote(request) = &flight.envelope.message.body else { return false };
            flight.envelope.from == NodeId(2) && request.phase == Phase::Vote
        };
        assert!(!tape.simulation.flights.iter().any(asks), "a request left");
    }
}

#[test]
fn what_can_t_be_done_is_refused_with_a_reason_and_changes_nothing() {
    let mut tape = Tape::new(Scenario::Election.begin(3, 1));
    let before = state(&tape.simulation);
    for (deed, why) in [
        (Deed::Write { node: None }, "no node leads"),
        (Deed::Write { node: Some(NodeId(2)) }, "node 2 does not lead: writes go to the leader"),
        (Deed::Crash { node: NodeId(9) }, "there is no node 9"),
        (Deed::Start { node: NodeId(1) }, "node 1 runs"),
        (Deed::Cut { from: NodeId(1), to: NodeId(1) }, "a link has two ends"),
        (Deed::Deliver { message: 7_000 }, "that message is no longer on its way"),
    ] {
        assert_eq!(tape.perform(deed), Err(why.to_owned()));
    }
    assert_eq!(state(&tape.simulation), before);
    assert_eq!(tape.position(), 0);
}
