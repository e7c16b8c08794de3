//! A typed service beside the registers, in the runs that use time, and the properties that must
//! hold of it. [`effects`](super::effects) has those of its effects outside, and
//! [`releases`](super::releases) those of its versions.
//!
//! - **Same calls.** On every node, each entry makes the calls of the service that a dumb [`Twin`]
//!   expects, each at its own time and version, and leaves the same number of timers, events and
//!   effects. A command that is newer than the cluster makes none, and has the same refusal.
//! - **Tokens** rise from call to call.
//! - **Watches.** A watcher gets every selected event of an entry at once, once, in order and without
//!   a gap, at whichever node reads for it, unless the history has evicted what it missed.
//! - **Whole entries.** A command that panics changes no table, and a restored copy is equal.

use super::{
    effects::{Outside, Outsider},
    machine::Registers,
    observer::SharedObserver,
};
use quorate::{
    At, Cause, Context, EffectId, Halt, Hosted, Index, LogTime, Node, NodeId, OutboxFull, Refused, Service,
    StateMachine, Topics,
    service::{
        history::{Gone, Next},
        internal::Internal,
        performing,
        tables::Tables,
        timers::{FIRES_MAX, due},
    },
};
use quorate_raft::tick::Tick;
use serde::{Deserialize, Serialize};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::Future,
    io::{self, Read},
    mem, panic,
    pin::Pin,
    time::Duration,
};

/// The most events in the history: few, so that most of them are evicted.
const EVENTS_MAX: u32 = 24;
/// The most effects in the outbox: few, so that some are refused.
const EFFECTS_MAX: u32 = 12;
/// The keys of the effects.
const KEYS: [&str; 3] = ["mail", "pay", "call"];
/// The timers of commands have fewer than this many keys, so that they replace each other.
const SLOTS: u64 = 7;
/// The timers that a few commands set at once: more than two ticks fire, of which the second is late.
const BURST: u64 = 2 * FIRES_MAX as u64 + 50;
/// The command that panics. It stands in no log.
const POISON: u64 = u64::MAX;
/// Entries between two checks with a copy of the service.
const COPIED_EVERY: u64 = 16;
/// The topics by which the watchers select: all, one topic, and those with a prefix.
const WATCHERS: u64 = 6;

/// The change of the timers that an operation's command makes.
enum Ask {
    Set { slot: u64, delay: Duration },
    Burst { delay: Duration },
    Cancel { slot: u64 },
    Nothing,
}

fn ask_of(operation: u64) -> Ask {
    let slot = operation % SLOTS;
    match operation {
        _ if operation % 61 == 3 => Ask::Burst { delay: Duration::from_millis(20) },
        _ if operation.is_multiple_of(2) => Ask::Set { slot, delay: Duration::from_millis(1 + operation * 53 % 700) },
        _ if operation % 5 == 1 => Ask::Cancel { slot },
        _ => Ask::Nothing,
    }
}

/// The events that an operation's command publishes: the second release has one more.
fn events_of(operation: u64, version: u32) -> impl Iterator<Item = (&'static str, u64)> {
    let set = if operation.is_multiple_of(2) { "set/even" } else { "set/odd" };
    [set, "last"].into_iter().chain((version > 0).then_some("later")).map(move |topic| (topic, operation))
}

/// The key of the effects that an operation's command asks for, and their number.
fn effects_of(operation: u64) -> (&'static str, u32) {
    let count = match operation % 5 {
        1 => 1,
        3 => 2,
        _ => 0,
    };
    (KEYS[(operation / 5 % KEYS.len() as u64) as usize], count)
}

/// The version that introduced an operation's kind of command.
fn since(operation: u64) -> u32 {
    match operation % 13 {
        3 | 8 => 1,
        5 | 10 => 2,
        _ => 0,
    }
}

/// A call of the service: of a command, of the timer in a slot, or of the result of a call outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Call {
    cause: Cause,
    number: u64,
    now: LogTime,
    version: u32,
}

