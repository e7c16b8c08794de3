//! Patience, measured: how long to wait before dialling again, whom not to listen to for a while, and what not to log
//! again. All of it is bounded by the number of nodes that hold a certificate of the cluster.

use quorate_raft::NodeId;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

/// How long to wait before the next attempt: exponential, with jitter, bounded.
#[derive(Debug, Default)]
pub(super) struct DialBackoff {
    failures: u32,
}

impl DialBackoff {
    /// After the first failure, on average.
    pub(super) const FIRST: Duration = Duration::from_millis(20);
    /// After many.
    pub(super) const LONGEST: Duration = Duration::from_secs(1);

    /// The next pause. `random` lies in `0.0..1.0`, and spreads it from half the full pause to all of it.
    pub(super) fn next(&mut self, random: f64) -> Duration {
        let full = Self::FIRST.saturating_mul(1 << self.failures.min(16)).min(Self::LONGEST);
        self.failures = self.failures.saturating_add(1);
        full.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }

    /// It worked, and went on working.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Doubt about a connection, by looks at regular intervals. It begins when nothing was received between so many looks, and ends only
/// with another measurement of the round trip, which only something new that is acknowledged gives: what the peer sends by itself says
/// nothing of the way there, and the connection's own probes come less and less often. A look that is late counts for nothing: this
/// node was too busy to receive, or stood still.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    received: u64,
    looks: u32,
    /// The measurement when it began.
    since: Option<Duration>,
}

impl Doubt {
    /// Looks at how many datagrams were received so far and at the round trip as measured last; says whether there is doubt.
    pub(super) fn look(&mut self, received: u64, round_trip: Duration, looks_max: u32, is_late: bool) -> bool {
        self.looks = if received == self.received { self.looks.saturating_add(u32::from(!is_late)) } else { 0 };
        self.received = received;
        match self.since {
            Some(since) if round_trip != since => self.since = None,
            None if self.looks >= looks_max => self.since = Some(round_trip),
            _ => {}
        }
        self.since.is_some()
    }

    /// Another connection is looked at from now on.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

/// Peers that sent malformed bytes, and until when they are not listened to.
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

    /// `peer` did it (again).
    pub(super) fn extend(&mut self, peer: NodeId, now: Instant) {
        let before = self.of.get(&peer).filter(|pause| now < pause.until + Self::LONGEST);
        let pause = before.map_or(Self::FIRST, |pause| (pause.pause * 2).min(Self::LONGEST));
        self.of.insert(peer, Pause { until: now + pause, pause });
    }

    /// Whether `peer` is not listened to now.
    pub(super) fn is_refused(&self, peer: NodeId, now: Instant) -> bool {
        self.of.get(&peer).is_some_and(|pause| now < pause.until)
    }
}

/// Lets a line of a kind into the log once in a while, however often there is cause.
#[derive(Debug, Default)]
pub(super) struct LogThrottle {
    kinds: BTreeMap<(&'static str, Option<NodeId>), (Instant, u64)>,
}

impl LogThrottle {
    /// One line of a kind about a peer in this time.
    const EVERY: Duration = Duration::from_secs(10);

    /// Whether to log now; if so, how many lines were kept out since the last.
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
        let mut look = |received, round_trip| doubt.look(received, round_trip, 2, false);
        assert!(!look(5, before) && !look(5, before) && look(5, before));
        assert!(look(6, before), "the peer is heard, and nothing says that it hears this node");
        assert!(!look(7, after) && !look(7, after) && look(7, after));
        doubt.reset();
        assert!(!doubt.look(1, after, 2, false));
        assert!((0..9).all(|_| !doubt.look(1, after, 2, true)), "a node that is late itself doubts nothing");
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
