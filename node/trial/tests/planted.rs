//! Mistakes that authors make, each planted in a small service: the trial finds every one, and finds
//! none in services without.

use quorate::{At, Context, Retry, Service, State, Ticket, WriteState};
use quorate_trial::{Failed, Property, Trial};
use rand::{Rng as _, SeedableRng, rngs::SmallRng};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    env,
    io::{self, Read},
    panic::catch_unwind,
    process,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

/// Defines a service of one number, with `apply` as the given function.
macro_rules! number {
    ($name:ident, $apply:expr) => {
        #[derive(Clone, Default, Serialize, Deserialize)]
        struct $name(u64);

        impl Service for $name {
            quorate::types!(u64 => u64, () => u64);

            fn apply(&mut self, add: u64, _: &mut Context<'_, Self>) -> u64 {
                let apply: fn(&mut u64, u64) -> u64 = $apply;
                apply(&mut self.0, add)
            }

            fn query(&self, (): (), _: At) -> u64 {
                self.0
            }
        }
    };
}

number!(WallClock, |last, _| {
    // Only the state shows it.
    *last = SystemTime::UNIX_EPOCH.elapsed().map(|since| since.as_secs()).unwrap_or_default();
    0
});

#[test]
fn the_wall_clock() {
    let failed = found(Trial::new(WallClock::default).commands(|rng, _| rng.below(10)));
    assert_eq!((failed.property(), failed.story().len()), (Property::States, 1), "{failed}");
}

number!(Stopwatch, |sum, add| {
    let began = Instant::now();
    *sum += add;
    u64::from(began.elapsed() < Duration::from_millis(1))
});

#[test]
fn the_time_that_something_takes() {
    let failed = found(Trial::new(Stopwatch::default).commands(|rng, _| rng.below(10)));
    assert_eq!((failed.property(), failed.story().len()), (Property::Outcomes, 1), "{failed}");
}

number!(Dice, |_, sides| SmallRng::from_os_rng().random_range(0..=sides));

#[test]
fn random_numbers_of_the_system() {
    let failed = found(Trial::new(Dice::default).commands(|rng, _| 1 << rng.below(40)));
    assert_eq!(failed.property(), Property::Outcomes, "{failed}");
}

number!(Threaded, |sum, add| {
    *sum += thread::spawn(move || add).join().unwrap_or_default();
    *sum
});

#[test]
fn a_thread() {
    let failed = found(Trial::new(Threaded::default).commands(|rng, _| rng.below(10)));
    assert_eq!((failed.property(), failed.story().len()), (Property::Threads, 1), "{failed}");
}

number!(Counting, |_, _| {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    CALLS.fetch_add(1, Ordering::Relaxed)
});

#[test]
fn a_static() {
    let failed = found(Trial::new(Counting::default).commands(|rng, _| rng.below(10)));
    assert_eq!((failed.property(), failed.story().len()), (Property::Outcomes, 1), "{failed}");
}

number!(FirstCall, |_, add| {
    static FIRST: OnceLock<u64> = OnceLock::new();
    let is_first = FIRST.get().is_none();
    FIRST.get_or_init(|| add);
    is_first.into()
});

#[test]
fn a_static_that_is_set_once_in_a_process() {
    let failed = found(Trial::new(FirstCall::default).commands(|rng, _| rng.below(10)));
    assert_eq!(failed.property(), Property::Outcomes, "{failed}");
    assert!(failed.to_string().contains("does a static keep something?"), "{failed}");
}

number!(Panicking, |sum, add| {
    *sum += add;
    assert!(*sum < 20, "the sum is too large");
    *sum
});

#[test]
fn a_panic() {
    let failed = found(Trial::new(Panicking::default).commands(|rng, _| rng.below(10)));
    assert_eq!(failed.property(), Property::Panics, "{failed}");
    assert!(failed.story().len() >= 3, "one command adds 9 at most: {failed}");
    let text = failed.to_string();
    assert!(text.contains("the sum is too large") && text.contains("planted.rs:"), "{text}");
}

/// The order of a hash map: in a reply, in an event, or in the saved state.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Hashed(HashMap<u64, u64>);

impl Service for Hashed {
    quorate::types!(u64 => u64, () => u64);

    fn apply(&mut self, key: u64, _: &mut Context<'_, Self>) -> u64 {
        *self.0.entry(key).or_default() += 1;
        self.0.keys().next().copied().unwrap_or_default()
    }

    fn query(&self, (): (), _: At) -> u64 {
        self.0.len() as u64
    }
}

#[test]
fn the_order_of_a_hash_map() {
    let failed = found(Trial::new(Hashed::default).commands(|rng, _| rng.below(10)));
    assert!(matches!(failed.property(), Property::Outcomes | Property::States), "{failed}");
    assert!(failed.story().len() <= 4, "two keys or three are enough: {failed}");
}

