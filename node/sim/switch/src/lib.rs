//! The switch of the mutants: one number for the whole process, that of the mutant that is on.
//!
//! `quorate-sim mutants` plants all mutants in a copy of the sources; each asks [`is_on`]. In the
//! sources themselves no package but `quorate-sim` depends on this one. A test in the copy has the
//! number from the environment.
#![forbid(unsafe_code)]

use std::{
    env,
    sync::atomic::{AtomicU16, Ordering},
};

/// Whether these are the sources of the copy, where the mutants are planted. The planter changes
/// this line in the copy.
pub const IS_PLANTED: bool = false;

/// The variable with the number of the mutant that is on at first.
pub const VARIABLE: &str = "QUORATE_MUTANT";

/// Stands for no mutant.
const NONE: u16 = u16::MAX;
/// The variable was not looked at yet.
const UNREAD: u16 = NONE - 1;

static ON: AtomicU16 = AtomicU16::new(UNREAD);

/// Whether the mutant of this number is on.
#[inline]
#[must_use]
pub fn is_on(number: u16) -> bool {
    match ON.load(Ordering::Relaxed) {
        UNREAD => read() == number,
        on => on == number,
    }
}

#[cold]
fn read() -> u16 {
    let on = env::var(VARIABLE).ok().and_then(|number| number.parse().ok()).unwrap_or(NONE);
    ON.store(on, Ordering::Relaxed);
    on
}

/// Turns the mutant of this number on in the whole process, in place of any other; `None` leaves
/// none on.
pub fn turn_on(number: Option<u16>) {
    ON.store(number.unwrap_or(NONE), Ordering::Relaxed);
}
