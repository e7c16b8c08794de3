use super::*;
use crate::{
    machine::cause_of,
    service::{
        history::{Next, Topics},
        outbox::{self, EffectId},
        state::State,
        timers::FIRES_MAX,
        windows,
    },
};
use quorate_raft::{NodeId, Term};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A service that does what its commands and signals say, and logs what it sees.
#[derive(Clone, Default, PartialEq, Debug, Serialize, Deserialize)]
struct Script(Vec<String>);

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Op {
    Log,
    After(u64, String, Vec<Op>),
    Cancel(String, Vec<Op>),
    Publish(String, String),
    Perform(String, String),
    Draw,
    Panic,
    /// Of version 1.
    New,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Wake(String, Vec<Op>);

impl Service for Script {
    crate::types!(Vec<Op> => Vec<String>, usize => Option<String>, event String, signal Wake, effect String);
    const VERSION: u32 = 1;

    fn since(command: &Vec<Op>) -> u32 {
        command.iter().any(|op| matches!(op, Op::New)).into()
    }

    fn apply(&mut self, ops: Vec<Op>, cx: &mut Context<'_, Self>) -> Vec<String> {
        self.run("called", ops, cx)
    }

    fn signal(&mut self, Wake(name, ops): Wake, cx: &mut Context<'_, Self>) {
        self.0.push(format!("{name} at {}", cx.now().0));
        self.run(&name, ops, cx);
    }

    fn query(&self, line: usize, _: At) -> Option<String> {
        self.0.get(line).cloned()
    }
}

impl Script {
    fn run(&mut self, name: &str, ops: Vec<Op>, cx: &mut Context<'_, Self>) -> Vec<String> {
        let mut said = Vec::new();
        for op in ops {
            said.push(match op {
                Op::Log => format!("{name}: {:?}, {:?}, token {}", cx.cause(), cx.session(), cx.token()),
                Op::After(ms, name, ops) => {
                    cx.after(Duration::from_millis(ms), Wake(name, ops));
                    String::new()
                }
                Op::Cancel(name, ops) => cx.cancel(&Wake(name, ops)).to_string(),
                Op::Publish(topic, event) => {
                    cx.publish(&topic, event);
                    String::new()
                }
                Op::Perform(key, effect) => format!("{:?}", cx.perform(&key, effect)),
                Op::Draw => cx.random().next_u64().to_string(),
                Op::Panic => panic!("as it was told"),
                Op::New => "new".into(),
            });
        }
        self.0.extend(said.iter().cloned());
        said
    }
}

#[test]
fn a_command_is_applied_and_the_query_sees_it() {
    let mut machine = Hosted::new(Script::default);
    assert_eq!(call(&mut machine, 1, vec![Op::Cancel("none".into(), vec![])]), Ok(vec!["false".into()]));
    assert_eq!(machine.query(0), Some("false".into()));
    assert_eq!(machine.query(1), None);
}

#[test]
fn a_refused_command_changes_nothing_and_says_why() {
    let mut machine = Hosted::new(Script::default);
    let outcome = machine.command(&at(1), None, b"no command").expect("no halt");
    assert_eq!(Hosted::<Script>::decode(&outcome), Some(Err(Refused::Unreadable)));
    assert_eq!(call(&mut machine, 2, vec![Op::New]), Err(Refused::TooNew { needs: 1, cluster: 0 }));
    assert_eq!(machine.service().0, Vec::<String>::new());
    raise(&mut machine, 3, 1).expect("it reads version 1");
    assert_eq!(call(&mut machine, 4, vec![Op::New]), Ok(vec!["new".into()]));
    raise(&mut machine, 5, 0).expect("it reads version 0");
    assert_eq!(call(&mut machine, 6, vec![Op::New]), Ok(vec!["new".into()]), "a version never falls");
}

#[test]
fn a_release_too_old_for_the_cluster_halts_by_name_where_the_version_rises() {
    let mut machine = Hosted::new(Script::default);
    let halt = raise(&mut machine, 7, 2).expect_err("it reads version 1");
    assert_eq!(halt, Halt { at: Index(7), cause: HaltCause::TooOld { needs: 2, release: 1 } });
    assert!(halt.to_string().contains("entry 7") && halt.to_string().contains("version 2"), "{halt}");
    assert_eq!(machine.command(&at(8), None, &Hosted::<Script>::encode(&vec![Op::Log])), Err(halt));
    assert_eq!(machine.service().0, Vec::<String>::new(), "nothing of the new version is applied");
}

#[test]
fn a_panic_drops_all_output_of_its_entry_and_halts_the_machine_there() {
    let mut machine = Hosted::new(Script::default);
    let before = [Op::After(5, "kept".into(), vec![]), Op::Perform("k".into(), "e".into())];
    call(&mut machine, 1, before.to_vec()).expect("no refusal");
    let tables = written_tables(&machine);
    let ops = vec![
        Op::After(9, "kept".into(), vec![]),
        Op::After(1, "new".into(), vec![]),
        Op::Cancel("kept".into(), vec![]),
        Op::Publish("a".into(), "b".into()),
        Op::Perform("k".into(), "f".into()),
        Op::Panic,
    ];
    let halt = machine.command(&at(2), None, &Hosted::<Script>::encode(&ops)).expect_err("it panics");
    assert_eq!(halt, Halt { at: Index(2), cause: HaltCause::Panicked { message: "as it was told".into() } });
    assert_eq!(written_tables(&machine), tables, "as before the entry");
    assert_eq!(machine.command(&at(3), None, &Hosted::<Script>::encode(&vec![])), Err(halt.clone()));
    assert_eq!(machine.fire(&At { time: LogTime(99), ..at(4) }, Clock::default()), Err(halt.clone()));
    assert_eq!(machine.inside(&at(5), &[]), Err(halt.clone()));
    assert_eq!((machine.halted(), machine.next_due()), (Some(&halt), Some(LogTime(5))));
    let write = machine.snapshot().expect("an error, not a machine without snapshots");
    assert!(write(&mut Vec::new()).expect_err("a halted machine takes none").to_string().contains("entry 2"));
}

#[test]
fn a_panic_in_the_first_entry_of_a_window_keeps_the_hash_of_the_window_before() {
    let mut machine = Hosted::new(Script::default);
    call(&mut machine, 1, vec![]).expect("no refusal");
    let tables = written_tables(&machine);
    let poison = Hosted::<Script>::encode(&vec![Op::Panic]);
    machine.command(&at(1_024), None, &poison).expect_err("it panics");
    assert_eq!(written_tables(&machine), tables, "as before the entry");
}

#[test]
fn a_halted_machine_that_is_applied_to_unwinds_with_the_cause() {
    let mut machine = Hosted::new(Script::default);
    let bytes = Hosted::<Script>::encode(&vec![Op::Panic]);
    let ended = panic::catch_unwind(AssertUnwindSafe(|| machine.apply(&at(3), &bytes))).expect_err("it ends");
    assert_eq!(cause_of(&*ended), HaltCause::Panicked { message: "as it was told".into() });
}

#[test]
fn timers_fire_in_a_tick_each_at_its_own_time_with_a_token_of_its_own() {
    let mut machine = Hosted::new(Script::default);
    let again = |ms| Op::After(ms, "again".into(), vec![Op::Log]);
    call(&mut machine, 1, vec![Op::After(30, "late".into(), vec![]), Op::After(10, "early".into(), vec![again(5)])])
        .expect("no refusal");
    tick(&mut machine, 2, 9);
    assert_eq!(lines(&machine), ["", ""]);
    tick(&mut machine, 3, 35);
    let expected = ["", "", "early at 10", "", "again at 15", "again: Timer, None, token 0.3.1", "late at 30"];
    assert_eq!(lines(&machine), expected);
    assert_eq!((machine.tables().at.time, machine.next_due()), (LogTime(35), None));
    tick(&mut machine, 4, 35);
    assert_eq!(lines(&machine), expected, "a second tick fires nothing");
}

#[test]
fn the_defaults_before_the_first_tick_are_those_of_a_tick() {
    assert_eq!(Clock::default(), Clock::of(&Tick::default()));
    let tick = Tick { random: [1, 0, 0, 0, 0, 0, 0, 2], ..Tick::default() };
    let expected = Clock { random: 1 | 2 << 56, ..Clock::default() };
    assert_eq!(Clock::of(&tick), expected);
}

#[test]
fn a_machine_is_pending_while_an_effect_is_not_completed() {
    let mut machine = Hosted::new(Script::default);
    assert!(!machine.is_pending() && machine.uses_time());
    call(&mut machine, 1, vec![Op::Perform("k".into(), "e".into())]).expect("no refusal");
    assert!(machine.is_pending());
    done(&mut machine, at(2), effect(1, 0), Term(3), "done");
    assert!(!machine.is_pending());
}

#[test]
fn log_time_stops_before_the_timers_that_a_tick_may_not_fire() {
    let mut machine = Hosted::new(Script::default);
    let ops = (0..FIRES_MAX + 6).map(|n| Op::After(10 + u64::from(n / FIRES_MAX), n.to_string(), vec![])).collect();
    call(&mut machine, 1, ops).expect("no refusal");
    tick(&mut machine, 2, 500);
    assert_eq!((machine.tables().at.time, machine.next_due()), (LogTime(11), Some(LogTime(11))));
    assert_eq!(machine.tables().timers.len(), 6);
    // The core leaves time where the machine stopped, for the entries in between.
    let outcome = machine.command(&At { time: LogTime(11), ..at(3) }, None, &Hosted::<Script>::encode(&vec![]));
    assert!(outcome.is_ok());
    tick(&mut machine, 4, 500);
    assert_eq!((machine.tables().at.time, machine.next_due()), (LogTime(500), None));
}

#[test]
fn a_panic_in_one_timer_of_a_tick_drops_the_output_of_all() {
    let mut machine = Hosted::new(Script::default);
    let ops = vec![
        Op::After(10, "good".into(), vec![Op::Publish("a".into(), "b".into()), Op::Perform("k".into(), "e".into())]),
        Op::After(20, "bad".into(), vec![Op::Panic]),
    ];
    call(&mut machine, 1, ops).expect("no refusal");
    let tables = written_tables(&machine);
    let clock = Clock { random: 7, ..Clock::default() };
    let halt = machine.fire(&At { time: LogTime(30), ..at(2) }, clock).expect_err("it panics");
    assert_eq!(halt.at, Index(2));
    assert_eq!(written_tables(&machine), tables, "the clock, too");
}

#[test]
fn an_effect_is_completed_by_its_own_term_and_its_result_is_a_signal() {
    let mut machine = Hosted::new(Script::default);
    let ops = vec![Op::Perform("k".into(), "one".into()), Op::Perform("k".into(), "two".into())];
    call(&mut machine, 5, ops).expect("no refusal");
    let ids: Vec<_> = machine.tables().outbox.heads().collect();
    assert_eq!(ids, [effect(5, 0)], "the second waits for the first");
    done(&mut machine, at(6), effect(5, 0), Term(1), "late");
    assert_eq!(machine.tables().outbox.len(), 2, "the entry is of another term than the effect's leader");
    done(&mut machine, at(7), effect(5, 0), Term(3), "first");
    assert_eq!(
        lines(&machine)[2..],
        ["first at 0", "first: Effect(EffectId { index: Index(5), nth: 0 }), None, token 0.7.0"]
    );
    assert_eq!(machine.tables().outbox.heads().collect::<Vec<_>>(), [effect(5, 1)]);
    done(&mut machine, at(8), effect(5, 0), Term(3), "again");
    assert_eq!(lines(&machine).len(), 4, "a second completion changes nothing");
}

#[test]
fn a_full_outbox_is_told_in_the_command_and_the_bounds_are_the_ticks() {
    let mut machine = Hosted::new(Script::default);
    let clock = Clock { outbox: outbox::Bounds { rows: 1, bytes: 100 }, ..Clock::default() };
    machine.fire(&at(1), clock).expect("no halt");
    let ops = vec![Op::Perform("a".into(), "x".into()), Op::Perform("b".into(), "y".into())];
    let said = call(&mut machine, 2, ops).expect("no refusal");
    assert_eq!(said, ["Ok(EffectId { index: Index(2), nth: 0 })", "Err(OutboxFull)"]);
}

#[test]
fn the_events_of_an_entry_are_one_change_and_those_of_a_tick_too() {
    let mut machine = Hosted::new(Script::default);
    let publish = |topic: &str| Op::Publish(topic.into(), format!("of {topic}"));
    let ops = vec![
        publish("a"),
        publish("b"),
        Op::After(5, "x".into(), vec![publish("a")]),
        Op::After(6, "y".into(), vec![publish("a")]),
    ];
    call(&mut machine, 4, ops).expect("no refusal");
    tick(&mut machine, 5, 9);
    let read = |position, topics: Topics| match machine.tables().history.read(Index(position), Index(5), &topics) {
        Ok(Next::Changes(changes)) => (changes.index.0, changes.time.0, changes.events.len()),
        other => panic!("{other:?}"),
    };
    assert_eq!((read(0, Topics::All), read(0, "b".into()), read(4, Topics::All)), ((4, 0, 2), (4, 0, 1), (5, 9, 2)));
}

#[test]
fn lower_bounds_of_a_tick_evict_at_its_entry() {
    let mut machine = Hosted::new(Script::default);
    (1..=3).for_each(|index| drop(call(&mut machine, index, vec![Op::Publish("a".into(), "b".into())])));
    let history = crate::service::history::Bounds { events: 1, bytes: 100 };
    machine.fire(&at(4), Clock { history, ..Clock::default() }).expect("no halt");
    assert_eq!((machine.tables().history.floor(), machine.tables().history.len()), (Index(2), 1));
}

#[test]
fn random_numbers_depend_on_the_tick_the_entry_and_the_signal() {
    let drawn = |random, index| {
        let mut machine = Hosted::new(Script::default);
        machine.fire(&at(1), Clock { random, ..Clock::default() }).expect("no halt");
        call(&mut machine, index, vec![Op::Draw, Op::Draw]).expect("no refusal")
    };
    assert_eq!(drawn(1, 2), drawn(1, 2));
    assert_ne!(drawn(1, 2), drawn(2, 2));
    assert_ne!(drawn(1, 2), drawn(1, 3));
    assert_ne!(drawn(1, 2)[0], drawn(1, 2)[1]);
    let mut machine = Hosted::new(Script::default);
    let draws = ["x", "y"].map(|name| Op::After(1, name.into(), vec![Op::Draw]));
    call(&mut machine, 1, draws.to_vec()).expect("no refusal");
    tick(&mut machine, 2, 5);
    assert_ne!(lines(&machine)[3], lines(&machine)[5], "two timers of one tick");
}

#[test]
fn a_command_knows_its_session_and_its_token_rises_with_entry_and_generation() {
    let mut machine = Hosted::new(Script::default);
    let key = SessionKey::named(b"me").expect("a name");
    let outcome = machine.command(&at(2), Some(&key), &Hosted::<Script>::encode(&vec![Op::Log])).expect("no halt");
    let said = Hosted::<Script>::decode(&outcome).expect("an outcome").expect("no refusal");
    assert_eq!(said, ["called: Call, Some(SessionKey(named, 2 B)), token 0.2.0"]);
    renew(&mut machine, 3, 9);
    assert_eq!(
        call(&mut machine, 1, vec![Op::Log]),
        Ok(vec!["called: Call, None, token 9.1.0".into()]),
        "indexes went back"
    );
    renew(&mut machine, 4, 8);
    tick(&mut machine, 5, 30);
    assert_eq!(machine.tables().generation, 9, "it never falls, and ticks leave it");
    let mut twin = restored(&written(&machine)).expect("its own");
    assert_eq!(call(&mut twin, 6, vec![Op::Log]), call(&mut machine, 6, vec![Op::Log]), "a snapshot has it");
    assert!(call(&mut twin, 7, vec![Op::Log]).expect("no refusal")[0].ends_with("token 9.7.0"));
}

/// Seeds: one machine applies a log; a twin is saved and restored between its entries. Outcomes,
/// hashes and the bytes of the snapshots are equal, and no timer is overdue at any entry.
#[test]
fn a_restored_twin_goes_on_alike_and_equal_states_give_equal_bytes() {
    for seed in 0..60 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut one, mut twin) = (Hosted::new(Script::default), Hosted::new(Script::default));
        let mut now = 0;
        for index in 1..150 {
            let index = index * 40;
            let at = At { time: one.tables().at.time, unix_ms: 5, ..at(index) };
            match rng.random_range(0..6) {
                0..3 => {
                    let bytes =
                        Hosted::<Script>::encode(&(0..rng.random_range(0..4)).map(|_| draw(&mut rng, 2)).collect());
                    assert_eq!(one.command(&at, None, &bytes), twin.command(&at, None, &bytes));
                }
                3..5 => {
                    now += rng.random_range(0..20);
                    let clock = Clock { random: rng.random(), ..Clock::default() };
                    let at = At { time: LogTime(now).max(at.time), ..at };
                    assert_eq!((one.fire(&at, clock), twin.fire(&at, clock)), (Ok(()), Ok(())));
                }
                _ => {
                    let head = one.tables().outbox.heads().next();
                    if let Some(id) = head {
                        let term = Term(rng.random_range(2..4));
                        done(&mut one, at, id, term, "done");
                        done(&mut twin, at, id, term, "done");
                    }
                }
            }
            // A restored machine has no claim until a window is over.
            if let Some(claimed) = twin.claim() {
                assert_eq!(Some(claimed), one.claim());
            }
            if rng.random_bool(0.1) {
                twin = restored(&written(&twin)).expect("its own");
                let (tables, of) = (twin.tables(), one.tables());
                assert_eq!((&tables.timers, &tables.outbox), (&of.timers, &of.outbox));
                assert_eq!((&tables.history, &tables.claims), (&of.history, &of.claims));
            }
            assert_eq!(written(&one), written(&twin), "seed {seed}, entry {index}");
        }
        assert!(one.service().0.len() > 50 && one.tables().history.len() > 5, "the log did something");
    }
}

