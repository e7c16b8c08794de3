use super::*;
use quorate_raft::{BatchBuilder, Kind};

const LEADS: View = View { is_leader: true, term: Term(1), holds_proposals: false };

#[test]
fn a_batch_begins_with_a_tick_if_the_millisecond_changed() {
    let mut world = World::leading();
    assert_eq!(world.in_front(10), Some(LogTime(0)), "the first batch of a leadership always");
    world.append(1, 0);
    assert_eq!(world.in_front(10), None);
    assert_eq!(world.ticks.in_front(&LEADS, Moment(Duration::from_micros(10_999))), None);
    assert_eq!(world.in_front(11), Some(LogTime(1)));
    world.append(2, 1);
    world.view.term = Term(2);
    assert_eq!(world.in_front(500), Some(LogTime(1)), "the first batch of the next one, at the time of the last tick");
}

#[test]
fn an_idle_log_stays_idle() {
    let mut world = World::leading();
    world.append(1, 0);
    world.applied(1, 0, None);
    assert_eq!(world.next(5_000), Next::None);
    assert_eq!(world.next(3_600_000), Next::None);
}

#[test]
fn a_tick_by_itself_comes_when_something_is_due() {
    let mut world = World::leading();
    world.append(1, 0);
    world.applied(1, 0, Some(400));
    assert_eq!(world.next(10), Next::At(at(410)), "log time began at 10");
    assert_eq!(world.next(200), Next::At(at(410)));
    assert_eq!(world.next(409), Next::At(at(410)));
    assert_eq!(world.next(410), Next::Now(LogTime(400)));
    world.append(2, 400);
    assert_eq!(world.next(411), Next::None, "it is not applied yet");
    world.applied(2, 400, None);
    assert_eq!(world.next(412), Next::None);
}

#[test]
fn the_rest_of_what_is_due_gets_a_tick_at_once() {
    let mut world = World::leading();
    world.append(1, 0);
    world.append(2, 400);
    world.applied(2, 400, Some(300));
    assert_eq!(world.next(10), Next::Now(LogTime(400)));
    world.append(3, 400);
    assert_eq!(world.next(10), Next::None);
    world.applied(3, 400, Some(400));
    assert_eq!(world.next(10), Next::Now(LogTime(400)));
}

#[test]
fn a_tick_comes_each_second_while_something_is_waited_for() {
    let mut world = World::leading();
    world.append(1, 0);
    world.applied(1, 0, Some(3_600_000));
    assert_eq!(world.next(10), Next::At(at(1_010)));
    for now in (100..1_010).step_by(100) {
        assert_eq!(world.next(now), Next::At(at(1_010)));
    }
    assert_eq!(world.next(1_010), Next::Now(LogTime(1_000)));
    world.append(2, 1_000);
    world.ticks.applied(Index(2), Reached { log_time: LogTime(1_000), is_pending: true, ..Reached::default() }, &LEADS);
    assert_eq!(world.next(1_020), Next::At(at(2_010)), "an effect is waited for, too");
}

#[test]
fn no_tick_is_appended_where_none_may_be() {
    for (uses_time, view) in
        [(false, LEADS), (true, View { is_leader: false, ..LEADS }), (true, View { holds_proposals: true, ..LEADS })]
    {
        let mut world = World { ticks: Ticks::new(uses_time, Index(0), Duration::from_millis(300)), view };
        world.applied(1, 0, Some(0));
        assert_eq!((world.in_front(10), world.next(10)), (None, Next::None), "{uses_time} {view:?}");
        world.ticks.looked(&LEADS, at(10));
        assert_eq!((world.in_front(50), world.next(50)), (None, Next::None), "{uses_time} {view:?}");
    }
}

#[test]
fn commands_wait_until_the_highest_time_in_the_log_is_known() {
    let mut world = World { ticks: Ticks::new(true, Index(9), Duration::from_millis(300)), view: LEADS };
    world.applied(8, 70, Some(80));
    assert!(world.ticks.hold_commands());
    assert_eq!((world.in_front(10), world.next(10)), (None, Next::None));
    world.applied(9, 75, Some(80));
    assert!(!world.ticks.hold_commands());
    assert_eq!(world.in_front(10), Some(LogTime(75)));
    let raw = Ticks::new(false, Index(9), Duration::from_millis(300));
    assert!(!raw.hold_commands());
}

