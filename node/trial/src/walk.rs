//! A walk through a log: both copies take every step, and all properties are checked after it.

use crate::{
    failed::{Fault, Property, shown},
    outside::Outside,
    rng::Rng,
    side::{Entry, Saved, Side},
    spec::{Follows, Spec},
    steps::{Step, command_of},
    trial::Passed,
    world::World,
};
use quorate::{
    At, Hosted, Index, Message, Service, Term, Topics,
    service::{
        history::Next,
        internal::{Done, Internal},
        windows::WINDOW,
    },
};
use quorate_raft::{
    session::LogTime,
    tick::{Bounds, Tick},
};

/// The most ticks that carry log time through one step: a service that sets a timer of a
/// millisecond at every firing needs one for each thousand firings.
const TICKS_MAX: u32 = 100;
/// A state that is larger, in bytes, is compared only at every sixteenth entry.
const LARGE: usize = 64 << 10;
const HOUR_MS: u64 = 3_600_000;

/// The two copies, and where they are in the log.
pub(crate) struct Walk<'a, S: Service> {
    spec: &'a Spec<S>,
    first: Side<'a, S>,
    twin: Side<'a, S>,
    at: At,
    seed: u64,
    has_begun: bool,
    bounds: Bounds,
    /// Whether the generation rises with the first entries.
    is_recovered: bool,
    model: Option<Follows<S>>,
    outside: Option<Outside<S>>,
    replies: Vec<S::Reply>,
    passed: Passed,
    /// Size of the state when it was last saved.
    size: usize,
    /// The lines of the steps, if it tells.
    story: Option<Vec<String>>,
}

impl<'a, S: Service> Walk<'a, S> {
    pub(crate) fn new(spec: &'a Spec<S>, seed: u64, tells: bool) -> Self {
        let mut rng = Rng::new(seed.rotate_left(32));
        let (events, effects) = (rng.between(1..=8) as u32, rng.between(1..=4) as u32);
        let bounds = match rng.below(8) {
            0 => Bounds { history_events: events, outbox_effects: effects, ..Bounds::default() },
            _ => Bounds::default(),
        };
        // A quarter of the seeds is upgraded on the way.
        let version = if rng.one_in(4) { 0 } else { S::VERSION };
        // In some seeds a window of the comparison of replicas ends on the way.
        let first = Index(if rng.one_in(4) { rng.between(WINDOW - 60..=WINDOW) } else { 1 });
        let unix_ms = 1_700_000_000_000 + rng.below(HOUR_MS);
        Self {
            spec,
            first: Side::new(&spec.new, World::new(seed, 0)),
            twin: Side::new(&spec.new, World::new(seed, 1)),
            // The first entry is the leader's own.
            at: At { index: first, term: Term(1), time: LogTime(0), unix_ms, version },
            seed,
            has_begun: false,
            bounds,
            is_recovered: rng.one_in(8),
            model: spec.model.as_ref().map(|model| model()),
            outside: spec.effects.as_ref().map(Outside::new),
            replies: Vec::new(),
            passed: Passed { seeds: 1, ..Passed::default() },
            size: 0,
            story: tells.then(Vec::new),
        }
    }

    /// The replies to the commands that were applied, the latest at the end.
    pub(crate) fn replies(&self) -> &[S::Reply] {
        &self.replies
    }

    /// Milliseconds until the next timer is due, if one is pending.
    pub(crate) fn until_due(&self) -> Option<u64> {
        let due = self.first.hosted().tables().timers.next_due()?;
        Some(due.0.saturating_sub(self.at.time.0))
    }

    /// Whether an effect can be performed.
    pub(crate) fn has_effects(&self) -> bool {
        !self.first.hosted().tables().outbox.is_empty()
    }

    /// Whether the cluster's version can rise.
    pub(crate) fn is_old(&self) -> bool {
        self.at.version < S::VERSION
    }

    pub(crate) fn passed(&self) -> Passed {
        self.passed
    }

