use super::{super::history::Bounds, *};
use quorate_raft::session::LogTime;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use std::{pin::Pin, sync::atomic::AtomicBool, task::Wake};

const WIDE_BOUNDS: Bounds = Bounds { events: 100_000, bytes: 100_000 };
const TOPICS: [&str; 6] = ["a", "ab", "abc", "b", "c", "d"];

#[test]
fn each_watch_gets_each_entry_once_in_order_whatever_the_turns() {
    for seed in 0..300 {
        let mut world = World::new(WIDE_BOUNDS);
        for watch in world.run(seed) {
            assert_eq!(watch.end, Some(End::Stopped), "seed {seed}: {watch:?}");
            assert_eq!(watch.got, world.selected(&watch), "seed {seed}: {watch:?}");
        }
    }
}

#[test]
fn a_watch_that_is_too_slow_for_the_history_ends_and_skips_nothing() {
    let (mut gone, mut through) = (0, 0);
    for seed in 0..300 {
        let mut world = World::new(Bounds { events: 12, bytes: 100_000 });
        for watch in world.run(seed) {
            let wanted = world.selected(&watch);
            match watch.end {
                Some(End::Gone { floor, position }) => {
                    gone += 1;
                    assert!(position < floor, "seed {seed}: {watch:?}");
                    assert_eq!(watch.got[..], wanted[..watch.got.len()], "seed {seed}: {watch:?}");
                }
                end => {
                    through += 1;
                    assert_eq!((end, &watch.got), (Some(End::Stopped), &wanted), "seed {seed}: {watch:?}");
                }
            }
        }
    }
    assert!(gone > 50 && through > 50, "{gone} were gone, {through} were not");
}

#[test]
fn an_event_wakes_the_watches_of_its_list_and_no_others() {
    let mut world = World::new(WIDE_BOUNDS);
    let topics: Vec<_> = (0..100).map(|nth| format!("topic {nth}")).collect();
    let mut watches: Vec<_> = topics.iter().map(|topic| world.open(Topics::One(topic.clone()), 0)).collect();
    let (mut all, mut some) = (world.open(Topics::All, 0), world.open(Topics::Prefix("topic 7".into()), 0));
    watches.iter_mut().chain([&mut all, &mut some]).for_each(|watch| assert!(watch.poll().is_pending()));
    world.append(&[&topics[7]]);
    world.publish();
    assert!(watches.iter().all(|watch| !watch.is_woken()), "the applier wakes none itself");
    world.poll_task();
    for (watch, topic) in watches.iter().zip(&topics) {
        assert_eq!(watch.is_woken(), list_of(topic) == list_of("topic 7"), "{topic}");
    }
    assert!(all.is_woken() && some.is_woken());
}

#[test]
fn a_quiet_watch_that_gets_no_turn_keeps_up_with_the_history() {
    let mut world = World::new(Bounds { events: 4, bytes: 100_000 });
    let mut quiet = world.open(Topics::One("a".into()), 0);
    assert!(quiet.poll().is_pending());
    let others: Vec<_> = TOPICS.into_iter().filter(|topic| list_of(topic) != list_of("a")).collect();
    for nth in 0..100 {
        world.append(&[others[nth % others.len()]]);
        world.publish();
        world.poll_task();
    }
    assert!(!quiet.is_woken());
    assert_eq!(quiet.cursor.position(), Index(100), "it may go on after that elsewhere");
    world.append(&["a"]);
    world.publish();
    world.poll_task();
    assert_eq!(quiet.poll(), Poll::Ready(()));
    assert_eq!(quiet.got, [(101, vec![101_000])]);
}

#[test]
fn a_watch_ahead_of_its_node_keeps_its_position_and_gets_nothing_up_to_it() {
    let mut world = World::new(WIDE_BOUNDS);
    let mut ahead = world.open(Topics::One("a".into()), 3);
    for _ in 0..3 {
        assert!(ahead.poll().is_pending());
        assert_eq!(ahead.cursor.position(), Index(3));
        world.append(&["a"]);
        world.publish();
        world.poll_task();
        assert!(!ahead.is_woken());
    }
    world.append(&["a"]);
    world.publish();
    world.poll_task();
    assert_eq!(ahead.poll(), Poll::Ready(()));
    assert_eq!(ahead.got, [(4, vec![4_000])]);
}

