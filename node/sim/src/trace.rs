//! The trace of one run: its events in order, hashed so that two runs of a seed can be compared,
//! and as text if it is asked for.

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

/// A recorder of events: always a hash, sometimes text.
#[derive(Default, Debug)]
pub struct Trace {
    /// Without random keys: the same run has the same hash in every process of one build.
    hasher: DefaultHasher,
    lines: Option<Vec<String>>,
}

/// The most lines that are kept; beyond that the oldest go.
const LINES_MAX: usize = 200_000;

impl Trace {
    /// A trace that keeps text, too.
    #[must_use]
    pub fn with_text() -> Self {
        Self { lines: Some(Vec::new()), ..Self::default() }
    }

    /// Records an event at a simulated time, in the hash and as text.
    pub fn note(&mut self, at: Duration, event: &(impl Hash + fmt::Display)) {
        (at, event).hash(&mut self.hasher);
        self.say(at, event);
    }

    /// Records an event as text alone; the hash stays as it is.
    pub fn say(&mut self, at: Duration, event: &impl fmt::Display) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>10.3} ms  {event}", at.as_secs_f64() * 1000.0));
            if lines.len() > LINES_MAX {
                lines.drain(..LINES_MAX / 2);
            }
        }
    }

    /// Records an event in the hash alone.
    pub fn hash(&mut self, event: &impl Hash) {
        event.hash(&mut self.hasher);
    }

    /// Whether text is kept: if not, callers need not make any.
    #[must_use]
    pub fn has_text(&self) -> bool {
        self.lines.is_some()
    }

    /// The hash of all events up to now.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.hasher.finish()
    }

    /// The text that was kept, one event a line.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }
}
