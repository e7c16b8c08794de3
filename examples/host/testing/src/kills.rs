//! Leaders that are killed again and again, while clients go on asking.

use crate::processes::{Cluster, PATIENCE};
use quorate_host::{Asking, Line, ask};
use std::{
    env,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout};

/// The time for one attempt of a request.
const ATTEMPT: Duration = Duration::from_secs(15);
/// The pause after an attempt without an answer.
const PAUSE: Duration = Duration::from_millis(20);

/// The number of kills: `QUORATE_KILLS`, or else this one.
#[must_use]
pub fn kills_or(kills: u64) -> u64 {
    env::var("QUORATE_KILLS").map_or(kills, |text| text.parse().expect("QUORATE_KILLS is a number"))
}

/// The way of many clients to the nodes of a cluster.
#[derive(Debug)]
pub struct Ways {
    nodes: Vec<PathBuf>,
    next: AtomicU64,
    answers: AtomicU64,
    retries: AtomicU64,
}

impl Ways {
    /// The ways to all nodes of a cluster of this many.
    #[must_use]
    pub fn to(cluster: &Cluster, count: u64) -> Self {
        let nodes = (1..=count).map(|id| cluster.data(id)).collect();
        Self { nodes, next: AtomicU64::new(0), answers: AtomicU64::new(0), retries: AtomicU64::new(0) }
    }

    fn node(&self) -> &PathBuf {
        &self.nodes[self.next.fetch_add(1, Relaxed) as usize % self.nodes.len()]
    }

    /// The answer to a request that may be repeated, by one node after another until one answers:
    /// `Ok` if it is fulfilled.
    ///
    /// # Errors
    /// The answer, if the request is not fulfilled.
    pub async fn ask(&self, request: &str) -> Result<String, String> {
        let started = Instant::now();
        loop {
            let answer = timeout(ATTEMPT, async { ask(self.node(), request).await?.next().await }).await;
            let fault = match answer {
                Ok(Ok(Line::Yes(text))) => break self.answered(Ok(text)),
                Ok(Ok(Line::No(text))) => break self.answered(Err(text)),
                Ok(Ok(Line::Error(text) | Line::Event(text))) => text,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it takes too long".into(),
            };
            assert!(started.elapsed() < PATIENCE, "{request}: {fault}");
            self.retries.fetch_add(1, Relaxed);
            sleep(PAUSE).await;
        }
    }

    fn answered<T>(&self, answer: T) -> T {
        self.answers.fetch_add(1, Relaxed);
        answer
    }

    /// Number of the requests that were answered, and of the attempts that were not.
    pub fn counts(&self) -> (u64, u64) {
        (self.answers.load(Relaxed), self.retries.load(Relaxed))
    }

    /// The events of a watch from the beginning on, each once: it goes on at another node after a
    /// node was lost.
    #[must_use]
    pub fn follow(&self, request: &str) -> Follow<'_> {
        Follow { ways: self, request: request.into(), asking: None, index: 0, of_index: 0, to_skip: 0 }
    }
}

/// The events of a watch, through the loss of nodes.
#[derive(Debug)]
pub struct Follow<'a> {
    ways: &'a Ways,
    request: String,
    asking: Option<Asking>,
    /// Index of the last event.
    index: u64,
    /// Number of events of that entry that were returned.
    of_index: u64,
    /// Of these, the number that comes again first.
    to_skip: u64,
}

impl Follow<'_> {
    /// The next event. To drop the future loses nothing.
    pub async fn next(&mut self) -> String {
        loop {
            let Some(asking) = &mut self.asking else {
                // The last entry again: its other events may not have arrived.
                let request = format!("{} {}", self.request, self.index.saturating_sub(1));
                self.asking = ask(self.ways.node(), &request).await.ok();
                self.to_skip = self.of_index;
                if self.asking.is_none() {
                    sleep(PAUSE).await;
                }
                continue;
            };
            let text = match asking.next().await {
                Ok(Line::Event(text)) => text,
                Ok(Line::Yes(text) | Line::No(text) | Line::Error(text)) => {
                    assert!(!text.contains("gone"), "{}: {text}", self.request);
                    self.asking = None;
                    continue;
                }
                Err(_) => {
                    self.asking = None;
                    continue;
                }
            };
            let (index, event) = text.split_once(' ').expect("an index and an event");
            let index = index.parse().expect("an index");
            if event == "watching" || (index == self.index && self.to_skip > 0) {
                self.to_skip -= u64::from(event != "watching");
                continue;
            }
            assert!(index >= self.index, "{}: {text} comes after an event of {}", self.request, self.index);
            self.of_index = if index == self.index { self.of_index + 1 } else { 1 };
            (self.index, self.to_skip) = (index, 0);
            return event.to_owned();
        }
    }
}

/// Kills the leader with SIGKILL so many times, and starts its node again at once. The next kill
/// comes when the new leader has answered `answers_min` requests.
pub async fn kill_leaders(cluster: &mut Cluster, ways: &Ways, kills: u64, answers_min: u64) {
    let started = Instant::now();
    for kill in 1..=kills {
        let (answers, since) = (ways.counts().0, Instant::now());
        while ways.counts().0 < answers + answers_min {
            assert!(since.elapsed() < PATIENCE, "after kill {} the cluster does not go on", kill - 1);
            sleep(Duration::from_millis(10)).await;
        }
        let leader = ways.ask_until_some("leader", |text| text.strip_prefix("leader ")?.parse().ok()).await;
        cluster.kill(leader).await;
        cluster.start(leader).await;
        if kill % 25 == 0 {
            println!("{kill} kills in {:.0} s, {} requests answered", started.elapsed().as_secs_f64(), ways.counts().0);
        }
    }
}

impl Ways {
    async fn ask_until_some<T>(&self, request: &str, read: impl Fn(&str) -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(found) = self.ask(request).await.ok().as_deref().and_then(&read) {
                return found;
            }
            assert!(started.elapsed() < PATIENCE, "{request}: no answer fits");
            sleep(PAUSE).await;
        }
    }
}
