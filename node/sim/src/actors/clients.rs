//! The callers of a simulated cluster: each has one operation under way, asks any node, and
//! remembers the answer.
//!
//! Stamps order the observations: an answer of one turn of the driver precedes all operations that
//! are invoked in the next. Two operations count as ordered only if they surely were.

use super::{
    machine::Registers,
    observer::SharedObserver,
    process::Process,
    registers::{Change, Command, GROUP_KEYS, OfGroup},
    sessions::{Next, Sessions},
};
use crate::{
    freshness::{Past, bounded},
    linearizability::{self, KEYS_MAX, Operation, Outcome, Reply, Values, Verdict, by_group},
    plan::Plan,
};
use bytes::Bytes;
use quorate::{Consistency, Index, NodeId, ProposeError, ReadError, SessionError, SessionKey};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    future::{Future, poll_fn},
    rc::Rc,
    task::Poll,
    time::Duration,
};

/// All callers of a run, and the history of their operations.
pub(super) struct Clients {
    clients: Vec<Client>,
    sessions: Sessions,
    keys: u64,
    /// Whether calls of several keys are made: in a half of the runs with more than one key.
    has_groups: bool,
    rest: Duration,
    asked: BTreeMap<u64, Asked>,
    /// The answers since the driver last looked.
    told: Rc<RefCell<Vec<(u64, Told)>>>,
    stamp: u64,
    /// The last entry that any caller was told of: every operation invoked from now on must
    /// come after it.
    acknowledged: Index,
    past: Past,
    /// The latest index at which each running node served a read.
    seen: BTreeMap<NodeId, Index>,
    is_closed: bool,
    observer: SharedObserver,
}

struct Client {
    random: SmallRng,
    rests_until: Duration,
    waits_for: Option<u64>,
    /// The awaited operation is not under way: it is to be retried after a rest.
    asks_again: bool,
}

/// An operation that a caller invoked.
struct Asked {
    client: u64,
    node: NodeId,
    /// The key, or the first one of the group.
    key: u64,
    call: Call,
    /// The deadline for the leader to begin with the operation, if the caller set one.
    within: Option<Duration>,
    invoked: u64,
    floor: Index,
    /// The last entry that an answer of this node had shown when the operation was invoked.
    seen_before: Index,
    answer: Option<(u64, Told)>,
    /// The session, the serial and the command of the operation, if it belongs to a session.
    session: Option<(SessionKey, u64, Bytes)>,
    /// Whether any attempt had an unknown outcome.
    is_unknown: bool,
}

impl Asked {
    /// Without a deadline, a session or an answer.
    fn new(client: u64, node: NodeId, key: u64, call: Call, invoked: u64, floor: Index) -> Self {
        let (within, seen_before, answer, session, is_unknown) = (None, Index(0), None, None, false);
        Self { client, node, key, call, within, invoked, floor, seen_before, answer, session, is_unknown }
    }
}

#[derive(Clone, Copy, Debug)]
enum Call {
    /// Opens a session.
    Open,
    Change(Change),
    Read(Consistency),
    /// Reads all keys of a group.
    List(Consistency),
}

/// The answer to a caller.
#[derive(Clone, Copy, Debug)]
enum Told {
    Applied {
        index: Index,
        changed: bool,
    },
    /// The command did not and will not take effect.
    Refused,
    /// As `Refused`: its deadline passed before it was begun.
    Late,
    /// The command may or may not take effect.
    Unknown,
    /// The value of the key, or those of the group.
    Found {
        index: Index,
        values: [Option<u64>; GROUP_KEYS],
    },
    NotRead,
    /// A session was opened.
    Opened {
        index: Index,
    },
    /// The session takes the command no more, and this attempt did not apply it.
    SessionRefused {
        expired: bool,
    },
    /// The node can't prove that the read would be fresh enough.
    TooStale,
}

/// The longest padding of a command, in bytes, so that logs fill more than one segment.
const PADDING_MAX: usize = 2_000;
/// The share of writes that have a deadline, `WITHIN_MAX` at most.
const IMPATIENT: f64 = 0.25;
const WITHIN_MAX: Duration = Duration::from_millis(500);

