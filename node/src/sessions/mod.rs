//! The client sessions that the cluster remembers for duplicate detection: a command that is sent
//! again is applied once (Ongaro's thesis, §6.3).
//!
//! A [`Table`] is a part of the replicated state: it changes with entries and with nothing else, so
//! nodes that have applied the same entries have equal tables. The
//! `Applier` owns it, beside the state machine, which never sees it. The
//! table has no clock: its time is the [`LogTime`] that entries carry, which the leader counts with
//! the `LogClock`. Entries carry the bounds, too. It also keeps the last tick, and the time that
//! the state machine has reached, which ticks alone move on: a stamp of a session must not pass by
//! what is due. The layout in snapshots is in `snapshot`.
//!
//! - A serial that was applied gets its first answer again. The machine is not called.
//! - A serial that is `WINDOW` or more below the highest of the session gets no answer: it may
//!   have been applied long ago. Nor does a serial with a reply that was dropped, because replies
//!   took too many bytes. Neither is applied.
//! - A command of an opened session that is no longer known is not applied. A named session begins
//!   with its first command, and begins again with the first command after it has ended.
//! - A session ends once it has been idle for the idle limit. If there are too many, the one that
//!   has been idle for longest ends. The bytes of replies end no session: a named one would begin
//!   again, and apply a repeated command twice.

mod clock;
mod snapshot;
#[cfg(test)]
mod tests;

pub(crate) use clock::LogClock;
pub use snapshot::{read, write};

use crate::machine::At;
use bytes::Bytes;
use quorate_raft::{
    EntryId, Index, Skip,
    session::{LogTime, Request, SessionKey, Stamp},
    tick::Tick,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The number of serials, counted down from the highest used, that a session remembers; this bounds
/// the commands of a session that may be under way.
pub(crate) const WINDOW: u64 = 64;
/// The most bytes of answers that a session keeps, unless the latest answer is larger. The answers
/// to the lowest serials go first.
const SESSION_REPLY_BYTES_MAX: usize = 64 << 10;
/// The most bytes of answers that all sessions keep together, unless the latest answer is larger.
/// The answers of the sessions that have been idle for longest go first.
const REPLY_BYTES_MAX: usize = 64 << 20;
/// The most sessions, even if an entry carries a higher bound.
pub(crate) const SESSIONS_MAX: u32 = 1_000_000;

/// All sessions. Cloning is cheap: clones share the sessions that neither of them changes.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Table {
    now: LogTime,
    ticked: Option<Ticked>,
    sessions: BTreeMap<SessionKey, Arc<Session>>,
    /// The session for which an entry is the latest use. The first of these sessions has been
    /// idle for longest.
    by_use: BTreeMap<Index, SessionKey>,
    /// Those of `by_use` with a session that keeps bytes of replies.
    with_replies: BTreeSet<Index>,
    reply_bytes: usize,
    /// Every entry that was ever skipped; snapshots contain them.
    skipped: BTreeSet<Skip>,
    expired: Expired,
}

/// The sessions that ended since the node last asked, for its metrics: no part of the replicated
/// state, so any two are equal.
#[derive(Clone, Default, Debug)]
struct Expired(u64);

impl PartialEq for Expired {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Expired {}

/// The last tick, and the time of the state machine: earlier than the tick's while the machine has
/// left a part of what is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Ticked {
    reached: LogTime,
    tick: Tick,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Session {
    /// The last entry that used it, and the log time of that use.
    used_by: Index,
    used_at: LogTime,
    /// The answers by serial, within the window.
    answers: BTreeMap<u64, Answer>,
    reply_bytes: usize,
}

/// The first answer to a serial.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Answer {
    index: Index,
    kept: Kept,
}

/// The part of an answer that is kept.
#[derive(Clone, PartialEq, Eq)]
enum Kept {
    /// The reply of the machine.
    Reply(Box<[u8]>),
    /// The reply was dropped: the bound on the bytes was exceeded.
    Nothing,
    /// The machine was not asked: an operator had the entry skipped.
    Skipped,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Reply(reply) => write!(f, "Reply({} B)", reply.len()),
            Self::Nothing => f.write_str("Nothing"),
            Self::Skipped => f.write_str("Skipped"),
        }
    }
}

impl Kept {
    fn bytes(&self) -> usize {
        match self {
            Self::Reply(reply) => reply.len(),
            Self::Nothing | Self::Skipped => 0,
        }
    }
}

