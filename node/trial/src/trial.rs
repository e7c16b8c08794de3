//! The trial of a service: its description, and the run over all seeds.

use crate::{
    cluster,
    failed::{Failed, Fault, Found},
    outside,
    rng::Rng,
    shrink::{self, Ended},
    spec::Spec,
    steps::{Drawn, Step, Steps},
    walk::Walk,
    world::World,
};
use quorate::{At, Index, Perform, Service};
use std::{collections::hash_map::RandomState, fmt, hint::black_box, panic, sync::Arc, thread};

/// The seeds of a trial that says nothing else.
const SEEDS: u64 = 200;
/// The seeds that run a cluster, too.
const CLUSTERS: u64 = 10;
/// The most steps of a seed.
const STEPS_MAX: u64 = 100;

/// A trial of a service: see the [crate's page](crate).
#[must_use = "a trial begins with `run`"]
pub struct Trial<S: Service> {
    spec: Spec<S>,
    seeds: u64,
    clusters: u64,
}

impl<S: Service> Trial<S> {
    /// A trial of the service that `new` makes: its state before the first entry.
    ///
    /// ```
    /// # use quorate::{At, Context, Service};
    /// # use quorate_trial::Trial;
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Counter(u64);
    /// # impl Service for Counter {
    /// #     quorate::types!(u64 => u64, () => u64);
    /// #     fn apply(&mut self, add: u64, _: &mut Context<'_, Self>) -> u64 { self.0 += add; self.0 }
    /// #     fn query(&self, (): (), _: At) -> u64 { self.0 }
    /// # }
    /// Trial::new(Counter::default).commands(|rng, _replies| rng.below(10)).run();
    /// ```
    pub fn new(new: impl Fn() -> S + Send + Sync + 'static) -> Self {
        let spec = Spec {
            new: Box::new(new),
            commands: None,
            queries: None,
            invariants: Vec::new(),
            model: None,
            effects: None,
        };
        Self { spec, seeds: SEEDS, clusters: CLUSTERS }
    }

    /// The commands; a trial without them is refused. `next` draws one from random numbers and the
    /// earlier replies, the latest at the end, and must depend on nothing else: a seed is run again.
    ///
    /// ```
    /// # use quorate::{At, Context, Service};
    /// # use quorate_trial::Trial;
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Counter(u64);
    /// # impl Service for Counter {
    /// #     quorate::types!(u64 => u64, () => u64);
    /// #     fn apply(&mut self, add: u64, _: &mut Context<'_, Self>) -> u64 { self.0 += add; self.0 }
    /// #     fn query(&self, (): (), _: At) -> u64 { self.0 }
    /// # }
    /// let by_the_last_reply = |rng: &mut quorate_trial::Rng, replies: &[u64]| match replies.last() {
    ///     Some(last) => rng.below(last % 10 + 1), // larger ones would overflow the counter
    ///     None => 1,
    /// };
    /// Trial::new(Counter::default).commands(by_the_last_reply).seeds(20).run();
    /// ```
    pub fn commands(mut self, next: impl Fn(&mut Rng, &[S::Reply]) -> S::Command + Send + Sync + 'static) -> Self {
        self.spec.commands = Some(Box::new(next));
        self
    }

    /// The queries; without them none is asked.
    ///
    /// ```
    /// # use quorate::{At, Context, Service};
    /// # use quorate_trial::Trial;
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Counter(u64);
    /// # impl Service for Counter {
    /// #     quorate::types!(u64 => u64, u64 => u64);
    /// #     fn apply(&mut self, add: u64, _: &mut Context<'_, Self>) -> u64 { self.0 += add; self.0 }
    /// #     fn query(&self, modulus: u64, _: At) -> u64 { self.0 % modulus }
    /// # }
    /// Trial::new(Counter::default).commands(|rng, _| rng.below(10)).queries(|rng| rng.between(1..=9)).run();
    /// ```
    pub fn queries(mut self, next: impl Fn(&mut Rng) -> S::Query + Send + Sync + 'static) -> Self {
        self.spec.queries = Some(Box::new(next));
        self
    }

