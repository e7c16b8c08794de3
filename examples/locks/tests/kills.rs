//! Locks of three processes under kills of the leader, with clients that crash, pause, and are late.

use quorate_host_testing::{
    kills::{Ways, kill_leaders, kills_or},
    processes::Cluster,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

const CLIENTS: u64 = 16;
const LOCKS: [&str; 5] = ["db", "mail", "disk", "net", "log"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_two_holders_are_accepted_while_a_few_leaders_are_killed() {
    run(kills_or(10)).await;
}

/// `QUORATE_KILLS=1000 cargo test -p quorate-locks --test kills -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it takes many minutes: a thousand leaders are killed"]
async fn no_two_holders_are_accepted_while_a_thousand_leaders_are_killed() {
    run(kills_or(1_000)).await;
}

async fn run(kills: u64) {
    let mut cluster = Cluster::prepare(env!("CARGO_BIN_EXE_locks"), 3);
    for id in 1..=3 {
        cluster.start(id).await;
    }
    let ways = Arc::new(Ways::to(&cluster, 3));
    let (resources, is_over) = (Arc::new(Resources::default()), Arc::new(AtomicBool::new(false)));
    let mut clients = JoinSet::new();
    for nth in 0..CLIENTS {
        let (ways, resources, is_over) = (Arc::clone(&ways), Arc::clone(&resources), Arc::clone(&is_over));
        clients.spawn(async move { client(nth, &ways, &resources, &is_over).await });
    }
    let mut watchers = JoinSet::new();
    for name in LOCKS {
        let (ways, is_over) = (Arc::clone(&ways), Arc::clone(&is_over));
        watchers.spawn(async move { watch(name, &ways, &is_over).await });
    }
    tokio::select! {
        () = kill_leaders(&mut cluster, &ways, kills, 100) => {}
        failed = clients.join_next() => panic!("a client ended: {failed:?}"),
        failed = watchers.join_next() => panic!("a watcher ended: {failed:?}"),
    }
    is_over.store(true, Relaxed);
    while let Some(client) = clients.join_next().await {
        client.expect("it ends in order");
    }
    let mut grants = 0;
    while let Some(of_one) = watchers.join_next().await {
        grants += of_one.expect("it ends in order");
    }
    let (answers, retries) = ways.counts();
    let Counts { holds, accepted, late_refused, late_accepted, lost, released } = resources.counts();
    println!(
        "{kills} kills of the leader: {answers} requests answered, {retries} attempts without an answer\n\
         {grants} grants, {holds} of them known to their holders, {released} released and the others ended by their timers\n\
         {accepted} writes accepted by the resources; of holders whose lease had ended {late_refused} refused, \
         {late_accepted} accepted before the next holder's first; {lost} renewals or releases of an ended lease refused\n\
         0 writes of two holders accepted in the same lease, 0 tokens granted twice"
    );
    assert!(holds > kills && late_refused > 0 && lost > 0 && grants >= holds && released > 0);
    cluster.stop_all().await;
}

/// Holds one lock after another: briefly, long, or past the end of the lease.
async fn client(nth: u64, ways: &Ways, resources: &Resources, is_over: &AtomicBool) {
    let (owner, mut random) = (format!("client-{nth}"), StdRng::seed_from_u64(nth));
    while !is_over.load(Relaxed) {
        let (name, ttl_ms) = (LOCKS[random.random_range(0..LOCKS.len())], random.random_range(400..1_500));
        let ttl = Duration::from_millis(ttl_ms);
        let acquire = format!("acquire {name} {owner} {ttl_ms} wait");
        let (token, mut asked) = loop {
            let asked = Instant::now();
            match ways.ask(&acquire).await {
                Ok(granted) => break (token_of(&granted, "granted", &owner), asked),
                Err(queued) => assert!(queued.starts_with("queued "), "{queued}"),
            }
            sleep(Duration::from_millis(random.random_range(20..100))).await;
        };
        resources.write(name, token, &owner, asked + safe(ttl));
        let rounds = random.random_range(0..3);
        for _ in 0..rounds {
            sleep_until(asked + ttl / 3).await;
            let sent = Instant::now();
            match ways.ask(&format!("renew {name} {token} {ttl_ms}")).await {
                Ok(granted) => assert_eq!(token_of(&granted, "granted", &owner), token, "the same hold"),
                Err(reply) => {
                    assert_eq!(reply, "not held");
                    resources.lost();
                    break;
                }
            }
            asked = sent;
            resources.write(name, token, &owner, asked + safe(ttl));
        }
        match random.random_range(0..10) {
            // The holder pauses past its lease, and writes as if it had not.
            0..3 => {
                sleep_until(asked + ttl * 2).await;
                resources.write_late(name, token, &owner);
                if let Ok(granted) = ways.ask(&format!("renew {name} {token} 1")).await {
                    assert_eq!(token_of(&granted, "granted", &owner), token, "no leader counted for a while");
                } else {
                    resources.lost();
                }
            }
            // The holder crashes: the lease ends by its timer.
            3..5 => resources.given_up(name, token),
            _ => {
                sleep(Duration::from_millis(random.random_range(0..50))).await;
                resources.given_up(name, token);
                match ways.ask(&format!("release {name} {token}")).await {
                    Ok(_) => resources.released(),
                    Err(reply) => assert_eq!(reply, "not held"), // a repetition, or the lease has ended
                }
            }
        }
    }
}

/// Checks all changes of a lock, until it is free at the end; returns the number of grants.
async fn watch(name: &str, ways: &Ways, is_over: &AtomicBool) -> u64 {
    let (mut follow, mut is_held) = (ways.follow(&format!("watch {name}")), false);
    let (mut grants, mut highest) = (0, 0_u128);
    loop {
        let next = tokio::time::timeout(Duration::from_secs(3), follow.next()).await;
        let Ok(event) = next else {
            if is_over.load(Relaxed) && !is_held {
                return grants;
            }
            continue;
        };
        if event == "freed" {
            assert!(is_held, "{name} was freed twice");
            is_held = false;
        } else {
            let token = event.split(' ').nth(2).and_then(|word| word.parse().ok());
            let token = token.unwrap_or_else(|| panic!("{event}: not granted OWNER TOKEN"));
            assert!(token > highest, "{name}: {event} after {highest}");
            (highest, is_held, grants) = (token, true, grants + 1);
        }
    }
}

/// The part of a lease that its holder counts on: clocks may drift.
fn safe(ttl: Duration) -> Duration {
    ttl * 95 / 100
}

fn token_of(reply: &str, verb: &str, owner: &str) -> u128 {
    let token = reply.strip_prefix(&format!("{verb} {owner} ")).and_then(|token| token.parse().ok());
    token.unwrap_or_else(|| panic!("{reply}: not {verb} {owner}"))
}

/// The protected resources, one a lock. Each refuses tokens lower than the highest that it has seen.
#[derive(Default)]
struct Resources(Mutex<(BTreeMap<String, Seen>, Counts)>);

struct Seen {
    highest: u128,
    owner: String,
    /// The holder of the highest token relies on its lease until then.
    safe_until: Instant,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    holds: u64,
    accepted: u64,
    late_refused: u64,
    late_accepted: u64,
    lost: u64,
    released: u64,
}

impl Resources {
    /// A write of a holder that relies on its lease until `safe_until`: it must be accepted if that
    /// has not passed, and no other holder may rely on its own.
    fn write(&self, name: &str, token: u128, owner: &str, safe_until: Instant) {
        let (seen, counts) = &mut *self.0.lock().expect("no client panicked");
        let now = Instant::now();
        let before = seen.get(name);
        if let Some(before) = before {
            if token > before.highest {
                let early = before.safe_until.saturating_duration_since(now);
                assert!(
                    early.is_zero(),
                    "{name}: {owner} holds it {early:?} before the lease of {} ends",
                    before.owner
                );
            } else if token < before.highest {
                assert!(now >= safe_until, "{name}: a higher token than {owner}'s was accepted during its lease");
                counts.late_refused += 1;
                return;
            } else {
                assert_eq!(before.owner, owner, "{name}: a token has one holder");
            }
        }
        counts.holds += u64::from(before.is_none_or(|before| before.highest < token));
        counts.accepted += 1;
        seen.insert(name.into(), Seen { highest: token, owner: owner.into(), safe_until });
    }

    /// A write of a holder whose lease may have ended.
    fn write_late(&self, name: &str, token: u128, owner: &str) {
        let (seen, counts) = &mut *self.0.lock().expect("no client panicked");
        let before = &seen[name];
        if token < before.highest {
            counts.late_refused += 1;
        } else {
            assert_eq!((before.highest, before.owner.as_str()), (token, owner), "{name}: a token has one holder");
            counts.late_accepted += 1;
        }
    }

    /// The holder relies on its lease no more.
    fn given_up(&self, name: &str, token: u128) {
        let (seen, _) = &mut *self.0.lock().expect("no client panicked");
        if let Some(seen) = seen.get_mut(name).filter(|seen| seen.highest == token) {
            seen.safe_until = Instant::now();
        }
    }

    fn lost(&self) {
        self.0.lock().expect("no client panicked").1.lost += 1;
    }

    fn released(&self) {
        self.0.lock().expect("no client panicked").1.released += 1;
    }

    fn counts(&self) -> Counts {
        self.0.lock().expect("no client panicked").1
    }
}
