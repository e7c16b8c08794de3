//! Input that no author wants, at the typed layer: each has a definite answer, and memory stays
//! bounded.

mod support;

use quorate::{
    At, CallError, Context, HaltCause, Hosted, Index, LogTime, Node, NodeId, NodeRole, Refused, Service, ServiceNode,
    SessionKey, Ticket, Topics, WatchError,
    storage::{Memory, MemoryLog},
};
use quorate_transport_testing::FaultNetwork;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};
use std::{
    cell::Cell,
    future::{IntoFuture, pending},
    time::Duration,
};
use support::{CLUSTER, simulate, soon};
use tokio::time::{Instant, sleep};

/// A service that does as much as it is told.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
struct Obedient {
    fired: u64,
    /// The log time at which a timer fired last.
    last: u64,
    loops: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Command {
    /// Does nothing with these bytes.
    Take(Vec<u8>),
    /// Sets a timer with no delay, and again whenever it fires.
    Loop,
    EndLoop,
    /// Sets timers: the first one's number, their count, and their delay in milliseconds.
    Timers(u64, u32, u32),
    /// Publishes events: their count, and the bytes of each.
    Publish(u32, u32),
    /// Asks for effects: their count, and the bytes of each.
    Perform(u32, u32),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Signal {
    Again,
    Numbered(u64),
}

thread_local! {
    /// The bytes of all events in memory. A simulated cluster has one thread.
    static EVENT_BYTES: Cell<usize> = const { Cell::new(0) };
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(from = "String")]
struct Event(String);

impl From<String> for Event {
    fn from(text: String) -> Self {
        EVENT_BYTES.set(EVENT_BYTES.get() + text.len());
        Self(text)
    }
}

impl Clone for Event {
    fn clone(&self) -> Self {
        self.0.clone().into()
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        EVENT_BYTES.set(EVENT_BYTES.get() - self.0.len());
    }
}

impl Service for Obedient {
    quorate::types!(Command => u32, () => Self, event Event, signal Signal, effect String);

    /// Returns how much of it was done.
    fn apply(&mut self, command: Command, cx: &mut Context<'_, Self>) -> u32 {
        match command {
            Command::Take(_) => 1,
            Command::Loop => {
                self.loops = true;
                cx.after(Duration::ZERO, Signal::Again);
                1
            }
            Command::EndLoop => {
                self.loops = false;
                1
            }
            Command::Timers(first, count, ms) => {
                let numbers = first..first + u64::from(count);
                numbers.for_each(|nth| cx.after(Duration::from_millis(ms.into()), Signal::Numbered(nth)));
                count
            }
            Command::Publish(count, bytes) => {
                (0..count).for_each(|_| cx.publish("topic", "x".repeat(bytes as usize).into()));
                count
            }
            Command::Perform(count, bytes) => {
                let performed = (0..count).take_while(|_| cx.perform("key", "x".repeat(bytes as usize)).is_ok());
                performed.count() as u32
            }
        }
    }

    fn signal(&mut self, signal: Signal, cx: &mut Context<'_, Self>) {
        let LogTime(now) = cx.now();
        assert!(now >= self.last, "log time never goes back");
        (self.fired, self.last) = (self.fired + 1, now);
        if matches!(signal, Signal::Again) && self.loops {
            cx.after(Duration::ZERO, Signal::Again);
        }
    }

    fn query(&self, (): (), _: At) -> Self {
        self.clone()
    }
}

#[test]
fn bytes_that_are_no_command_are_refused_on_every_node_and_change_nothing() {
    simulate(async {
        let mut nodes = Nodes::start(3).await;
        let good = Hosted::<Obedient>::encode(&Command::Take(vec![1, 2, 3])).to_vec();
        let endless = [&good[..3], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]].concat();
        let mut rng = StdRng::seed_from_u64(1);
        let noise = (0..200).map(|length| (0..length).map(|_| rng.random()).collect::<Vec<u8>>());
        let noise = noise.filter(|bytes| bytes.first() != Some(&good[0]));
        let cut = (0..good.len()).map(|end| good[..end].to_vec());
        let more = [[&good[..], &[0]].concat(), vec![good[0]; 1_000], endless];
        for (nth, bytes) in cut.chain(more).chain(noise).enumerate() {
            let outcome = soon("an answer", nodes.nodes[nth % 3].propose(bytes.clone()).into_future()).await;
            let outcome = Hosted::<Obedient>::decode(&outcome.expect("it is applied").reply);
            assert_eq!(outcome, Some(Err(Refused::Unreadable)), "{bytes:x?}");
        }
        let key = SessionKey::named(b"me").expect("a name");
        for node in &nodes.nodes {
            let outcome = node.propose("no command").by_session(&key, 1).await.expect("it is applied");
            assert_eq!(Hosted::<Obedient>::decode(&outcome.reply), Some(Err(Refused::Unreadable)));
        }
        for nth in 0..3 {
            nodes.restart(nth).await;
        }
        let session = soon("a session", nodes.nodes[0].session()).await.expect("a session");
        let outcome = soon("an answer", session.call(Command::Take(vec![]))).await;
        assert_eq!(outcome.expect("it is applied").reply, 1);
        let large = nodes.call(Command::Take(vec![0; 1 << 20])).await;
        assert!(matches!(large, Err(CallError::TooLarge { max: 1_048_576, .. })), "{large:?}");
    });
}

#[test]
fn a_timer_that_sets_itself_without_a_delay_fires_once_a_millisecond_and_calls_go_on() {
    simulate(async {
        let nodes = Nodes::start(3).await;
        assert_eq!(nodes.call(Command::Loop).await, Ok(1));
        let (began, before) = (Instant::now(), nodes.state(0).await);
        let mut calls = 0;
        while began.elapsed() < Duration::from_secs(5) {
            let asked = Instant::now();
            assert_eq!(nodes.call(Command::Take(vec![0; 100])).await, Ok(1));
            assert!(asked.elapsed() < Duration::from_millis(100), "{:?}", asked.elapsed());
            calls += 1;
            sleep(Duration::from_millis(10)).await;
        }
        let state = nodes.state(1).await;
        let (fired, passed) = (state.fired - before.fired, state.last - before.last);
        assert!(calls > 100 && fired > 1_000, "{calls} calls, fired {fired} times");
        assert!(fired <= passed && passed <= 5_200, "fired {fired} times in {passed} ms of log time");
        nodes.call(Command::EndLoop).await.expect("it is applied");
        sleep(Duration::from_secs(1)).await;
        let ended = nodes.nodes[0].status().borrow().applied;
        sleep(Duration::from_secs(60)).await;
        assert_eq!(nodes.nodes[0].status().borrow().applied, ended, "an idle log stays idle");
    });
}

#[test]
fn a_million_timers_that_are_due_at_once_fire_once_each_and_calls_go_on() {
    const TIMERS: u64 = 1_000_000;
    simulate(async {
        let nodes = Nodes::start(1).await;
        for first in (0..TIMERS).step_by(10_000) {
            assert_eq!(nodes.call(Command::Timers(first, 10_000, 60_000)).await, Ok(10_000));
        }
        assert_eq!(nodes.state(0).await.fired, 0);
        sleep(Duration::from_secs(59)).await;
        let (mut calls, mut last) = (0, 0);
        while last < TIMERS {
            assert_eq!(nodes.call(Command::Take(vec![])).await, Ok(1));
            let fired = nodes.state(0).await.fired;
            assert!(fired >= last && fired <= TIMERS, "{fired} after {last}");
            (calls, last) = (calls + u32::from(fired > 0 && fired < TIMERS), fired);
            if fired == 0 {
                sleep(Duration::from_millis(10)).await;
            }
        }
        assert!(calls > 10, "{calls} calls were answered in between");
        sleep(Duration::from_secs(60)).await;
        assert_eq!(nodes.state(0).await.fired, TIMERS, "once each");
    });
}

#[test]
fn large_events_leave_memory_with_the_history_and_too_many_at_once_halt_by_name() {
    simulate(async {
        let nodes = Nodes::start(3).await;
        let mut watch = nodes.nodes[0].watch("topic").await.expect("a watch");
        let began = watch.position();
        for _ in 0..40 {
            assert_eq!(nodes.call(Command::Publish(1, 1 << 20)).await, Ok(1));
            let changes = soon("an event", watch.next()).await.expect("an event");
            assert_eq!(changes.events[0].1.0.len(), 1 << 20);
        }
        nodes.agree().await;
        let bytes = EVENT_BYTES.get();
        assert!(bytes <= 3 * (8 << 20), "{bytes} bytes of events, of which each node keeps 8 MiB");
        let mut late = nodes.nodes[1].watch("topic").after(began).await.expect("a watch");
        let end = soon("the end", late.next()).await.expect_err("32 of 40 are gone");
        assert!(matches!(end, WatchError::Gone { position, .. } if position == began), "{end:?}");

        assert_eq!(nodes.call(Command::Publish(33, 1 << 20)).await, Err(CallError::OutcomeUnknown));
        for node in &nodes.nodes {
            let mut status = node.status();
            let status = soon("the halt", status.wait_for(|status| status.halted.is_some())).await.expect("it runs");
            let halted = status.halted.as_ref().expect("it halted");
            let HaltCause::Panicked { message } = &halted.cause else { panic!("{halted:?}") };
            assert!(message.contains("published more than"), "{message}");
            assert!(halted.can_be_skipped);
        }
        assert!(EVENT_BYTES.get() <= bytes, "the events of that entry are dropped");
    });
}

#[test]
fn a_watch_that_never_reads_costs_no_memory_and_ends_with_a_definite_answer() {
    simulate(async {
        let nodes = Nodes::start(3).await;
        let mut watches = Vec::new();
        for nth in 0..3_000 {
            let topics = [Topics::All, Topics::from("topic"), Topics::from("another")][nth % 3].clone();
            watches.push(nodes.nodes[nth % 2].watch(topics).await.expect("a watch"));
        }
        let position = watches[0].position();
        for _ in 0..50 {
            assert_eq!(nodes.call(Command::Publish(1_000, 100)).await, Ok(1_000));
        }
        nodes.agree().await;
        let bytes = EVENT_BYTES.get();
        assert!(bytes <= 3 * 16_384 * 100, "{bytes} bytes of events, of which each node keeps 16,384");
        for mut watch in watches {
            let end = soon("the end", watch.next()).await.expect_err("its next events are gone");
            assert!(matches!(end, WatchError::Gone { position: at, floor } if at <= position && floor > at), "{end:?}");
        }
        let (read, mut anew) = nodes.nodes[0].watch("topic").seeing(()).await.expect("it is served");
        assert_eq!(nodes.call(Command::Publish(1, 1)).await, Ok(1));
        assert!(soon("an event", anew.next()).await.expect("an event").index > read.index);
    });
}

#[test]
fn a_full_outbox_refuses_at_the_same_effect_on_every_node() {
    simulate(async {
        let mut nodes = Nodes::start(3).await;
        assert_eq!(nodes.call(Command::Perform(70_000, 1)).await, Ok(65_536), "rows");
        for nth in 0..3 {
            assert_eq!(nodes.call(Command::Perform(10, 1)).await, Ok(0), "none is completed");
            nodes.restart(nth).await;
        }
        let nodes = Nodes::start(1).await;
        assert_eq!(nodes.call(Command::Perform(100, 1 << 20)).await, Ok(63), "64 MiB, with keys and lengths");
        assert_eq!(nodes.call(Command::Take(vec![])).await, Ok(1), "the service goes on");
    });
}

struct Nodes {
    network: FaultNetwork,
    logs: Vec<MemoryLog>,
    nodes: Vec<ServiceNode<Obedient>>,
}

impl Nodes {
    async fn start(count: u64) -> Self {
        let logs = (0..count).map(|_| MemoryLog::new()).collect();
        let mut nodes = Self { network: FaultNetwork::new(1), logs, nodes: Vec::new() };
        for nth in 0..count as usize {
            nodes.nodes.push(nodes.start_one(nth).await);
        }
        nodes
    }