#[test]
fn after_a_halt_no_tick_is_kept_or_appended_and_no_command_waits() {
    let mut world = World { ticks: Ticks::new(true, Index(9), Duration::from_millis(300)), view: LEADS };
    world.applied(5, 40, Some(50));
    world.append(10, 70);
    assert_eq!(world.ticks.clock.highest(), LogTime(70));
    world.ticks.machine_halted();
    assert_eq!(world.ticks.clock.highest(), LogTime(40), "that of the applied entries");
    for index in 11..1_000 {
        world.append(index, index);
        world.applied(5, 40, Some(50));
        assert_eq!(world.ticks.clock.highest(), LogTime(40));
    }
    let unknown = &mut World { ticks: Ticks::new(true, Index(9), Duration::from_millis(300)), view: LEADS };
    assert!(unknown.ticks.hold_commands());
    unknown.ticks.machine_halted();
    for world in [&mut world, unknown] {
        assert!(!world.ticks.hold_commands() && !world.ticks.are_used());
        assert_eq!((world.in_front(5_000), world.next(5_000)), (None, Next::None));
    }
}

#[test]
fn stamps_count_without_ticks() {
    let mut raw = Ticks::new(false, Index(9), Duration::from_millis(300));
    raw.applied(Index(4), Reached { log_time: LogTime(70_000), ..Reached::default() }, &LEADS);
    assert_eq!(raw.stamp(&LEADS, at(10)), LogTime(70_000));
    raw.looked(&LEADS, at(110));
    assert_eq!(raw.stamp(&LEADS, at(200)), LogTime(70_190));
    raw.applied(Index(5), Reached { log_time: LogTime(70_190), ..Reached::default() }, &LEADS);
    assert_eq!(raw.stamp(&LEADS, at(210)), LogTime(70_200), "its own stamp comes back and changes nothing");
}

#[test]
fn a_leader_without_ticks_counts_anew_in_each_leadership() {
    let mut raw = Ticks::new(false, Index(0), Duration::from_millis(300));
    for beat in 0..=10 {
        raw.looked(&LEADS, at(beat * 100));
    }
    // The leader of term 2 stamped a session with the highest time of the log, which is still 0.
    raw.applied(Index(2), Reached::default(), &View { is_leader: false, term: Term(2), ..LEADS });
    let again = View { term: Term(3), ..LEADS };
    assert_eq!(raw.stamp(&again, at(1_010)), LogTime(0), "else the session loses a second of its limit");
    assert_eq!(raw.stamp(&again, at(1_050)), LogTime(40));
}

struct World {
    ticks: Ticks,
    view: View,
}

impl World {
    /// A node that leads since moment 10, and has nothing in its log.
    fn leading() -> Self {
        let mut ticks = Ticks::new(true, Index(0), Duration::from_millis(300));
        ticks.looked(&LEADS, at(10));
        Self { ticks, view: LEADS }
    }

    fn in_front(&mut self, ms: u64) -> Option<LogTime> {
        self.ticks.in_front(&self.view, at(ms))
    }

    fn next(&mut self, ms: u64) -> Next {
        self.ticks.next(&self.view, at(ms))
    }

    fn append(&mut self, index: u64, time: u64) {
        let tick = self.ticks.tick(LogTime(time), 0, [0; 8]);
        self.ticks.written(None, Some(&batch(index, tick)), &self.view);
    }

    fn applied(&mut self, index: u64, time: u64, next_due: Option<u64>) {
        let reached = Reached { log_time: LogTime(time), next_due: next_due.map(LogTime), ..Reached::default() };
        self.ticks.applied(Index(index), reached, &self.view);
    }
}

fn batch(index: u64, tick: Tick) -> Batch {
    let mut builder = BatchBuilder::new(quorate_storage::checksum, Term(1), Index(index), 0, 0);
    builder.push(Kind::Tick, &tick.encode());
    builder.finish().expect("an entry")
}

fn at(ms: u64) -> Moment {
    Moment(Duration::from_millis(ms))
}
