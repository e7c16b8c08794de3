//! Tokens and fences over a restore and recoveries: the later ones are higher although indexes and
//! terms go back, and a log is applied as it was.

mod support;

use futures_util::future::pending;
use quorate::{
    At, Change, Consistency, Context, Index, Node, NodeId, Service, ServiceNode, Snapshots, Token,
    service::windows::WINDOW,
    storage::{
        Wal,
        salvage::{Choice, NewMember, Survey, restore, transplant},
        snapshots::Backup,
    },
};
use quorate_storage_testing::SimulatedDisk;
use quorate_transport_testing::FaultNetwork;
use serde::{Deserialize, Serialize};
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};
use support::{simulate, soon};
use tokio::{sync::mpsc, time::sleep};

const NOW: u64 = 1_700_000_000;

/// Hands out a token with each command, and remembers all of them.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
struct Issuer {
    issued: Vec<Token>,
}

impl Service for Issuer {
    quorate::types!(() => Token, () => Vec<Token>);

    fn apply(&mut self, (): (), cx: &mut Context<'_, Self>) -> Token {
        self.issued.push(cx.token());
        cx.token()
    }

    fn query(&self, (): (), _: At) -> Vec<Token> {
        self.issued.clone()
    }
}

#[test]
fn tokens_and_fences_are_higher_after_a_restore_and_its_copies_agree() {
    simulate(async {
        let (disk, mut old, mut new) = (SimulatedDisk::new(), Given::default(), Given::default());
        let first = Alone::leads(&disk, "old", 1, &mut old).await;
        assert_eq!(generation(&first.node), 0, "it was formed");
        let backup = soon("a backup", first.node.backup()).await.expect("a backup");
        let pieces: Result<Vec<_>, _> = backup.collect();
        disk.put(Path::new("backup"), pieces.expect("it can be read").concat());
        first.ends().await;
        for _ in 0..3 {
            Alone::leads(&disk, "old", 1, &mut old).await.ends().await;
        }

        let backup = Backup::open_on(&disk, "backup").expect("it is whole");
        restore(backup, &wal(&disk, "new", 7), &member("new", 7, NOW)).expect("it is restored");
        let seven = Alone::leads(&disk, "new", 7, &mut new).await;
        new.is_above(&old);
        assert_eq!(u64::from(generation(&seven.node)), NOW);
        assert!(count(new.fences[0]) < count(old.fences[3]), "terms went back");

        // Node 8 gets the snapshot of the backup, and applies the log after it.
        let eight = started(&disk, &seven.network, "new", 8, 7).await;
        let two = Change::add(NodeId(8), "8").and(Change::promote(NodeId(8)));
        soon("the change", seven.node.change(two)).await.expect("a voter");
        let end = fill(&seven.node).await;
        assert!(eight.status().borrow().applied >= end);
        assert_eq!(issued(&eight).await, issued(&seven.node).await);
        assert!(eight.status().borrow().disagreement.is_none());
    });
}

#[test]
fn tokens_are_higher_after_each_recovery_and_those_in_the_log_stay_as_they_were() {
    simulate(async {
        let disk = SimulatedDisk::new();
        let [mut old, mut new, mut third] = [(); 3].map(|()| Given::default());
        for _ in 0..3 {
            Alone::leads(&disk, "old", 1, &mut old).await.ends().await;
        }
        recover(&disk, "old-1", Some(Index(20)), &member("new", 7, NOW));
        Alone::leads(&disk, "new", 7, &mut new).await.ends().await;
        new.is_above(&old);
        let seven = Alone::leads(&disk, "new", 7, &mut new).await;
        let before = issued(&seven.node).await;
        assert_eq!(before[before.len() - 20..], new.tokens);
        seven.ends().await;

        // The clock of the next operator is decades behind.
        recover(&disk, "new-7", None, &member("third", 11, 5));
        let eleven = Alone::leads(&disk, "third", 11, &mut third).await;
        third.is_above(&new);
        assert_eq!(issued(&eleven.node).await[..before.len()], before);
    });
}

/// All that a cluster handed out, in order.
#[derive(Default)]
struct Given {
    tokens: Vec<Token>,
    fences: Vec<Token>,
}

