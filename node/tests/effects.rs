//! Effects on whole nodes: performed by the leader at least once, completed once.

mod support;

use futures_util::future::pending;
use quorate::{
    At, Context, EffectId, Index, Node, NodeId, NodeRole, Perform, Retry, Service, ServiceNode, StartError, Ticket,
    Token,
    metrics::Metrics,
    storage::{Memory, MemoryLog},
};
use quorate_transport_testing::{FaultNetwork, Faults};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use support::{CLUSTER, simulate, soon};
use tokio::time::{Instant, sleep};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// Sends parcels, and remembers those that have arrived.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
struct Courier {
    arrived: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Parcel {
    text: String,
    how: How,
}

/// How the outside takes a parcel.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum How {
    /// After as many milliseconds.
    After(u64),
    /// It panics as often, then takes it.
    Panic(u32),
    /// It asks as often to be called again, after as many milliseconds.
    Retry(u32, u64),
    /// It does not answer this often.
    Hang(u32),
}

impl Service for Courier {
    quorate::types!((String, Parcel) => Option<EffectId>, () => Vec<String>, signal String, effect Parcel);

    fn apply(&mut self, (key, parcel): (String, Parcel), cx: &mut Context<'_, Self>) -> Option<EffectId> {
        cx.perform(&key, parcel).ok()
    }

    fn signal(&mut self, text: String, _: &mut Context<'_, Self>) {
        self.arrived.push(text);
    }

    fn query(&self, (): (), _: At) -> Vec<String> {
        self.arrived.clone()
    }
}

/// The outside: all calls of handlers, in the order in which they began.
#[derive(Clone, Default)]
struct Outside(Arc<Mutex<Vec<Call>>>);

#[derive(Clone, Debug)]
struct Call {
    node: NodeId,
    text: String,
    ticket: Ticket,
    began: Instant,
    ended: Option<End>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Performed(Instant),
    Failed,
    Dropped(Instant),
}

impl Outside {
    fn calls(&self) -> MutexGuard<'_, Vec<Call>> {
        self.0.lock().expect("no test panics with it")
    }

    /// The calls for one parcel.
    fn of(&self, text: &str) -> Vec<Call> {
        self.calls().iter().filter(|call| call.text == text).cloned().collect()
    }

    async fn called(&self, text: &str, times: usize) -> Call {
        let called = async {
            while self.of(text).len() < times {
                sleep(MS(1)).await;
            }
        };
        soon("a call of the handler", called).await;
        self.of(text).swap_remove(times - 1)
    }

    /// The calls for one parcel that performed it.
    fn performed(&self, text: &str) -> usize {
        self.of(text).iter().filter(|call| matches!(call.ended, Some(End::Performed(_)))).count()
    }
}

struct Handler {
    node: NodeId,
    outside: Outside,
}

impl Perform<Courier> for Handler {
    async fn perform(&self, Parcel { text, how }: Parcel, ticket: Ticket) -> Result<String, Retry> {
        let attempt = ticket.attempt;
        let call = Call { node: self.node, text: text.clone(), ticket, began: Instant::now(), ended: None };
        let mut running = Running { outside: self.outside.clone(), nth: self.outside.calls().len() };
        self.outside.calls().push(call);
        match how {
            How::After(ms) => sleep(MS(ms)).await,
            How::Panic(times) if attempt <= times => {
                running.end(End::Failed);
                panic!("as it was told");
            }
            How::Retry(times, ms) if attempt <= times => {
                running.end(End::Failed);
                return Err(Retry::because("as it was told").after(MS(ms)));
            }
            How::Hang(times) if attempt <= times => pending().await,
            How::Panic(_) | How::Retry(..) | How::Hang(_) => {}
        }
        running.end(End::Performed(Instant::now()));
        Ok(text)
    }
}

/// A call under way: notices that it is dropped.
struct Running {
    outside: Outside,
    nth: usize,
}

impl Running {
    fn end(&mut self, end: End) {
        self.outside.calls()[self.nth].ended.get_or_insert(end);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end(End::Dropped(Instant::now()));
    }
}

struct Three {
    network: FaultNetwork,
    faults: Faults,
    logs: Vec<MemoryLog>,
    nodes: Vec<ServiceNode<Courier>>,
    outside: Outside,
    metrics: Metrics,
    starts: u64,
}

impl Three {
    async fn start() -> Self {
        let network = FaultNetwork::new(1);
        let logs = (0..3).map(|_| MemoryLog::new()).collect();
        let (faults, outside, metrics) = (network.faults(), Outside::default(), Metrics::new());
        let mut three = Self { network, faults, logs, nodes: Vec::new(), outside, metrics, starts: 0 };
        for nth in 0..3 {
            let node = three.start_one(nth).await;
            three.nodes.push(node);
        }
        three
    }

