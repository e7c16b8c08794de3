//! A panic in any actor ends its node.

use super::*;
use crate::actors::{election_timer::ElectionTimer, replicator::Replicator, vote_collector::VoteCollector};
use crate::events::{CampaignResult, Received};
use crate::{Node, ProposeError, ReadError, actors, builder::Builder};
use quorate_storage::Memory;
use quorate_transport_testing::FaultNetwork;
use std::{future::Future, time::Duration};

#[test]
fn a_panic_in_consensus_ends_the_node() {
    simulate(async {
        let world = World::start().await;
        world.panic_in(Victim::Consensus);
        world.has_ended("Consensus").await;
    });
}

#[test]
fn a_panic_in_the_election_timer_ends_the_node() {
    simulate(async {
        let world = World::start().await;
        world.panic_in(Victim::ElectionTimer);
        world.has_ended("ElectionTimer").await;
    });
}

#[test]
fn a_panic_in_the_vote_collector_ends_the_node() {
    simulate(async {
        let world = World::start().await;
        // Alone, it campaigns for ever.
        world.until(|status| status.role == crate::NodeRole::PreCandidate).await;
        world.panic_in(Victim::VoteCollector);
        world.has_ended("VoteCollector").await;
    });
}

#[test]
fn a_panic_in_a_replicator_ends_the_node() {
    simulate(async {
        let world = World::start().await;
        let other = world.builder(NodeId(2)).start_local(()).await.expect("a node");
        // Until this node leads.
        while !world.until(|status| status.leader.is_some()).await {
            world.network.faults().isolate(NodeId(2));
            world.until(|status| status.leader.is_none()).await;
            world.network.faults().heal();
        }
        world.panic_in(Victim::Replicator);
        world.has_ended("Replicator").await;
        drop(other);
    });
}

#[test]
fn a_late_result_of_a_ballot_decides_no_later_one() {
    simulate(async {
        let world = World::start().await;
        world.until(|status| status.role == crate::NodeRole::PreCandidate).await;
        let (mut events, term) = (world.node.events(), world.node.status().borrow().term);
        for campaign in [0, 1_000_000] {
            world.consensus.do_send(ElectionWon { term, campaign });
            world.consensus.do_send(ElectionLost { term, campaign });
        }
        let ended = async {
            while let Some(received) = events.next().await {
                if let Received::Event(event) = received
                    && let What::CampaignEnded { result, .. } = event.what
                {
                    return Some(result);
                }
            }
            None
        };
        assert_eq!(soon(ended).await, Some(CampaignResult::TimedOut), "no result of its own came");
    });
}

/// To an actor: panic.
#[derive(Message)]
#[rtype(result = "()")]
struct Panic;

/// To `Consensus`: let this one panic.
#[derive(Message, Clone, Copy)]
#[rtype(result = "()")]
enum Victim {
    Consensus,
    ElectionTimer,
    VoteCollector,
    Replicator,
}

impl Handler<Victim> for Consensus {
    type Result = ();

    fn handle(&mut self, victim: Victim, _: &mut Self::Context) {
        match victim {
            Victim::Consensus => panic!("told to"),
            Victim::ElectionTimer => self.roles.timer.do_send(Panic),
            Victim::VoteCollector => self.roles.collector.as_ref().expect("an open ballot").do_send(Panic),
            Victim::Replicator => self.roles.replicators.values().next().expect("a leader").do_send(Panic),
        }
    }
}

macro_rules! panics {
    ($($actor:ty)+) => {$(
        impl Handler<Panic> for $actor {
            type Result = ();

            fn handle(&mut self, _: Panic, _: &mut Self::Context) {
                panic!("told to");
            }
        }
    )+};
}

panics!(ElectionTimer VoteCollector Replicator);

/// One node of a cluster of two.
struct World {
    network: FaultNetwork,
    consensus: Addr<Consensus>,
    node: Node<()>,
}

impl World {
    async fn start() -> Self {
        let network = FaultNetwork::new(1);
        let plan = builder(&network, NodeId(1)).plan().expect("a plan");
        let (node, running) = actors::launch(plan, (), false).await.expect("a node");
        let consensus = running.consensus.clone();
        tokio::task::spawn_local(running.until_ended());
        Self { network, consensus, node }
    }

    fn builder(&self, id: NodeId) -> Builder {
        builder(&self.network, id)
    }

    /// Waits for such a status; says whether the node leads then.
    async fn until(&self, such: impl FnMut(&Status) -> bool) -> bool {
        let mut status = self.node.status();
        let status = soon(status.wait_for(such)).await.expect("a live node");
        status.role == crate::NodeRole::Leader
    }

    fn panic_in(&self, victim: Victim) {
        self.consensus.do_send(victim);
    }

    async fn has_ended(&self, actor: &'static str) {
        let callers = async {
            let (proposed, read) =
                tokio::join!(self.node.propose("waiting"), self.node.read(crate::Consistency::Linearizable, |()| ()));
            assert!(matches!(proposed, Err(ProposeError::OutcomeUnknown | ProposeError::Stopped)), "{proposed:?}");
            assert_eq!(read, Err(ReadError::Stopped));
        };
        let (failure, ()) = tokio::join!(soon(self.node.failed()), soon(callers));
        assert_eq!(failure, Failure::ActorDied { actor });
        soon(self.node.shutdown()).await;
    }
}

fn builder(network: &FaultNetwork, id: NodeId) -> Builder {
    let voters = [1, 2].map(|id| (NodeId(id), ""));
    Node::builder(id, "testing").voters(voters).network(network.endpoint(id)).storage(Memory::new()).seed(id.0)
}

fn simulate(test: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

async fn soon<T>(event: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), event).await.expect("it happens soon")
}
