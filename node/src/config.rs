//! The numbers that a node runs by, with their bounds. Every default works on a local network.

use crate::error::StartError;
use quorate_raft::ClockDrift;
use std::time::Duration;

/// Intervals and time limits of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Timing {
    /// Interval at which a leader sends heartbeats. Default 50 ms: several fit into an election
    /// timeout, so that one lost heartbeat costs no election.
    pub heartbeat_interval: Duration,
    /// Range of the random time after which a node that hears no leader starts an election. Default
    /// 150 to 300 ms, as in the paper (§9.3). The shorter one is at least twice the heartbeat
    /// interval, and the longer one is longer.
    ///
    /// It is also the time for which this node, as a voter, promises a leader to elect no other:
    /// reads by lease rest on the promises of a quorum. Nodes may have different ones, for example
    /// during a rolling change. After a change to a shorter one, a node that starts keeps the
    /// longer promise once more before it votes.
    pub election_timeout: (Duration, Duration),
    /// The largest drift between the clocks of two nodes. Only reads that ask for a lease rely on
    /// it ([`Consistency::Lease`](crate::Consistency::Lease)): the lease of a leader ends earlier
    /// than the shortest election timeout, which voters promise it, by this drift. Default a tenth
    /// of that and 1 ms: 134 ms of 150 are left. Real clocks differ by less than a thousandth.
    pub clock_drift_max: ClockDrift,
    /// A node neither leads nor asks to once a single write of its disk, or a single command of its
    /// state machine, has taken this long: heartbeats, which need neither, must not hide that the
    /// node is stuck. Default 3 s, and never less than twice the longest election timeout.
    pub stall_limit: Duration,
    /// The time for which the node's thread polls for the next request before it sleeps. Waking a
    /// sleeping thread takes 15 to 50 us; polling occupies a processor. Default zero: the thread
    /// sleeps at once. About 100 us suits a node that has processors of its own and few callers,
    /// each of which waits for its answer.
    pub busy_poll: Duration,
    /// The longest time that a proposal waits for its outcome before the caller is told that it is
    /// unknown. A proposal or read that found no leader to take it is not tried again after this
    /// time, even if another node may lead. Default 5 s.
    pub proposal_timeout: Duration,
    /// The longest time that a proposal or read waits for a leader before it is refused for want
    /// of one. Default zero: four times the longest election timeout, which is a few elections
    /// on any network.
    pub leader_wait: Duration,
    /// The time that a change of the members waits for a new voter to catch up before it is
    /// refused. Default 10 s.
    pub catch_up_wait: Duration,
    /// A learner that has kept up for this time becomes a voter without a request. Default zero:
    /// no learner does.
    pub promote_after: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_millis(50),
            election_timeout: (Duration::from_millis(150), Duration::from_millis(300)),
            clock_drift_max: ClockDrift::default(),
            stall_limit: Duration::from_secs(3),
            busy_poll: Duration::ZERO,
            proposal_timeout: Duration::from_secs(5),
            leader_wait: Duration::ZERO,
            catch_up_wait: Duration::from_secs(10),
            promote_after: Duration::ZERO,
        }
    }
}

impl Timing {
    /// The longest that [`Timing::election_timeout`] may be: a day. Durations computed from it
    /// then cannot overflow.
    pub const ELECTION_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

    /// Replaces a zero that stands for a value derived from another setting.
    pub(crate) fn resolved(self) -> Self {
        let leader_wait = if self.leader_wait.is_zero() { self.election_timeout.1 * 4 } else { self.leader_wait };
        Self { leader_wait, ..self }
    }

    pub(crate) fn check(&self) -> Result<(), StartError> {
        let (min, max) = self.election_timeout;
        if max > Self::ELECTION_TIMEOUT_MAX {
            return Err(StartError::Config(format!(
                "election_timeout ends at {max:?}: lower it to {:?} at most",
                Self::ELECTION_TIMEOUT_MAX
            )));
        }
        if self.heartbeat_interval.is_zero() {
            return Err(StartError::Config("heartbeat_interval is zero: set it to 50 ms, say".into()));
        }
        if min < self.heartbeat_interval.saturating_mul(2) {
            return Err(StartError::Config(format!(
                "election_timeout begins at {min:?}, less than twice heartbeat_interval ({:?}): raise it, or lower the interval",
                self.heartbeat_interval
            )));
        }
        if max <= min {
            return Err(StartError::Config(format!(
                "election_timeout ends at {max:?}, not after its beginning ({min:?}): without spread, elections split for ever"
            )));
        }
        if self.clock_drift_max.surely_within(min).is_zero() {
            return Err(StartError::Config(format!(
                "clock_drift_max is {:?}, which leaves no lease of election_timeout ({min:?}): lower it",
                self.clock_drift_max
            )));
        }
        Ok(())
    }
}

