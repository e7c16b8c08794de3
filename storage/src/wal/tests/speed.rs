//! What the second place of every entry costs: the log on a real disk, with slots and without, in turns.

use super::*;
use std::time::{Duration, Instant};

/// `cargo test --release -p quorate-storage --lib -- --ignored --nocapture slots_cost`
#[test]
#[ignore = "measures for a minute, and wants a disk that has nothing else to do"]
fn slots_cost_less_than_a_tenth_of_the_throughput() {
    for (entries, payload_bytes) in [(1, 256), (64, 256), (1024, 256), (1, 16), (64, 16), (1024, 16)] {
        let mut with = Lane::new(true);
        let mut without = Lane::new(false);
        let end = Instant::now() + Duration::from_secs(10);
        // A few groups each in turns, so that whatever else the disk does meets both.
        while Instant::now() < end {
            with.run(entries, payload_bytes);
            without.run(entries, payload_bytes);
        }
        let (with, without) = (with.entries_per_s(), without.entries_per_s());
        let ratio = with / without;
        println!(
            "{entries} entries of {payload_bytes} bytes a sync: {with:.0}/s with slots, {without:.0}/s without: {ratio:.3}"
        );
        assert!(ratio > 0.9);
    }
}

/// A log, how much went into it, and how long that took.
struct Lane {
    log: Log,
    _dir: tempfile::TempDir,
    entries: usize,
    took: Duration,
}

impl Lane {
    fn new(has_slots: bool) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let sizes = Sizes { has_slots, ..Sizes::DEFAULT };
        let (log, _) = open_with(Wal { sizes, ..Wal::at(dir.path().join("log")) }).expect("it opens");
        Self { log, _dir: dir, entries: 0, took: Duration::ZERO }
    }

    fn run(&mut self, entries: usize, payload_bytes: usize) {
        for _ in 0..16 {
            let (last, checksum) = (self.log.last, self.log.last_checksum);
            let mut builder = BatchBuilder::new(crate::checksum, Term(1), last.index.next(), checksum, 0);
            (0..entries).for_each(|_| builder.push(Kind::Command, &[7; 256][..payload_bytes]));
            let persist = Persist { batch: builder.finish(), ..Persist::default() };
            let began = Instant::now();
            persist_idly(&mut self.log, &[persist]).expect("it is persisted");
            self.took += began.elapsed();
            self.entries += entries;
        }
    }

    fn entries_per_s(&self) -> f64 {
        self.entries as f64 / self.took.as_secs_f64()
    }
}
