//! A log of three segments, and every fault in one place of it: a flip of every byte, a cut at
//! every byte, every sector zeroed or replaced by another. Each is healed, restored, discarded as
//! unacknowledged, or refused; no acknowledged entry is lost.

use super::*;
use quorate_storage_testing::{Crash, Operation};
use std::{collections::BTreeMap, ops::Range, thread};

#[test]
fn a_flip_of_every_byte_loses_nothing_that_was_acknowledged() {
    let log = SmallLog::new();
    let counts = log.classify("flips", |disk, path, at| disk.flip(path, at, [0xff, 0x01, 0x80][at % 3]));
    // Every byte has a second copy, so the loss of any byte is survived.
    assert_eq!(counts.get(&Class::Refused), None, "{counts:?}");
    let [healed, restored, discarded] = counts_of(&counts, [Class::Healed, Class::Restored, Class::Discarded]);
    assert!(healed > 2000 && restored > 800 && discarded > 500, "{counts:?}");
}

#[test]
fn a_cut_at_every_byte_loses_nothing_that_was_acknowledged() {
    let log = SmallLog::new();
    let counts = log.classify("cuts", |disk, path, at| {
        disk.cut(path, at);
        true
    });
    let [healed, refused] = counts_of(&counts, [Class::Healed, Class::Refused]);
    // Refused: a segment cut off within its slots, since the lost entries are unknown; half a hard
    // state, since the newest copy is unknown; and the newest segment before its last group, which has
    // no slots in the table yet.
    assert!(healed > 7000 && refused > 20_000, "{counts:?}");
}

#[test]
fn zeros_in_every_sector_lose_nothing_that_was_acknowledged() {
    let log = SmallLog::new();
    let counts = log.classify("zeroed stretches", |disk, path, at| {
        let length = if at.is_multiple_of(512) { 512 } else { 64 };
        at.is_multiple_of(64) && disk.zero(path, at..at + length)
    });
    assert_eq!(counts.get(&Class::Refused), None, "{counts:?}");
    let [healed, restored] = counts_of(&counts, [Class::Healed, Class::Restored]);
    assert!(healed > 50 && restored > 15, "{counts:?}");
}

/// Stubs are as safe as commands.
#[test]
fn no_damage_to_a_place_of_stubs_loses_acknowledged_entries() {
    let log = SmallLog::of(Model::append_stubs);
    let counts = log.classify("flips", |disk, path, at| disk.flip(path, at, [0xff, 0x01, 0x80][at % 3]));
    assert_eq!(counts.get(&Class::Refused), None, "{counts:?}");
    let [healed, restored] = counts_of(&counts, [Class::Healed, Class::Restored]);
    assert!(healed > 100 && restored > 800, "{counts:?}");
    let counts = log.classify("zeroed stretches", |disk, path, at| {
        at.is_multiple_of(64) && disk.zero(path, at..at + if at.is_multiple_of(512) { 512 } else { 64 })
    });
    assert_eq!(counts.get(&Class::Refused), None, "{counts:?}");
    log.classify("cuts", |disk, path, at| {
        disk.cut(path, at);
        true
    });
}

#[test]
fn a_sector_that_went_astray_loses_nothing_that_was_acknowledged() {
    let log = SmallLog::new();
    let segments = segments(&log.disk);
    // One sector is replaced by another one of the same or another segment.
    for (number, from) in segments.iter().enumerate() {
        for sector in [0, 8, 16, 18, 19, 21] {
            let counts =
                log.classify(&format!("copies of sector {sector} of segment {number} elsewhere"), |disk, path, at| {
                    at.is_multiple_of(512)
                        && segments.contains(path)
                        && disk.misplace(path, at..at + 512, from, sector * 512)
                });
            assert_eq!(counts.get(&Class::Refused), None, "{counts:?}");
        }
    }
}

