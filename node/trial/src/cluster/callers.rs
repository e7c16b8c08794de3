//! The callers of a cluster: each has one call or query under way, at any node, and records the
//! answer. Stamps order what happens: an answer with a lower stamp was there before a call began.

use super::machine::Recorded;
use crate::{rng::Rng, spec::Spec};
use bytes::Bytes;
use quorate::{Consistency, Hosted, Index, Node, NodeId, ProposeError, Service, SessionError};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::{
    task::{JoinHandle, spawn_local},
    time::sleep,
};

const CALLERS: u64 = 3;
/// The longest rest of a caller after an answer, in milliseconds.
const REST_MS_MAX: u64 = 120;

/// The running nodes.
pub(super) type Nodes<S> = Rc<RefCell<BTreeMap<NodeId, Node<Recorded<S>>>>>;

/// All calls and queries that were answered.
pub(crate) struct Callers<S: Service> {
    pub(crate) calls: Vec<Call>,
    pub(crate) queries: Vec<Asked<S>>,
}

/// A call, and the answer to its caller.
pub(crate) struct Call {
    pub(crate) command: Bytes,
    pub(crate) began: u64,
    pub(crate) ended: u64,
    pub(crate) told: Told,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Told {
    /// It was applied at this index, with this encoded outcome.
    Applied(Index, Bytes),
    /// It did not and will not take effect.
    Failed,
    /// It may or may not take effect.
    Unknown,
}

/// A query that was answered.
pub(crate) struct Asked<S: Service> {
    pub(crate) query: S::Query,
    pub(crate) began: u64,
    pub(crate) is_linearizable: bool,
    /// The last entry that was applied when it ran.
    pub(crate) index: Index,
    pub(crate) answer: S::Answer,
}

/// The state that all callers share.
pub(super) struct Shared<S: Service> {
    spec: Arc<Spec<S>>,
    nodes: Nodes<S>,
    answers: RefCell<Callers<S>>,
    replies: RefCell<Vec<S::Reply>>,
    stamp: Cell<u64>,
    answered: Cell<u64>,
    is_closed: Cell<bool>,
}

impl<S: Service> Shared<S> {
    pub(super) fn new(spec: &Arc<Spec<S>>, nodes: &Nodes<S>) -> Rc<Self> {
        Rc::new(Self {
            spec: Arc::clone(spec),
            nodes: Rc::clone(nodes),
            answers: RefCell::new(Callers { calls: Vec::new(), queries: Vec::new() }),
            replies: RefCell::default(),
            stamp: Cell::new(0),
            answered: Cell::new(0),
            is_closed: Cell::new(false),
        })
    }

    /// Begins to call. The last caller calls through sessions.
    pub(super) fn call(self: &Rc<Self>, seed: u64) -> Vec<JoinHandle<()>> {
        let caller = |nth| spawn_local(Rc::clone(self).caller(Rng::new(seed ^ (nth + 1) << 48), nth + 1 == CALLERS));
        (0..CALLERS).map(caller).collect()
    }

    /// The number of commands that were applied and answered.
    pub(super) fn answered(&self) -> u64 {
        self.answered.get()
    }

    /// No caller begins anything more.
    pub(super) fn close(&self) {
        self.is_closed.set(true);
    }

    pub(super) fn take(&self) -> Callers<S> {
        self.answers.replace(Callers { calls: Vec::new(), queries: Vec::new() })
    }

    async fn caller(self: Rc<Self>, mut rng: Rng, has_sessions: bool) {
        while !self.is_closed.get() {
            sleep(Duration::from_millis(rng.between(1..=REST_MS_MAX))).await;
            let Some(node) = self.any_node(&mut rng) else { continue };
            match &self.spec.queries {
                Some(queries) if rng.one_in(3) => self.ask(&node, queries(&mut rng), rng.coin()).await,
                _ => self.propose(&node, &mut rng, has_sessions).await,
            }
        }
    }

    async fn ask(&self, node: &Node<Recorded<S>>, query: S::Query, is_linearizable: bool) {
        let began = self.next_stamp();
        let consistency = if is_linearizable { Consistency::Linearizable } else { Consistency::Local };
        let asked = query.clone();
        if let Ok(read) = node.read(consistency, move |machine| machine.query(&asked)).await
            && let Some(answer) = read.value
        {
            let asked = Asked { query, began, is_linearizable, index: read.index, answer };
            self.answers.borrow_mut().queries.push(asked);
        }
    }

    async fn propose(&self, node: &Node<Recorded<S>>, rng: &mut Rng, has_sessions: bool) {
        let Some(commands) = &self.spec.commands else { return };
        let command = Hosted::<S>::encode(&commands(rng, &self.replies.borrow()));
        let began = self.next_stamp();
        let told = match has_sessions {
            false => node.propose(command.clone()).await.map_err(SessionError::Proposal),
            true => match node.session().await {
                Ok(session) => session.propose(command.clone()).await,
                // The command was not sent.
                Err(_) => return,
            },
        };
        let told = match told {
            Ok(applied) => {
                self.answered.set(self.answered.get() + 1);
                if let Some(Ok(reply)) = Hosted::<S>::decode(&applied.reply) {
                    self.replies.borrow_mut().push(reply);
                }
                Told::Applied(applied.index, applied.reply)
            }
            Err(SessionError::Proposal(ProposeError::OutcomeUnknown)) => Told::Unknown,
            Err(SessionError::Proposal(_)) => Told::Failed,
            Err(_) => Told::Unknown,
        };
        let call = Call { command, began, ended: self.next_stamp(), told };
        self.answers.borrow_mut().calls.push(call);
    }

    fn any_node(&self, rng: &mut Rng) -> Option<Node<Recorded<S>>> {
        let nodes = self.nodes.borrow();
        let nth = rng.below(nodes.len() as u64) as usize;
        nodes.values().nth(nth).cloned()
    }

    fn next_stamp(&self) -> u64 {
        self.stamp.set(self.stamp.get() + 1);
        self.stamp.get()
    }
}
