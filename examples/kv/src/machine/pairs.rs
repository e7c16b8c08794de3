//! The map: small ordered maps for consecutive ranges of keys, each shared with its copies until
//! one of them changes it.
//!
//! A copy of the map copies two references per [`Shard`]. The first change of a shard after that
//! copies the shard, but not its keys and values; this costs some ten nanoseconds per key, for a
//! few hundred keys at a time. A persistent map would avoid this cost, but every change would be
//! slower.

use quorate::LogTime;
use rapidhash::v3::{RapidSecrets, RapidStreamHasherV3};
use std::{collections::BTreeMap, ops::Bound, sync::Arc};

/// The key-value pairs.
///
/// **Invariant:** `hash` is the wrapping sum of all pairs' hashes, so it does not depend on their
/// order; `len` is the number of pairs; there is a first shard, which begins with the empty key.
#[derive(Clone, Debug)]
pub(super) struct Pairs {
    shards: Vec<Part>,
    len: usize,
    hash: u64,
}

/// A shard, and the key from which on all keys up to the next shard's belong to it.
#[derive(Clone, Debug)]
struct Part {
    from: Arc<[u8]>,
    shard: Arc<Shard>,
}

/// The pairs of a range of keys, ordered by key.
pub(super) type Shard = BTreeMap<Arc<[u8]>, Pair>;

#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) value: Arc<[u8]>,
    /// [`NEVER`], or the log time at which the pair expires.
    until: LogTime,
    hash: u64,
}

/// The due of no timer: each is at least a millisecond after the one that sets it.
const NEVER: LogTime = LogTime(0);

/// The number of keys at which a shard is split.
const SHARD_KEYS_MAX: usize = 512;
/// The number of shards from which on they grow instead, so that a copy takes about 100 µs.
const SHARDS_MANY: usize = 4096;

impl Default for Pairs {
    fn default() -> Self {
        Self { shards: vec![Part { from: Arc::default(), shard: Arc::default() }], len: 0, hash: 0 }
    }
}

impl Pairs {
    pub(super) fn get(&self, key: &[u8]) -> Option<&Arc<[u8]>> {
        self.pair(key).map(|pair| &pair.value)
    }

    /// The log time at which a key expires, if it does.
    pub(super) fn until(&self, key: &[u8]) -> Option<LogTime> {
        self.pair(key).and_then(Pair::until)
    }

    fn pair(&self, key: &[u8]) -> Option<&Pair> {
        self.shards[self.shard_of(key)].shard.get(key)
    }

    /// The position of the shard to which a key belongs.
    fn shard_of(&self, key: &[u8]) -> usize {
        self.shards.partition_point(|part| *part.from <= *key) - 1
    }

    /// Sets a key, which expires at `until`. Returns the pair that it replaces.
    pub(super) fn insert(&mut self, key: Arc<[u8]>, value: Arc<[u8]>, until: Option<LogTime>) -> Option<Pair> {
        let until = until.unwrap_or(NEVER);
        let pair = Pair { hash: pair_hash(&key, &value, until), value, until };
        self.hash = self.hash.wrapping_add(pair.hash);
        let at = self.shard_of(&key);
        let shard = Arc::make_mut(&mut self.shards[at].shard);
        let replaced = shard.insert(key, pair);
        self.hash = self.hash.wrapping_sub(replaced.as_ref().map_or(0, |pair| pair.hash));
        self.len += usize::from(replaced.is_none());
        if shard.len() > SHARD_KEYS_MAX.max(self.len / SHARDS_MANY)
            && let Some(from) = shard.keys().nth(shard.len() / 2).cloned()
        {
            let shard = Arc::new(shard.split_off(&from));
            self.shards.insert(at + 1, Part { from, shard });
        }
        replaced
    }

    /// Removes a key. Returns the pair that it had.
    pub(super) fn remove(&mut self, key: &[u8]) -> Option<Pair> {
        let at = self.shard_of(key);
        let shard = &mut self.shards[at].shard;
        // Avoids copying a shard that does not have the key.
        if !shard.contains_key(key) {
            return None;
        }
        let shard = Arc::make_mut(shard);
        let removed = shard.remove(key);
        self.hash = self.hash.wrapping_sub(removed.as_ref().map_or(0, |pair| pair.hash));
        self.len -= usize::from(removed.is_some());
        // Its range falls to the shard before it.
        if shard.is_empty() && at > 0 {
            self.shards.remove(at);
        }
        removed
    }

    /// The pairs with keys within these bounds, ordered by key. The bounds must not be empty by
    /// themselves.
    pub(super) fn range<'a>(
        &'a self,
        start: Bound<&'a [u8]>,
        end: Bound<&'a [u8]>,
    ) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let first = match start {
            Bound::Included(key) | Bound::Excluded(key) => self.shard_of(key),
            Bound::Unbounded => 0,
        };
        let is_before_end = move |part: &&Part| match end {
            Bound::Included(end) => *part.from <= *end,
            Bound::Excluded(end) => *part.from < *end,
            Bound::Unbounded => true,
        };
        let shards = self.shards[first..].iter().take_while(is_before_end);
        let pairs = shards.flat_map(move |part| part.shard.range::<[u8], _>((start, end)));
        pairs.map(|(key, pair)| (&**key, &*pair.value))
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    /// All shards, ordered by key. Each is dropped when the next one is taken.
    pub(super) fn into_shards(self) -> impl Iterator<Item = Arc<Shard>> {
        self.shards.into_iter().map(|part| part.shard)
    }
}

