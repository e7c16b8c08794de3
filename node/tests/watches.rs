//! Watches on whole nodes: every event once, in order, without a gap, wherever a watch goes on.
//!
//! A test that names an issue of etcd checks the property that was violated there.

mod support;

use futures_util::future::join_all;
use quorate::{
    At, CallError, Context, Index, Node, NodeId, NodeRole, QueryError, Read, ReadError, Service, ServiceNode,
    SessionKey, Snapshots, Topics, Watch, WatchError,
    storage::{Memory, MemoryLog},
};
use quorate_transport_testing::FaultNetwork;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};
use support::{CLUSTER, poll_once, simulate, soon};

/// Numbers by key. Each change is an event under its key.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
struct Numbers(State);

type State = BTreeMap<String, u64>;

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Command {
    Put(String, u64),
    Delete(String),
    Move {
        from: String,
        to: String,
    },
    /// Publishes an event of so many bytes.
    Announce(String, u32),
    Panic,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Event {
    Put(u64),
    Deleted,
    Announced(Vec<u8>),
}

impl Service for Numbers {
    quorate::types!(Command => (), () => State, event Event);

    fn apply(&mut self, command: Command, cx: &mut Context<'_, Self>) {
        match command {
            Command::Put(key, number) => {
                cx.publish(&key, Event::Put(number));
                self.0.insert(key, number);
            }
            Command::Delete(key) => {
                cx.publish(&key, Event::Deleted);
                self.0.remove(&key);
            }
            Command::Move { from, to } => {
                let number = self.0.remove(&from).unwrap_or_default();
                cx.publish(&from, Event::Deleted);
                cx.publish(&to, Event::Put(number));
                self.0.insert(to, number);
            }
            Command::Panic => panic!("as it was told"),
            Command::Announce(topic, bytes) => cx.publish(&topic, Event::Announced(vec![7; bytes as usize])),
        }
    }

    fn query(&self, (): (), _: At) -> State {
        self.0.clone()
    }
}

#[test]
fn a_watch_goes_on_at_another_node_after_a_failover() {
    simulate(async {
        let three = Three::start(Snapshots::default()).await;
        let leader = three.leader().await;
        let mut watch = three.nodes[leader].watch(Topics::All).await.expect("a watch");
        let mut indexes = three.put(leader, "a", 0..5).await;
        assert_eq!(take(&mut watch, 3).await, puts(&indexes, 0..3));
        let position = watch.position();
        three.stop(leader).await;
        let other = (leader + 1) % 3;
        indexes.extend(three.put(other, "a", 5..8).await);
        for nth in [other, (leader + 2) % 3] {
            let mut watch = three.nodes[nth].watch(Topics::All).after(position).await.expect("a watch");
            assert_eq!(take(&mut watch, 5).await, puts(&indexes, 3..8), "at node {nth}");
        }
        assert_eq!(take(&mut watch, 2).await, puts(&indexes, 3..5), "the stopped node had published them");
        assert_eq!(soon("the end", watch.next()).await, Err(WatchError::Stopped));
        assert!((indexes[4]..indexes[5]).contains(&watch.position()));
    });
}

#[test]
fn a_watch_goes_on_after_a_restart_from_the_log_and_from_a_snapshot() {
    simulate(async {
        let mut three = Three::start(Snapshots::default()).await;
        let indexes = three.put(0, "a", 0..6).await;
        for has_snapshot in [false, true] {
            for nth in 0..3 {
                if has_snapshot {
                    soon("a snapshot", three.nodes[nth].snapshot()).await.expect("it is written");
                }
                three.restart(nth).await;
            }
            for nth in 0..3 {
                let mut watch = three.nodes[nth].watch("a").after(indexes[1]).await.expect("a watch");
                assert_eq!(take(&mut watch, 4).await, puts(&indexes, 2..6));
            }
        }
    });
}

/// etcd #15271: a member that got a snapshot delivered old events again.
#[test]
fn a_watch_on_a_node_that_installs_a_snapshot_neither_goes_back_nor_has_a_gap() {
    simulate(async {
        let three = Three::start(small()).await;
        let leader = three.leader().await;
        let away = (leader + 1) % 3;
        let mut watch = three.nodes[away].watch("a").await.expect("a watch");
        let mut indexes = three.put(leader, "a", 0..5).await;
        assert_eq!(take(&mut watch, 5).await, puts(&indexes, 0..5));
        assert!(poll_once(&mut Box::pin(watch.next())).await.is_pending());
        three.network.faults().isolate(NodeId(away as u64 + 1));
        indexes.extend(three.put(leader, "a", 5..60).await);
        let (had, kept) = (three.status(away).last_log, three.status(leader).first_log);
        assert!(kept > had.next(), "the log begins at {kept}, so {had} needs a snapshot");
        three.network.faults().heal();
        for (nth, index) in indexes.iter().enumerate().skip(5) {
            let changes = soon("an event", watch.next()).await.expect("an event");
            assert_eq!((changes.index, &*changes.events[0].1), (*index, &Event::Put(nth as u64)));
            assert_eq!(watch.position(), *index);
        }
    });
}

/// etcd #17247: events of a transaction came twice.
#[test]
fn the_events_of_an_entry_come_together_and_once_though_its_command_comes_twice() {
    simulate(async {
        let three = Three::start(Snapshots::default()).await;
        let mut watches = Vec::new();
        for node in &three.nodes {
            watches.push(node.watch(Topics::All).await.expect("a watch"));
        }
        let key = SessionKey::named(b"me").expect("a name");
        for node in &three.nodes {
            let command = Command::Move { from: "a".into(), to: "b".into() };
            soon("an answer", node.call(command).numbered(&key, 1).into_future()).await.expect("it is applied");
        }
        let last = three.put(0, "z", 0..1).await[0];
        for watch in &mut watches {
            let changes = soon("an event", watch.next()).await.expect("an event");
            let events: Vec<_> = changes.events.iter().map(|(topic, event)| (&**topic, (**event).clone())).collect();
            assert_eq!(events, [("a", Event::Deleted), ("b", Event::Put(0))]);
            assert_eq!(soon("an event", watch.next()).await.expect("an event").index, last, "nothing in between");
        }
    });
}

/// etcd #17529: a slow watch, whose next events had been compacted, skipped them. #19179: a watch
/// at the revision of a compaction missed an event.
#[test]
fn a_watch_below_the_floor_ends_with_the_exact_floor_and_one_at_the_floor_misses_nothing() {
    simulate(async {
        let mut three = Three::start(Snapshots::default()).await;
        let mut slow = three.nodes[0].watch(Topics::All).await.expect("a watch");
        let first = three.put(0, "a", 0..2).await;
        assert_eq!(take(&mut slow, 1).await, puts(&first, 0..1));
        let mut announced = Vec::new();
        for nth in 0..9 {
            announced.push(three.call(nth % 3, Command::Announce("b".into(), 1 << 20)).await);
        }
        // Eight of them have more than 8 MiB.
        let floor = announced[1];
        for restarts in [false, true] {
            for nth in 0..3 {
                if restarts {
                    three.restart(nth).await;
                }
                three.reach(nth, announced[8]).await;
                let mut at = three.nodes[nth].watch("b").after(floor).await.expect("a watch");
                let indexes: Vec<_> = take(&mut at, 7).await.into_iter().map(|(index, _)| index).collect();
                assert_eq!(indexes, announced[2..]);
                let position = Index(floor.0 - 1);
                let mut below = three.nodes[nth].watch("none").after(position).await.expect("a watch");
                for _ in 0..2 {
                    assert_eq!(soon("the end", below.next()).await, Err(WatchError::Gone { floor, position }));
                }
            }
        }
        // Of a node that has stopped since, the history stays as it was.
        let gone = WatchError::Gone { floor, position: first[0] };
        assert_eq!(soon("the end", slow.next()).await, Err(gone), "the second event is not skipped");
        assert_eq!(slow.position(), first[0]);
    });
}

/// etcd #18089: a compaction at the revision of a deletion dropped the event of that.
#[test]
fn the_event_of_a_deletion_survives_log_compaction_on_every_node() {
    simulate(async {
        let mut three = Three::start(small()).await;
        let put = three.put(0, "k", 0..1).await[0];
        let deleted = three.call(1, Command::Delete("k".into())).await;
        let last = *three.put(2, "other", 0..40).await.last().expect("some");
        for nth in 0..3 {
            three.reach(nth, last).await;
            assert!(three.status(nth).first_log > deleted, "the log has it no more");
            for _ in 0..2 {
                let mut watch = three.nodes[nth].watch("k").after(put).await.expect("a watch");
                assert_eq!(take(&mut watch, 1).await, [(deleted, vec![Event::Deleted])]);
                three.restart(nth).await;
            }
        }
    });
}

/// etcd #20221, first half: a watch from a revision that its member had not reached got older
/// events.
#[test]
fn a_watch_ahead_of_its_node_waits_and_gets_nothing_up_to_its_index() {
    simulate(async {
        let three = Three::start(Snapshots::default()).await;
        let leader = three.leader().await;
        let away = (leader + 1) % 3;
        three.network.faults().isolate(NodeId(away as u64 + 1));
        let indexes = three.put(leader, "a", 0..10).await;
        let mut one = three.nodes[away].watch("a").after(indexes[4]).await.expect("a watch");
        let mut all = three.nodes[away].watch(Topics::All).after(indexes[4]).await.expect("a watch");
        for watch in [&mut one, &mut all] {
            assert!(poll_once(&mut Box::pin(watch.next())).await.is_pending());
        }
        three.network.faults().heal();
        assert_eq!(take(&mut one, 5).await, puts(&indexes, 5..10));
        assert_eq!(take(&mut all, 5).await, puts(&indexes, 5..10));
    });
}

/// etcd #20221, second half: a watch from a revision that its member had not reached was told a
/// lower one as its progress.
#[test]
fn the_position_of_a_watch_ahead_of_its_node_does_not_follow_the_node() {
    simulate(async {
        let three = Three::start(small()).await;
        let leader = three.leader().await;
        let away = (leader + 1) % 3;
        let id = NodeId(away as u64 + 1);
        three.network.faults().isolate(id);
        let indexes = three.put(leader, "a", 0..10).await;
        let after = Index(indexes[9].0 + 50);
        let mut watch = three.nodes[away].watch("a").after(after).await.expect("a watch");
        assert!(poll_once(&mut Box::pin(watch.next())).await.is_pending());
        three.network.faults().heal();
        let mut status = three.nodes[away].status();
        while status.borrow_and_update().applied < after {
            assert!(watch.position() >= after);
            three.put(leader, "b", 0..1).await;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        let applied = status.borrow().applied;
        assert!(watch.position() >= applied, "from there on it follows");
    });
}

/// etcd #15220: progress was reported before the events up to it.
#[test]
fn a_position_never_passes_an_event_that_was_not_returned_and_follows_a_quiet_topic() {
    simulate(async {
        let three = Three::start(Snapshots::default()).await;
        for nth in 0..3 {
            let mut watch = three.nodes[nth].watch("a").await.expect("a watch");
            let began = watch.position();
            let writes = async {
                for round in 0..20 {
                    three.put(nth, "b", 0..round % 4).await;
                    three.put(nth, "a", round..round + 1).await;
                }
            };
            let reads = async {
                let mut seen = began;
                for round in 0..20 {
                    if round % 3 == 0 {
                        tokio::time::sleep(Duration::from_millis(round)).await;
                    }
                    tokio::task::yield_now().await;
                    seen = seen.max(watch.position());
                    let changes = soon("an event", watch.next()).await.expect("an event");
                    assert!(changes.index > seen, "{} came after position {seen}", changes.index);
                    assert_eq!(*changes.events[0].1, Event::Put(round));
                }
            };
            join_all([Box::pin(writes) as std::pin::Pin<Box<dyn Future<Output = ()>>>, Box::pin(reads)]).await;
            assert!(poll_once(&mut Box::pin(watch.next())).await.is_pending());
            let last = three.put(nth, "b", 0..1).await[0];
            three.reach(nth, last).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert!(watch.position() >= last, "it waits in `next`, and moves on");
        }
    });
}

#[test]
fn a_state_and_the_events_after_it_give_every_later_state() {
    simulate(async {
        let three = Three::start(Snapshots::default()).await;
        three.leader().await;
        let writes = async {
            let (mut states, mut state) = (Vec::new(), State::new());
            for nth in 0..150_u64 {
                let key = ["a", "b", "c", "d"][nth as usize % 4].to_owned();
                let command = match nth % 5 {
                    0 => Command::Delete(key.clone()),
                    _ => Command::Put(key.clone(), nth),
                };
                tokio::time::sleep(Duration::from_millis(1)).await;
                let index = three.call(nth as usize % 3, command).await;
                match nth % 5 {
                    0 => state.remove(&key),
                    _ => state.insert(key, nth),
                };
                states.push((index, state.clone()));
            }
            (states, Vec::new())
        };
        let watches = (0..9_u64).map(|nth| {
            let node = &three.nodes[nth as usize % 3];
            async move {
                tokio::time::sleep(Duration::from_millis(nth * 10)).await;
                let seeing = node.watch(Topics::All).seeing(());
                let (Read { index, value: mut state }, mut watch) =
                    soon("an answer", seeing).await.expect("it is served");
                assert_eq!(watch.position(), index);
                let mut seen = vec![(index, state.clone())];
                for _ in 0..40 {
                    let changes = soon("an event", watch.next()).await.expect("an event");
                    for (key, event) in &changes.events {
                        match &**event {
                            Event::Put(number) => state.insert(key.to_string(), *number),
                            _ => state.remove(&**key),
                        };
                    }
                    seen.push((changes.index, state.clone()));
                }
                (Vec::new(), seen)
            }
        });
        type Run<'a> = std::pin::Pin<Box<dyn Future<Output = (Vec<(Index, State)>, Vec<(Index, State)>)> + 'a>>;
        let runs = [Box::pin(writes) as Run<'_>].into_iter().chain(watches.map(|run| Box::pin(run) as Run<'_>));
        let runs = join_all(runs).await;
        let states = &runs[0].0;
        let at = |index: Index| {
            states.iter().rev().find(|(of, _)| *of <= index).map_or_else(State::new, |(_, it)| it.clone())
        };
        let mut begun = Vec::new();
        for (_, seen) in &runs[1..] {
            begun.push(seen[0].0);
            for (index, state) in seen {
                assert_eq!(*state, at(*index), "at {index}, of a watch after {}", seen[0].0);
            }
        }
        assert!(begun.iter().any(|index| *index > states[0].0), "some began between the writes: {begun:?}");
    });
}

#[test]
fn a_watch_whose_wait_is_given_up_again_and_again_loses_nothing() {
    simulate(async {
        let three = Three::start(Snapshots::default()).await;
        let mut watch = three.nodes[1].watch(Topics::Prefix("a".into())).await.expect("a watch");
        let reads = async {
            let (mut got, mut given_up) = (Vec::new(), 0);
            while got.len() < 50 {
                match tokio::time::timeout(Duration::from_micros(50), watch.next()).await {
                    Ok(changes) => got.push(changes.expect("an event").index),
                    Err(_) => given_up += 1,
                }
            }
            assert!(given_up > 50, "{given_up}");
            got
        };
        let writes = async {
            let mut indexes = Vec::new();
            for nth in 0..50 {
                indexes.extend(three.put(0, &format!("a{}", nth % 3), nth..nth + 1).await);
                three.put(0, "b", 0..1).await;
            }
            indexes
        };
        let both: [std::pin::Pin<Box<dyn Future<Output = Vec<Index>>>>; 2] = [Box::pin(reads), Box::pin(writes)];
        let both = join_all(both).await;
        assert_eq!(both[0], both[1]);
    });
}

#[test]
fn a_large_event_comes_whole_and_one_above_the_bound_stays_until_the_next() {
    simulate(async {
        let mut three = Three::start(Snapshots::default()).await;
        let mut watch = three.nodes[0].watch("large").await.expect("a watch");
        let before = watch.position();
        let large = three.call(0, Command::Announce("large".into(), 1 << 20)).await;
        let event = || Event::Announced(vec![7; 1 << 20]);
        assert_eq!(take(&mut watch, 1).await, [(large, vec![event()])]);
        for nth in 0..3 {
            soon("a snapshot", three.nodes[nth].snapshot()).await.expect("it is written");
            three.restart(nth).await;
            let mut watch = three.nodes[nth].watch("large").after(before).await.expect("a watch");
            assert_eq!(take(&mut watch, 1).await, [(large, vec![event()])]);
        }
        let huge = three.call(0, Command::Announce("large".into(), 9 << 20)).await;
        for nth in 0..3 {
            three.reach(nth, huge).await;
            let mut watch = three.nodes[nth].watch("large").after(before).await.expect("a watch");
            let gone = WatchError::Gone { floor: large, position: before };
            assert_eq!(soon("the end", watch.next()).await, Err(gone));
            let mut watch = three.nodes[nth].watch("large").after(large).await.expect("a watch");
            assert_eq!(take(&mut watch, 1).await, [(huge, vec![Event::Announced(vec![7; 9 << 20])])]);
        }
        let next = three.put(0, "large", 0..1).await[0];
        let mut watch = three.nodes[0].watch("large").after(huge).await.expect("a watch");
        assert_eq!(take(&mut watch, 1).await, [(next, vec![Event::Put(0)])]);
    });
}

#[test]
fn a_witness_and_a_stopped_node_refuse_watches() {
    simulate(async {
        let network = FaultNetwork::new(1);
        let mut nodes = Vec::new();
        for id in [1, 2, 3].map(NodeId) {
            let node = Node::builder(id, CLUSTER).voters([1, 2, 3].map(|id| (NodeId(id), ""))).witness(NodeId(3));
            let node = node.network(network.endpoint(id)).storage(Memory::new()).seed(id.0);
            nodes.push(node.serve(Numbers::default).start_local().await.expect("a node"));
        }
        let refused = nodes[2].watch("a").await.expect_err("it has no events");
        assert_eq!(refused, WatchError::Witness);
        let refused = nodes[2].watch("a").seeing(()).await.expect_err("it has no events");
        assert_eq!(refused, QueryError::Read(ReadError::Witness));
        let mut watch = nodes[0].watch("a").await.expect("a watch");
        soon("the end", nodes[0].shutdown()).await;
        assert_eq!(soon("the end", watch.next()).await, Err(WatchError::Stopped));
        let refused = nodes[0].watch("a").await.expect_err("it has stopped");
        assert_eq!(refused, WatchError::Stopped);
        // The last handle of a node ends it, though a watch is left.
        let mut watch = nodes[1].watch("a").await.expect("a watch");
        nodes.clear();
        assert_eq!(soon("the end", watch.next()).await, Err(WatchError::Stopped));
    });
}

#[test]
fn a_watch_on_a_node_that_halts_gets_what_is_before_the_entry() {
    simulate(async {
        let three = Three::start(Snapshots::default()).await;
        let leader = three.leader().await;
        let mut watches = Vec::new();
        for node in &three.nodes {
            watches.push(node.watch(Topics::All).await.expect("a watch"));
        }
        let commands = [Command::Put("a".into(), 0), Command::Put("b".into(), 1), Command::Panic];
        let calls = commands.map(|command| three.nodes[leader].call(command).into_future());
        let outcomes = soon("the answers", join_all(calls)).await;
        assert_eq!(outcomes[2], Err(CallError::OutcomeUnknown));
        let indexes: Vec<_> = outcomes[..2].iter().map(|it| it.as_ref().expect("it is applied").index).collect();
        for (node, watch) in three.nodes.iter().zip(&mut watches) {
            assert_eq!(take(watch, 2).await, puts(&indexes, 0..2));
            let at = indexes[1].next();
            assert_eq!(soon("the end", watch.next()).await, Err(WatchError::Halted { at }));
            assert_eq!(watch.position(), indexes[1]);
            assert_eq!(node.watch("a").await.expect_err("it has halted"), WatchError::Halted { at });
            let refused = node.watch("a").seeing(()).await.expect_err("it has halted");
            assert_eq!(refused, QueryError::Read(ReadError::Halted { at }));
        }
    });
}

/// Nodes on threads of their own: the tasks of the watches run elsewhere.
#[test]
fn watches_on_other_threads_than_their_node_get_every_event() {
    support::run(async {
        let network = quorate::transport::MemoryNetwork::new();
        let node = Node::builder(NodeId(1), CLUSTER).voters([(NodeId(1), "")]);
        let node = node.network(network.endpoint(NodeId(1))).storage(Memory::new());
        let node = node.serve(Numbers::default).start().await.expect("a node");
        let mut tasks = Vec::new();
        for nth in 0..300 {
            let mut watch = node.watch(format!("{}", nth % 30).as_str()).await.expect("a watch");
            tasks.push(tokio::spawn(async move {
                for round in 0..20 {
                    let changes = soon("an event", watch.next()).await.expect("an event");
                    assert_eq!(*changes.events[0].1, Event::Put(round));
                }
                soon("the end", watch.next()).await.expect_err("no more events")
            }));
        }
        for round in 0..20 {
            let calls = (0..30).map(|key| node.call(Command::Put(key.to_string(), round)).into_future());
            assert!(soon("the answers", join_all(calls)).await.iter().all(Result::is_ok));
        }
        soon("the end", node.shutdown()).await;
        for task in tasks {
            assert_eq!(task.await.expect("it got all"), WatchError::Stopped);
        }
    });
}

fn small() -> Snapshots {
    Snapshots::default().with_every_entries(10).with_every_bytes(0).with_keep_entries(2)
}

struct Three {
    network: FaultNetwork,
    logs: Vec<MemoryLog>,
    snapshots: Snapshots,
    nodes: Vec<ServiceNode<Numbers>>,
    starts: u64,
}

impl Three {
    async fn start(snapshots: Snapshots) -> Self {
        let logs = (0..3).map(|_| MemoryLog::new()).collect();
        let mut three = Self { network: FaultNetwork::new(1), logs, snapshots, nodes: Vec::new(), starts: 0 };
        for nth in 0..3 {
            let node = three.start_one(nth).await;
            three.nodes.push(node);
        }
        three
    }

    async fn start_one(&mut self, nth: usize) -> ServiceNode<Numbers> {
        self.starts += 1;
        let (ids, id) = ([1, 2, 3].map(NodeId), NodeId(nth as u64 + 1));
        let node = Node::builder(id, CLUSTER).voters(ids.map(|id| (id, ""))).seed(self.starts);
        let node = node.network(self.network.endpoint(id)).storage(Memory::shared(&self.logs[nth]));
        node.snapshots(self.snapshots).serve(Numbers::default).start_local().await.expect("a node")
    }

    async fn stop(&self, nth: usize) {
        soon("the end", self.nodes[nth].shutdown()).await;
    }

    async fn restart(&mut self, nth: usize) {
        self.stop(nth).await;
        self.nodes[nth] = self.start_one(nth).await;
    }

    fn status(&self, nth: usize) -> quorate::Status {
        self.nodes[nth].status().borrow().clone()
    }

    async fn leader(&self) -> usize {
        let mut status = self.nodes[0].status();
        soon("a leader", status.wait_for(|status| status.leader.is_some())).await.expect("it runs");
        let leads = |nth: &usize| self.status(*nth).role == NodeRole::Leader;
        (0..3).find(leads).expect("a leader")
    }

    /// Waits until a node has applied an index.
    async fn reach(&self, nth: usize, index: Index) {
        let mut status = self.nodes[nth].status();
        soon("the index", status.wait_for(|status| status.applied >= index)).await.expect("it runs");
    }

    /// Through a session, so that it may be sent while a leader is lost.
    async fn call(&self, nth: usize, command: Command) -> Index {
        let session = soon("a session", self.nodes[nth].session()).await.expect("a session");
        soon("an answer", session.call(command)).await.expect("it is applied").index
    }

    async fn put(&self, nth: usize, key: &str, numbers: std::ops::Range<u64>) -> Vec<Index> {
        let mut indexes = Vec::new();
        for number in numbers {
            indexes.push(self.call(nth, Command::Put(key.into(), number)).await);
        }
        indexes
    }
}

/// The next entries of a watch.
async fn take(watch: &mut Watch<Numbers>, entries: usize) -> Vec<(Index, Vec<Event>)> {
    let mut taken = Vec::new();
    for _ in 0..entries {
        let changes = soon("an event", watch.next()).await.expect("an event");
        taken.push((changes.index, changes.events.iter().map(|(_, event)| (**event).clone()).collect()));
    }
    taken
}

/// The entries of the puts of these numbers.
fn puts(indexes: &[Index], numbers: std::ops::Range<u64>) -> Vec<(Index, Vec<Event>)> {
    numbers.map(|number| (indexes[number as usize], vec![Event::Put(number)])).collect()
}