thread_local! {
    /// The calls of the entry that is applied, with their tokens. All nodes share one thread.
    static CALLS: RefCell<Vec<(Call, u128)>> = const { RefCell::new(Vec::new()) };
}

/// The service in one of its releases.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Probe<const RELEASE: u32> {
    calls: u64,
}

/// The signal of a timer, or of an effect.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Signal {
    Slot(u64),
    /// The effect was performed in this call outside.
    Performed {
        call: u64,
    },
}

impl<const RELEASE: u32> Probe<RELEASE> {
    fn called(&mut self, number: u64, cx: &Context<'_, Self>) {
        self.calls += 1;
        let call = Call { cause: cx.cause(), number, now: cx.now(), version: cx.at().version };
        CALLS.with_borrow_mut(|calls| calls.push((call, cx.token().as_u128())));
    }
}

impl<const RELEASE: u32> Service for Probe<RELEASE> {
    // The reply has the calls up to this one, and the effects that the outbox had no room for.
    quorate::types!(u64 => (u64, u32), () => (), event u64, signal Signal, effect u64);
    const VERSION: u32 = RELEASE;

    fn since(operation: &u64) -> u32 {
        since(*operation)
    }

    fn apply(&mut self, operation: u64, cx: &mut Context<'_, Self>) -> (u64, u32) {
        self.called(operation, cx);
        match ask_of(operation) {
            Ask::Set { slot, delay } => cx.after(delay, Signal::Slot(slot)),
            Ask::Burst { delay } => (0..BURST).for_each(|nth| cx.after(delay, Signal::Slot(SLOTS + nth))),
            Ask::Cancel { slot } => drop(cx.cancel(&Signal::Slot(slot))),
            Ask::Nothing => {}
        }
        for (topic, event) in events_of(operation, cx.at().version) {
            cx.publish(topic, event);
        }
        let (key, count) = effects_of(operation);
        let full = (0..count).filter(|_| cx.perform(key, operation) == Err(OutboxFull)).count();
        if operation == POISON {
            // All tables change before the end; the panic hook is for panics of the product.
            (0..SLOTS).for_each(|slot| cx.after(Duration::from_millis(5), Signal::Slot(slot)));
            let _ = cx.perform(KEYS[0], operation);
            panic::resume_unwind(Box::new("poison"));
        }
        (self.calls, full as u32)
    }

    fn signal(&mut self, signal: Signal, cx: &mut Context<'_, Self>) {
        let (topic, number) = match signal {
            Signal::Slot(slot) => ("fired", slot),
            Signal::Performed { call } => ("performed", call),
        };
        self.called(number, cx);
        cx.publish(topic, number);
    }

    fn query(&self, (): (), _: At) {}
}

/// The service of one node, which runs one of its releases.
pub(super) struct Typed {
    release: u32,
    hosted: Box<dyn Hosts>,
}

/// The work that performs the effects of a node.
pub(super) type Performs = Box<dyn FnOnce(&Node<Registers>, SharedObserver) -> Pin<Box<dyn Future<Output = ()>>>>;

/// A hosted service, in whichever release.
trait Hosts: StateMachine + Sync {
    fn tables(&self) -> &Tables<u64>;
    fn command_alone(&mut self, at: &At, bytes: &[u8]) -> Result<(), Halt>;
    fn performs(&self) -> Performs;
}

impl<const RELEASE: u32> Hosts for Hosted<Probe<RELEASE>> {
    fn tables(&self) -> &Tables<u64> {
        self.tables()
    }

    fn command_alone(&mut self, at: &At, bytes: &[u8]) -> Result<(), Halt> {
        self.command(at, None, bytes).map(drop)
    }

    fn performs(&self) -> Performs {
        let outbox = self.outbox();
        Box::new(move |node, observer| {
            let outsider = Outsider::of(node, observer);
            let handler = move |effect, ticket| outsider.clone().perform(effect, ticket);
            Box::pin(performing::perform::<Probe<RELEASE>, _, _>(node, handler, outbox))
        })
    }
}

