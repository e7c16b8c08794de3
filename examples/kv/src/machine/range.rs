//! Ranges of keys.

use super::pairs::Pairs;
use std::ops::Bound;

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

    /// The pairs of the range, ordered by key.
    pub(super) fn of<'a>(&'a self, pairs: &'a Pairs) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let bounds = (!self.is_empty()).then(|| (bytes(&self.start), bytes(&self.end)));
        bounds.into_iter().flat_map(|(start, end)| pairs.range(start, end))
    }
}

fn bytes(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

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
            (0..(random >> 33) % 7).map(|at| letters[(random >> (36 + 4 * at)) as usize % 5]).collect::<Vec<u8>>()
        };
        for number in 0..3000_u32 {
            let key = key();
            pairs.insert(key[..].into(), number.to_le_bytes()[..].into(), None);
            twin.insert(key, number.to_le_bytes().to_vec());
        }
        for _ in 0..500 {
            let (one, other, after) = (key(), key(), key());
            for (range, is_in) in [
                (KeyRange::between(None, None), &(|_: &[u8]| true) as &dyn Fn(&[u8]) -> bool),
                (KeyRange::between(Some(&one), None), &|key| *key >= *one),
                (KeyRange::between(None, Some(&other)), &|key| *key < *other),
                (KeyRange::between(Some(&one), Some(&other)), &|key| *key >= *one && *key < *other),
                (KeyRange::prefixed(&one), &|key| key.starts_with(&one)),
            ] {
                let listed = |range: &KeyRange| {
                    range.of(&pairs).map(|(key, value)| (key.to_vec(), value.to_vec())).collect::<Vec<_>>()
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