fn draw(rng: &mut StdRng, depth: u32) -> Op {
    let name = ["a", "b", "c"][rng.random_range(0..3)].to_owned();
    let ops = match depth {
        0 => vec![],
        _ => (0..rng.random_range(0..3)).map(|_| draw(rng, depth - 1)).collect(),
    };
    match rng.random_range(0..7) {
        0 => Op::Log,
        1 | 2 => Op::After(rng.random_range(0..50), name, ops),
        3 => Op::Cancel(name, vec![]),
        4 => Op::Publish(name, "event".into()),
        5 => Op::Perform(name, "effect".into()),
        _ => Op::Draw,
    }
}

#[test]
fn a_snapshot_of_a_newer_version_of_another_program_or_cut_off_is_refused_by_name() {
    let mut machine = Hosted::new(Script::default);
    call(&mut machine, 1, vec![Op::After(5, "x".into(), vec![]), Op::Publish("a".into(), "b".into())])
        .expect("no refusal");
    let good = written(&machine);
    assert_eq!(written(&restored(&good).expect("its own")), good);
    for end in 0..good.len() {
        assert!(restored(&good[..end]).is_err(), "cut at {end}");
    }
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        restored(&bytes).map(drop).expect_err("it is changed").to_string()
    };
    assert!(with(0, b'X').contains("no service stands there"), "the magic");
    assert!(with(8, 3).contains("layout 3 is not known here, only 2"));
    assert!(with(12, 2).contains("version 2 of the service, and this release reads up to 1"));
}

