//! The election of one leader, on a lock service that answers by a script.

use quorate_locks::{Command, ELECT_TTL_MS_MIN, Failure, Standing, TTL_MS_MAX, Way, Wish, elect};
use std::{collections::VecDeque, sync::Mutex, time::Duration};
use tokio::time::sleep;

#[tokio::test(start_paused = true)]
async fn a_task_that_ran_longer_than_its_lease_releases_the_lock() {
    let way = Scripted::new([Standing::Waits, Standing::Holds(1)]);
    assert_eq!(elect(&way, "lock", &wish(3_000), |token| after(10_000, token)).await.expect("it is elected"), 1);
    assert_eq!(way.released(), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_candidate_that_waited_for_long_asks_again_after_an_error() {
    let mut way = Scripted::new([Standing::Waits, Standing::Holds(1), Standing::Holds(2)]);
    way.wait = (Duration::from_secs(120), false);
    assert_eq!(elect(&way, "lock", &wish(3_000), |token| after(10, token)).await.expect("it is elected"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_counted_as_the_service_cuts_it_and_a_shorter_one_than_can_be_kept_is_refused() {
    let way = Scripted::new([Standing::Holds(1)]);
    let day = u64::from(TTL_MS_MAX);
    elect(&way, "lock", &wish(u32::MAX), |token| after(day, token)).await.expect("it is elected");
    let told = way.told();
    let ttls = told.iter().filter_map(|command| match command {
        Command::Acquire { wish, .. } => Some(wish.ttl_ms),
        Command::Renew { ttl_ms, .. } => Some(*ttl_ms),
        Command::Release { .. } => None,
    });
    let ttls: Vec<_> = ttls.collect();
    assert!(ttls.len() >= 3 && ttls.iter().all(|ttl| *ttl == TTL_MS_MAX), "renewed twice in a day: {ttls:?}");

    let way = Scripted::new([Standing::Holds(1)]);
    for ttl_ms in [0, ELECT_TTL_MS_MIN - 1] {
        let refused = elect(&way, "lock", &wish(ttl_ms), |token| after(10, token)).await.expect_err("too short");
        assert!(refused.to_string().contains("at least 100 ms"), "{refused}");
    }
    assert!(way.told().is_empty());
    elect(&way, "lock", &wish(ELECT_TTL_MS_MIN), |token| after(10, token)).await.expect("it is elected");
}

/// A service that answers requests for the lock by a script, then by its last answer, each after a
/// while. It renews and releases every hold.
struct Scripted {
    answers: Mutex<VecDeque<Standing>>,
    told: Mutex<Vec<Command>>,
    /// The time of a wait, and whether it ends with a grant.
    wait: (Duration, bool),
}

impl Scripted {
    fn new<const N: usize>(answers: [Standing; N]) -> Self {
        Self { answers: Mutex::new(answers.into()), told: Mutex::default(), wait: (Duration::from_secs(1), true) }
    }

    fn told(&self) -> Vec<Command> {
        self.told.lock().expect("no panic").clone()
    }

    /// The tokens of the releases that were answered.
    fn released(&self) -> Vec<u128> {
        let token = |command| if let Command::Release { token, .. } = command { Some(token) } else { None };
        self.told().into_iter().filter_map(token).collect()
    }
}

impl Way for Scripted {
    type Watch = (Duration, bool);

    async fn watch(&self, _: &str) -> Result<Self::Watch, Failure> {
        Ok(self.wait)
    }

    async fn granted((wait, is_granted): &mut Self::Watch, _: &str) -> Result<(), Failure> {
        sleep(*wait).await;
        if *is_granted { Ok(()) } else { Err("the node has left".into()) }
    }

    async fn call(&self, command: Command) -> Result<Standing, Failure> {
        sleep(Duration::from_millis(10)).await;
        self.told.lock().expect("no panic").push(command.clone());
        let mut answers = self.answers.lock().expect("no panic");
        Ok(match command {
            Command::Acquire { .. } if answers.len() > 1 => answers.pop_front().expect("two"),
            Command::Acquire { .. } => answers[0],
            Command::Renew { token, .. } => Standing::Holds(token),
            Command::Release { .. } => Standing::Out,
        })
    }
}

fn wish(ttl_ms: u32) -> Wish {
    Wish { owner: "x".into(), ttl_ms }
}

async fn after<T>(ms: u64, output: T) -> T {
    sleep(Duration::from_millis(ms)).await;
    output
}
