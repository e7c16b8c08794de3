//! How busy the actors are.

use super::{Each, NodeMetrics, Scope, TimeCounter, float};
use crate::{catalogue, labels::ActorName};
use metrics::Gauge;
use std::time::Duration;

pub(super) struct Actors {
    mailbox_depth: Each<ActorName, Gauge>,
    busy: Each<ActorName, TimeCounter>,
}

impl Actors {
    pub(super) fn register(scope: &Scope) -> Self {
        Self {
            mailbox_depth: scope.each("actor", |scope| scope.gauge(&catalogue::MAILBOX_DEPTH)),
            busy: scope.each("actor", |scope| scope.time_counter(&catalogue::ACTOR_BUSY)),
        }
    }
}

impl NodeMetrics {
    /// So many messages wait for the actor, or for all actors of that name.
    pub fn mailbox_depth(&self, actor: ActorName, messages: u64) {
        self.inner.actors.mailbox_depth.of(actor).set(float(messages));
    }

    /// The actor spent this long handling messages.
    pub fn actor_busy(&self, actor: ActorName, took: Duration) {
        self.inner.actors.busy.of(actor).add(took);
    }
}
