//! One test for each rule of the table, and a comparison of all rules with a naive twin
//! under random operations.

use super::*;
use quorate_raft::Term;
use rand::{Rng, SeedableRng, rngs::SmallRng};

#[test]
fn a_serial_that_was_applied_gets_its_first_answer_again_and_the_machine_is_not_called() {
    let mut world = World::default();
    let first = world.command("a", 1);
    assert_eq!(first, applied(1, "1"));
    world.command("a", 2);
    world.command("b", 1);
    assert_eq!(world.command("a", 1), first);
    assert_eq!(world.command("a", 2), applied(2, "2"));
    assert_eq!(world.machine, 3, "each was applied once");
}

#[test]
fn a_session_remembers_that_a_serial_was_skipped() {
    let mut world = World::default();
    let request = Request::Command { key: name("a"), serial: 1, command: b"poison" };
    for _ in 0..2 {
        world.index += 1;
        let entry = Skip { index: Index(world.index), term: Term(3), checksum: 7 };
        world.table.skip(entry);
        let verdict = world.table.apply(Index(world.index), world.stamp, &request, |_| None);
        assert_eq!(verdict, Verdict::Refused(Refusal::Skipped));
    }
    assert_eq!(world.command("a", 1), Verdict::Refused(Refusal::Skipped), "and the machine is not called");
    assert_eq!(world.machine, 0);
    let mut bytes = Vec::new();
    write(&world.table, &mut bytes).expect("written");
    let restored = read(&mut &bytes[..]).expect("sessions");
    assert_eq!((&restored, restored.skipped().len()), (&world.table, 2), "snapshots have it");
}

#[test]
fn serials_may_come_in_any_order_within_the_window() {
    let mut world = World::default();
    for serial in [WINDOW, 1, 2, WINDOW - 1] {
        assert!(matches!(world.command("a", serial), Verdict::Applied { .. }));
    }
    assert_eq!(world.command("a", 1), applied(2, "2"));
}

#[test]
fn a_serial_below_the_window_is_stale_and_never_applied() {
    let mut world = World::default();
    world.command("a", 1);
    world.command("a", 1 + WINDOW);
    let machine = world.machine;
    assert_eq!(world.command("a", 1), Verdict::Refused(Refusal::StaleSerial));
    assert_eq!(world.command("a", 0), Verdict::Refused(Refusal::StaleSerial));
    assert_eq!(world.machine, machine);
    assert!(matches!(world.command("a", 2), Verdict::Applied { .. }), "it was not used, and is within");
}

#[test]
fn the_highest_serial_leaves_no_room_behind_it_and_breaks_nothing() {
    let mut world = World::default();
    assert!(matches!(world.command("a", u64::MAX), Verdict::Applied { .. }));
    assert_eq!(world.command("a", u64::MAX), applied(1, "1"));
    assert_eq!(world.command("a", u64::MAX - WINDOW), Verdict::Refused(Refusal::StaleSerial));
}

#[test]
fn a_command_of_an_opened_session_that_is_not_known_is_not_applied() {
    let mut world = World::default();
    let key = world.open();
    assert!(matches!(world.of(&key, 1), Verdict::Applied { .. }));
    let stranger = SessionKey::opened(Index(77));
    assert_eq!(world.of(&stranger, 1), Verdict::Refused(Refusal::Expired));
    assert_eq!(world.machine, 1);
    assert_eq!(world.table.len(), 1, "it does not come into being");
}

#[test]
fn a_session_ends_when_it_was_not_used_for_its_time_in_log_time() {
    let mut world = World::default();
    let key = world.open();
    world.command("a", 1);
    world.stamp.time.0 += 1_000;
    assert!(matches!(world.of(&key, 1), Verdict::Applied { .. }), "its time is not over before the end");
    world.stamp.time.0 += 1;
    world.command("b", 1);
    assert_eq!(world.table.len(), 2, "the other one was not used since");
    assert_eq!(world.command("a", 1), applied(5, "4"), "a named one comes into being again, and remembers nothing");
    world.stamp.time.0 += 1_001;
    assert_eq!(world.of(&key, 1), Verdict::Refused(Refusal::Expired));
    assert_eq!(world.table.len(), 0);
}

#[test]
fn a_retry_keeps_a_session_from_expiring() {
    let mut world = World::default();
    let key = world.open();
    for _ in 0..5 {
        world.stamp.time.0 += 900;
        assert_eq!(world.of(&key, 1), applied(2, "1"));
    }
}

#[test]
fn log_time_never_goes_back() {
    let mut world = World::default();
    world.stamp.time.0 = 5_000;
    world.command("a", 1);
    world.stamp.time.0 = 10;
    world.command("b", 1);
    assert_eq!(world.table.now(), LogTime(5_000));
    world.stamp.time.0 = 5_900;
    world.command("b", 2);
    assert_eq!(world.table.len(), 2, "both were used at 5,000");
}