#[test]
fn the_layout_of_the_tables_is_the_documented_one() {
    let mut machine = Hosted::new(Script::default);
    let history = crate::service::history::Bounds { events: 0x0d, bytes: 0x0e };
    let clock = Clock { random: 0x0b, history, outbox: outbox::Bounds { rows: 0x0f, bytes: 0x10 } };
    raise(&mut machine, 6, 1).expect("it reads version 1");
    renew(&mut machine, 6, 0x0c);
    let at = At { index: Index(0x07), term: Term(0x08), time: LogTime(0x09), unix_ms: 0x0a, version: 0 };
    machine.fire(&at, clock).expect("no halt");
    let tables = written_tables(&machine);
    let words = |bytes: &[u8]| {
        bytes.chunks(4).map(|word| u32::from_le_bytes(word.try_into().expect("four bytes"))).collect::<Vec<_>>()
    };
    assert_eq!(tables[..8], *b"QSERVICE");
    let expected = [2, 1, 7, 0, 8, 0, 9, 0, 0x0a, 0, 0x0b, 0, 0x0c, 0x0d, 0x0e, 0x0f, 0x10];
    assert_eq!(words(&tables[8..76]), expected);
    let after_outcomes = 76 + 17;
    let empty = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(words(&tables[after_outcomes..]), empty, "timers, outbox, history, claims");
}

