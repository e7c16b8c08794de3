//! The error of a configuration: the place, the problem and the remedy.

use std::fmt;

/// An invalid configuration, in one line: the key or file, the problem, the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub(super) place: String,
    pub(super) problem: String,
    pub(super) remedy: String,
    /// The same contradiction reported at the other value, if two values contradict each other.
    pub(super) other_side: Option<Box<Self>>,
}

impl ConfigError {
    /// `place` is a key such as `timing.heartbeat_interval`, or a file.
    pub fn new(place: impl fmt::Display, problem: impl fmt::Display, remedy: impl fmt::Display) -> Self {
        let line = |text: &dyn fmt::Display| text.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        Self { place: line(&place), problem: line(&problem), remedy: line(&remedy), other_side: None }
    }

    /// The key or file.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// Adds the report at the other value. [`Sources::locate`](super::Sources::locate) picks the
    /// value with the higher precedence.
    pub(super) fn or(self, other_side: Self) -> Self {
        Self { other_side: Some(Box::new(other_side)), ..self }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.place, self.problem, self.remedy)
    }
}

impl std::error::Error for ConfigError {}