/// Every pair and triple of damaged places of three entries: record, slot in the table, and slot in the
/// group. Refused if it includes all of one, healed otherwise.
#[test]
fn any_three_places_may_be_damaged_unless_they_are_all_of_one_entry() {
    let (mut healed, mut refused) = (0, 0);
    for is_sealed in [false, true] {
        let disk = SimulatedDisk::new();
        let (mut log, _) = opened(&disk);
        let mut model = Model::default();
        let mut in_groups = Vec::new();
        for count in [1, 2] {
            persist_idly(&mut log, &[model.append(1, count, 150)]).expect("it is persisted");
            in_groups.extend((1..=count).rev().map(|left| log.active.end as usize - 40 * left));
        }
        if is_sealed {
            persist_idly(&mut log, &[model.append(1, 1, 15_000)]).expect("it is persisted");
        }
        drop(log);
        let path = segments(&disk)[0].clone();
        let bytes = disk.contents(&path).expect("it is there");
        let places: Vec<(usize, Range<usize>)> = (0..3)
            .flat_map(|entry| {
                let record = &model.entries[entry].bytes;
                let at = bytes.windows(record.len()).position(|window| window == record).expect("it is there");
                let slots = [8192 + 40 * entry, in_groups[entry]].map(|at| (entry, at..at + 40));
                [(entry, at..at + record.len())].into_iter().chain(slots)
            })
            .collect();
        for chosen in (0..512_u32).filter(|chosen| (2..=3).contains(&chosen.count_ones())) {
            let damaged = |place: usize| chosen >> place & 1 == 1;
            for zeroes in [false, true] {
                let disk = disk.fork();
                for (_, range) in places.iter().enumerate().filter(|(place, _)| damaged(*place)).map(|(_, place)| place)
                {
                    match zeroes {
                        true => assert!(disk.zero(&path, range.clone())),
                        false => range.clone().step_by(7).for_each(|at| assert!(disk.flip(&path, at, 0x41))),
                    }
                }
                let is_gone = (0..3).any(|entry| (0..3).all(|place| damaged(3 * entry + place)));
                match open(&disk) {
                    Err(failure) => {
                        assert!(is_gone, "{chosen:09b}: {}", failure.error);
                        refused += 1;
                    }
                    Ok((mut log, recovered)) => {
                        assert!(!is_gone, "{chosen:09b}");
                        assert_eq!(Model::of(&log, &recovered), model);
                        assert_eq!(recovered.faulty.len(), (0..3).filter(|entry| damaged(3 * entry)).count());
                        assert!(recovered.faulty.iter().all(|faulty| faulty.was_durable));
                        persist(&mut log, &model.repairs(&recovered)).expect("it is repaired");
                        drop(log);
                        assert_eq!(Model::on(&disk), model);
                        healed += 1;
                    }
                }
            }
        }
    }
    println!("pairs and triples: {healed} healed, {refused} refused, 0 lost an acknowledged entry");
    assert_eq!((healed, refused), (4 * (36 + 84 - 3), 4 * 3));
}

#[test]
fn a_write_that_goes_astray_while_the_log_runs_loses_nothing_that_was_acknowledged() {
    for (nth, by) in (1..=12).flat_map(|nth| [-512, 512, 1024, 40, -40].map(|by| (nth, by))) {
        let disk = SimulatedDisk::new();
        let (mut log, _) = opened(&disk);
        let mut model = Model::default();
        persist(&mut log, &[model.vote(1, 1)]).expect("it is persisted");
        disk.misdirect(nth, by);
        for count in [3, 1, 2, 1] {
            persist_idly(&mut log, &[model.append(1, count, 120)]).expect("so it seems");
        }
        drop(log);
        match open(&disk) {
            Ok((log, recovered)) => {
                assert_eq!(Model::of(&log, &recovered), model, "write {nth} by {by}: {recovered:?}")
            }
            // The write may be that of the hard state, which notes the next segment's name.
            Err(failure) => {
                let line = failure.error.to_string();
                assert!(line.contains("damaged at byte") || line.contains("hard-state: both copies"), "{line}");
            }
        }
    }
}

/// The outcome for a damaged log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// No byte that counts was damaged.
    Untouched,
    /// Entries were faulty, and were repaired.
    Healed,
    /// One place was restored from the other.
    Restored,
    /// An unacknowledged group is gone, and nothing else.
    Discarded,
    /// The log is not opened.
    Refused,
}

fn counts_of<const N: usize>(counts: &BTreeMap<Class, usize>, classes: [Class; N]) -> [usize; N] {
    classes.map(|class| counts.get(&class).copied().unwrap_or(0))
}

/// Three segments with acknowledged entries, then one unacknowledged group that reached the disk.
struct SmallLog {
    disk: SimulatedDisk,
    acknowledged: Model,
    written: Model,
}

const SMALL: Sizes = Sizes { segment: 6 << 10, gap: 512, headroom: 512, has_slots: true };

impl SmallLog {
    fn new() -> Self {
        Self::of(Model::append)
    }

