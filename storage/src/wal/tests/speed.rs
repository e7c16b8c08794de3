//! The log on a real disk: the cost of second places, of a new segment, of a start, and of a long
//! log.

use super::*;
use std::time::{Duration, Instant};

/// `cargo test --release -p quorate-storage --lib -- --ignored --nocapture slots_cost`
#[test]
#[ignore = "measures for a minute, and wants a disk that has nothing else to do"]
fn slots_cost_no_second_sync() {
    let mut worst = f64::INFINITY;
    for (entries, payload_bytes) in [(1, 256), (32, 256), (256, 256), (1, 16), (64, 16), (1024, 16)] {
        let mut with = Lane::new(true);
        let mut without = Lane::new(false);
        let end = Instant::now() + Duration::from_secs(10);
        // A few groups each in turns, so that other load on the disk affects both alike.
        while Instant::now() < end {
            with.run(entries, payload_bytes);
            without.run(entries, payload_bytes);
        }
        let groups = 16 * entries as u32;
        let [mean, _median] = [Lane::mean, Lane::median].map(|of| {
            let [with, without] = [&with, &without].map(|lane| f64::from(groups) / of(lane).as_secs_f64());
            println!(
                "{entries} of {payload_bytes} bytes a sync: {with:.0}/s with slots, {without:.0}/s without: {:.3}",
                with / without
            );
            with / without
        });
        // The mean includes other load on the disk, as a user's does.
        worst = worst.min(mean);
    }
    // A second sync would leave half of it, or less.
    assert!(worst > 0.5, "{worst:.3} of the throughput is left");
}

/// A log, and the duration of each round of groups.
struct Lane {
    log: Log,
    _dir: tempfile::TempDir,
    rounds: Vec<Duration>,
    settled: Instant,
}

impl Lane {
    fn new(has_slots: bool) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let sizes = Sizes { has_slots, ..Sizes::DEFAULT };
        let (log, _) = open_with(Wal { sizes, ..Wal::at(dir.path().join("log")) }).expect("it opens");
        Self { log, _dir: dir, rounds: Vec::new(), settled: Instant::now() }
    }

    fn run(&mut self, entries: usize, payload_bytes: usize) {
        let mut took = Duration::ZERO;
        for _ in 0..16 {
            let (last, checksum) = (self.log.last, self.log.last_checksum);
            let mut builder = BatchBuilder::new(crate::checksum, Term(1), last.index.next(), checksum, 0);
            (0..entries).for_each(|_| builder.push(Kind::Command, &[7; 256][..payload_bytes]));
            let group = Persist { batch: builder.finish(), ..Persist::default() };
            let began = Instant::now();
            persist(&mut self.log, &[group]).expect("it is persisted");
            // As often as the actor does.
            if self.settled.elapsed() >= Duration::from_millis(300) {
                self.log.settle().expect("it is settled");
                self.settled = Instant::now();
            }
            took += began.elapsed();
        }
        self.rounds.push(took);
    }

    fn mean(&self) -> Duration {
        self.rounds.iter().sum::<Duration>() / self.rounds.len() as u32
    }

    fn median(&self) -> Duration {
        let mut rounds = self.rounds.clone();
        rounds.sort_unstable();
        rounds[rounds.len() / 2]
    }
}

/// `ROLL_SPEED=DIR:MEBIBYTES cargo test --release -p quorate-storage --lib -- --ignored --nocapture a_new_segment`
///
/// Appends and syncs groups at full pace, with segments of the default size, and prints one line of JSON per
/// size of a group: the durations of the groups that began a segment, of those after them and of all others. `at_once`
/// is the number of requests in a group. Of small ones there are fewer bytes, at most 15,000 groups.
#[test]
#[ignore = "writes gigabytes, and wants a disk that has nothing else to do"]
fn a_new_segment_delays_no_write() {
    let wanted = std::env::var("ROLL_SPEED").unwrap_or_else(|_| ".:1024".into());
    let (dir, mebibytes) = wanted.split_once(':').expect("ROLL_SPEED is DIR:MEBIBYTES");
    let bytes = mebibytes.parse::<usize>().expect("a number") << 20;
    let sizes = [(1, 1, 4), (1, 4, 4), (1, 16, 4), (1, 16, 16), (1, 64, 16), (16, 16, 16)];
    for (at_once, entries, payload_bytes) in sizes.map(|(at_once, entries, kib)| (at_once, entries, kib << 10)) {
        let dir = tempfile::tempdir_in(dir).expect("a directory");
        let (mut log, _) = open_with(Wal::at(dir.path().join("log"))).expect("it opens");
        let (mut rolling, mut after, mut others) = (Vec::new(), Vec::new(), Vec::new());
        let (group_bytes, began) = (at_once * entries * payload_bytes, Instant::now());
        // Groups after a new segment: the metadata of its file may still be written.
        let mut since_roll = usize::MAX;
        let groups = (bytes / group_bytes).min(15_000);
        for _ in 0..groups {
            let (mut last, mut checksum, segment) = (log.last.index, log.last_checksum, log.active.header.sequence);
            let group: Vec<Persist> = (0..at_once)
                .map(|_| {
                    let batch = batch(last, checksum, entries, payload_bytes);
                    (last, checksum) = (batch.last(), batch.checksum());
                    Persist { batch: Some(batch), ..Persist::default() }
                })
                .collect();
            let began = Instant::now();
            persist(&mut log, &group).expect("it is persisted");
            let took = began.elapsed();
            since_roll = if log.active.header.sequence > segment { 0 } else { since_roll.saturating_add(1) };
            match since_roll {
                0 => rolling.push(took),
                1..=3 => after.push(took),
                _ => others.push(took),
            }
            log.check_space().expect("there is space");
        }
        let rate = (groups * group_bytes) as f64 / began.elapsed().as_secs_f64() / f64::from(1 << 20);
        let all = [&rolling[..], &after, &others].concat();
        println!(
            "{{\"group_kib\":{},\"at_once\":{at_once},\"mib_per_s\":{rate:.0},{},{},{},{}}}",
            group_bytes >> 10,
            durations("all", all),
            durations("new_segment", rolling),
            durations("after_it", after),
            durations("others", others)
        );
    }
}

