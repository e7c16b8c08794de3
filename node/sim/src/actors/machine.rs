//! The state machine of a simulated node: it carries out the commands of [`registers`](super::registers),
//! and reports each to the observer.

use super::{
    observer::SharedObserver,
    registers::{Command, GROUP_KEYS, State},
    service::{Performs, Typed},
    timers::Timers,
};
use bytes::Bytes;
use quorate::{At, Index, LogTime, NodeId, StateMachine, View, WriteState};
use quorate_raft::tick::Tick;
use std::io::{self, Read, Write};

/// The state machine of one node.
pub(super) struct Registers {
    node: NodeId,
    state: State,
    applied: Index,
    /// `None` if the service does not use time, as the typed one.
    timers: Option<Timers>,
    typed: Option<Typed>,
    /// Bytes of padding in a snapshot, so that it takes more than one piece.
    ballast: usize,
    observer: SharedObserver,
}

impl Registers {
    /// `release` is that of the typed service, if the run uses time.
    pub(super) fn new(node: NodeId, release: Option<u32>, ballast: usize, observer: SharedObserver) -> Self {
        let (timers, typed) = (release.map(|_| Timers::default()), release.map(Typed::new));
        Self { node, state: State::default(), applied: Index(0), timers, typed, ballast, observer }
    }

    /// The work that performs the effects of the typed service.
    pub(super) fn performs(&self) -> Option<Performs> {
        self.typed.as_ref().map(Typed::performs)
    }

    pub(super) fn get(&self, key: u64) -> Option<u64> {
        self.state.get(key)
    }

    pub(super) fn group(&self, key: u64) -> [Option<u64>; GROUP_KEYS] {
        self.state.group(key)
    }
}

impl StateMachine for Registers {
    fn apply(&mut self, at: &At, command: &[u8]) -> Bytes {
        let index = at.index;
        let mut observer = self.observer.lock();
        let Some(command) = Command::decode(command) else {
            observer.fail(format!("state machine safety: entry {index} of node {} is no command", self.node));
            return Bytes::new();
        };
        if index <= self.applied {
            observer.fail(format!("state machine safety: {} applies {index} behind {}", self.node, self.applied));
        }
        self.applied = index;
        let changed = self.state.carry_out(&command);
        if let Some(timers) = &mut self.timers {
            observer.timer_set(self.node, command.operation, timers.applied(at, command.operation));
        }
        if let Some(typed) = &mut self.typed {
            let checked = typed.applied(&mut observer.twin, at, command.operation);
            observer.served(self.node, checked);
        }
        observer.applied(self.node, index, &command, changed, &self.state);
        Bytes::from_static(if changed { b"1" } else { b"0" })
    }

    fn ticked(&mut self, at: &At, tick: &Tick) {
        let (Some(timers), Some(typed)) = (&mut self.timers, &mut self.typed) else { return };
        let mut observer = self.observer.lock();
        observer.timers_fired(self.node, at.index, timers.ticked(at, tick));
        let checked = typed.ticked(&mut observer.twin, at, tick);
        observer.served(self.node, checked);
        timers.stops_at(typed.machine().next_due());
    }

    fn internal(&mut self, at: &At, payload: &[u8]) {
        let Some(typed) = &mut self.typed else { return };
        let mut observer = self.observer.lock();
        let checked = typed.inside(&mut observer.twin, at, payload);
        observer.served(self.node, checked);
    }

    fn is_pending(&self) -> bool {
        self.typed.as_ref().is_some_and(|typed| typed.machine().is_pending())
    }

    fn schema_version(&self) -> Option<u32> {
        self.typed.as_ref()?.machine().schema_version()
    }

    fn generation(&self) -> u32 {
        self.typed.as_ref().map_or(0, |typed| typed.machine().generation())
    }

    fn next_due(&self) -> Option<LogTime> {
        let of_timers = self.timers.as_ref()?.waiting.first().map(|(due, _)| *due);
        of_timers.into_iter().chain(self.typed.as_ref()?.machine().next_due()).min()
    }

    fn flush(&mut self, applied: Index) {
        if let Some(typed) = &mut self.typed {
            let mut observer = self.observer.lock();
            let checked = typed.flushed(&mut observer.twin, self.node, applied);
            observer.served(self.node, checked);
        }
    }

    fn uses_time(&self) -> bool {
        self.timers.is_some()
    }

    /// On every other node, so that each cluster reads in both ways.
    fn view(&self) -> Option<View<Self>> {
        let Self { node, ref state, applied, ref observer, .. } = *self;
        let (state, observer) = (state.clone(), observer.clone());
        let copy = || View::of(Self { node, state, applied, timers: None, typed: None, ballast: 0, observer });
        node.0.is_multiple_of(2).then(copy)
    }

    fn snapshot(&self) -> Option<WriteState> {
        let (state, applied, ballast) = (self.state.clone(), self.applied, self.ballast);
        let Timers { waiting, ticked, now } = self.timers.clone().unwrap_or_default();
        let (observer, typed) = (self.observer.clone(), self.typed.as_ref().map(Typed::written));
        Some(Box::new(move |writer: &mut dyn Write| {
            let mut words = vec![applied.0, state.history];
            words.extend(state.values.iter().flat_map(|(key, value)| [*key, *value]));
            writer.write_all(&(words.len() as u64).to_le_bytes())?;
            for word in words {
                writer.write_all(&word.to_le_bytes())?;
            }
            let mut words = vec![waiting.len() as u64, ticked.0, now.0];
            words.extend(waiting.iter().flat_map(|(due, operation)| [due.0, *operation]));
            for word in words {
                writer.write_all(&word.to_le_bytes())?;
            }
            let typed = typed.transpose()?.unwrap_or_default();
            writer.write_all(&(typed.len() as u64).to_le_bytes())?;
            writer.write_all(&typed)?;
            writer.write_all(&vec![0x5a; ballast])?;
            observer.lock().report.count("snapshots", 1);
            Ok(())
        }))
    }

    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        let mut number = || {
            let mut word = [0; 8];
            from.read_exact(&mut word).map(|()| u64::from_le_bytes(word))
        };
        let count = number()?;
        let (applied, history) = (Index(number()?), number()?);
        let pairs = (0..count.saturating_sub(2) / 2).map(|_| Ok((number()?, number()?)));
        let values = pairs.collect::<io::Result<_>>()?;
        let (count, ticked, now) = (number()?, LogTime(number()?), LogTime(number()?));
        let timers = (0..count).map(|_| Ok((LogTime(number()?), number()?)));
        let waiting = timers.collect::<io::Result<_>>()?;
        if let Some(timers) = &mut self.timers {
            *timers = Timers { waiting, ticked, now };
        }
        let length = number()?;
        if let Some(typed) = &mut self.typed {
            typed.restore(&mut (&mut *from).take(length))?;
        }
        io::copy(from, &mut io::sink())?;
        (self.state, self.applied) = (State { values, history }, applied);
        self.observer.lock().restored(self.node, applied, &self.state);
        Ok(())
    }
}
