//! The stages of the scenarios: each waits for a condition, and then does something, or only says
//! what has happened.

use super::{
    scenarios::{ONE, SECOND, Scenario},
    simulation::Simulation,
};
use quorate::{Change, Index, NodeId, Term};
use quorate_raft::Role;
use std::{collections::BTreeMap, time::Duration};

const NOW: Duration = Duration::ZERO;
const TWO_SECONDS: Duration = Duration::from_secs(2);
const THREE_SECONDS: Duration = Duration::from_secs(3);

/// A stage of a scenario.
pub(super) struct Stage {
    /// The least time since the stage before.
    pub(super) after: Duration,
    pub(super) when: fn(&Simulation) -> bool,
    pub(super) then: fn(&mut Simulation),
    /// The sentence that holds from here on.
    pub(super) says: &'static str,
}

impl Scenario {
    pub(super) fn stages(self) -> &'static [Stage] {
        match self {
            Self::Election => &[Stage {
                after: NOW,
                when: |simulation| all_follow(simulation),
                then: |_| {},
                says: "All nodes follow the leader. Its heartbeats keep their timers from running out.",
            }],
            Self::SplitVote => &[
                Stage {
                    after: NOW,
                    when: |simulation| candidates(simulation).len() == 2,
                    then: |_| {},
                    says: "Two candidates ask for votes in the same term. Each has voted for itself, and each of the \
                           other two nodes votes for the first that asks.",
                },
                Stage {
                    after: NOW,
                    when: |simulation| is_split(simulation),
                    then: |simulation| simulation.latencies.clear(),
                    says: "The vote is split, two to two: three of five would be a majority, and each node votes \
                           once in a term. Both candidates wait for their random timers.",
                },
                Stage {
                    after: NOW,
                    when: |simulation| simulation.leader().is_some(),
                    then: |_| {},
                    says: "One timer ran out before the others: its node asked first in a later term, and leads it.",
                },
            ],
            Self::Figure7 => &[
                Stage {
                    after: NOW,
                    when: |simulation| simulation.leader() == Some(ONE),
                    then: |_| {},
                    says: "Node 1 leads term 8. Nodes 4 and 5 (c and d) have more up-to-date logs and denied their \
                           votes; a majority did not. Each follower rejects appends until the leader has found the \
                           last entry on which both agree.",
                },
                Stage {
                    after: NOW,
                    when: |simulation| logs_agree(simulation),
                    then: |_| {},
                    says: "All logs are equal to the leader's. No entry that was removed had ever been committed.",
                },
            ],
            Self::Partition => &[
                Stage {
                    after: NOW,
                    when: |_| true,
                    then: |simulation| {
                        simulation.part(&[ONE, NodeId(2)]);
                        simulation.propose(ONE);
                    },
                    says: "Nodes 1 and 2 hear only each other. Node 1 takes a write, and two of five are no \
                           majority.",
                },
                Stage {
                    after: NOW,
                    when: |simulation| {
                        simulation.leader().is_some_and(|leader| leader.0 > 2 && has_committed(simulation, leader))
                    },
                    then: |simulation| {
                        if let Some(leader) = simulation.leader() {
                            simulation.propose(leader);
                        }
                    },
                    says: "Nodes 3, 4 and 5 have a leader of a later term, which commits writes.",
                },
                Stage {
                    after: NOW,
                    when: |simulation| simulation.world.leaders().iter().all(|(_, id)| id.0 > 2),
                    then: |_| {},
                    says: "Node 1 heard no majority for an election timeout, and no longer leads.",
                },
                Stage {
                    after: TWO_SECONDS,
                    when: |_| true,
                    then: Simulation::heal_all,
                    says: "The links are healed: the old leader sees the later term, and follows.",
                },
                Stage {
                    after: NOW,
                    when: |simulation| logs_agree(simulation),
                    then: |_| {},
                    says: "All logs are equal. The write that node 1 could not commit is gone.",
                },
            ],
            Self::Figure8 => &[
                Stage {
                    after: NOW,
                    when: |simulation| simulation.leader() == Some(ONE),
                    then: |_| {},
                    says: "(c) Node 1 leads term 4 and replicates entry 2, of term 2. Its own entry, of term 4, is \
                           lost on the way.",
                },
                Stage {
                    after: NOW,
                    when: |simulation| [2, 3].iter().all(|peer| matched(simulation, NodeId(*peer)) >= Index(2)),
                    then: |_| {},
                    says: "Entry 2 is on nodes 1, 2 and 3, a majority, and the leader knows it. It is not committed: \
                           it is of an earlier term.",
                },
                Stage {
                    after: THREE_SECONDS,
                    when: |_| true,
                    then: |simulation| {
                        simulation.crash(ONE);
                        // Its last heartbeats would arm the timers anew.
                        simulation.flights.retain(|flight| flight.envelope.from != ONE);
                        simulation.loses = None;
                        simulation.heal_all();
                        simulation.start(NodeId(5));
                        simulation.set_timer(NodeId(5), Duration::from_millis(2_600));
                        (2..=4).for_each(|id| simulation.set_timer(NodeId(id), 20 * SECOND));
                    },
                    says: "(d) Node 1 has crashed. Node 5 is back: its last entry is of term 3, which is more up to \
                           date than term 2.",
                },
                Stage {
                    after: NOW,
                    when: |simulation| simulation.leader() == Some(NodeId(5)) && logs_agree(simulation),
                    then: |_| {},
                    says: "Node 5 leads, and entry 2 of term 2 is overwritten on nodes 2 and 3. Had it counted as \
                           committed, a committed entry would be lost.",
                },
            ],
            Self::Members => &[
                Stage {
                    after: NOW,
                    when: |simulation| has_committed(simulation, ONE),
                    then: |simulation| {
                        let join = |id: u64| Change::add(NodeId(id), format!("node-{id}:7000"));
                        change(simulation, &join(4).and(join(5)));
                    },
                    says: "Nodes 4 and 5 are learners: they receive the log, and do not vote.",
                },
                Stage {
                    after: SECOND,
                    when: |simulation| {
                        let leader = simulation.world.running(ONE).map(|running| &running.replica);
                        let now = simulation.world.now;
                        leader.is_some_and(|leader| {
                            leader.is_settled() && [4, 5].iter().all(|id| leader.keeps_up(now, NodeId(*id)))
                        })
                    },
                    then: |simulation| change(simulation, &Change::set_voters([1, 4, 5].map(NodeId))),
                    says: "The joint configuration is in the log: each decision needs a majority of 1, 2 and 3, and \
                           one of 1, 4 and 5.",
                },
                Stage {
                    after: NOW,
                    when: |simulation| {
                        let leader = simulation.world.running(ONE).map(|running| &running.replica);
                        leader.is_some_and(|leader| {
                            leader.is_settled() && leader.membership().incoming() == [1, 4, 5].map(NodeId)
                        })
                    },
                    then: |_| {},
                    says: "The new configuration is committed. Nodes 1, 4 and 5 decide alone.",
                },
            ],
        }
    }
}