impl Typed {
    /// The service as this release has it.
    pub(super) fn new(release: u32) -> Self {
        let hosted: Box<dyn Hosts> = match release {
            0 => Box::new(Hosted::new(Probe::<0>::default)),
            1 => Box::new(Hosted::new(Probe::<1>::default)),
            _ => Box::new(Hosted::new(Probe::<2>::default)),
        };
        Self { release, hosted }
    }

    pub(super) fn machine(&self) -> &dyn StateMachine {
        &*self.hosted
    }

    /// The work that performs its effects.
    pub(super) fn performs(&self) -> Performs {
        self.hosted.performs()
    }

    /// Applies an operation's command.
    ///
    /// # Errors
    /// The property that does not hold.
    pub(super) fn applied(&mut self, twin: &mut Twin, at: &At, operation: u64) -> Result<(), String> {
        if at.index.0.is_multiple_of(COPIED_EVERY) {
            self.check_copy(at)?;
        }
        let (outcome, calls) = called(|| self.hosted.apply(at, &Hosted::<Probe<0>>::encode(&operation)));
        twin.step(at.index, |twin| Ok(twin.command(at.index, operation)))?;
        self.compare(twin, at, &calls, Hosted::<Probe<0>>::decode(&outcome))
    }

    /// Applies an internal entry: the result of an effect, or a version.
    ///
    /// # Errors
    /// The property that does not hold.
    pub(super) fn inside(&mut self, twin: &mut Twin, at: &At, payload: &[u8]) -> Result<(), String> {
        let ((), calls) = called(|| self.hosted.internal(at, payload));
        twin.step(at.index, |twin| twin.internal(at, payload))?;
        self.compare(twin, at, &calls, None)
    }

    /// Applies a tick.
    ///
    /// # Errors
    /// The property that does not hold.
    pub(super) fn ticked(&mut self, twin: &mut Twin, at: &At, tick: &Tick) -> Result<(), String> {
        let mut tick = *tick;
        (tick.bounds.history_events, tick.bounds.outbox_effects) = (EVENTS_MAX, EFFECTS_MAX);
        let ((), calls) = called(|| self.hosted.ticked(at, &tick));
        twin.step(at.index, |twin| Ok(twin.tick(at.index, tick.time)))?;
        self.compare(twin, at, &calls, None)
    }

    /// Reads for some of the watchers, which read at another node the next time.
    ///
    /// # Errors
    /// The property that does not hold.
    pub(super) fn flushed(&mut self, twin: &mut Twin, node: NodeId, applied: Index) -> Result<(), String> {
        self.hosted.flush(applied);
        let history = &self.hosted.tables().history;
        for watcher in (0..WATCHERS).filter(|nth| (nth + applied.0 / 32 + node.0).is_multiple_of(3)) {
            let topics = topics_of(watcher);
            loop {
                let position = twin.positions[watcher as usize];
                let read = history.read(position, applied, &topics);
                let to = twin.check_read(position, applied, &topics, &read);
                let to = to.map_err(|what| format!("watches: after {position}, {topics:?}: {what}: {read:?}"))?;
                twin.positions[watcher as usize] = to;
                if to <= position {
                    break;
                }
            }
        }
        Ok(())
    }

    /// The bytes of a snapshot.
    pub(super) fn written(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match self.hosted.snapshot() {
            Some(write) => write(&mut bytes)?,
            None => return Err(io::Error::other("the service has no snapshot")),
        }
        Ok(bytes)
    }

