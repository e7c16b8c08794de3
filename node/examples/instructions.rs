//! A fixed number of commands through three nodes on one thread, for tools that count instructions:
//! `examples/bench/instructions` counts those of [`measured`]. Time is paused, so that timers of the
//! nodes fire only while nothing else is to be done: the same work at any speed.
//!
//! `instructions raw|typed|events memory|durable|quic COMMANDS IN_FLIGHT`: `events` is the typed one
//! with an event of each command, in a history that is full; `durable` has a write-ahead log on disk
//! (in `$TMPDIR`), which the nodes' thread writes and syncs itself, so that no time passes meanwhile;
//! `quic` has the same logs and connects the nodes over loopback, by QUIC with mutual TLS. There, time
//! is paused once a leader is elected, and moves by [`ROUND`] with each command of the first caller.

use bytes::Bytes;
use quorate::{
    At, Builder, Context, Hosted, Node, NodeId, Service, StateMachine, Timing,
    storage::{Memory, Wal},
    transport::{MemoryNetwork, Quic, QuicOptions, certificates::Authority},
};
use quorate_ports::Port;
use serde::{Deserialize, Serialize};
use std::{path::Path, sync::mpsc, time::Duration};
use tokio::{runtime::Runtime, task::LocalSet};

const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

const CLUSTER: &str = "instructions";
/// The time of a round of commands over QUIC, each caller's next one: about that of a sync.
const ROUND: Duration = Duration::from_millis(1);
/// The longest real time for which the clock stands still. If a packet is lost, only a timer sends it
/// again.
const STILL_MAX: Duration = Duration::from_secs(1_800);

/// A counter, as a machine of bytes.
struct Raw(u64);

impl StateMachine for Raw {
    fn apply(&mut self, _: &At, command: &[u8]) -> Bytes {
        self.0 += u64::from_le_bytes(command.try_into().expect("a number"));
        Bytes::copy_from_slice(&self.0.to_le_bytes())
    }
}

/// The same counter, as a service.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Typed(u64);

impl Service for Typed {
    quorate::types!(u64 => u64, () => u64);

    fn apply(&mut self, add: u64, _: &mut Context<'_, Self>) -> u64 {
        self.0 += add;
        self.0
    }

    fn query(&self, (): (), _: At) -> u64 {
        self.0
    }
}

/// The same service, which publishes the count with each command.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Events(u64);

impl Service for Events {
    quorate::types!(u64 => u64, () => u64, event u64);

    fn apply(&mut self, add: u64, cx: &mut Context<'_, Self>) -> u64 {
        self.0 += add;
        cx.publish("count", self.0);
        self.0
    }

    fn query(&self, (): (), _: At) -> u64 {
        self.0
    }
}

/// The events that a history holds by default.
const HISTORY: u64 = 16_384;

/// Work that is counted, after work that is not: numbers of commands.
#[derive(Clone, Copy)]
struct Work {
    before: u64,
    commands: u64,
    in_flight: u64,
    place: Place,
}

/// The logs and the network.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Memory,
    Durable,
    Quic,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, logs, commands, in_flight] = &arguments[..] else {
        panic!("raw|typed|events memory|durable|quic COMMANDS IN_FLIGHT")
    };
    let (commands, in_flight) = (commands.parse().expect("a number"), in_flight.parse().expect("a number"));
    let place = match &**logs {
        "memory" => Place::Memory,
        "durable" => Place::Durable,
        "quic" => Place::Quic,
        other => panic!("{other}: neither memory nor durable nor quic"),
    };
    // The first commands fill what is kept from command to command.
    let work = Work { before: in_flight * 10, commands, in_flight, place };
    match &**kind {
        "raw" => raw(work),
        "typed" => typed(Typed::default, work),
        "events" => typed(Events::default, Work { before: work.before + HISTORY, ..work }),
        other => panic!("{other}: neither raw nor typed nor events"),
    }
}

fn raw(work: Work) {
    let call = async |node: &Node<Raw>, add: u64| {
        let reply = node.propose(Bytes::copy_from_slice(&add.to_le_bytes())).await.expect("applied").reply;
        u64::from_le_bytes(reply[..].try_into().expect("a number"))
    };
    run(work, async |builder| builder.start_local(Raw(0)).await.expect("a node"), call);
}

fn typed<S: Service<Command = u64, Reply = u64>>(new: fn() -> S, work: Work) {
    let start = async |builder: Builder| builder.serve(new).start_local().await.expect("a node");
    let call = async |node: &Node<Hosted<S>>, add: u64| node.call(add).await.expect("applied").reply;
    run(work, start, call);
}

