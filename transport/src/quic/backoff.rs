//! Backoff: pauses between dials, refusal of peers that sent malformed bytes, doubt about silent
//! connections, and a throttle for log lines. All of it is bounded by the number of nodes that hold
//! a certificate of the cluster.

use quorate_raft::NodeId;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

/// The pause before the next dial: exponential, with jitter, bounded.
#[derive(Debug, Default)]
pub(super) struct DialBackoff {
    failures: u32,
}

impl DialBackoff {
    /// The full pause after the first failure; jitter takes up to half of it away.
    pub(super) const FIRST: Duration = Duration::from_millis(20);
    /// The bound of a full pause.
    pub(super) const LONGEST: Duration = Duration::from_secs(1);

    /// The next pause. `random`, in `0.0..1.0`, spreads it from half the full pause to all of it.
    pub(super) fn next(&mut self, random: f64) -> Duration {
        let full = Self::FIRST.saturating_mul(1 << self.failures.min(16)).min(Self::LONGEST);
        self.failures = self.failures.saturating_add(1);
        full.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }

    /// A connection lasted: the next pause is the first one again.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// What a connection received, and sent that asks for an answer, at a look.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    pub(super) received: u64,
    pub(super) asked: u64,
}

/// The looks at a connection that found something unanswered: since the last datagram arrived,
/// something was sent that asks for an acknowledgement. An idle connection is quiet and not silent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Silence {
    /// At the last look that found a datagram.
    heard: Traffic,
    pub(super) looks: u32,
}

impl Silence {
    /// Takes the traffic up to now. A look that `is_late` does not count.
    pub(super) fn look(&mut self, now: Traffic, is_late: bool) {
        if now.received != self.heard.received {
            *self = Self { heard: now, looks: 0 };
        } else if now.asked != self.heard.asked && !is_late {
            self.looks = self.looks.saturating_add(1);
        }
    }
}

/// Doubt about a connection, by looks at regular intervals. It begins when `looks_max` looks found
/// [`Silence`]. It ends only with a new measurement of the round trip, which requires
/// an acknowledgement: packets that the peer sends by itself prove nothing about the way there. A
/// late look does not count: this node was too busy to receive, or suspended.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    silence: Silence,
    /// The measurement of the round trip when the doubt began.
    since: Option<Duration>,
}

impl Doubt {
    /// Takes the connection's traffic and the last measurement of the round trip; says whether there
    /// is doubt.
    pub(super) fn look(&mut self, traffic: Traffic, round_trip: Duration, looks_max: u32, is_late: bool) -> bool {
        self.silence.look(traffic, is_late);
        match self.since {
            Some(since) if round_trip != since => self.since = None,
            None if self.silence.looks >= looks_max => self.since = Some(round_trip),
            _ => {}
        }
        self.since.is_some()
    }

    /// Begins anew, for another connection.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

/// Peers that sent malformed bytes, each refused for a pause that doubles if it does so again.
#[derive(Debug, Default)]
pub(super) struct PeerBackoff {
    of: BTreeMap<NodeId, Pause>,
}

#[derive(Debug)]
struct Pause {
    until: Instant,
    pause: Duration,
}

impl PeerBackoff {
    const FIRST: Duration = Duration::from_millis(200);
    const LONGEST: Duration = Duration::from_secs(10);

    /// Refuses `peer` after malformed bytes: for the first pause, or twice the last one if that
    /// ended less than [`PeerBackoff::LONGEST`] ago.
    pub(super) fn extend(&mut self, peer: NodeId, now: Instant) {
        let before = self.of.get(&peer).filter(|pause| now < pause.until + Self::LONGEST);
        let pause = before.map_or(Self::FIRST, |pause| (pause.pause * 2).min(Self::LONGEST));
        self.of.insert(peer, Pause { until: now + pause, pause });
    }

    /// Whether connections of `peer` are refused now.
    pub(super) fn is_refused(&self, peer: NodeId, now: Instant) -> bool {
        self.of.get(&peer).is_some_and(|pause| now < pause.until)
    }
}

/// Limits the log to one line of a kind about a peer in [`LogThrottle::EVERY`].
#[derive(Debug, Default)]
pub(super) struct LogThrottle {
    kinds: BTreeMap<(&'static str, Option<NodeId>), (Instant, u64)>,
}

impl LogThrottle {
    /// The interval between two lines of a kind about a peer.
    const EVERY: Duration = Duration::from_secs(10);

