//! A service of locks with leases, fencing tokens and waiters, as an author writes one, on whole
//! nodes.

mod support;

use quorate::{
    At, Context, LogTime, Node, NodeId, NodeRole, Service, ServiceNode, Token,
    storage::{Memory, MemoryLog},
};
use quorate_transport_testing::FaultNetwork;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};
use support::{CLUSTER, simulate, soon};
use tokio::time::sleep;

/// The locks that are held, by name.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
struct Locks(BTreeMap<String, Lock>);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Lock {
    grant: Grant,
    waiting: VecDeque<Wish>,
}

/// Holder and end of a lease. The protected resource refuses tokens lower than the highest it has seen.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Grant {
    owner: String,
    token: Token,
    until: LogTime,
}

/// Request for a lock: the owner and the length of each lease.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Wish {
    owner: String,
    ttl_ms: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Command {
    Acquire { name: String, wish: Wish, wait: bool },
    Renew { name: String, token: Token, ttl_ms: u32 },
    Release { name: String, token: Token },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Reply {
    Granted(Grant),
    Queued { ahead: usize },
    Busy(Grant),
    Released,
    NotHeld,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Change {
    Granted(Grant),
    Freed,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Expire(String);

impl Service for Locks {
    quorate::types!(Command => Reply, String => Option<Grant>, event Change, signal Expire);

    fn apply(&mut self, command: Command, cx: &mut Context<'_, Self>) -> Reply {
        match command {
            Command::Acquire { name, wish, wait } => self.acquire(name, wish, wait, cx),
            Command::Renew { name, token, ttl_ms } => match self.held(&name, token) {
                Some(lock) => Reply::Granted(lock.lease(name, ttl_ms, cx)),
                None => Reply::NotHeld,
            },
            Command::Release { name, token } => self.release(name, token, cx),
        }
    }

    fn signal(&mut self, Expire(name): Expire, cx: &mut Context<'_, Self>) {
        self.pass_on(name, cx);
    }

    fn query(&self, name: String, _: At) -> Option<Grant> {
        self.0.get(&name).map(|lock| lock.grant.clone())
    }
}

impl Locks {
    fn acquire(&mut self, name: String, wish: Wish, wait: bool, cx: &mut Context<'_, Self>) -> Reply {
        let Some(lock) = self.0.get_mut(&name) else {
            return Reply::Granted(self.grant(name, wish, VecDeque::new(), cx));
        };
        if lock.grant.owner == wish.owner {
            return Reply::Granted(lock.lease(name, wish.ttl_ms, cx));
        }
        if !wait {
            return Reply::Busy(lock.grant.clone());
        }
        let ahead = lock.waiting.iter().take_while(|other| other.owner != wish.owner).count();
        if ahead == lock.waiting.len() {
            lock.waiting.push_back(wish);
        }
        Reply::Queued { ahead }
    }

    fn release(&mut self, name: String, token: Token, cx: &mut Context<'_, Self>) -> Reply {
        if self.held(&name, token).is_none() {
            return Reply::NotHeld;
        }
        cx.cancel(&Expire(name.clone()));
        self.pass_on(name, cx);
        Reply::Released
    }

    fn grant(&mut self, name: String, wish: Wish, waiting: VecDeque<Wish>, cx: &mut Context<'_, Self>) -> Grant {
        let grant = Grant { owner: wish.owner, token: cx.token(), until: cx.now() };
        let lock = self.0.entry(name.clone()).insert_entry(Lock { grant, waiting }).into_mut();
        let grant = lock.lease(name.clone(), wish.ttl_ms, cx);
        cx.publish(&name, Change::Granted(grant.clone()));
        grant
    }

    fn pass_on(&mut self, name: String, cx: &mut Context<'_, Self>) {
        let Some(mut lock) = self.0.remove(&name) else { return };
        match lock.waiting.pop_front() {
            Some(next) => drop(self.grant(name, next, lock.waiting, cx)),
            None => cx.publish(&name, Change::Freed),
        }
    }

    fn held(&mut self, name: &str, token: Token) -> Option<&mut Lock> {
        self.0.get_mut(name).filter(|lock| lock.grant.token == token)
    }
}

impl Lock {
    fn lease(&mut self, name: String, ttl_ms: u32, cx: &mut Context<'_, Locks>) -> Grant {
        let ttl = Duration::from_millis(ttl_ms.into());
        self.grant.until = cx.now() + ttl;
        cx.after(ttl, Expire(name)); // in place of the timer that an equal signal had before
        self.grant.clone()
    }
}

/// Three nodes, and the caller's view of them.
struct Three {
    network: FaultNetwork,
    logs: Vec<MemoryLog>,
    nodes: Vec<ServiceNode<Locks>>,
}

impl Three {
    async fn start() -> Self {
        let logs = (0..3).map(|_| MemoryLog::new()).collect();
        let mut three = Self { network: FaultNetwork::new(1), logs, nodes: Vec::new() };
        for nth in 0..3 {
            three.nodes.push(three.start_one(nth).await);
        }
        three
    }

    async fn start_one(&self, nth: usize) -> ServiceNode<Locks> {
        let (ids, id) = ([1, 2, 3].map(NodeId), NodeId(nth as u64 + 1));
        let node = Node::builder(id, CLUSTER).voters(ids.map(|id| (id, ""))).seed(id.0);
        let node = node.network(self.network.endpoint(id)).storage(Memory::shared(&self.logs[nth]));
        node.serve(Locks::default).start_local().await.expect("a node")
    }

    async fn lose_leader(&mut self) {
        let is_leader = |node: &ServiceNode<Locks>| node.status().borrow().role == NodeRole::Leader;
        let leader = self.nodes.iter().position(is_leader).expect("a leader");
        soon("the end", self.nodes[leader].shutdown()).await;
        self.nodes[leader] = self.start_one(leader).await;
    }

    async fn call(&self, command: Command) -> Reply {
        let session = soon("a session", self.nodes[0].session()).await.expect("a session");
        soon("an answer", session.call(command)).await.expect("it is applied").reply
    }

    async fn acquire(&self, owner: &str, ttl_ms: u32, wait: bool) -> Reply {
        let wish = Wish { owner: owner.into(), ttl_ms };
        self.call(Command::Acquire { name: "lock".into(), wish, wait }).await
    }

    async fn granted(&self, owner: &str, ttl_ms: u32) -> Grant {
        match self.acquire(owner, ttl_ms, false).await {
            Reply::Granted(grant) => grant,
            other => panic!("{other:?}"),
        }
    }

    async fn holder(&self) -> Option<Grant> {
        soon("an answer", self.nodes[1].query("lock".into()).into_future()).await.expect("it is served").value
    }
}

#[test]
fn a_lock_is_held_until_its_lease_ends_and_passes_on_in_order_with_rising_tokens() {
    simulate(async {
        let three = Three::start().await;
        let first = three.granted("x", 2_000).await;
        assert!(matches!(three.acquire("y", 3_000, true).await, Reply::Queued { ahead: 0 }));
        assert!(matches!(three.acquire("z", 3_000, true).await, Reply::Queued { ahead: 1 }));
        assert!(matches!(three.acquire("w", 3_000, false).await, Reply::Busy(grant) if grant.owner == "x"));
        sleep(Duration::from_millis(1_500)).await;
        assert_eq!(three.holder().await.expect("held").owner, "x");
        sleep(Duration::from_millis(1_000)).await;
        let second = three.holder().await.expect("held");
        assert_eq!((second.owner.as_str(), second.until.since(first.until)), ("y", Duration::from_secs(3)));
        assert!(second.token > first.token);
        assert!(matches!(
            three.call(Command::Release { name: "lock".into(), token: first.token }).await,
            Reply::NotHeld
        ));
        assert!(matches!(
            three.call(Command::Release { name: "lock".into(), token: second.token }).await,
            Reply::Released
        ));
        let third = three.holder().await.expect("held");
        assert!(third.owner == "z" && third.token > second.token);
        sleep(Duration::from_millis(3_500)).await;
        assert!(three.holder().await.is_none(), "every lease ends");
    });
}

#[test]
fn a_renewed_lease_outlives_its_leaders() {
    simulate(async {
        let mut three = Three::start().await;
        let grant = three.granted("x", 5_000).await;
        for _ in 0..5 {
            sleep(Duration::from_millis(2_000)).await;
            three.lose_leader().await;
            let renew = Command::Renew { name: "lock".into(), token: grant.token, ttl_ms: 5_000 };
            match three.call(renew).await {
                Reply::Granted(renewed) => assert_eq!(renewed.token, grant.token, "the same hold"),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(three.holder().await.expect("held").token, grant.token);
        sleep(Duration::from_secs(8)).await;
        assert!(three.holder().await.is_none(), "and it ends once it is not renewed");
    });
}