#[test]
fn a_window_that_is_over_is_claimed_and_a_difference_shows() {
    let run = |event: &str| {
        let mut machine = Hosted::new(Script::default);
        call(&mut machine, 1, vec![Op::Publish("a".into(), event.into())]).expect("no refusal");
        assert_eq!(machine.claim(), None);
        call(&mut machine, 1_030, vec![]).expect("no refusal");
        machine
    };
    let (mut one, other, wrong) = (run("right"), run("right"), run("wrong"));
    assert_eq!(one.claim().map(|(window, _)| window), Some(0));
    assert_eq!(one.claim(), other.claim());
    assert_ne!(one.claim(), wrong.claim(), "though replies and states are equal");
    let full_copies = [1, 2, 3].map(NodeId).into();
    for (index, node, machine) in [(1_031, 1, &other), (1_032, 2, &other), (1_033, 3, &wrong)] {
        let (window, claim) = machine.claim().expect("a window is over");
        let claimed = Internal::Claim(Claimed { node: NodeId(node), window, claim });
        one.inside(&at(index), &claimed.encode().expect("it has a form")).expect("no halt");
    }
    let verdict = one.tables().claims.verdict(0, &full_copies);
    assert_eq!(verdict, windows::Verdict::Diverged([NodeId(3)].into()));
}

