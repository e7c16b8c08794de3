use quorate_raft::{Snapshot, SnapshotTransfer, SnapshotTransferSettings};
use quorate_world::fixtures::{at, snapshot_of};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::collections::VecDeque;

fn settings() -> SnapshotTransferSettings {
    SnapshotTransferSettings { chunk_bytes: 10, window_bytes: 30, ..SnapshotTransferSettings::default() }
}

fn transfer(bytes: u64) -> SnapshotTransfer {
    SnapshotTransfer::new(at(0), Snapshot { bytes, ..snapshot_of(5, 1) }, settings())
}

/// Sends all that it wants to; returns the offsets.
fn pump(transfer: &mut SnapshotTransfer, now: u64) -> Vec<u64> {
    let mut offsets = Vec::new();
    while let Some((offset, length)) = transfer.want() {
        assert!(transfer.sent(at(now), offset, length));
        offsets.push(offset);
    }
    offsets
}

#[test]
fn it_asks_first_and_goes_on_from_what_is_there() {
    let mut transfer = transfer(100);
    assert_eq!(transfer.want(), None);
    assert!(transfer.tick(at(0)) && !transfer.tick(at(0)), "once");
    transfer.received(at(5), 40);
    assert_eq!(pump(&mut transfer, 5), [40, 50, 60]);
    assert_eq!((transfer.in_flight_bytes(), transfer.want()), (30, None), "no more than the window");
    transfer.received(at(6), 50);
    assert_eq!(pump(&mut transfer, 6), [70]);
}

#[test]
fn a_last_chunk_is_as_long_as_what_is_left_and_a_state_of_nothing_is_only_asked_about() {
    let mut short = transfer(13);
    short.tick(at(0));
    short.received(at(0), 0);
    assert_eq!(short.want(), Some((0, 10)));
    assert!(short.sent(at(0), 0, 10));
    assert_eq!(short.want(), Some((10, 3)));
    let mut nothing = transfer(0);
    assert!(nothing.tick(at(0)));
    nothing.received(at(0), 0);
    assert_eq!(nothing.want(), None);
    assert!(nothing.tick(at(1_000)), "it asks whether it is installed");
}

#[test]
fn an_unwanted_snapshot_is_not_sent() {
    let mut transfer = transfer(100);
    assert!(!transfer.sent(at(0), 0, 10), "it has not asked yet");
    transfer.tick(at(0));
    transfer.received(at(0), 0);
    assert!(!transfer.sent(at(0), 10, 10) && !transfer.sent(at(0), 0, 11) && !transfer.sent(at(0), 0, 0));
    assert!(transfer.sent(at(0), 0, 4), "a reader may have had less");
    assert_eq!(transfer.want(), Some((4, 10)));
}

#[test]
fn a_new_link_loses_what_was_under_way_and_asks() {
    let mut transfer = transfer(100);
    transfer.tick(at(0));
    transfer.received(at(0), 0);
    pump(&mut transfer, 0);
    transfer.received(at(1), 10);
    transfer.link_changed(at(2));
    assert_eq!((transfer.want(), transfer.in_flight_bytes()), (None, 0));
    assert!(transfer.tick(at(2)));
    transfer.received(at(3), 20);
    assert_eq!(pump(&mut transfer, 3), [20, 30, 40], "the second had arrived, the third had not");
}

#[test]
fn a_follower_that_lost_its_part_is_sent_it_again() {
    let mut transfer = transfer(100);
    transfer.tick(at(0));
    transfer.received(at(0), 60);
    pump(&mut transfer, 0);
    transfer.received(at(1), 0);
    assert_eq!((transfer.received_bytes(), pump(&mut transfer, 1)), (0, vec![0, 10, 20]));
}

#[test]
fn silence_is_asked_about_ever_more_rarely() {
    let mut transfer = transfer(100);
    let (mut waits, mut now) = (Vec::new(), 0);
    for _ in 0..6 {
        let since = now;
        while !transfer.tick(at(now)) {
            now += 100;
        }
        waits.push(now - since);
    }
    assert_eq!(waits, [0, 1_000, 2_000, 4_000, 8_000, 10_000], "milliseconds");
    transfer.received(at(now), 10);
    pump(&mut transfer, now);
    assert!(!transfer.tick(at(now + 999)) && transfer.tick(at(now + 1_000)), "an answer ends that");
}

#[test]
fn a_refusal_pauses_it_and_then_it_begins_again() {
    let mut transfer = transfer(100);
    transfer.tick(at(0));
    transfer.received(at(0), 50);
    transfer.refused(at(0));
    transfer.received(at(1), 60);
    transfer.link_changed(at(2));
    assert_eq!((transfer.want(), transfer.tick(at(9_999))), (None, false), "whatever still comes in");
    assert!(transfer.tick(at(10_000)));
    transfer.received(at(10_000), 0);
    assert_eq!(transfer.want(), Some((0, 10)));
}

/// Over any link, with any losses, to a follower that restarts, everything arrives, and never more
/// than a window is in flight.
#[test]
fn it_arrives_over_any_link() {
    for seed in 0..300 {
        let mut random = SmallRng::seed_from_u64(seed);
        let total = random.random_range(0..200);
        let mut transfer = transfer(total);
        let (mut there, mut back): (VecDeque<(u64, u64)>, VecDeque<u64>) = <_>::default();
        let (mut have, mut now, mut done) = (0u64, 0, false);
        let lossy_until = random.random_range(0..60_000);
        while !done {
            now += random.random_range(1..200);
            assert!(now < 400_000, "seed {seed}: it never arrives");
            let lossy = now < lossy_until;
            if transfer.tick(at(now)) {
                there.push_back((0, 0));
            }
            while let Some((offset, length)) = transfer.want() {
                assert!(transfer.sent(at(now), offset, length));
                assert!(transfer.in_flight_bytes() <= 30, "seed {seed}");
                there.push_back((offset, length as u64));
            }
            if lossy && random.random_bool(0.02) {
                (there, back) = <_>::default();
                transfer.link_changed(at(now));
            }
            if lossy && random.random_bool(0.01) {
                have = 0;
            }
            for _ in 0..random.random_range(0..4) {
                let Some((offset, length)) = there.pop_front() else { break };
                if lossy && random.random_bool(0.1) {
                    continue;
                }
                if offset == have {
                    have += length;
                }
                back.push_back(have);
                done |= have == total;
            }
            if let Some(bytes) = back.pop_front().filter(|_| !lossy || random.random_bool(0.9)) {
                transfer.received(at(now), bytes);
            }
        }
    }
}
