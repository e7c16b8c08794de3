//! The test kit for authors of services: a typed service runs under faults, in ten lines.
//!
//! ```
//! use quorate_trial::Trial;
//! # use quorate::{At, Context, Service};
//! # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
//! # struct Counter(u64);
//! # impl Service for Counter {
//! #     quorate::types!(u64 => u64, () => u64);
//! #     fn apply(&mut self, add: u64, _: &mut Context<'_, Self>) -> u64 { self.0 += add; self.0 }
//! #     fn query(&self, (): (), _: At) -> u64 { self.0 }
//! # }
//!
//! // #[test]
//! fn the_counter_keeps_its_promises() {
//!     Trial::new(Counter::default)
//!         .commands(|rng, _replies| rng.below(10))
//!         .queries(|_rng| ())
//!         .model(|| 0, |sum, add, reply, _at| {
//!             *sum += add;
//!             if reply == sum { Ok(()) } else { Err(format!("{reply} instead of {sum}")) }
//!         })
//!         .invariant(|counter, _at| if counter.0 < 1_000 { Ok(()) } else { Err("it overflows".into()) })
//!         .run();
//! }
//! # the_counter_keeps_its_promises();
//! ```
//!
//! # What is tested without further code
//!
//! Each seed draws a log: the author's commands and queries, time that passes until just before,
//! just at and long after the next timer, new leaders, clocks that jump, tight bounds of history and
//! outbox, an upgrade of the cluster's version. The service applies it, and so does its *twin*:
//! another copy, which is saved and loaded in between, in another world. Its clock is nine years
//! ahead, its hash maps have other keys, and the system gives it other random numbers. Then:
//!
//! - **Equal outcomes**: every reply, answer, event, timer and effect is the same.
//! - **Equal states**: both are saved as the same bytes after every entry, and have the same
//!   [digest](quorate::State::digest).
//! - **Complete states**: all that matters is saved and loaded again.
//! - **Messages survive their encoding**: read back they are the same, in bytes and as `Debug` shows
//!   them.
//! - **No panic**, no thread started in [`apply`](quorate::Service::apply) or
//!   [`signal`](quorate::Service::signal), no command that the newest version refuses.
//! - **Effects**, with [`Trial::effects`]: some calls of the handler are lost with their leader and
//!   made again by the next one, under a higher fence. The handler does not panic.
//! - The author's [invariants](Trial::invariant) after every entry, and the
//!   [model](Trial::model) at every reply.
//!
//! Ten of the seeds run a cluster, too: three real nodes in simulated time, with write-ahead logs on
//! disks that lose their power, crashes at any write, restarts, snapshots, leadership transfers, and
//! a network that loses, repeats, delays and damages messages. Their leader raises the version from 0
//! to the newest. Several callers call and query any node at once, one of them through sessions. The
//! committed log is then applied again, by the service and its twin, and compared with what every
//! caller was told: the reply at the index, the answer at its entry, and the order of the log with
//! that of real time. [`Trial::clusters`] runs more of them.
//!
//! | mistake | found because |
//! | --- | --- |
//! | the wall clock, or a monotonic one | the twin's shows another time |
//! | random numbers of the system | the twin's are others |
//! | the order of a `HashMap` | the twin's has other keys |
//! | a `static` or thread-local that counts | the twin finds what the first copy left there |
//! | a sum of floats that depends on the way to it | the loaded twin adds in another order |
//! | a thread | it is refused |
//! | a field that is not saved | the loaded twin lacks it |
//! | two callers that undo each other's work | callers of the cluster have old replies |
//!
//! # A seed that fails
//!
//! Commands and time are left out as long as the seed still fails in the same way, of a cluster's
//! log, too. The rest is printed in the author's own types, with the command that runs it again:
//!
//! ```text
//! QUORATE_TRIAL_SEED=17 cargo test -p quorate-locks locks_keep_their_promises -- --exact
//! ```
//!
//! `QUORATE_TRIAL_SEEDS=10000` runs as many seeds as it says.
//!
//! # What is not found
//!
//! Files, sockets and environment variables, which are equal for both copies; a pool of threads that
//! was started before; system calls of the service's own. A cluster performs no effects, and its
//! nodes append no claims to compare their copies: the trial compares each outcome itself. Commands
//! have sessions in a cluster only.
//!
//! Clocks, entropy and threads are those of a world on Linux with the GNU C library only: there this
//! crate defines `clock_gettime`, `getrandom` and `pthread_create` for the test's executable.
//! Elsewhere a clock is found if both copies happen to read different values, and a thread is not.

mod cluster;
mod failed;
mod outside;
mod rng;
mod shrink;
mod side;
mod spec;
mod steps;
mod trial;
mod walk;
mod world;

pub use failed::{Failed, Property};
pub use rng::Rng;
pub use trial::{Passed, Trial};