    /// A property of the state that must hold after every entry of the log. May be called several
    /// times, for several properties.
    ///
    /// ```
    /// # use quorate::{At, Context, Service};
    /// # use quorate_trial::Trial;
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Counter(u64);
    /// # impl Service for Counter {
    /// #     quorate::types!(u64 => u64, () => u64);
    /// #     fn apply(&mut self, add: u64, _: &mut Context<'_, Self>) -> u64 { self.0 += add; self.0 }
    /// #     fn query(&self, (): (), _: At) -> u64 { self.0 }
    /// # }
    /// Trial::new(Counter::default)
    ///     .commands(|rng, _| rng.below(10))
    ///     .invariant(|counter, at| match counter.0 <= 9 * at.index.0 {
    ///         true => Ok(()),
    ///         false => Err(format!("{} after {} entries", counter.0, at.index)),
    ///     })
    ///     .run();
    /// ```
    pub fn invariant(mut self, holds: impl Fn(&S, &At) -> Result<(), String> + Send + Sync + 'static) -> Self {
        self.spec.invariants.push(Box::new(holds));
        self
    }

    /// A model: a simple account of the same service, which judges each reply. `new` makes it for
    /// each seed, and `follows` is called with each command that was applied, in the order of the
    /// log, and the service's reply.
    ///
    /// ```
    /// # use quorate::{At, Context, Service};
    /// # use quorate_trial::Trial;
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Counter(u64);
    /// # impl Service for Counter {
    /// #     quorate::types!(u64 => u64, () => u64);
    /// #     fn apply(&mut self, add: u64, _: &mut Context<'_, Self>) -> u64 { self.0 += add; self.0 }
    /// #     fn query(&self, (): (), _: At) -> u64 { self.0 }
    /// # }
    /// Trial::new(Counter::default)
    ///     .commands(|rng, _| rng.below(10))
    ///     .model(Vec::new, |added: &mut Vec<u64>, add, reply, _at| {
    ///         added.push(*add);
    ///         let sum: u64 = added.iter().sum();
    ///         if *reply == sum { Ok(()) } else { Err(format!("it should be {sum}")) }
    ///     })
    ///     .run();
    /// ```
    pub fn model<M: 'static>(
        mut self,
        new: impl Fn() -> M + Send + Sync + 'static,
        follows: impl Fn(&mut M, &S::Command, &S::Reply, &At) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        let follows = Arc::new(follows);
        self.spec.model = Some(Box::new(move || {
            let (mut model, follows) = (new(), Arc::clone(&follows));
            Box::new(move |command, reply, at| follows(&mut model, command, reply, at))
        }));
        self
    }

    /// The handler of effects. `new` makes one for each seed, so that a handler may keep what it did
    /// as the outside would, and assert that nothing is done twice.
    ///
    /// ```
    /// # use quorate::{At, Context, Service, Ticket};
    /// # use quorate_trial::Trial;
    /// # use std::{collections::BTreeMap, sync::{Arc, Mutex}};
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Mails { open: u64, sent: u64 }
    /// # impl Service for Mails {
    /// #     quorate::types!(String => bool, () => u64, signal bool, effect String);
    /// #     fn apply(&mut self, mail: String, cx: &mut Context<'_, Self>) -> bool {
    /// #         let taken = cx.perform("mails", mail).is_ok();
    /// #         self.open += u64::from(taken);
    /// #         taken
    /// #     }
    /// #     fn signal(&mut self, _: bool, _: &mut Context<'_, Self>) { (self.open, self.sent) = (self.open - 1, self.sent + 1) }
    /// #     fn query(&self, (): (), _: At) -> u64 { self.sent }
    /// # }
    /// Trial::new(Mails::default)
    ///     .commands(|rng, _| rng.below(10).to_string())
    ///     .effects(|| {
    ///         let sent = Arc::new(Mutex::new(BTreeMap::new()));
    ///         move |mail: String, ticket: Ticket| {
    ///             let is_first = sent.lock().is_ok_and(|mut sent| sent.insert(ticket.id, mail).is_none());
    ///             async move { Ok(is_first) } // the signal
    ///         }
    ///     })
    ///     .run();
    /// ```
    pub fn effects<P: Perform<S>>(mut self, new: impl Fn() -> P + Send + Sync + 'static) -> Self {
        self.spec.effects = Some(outside::boxed(new));
        self
    }

    /// The number of seeds, 200 by default, unless the environment variable `QUORATE_TRIAL_SEEDS`
    /// has another.
    ///
    /// ```
    /// # use quorate::{At, Context, Service};
    /// # use quorate_trial::Trial;
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Counter(u64);
    /// # impl Service for Counter {
    /// #     quorate::types!(u64 => u64, () => u64);
    /// #     fn apply(&mut self, add: u64, _: &mut Context<'_, Self>) -> u64 { self.0 += add; self.0 }
    /// #     fn query(&self, (): (), _: At) -> u64 { self.0 }
    /// # }
    /// let passed = Trial::new(Counter::default).commands(|rng, _| rng.below(10)).seeds(10).check();
    /// assert_eq!(passed.expect("it adds").seeds, 10);
    /// ```
    pub fn seeds(self, seeds: u64) -> Self {
        Self { seeds, ..self }
    }

    /// The number of seeds that run a cluster, too: 10 by default, and 0 for none. A seed that the
    /// environment variable `QUORATE_TRIAL_SEED` names runs one, too, unless it is 0. A cluster is
    /// three nodes under crashes, restarts, leadership transfers and faults of the network.
    ///
    /// ```
    /// # use quorate::{At, Context, Service};
    /// # use quorate_trial::Trial;
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Counter(u64);
    /// # impl Service for Counter {
    /// #     quorate::types!(u64 => u64, () => u64);
    /// #     fn apply(&mut self, add: u64, _: &mut Context<'_, Self>) -> u64 { self.0 += add; self.0 }
    /// #     fn query(&self, (): (), _: At) -> u64 { self.0 }
    /// # }
    /// let passed = Trial::new(Counter::default).commands(|rng, _| rng.below(10)).clusters(1).check();
    /// assert!(passed.expect("it adds").answered > 0);
    /// ```
    pub fn clusters(self, clusters: u64) -> Self {
        Self { clusters, ..self }
    }

    #[cfg(test)]
    pub(crate) fn into_spec(self) -> Spec<S> {
        self.spec
    }

    /// Runs all seeds, up to the first that fails.
    ///
    /// ```
    /// # use quorate::{At, Context, Service};
    /// # use quorate_trial::Trial;
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Counter(u64);
    /// # impl Service for Counter {
    /// #     quorate::types!(u64 => u64, () => u64);
    /// #     fn apply(&mut self, add: u64, _: &mut Context<'_, Self>) -> u64 { self.0 += add; self.0 }
    /// #     fn query(&self, (): (), _: At) -> u64 { self.0 }
    /// # }
    /// Trial::new(Counter::default).commands(|rng, _replies| rng.below(10)).run();
    /// ```
    ///
    /// # Panics
    /// If a seed fails: the message is that of [`Failed`]. If there are no commands, or a function
    /// that draws them or makes the service panics.
    pub fn run(self) {
        match self.check() {
            Ok(passed) => println!("{passed}"),
            Err(failed) => panic!("{failed}"),
        }
    }

    /// As [`Trial::run`], without a panic for a seed that fails.
    ///
    /// ```
    /// # use quorate::{At, Context, Service};
    /// # use quorate_trial::Trial;
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Counter(u64);
    /// # impl Service for Counter {
    /// #     quorate::types!(u64 => u64, () => u64);
    /// #     fn apply(&mut self, add: u64, _: &mut Context<'_, Self>) -> u64 { self.0 += add; self.0 }
    /// #     fn query(&self, (): (), _: At) -> u64 { self.0 }
    /// # }
    /// let trial = Trial::new(Counter::default).commands(|rng, _| rng.below(10));
    /// let failed = trial.invariant(|counter, _| if counter.0 == 0 { Ok(()) } else { Err("it moved".into()) }).check();
    /// assert_eq!(failed.expect_err("it moves").story().len(), 1, "one command is enough");
    /// ```
    ///
    /// # Errors
    /// The first seed that fails, made smaller.
    ///
    /// # Panics
    /// If there are no commands, or a function that draws them or makes the service panics.
    pub fn check(self) -> Result<Passed, Failed> {
        let Self { spec, seeds, clusters } = self;
        assert!(spec.commands.is_some(), "a trial needs commands: call Trial::commands");
        let (alone, many) = (number("QUORATE_TRIAL_SEED"), number("QUORATE_TRIAL_SEEDS"));
        let seeds = alone.map_or(0..many.unwrap_or(seeds), |seed| seed..seed + 1);
        let (run, mut passed) = (Run { spec: Arc::new(spec) }, Passed::default());
        for seed in seeds {
            let (steps, ended) = fresh(seed, || run.draw(seed));
            match ended {
                Ok(of_seed) => passed.add(of_seed),
                Err(fault) => return Err(run.smaller(seed, steps, fault, Found::Once)),
            }
            if seed < clusters || alone.is_some() && clusters > 0 {
                match fresh(seed, || run.cluster(seed)) {
                    Ok(of_seed) => passed.add(of_seed),
                    Err((steps, fault)) => return Err(run.smaller(seed, steps, fault, Found::Cluster)),
                }
            }
        }
        Ok(passed)
    }
}

