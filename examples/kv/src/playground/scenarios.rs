//! Scenarios: clusters with a story that the paper tells, and what to see in each. A scenario begins a
//! cluster and has stages; a stage waits for a condition, and then does something, or only says what
//! has happened. All else is left to the rules of Raft and to chance.

use super::{
    simulation::Simulation,
    stages::{Stage, all_follow, has_committed},
};
use quorate::{Index, Membership, NodeId, Term};
use quorate_raft::Body;
use quorate_world::{disk::Disk, fixtures, world::Envelope};
use serde::Deserialize;
use std::time::Duration;

/// The scenarios, in the order of the page.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Scenario {
    Election,
    SplitVote,
    Figure7,
    Partition,
    Figure8,
    Members,
}

/// The texts of a scenario.
pub(super) struct Texts {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// The lesson in one sentence.
    pub(super) says: &'static str,
    pub(super) reference: &'static str,
}

/// The scenario that is played, and how far it is.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Script {
    pub(super) scenario: Option<Scenario>,
    pub(super) stage: usize,
    /// When the stage before was reached.
    since: Duration,
}

impl Script {
    /// The deed of the next stage, if its condition holds.
    pub(super) fn due(&self, simulation: &Simulation) -> Option<fn(&mut Simulation)> {
        let next = self.stages().get(self.stage)?;
        let is_due = simulation.now() >= self.since + next.after && (next.when)(simulation);
        is_due.then_some(next.then)
    }

    /// The next stage is reached.
    pub(super) fn reached(&mut self, now: Duration) {
        (self.stage, self.since) = (self.stage + 1, now);
    }

    /// The sentence of the stage that was reached last; `None` before the first.
    pub(super) fn says(&self) -> Option<&'static str> {
        Some(self.stages().get(self.stage.checked_sub(1)?)?.says)
    }

    /// Whether the last stage was reached.
    pub(super) fn is_over(&self) -> bool {
        self.stage == self.stages().len()
    }

    fn stages(&self) -> &'static [Stage] {
        self.scenario.map_or(&[], Scenario::stages)
    }
}

pub(super) const ONE: NodeId = NodeId(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);
/// The steps in which a cluster is led at the begin of a scenario.
const STEPS_MAX: usize = 2_000;

impl Scenario {
    pub(super) const ALL: [Self; 6] =
        [Self::Election, Self::SplitVote, Self::Figure7, Self::Partition, Self::Figure8, Self::Members];

    pub(super) fn texts(self) -> Texts {
        let of = |name, title, says, reference| Texts { name, title, says, reference };
        match self {
            Self::Election => of(
                "election",
                "Election",
                "The node whose election timer runs out first asks the others for their votes, and a majority makes \
                 it the leader.",
                "paper §5.2",
            ),
            Self::SplitVote => of(
                "split_vote",
                "Split vote",
                "The leader has crashed, and two timers run out at once: two candidates share the votes of one term, \
                 neither has three of five, and only new random timeouts bring a leader, in a later term.",
                "paper §5.2",
            ),
            Self::Figure7 => of(
                "figure7",
                "Logs that differ",
                "Node 1 becomes the leader of term 8 among the logs of Figure 7, a to f are nodes 2 to 7: entries \
                 that conflict with its log are crossed out, removed and overwritten, and missing ones are sent.",
                "paper §5.3, Figure 7",
            ),
            Self::Partition => of(
                "partition",
                "Leader cut off",
                "Nodes 1 and 2 are cut off from the rest: their leader commits nothing more and steps down, the \
                 other three elect a leader, and when the links heal, the uncommitted entry of term 1 is replaced.",
                "paper §5.1, §5.3; thesis §6.2",
            ),
            Self::Figure8 => of(
                "figure8",
                "Old entry on a majority",
                "The leader of term 4 has brought an entry of term 2 to a majority, and does not commit it by \
                 counting: when the leader crashes, node 5 can still be elected and replace that entry.",
                "paper §5.4.2, Figure 8",
            ),
            Self::Members => of(
                "members",
                "Change of members",
                "Voters 1, 2 and 3 become 1, 4 and 5: the new nodes first learn the log, then a joint configuration \
                 needs a majority of the old voters and one of the new, then the new ones decide alone.",
                "paper §6",
            ),
        }
    }

    /// The cluster with which the scenario begins. Those of some have a number of nodes of their own.
    pub(super) fn begin(self, nodes: u64, seed: u64) -> Simulation {
        let mut simulation = match self {
            Self::Election => election(nodes, seed),
            Self::SplitVote => split_vote(seed),
            Self::Figure7 => figure_7(seed),
            Self::Partition => partition(seed),
            Self::Figure8 => figure_8(seed),
            Self::Members => members(seed),
        };
        simulation.script = Script { scenario: Some(self), stage: 0, since: simulation.now() };
        simulation.follow_script();
        simulation
    }
}

