//! One life of a node: the real actors on their own runtime without threads. Its clock stands still
//! unless the driver moves it.
//!
//! Each node has a runtime because a clock belongs to a runtime: it runs at the plan's rate, leaps
//! when the machine wakes, and stands while others run. Dropping a runtime also drops every task
//! in it between two of its steps, and that is a crash.

use super::{machine::Registers, observer::SharedObserver};
use quorate::{
    Builder, Failure, Node, StartError, Status,
    events::{Event, EventReader, Received},
};
use std::{
    cell::{Cell, RefCell},
    future::Future,
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::{
    runtime::{self, Runtime},
    task::LocalSet,
    time::{Instant, advance, sleep_until},
};

/// A running node, with its runtime.
pub(super) struct Process {
    node: Node<Registers>,
    events: EventReader,
    /// Whether the events since its start were taken.
    has_told: bool,
    failure: Rc<RefCell<Option<Failure>>>,
    closed: Rc<Cell<bool>>,
    is_stopping: bool,
    began: Instant,
    /// The time that its clock shows since the start, in whole milliseconds: tokio's timers
    /// are no finer.
    clock: Duration,
    tasks: LocalSet,
    runtime: Runtime,
}

impl Drop for Process {
    /// Actors still act while they are dropped. That has no effect outside, but needs a clock.
    fn drop(&mut self) {
        let _clock = self.runtime.enter();
        drop(std::mem::take(&mut self.tasks));
    }
}

impl Process {
    /// Starts a node. Returns once its log is recovered and its network is up.
    pub(super) fn start(builder: Builder, machine: Registers, observer: &SharedObserver) -> Result<Self, StartError> {
        let (tasks, performs) = (LocalSet::new(), machine.performs());
        let runtime = runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.map_err(|error| StartError::Config(error.to_string()))?;
        let (began, node) = tasks.block_on(&runtime, async {
            let began = Instant::now();
            (began, builder.start_local(machine).await)
        });
        let (failure, closed, node) = (Rc::default(), Rc::default(), node?);
        let (events, has_told) = (node.events(), false);
        let mut process = Self {
            node,
            events,
            has_told,
            failure,
            closed,
            is_stopping: false,
            began,
            clock: Duration::ZERO,
            tasks,
            runtime,
        };
        let (node, failure) = (process.node.clone(), Rc::clone(&process.failure));
        process.call(async move {
            let ended = node.failed().await;
            *failure.borrow_mut() = Some(ended);
        });
        if let Some(performs) = performs {
            let work = performs(&process.node, observer.clone());
            process.call(work);
        }
        process.run_for(Duration::ZERO);
        Ok(process)
    }

    /// Runs all tasks that are due while its clock advances by `time`.
    pub(super) fn run_for(&mut self, time: Duration) {
        self.clock += time;
        let until = self.began + self.clock;
        self.tasks.block_on(&self.runtime, async move { sleep_until(until).await });
    }

    /// Its clock leaps: timers that became due meanwhile are late.
    pub(super) fn leap(&mut self, by: Duration) {
        self.clock += by;
        self.tasks.block_on(&self.runtime, async move { advance(by).await });
    }

    /// Runs a caller's future on the node's runtime. A call under way when the node dies
    /// gets no answer.
    pub(super) fn call(&mut self, call: impl Future<Output = ()> + 'static) {
        drop(self.tasks.spawn_local(call));
    }

    pub(super) fn node(&self) -> &Node<Registers> {
        &self.node
    }

    pub(super) fn status(&self) -> Status {
        self.node.status().borrow().clone()
    }

    /// The events since the last call, oldest first.
    pub(super) fn take_events(&mut self) -> Vec<Arc<Event>> {
        let since_start = if std::mem::replace(&mut self.has_told, true) { &[] } else { self.events.recent() };
        let mut told = since_start.to_vec();
        while let Some(Received::Event(event)) = self.events.try_next() {
            told.push(event);
        }
        told
    }

    /// Asks the node to shut down in order.
    pub(super) fn shut_down(&mut self) {
        self.is_stopping = true;
        let (node, closed) = (self.node.clone(), Rc::clone(&self.closed));
        self.call(async move {
            node.shutdown().await;
            closed.set(true);
        });
    }

    /// Whether a shutdown was requested: the node takes no commands, and transfers its leadership.
    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    /// Whether it has shut down in order.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// The reason of any other end.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.failure.borrow().clone()
    }
}