/// Limits on the work that a node accepts. Beyond them a request is refused with an error; no queue
/// grows without bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// The largest command, in bytes, that this node takes from its callers;
    /// commands that other nodes took from theirs are not held to it. Default 1 MiB,
    /// at most [`Limits::COMMAND_BYTES_MAX`].
    pub max_command_bytes: usize,
    /// The most proposals and reads of this node's own callers that wait for an
    /// answer. Default 4,096.
    pub max_in_flight_proposals: usize,
    /// The most bytes of proposals of this node's own callers that wait for an answer, unless a
    /// single one is larger. Default 64 MiB. Proposals that other nodes forward to it have a bound
    /// of their own, of the same size.
    pub max_in_flight_bytes: usize,
    /// The most proposals and reads of one client ([`Node::client`](crate::Node::client)) that wait
    /// for an answer. A client never has more than half of all places, nor of the bytes, so that
    /// there is room for others. Default 2,048.
    pub max_in_flight_per_client: usize,
    /// The most bytes of proposals that go to the disk and the peers as one batch, unless a single
    /// one is larger. Default 1 MiB, at most [`Limits::COMMAND_BYTES_MAX`].
    pub max_batch_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_command_bytes: 1 << 20,
            max_in_flight_proposals: 4096,
            max_in_flight_bytes: 64 << 20,
            max_in_flight_per_client: 2048,
            max_batch_bytes: 1 << 20,
        }
    }
}

impl Limits {
    /// The largest that [`Limits::max_command_bytes`] may be: a command must fit into a frame, with
    /// room to spare.
    pub const COMMAND_BYTES_MAX: usize = 16 << 20;

    /// The most that one client may have in flight: places, and bytes.
    pub(crate) fn of_client(&self) -> (usize, usize) {
        let places = self.max_in_flight_per_client.min(self.max_in_flight_proposals / 2);
        (places.max(1), self.max_in_flight_bytes / 2)
    }

    pub(crate) fn check(&self) -> Result<(), StartError> {
        if self.max_command_bytes > Self::COMMAND_BYTES_MAX {
            return Err(StartError::Config(format!(
                "max_command_bytes is {}: lower it to {} at most, and keep larger values elsewhere",
                self.max_command_bytes,
                Self::COMMAND_BYTES_MAX
            )));
        }
        if self.max_batch_bytes > Self::COMMAND_BYTES_MAX {
            return Err(StartError::Config(format!(
                "max_batch_bytes is {}: lower it to {} at most, for other nodes must be able to read a batch",
                self.max_batch_bytes,
                Self::COMMAND_BYTES_MAX
            )));
        }
        if self.max_in_flight_proposals == 0 {
            return Err(StartError::Config("max_in_flight_proposals is 0: nothing could ever be proposed".into()));
        }
        if self.max_in_flight_per_client == 0 {
            return Err(StartError::Config("max_in_flight_per_client is 0: no client could ever propose".into()));
        }
        Ok(())
    }
}

/// When snapshots are taken, the part of the log that they leave, and the rate at which
/// they are sent.
///
/// They need a state machine that makes them
/// ([`StateMachine::snapshot`](crate::StateMachine::snapshot)); without one, the log is
/// kept in full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Snapshots {
    /// A snapshot is taken once this number of entries was applied since the last one.
    /// Default 10,000; 0 disables this trigger. It bounds the entries that are applied again
    /// after a restart.
    pub every_entries: u64,
    /// A snapshot is taken once this number of bytes of entries was applied since the last one.
    /// Default 64 MiB; 0 disables this trigger. It bounds the disk space of the log.
    pub every_bytes: u64,
    /// The number of entries up to a snapshot's end that log compaction keeps, for followers that
    /// lag a little: sending these entries is cheaper than sending the state. Default 1,000.
    pub keep_entries: u64,
    /// The rate at which a snapshot is sent to each peer, in bytes per second; 0 means as fast as
    /// the peer takes it. Default 32 MiB: it hardly delays other traffic that is encrypted, sent
    /// and written at the same time.
    pub bytes_per_second: u64,
}

impl Default for Snapshots {
    fn default() -> Self {
        Self { every_entries: 10_000, every_bytes: 64 << 20, keep_entries: 1_000, bytes_per_second: 32 << 20 }
    }
}

impl Snapshots {
    /// The least that [`Snapshots::bytes_per_second`] may be, other than 0. At a lower rate, the
    /// log grows without bound while a snapshot is being sent.
    pub const BYTES_PER_SECOND_MIN: u64 = 64 << 10;