#[test]
fn events_that_were_evicted_before_the_task_saw_them_end_the_watches_that_may_have_wanted_them() {
    let mut world = World::new(Bounds { events: 4, bytes: 100_000 });
    let (mut late, mut prefix) = (world.open(Topics::One("b".into()), 0), world.open(Topics::Prefix("a".into()), 0));
    let mut ahead = world.open(Topics::All, 50);
    assert!(late.poll().is_pending() && prefix.poll().is_pending() && ahead.poll().is_pending());
    (0..20).for_each(|_| world.append(&["b"]));
    world.publish();
    world.poll_task();
    for watch in [&mut late, &mut prefix] {
        assert!(watch.is_woken());
        assert_eq!(watch.poll(), Poll::Ready(()));
        assert_eq!(watch.end, Some(End::Gone { floor: Index(16), position: Index(0) }));
    }
    assert!(ahead.poll().is_pending());
    assert_eq!(ahead.cursor.position(), Index(50));
}

/// The applier may empty its mailbox before any other task of its thread gets a turn.
#[test]
fn a_backlog_of_other_topics_ends_no_watch_that_waits() {
    for (batches, watch_is_first, ends) in [(1, false, false), (1, true, true), (400, false, true), (400, true, false)]
    {
        let mut world = World::new(Bounds::default());
        assert_ne!(list_of("a"), list_of("b"));
        let mut quiet = world.open(Topics::One("a".into()), 0);
        assert!(quiet.poll_to_rest().is_pending());
        for _ in 0..batches {
            (0..20_000 / batches).for_each(|_| world.append(&["b"]));
            world.publish();
        }
        assert!(world.history.floor() > Index(3_000));
        if watch_is_first {
            assert!(quiet.poll_to_rest().is_pending(), "before the turn of the task: {quiet:?}");
        }
        if ends {
            world.hub.end();
            world.poll_task_to_rest();
            assert_eq!((quiet.poll_to_rest(), quiet.end), (Poll::Ready(()), Some(End::Stopped)));
            continue;
        }
        world.poll_task();
        assert!(!quiet.is_woken());
        assert_eq!(quiet.cursor.position(), Index(20_000));
        // In one backlog with events of its own, which are in the history.
        world.append(&["a"]);
        (0..10_000).for_each(|_| world.append(&["b"]));
        world.append(&["a"]);
        world.publish();
        world.poll_task();
        assert!(quiet.is_woken());
        assert_eq!(quiet.poll(), Poll::Ready(()));
        assert_eq!(quiet.poll_to_rest(), Poll::Ready(()));
        assert_eq!(quiet.got, [(20_001, vec![20_001_000]), (30_002, vec![30_002_000])]);
        // And with one of its own that is not.
        world.append(&["a"]);
        (0..20_000).for_each(|_| world.append(&["b"]));
        assert!(quiet.poll_to_rest().is_pending());
        world.publish();
        world.poll_task();
        assert!(quiet.is_woken());
        let gone = End::Gone { floor: world.history.floor(), position: Index(30_002) };
        assert_eq!((quiet.poll_to_rest(), quiet.end), (Poll::Ready(()), Some(gone)));
    }
}

#[test]
fn a_restored_history_ends_each_watch_below_its_floor() {
    let mut world = World::new(Bounds { events: 4, bytes: 100_000 });
    let mut quiet = world.open(Topics::One("a".into()), 0);
    let mut ahead = world.open(Topics::One("a".into()), 18);
    assert!(quiet.poll().is_pending() && ahead.poll().is_pending());
    (0..20).for_each(|_| world.append(&["b"]));
    // A snapshot brings them: their topics are known to another node.
    world.publisher.evicted.clear();
    world.publisher.restored();
    world.publish();
    world.poll_task_to_rest();
    let gone = End::Gone { floor: Index(16), position: Index(0) };
    assert_eq!((quiet.poll(), quiet.end), (Poll::Ready(()), Some(gone)));
    assert!(ahead.poll().is_pending());
    assert_eq!(ahead.cursor.position(), Index(20));
}

