//! The performing of effects: [`Performer`] decides; here the author's handler is called, and its
//! results are sent to the log.
//!
//! One task for each node of a service with effects. Every call of the handler is a task of its own,
//! so one that blocks holds up no other. They end with the leadership: the task drops them all.

use super::{
    effects::{self, Handler, Perform, Performing, Retry, Ticket},
    interface::Service,
    internal::{Done, Internal},
    leaderships::{Leadership, Leaderships},
    outbox::{EffectId, Outbox},
    performer::{Ended, Performer, Step},
};
use crate::{
    actors::{clock::Clock, messages::Request},
    decisions::internal_entries::InternalEntry,
    events::{Events, What},
    machine::StateMachine,
    node::Node,
};
use quorate_metrics::NodeMetrics;
use std::{
    any::type_name,
    collections::{BTreeMap, HashMap},
    future::{Future, pending},
};
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, Id, JoinError, JoinSet},
    time::sleep,
};

/// The parts that performing takes.
pub(super) struct Performance<S: Service> {
    handler: Handler<S>,
    outbox: watch::Receiver<Outbox>,
    /// Weak, so that it does not keep the node running.
    requests: mpsc::WeakUnboundedSender<Request>,
    clock: Clock,
    metrics: NodeMetrics,
    events: Events,
    /// The most bytes of a signal, as of a command.
    signal_bytes_max: usize,
}

impl<S: Service> Performance<S> {
    /// `outbox` is that of the node's machine.
    pub(super) fn new<M: StateMachine>(node: &Node<M>, handler: Handler<S>, outbox: watch::Receiver<Outbox>) -> Self {
        let shared = &*node.shared;
        Self {
            handler,
            outbox,
            requests: shared.requests.downgrade(),
            clock: shared.clock,
            metrics: shared.metrics.clone(),
            events: shared.events.clone(),
            signal_bytes_max: shared.limits.max_command_bytes,
        }
    }

    /// Performs effects in each leadership, until the node ends or its machine halts.
    pub(super) async fn run<M: StateMachine>(mut self, mut leaderships: Leaderships<M>) {
        while let Some(leadership) = leaderships.next().await {
            tokio::select! {
                biased;
                () = leaderships.over(&leadership) => {}
                () = self.perform(&leadership) => break,
            }
            self.metrics.effects_pending(0);
        }
        self.metrics.effects_pending(0);
    }