impl Clients {
    pub(super) fn new(plan: &Plan, observer: SharedObserver) -> Self {
        let client = |nth| Client {
            random: SmallRng::seed_from_u64(plan.seed ^ (nth + 1) << 40),
            rests_until: Duration::ZERO,
            waits_for: None,
            asks_again: false,
        };
        Self {
            clients: (0..plan.clients).map(client).collect(),
            sessions: Sessions::new(plan),
            keys: plan.keys,
            has_groups: plan.keys > 1 && plan.seed % 2 == 1,
            rest: plan.rest,
            asked: BTreeMap::new(),
            told: Rc::default(),
            stamp: 0,
            acknowledged: Index(0),
            past: Past::new(plan),
            seen: BTreeMap::new(),
            is_closed: false,
            observer,
        }
    }

    /// Every client that has rested invokes an operation, or retries its last.
    pub(super) fn ask(&mut self, now: Duration, running: &mut BTreeMap<NodeId, &mut Process>) {
        self.stamp += 1;
        if !running.is_empty() {
            self.ask_again(now, running);
        }
        if self.is_closed || running.is_empty() {
            return;
        }
        for (id, client) in (0..).zip(&mut self.clients) {
            if client.waits_for.is_some() || client.rests_until > now {
                continue;
            }
            let random = &mut client.random;
            let nth = random.random_range(0..running.len());
            let Some((node, process)) = running.iter_mut().nth(nth) else { continue };
            let operation = self.asked.len() as u64 + 1;
            let mut key = random.random_range(0..self.keys);
            let expect = self.asked.values().next_back().and_then(|asked| match asked.call {
                Call::Change(Change::Write { value } | Change::Swap { value, .. }) if asked.key == key => Some(value),
                _ => None,
            });
            let call = match random.random_range(0..16) {
                0..4 => Call::Change(Change::Write { value: operation }),
                4..6 => Call::Change(Change::Swap { expect, value: operation }),
                6 => Call::Change(Change::Delete),
                7..9 => Call::Read(Consistency::Linearizable),
                9..12 if self.past.leases => Call::Read(Consistency::Lease),
                9..12 => Call::Read(Consistency::Linearizable),
                12..15 => Call::Read(bounded(random)),
                _ => Call::Read(Consistency::Local),
            };
            let call = if self.has_groups && random.random_bool(0.5) {
                let group = key - key % GROUP_KEYS as u64;
                match call {
                    Call::Change(Change::Write { .. }) => {
                        key = group;
                        Call::Change(txn(random, operation, group, &self.asked))
                    }
                    Call::Read(consistency) => {
                        key = group;
                        Call::List(consistency)
                    }
                    call => call,
                }
            } else {
                call
            };
            let next = if let Call::Change(_) = call { self.sessions.next(id) } else { Next::Without };
            let call = if let Next::Open = next { Call::Open } else { call };
            let padding = if random.random_bool(0.2) { random.random_range(0..PADDING_MAX) } else { 0 };
            let within = random.random_bool(IMPATIENT).then(|| random.random_range(Duration::ZERO..WITHIN_MAX));
            let (handle, told) = (process.node().clone(), Rc::clone(&self.told));
            let mut session = None;
            match call {
                Call::Open => process.call(async move {
                    let answer = match handle.session().await {
                        Ok(session) => session.key().with_bytes(|_, index| Told::opened_at(index)),
                        Err(_) => Told::NotRead,
                    };
                    told.borrow_mut().push((operation, answer));
                }),
                Call::Change(change) if let Next::As(session_key, serial) = next => {
                    let command = Command { operation, key, change }.encode(padding);
                    session = Some((session_key.clone(), serial, command.clone()));
                    process.call(propose_as(handle, operation, session_key, serial, command, within, told));
                }
                Call::Change(change) => {
                    let command = Command { operation, key, change }.encode(padding);
                    process.call(async move {
                        let proposed = handle.propose(command).within(within).await;
                        let answer = match proposed {
                            Ok(applied) => Told::Applied { index: applied.index, changed: &applied.reply[..] == b"1" },
                            Err(error) => Told::failed(error),
                        };
                        told.borrow_mut().push((operation, answer));
                    });
                }
                Call::Read(consistency) => process.call(async move {
                    let answer = match handle.read(consistency, move |registers| registers.get(key)).await {
                        Ok(read) => Told::Found { index: read.index, values: alone(read.value) },
                        Err(error) => Told::not_read(&error),
                    };
                    told.borrow_mut().push((operation, answer));
                }),
                Call::List(consistency) => process.call(async move {
                    let answer = match handle.read(consistency, move |registers| registers.group(key)).await {
                        Ok(read) => Told::Found { index: read.index, values: read.value },
                        Err(error) => Told::not_read(&error),
                    };
                    told.borrow_mut().push((operation, answer));
                }),
            }
            client.waits_for = Some(operation);
            let invoked = self.stamp;
            let floor = match call {
                Call::Read(consistency) | Call::List(consistency) => self.past.floor(now, consistency),
                Call::Change(_) | Call::Open => self.acknowledged,
            };
            let seen_before = self.seen.get(node).copied().unwrap_or_default();
            let asked = Asked { within, seen_before, session, ..Asked::new(id, *node, key, call, invoked, floor) };
            self.asked.insert(operation, asked);
            self.observer.lock().say(format_args!("client {id} asks {node} for {operation}: {call:?} of key {key}"));
        }
    }

