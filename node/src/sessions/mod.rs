//! What the cluster remembers of client sessions, so that a command that is sent again is applied once (Ongaro's thesis, §6.3).
//!
//! A [`Table`] is a part of the state that every node applies: it changes with entries and with nothing else, so nodes that
//! have applied the same entries have equal ones. The [`Applier`](crate::actors::applier) owns it, beside the state machine, which never
//! sees it. It has no clock: time is what entries say, [`LogTime`]; the leader's side of that is the [`LogClock`]. Bounds come
//! with each entry, too. How it is written into snapshots is in [`snapshot`].
//!
//! - A serial that was applied gets its first answer again. The machine is not called.
//! - A serial of [`WINDOW`] or more below the session's highest gets none: it may have been applied long ago. Nor does
//!   one whose answer was too large to be kept.
//! - A command of an opened session that is not known any more is not applied. A named session comes into being with its
//!   first command, and again with the first one behind its end.
//! - A session that was not used for its time ends; if there are too many, the one ends that was not used for longest.

mod clock;
mod snapshot;
#[cfg(test)]
mod tests;

pub(crate) use clock::LogClock;
pub(crate) use snapshot::{read, write};

use bytes::Bytes;
use quorate_raft::{
    Index, Skip,
    mutants::{Mutant, live},
    session::{LogTime, Request, SessionKey, Stamp},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// How many serials, up to the highest that was used, a session remembers; so many commands of a session may be under way.
pub(crate) const WINDOW: u64 = 64;
/// The most bytes of answers that a session keeps, unless the latest is larger. Those of the lowest serials go first.
const SESSION_REPLY_BYTES_MAX: usize = 64 << 10;
/// The most bytes of answers that all sessions keep together. The sessions that were not used for longest go first.
const REPLY_BYTES_MAX: usize = 64 << 20;
/// The most sessions, whatever an entry says.
pub(crate) const SESSIONS_MAX: u32 = 1_000_000;

/// All sessions. Cloning is cheap: clones share what neither changes.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Table {
    now: LogTime,
    sessions: BTreeMap<SessionKey, Arc<Session>>,
    /// Which session an entry used, if none behind it did: the first of these was not used for longest.
    by_use: BTreeMap<Index, SessionKey>,
    reply_bytes: usize,
    /// Every entry that was skipped, ever: so that snapshots say so.
    skipped: BTreeSet<Skip>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Session {
    /// The last entry that used it, and when that was.
    used_by: Index,
    used_at: LogTime,
    /// By serial.
    answers: BTreeMap<u64, Answer>,
    reply_bytes: usize,
}

/// The first answer to a serial.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Answer {
    index: Index,
    kept: Kept,
}

/// What is kept of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Kept {
    /// What the machine replied.
    Reply(Box<[u8]>),
    /// It took too much.
    Nothing,
    /// The machine was not asked: an operator had the entry skipped.
    Skipped,
}

impl Kept {
    fn bytes(&self) -> usize {
        match self {
            Self::Reply(reply) => reply.len(),
            Self::Nothing | Self::Skipped => 0,
        }
    }
}

/// What an entry of a session came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// It was applied, or opened the session of its index, or was applied before: at `index`, with this reply.
    Applied { index: Index, reply: Bytes },
    /// It was not applied.
    Refused(Refusal),
}

/// Why a command of a session was not applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// Its session was opened once, and is known no longer.
    Expired,
    /// Its serial is older than what the session remembers.
    StaleSerial,
    /// An operator had its entry skipped. Also of a command without a session.
    Skipped,
}

impl Table {
    /// What the entry at `index` does; `machine` is called if its command is to be applied, and gives nothing if the entry is
    /// skipped. The session remembers that like a reply, so that a command that is sent again is skipped, too.
    pub(crate) fn apply(
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
                if !is_known && (!key.is_opened() || live(Mutant::ExpiredSessionApplied)) {
                    self.begin(key.clone(), index);
                }
                self.use_one(key, *serial, index, || machine(command))
            }
        };
        self.make_room(stamp.sessions_max, index);
        verdict
    }

    /// Up to when entries have been applied.
    pub(crate) fn now(&self) -> LogTime {
        self.now
    }

    /// The entry is skipped.
    pub(crate) fn skip(&mut self, entry: Skip) {
        self.skipped.insert(entry);
    }

    /// The entries that were skipped.
    pub(crate) fn skipped(&self) -> &BTreeSet<Skip> {
        &self.skipped
    }

    /// How many sessions there are.
    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }

    fn begin(&mut self, key: SessionKey, index: Index) {
        let session = Session { used_by: index, used_at: self.now, answers: BTreeMap::new(), reply_bytes: 0 };
        self.by_use.insert(index, key.clone());
        self.sessions.insert(key, Arc::new(session));
    }

    /// A session is used by the entry at `index`.
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
        (session.used_by, session.used_at) = (index, self.now);
        let before = session.reply_bytes;
        let verdict = session.answer(serial, index, machine);
        self.reply_bytes = self.reply_bytes - before + session.reply_bytes;
        verdict
    }

    /// Forgets who was not used for so long.
    fn expire(&mut self, idle_limit_ms: u32) {
        let used_since = self.now.0.saturating_sub(u64::from(idle_limit_ms));
        while let Some((_, key)) = self.by_use.first_key_value() {
            match self.sessions.get(key) {
                Some(session) if session.used_at.0 >= used_since => break,
                _ => self.forget_first(),
            }
        }
    }

    /// Forgets who was not used for longest, until there are not too many; never the one that this entry used.
    fn make_room(&mut self, sessions_max: u32, index: Index) {
        let max = if live(Mutant::SessionBoundIgnored) { SESSIONS_MAX } else { sessions_max.clamp(1, SESSIONS_MAX) };
        while self.sessions.len() > max as usize || self.reply_bytes > REPLY_BYTES_MAX {
            if self.by_use.first_key_value().is_none_or(|(first, _)| *first == index) {
                break;
            }
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((_, key)) = self.by_use.pop_first()
            && let Some(session) = self.sessions.remove(&key)
        {
            self.reply_bytes -= session.reply_bytes;
        }
    }
}

impl Session {
    fn answer(&mut self, serial: u64, index: Index, machine: impl FnOnce() -> Option<Bytes>) -> Verdict {
        let is_known = !live(Mutant::SessionRetryApplied);
        let of = if live(Mutant::AnswerOfAnotherSerial) && self.answers.contains_key(&serial) {
            self.answers.last_key_value().map_or(serial, |(highest, _)| *highest)
        } else {
            serial
        };
        if let Some(first) = self.answers.get(&of).filter(|_| is_known) {
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
        // Copied: it may be a part of something large.
        let kept = reply.as_ref().map_or(Kept::Skipped, |reply| Kept::Reply(reply[..].into()));
        self.answers.insert(serial, Answer { index, kept });
        self.forget_replies(serial);
        reply.map_or(Verdict::Refused(Refusal::Skipped), |reply| Verdict::Applied { index, reply })
    }

    /// Counts what is kept, and lets go of what is too much, but for the answer to this serial.
    fn forget_replies(&mut self, latest: u64) {
        self.reply_bytes = self.answers.values().map(|answer| answer.kept.bytes()).sum();
        for (serial, answer) in &mut self.answers {
            if self.reply_bytes <= SESSION_REPLY_BYTES_MAX {
                break;
            }
            if *serial != latest && answer.kept.bytes() > 0 {
                self.reply_bytes -= answer.kept.bytes();
                answer.kept = Kept::Nothing;
            }
        }
    }
}