/// The task passes the list for an entry between a cursor's read and its rest; then the next entry
/// comes, of which the cursor is woken, and the first is evicted.
#[test]
fn a_watch_that_is_gone_keeps_the_position_up_to_which_it_has_read() {
    let mut world = World::new(Bounds { events: 1, bytes: 100_000 });
    world.append(&["a"]);
    world.publish();
    let watch = world.open(Topics::One("a".into()), 0);
    let cursor = &watch.cursor;
    let read = |at, waits: bool| {
        let (published, list_floor) = world.hub.published(cursor.list);
        cursor.read(published, at, waits.then_some(list_floor))
    };
    assert!(matches!(read(Index(0), false), Ok(Next::Changes(_))));
    assert_eq!((cursor.leave(), read(Index(1), false)), ((Index(1), false), Ok(Next::Nothing(Index(1)))));
    world.append(&["a"]);
    world.publish();
    world.poll_task();
    let cursor = &watch.cursor;
    cursor.rest(Index(1), Waker::noop().clone());
    world.append(&["a"]);
    world.publish();
    world.poll_task();
    assert_eq!(cursor.leave(), (Index(2), true), "the task takes it to have read entry 2");
    let (published, list_floor) = world.hub.published(cursor.list);
    let gone = End::Gone { floor: Index(2), position: Index(1) };
    assert_eq!(cursor.read(published, Index(1), Some(list_floor)), Err(gone));
    assert_eq!(cursor.position(), Index(1), "a watch elsewhere goes on with entry 2");
}

#[test]
fn a_watch_after_every_index_ends_with_its_node_too() {
    for halted in [None, Some(Index(2))] {
        let mut world = World::new(WIDE_BOUNDS);
        let mut never = world.open(Topics::One("a".into()), u64::MAX);
        assert!(never.poll().is_pending());
        world.append(&["a"]);
        match halted {
            Some(_) => world.publisher.publish(&world.history, Index(2), halted),
            None => world.hub.end(),
        }
        world.poll_task_to_rest();
        assert!(never.is_woken());
        let end = halted.map_or(End::Stopped, |at| End::Halted { at });
        assert_eq!((never.poll(), never.end), (Poll::Ready(()), Some(end)));
        assert_eq!(never.cursor.position(), Index(u64::MAX));
    }
}

#[test]
fn a_waker_is_dropped_with_no_list_locked() {
    struct Owner(Arc<Hub<u64>>, Arc<AtomicU64>);
    impl Wake for Owner {
        fn wake(self: Arc<Self>) {}
    }
    impl Drop for Owner {
        // It would own a cursor, the end of which locks the list.
        fn drop(&mut self) {
            assert!(self.0.lists.iter().all(|list| list.try_lock().is_ok()));
            self.1.fetch_add(1, Ordering::SeqCst);
        }
    }
    let mut world = World::new(WIDE_BOUNDS);
    let mut watch = world.open(Topics::One("a".into()), 0);
    let dropped = Arc::new(AtomicU64::new(0));
    let waker = || Waker::from(Arc::new(Owner(Arc::clone(&world.hub), Arc::clone(&dropped))));
    // It rests, rests anew, and leaves its rest.
    for _ in 0..2 {
        assert!(watch.cursor.poll_next(&mut Context::from_waker(&waker())).is_pending());
    }
    watch.cursor.rest(Index(0), waker());
    watch.cursor.leave();
    assert_eq!(dropped.load(Ordering::SeqCst), 3);
    // It is woken, and it is dropped.
    assert!(watch.cursor.poll_next(&mut Context::from_waker(&waker())).is_pending());
    world.append(&["a"]);
    world.publish();
    world.poll_task();
    assert_eq!(dropped.load(Ordering::SeqCst), 4);
    let waker = Waker::from(Arc::new(Owner(Arc::clone(&world.hub), Arc::clone(&dropped))));
    watch.cursor.rest(Index(1), waker);
    drop(watch);
    assert_eq!(dropped.load(Ordering::SeqCst), 5);
}