    async fn start_one(&mut self, nth: usize) -> ServiceNode<Courier> {
        self.starts += 1;
        let (ids, id) = ([1, 2, 3].map(NodeId), NodeId(nth as u64 + 1));
        let node = Node::builder(id, CLUSTER).voters(ids.map(|id| (id, ""))).seed(id.0 + 10 * self.starts);
        let node = node.network(self.network.endpoint(id)).storage(Memory::shared(&self.logs[nth]));
        let handler = Handler { node: id, outside: self.outside.clone() };
        let node = node.metrics(&self.metrics).serve(Courier::default).outbox(64, 1 << 20).effects(handler);
        node.start_local().await.expect("a node")
    }

    async fn restart(&mut self, nth: usize) {
        soon("the end", self.nodes[nth].shutdown()).await;
        self.nodes[nth] = self.start_one(nth).await;
    }

    /// The node that leads alone.
    async fn leader(&self) -> usize {
        let leader = async {
            loop {
                let leads = |node: &&ServiceNode<Courier>| node.status().borrow().role == NodeRole::Leader;
                let leaders: Vec<_> = self.nodes.iter().filter(leads).map(Node::id).collect();
                if let [leader] = leaders[..] {
                    return leader.0 as usize - 1;
                }
                sleep(MS(5)).await;
            }
        };
        soon("a leader", leader).await
    }

    /// Sends a parcel, once, whatever becomes of the leaders.
    async fn send(&self, nth: usize, key: &str, text: &str, how: How) -> Option<EffectId> {
        let session = soon("a session", self.nodes[nth].session()).await.expect("a session");
        let parcel = Parcel { text: text.into(), how };
        soon("an answer", session.call((key.into(), parcel))).await.expect("it is applied").reply
    }

    /// The parcels that have arrived, once there are as many, and on every node alike.
    async fn arrived(&self, count: usize) -> Vec<String> {
        let arrived = async {
            loop {
                match self.nodes[0].query(()).await {
                    Ok(read) if read.value.len() >= count => return read.value,
                    _ => sleep(MS(10)).await,
                }
            }
        };
        let arrived = soon(&format!("{count} parcels"), arrived).await;
        for node in &self.nodes[1..] {
            assert_eq!(soon("an answer", node.query(()).into_future()).await.expect("it is served").value, arrived);
        }
        arrived
    }

    fn others(&self, nth: usize) -> Vec<NodeId> {
        [1, 2, 3].map(NodeId).into_iter().filter(|id| id.0 as usize != nth + 1).collect()
    }

    fn metric(&self, name: &str) -> f64 {
        let page = self.metrics.render();
        let values = page.lines().filter(|line| line.starts_with(name)).filter_map(|line| line.split(' ').next_back());
        values.map(|value| value.parse::<f64>().expect("a number")).sum()
    }
}

#[test]
fn each_effect_is_completed_once_in_order_per_key_through_leader_changes_and_restarts() {
    simulate(async {
        let mut three = Three::start().await;
        let mut sent = BTreeMap::<String, Vec<String>>::new();
        for round in 0..12 {
            let leader = three.leader().await;
            for nth in 0..6 {
                let (key, text) = (format!("key-{}", nth % 3), format!("{round}.{nth}"));
                three.send(nth % 3, &key, &text, How::After(nth as u64 * 15)).await.expect("there is room");
                sent.entry(key).or_default().push(text);
            }
            match round % 4 {
                0 => drop(soon("a transfer", three.nodes[leader].transfer(None)).await),
                1 => three.restart(leader).await,
                2 => {
                    three.faults.isolate(NodeId(leader as u64 + 1));
                    sleep(MS(1_000)).await;
                    three.faults.heal();
                }
                _ => sleep(MS(200)).await,
            }
        }
        let arrived = three.arrived(72).await;
        sleep(Duration::from_secs(5)).await;
        assert_eq!(three.arrived(72).await, arrived, "nothing is completed twice");
        let calls = three.outside.calls().clone();
        for (key, texts) in &sent {
            // The next one is called only once each one before was performed.
            for (at, call) in calls.iter().enumerate().filter(|(_, call)| *call.ticket.key == **key) {
                let place = texts.iter().position(|text| *text == call.text).expect("it was sent");
                let is_performed = |text: &&String| {
                    let by_then = |end| matches!(end, End::Performed(then) if then <= call.began);
                    calls[..at].iter().any(|earlier| earlier.text == **text && earlier.ended.is_some_and(by_then))
                };
                let missing = texts[..place].iter().find(|text| !is_performed(text));
                assert_eq!(missing, None, "{} is called before it is performed", call.text);
            }
            let of_key: Vec<_> = arrived.iter().filter(|text| texts.contains(text)).collect();
            assert_eq!(of_key, texts.iter().collect::<Vec<_>>(), "{key} is in order");
        }
        let again = calls.len() - 72;
        assert!(again > 0, "leaders were lost in the middle of calls");
        check_fences(&calls);
        assert_eq!(three.metric("quorate_effects_pending"), 0.0);
        assert!(three.metric("quorate_effects_performed_total") >= 72.0);
    });
}