/// A sum that keeps a digest of itself.
struct Digested(u64);

impl State for Digested {
    fn save(&self) -> WriteState {
        let sum = self.0;
        Box::new(move |to| to.write_all(&sum.to_le_bytes()))
    }

    fn load(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        let mut sum = [0; 8];
        from.read_exact(&mut sum)?;
        self.0 = u64::from_le_bytes(sum);
        Ok(())
    }

    fn digest(&self) -> Option<u64> {
        assert!(self.0 < 1_000, "a digest that panics");
        Some(self.0)
    }
}

impl Service for Digested {
    crate::types!(u64 => (), () => u64);

    fn apply(&mut self, add: u64, _: &mut Context<'_, Self>) {
        self.0 += add;
    }

    fn query(&self, (): (), _: At) -> u64 {
        self.0
    }
}

#[test]
fn a_digest_is_of_the_state_at_the_end_of_its_window_and_may_panic() {
    let mut machine = Hosted::new(|| Digested(5));
    let add = |machine: &mut Hosted<Digested>, index, add| {
        machine.command(&at(index), None, &Hosted::<Digested>::encode(&add)).map(drop)
    };
    add(&mut machine, 1, 10).expect("no halt");
    add(&mut machine, 1_023, 20).expect("no halt");
    assert_eq!(machine.claim(), None);
    add(&mut machine, 1_024, 5_000).expect("no halt");
    let (window, claim) = machine.claim().expect("the first window is over");
    assert_eq!((window, claim.state), (0, Some(35)), "not of the entry after it");
    let halt = add(&mut machine, 2_048, 1).expect_err("its digest panics");
    assert_eq!(halt.cause, HaltCause::Panicked { message: "a digest that panics".into() });
    assert_eq!(machine.query(()), 5_035, "the entry was not applied");
}