/// The applier and the task on one thread, the watches on another: after the last publication, and
/// the turns of the task that it brings, no watch sleeps that has something to read.
#[test]
fn no_wake_is_lost_between_two_threads() {
    const ROUNDS: u64 = 300;
    const ENTRIES: u64 = 40;
    for round in 0..ROUNDS {
        let mut world = World::new(WIDE_BOUNDS);
        let topics = TOPICS.iter().map(|topic| Topics::One((*topic).into()));
        let topics = topics.chain([Topics::All, Topics::Prefix("a".into())]);
        let mut watches: Vec<_> = topics.map(|topics| world.open(topics, 0)).collect();
        let hub = Arc::clone(&world.hub);
        let is_through = Arc::new(AtomicBool::new(false));
        let (begins, through) = (Arc::new(std::sync::Barrier::new(2)), Arc::clone(&is_through));
        let began = Arc::clone(&begins);
        let reader = std::thread::spawn(move || {
            began.wait();
            loop {
                // Looked at first: once it is set, no wake is to come.
                let is_last = through.load(Ordering::SeqCst);
                for watch in &mut watches {
                    while watch.is_woken() && watch.poll().is_ready() {
                        watch.flag.0.store(true, Ordering::SeqCst);
                    }
                }
                if is_last {
                    return watches;
                }
                std::hint::spin_loop();
            }
        });
        begins.wait();
        for nth in 0..ENTRIES {
            world.append(&[TOPICS[(nth ^ round) as usize % TOPICS.len()]]);
            world.publish();
            world.poll_task_to_rest();
        }
        is_through.store(true, Ordering::SeqCst);
        let watches = reader.join().expect("it reads on");
        for watch in &watches {
            assert_eq!(watch.got, world.selected(watch), "round {round}: it sleeps with events to read: {watch:?}");
        }
        drop(hub);
    }
}

#[test]
fn watches_of_a_crowded_topic_are_woken_in_bounded_steps() {
    let mut world = World::new(WIDE_BOUNDS);
    let mut watches: Vec<_> = (0..1_000).map(|_| world.open(Topics::One("a".into()), 0)).collect();
    watches.iter_mut().for_each(|watch| assert!(watch.poll().is_pending()));
    world.append(&["a"]);
    world.publish();
    let woken = |watches: &[Watch]| watches.iter().filter(|watch| watch.is_woken()).count();
    for turn in 1..=8 {
        world.poll_task();
        assert_eq!(woken(&watches), (turn * LOOK_MAX).min(1_000));
    }
}

#[test]
fn a_dropped_watch_leaves_no_trace() {
    let world = World::new(WIDE_BOUNDS);
    let mut watches: Vec<_> = (0..300).map(|nth| world.open(Topics::One(nth.to_string()), 0)).collect();
    watches.push(world.open(Topics::All, 0));
    watches.iter_mut().for_each(|watch| assert!(watch.poll().is_pending()));
    let flags: Vec<_> = watches.iter().map(|watch| Arc::clone(&watch.flag)).collect();
    watches.drain(..).for_each(drop);
    assert!(world.hub.lists.iter().all(|list| lock(list).is_empty()));
    assert!(flags.iter().all(|flag| Arc::strong_count(flag) == 1), "no waker is kept");
}