    /// The number of lines suppressed since the last one, if a line may be logged now.
    pub(super) fn may_log(&mut self, kind: &'static str, peer: Option<NodeId>, now: Instant) -> Option<u64> {
        match self.kinds.get_mut(&(kind, peer)) {
            Some((last, kept_out)) if now < *last + Self::EVERY => {
                *kept_out += 1;
                None
            }
            logged => {
                let kept_out = logged.map_or(0, |(_, kept_out)| *kept_out);
                self.kinds.insert((kind, peer), (now, 0));
                Some(kept_out)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: NodeId = NodeId(2);

    #[test]
    fn pauses_grow_to_a_bound_and_a_success_ends_them() {
        let mut backoff = DialBackoff::default();
        let pauses: Vec<_> = (0..40).map(|_| backoff.next(1.0)).collect();
        assert_eq!(pauses[0], DialBackoff::FIRST);
        assert!(pauses.is_sorted());
        assert_eq!(pauses[39], DialBackoff::LONGEST);
        backoff.reset();
        assert_eq!(backoff.next(1.0), DialBackoff::FIRST);
    }

    #[test]
    fn jitter_never_makes_a_pause_shorter_than_half() {
        for random in [0.0, 0.3, 0.999] {
            let pause = DialBackoff::default().next(random);
            assert!(pause >= DialBackoff::FIRST / 2 && pause <= DialBackoff::FIRST);
        }
    }

    #[test]
    fn doubt_begins_with_silence_and_ends_with_an_acknowledgement_alone() {
        let (mut doubt, before, after) = (Doubt::default(), Duration::from_millis(1), Duration::from_millis(2));
        let mut asked = 0;
        let mut look = |received, round_trip| {
            asked += 1;
            doubt.look(Traffic { received, asked }, round_trip, 2, false)
        };
        assert!(!look(5, before) && !look(5, before) && look(5, before));
        assert!(look(6, before), "the peer is heard, and nothing says that it hears this node");
        assert!(!look(7, after) && !look(7, after) && look(7, after));
        doubt.reset();
        assert!(!doubt.look(Traffic { received: 1, asked: 0 }, after, 2, false));
        let late = Traffic { received: 1, asked: 1 };
        assert!((0..9).all(|_| !doubt.look(late, after, 2, true)), "a node that is late itself doubts nothing");
    }

    #[test]
    fn a_connection_that_asks_for_nothing_is_not_silent_and_one_that_gets_no_answer_is() {
        let (mut silence, mut looks) = (Silence::default(), Vec::new());
        for (received, asked) in [(1, 0), (1, 0), (1, 0), (1, 1), (1, 1), (1, 2), (2, 2), (2, 2), (2, 3)] {
            silence.look(Traffic { received, asked }, false);
            looks.push(silence.looks);
        }
        assert_eq!(looks, [0, 0, 0, 1, 2, 3, 0, 0, 1]);
    }

    #[test]
    fn an_offender_is_blocked_for_longer_each_time() {
        let (mut backoff, start) = (PeerBackoff::default(), Instant::now());
        backoff.extend(PEER, start);
        assert!(backoff.is_refused(PEER, start));
        assert!(!backoff.is_refused(PEER, start + PeerBackoff::FIRST));
        backoff.extend(PEER, start + PeerBackoff::FIRST);
        assert!(backoff.is_refused(PEER, start + PeerBackoff::FIRST * 2));
        assert!(!backoff.is_refused(NodeId(3), start));
    }

    #[test]
    fn a_hammering_peer_gets_one_line_and_the_next_tells_how_many_it_stands_for() {
        let (mut log_throttle, start) = (LogThrottle::default(), Instant::now());
        assert_eq!(log_throttle.may_log("refused", None, start), Some(0));
        for _ in 0..1000 {
            assert_eq!(log_throttle.may_log("refused", None, start), None);
        }
        assert_eq!(log_throttle.may_log("refused", Some(PEER), start), Some(0));
        assert_eq!(log_throttle.may_log("refused", None, start + LogThrottle::EVERY), Some(1000));
    }
}