#[test]
fn an_entry_with_more_events_than_the_bound_halts_and_a_tick_leaves_timers_for_the_next() {
    let large = |count| vec![Op::Publish("a".into(), "x".repeat(16 << 20)); count];
    let mut machine = Hosted::new(Script::default);
    call(&mut machine, 1, large(1)).expect("no refusal");
    let tables = written_tables(&machine);
    let halt = machine.command(&at(2), None, &Hosted::<Script>::encode(&large(2))).expect_err("too much");
    let message = "one command or signal published more than 33554432 bytes".into();
    assert_eq!(halt.cause, HaltCause::Panicked { message });
    assert_eq!(written_tables(&machine), tables, "it published nothing");
    let small = vec![Op::Publish(String::new(), String::new()); (32 << 20) / 64];
    let halt = Hosted::new(Script::default).command(&at(2), None, &Hosted::<Script>::encode(&small));
    assert!(halt.is_err(), "an event has a cost beside its bytes");

    let mut machine = Hosted::new(Script::default);
    let timers = (0..5).map(|nth| Op::After(nth + 1, nth.to_string(), large(1)));
    call(&mut machine, 1, timers.collect()).expect("no refusal");
    for (index, left, time) in [(2, 3, 3), (3, 1, 5), (4, 0, 9)] {
        let at = At { time: LogTime(9), ..at(index) };
        machine.fire(&at, Clock::default()).expect("no halt");
        assert_eq!((machine.tables().timers.len(), machine.tables().at.time), (left, LogTime(time)));
    }
}

