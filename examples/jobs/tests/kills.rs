//! Job queues of three processes under kills of the leader, with workers that crash, fail, and are late.

use quorate_host_testing::{
    kills::{Ways, kill_leaders, kills_or},
    processes::Cluster,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

const SUBMITTERS: u64 = 4;
const WORKERS: u64 = 12;
/// The most jobs that are neither done nor dead.
const OPEN_MAX: u64 = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_job_is_completed_once_while_a_few_leaders_are_killed() {
    run(kills_or(10)).await;
}

/// `QUORATE_KILLS=1000 cargo test -p quorate-jobs --test kills -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it takes many minutes: a thousand leaders are killed"]
async fn every_job_is_completed_once_while_a_thousand_leaders_are_killed() {
    run(kills_or(1_000)).await;
}

async fn run(kills: u64) {
    let mut cluster = Cluster::prepare(env!("CARGO_BIN_EXE_jobs"), 3);
    cluster.configure(3, "[service]\nnotices = \"notices\"");
    for id in 1..=3 {
        cluster.start(id).await;
    }
    let (ways, ledger) = (Arc::new(Ways::to(&cluster, 3)), Arc::new(Ledger::default()));
    let (mut submitters, mut workers) = (JoinSet::new(), JoinSet::new());
    for nth in 0..SUBMITTERS {
        let (ways, ledger) = (Arc::clone(&ways), Arc::clone(&ledger));
        submitters.spawn(async move { submit(nth, &ways, &ledger).await });
    }
    for nth in 0..WORKERS {
        let (ways, ledger) = (Arc::clone(&ways), Arc::clone(&ledger));
        workers.spawn(async move { work(nth, &ways, &ledger).await });
    }
    let watcher = {
        let (ways, ledger) = (Arc::clone(&ways), Arc::clone(&ledger));
        tokio::spawn(async move { watch(&ways, &ledger).await })
    };
    tokio::pin!(watcher);
    tokio::select! {
        () = kill_leaders(&mut cluster, &ways, kills, 100) => {}
        failed = submitters.join_next() => panic!("a submitter ended: {failed:?}"),
        failed = workers.join_next() => panic!("a worker ended: {failed:?}"),
        failed = &mut watcher => panic!("the watcher ended: {failed:?}"),
    }
    ledger.is_over.store(true, Relaxed);
    while let Some(submitter) = submitters.join_next().await {
        submitter.expect("it ends in order");
    }
    ledger.is_submitted.store(true, Relaxed);
    let jobs = watcher.await.expect("it ends in order");
    ledger.is_finished.store(true, Relaxed);
    while let Some(worker) = workers.join_next().await {
        worker.expect("it ends in order");
    }
    cluster.stop_all().await;
    let notices = fs::read_to_string(cluster.dir().join("notices")).expect("dead jobs had notices");
    check(kills, &ways, &ledger, &jobs, &notices);
}

/// Compares the events with the answers that submitters and workers got, and prints the counts.
fn check(kills: u64, ways: &Ways, ledger: &Ledger, jobs: &BTreeMap<String, Seen>, notices: &str) {
    let (accepted, submitted) = (ledger.accepted.lock().expect("no task panicked"), ledger.submitted.load(Relaxed));
    assert_eq!(jobs.len() as u64, submitted, "every submitted job, and no other one");
    let total = |count: fn(&Seen) -> u64| jobs.values().map(count).sum::<u64>();
    let (done, dead) = (total(|job| job.done), total(|job| job.dead));
    assert_eq!(done + dead, submitted, "every job ended once");
    let mut ids = BTreeMap::<&str, BTreeSet<&str>>::new();
    for line in notices.lines() {
        // A killed node may have left a part of a line.
        if let [id, _, "q", name, "broken" | "late"] = line.split(' ').collect::<Vec<_>>()[..] {
            ids.entry(name).or_default().insert(id);
        }
    }
    for (name, job) in jobs {
        assert_eq!((job.done, job.dead), if is_poison(name) { (0, 1) } else { (1, 0) }, "{name}: {job:?}");
        assert_eq!(job.told, job.dead, "{name}: the effect of a dead job was completed once");
        assert_eq!(ids.get(name.as_str()).map_or(0, |ids| ids.len() as u64), job.dead, "{name}: one effect, performed");
        assert_eq!(job.rests, job.rests_ended, "{name}: each rest ended once");
        if let Some(token) = accepted.get(name) {
            assert_eq!(job.token, Some(*token), "{name}: the accepted completion is that of the event");
        }
    }
    let (answers, retries) = ways.counts();
    let (leases, rests, late) = (total(|job| job.leases_ended), total(|job| job.rests), ledger.late.load(Relaxed));
    println!(
        "{kills} kills of the leader: {answers} requests answered, {retries} attempts without an answer\n\
         {submitted} jobs: {done} completed once each, {dead} dead once each; {} attempts\n\
         {} completions acknowledged, and {late} refused: the lease had ended\n\
         {} timers fired once each: {leases} ended a lease, {rests} a delay or a back-off\n\
         {} effects, each completed once: performed {} times",
        total(|job| job.attempts),
        accepted.len(),
        leases + rests,
        total(|job| job.told),
        notices.lines().count()
    );
    assert!(done > kills && dead > 0 && late > 0 && leases > 0 && rests > 0);
}

#[derive(Default)]
struct Ledger {
    /// No further jobs are to be submitted.
    is_over: AtomicBool,
    /// Number of submissions that were begun and, later, acknowledged.
    submitted: AtomicU64,
    is_submitted: AtomicBool,
    is_finished: AtomicBool,
    ended: AtomicU64,
    /// The token of each acknowledged completion.
    accepted: Mutex<BTreeMap<String, u128>>,
    /// Number of refused completions.
    late: AtomicU64,
}

/// Jobs that every worker fails.
fn is_poison(name: &str) -> bool {
    name.ends_with('7')
}

/// Jobs whose first worker crashes, or is too slow.
fn is_slow(name: &str) -> bool {
    name.ends_with('3')
}

async fn submit(nth: u64, ways: &Ways, ledger: &Ledger) {
    let mut random = StdRng::seed_from_u64(nth);
    for number in 0.. {
        while ledger.submitted.load(Relaxed) > ledger.ended.load(Relaxed) + OPEN_MAX && !ledger.is_over.load(Relaxed) {
            sleep(Duration::from_millis(20)).await;
        }
        if ledger.is_over.load(Relaxed) {
            return;
        }
        let name = format!("{nth}-{number}");
        let (priority, delay) = (random.random_range(0..3), random.random_range(0..3) / 2 * 500);
        let attempts = if is_poison(&name) { 3 } else { 1_000 };
        let request = format!("submit q {name} body priority={priority} delay={delay} attempts={attempts} backoff=100");
        let reply = ways.ask(&request).await.expect("there is room");
        assert!(matches!(reply.as_str(), "ok" | "known"), "{reply}");
        ledger.submitted.fetch_add(1, Relaxed);
        sleep(Duration::from_millis(random.random_range(0..40))).await;
    }
}

async fn work(nth: u64, ways: &Ways, ledger: &Ledger) {
    let (worker, mut random) = (format!("worker-{nth}"), StdRng::seed_from_u64(nth));
    while !ledger.is_finished.load(Relaxed) {
        let ms = random.random_range(500..1_500);
        let Ok(taken) = ways.ask(&format!("take q {worker} {ms} wait")).await else { continue };
        let words: Vec<_> = taken.split(' ').collect();
        let ["taken", by, token] = words[1..4] else { panic!("{taken}") };
        let (name, token): (&str, u128) = (words[0], token.parse().expect("a token"));
        assert_eq!(by, worker);
        let is_first = taken.contains(" attempt 1 of ");
        let is_late = is_slow(name) && is_first;
        if is_late {
            sleep(Duration::from_millis(ms * 5 / 4)).await;
        } else {
            sleep(Duration::from_millis(random.random_range(0..30))).await;
        }
        if is_poison(name) {
            let _ = ways.ask(&format!("fail q {name} {token} broken")).await; // or its lease has ended
            continue;
        }
        match ways.ask(&format!("complete q {name} {token}")).await {
            Ok(_) => {
                let before = ledger.accepted.lock().expect("no task panicked").insert(name.into(), token);
                assert_eq!(before, None, "{name} was completed twice");
            }
            Err(reply) => {
                assert_eq!(reply, "not held");
                ledger.late.fetch_add(1, Relaxed);
            }
        }
    }
}

/// The events of a job.
#[derive(Default, Debug)]
struct Seen {
    phase: String,
    token: Option<u128>,
    attempts: u64,
    rests: u64,
    rests_ended: u64,
    /// Leases that a timer ended.
    leases_ended: u64,
    done: u64,
    dead: u64,
    /// Completions of the effect that announces its death.
    told: u64,
}

/// Checks that each job goes through legal phases only, until all have ended.
async fn watch(ways: &Ways, ledger: &Ledger) -> BTreeMap<String, Seen> {
    let (mut follow, mut jobs) = (ways.follow("watch q"), BTreeMap::<String, Seen>::new());
    loop {
        if ledger.is_submitted.load(Relaxed) && ledger.ended.load(Relaxed) == ledger.submitted.load(Relaxed) {
            return jobs;
        }
        let Ok(event) = timeout(Duration::from_millis(500), follow.next()).await else { continue };
        let words: Vec<_> = event.split(' ').collect();
        let (name, phase) = (words[0], words[1]);
        let job = jobs.entry(name.into()).or_default();
        let token = || words[words.len() - 1].parse::<u128>().ok();
        match (job.phase.as_str(), phase) {
            ("", "ready" | "resting") => {}
            ("resting", "ready") => job.rests_ended += 1,
            ("ready", "taken") => {
                assert!(token() > job.token, "{event}, of {job:?}");
                (job.token, job.attempts) = (token(), job.attempts + 1);
            }
            ("taken", "done") => {
                assert_eq!(token(), job.token, "{event}, of {job:?}");
                job.done += 1;
                ledger.ended.fetch_add(1, Relaxed);
            }
            ("taken", "resting") => job.leases_ended += u64::from(event.ends_with(" late")),
            ("taken", "dead") => {
                job.leases_ended += u64::from(event.contains(" late "));
                job.dead += 1;
                assert!(event.ends_with(" is to be given)"), "{event}: there is room in the outbox");
            }
            ("dead", "dead") => {
                job.told += 1;
                assert!(!event.ends_with(')'), "{event}, of {job:?}");
                ledger.ended.fetch_add(1, Relaxed);
            }
            _ => panic!("{event}, of {job:?}"),
        }
        job.rests += u64::from(phase == "resting");
        job.phase = phase.into();
    }
}
