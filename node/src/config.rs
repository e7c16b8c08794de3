//! The numbers that a node runs by. Every default works on a local network.

use crate::error::StartError;
use quorate_raft::ClockDrift;
use std::time::Duration;

/// When things happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// How often a leader says that it leads. Default 50 ms: several fit into an election timeout, so that a lost one
    /// does not cost an election.
    pub heartbeat_interval: Duration,
    /// A node that hears no leader for a random time between these two starts an election. Default 150 to 300 ms, as in
    /// the paper (§9.3). The shorter one must be at least twice the heartbeat interval, and the longer one longer. It is also how long
    /// this node, as a voter, promises a leader not to elect another: reads by lease rest on the promises of a quorum. Nodes may have
    /// different ones, for example during a rolling change; after a change to a shorter one, a node that starts keeps the longer promise
    /// once more before it votes.
    pub election_timeout: (Duration, Duration),
    /// How far the clocks of two nodes may drift apart. A leader's lease, which only reads that ask for it rely on
    /// ([`Consistency::Lease`](crate::Consistency::Lease)), ends so much before the shortest election timeout, which voters promise
    /// it. Default a tenth of that and 1 ms: 134 ms of 150 are left. Real clocks differ by less than a thousandth.
    pub clock_drift_max: ClockDrift,
    /// A node whose disk has been at one write, or whose state machine has been at one command, for this long neither leads nor
    /// asks to: heartbeats, which need neither, must not hide that it is stuck. Default 3 s, and never less than twice the longest election timeout.
    pub stall_limit: Duration,
    /// For how long after a request the node's thread looks for the next one before it sleeps. Waking a sleeping thread
    /// takes 15 to 50 us; looking costs a processor. Default zero: sleep at once. Something like 100 us suits a node with
    /// processors of its own whose few callers wait for each answer.
    pub busy_poll: Duration,
    /// How long a proposal may wait for its outcome before the caller is told that it is unknown; and after how long a
    /// proposal or read that found no leader to take it is not tried again, though another may lead. Default 5 s.
    pub proposal_timeout: Duration,
    /// How long a proposal or read may wait for somebody to lead before the caller is told that nobody does. Default zero: four times
    /// the longest election timeout, which is a few elections on any network.
    pub leader_wait: Duration,
    /// How long a change of the members waits for a new voter to catch up before it is refused. Default 10 s.
    pub catch_up_wait: Duration,
    /// A learner that has kept up for so long votes from then on, without being asked for. Default zero: never.
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
    /// The longest that [`Timing::election_timeout`] may be: a day. What is computed from it stays within what a duration can say.
    pub const ELECTION_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

    /// With a number in the place of each that follows from another.
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

/// How much a node takes on. Beyond it the answer is an error, never a growing queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The largest command, in bytes, that this node takes from its callers; what other nodes took from theirs it takes as well.
    /// Default 1 MiB, at most [`Limits::COMMAND_BYTES_MAX`].
    pub max_command_bytes: usize,
    /// The most proposals and reads of this node's own callers that wait for an answer. Default 4,096.
    pub max_in_flight_proposals: usize,
    /// The most bytes of proposals of this node's own callers that wait for an answer, unless a single one is larger. Default
    /// 64 MiB. What other nodes forward to it is bounded by as much again.
    pub max_in_flight_bytes: usize,
    /// The most proposals and reads of one client ([`Node::client`](crate::Node::client)) that wait for an answer, and in any case
    /// no more than half of all, nor of the bytes, so that there is room for others. Default 2,048.
    pub max_in_flight_per_client: usize,
    /// The most bytes of proposals that go to the disk and the peers as one batch, unless a single one is larger.
    /// Default 1 MiB, at most [`Limits::COMMAND_BYTES_MAX`].
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
    /// The largest that [`Limits::max_command_bytes`] may be: a command must fit into a frame, with room to spare.
    pub const COMMAND_BYTES_MAX: usize = 16 << 20;

    /// What one client may have in flight: places, and bytes.
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

/// When snapshots are taken, what they leave of the log, and how fast they are sent.
///
/// They need a state machine that makes them ([`StateMachine::snapshot`](crate::StateMachine::snapshot)); without, the log
/// is kept in full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Snapshots {
    /// A snapshot is taken when so many entries were applied since the last one. Default 10,000; 0 never does. It bounds how
    /// much is applied again after a restart.
    pub every_entries: u64,
    /// A snapshot is taken when so many bytes of entries were applied since the last one. Default 64 MiB; 0 never does. It
    /// bounds what the log takes of the disk.
    pub every_bytes: u64,
    /// So many entries before a snapshot's end stay in the log, for followers that are only a little behind: sending them
    /// is cheaper than sending the state. Default 1,000.
    pub keep_entries: u64,
    /// The most bytes a second that a snapshot is sent with, to each peer; 0: as fast as the peer takes it. Default 32 MiB: what
    /// is encrypted, sent and written beside them is hardly delayed then.
    pub bytes_per_second: u64,
}

impl Default for Snapshots {
    fn default() -> Self {
        Self { every_entries: 10_000, every_bytes: 64 << 20, keep_entries: 1_000, bytes_per_second: 32 << 20 }
    }
}

impl Snapshots {
    /// The least that [`Snapshots::bytes_per_second`] may be, but for 0. Slower than that, the log grows without end while a
    /// snapshot is on its way.
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

/// How many client sessions are remembered, and for how long. Whoever leads decides: its numbers stand in the entries, so all nodes
/// agree on them even while they are configured differently.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sessions {
    /// A session that is not used for so long is forgotten. It is measured in log time: the time that leaders count while they
    /// lead. Default 1 hour, at most [`Sessions::IDLE_LIMIT_MAX`].
    pub idle_limit: Duration,
    /// So many sessions there may be; beyond it the one is forgotten that was not used for longest. Default 10,000, at most
    /// [`Sessions::SESSIONS_MAX`]. A session takes some hundred bytes, and for each of its last 64 commands some dozen and the
    /// reply.
    pub max_sessions: u32,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { idle_limit: Duration::from_secs(3600), max_sessions: 10_000 }
    }
}

impl Sessions {
    /// The longest that [`Sessions::idle_limit`] may be: 49 days, which is what an entry can say.
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