#[test]
fn the_session_that_was_not_used_for_longest_makes_room() {
    let mut world = World::default();
    world.stamp.sessions_max = 2;
    world.command("a", 1);
    world.command("b", 1);
    world.command("a", 2);
    world.command("c", 1);
    assert_eq!(world.table.len(), 2);
    assert_eq!(world.command("a", 1), applied(1, "1"), "it was used again");
    assert_eq!(world.command("b", 1), applied(6, "5"), "it was forgotten");
}

#[test]
fn there_is_always_room_for_the_one_that_is_used() {
    let mut world = World::default();
    world.stamp.sessions_max = 0;
    let key = world.open();
    assert!(matches!(world.of(&key, 1), Verdict::Applied { .. }));
    assert_eq!(world.table.len(), 1);
}

#[test]
fn answers_that_take_too_much_are_let_go_and_the_latest_is_kept_whatever_it_takes() {
    let mut world = World { padding: SESSION_REPLY_BYTES_MAX / 2, ..World::default() };
    (1..=3).for_each(|serial| drop(world.command("a", serial)));
    assert_eq!(world.command("a", 1), Verdict::Refused(Refusal::StaleSerial), "its answer is gone, it is not applied");
    assert!(matches!(world.command("a", 3), Verdict::Applied { .. }));
    world.padding = SESSION_REPLY_BYTES_MAX * 2;
    let first = world.command("a", 4);
    assert_eq!(world.command("a", 4), first);
    assert_eq!(world.command("a", 3), Verdict::Refused(Refusal::StaleSerial));
    assert_eq!(world.machine, 4);
}

#[test]
fn all_answers_together_are_bounded_and_a_serial_with_a_dropped_answer_is_never_applied_again() {
    let mut world = World { padding: REPLY_BYTES_MAX / 4, ..World::default() };
    let names = ["a", "b", "c", "d", "e", "f"];
    let first = names.map(|name| {
        let first = world.command(name, 1);
        assert!(world.table.reply_bytes <= REPLY_BYTES_MAX);
        world.table.check(world.stamp);
        first
    });
    assert_eq!(world.table.len(), 6, "a session that ended would apply its command again");
    let mut bytes = Vec::new();
    write(&world.table, &mut bytes).expect("written");
    assert_eq!(read(&mut &bytes[..]).expect("sessions"), world.table, "a node with the snapshot drops the same ones");
    drop(bytes);
    for (nth, name) in names.into_iter().enumerate() {
        // With the digits of the answers, there is no room for a fourth one.
        let expected = if nth < 3 { &Verdict::Refused(Refusal::StaleSerial) } else { &first[nth] };
        assert!(world.command(name, 1) == *expected, "{name}");
    }
    assert_eq!(world.machine, 6, "each was applied once");

    world.padding = REPLY_BYTES_MAX * 2;
    let large = world.command("g", 1);
    assert!(world.command("g", 1) == large, "one that is alone too large stays until the next");
    world.padding = 0;
    world.command("h", 1);
    world.table.check(world.stamp);
    assert_eq!((world.table.reply_bytes, world.table.len()), (1, 8), "it alone is kept");
    assert_eq!(world.command("g", 1), Verdict::Refused(Refusal::StaleSerial));
    assert_eq!(world.machine, 8);
}

#[test]
fn replicas_agree_with_each_other_and_with_a_dumb_twin_whatever_happens() {
    for seed in 0..300 {
        let mut random = SmallRng::seed_from_u64(seed);
        let (mut one, mut other, mut twin) = (World::default(), World::default(), Twin::default());
        let mut keys: Vec<_> = ["a", "b", "c"].map(name).to_vec();
        for index in 1..400 {
            let passed =
                if random.random_bool(0.05) { random.random_range(0..1_500) } else { random.random_range(0..20) };
            let stamp = Stamp {
                time: LogTime((one.stamp.time.0 + passed).saturating_sub(random.random_range(0..10))),
                idle_limit_ms: 1_000,
                sessions_max: random.random_range(2..6),
            };
            (one.stamp, other.stamp) = (stamp, stamp);
            let key =
                if random.random_bool(0.1) { None } else { keys.get(random.random_range(0..keys.len())).cloned() };
            let serial = random.random_range(0..100u64) + if random.random_bool(0.2) { index } else { 0 };
            let verdict = match &key {
                None => {
                    keys.push(one.open());
                    other.open();
                    applied(index, "")
                }
                Some(key) => {
                    assert_eq!(one.of(key, serial), other.of(key, serial));
                    one.last.clone()
                }
            };
            assert_eq!(verdict, twin.apply(Index(index), stamp, key.as_ref(), serial), "seed {seed}, entry {index}");
            assert_eq!(one.table, other.table);
            assert_eq!(one.table.len(), twin.sessions.len());
            one.table.check(stamp);
            if random.random_bool(0.05) {
                // The other table becomes the one that a snapshot restores.
                let mut bytes = Vec::new();
                write(&one.table, &mut bytes).expect("memory takes everything");
                other.table = read(&mut &bytes[..]).expect("what was written");
            }
        }
    }
}