/// A mean that depends on the order of the additions.
#[derive(Default)]
struct Mean {
    samples: Vec<f64>,
    sum: f64,
}

impl State for Mean {
    fn save(&self) -> WriteState {
        let bytes: Vec<_> = self.samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        Box::new(move |to| to.write_all(&bytes))
    }

    fn load(&mut self, from: &mut dyn Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes)?;
        let samples = bytes.chunks(8).filter_map(|chunk| chunk.try_into().ok().map(f64::from_le_bytes));
        self.samples = samples.collect();
        self.sum = self.samples.iter().rev().sum();
        Ok(())
    }
}

impl Service for Mean {
    quorate::types!(f64 => f64, () => f64);

    fn apply(&mut self, sample: f64, _: &mut Context<'_, Self>) -> f64 {
        self.samples.push(sample);
        self.sum += sample;
        self.sum / self.samples.len() as f64
    }

    fn query(&self, (): (), _: At) -> f64 {
        self.sum
    }
}

#[test]
fn a_float_that_depends_on_the_way_to_it() {
    let trial = Trial::new(Mean::default).commands(|rng, _| 0.1 * rng.below(1_000) as f64).queries(|_| ());
    let failed = found(trial);
    assert!(matches!(failed.property(), Property::Outcomes | Property::Answers), "{failed}");
    assert!(failed.to_string().contains("the twin is saved and loaded"), "{failed}");
}

/// A field that is not saved.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Forgetful {
    sum: u64,
    #[serde(skip)]
    calls: u64,
}

impl Service for Forgetful {
    quorate::types!(u64 => u64, () => u64);

    fn apply(&mut self, add: u64, _: &mut Context<'_, Self>) -> u64 {
        (self.sum, self.calls) = (self.sum + add, self.calls + 1);
        self.calls
    }

    fn query(&self, (): (), _: At) -> u64 {
        self.sum
    }
}

#[test]
fn a_field_that_is_not_saved() {
    let failed = found(Trial::new(Forgetful::default).commands(|rng, _| rng.below(10)));
    assert_eq!((failed.property(), failed.story().len()), (Property::Outcomes, 3), "{failed}");
}

/// A digest that is kept up to date, and not made anew from a state that is loaded.
#[derive(Default)]
struct Digested {
    sum: u64,
    digest: u64,
}

impl State for Digested {
    fn save(&self) -> WriteState {
        let sum = self.sum;
        Box::new(move |to| to.write_all(&sum.to_le_bytes()))
    }

    fn load(&mut self, from: &mut dyn Read) -> io::Result<()> {
        let mut bytes = [0; 8];
        from.read_exact(&mut bytes)?;
        self.sum = u64::from_le_bytes(bytes);
        Ok(())
    }

    fn digest(&self) -> Option<u64> {
        Some(self.digest)
    }
}

impl Service for Digested {
    quorate::types!(u64 => u64, () => u64);

    fn apply(&mut self, add: u64, _: &mut Context<'_, Self>) -> u64 {
        self.sum += add;
        self.digest ^= self.sum.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.sum
    }

    fn query(&self, (): (), _: At) -> u64 {
        self.sum
    }
}

#[test]
fn a_digest_that_a_loaded_copy_lacks() {
    let failed = found(Trial::new(Digested::default).commands(|rng, _| 1 + rng.below(10)));
    assert_eq!((failed.property(), failed.story().len()), (Property::States, 3), "{failed}");
    assert!(failed.to_string().contains("digests of the state"), "{failed}");
}

/// Of a command, a part that is not encoded.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Half {
    add: u64,
    #[serde(skip)]
    times: u64,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Halves(u64);

impl Service for Halves {
    quorate::types!(Half => u64, () => u64);

    fn apply(&mut self, half: Half, _: &mut Context<'_, Self>) -> u64 {
        self.0 += half.add * half.times;
        self.0
    }

    fn query(&self, (): (), _: At) -> u64 {
        self.0
    }
}

#[test]
fn a_command_that_does_not_survive_its_encoding() {
    let trial = Trial::new(Halves::default).commands(|rng, _| Half { add: rng.below(10), times: 2 });
    let failed = found(trial);
    assert_eq!((failed.property(), failed.story().len()), (Property::Encoding, 1), "{failed}");
    assert!(failed.to_string().contains("times: 2") && failed.to_string().contains("times: 0"), "{failed}");
}

/// Leases, with time, timers, events, effects and random numbers.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
struct Leases {
    until: BTreeMap<String, u64>,
    drawn: Vec<u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Wish {
    Hold(String, u64),
    /// Sets the end of the lease and leaves the timer as it was, which is a mistake.
    Shorten(String, u64),
    Draw,
    /// Of version 2.
    Clear,
}

impl Service for Leases {
    quorate::types!(Wish => Option<u64>, String => Option<u64>, event String, signal String, effect String);
    const VERSION: u32 = 2;

