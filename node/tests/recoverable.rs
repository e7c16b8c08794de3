//! Three nodes, three acknowledged entries, and damage in up to three places: all that can be
//! recovered is recovered, and the rest is not forgotten.
//!
//! The cases follow the study for protocol-aware recovery (Alagappan et al., FAST 2018, §2 and §5),
//! in which stock systems survived 46 of 2,401 such corruptions. Here an entry has two places on a
//! disk, its record and its slot (in its group and in the table, damaged together), and each may be
//! flipped or zeroed: 18 places, 36 single corruptions, and every pair and every triple of places.
//! Whole nodes recover, over their write-ahead logs on simulated disks.

mod support;

use quorate::{Index, NodeId, StartError, storage::Wal};
use quorate_storage_testing::SimulatedDisk;
use std::{
    collections::BTreeMap,
    fmt, iter,
    ops::Range,
    path::PathBuf,
    time::{Duration, Instant},
};
use support::{Cluster, Journal, Ledger, Plan, simulate};

#[test]
fn all_recoverable_entries_of_a_sample_are_recovered_and_the_rest_is_not_forgotten() {
    let (singles, pairs, triples) = (cases(1), cases(2), cases(3));
    let all = [NodeId(1), NodeId(2), NodeId(3)];
    let (recoverable, not): (Vec<_>, Vec<_>) = triples.into_iter().partition(|case| case.leaves_a_copy_of_each(&all));
    assert_eq!(not.len(), 24, "one entry on all three nodes, each flipped or zeroed");
    // Steps that share no factor with the order of the cases.
    let pairs = pairs.into_iter().step_by(29);
    let triples = recoverable.into_iter().step_by(331).chain(not.into_iter().step_by(7));
    Table::try_all(singles.into_iter().chain(pairs).chain(triples));
}

#[test]
#[ignore = "7,176 cases: about ten minutes; cargo test -p quorate --test recoverable -- --ignored --nocapture"]
fn all_recoverable_entries_of_all_pairs_and_triples_are_recovered_and_the_rest_is_not_forgotten() {
    Table::try_all((1..=3).flat_map(cases));
}

/// The number of cases, by outcome.
#[derive(Default, Debug)]
struct Table {
    /// All three nodes have all entries.
    recovered: usize,
    /// One node refused to start, with the damaged file and place in its error; the two others
    /// have all entries.
    recovered_by_two: usize,
    /// No record of an entry was left undamaged, but one could be reconstructed.
    put_together: usize,
    /// No copy of an entry is left: no node leads, and no node has forgotten the entry.
    kept_waiting: usize,
}

impl Table {
    fn try_all(cases: impl Iterator<Item = Case>) {
        let (began, template, mut table, mut count) = (Instant::now(), Template::new(), Self::default(), 0);
        for case in cases {
            let named = Named(&case);
            table.try_one(&template, &case);
            std::mem::forget(named);
            count += 1;
        }
        println!("{count} cases in {:.0?}: {table:?}", began.elapsed());
        assert_eq!(table.recovered + table.recovered_by_two + table.put_together + table.kept_waiting, count);
        assert!(table.recovered > count / 2 && table.recovered_by_two > 0 && table.kept_waiting > 0, "{table:?}");
    }

