//! The random numbers of a trial.

use std::ops::RangeInclusive;

/// Random numbers, a function of the seed alone, in every release.
///
/// ```
/// # use quorate_trial::Rng;
/// let mut rng = Rng::new(7);
/// let name = *rng.pick(&["a", "b"]);
/// let (ttl_ms, waits) = (rng.between(1..=3_000), rng.coin());
/// # assert!(["a", "b"].contains(&name) && (1..=3_000).contains(&ttl_ms));
/// # let _ = waits;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The numbers of a seed.
    ///
    /// ```
    /// # use quorate_trial::Rng;
    /// assert_eq!(Rng::new(7).next_u64(), Rng::new(7).next_u64());
    /// ```
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 random bits (SplitMix64).
    ///
    /// ```
    /// # use quorate_trial::Rng;
    /// let mut rng = Rng::new(7);
    /// assert_ne!(rng.next_u64(), rng.next_u64());
    /// ```
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `end`; 0 if `end` is 0.
    ///
    /// ```
    /// # use quorate_trial::Rng;
    /// assert!(Rng::new(7).below(10) < 10);
    /// ```
    pub fn below(&mut self, end: u64) -> u64 {
        // The bias is at most `end` in 2^64.
        ((u128::from(self.next_u64()) * u128::from(end)) >> 64) as u64
    }

    /// A number of the range.
    ///
    /// ```
    /// # use quorate_trial::Rng;
    /// assert!((1..=6).contains(&Rng::new(7).between(1..=6)));
    /// ```
    pub fn between(&mut self, range: RangeInclusive<u64>) -> u64 {
        let (first, last) = range.into_inner();
        first + self.below((last.saturating_sub(first)).saturating_add(1))
    }

    /// One item of a slice.
    ///
    /// ```
    /// # use quorate_trial::Rng;
    /// assert!(["a", "b"].contains(Rng::new(7).pick(&["a", "b"])));
    /// ```
    ///
    /// # Panics
    /// If the slice is empty.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        assert!(!of.is_empty(), "there is no item to pick: give at least one");
        &of[self.below(of.len() as u64) as usize]
    }

    /// `true` half of the time.
    ///
    /// ```
    /// # use quorate_trial::Rng;
    /// let mut rng = Rng::new(7);
    /// assert!((0..100).any(|_| rng.coin()));
    /// ```
    pub fn coin(&mut self) -> bool {
        self.one_in(2)
    }

    /// `true` once in `n` times.
    ///
    /// ```
    /// # use quorate_trial::Rng;
    /// assert!(Rng::new(7).one_in(1));
    /// ```
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}
