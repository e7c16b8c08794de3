//! One of the two copies of a service, in its world.

use crate::{
    failed::{Fault, Property},
    spec::New,
    world::{self, World},
};
use quorate::{
    At, Halt, HaltCause, Hosted, Service, SessionKey,
    service::{
        layout::Reader,
        tables::{Clock, Tables},
    },
};
use quorate_raft::{session::LogTime, tick::Tick};
use serde::de::DeserializeOwned;

/// An entry of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Entry {
    Command {
        /// The session of the caller, if it has one. Drawn logs have none.
        session: Option<SessionKey>,
        bytes: Vec<u8>,
    },
    Tick(Tick),
    Internal(Vec<u8>),
}

/// A copy that was saved.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Saved {
    /// The replicated tables beside the state.
    pub(crate) tables: Vec<u8>,
    pub(crate) state: Vec<u8>,
}

/// A copy of the service.
pub(crate) struct Side<'a, S: Service> {
    new: &'a New<S>,
    hosted: Hosted<S>,
    world: World,
}

impl<'a, S: Service> Side<'a, S> {
    pub(crate) fn new(new: &'a New<S>, mut world: World) -> Self {
        let hosted = fresh(&mut world, new);
        Self { new, hosted, world }
    }

    pub(crate) fn hosted(&self) -> &Hosted<S> {
        &self.hosted
    }

    /// Applies an entry. Gives the encoded outcome of a command.
    pub(crate) fn apply(&mut self, at: &At, entry: &Entry) -> Result<Vec<u8>, Fault> {
        let Self { hosted, world, .. } = self;
        let (applied, threads) = world.enter_alone(|| match entry {
            Entry::Command { session, bytes } => {
                hosted.command(at, session.as_ref(), bytes).map(|outcome| outcome.to_vec())
            }
            Entry::Tick(tick) => hosted.fire(at, Clock::of(tick)).map(|()| Vec::new()),
            Entry::Internal(payload) => hosted.inside(at, payload).map(|()| Vec::new()),
        });
        let place = world::panicked_at();
        if threads > 0 {
            let why = "it asked for a thread: threads run at other times on every node, and outlive the entry";
            return Err(Fault::new(Property::Threads, why));
        }
        applied.map_err(|Halt { cause, .. }| match (cause, place) {
            (HaltCause::Panicked { message }, Some(place)) => {
                Fault::new(Property::Panics, format!("at {place}: {message}"))
            }
            (cause, _) => Fault::new(Property::Panics, cause.to_string()),
        })
    }

    pub(crate) fn query(&mut self, query: &S::Query) -> Result<S::Answer, Fault> {
        let Self { hosted, world, .. } = self;
        whole(world, "the query", || hosted.query(query.clone()))
    }

    /// The author's digest of the state, if there is one.
    pub(crate) fn digest(&mut self) -> Result<Option<u64>, Fault> {
        let Self { hosted, world, .. } = self;
        whole(world, "digest", || hosted.service().digest())
    }

    pub(crate) fn save(&mut self) -> Result<Saved, Fault> {
        let Self { hosted, world, .. } = self;
        let saved = whole(world, "save", || {
            let (mut tables, mut state) = (Vec::new(), Vec::new());
            hosted.tables().write(&mut tables)?;
            hosted.service().save()(&mut state)?;
            Ok(Saved { tables, state })
        })?;
        saved.map_err(|error: std::io::Error| Fault::new(Property::Loading, format!("it can't be saved: {error}")))
    }

    /// Starts anew from a copy that was saved.
    pub(crate) fn load(&mut self, saved: &Saved) -> Result<(), Fault> {
        use quorate::StateMachine;
        let Self { new, hosted, world } = self;
        let bytes = [&saved.tables[..], &saved.state].concat();
        let loaded = whole(world, "load", || {
            let mut loaded = Hosted::new(*new);
            loaded.restore(&mut &bytes[..]).map(|()| loaded)
        })?;
        *hosted = loaded.map_err(|error| Fault::new(Property::Loading, error.to_string()))?;
        Ok(())
    }

    /// The pending timers, in the order in which they will fire, without signals that can't be read.
    pub(crate) fn timers(&self) -> Vec<(LogTime, S::Signal)> {
        timers(self.hosted.tables()).unwrap_or_default()
    }
}

/// The service before the first entry.
///
/// # Panics
/// If the author's function does: outside of the world, so that the panic is reported.
pub(crate) fn fresh<S: Service>(world: &mut World, new: &New<S>) -> Hosted<S> {
    let made = world.catch(|| Hosted::new(new));
    made.unwrap_or_else(|panic| panic!("the function that makes the service panics {panic}"))
}

/// Calls the service in its world; a panic is a fault.
fn whole<T>(world: &mut World, what: &str, call: impl FnOnce() -> T) -> Result<T, Fault> {
    world.catch(call).map_err(|panic| Fault::new(Property::Panics, format!("{what} panics {panic}")))
}

/// Reads the timers as a snapshot has them.
fn timers<E, T: DeserializeOwned>(tables: &Tables<E>) -> std::io::Result<Vec<(LogTime, T)>> {
    let mut bytes = Vec::new();
    tables.timers.write(&mut bytes)?;
    let from = &mut &bytes[..];
    let mut from = Reader::new(from);
    from.u64()?;
    let mut timers = Vec::new();
    for _ in 0..from.u64()? {
        let due = LogTime(from.u64()?);
        from.u64()?;
        if let Ok(signal) = postcard::from_bytes(&from.bytes()?) {
            timers.push((due, signal));
        }
    }
    Ok(timers)
}