    /// Clients with an unknown outcome retry at any node, with the same serial.
    fn ask_again(&mut self, now: Duration, running: &mut BTreeMap<NodeId, &mut Process>) {
        for (id, client) in (0..).zip(&mut self.clients) {
            let Some(operation) = client.waits_for.filter(|_| client.asks_again && client.rests_until <= now) else {
                continue;
            };
            let nth = client.random.random_range(0..running.len());
            let Some((node, process)) = running.iter_mut().nth(nth) else { continue };
            let Some(asked) = self.asked.get_mut(&operation) else { continue };
            let Some((key, serial, command)) = asked.session.clone() else { continue };
            (asked.node, asked.within, client.asks_again) = (*node, None, false);
            let (handle, told) = (process.node().clone(), Rc::clone(&self.told));
            process.call(propose_as(handle, operation, key, serial, command, None, told));
            let mut observer = self.observer.lock();
            observer.report.count("writes repeated", 1);
            observer.say(format_args!("client {id} asks {node} again for {operation}"));
        }
    }

    /// One caller at every node proposes a command and leaves at once. The commands must take
    /// effect all the same.
    pub(super) fn ask_and_leave(&mut self, running: &mut BTreeMap<NodeId, &mut Process>) -> Vec<u64> {
        self.stamp += 1;
        let mut left = Vec::new();
        for (node, process) in running {
            let operation = self.asked.len() as u64 + 1;
            let (handle, change) = (process.node().clone(), Change::Write { value: operation });
            let command = Command { operation, key: 0, change }.encode(0);
            process.call(async move {
                let mut asking = Box::pin(handle.propose(command));
                // The first poll sends the proposal.
                poll_fn(|cx| Poll::Ready(asking.as_mut().poll(cx).is_ready())).await;
            });
            let (call, answer) = (Call::Change(change), Some((self.stamp, Told::Unknown)));
            let (client, floor) = (self.clients.len() as u64, self.acknowledged);
            let asked = Asked::new(client, *node, 0, call, self.stamp, floor);
            let asked = Asked { answer, is_unknown: true, ..asked };
            self.asked.insert(operation, asked);
            left.push(operation);
        }
        left
    }

    /// Takes the answers of this turn, and checks them against the applied commands.
    pub(super) fn hear(&mut self, now: Duration) {
        self.stamp += 1;
        let told = std::mem::take(&mut *self.told.borrow_mut());
        for (operation, answer) in told {
            self.answered(now, operation, answer);
        }
    }