    /// A line for each step that was taken, if it tells.
    pub(crate) fn story(&mut self) -> Vec<String> {
        self.story.take().unwrap_or_default()
    }

    /// The index of the last entry.
    pub(crate) fn index(&self) -> Index {
        self.at.index
    }

    /// Takes a step, after the entry at this index or a later one.
    pub(crate) fn step(&mut self, after: Index, step: &Step<S>) -> Result<(), Fault> {
        // A cluster's log has these entries itself, and consists of these two kinds of steps.
        if !self.has_begun && !matches!(step, Step::Logged(..) | Step::Load) {
            self.begin()?;
        }
        self.at.index = self.at.index.max(after);
        if self.story.is_some() {
            self.tell(format!("{step:?}"));
        }
        match step {
            Step::Command(command) => self.command(command),
            Step::Query(query) => self.query(query),
            Step::Pass(ms) => self.pass(*ms),
            Step::Lead => {
                self.lead();
                Ok(())
            }
            Step::Upgrade if self.is_old() => self.raise(self.at.version + 1),
            Step::Upgrade => Ok(()),
            Step::Load => self.load(),
            Step::Perform { nth, is_lost } => self.perform(*nth, *is_lost),
            Step::Logged(at, entry) => self.follow(at, entry).map(drop),
        }
    }

    /// Saves the twin, and loads it.
    pub(crate) fn load(&mut self) -> Result<(), Fault> {
        self.passed.loads += 1;
        let saved = self.twin.save()?;
        self.twin.load(&saved)?;
        let again = self.twin.save()?;
        same_state("the twin before it was saved", &saved, "the twin once it was loaded", &again)
    }

    /// Applies an entry of a cluster's log. Gives the outcome of a command. Log time is that of the
    /// last tick that was followed: earlier ones may be left out.
    pub(crate) fn follow(&mut self, at: &At, entry: &Entry) -> Result<Vec<u8>, Fault> {
        let time = match entry {
            Entry::Tick(tick) => tick.time,
            Entry::Command { .. } | Entry::Internal(_) => self.at.time,
        };
        self.at = At { time, version: self.at.version, ..*at };
        let before = self.pending();
        let outcome = self.apply_here(entry)?;
        self.tell_fired(before);
        let At { time, version, .. } = self.first.hosted().tables().at;
        (self.at.time, self.at.version) = (time, version);
        if let Entry::Command { bytes, .. } = entry
            && let Some(command) = command_of::<S>(bytes)
        {
            self.replied(&command, &outcome)?;
        }
        Ok(outcome)
    }

    /// Answers a query after the last entry.
    pub(crate) fn ask(&mut self, query: &S::Query) -> Result<S::Answer, Fault> {
        self.first.query(query)
    }

    /// The first entries of every drawn log: a tick, with the bounds, and the cluster's version; and
    /// in some the generation.
    fn begin(&mut self) -> Result<(), Fault> {
        self.has_begun = true;
        self.tick(LogTime(0))?;
        self.raise(self.at.version)?;
        if self.is_recovered { self.inside(&Internal::Generation(1_600_000_000)) } else { Ok(()) }
    }

    fn lead(&mut self) {
        self.passed.leaders += 1;
        self.at.term = self.at.term.next();
        self.at.index = self.at.index.next();
    }