/// `START_SPEED=DIR:MEBIBYTES cargo test --release -p quorate-storage --lib -- --ignored --nocapture a_start_reads`
///
/// Opens a log of this size three times, and prints one line of JSON each time.
#[test]
#[ignore = "writes gigabytes, and wants a disk that has nothing else to do"]
fn a_start_reads_half_a_gigabyte_of_log_in_a_second() {
    let wanted = std::env::var("START_SPEED").unwrap_or_else(|_| ".:1024".into());
    let (dir, mebibytes) = wanted.split_once(':').expect("START_SPEED is DIR:MEBIBYTES");
    let bytes = mebibytes.parse::<u64>().expect("a number") << 20;
    for payload_bytes in [256, 16 << 10] {
        let dir = tempfile::tempdir_in(dir).expect("a directory");
        let wal = Wal::at(dir.path().join("log"));
        let (mut log, _) = open_with(wal.clone()).expect("it opens");
        while log.bytes() < bytes {
            append(&mut log, (4 << 20) / payload_bytes, payload_bytes);
        }
        let (bytes, entries) = (log.bytes(), log.last.index.0);
        drop(log);
        for _ in 0..3 {
            let began = Instant::now();
            let (log, recovered) = open_with(wal.clone()).expect("it opens");
            let took = began.elapsed().as_secs_f64();
            assert_eq!(recovered.last.index.0, entries);
            drop(log);
            let rate = bytes as f64 / took / 1e6;
            println!(
                "{{\"payload_bytes\":{payload_bytes},\"entries\":{entries},\"log_mb\":{},\"start_s\":{took:.3},\"mb_per_s\":{rate:.0}}}",
                bytes / 1_000_000
            );
        }
    }
}

/// `LONG_LOG=DIR:ENTRIES cargo test --release -p quorate-storage --lib -- --ignored --nocapture a_long_log`
///
/// Appends to, and reads single entries from, a log of ten thousand entries and one of this length, in turns. `read` is
/// of any entries: those of the long log are in no cache of the processor. `read_near` is of ten thousand in its middle.
#[test]
#[ignore = "writes gigabytes, and wants a disk that has nothing else to do"]
fn a_long_log_is_as_fast_as_a_short_one() {
    let wanted = std::env::var("LONG_LOG").unwrap_or_else(|_| ".:10000000".into());
    let (dir, entries) = wanted.split_once(':').expect("LONG_LOG is DIR:ENTRIES");
    let mut logs = [10_000, entries.parse::<u64>().expect("a number")].map(|entries| {
        let dir = tempfile::tempdir_in(dir).expect("a directory");
        let (mut log, _) = open_with(Wal::at(dir.path().join("log"))).expect("it opens");
        while log.last.index.0 < entries {
            append(&mut log, 10_000, 100);
        }
        (dir, log, [const { Vec::new() }; 3])
    });
    let mut random = 1_u64;
    let mut read = |log: &Log, after: u64, entries: u64| {
        let began = Instant::now();
        for _ in 0..50 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let index = Index(after + (random >> 33) % entries + 1);
            assert_eq!(log.read(index, index, 0).expect("it is whole").len(), 1);
        }
        began.elapsed() / 50
    };
    for _ in 0..400 {
        for (_, log, [appends, reads, reads_near]) in &mut logs {
            let began = Instant::now();
            append(log, 10, 100);
            appends.push(began.elapsed());
            reads.push(read(log, 0, log.last.index.0));
            reads_near.push(read(log, log.last.index.0 / 2 - 5_000, 10_000));
        }
    }
    for (_, log, [appends, reads, reads_near]) in logs {
        println!(
            "{{\"entries\":{},{},{},{}}}",
            log.last.index.0,
            durations("append", appends),
            durations("read", reads),
            durations("read_near", reads_near)
        );
    }
}

/// Appends a batch of commands and syncs it.
fn append(log: &mut Log, entries: usize, payload_bytes: usize) {
    let batch = batch(log.last.index, log.last_checksum, entries, payload_bytes);
    persist(log, &[Persist { batch: Some(batch), ..Persist::default() }]).expect("it is persisted");
}

fn batch(last: Index, checksum: u32, entries: usize, payload_bytes: usize) -> Batch {
    let mut builder = BatchBuilder::new(crate::checksum, Term(1), last.next(), checksum, 0);
    let payload = vec![7; payload_bytes];
    (0..entries).for_each(|_| builder.push(Kind::Command, &payload));
    builder.finish().expect("it has entries")
}

/// Percentiles in milliseconds.
fn durations(what: &str, mut durations: Vec<Duration>) -> String {
    durations.sort_unstable();
    let at = |share: f64| durations[((durations.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    let (p50, p99, p999, max) = (at(0.5), at(0.99), at(0.999), at(1.0));
    let count = durations.len();
    format!(
        "\"{what}\":{{\"count\":{count},\"p50_ms\":{p50:.3},\"p99_ms\":{p99:.3},\"p999_ms\":{p999:.3},\"max_ms\":{max:.3}}}"
    )
}