impl<S: Service> fmt::Debug for Trial<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seeds, clusters, .. } = self;
        f.debug_struct("Trial").field("seeds", seeds).field("clusters", clusters).finish_non_exhaustive()
    }
}

/// A trial that runs.
struct Run<S: Service> {
    spec: Arc<Spec<S>>,
}

impl<S: Service> Run<S> {
    /// Runs the cluster of a seed, and judges it.
    fn cluster(&self, seed: u64) -> Result<Passed, (Steps<S>, Fault)> {
        let ran = cluster::run(&self.spec, seed);
        let (history, ended) = ran.unwrap_or_else(|error| panic!("no cluster can be run: {error}"));
        cluster::judge(&self.spec, seed, &history, ended)
    }

    /// Draws the log of a seed while it is applied. Gives its steps, the one that failed last.
    fn draw(&self, seed: u64) -> (Steps<S>, Result<Passed, Fault>) {
        let (mut walk, mut drawn) = (Walk::new(&self.spec, seed, false), Drawn::new(&self.spec, seed));
        let mut steps = Vec::new();
        let most = Rng::new(!seed).between(10..=STEPS_MAX);
        for _ in 0..most {
            let step = World::new(seed, 2).catch(|| drawn.next(&walk));
            // Outside of the world, where a panic is reported.
            let step =
                step.unwrap_or_else(|panic| panic!("the function that draws commands or queries panics {panic}"));
            let after = walk.index();
            let ended = walk.step(after, &step);
            steps.push((after, step));
            if let Err(fault) = ended {
                return (steps, Err(fault));
            }
        }
        (steps, Ok(walk.passed()))
    }

