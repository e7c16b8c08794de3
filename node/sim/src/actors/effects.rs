//! The outside of a simulated cluster, where the effects of its typed service are performed, and the
//! properties that must hold of them. It remembers the highest fence and refuses lower ones, as the
//! documents advise. A call takes its time, some fail before or after they had their effect, and a
//! request arrives although its node is dead by then, or leads no more.
//!
//! - **Known effects.** A call is for an effect that a committed command has asked for, with its id,
//!   key and content; the calls of a leadership for one effect are numbered from 1.
//! - **In order per key.** A call begins only once every earlier effect of its key is completed, and
//!   a leadership has one call of a key at a time.
//! - **Fences.** Each leadership has one, higher than those of all earlier terms.
//! - **Known completions.** No leader performs an effect that an earlier leader has completed.
//! - **Late results.** The result that counts is the one that the outside gave to the leader in the
//!   term of the entry. No result counts twice.
//! - **Nothing after the completion.** Once an effect is completed, the fence keeps all further calls
//!   for it out: they are those of deposed leaders.
//! - **Dropped calls.** A node has no call under way for longer than it leads.
//! - **At least once.** In the end every effect is completed, and the outside has seen each.

use super::{machine::Registers, observer::SharedObserver, service::Signal};
use quorate::{EffectId, Node, NodeId, NodeRole, Retry, Status, Term, Ticket, Token};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{collections::BTreeMap, future::pending, mem, panic, time::Duration};
use tokio::sync::{oneshot, watch};

/// The attempts in a leadership after which the outside fails no more, so that rests stay short.
const FAILS_MAX: u32 = 4;

/// The record of all effects and calls of a run.
pub(super) struct Outside {
    random: SmallRng,
    /// Whether calls neither fail nor take long: after the last fault.
    is_calm: bool,
    asked: BTreeMap<EffectId, Asked>,
    calls: u64,
    under_way: BTreeMap<u64, Call>,
    /// The fence of each leadership.
    fences: BTreeMap<Term, Token>,
    /// The highest fence that has arrived.
    highest: Option<Token>,
    /// Requests and answers under way, in the order of their arrival, with the number of the call.
    flying: BTreeMap<(Duration, u64), Flight>,
    /// The number of calls that a leadership has begun for an effect.
    begun: BTreeMap<(EffectId, Term), u32>,
    /// The call of a leadership that gave the result of an effect.
    results: BTreeMap<(EffectId, Term), u64>,
}

/// An effect, and all that has become of it.
struct Asked {
    key: &'static str,
    operation: u64,
    /// The number of calls that had the effect.
    times: u64,
    /// The latest term in which a leader has begun a call for it.
    latest: Term,
    /// The term of the result that counted.
    completed: Option<Term>,
}

#[derive(Clone, Copy)]
struct Call {
    node: NodeId,
    term: Term,
    id: EffectId,
    fence: Token,
}

/// The request of a call, or its answer. It arrives whatever becomes of its node.
struct Flight {
    call: Call,
    course: Course,
    has_arrived: bool,
    answer: oneshot::Sender<End>,
}

/// The fate of a call: how long it takes to arrive and to be answered, and its end.
struct Course {
    there: Duration,
    back: Duration,
    end: End,
}

#[derive(Clone, Copy, Debug)]
enum End {
    Result,
    /// It arrives, and the answer is an error.
    Error(Option<Duration>),
    /// It does not arrive.
    Nothing,
    Panic,
}

