use super::*;
use rand::{Rng, SeedableRng, rngs::StdRng};

#[test]
fn a_timer_is_set_replaced_and_cancelled_by_its_key() {
    let mut timers = Timers::default();
    assert!(!timers.set(due(LogTime(100), ms(50)), b"a").is_replacing());
    assert_eq!(timers.next_due(), Some(LogTime(150)));
    assert!(timers.set(due(LogTime(100), ms(80)), b"a").is_replacing(), "an equal signal replaces");
    assert_eq!((timers.len(), timers.next_due()), (1, Some(LogTime(180))));
    assert!(timers.cancel(b"b").is_none());
    assert!(timers.cancel(b"a").is_some());
    assert!(timers.cancel(b"a").is_none() && timers.is_empty());
}

#[test]
fn timers_fire_in_the_order_of_due_and_setting_each_at_its_own_time() {
    let mut timers = Timers::default();
    for (delay, key) in [(30, "late"), (10, "first"), (10, "second"), (20, "moved")] {
        timers.set(due(LogTime(0), ms(delay)), key.as_bytes());
    }
    timers.set(due(LogTime(0), ms(10)), b"moved");
    timers.set(due(LogTime(0), ms(10)), b"first");
    let fired = fire_all(&mut timers, 25);
    assert_eq!(fired, [(10, "second".into()), (10, "moved".into()), (10, "first".into())], "set again is set last");
    assert_eq!(fire_all(&mut timers, 29), []);
    assert_eq!(fire_all(&mut timers, 30), [(30, "late".into())]);
}

#[test]
fn a_second_tick_of_the_same_time_fires_nothing() {
    let mut timers = Timers::default();
    timers.set(due(LogTime(0), ms(5)), b"a");
    assert_eq!(fire_all(&mut timers, 5).len(), 1);
    assert_eq!(fire_all(&mut timers, 5), []);
}

#[test]
fn no_delay_is_below_a_millisecond_and_no_part_of_one_is_lost() {
    let nanos = Duration::from_nanos;
    for (delay, expected) in [(nanos(0), 8), (nanos(1), 8), (ms(1), 8), (nanos(1_000_001), 9), (ms(2), 9)] {
        let mut timers = Timers::default();
        timers.set(due(LogTime(7), delay), b"a");
        assert_eq!(timers.next_due(), Some(LogTime(expected)), "{delay:?}");
    }
    let mut timers = Timers::default();
    timers.set(due(LogTime(u64::MAX - 1), Duration::MAX), b"a");
    assert_eq!(timers.next_due(), Some(LogTime(u64::MAX)));
}

#[test]
fn a_tick_fires_at_most_the_bound_and_log_time_stops_at_the_next_due() {
    let mut timers = Timers::default();
    for n in 0..FIRES_MAX + 3 {
        let delay = ms(if n < FIRES_MAX { 1 } else { u64::from(n) });
        timers.set(due(LogTime(0), delay), &n.to_le_bytes());
    }
    let (mut firing, mut fired) = (Firing::new(LogTime(5_000)), 0);
    while timers.fire(&mut firing).is_some() {
        fired += 1;
    }
    assert_eq!(fired, FIRES_MAX);
    assert_eq!(timers.time_after(LogTime(5_000)), LogTime(FIRES_MAX.into()), "not 5,000: one is due before");
    assert_eq!(fire_all(&mut timers, 5_000).len(), 3, "a further tick goes on");
    assert_eq!(timers.time_after(LogTime(5_000)), LogTime(5_000));
}

#[test]
fn a_timer_that_a_signal_sets_within_the_tick_fires_in_its_turn() {
    let mut timers = Timers::default();
    timers.set(due(LogTime(0), ms(10)), b"every 10");
    timers.set(due(LogTime(0), ms(15)), b"once");
    let (mut firing, mut fired) = (Firing::new(LogTime(30)), Vec::new());
    while let Some((at, undo)) = timers.fire(&mut firing) {
        fired.push(at.0);
        if undo.key() == b"every 10" {
            timers.set(due(at, ms(10)), undo.key());
        }
    }
    assert_eq!(fired, [10, 15, 20, 30], "a periodic timer does not drift");
    assert_eq!(timers.next_due(), Some(LogTime(40)));
}

#[test]
fn a_timer_that_sets_itself_without_delay_does_not_loop_within_an_entry() {
    let mut timers = Timers::default();
    timers.set(due(LogTime(0), ms(0)), b"again");
    let (mut firing, mut fired) = (Firing::new(LogTime(1_000_000)), 0);
    while let Some((at, undo)) = timers.fire(&mut firing) {
        fired += 1;
        timers.set(due(at, ms(0)), undo.key());
    }
    assert_eq!(fired, FIRES_MAX);
    assert_eq!(timers.time_after(LogTime(1_000_000)), LogTime(u64::from(FIRES_MAX) + 1));
}

