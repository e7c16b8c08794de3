//! The cost of pending timers: time per operation, bytes each in memory and in a snapshot.
//! `cargo run --release -p quorate --example timers [COUNT]`

use quorate::{
    LogTime,
    service::timers::{Firing, Timers},
};
use std::{fs, io, time::Instant};

fn main() {
    let count: u64 = std::env::args().nth(1).map_or(1_000_000, |count| count.parse().expect("a number"));
    let keys: Vec<[u8; 20]> = (0..count).map(key).collect();
    let before = resident();
    let mut timers = Timers::default();

    let per = |began: Instant, times: u64| began.elapsed().as_nanos() as u64 / times.max(1);
    let began = Instant::now();
    for (nth, key) in keys.iter().enumerate() {
        timers.set(LogTime(1 + scatter(nth as u64) % 3_600_000), key);
    }
    let (set, memory) = (per(began, count), resident() - before);

    let began = Instant::now();
    for (nth, key) in keys.iter().enumerate() {
        timers.set(LogTime(1 + scatter(nth as u64 + 1) % 3_600_000), key);
    }
    let replaced = per(began, count);

    let began = Instant::now();
    let copy = timers.clone();
    let copied = began.elapsed();
    let mut bytes = Count(0);
    let began = Instant::now();
    copy.write(&mut bytes).expect("a counter takes everything");
    let written = began.elapsed();
    drop(copy);

    let began = Instant::now();
    for key in keys.iter().step_by(2) {
        timers.cancel(key).expect("it is set");
    }
    let cancelled = per(began, count / 2);

    let left = timers.len() as u64;
    let began = Instant::now();
    while !timers.is_empty() {
        let mut firing = Firing::new(LogTime(u64::MAX));
        while timers.fire(&mut firing).is_some() {}
    }
    let fired = per(began, left);

    println!("{count} timers with keys of 20 bytes");
    println!("set {set} ns, replaced {replaced} ns, cancelled {cancelled} ns, fired {fired} ns");
    println!("memory {} B each, snapshot {} B each", memory / count, bytes.0 / count);
    println!("copied in {copied:?}, written in {written:?}");
}

fn key(nth: u64) -> [u8; 20] {
    let mut key = [0; 20];
    key[..8].copy_from_slice(&scatter(nth).to_le_bytes());
    key[8..16].copy_from_slice(&nth.to_le_bytes());
    key
}

/// SplitMix64's finalizer: distinct numbers, in no order.
fn scatter(nth: u64) -> u64 {
    let mut z = nth.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// The resident bytes of this process, by `/proc`; 0 where there is none.
fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or_default() * 4096
}

struct Count(u64);

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
