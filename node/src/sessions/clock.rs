//! The log time that a leader stamps on session entries.

use quorate_raft::{Moment, session::LogTime};

/// Log time as the leader counts it: from the highest that this node has applied or stamped, by its
/// monotonic clock. It stands still while the node does not lead. Time without a leader, or before
/// a new leader hears the latest log time, does not count, which only lets sessions live longer.
#[derive(Default, Debug)]
pub(crate) struct LogClock {
    /// The highest log time that was applied or stamped.
    reached: LogTime,
    /// While the node leads: a moment of its clock, and the log time at that moment.
    runs: Option<(Moment, LogTime)>,
}

impl LogClock {
    /// Starts the count when the node begins to lead, and stops it when leadership ends.
    pub(crate) fn leads(&mut self, is_leader: bool, now: Moment) {
        self.runs = is_leader.then_some((now, self.reached));
    }

    /// Entries up to this log time were applied.
    pub(crate) fn applied(&mut self, time: LogTime, now: Moment) {
        if time > self.reached {
            self.reached = time;
            if let Some(runs) = self.runs.as_mut().filter(|runs| count(**runs, now) < time) {
                *runs = (now, time);
            }
        }
    }

    /// The stamp of an entry that is appended now.
    pub(crate) fn stamp(&mut self, now: Moment) -> LogTime {
        if let Some(runs) = self.runs {
            self.reached = self.reached.max(count(runs, now));
        }
        self.reached
    }
}

fn count((since, then): (Moment, LogTime), now: Moment) -> LogTime {
    let passed = now.0.saturating_sub(since.0).as_millis();
    LogTime(then.0.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn time_counts_while_the_node_leads_and_stands_still_otherwise() {
        let mut clock = LogClock::default();
        assert_eq!(clock.stamp(at(5_000)), LogTime(0));
        clock.leads(true, at(6_000));
        assert_eq!(clock.stamp(at(6_500)), LogTime(500));
        clock.leads(false, at(9_000));
        assert_eq!(clock.stamp(at(20_000)), LogTime(500), "what was not stamped did not pass");
        clock.leads(true, at(30_000));
        assert_eq!(clock.stamp(at(30_001)), LogTime(501));
    }

    #[test]
    fn a_new_leader_goes_on_from_what_it_applied() {
        let mut clock = LogClock::default();
        clock.applied(LogTime(70_000), at(1));
        clock.leads(true, at(10));
        assert_eq!(clock.stamp(at(15)), LogTime(70_005));
        clock.applied(LogTime(80_000), at(20));
        assert_eq!(clock.stamp(at(25)), LogTime(80_005), "the rest of the log was applied meanwhile");
        clock.applied(LogTime(80_001), at(30));
        assert_eq!(clock.stamp(at(30)), LogTime(80_010), "its own stamps come back and change nothing");
    }

    #[test]
    fn it_never_goes_back_and_ends_nowhere() {
        let mut clock = LogClock::default();
        clock.applied(LogTime(u64::MAX - 1), at(0));
        clock.leads(true, at(10));
        assert_eq!(clock.stamp(at(100)), LogTime(u64::MAX));
        assert_eq!(clock.stamp(at(5)), LogTime(u64::MAX));
    }

    fn at(ms: u64) -> Moment {
        Moment(Duration::from_millis(ms))
    }
}
