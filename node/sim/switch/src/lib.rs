//! The switch of the mutants: one number for the whole process, that of the mutant that is on.
//!
//! `quorate-sim mutants` plants all mutants in a copy of the sources; each asks [`is_on`]. In the
//! sources themselves no package but `quorate-sim` depends on this one.
#![no_std]
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicU16, Ordering};

/// Whether these are the sources of the copy, where the mutants are planted. The planter changes
/// this line in the copy.
pub const IS_PLANTED: bool = false;

/// Stands for no mutant.
const NONE: u16 = u16::MAX;

static ON: AtomicU16 = AtomicU16::new(NONE);

/// Whether the mutant of this number is on.
#[inline]
#[must_use]
pub fn is_on(number: u16) -> bool {
    ON.load(Ordering::Relaxed) == number
}

/// Turns the mutant of this number on in the whole process, in place of any other; `None` leaves
/// none on.
pub fn turn_on(number: Option<u16>) {
    ON.store(number.unwrap_or(NONE), Ordering::Relaxed);
}
