//! The time that the tasks of connections take on the node's thread, for the observer.

use super::shared::Shared;
use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

/// A task whose turns the observer measures.
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
        let Self { task, shared } = &mut *self;
        let mut polled = Poll::Pending;
        shared.observer.link_turn(&mut || polled = task.as_mut().poll(cx));
        polled
    }
}