    /// Performs one of the effects that may be performed: the oldest of each key.
    fn perform(&mut self, nth: u64, is_lost: bool) -> Result<(), Fault> {
        let outbox = &self.first.hosted().tables().outbox;
        let heads: Vec<_> = outbox.heads().collect();
        let (Some(outside), Some(nth)) = (&mut self.outside, nth.checked_rem(heads.len() as u64)) else {
            return Ok(());
        };
        let id = heads[nth as usize];
        let Some(row) = outbox.get(id) else { return Ok(()) };
        let unread = |error| Fault::new(Property::Encoding, format!("the effect can't be read back: {error}"));
        let effect: S::Effect = postcard::from_bytes(&row.effect).map_err(unread)?;
        let (key, what) = (row.key.clone(), shown(&effect));
        survives("the effect", &effect)?;
        let signal = outside.perform((self.first.hosted().tables().generation, self.at.term), (id, &key), effect);
        self.passed.performed += 1;
        self.tell_more(|| format!("{what} of {key:?}"));
        let signal = signal?;
        self.tell_more(|| signal.as_ref().map_or("=> again".into(), |signal| format!("=> {}", shown(signal))));
        match signal {
            _ if is_lost => {
                self.lead();
                Ok(())
            }
            None => Ok(()),
            Some(signal) => {
                survives("the signal", &signal)?;
                let (term, signal) = (self.at.term, encoded("the signal", &signal)?);
                self.inside(&Internal::Done(Done { id, term, signal: &signal }))
            }
        }
    }

    fn command(&mut self, command: &S::Command) -> Result<(), Fault> {
        survives("the command", command)?;
        let bytes = Hosted::<S>::encode(command).to_vec();
        let outcome = self.apply(&Entry::Command { session: None, bytes })?;
        self.replied(command, &outcome)
    }

    /// Judges the outcome of a command.
    fn replied(&mut self, command: &S::Command, outcome: &[u8]) -> Result<(), Fault> {
        match Hosted::<S>::decode(outcome) {
            Some(Ok(reply)) => {
                self.passed.commands += 1;
                self.tell_more(|| format!("=> {}", shown(&reply)));
                survives("the reply", &reply)?;
                if let Some(model) = &mut self.model {
                    let (at, judge) = (self.at, || model(command, &reply, &self.at));
                    judged(Property::Model, judge).map_err(|fault| with_at(fault, &at))?;
                }
                self.replies.push(reply);
                Ok(())
            }
            Some(Err(_)) if S::since(command) <= S::VERSION && self.is_old() => {
                self.passed.refused += 1;
                let version = self.at.version;
                self.tell_more(|| format!("=> refused: the cluster is at version {version}"));
                Ok(())
            }
            Some(Err(refused)) => Err(Fault::new(Property::Refusals, refused.to_string())),
            None => Err(Fault::new(Property::Encoding, "the reply can't be read back")),
        }
    }

    fn query(&mut self, query: &S::Query) -> Result<(), Fault> {
        survives("the query", query)?;
        let (answer, other) = (self.first.query(query)?, self.twin.query(query)?);
        self.passed.queries += 1;
        self.tell_more(|| format!("=> {}", shown(&answer)));
        survives("the answer", &answer)?;
        match encoded("the answer", &answer)? == encoded("the answer", &other)? {
            true => Ok(()),
            false => Err(differ(Property::Answers, "answers", &shown(&answer), &shown(&other))),
        }
    }

    /// Log time passes; a tick that fires as many timers as one may is followed by another.
    fn pass(&mut self, ms: u64) -> Result<(), Fault> {
        let until = LogTime(self.at.time.0.saturating_add(ms));
        let before = self.pending();
        let pending = self.first.hosted().tables().timers.len();
        for _ in 0..TICKS_MAX {
            self.tick(until)?;
            if self.at.time >= until {
                break;
            }
        }
        let left = self.first.hosted().tables().timers.len();
        self.passed.fired += pending.saturating_sub(left) as u64;
        self.tell_fired(before);
        Ok(())
    }

    /// The pending timers, if it tells.
    fn pending(&self) -> Vec<(LogTime, S::Signal)> {
        if self.story.is_some() { self.first.timers() } else { Vec::new() }
    }

    fn tell_fired(&mut self, before: Vec<(LogTime, S::Signal)>) {
        let now = self.first.hosted().tables().at.time;
        for (due, signal) in before.into_iter().filter(|(due, _)| *due <= now) {
            self.tell_more(|| format!("({} at {} ms)", shown(&signal), due.0));
        }
    }

