//! One life of a node: the real actors on a thread-less runtime of its own, whose clock stands still unless it is moved.
//!
//! A runtime a node, because a clock belongs to a runtime: so each node's runs as its plan says, leaps when its machine wakes, and
//! stands while others' go on. And because whoever drops a runtime drops every task in it, between any two of its steps: that is
//! a crash.

use super::registers::Registers;
use quorate::{Builder, Failure, Node, StartError, Status};
use std::{
    cell::{Cell, RefCell},
    future::Future,
    rc::Rc,
    time::Duration,
};
use tokio::{
    runtime::{self, Runtime},
    task::LocalSet,
    time::{Instant, advance, sleep_until},
};

/// A running node.
pub(super) struct Process {
    node: Node<Registers>,
    failure: Rc<RefCell<Option<Failure>>>,
    closed: Rc<Cell<bool>>,
    is_stopping: bool,
    began: Instant,
    /// What its clock shows since it began. Whole milliseconds: tokio's timers know no others.
    clock: Duration,
    tasks: LocalSet,
    runtime: Runtime,
}

impl Drop for Process {
    /// Actors that are dropped still do this and that, which reaches nobody any more, but must find a clock.
    fn drop(&mut self) {
        let _clock = self.runtime.enter();
        drop(std::mem::take(&mut self.tasks));
    }
}

impl Process {
    /// Starts a node. It returns once its log is recovered and its network is up.
    pub(super) fn start(builder: Builder, machine: Registers) -> Result<Self, StartError> {
        let tasks = LocalSet::new();
        let runtime = runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.map_err(|error| StartError::Config(error.to_string()))?;
        let (began, node) = tasks.block_on(&runtime, async {
            let began = Instant::now();
            (began, builder.start_local(machine).await)
        });
        let (failure, closed) = (Rc::default(), Rc::default());
        let mut process =
            Self { node: node?, failure, closed, is_stopping: false, began, clock: Duration::ZERO, tasks, runtime };
        let (node, failure) = (process.node.clone(), Rc::clone(&process.failure));
        process.call(async move {
            let ended = node.failed().await;
            *failure.borrow_mut() = Some(ended);
        });
        process.run_for(Duration::ZERO);
        Ok(process)
    }

    /// Does everything that is due while so much time passes on its clock.
    pub(super) fn run_for(&mut self, time: Duration) {
        self.clock += time;
        let until = self.began + self.clock;
        self.tasks.block_on(&self.runtime, async move { sleep_until(until).await });
    }

    /// Its clock leaps: whatever became due meanwhile is late.
    pub(super) fn leap(&mut self, by: Duration) {
        self.clock += by;
        self.tasks.block_on(&self.runtime, async move { advance(by).await });
    }

    /// Lets a caller ask something of the node, within it: what is under way when the node dies is never answered.
    pub(super) fn call(&mut self, call: impl Future<Output = ()> + 'static) {
        drop(self.tasks.spawn_local(call));
    }

    /// The node's handle.
    pub(super) fn node(&self) -> &Node<Registers> {
        &self.node
    }

    /// What it shows of itself.
    pub(super) fn status(&self) -> Status {
        self.node.status().borrow().clone()
    }

    /// Asks it to end in good order.
    pub(super) fn shut_down(&mut self) {
        self.is_stopping = true;
        let (node, closed) = (self.node.clone(), Rc::clone(&self.closed));
        self.call(async move {
            node.shutdown().await;
            closed.set(true);
        });
    }

    /// Whether it was asked to: it takes no commands any more, and hands over.
    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    /// Whether it has ended in good order.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Why it ended otherwise.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.failure.borrow().clone()
    }
}