fn run<M: StateMachine>(
    Work { before, commands, in_flight, place }: Work,
    start: impl AsyncFn(Builder) -> Node<M>,
    call: impl AsyncFn(&Node<M>, u64) -> u64,
) {
    let is_quic = place == Place::Quic;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(!is_quic).build();
    let (runtime, tasks) = (runtime.expect("a runtime"), LocalSet::new());
    let dir = tempfile::tempdir().expect("a directory");
    let nodes = tasks.block_on(&runtime, three(start, place, dir.path()));
    let leads = |node: &&Node<M>| node.status().borrow().leader == Some(node.id());
    let leader = tasks.block_on(&runtime, async {
        loop {
            match nodes.iter().find(leads) {
                Some(leader) => break leader,
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    });
    let _still = is_quic.then(|| runtime.block_on(async { stand_still() }));
    let round = if is_quic { ROUND } else { Duration::ZERO };
    tasks.block_on(&runtime, propose(leader, before, in_flight, round, &call));
    let counted = measured(&runtime, &tasks, propose(leader, commands, in_flight, round, &call));
    assert_eq!(counted, before + commands);
}

/// Pauses time until the sender is dropped, even while all tasks wait for packets: else paused time
/// moves to the next timer then. A runtime with a blocking task leaves it where it is.
fn stand_still() -> mpsc::Sender<()> {
    let (still, moves) = mpsc::channel();
    tokio::task::spawn_blocking(move || moves.recv_timeout(STILL_MAX));
    tokio::time::pause();
    still
}

/// Not inlined, so that a tool finds its begin and end.
#[inline(never)]
fn measured(runtime: &Runtime, tasks: &LocalSet, work: impl Future<Output = u64>) -> u64 {
    tasks.block_on(runtime, work)
}

async fn three<M: StateMachine>(start: impl AsyncFn(Builder) -> Node<M>, place: Place, dir: &Path) -> Vec<Node<M>> {
    let (network, mut nodes) = (MemoryNetwork::by_value(), Vec::new());
    let ports = quorate_ports::reserve(NODES.len()).expect("ports");
    let authority = Authority::create(CLUSTER).expect("an authority");
    authority.write(dir).expect("files");
    for (id, port) in NODES.into_iter().zip(&ports) {
        let builder = Node::builder(id, CLUSTER);
        let builder = match place {
            Place::Quic => over_quic(builder, id, &authority, dir, port)
                .voters(NODES.into_iter().zip(ports.iter().map(|port| port.address().to_string()))),
            Place::Memory | Place::Durable => builder.voters(NODES.map(|id| (id, ""))).network(network.endpoint(id)),
        };
        nodes.push(match place {
            Place::Memory => start(builder.storage(Memory::new())).await,
            Place::Durable | Place::Quic => start(builder.storage(Wal::at(dir.join(id.to_string())))).await,
        });
    }
    nodes
}

/// Election timeouts are long, because a tool that counts is slow; those of the first node are
/// shorter, so that it leads.
fn over_quic(builder: Builder, id: NodeId, authority: &Authority, dir: &Path, port: &Port) -> Builder {
    let name = format!("node-{id}");
    let issued = authority.issue_node(id, &[]).expect("a certificate");
    issued.write(dir, &name).expect("files");
    let file = |end: &str| dir.join(format!("{name}.{end}"));
    let options = QuicOptions::new(port.address(), dir.join("ca.pem"), file("pem"), file("key"));
    let mut timing = Timing::default();
    let shortest = Duration::from_secs(if id == NODES[0] { 5 } else { 60 });
    timing.election_timeout = (shortest, shortest * 2);
    builder.network(Quic::new(options).expect("a network")).timing(timing)
}

/// The greatest count that a caller was told. Paused time moves by `round` before each command of
/// the first caller.
async fn propose<M: StateMachine>(
    leader: &Node<M>,
    commands: u64,
    in_flight: u64,
    round: Duration,
    call: &impl AsyncFn(&Node<M>, u64) -> u64,
) -> u64 {
    let clients = (0..in_flight).map(|nth| async move {
        let mut last = 0;
        for _ in 0..commands / in_flight + u64::from(nth < commands % in_flight) {
            if nth == 0 && !round.is_zero() {
                tokio::time::advance(round).await;
            }
            last = call(leader, 1).await;
        }
        last
    });
    futures_util::future::join_all(clients).await.into_iter().max().unwrap_or(0)
}