    fn tick(&mut self, until: LogTime) -> Result<(), Fault> {
        self.passed.ticks += 1;
        // Of the entry alone: it draws the same when others are left out.
        let mut rng = Rng::new(self.seed.rotate_left(32) ^ self.at.index.0);
        self.at.unix_ms += until.0.saturating_sub(self.at.time.0);
        if rng.one_in(16) {
            // The next leader's wall clock, or a correction of this one.
            self.at.unix_ms = self.at.unix_ms + rng.below(2 * HOUR_MS) - HOUR_MS;
        }
        let (time, unix_ms, random) = (until, self.at.unix_ms, rng.next_u64().to_le_bytes());
        let tick = Tick { time, unix_ms, random, bounds: self.bounds };
        self.at.time = until;
        let fired = self.apply(&Entry::Tick(tick)).map(drop);
        self.at.time = self.first.hosted().tables().at.time;
        fired
    }

    fn raise(&mut self, version: u32) -> Result<(), Fault> {
        self.at.version = version;
        self.inside(&Internal::Version(version))
    }

    fn inside(&mut self, internal: &Internal<'_>) -> Result<(), Fault> {
        let payload = internal.encode().map_err(|error| Fault::new(Property::Encoding, error.to_string()))?;
        self.apply(&Entry::Internal(payload)).map(drop)
    }

    /// Both copies apply the next entry, and are compared. Gives the outcome of a command.
    fn apply(&mut self, entry: &Entry) -> Result<Vec<u8>, Fault> {
        self.at.index = self.at.index.next();
        self.apply_here(entry)
    }

    fn apply_here(&mut self, entry: &Entry) -> Result<Vec<u8>, Fault> {
        let at = self.at;
        let outcome = self.first.apply(&at, entry);
        let twins = self.twin.apply(&at, entry);
        let (outcome, twins) = match (outcome, twins) {
            (Ok(outcome), Ok(twins)) => (outcome, twins),
            (Err(fault), Err(_)) => return Err(with_at(fault, &at)),
            (Err(Fault { property: Property::Panics, details }), Ok(_)) => {
                return Err(Fault::new(Property::Outcomes, format!("one copy panics {details}\nits twin does not")));
            }
            (Ok(_), Err(Fault { property: Property::Panics, details })) => {
                return Err(Fault::new(
                    Property::Outcomes,
                    format!("one copy does not panic\nits twin does {details}"),
                ));
            }
            (Err(fault), Ok(_)) | (Ok(_), Err(fault)) => return Err(with_at(fault, &at)),
        };
        self.compare(&outcome, &twins)?;
        let (service, at) = (self.first.hosted().service(), self.first.hosted().tables().at);
        for invariant in &self.spec.invariants {
            judged(Property::Invariant, || invariant(service, &at)).map_err(|fault| with_at(fault, &at))?;
        }
        Ok(outcome)
    }

    fn compare(&mut self, outcome: &[u8], twins: &[u8]) -> Result<(), Fault> {
        let at = self.at;
        if outcome != twins {
            let [reply, other] = [outcome, twins].map(replied::<S>);
            return Err(with_at(differ(Property::Outcomes, "replies", &reply, &other), &at));
        }
        let (tables, others) = (self.first.hosted().tables(), self.twin.hosted().tables());
        if tables.outcomes != others.outcomes {
            let [published, also] = [&self.first, &self.twin].map(|side| published(side, at.index));
            if published != also {
                return Err(with_at(differ(Property::Outcomes, "events", &published, &also), &at));
            }
            let [timers, also] = [&self.first, &self.twin].map(|side| shown(&side.timers()));
            return Err(with_at(differ(Property::Outcomes, "timers or effects", &timers, &also), &at));
        }
        let (digest, others) = (self.first.digest()?, self.twin.digest()?);
        if digest != others {
            let (digest, others) = (shown(&digest), shown(&others));
            return Err(with_at(differ(Property::States, "digests of the state", &digest, &others), &at));
        }
        if self.size > LARGE && !at.index.0.is_multiple_of(16) {
            return Ok(());
        }
        let (saved, also) = (self.first.save()?, self.twin.save()?);
        self.size = saved.state.len();
        same_state("one copy", &saved, "its twin", &also).map_err(|fault| with_at(fault, &at))
    }

