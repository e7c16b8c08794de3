//! Voter changes while leaders are killed, nodes are paused and writers write.

use crate::support::{PATIENCE, Running, cluster_with_joiners};
use quorate::NodeId;
use quorate_kv::{
    client::Client,
    cluster::Signal,
    http::messages::VoterRequest,
    load::{Ledger, LoadOptions, Writers, check},
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use std::time::{Duration, Instant};

/// The number of rounds of two changes each, unless `QUORATE_ROUNDS` is set:
/// `QUORATE_ROUNDS=10 cargo test --release -p quorate-kv --test processes
/// three_to_five -- --nocapture`.
const ROUNDS: u64 = 2;
/// The number of acknowledged writes between two changes.
const WRITES: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn three_to_five_to_three_voters_in_single_steps_lose_nothing_while_leaders_die_and_stand_still() {
    let rounds = std::env::var("QUORATE_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().expect("a number"));
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = cluster_with_joiners(3, 2 * rounds).await;
    let (mut voters, joiners) = (cluster.ids(), cluster.joiners());
    let ledger = Ledger::new();
    let all_members = voters.iter().chain(&joiners).copied().collect();
    let pace = LoadOptions { writers: 1, rest: Duration::from_millis(2), value_bytes: 100 };
    let writers = Writers::start_among(&cluster, all_members, &ledger, pace).expect("writers");
    let (mut kills, mut pauses, mut refusals) = (0, 0, 0);
    for newcomers in joiners.chunks(2) {
        for id in newcomers {
            cluster.start_node(*id).await.expect("it waits to be added");
        }
        let five = [&voters[..], newcomers].concat();
        let mut three = five.clone();
        three.shuffle(&mut random);
        three.truncate(3);
        for target in [five, three] {
            written(&ledger, WRITES).await;
            let leader = leader_among(&cluster, &voters).await;
            let mut asked = [&voters[..], &target[..]].concat();
            asked.shuffle(&mut random);
            let client = cluster.client(&asked).expect("client").with_limit(PATIENCE);
            let wish = target.iter().map(|id| VoterRequest { id: *id, addr: Some(cluster.layout().address(*id)) });
            let (kill, wish) = (random.random_bool(0.5), wish.collect());
            let when = Duration::from_millis(random.random_range(0..150));
            let (refused, ()) = tokio::join!(insist(client, wish), mishap(&mut cluster, leader, when, kill));
            (kills, pauses, refusals) = (kills + u32::from(kill), pauses + u32::from(!kill), refusals + refused);
            for gone in voters.iter().filter(|id| !target.contains(id)) {
                let ended = cluster.ended(*gone, PATIENCE).await.expect("it ends when it is removed");
                assert_eq!(ended.code(), Some(0), "node {gone} (seed {seed})");
            }
            voters = target;
        }
    }
    written(&ledger, WRITES).await;
    writers.stop().await;

    let statuses = cluster.converge(PATIENCE).await.expect("level");
    assert!(statuses.iter().all(|status| status.state_hash == statuses[0].state_hash), "seed {seed}: {statuses:?}");
    voters.sort_unstable();
    assert!(statuses.iter().all(|status| status.voters == voters), "seed {seed}: {statuses:?}");
    let verdict = check(&cluster, &voters, ledger.writes()).await.expect("read");
    assert!(verdict.broken.is_empty(), "seed {seed}: {verdict:?}");
    println!(
        "{rounds} rounds, {} changes, {kills} leaders killed and {pauses} paused meanwhile, {refusals} answers other than yes; {} \
         acknowledged writes, 0 lost; {} of unknown outcome took effect, {} did not, {} refused; term {}",
        rounds * 2,
        verdict.acknowledged,
        verdict.unknown_present,
        verdict.unknown_absent,
        verdict.refused,
        statuses[0].term,
    );
}

/// Each member in turn is replaced by a new one; a leader transfers leadership first. Clients use
/// another node after a refusal. No write fails, unless the machine is so busy that a leader is
/// deposed: then outcomes may be unknown, but no write is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_replacement_of_five_nodes_fails_no_write() {
    let mut cluster = cluster_with_joiners(5, 5).await;
    let (leave, join) = (cluster.ids(), cluster.joiners());
    let ledger = Ledger::new();
    let all_members = leave.iter().chain(&join).copied().collect();
    let pace = LoadOptions { writers: 2, rest: Duration::from_millis(2), value_bytes: 100 };
    let writers = Writers::start_among(&cluster, all_members, &ledger, pace).expect("writers");
    let first_term = cluster.leader(PATIENCE).await.expect("a leader").term;
    let mut transfers = 0;
    for (nth, (old, new)) in leave.iter().zip(&join).enumerate() {
        cluster.start_node(*new).await.expect("it waits to be added");
        let stay = [&leave[nth + 1..], &join[..nth]].concat();
        let mut client = cluster.client(&stay).expect("client").with_limit(PATIENCE);
        client.add_member(*new, &cluster.layout().address(*new)).await.expect("added");
        client.promote_member(*new).await.expect("promoted");
        transfers += u64::from(cluster.status(*old).await.expect("its status").role == "leader");
        client.remove_member(*old).await.expect("removed");
        assert_eq!(cluster.ended(*old, PATIENCE).await.expect("it ends").code(), Some(0), "node {old}");
        written(&ledger, WRITES).await;
    }
    writers.stop().await;
    let statuses = cluster.converge(PATIENCE).await.expect("level");
    assert!(statuses.iter().all(|status| status.voters == join), "{statuses:?}");
    let verdict = check(&cluster, &join, ledger.writes()).await.expect("read");
    // A leadership transfer raises the term by one, and so does an unplanned election.
    let unplanned = statuses[0].term.0.saturating_sub(first_term.0 + transfers);
    println!("{verdict:?}, {transfers} leadership transfers, {unplanned} elections caused by the machine's load");
    assert!(verdict.broken.is_empty(), "{verdict:?}");
    let failed = (verdict.refused, verdict.unknown_present, verdict.unknown_absent);
    assert!(failed == (0, 0, 0) || unplanned > 0, "{verdict:?}");
}

/// Requests these voters until the change succeeds; returns the number of failed attempts.
/// Repeating a change that has taken effect is harmless.
async fn insist(mut client: Client, voters: Vec<VoterRequest>) -> u32 {
    let (mut refused, deadline) = (0, Instant::now() + PATIENCE * 2);
    while let Err(error) = client.set_voters(voters.clone()).await {
        assert!(Instant::now() < deadline, "{error}");
        refused += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    refused
}

/// The leader is killed and restarted, or paused for long enough to be replaced.
async fn mishap(cluster: &mut Running, leader: NodeId, when: Duration, kill: bool) {
    tokio::time::sleep(when).await;
    if kill {
        cluster.kill(leader).await.expect("killed");
        tokio::time::sleep(Duration::from_millis(500)).await;
        cluster.start_node(leader).await.expect("started");
    } else {
        // A node that was removed before has ended and cannot be paused.
        let _ = cluster.signal(leader, Signal::STOP);
        tokio::time::sleep(Duration::from_millis(700)).await;
        let _ = cluster.signal(leader, Signal::CONT);
    }
}

/// Waits until one of these nodes leads and all of them follow it.
async fn leader_among(cluster: &Running, voters: &[NodeId]) -> NodeId {
    let leader = cluster.eventually(PATIENCE, "a leader that the voters follow", |statuses| {
        let mut voters = statuses.iter().filter(|status| voters.contains(&status.node_id));
        let leader = voters.clone().find(|status| status.role == "leader")?;
        voters.all(|status| status.leader_id == Some(leader.node_id)).then_some(leader.node_id)
    });
    leader.await.expect("a leader")
}

/// Waits until this many more writes are acknowledged.
async fn written(ledger: &Ledger, more: usize) {
    let count = ledger.acknowledged() + more;
    tokio::time::timeout(PATIENCE, ledger.reaches(count)).await.expect("writes go on");
}
