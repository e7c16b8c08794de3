//! The guarantees and the costs of each kind of read, with whole nodes: a message takes 10 ms one
//! way, so a round trip takes 20.

mod support;

use quorate::{Consistency, Index, NodeId, Read, ReadError, Timing};
use quorate_transport_testing::LinkFaults;
use std::{cell::Cell, task::Poll, time::Duration};
use support::{Cluster, Journal, Plan, run, simulate, soon};
use tokio::time::{Instant, sleep};

const MS: fn(u64) -> Duration = Duration::from_millis;
const FAR: Duration = Duration::from_millis(10);

#[test]
fn a_lease_answers_without_a_question_and_is_kept_for_as_long_as_it_is_used() {
    simulate(async {
        let (cluster, leader) = distant(1).await;
        let follower = cluster.others(leader)[0];
        let (asks, _) = timed(&cluster, leader, Consistency::Linearizable).await;
        assert_eq!(asks, FAR * 2);
        let (begins, _) = timed(&cluster, leader, Consistency::Lease).await;
        assert!(begins <= FAR * 4, "a lease is begun by a round, behind the one before: {begins:?}");
        for _ in 0..100 {
            let (took, _) = timed(&cluster, leader, Consistency::Lease).await;
            assert_eq!(took, Duration::ZERO);
            let (took, _) = timed(&cluster, follower, Consistency::Lease).await;
            assert_eq!(took, FAR * 2, "to the leader and back, and it asks no other node");
            let (took, _) = timed(&cluster, follower, Consistency::Linearizable).await;
            assert_eq!(took, FAR * 4, "it asks");
            sleep(MS(3)).await;
        }
        sleep(MS(200)).await;
        let (took, _) = timed(&cluster, leader, Consistency::Lease).await;
        assert_eq!(took, FAR * 2, "no read asked for it, so it was not kept");
    });
}

#[test]
fn a_read_waits_for_a_leader_as_long_as_its_caller_says() {
    simulate(async {
        let (cluster, leader) = distant(3).await;
        let follower = cluster.others(leader)[0];
        cluster.faults.isolate(follower);
        cluster.until("it to miss its leader", |view| view[&follower].leader.is_none().then_some(())).await;
        let node = cluster.node(follower).clone();
        let read = |within| {
            let node = node.clone();
            async move {
                let asked = Instant::now();
                (node.read_within(Consistency::Linearizable, within, |_| ()).await.map(|_| ()), asked.elapsed())
            }
        };
        let (told, took) = read(MS(100)).await;
        assert_eq!(told, Err(ReadError::NoLeader));
        assert!((MS(100)..=MS(150)).contains(&took), "less than the setting: {took:?}");
        let (told, took) = read(MS(2_500)).await;
        assert_eq!(told, Err(ReadError::NoLeader));
        assert!((MS(2_500)..=MS(2_550)).contains(&took), "more than the setting: {took:?}");
        let (late, ()) = tokio::join!(read(MS(5_000)), async {
            sleep(MS(2_000)).await;
            cluster.faults.heal();
        });
        assert_eq!(late.0, Ok(()), "a leader that comes within that time is asked");
    });
}

#[test]
fn every_read_but_a_local_one_sees_earlier_acknowledged_writes_on_any_node() {
    simulate(async {
        let (cluster, _) = distant(2).await;
        for round in 0..30 {
            for id in cluster.ids() {
                let written = cluster.node(id).propose(format!("{round} at {id}")).await.expect("a leader").index;
                for reader in cluster.ids() {
                    for consistency in [Consistency::Linearizable, Consistency::Lease, entries(0)] {
                        let (_, read) = timed(&cluster, reader, consistency).await;
                        assert!(read.index >= written, "{consistency:?} at {reader}: {read:?} before {written}");
                    }
                }
            }
        }
    });
}

#[test]
fn a_leader_that_is_cut_off_serves_by_its_lease_until_that_ends_and_nothing_of_it_is_stale() {
    for seed in 0..10 {
        simulate(async {
            let (cluster, leader) = distant(seed).await;
            timed(&cluster, leader, Consistency::Lease).await;
            timed(&cluster, leader, Consistency::Lease).await;
            let cut = Instant::now();
            cluster.faults.isolate(leader);
            let others = cluster.others(leader);
            let writing = async {
                let next = cluster.leader_among(&others).await;
                cluster.node(next).propose("by the next leader").await.expect("a quorum").index
            };
            let reading = async {
                let mut last = cut;
                while last.elapsed() < MS(900) {
                    let read = cluster.node(leader).read(Consistency::Lease, |_| ());
                    if let Ok(Ok(_)) = tokio::time::timeout(MS(1), read).await {
                        last = Instant::now();
                    }
                    sleep(MS(1)).await;
                }
                last - cut
            };
            let (_, served_for) = tokio::join!(writing, reading);
            assert!(served_for < MS(134), "seed {seed}: it had a lease for {served_for:?}");
            assert!(served_for > MS(40), "seed {seed}: it had none worth the name: {served_for:?}");
        });
    }
}