/// Disks of members that took part before, and hold nothing.
fn disks(nodes: u64) -> Vec<Disk> {
    let mut disk = Disk::default();
    disk.has_voted = true;
    vec![disk; usize::try_from(nodes).unwrap_or(5)]
}

fn election(nodes: u64, seed: u64) -> Simulation {
    let mut simulation = Simulation::new(seed, disks(nodes), None);
    let first = seed % nodes + 1;
    for id in simulation.ids() {
        let after = if id.0 == first { 2_000 } else { 3_600 + 90 * id.0 };
        simulation.set_timer(id, Duration::from_millis(after));
    }
    simulation
}

/// A cluster that node 1 leads, and all follow.
fn led(mut simulation: Simulation) -> Simulation {
    simulation.set_timer(ONE, SECOND / 2);
    for _ in 0..STEPS_MAX {
        if all_follow(&simulation) && has_committed(&simulation, ONE) {
            break;
        }
        simulation.step();
    }
    simulation
}

fn split_vote(seed: u64) -> Simulation {
    let mut simulation = led(Simulation::new(seed, disks(5), None));
    simulation.crash(ONE);
    simulation.flights.retain(|flight| flight.envelope.from != ONE);
    for (id, after_ms) in [(2, 2_600), (3, 2_600), (4, 9_000), (5, 9_000)] {
        simulation.set_timer(NodeId(id), Duration::from_millis(after_ms));
    }
    // Node 4 hears node 2 first, and node 5 hears node 3.
    for (from, to, ms) in [(2, 4, 300), (3, 5, 300), (2, 5, 600), (3, 4, 600), (2, 3, 450), (3, 2, 450)] {
        simulation.latencies.insert((NodeId(from), NodeId(to)), Duration::from_millis(ms));
        simulation.latencies.insert((NodeId(to), NodeId(from)), Duration::from_millis(ms));
    }
    simulation
}

fn figure_7(seed: u64) -> Simulation {
    let logs: [&[u64]; 7] = [
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6],
        &[1, 1, 1, 4],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
        &[1, 1, 1, 4, 4, 4, 4],
        &[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
    ];
    let mut simulation = Simulation::new(seed, logs.map(|log| disk(7, log)).into(), None);
    for id in simulation.ids() {
        simulation.set_timer(id, if id == ONE { 2 * SECOND } else { 12 * SECOND });
    }
    simulation
}

fn partition(seed: u64) -> Simulation {
    led(Simulation::new(seed, disks(5), None))
}

fn figure_8(seed: u64) -> Simulation {
    let logs: [&[u64]; 5] = [&[1, 2], &[1], &[1], &[1], &[1, 3]];
    let mut simulation = Simulation::new(seed, logs.map(|log| disk(3, log)).into(), None);
    simulation.crash(NodeId(5));
    for id in simulation.ids() {
        simulation.set_timer(id, if id == ONE { 2 * SECOND } else { 20 * SECOND });
    }
    simulation.loses = Some(|simulation, envelope: &Envelope| match &envelope.message.body {
        Body::Append(append) => {
            let is_new = append.batch.as_ref().is_some_and(|batch| batch.term() == Term(4));
            let carries_old = |other: &Envelope| match &other.message.body {
                Body::Append(append) => append.batch.as_ref().is_some_and(|batch| batch.first() == Index(2)),
                _ => false,
            };
            let to = envelope.to;
            let comes =
                simulation.flights.iter().any(|flight| flight.envelope.to == to && carries_old(&flight.envelope));
            // The first one may arrive: it is rejected, and shows the leader what is missing.
            let has_old = comes
                || simulation.world.running(to).is_some_and(|running| running.replica.log().last().index >= Index(2));
            to == NodeId(4) || (is_new && has_old)
        }
        _ => false,
    });
    simulation
}

fn members(seed: u64) -> Simulation {
    let mut all = disks(3);
    all.extend([Disk::default(), Disk::default()]);
    let voters = (1..=3).map(|id| (NodeId(id), format!("node-{id}:7000")));
    let mut simulation = Simulation::new(seed, all, Some(Membership::of_addresses(voters)));
    simulation.set_timer(ONE, SECOND / 2);
    [2, 3].iter().for_each(|id| simulation.set_timer(NodeId(*id), 6 * SECOND));
    simulation
}

/// A disk with this log.
fn disk(term: u64, log: &[u64]) -> Disk {
    let mut disk = fixtures::disk_of(term, None, log);
    disk.hard_state.promise = quorate_raft::Promise::NONE;
    disk
}
