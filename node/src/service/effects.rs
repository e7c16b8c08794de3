//! The author's handler of effects, and the terms on which it is called.

use super::{context::Token, interface::Service, outbox::EffectId};
use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

/// The handler of a service's effects, called on the leader: see
/// [`Serve::effects`](crate::Serve::effects). Closures are handlers, too: `async` ones that borrow
/// nothing, and those that return a future.
///
/// **At least once.** An effect may be performed again although it was performed before: its call
/// failed or took too long, or the leader was deposed before the result was in the log. All calls
/// for one effect have the same [`Ticket::id`], and a later leader's have a higher
/// [`Ticket::fence`]. Its result is applied once.
///
/// **In order per key.** Of the effects of one key, the next one is performed once the result of the
/// one before is applied. Up to 64 keys are performed side by side.
///
/// **A call that fails** by [`Retry`] or a panic, or takes longer than 30 s, is made again after a
/// pause of 100 ms, which doubles with each failure up to 60 s. To give up is the author's decision:
/// return a signal that says so. A call is dropped at its next `.await` when it takes too long, and
/// when the leadership ends.
///
/// ```
/// use quorate::{Perform, Retry, Service, Ticket};
/// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
/// # struct Mails;
/// # impl Service for Mails {
/// #     quorate::types!(String => (), () => (), signal bool, effect String);
/// #     fn apply(&mut self, mail: String, cx: &mut quorate::Context<'_, Self>) { let _ = cx.perform("mails", mail); }
/// #     fn signal(&mut self, _: bool, _: &mut quorate::Context<'_, Self>) {}
/// #     fn query(&self, (): (), _: quorate::At) {}
/// # }
/// # async fn send(mail: &str, id: &str) -> Result<(), std::io::Error> { Ok(()) }
/// struct Mailer;
///
/// impl Perform<Mails> for Mailer {
///     async fn perform(&self, mail: String, ticket: Ticket) -> Result<bool, Retry> {
///         match send(&mail, &ticket.id.to_string()).await {
///             Ok(()) => Ok(true),
///             Err(_) if ticket.attempt >= 10 => Ok(false),
///             Err(error) => Err(Retry::because(error)),
///         }
///     }
/// }
/// ```
pub trait Perform<S: Service>: Send + Sync + 'static {
    /// Performs one effect, and returns the signal that completes it.
    fn perform(&self, effect: S::Effect, ticket: Ticket) -> impl Future<Output = Result<S::Signal, Retry>> + Send;
}

impl<S, F, Performed> Perform<S> for F
where
    S: Service,
    F: Fn(S::Effect, Ticket) -> Performed + Send + Sync + 'static,
    Performed: Future<Output = Result<S::Signal, Retry>> + Send,
{
    fn perform(&self, effect: S::Effect, ticket: Ticket) -> impl Future<Output = Result<S::Signal, Retry>> + Send {
        self(effect, ticket)
    }
}

/// One call of a handler. All but [`Ticket::id`] and [`Ticket::key`] differ from call to call.
///
/// ```
/// use quorate::Ticket;
///
/// fn idempotency_key(ticket: &Ticket) -> String {
///     format!("{}/{}", ticket.key, ticket.id) // the same in every call for the effect
/// }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    /// Identity of the effect, the same in every call for it: the outside deduplicates by it. A
    /// recovery or restore may lose entries at the end of the log: later effects get the ids of
    /// those that were lost with them.
    pub id: EffectId,
    /// The key under which it was asked for.
    pub key: Arc<str>,
    /// Token of the leadership that makes the call: higher than that of every earlier leadership.
    /// The outside remembers the highest and refuses lower ones, so that a leader that does not know
    /// yet that it was deposed does no harm. It is not comparable with the token of a command or
    /// signal. Fences also rise where a cluster is recovered from a part of its data or restored: see
    /// [`Token`].
    pub fence: Token,
    /// Number of the call in this leadership, from 1.
    pub attempt: u32,
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket")
            .field("id", &self.id)
            .field("key", &format_args!("{} B", self.key.len()))
            .field("fence", &self.fence)
            .field("attempt", &self.attempt)
            .finish()
    }
}

/// A handler could not perform its effect: it is to be called again.
///
/// ```
/// use quorate::Retry;
///
/// let retry = Retry::because("the mail server is busy");
/// assert_eq!((retry.why.as_str(), retry.after), ("the mail server is busy", None));
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Retry {
    /// For the log: leave values and keys of callers out of it.
    pub why: String,
    /// The pause before the next call, between 100 ms and 60 s; `None`: the one that doubles.
    pub after: Option<Duration>,
}

impl Retry {
    /// After the pause that doubles.
    ///
    /// ```
    /// use quorate::Retry;
    ///
    /// fn of(error: std::io::Error) -> Retry {
    ///     Retry::because(error)
    /// }
    /// assert_eq!(of(std::io::Error::other("no route")).why, "no route");
    /// ```
    #[must_use]
    pub fn because(why: impl fmt::Display) -> Self {
        Self { why: why.to_string(), after: None }
    }

    /// After this pause.
    ///
    /// ```
    /// use quorate::Retry;
    /// use std::time::Duration;
    ///
    /// let retry = Retry::because("closed until noon").after(Duration::from_secs(60));
    /// assert_eq!(retry.after, Some(Duration::from_secs(60)));
    /// ```
    #[must_use]
    pub fn after(self, pause: Duration) -> Self {
        Self { after: Some(pause), ..self }
    }
}

/// A call of a handler, without its type.
pub(super) type Performing<S> = Pin<Box<dyn Future<Output = Result<<S as Service>::Signal, Retry>> + Send>>;

/// A handler without its type.
pub(super) type Handler<S> = Box<dyn Fn(<S as Service>::Effect, Ticket) -> Performing<S> + Send + Sync>;

/// Takes the type off a handler.
pub(super) fn boxed<S: Service>(handler: impl Perform<S>) -> Handler<S> {
    let handler = Arc::new(handler);
    Box::new(move |effect, ticket| {
        let handler = Arc::clone(&handler);
        Box::pin(async move { handler.perform(effect, ticket).await })
    })
}