/// A usual rolling change of `election_timeout`: the leader has the longer one already. Without the
/// promises that voters state, this leader would serve stale reads.
#[test]
fn a_leader_with_a_longer_election_timeout_that_is_cut_off_serves_nothing_stale_by_its_lease() {
    for seed in 0..5 {
        simulate(async {
            let (cluster, leader) = led_by_1(seed, |id| if id == NodeId(1) { LONG } else { SHORT }).await;
            let served = cut_off_while_others_write(&cluster, leader, MS(1_500)).await;
            assert!(served.by_lease > 20, "seed {seed}: the lease was never used: {served:?}");
            assert!(served.lease_ended < MS(134), "seed {seed}: its voters promised 150 ms: {served:?}");
            assert!(served.writes > 10, "seed {seed}: nothing was written meanwhile: {served:?}");
        });
    }
}

/// The opposite change: the voters have promised the longer time already, and are restarted with
/// the shorter one while the leader is cut off. They keep their earlier promises.
#[test]
fn voters_that_restart_with_a_shorter_election_timeout_elect_no_leader_while_a_lease_rests_on_the_longer_one() {
    for seed in 0..5 {
        simulate(async {
            let (mut cluster, leader) = led_by_1(seed, |_| LONG).await;
            let cut = Instant::now();
            cluster.faults.isolate(leader);
            for id in cluster.others(leader) {
                cluster.stop(id).await;
                cluster.start_as(id, Journal::default(), |builder| builder.timing(timing(SHORT))).await;
            }
            assert!(cut.elapsed() < MS(200), "seed {seed}: {:?}", cut.elapsed());
            let served = cut_off_while_others_write(&cluster, leader, MS(2_500)).await;
            assert!(served.lease_ended > MS(500), "seed {seed}: a lease on longer promises lasts longer: {served:?}");
            assert!(served.writes > 10, "seed {seed}: nothing was written meanwhile: {served:?}");
        });
    }
}

#[test]
fn a_bounded_read_asks_only_if_nothing_new_enough_is_proven() {
    simulate(async {
        let (cluster, leader) = distant(3).await;
        for id in [leader, cluster.others(leader)[0]] {
            let asks = if id == leader { FAR * 2 } else { FAR * 4 };
            assert_eq!(timed(&cluster, id, age(MS(100))).await.0, asks, "nothing is proven yet");
            sleep(MS(100) - asks).await;
            assert_eq!(timed(&cluster, id, age(MS(100))).await.0, Duration::ZERO, "asked 100 ms ago, no more");
            sleep(MS(1)).await;
            assert_eq!(timed(&cluster, id, age(MS(100))).await.0, asks);
            sleep(MS(200)).await;
            timed(&cluster, id, Consistency::Linearizable).await;
            assert_eq!(timed(&cluster, id, age(MS(100))).await.0, Duration::ZERO, "any such answer proves it");
            sleep(MS(200)).await;
            timed(&cluster, id, Consistency::Lease).await;
            assert_eq!(timed(&cluster, id, age(MS(100))).await.0, asks, "but not one that may rest on a lease");
        }
    });
}

