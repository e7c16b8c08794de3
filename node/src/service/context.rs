//! The surroundings of a command or signal: time, randomness, and all that a service may ask for.
//!
//! Everything that a service asks for goes through here into the replicated tables, and its encoded
//! form into the trace of the entry, which is hashed when the entry is over: so outcomes are
//! compared between replicas. Each change leaves its undo, and events wait for the end of the entry:
//! the output of an entry that panics is dropped.

use super::{
    interface::Service,
    outbox::{EffectId, OutboxFull},
    random::Random,
    tables::{Entry, Tables},
    timers,
};
use crate::machine::At;
use quorate_raft::{
    Index,
    session::{LogTime, SessionKey},
};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, time::Duration};

/// A number that rises: a fence. The outside, such as a protected resource, remembers the highest
/// that it has seen and refuses lower ones. Displayed as `generation.count.nth`, and read from that
/// text.
///
/// There are two kinds, and each rises by itself. The token of a command or signal
/// ([`Context::token`]) counts log entries. That of a leadership
/// ([`Ticket::fence`](crate::Ticket::fence), [`Node::while_leading`](crate::Node::while_leading))
/// counts terms. **The kinds are not comparable**: after `0.50000.0` of a command, a resource with
/// one highest token would refuse every leadership such as `0.7.0`. A resource that gets both kinds
/// remembers a highest token of each.
///
/// A fence protects only what checks it: a leader or a holder that pauses goes on with an old token
/// until the resource refuses that.
///
/// Tokens also rise where an operator recovers a cluster from the rest of its data, or restores a
/// backup. Indexes and terms may go back then, so the generation rises: to the operator's clock, in
/// seconds since 1970, or to one more than that of the data, if this is higher. So there is one case
/// that needs a clock that is right: a cluster was recovered or restored before, and is now restored
/// from data of the time before that.
///
/// ```
/// # use quorate::Token;
/// fn write(highest: &mut Option<Token>, token: Token) -> Result<(), &'static str> {
///     if highest.is_some_and(|highest| token < highest) {
///         return Err("another holder has been here since");
///     }
///     *highest = Some(token);
///     Ok(())
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Token {
    generation: u32,
    count: u64,
    nth: u32,
}

impl Token {
    pub(crate) fn new(generation: u32, count: u64, nth: u32) -> Self {
        Self { generation, count, nth }
    }

    /// The token as one number, in the same order: for a resource that compares numbers.
    ///
    /// ```
    /// use quorate::Token;
    ///
    /// let token: Token = "0.7.1".parse()?;
    /// assert_eq!(token.as_u128(), 7 << 32 | 1);
    /// # Ok::<_, quorate::TokenMalformed>(())
    /// ```
    #[must_use]
    pub fn as_u128(self) -> u128 {
        u128::from(self.generation) << 96 | u128::from(self.count) << 32 | u128::from(self.nth)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.generation, self.count, self.nth)
    }
}

/// A text is no [`Token`] as that is displayed.
///
/// ```
/// use quorate::{Token, TokenMalformed};
///
/// assert_eq!("0.7".parse::<Token>(), Err(TokenMalformed));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a token is three numbers with dots between them, such as 0.7.0")]
pub struct TokenMalformed;

impl FromStr for Token {
    type Err = TokenMalformed;

    /// Reads a token as it is displayed; no other form of its numbers is one.
    fn from_str(text: &str) -> Result<Self, TokenMalformed> {
        let read = || {
            let mut parts = text.splitn(3, '.');
            let (generation, count, nth) = (parts.next()?, parts.next()?, parts.next()?);
            Some(Self::new(generation.parse().ok()?, count.parse().ok()?, nth.parse().ok()?))
        };
        read().filter(|token| token.to_string() == text).ok_or(TokenMalformed)
    }
}