    /// A node died, and with it all operations under way there.
    pub(super) fn died(&mut self, now: Duration, node: NodeId) {
        self.seen.remove(&node);
        let waiting = self.clients.iter().filter_map(|client| client.waits_for);
        let stranded: Vec<_> = waiting.filter(|operation| self.asked[operation].node == node).collect();
        for operation in stranded {
            let answer = match self.asked[&operation].call {
                Call::Change(_) => Told::Unknown,
                Call::Open | Call::Read(_) | Call::List(_) => Told::NotRead,
            };
            self.answered(now, operation, answer);
        }
    }

    fn answered(&mut self, now: Duration, operation: u64, answer: Told) {
        let Some(asked) = self.asked.get_mut(&operation).filter(|asked| asked.answer.is_none()) else { return };
        let (mut answer, mut asks_again) = (answer, false);
        if let Some((key, ..)) = &asked.session {
            asked.is_unknown |= matches!(answer, Told::Unknown);
            if let Told::SessionRefused { expired } = answer {
                self.observer.lock().report.count(if expired { "sessions expired" } else { "serials stale" }, 1);
                self.sessions.expired(asked.client, key);
                answer = if asked.is_unknown { Told::Unknown } else { Told::Refused };
            } else {
                asks_again = asked.is_unknown && matches!(answer, Told::Unknown | Told::Refused | Told::Late);
            }
        }
        if let Told::Opened { index } = answer {
            self.sessions.opened(asked.client, index);
        }
        if !asks_again {
            asked.answer = Some((self.stamp, answer));
        }
        if let Some(client) = self.clients.get_mut(asked.client as usize) {
            client.asks_again = asks_again;
            client.waits_for.take_if(|_| !asks_again);
            client.rests_until = now + self.rest.mul_f64(client.random.random_range(0.0..1.0));
        }
        let mut observer = self.observer.lock();
        observer.trace.hash(&(operation, format_args!("{answer:?}").to_string()));
        observer.say(format_args!("client {} hears of {operation}: {answer:?}", asked.client));
        if asks_again {
            return;
        }
        let (floor, key) = (asked.floor, asked.key);
        match (answer, asked.call) {
            (Told::Applied { index, changed }, call) => {
                observer.report.count("writes acknowledged", 1);
                if let (Call::Change(Change::Txn { .. }), true) = (call, changed) {
                    observer.report.count("transactions", 1);
                }
                if observer.index_of(operation) != Some(index) {
                    let found = observer.index_of(operation);
                    observer.fail(format!(
                        "acknowledged writes: {operation} is told applied at {index}, it was at {found:?}"
                    ));
                }
                if observer.reply_of(operation) != Some(changed) {
                    observer.fail(format!(
                        "acknowledged writes: {operation} is told {changed}, which is not its first answer"
                    ));
                }
                if index <= floor {
                    observer.fail(format!("real-time order: {operation} is applied at {index}, asked behind {floor}"));
                }
                self.acknowledged = self.acknowledged.max(index);
                self.past.told(now, index);
            }
            (Told::Refused, _) => {
                observer.report.count("writes refused", 1);
                observer.refused(operation);
            }
            (Told::Late, _) if asked.within.is_some() => {
                observer.report.count("writes late", 1);
                observer.refused(operation);
            }
            (Told::Late, _) => observer.fail(format!("deadlines: {operation} has none, and is refused as late")),
            (Told::Unknown, _) => observer.report.count("writes unknown", 1),
            (Told::Opened { .. }, _) => observer.report.count("sessions opened", 1),
            (Told::SessionRefused { .. }, _) => {}
            (Told::NotRead, Call::Open) => observer.report.count("sessions not opened", 1),
            (Told::NotRead, _) => observer.report.count("reads refused", 1),
            (Told::TooStale, Call::Read(Consistency::Bounded { .. }) | Call::List(Consistency::Bounded { .. })) => {
                observer.report.count("reads too stale", 1)
            }
            (Told::TooStale, _) => {
                observer.fail(format!("bounded reads: {operation} has no bounds, and is refused as too stale"));
            }
            (Told::Found { index, values }, call) => {
                let state = observer.state_at(index);
                let truth = if let Call::List(_) = call { state.group(key) } else { alone(state.get(key)) };
                if truth != values {
                    observer.fail(format!(
                        "reads: {operation} found {values:?} for key {key} at {index}, it was {truth:?}"
                    ));
                }
                let (Call::Read(consistency) | Call::List(consistency)) = call else {
                    return observer.fail(format!("reads: {operation} is none, and is told {values:?}"));
                };
                let (kind, is_linearizable) = match consistency {
                    Consistency::Local => ("local reads", false),
                    Consistency::Bounded { .. } => ("bounded reads", false),
                    Consistency::Lease => ("reads by lease", true),
                    Consistency::Linearizable => ("linearizable reads", true),
                };
                observer.report.count(kind, 1);
                if let Call::List(_) = call {
                    observer.report.count("listings", 1);
                }
                // Reads that overlap are served in any order.
                if index < asked.seen_before {
                    let (node, seen) = (asked.node, asked.seen_before);
                    observer.fail(format!("local reads: {node} went back from {seen} to {index}"));
                }
                let seen = self.seen.entry(asked.node).or_default();
                *seen = index.max(*seen);
                if index < floor {
                    let what = if is_linearizable { "linearizable reads" } else { "bounded reads" };
                    observer.fail(format!("{what}: {operation} is served at {index}, and had to see {floor}"));
                }
                if is_linearizable {
                    self.acknowledged = self.acknowledged.max(index);
                    self.past.told(now, index);
                }
            }
        }
    }