    fn since(wish: &Wish) -> u32 {
        if matches!(wish, Wish::Clear) { 2 } else { 0 }
    }

    fn apply(&mut self, wish: Wish, cx: &mut Context<'_, Self>) -> Option<u64> {
        match wish {
            Wish::Hold(name, ms) => {
                cx.after(Duration::from_millis(ms), name.clone());
                let _full_or_not = cx.perform(&name, "tell the holder".into());
                self.until.insert(name, cx.now().0 + ms)
            }
            Wish::Shorten(name, ms) => self.until.insert(name, cx.now().0 + ms),
            Wish::Draw => {
                self.drawn.push(cx.random().below(1_000));
                self.drawn.last().copied()
            }
            Wish::Clear => {
                self.drawn.clear();
                None
            }
        }
    }

    fn signal(&mut self, name: String, cx: &mut Context<'_, Self>) {
        self.until.remove(&name);
        cx.publish(&name, format!("free at {}", cx.now().0));
    }

    fn query(&self, name: String, _: At) -> Option<u64> {
        self.until.get(&name).copied()
    }
}

fn leases(of: fn(u64, String, u64) -> Wish) -> Trial<Leases> {
    Trial::new(Leases::default)
        .commands(move |rng, _| of(rng.below(4), rng.pick(&["a", "b"]).to_string(), rng.between(1..=3_000)))
        .queries(|rng| rng.pick(&["a", "b", "c"]).to_string())
        .invariant(|leases, at| match leases.until.iter().find(|(_, until)| **until < at.time.0) {
            Some((name, until)) => Err(format!("{name} is held past {until} ms")),
            None => Ok(()),
        })
}

#[test]
fn a_service_without_a_mistake_passes_and_meets_every_step() {
    let began = Instant::now();
    let passed = leases(|kind, name, ms| match kind {
        0 => Wish::Clear,
        1 => Wish::Draw,
        _ => Wish::Hold(name, ms),
    });
    let passed = passed.check().expect("there is no mistake");
    assert_eq!(passed.seeds, 200);
    let least = [passed.commands, passed.queries, passed.ticks, passed.fired, passed.loads, passed.leaders];
    assert!(least.into_iter().all(|count| count > 200) && passed.refused > 10, "{passed}");
    println!("{passed} in {:?}", began.elapsed());
}

#[test]
fn an_invariant_that_a_timer_breaks_is_told_in_the_authors_types() {
    let failed = found(leases(|kind, name, ms| match kind {
        0 => Wish::Shorten(name, ms),
        _ => Wish::Hold(name, ms),
    }));
    assert_eq!(failed.property(), Property::Invariant, "{failed}");
    let [shorten, passes] = failed.story() else { panic!("two steps are enough: {failed}") };
    assert!(shorten.contains("Shorten(\"") && passes.contains("ms pass"), "{failed}");
    assert!(failed.to_string().contains("is held past"), "{failed}");
    assert!(failed.to_string().contains(&format!("QUORATE_TRIAL_SEED={}", failed.seed())), "{failed}");
}

#[test]
fn a_seed_fails_in_the_same_way_each_time() {
    let text = || found(Trial::new(Hashed::default).commands(|rng, _| rng.below(10))).to_string();
    assert_eq!(text(), text());
}

number!(Sum, |sum, add| {
    *sum = (*sum + add) % 50;
    *sum
});

#[test]
fn a_model_that_disagrees() {
    let failed = found(Trial::new(Sum::default).commands(|rng, _| rng.below(10)).model(
        || 0,
        |sum, add, reply, _| {
            *sum += add;
            assert_eq!(reply, sum, "as the model has it");
            Ok(())
        },
    ));
    assert_eq!(failed.property(), Property::Model, "{failed}");
    assert!(failed.to_string().contains("as the model has it") && failed.story().len() >= 6, "{failed}");
}

/// Payments, each of which is an effect. Its result is counted.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Payments {
    asked: u64,
    paid: u64,
}

impl Service for Payments {
    quorate::types!(u64 => bool, () => u64, signal u64, effect u64);

    fn apply(&mut self, account: u64, cx: &mut Context<'_, Self>) -> bool {
        let is_taken = cx.perform(&format!("account {account}"), account).is_ok();
        self.asked += u64::from(is_taken);
        is_taken
    }

    fn signal(&mut self, _: u64, _: &mut Context<'_, Self>) {
        self.paid += 1;
    }

    fn query(&self, (): (), _: At) -> u64 {
        self.paid
    }
}