impl Default for Outside {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Outside {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: SmallRng::seed_from_u64(seed ^ 0xeffec7),
            is_calm: false,
            asked: BTreeMap::new(),
            calls: 0,
            under_way: BTreeMap::new(),
            fences: BTreeMap::new(),
            highest: None,
            flying: BTreeMap::new(),
            begun: BTreeMap::new(),
            results: BTreeMap::new(),
        }
    }

    /// Calls neither fail nor take long from now on.
    pub(super) fn calm_down(&mut self) {
        self.is_calm = true;
    }

    /// A command asked for an effect.
    pub(super) fn asked(&mut self, id: EffectId, key: &'static str, operation: u64) {
        self.asked.insert(id, Asked { key, operation, times: 0, latest: Term(0), completed: None });
    }

    /// The leader of `term` completes an effect, in an entry of that term. Gives the call with the
    /// result, and the number of other results by now.
    ///
    /// # Errors
    /// The property that does not hold.
    pub(super) fn completed(&mut self, id: EffectId, term: Term) -> Result<(u64, u64), String> {
        let late = self.results.range((id, Term(0))..=(id, Term(u64::MAX))).filter(|((_, of), _)| *of != term);
        let late = late.count() as u64;
        let Some(call) = self.results.get(&(id, term)) else {
            return Err(format!("late results: {id} is completed in term {term}, whose leader has no result of it"));
        };
        let Some(asked) = self.asked.get_mut(&id) else { return Err(format!("known effects: {id} is completed")) };
        if asked.latest > term {
            let latest = asked.latest;
            return Err(format!("known completions: {id}, completed in term {term}, is performed in {latest}"));
        }
        asked.completed = Some(term);
        Ok((*call, late))
    }

    /// Whether a call of a node is under way that is not of this leadership.
    pub(super) fn outlives(&self, node: NodeId, leads: Option<Term>) -> bool {
        self.under_way.values().any(|call| call.node == node && Some(call.term) != leads)
    }

    /// All effects are completed.
    ///
    /// # Errors
    /// The property that does not hold.
    pub(super) fn check_end(&self) -> Result<(), String> {
        match self.asked.iter().find(|(_, asked)| asked.completed.is_none() || asked.times == 0) {
            Some((id, Asked { times, completed, .. })) => {
                Err(format!("at least once: {id} is performed {times} times, and completed in {completed:?}"))
            }
            None => Ok(()),
        }
    }

    /// A leader's call begins. Gives its number.
    fn begins(
        &mut self,
        now: Duration,
        (node, term): (NodeId, Term),
        operation: u64,
        ticket: &Ticket,
        answer: oneshot::Sender<End>,
    ) -> Result<u64, String> {
        let Ticket { id, fence, attempt, .. } = *ticket;
        let Some(asked) = self.asked.get_mut(&id) else {
            return Err(format!("known effects: {node} performs {id}, which nothing has asked for"));
        };
        if (asked.key, asked.operation) != (&*ticket.key, operation) {
            return Err(format!("known effects: {node} performs {id} as {operation} of {}", ticket.key));
        }
        if let Some(completed) = asked.completed.filter(|completed| *completed < term) {
            return Err(format!("known completions: {id}, completed in term {completed}, is performed in {term}"));
        }
        asked.latest = asked.latest.max(term);
        let (key, is_open) = (asked.key, |asked: &Asked| asked.completed.is_none());
        if let Some((open, _)) = self.asked.range(..id).find(|(_, it)| it.key == key && is_open(it)) {
            return Err(format!("in order per key: {node} performs {id} of {key}, and {open} is not completed"));
        }
        let same = |call: &&Call| (call.node, call.term) == (node, term) && self.asked[&call.id].key == key;
        if let Some(call) = self.under_way.values().find(same) {
            return Err(format!("in order per key: {node} performs {id} of {key} beside {}", call.id));
        }
        let begun = self.begun.entry((id, term)).or_default();
        *begun += 1;
        if attempt != *begun {
            return Err(format!("known effects: attempt {attempt} for {id} in term {term} is the {begun}th"));
        }
        let known = *self.fences.entry(term).or_insert(fence);
        let is_between = self.fences.range(..term).all(|(_, earlier)| *earlier < fence)
            && self.fences.range(Term(term.0 + 1)..).all(|(_, later)| *later > fence);
        if known != fence || !is_between {
            return Err(format!("fences: {node} has {fence} in term {term}, of {:?}", self.fences));
        }
        self.calls += 1;
        let (call, course) = (Call { node, term, id, fence }, self.course(attempt));
        self.under_way.insert(self.calls, call);
        self.flying.insert((now + course.there, self.calls), Flight { call, course, has_arrived: false, answer });
        Ok(self.calls)
    }

    fn course(&mut self, attempt: u32) -> Course {
        let random = &mut self.random;
        let mut within = |ms| Duration::from_millis(random.random_range(0..ms));
        let (there, back, after) = (within(40), within(20), within(300));
        if self.is_calm {
            return Course { there, back, end: End::Result };
        }
        let there = if random.random_ratio(1, 12) { there * 40 } else { there };
        let end = match random.random_range(0..16) {
            _ if attempt > FAILS_MAX => End::Result,
            0 => End::Error(Some(after)),
            1 => End::Error(None),
            2..4 => End::Nothing,
            4 => End::Panic,
            _ => End::Result,
        };
        Course { there, back, end }
    }

    /// Requests and answers arrive that are due. Gives what is to be counted.
    ///
    /// # Errors
    /// The property that does not hold.
    pub(super) fn advance(&mut self, now: Duration) -> Result<Vec<&'static str>, String> {
        let mut counted = Vec::new();
        while let Some(first) = self.flying.first_entry().filter(|first| first.key().0 <= now) {
            let ((at, number), mut flight) = first.remove_entry();
            let Call { term, id, .. } = flight.call;
            if !mem::replace(&mut flight.has_arrived, true) {
                counted.extend(self.arrives(&mut flight)?);
                self.flying.insert((at + flight.course.back, number), flight);
                continue;
            }
            if let End::Result = flight.course.end {
                self.results.insert((id, term), number);
                let is_late = self.asked.get(&id).is_some_and(|asked| asked.completed.is_some());
                counted.extend(is_late.then_some("late results refused"));
            }
            // The node may be gone, or its leadership over.
            let _ = flight.answer.send(flight.course.end);
        }
        Ok(counted)
    }

    fn arrives(&mut self, flight: &mut Flight) -> Result<Option<&'static str>, String> {
        let Call { term, id, fence, .. } = flight.call;
        if let End::Nothing = flight.course.end {
            return Ok(None);
        }
        if self.highest.is_some_and(|highest| fence < highest) {
            flight.course.end = End::Nothing;
            return Ok(Some("effects fenced off"));
        }
        self.highest = Some(fence);
        let Some(asked) = self.asked.get_mut(&id) else { return Ok(None) };
        if let Some(completed) = asked.completed {
            return Err(format!(
                "nothing after the completion: {id}, completed in {completed}, is performed in {term}"
            ));
        }
        asked.times += 1;
        Ok(Some(if asked.times == 1 { "effects performed" } else { "effects performed again" }))
    }
}