/// The cause of a call of [`Service::apply`] or [`Service::signal`].
///
/// ```
/// # use quorate::{At, Context, Hosted, Service, StateMachine, Cause};
/// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
/// # struct Demo;
/// # impl Service for Demo {
/// #     quorate::types!(() => String, () => ());
/// fn apply(&mut self, (): (), cx: &mut Context<'_, Self>) -> String {
///     match cx.cause() {
///         Cause::Call => "a command".into(),
///         Cause::Timer | Cause::Effect(_) => "a signal".into(),
///     }
/// }
/// #     fn query(&self, (): (), _: At) {}
/// # }
/// # let at = At { index: quorate::Index(7), time: quorate::LogTime(1_500), ..At::default() };
/// # let outcome = Hosted::new(|| Demo).apply(&at, &Hosted::<Demo>::encode(&()));
/// # assert_eq!(Hosted::<Demo>::decode(&outcome), Some(Ok("a command".into())));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// A caller's command.
    Call,
    /// A timer that was due.
    Timer,
    /// The result of this effect.
    Effect(EffectId),
}

/// The surroundings of one command or signal. All of it is equal on every node.
///
/// ```
/// # use quorate::{At, Context, Hosted, Service, StateMachine};
/// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
/// # struct Demo;
/// # impl Service for Demo {
/// #     quorate::types!(() => String, () => ());
/// fn apply(&mut self, (): (), cx: &mut Context<'_, Self>) -> String {
///     let (at, now, token) = (cx.at(), cx.now(), cx.token());
///     format!("entry {}, {} ms, {token}", at.index, now.0)
/// }
/// #     fn query(&self, (): (), _: At) {}
/// # }
/// # let at = At { index: quorate::Index(7), time: quorate::LogTime(1_500), ..At::default() };
/// # let outcome = Hosted::new(|| Demo).apply(&at, &Hosted::<Demo>::encode(&()));
/// # assert_eq!(Hosted::<Demo>::decode(&outcome), Some(Ok("entry 7, 1500 ms, 0.7.0".into())));
/// ```
pub struct Context<'a, S: Service> {
    at: At,
    cause: Cause,
    session: Option<&'a SessionKey>,
    /// Number of the command or signal within its entry, from 0.
    nth: u32,
    random: Option<Random>,
    tables: &'a mut Tables<S::Event>,
    entry: &'a mut Entry<S::Event>,
}

impl<'a, S: Service> Context<'a, S> {
    /// The surroundings of the `nth` command or signal of its entry.
    pub(super) fn new(
        at: At,
        cause: Cause,
        nth: u32,
        tables: &'a mut Tables<S::Event>,
        entry: &'a mut Entry<S::Event>,
    ) -> Self {
        entry.begin();
        Self { at, cause, session: None, nth, random: None, tables, entry }
    }

    /// The same, of a caller with this session.
    pub(super) fn with(self, session: Option<&'a SessionKey>) -> Self {
        Self { session, ..self }
    }
}

