//! The rules of the lock service, on whole nodes in simulated time.

use quorate::LogTime;
use quorate_host_testing::nodes::{Nodes, simulate, soon};
use quorate_locks::{Command, Grant, LOCKS_MAX, Locks, Reply, TTL_MS_MAX, WAITERS_MAX, Wish, elect};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};
use tokio::{sync::mpsc, time::sleep};

#[test]
fn a_lock_is_held_until_its_lease_ends_and_passes_on_in_order_with_rising_tokens() {
    simulate(async {
        let three = start(3).await;
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
        let mut three = start(3).await;
        let grant = three.granted("x", 5_000).await;
        for _ in 0..5 {
            sleep(Duration::from_millis(2_000)).await;
            three.nodes.lose_leader().await;
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

#[test]
fn no_delayed_request_makes_a_lease_shorter() {
    simulate(async {
        let three = start(3).await;
        let grant = three.granted("x", 10_000).await;
        let renew = Command::Renew { name: "lock".into(), token: grant.token, ttl_ms: 1 };
        assert_eq!(three.call(renew).await, Reply::Granted(grant.clone()));
        assert_eq!(three.acquire("x", 1_000, false).await, Reply::Granted(grant.clone()));
        sleep(Duration::from_millis(9_000)).await;
        assert_eq!(three.holder().await, Some(grant));
        sleep(Duration::from_millis(2_000)).await;
        assert_eq!(three.holder().await, None);
    });
}

#[test]
fn one_candidate_leads_at_a_time_until_it_is_done_or_cut_off() {
    simulate(async {
        let mut three = start(3).await;
        let runs = Rc::new(RefCell::new(Vec::new()));
        let candidate = |node: quorate::ServiceNode<Locks>, owner: &'static str, run: Duration| {
            let runs = Rc::clone(&runs);
            let leads = async move {
                let wish = Wish { owner: owner.into(), ttl_ms: 3_000 };
                let task = |token| {
                    runs.borrow_mut().push((owner, token));
                    sleep(run)
                };
                elect(&node, "lock", &wish, task).await.expect("it is elected");
            };
            tokio::task::spawn_local(leads)
        };
        let first = candidate(three.nodes.last().clone(), "first", Duration::from_secs(20));
        while runs.borrow().is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
        let second = candidate(three.nodes.first().clone(), "second", Duration::from_secs(1));
        sleep(Duration::from_secs(10)).await;
        assert_eq!(three.holder().await.expect("held").owner, "first", "for more than one lease");
        assert!(!first.is_finished() && !second.is_finished());
        soon("the end of the first", first).await.expect("it is done");
        let released = tokio::time::Instant::now();
        soon("the end of the second", second).await.expect("it is done");
        assert!(released.elapsed() < Duration::from_millis(1_500), "it did not wait for the end of a lease");
        assert_eq!(three.holder().await, None);

        // A candidate without its node stops before another is elected, though it is not done.
        let cut_off = candidate(three.nodes.first().clone(), "cut off", Duration::from_secs(600));
        while runs.borrow().len() < 3 {
            sleep(Duration::from_millis(10)).await;
        }
        three.nodes.restart(0).await;
        let next = candidate(three.nodes.last().clone(), "next", Duration::from_secs(1));
        soon("the end of the next", next).await.expect("it is done");
        cut_off.abort();
        let runs = runs.borrow();
        assert_eq!(runs.iter().map(|(owner, _)| *owner).collect::<Vec<_>>(), ["first", "second", "cut off", "next"]);
        assert!(runs.is_sorted_by(|one, next| one.1 < next.1), "{runs:?}");
    });
}

#[test]
fn a_restarted_candidate_leads_by_a_higher_token_than_before() {
    simulate(async {
        let nodes = start(1).await;
        let mut tokens = Vec::new();
        for _ in 0..3 {
            let (tell, mut told) = mpsc::unbounded_channel();
            let node = nodes.nodes.first().clone();
            let run = tokio::task::spawn_local(async move {
                let wish = Wish { owner: "x".into(), ttl_ms: 600_000 };
                let task = |token| {
                    tell.send(token).expect("it is expected");
                    sleep(Duration::from_secs(600))
                };
                elect(&node, "lock", &wish, task).await.expect("it is elected");
            });
            let token = soon("a run", told.recv()).await.expect("it runs");
            assert_eq!(nodes.holder().await.expect("held").token, token);
            assert!(told.try_recv().is_err(), "one run of its task");
            tokens.push(token);
            run.abort(); // so that it cannot release the lock
        }
        assert!(tokens.is_sorted_by(|one, next| one < next), "{tokens:?}");
    });
}

#[test]
fn every_token_has_one_holder_and_only_the_present_one_is_accepted() {
    simulate(async {
        for seed in 0..20 {
            let (nodes, mut random) = (start(1).await, StdRng::seed_from_u64(seed));
            let mut holds = BTreeMap::<u128, (String, String)>::new();
            let mut accepted = BTreeSet::new();
            for _ in 0..200 {
                let name = ["a", "b"][random.random_range(0..2)].to_owned();
                let owner = ["x", "y", "z"][random.random_range(0..3)].to_owned();
                let before = nodes.holder_of(&name).await;
                let old: Vec<_> = holds.keys().copied().collect();
                let oldest = if random.random() { old.len().saturating_sub(2) } else { 0 };
                let token = if old.is_empty() { 0 } else { old[random.random_range(oldest..old.len())] };
                let ttl_ms = random.random_range(1..3_000);
                let (command, claims) = match random.random_range(0..5) {
                    0..3 => {
                        let wish = Wish { owner: owner.clone(), ttl_ms };
                        (Command::Acquire { name: name.clone(), wish, wait: random.random() }, None)
                    }
                    3 => (Command::Renew { name: name.clone(), token, ttl_ms }, Some(token)),
                    _ => (Command::Release { name: name.clone(), token }, Some(token)),
                };
                let reply = nodes.call(command).await;
                match (claims, &reply) {
                    (Some(token), Reply::Granted(_) | Reply::Released) => {
                        let before = before.as_ref().expect("no token is accepted for a free lock");
                        assert_eq!(before.token, token, "seed {seed}: {name}");
                        accepted.insert(token);
                    }
                    (Some(_), reply) => assert_eq!(*reply, Reply::NotHeld, "seed {seed}"),
                    (None, Reply::Granted(grant)) => assert_eq!(grant.owner, owner, "seed {seed}"),
                    (None, Reply::Busy(grant)) => assert_ne!(grant.owner, owner, "seed {seed}"),
                    (None, reply) => assert!(matches!(reply, Reply::Queued { .. }), "seed {seed}: {reply:?}"),
                }
                for name in ["a", "b"] {
                    let Some(grant) = nodes.holder_of(name).await else { continue };
                    let hold = (name.to_owned(), grant.owner);
                    let highest = holds.iter().rfind(|(_, (of, _))| of == name).map(|(token, _)| *token);
                    assert!(Some(grant.token) >= highest, "seed {seed}: {name} went back to an older token");
                    assert_eq!(*holds.entry(grant.token).or_insert_with(|| hold.clone()), hold, "seed {seed}");
                }
                sleep(Duration::from_millis(random.random_range(0..800))).await;
            }
            assert!(holds.len() > 20 && !accepted.is_empty(), "seed {seed}: {} holds", holds.len());
            nodes.nodes.stop().await;
        }
    });
}

#[test]
fn a_wish_waits_once_and_the_waiters_of_a_lock_are_bounded() {
    simulate(async {
        let nodes = start(1).await;
        nodes.granted("x", 600_000).await;
        for ahead in 0..WAITERS_MAX {
            assert_eq!(nodes.acquire(&format!("w{ahead}"), 1_000, true).await, Reply::Queued { ahead });
        }
        assert!(matches!(nodes.acquire("late", 1_000, true).await, Reply::Busy(grant) if grant.owner == "x"));
        assert_eq!(nodes.acquire("w7", 1_000, true).await, Reply::Queued { ahead: 7 });
    });
}

#[test]
fn the_held_locks_are_bounded_and_an_ended_one_makes_room() {
    simulate(async {
        let nodes = start(1).await;
        let session = soon("a session", nodes.nodes.first().session()).await.expect("a session");
        let acquire = async |name: &str, ttl_ms, wait| {
            let wish = Wish { owner: "x".into(), ttl_ms };
            let command = Command::Acquire { name: name.into(), wish, wait };
            soon("an answer", session.call(command)).await.expect("it is applied").reply
        };
        for number in 0..LOCKS_MAX - 1 {
            assert!(matches!(acquire(&format!("lock {number}"), TTL_MS_MAX, false).await, Reply::Granted(_)));
        }
        let Reply::Granted(last) = acquire("last", TTL_MS_MAX, false).await else { panic!("there is a place") };
        for wait in [false, true] {
            assert_eq!(acquire("late", 1_000, wait).await, Reply::Full);
        }
        assert!(nodes.holder_of("late").await.is_none());
        assert!(matches!(acquire("last", TTL_MS_MAX, false).await, Reply::Granted(grant) if grant.token == last.token));
        let release = Command::Release { name: "last".into(), token: last.token };
        assert_eq!(nodes.call(release).await, Reply::Released);
        assert!(matches!(acquire("late", 1_000, false).await, Reply::Granted(_)));
    });
}

#[test]
fn a_lease_lasts_a_day_at_most() {
    simulate(async {
        let nodes = start(1).await;
        let grant = nodes.granted("x", u32::MAX).await;
        let renew = Command::Renew { name: "lock".into(), token: grant.token, ttl_ms: u32::MAX };
        let Reply::Granted(renewed) = nodes.call(renew).await else { panic!("it is held") };
        for LogTime(until) in [grant.until, renewed.until] {
            let day = u64::from(TTL_MS_MAX);
            assert!((day..day + 60_000).contains(&until), "{until} in the first minute of log time");
        }
    });
}

/// The nodes, and the lock of the tests.
struct Service {
    nodes: Nodes<Locks>,
}

async fn start(count: usize) -> Service {
    Service { nodes: Nodes::start(count, |builder| builder.serve(Locks::default)).await }
}

impl Service {
    async fn call(&self, command: Command) -> Reply {
        self.nodes.call(command).await
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
        self.holder_of("lock").await
    }

    async fn holder_of(&self, name: &str) -> Option<Grant> {
        self.nodes.query(name.into()).await
    }
}
