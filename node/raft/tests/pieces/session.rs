use proptest::prelude::*;
use quorate_raft::{
    Index,
    session::{self, LogTime, NAME_BYTES_MAX, REQUEST_OVERHEAD_BYTES, Request, STAMP_BYTES, SessionKey, Stamp},
};

const STAMP: Stamp = Stamp { time: LogTime(0x0102_0304_0506_0708), idle_limit_ms: 3_600_000, sessions_max: 10_000 };

#[test]
fn the_layout_is_the_documented_one() {
    let key = SessionKey::named(b"ab").expect("a name");
    let payload = stamped(STAMP, &Request::Command { key, serial: 9, command: b"xyz" });
    let mut expected = vec![8, 7, 6, 5, 4, 3, 2, 1];
    expected.extend(3_600_000u32.to_le_bytes());
    expected.extend(10_000u32.to_le_bytes());
    expected.extend([2, 2, 9, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend(b"abxyz");
    assert_eq!(payload, expected);
    assert_eq!(stamped(STAMP, &Request::Open)[STAMP_BYTES..], [0; 10]);
}

#[test]
fn a_name_has_1_to_64_bytes_and_is_no_opened_session() {
    assert_eq!(SessionKey::named(b""), None);
    assert_eq!(SessionKey::named(&[b'x'; NAME_BYTES_MAX + 1]), None);
    let (named, opened) = (SessionKey::named(&7u64.to_le_bytes()).expect("a name"), SessionKey::opened(Index(7)));
    assert!(opened.is_opened() && !named.is_opened());
    assert_ne!(named, opened);
}

#[test]
fn malformed_session_entries_are_refused() {
    let key = SessionKey::named(b"name").expect("a name");
    let good = stamped(STAMP, &Request::Command { key, serial: 1, command: b"" });
    for end in 0..good.len() {
        assert!(session::decode(&good[..end]).is_err(), "cut off at {end}");
    }
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        session::decode(&bytes).is_err()
    };
    assert!(with(16, 0), "an opening has no key");
    assert!(with(16, 1), "an opened session's key has 8 bytes");
    assert!(with(16, 3), "there is no such tag");
    assert!(with(17, 0), "a name is not empty");
    assert!(with(17, 65), "a name is no longer than that");
    let opening = stamped(STAMP, &Request::Open);
    assert!(session::decode(&opening).is_ok());
    assert!(session::decode(&[&opening[..], &[0]].concat()).is_err(), "an opening has no command");
}

proptest! {
    #[test]
    fn decoding_returns_the_encoded_values(
        (time, idle_limit_ms, sessions_max) in any::<(u64, u32, u32)>(),
        name in proptest::collection::vec(any::<u8>(), 0..=NAME_BYTES_MAX),
        (opened, serial) in any::<(u64, u64)>(),
        command in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let stamp = Stamp { time: LogTime(time), idle_limit_ms, sessions_max };
        let key = SessionKey::named(&name).unwrap_or(SessionKey::opened(Index(opened)));
        let request = Request::Command { key, serial, command: &command };
        prop_assert!(request.encode().len() <= command.len() + REQUEST_OVERHEAD_BYTES);
        for request in [request, Request::Open] {
            let payload = stamped(stamp, &request);
            prop_assert_eq!(session::decode(&payload), Ok((stamp, request)));
        }
    }

    #[test]
    fn every_decoded_session_request_has_this_layout(bytes in proptest::collection::vec(0u8..70, 0..120)) {
        if let Ok((stamp, request)) = session::decode(&bytes) {
            prop_assert_eq!(stamped(stamp, &request), bytes);
        }
    }
}

fn stamped(stamp: Stamp, request: &Request<'_>) -> Vec<u8> {
    [&stamp.encode()[..], &request.encode()].concat()
}
