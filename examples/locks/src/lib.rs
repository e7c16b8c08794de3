//! A service of locks with leases, fencing tokens and waiters in order.
//!
//! A lease is a timer in log time, which counts while a leader leads: a lease outlives the loss of
//! a leader, and lasts longer on the wall clock by the time without one.

mod elect;

pub use elect::{ELECT_TTL_MS_MIN, Failure, Standing, Way, elect};

use quorate::{At, Context, LogTime, Service};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// The most locks that are held at a time; a further one is answered [`Reply::Full`].
pub const LOCKS_MAX: usize = 10_000;
/// The most waiters of one lock; a further one is answered [`Reply::Busy`].
pub const WAITERS_MAX: usize = 1_000;
/// The longest lease: a day. A longer one that is asked for lasts as long as this.
pub const TTL_MS_MAX: u32 = 24 * 60 * 60 * 1000;

/// The held locks, by name.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub struct Locks(BTreeMap<String, Lock>);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Lock {
    grant: Grant,
    waiting: VecDeque<Wish>,
}

/// Holder of a lock and end of its lease.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Grant {
    /// The name that the holder gave in its [`Wish`].
    pub owner: String,
    /// The fencing token: equal throughout a hold, and higher than that of every earlier grant of
    /// any lock. A protected resource refuses tokens lower than the highest it has seen.
    pub token: u128,
    /// The log time at which the lease ends, unless it is renewed.
    pub until: LogTime,
}

/// Request for a lock.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Wish {
    /// The holder's name. Requests by an equal name are taken for repetitions by one holder.
    pub owner: String,
    /// Milliseconds of log time from the grant to the end of the lease; at most [`TTL_MS_MAX`]
    /// count.
    pub ttl_ms: u32,
}

/// Commands, each of which may be repeated when its outcome is unknown.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Command {
    /// Grants a free lock; renews the lease of an owner that holds it already.
    Acquire { name: String, wish: Wish, wait: bool },
    /// Makes the lease last this long from now, unless it lasts longer, if the token is that of the
    /// present grant.
    Renew { name: String, token: u128, ttl_ms: u32 },
    /// Passes the lock to the next waiter, if the token is that of the present grant.
    Release { name: String, token: u128 },
}

/// The replies to commands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// The caller holds the lock.
    Granted(Grant),
    /// The caller's wish waits, with this many in front of it.
    Queued {
        /// Number of wishes that come first.
        ahead: usize,
    },
    /// Another owner holds the lock, and the caller's wish does not wait.
    Busy(Grant),
    /// The lock is passed on.
    Released,
    /// The token is not that of the present grant: the lease has ended, or never began.
    NotHeld,
    /// The lock is free and cannot be granted: [`LOCKS_MAX`] others are held.
    Full,
}

/// The events, published under the lock's name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Change {
    /// The lock has a new holder.
    Granted(Grant),
    /// The lock has no holder.
    Freed,
}

/// The end of a lease: the timer of the lock of this name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Expire(String);

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
            if self.0.len() == LOCKS_MAX {
                return Reply::Full;
            }
            return Reply::Granted(self.grant(name, wish, VecDeque::new(), cx));
        };
        if lock.grant.owner == wish.owner {
            return Reply::Granted(lock.lease(name, wish.ttl_ms, cx));
        }
        let ahead = lock.waiting.iter().take_while(|other| other.owner != wish.owner).count();
        if ahead == lock.waiting.len() {
            if !wait || ahead == WAITERS_MAX {
                return Reply::Busy(lock.grant.clone());
            }
            lock.waiting.push_back(wish);
        }
        Reply::Queued { ahead }
    }

    fn release(&mut self, name: String, token: u128, cx: &mut Context<'_, Self>) -> Reply {
        if self.held(&name, token).is_none() {
            return Reply::NotHeld;
        }
        cx.cancel(&Expire(name.clone()));
        self.pass_on(name, cx);
        Reply::Released
    }

    fn grant(&mut self, name: String, wish: Wish, waiting: VecDeque<Wish>, cx: &mut Context<'_, Self>) -> Grant {
        let grant = Grant { owner: wish.owner, token: cx.token().as_u128(), until: cx.now() };
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

    fn held(&mut self, name: &str, token: u128) -> Option<&mut Lock> {
        self.0.get_mut(name).filter(|lock| lock.grant.token == token)
    }
}

impl Lock {
    fn lease(&mut self, name: String, ttl_ms: u32, cx: &mut Context<'_, Locks>) -> Grant {
        let ttl = Duration::from_millis(ttl_ms.min(TTL_MS_MAX).into());
        // Never shorter: this may be an earlier request that was delayed.
        self.grant.until = self.grant.until.max(cx.now() + ttl);
        let left = self.grant.until.since(cx.now());
        cx.after(left, Expire(name)); // in place of the timer that an equal signal had before
        self.grant.clone()
    }
}