    async fn start_one(&self, nth: usize) -> ServiceNode<Obedient> {
        let ids = (1..=self.logs.len() as u64).map(NodeId);
        let id = NodeId(nth as u64 + 1);
        let node = Node::builder(id, CLUSTER).voters(ids.map(|id| (id, ""))).seed(id.0);
        let node = node.network(self.network.endpoint(id)).storage(Memory::shared(&self.logs[nth]));
        let handler = async |_: String, _: Ticket| pending().await;
        node.serve(Obedient::default).effects(handler).start_local().await.expect("a node")
    }

    async fn restart(&mut self, nth: usize) {
        soon("the end", self.nodes[nth].shutdown()).await;
        self.nodes[nth] = self.start_one(nth).await;
    }

    /// Calls at the leader, once there is one.
    async fn call(&self, command: Command) -> Result<u32, CallError> {
        let mut status = self.nodes[0].status();
        soon("a leader", status.wait_for(|status| status.leader.is_some())).await.expect("it runs");
        let leads = |node: &&ServiceNode<Obedient>| node.status().borrow().role == NodeRole::Leader;
        let node = self.nodes.iter().find(leads).unwrap_or(&self.nodes[0]);
        soon("an answer", node.call(command).into_future()).await.map(|applied| applied.reply)
    }

    async fn state(&self, nth: usize) -> Obedient {
        soon("an answer", self.nodes[nth].query(()).into_future()).await.expect("it is served").value
    }

    /// Waits until every node has applied the same.
    async fn agree(&self) {
        let applied = |node: &ServiceNode<Obedient>| node.status().borrow().applied;
        let last: Index = self.nodes.iter().map(applied).max().expect("a node");
        for node in &self.nodes {
            let mut status = node.status();
            soon("the index", status.wait_for(|status| status.applied >= last)).await.expect("it runs");
        }
    }
}