/// Against a sorted list, with seeds: every operation, undone and not, and a copy that stays as
/// it was made.
#[test]
fn the_table_equals_a_dumb_one() {
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut timers, mut model, mut now) = (Timers::default(), Model::default(), 0);
        let mut copies = Vec::new();
        for _ in 0..200 {
            let (before, model_before, mut undos) = (timers.clone(), model.clone(), Vec::new());
            for _ in 0..rng.random_range(1..6) {
                step(&mut rng, &mut timers, &mut model, &mut now, &mut undos);
                check(&timers, &model);
            }
            if rng.random_bool(0.2) {
                undos.into_iter().rev().for_each(|undo| timers.undo(undo));
                assert_eq!(timers, before, "seed {seed}: all is taken back");
                model = model_before;
            }
            if rng.random_bool(0.05) {
                copies.push((timers.clone(), model.clone()));
            }
        }
        copies.iter().for_each(|(timers, model)| check(timers, model));
    }
}

fn step(rng: &mut StdRng, timers: &mut Timers, model: &mut Model, now: &mut u64, undos: &mut Vec<Undo>) {
    let key = [rng.random_range(0..12), 0, 7];
    match rng.random_range(0..8) {
        0..=3 => {
            let delay = rng.random_range(0..20);
            let undo = timers.set(due(LogTime(*now), ms(delay)), &key);
            assert_eq!(undo.is_replacing(), model.remove(&key));
            model.rows.push((*now + delay.max(1), model.next, key.to_vec()));
            model.next += 1;
            model.rows.sort();
            undos.push(undo);
        }
        4..=5 => {
            let undo = timers.cancel(&key);
            assert_eq!(undo.is_some(), model.remove(&key));
            undos.extend(undo);
        }
        _ => {
            *now += rng.random_range(0..15);
            let mut firing = Firing::new(LogTime(*now));
            while let Some((due, undo)) = timers.fire(&mut firing) {
                let (model_due, _, key) = model.rows.remove(0);
                assert_eq!((due.0, undo.key()), (model_due, &key[..]));
                assert!(due.0 <= *now);
                undos.push(undo);
            }
            assert!(model.rows.first().is_none_or(|(due, ..)| due > now), "each that is due fires");
        }
    }
}

#[derive(Clone, Default)]
struct Model {
    rows: Vec<(u64, u64, Vec<u8>)>,
    next: u64,
}

impl Model {
    fn remove(&mut self, key: &[u8]) -> bool {
        let before = self.rows.len();
        self.rows.retain(|(.., other)| other != key);
        self.rows.len() < before
    }
}

fn check(timers: &Timers, model: &Model) {
    let rows: Vec<_> = timers.by_due.iter().map(|(place, key)| (place.due.0, place.number, key.to_vec())).collect();
    assert_eq!(rows, model.rows);
    assert_eq!(timers.by_key.len(), rows.len());
    assert!(rows.iter().all(|(due, number, key)| {
        timers.by_key.get(&sought(key)) == Some(&Place { due: LogTime(*due), number: *number })
    }));
    let bytes = written(timers);
    assert_eq!(read(&bytes).expect("a table"), *timers);
}

#[test]
fn the_layout_is_the_documented_one() {
    let mut timers = Timers::default();
    timers.set(due(LogTime(0x100), ms(0x20)), b"late");
    timers.set(due(LogTime(0x100), ms(0x10)), b"x");
    let hex = "02 00 00 00 00 00 00 00  02 00 00 00 00 00 00 00 \
               10 01 00 00 00 00 00 00  01 00 00 00 00 00 00 00  01 00 00 00  78 \
               20 01 00 00 00 00 00 00  00 00 00 00 00 00 00 00  04 00 00 00  6c 61 74 65";
    let expected: Vec<_> =
        hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect("two hexadecimal digits")).collect();
    assert_eq!(written(&timers), expected);
}

#[test]
fn a_damaged_table_is_refused_or_is_another_table() {
    let mut timers = Timers::default();
    (0..3u8).for_each(|key| drop(timers.set(LogTime(9 + u64::from(key) * 3), &[key, 5])));
    let good = written(&timers);
    for end in 0..good.len() {
        assert!(read(&good[..end]).is_err(), "cut at {end}");
    }
    for bit in 0..good.len() * 8 {
        let mut damaged = good.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        if let Ok(timers) = read(&damaged) {
            assert!(damaged.starts_with(&written(&timers)), "bit {bit} has two meanings");
        }
    }
}

fn fire_all(timers: &mut Timers, until: u64) -> Vec<(u64, String)> {
    let mut firing = Firing::new(LogTime(until));
    std::iter::from_fn(|| timers.fire(&mut firing))
        .map(|(due, undo)| (due.0, String::from_utf8(undo.key().to_vec()).expect("text")))
        .collect()
}

fn written(timers: &Timers) -> Vec<u8> {
    let mut bytes = Vec::new();
    timers.write(&mut bytes).expect("memory takes everything");
    bytes
}

fn read(mut bytes: &[u8]) -> io::Result<Timers> {
    Timers::read(&mut Reader::new(&mut bytes))
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
