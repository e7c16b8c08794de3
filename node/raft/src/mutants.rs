//! Bugs bred on purpose, one at a time, to see whether what watches the cluster notices them.
//!
//! A test that never failed proves little. So the simulator switches on one of these at a time and must catch it; one that
//! survives is a hole in what is checked. Each is one line somewhere in the rules, the storage or the actors that asks
//! [`live`] for its [`Mutant`]; most are drawn from bugs that other systems shipped, as their docs say.
//!
//! **Production never builds them.** Without the feature `mutants`, which nothing turns on by default, `live` is a constant
//! `false`, its sites compile to nothing, and there is no way to breed one. With it, one mutant at most lives in a whole
//! process: all nodes in it have the same bug, as they would have in a release.

#[cfg(feature = "mutants")]
use core::sync::atomic::{AtomicU8, Ordering};

/// Whether this mutant is the one that was bred. Never, in an ordinary build.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
#[must_use]
pub const fn live(_: Mutant) -> bool {
    false
}

/// Whether this mutant is the one that was bred.
#[cfg(feature = "mutants")]
#[must_use]
pub fn live(mutant: Mutant) -> bool {
    BRED.load(Ordering::Relaxed) == mutant as u8
}

/// Lets this mutant live from now on, in the whole process, instead of any other; with `None` no one does.
#[cfg(feature = "mutants")]
pub fn breed(mutant: Option<Mutant>) {
    BRED.store(mutant.map_or(NOBODY, |mutant| mutant as u8), Ordering::Relaxed);
}

#[cfg(feature = "mutants")]
static BRED: AtomicU8 = AtomicU8::new(NOBODY);

/// There are far fewer mutants.
#[cfg(feature = "mutants")]
const NOBODY: u8 = u8::MAX;

macro_rules! mutants {
    ($($(#[$doc:meta])* $mutant:ident = $name:literal,)*) => {
        /// A bug. Numbers in brackets are the scenarios that it is drawn from: what went wrong elsewhere.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum Mutant {
            $($(#[$doc])* $mutant,)*
        }

        impl Mutant {
            /// All of them: first those in the rules, then in the storage, then in the actors.
            pub const ALL: &[Self] = &[$(Self::$mutant,)*];

            /// What it is called on a command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$mutant => $name,)*
                }
            }
        }
    };
}

mutants! {
    // In the rules: elections.
    /// A granted vote leaves before it is durable. (1)
    VoteBeforeDurable = "vote-before-durable",
}

impl Mutant {
    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|mutant| mutant.name() == name)
    }
}
