//! The derivation of a plan from its seed.

use super::{Fault, KINDS, Plan, Planned, Power, Told, Way};
use quorate_raft::NodeId;
use rand::{Rng, SeedableRng, rngs::SmallRng, seq::SliceRandom};
use std::time::Duration;

/// The most faults in one plan: people read a plan that fails.
const FAULTS_MAX: usize = 80;

/// The kind of which a rolling change has one fault per node.
const ROLLING: &str = "retime";

/// The kind of which a plan has at most one fault, in a separate phase at the end.
const LATE: &str = "put-back";

/// The share of plans in which the disk of a leader stalls, in a separate phase at the end.
const STALLED: f64 = 0.1;

/// The default of the shortest election timeout.
const SHORTEST_DEFAULT: Duration = Duration::from_millis(150);

/// One in this number of plans has a witness, if its members do not change.
const WITNESS_ONE_IN: u32 = 6;

pub(super) fn plan(seed: u64) -> Plan {
    let mut random = SmallRng::seed_from_u64(seed);
    let random = &mut random;
    let nodes = *[(1, 5), (3, 65), (5, 30)].choose_weighted(random);
    let length = millis(random, 2_000..9_000);
    let mut plan = Plan {
        seed,
        nodes,
        witness: None,
        length,
        clients: random.random_range(1..=6),
        keys: random.random_range(1..=4),
        rest: millis(random, 1..150),
        snapshot_every: if random.random_bool(0.6) { random.random_range(5..80) } else { 0 },
        keep_entries: random.random_range(0..6),
        faults: Vec::new(),
    };
    for kind in KINDS.into_iter().filter(|kind| ![ROLLING, LATE].contains(kind)) {
        // Each kind that is present has its own strength.
        if !random.random_bool(share_of(kind)) {
            continue;
        }
        let pause = millis(random, 150..4_000);
        let mut at = pause.mul_f64(random.random_range(0.0..1.0));
        while at < length {
            let (fault, lasts) = fault(kind, nodes, random);
            plan.faults.push(Planned { at, lasts: lasts.min(length - at), fault });
            at += pause.mul_f64(random.random_range(0.3..1.7));
            if kind == "wipe" {
                break;
            }
        }
    }
    plan.faults.shuffle(random);
    plan.faults.truncate(FAULTS_MAX);
    plan.faults.sort_by_key(|planned| planned.at);
    let mut random = SmallRng::seed_from_u64(seed ^ 0x71e);
    if nodes >= 3 && !plan.changes_members() && random.random_ratio(1, WITNESS_ONE_IN) {
        plan.witness = Some(NodeId(random.random_range(1..=nodes)));
    }
    roll_out_timings(&mut plan);
    put_back(&mut plan);
    stall_a_leader(&mut plan);
    plan
}

/// Adds a leadership transfer to a node whose disk then finishes nothing for seconds, in a phase in
/// which no other fault begins: among others, nearly every leader is deposed for another reason
/// before it must step down because of its disk. Drawn from a separate generator.
fn stall_a_leader(plan: &mut Plan) {
    let mut random = SmallRng::seed_from_u64(plan.seed ^ 0x57_a1_1e);
    let random = &mut random;
    let has_late = plan.faults.iter().any(|planned| planned.fault.kind() == LATE);
    if has_late || plan.faults.len() + 2 > FAULTS_MAX || !random.random_bool(STALLED) {
        return;
    }
    let ids: Vec<_> = (1..=plan.nodes).map(NodeId).filter(|id| plan.witness != Some(*id)).collect();
    let node = ids[random.random_range(0..ids.len())];
    // First an election, if the other faults left no leader; then the transfer.
    let transfer = plan.length + millis(random, 1_000..2_000);
    let stall = transfer + millis(random, 200..500);
    let lasts = millis(random, 300..800);
    let by = millis(random, 5_000..7_000);
    plan.faults.push(Planned { at: transfer, lasts: Duration::ZERO, fault: Fault::LeadershipTransfer { to: node } });
    plan.faults.push(Planned { at: stall, lasts, fault: Fault::SlowDisk { node, by } });
    plan.length = stall + lasts;
}

