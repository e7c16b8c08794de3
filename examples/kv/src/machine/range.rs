//! Ranges of keys, and the pairs of a state within them, in the order of the keys.

use super::pairs::{Pair, Pairs, Shard};
use std::{
    cmp::{Ordering, Reverse},
    collections::{BinaryHeap, binary_heap::PeekMut, btree_map},
    ops::Bound,
    sync::Arc,
};

/// A range of keys, ordered byte by byte.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyRange {
    start: Bound<Vec<u8>>,
    end: Bound<Vec<u8>>,
}

impl KeyRange {
    /// The keys from `start` up to `end`, which is not in it; `None` is no bound.
    #[must_use]
    pub fn between(start: Option<&[u8]>, end: Option<&[u8]>) -> Self {
        let bound = |key: Option<&[u8]>, bound: fn(Vec<u8>) -> Bound<Vec<u8>>| {
            key.map_or(Bound::Unbounded, |key| bound(key.to_vec()))
        };
        Self { start: bound(start, Bound::Included), end: bound(end, Bound::Excluded) }
    }

    /// The keys that begin with `prefix`.
    #[must_use]
    pub fn prefixed(prefix: &[u8]) -> Self {
        // The first key after all of them: without the bytes that cannot grow, and one more.
        let kept = prefix.len() - prefix.iter().rev().take_while(|byte| **byte == u8::MAX).count();
        let mut end = prefix[..kept].to_vec();
        let end = end.pop().map(|last| {
            end.push(last + 1);
            end
        });
        Self { start: Bound::Included(prefix.to_vec()), end: end.map_or(Bound::Unbounded, Bound::Excluded) }
    }

    /// The keys of this range after `key`.
    #[must_use]
    pub fn after(self, key: &[u8]) -> Self {
        match &self.start {
            Bound::Included(start) if **start > *key => self,
            _ => Self { start: Bound::Excluded(key.to_vec()), ..self },
        }
    }

    /// Whether no key can be in the range, by its bounds alone.
    fn is_empty(&self) -> bool {
        match (&self.start, &self.end) {
            (Bound::Included(start) | Bound::Excluded(start), Bound::Excluded(end)) => start >= end,
            _ => false,
        }
    }

    fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (self.start.as_ref().map(Vec::as_slice), self.end.as_ref().map(Vec::as_slice))
    }
}

/// The pairs of a range, ordered by key: the shards are merged, because each has its own order.
pub(super) struct InOrder<'a>(BinaryHeap<Reverse<Head<'a>>>);

/// The next pair of a shard, and those after it.
struct Head<'a> {
    key: &'a [u8],
    value: &'a [u8],
    rest: btree_map::Range<'a, Arc<[u8]>, Pair>,
}

impl<'a> InOrder<'a> {
    /// Looks into every shard once.
    pub(super) fn new(pairs: &'a Pairs, range: &KeyRange) -> Self {
        let (bounds, is_empty) = (range.bounds(), range.is_empty());
        let shards = pairs.shards().filter(|shard| !is_empty && !shard.is_empty());
        let heads = shards.filter_map(|shard: &Shard| Head::of(shard.range::<[u8], _>(bounds)));
        Self(heads.map(Reverse).collect::<Vec<_>>().into())
    }
}

impl<'a> Head<'a> {
    fn of(mut rest: btree_map::Range<'a, Arc<[u8]>, Pair>) -> Option<Self> {
        rest.next().map(|(key, pair)| Self { key, value: &pair.value, rest })
    }
}

impl<'a> Iterator for InOrder<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let mut first = self.0.peek_mut()?;
        let Reverse(Head { key, value, rest }) = &mut *first;
        let found = (*key, *value);
        match rest.next() {
            Some((next, pair)) => (*key, *value) = (next, &pair.value),
            None => drop(PeekMut::pop(first)),
        }
        Some(found)
    }
}

impl Ord for Head<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(other.key)
    }
}

impl PartialOrd for Head<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Head<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_range_has_the_pairs_of_a_plain_ordered_map() {
        let (mut pairs, mut twin, mut random) = (Pairs::default(), BTreeMap::new(), 1_u64);
        // Short keys of few letters, so that many are prefixes of others.
        let mut key = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let letters = [0, b'a', b'b', 0xfe, 0xff];
            (0..(random >> 33) % 5).map(|at| letters[(random >> (36 + 5 * at)) as usize % 5]).collect::<Vec<u8>>()
        };
        for number in 0..400_u32 {
            let key = key();
            pairs.insert(key[..].into(), number.to_le_bytes()[..].into());
            twin.insert(key, number.to_le_bytes().to_vec());
        }
        for _ in 0..2000 {
            let (one, other, after) = (key(), key(), key());
            for (range, is_in) in [
                (KeyRange::between(None, None), &(|_: &[u8]| true) as &dyn Fn(&[u8]) -> bool),
                (KeyRange::between(Some(&one), None), &|key| *key >= *one),
                (KeyRange::between(None, Some(&other)), &|key| *key < *other),
                (KeyRange::between(Some(&one), Some(&other)), &|key| *key >= *one && *key < *other),
                (KeyRange::prefixed(&one), &|key| key.starts_with(&one)),
            ] {
                let listed = |range: &KeyRange| {
                    InOrder::new(&pairs, range).map(|(key, value)| (key.to_vec(), value.to_vec())).collect::<Vec<_>>()
                };
                let expected =
                    twin.iter().filter(|(key, _)| is_in(key)).map(|(key, value)| (key.clone(), value.clone()));
                let expected: Vec<_> = expected.collect();
                assert_eq!(listed(&range), expected, "{range:?}");
                let rest: Vec<_> = expected.into_iter().filter(|(key, _)| *key > after).collect();
                assert_eq!(listed(&range.after(&after)), rest, "after {after:?}");
            }
        }
    }
}