impl<S: Service> Context<'_, S> {
    /// The position in the log, the time there, and the version that the cluster has reached. Of a
    /// timer's signal the time is that at which it was due.
    ///
    /// ```
    /// # use quorate::{At, Context, Hosted, Service, StateMachine};
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Demo;
    /// # impl Service for Demo {
    /// #     quorate::types!(() => u64, () => ());
    /// fn apply(&mut self, (): (), cx: &mut Context<'_, Self>) -> u64 {
    ///     cx.at().unix_ms / 1_000 // the leader's wall clock, for display
    /// }
    /// #     fn query(&self, (): (), _: At) {}
    /// # }
    /// # let at = At { index: quorate::Index(7), time: quorate::LogTime(1_500), ..At::default() };
    /// # let outcome = Hosted::new(|| Demo).apply(&at, &Hosted::<Demo>::encode(&()));
    /// # assert_eq!(Hosted::<Demo>::decode(&outcome), Some(Ok(0)));
    /// ```
    #[must_use]
    pub fn at(&self) -> At {
        self.at
    }

    /// Log time, in milliseconds: it counts while a leader leads, never goes back, and depends on
    /// no wall clock.
    ///
    /// ```
    /// # use quorate::{At, Context, Hosted, Service, StateMachine};
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Demo;
    /// # impl Service for Demo {
    /// #     quorate::types!(() => u64, () => ());
    /// fn apply(&mut self, (): (), cx: &mut Context<'_, Self>) -> u64 {
    ///     cx.now().0 / 1_000 // seconds in which a leader led
    /// }
    /// #     fn query(&self, (): (), _: At) {}
    /// # }
    /// # let at = At { index: quorate::Index(7), time: quorate::LogTime(1_500), ..At::default() };
    /// # let outcome = Hosted::new(|| Demo).apply(&at, &Hosted::<Demo>::encode(&()));
    /// # assert_eq!(Hosted::<Demo>::decode(&outcome), Some(Ok(1)));
    /// ```
    #[must_use]
    pub fn now(&self) -> LogTime {
        self.at.time
    }

    /// The random numbers of this command or signal.
    ///
    /// ```
    /// # use quorate::{At, Context, Hosted, Service, StateMachine};
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Demo;
    /// # impl Service for Demo {
    /// #     quorate::types!(() => bool, () => ());
    /// fn apply(&mut self, (): (), cx: &mut Context<'_, Self>) -> bool {
    ///     let dice = cx.random().below(6) + 1; // the same on every node
    ///     (1..=6).contains(&dice)
    /// }
    /// #     fn query(&self, (): (), _: At) {}
    /// # }
    /// # let at = At { index: quorate::Index(7), time: quorate::LogTime(1_500), ..At::default() };
    /// # let outcome = Hosted::new(|| Demo).apply(&at, &Hosted::<Demo>::encode(&()));
    /// # assert_eq!(Hosted::<Demo>::decode(&outcome), Some(Ok(true)));
    /// ```
    pub fn random(&mut self) -> &mut Random {
        let Self { at, nth, random, tables, .. } = self;
        random.get_or_insert_with(|| Random::new(tables.clock.random, at.index, *nth))
    }

    /// The token of this command or signal: higher than that of every earlier one, and not
    /// comparable with the fence of a leadership.
    ///
    /// ```
    /// # use quorate::{At, Context, Hosted, Service, StateMachine};
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Demo;
    /// # impl Service for Demo {
    /// #     quorate::types!(() => quorate::Token, () => ());
    /// fn apply(&mut self, (): (), cx: &mut Context<'_, Self>) -> quorate::Token {
    ///     cx.token() // for the caller, to be shown to a resource
    /// }
    /// #     fn query(&self, (): (), _: At) {}
    /// # }
    /// # let at = At { index: quorate::Index(7), time: quorate::LogTime(1_500), ..At::default() };
    /// # let outcome = Hosted::new(|| Demo).apply(&at, &Hosted::<Demo>::encode(&()));
    /// # assert_eq!(Hosted::<Demo>::decode(&outcome), Some(Ok("0.7.0".parse().unwrap())));
    /// ```
    #[must_use]
    pub fn token(&self) -> Token {
        let Index(index) = self.at.index;
        Token::new(self.tables.generation, index, self.nth)
    }

    /// Whether a caller, a timer or an effect is the cause.
    ///
    /// ```
    /// # use quorate::{At, Context, Hosted, Service, StateMachine, Cause};
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Demo;
    /// # impl Service for Demo {
    /// #     quorate::types!(() => bool, () => ());
    /// fn apply(&mut self, (): (), cx: &mut Context<'_, Self>) -> bool {
    ///     cx.cause() == Cause::Call
    /// }
    /// #     fn query(&self, (): (), _: At) {}
    /// # }
    /// # let at = At { index: quorate::Index(7), time: quorate::LogTime(1_500), ..At::default() };
    /// # let outcome = Hosted::new(|| Demo).apply(&at, &Hosted::<Demo>::encode(&()));
    /// # assert_eq!(Hosted::<Demo>::decode(&outcome), Some(Ok(true)));
    /// ```
    #[must_use]
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// The session of the caller's command, if it came through one: equal for all commands of the
    /// session, and `None` of a signal. A session ends once it has been idle for long, and a named
    /// one begins again under the same key. Clients choose the names, so a key is no proof of
    /// identity.
    ///
    /// ```
    /// # use quorate::{At, Context, Node, NodeId, Service, storage::Memory, transport::MemoryNetwork};
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Meters;
    /// # impl Service for Meters {
    /// #     quorate::types!(u64 => Option<String>, () => ());
    /// fn apply(&mut self, add: u64, cx: &mut Context<'_, Self>) -> Option<String> {
    ///     cx.session().map(|session| format!("{session:?} adds {add}"))
    /// }
    /// #     fn query(&self, (): (), _: At) {}
    /// # }
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let node = Node::builder(NodeId(1), "demo").voters([(NodeId(1), "")]);
    /// # let node = node.network(MemoryNetwork::new().endpoint(NodeId(1))).storage(Memory::new());
    /// # let node = node.serve(|| Meters).start().await?;
    /// assert_eq!(node.call(3).await?.reply, None, "without a session");
    /// assert!(node.session().await?.call(3).await?.reply.is_some());
    /// # node.shutdown().await;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn session(&self) -> Option<&SessionKey> {
        self.session
    }

    /// Sets a timer: `signal` is applied once, in an entry of its own or with others that are due, at
    /// the log time at which it is due. A timer with an equal signal is replaced. A part of a
    /// millisecond counts as a whole one, and no delay is below a millisecond, so an entry fires no
    /// timer that it sets at its own time. Log time stands still without a leader: the delay is the
    /// least that passes. An entry fires at most 1,024 timers; more that are due come in the next.
    ///
    /// ```
    /// # use quorate::{At, Context, Service};
    /// # use std::time::Duration;
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Jobs;
    /// # impl Service for Jobs {
    /// #     quorate::types!(String => (), () => (), event String, signal String, effect String);
    /// #     fn signal(&mut self, _: String, _: &mut Context<'_, Self>) {}
    /// #     fn query(&self, (): (), _: At) {}
    /// fn apply(&mut self, job: String, cx: &mut Context<'_, Self>) {
    ///     cx.after(Duration::from_secs(30), job); // unless it is done by then
    /// }
    /// # }
    /// ```
    ///
    /// # Panics
    /// If the signal's type has no form in postcard.
    pub fn after(&mut self, delay: Duration, signal: S::Signal) {
        let Self { at, tables, entry, .. } = self;
        let due = timers::due(at.time, delay);
        let key = entry.trace.timer(due, &signal);
        entry.timers.push(tables.timers.set(due, entry.trace.since(key)));
    }

    /// Cancels the timer with an equal signal. `true` if there was one.
    ///
    /// ```
    /// # use quorate::{At, Context, Service};
    /// # use std::time::Duration;
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Jobs;
    /// # impl Service for Jobs {
    /// #     quorate::types!(String => (), () => (), event String, signal String, effect String);
    /// #     fn signal(&mut self, _: String, _: &mut Context<'_, Self>) {}
    /// #     fn query(&self, (): (), _: At) {}
    /// fn apply(&mut self, job: String, cx: &mut Context<'_, Self>) {
    ///     if !cx.cancel(&job) {
    ///         cx.publish("late", job); // its timer has fired already
    ///     }
    /// }
    /// # }
    /// ```
    ///
    /// # Panics
    /// If the signal's type has no form in postcard.
    pub fn cancel(&mut self, signal: &S::Signal) -> bool {
        let Self { tables, entry, .. } = self;
        let key = entry.trace.cancelled(signal);
        let undo = tables.timers.cancel(entry.trace.since(key));
        let was_set = undo.is_some();
        entry.timers.extend(undo);
        was_set
    }

    /// Publishes an event under a topic, to every watch that selects it. It becomes visible when the
    /// entry is applied whole. The history keeps the latest 16,384 events and 8 MiB of them, or the
    /// events of the last entry that published any.
    ///
    /// ```
    /// # use quorate::{At, Context, Service};
    /// # use std::time::Duration;
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Jobs;
    /// # impl Service for Jobs {
    /// #     quorate::types!(String => (), () => (), event String, signal String, effect String);
    /// #     fn signal(&mut self, _: String, _: &mut Context<'_, Self>) {}
    /// #     fn query(&self, (): (), _: At) {}
    /// fn apply(&mut self, job: String, cx: &mut Context<'_, Self>) {
    ///     let topic = format!("queues/{}", job.len() % 4);
    ///     cx.publish(&topic, job);
    /// }
    /// # }
    /// ```
    ///
    /// # Panics
    /// If the event's type has no form in postcard, or this command or signal has published more
    /// than 32 MiB: topics, encoded events, and 64 bytes for each event.
    pub fn publish(&mut self, topic: &str, event: S::Event) {
        self.entry.publish(topic, event);
    }

    /// Asks for an effect: the leader performs it at least once, by the author's handler, and its
    /// result comes back as a signal. Effects of one key are performed one after another, in the
    /// order of these calls. The handler gets the id, the same in each attempt.
    ///
    /// ```
    /// # use quorate::{At, Context, Service};
    /// # use std::time::Duration;
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Jobs;
    /// # impl Service for Jobs {
    /// #     quorate::types!(String => (), () => (), event String, signal String, effect String);
    /// #     fn signal(&mut self, _: String, _: &mut Context<'_, Self>) {}
    /// #     fn query(&self, (): (), _: At) {}
    /// fn apply(&mut self, mail: String, cx: &mut Context<'_, Self>) {
    ///     let sender = mail.split(':').next().unwrap_or_default().to_owned();
    ///     if cx.perform(&sender, mail).is_err() {
    ///         cx.publish("refused", sender);
    ///     }
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the outbox is full, on every node alike. Then the effect is not performed.
    ///
    /// # Panics
    /// If the effect's type has no form in postcard.
    pub fn perform(&mut self, key: &str, effect: S::Effect) -> Result<EffectId, OutboxFull> {
        let Self { at, tables, entry, .. } = self;
        let id = EffectId { index: at.index, nth: entry.next_effect };
        let encoded = entry.trace.effect(key, &effect);
        let undo = tables.outbox.add(id, key, entry.trace.since(encoded), tables.clock.outbox);
        let undo = undo.inspect_err(|OutboxFull| entry.trace.refused())?;
        entry.next_effect += 1;
        entry.effects.push(undo);
        Ok(id)
    }
}

impl<S: Service> fmt::Debug for Context<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("at", &self.at).field("cause", &self.cause).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_is_displayed_and_its_numbers_keep_the_order() {
        let numbers = [0, 1, 9, 10, u32::MAX - 1, u32::MAX];
        let counts = [0, 1, 1 << 32, u64::MAX];
        let mut last = None;
        for generation in numbers {
            for (count, nth) in counts.into_iter().flat_map(|count| numbers.map(|nth| (count, nth))) {
                let token = Token::new(generation, count, nth);
                assert_eq!(token.to_string().parse(), Ok(token));
                assert!(last.is_none_or(|last: Token| last < token && last.as_u128() < token.as_u128()));
                last = Some(token);
            }
        }
        for text in ["", "1", "1.2", "1.2.3.4", "+1.2.3", "01.2.3", "1.2.3 ", "1..3", "4294967296.0.0", "a.b.c"] {
            assert_eq!(text.parse::<Token>(), Err(TokenMalformed), "{text}");
        }
    }
}
