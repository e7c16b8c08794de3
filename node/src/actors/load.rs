//! The load of a node's actors, for the metrics: the time of their turns, and the wait in their
//! mailboxes. No handler takes a time for that.
//!
//! An actix actor is one future. Each poll is a *turn*, in which it handles all messages that are in
//! its mailbox, and does the work that it has spawned. The turns' time is added up. Two looks at a
//! clock cost more than a short turn, so of many turns in one heartbeat interval not each is
//! measured: [`stands_for`] has the sample. A turn that lasts longer than an interval is measured in
//! any case, from the first look at it on.
//!
//! A mailbox keeps the order of its messages, so the wait of a [`Probe`], a message of no effect, is
//! the wait of any message that was sent at that moment. `Consensus` sends one to each actor once a
//! heartbeat interval, and to one that has no turns but for these every twenty: an idle node wakes
//! no thread for nothing. The timer sends those to `Consensus`, whose own would find the mailbox empty.
//! An actor that counts the messages that it takes tells the number of those before the probe, too.
//!
//! Times are of the machine's clock, also in simulated time: they measure this process.

use actix::{dev::channel, prelude::*};
use quorate_metrics::{ActorName, CountedMailbox, Label as _, NodeMetrics};
use quorate_storage::contract::Probe;
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::{self, Poll},
    time::{Duration, Instant},
};

/// The most probes that wait in the mailboxes of the actors of one name: those of a few seconds, if
/// an actor handles nothing. Further ones are not sent.
const PROBES_MAX: u32 = 64;
/// Actors of a name that have no turns are probed once in so many looks.
const IDLE_LOOKS: u32 = 20;
/// Of the turns of the actors of one name in one heartbeat interval, these many are measured each.
const EACH: u32 = 16;
/// Of further ones, one in this many is measured, and stands for all. A power of two.
const SAMPLED: u32 = 8;
/// In place of the begin of a turn that is not measured: no time is that early.
const UNMEASURED: u64 = 1;
/// actix' own default: `do_send` passes it.
const MAILBOX_CAPACITY: usize = 16;

/// The measurements of the actors of one node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Load(Arc<Inner>);

struct Inner {
    metrics: NodeMetrics,
    began: Instant,
    /// By actor. Actors of one name share a thread, so one of them has a turn at a time.
    meters: Vec<Meter>,
}

/// On a cache line of its own: the actors of several threads count.
#[derive(Default)]
#[repr(align(64))]
struct Meter {
    /// Nanoseconds since `Inner::began` from which on the time of the present turn is not counted
    /// yet; [`UNMEASURED`]; 0 between two turns.
    turn: AtomicU64,
    /// The number of turns. It wraps.
    turns: AtomicU32,
    /// The same at the last look.
    turns_looked_at: AtomicU32,
    /// Probes that were handled since the last look.
    arrived: AtomicU32,
    /// Looks in a row that found no turn but for probes.
    idle_looks: AtomicU32,
    /// Messages that an actor which counts them has taken from its mailbox.
    taken: AtomicU64,
    /// Probes that are not handled.
    probes: AtomicU32,
}

impl Load {
    pub(crate) fn new(metrics: NodeMetrics) -> Self {
        let meters = ActorName::ALL.iter().map(|_| Meter::default()).collect();
        Self(Arc::new(Inner { metrics, began: Instant::now(), meters }))
    }

    /// Starts an actor on this thread.
    pub(crate) fn start<A: Actor<Context = Context<A>>>(&self, name: ActorName, actor: A) -> Addr<A> {
        self.run(name, Context::new(), actor)
    }

    /// Starts an actor on that thread.
    pub(crate) fn start_in<A>(&self, name: ActorName, thread: &ArbiterHandle, actor: A) -> Addr<A>
    where
        A: Actor<Context = Context<A>> + Send,
    {
        let (sender, receiver) = channel::channel(MAILBOX_CAPACITY);
        let load = self.clone();
        // If the thread has ended, the actor is dropped, and its address leads nowhere.
        thread.spawn_fn(move || drop(load.run(name, Context::with_receiver(receiver), actor)));
        Addr::new(sender)
    }

    /// Starts an actor in a context that exists.
    pub(crate) fn run<A: Actor<Context = Context<A>>>(
        &self,
        name: ActorName,
        context: Context<A>,
        actor: A,
    ) -> Addr<A> {
        let future = context.into_future(actor);
        let address = future.address();
        actix::spawn(self.measured(name, future));
        address
    }