/// Asks node 1 for a change; if it is refused, the stage is tried again.
fn change(simulation: &mut Simulation, change: &Change) {
    if simulation.change(ONE, change).is_err() {
        simulation.script.stage -= 1;
    }
}

// ---- conditions

fn running(simulation: &Simulation) -> impl Iterator<Item = (NodeId, &quorate_raft::Replica)> {
    simulation.world.replicas().map(|replica| (replica.id(), replica))
}

pub(super) fn all_follow(simulation: &Simulation) -> bool {
    let Some(leader) = simulation.leader() else { return false };
    running(simulation).all(|(_, replica)| replica.leader() == Some(leader))
}

/// Whether this node leads, and has committed an entry of its term.
pub(super) fn has_committed(simulation: &Simulation, leader: NodeId) -> bool {
    let replica = simulation.world.running(leader).map(|running| &running.replica);
    replica.is_some_and(|replica| matches!(replica.role(), Role::Leader(it) if it.first <= replica.commit()))
}

fn matched(simulation: &Simulation, peer: NodeId) -> Index {
    let replication = simulation.world.running(ONE).and_then(|running| running.replicators.get(&peer));
    replication.map_or(Index(0), |replication| replication.progress().matched())
}

/// Whether the logs of all nodes that run are equal.
fn logs_agree(simulation: &Simulation) -> bool {
    // Equal last entries mean equal logs (Log Matching).
    let mut last = running(simulation).map(|(_, replica)| (replica.log().last(), replica.durable()));
    let first = last.next();
    simulation.leader().is_some() && last.all(|other| Some(other) == first)
}

/// The candidates of the highest term with one.
pub(super) fn candidates(simulation: &Simulation) -> Vec<NodeId> {
    let mut of_terms: BTreeMap<Term, Vec<NodeId>> = BTreeMap::new();
    for (id, replica) in running(simulation).filter(|(_, replica)| matches!(replica.role(), Role::Candidate)) {
        of_terms.entry(replica.term()).or_default().push(id);
    }
    of_terms.pop_last().map(|(_, ids)| ids).unwrap_or_default()
}

/// Whether two candidates of one term have been answered by all nodes that run, and neither won.
pub(super) fn is_split(simulation: &Simulation) -> bool {
    let up = running(simulation).count();
    let candidates = candidates(simulation);
    let mut ballots = candidates.iter().filter_map(|id| simulation.observers.get(id)?.ballot.as_ref());
    candidates.len() == 2 && ballots.all(|ballot| ballot.granted.len() + ballot.denied.len() == up)
}