    pub(super) fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        self.hosted.restore(from)
    }

    /// A restored copy has the same bytes, and a command that panics changes no table of it.
    fn check_copy(&self, at: &At) -> Result<(), String> {
        let in_words = |error: io::Error| format!("whole entries: {error}");
        let (bytes, mut copy) = (self.written().map_err(in_words)?, Self::new(self.release));
        copy.restore(&mut &bytes[..]).map_err(in_words)?;
        if copy.written().map_err(in_words)? != bytes {
            return Err(format!("whole entries: a restored copy differs before {}", at.index));
        }
        let poison = Hosted::<Probe<0>>::encode(&POISON);
        let (halted, _) = called(|| copy.hosted.command_alone(at, &poison));
        let (before, after) = (self.hosted.tables(), copy.hosted.tables());
        let is_equal = halted.is_err()
            && (before.at, &before.timers, &before.history) == (after.at, &after.timers, &after.history)
            && (&before.outbox, before.outcomes) == (&after.outbox, after.outcomes);
        is_equal.then_some(()).ok_or_else(|| format!("whole entries: a command that panics counts at {}", at.index))
    }

    fn compare(
        &self,
        twin: &mut Twin,
        at: &At,
        calls: &[(Call, u128)],
        outcome: Option<Result<(u64, u32), Refused>>,
    ) -> Result<(), String> {
        let tables = self.hosted.tables();
        if tables.at.version > self.release {
            let (release, version) = (self.release, tables.at.version);
            return Err(format!("versions: release {release} goes on at version {version}, at {}", at.index));
        }
        let after = After {
            outcome,
            version: tables.at.version,
            effects: tables.outbox.len(),
            next_effect: tables.outbox.heads().next(),
            time: tables.at.time,
            timers: tables.timers.len(),
            next_due: tables.timers.next_due(),
            events: tables.history.len(),
            floor: tables.history.floor(),
        };
        let Some((expected, wanted)) = twin.outcomes.get_mut(&at.index) else {
            return Err(format!("typed service: {} is applied first by nobody", at.index));
        };
        if !calls.iter().map(|(call, _)| call).eq(expected.iter().map(|(call, _)| call)) {
            let differ = calls.iter().zip(&*expected).find(|(call, expected)| call.0 != expected.0);
            let (had, wanted) = (calls.len(), expected.len());
            return Err(format!("typed service: {} makes {had} calls, not {wanted}: {differ:?}", at.index));
        }
        if after != *wanted {
            return Err(format!("typed service: {} leaves {after:?}, not {wanted:?}", at.index));
        }
        for ((_, token), (_, seen)) in calls.iter().zip(&mut *expected) {
            match seen {
                Some(seen) if seen != token => return Err(format!("tokens: {} has {token} and {seen}", at.index)),
                Some(_) => {}
                None if *token <= twin.token => {
                    return Err(format!("tokens: {token} follows {} at {}", twin.token, at.index));
                }
                None => (*seen, twin.token) = (Some(*token), *token),
            }
        }
        Ok(())
    }
}

/// The calls that a piece of work makes.
fn called<T>(work: impl FnOnce() -> T) -> (T, Vec<(Call, u128)>) {
    CALLS.take();
    (work(), CALLS.take())
}

fn topics_of(watcher: u64) -> Topics {
    match watcher % 3 {
        0 => Topics::All,
        1 => Topics::from("set/even"),
        _ => Topics::Prefix("set/".into()),
    }
}

/// The outcome of an entry, and the tables after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct After {
    /// `None` of an entry without a command.
    outcome: Option<Result<(u64, u32), Refused>>,
    version: u32,
    effects: usize,
    next_effect: Option<EffectId>,
    time: LogTime,
    timers: usize,
    next_due: Option<LogTime>,
    events: u64,
    floor: Index,
}

/// The calls that an entry makes, and of a command the refused effects, or its own refusal.
type Made = (Vec<Call>, Option<Result<u32, Refused>>);

/// An entry's calls, each with its token at the first node, and the tables after the entry.
type Outcome = (Vec<(Call, Option<u128>)>, After);

