//! Election of one leader among outside programs, by a lock.
//!
//! The elected program has the token of the lock, and works until it is done or its lease may be over.
//! A candidate waits in the lock's queue for the event of its grant, and asks no more until then.

use crate::{Change, Command, Locks, Reply, TTL_MS_MAX, Wish};
use quorate::{ServiceNode, Watch};
use std::{error::Error, time::Duration};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

/// The reason why a request had no answer.
pub type Failure = Box<dyn Error + Send + Sync>;

/// The time for which a candidate that has no answer asks again.
const PATIENCE: Duration = Duration::from_secs(60);
/// The shortest lease of a candidate: renewals go through the log several times in each.
pub const ELECT_TTL_MS_MIN: u32 = 100;

/// A way to the lock service: a node of this process, or a client of one.
pub trait Way: Sync {
    /// The events of a lock.
    type Watch;

    /// Opens a watch of the lock of this name, from now on.
    fn watch(&self, name: &str) -> impl Future<Output = Result<Self::Watch, Failure>>;

    /// Waits until the lock is granted to the owner.
    fn granted(watch: &mut Self::Watch, owner: &str) -> impl Future<Output = Result<(), Failure>>;

    /// Calls the service.
    fn call(&self, command: Command) -> impl Future<Output = Result<Standing, Failure>>;
}

/// The part of a reply that matters to a candidate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It holds the lock, by this token.
    Holds(u128),
    /// Its wish waits.
    Waits,
    /// Neither.
    Out,
}

impl Way for ServiceNode<Locks> {
    type Watch = Watch<Locks>;

    async fn watch(&self, name: &str) -> Result<Self::Watch, Failure> {
        Ok(ServiceNode::watch(self, name).await?)
    }

    async fn granted(watch: &mut Self::Watch, owner: &str) -> Result<(), Failure> {
        let is_ours = |change: &Change| matches!(change, Change::Granted(grant) if grant.owner == owner);
        while !watch.next().await?.events.iter().any(|(_, change)| is_ours(change)) {}
        Ok(())
    }

    async fn call(&self, command: Command) -> Result<Standing, Failure> {
        Ok(match ServiceNode::call(self, command).within(Duration::from_secs(5)).await?.reply {
            Reply::Granted(grant) => Standing::Holds(grant.token),
            Reply::Queued { .. } => Standing::Waits,
            _ => Standing::Out,
        })
    }
}

/// Runs a task with the token of the lock while `wish.owner` holds it, and returns the task's output.
/// Each candidate needs an owner's name of its own. The task is dropped before its lease can be over,
/// and started anew, with a higher token, when the lock is granted again. That holds for a restarted
/// candidate with the name of an earlier one too. A lost leader of the lock
/// service does not end the lease, which lasts [`TTL_MS_MAX`] at most.
///
/// # Errors
/// If the service gives no answer for a minute while the lock is not held, or if the wish is for
/// less than [`ELECT_TTL_MS_MIN`].
pub async fn elect<W: Way, T: Future>(
    way: &W,
    name: &str,
    wish: &Wish,
    task: impl Fn(u128) -> T,
) -> Result<T::Output, Failure> {
    if wish.ttl_ms < ELECT_TTL_MS_MIN {
        return Err(format!("the lease of an election lasts at least {ELECT_TTL_MS_MIN} ms").into());
    }
    // As the service does it: to count with a longer lease is to believe in one that is over.
    let wish = &Wish { ttl_ms: wish.ttl_ms.min(TTL_MS_MAX), ..wish.clone() };
    let ttl = Duration::from_millis(wish.ttl_ms.into());
    let mut give_up = Instant::now() + PATIENCE;
    loop {
        let (token, asked) = match campaign(way, name, wish, &mut give_up).await {
            Ok(Some(elected)) => elected,
            Err(failure) if Instant::now() > give_up => return Err(failure),
            Ok(None) | Err(_) => {
                sleep(ttl / 20).await;
                continue;
            }
        };
        tokio::select! {
            output = task(token) => {
                // Without an answer the lock is free when the lease ends.
                let release = way.call(Command::Release { name: name.into(), token });
                let _ = timeout(ttl.min(PATIENCE), release).await;
                return Ok(output);
            }
            () = hold(way, name, wish, token, asked) => give_up = Instant::now() + PATIENCE,
        }
    }
}

/// Waits for the grant. Returns the token and a time before the request that was granted, or `None`
/// if the candidate found no place in the queue.
async fn campaign<W: Way>(
    way: &W,
    name: &str,
    wish: &Wish,
    give_up: &mut Instant,
) -> Result<Option<(u128, Instant)>, Failure> {
    let mut watch = way.watch(name).await?; // before asking, so that no grant is missed
    let mut is_first = true;
    loop {
        let asked = Instant::now();
        let standing = way.call(Command::Acquire { name: name.into(), wish: wish.clone(), wait: true }).await?;
        *give_up = Instant::now() + PATIENCE;
        match standing {
            // This may be the hold of an earlier run, of which the program may still be there with
            // the token. The next hold has a higher one.
            Standing::Holds(token) if is_first => {
                way.call(Command::Release { name: name.into(), token }).await?;
                is_first = false;
                continue;
            }
            Standing::Holds(token) => return Ok(Some((token, asked))),
            Standing::Waits => is_first = false,
            Standing::Out => return Ok(None),
        }
        let granted = W::granted(&mut watch, &wish.owner).await;
        *give_up = Instant::now() + PATIENCE; // the wait was no search for an answer, though it failed
        granted?;
    }
}

/// Renews the lease, until it is lost or may be over before that is known.
async fn hold<W: Way>(way: &W, name: &str, wish: &Wish, token: u128, mut asked: Instant) {
    let ttl = Duration::from_millis(wish.ttl_ms.into());
    loop {
        sleep_until(asked + ttl / 3).await;
        let sent = Instant::now();
        let renewed = async {
            loop {
                match way.call(Command::Renew { name: name.into(), token, ttl_ms: wish.ttl_ms }).await {
                    Ok(standing) => break standing == Standing::Holds(token),
                    Err(_) => sleep(ttl / 20).await, // such as a lost leader
                }
            }
        };
        // Clocks may drift apart by a tenth.
        match timeout_at(asked + ttl * 9 / 10, renewed).await {
            Ok(true) => asked = sent,
            Ok(false) | Err(_) => return,
        }
    }
}
