//! A fixed number of commands through three nodes on one thread, for tools that count instructions:
//! `examples/bench/instructions` counts those of [`measured`]. Time is paused, so that timers of the
//! nodes fire only while nothing else is to be done: the same work at any speed.
//!
//! `instructions raw|typed COMMANDS IN_FLIGHT`

use bytes::Bytes;
use quorate::{
    At, Builder, Context, Hosted, Node, NodeId, Service, StateMachine, storage::Memory, transport::MemoryNetwork,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::{runtime::Runtime, task::LocalSet};

const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

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

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, commands, in_flight] = &arguments[..] else { panic!("raw|typed COMMANDS IN_FLIGHT") };
    let (commands, in_flight) = (commands.parse().expect("a number"), in_flight.parse().expect("a number"));
    match &**kind {
        "raw" => raw(commands, in_flight),
        "typed" => typed(commands, in_flight),
        other => panic!("{other}: neither raw nor typed"),
    }
}

fn raw(commands: u64, in_flight: u64) {
    let call = async |node: &Node<Raw>, add: u64| {
        let reply = node.propose(Bytes::copy_from_slice(&add.to_le_bytes())).await.expect("applied").reply;
        u64::from_le_bytes(reply[..].try_into().expect("a number"))
    };
    run(commands, in_flight, async |builder| builder.start_local(Raw(0)).await.expect("a node"), call);
}

fn typed(commands: u64, in_flight: u64) {
    let start = async |builder: Builder| builder.serve(Typed::default).start_local().await.expect("a node");
    let call = async |node: &Node<Hosted<Typed>>, add: u64| node.call(add).await.expect("applied").reply;
    run(commands, in_flight, start, call);
}

fn run<M: StateMachine>(
    commands: u64,
    in_flight: u64,
    start: impl AsyncFn(Builder) -> Node<M>,
    call: impl AsyncFn(&Node<M>, u64) -> u64,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let (runtime, tasks) = (runtime.expect("a runtime"), LocalSet::new());
    let nodes = tasks.block_on(&runtime, three(start));
    let leads = |node: &&Node<M>| node.status().borrow().leader == Some(node.id());
    let leader = tasks.block_on(&runtime, async {
        loop {
            match nodes.iter().find(leads) {
                Some(leader) => break leader,
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    });
    // The first commands fill what is kept from command to command.
    let before = in_flight * 10;
    tasks.block_on(&runtime, propose(leader, before, in_flight, &call));
    let counted = measured(&runtime, &tasks, propose(leader, commands, in_flight, &call));
    assert_eq!(counted, before + commands);
}

/// Not inlined, so that a tool finds its begin and end.
#[inline(never)]
fn measured(runtime: &Runtime, tasks: &LocalSet, work: impl Future<Output = u64>) -> u64 {
    tasks.block_on(runtime, work)
}

async fn three<M: StateMachine>(start: impl AsyncFn(Builder) -> Node<M>) -> Vec<Node<M>> {
    let (network, mut nodes) = (MemoryNetwork::by_value(), Vec::new());
    for id in NODES {
        let builder = Node::builder(id, "instructions").voters(NODES.map(|id| (id, "")));
        nodes.push(start(builder.network(network.endpoint(id)).storage(Memory::new())).await);
    }
    nodes
}

/// The greatest count that a caller was told.
async fn propose<M: StateMachine>(
    leader: &Node<M>,
    commands: u64,
    in_flight: u64,
    call: &impl AsyncFn(&Node<M>, u64) -> u64,
) -> u64 {
    let clients = (0..in_flight).map(|nth| async move {
        let mut last = 0;
        for _ in 0..commands / in_flight + u64::from(nth < commands % in_flight) {
            last = call(leader, 1).await;
        }
        last
    });
    futures_util::future::join_all(clients).await.into_iter().max().unwrap_or(0)
}