/// The result of the entry of a session.
#[derive(Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It was applied now or before, or opened the session of its index: at `index`,
    /// with this reply.
    Applied {
        /// The entry that applied it, or opened the session.
        index: Index,
        /// The reply of the machine; empty for a session that was opened.
        reply: Bytes,
    },
    /// It was not applied, for this reason.
    Refused(Refusal),
}

impl std::fmt::Debug for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Applied { index, reply } => write!(f, "Applied({} B, by entry {index})", reply.len()),
            Self::Refused(refusal) => write!(f, "Refused({refusal:?})"),
        }
    }
}

/// Why a command of a session was not applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Its session was opened, and is no longer known.
    Expired,
    /// Its serial is below the window of the session, or its answer was not kept.
    StaleSerial,
    /// An operator had its entry skipped. Also of a command without a session.
    Skipped,
}

impl Table {
    /// Applies the entry at `index`. `machine` is called if its command is to be applied, and
    /// returns `None` if the entry is skipped. The session remembers that like a reply, so that a
    /// command that is sent again is skipped, too.
    pub fn apply(
        &mut self,
        index: Index,
        stamp: Stamp,
        request: &Request<'_>,
        machine: impl FnOnce(&[u8]) -> Option<Bytes>,
    ) -> Verdict {
        self.now = self.now.max(stamp.time);
        self.expire(stamp.idle_limit_ms);
        let verdict = match request {
            Request::Open => {
                self.begin(SessionKey::opened(index), index);
                Verdict::Applied { index, reply: Bytes::new() }
            }
            Request::Command { key, serial, command } => {
                let is_known = self.sessions.contains_key(key);
                if !is_known && !key.is_opened() {
                    self.begin(key.clone(), index);
                }
                self.use_one(key, *serial, index, || machine(command))
            }
        };
        self.make_room(stamp.sessions_max, index);
        verdict
    }

    /// The highest log time that an applied entry states.
    #[must_use]
    pub fn now(&self) -> LogTime {
        self.now
    }

    /// The last tick that was applied.
    pub(crate) fn tick(&self) -> Option<&Tick> {
        self.ticked.as_ref().map(|ticked| &ticked.tick)
    }

    /// The position and time of an entry that the state machine applies now.
    pub(crate) fn at(&self, EntryId { term, index }: EntryId) -> At {
        let time = self.ticked.map_or(LogTime(0), |ticked| ticked.reached);
        At { index, term, time, unix_ms: self.tick().map_or(0, |tick| tick.unix_ms), version: 0 }
    }

    /// Applies a tick: `machine` does what is due, and returns the time by which it wants the next
    /// one. If that is not later, the machine left a part, and its time stops there.
    pub fn apply_tick(&mut self, id: EntryId, tick: Tick, machine: impl FnOnce(&At) -> Option<LogTime>) {
        let before = self.ticked.map_or(LogTime(0), |ticked| ticked.reached);
        let reached = before.max(tick.time);
        self.now = self.now.max(tick.time);
        self.ticked = Some(Ticked { reached, tick });
        let next_due = machine(&self.at(id));
        if let Some(ticked) = &mut self.ticked {
            ticked.reached = next_due.map_or(reached, |due| due.clamp(before, reached));
        }
    }

    /// Records that this entry is skipped.
    pub(crate) fn skip(&mut self, entry: Skip) {
        self.skipped.insert(entry);
    }

    /// Every entry that was ever skipped.
    pub(crate) fn skipped(&self) -> &BTreeSet<Skip> {
        &self.skipped
    }

    /// The number of sessions.
    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// The number of sessions that ended since this was last asked.
    pub(crate) fn take_expired(&mut self) -> u64 {
        std::mem::take(&mut self.expired.0)
    }

    fn begin(&mut self, key: SessionKey, index: Index) {
        let session = Session { used_by: index, used_at: self.now, answers: BTreeMap::new(), reply_bytes: 0 };
        self.insert(key, session);
    }

    fn insert(&mut self, key: SessionKey, session: Session) {
        self.by_use.insert(session.used_by, key.clone());
        if session.reply_bytes > 0 {
            self.with_replies.insert(session.used_by);
        }
        self.reply_bytes += session.reply_bytes;
        self.sessions.insert(key, Arc::new(session));
    }

