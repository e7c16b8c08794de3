//! The map: many small ordered maps, each shared with its copies until one of them changes it.
//!
//! A copy of the map copies one reference per [`Shard`]. The first change of a shard after that
//! copies the shard, but not its keys and values; this costs some ten nanoseconds per key, for one
//! thousandth of all keys at a time. A persistent map would avoid this cost, but every change
//! would be slower.

use rapidhash::v3::{RapidSecrets, RapidStreamHasherV3, rapidhash_v3_seeded};
use std::{collections::BTreeMap, sync::Arc};

/// The key-value pairs.
///
/// **Invariant:** `hash` is the wrapping sum of all pairs' hashes, so it does not depend on their
/// order; `len` is the number of pairs.
#[derive(Clone, Debug)]
pub(super) struct Pairs {
    shards: Box<[Arc<Shard>]>,
    len: usize,
    hash: u64,
}

/// The pairs with the same hash of their key, ordered by key.
pub(super) type Shard = BTreeMap<Arc<[u8]>, Pair>;

#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) value: Arc<[u8]>,
    hash: u64,
}

/// With a million keys, the first change of a shard after a copy copies 250 keys; an empty map
/// takes 32 KiB.
const SHARD_BITS: u32 = 12;

impl Default for Pairs {
    fn default() -> Self {
        Self { shards: vec![Arc::default(); 1 << SHARD_BITS].into(), len: 0, hash: 0 }
    }
}

impl Pairs {
    pub(super) fn get(&self, key: &[u8]) -> Option<&Arc<[u8]>> {
        self.shards[shard_of(key)].get(key).map(|pair| &pair.value)
    }

    /// Sets a key. Returns whether the key is new.
    pub(super) fn insert(&mut self, key: Arc<[u8]>, value: Arc<[u8]>) -> bool {
        let pair = Pair { hash: pair_hash(&key, &value), value };
        self.hash = self.hash.wrapping_add(pair.hash);
        let replaced = Arc::make_mut(&mut self.shards[shard_of(&key)]).insert(key, pair);
        self.hash = self.hash.wrapping_sub(replaced.as_ref().map_or(0, |pair| pair.hash));
        self.len += usize::from(replaced.is_none());
        replaced.is_none()
    }

    /// Removes a key. Returns whether it existed.
    pub(super) fn remove(&mut self, key: &[u8]) -> bool {
        let shard = &mut self.shards[shard_of(key)];
        // Avoids copying a shard that does not have the key.
        if !shard.contains_key(key) {
            return false;
        }
        let removed = Arc::make_mut(shard).remove(key);
        self.hash = self.hash.wrapping_sub(removed.as_ref().map_or(0, |pair| pair.hash));
        self.len -= usize::from(removed.is_some());
        removed.is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.shards.iter().map(|shard| &**shard)
    }

    /// All shards, in an order that depends only on the keys. Each is dropped when the next
    /// one is taken.
    pub(super) fn into_shards(self) -> impl Iterator<Item = Arc<Shard>> {
        self.shards.into_iter()
    }
}

/// Must never change: nodes of different versions compare their hashes.
static SECRETS: RapidSecrets = RapidSecrets::seed(0x7175_6f72_6174_6531);

fn shard_of(key: &[u8]) -> usize {
    (rapidhash_v3_seeded(key, &SECRETS) >> (u64::BITS - SHARD_BITS)) as usize
}

fn pair_hash(key: &[u8], value: &[u8]) -> u64 {
    let mut hasher = RapidStreamHasherV3::new(&SECRETS);
    hasher.write(&(key.len() as u64).to_le_bytes());
    hasher.write(key);
    hasher.write(value);
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
                assert_eq!(pairs.remove(&key), twin.remove(&key[..]).is_some());
            } else {
                let value = random.to_be_bytes();
                let is_new = twin.insert(key.to_vec(), value.to_vec()).is_none();
                assert_eq!(pairs.insert(key[..].into(), value[..].into()), is_new);
            }
            if step % 4000 == 0 {
                copies.push((pairs.clone(), twin.clone()));
            }
        }
        copies.push((pairs, twin));
        for (pairs, twin) in copies {
            assert_eq!(pairs.len(), twin.len());
            let hash = twin.iter().fold(0_u64, |sum, (key, value)| sum.wrapping_add(pair_hash(key, value)));
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
            pairs.insert(key.to_le_bytes()[..].into(), Arc::default());
        }
        let copy = pairs.clone();
        pairs.insert(b"one more"[..].into(), Arc::default());
        pairs.remove(b"never there");
        let apart = pairs.shards.iter().zip(&copy.shards).filter(|(one, other)| !Arc::ptr_eq(one, other)).count();
        assert_eq!(apart, 1);
    }

    #[test]
    fn bytes_that_move_between_key_and_value_change_the_hash() {
        assert_ne!(pair_hash(b"ab", b"c"), pair_hash(b"a", b"bc"));
    }

    #[test]
    fn the_hash_of_a_pair_is_the_same_in_every_version() {
        assert_eq!(pair_hash(b"key", b"value"), PINNED_PAIR_HASH);
        assert_eq!(Pairs::default().hash(), 0);
    }

    const PINNED_PAIR_HASH: u64 = 14_013_166_742_636_983_665;
}
