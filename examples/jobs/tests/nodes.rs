//! The rules of the job queues, on whole nodes in simulated time.

use quorate::{Builder, LogTime, Retry, Ticket, WatchError};
use quorate_host_testing::nodes::{Nodes, simulate, soon};
use quorate_jobs::{
    BODY_MAX, Change, Command, DONE_MAX, Id, JOBS_MAX, Job, Jobs, LIST_MAX, MS_MAX, NAME_MAX, Notice, Phase, Query,
    Reply, Signal, Work,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::sleep;

#[test]
fn jobs_are_taken_by_priority_and_then_in_the_order_of_submission() {
    simulate(async {
        let three = start(3).await;
        for (name, priority) in [("a", 0), ("b", 9), ("c", 0), ("d", 9)] {
            assert_eq!(three.submit(name, Work { priority, ..work() }).await, Reply::Ok);
        }
        three.nodes.call(Command::Submit { id: id("other", "z"), work: Work { priority: 200, ..work() } }).await;
        let mut tokens = Vec::new();
        for (worker, expected) in ["u", "v", "w", "x"].into_iter().zip(["b", "d", "a", "c"]) {
            let (name, token) = three.taken(worker, 1_000).await;
            assert_eq!(name, expected);
            tokens.push(token);
        }
        assert!(tokens.is_sorted_by(|one, next| one < next), "{tokens:?}");
        assert_eq!(three.take("y", 1_000).await, Reply::Empty);
        assert_eq!(three.take_from("no such queue", "y").await, Reply::Empty);
    });
}

#[test]
fn a_job_is_completed_once_and_only_by_the_token_of_its_present_lease() {
    simulate(async {
        let three = start(3).await;
        three.submit("a", Work { backoff_ms: 100, ..work() }).await;
        let (_, late) = three.taken("slow", 1_000).await;
        sleep(Duration::from_millis(2_500)).await;
        let (_, token) = three.taken("quick", 60_000).await;
        assert!(token > late, "the next lease has a higher token");
        assert_eq!(three.complete("a", late).await, Reply::NotHeld);
        assert_eq!(three.nodes.call(Command::Renew { id: id("q", "a"), token: late, ms: 1_000 }).await, Reply::NotHeld);
        assert_eq!(three.fail("a", late).await, Reply::NotHeld);
        assert_eq!(three.complete("a", token).await, Reply::Ok);
        assert_eq!(three.complete("a", token).await, Reply::Ok, "a repetition");
        assert_eq!(three.complete("a", late).await, Reply::NotHeld);
        assert_eq!(three.fail("a", token).await, Reply::NotHeld);
        let job = three.job("a").await.expect("it is remembered");
        assert_eq!((job.phase, job.work.body.as_str(), job.attempts), (Phase::Done { token }, "", 2));
        assert_eq!(three.submit("a", work()).await, Reply::Known);
        assert_eq!(three.take("other", 1_000).await, Reply::Empty);
    });
}

#[test]
fn a_repeated_take_gets_the_same_lease_and_a_renewed_lease_lasts() {
    simulate(async {
        let mut three = start(3).await;
        three.submit("a", work()).await;
        three.submit("b", work()).await;
        let first = three.take("w", 5_000).await;
        assert_eq!(three.take("w", 600_000).await, first, "it is not prolonged either");
        let Reply::Taken { name, job: Job { phase: Phase::Taken { token, .. }, .. } } = first else { panic!("taken") };
        for _ in 0..5 {
            sleep(Duration::from_millis(2_000)).await;
            three.nodes.lose_leader().await;
            assert_eq!(three.nodes.call(Command::Renew { id: id("q", &name), token, ms: 5_000 }).await, Reply::Ok);
        }
        assert!(
            matches!(three.job("a").await.expect("there").phase, Phase::Taken { token: same, .. } if same == token)
        );
        assert_eq!(three.job("a").await.expect("there").attempts, 1);
        let before = three.job("a").await;
        assert_eq!(three.nodes.call(Command::Renew { id: id("q", &name), token, ms: 1 }).await, Reply::Ok);
        assert_eq!(three.job("a").await, before, "a delayed renewal makes no lease shorter");
        assert_eq!(three.complete(&name, token).await, Reply::Ok);
        assert_eq!(three.taken("w", 1_000).await.0, "b");
    });
}

#[test]
fn failed_attempts_are_retried_with_growing_pauses_and_the_last_one_makes_a_dead_letter() {
    simulate(async {
        let mut three = start(3).await;
        three.submit("a", Work { attempts_max: 4, backoff_ms: 1_000, ..work() }).await;
        let mut reasons = ["it is broken", "late", "it is broken", "it is broken"].into_iter();
        for (attempt, backoff_ms) in (1..).zip([1_000, 2_000, 4_000]) {
            let token = three.until_taken("w", 1_000).await;
            match reasons.next() {
                Some("late") => sleep(Duration::from_millis(1_100)).await,
                _ => assert_eq!(three.fail("a", token).await, Reply::Ok),
            }
            let job = three.job("a").await.expect("there");
            let Phase::Resting { until, .. } = job.phase else { panic!("{job:?}") };
            assert_eq!(job.attempts, attempt);
            let ended = three.events().await.into_iter().rfind(|(_, change)| change.1 == Some(job.phase.clone()));
            let pause = until.since(ended.expect("the event of the rest").0);
            let backoff = Duration::from_millis(backoff_ms);
            assert!(backoff / 2 - Duration::from_millis(1) <= pause && pause <= backoff, "{attempt}: {pause:?}");
            three.nodes.lose_leader().await;
        }
        let token = three.until_taken("w", 1_000).await;
        assert_eq!(three.fail("a", token).await, Reply::Ok);
        let dead = three.job("a").await.expect("there").phase;
        assert!(matches!(&dead, Phase::Dead { reason, notice: Some(_) } if reason == "it is broken"), "{dead:?}");
        sleep(Duration::from_secs(60)).await;
        let job = three.job("a").await.expect("there");
        assert_eq!((job.phase, job.attempts), (Phase::Dead { reason: "it is broken".into(), notice: None }, 4));
        assert_eq!(three.take("w", 1_000).await, Reply::Empty, "it does not return by itself");
        assert_eq!(three.dead().await, ["a"]);

        assert_eq!(three.nodes.call(Command::Revive { id: id("q", "a") }).await, Reply::Ok);
        assert_eq!(three.nodes.call(Command::Revive { id: id("q", "a") }).await, Reply::NotDead);
        let token = three.taken("w", 1_000).await.1;
        assert_eq!(three.job("a").await.expect("there").attempts, 1, "all its attempts");
        assert_eq!(three.nodes.call(Command::Discard { id: id("q", "a") }).await, Reply::NotDead);
        assert_eq!(three.complete("a", token).await, Reply::Ok);

        three.submit("b", Work { attempts_max: 0, ..work() }).await;
        let token = three.taken("w", 1_000).await.1;
        three.fail("b", token).await;
        assert_eq!(three.dead().await, ["b"], "one attempt");
        assert_eq!(three.nodes.call(Command::Discard { id: id("q", "b") }).await, Reply::Ok);
        assert_eq!(three.nodes.call(Command::Discard { id: id("q", "b") }).await, Reply::NotDead);
        assert_eq!(three.job("b").await, None);
    });
}

#[test]
fn a_delayed_job_becomes_ready_in_time_and_a_watch_sees_every_phase_once() {
    simulate(async {
        let mut three = start(3).await;
        three.submit("a", Work { delay_ms: 5_000, attempts_max: 1, ..work() }).await;
        assert_eq!(three.take("w", 1_000).await, Reply::Empty);
        sleep(Duration::from_millis(4_000)).await;
        assert_eq!(three.take("w", 1_000).await, Reply::Empty);
        three.nodes.lose_leader().await;
        let token = three.until_taken("w", 500).await;
        sleep(Duration::from_millis(1_500)).await;
        three.nodes.call(Command::Discard { id: id("q", "a") }).await;
        let events = three.events().await;
        let phases: Vec<_> = events.iter().map(|(_, change)| change.1.as_ref()).collect();
        let [Some(Phase::Resting { until: rested, .. }), Some(Phase::Ready), Some(taken), Some(dead), Some(told), None] =
            phases[..]
        else {
            panic!("{events:?}")
        };
        assert_eq!(events[1].0, *rested, "at its own time");
        let Phase::Taken { worker, token: by, until } = taken else { panic!("{taken:?}") };
        assert_eq!((worker.as_str(), *by), ("w", token));
        assert!(matches!(dead, Phase::Dead { reason, notice: Some(_) } if reason == "late"), "{dead:?}");
        assert_eq!((events[3].0, told), (*until, &Phase::Dead { reason: "late".into(), notice: None }));
    });
}

#[test]
fn each_dead_job_has_its_notice_given_though_the_outbox_is_full_at_first() {
    simulate(async {
        let serve = |builder: Builder| builder.serve(Jobs::default).effects(tell).outbox(1, 1 << 20);
        let one = Queue { nodes: Nodes::start(1, serve).await };
        for name in ["a", "b"] {
            one.submit(name, Work { attempts_max: 1, delay_ms: 10, ..work() }).await;
            let token = one.until_taken("w", 10_000).await;
            assert_eq!(one.fail(name, token).await, Reply::Ok);
        }
        sleep(Duration::from_secs(5)).await;
        let events = one.events().await;
        let dead = |of: &str| -> Vec<bool> {
            let of = events.iter().filter(|(_, Change(name, _))| name == of);
            of.filter_map(|(_, Change(_, phase))| match phase {
                Some(Phase::Dead { notice, .. }) => Some(notice.is_some()),
                _ => None,
            })
            .collect()
        };
        assert_eq!((dead("a"), dead("b")), (vec![true, false], vec![false, true, false]), "{events:?}");

        // The notice of an earlier death says nothing about a later one.
        for _ in 0..2 {
            assert_eq!(one.nodes.call(Command::Revive { id: id("q", "a") }).await, Reply::Ok);
            let token = one.taken("w", 10_000).await.1;
            assert_eq!(one.fail("a", token).await, Reply::Ok);
        }
        sleep(Duration::from_secs(5)).await;
        assert_eq!(
            one.job("a").await.expect("there").phase,
            Phase::Dead { reason: "it is broken".into(), notice: None }
        );
    });
}

#[test]
fn random_commands_keep_the_rules() {
    simulate(async {
        for seed in 0..20 {
            let (one, mut random) = (start(1).await, StdRng::seed_from_u64(seed));
            let (mut leases, mut accepted) = (vec![("a".to_owned(), 0)], BTreeMap::new());
            for _ in 0..300 {
                // Mostly a latest lease, which may have ended; else any token for any job.
                let latest = leases.len().saturating_sub(3);
                let (mut name, mut token) = leases[random.random_range(latest..leases.len())].clone();
                if random.random_range(0..3) == 0 {
                    NAMES[random.random_range(0..NAMES.len())].clone_into(&mut name);
                    token = leases[random.random_range(0..leases.len())].1;
                }
                let name = name.as_str();
                let before = one.job(name).await;
                let is_held =
                    matches!(&before, Some(job) if matches!(job.phase, Phase::Taken { token: by, .. } if by == token));
                match random.random_range(0..8) {
                    0..2 => {
                        let (priority, delay_ms) = (random.random_range(0..3), random.random_range(0..3) * 300);
                        let work = Work { priority, delay_ms, attempts_max: 3, backoff_ms: 400, body: "x".into() };
                        let reply = one.submit(name, work).await;
                        assert_eq!(reply == Reply::Ok, before.is_none(), "seed {seed}");
                    }
                    2..5 => {
                        let ms = random.random_range(1..2_000);
                        if let Reply::Taken { name, job } = one.take(["x", "y"][random.random_range(0..2)], ms).await {
                            let Phase::Taken { token, .. } = job.phase else { panic!("seed {seed}: {job:?}") };
                            let is_held = leases.contains(&(name.clone(), token));
                            assert!(
                                is_held || leases.iter().all(|(_, earlier)| *earlier < token),
                                "seed {seed}: {name}"
                            );
                            leases.push((name, token));
                        }
                    }
                    5 => {
                        let reply = one.complete(name, token).await;
                        let was_done = matches!(&before, Some(job) if job.phase == Phase::Done { token });
                        assert_eq!(reply == Reply::Ok, is_held || was_done, "seed {seed}: {before:?}");
                        if is_held {
                            assert_eq!(
                                accepted.insert(name.to_owned(), token),
                                None,
                                "seed {seed}: {name} was completed twice"
                            );
                        }
                    }
                    6 => assert_eq!(one.fail(name, token).await == Reply::Ok, is_held, "seed {seed}: {before:?}"),
                    _ => {
                        let renew = Command::Renew { id: id("q", name), token, ms: random.random_range(1..2_000) };
                        assert_eq!(one.nodes.call(renew).await == Reply::Ok, is_held, "seed {seed}: {before:?}");
                    }
                }
                sleep(Duration::from_millis(random.random_range(0..300))).await;
            }
            assert!(
                leases.iter().collect::<BTreeSet<_>>().len() > 10 && accepted.len() > 1,
                "seed {seed}: {accepted:?}"
            );
            check_phases(&one.events().await);
            one.nodes.stop().await;
        }
    });
}

#[test]
fn jobs_texts_and_times_are_bounded() {
    simulate(async {
        let one = start(1).await;
        let session = soon("a session", one.nodes.first().session()).await.expect("a session");
        let call = async |command| soon("an answer", session.call(command)).await.expect("it is applied").reply;
        let submit = |name: &str, work| Command::Submit { id: id("q", name), work };
        for (name, body, expected) in
            [(NAME_MAX, BODY_MAX, Reply::Ok), (NAME_MAX + 1, 0, Reply::TooLarge), (1, BODY_MAX + 1, Reply::TooLarge)]
        {
            let work = Work { body: "b".repeat(body), delay_ms: u32::MAX, ..work() };
            assert_eq!(call(submit(&"n".repeat(name), work)).await, expected);
        }
        assert_eq!(one.take(&"w".repeat(NAME_MAX + 1), 1).await, Reply::TooLarge);
        let day = Duration::from_millis(MS_MAX.into());
        let job = one.job(&"n".repeat(NAME_MAX)).await.expect("there");
        assert!(
            matches!(job.phase, Phase::Resting { until, .. } if until.since(LogTime(0)) < day + Duration::from_secs(9))
        );

        for number in 1..JOBS_MAX {
            assert_eq!(call(submit(&format!("{number:05}"), Work { attempts_max: 1, ..work() })).await, Reply::Ok);
        }
        assert_eq!(call(submit("late", work())).await, Reply::Full);
        assert_eq!(one.list("").await.len(), LIST_MAX);
        assert_eq!(one.list("09950").await.len(), 51, "the job with the long name too");
        let (name, token) = one.taken("w", u32::MAX).await;
        let job = one.job(&name).await.expect("there");
        assert!(
            matches!(job.phase, Phase::Taken { until, .. } if until.since(LogTime(0)) < day + Duration::from_secs(60))
        );
        assert_eq!(one.complete(&name, token).await, Reply::Ok, "a job that is done gives up its place");
        assert_eq!(call(submit("late", work())).await, Reply::Ok);
        assert_eq!(call(submit("later", work())).await, Reply::Full);
        let (name, token) = one.taken("w", 1_000).await;
        assert_eq!(one.fail(&name, token).await, Reply::Ok);
        assert_eq!(call(submit("later", work())).await, Reply::Full, "a dead one does not");
        assert_eq!(call(Command::Discard { id: id("q", &name) }).await, Reply::Ok);
        assert_eq!(call(submit("later", work())).await, Reply::Ok);
    });
}

#[test]
fn the_jobs_that_are_remembered_as_done_are_bounded() {
    simulate(async {
        let one = start(1).await;
        let session = soon("a session", one.nodes.first().session()).await.expect("a session");
        let call = async |command| soon("an answer", session.call(command)).await.expect("it is applied").reply;
        let mut first = None;
        for number in 0..=DONE_MAX {
            let id = id("q", &number.to_string());
            assert_eq!(call(Command::Submit { id: id.clone(), work: work() }).await, Reply::Ok);
            let take = Command::Take { queue: "q".into(), worker: "w".into(), ms: 1_000 };
            let Reply::Taken { job: Job { phase: Phase::Taken { token, .. }, .. }, .. } = call(take).await else {
                panic!("{number} is ready")
            };
            assert_eq!(call(Command::Complete { id, token }).await, Reply::Ok);
            first.get_or_insert(token);
        }
        let token = first.expect("a token");
        assert_eq!(one.job("0").await, None, "the first one is forgotten");
        assert!(one.job("1").await.is_some());
        assert_eq!(one.complete("0", token).await, Reply::NotHeld);
        assert_eq!(one.submit("0", work()).await, Reply::Ok, "its name is free");
    });
}

const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

/// The nodes, and the queue of the tests.
struct Queue {
    nodes: Nodes<Jobs>,
}

async fn start(count: usize) -> Queue {
    let serve = |builder: Builder| builder.serve(Jobs::default).effects(tell);
    Queue { nodes: Nodes::start(count, serve).await }
}

/// Gives a notice at the second attempt.
async fn tell(Notice(id, _): Notice, ticket: Ticket) -> Result<Signal, Retry> {
    if ticket.attempt == 1 { Err(Retry::because("the first attempt fails")) } else { Ok(Signal::Told(id)) }
}

fn id(queue: &str, name: &str) -> Id {
    Id { queue: queue.into(), name: name.into() }
}

fn work() -> Work {
    Work { body: "to do".into(), attempts_max: 5, ..Work::default() }
}

impl Queue {
    async fn submit(&self, name: &str, work: Work) -> Reply {
        self.nodes.call(Command::Submit { id: id("q", name), work }).await
    }

    async fn take(&self, worker: &str, ms: u32) -> Reply {
        self.nodes.call(Command::Take { queue: "q".into(), worker: worker.into(), ms }).await
    }

    async fn take_from(&self, queue: &str, worker: &str) -> Reply {
        self.nodes.call(Command::Take { queue: queue.into(), worker: worker.into(), ms: 1_000 }).await
    }

    async fn taken(&self, worker: &str, ms: u32) -> (String, u128) {
        match self.take(worker, ms).await {
            Reply::Taken { name, job: Job { phase: Phase::Taken { token, .. }, .. } } => (name, token),
            other => panic!("{other:?}"),
        }
    }

    /// Takes a job once one is ready; returns the token.
    async fn until_taken(&self, worker: &str, ms: u32) -> u128 {
        for _ in 0..600 {
            if self.take(worker, ms).await != Reply::Empty {
                return self.taken(worker, ms).await.1;
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("no job becomes ready")
    }

    async fn complete(&self, name: &str, token: u128) -> Reply {
        self.nodes.call(Command::Complete { id: id("q", name), token }).await
    }

    async fn fail(&self, name: &str, token: u128) -> Reply {
        self.nodes.call(Command::Fail { id: id("q", name), token, reason: "it is broken".into() }).await
    }

    async fn list(&self, from: &str) -> Vec<(String, Job)> {
        self.nodes.query(Query { queue: "q".into(), from: from.into(), only_dead: false }).await
    }

    async fn job(&self, name: &str) -> Option<Job> {
        self.list(name).await.into_iter().next().filter(|(found, _)| found == name).map(|(_, job)| job)
    }

    async fn dead(&self) -> Vec<String> {
        let dead = self.nodes.query(Query { queue: "q".into(), from: String::new(), only_dead: true }).await;
        dead.into_iter().map(|(name, _)| name).collect()
    }

    /// All events of the queue so far, with the log time after their entries.
    async fn events(&self) -> Vec<(LogTime, Change)> {
        let mut watch = self.nodes.first().watch("q").after(quorate::Index(0)).await.expect("the history is whole");
        let mut events = Vec::new();
        while let Ok(changes) = tokio::time::timeout(Duration::from_millis(1), watch.next()).await {
            match changes {
                Ok(changes) => {
                    events.extend(changes.events.iter().map(|(_, change)| (changes.time, (**change).clone())))
                }
                Err(WatchError::Gone { floor, .. }) => panic!("the events up to {floor} are gone"),
                Err(error) => panic!("{error}"),
            }
        }
        events
    }
}

/// Each job goes through legal phases, and each rest and each lease ends once.
fn check_phases(events: &[(LogTime, Change)]) {
    let mut phases = BTreeMap::<&str, &Phase>::new();
    for (time, Change(name, phase)) in events {
        let next = phase.as_ref().expect("none is discarded");
        let is_legal = match (phases.insert(name, next), next) {
            (None, Phase::Ready | Phase::Resting { .. }) => true,
            (Some(Phase::Resting { until, .. }), Phase::Ready) => time >= until,
            (Some(Phase::Ready), Phase::Taken { .. }) => true,
            (Some(Phase::Taken { token, .. }), Phase::Taken { token: same, .. } | Phase::Done { token: same }) => {
                token == same
            }
            (Some(Phase::Taken { .. }), Phase::Resting { .. } | Phase::Dead { notice: Some(_), .. }) => true,
            (Some(Phase::Dead { notice: Some(_), .. }), Phase::Dead { notice: None, .. }) => true,
            _ => false,
        };
        assert!(is_legal, "{name} at {time:?}: {next:?}, of {events:?}");
    }
}