impl Given {
    /// Each token and each fence is above all of the old ones, although indexes went back.
    fn is_above(&self, old: &Self) {
        let lowest = self.tokens.iter().chain(&self.fences).min().expect("there is one");
        let highest = old.tokens.iter().chain(&old.fences).max().expect("there is one");
        assert!(highest < lowest, "{highest} {lowest}");
        if old.tokens[0].to_string().starts_with("0.") {
            assert!(count(self.tokens[0]) < count(old.tokens[old.tokens.len() - 1]), "indexes went back");
        }
    }
}

/// The only member of its cluster, which leads.
struct Alone {
    node: ServiceNode<Issuer>,
    network: FaultNetwork,
}

impl Alone {
    /// Starts it, and lets it hand out its fence and ten tokens.
    async fn leads(disk: &SimulatedDisk, cluster: &str, id: u64, given: &mut Given) -> Self {
        let network = FaultNetwork::new(1);
        let node = started(disk, &network, cluster, id, id).await;
        let (led, mut leads) = mpsc::unbounded_channel();
        let task = node.while_leading(move |fence| {
            let _ = led.send(fence);
            pending()
        });
        given.fences.push(soon("a leadership", leads.recv()).await.expect("it leads"));
        drop(task);
        for _ in 0..10 {
            given.tokens.push(soon("a token", node.call(()).into_future()).await.expect("it is applied").reply);
        }
        assert!(given.tokens.is_sorted_by(|one, next| one < next) && given.fences.is_sorted_by(|one, next| one < next));
        Self { node, network }
    }

    async fn ends(self) {
        soon("the end", self.node.shutdown()).await;
    }
}

/// A member of a cluster that began with `first`.
async fn started(
    disk: &SimulatedDisk,
    network: &FaultNetwork,
    cluster: &str,
    id: u64,
    first: u64,
) -> ServiceNode<Issuer> {
    let asked = Snapshots::default().with_every_entries(0).with_every_bytes(0).with_keep_entries(0);
    let builder = Node::builder(NodeId(id), cluster).voters([(NodeId(first), "")]).join(id != first).seed(id);
    let builder = builder.network(network.endpoint(NodeId(id))).storage(wal(disk, cluster, id)).snapshots(asked);
    builder.serve(Issuer::default).start_local().await.expect("a node")
}

fn wal(disk: &SimulatedDisk, cluster: &str, id: u64) -> Wal {
    Wal::at(format!("{cluster}-{id}")).on(disk.clone())
}

/// The first member of a cluster that is made at this time.
fn member(cluster: &str, id: u64, seconds: u64) -> NewMember {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    NewMember { cluster: cluster.into(), member: NodeId(id), address: id.to_string(), now, random: 99 }
}

/// Makes the directory of `to` from another one.
fn recover(disk: &SimulatedDisk, from: &str, up_to: Option<Index>, to: &NewMember) {
    let surveys = [Survey::on(Arc::new(disk.clone()), from).expect("it can be surveyed")];
    let choice = Choice::of(&surveys, up_to).expect("a choice");
    transplant(&choice, &wal(disk, &to.cluster, to.member.0), to).expect("it is made");
}

/// Hands out tokens until the window of the last entry is over; gives the first index after it.
async fn fill(node: &ServiceNode<Issuer>) -> Index {
    let last = || node.status().borrow().last_log.0;
    let end = (last() / WINDOW + 1) * WINDOW;
    while last() <= end {
        soon("a token", node.call(()).into_future()).await.expect("it is applied");
    }
    sleep(Duration::from_secs(2)).await;
    Index(end)
}

fn generation(node: &ServiceNode<Issuer>) -> u32 {
    node.status().borrow().cluster_id.expect("it leads").generation()
}

async fn issued(node: &ServiceNode<Issuer>) -> Vec<Token> {
    let read = node.query(()).consistency(Consistency::Local);
    soon("an answer", read.into_future()).await.expect("it is served").value
}

/// The part of a token beside its generation that counts indexes, or of a fence, terms.
fn count(token: Token) -> u64 {
    (token.as_u128() >> 32) as u64
}