    fn tell(&mut self, line: String) {
        self.story.get_or_insert_default().push(line);
    }

    /// Adds to the last line.
    fn tell_more(&mut self, more: impl FnOnce() -> String) {
        if let Some(line) = self.story.as_mut().and_then(|story| story.last_mut()) {
            line.push(' ');
            line.push_str(&more());
        }
    }
}

/// The events of the entry at `index`.
fn published<S: Service>(side: &Side<'_, S>, index: Index) -> String {
    let history = &side.hosted().tables().history;
    match history.read(Index(index.0 - 1), index, &Topics::All) {
        Ok(Next::Changes(changes)) => shown(&changes.events),
        Ok(Next::Nothing(_)) | Err(_) => "none".into(),
    }
}

/// Calls a check of the author's, which may assert.
fn judged(property: Property, check: impl FnOnce() -> Result<(), String>) -> Result<(), Fault> {
    let verdict = World::new(0, 0).catch(check).flatten();
    verdict.map_err(|details| Fault::new(property, details))
}

fn with_at(Fault { property, details }: Fault, at: &At) -> Fault {
    Fault::new(property, format!("{details}\n(entry {}, {} ms)", at.index, at.time.0))
}

fn differ(property: Property, what: &str, one: &str, other: &str) -> Fault {
    Fault::new(property, format!("the {what} differ:\n  one copy: {one}\n  its twin: {other}"))
}

/// The reply in an outcome.
fn replied<S: Service>(outcome: &[u8]) -> String {
    match Hosted::<S>::decode(outcome) {
        Some(Ok(reply)) => shown(&reply),
        Some(Err(refused)) => format!("refused: {refused}"),
        None => "bytes that are no reply".into(),
    }
}

fn same_state(one: &str, saved: &Saved, other: &str, also: &Saved) -> Result<(), Fault> {
    let (what, saved, also) = match () {
        () if saved.state != also.state => ("states", &saved.state, &also.state),
        () if saved.tables != also.tables => ("timers, effects or events", &saved.tables, &also.tables),
        () => return Ok(()),
    };
    let same = saved.iter().zip(also).take_while(|(byte, other)| byte == other).count();
    let around = |bytes: &[u8]| {
        let (from, to) = (same.saturating_sub(40), bytes.len().min(same + 40));
        bytes[from.min(to)..to].escape_ascii().to_string()
    };
    let bytes = format!("the saved {what} differ from byte {same} on:");
    let bytes = format!("{bytes}\n  {one}: …{}\n  {other}: …{}", around(saved), around(also));
    Err(Fault::new(Property::States, bytes))
}

fn encoded<T: Message>(what: &str, message: &T) -> Result<Vec<u8>, Fault> {
    let form = |error| Fault::new(Property::Encoding, format!("{what} has no form in postcard: {error}"));
    postcard::to_stdvec(message).map_err(form)
}

/// Checks that a message is the same after it was encoded and read back.
fn survives<T: Message>(what: &str, message: &T) -> Result<(), Fault> {
    let bytes = encoded(what, message)?;
    let back: T = match postcard::take_from_bytes(&bytes) {
        Ok((back, [])) => back,
        Ok((_, rest)) => {
            return Err(Fault::new(Property::Encoding, format!("{what} leaves {} bytes unread", rest.len())));
        }
        Err(error) => return Err(Fault::new(Property::Encoding, format!("{what} can't be read back: {error}"))),
    };
    let (before, after) = (format!("{message:?}"), format!("{back:?}"));
    if before != after {
        let (before, after) = (shown(message), shown(&back));
        return Err(Fault::new(Property::Encoding, format!("{what} was {before}\n  and is read as {after}")));
    }
    match encoded(what, &back)? == bytes {
        true => Ok(()),
        false => Err(Fault::new(Property::Encoding, format!("{what} {before} has more than one encoding"))),
    }
}