/// A bank that knows the payments that it made, by the id of the effect if it is a good one.
fn payments(is_good: bool) -> Trial<Payments> {
    let bank = move || {
        let made = Arc::new(Mutex::new(BTreeSet::new()));
        move |account: u64, ticket: Ticket| {
            let is_new = made.lock().expect("no panic").insert(ticket.id);
            async move {
                tokio::time::sleep(Duration::from_secs(2)).await;
                assert!(is_new || is_good, "payment {} is made twice", ticket.id);
                if ticket.attempt == 1 && account == 0 { Err(Retry::because("the line is busy")) } else { Ok(account) }
            }
        }
    };
    Trial::new(Payments::default).commands(|rng, _| rng.below(3)).clusters(0).effects(bank).invariant(|payments, _| {
        if payments.paid <= payments.asked { Ok(()) } else { Err("more is paid than was asked for".into()) }
    })
}

#[test]
fn an_effect_that_is_performed_twice_is_found_where_the_outside_does_not_know_its_id() {
    let passed = payments(true).check().expect("it knows the ids");
    assert!(passed.performed > 500, "{passed}");
    let failed = found(payments(false));
    assert_eq!(failed.property(), Property::Effects, "{failed}");
    assert!(failed.to_string().contains("is made twice"), "{failed}");
}

/// A command whose version is later than the newest.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Unreleased;

impl Service for Unreleased {
    quorate::types!(u64 => (), () => ());

    fn since(command: &u64) -> u32 {
        u32::from(*command == 3)
    }

    fn apply(&mut self, _: u64, _: &mut Context<'_, Self>) {}

    fn query(&self, (): (), _: At) {}
}

#[test]
fn a_command_that_no_version_has() {
    let failed = found(Trial::new(Unreleased::default).commands(|rng, _| rng.below(10)));
    assert_eq!((failed.property(), failed.story().len()), (Property::Refusals, 1), "{failed}");
    assert!(failed.story()[0].starts_with('3'), "{failed}");
}

/// The report, as the author sees it.
fn found<S: Service>(trial: Trial<S>) -> Failed {
    let failed = trial.check().expect_err("the mistake is found");
    println!("{failed}");
    failed
}

/// Numbers that must be set once each.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Once(Vec<u64>);

impl Service for Once {
    quorate::types!(u64 => u64, () => u64);

    fn apply(&mut self, number: u64, _: &mut Context<'_, Self>) -> u64 {
        self.0.push(number);
        number
    }

    fn query(&self, (): (), _: At) -> u64 {
        self.0.len() as u64
    }
}

#[test]
fn a_number_that_two_callers_set_at_once_is_found_in_a_cluster() {
    let trial = Trial::new(Once::default)
        .commands(|_, replies| replies.iter().max().map_or(1, |last| last + 1))
        .invariant(|once, _| match once.0.iter().collect::<BTreeSet<_>>().len() == once.0.len() {
            true => Ok(()),
            false => Err("a number was set twice".into()),
        });
    let failed = found(trial);
    assert_eq!((failed.property(), failed.story().len()), (Property::Invariant, 2), "{failed}");
}

#[test]
fn a_panic_of_a_function_that_draws_or_makes_the_service_has_its_place_and_text() {
    let panics = [
        Trial::new(Sum::default).commands(|_, _| panic!("no commands")),
        Trial::new(Sum::default).commands(|_, _| 1).queries(|_| panic!("no queries")),
        Trial::new(|| panic!("no service")).commands(|_, _| 1),
    ];
    let texts = panics.map(|trial| {
        let trial = Mutex::new(Some(trial));
        let check = || trial.lock().expect("no panic").take().map(Trial::check).is_some();
        let panicked = catch_unwind(check).expect_err("it panics");
        panicked.downcast_ref::<String>().cloned().expect("a text with a place")
    });
    for (text, message) in texts.iter().zip(["no commands", "no queries", "no service"]) {
        assert!(text.contains("planted.rs:") && text.ends_with(message), "{text}");
    }
}

#[test]
fn a_seed_that_runs_alone_runs_a_cluster_only_if_the_trial_has_some() {
    const SEED: &str = "QUORATE_TRIAL_SEED";
    if env::var_os(SEED).is_some() {
        let clusters = [0, 1].map(|clusters| {
            let passed = Trial::new(Sum::default).commands(|rng, _| rng.below(10)).clusters(clusters).check();
            passed.expect("it adds").clusters
        });
        return assert_eq!(clusters, [0, 1]);
    }
    let this = "a_seed_that_runs_alone_runs_a_cluster_only_if_the_trial_has_some";
    let alone = process::Command::new(env::current_exe().expect("this test"))
        .args([this, "--exact"])
        .env(SEED, "17")
        .output()
        .expect("it runs");
    assert!(alone.status.success(), "{}", String::from_utf8_lossy(&alone.stdout));
    assert!(String::from_utf8_lossy(&alone.stdout).contains("1 passed"));
}
