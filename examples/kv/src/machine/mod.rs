//! The replicated state: a map of keys to values, and the commands that change it.
//!
//! This module owns the pairs and a hash of them: a service of the typed layer. It does no I/O and
//! reads no clock, so the same commands in the same order give the same state, replies and hash on
//! every node and in every version. The HTTP handlers call it with [`Command`]s, query a key, and
//! read the whole state through `Node::read`.
//!
//! - `pairs`: the map, which can be copied in nanoseconds; `range`: ranges of its keys.
//! - `command`: the commands and replies; `txn`: the one that changes several keys; `bytes`: the
//!   keys and values in them.
//! - `writer`: the writes of a command, with the timers and events of its keys.
//! - `snapshot`: the format in which a copy is written and read.

mod bytes;
mod command;
mod pairs;
mod range;
mod snapshot;
#[cfg(test)]
pub(crate) mod testing;
mod txn;
mod writer;

pub use self::bytes::{Key, Value};
pub use command::{Change, Command, EVENT_VALUE_BYTES_MAX, Expire, Reply};
pub use range::KeyRange;
pub use txn::{Compare, Holds, Operation, OperationReply, TXN_READ_BYTES_MAX, Txn, TxnReply};

use pairs::Pairs;
use quorate::{At, Context, LogTime, Service, WriteState};
use std::io;
use writer::Writer;

/// The maximum length of a key in bytes. Keys are part of URLs and stay in memory on every node.
pub const KEY_BYTES_MAX: usize = 1024;

/// The maximum length of a command minus that of its values, in bytes: envelope, kind, lengths
/// and the key.
pub const COMMAND_OVERHEAD_BYTES: usize = 32 + KEY_BYTES_MAX;

/// The longest time to live of a key, in milliseconds: ten years.
pub const TTL_MS_MAX: u64 = 10 * 365 * 24 * 60 * 60 * 1000;

/// The replicated map.
#[derive(Clone, Debug, Default)]
pub struct Kv {
    pairs: Pairs,
}

impl Service for Kv {
    quorate::types!(Command => Reply, Key => Option<Value>, event Change, signal Expire);

    fn apply(&mut self, command: Command, cx: &mut Context<'_, Self>) -> Reply {
        let mut writer = Writer { pairs: &mut self.pairs, cx };
        match command {
            Command::Put { key, value, ttl_ms } => {
                writer.put(key, value, ttl_ms);
                Reply::Put
            }
            Command::Delete { key } => Reply::Delete { existed: writer.delete(key) },
            Command::Cas { key, expect, value } => {
                let swapped = writer.pairs.get(key.as_bytes()) == expect.map(|Value(expect)| expect).as_ref();
                if swapped {
                    writer.put(key, value, None);
                }
                Reply::Cas { swapped }
            }
            Command::Txn(txn) => Reply::Txn(txn::execute(&mut writer, txn)),
        }
    }

    fn signal(&mut self, Expire(key): Expire, cx: &mut Context<'_, Self>) {
        Writer { pairs: &mut self.pairs, cx }.expire(&key);
    }

    fn query(&self, key: Key, _: At) -> Option<Value> {
        self.get(&key)
    }

    /// So that a key is read on the thread of its HTTP request.
    fn view(&self) -> Option<quorate::View<Self>> {
        Some(quorate::View::of(self.clone()))
    }
}

/// By hand: a snapshot is a copy that shares the pairs, and is written pair by pair.
impl quorate::State for Kv {
    fn save(&self) -> WriteState {
        let pairs = self.pairs.clone();
        Box::new(move |to| snapshot::write(&pairs, to))
    }

    fn load(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        // The old pairs are dropped first, because memory may not hold both.
        self.pairs = Pairs::default();
        self.pairs = snapshot::read(from)?;
        Ok(())
    }

    fn digest(&self) -> Option<u64> {
        Some(self.state_hash())
    }
}

impl Kv {
    /// The value of `key`. Cheap: the bytes are shared.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Value> {
        self.pairs.get(key.as_bytes()).cloned().map(Value)
    }

    /// A hash of all pairs: equal states have equal hashes, on every platform and in every version.
    /// It detects accidental differences; it does not resist deliberate collisions.
    #[must_use]
    pub fn state_hash(&self) -> u64 {
        self.pairs.hash()
    }

    /// The number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether the map has no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A copy of the pairs as of now, to be listed, which later commands do not change. It shares
    /// with the state what they did not change.
    #[must_use]
    pub fn listing(&self) -> Listing {
        Listing(self.pairs.clone())
    }

    /// Sets a key that expires at `until`, without an entry of a log: for states that are built by
    /// hand.
    pub fn insert(&mut self, key: Key, Value(value): Value, until: Option<LogTime>) {
        self.pairs.insert(key.into_bytes(), value, until);
    }
}

/// The pairs as of one log index, to be listed.
#[derive(Clone, Debug)]
pub struct Listing(Pairs);

impl Listing {
    /// The pairs with keys in `range`, ordered by key. Finding the first one takes O(log n).
    pub fn range<'a>(&'a self, range: &'a KeyRange) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        range.of(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{testing::Kv, *};
    use quorate::State;