    /// Makes the log of a seed that failed smaller, and tells it.
    fn smaller(&self, seed: u64, steps: Steps<S>, fault: Fault, otherwise: Found) -> Failed {
        let fails = |kept: &[usize]| {
            let (_, ended) = fresh(seed, || self.replay(seed, &steps, kept, false));
            ended.is_err_and(|other| other.property == fault.property)
        };
        let all: Vec<_> = (0..steps.len()).collect();
        let Ended { kept, recurs } = shrink::shrink(all, fails);
        let (mut story, ended) = fresh(seed, || self.replay(seed, &steps, &kept, true));
        let fault = match ended {
            Err(smaller) if recurs && smaller.property == fault.property => smaller,
            _ => {
                story = steps.iter().map(|(_, step)| format!("{step:?}")).collect();
                return Failed { seed, fault, story, steps: steps.len(), found: otherwise };
            }
        };
        Failed { seed, fault, story, steps: steps.len(), found: Found::Log }
    }

    /// Applies some steps of a log anew. Gives a line for each, if it `tells`.
    fn replay(
        &self,
        seed: u64,
        steps: &[(Index, Step<S>)],
        kept: &[usize],
        tells: bool,
    ) -> (Vec<String>, Result<(), Fault>) {
        let mut walk = Walk::new(&self.spec, seed, tells);
        let ended = kept.iter().map(|nth| &steps[*nth]).try_for_each(|(after, step)| walk.step(*after, step));
        (walk.story(), ended)
    }
}

