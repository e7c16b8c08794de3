//! The layout of the sessions in a snapshot: a stream before the bytes of the state machine,
//! little-endian.
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | magic: the bytes `QSESSION` |
//! | 4 | version of this layout: 2, or 4 once a tick was applied |
//! | 8 | log time |
//! | 8 | in version 4: the log time that the state machine has reached |
//! | 40 | in version 4: the payload of the last tick |
//! | 4 | number of skipped entries |
//! | … | the skipped entries, in order: the index (8), the term (8), the checksum (4) |
//! | 4 | number of sessions |
//! | … | the sessions, in the order of their tags and keys |
//!
//! and of each session
//!
//! | bytes | what |
//! | --- | --- |
//! | 1 | 1: it was opened, 2: it has a name |
//! | 1 | length of its key |
//! | … | its key: the index of the entry that opened it, or its name |
//! | 8 | the index of the last entry that used it |
//! | 8 | the log time of that entry |
//! | 1 | number of answers |
//! | … | the answers, by serial: the serial (8), the index (8), the length of the reply (4; all ones if it was not kept, one less if the entry was skipped), the reply |
//!
//! Equal tables give equal bytes. The bytes of the state machine follow. The layout has no checksum
//! of its own: the snapshot has one.
//!
//! **Bound:** a length is not trusted: allocations grow only with the bytes read.

use super::{Answer, Kept, SESSIONS_MAX, Session, Table, Ticked, WINDOW};
use quorate_raft::{
    Index, Skip, Term,
    session::{LogTime, SessionKey},
    tick::{TICK_BYTES, Tick},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    io::{self, Error, ErrorKind, Read, Write},
};

const MAGIC: [u8; 8] = *b"QSESSION";
const VERSION: u32 = 2;
const VERSION_WITH_TICK: u32 = 4;
const NOT_KEPT: u32 = u32::MAX;
const SKIPPED: u32 = u32::MAX - 1;

/// Writes `table` in the version of the layout that its content needs.
///
/// # Errors
/// If `to` fails, or a count exceeds its field.
pub fn write(table: &Table, to: &mut dyn Write) -> io::Result<()> {
    to.write_all(&MAGIC)?;
    let version = if table.ticked.is_some() { VERSION_WITH_TICK } else { VERSION };
    to.write_all(&version.to_le_bytes())?;
    to.write_all(&table.now.0.to_le_bytes())?;
    if let Some(Ticked { reached, tick }) = &table.ticked {
        to.write_all(&reached.0.to_le_bytes())?;
        to.write_all(&tick.encode())?;
    }
    to.write_all(&u32::try_from(table.skipped.len()).map_err(too_long)?.to_le_bytes())?;
    for Skip { index, term, checksum } in &table.skipped {
        to.write_all(&index.0.to_le_bytes())?;
        to.write_all(&term.0.to_le_bytes())?;
        to.write_all(&checksum.to_le_bytes())?;
    }
    to.write_all(&u32::try_from(table.sessions.len()).map_err(too_long)?.to_le_bytes())?;
    for (key, session) in &table.sessions {
        // Keys have 64 bytes at most, and windows as many serials.
        key.with_bytes(|tag, key| to.write_all(&[&[tag, key.len() as u8], key].concat()))?;
        to.write_all(&session.used_by.0.to_le_bytes())?;
        to.write_all(&session.used_at.0.to_le_bytes())?;
        to.write_all(&[session.answers.len() as u8])?;
        for (serial, Answer { index, kept }) in &session.answers {
            to.write_all(&serial.to_le_bytes())?;
            to.write_all(&index.0.to_le_bytes())?;
            let (length, reply) = match kept {
                Kept::Reply(reply) => (u32::try_from(reply.len()).map_err(too_long)?, &reply[..]),
                Kept::Nothing => (NOT_KEPT, &[][..]),
                Kept::Skipped => (SKIPPED, &[][..]),
            };
            to.write_all(&length.to_le_bytes())?;
            to.write_all(reply)?;
        }
    }
    Ok(())
}