/// Adds a directory that is put back, in a phase in which no other fault begins: the other nodes
/// know that the node held more only when a leader told them, and a leader does so only after five
/// seconds of leadership. Drawn from a separate generator.
fn put_back(plan: &mut Plan) {
    let mut random = SmallRng::seed_from_u64(plan.seed ^ 0x9b_ac_4d);
    let random = &mut random;
    let loses = plan.faults.iter().any(|planned| planned.fault.kind() == "wipe");
    let is_judged = plan.nodes >= 3 && !plan.spares_disks() && !loses && plan.faults.len() < FAULTS_MAX;
    if !is_judged || !random.random_bool(share_of(LATE)) {
        return;
    }
    let node = NodeId(random.random_range(1..=plan.nodes));
    let (at, lasts) = (plan.length + millis(random, 0..1_500), millis(random, 5_500..7_000));
    plan.length = at + lasts + millis(random, 200..2_000);
    plan.faults.push(Planned { at, lasts, fault: Fault::PutBack { node } });
}

/// Adds one or two rolling changes of the timing, one after the other: the nodes in any order, each
/// with a restart. They are drawn from a separate generator, so that the seed's other faults do not
/// depend on them.
fn roll_out_timings(plan: &mut Plan) {
    let mut random = SmallRng::seed_from_u64(plan.seed ^ 0x4e_71_3e);
    let random = &mut random;
    if !random.random_bool(share_of(ROLLING)) {
        return;
    }
    let mut at = millis(random, 100..2_500);
    for _ in 0..random.random_range(1..=2) {
        let (shortest, pause) = (shortest_timeout(random), millis(random, 20..800));
        let mut nodes: Vec<_> = (1..=plan.nodes).map(NodeId).collect();
        nodes.shuffle(random);
        for node in nodes {
            let lasts = millis(random, 1..300);
            if at < plan.length && plan.faults.len() < FAULTS_MAX {
                plan.faults.push(Planned {
                    at,
                    lasts: lasts.min(plan.length - at),
                    fault: Fault::Retime { node, shortest },
                });
            }
            at += pause;
        }
    }
    plan.faults.sort_by_key(|planned| planned.at);
}

/// The settings of one node: each setting is the default with probability one half.
pub(super) fn told(seed: u64, node: NodeId) -> Told {
    let mut random = SmallRng::seed_from_u64(seed ^ 0x7e_11 ^ node.0 << 32);
    let random = &mut random;
    let shortest = if random.random_bool(0.5) { SHORTEST_DEFAULT } else { shortest_timeout(random) };
    let spared = if random.random_bool(0.5) { 0 } else { random.random_range(0..300) };
    Told { shortest, spared, draws: random.random() }
}

/// At least twice the heartbeat interval, at most a value that a cluster recovers from
/// within a plan.
fn shortest_timeout(random: &mut SmallRng) -> Duration {
    Duration::from_millis([100, 150, 200, 300, 500, 800][random.random_range(0..6)])
}

/// The share of plans that have a kind, between 0 and 1.
fn share_of(kind: &str) -> f64 {
    match kind {
        "wipe" | LATE => 0.1,
        "restart-all" | "crash-all" => 0.12,
        "partition" | "crash" | "crash-at-effect" => 0.4,
        _ => 0.25,
    }
}