    /// A turn of an actor, or of a task that does work of it.
    pub(crate) fn turn<T>(&self, name: ActorName, turn: impl FnOnce() -> T) -> T {
        let meter = self.meter(name);
        let number = meter.turns.load(Relaxed);
        meter.turns.store(number.wrapping_add(1), Relaxed);
        let weight = stands_for(number, meter.turns_looked_at.load(Relaxed));
        let began = if weight > 0 { self.now() } else { UNMEASURED };
        meter.turn.store(began, Relaxed);
        let done = turn();
        if meter.turn.load(Relaxed) == UNMEASURED {
            meter.turn.store(0, Relaxed);
            return done;
        }
        let since = meter.turn.swap(0, Relaxed);
        // A turn that was looked at meanwhile lasts, and stands for itself alone.
        let weight = if since == began { weight } else { 1 };
        self.add(name, since, self.now(), weight);
        done
    }

    /// The same future, whose turns are those of the actor.
    pub(crate) fn measured<F: Future<Output = ()> + Unpin>(&self, name: ActorName, future: F) -> Measured<F> {
        Measured { future, name, load: self.clone() }
    }

    /// A look at all actors, once a heartbeat interval. Counts the time of turns that last: a log
    /// writer or an applier under load goes on for long.
    pub(crate) fn look(&self) {
        for (name, meter) in ActorName::ALL.iter().zip(&self.0.meters) {
            meter.look();
            if meter.turn.load(Relaxed) == 0 {
                continue;
            }
            let now = self.now();
            let counted = meter.turn.fetch_update(Relaxed, Relaxed, |since| (since > 0).then_some(now));
            if let Some(since) = counted.ok().filter(|since| *since != UNMEASURED) {
                self.add(*name, since, now, 1);
            }
        }
    }

    /// A message was taken from the mailbox. Only the actor itself counts.
    pub(crate) fn took(&self, name: ActorName) {
        let taken = &self.meter(name).taken;
        taken.store(taken.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// A probe of the mailbox of an actor, to be sent to it after a look; `None` if too many are not
    /// handled, or if it has nothing to do and was probed a short time ago.
    pub(crate) fn probe(&self, name: ActorName) -> Option<Probe> {
        let Meter { taken, probes, idle_looks, .. } = self.meter(name);
        if !idle_looks.load(Relaxed).is_multiple_of(IDLE_LOOKS) {
            return None;
        }
        if probes.fetch_add(1, Relaxed) >= PROBES_MAX {
            probes.fetch_sub(1, Relaxed);
            return None;
        }
        let sent = Sent { load: self.clone(), name, taken: taken.load(Relaxed), at: Instant::now() };
        Some(Probe::new(move || sent.arrived()))
    }

    fn meter(&self, name: ActorName) -> &Meter {
        &self.0.meters[name.position()]
    }

    /// Nanoseconds since the start; later than [`UNMEASURED`].
    fn now(&self) -> u64 {
        u64::try_from(self.0.began.elapsed().as_nanos()).unwrap_or(u64::MAX).max(UNMEASURED + 1)
    }

    fn add(&self, name: ActorName, since: u64, until: u64, weight: u32) {
        let took = Duration::from_nanos(until.saturating_sub(since).saturating_mul(weight.into()));
        self.0.metrics.actor_busy(name, took);
    }
}

impl Meter {
    fn look(&self) {
        let turns = self.turns.load(Relaxed);
        let before = self.turns_looked_at.swap(turns, Relaxed);
        let had_only_probes = turns.wrapping_sub(before) <= self.arrived.swap(0, Relaxed);
        // One that lasts, or that handles no probe, has something to do.
        let is_idle = had_only_probes && self.turn.load(Relaxed) == 0 && self.probes.load(Relaxed) == 0;
        let idle_looks = if is_idle { self.idle_looks.load(Relaxed).wrapping_add(1) } else { 0 };
        self.idle_looks.store(idle_looks, Relaxed);
    }
}

/// The number of turns for which the turn of this number stands, if the last look was at that one; 0
/// if it is not measured.
fn stands_for(turn: u32, looked_at: u32) -> u32 {
    if turn.wrapping_sub(looked_at) < EACH {
        return 1;
    }
    // Of each eight another one, by a hash: no pattern of the turns meets it.
    let block = (turn / SAMPLED).wrapping_mul(0x9E37_79B1);
    let nth = (block ^ (block >> 15)).wrapping_mul(0x85EB_CA77) >> (u32::BITS - SAMPLED.ilog2());
    if turn % SAMPLED == nth { SAMPLED } else { 0 }
}

/// An actor, or a task that does work of it.
pub(crate) struct Measured<F> {
    future: F,
    name: ActorName,
    load: Load,
}

impl<F: Future<Output = ()> + Unpin> Future for Measured<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        let Self { future, name, load } = self.get_mut();
        load.turn(*name, || Pin::new(future).poll(cx))
    }
}