/// Reads the bytes that [`write`] wrote, and none after them.
///
/// # Errors
/// One line that names the cause and the offset, if `from` fails or the bytes are malformed.
pub fn read(from: &mut dyn Read) -> io::Result<Table> {
    let mut from = Reader { from, at: 0 };
    if from.array()? != MAGIC {
        return Err(invalid(0, "no sessions stand there: another release wrote it"));
    }
    let version = from.u32()?;
    if ![VERSION, VERSION_WITH_TICK].contains(&version) {
        let what = match version < VERSION_WITH_TICK {
            true => format!("layout {version} is of an earlier program: start from a backup that this release made"),
            false => format!(
                "layout {version} is not known here, only {VERSION} and {VERSION_WITH_TICK}: run a newer release"
            ),
        };
        return Err(invalid(8, what));
    }
    let now = LogTime(from.u64()?);
    let ticked = if version == VERSION_WITH_TICK { Some(from.ticked(now)?) } else { None };
    let skipped = from.skipped()?;
    let (at, count) = (from.at, from.u32()?);
    if count > SESSIONS_MAX {
        return Err(invalid(at, format_args!("{count} sessions are more than there can be")));
    }
    let mut table = Table { now, ticked, skipped, ..Table::default() };
    for _ in 0..count {
        let at = from.at;
        let key = from.key()?;
        if table.sessions.last_key_value().is_some_and(|(last, _)| *last >= key) {
            return Err(invalid(at, "the sessions are not in order"));
        }
        let session = from.session(now)?;
        if table.by_use.contains_key(&session.used_by) {
            return Err(invalid(at, format_args!("entry {} used two sessions", session.used_by)));
        }
        table.insert(key, session);
    }
    Ok(table)
}

struct Reader<'a> {
    from: &'a mut dyn Read,
    at: u64,
}

impl Reader<'_> {
    fn ticked(&mut self, now: LogTime) -> io::Result<Ticked> {
        let (at, reached, payload) = (self.at, LogTime(self.u64()?), self.array::<TICK_BYTES>()?);
        let tick = Tick::decode(&payload).map_err(|error| invalid(at + 8, error))?;
        if reached > tick.time || tick.time > now {
            return Err(invalid(at, "the state machine reached a time after the end of log time"));
        }
        Ok(Ticked { reached, tick })
    }

    fn skipped(&mut self) -> io::Result<BTreeSet<Skip>> {
        let mut skipped = BTreeSet::new();
        for _ in 0..self.u32()? {
            let at = self.at;
            let entry = Skip { index: Index(self.u64()?), term: Term(self.u64()?), checksum: self.u32()? };
            if skipped.last().is_some_and(|last| *last >= entry) {
                return Err(invalid(at, "the skipped entries are not in order"));
            }
            skipped.insert(entry);
        }
        Ok(skipped)
    }

    fn key(&mut self) -> io::Result<SessionKey> {
        let (at, [tag, length]) = (self.at, self.array()?);
        let key = self.bytes(u32::from(length))?;
        SessionKey::from_bytes(tag, &key).ok_or_else(|| invalid(at, "that is no session's key"))
    }

    fn session(&mut self, now: LogTime) -> io::Result<Session> {
        let at = self.at;
        let (used_by, used_at, [count]) = (Index(self.u64()?), LogTime(self.u64()?), self.array()?);
        if used_at > now {
            return Err(invalid(at + 8, "a session was used behind the end of log time"));
        }
        let mut session = Session { used_by, used_at, answers: BTreeMap::new(), reply_bytes: 0 };
        for _ in 0..count {
            let (at, serial, index, length) = (self.at, self.u64()?, Index(self.u64()?), self.u32()?);
            if session.answers.last_key_value().is_some_and(|(last, _)| *last >= serial) {
                return Err(invalid(at, "serials are not in order"));
            }
            let lowest = session.answers.first_key_value().map_or(serial, |(lowest, _)| *lowest);
            if serial - lowest >= WINDOW {
                return Err(invalid(at, "serials are further apart than a session remembers"));
            }
            let kept = match length {
                NOT_KEPT => Kept::Nothing,
                SKIPPED => Kept::Skipped,
                _ => Kept::Reply(self.bytes(length)?),
            };
            session.reply_bytes += kept.bytes();
            session.answers.insert(serial, Answer { index, kept });
        }
        Ok(session)
    }

    fn u64(&mut self) -> io::Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn u32(&mut self) -> io::Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.from.read_exact(&mut bytes).map_err(|error| self.ended(error))?;
        self.at += N as u64;
        Ok(bytes)
    }

    fn bytes(&mut self, length: u32) -> io::Result<Box<[u8]>> {
        let mut bytes = Vec::new();
        let read = (&mut *self.from).take(u64::from(length)).read_to_end(&mut bytes)? as u64;
        self.at += read;
        if read < u64::from(length) {
            return Err(self.ended(ErrorKind::UnexpectedEof.into()));
        }
        Ok(bytes.into())
    }

    fn ended(&self, error: Error) -> Error {
        match error.kind() {
            ErrorKind::UnexpectedEof => invalid(self.at, "it ends there, within them"),
            _ => error,
        }
    }
}

