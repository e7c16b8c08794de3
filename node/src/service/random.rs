//! Random numbers that are equal on every node.

use quorate_raft::Index;
use rand_xoshiro::{
    Xoshiro256StarStar,
    rand_core::{RngCore, SeedableRng},
};

/// Random numbers for one command or signal: equal on every node, and not to be foreseen before the
/// entry is appended. After that they are no secret: every node and every reader of the log can
/// compute them, so make no key or password of them.
///
/// The numbers never change with a release, as those of the `rand` crate do: replicas of two
/// releases must draw equal ones.
///
/// ```
/// # use quorate::{At, Context, Service};
/// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
/// # struct Raffle(Vec<String>);
/// # impl Service for Raffle {
/// #     quorate::types!(String => Option<String>, () => ());
/// fn apply(&mut self, name: String, cx: &mut Context<'_, Self>) -> Option<String> {
///     self.0.push(name);
///     let winner = cx.random().below(self.0.len() as u64);
///     self.0.get(winner as usize).cloned()
/// }
/// #     fn query(&self, (): (), _: At) {}
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Random(Xoshiro256StarStar);

impl Random {
    /// The numbers of the `nth` command or signal of the entry at `index`, under the random bytes
    /// of the last tick.
    pub(crate) fn new(tick: u64, index: Index, nth: u32) -> Self {
        let seed = [index.0, nth.into()].into_iter().fold(mix(tick), |seed, part| mix(seed ^ part));
        Self(Xoshiro256StarStar::seed_from_u64(seed))
    }

    /// The next 64 random bits.
    ///
    /// ```
    /// # use quorate::{At, Context, Hosted, Service, StateMachine};
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Demo;
    /// # impl Service for Demo {
    /// #     quorate::types!(() => bool, () => ());
    /// fn apply(&mut self, (): (), cx: &mut Context<'_, Self>) -> bool {
    ///     cx.random().next_u64() != cx.random().next_u64()
    /// }
    /// #     fn query(&self, (): (), _: At) {}
    /// # }
    /// # let at = At { index: quorate::Index(7), time: quorate::LogTime(1_500), ..At::default() };
    /// # let outcome = Hosted::new(|| Demo).apply(&at, &Hosted::<Demo>::encode(&()));
    /// # assert_eq!(Hosted::<Demo>::decode(&outcome), Some(Ok(true)));
    /// ```
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `end`, each equally likely; 0 if `end` is 0.
    ///
    /// ```
    /// # use quorate::{At, Context, Hosted, Service, StateMachine};
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Demo;
    /// # impl Service for Demo {
    /// #     quorate::types!(() => bool, () => ());
    /// fn apply(&mut self, (): (), cx: &mut Context<'_, Self>) -> bool {
    ///     cx.random().below(3) < 3
    /// }
    /// #     fn query(&self, (): (), _: At) {}
    /// # }
    /// # let at = At { index: quorate::Index(7), time: quorate::LogTime(1_500), ..At::default() };
    /// # let outcome = Hosted::new(|| Demo).apply(&at, &Hosted::<Demo>::encode(&()));
    /// # assert_eq!(Hosted::<Demo>::decode(&outcome), Some(Ok(true)));
    /// ```
    pub fn below(&mut self, end: u64) -> u64 {
        // Lemire's method: products with a low half below the remainder would favour some numbers.
        let remainder = end.wrapping_neg().checked_rem(end).unwrap_or_default();
        loop {
            let product = u128::from(self.next_u64()) * u128::from(end);
            if product as u64 >= remainder {
                return (product >> 64) as u64;
            }
        }
    }
}

/// The finalizer of SplitMix64: every bit of the result depends on every bit of `z`.
fn mix(z: u64) -> u64 {
    let z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_fixed_for_good() {
        let mut random = Random::new(1, Index(2), 3);
        let first: [u64; 3] = std::array::from_fn(|_| random.next_u64());
        assert_eq!(
            first,
            [0xca69_c028_e6e2_83e8, 0xc86d_f1a5_f8f5_0802, 0x24d2_9c12_572a_b43b],
            "replicas of two releases draw equal numbers"
        );
    }

    #[test]
    fn each_tick_entry_and_signal_has_numbers_of_its_own() {
        let of = |tick, index, nth| Random::new(tick, Index(index), nth).next_u64();
        let drawn: std::collections::BTreeSet<_> =
            (0..8).flat_map(|tick| (0..8).flat_map(move |index| (0..8).map(move |nth| of(tick, index, nth)))).collect();
        assert_eq!(drawn.len(), 512);
        assert_eq!(of(1, 2, 3), of(1, 2, 3));
    }

    #[test]
    fn numbers_below_an_end_are_below_it_and_none_is_favoured() {
        let mut random = Random::new(7, Index(1), 0);
        for end in [1, 2, 3, 10, u64::MAX] {
            assert!((0..100).all(|_| random.below(end) < end));
        }
        assert_eq!(random.below(0), 0);
        let mut counts = [0u32; 6];
        (0..60_000).for_each(|_| counts[random.below(6) as usize] += 1);
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    }
}