impl Pair {
    pub(super) fn until(&self) -> Option<LogTime> {
        (self.until != NEVER).then_some(self.until)
    }
}

/// Must never change: nodes of different versions compare their hashes.
static SECRETS: RapidSecrets = RapidSecrets::seed(0x7175_6f72_6174_6531);

fn pair_hash(key: &[u8], value: &[u8], until: LogTime) -> u64 {
    let mut hasher = RapidStreamHasherV3::new(&SECRETS);
    hasher.write(&(key.len() as u64).to_le_bytes());
    hasher.write(key);
    hasher.write(value);
    if until != NEVER {
        hasher.write(&until.0.to_le_bytes());
        // So that these bytes are not taken for a part of the value.
        hasher.write(b"expires");
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_map_whatever_happens_to_its_copies() {
        let (mut pairs, mut twin, mut random) = (Pairs::default(), BTreeMap::new(), 1_u64);
        let mut copies = Vec::new();
        for step in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let key = ((random >> 33) % 3000).to_le_bytes();
            if random >> 60 < 5 {
                assert_eq!(pairs.remove(&key).is_some(), twin.remove(&key[..]).is_some());
            } else {
                let value = random.to_be_bytes();
                let is_new = twin.insert(key.to_vec(), value.to_vec()).is_none();
                assert_eq!(pairs.insert(key[..].into(), value[..].into(), None).is_none(), is_new);
            }
            if step % 4000 == 0 {
                copies.push((pairs.clone(), twin.clone()));
            }
            let bounds = pairs.shards.iter().map(|part| &part.from);
            assert!(pairs.shards[0].from.is_empty() && (step % 100 > 0 || bounds.is_sorted()));
        }
        copies.push((pairs, twin));
        for (pairs, twin) in copies {
            assert_eq!(pairs.len(), twin.len());
            let hash = twin.iter().fold(0_u64, |sum, (key, value)| sum.wrapping_add(pair_hash(key, value, NEVER)));
            assert_eq!(pairs.hash(), hash);
            assert!(twin.iter().all(|(key, value)| pairs.get(key).is_some_and(|found| **found == **value)));
            let listed: BTreeMap<_, _> = pairs
                .into_shards()
                .flat_map(|shard| {
                    shard.iter().map(|(key, pair)| (key.to_vec(), pair.value.to_vec())).collect::<Vec<_>>()
                })
                .collect();
            assert_eq!(listed, twin);
        }
    }

    #[test]
    fn a_copy_shares_what_neither_changed() {
        let mut pairs = Pairs::default();
        for key in 0..10_000_u32 {
            pairs.insert(key.to_le_bytes()[..].into(), Arc::default(), None);
        }
        assert!(pairs.shards.len() > 10 && pairs.shards.iter().all(|part| part.shard.len() <= SHARD_KEYS_MAX));
        let copy = pairs.clone();
        pairs.insert(b"one more"[..].into(), Arc::default(), None);
        pairs.remove(b"never there");
        let apart = pairs.shards.iter().zip(&copy.shards).filter(|(one, other)| !Arc::ptr_eq(&one.shard, &other.shard));
        assert_eq!(apart.count(), 1);
    }

    #[test]
    fn shards_of_removed_keys_go() {
        let mut pairs = Pairs::default();
        for round in 0..3 {
            for key in 0..10_000_u32 {
                pairs.insert(key.to_be_bytes()[..].into(), Arc::default(), None);
            }
            assert_eq!(pairs.range(Bound::Unbounded, Bound::Unbounded).count(), 10_000);
            // From either end, and from the middle.
            for key in 0..10_000_u32 {
                let key = [key, 9_999 - key, (key + 5_000) % 10_000][round];
                assert!(pairs.remove(&key.to_be_bytes()).is_some());
            }
            assert_eq!((pairs.shards.len(), pairs.len(), pairs.hash()), (1, 0, 0));
        }
    }

    #[test]
    fn bytes_that_move_between_key_and_value_change_the_hash() {
        assert_ne!(pair_hash(b"ab", b"c", NEVER), pair_hash(b"a", b"bc", NEVER));
        let (mut longer, at) = (b"c".to_vec(), LogTime(7));
        longer.extend(at.0.to_le_bytes());
        assert_ne!(pair_hash(b"a", &longer, NEVER), pair_hash(b"a", b"c", at));
    }

    #[test]
    fn the_hash_of_a_pair_is_the_same_in_every_version() {
        assert_eq!(pair_hash(b"key", b"value", NEVER), PINNED_PAIR_HASH);
        assert_eq!(Pairs::default().hash(), 0);
    }

    const PINNED_PAIR_HASH: u64 = 14_013_166_742_636_983_665;
}
