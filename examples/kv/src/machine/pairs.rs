//! The map: a persistent one, ordered by key. Copies share all that neither has changed.
//!
//! A copy takes nanoseconds. After that the first change of a part of it copies that part: a node of
//! the tree, and those above it, but not the keys and values.

use imbl::OrdMap;
use quorate::LogTime;
use rapidhash::v3::{RapidSecrets, RapidStreamHasherV3};
use std::{ops::Bound, sync::Arc};

/// The key-value pairs.
///
/// **Invariant:** `hash` is the wrapping sum of all pairs' hashes, so it does not depend on their
/// order.
#[derive(Clone, Debug, Default)]
pub(super) struct Pairs {
    map: OrdMap<Arc<[u8]>, Pair>,
    hash: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) value: Arc<[u8]>,
    /// [`NEVER`], or the log time at which the pair expires.
    until: LogTime,
    hash: u64,
}

/// The due of no timer: each is at least a millisecond after the one that sets it.
const NEVER: LogTime = LogTime(0);

impl Pairs {
    pub(super) fn get(&self, key: &[u8]) -> Option<&Arc<[u8]>> {
        self.map.get(key).map(|pair| &pair.value)
    }

    /// The log time at which a key expires, if it does.
    pub(super) fn until(&self, key: &[u8]) -> Option<LogTime> {
        self.map.get(key).and_then(Pair::until)
    }

    /// Sets a key, which expires at `until`. Returns the pair that it replaces.
    pub(super) fn insert(&mut self, key: Arc<[u8]>, value: Arc<[u8]>, until: Option<LogTime>) -> Option<Pair> {
        let until = until.unwrap_or(NEVER);
        let pair = Pair { hash: pair_hash(&key, &value, until), value, until };
        self.hash = self.hash.wrapping_add(pair.hash);
        let replaced = self.map.insert(key, pair);
        self.hash = self.hash.wrapping_sub(replaced.as_ref().map_or(0, |pair| pair.hash));
        replaced
    }

    /// Removes a key. Returns the pair that it had.
    pub(super) fn remove(&mut self, key: &[u8]) -> Option<Pair> {
        // Avoids copying parts of a map that does not have the key.
        if !self.map.contains_key(key) {
            return None;
        }
        let removed = self.map.remove(key);
        self.hash = self.hash.wrapping_sub(removed.as_ref().map_or(0, |pair| pair.hash));
        removed
    }

    /// The pairs with keys within these bounds, ordered by key. The bounds must not be empty by
    /// themselves.
    pub(super) fn range<'a>(
        &'a self,
        start: Bound<&'a [u8]>,
        end: Bound<&'a [u8]>,
    ) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.map.range::<_, [u8]>((start, end)).map(|(key, pair)| (&**key, &*pair.value))
    }

    /// All pairs, ordered by key.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &Pair)> {
        self.map.iter().map(|(key, pair)| (&**key, pair))
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
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
    use std::collections::BTreeMap;

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
        }
        copies.push((pairs, twin));
        for (pairs, twin) in copies {
            assert_eq!(pairs.len(), twin.len());
            let hash = twin.iter().fold(0_u64, |sum, (key, value)| sum.wrapping_add(pair_hash(key, value, NEVER)));
            assert_eq!(pairs.hash(), hash);
            assert!(twin.iter().all(|(key, value)| pairs.get(key).is_some_and(|found| **found == **value)));
            let listed: Vec<_> = pairs.iter().map(|(key, pair)| (key.to_vec(), pair.value.to_vec())).collect();
            assert_eq!(listed, twin.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_key_that_is_not_there_is_removed_without_a_copy_of_what_is_shared() {
        let mut pairs = Pairs::default();
        for key in 0..10_000_u32 {
            pairs.insert(key.to_le_bytes()[..].into(), Arc::default(), None);
        }
        let copy = pairs.clone();
        assert!(pairs.remove(b"never there").is_none() && pairs.map.ptr_eq(&copy.map));
        pairs.insert(b"one more"[..].into(), Arc::default(), None);
        assert!(!pairs.map.ptr_eq(&copy.map));
    }

    #[test]
    fn nothing_is_left_of_removed_keys() {
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
            assert_eq!((pairs.iter().count(), pairs.len(), pairs.hash()), (0, 0, 0));
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
