//! The load of a node's actors, for the metrics: the time of their turns, and the wait in their
//! mailboxes. No handler takes a time for that.
//!
//! An actix actor is one future. Each poll is a *turn*, in which it handles all messages that are in
//! its mailbox, and does the work that it has spawned. [`Measured`] adds up the turns' time: two
//! looks at a clock for each turn.
//!
//! A mailbox keeps the order of its messages, so the wait of a [`Probe`], a message of no effect, is
//! the wait of any message that was sent at that moment. `Consensus` sends one to each actor once a
//! heartbeat interval; the timer sends those to `Consensus`, whose own would find the mailbox empty.
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
    /// yet; 0 between two turns.
    turn: AtomicU64,
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

    /// The same future, whose turns are those of the actor.
    pub(crate) fn measured<F: Future<Output = ()> + Unpin>(&self, name: ActorName, future: F) -> Measured<F> {
        Measured { future, name, load: self.clone() }
    }

    /// Counts the time of turns that last: a log writer or an applier under load goes on for long.
    pub(crate) fn count_turns(&self) {
        for (name, meter) in ActorName::ALL.iter().zip(&self.0.meters) {
            let now = self.now();
            let counted = meter.turn.fetch_update(Relaxed, Relaxed, |since| (since > 0).then_some(now));
            if let Ok(since) = counted {
                self.add(*name, since, now);
            }
        }
    }

    /// A message was taken from the mailbox. Only the actor itself counts.
    pub(crate) fn took(&self, name: ActorName) {
        let taken = &self.meter(name).taken;
        taken.store(taken.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// A probe of the mailbox of an actor, to be sent to it; `None` if too many are not handled.
    pub(crate) fn probe(&self, name: ActorName) -> Option<Probe> {
        let Meter { taken, probes, .. } = self.meter(name);
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

    /// Nanoseconds since the start, never 0.
    fn now(&self) -> u64 {
        u64::try_from(self.0.began.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    fn add(&self, name: ActorName, since: u64, until: u64) {
        self.0.metrics.actor_busy(name, Duration::from_nanos(until.saturating_sub(since)));
    }
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
        let turn = &load.meter(*name).turn;
        turn.store(load.now(), Relaxed);
        let polled = Pin::new(future).poll(cx);
        let since = turn.swap(0, Relaxed);
        if since > 0 {
            load.add(*name, since, load.now());
        }
        polled
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
            load.count_turns();
        }
        let probes: Vec<_> = std::iter::from_fn(|| load.probe(ActorName::Applier)).collect();
        assert_eq!(probes.len(), PROBES_MAX as usize);
        probes.into_iter().for_each(|probe| sleeper.do_send(probe));
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