#[test]
fn a_watch_ends_with_its_machine_and_with_its_thread_after_what_was_published() {
    for thread_ends_first in [false, true] {
        let mut world = World::new(WIDE_BOUNDS);
        let mut watch = world.open(Topics::All, 0);
        assert!(watch.poll().is_pending());
        world.append(&["a"]);
        world.publish();
        match thread_ends_first {
            true => drop(world.task.take()),
            false => {
                world.hub.end();
                world.poll_task_to_rest();
            }
        }
        assert!(watch.is_woken());
        assert_eq!((watch.poll(), watch.got.len()), (Poll::Ready(()), 1));
        assert_eq!((watch.poll(), watch.end), (Poll::Ready(()), Some(End::Stopped)));
        let mut later = world.open(Topics::All, 9);
        assert_eq!((later.poll(), later.end), (Poll::Ready(()), Some(End::Stopped)));
    }
}

#[test]
fn a_watch_of_a_machine_that_halts_gets_what_is_before_the_entry() {
    let mut world = World::new(WIDE_BOUNDS);
    let (mut watch, mut ahead) = (world.open(Topics::All, 0), world.open(Topics::All, 9));
    world.append(&["a"]);
    world.publisher.publish(&world.history, Index(1), None);
    assert_eq!((watch.poll(), watch.got.len()), (Poll::Ready(()), 1));
    assert!(watch.poll().is_pending() && ahead.poll().is_pending());
    world.publisher.publish(&world.history, Index(5), Some(Index(5)));
    world.poll_task_to_rest();
    for watch in [&mut watch, &mut ahead] {
        assert!(watch.is_woken());
        assert_eq!((watch.poll(), watch.end), (Poll::Ready(()), Some(End::Halted { at: Index(5) })));
    }
    assert_eq!((watch.cursor.position(), ahead.cursor.position()), (Index(4), Index(9)));
    let mut publisher = Publisher::<u64>::default();
    publisher.publish(&world.history, Index(9), Some(Index(5)));
    assert_eq!(publisher.applied, Index(4), "entries after the halt were not applied");
}

/// The machine's side, and the task, which gets its turns from the test.
struct World {
    hub: Arc<Hub<u64>>,
    publisher: Publisher<u64>,
    task: Option<Pin<Box<dyn Future<Output = ()>>>>,
    history: History<u64>,
    bounds: Bounds,
    applied: u64,
    /// Every event: its entry, its topic, its value.
    events: Vec<(u64, String, u64)>,
}

impl World {
    fn new(bounds: Bounds) -> Self {
        let hub = Hub::new(History::default(), Index(0), None);
        let task: Pin<Box<dyn Future<Output = ()>>> = Box::pin(Arc::clone(&hub).run());
        let publisher = Publisher::default();
        assert!(publisher.hub.set(Arc::clone(&hub)).is_ok());
        Self { hub, publisher, task: Some(task), history: History::default(), bounds, applied: 0, events: Vec::new() }
    }

    fn open(&self, topics: Topics, after: u64) -> Watch {
        let cursor = Cursor::new(Arc::clone(&self.hub), topics.clone(), Index(after));
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        Watch { cursor, topics, after, flag, got: Vec::new(), end: None }
    }

    fn append(&mut self, topics: &[&str]) {
        self.applied += 1;
        let events = topics.iter().zip(self.applied * 1_000..);
        self.events.extend(events.clone().map(|(topic, value)| (self.applied, (*topic).into(), value)));
        let events = events.map(|(topic, value)| ((*topic).into(), Arc::new(value)));
        let Self { history, publisher, .. } = self;
        history.append(Index(self.applied), LogTime(0), events, 1, self.bounds, |index, topic| {
            publisher.evicted(index, topic);
        });
    }

    fn publish(&mut self) {
        self.publisher.publish(&self.history, Index(self.applied), None);
    }

