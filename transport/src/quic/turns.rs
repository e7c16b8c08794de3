//! The time that the tasks of connections take on the node's thread, for the observer.

use super::shared::Shared;
use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Instant,
};

/// A task whose turns are measured: two looks at a clock for each. In real time also where tests
/// pause the clock of the runtime.
pub(super) struct Measured {
    task: Pin<Box<dyn Future<Output = ()>>>,
    shared: Rc<Shared>,
}

impl Measured {
    pub(super) fn new(shared: &Rc<Shared>, task: impl Future<Output = ()> + 'static) -> Self {
        Self { task: Box::pin(task), shared: Rc::clone(shared) }
    }
}

impl Future for Measured {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let began = Instant::now();
        let polled = self.task.as_mut().poll(cx);
        self.shared.observer.link_turn(began.elapsed());
        polled
    }
}