/// The outside as the handler of one node sees it.
#[derive(Clone)]
pub(super) struct Outsider {
    node: NodeId,
    status: watch::Receiver<Status>,
    observer: SharedObserver,
}

impl Outsider {
    pub(super) fn of(node: &Node<Registers>, observer: SharedObserver) -> Self {
        Self { node: node.id(), status: node.status(), observer }
    }

    /// Performs an effect.
    ///
    /// # Errors
    /// To be tried again.
    pub(super) async fn perform(self, operation: u64, ticket: Ticket) -> Result<Signal, Retry> {
        let (role, term) = {
            let status = self.status.borrow();
            (status.role, status.term)
        };
        if role != NodeRole::Leader {
            // The leadership has just ended: the call is about to be dropped.
            return pending().await;
        }
        let (answer, answered) = oneshot::channel();
        let begun = {
            let observer = &mut *self.observer.lock();
            observer.say(format_args!("{} performs {}, attempt {}", self.node, ticket.id, ticket.attempt));
            observer.report.count("effects retried", u64::from(ticket.attempt > 1));
            let (now, outside) = (observer.now, &mut observer.twin.outside);
            let begun = outside.begins(now, (self.node, term), operation, &ticket, answer);
            begun.map_err(|violation| observer.fail(violation))
        };
        let Ok(call) = begun else { return pending().await };
        let mut under_way = UnderWay { call, ends: false, observer: self.observer.clone() };
        let Ok(end) = answered.await else { return pending().await };
        under_way.ends = true;
        match end {
            End::Result => Ok(Signal::Performed { call }),
            End::Error(after) => Err(Retry { after, ..Retry::because("the outside is tired") }),
            End::Nothing => Err(Retry::because("the outside was not reached, or a later leader was there")),
            // The panic hook is for panics of the product.
            End::Panic => panic::resume_unwind(Box::new("the handler")),
        }
    }
}

/// A call under way, until it is dropped.
struct UnderWay {
    call: u64,
    ends: bool,
    observer: SharedObserver,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut observer = self.observer.lock();
        observer.twin.outside.under_way.remove(&self.call);
        observer.report.count("calls dropped", (!self.ends).into());
    }
}
