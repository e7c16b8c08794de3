//! The outside of a service: the author's handler of effects, as one run has it.
//!
//! Real time does not pass in it: its sleeps end at once.

use crate::{
    failed::{Fault, Property},
    world::World,
};
use quorate::{EffectId, Perform, Retry, Service, Ticket, Token};
use quorate_raft::Term;
use std::{collections::BTreeMap, future::Future, pin::Pin, sync::Arc, time::Duration};
use tokio::{runtime, time::timeout};

type Performing<S> = Pin<Box<dyn Future<Output = Result<<S as Service>::Signal, Retry>>>>;
type Handler<S> = Box<dyn Fn(<S as Service>::Effect, Ticket) -> Performing<S>>;
/// Makes the handler of a run.
pub(crate) type NewHandler<S> = Box<dyn Fn() -> Handler<S> + Send + Sync>;

/// The longest time of one call of the handler, as a node gives it.
const LIMIT: Duration = Duration::from_secs(30);

/// The handler, and the calls of it.
pub(crate) struct Outside<S: Service> {
    handler: Handler<S>,
    /// The calls for each effect in the present leadership.
    attempts: BTreeMap<EffectId, u32>,
    term: Term,
}

/// Takes the type off the handlers of an author.
pub(crate) fn boxed<S: Service, P: Perform<S>>(new: impl Fn() -> P + Send + Sync + 'static) -> NewHandler<S> {
    Box::new(move || {
        let handler = Arc::new(new());
        Box::new(move |effect, ticket| {
            let handler = Arc::clone(&handler);
            Box::pin(async move { handler.perform(effect, ticket).await })
        })
    })
}

impl<S: Service> Outside<S> {
    pub(crate) fn new(new: &NewHandler<S>) -> Self {
        Self { handler: new(), attempts: BTreeMap::new(), term: Term(0) }
    }

    /// Calls the handler. `None` if it wants to be called again.
    pub(crate) fn perform(
        &mut self,
        (generation, term): (u32, Term),
        (id, key): (EffectId, &str),
        effect: S::Effect,
    ) -> Result<Option<S::Signal>, Fault> {
        if self.term != term {
            (self.term, self.attempts) = (term, BTreeMap::new());
        }
        let attempt = self.attempts.entry(id).or_default();
        *attempt += 1;
        let ticket = Ticket { id, key: key.into(), fence: fence(generation, term)?, attempt: *attempt };
        let runtime = runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.map_err(|error| Fault::new(Property::Effects, format!("no runtime: {error}")))?;
        let call = || runtime.block_on(async { timeout(LIMIT, (self.handler)(effect, ticket)).await });
        match World::new(0, 4).catch(call) {
            Ok(Ok(Ok(signal))) => Ok(Some(signal)),
            Ok(Ok(Err(Retry { .. })) | Err(_)) => Ok(None),
            Err(panic) => Err(Fault::new(Property::Effects, panic)),
        }
    }
}

/// The token of a leadership, which has the form of its three numbers.
fn fence(generation: u32, term: Term) -> Result<Token, Fault> {
    let form = postcard::to_stdvec(&(generation, term.0, 0u32)).and_then(|bytes| postcard::from_bytes(&bytes));
    form.map_err(|error| Fault::new(Property::Effects, error.to_string()))
}