    /// Clients invoke nothing from now on.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
    }

    /// Whether no client waits for an answer.
    pub(super) fn are_idle(&self) -> bool {
        self.clients.iter().all(|client| client.waits_for.is_none())
    }

    /// The number of operations invoked by now.
    pub(super) fn count(&self) -> u64 {
        self.asked.len() as u64
    }

    /// The number of acknowledged writes after the first `operations` operations.
    pub(super) fn served_since(&self, operations: u64) -> usize {
        let since = self.asked.range(operations + 1..);
        since.filter(|(_, asked)| matches!(asked.answer, Some((_, Told::Applied { .. })))).count()
    }

    /// Looks, for each group of keys, for an order of its operations that explains all answers. A
    /// group is a key, in runs without calls of several keys. The report says how many histories
    /// were checked, and how many of them stayed undecided.
    pub(super) fn check_linearizable(&self) -> Result<(), String> {
        let size = if self.has_groups { GROUP_KEYS as u64 } else { 1 };
        let operations = self.asked.values().filter_map(|asked| {
            let operation = operation_of(asked)?;
            Some((asked.key - asked.key % size, Operation { key: (asked.key % size) as usize, ..operation }))
        });
        for (first, history) in by_group(operations) {
            let check = |steps_max| linearizability::check(&history, Values::default(), steps_max);
            let verdict = match check(linearizability::STEPS_MAX) {
                Verdict::Undecided => check(linearizability::STEPS_MAX * 10),
                decided => decided,
            };
            self.observer.lock().report.count("histories", 1);
            match verdict {
                Verdict::Linearizable => {}
                Verdict::Undecided => self.observer.lock().report.count("histories undecided", 1),
                Verdict::Violated(explanation) => {
                    return Err(format!("linearizability: of the keys from {first}: {explanation}"));
                }
            }
        }
        Ok(())
    }
}

/// The value of one key, in the place of a group's.
fn alone(value: Option<u64>) -> [Option<u64>; GROUP_KEYS] {
    let mut values = [None; GROUP_KEYS];
    values[0] = value;
    values
}

/// A random transaction, which expects values that were written of late.
fn txn(random: &mut SmallRng, operation: u64, group: u64, asked: &BTreeMap<u64, Asked>) -> Change {
    let (mut expect, mut change) = (OfGroup::default(), OfGroup::default());
    for nth in 0..GROUP_KEYS {
        if random.random_bool(0.3) {
            let written = asked.values().rev().take(3).find_map(|asked| match asked.call {
                Call::Change(Change::Write { value } | Change::Swap { value, .. })
                    if asked.key == group + nth as u64 =>
                {
                    Some(Some(value))
                }
                Call::Change(Change::Txn { change, .. }) if asked.key == group => change[nth],
                _ => None,
            });
            expect[nth] = Some(written.flatten());
        }
        if random.random_bool(0.8) {
            change[nth] = Some(random.random_bool(0.8).then_some(operation));
        }
    }
    Change::Txn { expect, change }
}