    /// A small log whose entries `append` makes.
    fn of(append: fn(&mut Model, u64, usize, usize) -> Persist) -> Self {
        let disk = SimulatedDisk::new();
        let (mut log, _) = open_with(Wal { sizes: SMALL, ..wal(&disk) }).expect("it opens");
        let mut model = Model::default();
        for (term, count, bytes) in [
            (1, 2, 300),
            (1, 3, 70),
            (1, 4, 500),
            (2, 3, 100),
            (2, 1, 0),
            (2, 2, 700),
            (3, 1, 40),
            (3, 4, 300),
            (3, 2, 3),
        ] {
            persist_idly(&mut log, &[model.vote(term, 2), append(&mut model, term, count, bytes)])
                .expect("it is persisted");
        }
        log.remember(&[(NodeId(2), Index(7))]).expect("it is kept");
        assert!(!log.sealed.is_empty());
        let acknowledged = model.clone();
        disk.fail(Operation::Sync, 1);
        persist(&mut log, &[append(&mut model, 3, 2, 200)]).expect_err("it is not acknowledged");
        drop(log);
        disk.crash(Crash::Keep);
        disk.lose(&in_log("spare"));
        Self { disk, acknowledged, written: model }
    }

    /// Damages every byte of every file, on a disk of its own each time, and
    /// classifies the outcomes.
    fn classify(
        &self,
        what: &str,
        damage: impl Fn(&SimulatedDisk, &PathBuf, usize) -> bool + Sync,
    ) -> BTreeMap<Class, usize> {
        let mut counts = BTreeMap::new();
        for path in self.disk.paths() {
            let length = self.disk.contents(&path).expect("it is there").len();
            let parts = thread::available_parallelism().map_or(2, |count| count.get().clamp(2, 8));
            let part = move |part: usize| part * length / parts..(part + 1) * length / parts;
            let count = |range: Range<usize>| {
                let damaged = range.filter_map(|at| {
                    let disk = self.disk.fork();
                    damage(&disk, &path, at).then(|| self.class(&disk, &format!("byte {at} of {}", path.display())))
                });
                let mut counts: BTreeMap<Class, usize> = BTreeMap::new();
                damaged.for_each(|class| *counts.entry(class).or_default() += 1);
                counts
            };
            thread::scope(|scope| {
                let count = &count;
                let workers: Vec<_> = (0..parts).map(|number| scope.spawn(move || count(part(number)))).collect();
                for worker in workers {
                    for (class, count) in worker.join().expect("nothing was lost") {
                        *counts.entry(class).or_default() += count;
                    }
                }
            });
        }
        println!("{what}: {counts:?}, 0 lost an acknowledged entry");
        counts
    }

    fn class(&self, disk: &SimulatedDisk, context: &str) -> Class {
        let wal = Wal { sizes: SMALL, ..wal(disk) };
        let (mut log, recovered) = match open_with(wal.clone()) {
            Ok(opened) => opened,
            Err(failure) => {
                let line = failure.error.to_string();
                assert!(line.contains("log/") && !line.contains('\n'), "{context}: {line}");
                return Class::Refused;
            }
        };
        let found = Model::of(&log, &recovered);
        assert_eq!(found.hard_state, self.acknowledged.hard_state, "{context}");
        assert!(found.entries.starts_with(&self.acknowledged.entries), "{context}: {:?}", recovered.repairs);
        assert!(self.written.entries.starts_with(&found.entries), "{context}: {:?}", recovered.repairs);
        if recovered.faulty.is_empty() {
            let says = |word: &str| recovered.repairs.iter().any(|line| line.contains(word));
            return match () {
                () if says("discarded") => Class::Discarded,
                () if says("restored") || says("written again") || says("completed") => Class::Restored,
                () => Class::Untouched,
            };
        }
        for faulty in &recovered.faulty {
            let was_told = faulty.id.index <= self.acknowledged.last().0.index;
            assert!(faulty.was_durable || !was_told, "{context}: {faulty:?} was acknowledged");
        }
        persist(&mut log, &self.written.repairs(&recovered)).expect("it is repaired");
        drop(log);
        disk.crash(Crash::Lose);
        let (log, repaired) = open_with(wal).expect("it opens");
        assert_eq!(repaired.faulty, [], "{context}");
        assert_eq!(Model::of(&log, &repaired), found, "{context}");
        Class::Healed
    }
}