fn invalid(at: u64, what: impl fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidData, format!("the sessions can't be restored, offset {at}: {what}"))
}

fn too_long(_: std::num::TryFromIntError) -> Error {
    Error::new(ErrorKind::InvalidInput, "there is more of the sessions than their layout can say")
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_raft::{
        EntryId,
        session::{Request, Stamp},
    };

    #[test]
    fn the_layout_is_the_documented_one() {
        let fields = [
            (0, "51 53 45 53 53 49 4f 4e  02 00 00 00  01 02 03 04 05 06 07 08"), // QSESSION, version, log time
            // skipped entries: how many, index, term
            (20, "02 00 00 00  11 11 00 00 00 00 00 00  02 00 00 00 00 00 00 00"),
            (40, "a1 a2 a3 a4  11 12 13 14 15 16 17 18  03 00 00 00 00 00 00 00"), // checksum, index, term
            (60, "b1 b2 b3 b4  02 00 00 00  01 08"), // checksum, sessions: how many, opened, length of the key
            // key: the entry that opened it, last entry that used it
            (70, "21 22 23 24 25 26 27 28  31 32 33 34 35 36 37 38"),
            (86, "00 01 02 03 04 05 06 07  00"), // log time of that, answers: how many
            // named, length of the key, key, last entry that used it
            (95, "02 04 6e 61 6d 65  32 32 33 34 35 36 37 38"),
            // log time of that, answers: how many, serial
            (109, "01 02 03 04 05 06 07 08  03  41 42 43 44 45 46 47 48"),
            (126, "21 00 00 00 00 00 00 00  02 00 00 00  68 69"), // index, length of the reply, reply
            (140, "42 42 43 44 45 46 47 48  22 00 00 00 00 00 00 00  ff ff ff ff"), // serial, index, not kept
            (160, "43 42 43 44 45 46 47 48  23 00 00 00 00 00 00 00  fe ff ff ff"), // serial, index, skipped
        ];
        let mut expected = Vec::new();
        for (offset, hex) in fields {
            assert_eq!(expected.len(), offset, "no byte is left out");
            expected.extend(hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect("a byte")));
        }

        let mut table = Table { now: LogTime(0x0807_0605_0403_0201), ..Table::default() };
        table.skip(Skip { index: Index(0x1111), term: Term(2), checksum: 0xa4a3_a2a1 });
        table.skip(Skip { index: Index(0x1817_1615_1413_1211), term: Term(3), checksum: 0xb4b3_b2b1 });
        let used_at = LogTime(0x0706_0504_0302_0100);
        let session = Session { used_by: Index(0x3837_3635_3433_3231), used_at, answers: [].into(), reply_bytes: 0 };
        table.insert(SessionKey::opened(Index(0x2827_2625_2423_2221)), session);
        let answer = |index, kept| Answer { index: Index(index), kept };
        let answers = [
            (0x4847_4645_4443_4241, answer(0x21, Kept::Reply(b"hi"[..].into()))),
            (0x4847_4645_4443_4242, answer(0x22, Kept::Nothing)),
            (0x4847_4645_4443_4243, answer(0x23, Kept::Skipped)),
        ];
        let used_by = Index(0x3837_3635_3433_3232);
        let session = Session { used_by, used_at: table.now, answers: answers.into(), reply_bytes: 2 };
        table.insert(SessionKey::named(b"name").expect("a name"), session);
        assert_eq!(written(&table), expected);
        assert_eq!(read(&mut &expected[..]).expect("sessions"), table);
    }

    #[test]
    fn a_written_table_is_read_back_and_nothing_after_it() {
        for table in [Table::default(), some()] {
            let bytes = [&written(&table)[..], b"the machine's"].concat();
            let mut from = &bytes[..];
            assert_eq!(read(&mut from).expect("sessions"), table);
            assert_eq!(from, b"the machine's");
        }
    }

    #[test]
    fn every_cut_is_refused_in_one_line() {
        let good = written(&some());
        (0..good.len()).for_each(|end| refused(&good[..end]));
    }

    #[test]
    fn a_table_with_a_changed_byte_is_refused_or_is_a_table() {
        let good = written(&some());
        for bit in 0..good.len() * 8 {
            let mut damaged = good.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            match read(&mut &damaged[..]) {
                Ok(table) => assert!(damaged.starts_with(&written(&table)), "bit {bit} has two meanings"),
                Err(_) => refused(&damaged),
            }
        }
    }

    #[test]
    fn a_length_that_is_not_there_takes_no_memory() {
        let bytes = written(&some());
        for count in [20..24, 24..28] {
            let mut bytes = bytes.clone();
            bytes[count.clone()].copy_from_slice(&SESSIONS_MAX.to_le_bytes());
            refused(&bytes);
            bytes[count].copy_from_slice(&u32::MAX.to_le_bytes());
            refused(&bytes);
        }
        let mut table = Table::default();
        used(&mut table, 3, b"a", 9, b"hi");
        let mut bytes = written(&table);
        let at = bytes.len() - 6;
        bytes[at..at + 4].copy_from_slice(&(u32::MAX - 2).to_le_bytes());
        refused(&bytes);
    }

    fn refused(bytes: &[u8]) {
        let error = read(&mut &bytes[..]).expect_err("it is damaged");
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert_eq!(error.to_string().lines().count(), 1, "{error}");
    }

    fn some() -> Table {
        let mut table = Table::default();
        table.apply(Index(1), stamp(), &Request::Open, |_| None);
        used(&mut table, 2, b"name", 1, b"");
        used(&mut table, 4, b"name", 3, &[7; 70_000]);
        used(&mut table, 5, b"name", 40, b"another");
        used(&mut table, 9, b"other", u64::MAX, b"x");
        table
    }

    #[test]
    fn once_a_tick_was_applied_the_time_of_the_machine_follows_log_time() {
        let mut table = some();
        let raw = written(&table);
        let tick = Tick { time: LogTime(0x0807_0605_0403_0201), unix_ms: 9, ..Tick::default() };
        table.apply_tick(EntryId::new(Term(1), Index(10)), tick, |_| Some(LogTime(0x0707_0605_0403_0201)));
        let bytes = written(&table);
        assert_eq!(bytes[..20], *b"QSESSION\x04\0\0\0\x01\x02\x03\x04\x05\x06\x07\x08");
        assert_eq!(bytes[20..28], *b"\x01\x02\x03\x04\x05\x06\x07\x07");
        assert_eq!(bytes[28..68], tick.encode());
        assert_eq!(bytes[68..], raw[20..], "all else is as it was");
        assert_eq!(read(&mut &bytes[..]).expect("sessions"), table);
        (0..bytes.len()).for_each(|end| refused(&bytes[..end]));
        let with = |at: usize, byte: u8| {
            let mut bytes = bytes.clone();
            bytes[at] = byte;
            refused(&bytes);
        };
        with(27, 9); // the machine's time is after the tick's
        with(35, 9); // the tick's is after log time
        with(8, 5); // a newer layout
        with(8, 3); // an earlier one
    }

    fn used(table: &mut Table, index: u64, name: &[u8], serial: u64, reply: &[u8]) {
        let key = SessionKey::named(name).expect("a name");
        let request = Request::Command { key, serial, command: b"" };
        table.apply(Index(index), stamp(), &request, |_| Some(bytes::Bytes::copy_from_slice(reply)));
    }

    fn stamp() -> Stamp {
        Stamp { time: LogTime(70), idle_limit_ms: 1_000, sessions_max: 10 }
    }

    fn written(table: &Table) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(table, &mut bytes).expect("memory takes everything");
        bytes
    }
}