/// The service as its documents describe it, without thought for speed: one for all nodes of a run,
/// which follows the first node that applies an entry.
#[derive(Default)]
pub(super) struct Twin {
    last: Index,
    now: LogTime,
    version: u32,
    calls: u64,
    /// The effects that are not completed, by key. [`Outside::asked`] has all.
    effects: BTreeSet<(&'static str, EffectId)>,
    pub(super) outside: Outside,
    /// Counts for the run's report.
    counts: BTreeMap<&'static str, u64>,
    /// The due, and the number of the setting, of the timer of each key.
    timers: BTreeMap<u64, (LogTime, u64)>,
    settings: u64,
    /// All events ever published.
    events: BTreeMap<Index, Vec<(&'static str, u64)>>,
    /// The entries in the history, and how many events each has.
    kept: VecDeque<(Index, u64)>,
    events_max: Option<u64>,
    floor: Index,
    outcomes: BTreeMap<Index, Outcome>,
    token: u128,
    positions: [Index; WATCHERS as usize],
}

impl Twin {
    pub(super) fn new(seed: u64) -> Self {
        Self { outside: Outside::new(seed), ..Self::default() }
    }

    /// Whether no effect waits.
    pub(super) fn is_idle(&self) -> bool {
        self.effects.is_empty()
    }

    /// The version that the cluster has reached.
    pub(super) fn version(&self) -> u32 {
        self.version
    }

    /// The counts since they were last taken.
    pub(super) fn take_counts(&mut self) -> BTreeMap<&'static str, u64> {
        mem::take(&mut self.counts)
    }

    fn count(&mut self, what: &'static str, more: u64) {
        *self.counts.entry(what).or_default() += more;
    }

    fn step(&mut self, index: Index, run: impl FnOnce(&mut Self) -> Result<Made, String>) -> Result<(), String> {
        if index <= self.last {
            return Ok(());
        }
        self.last = index;
        let (calls, outcome) = run(self)?;
        self.calls += calls.len() as u64;
        let calls = calls.into_iter().map(|call| (call, None)).collect();
        let heads = KEYS.iter().filter_map(|key| self.head_of(key));
        let after = After {
            outcome: outcome.map(|outcome| outcome.map(|full| (self.calls, full))),
            version: self.version,
            effects: self.effects.len(),
            next_effect: heads.min(),
            time: self.now,
            timers: self.timers.len(),
            next_due: self.timers.values().map(|(due, _)| *due).min(),
            events: self.kept.iter().map(|(_, events)| events).sum(),
            floor: self.floor,
        };
        self.outcomes.insert(index, (calls, after));
        Ok(())
    }

    /// The oldest effect of a key.
    fn head_of(&self, key: &str) -> Option<EffectId> {
        self.effects.iter().find(|(of, _)| *of == key).map(|(_, id)| *id)
    }

    fn call(&self, cause: Cause, number: u64) -> Call {
        Call { cause, number, now: self.now, version: self.version }
    }

    fn command(&mut self, index: Index, operation: u64) -> Made {
        let (needs, cluster) = (since(operation), self.version);
        if needs > cluster {
            self.count("commands too new", 1);
            return (Vec::new(), Some(Err(Refused::TooNew { needs, cluster })));
        }
        self.count("newer commands", u64::from(needs > 0));
        match ask_of(operation) {
            Ask::Set { slot, delay } => self.set(slot, delay),
            Ask::Burst { delay } => (0..BURST).for_each(|nth| self.set(SLOTS + nth, delay)),
            Ask::Cancel { slot } => drop(self.timers.remove(&slot)),
            Ask::Nothing => {}
        }
        self.publish(index, events_of(operation, self.version).collect());
        let ((key, count), mut nth) = (effects_of(operation), 0);
        for _ in 0..count {
            if self.events_max.is_none() || self.effects.len() < EFFECTS_MAX as usize {
                let id = EffectId { index, nth };
                self.effects.insert((key, id));
                self.outside.asked(id, key, operation);
                nth += 1;
            }
        }
        self.count("effects without room", u64::from(count - nth));
        (vec![self.call(Cause::Call, operation)], Some(Ok(count - nth)))
    }

    fn internal(&mut self, at: &At, payload: &[u8]) -> Result<Made, String> {
        match Internal::decode(payload) {
            Some(Internal::Version(version)) => {
                self.count("versions raised", u64::from(version > self.version));
                self.version = self.version.max(version);
                Ok((Vec::new(), None))
            }
            Some(Internal::Done(done)) => {
                if done.term != at.term {
                    return Err(format!("effects: {} has the result of the leader of {}", at.index, done.term));
                }
                let Some((key, id)) = self.effects.iter().find(|(_, id)| *id == done.id).copied() else {
                    return Err(format!("effects: {} completes {}, which waits no more", at.index, done.id));
                };
                if self.head_of(key) != Some(id) {
                    return Err(format!("effects: {} completes {id}, which is not the oldest of {key}", at.index));
                }
                self.effects.remove(&(key, id));
                let (call, late) = self.outside.completed(id, at.term)?;
                self.count("effects completed", 1);
                self.count("late results refused", late);
                self.publish(at.index, vec![("performed", call)]);
                Ok((vec![self.call(Cause::Effect(id), call)], None))
            }
            _ => Err(format!("typed service: {} is an internal entry that nothing appends", at.index)),
        }
    }

    fn set(&mut self, slot: u64, delay: Duration) {
        self.timers.insert(slot, (due(self.now, delay), self.settings));
        self.settings += 1;
    }

    fn tick(&mut self, index: Index, time: LogTime) -> Made {
        self.events_max = Some(EVENTS_MAX.into());
        let until = self.now.max(time);
        let mut due: Vec<_> = self.timers.iter().map(|(slot, (due, setting))| (*due, *setting, *slot)).collect();
        due.retain(|(due, ..)| *due <= until);
        due.sort_unstable();
        due.truncate(FIRES_MAX as usize);
        for (_, _, slot) in &due {
            self.timers.remove(slot);
        }
        self.now = self.timers.values().map(|(due, _)| *due).fold(until, LogTime::min);
        self.publish(index, due.iter().map(|(_, _, slot)| ("fired", *slot)).collect());
        let fired = |(now, _, slot)| Call { now, ..self.call(Cause::Timer, slot) };
        (due.into_iter().map(fired).collect(), None)
    }

    fn publish(&mut self, index: Index, events: Vec<(&'static str, u64)>) {
        if !events.is_empty() {
            self.kept.push_back((index, events.len() as u64));
            self.events.insert(index, events);
        }
        let count = |kept: &VecDeque<(Index, u64)>| kept.iter().map(|(_, events)| events).sum::<u64>();
        while self.kept.len() > 1 && self.events_max.is_some_and(|max| count(&self.kept) > max) {
            self.floor = self.kept.pop_front().map_or(self.floor, |(index, _)| index);
        }
    }

    /// Gives the next position of a watcher that has read this at a node.
    fn check_read(
        &self,
        position: Index,
        applied: Index,
        topics: &Topics,
        read: &Result<Next<u64>, Gone>,
    ) -> Result<Index, &'static str> {
        let of = |index: Index| self.events.get(&index).into_iter().flatten().filter(|(topic, _)| topics.select(topic));
        let mut after = self.events.range(position.next()..).map(|(index, _)| *index);
        match read {
            Ok(Next::Changes(changes)) => {
                let got = changes.events.iter().map(|(topic, event)| (&**topic, **event));
                match after.find(|index| of(*index).next().is_some()) {
                    Some(index) if index == changes.index && got.eq(of(index).copied()) => Ok(index),
                    _ => Err("it gets other events"),
                }
            }
            Ok(Next::Nothing(to)) if *to < position || *to > applied.max(position) => Err("it is moved"),
            Ok(Next::Nothing(to)) => {
                match after.take_while(|index| index <= to).any(|index| of(index).next().is_some()) {
                    true => Err("it misses events"),
                    false => Ok(*to),
                }
            }
            Err(Gone { floor }) if *floor > self.floor || after.next().is_none_or(|index| index > *floor) => {
                Err("nothing that it misses is gone")
            }
            Err(Gone { floor }) => Ok(*floor),
        }
    }
}