/// One attempt to propose a command within a session.
async fn propose_as(
    handle: quorate::Node<Registers>,
    operation: u64,
    key: SessionKey,
    serial: u64,
    command: Bytes,
    within: Option<Duration>,
    told: Rc<RefCell<Vec<(u64, Told)>>>,
) {
    let proposed = handle.propose(command).by_session(&key, serial).within(within).await;
    let answer = match proposed {
        Ok(applied) => Told::Applied { index: applied.index, changed: &applied.reply[..] == b"1" },
        Err(SessionError::Proposal(error)) => Told::failed(error),
        Err(error) => Told::SessionRefused { expired: error == SessionError::SessionExpired },
    };
    told.borrow_mut().push((operation, answer));
}

impl Told {
    fn failed(error: ProposeError) -> Self {
        match error {
            ProposeError::OutcomeUnknown => Self::Unknown,
            ProposeError::DeadlinePassed => Self::Late,
            _ => Self::Refused,
        }
    }

    fn not_read(error: &ReadError) -> Self {
        if let ReadError::TooStale { .. } = error { Self::TooStale } else { Self::NotRead }
    }

    /// The answer for an opened session, from the bytes of its key.
    fn opened_at(index: &[u8]) -> Self {
        index.try_into().map_or(Self::NotRead, |index| Self::Opened { index: Index(u64::from_le_bytes(index)) })
    }
}

/// An operation in the checker's form. Local and bounded reads promise it nothing, and reads
/// without an answer add nothing.
fn operation_of(asked: &Asked) -> Option<Operation> {
    let call = match asked.call {
        Call::Change(Change::Write { value }) => linearizability::Call::Write(value),
        Call::Change(Change::Swap { expect, value }) => linearizability::Call::Cas { expect, new: value },
        Call::Change(Change::Delete) => linearizability::Call::Delete,
        Call::Change(Change::Txn { expect, change }) => {
            linearizability::Call::Txn(linearizability::Txn { compare: of_keys(expect), change: of_keys(change) })
        }
        Call::Read(Consistency::Linearizable | Consistency::Lease) => linearizability::Call::Read,
        Call::List(Consistency::Linearizable | Consistency::Lease) => linearizability::Call::List,
        Call::Open | Call::Read(_) | Call::List(_) => return None,
    };
    let outcome = match asked.answer {
        Some((at, Told::Applied { changed, .. })) => {
            let reply = match call {
                linearizability::Call::Cas { .. } => Reply::Swapped(changed),
                linearizability::Call::Delete => Reply::Existed(changed),
                linearizability::Call::Txn(_) => Reply::Succeeded(changed),
                _ => Reply::Written,
            };
            Outcome::Completed { at, reply }
        }
        Some((at, Told::Found { values, .. })) => {
            let is_list = call == linearizability::Call::List;
            let reply = if is_list { Reply::Listed(of_keys(values)) } else { Reply::Value(values[0]) };
            Outcome::Completed { at, reply }
        }
        Some((_, Told::Refused | Told::Late)) => Outcome::Failed,
        Some((_, Told::NotRead | Told::TooStale | Told::Opened { .. } | Told::SessionRefused { .. })) => return None,
        Some((_, Told::Unknown)) | None => Outcome::Unknown,
    };
    let is_read = matches!(call, linearizability::Call::Read | linearizability::Call::List);
    let operation = Operation { client: asked.client, key: 0, call, invoked: asked.invoked, outcome };
    (!is_read || outcome != Outcome::Unknown).then_some(operation)
}

/// The values of a group in the checker's form, which has room for more keys.
fn of_keys<T: Copy + Default>(group: [T; GROUP_KEYS]) -> [T; KEYS_MAX] {
    std::array::from_fn(|key| group.get(key).copied().unwrap_or_default())
}