    pub(crate) fn check(&self) -> Result<(), StartError> {
        if self.bytes_per_second != 0 && self.bytes_per_second < Self::BYTES_PER_SECOND_MIN {
            return Err(StartError::Config(format!(
                "snapshots.bytes_per_second is {}: set at least {}, or 0 for no limit",
                self.bytes_per_second,
                Self::BYTES_PER_SECOND_MIN
            )));
        }
        Ok(())
    }
}

/// The number of client sessions that are remembered, and the time for which they are. The
/// leader decides: its numbers stand in the entries, so all nodes agree on them even while they
/// are configured differently.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Sessions {
    /// A session that is not used for this time is forgotten. It is measured in log time: the time
    /// that leaders count while they lead. Default 1 hour, at most [`Sessions::IDLE_LIMIT_MAX`].
    pub idle_limit: Duration,
    /// The most sessions that are remembered; beyond it, the least recently used one is forgotten.
    /// Default 10,000, at most [`Sessions::SESSIONS_MAX`]. A session takes some hundred bytes, and
    /// for each of its last 64 commands some dozen and the reply.
    pub max_sessions: u32,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { idle_limit: Duration::from_secs(3600), max_sessions: 10_000 }
    }
}

impl Sessions {
    /// The longest that [`Sessions::idle_limit`] may be: 49 days, the largest value that an
    /// entry can hold.
    pub const IDLE_LIMIT_MAX: Duration = Duration::from_millis(u32::MAX as u64);
    /// The most that [`Sessions::max_sessions`] may be.
    pub const SESSIONS_MAX: u32 = crate::sessions::SESSIONS_MAX;

    pub(crate) fn idle_limit_ms(&self) -> u32 {
        u32::try_from(self.idle_limit.as_millis()).unwrap_or(u32::MAX)
    }

    pub(crate) fn check(&self) -> Result<(), StartError> {
        if self.idle_limit < Duration::from_millis(1) || self.idle_limit > Self::IDLE_LIMIT_MAX {
            return Err(StartError::Config(format!(
                "sessions.idle_limit is {:?}: set it between 1 ms and {:?}",
                self.idle_limit,
                Self::IDLE_LIMIT_MAX
            )));
        }
        if !(1..=Self::SESSIONS_MAX).contains(&self.max_sessions) {
            return Err(StartError::Config(format!(
                "sessions.max_sessions is {}: set it between 1 and {}",
                self.max_sessions,
                Self::SESSIONS_MAX
            )));
        }
        Ok(())
    }
}

/// Setters, with which other crates write a configuration as one expression.
macro_rules! setters {
    ($config:ident { $($set:ident($field:ident: $kind:ty);)+ }) => {
        impl $config {$(
            #[doc = concat!("Sets [`", stringify!($config), "::", stringify!($field), "`].")]
            #[must_use]
            pub fn $set(self, $field: $kind) -> Self {
                Self { $field, ..self }
            }
        )+}
    };
}

setters! { Timing {
    with_heartbeat_interval(heartbeat_interval: Duration);
    with_election_timeout(election_timeout: (Duration, Duration));
    with_clock_drift_max(clock_drift_max: ClockDrift);
    with_stall_limit(stall_limit: Duration);
    with_busy_poll(busy_poll: Duration);
    with_proposal_timeout(proposal_timeout: Duration);
    with_leader_wait(leader_wait: Duration);
    with_catch_up_wait(catch_up_wait: Duration);
    with_promote_after(promote_after: Duration);
} }

setters! { Limits {
    with_max_command_bytes(max_command_bytes: usize);
    with_max_in_flight_proposals(max_in_flight_proposals: usize);
    with_max_in_flight_bytes(max_in_flight_bytes: usize);
    with_max_in_flight_per_client(max_in_flight_per_client: usize);
    with_max_batch_bytes(max_batch_bytes: usize);
} }

setters! { Snapshots {
    with_every_entries(every_entries: u64);
    with_every_bytes(every_bytes: u64);
    with_keep_entries(keep_entries: u64);
    with_bytes_per_second(bytes_per_second: u64);
} }

setters! { Sessions {
    with_idle_limit(idle_limit: Duration);
    with_max_sessions(max_sessions: u32);
} }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_waits_for_a_few_elections_whatever_the_timing() {
        let second = Duration::from_secs(1);
        assert_eq!(Timing::default().resolved().leader_wait, Duration::from_millis(1200));
        let slow = Timing { election_timeout: (second, second * 2), ..Timing::default() };
        assert_eq!(slow.resolved().leader_wait, second * 8);
        assert_eq!(Timing { leader_wait: second, ..slow }.resolved().leader_wait, second, "unless it is set");
    }
}