/// A fence is one node's, and a later one is higher; an effect has one id.
fn check_fences(calls: &[Call]) {
    let (mut nodes, mut first_seen, mut ids) = (BTreeMap::new(), Vec::<Token>::new(), BTreeMap::new());
    for Call { node, text, ticket, .. } in calls {
        assert_eq!(nodes.entry(ticket.fence).or_insert(*node), node, "two nodes have one fence");
        if !first_seen.contains(&ticket.fence) {
            first_seen.push(ticket.fence);
        }
        assert_eq!(*ids.entry(text.clone()).or_insert(ticket.id), ticket.id, "{text} has two ids");
    }
    assert!(first_seen.is_sorted() && first_seen.len() > 3, "{first_seen:?}");
}

#[test]
fn a_late_completion_of_a_deposed_leader_does_not_count() {
    simulate(async {
        let three = Three::start().await;
        let deposed = three.leader().await;
        three.send(deposed, "a", "parcel", How::After(60)).await.expect("there is room");
        three.outside.called("parcel", 1).await;
        // Its result enters its log, and no other.
        three.faults.isolate(NodeId(deposed as u64 + 1));
        let second = three.outside.called("parcel", 2).await;
        assert!(three.others(deposed).contains(&second.node));
        let first = &three.outside.of("parcel")[0];
        assert!(matches!(first.ended, Some(End::Performed(_))), "{first:?}");
        assert_eq!(first.ticket.id, second.ticket.id);
        assert!(first.ticket.fence < second.ticket.fence, "the outside can refuse the earlier one");
        assert_eq!((first.ticket.attempt, second.ticket.attempt), (1, 1));
        sleep(MS(500)).await;
        three.faults.heal();
        assert_eq!(three.arrived(1).await, ["parcel"]);
        three.send(deposed, "a", "next", How::After(0)).await.expect("there is room");
        assert_eq!(three.arrived(2).await, ["parcel", "next"]);
        assert_eq!(three.outside.performed("parcel"), 2);
    });
}

#[test]
fn a_handler_that_fails_is_called_again_and_others_go_on() {
    simulate(async {
        let three = Three::start().await;
        for (key, how) in [
            ("panics", How::Panic(2)),
            ("retries", How::Retry(2, 5_000)),
            ("hangs", How::Hang(1)),
            ("works", How::After(1)),
        ] {
            three.send(0, key, key, how).await.expect("there is room");
        }
        three.send(0, "hangs", "after", How::After(0)).await.expect("there is room");
        assert_eq!(three.arrived(1).await, ["works"]);
        assert_eq!(three.arrived(2).await, ["works", "panics"]);
        assert_eq!(three.arrived(3).await, ["works", "panics", "retries"]);
        sleep(Duration::from_secs(20)).await;
        assert_eq!(three.arrived(5).await[3..], ["hangs", "after"]);
        let pauses = |text: &str| {
            let calls = three.outside.of(text);
            let ids: BTreeSet<_> = calls.iter().map(|call| (call.ticket.id, call.ticket.fence)).collect();
            assert_eq!(ids.len(), 1, "one effect, one leader");
            let attempts: Vec<_> = calls.iter().map(|call| call.ticket.attempt).collect();
            assert_eq!(attempts, (1..=calls.len() as u32).collect::<Vec<_>>());
            calls.windows(2).map(|two| (two[1].began - two[0].began).as_millis()).collect::<Vec<_>>()
        };
        let near = |found: Vec<u128>, expected: &[u128]| {
            assert_eq!(found.len(), expected.len(), "{found:?}");
            assert!(
                found.iter().zip(expected).all(|(found, expected)| (*expected..expected + 50).contains(found)),
                "{found:?}"
            );
        };
        near(pauses("panics"), &[100, 200]);
        near(pauses("retries"), &[5_000, 5_000]);
        near(pauses("hangs"), &[30_100]);
        let hung = &three.outside.of("hangs")[0];
        let Some(End::Dropped(at)) = hung.ended else { panic!("{hung:?}") };
        assert!((MS(30_000)..MS(30_050)).contains(&(at - hung.began)), "after {:?}", at - hung.began);
        assert_eq!(three.metric("quorate_effects_retried_total"), 5.0);
        assert_eq!(three.metric("quorate_effects_performed_total"), 5.0);
    });
}

