//! The trace of an entry: the encoded form of all that it put out, to be hashed, and copied from
//! where a table keeps a part. The buffer is kept from entry to entry, so an entry allocates only
//! what the tables keep.
//!
//! Every item is a tag, its length (4 bytes) and its bytes, so no two outcomes have one trace.

use super::encoding::append;
use quorate_raft::session::LogTime;
use serde::Serialize;

const REPLY: u8 = 0;
const TIMER: u8 = 1;
const CANCELLED: u8 = 2;
const FIRED: u8 = 3;
const EVENT: u8 = 4;
const EFFECT: u8 = 5;
const REFUSED: u8 = 6;
const COMPLETED: u8 = 7;

/// A buffer that exceeds this after an entry is given back.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// The encoded outcome of the entry that is being applied.
#[derive(Default)]
pub struct Trace(Vec<u8>);

impl std::fmt::Debug for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Trace({} B)", self.0.len())
    }
}

/// A place in the trace.
#[derive(Clone, Copy, Debug)]
pub struct Mark(usize);

impl Trace {
    /// All of it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes after a place.
    #[must_use]
    pub fn since(&self, Mark(at): Mark) -> &[u8] {
        &self.0[at..]
    }

    /// Forgets all of it, for the next entry.
    #[inline]
    pub fn clear(&mut self) {
        if self.0.capacity() > KEPT_BYTES_MAX {
            self.0 = Vec::new();
        }
        self.0.clear();
    }

    /// Adds a timer; its encoded signal begins at the mark.
    pub fn timer<T: Serialize>(&mut self, due: LogTime, signal: &T) -> Mark {
        self.item(TIMER, &due.0.to_le_bytes(), |to| append(signal, to))
    }

    /// Adds a timer's cancellation; its encoded signal begins at the mark.
    pub fn cancelled<T: Serialize>(&mut self, signal: &T) -> Mark {
        self.item(CANCELLED, &[], |to| append(signal, to))
    }

    /// Adds a timer that fired.
    pub fn fired(&mut self, key: &[u8]) {
        self.item(FIRED, key, |_| {});
    }

    /// Adds a completion, and whether it counted.
    pub fn completed(&mut self, counts: bool) {
        self.item(COMPLETED, &[counts.into()], |_| {});
    }

    /// Adds an event; its encoded form begins at the mark.
    pub fn event<T: Serialize>(&mut self, topic: &str, event: &T) -> Mark {
        self.named(EVENT, topic, event)
    }

    /// Adds an effect; its encoded form begins at the mark.
    pub fn effect<T: Serialize>(&mut self, key: &str, effect: &T) -> Mark {
        self.named(EFFECT, key, effect)
    }

    /// Adds that the effect before it was refused.
    pub fn refused(&mut self) {
        self.item(REFUSED, &[], |_| {});
    }

    /// Adds the outcome of a command, which `write` appends; it begins at the mark.
    pub fn outcome(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Mark {
        self.item(REPLY, &[], write)
    }

    fn named<T: Serialize>(&mut self, tag: u8, name: &str, message: &T) -> Mark {
        self.item(tag, &(name.len() as u64).to_le_bytes(), |to| to.extend_from_slice(name.as_bytes()));
        self.item(tag, &[], |to| append(message, to))
    }

    #[inline]
    fn item(&mut self, tag: u8, head: &[u8], write: impl FnOnce(&mut Vec<u8>)) -> Mark {
        let Self(to) = self;
        to.extend_from_slice(&[tag, 0, 0, 0, 0]);
        let after_length = to.len();
        to.extend_from_slice(head);
        let begin = to.len();
        write(to);
        // Modulo 4 GiB: the item is hashed and not read back.
        let length = (to.len() - after_length) as u32;
        to[after_length - 4..after_length].copy_from_slice(&length.to_le_bytes());
        Mark(begin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_stands_at_the_encoded_message() {
        let mut trace = Trace::default();
        let timer = trace.timer(LogTime(7), &"key");
        assert_eq!(trace.since(timer), b"\x03key");
        let event = trace.event("topic", &5u8);
        assert_eq!(trace.since(event), [5]);
        let outcome = trace.outcome(|to| to.extend_from_slice(b"ok"));
        assert_eq!(trace.since(outcome), b"ok");
    }

    #[test]
    fn no_two_outcomes_have_one_trace() {
        let of = |write: &dyn Fn(&mut Trace)| {
            let mut trace = Trace::default();
            write(&mut trace);
            trace.bytes().to_vec()
        };
        let traces = [
            of(&|_| {}),
            of(&|trace| _ = trace.event("a", &"b")),
            of(&|trace| _ = trace.event("ab", &"")),
            of(&|trace| _ = trace.effect("a", &"b")),
            of(&|trace| {
                trace.effect("a", &"b");
                trace.refused();
            }),
            of(&|trace| _ = trace.timer(LogTime(1), &"a")),
            of(&|trace| _ = trace.timer(LogTime(2), &"a")),
            of(&|trace| _ = trace.cancelled(&"a")),
            of(&|trace| trace.fired(b"\x01a")),
            of(&|trace| trace.completed(true)),
            of(&|trace| trace.completed(false)),
        ];
        let distinct: std::collections::BTreeSet<_> = traces.iter().collect();
        assert_eq!(distinct.len(), traces.len());
    }

    #[test]
    fn a_large_buffer_is_not_kept() {
        let mut trace = Trace::default();
        trace.fired(&[0; KEPT_BYTES_MAX]);
        trace.clear();
        assert_eq!((trace.0.capacity(), trace.bytes().len()), (0, 0));
        trace.fired(b"small");
        let kept = trace.0.capacity();
        trace.clear();
        assert_eq!(trace.0.capacity(), kept);
    }
}
