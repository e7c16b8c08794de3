//! Both networks pass the one suite.

mod support;

use quorate_raft::NodeId;
use quorate_transport::{MemoryNetwork, Network};
use quorate_transport_testing::conformance::{self, Harness};
use std::net::SocketAddr;

struct Memory(MemoryNetwork);

impl Harness for Memory {
    fn network(&mut self, node: NodeId, _: Option<SocketAddr>) -> Box<dyn Network> {
        Box::new(self.0.endpoint(node))
    }

    fn cluster(&self) -> String {
        support::CLUSTER.into()
    }
}

#[test]
fn quic_conforms() {
    support::run(conformance::run(&mut support::Pki::patient()));
}

#[test]
fn the_encoded_memory_network_conforms() {
    support::run_paused(conformance::run(&mut Memory(MemoryNetwork::new())));
}

#[test]
fn the_memory_network_by_value_conforms() {
    support::run_paused(conformance::run(&mut Memory(MemoryNetwork::by_value())));
}