    /// Looks the command up in its session and marks the session as used by the entry at `index`.
    fn use_one(
        &mut self,
        key: &SessionKey,
        serial: u64,
        index: Index,
        machine: impl FnOnce() -> Option<Bytes>,
    ) -> Verdict {
        let Some(session) = self.sessions.get_mut(key) else { return Verdict::Refused(Refusal::Expired) };
        let session = Arc::make_mut(session);
        if let Some(key) = self.by_use.remove(&session.used_by) {
            self.by_use.insert(index, key);
        }
        self.with_replies.remove(&session.used_by);
        (session.used_by, session.used_at) = (index, self.now);
        let before = session.reply_bytes;
        let verdict = session.answer(serial, index, machine);
        self.reply_bytes = self.reply_bytes - before + session.reply_bytes;
        if session.reply_bytes > 0 {
            self.with_replies.insert(index);
        }
        verdict
    }

    /// Ends the sessions that have been idle for longer than the limit.
    fn expire(&mut self, idle_limit_ms: u32) {
        let used_since = self.now.0.saturating_sub(u64::from(idle_limit_ms));
        while let Some((_, key)) = self.by_use.first_key_value() {
            match self.sessions.get(key) {
                Some(session) if session.used_at.0 >= used_since => break,
                _ => self.forget_first(),
            }
        }
    }

    /// Ends the sessions that have been idle for longest until the bound on their number holds,
    /// then drops the replies of those that have been idle for longest until the bound on the bytes
    /// holds; never of the session that this entry used.
    fn make_room(&mut self, sessions_max: u32, index: Index) {
        let max = sessions_max.clamp(1, SESSIONS_MAX);
        while self.sessions.len() > max as usize {
            if self.by_use.first_key_value().is_none_or(|(first, _)| *first == index) {
                break;
            }
            self.forget_first();
        }
        while self.reply_bytes > REPLY_BYTES_MAX
            && let Some(first) = self.with_replies.first().copied().filter(|first| *first != index)
        {
            self.with_replies.remove(&first);
            if let Some(session) = self.by_use.get(&first).and_then(|key| self.sessions.get_mut(key)) {
                self.reply_bytes -= session.reply_bytes;
                Arc::make_mut(session).drop_replies(0, None);
            }
        }
    }

    fn forget_first(&mut self) {
        if let Some((_, key)) = self.by_use.pop_first()
            && let Some(session) = self.sessions.remove(&key)
        {
            self.with_replies.remove(&session.used_by);
            self.reply_bytes -= session.reply_bytes;
            self.expired.0 += 1;
        }
    }
}

impl Session {
    fn answer(&mut self, serial: u64, index: Index, machine: impl FnOnce() -> Option<Bytes>) -> Verdict {
        if let Some(first) = self.answers.get(&serial) {
            return match &first.kept {
                Kept::Reply(reply) => Verdict::Applied { index: first.index, reply: Bytes::copy_from_slice(reply) },
                Kept::Nothing => Verdict::Refused(Refusal::StaleSerial),
                Kept::Skipped => Verdict::Refused(Refusal::Skipped),
            };
        }
        let highest = self.answers.last_key_value().map_or(serial, |(highest, _)| serial.max(*highest));
        if highest - serial >= WINDOW {
            return Verdict::Refused(Refusal::StaleSerial);
        }
        let reply = machine();
        self.answers = self.answers.split_off(&highest.saturating_sub(WINDOW - 1));
        // Copied: the reply may be a slice of a larger buffer.
        let kept = reply.as_ref().map_or(Kept::Skipped, |reply| Kept::Reply(reply[..].into()));
        self.answers.insert(serial, Answer { index, kept });
        self.drop_replies(SESSION_REPLY_BYTES_MAX, Some(serial));
        reply.map_or(Verdict::Refused(Refusal::Skipped), |reply| Verdict::Applied { index, reply })
    }

    /// Recounts the bytes kept, and drops replies until at most `bytes_max` are left, lowest serial
    /// first; the reply to `latest` stays.
    fn drop_replies(&mut self, bytes_max: usize, latest: Option<u64>) {
        self.reply_bytes = self.answers.values().map(|answer| answer.kept.bytes()).sum();
        for (serial, answer) in &mut self.answers {
            if self.reply_bytes <= bytes_max {
                break;
            }
            if Some(*serial) != latest && answer.kept.bytes() > 0 {
                self.reply_bytes -= answer.kept.bytes();
                answer.kept = Kept::Nothing;
            }
        }
    }
}
