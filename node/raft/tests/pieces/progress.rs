//! Replication to one peer: in any order of answers, credit returns, and the match index is true.

use proptest::prelude::*;
use quorate_raft::{Credit, Index, Progress, ProgressState};
use quorate_world::fixtures::{at, batch, id};

/// Entries of the leader's log, all of term 1.
const LOG: u64 = 30;

#[derive(Clone, Debug)]
enum Happens {
    /// Send the wanted entries, at most this many; the append gets through, or does not.
    Send {
        entries: u64,
        arrives: bool,
    },
    /// The answer at this fraction of those in flight arrives, perhaps again.
    Answer {
        at: u8,
        stays: bool,
    },
    Time {
        milliseconds: u64,
    },
    Link,
}

proptest! {
    /// Against an honest follower that holds the first `has` entries and loses nothing: in spite of
    /// loss, repetition and reordering, `matched` is never above the follower's last entry, in the
    /// end it has everything, and all credit is back.
    #[test]
    fn replication_recovers_from_any_loss_and_all_credit_returns(has in 0u64..LOG, story in proptest::collection::vec(happens(), 0..120)) {
        let credit = Credit { messages: 3, entries: 7, bytes: 400, ..Credit::default() };
        let (mut progress, mut follower) = (Progress::new(at(0), Index(LOG), credit), Follower { has, answers: Vec::new() });
        let mut now = 0;
        for happens in story {
            match happens {
                Happens::Send { entries, arrives } => { send(&mut progress, &mut follower, now, entries, arrives); }
                Happens::Answer { at: which, stays } => answer(&mut progress, &mut follower, now, which, stays),
                Happens::Time { milliseconds } => { now += milliseconds; progress.tick(at(now)); }
                Happens::Link => progress.link_changed(at(now)),
            }
            prop_assert!(progress.matched().0 <= follower.has);
            prop_assert!(progress.matched() < progress.next());
            // One append may go beyond the credit in bytes, never two.
            prop_assert!(progress.in_flight_bytes() <= 400 + batch(1, 1, 7, 0).bytes().len());
        }
        for _ in 0..200 {
            now += 5_000;
            progress.tick(at(now));
            while send(&mut progress, &mut follower, now, 5, true) {}
            while !follower.answers.is_empty() { answer(&mut progress, &mut follower, now, 0, false); }
        }
        prop_assert_eq!((progress.state(), progress.matched(), progress.lag()), (ProgressState::Replicate, Index(LOG), 0));
        prop_assert_eq!((progress.in_flight_bytes(), progress.want()), (0, None));
    }
}

/// The pauses between retries grow while no append gets through. A follower that is heard again,
/// even if only by the answer to a heartbeat, is sent the entries that it lacks at once.
#[test]
fn a_follower_that_answers_again_after_a_silence_is_sent_what_it_lacks_at_once() {
    let credit = Credit::default();
    let mut progress = Progress::new(at(0), Index(LOG), credit);
    let mut follower = Follower { has: LOG - 10, answers: Vec::new() };
    for now in (0..10_000).step_by(50) {
        progress.tick(at(now));
        send(&mut progress, &mut follower, now, 5, false);
    }
    progress.tick(at(10_000));
    send(&mut progress, &mut follower, 10_000, 5, false);
    assert_eq!(progress.want(), None, "the last probe is under way, and its pause is long");
    assert!(progress.heard(at(10_300)));
    assert!(progress.want().is_some(), "the answer to a heartbeat ends the pause");
    send(&mut progress, &mut follower, 10_300, 5, false);
    // A follower that answers heartbeats but is slow to write gets no more retries for that.
    let mut probes = 0;
    for now in (10_350..20_000).step_by(50) {
        assert!(!progress.heard(at(now)));
        progress.tick(at(now));
        probes += usize::from(send(&mut progress, &mut follower, now, 5, false));
    }
    assert!(probes <= 8, "{probes} probes in 10 s");
}

#[test]
fn one_append_at_a_time_probes_and_credit_bounds_the_rest() {
    let credit = Credit { messages: 2, entries: 100, bytes: 1 << 20, ..Credit::default() };
    let mut progress = Progress::new(at(0), Index(10), credit);
    progress.send(at(0), id(10, 1), None).expect("a probe");
    assert_eq!(progress.want(), None, "one at a time");
    progress.acknowledged(at(0), progress.epoch(), Index(10));
    progress.log_grew(Index(20));
    for first in [11, 12] {
        assert!(progress.send(at(0), id(first - 1, 1), Some(batch(1, first, 1, 0))).is_some());
    }
    assert_eq!(progress.want(), None, "no credit for a third");
    progress.acknowledged(at(0), progress.epoch(), Index(12));
    assert_eq!(progress.want().map(|want| want.from), Some(Index(13)), "one answer may free both");
}

#[test]
fn an_acknowledgement_of_what_does_not_exist_moves_nothing() {
    let mut progress = Progress::new(at(0), Index(5), Credit::default());
    progress.send(at(0), id(5, 1), None).expect("a probe");
    assert_eq!(progress.acknowledged(at(0), progress.epoch(), Index(6)), None);
    assert_eq!((progress.state(), progress.next()), (ProgressState::Probe, Index(6)));
}

#[test]
fn the_follower_s_end_bounds_the_next_probe() {
    let mut progress = Progress::new(at(0), Index(100), Credit::default());
    progress.send(at(0), id(100, 1), None).expect("a probe");
    progress.rejected(at(0), progress.epoch(), Index(100), Index(100), Index(40));
    assert_eq!(progress.next(), Index(41));
}

/// Matched up to here; or lacks the first index and ends at the second.
type Answer = Result<u64, (u64, u64)>;

struct Follower {
    has: u64,
    answers: Vec<(u64, Answer)>,
}

fn send(progress: &mut Progress, follower: &mut Follower, now: u64, entries: u64, arrives: bool) -> bool {
    let Some(want) = progress.want() else { return false };
    let previous = want.from.0 - 1;
    let count = entries.min(LOG - previous);
    let batch = (count > 0).then(|| batch(1, want.from.0, count, 0));
    let Some(sent) = progress.send(at(now), id(previous, 1), batch) else { return false };
    if arrives && previous <= follower.has {
        follower.has = follower.has.max(previous + count);
        follower.answers.push((sent.epoch, Ok(previous + count)));
    } else if arrives {
        follower.answers.push((sent.epoch, Err((previous, follower.has))));
    }
    true
}

fn answer(progress: &mut Progress, follower: &mut Follower, now: u64, which: u8, stays: bool) {
    if follower.answers.is_empty() {
        return;
    }
    let which = usize::from(which) * follower.answers.len() / 256;
    let (epoch, outcome) = if stays { follower.answers[which] } else { follower.answers.remove(which) };
    match outcome {
        Ok(matched) => progress.acknowledged(at(now), epoch, Index(matched)),
        // All of one term: the leader's log only says that they may agree up to its end.
        Err((previous, last)) => progress.rejected(at(now), epoch, Index(previous), Index(LOG + 1), Index(last)),
    };
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        5 => (1u64..8, any::<bool>()).prop_map(|(entries, arrives)| Happens::Send { entries, arrives }),
        5 => (any::<u8>(), proptest::bool::weighted(0.2)).prop_map(|(at, stays)| Happens::Answer { at, stays }),
        2 => (1u64..400).prop_map(|milliseconds| Happens::Time { milliseconds }),
        1 => Just(Happens::Link),
    ]
}
