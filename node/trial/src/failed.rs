//! The report of a seed that failed.

use std::fmt;

/// The property that a service did not keep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Property {
    /// An invariant of the author's.
    Invariant,
    /// The author's model gives another reply.
    Model,
    /// Both copies put out the same.
    Outcomes,
    /// Both copies give the same answer to a query.
    Answers,
    /// Both copies are saved as the same bytes.
    States,
    /// A message is the same after it was encoded and read back.
    Encoding,
    /// A state that was saved can be loaded.
    Loading,
    /// A command that the newest version has is not refused.
    Refusals,
    /// The service panics in no entry and no query, nor when it is flushed, saved or loaded.
    Panics,
    /// No thread is started.
    Threads,
    /// The handler of effects does not panic.
    Effects,
    /// The cluster serves and agrees once its faults stop, and tells each caller the truth. It is
    /// the runtime's fault if it does not.
    Cluster,
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invariant => "an invariant does not hold",
            Self::Model => "the model disagrees",
            Self::Outcomes => "two copies put out different things",
            Self::Answers => "two copies answer a query differently",
            Self::States => "two copies have different states",
            Self::Encoding => "a message does not survive its encoding",
            Self::Loading => "a saved state can't be loaded",
            Self::Refusals => "a command is refused",
            Self::Panics => "the service panics",
            Self::Threads => "the service starts a thread",
            Self::Effects => "the handler of effects panics",
            Self::Cluster => "the cluster does not keep its promises",
        })
    }
}

/// A seed that failed, and the smallest log found that fails in the same way. `Display` prints both,
/// with the command that runs the seed again.
///
/// ```
/// # use quorate::{At, Context, Service};
/// # use quorate_trial::{Property, Trial};
/// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
/// # struct Counter(u64);
/// # impl Service for Counter {
/// #     quorate::types!(u64 => u64, () => u64);
/// #     fn apply(&mut self, add: u64, _: &mut Context<'_, Self>) -> u64 { self.0 += add; self.0 }
/// #     fn query(&self, (): (), _: At) -> u64 { self.0 }
/// # }
/// let trial = Trial::new(Counter::default).commands(|rng, _| rng.below(10));
/// let failed = trial.invariant(|counter, _| if counter.0 < 20 { Ok(()) } else { Err("it is full".into()) }).check();
/// let failed = failed.expect_err("it fills up");
/// assert_eq!(failed.property(), Property::Invariant);
/// assert!(failed.to_string().contains("it is full"));
/// ```
#[derive(Clone, Debug)]
pub struct Failed {
    pub(crate) seed: u64,
    pub(crate) fault: Fault,
    /// The log, a line per step.
    pub(crate) story: Vec<String>,
    /// The steps of the seed before it was made smaller.
    pub(crate) steps: usize,
    pub(crate) found: Found,
}

/// The place where a seed failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    /// In a log, which was made smaller.
    Log,
    /// In a log that does not fail again.
    Once,
    /// In a cluster, whose log does not fail by itself.
    Cluster,
}

impl Failed {
    /// The seed, for the environment variable `QUORATE_TRIAL_SEED`.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The property that does not hold.
    #[must_use]
    pub fn property(&self) -> Property {
        self.fault.property
    }

    /// The smallest log found that fails in the same way, in the author's types: a line per command,
    /// query, and passing of time. The last one failed.
    #[must_use]
    pub fn story(&self) -> &[String] {
        &self.story
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, fault: Fault { property, details }, story, steps, found } = self;
        writeln!(f, "seed {seed}: {property}")?;
        match found {
            Found::Log => writeln!(f, "  it takes {} of its {steps} steps:", story.len())?,
            Found::Once => writeln!(f, "  these steps fail no more in this process: does a static keep something?")?,
            Found::Cluster => writeln!(f, "  in a cluster with this log, which alone does not fail:")?,
        }
        story.iter().try_for_each(|line| writeln!(f, "    {line}"))?;
        details.lines().try_for_each(|line| writeln!(f, "  {line}"))?;
        write!(f, "again: {}", again(*seed))
    }
}

impl std::error::Error for Failed {}

/// The command that runs the seed again.
fn again(seed: u64) -> String {
    let package = std::env::var("CARGO_PKG_NAME").map(|name| format!(" -p {name}")).unwrap_or_default();
    let thread = std::thread::current();
    let test = thread.name().filter(|name| *name != "main");
    let test = test.map(|name| format!(" {name} -- --exact")).unwrap_or_default();
    format!("QUORATE_TRIAL_SEED={seed} cargo test{package}{test}")
}

/// A property that does not hold, and how.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) property: Property,
    pub(crate) details: String,
}

impl Fault {
    pub(crate) fn new(property: Property, details: impl Into<String>) -> Self {
        Self { property, details: details.into() }
    }
}

/// The `Debug` form of a message, cut to a length that can be read.
pub(crate) fn shown(message: &dyn fmt::Debug) -> String {
    const CHARS_MAX: usize = 2_000;
    let mut text = format!("{message:?}");
    if let Some((end, _)) = text.char_indices().nth(CHARS_MAX) {
        text.truncate(end);
        text.push('…');
    }
    text
}
