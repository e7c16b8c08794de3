use proptest::prelude::*;
use quorate_raft::{
    internal::{self, Purpose},
    session::LogTime,
    tick::{Bounds, TICK_BYTES, Tick},
};

#[test]
fn the_layout_is_the_documented_one() {
    let tick = Tick {
        time: LogTime(0x0807_0605_0403_0201),
        unix_ms: 0x1817_1615_1413_1211,
        random: [0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28],
        bounds: Bounds {
            history_events: 0x3433_3231,
            history_bytes: 0x4443_4241,
            outbox_effects: 0x5453_5251,
            outbox_bytes: 0x6463_6261,
        },
    };
    let mut expected = Vec::new();
    for (first, count) in [(0x01, 8), (0x11, 8), (0x21, 8), (0x31, 4), (0x41, 4), (0x51, 4), (0x61, 4)] {
        expected.extend(first..first + count);
    }
    assert_eq!(tick.encode()[..], expected);
    assert_eq!(Tick::decode(&expected), Ok(tick));
}

#[test]
fn a_tick_of_another_length_is_refused() {
    let payload = [&Tick::default().encode()[..], &[0]].concat();
    for bytes in (0..=TICK_BYTES + 1).filter(|bytes| *bytes != TICK_BYTES) {
        let malformed = Tick::decode(&payload[..bytes]).expect_err("it is cut off, or goes on");
        assert_eq!((malformed.offset, malformed.what), (bytes.min(TICK_BYTES), "tick"));
    }
}

#[test]
fn an_internal_entry_has_a_known_purpose() {
    for purpose in [Purpose::Done, Purpose::Claim, Purpose::Version, Purpose::Skip, Purpose::Generation] {
        assert_eq!(internal::decode(&[purpose as u8, 7, 8]), Ok((purpose, &[7, 8][..])));
    }
    assert_eq!(internal::generation(0x0403_0201), [5, 1, 2, 3, 4]);
    assert_eq!(internal::decode(&[1]), Ok((Purpose::Done, &[][..])));
    assert!(internal::decode(&[]).is_err());
    for unknown in (0..=u8::MAX).filter(|byte| !(1..=5).contains(byte)) {
        assert!(internal::decode(&[unknown, 0]).is_err(), "{unknown}");
    }
}

proptest! {
    #[test]
    fn every_tick_is_the_one_that_was_encoded(payload in any::<[u8; 32]>(), more in any::<[u8; 8]>()) {
        let payload = [&payload[..], &more].concat();
        let tick = Tick::decode(&payload).expect("40 bytes");
        prop_assert_eq!(&tick.encode()[..], &payload[..]);
    }
}
