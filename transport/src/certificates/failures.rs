//! Failures to load files again, each distinct one reported once.

/// The failures of repeated looks at files.
///
/// Files are replaced one after another, and a look may come between. So the failure of a look is
/// reported once the next look confirms it; that of a look that was asked for, at once. `P` identifies
/// a failure: not by its text, which the clock may change from look to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failures<P> {
    last: Option<P>,
    reported: Option<P>,
}

impl<P> Default for Failures<P> {
    fn default() -> Self {
        Self { last: None, reported: None }
    }
}

impl<P: Clone + PartialEq> Failures<P> {
    /// Whether the last look failed.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.last.is_some()
    }

    /// A look failed. Returns whether to report it.
    pub fn failed(&mut self, problem: P, is_asked: bool) -> bool {
        let is = |known: &Option<P>| known.as_ref() == Some(&problem);
        let is_due = is_asked || (is(&self.last) && !is(&self.reported));
        if is_due {
            self.reported = Some(problem.clone());
        }
        self.last = Some(problem);
        is_due
    }

    /// The files are in order. Returns whether a failure was reported before.
    pub fn ended(&mut self) -> bool {
        std::mem::take(self).reported.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_reported_once_and_only_when_it_lasts_or_was_asked_for() {
        let mut failures = Failures::default();
        assert!(!failures.failed("half", false), "the other half may be on its way");
        assert!(failures.is_failing());
        assert!(!failures.ended(), "and came: nothing was reported");
        assert!(!failures.is_failing());

        let told: Vec<_> = ["a", "a", "a", "b", "a", "b", "b", "b"].map(|file| failures.failed(file, false)).into();
        assert_eq!(told, [false, true, false, false, false, false, true, false], "each distinct one that lasts");
        assert!(failures.failed("b", true), "a caller that asks is told");
        assert!(!failures.failed("b", false));
        assert!(failures.ended());
        assert!(!failures.failed("b", false) && failures.failed("b", false), "after a success it is news again");
    }
}
