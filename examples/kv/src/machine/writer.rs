//! The writes of one command or timer: each changes the pairs, sets or cancels the timer of the
//! key, and publishes the change.

use super::{Key, Value};
use super::{
    Kv, TTL_MS_MAX,
    command::{Change, EVENT_VALUE_BYTES_MAX, Expire},
    pairs::Pairs,
};
use quorate::{Context, LogTime};
use std::time::Duration;

/// **Invariant:** a key has a timer exactly if its pair expires, at the same log time.
pub(super) struct Writer<'a, 'c> {
    pub(super) pairs: &'a mut Pairs,
    pub(super) cx: &'a mut Context<'c, Kv>,
}

impl Writer<'_, '_> {
    /// Sets a key. Without a time to live it stays, also if it had one before.
    pub(super) fn put(&mut self, key: Key, value: Value, ttl_ms: Option<u64>) {
        let ttl_ms = ttl_ms.map(|ttl_ms| ttl_ms.clamp(1, TTL_MS_MAX));
        let until = ttl_ms.map(|ttl_ms| LogTime(self.cx.now().0 + ttl_ms));
        // The length of a command fits into 32 bits.
        let (bytes, short) = (value.len() as u32, value.len() <= EVENT_VALUE_BYTES_MAX);
        let event = Change::Put { value: short.then(|| value.clone()), bytes, until };
        self.cx.publish(&key, event);
        let expired_at = self.pairs.insert(key.clone().into_bytes(), value.0, until).and_then(|pair| pair.until());
        match ttl_ms {
            Some(ttl_ms) => self.cx.after(Duration::from_millis(ttl_ms), Expire(key)),
            None if expired_at.is_some() => drop(self.cx.cancel(&Expire(key))),
            None => {}
        }
    }

    /// Removes a key. Returns whether it existed.
    pub(super) fn delete(&mut self, key: Key) -> bool {
        let Some(removed) = self.pairs.remove(key.as_bytes()) else { return false };
        self.cx.publish(&key, Change::Delete);
        if removed.until().is_some() {
            self.cx.cancel(&Expire(key));
        }
        true
    }

    /// Removes a key that has expired.
    pub(super) fn expire(&mut self, key: &Key) {
        debug_assert_eq!(self.pairs.until(key.as_bytes()), Some(self.cx.now()), "a key has one timer");
        if self.pairs.remove(key.as_bytes()).is_some() {
            self.cx.publish(key, Change::Expire);
        }
    }
}