    /// Gives the task a turn; `true` once it has ended.
    fn poll_task(&mut self) -> bool {
        let task = self.task.as_mut().expect("it runs");
        task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// Gives the task turns for all lists.
    fn poll_task_to_rest(&mut self) {
        for _ in 0..=WIDE / LOOK_MAX {
            if self.poll_task() {
                break;
            }
        }
    }

    /// The entries that a watch wants, by a search through all events.
    fn selected(&self, watch: &Watch) -> Vec<(u64, Vec<u64>)> {
        let mut selected: Vec<(u64, Vec<u64>)> = Vec::new();
        for (index, topic, value) in &self.events {
            if *index > watch.after && watch.topics.select(topic) {
                match selected.last_mut().filter(|(last, _)| last == index) {
                    Some((_, values)) => values.push(*value),
                    None => selected.push((*index, vec![*value])),
                }
            }
        }
        selected
    }

    /// Batches, turns of the task, turns of watches, new watches and dropped ones in any order;
    /// then the end. A watch gets a turn only if it was woken, or by chance.
    fn run(&mut self, seed: u64) -> Vec<Watch> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut watches: Vec<Watch> = Vec::new();
        for _ in 0..400 {
            match random.random_range(0..10) {
                0..=2 => {
                    for _ in 0..random.random_range(1..4) {
                        let topics: Vec<_> =
                            (0..random.random_range(0..3)).map(|_| *TOPICS.choose(&mut random).unwrap()).collect();
                        self.append(&topics);
                    }
                    self.publish();
                }
                3..=4 => {
                    self.poll_task();
                }
                5..=8 if !watches.is_empty() => {
                    let nth = random.random_range(0..watches.len());
                    if watches[nth].is_woken() || random.random_bool(0.2) {
                        self.turn(&mut watches[nth]);
                    }
                }
                _ if watches.len() < 10 || random.random_bool(0.5) => {
                    let topics = match random.random_range(0..6) {
                        0 => Topics::All,
                        1 => Topics::Prefix("a".into()),
                        _ => Topics::One((*TOPICS.choose(&mut random).unwrap()).into()),
                    };
                    let recent = self.applied.saturating_sub(8)..=self.applied + 5;
                    watches.push(self.open(topics, random.random_range(recent)));
                }
                _ => drop(watches.swap_remove(random.random_range(0..watches.len()))),
            }
        }
        self.hub.end();
        while !self.poll_task() {}
        for watch in &mut watches {
            while watch.end.is_none() {
                assert!(watch.is_woken(), "seed {seed}: it sleeps for ever: {watch:?}");
                self.turn(watch);
            }
        }
        watches
    }

    fn turn(&self, watch: &mut Watch) {
        // Whether it goes on or is over, the caller asks again.
        if watch.poll().is_ready() {
            watch.flag.0.store(true, Ordering::SeqCst);
        }
        let position = watch.cursor.position().0;
        let selected = self.selected(watch);
        let undelivered = selected.get(watch.got.len());
        assert!(undelivered.is_none_or(|(index, _)| position < *index), "it passed {undelivered:?}: {watch:?}");
        assert!(position >= watch.after.max(watch.got.last().map_or(0, |(index, _)| *index)), "back: {watch:?}");
    }
}

#[derive(Debug)]
struct Watch {
    cursor: Cursor<u64>,
    topics: Topics,
    after: u64,
    flag: Arc<Flag>,
    got: Vec<(u64, Vec<u64>)>,
    end: Option<End>,
}

impl Watch {
    fn is_woken(&self) -> bool {
        self.flag.0.load(Ordering::SeqCst)
    }

    fn poll(&mut self) -> Poll<()> {
        self.flag.0.store(false, Ordering::SeqCst);
        let waker = Waker::from(Arc::clone(&self.flag));
        self.cursor.poll_next(&mut Context::from_waker(&waker)).map(|next| match next {
            Ok(changes) => self.got.push((changes.index.0, changes.events.iter().map(|(_, event)| **event).collect())),
            Err(end) => self.end = Some(end),
        })
    }

    /// Polls until it returns, or waits: a poll looks at a bounded number of entries.
    fn poll_to_rest(&mut self) -> Poll<()> {
        loop {
            let polled = self.poll();
            if polled.is_ready() || !self.is_woken() {
                return polled;
            }
        }
    }
}

#[derive(Debug)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}
