//! The history while no stream is open, from the facts of this node alone: the leader that it
//! follows, its own role, and the entries that it learns to be committed. No message is sent for it.

use super::hub::{Hub, State};
use quorate::{
    NodeId, NodeRole, Status, Term,
    events::{EventReader, Received},
};
use std::{
    sync::{Mutex, PoisonError, Weak},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};

/// The interval of looks at the node. An event, such as an election, is looked at when it comes.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The facts that a node has without the reports of others.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Own {
    pub(super) node: NodeId,
    pub(super) term: Term,
    pub(super) leader: Option<NodeId>,
    /// `election`, `learner` or `follower`.
    pub(super) lane: &'static str,
    pub(super) writes_per_s: Option<u64>,
}

/// Records until the node ends, or the last use of the hub.
pub(super) async fn keep(hub: Weak<Mutex<State>>, status: watch::Receiver<Status>, mut events: EventReader) {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut before, mut writes_per_s) = (None, None);
    loop {
        let is_look = tokio::select! {
            _ = looks.tick() => true,
            received = events.next() => match received {
                Some(Received::Event(_) | Received::Lost(_)) => false,
                None => return,
            },
        };
        let Some(state) = hub.upgrade() else { return };
        let (own, commit) = {
            let status = status.borrow();
            (own(&status), status.commit.0)
        };
        if is_look {
            let now = Instant::now();
            writes_per_s = before.replace((now, commit)).map(|(at, first)| rate(now.duration_since(at), first, commit));
        }
        let writes_per_s = writes_per_s.filter(|_| own.leader.is_some());
        state.lock().unwrap_or_else(PoisonError::into_inner).looked(&Own { writes_per_s, ..own });
    }
}

fn own(status: &Status) -> Own {
    let lane = match status.role {
        NodeRole::PreCandidate | NodeRole::Candidate => "election",
        NodeRole::Learner => "learner",
        _ => "follower",
    };
    Own { node: status.node, term: status.term, leader: status.leader, lane, writes_per_s: None }
}

fn rate(time: Duration, first: u64, last: u64) -> u64 {
    (last.saturating_sub(first) as f64 / time.as_secs_f64().max(0.001)).round() as u64
}

impl Hub {
    /// Records the history of a node while it has no stream, until the node ends.
    pub(crate) fn keep_history(
        &self,
        status: watch::Receiver<Status>,
        events: EventReader,
    ) -> impl Future<Output = ()> + use<> {
        keep(self.downgrade(), status, events)
    }
}