#[test]
fn a_node_that_is_cut_off_serves_bounded_reads_for_as_long_as_they_allow_and_then_says_how_old_it_is() {
    simulate(async {
        let (cluster, leader) = distant(4).await;
        let follower = cluster.others(leader)[0];
        let node = cluster.node(follower);
        cluster.node(leader).propose("before").await.expect("a leader");
        timed(&cluster, follower, Consistency::Linearizable).await;
        let proven = Instant::now() - FAR * 4;
        cluster.faults.isolate(follower);
        let mut refused = None;
        while refused.is_none() {
            let read = node.read(age(MS(300)), |_| ()).await;
            let passed = proven.elapsed();
            match read {
                Ok(_) => assert!(passed <= MS(300), "served, {passed:?} behind"),
                Err(ReadError::TooStale { age: Some(age), entries: Some(0) }) => {
                    assert!(age > MS(300) && age <= passed, "{age:?} of {passed:?}");
                    refused = Some(passed);
                }
                Err(other) => panic!("{other:?}"),
            }
            sleep(MS(5)).await;
        }
        assert!(refused < Some(MS(300 + 300 + 60)), "it asked, waited for no longer than can help, and gave up");
        assert!(node.read(age(MS(2_000)), |_| ()).await.is_ok(), "who allows more is served");
        let stale = soon("a refusal", node.read(entries(1_000), |_| ())).await;
        assert!(matches!(stale, Err(ReadError::TooStale { .. })), "it can't know what was committed by now: {stale:?}");
        cluster.faults.heal();
        cluster.settled().await;
        assert!(node.read(age(MS(300)), |_| ()).await.is_ok());
        let count = |result| cluster.metric("quorate_reads_total", &[r#"mode="bounded""#, result]);
        assert!(count(r#"result="served""#) > 10.0 && count(r#"result="too_stale""#) >= 2.0);
    });
}

#[test]
fn a_node_that_never_heard_of_a_leader_says_so() {
    simulate(async {
        let mut cluster = Cluster::vacant(Plan::default());
        cluster.start(NodeId(1)).await;
        let read = soon("a refusal", cluster.node(NodeId(1)).read(age(MS(50)), |_| ())).await;
        assert_eq!(read, Err(ReadError::TooStale { age: None, entries: None }));
        let unbounded = Consistency::Bounded { max_age: None, max_entries: None };
        assert_eq!(cluster.node(NodeId(1)).read(unbounded, |_| 7).await, Ok(Read { index: Index(0), value: 7 }));
    });
}

#[test]
fn a_follower_that_applies_late_serves_within_so_many_entries_and_waits_for_the_rest() {
    simulate(async {
        let (cluster, leader) = distant(5).await;
        let follower = cluster.others(leader)[0];
        for entry in 0..20 {
            cluster.node(leader).propose(format!("{entry}")).await.expect("a leader");
        }
        cluster.settled().await;
        let written = cluster.node(leader).propose("unseen").await.expect("a leader").index;
        let (_, read) = timed(&cluster, follower, entries(1)).await;
        assert!(read.index >= written.previous(), "{read:?} is more than one behind {written}");
        let (_, read) = timed(&cluster, follower, entries(0)).await;
        assert!(read.index >= written, "{read:?} is behind {written}");
    });
}

#[test]
fn a_view_serves_local_and_lease_reads_at_once_and_has_every_acknowledged_write() {
    simulate(async {
        let (cluster, leader) = sharing(Plan::default()).await;
        let node = cluster.node(leader);
        for _ in 0..2 {
            timed(&cluster, leader, Consistency::Lease).await;
        }
        for round in 0..100 {
            let written = node.propose(format!("{round}")).await.expect("a leader").index;
            for consistency in [Consistency::Local, Consistency::Lease] {
                let count = |journal: &Journal| journal.entries().len();
                let read = node.read(consistency, count).await.expect("served");
                assert!(read.index >= written && read.value == round + 1, "{consistency:?}: {read:?} after {written}");
                let again = support::poll_once(&mut Box::pin(node.read(consistency, count))).await;
                assert_eq!(again, Poll::Ready(Ok(read)), "the view is there by now, and nothing is asked");
            }
        }
    });
}

/// The threads of the nodes and of the callers run at once.
#[test]
fn no_read_of_a_view_lacks_a_write_that_was_acknowledged_before_while_others_read_and_write() {
    run(async {
        let plan = Plan { threads: true, timing: support::relaxed(), ..Plan::default() };
        let (cluster, leader) = sharing(plan).await;
        let node = cluster.node(leader);
        let client = |name: usize| {
            let node = node.clone();
            tokio::spawn(async move {
                for round in 0..200 {
                    let written = node.propose(format!("{round} of {name}")).await.expect("a leader").index;
                    for consistency in [Consistency::Local, Consistency::Lease, Consistency::Linearizable] {
                        let read = node.read(consistency, |journal: &Journal| journal.entries().pop()).await;
                        let read = read.expect("served");
                        let last = read.value.expect("a write").0;
                        assert!(read.index >= written && last >= written, "{consistency:?}: {last} after {written}");
                    }
                }
            })
        };
        for ended in (0..4).map(client).collect::<Vec<_>>() {
            ended.await.expect("every read saw the writes before it");
        }
    });
}

#[test]
fn a_leader_that_handed_over_reads_nothing_stale_by_the_lease_that_it_had() {
    simulate(async {
        let timing = timing(LONG);
        let (cluster, leader) = sharing(Plan { timing, ..Plan::default() }).await;
        cluster.faults.everywhere(LinkFaults { delay: FAR..=FAR, ..LinkFaults::default() });
        for _ in 0..2 {
            timed(&cluster, leader, Consistency::Lease).await;
        }
        let (node, began) = (cluster.node(leader), Instant::now());
        let next = soon("a transfer", node.transfer(None)).await.expect("it can lead");
        for _ in 0..5 {
            let written = cluster.node(next).propose("by the next leader").await.expect("a leader").index;
            let (_, read) = timed(&cluster, leader, Consistency::Lease).await;
            assert!(read.index >= written, "{read:?} after {written}");
        }
        assert!(began.elapsed() < MS(900), "the lease would have lasted: {:?}", began.elapsed());
    });
}

#[test]
fn no_view_is_read_once_the_node_has_ended() {
    run(async {
        let plan = Plan { threads: true, timing: support::relaxed(), ..Plan::default() };
        let (mut cluster, leader) = sharing(plan).await;
        let node = cluster.node(leader).clone();
        for _ in 0..10 {
            for consistency in [Consistency::Local, Consistency::Lease] {
                assert!(node.read(consistency, |_| ()).await.is_ok());
            }
        }
        cluster.stop(leader).await;
        for consistency in [Consistency::Local, Consistency::Lease] {
            assert_eq!(node.read(consistency, |_| ()).await, Err(ReadError::Stopped));
        }
    });
}

/// Three nodes whose machines offer views, and the leader.
async fn sharing(plan: Plan) -> (Cluster, NodeId) {
    let mut cluster = Cluster::vacant(plan);
    for id in cluster.members() {
        cluster.start_as(id, Journal::with_views(), |builder| builder).await;
    }
    let leader = cluster.settled().await;
    (cluster, leader)
}

const SHORT: (Duration, Duration) = (Duration::from_millis(150), Duration::from_millis(300));
const LONG: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(2));

fn timing(election_timeout: (Duration, Duration)) -> Timing {
    Timing::default().with_election_timeout(election_timeout)
}

/// Three nodes with these timings. Node 1 leads, and has a lease.
async fn led_by_1(seed: u64, timings: impl Fn(NodeId) -> (Duration, Duration)) -> (Cluster, NodeId) {
    let mut cluster = Cluster::vacant(Plan { seed, ..Plan::default() });
    for id in cluster.members() {
        cluster.start_as(id, Journal::default(), |builder| builder.timing(timing(timings(id)))).await;
    }
    let (first, leader) = (NodeId(1), cluster.settled().await);
    if leader != first {
        soon("a leadership transfer", cluster.node(leader).transfer(Some(first))).await.expect("it can lead");
    }
    assert_eq!(cluster.settled().await, first);
    let until = Instant::now() + MS(50);
    while Instant::now() < until {
        timed(&cluster, first, Consistency::Lease).await;
        sleep(MS(1)).await;
    }
    (cluster, first)
}

#[derive(Debug)]
struct Served {
    /// Reads that the leader served after it was cut off, and the time of the last of them.
    by_lease: u64,
    lease_ended: Duration,
    /// Writes that the others acknowledged meanwhile.
    writes: u64,
}

/// Cuts the leader off, unless it is cut off already. A client reads from it by lease and must see
/// all writes that the others acknowledged before.
async fn cut_off_while_others_write(cluster: &Cluster, leader: NodeId, lasts: Duration) -> Served {
    cluster.faults.isolate(leader);
    let (cut, others) = (Instant::now(), cluster.others(leader));
    let (acknowledged, writes) = (Cell::new(Index(0)), Cell::new(0));
    let writing = async {
        let next = cluster.leader_among(&others).await;
        while cut.elapsed() < lasts {
            let written = soon("a write", cluster.node(next).propose("by the next leader")).await;
            acknowledged.set(written.expect("a quorum").index);
            writes.set(writes.get() + 1);
            sleep(MS(5)).await;
        }
    };
    let reading = async {
        let (mut by_lease, mut last) = (0, cut);
        while cut.elapsed() < lasts {
            let before = acknowledged.get();
            let read = cluster.node(leader).read(Consistency::Lease, |_| ());
            if let Ok(Ok(read)) = tokio::time::timeout(MS(1), read).await {
                let since = cut.elapsed();
                assert!(read.index >= before, "stale {since:?} after the cut: {} of {before}", read.index);
                (by_lease, last) = (by_lease + 1, Instant::now());
            }
            sleep(MS(1)).await;
        }
        (by_lease, last - cut)
    };
    let (_, (by_lease, lease_ended)) = tokio::join!(writing, reading);
    Served { by_lease, lease_ended, writes: writes.get() }
}

/// Three distant nodes, and the leader. No message but those of the election has been sent.
async fn distant(seed: u64) -> (Cluster, NodeId) {
    let cluster = Cluster::of_three(seed).await;
    cluster.faults.everywhere(LinkFaults { delay: FAR..=FAR, ..LinkFaults::default() });
    let leader = cluster.settled().await;
    sleep(MS(100)).await;
    (cluster, leader)
}

async fn timed(cluster: &Cluster, id: NodeId, consistency: Consistency) -> (Duration, Read<()>) {
    let asked = Instant::now();
    let read = soon("a read", cluster.node(id).read(consistency, |_: &Journal| ())).await;
    (asked.elapsed(), read.expect("served"))
}

fn age(max_age: Duration) -> Consistency {
    Consistency::Bounded { max_age: Some(max_age), max_entries: None }
}

fn entries(max_entries: u64) -> Consistency {
    Consistency::Bounded { max_age: None, max_entries: Some(max_entries) }
}
