//! The world that a service sees while it runs: clock, entropy and threads.
//!
//! Two copies of a service run in two worlds, and must do the same: their clocks are years apart,
//! and the system's entropy differs, which also gives their hash maps other keys. A world is a
//! function of its seed, so a difference that was found once is found again.
//!
//! A world exists on the thread that entered it, and only until that call returns. The rest of the
//! process, other threads included, sees the real one.

#[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
#[allow(unsafe_code, reason = "symbols of the C library are defined here")]
mod symbols;

use crate::rng::Rng;
use std::{
    cell::{Cell, RefCell},
    panic::{self, AssertUnwindSafe},
    sync::Once,
};

/// The first moment of a clock, in nanoseconds since 1970: November 2023.
const BEGIN_NS: u64 = 1_700_000_000_000_000_000;
/// The distance of two clocks: nine years and some days, hours, minutes, seconds.
const APART_NS: u64 = 284_567_891_234_567_890;

/// The state of a world.
#[derive(Clone, Copy, Debug)]
pub(crate) struct World {
    clock_ns: u64,
    /// The time that passes from one look at the clock to the next.
    step_ns: u64,
    entropy: Rng,
    /// Whether threads may be started.
    starts_threads: bool,
    /// The threads that were refused.
    refused: u32,
}

thread_local! {
    // Neither has a destructor: the C library's functions are called to the end of a thread.
    static ENTERED: Cell<Option<World>> = const { Cell::new(None) };
}

thread_local! {
    /// The place of the last panic within a world.
    static PANICKED_AT: RefCell<Option<String>> = const { RefCell::new(None) };
}

impl World {
    /// The `nth` world of a seed.
    pub(crate) fn new(seed: u64, nth: u64) -> Self {
        Self {
            clock_ns: BEGIN_NS + nth * APART_NS,
            step_ns: 1_000 + nth * 1_234_567,
            entropy: Rng::new(seed ^ (nth + 1) << 56),
            starts_threads: true,
            refused: 0,
        }
    }

    /// Runs `run` in this world. Its panics are not reported to standard error.
    pub(crate) fn enter<T>(&mut self, run: impl FnOnce() -> T) -> T {
        quiet();
        // Without it the linker may leave the symbols of this crate out.
        #[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
        symbols::link();
        let outer = ENTERED.replace(Some(*self));
        let _leave = Leave { world: self, outer };
        run()
    }

    /// The same for a call of the author's code. The error is the place and the text of its panic.
    pub(crate) fn catch<T>(&mut self, call: impl FnOnce() -> T) -> Result<T, String> {
        self.enter(|| panic::catch_unwind(AssertUnwindSafe(call))).map_err(|panic| {
            let text = panic.downcast_ref::<&str>().copied();
            let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            let (place, text) = (panicked_at().unwrap_or_default(), text.unwrap_or("a panic without a message"));
            format!("at {place}: {text}")
        })
    }

    /// Runs `run` in this world, where no thread may be started. Gives the number of threads that were
    /// refused, too.
    pub(crate) fn enter_alone<T>(&mut self, run: impl FnOnce() -> T) -> (T, u32) {
        (self.starts_threads, self.refused) = (false, 0);
        let value = self.enter(run);
        self.starts_threads = true;
        (value, self.refused)
    }
}

/// Takes the state of the world back when it is left, by a panic, too.
struct Leave<'a> {
    world: &'a mut World,
    outer: Option<World>,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if let Some(world) = ENTERED.replace(self.outer) {
            *self.world = world;
        }
    }
}

/// The place of the last panic within a world on this thread, as file and line.
pub(crate) fn panicked_at() -> Option<String> {
    PANICKED_AT.take()
}

/// Whether worlds have clocks and entropy of their own on this system. If not, a clock that a
/// service reads is found only if both copies see different values, and no thread is.
#[cfg(test)]
fn are_effective() -> bool {
    let mut world = World::new(0, 40);
    world.enter(|| {
        let years = std::time::SystemTime::UNIX_EPOCH.elapsed().map(|since| since.as_secs() / 31_557_600);
        years.is_ok_and(|years| years > 300)
    })
}

