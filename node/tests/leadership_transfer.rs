//! Leadership transfers: no caller waits for an election timeout, and no write fails
//! because of one.

mod support;

use quorate::{NodeId, NodeRole, TransferError, TransferRefused};
use quorate_transport_testing::LinkFaults;
use std::{cell::Cell, rc::Rc, time::Duration};
use support::{Cluster, Journal, Ledger, Plan, run, seeds, simulate, soon};
use tokio::time::Instant;

#[test]
fn leadership_moves_to_the_named_node_while_writes_go_on() {
    for seed in seeds(5) {
        simulate(async {
            let (cluster, ledger) = (Cluster::of_three(seed).await, Ledger::default());
            let old = cluster.leader().await;
            let writers: Vec<_> = cluster
                .ids()
                .into_iter()
                .map(|id| {
                    let (node, ledger) = (cluster.node(id).clone(), ledger.clone());
                    tokio::task::spawn_local(async move {
                        for nth in 0..200 {
                            ledger.propose(&node, format!("{id}: {nth}")).await.expect("no write fails");
                        }
                    })
                })
                .collect();
            for target in cluster.others(old) {
                let began = Instant::now();
                // Any node accepts the request.
                let leads = soon("a leadership transfer", cluster.node(NodeId(1)).transfer(Some(target))).await;
                assert_eq!(leads, Ok(target), "seed {seed}");
                assert!(began.elapsed() < Duration::from_millis(100), "seed {seed}: {:?}", began.elapsed());
            }
            for writer in writers {
                soon("a writer", writer).await.expect("a writer");
            }
            cluster.settled().await;
            ledger.check(&cluster.journals());
        });
    }
}

#[test]
fn a_leadership_transfer_to_a_silent_node_is_given_up_and_writes_go_on() {
    simulate(async {
        let (cluster, ledger) = (Cluster::of_three(1).await, Ledger::default());
        let leader = cluster.leader().await;
        let target = cluster.others(leader)[0];
        cluster.faults.isolate(target);
        let (began, transfer) = (Instant::now(), cluster.node(leader).transfer(Some(target)));
        let write = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            ledger.propose(cluster.node(leader), "meanwhile").await
        };
        let (transfer, write) = tokio::join!(transfer, write);
        assert_eq!(transfer, Err(TransferError::Refused(TransferRefused::GivenUp { to: target })));
        write.expect("it waited, and then went on");
        assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
        assert_eq!(cluster.status(leader).role, NodeRole::Leader);
        let refused = soon("an answer", cluster.node(leader).transfer(Some(NodeId(9)))).await;
        assert_eq!(refused, Err(TransferError::Refused(TransferRefused::NotVoter { id: NodeId(9) })));
    });
}

/// A leader that shuts down transfers leadership first: a planned restart costs a round trip, not
/// an election timeout.
#[test]
fn a_leader_that_is_stopped_hands_over_first() {
    let mut longest = Duration::ZERO;
    for seed in seeds(20) {
        simulate(async {
            let (mut cluster, ledger) = (Cluster::of_three(seed).await, Ledger::default());
            let old = cluster.leader().await;
            let others = cluster.others(old);
            let stopping = cluster.node(old).clone();
            let began = Instant::now();
            let stop = tokio::task::spawn_local(async move { stopping.shutdown().await });
            tokio::task::yield_now().await;
            ledger.propose(cluster.node(others[0]), "meanwhile").await.expect("no write fails");
            longest = longest.max(began.elapsed());
            soon("the old leader to stop", stop).await.expect("it stops");
            cluster.ended(old);
            cluster.start(old).await;
            cluster.settled().await;
            ledger.check(&cluster.journals());
        });
    }
    println!("the longest of the writes took {longest:?}");
    assert!(longest < Duration::from_millis(100), "{longest:?}");
}

/// A preferred node leads again some seconds after it is back; until then, any other node may lead.
#[test]
fn leadership_goes_to_a_preferred_node_that_is_there() {
    simulate(async {
        let mut cluster = Cluster::vacant(Plan { seed: 3, ..Plan::default() });
        let preferring = |builder: quorate::Builder| builder.preferred_leaders([NodeId(3), NodeId(2)]);
        for id in cluster.members() {
            cluster.start_as(id, Journal::default(), preferring).await;
        }
        let leads = async |cluster: &Cluster, id: u64| {
            let what = format!("node {id} to lead");
            cluster.until(&what, |view| (view[&NodeId(id)].role == NodeRole::Leader).then_some(())).await;
        };
        leads(&cluster, 3).await;
        cluster.stop(NodeId(3)).await;
        leads(&cluster, 2).await;
        cluster.start_as(NodeId(3), Journal::default(), preferring).await;
        leads(&cluster, 3).await;
        let terms = cluster.status(NodeId(3)).term;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(cluster.status(NodeId(3)).term, terms, "there it stays");
    });
}

/// Commands that others forward before they hear of the successor come back, and are sent to it.
#[test]
fn no_write_that_others_forward_to_a_leader_that_stops_is_lost_sight_of() {
    for seed in seeds(20) {
        simulate(async {
            let (mut cluster, ledger) = (Cluster::of_three(seed).await, Ledger::default());
            let old = cluster.leader().await;
            let delay = Duration::from_micros(100)..=Duration::from_millis(3);
            cluster.faults.everywhere(LinkFaults { delay, ..LinkFaults::default() });
            let stays = Rc::new(Cell::new(true));
            let writers: Vec<_> = cluster
                .others(old)
                .into_iter()
                .flat_map(|id| (0..8).map(move |nth| (id, nth)))
                .map(|(id, nth)| {
                    let (node, ledger, stays) = (cluster.node(id).clone(), ledger.clone(), stays.clone());
                    tokio::task::spawn_local(async move {
                        let mut written = 0;
                        while stays.get() {
                            let write = ledger.propose(&node, format!("{id}/{nth}: {written}")).await;
                            write.unwrap_or_else(|error| panic!("seed {seed}: write {written} at {id}: {error}"));
                            written += 1;
                            // Simulated time stands still while any task is busy.
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                        written
                    })
                })
                .collect();
            tokio::time::sleep(Duration::from_millis(50)).await;
            cluster.stop(old).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            stays.set(false);
            for writer in writers {
                assert!(soon("a writer", writer).await.expect("no write fails") > 5, "seed {seed}");
            }
            cluster.settled().await;
            ledger.check(&cluster.journals());
        });
    }
}

#[test]
fn leadership_is_transferred_on_threads_of_their_own() {
    run(async {
        let timing = support::relaxed();
        let mut cluster = Cluster::start_all(Plan { threads: true, timing, ..Plan::default() }).await;
        let old = cluster.leader().await;
        let new = soon("a leadership transfer", cluster.node(old).transfer(None)).await.expect("another leads");
        assert_ne!(new, old);
        cluster.until("the new leader", |view| (view[&new].role == NodeRole::Leader).then_some(())).await;
        cluster.stop_all().await;
    });
}
