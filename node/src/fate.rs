//! How a node ends: all at once.
//!
//! Half a node must not live on. So whatever goes wrong anywhere (a panic in an actor, a storage error, a violated
//! invariant) is told here, once; from that instant [`Fate::is_sound`] is false, and everybody who could send, persist or
//! answer asks it first.

use crate::error::Failure;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokio::sync::watch;

/// Whether, and why, a node ended. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Fate {
    sound: Arc<AtomicBool>,
    end: watch::Sender<Option<End>>,
}

/// Why a node ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// It was asked to.
    Shutdown,
    /// It failed.
    Failed(Failure),
}

impl Fate {
    pub(crate) fn new() -> Self {
        Self { sound: Arc::new(AtomicBool::new(true)), end: watch::channel(None).0 }
    }

    /// Whether the node may still say anything.
    pub(crate) fn is_sound(&self) -> bool {
        self.sound.load(Ordering::Acquire)
    }

    /// Whether the node has ended, well or not.
    pub(crate) fn has_ended(&self) -> bool {
        !self.is_sound() || self.end.borrow().is_some()
    }

    /// The node failed. The first cause stands.
    pub(crate) fn fail(&self, cause: Failure) {
        self.sound.store(false, Ordering::Release);
        self.end.send_if_modified(|end| match end {
            Some(End::Failed(_)) => false,
            _ => {
                tracing::error!("node failed: {cause}");
                *end = Some(End::Failed(cause));
                true
            }
        });
    }

    /// The node was asked to end and has drained.
    pub(crate) fn shut_down(&self) {
        self.end.send_if_modified(|end| end.is_none() && end.replace(End::Shutdown).is_none());
    }

    /// Resolves when the node ended.
    pub(crate) async fn ended(&self) -> End {
        let mut end = self.end.subscribe();
        match end.wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or(End::Shutdown),
            Err(_) => End::Shutdown, // unreachable while `self` holds the sender
        }
    }

    /// To be held by an actor: fails the node if the actor is dropped by a panic.
    pub(crate) fn sentinel(&self, actor: &'static str) -> Sentinel {
        Sentinel { actor, fate: self.clone() }
    }
}

/// Notices the panic of the actor that holds it: actix drops the actor and goes on, but the node must not.
#[derive(Debug)]
pub(crate) struct Sentinel {
    actor: &'static str,
    fate: Fate,
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.fate.fail(Failure::ActorDied { actor: self.actor });
        }
    }
}