/// A probe in a mailbox.
struct Sent {
    load: Load,
    name: ActorName,
    /// The messages that had been taken from the mailbox before.
    taken: u64,
    at: Instant,
}

impl Sent {
    /// The probe is handled.
    fn arrived(self) {
        let metrics = &self.load.0.metrics;
        metrics.mailbox_waited(self.name, self.at.elapsed());
        self.load.meter(self.name).arrived.fetch_add(1, Relaxed);
        // A storage actor need not count. One that does has counted the message of its recovery.
        let taken = self.load.meter(self.name).taken.load(Relaxed);
        let mailbox = CountedMailbox::ALL.iter().find(|mailbox| mailbox.as_str() == self.name.as_str());
        if let Some(mailbox) = mailbox.filter(|_| taken > 0) {
            metrics.mailbox_depth(*mailbox, taken.wrapping_sub(self.taken));
        }
    }
}

/// Also of a probe that was dropped with its mailbox.
impl Drop for Sent {
    fn drop(&mut self) {
        self.load.meter(self.name).probes.fetch_sub(1, Relaxed);
    }
}

/// `Handler<Probe>` for actors that do not count their messages.
macro_rules! probed {
    ($($actor:ty),+) => {$(
        impl Handler<Probe> for $actor {
            type Result = ();

            fn handle(&mut self, probe: Probe, _: &mut Self::Context) {
                probe.arrived();
            }
        }
    )+};
}