/// Installs a panic hook that leaves panics within a world to the report of the trial.
fn quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if ENTERED.get().is_none() {
                return hook(info);
            }
            PANICKED_AT.set(info.location().map(|at| format!("{}:{}", at.file(), at.line())));
        }));
    });
}

#[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
mod here {
    use super::{ENTERED, World};

    /// The clock of the world on this thread, in nanoseconds since 1970; `None` outside of worlds.
    pub(super) fn clock_ns() -> Option<u64> {
        within(|world| {
            world.clock_ns += world.step_ns;
            world.clock_ns
        })
    }

    /// Fills `bytes` with the world's entropy. `false` outside of worlds.
    pub(super) fn fill(bytes: &mut [u8]) -> bool {
        let filled = within(|world| {
            for chunk in bytes.chunks_mut(8) {
                chunk.copy_from_slice(&world.entropy.next_u64().to_le_bytes()[..chunk.len()]);
            }
        });
        filled.is_some()
    }

    /// Whether this thread is in a world.
    pub(super) fn is_entered() -> bool {
        ENTERED.try_with(|entered| entered.get().is_some()).unwrap_or(false)
    }

    /// Whether the world on this thread refuses to start a thread.
    pub(super) fn refuses_thread() -> bool {
        let refuses = within(|world| {
            world.refused += u32::from(!world.starts_threads);
            !world.starts_threads
        });
        refuses.unwrap_or(false)
    }

    fn within<T>(look: impl FnOnce(&mut World) -> T) -> Option<T> {
        let mut world = ENTERED.try_with(std::cell::Cell::get).ok()??;
        let seen = look(&mut world);
        ENTERED.set(Some(world));
        Some(seen)
    }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
mod tests {
    use super::*;
    use std::{
        collections::HashMap,
        thread,
        time::{Instant, SystemTime},
    };

    #[test]
    fn a_world_has_a_clock_and_entropy_of_its_own_and_the_process_keeps_the_real_ones() {
        assert!(are_effective());
        let real = SystemTime::now();
        let of = |nth| World::new(7, nth).enter(SystemTime::now);
        assert_eq!(of(0), of(0), "it is a function of seed and number");
        let apart = of(1).duration_since(of(0)).expect("the second is later");
        assert!(apart.as_secs() > 8 * 365 * 86_400, "{apart:?}");
        assert!(World::new(7, 0).enter(|| Instant::now() < Instant::now()), "time passes");
        assert!(SystemTime::now() >= real && real.elapsed().is_ok_and(|since| since.as_secs() < 60));
    }

    #[test]
    fn the_keys_of_hash_maps_are_a_function_of_the_world() {
        let order = |seed| {
            let of_fresh_thread = move || {
                let of_world =
                    || (0..20).map(|n| (n, ())).collect::<HashMap<i32, ()>>().into_keys().collect::<Vec<_>>();
                World::new(seed, 0).enter(of_world)
            };
            thread::spawn(of_fresh_thread).join().expect("no panic")
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
    }

    #[test]
    fn threads_are_refused_where_they_are_and_nowhere_else() {
        let mut world = World::new(0, 0);
        let (started, refused) = world.enter_alone(|| thread::Builder::new().spawn(|| {}).is_ok());
        assert_eq!((started, refused), (false, 1));
        assert!(world.enter(|| thread::Builder::new().spawn(|| {}).is_ok()));
        assert_eq!(thread::spawn(|| 3).join().expect("no panic"), 3);
    }

    #[test]
    fn a_world_is_left_by_a_panic_too_and_its_place_is_known() {
        let mut world = World::new(0, 0);
        let panicked = world.catch(|| panic!("as it was told")).map(|(): ()| ());
        let text = panicked.expect_err("it panics");
        assert!(text.contains("world.rs:") && text.ends_with(": as it was told"), "{text}");
        assert!(ENTERED.get().is_none());
    }
}
