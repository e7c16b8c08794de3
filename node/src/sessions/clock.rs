//! Log time as one node counts it.

use quorate_raft::{Batch, Index, Moment, Term, session::LogTime};
use std::{collections::VecDeque, time::Duration};

/// The log time that a leader states in ticks and in the stamps of session entries.
///
/// It is the highest time that the node's log states, plus the time for which this node led, or
/// heard a leader, since: by its own monotonic clock, from contact to contact. Time without a
/// leader does not count, and no step between two contacts counts more than `step_max`. So a clock
/// that leaps, a thread that stands still or a suspended machine moves log time by one step at
/// most.
///
/// **Bound:** let a leader append an entry at log time *t*, and a leader append one at *t + d*. Then
/// at least *d* · (1 − drift) passed between the two, less `step_max` for each leap of a clock
/// (`tests` has the proof by trial). For each leader starts from a time that its log states, which
/// an earlier leader counted by the same rule, and adds time that passed since it had that entry.
#[derive(Debug)]
pub(crate) struct LogClock {
    /// The last entry that was applied, and the log time there.
    applied: (Index, LogTime),
    /// The ticks after that entry, in order.
    ticks: VecDeque<(Index, LogTime)>,
    /// The end of a part of the log that this clock was not shown: the node found it on its disk, or
    /// restores a snapshot in its place.
    unseen: Index,
    /// The time counted since the log stated the highest time.
    since: Duration,
    /// The last contact with the leader of a term; on the leader, when the clock was last looked at.
    contact: Option<(Term, Moment)>,
    step_max: Duration,
}

impl LogClock {
    /// Of a node that starts with a log that ends at `last`. `step_max` is the longest election
    /// timeout.
    pub(crate) fn new(last: Index, step_max: Duration) -> Self {
        Self {
            applied: (Index(0), LogTime(0)),
            ticks: VecDeque::new(),
            unseen: last,
            since: Duration::ZERO,
            contact: None,
            step_max,
        }
    }

    /// The leader of `term` was heard, or this node is that leader and looks at its clock.
    pub(crate) fn contact(&mut self, term: Term, now: Moment) {
        if let Some((of, before)) = self.contact
            && of == term
        {
            self.since += now.since(before).min(self.step_max);
        }
        self.contact = Some((term, now));
    }

    /// The log time of now.
    pub(crate) fn now(&self) -> LogTime {
        self.highest() + self.since
    }

    /// The time until log time reaches `time`, if a leader is heard until then.
    pub(crate) fn until(&self, time: LogTime) -> Duration {
        time.since(self.highest()).saturating_sub(self.since)
    }

    /// The highest time that the log states, as far as this clock was shown the log.
    pub(crate) fn highest(&self) -> LogTime {
        self.ticks.back().map_or(self.applied.1, |(_, time)| *time)
    }

    /// Whether [`LogClock::highest`] is that of the whole log.
    pub(crate) fn is_known(&self) -> bool {
        self.applied.0 >= self.unseen || self.ticks.back().is_some_and(|(index, _)| *index > self.unseen)
    }

    /// Entries leave the end of the log, from `truncate_from` on, and then these are appended, by
    /// this node as the leader (`is_own`) or by another one.
    pub(crate) fn written(&mut self, truncate_from: Option<Index>, batch: Option<&Batch>, is_own: bool) {
        let before = self.highest();
        if let Some(from) = truncate_from.into_iter().chain(batch.map(Batch::first)).min() {
            while self.ticks.pop_back_if(|(index, _)| *index >= from).is_some() {}
            self.unseen = self.unseen.min(from.previous());
        }
        let known = self.ticks.len();
        self.ticks.extend(batch.into_iter().flat_map(Batch::ticks).map(|(index, tick)| (index, tick.time)));
        self.moved(before, is_own);
        if !is_own && self.ticks.len() > known {
            // A new leader may state the highest time again, behind what was counted here since.
            self.count_anew();
        }
    }

    /// The entries up to `index` are applied, and state `time` or less. `is_leader` says whether
    /// this node leads.
    pub(crate) fn applied(&mut self, index: Index, time: LogTime, is_leader: bool) {
        let before = self.highest();
        while self.ticks.pop_front_if(|(of, _)| *of <= index).is_some() {}
        self.applied = (self.applied.0.max(index), self.applied.1.max(time));
        self.moved(before, is_leader);
    }

    /// A snapshot took the place of the entries up to `base`; the log ends at `last` now. The time
    /// in the snapshot is known once it is restored.
    pub(crate) fn restores(&mut self, base: Index, last: Index) {
        self.ticks.retain(|(index, _)| *index > base && *index <= last);
        self.unseen = self.unseen.min(last).max(base);
        self.count_anew();
    }

    /// The log may state its highest time again, from here on.
    pub(crate) fn count_anew(&mut self) {
        self.since = Duration::ZERO;
    }

    /// Whether the last contact was in this term.
    pub(crate) fn is_of(&self, term: Term) -> bool {
        self.contact.is_some_and(|(of, _)| of == term)
    }

    /// No entry is applied here any more, so no tick would ever leave this clock.
    pub(crate) fn forget_ticks(&mut self) {
        self.ticks = VecDeque::new();
    }

    /// The highest time of the log is another one than `before`. A leader's own tick states time
    /// that it has counted. From that of another one, a node counts anew: the difference between the
    /// two clocks must not add up.
    fn moved(&mut self, before: LogTime, is_own: bool) {
        let highest = self.highest();
        if highest != before {
            self.since = if is_own { self.since.saturating_sub(highest.since(before)) } else { Duration::ZERO };
        }
    }
}

#[cfg(test)]
mod tests;
