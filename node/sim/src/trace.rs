//! What happened in one run, in order: hashed, so that two runs of a seed can be compared, and in words, if somebody reads them.

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

/// Takes note of what happens.
#[derive(Default, Debug)]
pub struct Trace {
    /// Without random keys: the same run has the same hash in every process of one build.
    hasher: DefaultHasher,
    lines: Option<Vec<String>>,
}

/// The most lines that are kept; a run that says more is cut off in front.
const LINES_MAX: usize = 200_000;

impl Trace {
    /// Keeps words too.
    #[must_use]
    pub fn in_words() -> Self {
        Self { lines: Some(Vec::new()), ..Self::default() }
    }

    /// Something happened.
    pub fn note(&mut self, at: Duration, event: &(impl Hash + fmt::Display)) {
        (at, event).hash(&mut self.hasher);
        self.say(at, event);
    }

    /// The same, for what is told in words alone and does not count for the hash.
    pub fn say(&mut self, at: Duration, event: &impl fmt::Display) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>10.3} ms  {event}", at.as_secs_f64() * 1000.0));
            if lines.len() > LINES_MAX {
                lines.drain(..LINES_MAX / 2);
            }
        }
    }

    /// The same, for what has a hash of its own.
    pub fn hash(&mut self, event: &impl Hash) {
        event.hash(&mut self.hasher);
    }

    /// Whether words are kept: then it is worth making some.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.lines.is_some()
    }

    /// The hash of all that was noted.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.hasher.finish()
    }

    /// The words.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }
}
