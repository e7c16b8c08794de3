//! The steps of a log, and how they are drawn.

use crate::{rng::Rng, side::Entry, spec::Spec, walk::Walk};
use bytes::Bytes;
use quorate::{
    At, Index, Service,
    service::{
        envelope::{self, Opened, Versions},
        internal::Internal,
    },
};
use std::fmt;

/// A step of a log.
pub(crate) enum Step<S: Service> {
    Command(S::Command),
    Query(S::Query),
    /// Log time passes by this many milliseconds.
    Pass(u64),
    /// Another leader: a new term, which begins with an entry of its own.
    Lead,
    /// The cluster's version rises by one.
    Upgrade,
    /// The twin is saved and loaded.
    Load,
    /// The leader performs one of the effects that may be performed.
    Perform {
        nth: u64,
        /// Another leader comes before the result is in the log.
        is_lost: bool,
    },
    /// An entry of a cluster's log.
    Logged(At, Entry),
}

/// Steps, each with the index of the last entry before it: a step keeps it when others are left out,
/// so that tokens, which are made of indexes, stay what later commands take them for.
pub(crate) type Steps<S> = Vec<(Index, Step<S>)>;

/// The longest time that passes in a step, in milliseconds.
const PASS_MAX: u64 = 10_000;

/// The steps of a seed.
pub(crate) struct Drawn<'a, S: Service> {
    spec: &'a Spec<S>,
    rng: Rng,
}

impl<'a, S: Service> Drawn<'a, S> {
    pub(crate) fn new(spec: &'a Spec<S>, seed: u64) -> Self {
        Self { spec, rng: Rng::new(seed) }
    }

    /// The next step, after those that `walk` has taken.
    pub(crate) fn next(&mut self, walk: &Walk<'_, S>) -> Step<S> {
        let Self { spec, rng } = self;
        match rng.below(100) {
            0..20 => Step::Pass(pass(rng, walk.until_due())),
            20..30 => Step::Load,
            50..65 if spec.effects.is_some() && walk.has_effects() => {
                Step::Perform { nth: rng.next_u64(), is_lost: rng.one_in(4) }
            }
            30..33 => Step::Lead,
            33..40 if walk.is_old() => Step::Upgrade,
            40..50 if let Some(queries) = &spec.queries => Step::Query(queries(rng)),
            _ => match &spec.commands {
                Some(commands) => Step::Command(commands(rng, walk.replies())),
                None => Step::Load,
            },
        }
    }
}

/// Some time, in milliseconds: often up to the next timer, or a moment before or after.
fn pass(rng: &mut Rng, until_due: Option<u64>) -> u64 {
    match until_due {
        Some(due) if rng.coin() => (due + rng.below(3)).saturating_sub(1).max(1),
        Some(due) if rng.coin() => rng.between(1..=due.max(1)),
        _ if rng.coin() => rng.between(1..=50),
        _ => rng.between(1..=PASS_MAX),
    }
}

impl<S: Service> fmt::Debug for Step<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(command) => write!(f, "{command:?}"),
            Self::Query(query) => write!(f, "query {query:?}"),
            Self::Pass(ms) => write!(f, "{ms} ms pass"),
            Self::Lead => f.write_str("a new leader"),
            Self::Upgrade => f.write_str("the cluster's version rises"),
            Self::Load => f.write_str("the twin is saved and loaded"),
            Self::Perform { is_lost: false, .. } => f.write_str("perform"),
            Self::Perform { is_lost: true, .. } => f.write_str("perform, and a new leader before the result counts:"),
            Self::Logged(_, Entry::Tick(tick)) => write!(f, "log time is {} ms", tick.time.0),
            Self::Logged(_, Entry::Internal(payload)) => write!(f, "{:?}", Internal::decode(payload)),
            Self::Logged(_, Entry::Command { session, bytes }) => {
                match command_of::<S>(bytes) {
                    Some(command) => write!(f, "{command:?}")?,
                    None => write!(f, "{:?}", Bytes::copy_from_slice(bytes))?,
                }
                session.as_ref().map_or(Ok(()), |session| write!(f, " of {session:?}"))
            }
        }
    }
}

/// The command in the bytes of an entry.
pub(crate) fn command_of<S: Service>(bytes: &[u8]) -> Option<S::Command> {
    let versions = Versions { cluster: u32::MAX, release: u32::MAX };
    match envelope::open(bytes, versions, S::since) {
        Opened::Command(command) => Some(command),
        Opened::Refused(_) | Opened::TooOld { .. } => None,
    }
}