#[test]
fn all_calls_are_dropped_when_the_leadership_ends() {
    simulate(async {
        let three = Three::start().await;
        let leader = three.leader().await;
        for key in ["a", "b"] {
            three.send(leader, key, key, How::Hang(1)).await.expect("there is room");
            three.outside.called(key, 1).await;
        }
        soon("a transfer", three.nodes[leader].transfer(None)).await.expect("another node leads");
        let over = Instant::now();
        for key in ["a", "b"] {
            let second = three.outside.called(key, 2).await;
            let first = &three.outside.of(key)[0];
            assert!(first.ticket.fence < second.ticket.fence && second.ticket.attempt == 1);
            let Some(End::Dropped(at)) = first.ended else { panic!("{first:?}") };
            assert!(at <= over + MS(50), "dropped {:?} after the transfer", at - over);
        }
    });
}

#[test]
fn a_full_outbox_refuses_and_has_room_again() {
    simulate(async {
        let three = Three::start().await;
        for nth in 0..64 {
            three.send(0, "one", &nth.to_string(), How::After(1_000)).await.expect("there is room");
        }
        assert_eq!(three.send(0, "another", "refused", How::After(0)).await, None);
        assert_eq!(three.metric("quorate_effects_pending"), 64.0);
        three.arrived(1).await;
        three.send(0, "another", "taken", How::After(0)).await.expect("there is room");
        let arrived = async {
            while three.outside.performed("taken") == 0 {
                sleep(MS(10)).await
            }
        };
        soon("a parcel under another key", arrived).await;
    });
}

#[test]
fn a_node_whose_handles_are_dropped_ends_and_drops_its_calls() {
    simulate(async {
        let mut three = Three::start().await;
        let leader = three.leader().await;
        three.send(leader, "a", "a", How::Hang(9)).await.expect("there is room");
        three.outside.called("a", 1).await;
        let task = three.nodes[leader].while_leading(|_| pending());
        drop(three.nodes.remove(leader));
        let dropped = async {
            while three.outside.of("a")[0].ended.is_none() {
                sleep(MS(10)).await
            }
        };
        soon("the end of the call", dropped).await;
        drop(task);
    });
}

#[test]
fn a_service_with_effects_does_not_start_without_a_handler() {
    simulate(async {
        let node = Node::builder(NodeId(1), CLUSTER).voters([(NodeId(1), "")]);
        let node = node.network(FaultNetwork::new(1).endpoint(NodeId(1))).storage(Memory::new());
        let refused = node.serve(Courier::default).start_local().await;
        let Err(StartError::Config(why)) = refused else { panic!("{refused:?}") };
        assert!(why.contains("Courier has effects") && why.contains("Serve::effects"), "{why}");
    });
}

#[test]
fn a_task_of_the_leader_starts_with_each_leadership_and_is_dropped_at_its_loss() {
    simulate(async {
        let three = Three::start().await;
        let runs = Outside::default();
        let tasks: Vec<_> = three
            .nodes
            .iter()
            .map(|node| {
                let (node_id, runs) = (node.id(), runs.clone());
                node.while_leading(move |fence| {
                    let nth = runs.calls().len();
                    let id = EffectId { index: Index(0), nth: 0 };
                    let ticket = Ticket { id, key: "".into(), fence, attempt: 1 };
                    runs.calls().push(Call {
                        node: node_id,
                        text: String::new(),
                        ticket,
                        began: Instant::now(),
                        ended: None,
                    });
                    let running = Running { outside: runs.clone(), nth };
                    async move {
                        let _running = running;
                        pending().await
                    }
                })
            })
            .collect();
        for times in 1..=4 {
            let run = runs.called("", times).await;
            let leader = three.leader().await;
            assert_eq!(run.node, NodeId(leader as u64 + 1));
            let under_way = runs.calls().iter().filter(|run| run.ended.is_none()).count();
            assert_eq!(under_way, 1, "the others are dropped");
            if times % 2 == 0 {
                soon("a transfer", three.nodes[leader].transfer(None)).await.expect("another node leads");
            } else {
                three.faults.isolate(run.node);
                runs.called("", times + 1).await;
                sleep(MS(1_000)).await;
                three.faults.heal();
            }
        }
        let fences: Vec<_> = runs.calls().iter().map(|run| run.ticket.fence).collect();
        assert!(fences.is_sorted_by(|one, next| one < next), "{fences:?}");
        drop(tasks);
        sleep(MS(10)).await;
        assert!(runs.calls().iter().all(|run| run.ended.is_some()), "the tasks went with their handles");
    });
}