probed!(
    super::election_timer::ElectionTimer,
    super::vote_collector::VoteCollector,
    super::replicator::Replicator,
    super::snapshot_receiver::SnapshotReceiver,
    super::reporter::Reporter
);

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_metrics::Metrics;
    use std::sync::mpsc;

    /// Sleeps for as long as a message says.
    struct Sleeper(Load);

    impl Actor for Sleeper {
        type Context = Context<Self>;
    }

    #[derive(Message)]
    #[rtype(result = "()")]
    struct Sleep(Duration);

    impl Handler<Sleep> for Sleeper {
        type Result = ();

        fn handle(&mut self, Sleep(time): Sleep, _: &mut Self::Context) {
            self.0.took(ActorName::Applier);
            std::thread::sleep(time);
        }
    }

    /// Waits until a message comes.
    #[derive(Message)]
    #[rtype(result = "()")]
    struct Block(mpsc::Receiver<()>);

    impl Handler<Block> for Sleeper {
        type Result = ();

        fn handle(&mut self, Block(until): Block, _: &mut Self::Context) {
            self.0.took(ActorName::Applier);
            until.recv().expect("its end");
        }
    }

    impl Handler<Probe> for Sleeper {
        type Result = ();

        fn handle(&mut self, probe: Probe, _: &mut Self::Context) {
            probe.arrived();
        }
    }

    fn read(metrics: &Metrics, series: &str) -> Option<f64> {
        metrics.render().lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    }

    #[test]
    fn of_many_turns_in_an_interval_an_eighth_stands_for_all_and_meets_no_pattern() {
        assert!((0..EACH).all(|nth| stands_for(u32::MAX.wrapping_add(nth), u32::MAX) == 1), "each of a few");
        let turns = 1_u32 << 19;
        for period in 1..=64 {
            // One turn in so many is long.
            let (mut exact, mut counted) = (vec![0_u32; period], vec![0_u32; period]);
            for (turn, phase) in (0..turns).zip((0..period).cycle()) {
                exact[phase] += 1;
                counted[phase] += stands_for(turn + 1_000, 7);
            }
            for (exact, counted) in exact.into_iter().zip(counted) {
                let part = f64::from(counted) / f64::from(exact);
                assert!((0.85..1.15).contains(&part), "{part} of the turns, one in {period}");
            }
        }
    }

    #[test]
    fn an_actor_without_turns_is_probed_every_twenty_looks_and_one_that_works_or_is_stuck_at_each() {
        let load = Load::new(Metrics::new().node(1));
        let name = ActorName::Reporter;
        let probed = |looks: u32| {
            let handled = (1..=looks).filter(|_| {
                load.look();
                load.probe(name).map(|probe| load.turn(name, || probe.arrived())).is_some()
            });
            handled.collect::<Vec<_>>()
        };
        assert_eq!(probed(45), [20, 40]);
        load.turn(name, || {});
        assert_eq!(probed(25), [1, 21]);
        load.turn(name, || {
            for _ in 0..3 {
                load.look();
                assert!(load.probe(name).is_some(), "it is at work");
            }
        });
        assert_eq!(probed(25), [20]);
        load.turn(name, || {});
        load.look();
        let waits = load.probe(name).expect("it has worked");
        assert_eq!(probed(3), [1, 2, 3], "a probe waits");
        drop(waits);
    }

    const BUSY: &str = "quorate_actor_busy_milliseconds_total{node=\"1\",actor=\"applier\"}";
    const DEPTH: &str = "quorate_actor_mailbox_depth{node=\"1\",actor=\"applier\"}";
    const WAITED: &str = "quorate_actor_mailbox_wait_seconds_sum{node=\"1\",actor=\"applier\"}";
    const PROBES: &str = "quorate_actor_mailbox_wait_seconds_count{node=\"1\",actor=\"applier\"}";
    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[actix::test]
    async fn the_time_of_turns_and_the_wait_behind_other_messages_are_measured() {
        let metrics = Metrics::new();
        let load = Load::new(metrics.node(1));
        let sleeper = load.start(ActorName::Applier, Sleeper(load.clone()));
        for _ in 0..3 {
            sleeper.do_send(Sleep(MS(20)));
        }
        sleeper.send(load.probe(ActorName::Applier).expect("a probe")).await.expect("handled");
        // The turn has ended once the answer is here: both are on this thread.
        assert_eq!(read(&metrics, DEPTH), Some(3.0));
        assert!((0.06..5.0).contains(&read(&metrics, WAITED).expect("a wait")));
        let busy = read(&metrics, BUSY).expect("a time");
        assert!((60.0..5_000.0).contains(&busy), "{busy} ms");
        sleeper.send(load.probe(ActorName::Applier).expect("a probe")).await.expect("handled");
        assert_eq!((read(&metrics, DEPTH), read(&metrics, PROBES)), (Some(0.0), Some(2.0)));
    }

    #[test]
    fn a_turn_counts_for_all_that_it_stands_for_and_one_that_lasts_for_itself_from_the_first_look() {
        // The milliseconds that a turn of 40 ms counts for, at least, and those of them that it does not.
        for (weight, is_looked_at, counted, left_out) in [(8, false, 320, 0), (8, true, 40, 0), (0, true, 20, 20)] {
            let metrics = Metrics::new();
            let load = Load::new(metrics.node(1));
            while stands_for(load.meter(ActorName::Applier).turns.load(Relaxed), 0) != weight {
                load.turn(ActorName::Applier, || {});
            }
            let before = read(&metrics, BUSY).expect("a time");
            let began = Instant::now();
            load.turn(ActorName::Applier, || {
                for _ in 0..2 {
                    std::thread::sleep(MS(20));
                    if is_looked_at {
                        load.look();
                    }
                }
            });
            let most = if is_looked_at { began.elapsed() - MS(left_out) } else { began.elapsed() * weight };
            let busy = read(&metrics, BUSY).expect("a time") - before;
            assert!(busy >= f64::from(counted), "{busy} ms at {weight}");
            assert!(busy <= most.as_secs_f64() * 1000.0 + 1.0, "{busy} ms of {most:?} at {weight}");
        }
    }

    #[actix::test]
    async fn a_turn_that_lasts_is_counted_meanwhile_and_once_and_probes_are_bounded() {
        let metrics = Metrics::new();
        let load = Load::new(metrics.node(1));
        let thread = Arbiter::new();
        let (go_on, blocked) = mpsc::channel();
        let began = Instant::now();
        let sleeper = load.start_in(ActorName::Applier, &thread.handle(), Sleeper(load.clone()));
        sleeper.do_send(Block(blocked));
        let busy = || read(&metrics, BUSY).expect("a time");
        while busy() < 30.0 {
            std::thread::sleep(MS(1));
            load.look();
        }
        let probes: Vec<_> = std::iter::from_fn(|| load.probe(ActorName::Applier)).collect();
        assert_eq!(probes.len(), PROBES_MAX as usize);
        probes.into_iter().for_each(|probe| sleeper.do_send(probe));
        load.turn(ActorName::Reporter, || {});
        load.look();
        assert!(load.probe(ActorName::Reporter).is_some(), "each name has its own bound");
        go_on.send(()).expect("it is blocked");
        while read(&metrics, PROBES) != Some(f64::from(PROBES_MAX)) {
            tokio::task::yield_now().await;
        }
        assert!(load.probe(ActorName::Applier).is_some(), "there is room again");
        thread.stop();
        thread.join().expect("it ended well");
        assert!(busy() <= began.elapsed().as_secs_f64() * 1000.0, "nothing is counted twice");
    }
}