/// Runs a log on a fresh thread, whose hash maps have the keys of the seed.
fn fresh<T: Send>(seed: u64, run: impl FnOnce() -> T + Send) -> T {
    let ended = thread::scope(|scope| {
        let run = || {
            World::new(seed, 3).enter(|| black_box(RandomState::new()));
            run()
        };
        scope.spawn(run).join()
    });
    ended.unwrap_or_else(|panic| panic::resume_unwind(panic))
}

/// # Panics
/// If the variable is no number.
fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|error| panic!("{variable}={value}: {error}: give a number")))
}

/// The counts of a trial that passed.
///
/// ```
/// # use quorate::{At, Context, Service};
/// # use quorate_trial::Trial;
/// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
/// # struct Counter(u64);
/// # impl Service for Counter {
/// #     quorate::types!(u64 => u64, () => u64);
/// #     fn apply(&mut self, add: u64, _: &mut Context<'_, Self>) -> u64 { self.0 += add; self.0 }
/// #     fn query(&self, (): (), _: At) -> u64 { self.0 }
/// # }
/// let passed = Trial::new(Counter::default).commands(|rng, _| rng.below(10)).check()?;
/// assert!(passed.commands > 1_000 && passed.loads > 100, "{passed}");
/// # Ok::<(), quorate_trial::Failed>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Passed {
    /// Seeds that were run, each with one log.
    pub seeds: u64,
    /// Commands that were applied.
    pub commands: u64,
    /// Commands that were refused: the cluster's version was still too old for them.
    pub refused: u64,
    /// Queries that were answered.
    pub queries: u64,
    /// Times that log time passed.
    pub ticks: u64,
    /// Timers that fired and were not set again at once.
    pub fired: u64,
    /// Calls of the handler of effects.
    pub performed: u64,
    /// Times that the twin was saved and loaded.
    pub loads: u64,
    /// New leaders, each with a later term.
    pub leaders: u64,
    /// Clusters that served, crashed and agreed in the end.
    pub clusters: u64,
    /// Calls and queries that a cluster answered.
    pub answered: u64,
    /// Calls whose caller was told that the outcome is unknown.
    pub unknown: u64,
    /// Nodes of clusters that lost their power.
    pub crashes: u64,
}

impl Passed {
    pub(crate) fn add(&mut self, of_seed: Self) {
        let Self {
            seeds,
            commands,
            refused,
            queries,
            ticks,
            fired,
            performed,
            loads,
            leaders,
            clusters,
            answered,
            unknown,
            crashes,
        } = of_seed;
        self.seeds += seeds;
        self.commands += commands;
        self.refused += refused;
        self.queries += queries;
        self.ticks += ticks;
        self.fired += fired;
        self.performed += performed;
        self.loads += loads;
        self.leaders += leaders;
        self.clusters += clusters;
        self.answered += answered;
        self.unknown += unknown;
        self.crashes += crashes;
    }
}

impl fmt::Display for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seeds,
            commands,
            refused,
            queries,
            ticks,
            fired,
            performed,
            loads,
            leaders,
            clusters,
            answered,
            unknown,
            crashes,
        } = self;
        write!(
            f,
            "{seeds} seeds passed: {commands} commands, {refused} refused, {queries} queries, {ticks} ticks, \
             {fired} timers fired, {performed} effects performed, {loads} loads, {leaders} leaders; {clusters} clusters: {answered} answers, \
             {unknown} unknown outcomes, {crashes} crashes"
        )
    }
}
