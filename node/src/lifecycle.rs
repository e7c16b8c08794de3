//! The end of a node, which ends all its parts at once.
//!
//! No part of a node may outlive the others. Any failure (a panic in an actor, a storage error, a
//! violated invariant) is therefore reported here, once. From that instant
//! [`Lifecycle::is_running`] is false, and every part that could send, persist or answer checks it
//! first.

use crate::{
    error::Failure,
    events::{Events, What},
};
use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};
use tokio::sync::watch;

/// Whether, and why, a node ended. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Lifecycle {
    running: Arc<AtomicBool>,
    end: watch::Sender<Option<End>>,
    /// The stream of events, once the node starts.
    events: Arc<OnceLock<Events>>,
}

/// Why a node ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// A caller asked it to shut down.
    Shutdown,
    /// The first failure of any of its parts.
    Failed(Failure),
}

impl Lifecycle {
    pub(crate) fn new() -> Self {
        Self { running: Arc::new(AtomicBool::new(true)), end: watch::channel(None).0, events: Arc::default() }
    }

    /// Tells the end of the node to this stream.
    pub(crate) fn tells(&self, events: Events) {
        // A node has one stream.
        let _ = self.events.set(events);
    }

    /// Whether the node may still send, persist or answer.
    pub(crate) fn is_running(&self) -> bool {
        self.running.load(Ordering::Acquire)
    }

    /// Whether the node has ended, well or not.
    pub(crate) fn has_ended(&self) -> bool {
        !self.is_running() || self.end.borrow().is_some()
    }

    /// Ends the node with a failure. The first cause stands.
    pub(crate) fn fail(&self, cause: Failure) {
        self.running.store(false, Ordering::Release);
        self.end.send_if_modified(|end| match end {
            Some(End::Failed(_)) => false,
            _ => {
                match self.events.get() {
                    Some(events) => events.tell(What::Failed { why: cause.to_string() }),
                    None => tracing::error!("node failed: {cause}"),
                }
                *end = Some(End::Failed(cause));
                true
            }
        });
    }

    /// Ends a node that was asked to shut down and has drained.
    pub(crate) fn shut_down(&self) {
        self.end.send_if_modified(|end| end.is_none() && end.replace(End::Shutdown).is_none());
    }

    /// Resolves once the node has ended.
    pub(crate) async fn ended(&self) -> End {
        let mut end = self.end.subscribe();
        match end.wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or(End::Shutdown),
            Err(_) => End::Shutdown, // unreachable while `self` holds the sender
        }
    }

    /// A guard for an actor to hold: fails the node if a panic drops the actor.
    pub(crate) fn panic_guard(&self, actor: &'static str) -> PanicGuard {
        PanicGuard { actor, lifecycle: self.clone() }
    }
}

/// Detects a panic of the actor that holds it: actix drops the actor and goes on, but the
/// node must not.
#[derive(Debug)]
pub(crate) struct PanicGuard {
    actor: &'static str,
    lifecycle: Lifecycle,
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.lifecycle.fail(Failure::ActorDied { actor: self.actor });
        }
    }
}