impl Table {
    fn check(&self, stamp: Stamp) {
        assert!(self.len() <= stamp.sessions_max.max(1) as usize);
        assert_eq!(self.by_use.len(), self.sessions.len());
        for (index, key) in &self.by_use {
            assert_eq!(self.sessions[key].used_by, *index);
        }
        let bytes: usize = self.sessions.values().map(|session| session.reply_bytes).sum();
        assert_eq!(self.reply_bytes, bytes);
        let with_replies = self.by_use.iter().filter(|(_, key)| self.sessions[key].reply_bytes > 0);
        assert!(with_replies.map(|(index, _)| index).eq(&self.with_replies));
        for session in self.sessions.values() {
            let serials: Vec<_> = session.answers.keys().collect();
            assert!(serials.len() as u64 <= WINDOW);
            assert!(serials.first().is_none_or(|first| *serials[serials.len() - 1] - *first < WINDOW));
        }
    }
}

/// A naive table: lists, searched from end to end.
#[derive(Default)]
struct Twin {
    now: u64,
    /// The key and the log time of the last use, in order of use.
    sessions: Vec<(SessionKey, u64)>,
    /// Every answer that a session of that key remembers.
    answers: Vec<(SessionKey, u64, Verdict)>,
    machine: u64,
}

impl Twin {
    fn apply(&mut self, index: Index, stamp: Stamp, key: Option<&SessionKey>, serial: u64) -> Verdict {
        self.now = self.now.max(stamp.time.0);
        while let Some(at) = self.sessions.iter().position(|(_, used)| used + 1_000 < self.now) {
            self.end(at);
        }
        let verdict = match key {
            None => {
                self.sessions.push((SessionKey::opened(index), self.now));
                applied(index.0, "")
            }
            Some(key) if key.is_opened() && !self.sessions.iter().any(|(other, _)| other == key) => {
                Verdict::Refused(Refusal::Expired)
            }
            Some(key) => {
                self.sessions.retain(|(other, _)| other != key);
                self.sessions.push((key.clone(), self.now));
                self.command(index, key, serial)
            }
        };
        while self.sessions.len() > stamp.sessions_max as usize {
            self.end(0);
        }
        verdict
    }

    fn command(&mut self, index: Index, key: &SessionKey, serial: u64) -> Verdict {
        let of_this = self.answers.iter().filter(|(other, ..)| other == key);
        if let Some((.., first)) = of_this.clone().find(|(_, other, _)| *other == serial) {
            let highest = of_this.map(|(_, serial, _)| *serial).max().unwrap_or_default();
            if highest - serial < WINDOW {
                return first.clone();
            }
            return Verdict::Refused(Refusal::StaleSerial);
        }
        if of_this.map(|(_, serial, _)| *serial).any(|other| other >= serial + WINDOW) {
            return Verdict::Refused(Refusal::StaleSerial);
        }
        self.machine += 1;
        let verdict = applied(index.0, &self.machine.to_string());
        self.answers.push((key.clone(), serial, verdict.clone()));
        verdict
    }

    fn end(&mut self, at: usize) {
        let (key, _) = self.sessions.remove(at);
        self.answers.retain(|(other, ..)| *other != key);
    }
}

/// A table and a machine that counts.
struct World {
    table: Table,
    stamp: Stamp,
    index: u64,
    machine: u64,
    padding: usize,
    last: Verdict,
}

impl Default for World {
    fn default() -> Self {
        let stamp = Stamp { time: LogTime(0), idle_limit_ms: 1_000, sessions_max: 100 };
        Self { table: Table::default(), stamp, index: 0, machine: 0, padding: 0, last: applied(0, "") }
    }
}

impl World {
    fn open(&mut self) -> SessionKey {
        self.index += 1;
        let index = Index(self.index);
        let verdict = self.table.apply(index, self.stamp, &Request::Open, |_| panic!("there is nothing to apply"));
        assert_eq!(verdict, applied(self.index, ""));
        SessionKey::opened(index)
    }

    fn command(&mut self, session: &str, serial: u64) -> Verdict {
        self.of(&name(session), serial)
    }

    fn of(&mut self, key: &SessionKey, serial: u64) -> Verdict {
        self.index += 1;
        let request = Request::Command { key: key.clone(), serial, command: b"count" };
        let (machine, padding) = (&mut self.machine, self.padding);
        self.last = self.table.apply(Index(self.index), self.stamp, &request, |command| {
            assert_eq!(command, b"count");
            *machine += 1;
            Some(format!("{machine}{}", " ".repeat(padding)).into())
        });
        self.last.clone()
    }
}

fn applied(index: u64, reply: &str) -> Verdict {
    Verdict::Applied { index: Index(index), reply: Bytes::copy_from_slice(reply.as_bytes()) }
}

fn name(name: &str) -> SessionKey {
    SessionKey::named(name.as_bytes()).expect("a name")
}