#[test]
fn an_internal_entry_of_a_newer_release_halts_by_name() {
    let mut machine = Hosted::new(Script::default);
    let halt = machine.inside(&at(4), &[200]).expect_err("it is not known");
    assert_eq!(halt, Halt { at: Index(4), cause: HaltCause::Unknown });
}

#[test]
fn a_signal_that_this_release_does_not_read_halts_and_stays_pending() {
    let mut machine = Hosted::new(Script::default);
    call(&mut machine, 1, vec![Op::Perform("k".into(), "e".into())]).expect("no refusal");
    let done = Internal::Done(Done { id: effect(1, 0), term: Term(3), signal: &[0xff] });
    let halt = machine.inside(&at(2), &done.encode().expect("it has a form")).expect_err("no signal");
    assert_eq!(halt, Halt { at: Index(2), cause: HaltCause::SignalUnreadable });
    assert_eq!(machine.tables().outbox.len(), 1, "the completion is taken back");

    let mut machine = Hosted::new(Script::default);
    machine.tables.timers.set(LogTime(5), &[0xff]);
    let tables = written_tables(&machine);
    let halt = machine.fire(&At { time: LogTime(9), ..at(2) }, Clock::default()).expect_err("no signal");
    assert_eq!(halt, Halt { at: Index(2), cause: HaltCause::SignalUnreadable });
    assert_eq!(written_tables(&machine), tables, "the timer is set again");
}

fn call(machine: &mut Hosted<Script>, index: u64, ops: Vec<Op>) -> Result<Vec<String>, Refused> {
    let at = At { time: machine.tables().at.time, ..at(index) };
    let outcome = machine.command(&at, None, &Hosted::<Script>::encode(&ops)).expect("no halt");
    Hosted::<Script>::decode(&outcome).expect("an outcome")
}

fn raise(machine: &mut Hosted<Script>, index: u64, version: u32) -> Result<(), Halt> {
    machine.inside(&at(index), &Internal::Version(version).encode().expect("it has a form"))
}

fn renew(machine: &mut Hosted<Script>, index: u64, generation: u32) {
    let payload = Internal::Generation(generation).encode().expect("it has a form");
    machine.inside(&at(index), &payload).expect("no halt");
}

fn tick(machine: &mut Hosted<Script>, index: u64, time: u64) {
    machine.fire(&At { time: LogTime(time), ..at(index) }, machine.tables().clock).expect("no halt");
}

fn done(machine: &mut Hosted<Script>, at: At, id: EffectId, term: Term, name: &str) {
    let signal = postcard::to_allocvec(&Wake(name.into(), vec![Op::Log])).expect("it has a form");
    let done = Internal::Done(Done { id, term, signal: &signal });
    machine.inside(&at, &done.encode().expect("it has a form")).expect("no halt");
}

fn lines(machine: &Hosted<Script>) -> Vec<&str> {
    machine.service().0.iter().map(String::as_str).collect()
}

fn effect(index: u64, nth: u32) -> EffectId {
    EffectId { index: Index(index), nth }
}

fn at(index: u64) -> At {
    At { index: Index(index), term: Term(3), ..At::default() }
}

fn written_tables(machine: &Hosted<Script>) -> Vec<u8> {
    let mut bytes = Vec::new();
    machine.tables().write(&mut bytes).expect("memory takes everything");
    bytes
}

fn written(machine: &Hosted<Script>) -> Vec<u8> {
    let mut bytes = Vec::new();
    machine.snapshot().expect("it makes snapshots")(&mut bytes).expect("memory takes everything");
    bytes
}

fn restored(bytes: &[u8]) -> io::Result<Hosted<Script>> {
    let mut machine = Hosted::new(Script::default);
    machine.restore(&mut &bytes[..]).map(|()| machine)
}
