//! The cost of second places: the log on a real disk, with slots and without, in turns.

use super::*;
use std::time::{Duration, Instant};

/// `cargo test --release -p quorate-storage --lib -- --ignored --nocapture slots_cost`
#[test]
#[ignore = "measures for a minute, and wants a disk that has nothing else to do"]
fn slots_cost_no_second_sync() {
    let mut worst = f64::INFINITY;
    for (entries, payload_bytes) in [(1, 256), (64, 256), (1024, 256), (1, 16), (64, 16), (1024, 16)] {
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
}

impl Lane {
    fn new(has_slots: bool) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let sizes = Sizes { has_slots, ..Sizes::DEFAULT };
        let (log, _) = open_with(Wal { sizes, ..Wal::at(dir.path().join("log")) }).expect("it opens");
        Self { log, _dir: dir, rounds: Vec::new() }
    }

    fn run(&mut self, entries: usize, payload_bytes: usize) {
        let mut took = Duration::ZERO;
        for _ in 0..16 {
            let (last, checksum) = (self.log.last, self.log.last_checksum);
            let mut builder = BatchBuilder::new(crate::checksum, Term(1), last.index.next(), checksum, 0);
            (0..entries).for_each(|_| builder.push(Kind::Command, &[7; 256][..payload_bytes]));
            let persist = Persist { batch: builder.finish(), ..Persist::default() };
            let began = Instant::now();
            persist_idly(&mut self.log, &[persist]).expect("it is persisted");
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