fn fault(kind: &str, nodes: u64, random: &mut SmallRng) -> (Fault, Duration) {
    let node = NodeId(random.random_range(1..=nodes));
    let other = NodeId(random.random_range(1..=nodes));
    let way = way(nodes, random);
    let while_it_lasts = millis(random, 50..2_000);
    let down = millis(random, 5..1_500);
    let power = power(random);
    let per_mille = random.random_range(1..400);
    match kind {
        "drop" => (Fault::Drop { way, per_mille }, while_it_lasts),
        "duplicate" => (Fault::Duplicate { way, per_mille }, while_it_lasts),
        "reorder" => (Fault::Reorder { way, per_mille }, while_it_lasts),
        "corrupt" => (Fault::Corrupt { way, per_mille: per_mille / 2 + 1 }, while_it_lasts),
        "delay" => (Fault::Delay { way, up_to: millis(random, 2..60) }, while_it_lasts),
        "slow-link" => (Fault::SlowLink { way, by: millis(random, 2..120) }, while_it_lasts),
        "cut-one-way" => (Fault::CutOneWay { from: node, to: other }, while_it_lasts),
        "cut-link" => (Fault::CutLink { one: node, other }, while_it_lasts),
        "partition" => (Fault::Partition { some: some(nodes, random) }, while_it_lasts),
        "flap" => (Fault::Flap { one: node, other, every: millis(random, 10..300) }, while_it_lasts),
        "crash" => (Fault::Crash { node, power }, down),
        "crash-at-effect" => (Fault::CrashAtEffect { node, nth: random.random_range(1..60), power }, down),
        "crash-all" => (Fault::CrashAll { power }, down),
        "pause" => (Fault::Pause { node }, down),
        "slow-node" => (Fault::SlowNode { node, by: millis(random, 2..40) }, while_it_lasts),
        "flip" => (Fault::Flip { node }, down),
        "zero" => (Fault::Zero { node }, down),
        "misdirect" => (Fault::Misdirect { node }, down),
        "read-error" => (Fault::ReadError { node }, down),
        "sync-failure" => (Fault::SyncFailure { node, power }, down),
        "full" => (Fault::Full { node }, while_it_lasts),
        "slow-disk" if random.random_bool(0.15) => (Fault::SlowDisk { node, by: millis(random, 4_500..7_000) }, down),
        "slow-disk" => (Fault::SlowDisk { node, by: millis(random, 2..200) }, while_it_lasts),
        "drift" => (Fault::Drift { node, per_mille: random.random_range(-150..=150) }, while_it_lasts),
        "jump" => (Fault::Jump { node, by: millis(random, 10..2_000) }, Duration::ZERO),
        "restart" => (Fault::Restart { node }, down),
        "restart-all" => (Fault::RestartAll, down),
        "snapshot" => (Fault::Snapshot { node }, Duration::ZERO),
        "change" => (Fault::Change { voters: voters(nodes, random) }, Duration::ZERO),
        "leadership-transfer" => (Fault::LeadershipTransfer { to: node }, Duration::ZERO),
        "upgrade" => (Fault::Upgrade { node }, down),
        "outsider" => (Fault::Outsider { to: node }, while_it_lasts),
        _ => (Fault::Wipe { node }, down),
    }
}

/// All messages, all from or to one node, or those of one directed link.
fn way(nodes: u64, random: &mut SmallRng) -> Way {
    let mut maybe = || random.random_bool(0.5).then(|| NodeId(random.random_range(1..=nodes)));
    Way { from: maybe(), to: maybe() }
}

fn some(nodes: u64, random: &mut SmallRng) -> Vec<NodeId> {
    let mut ids: Vec<_> = (1..=nodes).map(NodeId).collect();
    ids.shuffle(random);
    ids.truncate(random.random_range(1..=nodes.div_ceil(2)) as usize);
    ids.sort_unstable();
    ids
}

fn voters(nodes: u64, random: &mut SmallRng) -> Vec<NodeId> {
    let mut ids: Vec<_> = (1..=nodes).map(NodeId).collect();
    ids.shuffle(random);
    ids.truncate(random.random_range(1..=nodes) as usize);
    ids.sort_unstable();
    ids
}

fn power(random: &mut SmallRng) -> Power {
    [Power::Kept, Power::Lost, Power::Torn, Power::Scattered][random.random_range(0..4)]
}

fn millis(random: &mut SmallRng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(random.random_range(range))
}

/// Draws one item, with a probability proportional to its weight.
trait ChooseWeighted<T> {
    fn choose_weighted(&self, random: &mut SmallRng) -> &T;
}

impl<T> ChooseWeighted<T> for [(T, u32)] {
    fn choose_weighted(&self, random: &mut SmallRng) -> &T {
        let total = self.iter().map(|(_, weight)| weight).sum();
        let mut left = random.random_range(0..total);
        let chosen = self.iter().find(|(_, weight)| match left.checked_sub(*weight) {
            Some(rest) => {
                left = rest;
                false
            }
            None => true,
        });
        &chosen.unwrap_or(&self[0]).0
    }
}
