//! Duplicate detection of sessions, measured with a counter: clients repeat the increments that got
//! no answer, and leaders die.
//!
//! `KILLS=50 cargo test --release -p quorate --test exactly_once -- --nocapture` prints the counts,
//! with sessions and without.

mod support;

use quorate::{Node, NodeId, ProposeError, SessionError, SessionKey};
use quorate_transport_testing::LinkFaults;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::Duration,
};
use support::{Cluster, Journal, Plan, simulate, soon};

const CLIENTS: u64 = 16;

#[test]
fn a_counter_incremented_through_sessions_ends_at_the_number_of_increments_and_without_them_above() {
    let kills = std::env::var("KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(10);
    let with = simulate(count(kills, true));
    let without = simulate(count(kills, false));
    println!("with sessions     {with:?}: {} too many", with.too_many());
    println!("without sessions  {without:?}: {} too many", without.too_many());
    assert_eq!(with.kills, kills);
    assert!(with.resolved > 0, "no outcome was ever unknown: nothing was tested");
    assert_eq!(with.too_many(), 0);
    assert!(without.too_many() > 0, "nothing was applied twice: the sessions had nothing to prevent");
}

/// The counts of one run.
#[derive(Clone, Copy, Default, Debug)]
struct Tally {
    kills: u64,
    /// Increments that were acknowledged at their first attempt, or after attempts that certainly
    /// had no effect.
    acknowledged: u64,
    /// Increments that were acknowledged after an attempt with an unknown outcome.
    resolved: u64,
    /// Attempts with an unknown outcome.
    unknown: u64,
    /// The final value of the counter.
    counter: u64,
}

impl Tally {
    fn too_many(&self) -> i64 {
        self.counter as i64 - (self.acknowledged + self.resolved) as i64
    }
}

type Nodes = Rc<RefCell<BTreeMap<NodeId, Node<Journal>>>>;

/// Lets clients increment while leaders are killed at arbitrary points of their work.
async fn count(kills: u64, with_sessions: bool) -> Tally {
    let mut cluster = Cluster::start_all(Plan { seed: 0x0e, ..Plan::default() }).await;
    let delay = Duration::from_millis(1)..=Duration::from_millis(4);
    cluster.faults.everywhere(LinkFaults { delay, ..LinkFaults::default() });
    let leader = cluster.leader().await;
    let nodes: Nodes = Rc::default();
    nodes.borrow_mut().extend(cluster.ids().into_iter().map(|id| (id, cluster.node(id).clone())));
    let (tally, stop) = (Rc::<Cell<Tally>>::default(), Rc::<Cell<bool>>::default());
    let mut clients = Vec::new();
    for nth in 0..CLIENTS {
        let session = match with_sessions {
            true => Some(cluster.node(leader).session().await.expect("a session").key().clone()),
            false => None,
        };
        let (nodes, tally, stop) = (Rc::clone(&nodes), Rc::clone(&tally), Rc::clone(&stop));
        clients.push(tokio::task::spawn_local(increment(nth, session, nodes, tally, stop)));
    }
    for _ in 0..kills {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let leader = cluster.leader().await;
        // First no answer reaches the leader while its messages still leave; then it is
        // isolated, and stopped.
        cluster.others(leader).into_iter().for_each(|other| cluster.faults.cut(other, leader));
        tokio::time::sleep(Duration::from_millis(5)).await;
        cluster.faults.isolate(leader);
        nodes.borrow_mut().remove(&leader);
        cluster.stop(leader).await;
        cluster.leader().await;
        cluster.faults.heal();
        cluster.start(leader).await;
        nodes.borrow_mut().insert(leader, cluster.node(leader).clone());
        tally.set(Tally { kills: tally.get().kills + 1, ..tally.get() });
    }
    stop.set(true);
    for client in clients {
        soon("a client's last increment", client).await.expect("no panic");
    }
    let leader = cluster.settled().await;
    let journals = cluster.journals();
    assert!(journals.iter().all(|(_, journal)| *journal == journals[0].1), "the nodes differ");
    Tally { counter: cluster.journal(leader).entries().len() as u64, ..tally.get() }
}

/// A client: increments, and repeats each increment at any node until it is acknowledged.
async fn increment(
    client: u64,
    session: Option<SessionKey>,
    nodes: Nodes,
    tally: Rc<Cell<Tally>>,
    stop: Rc<Cell<bool>>,
) {
    let mut random = SmallRng::seed_from_u64(client);
    for serial in 1.. {
        let (command, mut unknown) = (format!("{client}: {serial}"), 0);
        loop {
            let nth = random.random_range(0..nodes.borrow().len());
            let Some(node) = nodes.borrow().values().nth(nth).cloned() else { continue };
            let outcome = match &session {
                Some(key) => node.propose(command.clone()).by_session(key, serial).await,
                None => node.propose(command.clone()).await.map_err(SessionError::from),
            };
            drop(node);
            match outcome {
                Ok(_) => break,
                Err(SessionError::Proposal(error)) => unknown += u64::from(error == ProposeError::OutcomeUnknown),
                Err(error) => panic!("client {client}, serial {serial}: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let before = tally.get();
        tally.set(Tally {
            acknowledged: before.acknowledged + u64::from(unknown == 0),
            resolved: before.resolved + u64::from(unknown > 0),
            unknown: before.unknown + unknown,
            ..before
        });
        if stop.get() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..40))).await;
    }
}