    #[test]
    fn a_swap_takes_place_only_if_the_value_is_the_expected_one() {
        let mut kv = Kv::default();
        let cas = |expect: Option<&[u8; 1]>, value: &[u8; 1]| {
            let expect = expect.map(Value::from);
            Command::Cas { key: "k".into(), expect, value: value.into() }
        };
        assert_eq!(kv.execute(cas(Some(b"a"), b"b")), Reply::Cas { swapped: false });
        assert_eq!(kv.execute(cas(None, b"a")), Reply::Cas { swapped: true });
        assert_eq!(kv.execute(cas(None, b"c")), Reply::Cas { swapped: false });
        assert_eq!(kv.execute(cas(Some(b"a"), b"b")), Reply::Cas { swapped: true });
        assert_eq!(kv.get("k").as_deref(), Some(&b"b"[..]));
    }

    #[test]
    fn a_delete_says_whether_the_key_existed() {
        let mut kv = Kv::default();
        kv.execute(put("k", b""));
        assert_eq!(kv.execute(Command::Delete { key: "k".into() }), Reply::Delete { existed: true });
        assert_eq!(kv.execute(Command::Delete { key: "k".into() }), Reply::Delete { existed: false });
        assert_eq!(kv.len(), 0);
    }

    #[test]
    fn a_listing_is_not_changed_by_later_commands() {
        let mut kv = filled(1000);
        let list = |listing: &Listing| {
            let all = KeyRange::between(None, None);
            let pairs = listing.range(&all);
            pairs.map(|(key, value)| (key.to_vec(), value.to_vec())).collect::<Vec<_>>()
        };
        let (listing, before) = (kv.listing(), list(&kv.listing()));
        for number in 0..500_u32 {
            kv.execute(put(&number.to_string(), b"other"));
            kv.execute(Command::Delete { key: (number + 500).to_string().into() });
        }
        assert_eq!((before.len(), list(&listing) == before), (1000, true));
        assert_eq!(list(&kv.listing()).len(), 500);
    }

    #[test]
    fn the_hash_depends_on_the_pairs_and_not_on_the_way_there() {
        let (mut one, mut other) = (Kv::default(), Kv::default());
        for key in 0..100_u32 {
            one.execute(put(&key.to_string(), b"v"));
            other.execute(put(&(99 - key).to_string(), b"old"));
        }
        assert_ne!(one.state_hash(), other.state_hash());
        for key in 0..100_u32 {
            other.execute(Command::Cas {
                key: key.to_string().into(),
                expect: Some(b"old".into()),
                value: b"v".into(),
            });
        }
        other.execute(put("gone", b"v"));
        other.execute(Command::Delete { key: "gone".into() });
        assert_eq!(one.state_hash(), other.state_hash());
    }

    #[test]
    fn a_snapshot_restores_to_an_equal_state() {
        let kv = filled(5000);
        let mut restored = super::Kv::default();
        restored.insert("from before".into(), b"gone".into(), None);
        restored.load(&mut &written(kv.save())[..]).expect("restored");
        assert_eq!((restored.len(), restored.state_hash()), (kv.len(), kv.state_hash()));
        for number in 0..5000_u32 {
            let key = number.to_string();
            assert_eq!(restored.get(&key), kv.get(&key));
        }
        assert_eq!(restored.get("from before"), None);
    }

    #[test]
    fn equal_states_write_equal_snapshots() {
        let one = filled(5000);
        let mut other = Kv::default();
        for number in (0..5000_u32).rev() {
            other.execute(put(&number.to_string(), &vec![1; number as usize % 300]));
        }
        assert_eq!(written(one.save()), written(other.save()));
    }

    #[test]
    fn a_snapshot_is_not_changed_by_what_is_applied_after_it_was_taken() {
        let mut kv = filled(1000);
        let (hash, at_once, later) = (kv.state_hash(), written(kv.save()), kv.save());
        for number in 0..500_u32 {
            kv.execute(put(&number.to_string(), b"other"));
            kv.execute(Command::Delete { key: (number + 500).to_string().into() });
        }
        kv.execute(put("new", b""));
        let later = written(later);
        assert!(later == at_once, "the snapshot is of when it was taken");
        let mut restored = super::Kv::default();
        restored.load(&mut &later[..]).expect("restored");
        assert_eq!(restored.state_hash(), hash);
        assert_ne!(kv.state_hash(), hash);
    }

    #[test]
    fn a_snapshot_is_written_while_commands_are_applied_on_another_thread() {
        let mut kv = filled(20_000);
        let (hash, snapshot) = (kv.state_hash(), kv.save());
        let writer = std::thread::spawn(move || written(snapshot));
        for number in 0..20_000_u32 {
            kv.execute(put(&number.to_string(), b"other"));
        }
        let mut restored = super::Kv::default();
        restored.load(&mut &writer.join().expect("written")[..]).expect("restored");
        assert_eq!(restored.state_hash(), hash);
    }

    fn put(key: &str, value: &[u8]) -> Command {
        Command::Put { key: key.into(), value: value.into(), ttl_ms: None }
    }

    fn filled(keys: u32) -> Kv {
        let mut kv = Kv::default();
        for number in 0..keys {
            kv.execute(put(&number.to_string(), &vec![1; number as usize % 300]));
        }
        kv
    }

    fn written(snapshot: WriteState) -> Vec<u8> {
        let mut bytes = Vec::new();
        snapshot(&mut bytes).expect("memory takes everything");
        bytes
    }
}
