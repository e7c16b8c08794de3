//! The properties of the decoders of client sessions, which hold for any bytes.

use bytes::Bytes;
use quorate::sessions::{Table, Verdict, read, write};
use quorate_raft::{
    EntryId, Index, Term,
    session::{self, LogTime, Request, STAMP_BYTES, SessionKey, Stamp},
    tick::Tick,
};
use std::io::ErrorKind;

/// Reads either a session entry, or sessions from a snapshot, which it then lets an entry change.
///
/// If the first byte of an input is 0, the rest is the payload of an entry; else the rest is
/// sessions in the format of a snapshot.
///
/// # Panics
/// If one of these does not hold: an entry that can be read encodes to the same bytes; sessions
/// that can be read encode to the same bytes, up to where they end; unreadable input is refused
/// with one line; and sessions that were read take any entry, apply it at most once, and give
/// its answer again.
pub fn sessions(input: &[u8]) {
    let Some((choice, rest)) = input.split_first() else { return };
    if *choice == 0 {
        if let Ok((stamp, request)) = session::decode(rest) {
            assert_eq!([&stamp.encode()[..], &request.encode()].concat(), rest);
            take(&mut Table::default(), stamp, &request);
        }
        return;
    }
    let mut from = rest;
    let mut table = match read(&mut from) {
        Ok(table) => table,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::InvalidData);
            assert_eq!(error.to_string().lines().count(), 1);
            return;
        }
    };
    let mut written = Vec::new();
    write(&table, &mut written).expect("memory takes everything");
    assert_eq!(written, rest[..rest.len() - from.len()]);
    let stamp = Stamp { time: table.now(), idle_limit_ms: u32::MAX, sessions_max: 3 };
    for name in [&b"a"[..], b"client", &[0; 64]] {
        let key = SessionKey::named(name).expect("a name");
        take(&mut table, stamp, &Request::Command { key, serial: u64::MAX, command: b"x" });
    }
}

/// Applies one entry to the table twice, at two indexes.
fn take(table: &mut Table, stamp: Stamp, request: &Request<'_>) {
    let mut called = 0;
    let mut apply = |index| {
        table.apply(Index(index), stamp, request, |_| {
            called += 1;
            Some(Bytes::from_static(b"reply"))
        })
    };
    // After all indexes that a table can have used, for no log reaches that far.
    let (first, again) = (apply(u64::MAX - 1), apply(u64::MAX));
    assert!(called <= 1);
    if let (Request::Command { .. }, Verdict::Applied { .. }) = (request, &first) {
        assert_eq!(again, first);
    }
}

/// Seed inputs for [`sessions`].
#[must_use]
pub fn session_seeds() -> Vec<Vec<u8>> {
    let stamp = Stamp { time: LogTime(70_000), idle_limit_ms: 3_600_000, sessions_max: 10_000 };
    let command = |key: SessionKey, serial| Request::Command { key, serial, command: b"a command" };
    let named = SessionKey::named(b"client-1").expect("a name");
    let requests =
        [Request::Open, command(SessionKey::opened(Index(1)), 1), command(named.clone(), 7), command(named, 9)];
    let mut table = Table::default();
    let mut seeds = vec![written(&table)];
    for (index, request) in (1..).zip(&requests) {
        seeds.push([&[0], &stamp.encode()[..], &request.encode()].concat());
        table.apply(Index(index), stamp, request, |command| Some(Bytes::copy_from_slice(command)));
        seeds.push(written(&table));
    }
    let tick = Tick { time: LogTime(80_000), unix_ms: 1_700_000_000_000, ..Tick::default() };
    table.apply_tick(EntryId::new(Term(1), Index(5)), tick, |_| Some(LogTime(75_000)));
    seeds.push(written(&table));
    assert!(seeds[1].len() > STAMP_BYTES);
    seeds
}

fn written(table: &Table) -> Vec<u8> {
    let mut bytes = vec![1];
    write(table, &mut bytes).expect("memory takes everything");
    bytes
}