    /// Performs effects in this leadership. Dropped when the leadership ends, and the calls with it;
    /// returns if the machine is gone.
    async fn perform(&mut self, leadership: &Leadership) {
        let mut seen = self.outbox.borrow_and_update().clone();
        let mut performer = Performer::default();
        performer.lead(leadership.leading, leadership.applied, seen.heads());
        let mut calls = Calls::default();
        loop {
            self.metrics.effects_pending(seen.len() as u64);
            for step in performer.due(self.clock.now()) {
                match step {
                    Step::Perform { id, attempt } => self.call(&seen, (id, attempt), leadership, &mut calls),
                    Step::GiveUp { id } => {
                        self.events.tell(What::EffectTimedOut { effect: id.to_string() });
                        self.metrics.effect_retried();
                        calls.give_up(id);
                    }
                }
            }
            let wakes_at = performer.wakes_at();
            let rest = async {
                match wakes_at {
                    Some(at) => sleep(at.since(self.clock.now())).await,
                    None => pending().await,
                }
            };
            // Results come first: as many as there are places can't keep the outbox waiting.
            tokio::select! {
                biased;
                Some((id, attempt, outcome)) = calls.next() => self.ended(id, attempt, outcome, &mut performer),
                changed = self.outbox.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let now = self.outbox.borrow_and_update().clone();
                    let (gone, come) = seen.heads_changed(&now);
                    gone.into_iter().for_each(|id| performer.completed(id));
                    come.into_iter().for_each(|id| performer.add(id));
                    seen = now;
                }
                () = rest => {}
            }
        }
    }

    /// Begins a call of the handler.
    fn call(&self, outbox: &Outbox, call: (EffectId, u32), leadership: &Leadership, calls: &mut Calls<S>) {
        let (id, attempt) = call;
        // Of a head that the same outbox has.
        let Some(row) = outbox.get(id) else { return };
        let ticket = Ticket { id, key: row.key.clone(), fence: leadership.fence(), attempt };
        let performing: Performing<S> = match postcard::from_bytes(&row.effect) {
            Ok(effect) => (self.handler)(effect, ticket),
            Err(error) => {
                let why = format!("this release does not read the effect ({}): {error}", type_name::<S::Effect>());
                Box::pin(async move { Err(Retry::because(why)) })
            }
        };
        calls.begin(call, performing);
    }

    /// A call has ended: its result goes to the log, or it is made again.
    fn ended(&self, id: EffectId, attempt: u32, outcome: Outcome<S>, performer: &mut Performer) {
        let (ended, why) = match outcome {
            Ok(Ok(signal)) => match self.encode(&signal) {
                Ok(signal) => return self.complete(id, attempt, &signal, performer),
                Err(why) => (Ended::Retry(None), why),
            },
            Ok(Err(Retry { why, after })) => (Ended::Retry(after), why),
            // It was given up, and that was told before.
            Err(error) if error.is_cancelled() => return,
            Err(_) => (Ended::Panicked, "the handler panicked".to_owned()),
        };
        self.events.tell(What::EffectRetried { effect: id.to_string(), attempt, why });
        self.metrics.effect_retried();
        performer.ended(id, attempt, ended, self.clock.now());
    }

    fn encode(&self, signal: &S::Signal) -> Result<Vec<u8>, String> {
        let name = type_name::<S::Signal>();
        let bytes =
            postcard::to_allocvec(signal).map_err(|error| format!("{name} has no form in postcard: {error}"))?;
        match bytes.len() <= self.signal_bytes_max {
            true => Ok(bytes),
            false => {
                let (has, max) = (bytes.len(), self.signal_bytes_max);
                Err(format!("its signal has {has} bytes, and {max} are allowed (Limits::max_command_bytes)"))
            }
        }
    }

    fn complete(&self, id: EffectId, attempt: u32, signal: &[u8], performer: &mut Performer) {
        let Some(term) = performer.term().filter(|_| performer.ended(id, attempt, Ended::Done, self.clock.now()))
        else {
            return;
        };
        self.metrics.effect_performed();
        let payload = match Internal::Done(Done { id, term, signal }).encode() {
            Ok(payload) => payload,
            Err(error) => unreachable!("every result has a form: {error}"),
        };
        if let Some(requests) = self.requests.upgrade() {
            // A node that has ended appends nothing.
            let _ = requests.send(Request::Internal(InternalEntry { term, payload: payload.into() }));
        }
    }
}

/// Performs the effects of a service that is a part of another machine, until the node ends or the
/// machine halts: for the simulator. `outbox` is that of the hosted service.
#[doc(hidden)]
pub fn perform<S: Service, M: StateMachine, H: Perform<S>>(
    node: &Node<M>,
    handler: H,
    outbox: watch::Receiver<Outbox>,
) -> impl Future<Output = ()> + use<S, M, H> {
    Performance::<S>::new(node, effects::boxed(handler), outbox).run(Leaderships::of(node))
}

/// The outcome of a call. The error is that of its task: a panic, or that it was dropped.
type Outcome<S> = Result<Result<<S as Service>::Signal, Retry>, JoinError>;

/// The calls under way. They are dropped with this.
struct Calls<S: Service> {
    tasks: JoinSet<Result<S::Signal, Retry>>,
    /// Effect and attempt of each task.
    of: HashMap<Id, (EffectId, u32)>,
    handles: BTreeMap<EffectId, AbortHandle>,
}

impl<S: Service> Calls<S> {
    fn begin(&mut self, (id, attempt): (EffectId, u32), performing: Performing<S>) {
        let handle = self.tasks.spawn(performing);
        self.of.insert(handle.id(), (id, attempt));
        self.handles.insert(id, handle);
    }

    fn give_up(&mut self, id: EffectId) {
        if let Some(handle) = self.handles.remove(&id) {
            handle.abort();
        }
    }

    /// The next call that ends; `None` if there is none under way.
    async fn next(&mut self) -> Option<(EffectId, u32, Outcome<S>)> {
        let (task, outcome) = match self.tasks.join_next_with_id().await? {
            Ok((task, outcome)) => (task, Ok(outcome)),
            Err(error) => (error.id(), Err(error)),
        };
        let (id, attempt) = self.of.remove(&task)?;
        // A later call for the same effect may be under way.
        if self.handles.get(&id).is_some_and(|handle| handle.id() == task) {
            self.handles.remove(&id);
        }
        Some((id, attempt, outcome))
    }
}

impl<S: Service> Default for Calls<S> {
    fn default() -> Self {
        Self { tasks: JoinSet::new(), of: HashMap::new(), handles: BTreeMap::new() }
    }
}