    fn try_one(&mut self, template: &Template, case: &Case) {
        simulate(async {
            let mut cluster = Cluster::vacant(Plan { seed: 1, ..Plan::default() });
            for id in cluster.members() {
                let disk = template.damaged(id, case);
                let started = cluster.try_start_as(id, Journal::default(), |builder| builder.storage(wal(&disk))).await;
                match started {
                    Ok(()) => {}
                    Err(StartError::Storage(error)) => {
                        let said = error.to_string();
                        assert!(case.is_beyond_identity(id), "node {id} refuses to start: {said}");
                        assert!(
                            said.contains(".segment") && said.contains("byte"),
                            "file and offset are missing: {said}"
                        );
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            assert!(cluster.ids().len() >= 2, "a majority starts");
            if case.leaves_a_copy_of_each(&cluster.ids()) {
                self.recovers(&cluster).await;
            } else {
                self.waits(&cluster).await;
            }
        });
    }

    async fn recovers(&mut self, cluster: &Cluster) {
        cluster.settled().await;
        for id in cluster.ids() {
            assert_eq!(commands_of(cluster, id), COMMANDS, "on node {id}");
            assert_eq!(cluster.status(id).faulty, 0);
        }
        Ledger::default().propose(cluster.node(cluster.ids()[0]), "afterwards").await.expect("an acknowledgement");
        match cluster.ids().len() {
            3 => self.recovered += 1,
            _ => self.recovered_by_two += 1,
        }
    }

    /// No record of an entry is intact. A flipped header can be reconstructed from its slot;
    /// otherwise no node leads.
    async fn waits(&mut self, cluster: &Cluster) {
        tokio::time::sleep(Duration::from_secs(10)).await;
        if cluster.ids().into_iter().any(|id| cluster.status(id).leader.is_some()) {
            self.recovers(cluster).await;
            self.recovered -= 1;
            self.put_together += 1;
            return;
        }
        for id in cluster.ids() {
            let (status, commands) = (cluster.status(id), commands_of(cluster, id));
            assert_eq!(status.last_log, LAST, "the entry is gone, and that it was there is known: {status:?}");
            assert!(commands.iter().eq(&COMMANDS[..commands.len()]), "{commands:?}");
        }
        self.kept_waiting += 1;
    }
}

const COMMANDS: [&str; 3] = ["the first command", "the second command", "the third command"];
/// The first command: entry 1 is that of the leader.
const FIRST: Index = Index(2);
const LAST: Index = Index(4);

/// One damaged place of one node.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Hit {
    node: NodeId,
    entry: Index,
    place: Place,
    damage: Damage,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Place {
    Record,
    Slot,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Damage {
    Flipped,
    Zeroed,
}

/// The damaged places of one case.
struct Case(Vec<Hit>);

impl Case {
    fn hits(&self, node: NodeId, entry: Index, place: Place) -> bool {
        self.0.iter().any(|hit| (hit.node, hit.entry, hit.place) == (node, entry, place))
    }

    /// Whether a node can't tell which entry it lost: both places are damaged.
    fn is_beyond_identity(&self, node: NodeId) -> bool {
        entries().any(|entry| self.hits(node, entry, Place::Record) && self.hits(node, entry, Place::Slot))
    }

    /// Whether one of these nodes has an undamaged record of each entry.
    fn leaves_a_copy_of_each(&self, nodes: &[NodeId]) -> bool {
        entries().all(|entry| nodes.iter().any(|node| !self.hits(*node, entry, Place::Record)))
    }
}

fn entries() -> impl Iterator<Item = Index> {
    (FIRST.0..=LAST.0).map(Index)
}

fn places() -> Vec<(NodeId, Index, Place)> {
    let nodes = (1..=3).map(NodeId);
    let held = nodes.flat_map(|node| entries().map(move |entry| (node, entry)));
    held.flat_map(|(node, entry)| [Place::Record, Place::Slot].map(|place| (node, entry, place))).collect()
}

/// All cases with damage in this many places.
fn cases(count: usize) -> Vec<Case> {
    let places = places();
    let mut cases = vec![(0, Vec::new())];
    for _ in 0..count {
        let longer = cases.into_iter().flat_map(|(from, hits)| {
            let places = &places;
            (from..places.len()).flat_map(move |at| {
                let hits = hits.clone();
                [Damage::Flipped, Damage::Zeroed].map(move |damage| {
                    let (node, entry, place) = places[at];
                    let hit = Hit { node, entry, place, damage };
                    (at + 1, hits.iter().copied().chain([hit]).collect())
                })
            })
        });
        cases = longer.collect::<Vec<_>>();
    }
    cases.into_iter().map(|(_, hits)| Case(hits)).collect()
}

/// Parts of a file.
type Location = (PathBuf, Vec<Range<usize>>);

/// Three disks with three acknowledged commands, and the location of every record and slot.
struct Template {
    disks: BTreeMap<NodeId, SimulatedDisk>,
    places: BTreeMap<(NodeId, Index, Place), Location>,
}

impl Template {
    fn new() -> Self {
        let disks: BTreeMap<_, _> = (1..=3).map(|id| (NodeId(id), SimulatedDisk::new())).collect();
        simulate(async {
            let (mut cluster, ledger) = (Cluster::vacant(Plan::default()), Ledger::default());
            for (id, disk) in &disks {
                cluster.start_as(*id, Journal::default(), |builder| builder.storage(wal(disk))).await;
            }
            let leader = cluster.leader().await;
            for command in COMMANDS {
                ledger.propose(cluster.node(leader), command).await.expect("an acknowledgement");
            }
            cluster.settled().await;
            assert_eq!(cluster.status(leader).last_log, LAST);
            // By then the slots are in the table.
            tokio::time::sleep(Duration::from_secs(1)).await;
            cluster.stop_all().await;
        });
        let places =
            places().into_iter().map(|(node, entry, place)| ((node, entry, place), find(&disks[&node], entry, place)));
        Self { places: places.collect(), disks }
    }

    /// A copy of a node's disk with the damage of the case.
    fn damaged(&self, node: NodeId, case: &Case) -> SimulatedDisk {
        let disk = self.disks[&node].fork();
        for hit in case.0.iter().filter(|hit| hit.node == node) {
            let (path, ranges) = &self.places[&(hit.node, hit.entry, hit.place)];
            for range in ranges.iter().cloned() {
                let done = match hit.damage {
                    // One byte of it, a different one each time.
                    Damage::Flipped => {
                        let turn = case.0.iter().map(|hit| hit.entry.0 * 7 + hit.node.0 * 3).sum::<u64>() as usize;
                        disk.flip(path, range.start + turn % range.len(), 0x10)
                    }
                    Damage::Zeroed => disk.zero(path, range),
                };
                assert!(done, "there is such a place");
            }
        }
        disk
    }
}

fn wal(disk: &SimulatedDisk) -> Wal {
    Wal::at("data").segment_bytes(16 << 10).on(disk.clone())
}

/// The location of an entry's record, or of its slots: see `storage/FORMAT.md`.
fn find(disk: &SimulatedDisk, entry: Index, place: Place) -> Location {
    let command = COMMANDS[usize::try_from(entry.since(FIRST)).expect("few")].as_bytes();
    let holds = |path: &PathBuf| {
        let contents = disk.contents(path)?;
        let at = contents.windows(command.len()).position(|bytes| bytes == command)?;
        Some((path.clone(), contents, at))
    };
    let (path, contents, payload) = disk.paths().iter().find_map(holds).expect("the entry");
    let record = payload - quorate_raft::record::HEADER_BYTES;
    if place == Place::Record {
        let record = record..record + quorate_raft::record::OVERHEAD_BYTES + command.len();
        return (path, iter::once(record).collect());
    }
    let slot = SLOTS_AT + SLOT_BYTES * usize::try_from(entry.previous().0).expect("few");
    assert_eq!(contents[slot + 4..slot + 8], u32::try_from(record).expect("a small file").to_le_bytes());
    assert_eq!(contents[slot + 16..slot + 24], entry.0.to_le_bytes());
    // The two differ in their checksums alone.
    let bytes = &contents[slot..slot + SLOT_BYTES - 4];
    let in_group =
        contents[record..].windows(bytes.len()).position(|window| window == bytes).expect("its group has it");
    (path, [slot, record + in_group].map(|at| at..at + SLOT_BYTES).to_vec())
}

const SLOTS_AT: usize = 8192;
const SLOT_BYTES: usize = 40;

fn commands_of(cluster: &Cluster, node: NodeId) -> Vec<String> {
    let entries = cluster.journal(node).entries().into_iter().map(|(_, command)| command);
    entries.filter(|command| command != "afterwards").collect()
}

/// Prints the case if the test panics.
struct Named<'a>(&'a Case);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        eprintln!("the case: {}", self.0);
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|Hit { node, entry, place, damage }| {
            write!(f, "the {place:?} of entry {entry} on node {node} {damage:?}; ")
        })
    }
}
