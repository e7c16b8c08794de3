//! Views of the state: copies that the state machine offers, so that callers read on their own
//! threads.
//!
//! The applier publishes a view after a batch, if readers used the last one or came to its own
//! thread meanwhile; so a node without readers makes no copies. A view serves a read if it contains
//! all that the applier has begun to apply, and the index that the read must see. So a caller that
//! was answered for an entry never reads a view without it, whatever the consistency.
//!
//! No reader waits here: one that comes while a view is replaced goes to the applier. Nor does the
//! applier wait for readers after a batch: if they hold the lock, the old view stays, and serves no
//! read any more.

use crate::machine::StateMachine;
use quorate_raft::Index;
use std::{
    any::Any,
    fmt,
    marker::PhantomData,
    sync::{
        Arc, PoisonError, RwLock, TryLockError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// A copy of the state of the machine `M`, which nothing changes any more. Cheap to clone.
pub struct View<M> {
    state: Arc<dyn Any + Send + Sync>,
    of: PhantomData<fn() -> M>,
}

impl<M: Send + Sync + 'static> View<M> {
    /// A view that is this copy of the machine.
    ///
    /// ```
    /// use quorate::{At, StateMachine, View};
    /// use std::sync::Arc;
    ///
    /// #[derive(Clone, Default)]
    /// struct Latest(Arc<[u8]>);
    ///
    /// impl StateMachine for Latest {
    ///     fn apply(&mut self, _: &At, command: &[u8]) -> bytes::Bytes {
    ///         self.0 = command.into();
    ///         bytes::Bytes::new()
    ///     }
    ///
    ///     fn view(&self) -> Option<View<Self>> {
    ///         Some(View::of(self.clone()))
    ///     }
    /// }
    /// ```
    #[must_use]
    pub fn of(copy: M) -> Self {
        Self::with(copy)
    }
}

impl<M> View<M> {
    /// A view of another form.
    pub(crate) fn with(state: impl Send + Sync + 'static) -> Self {
        Self { state: Arc::new(state), of: PhantomData }
    }

    /// The view, if it has this form.
    pub(crate) fn holds<T: 'static>(&self) -> Option<&T> {
        self.state.downcast_ref()
    }
}

impl<M> Clone for View<M> {
    fn clone(&self) -> Self {
        Self { state: Arc::clone(&self.state), of: PhantomData }
    }
}

impl<M> fmt::Debug for View<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("View")
    }
}

/// The view that a node shares with its callers.
pub(crate) struct StateViews<M> {
    /// The last entry that the applier has begun to apply, or [`u64::MAX`] once there is no state.
    begun: AtomicU64,
    /// Whether a read was served by a view since the applier looked last.
    is_used: AtomicBool,
    slot: RwLock<Option<Shared<M>>>,
}

/// The applier tries this often to replace a view: readers hold the lock for nanoseconds.
const TRIES: usize = 32;

struct Shared<M> {
    applied: Index,
    view: View<M>,
}

impl<M: StateMachine> StateViews<M> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { begun: AtomicU64::new(0), is_used: AtomicBool::new(false), slot: RwLock::new(None) })
    }

    /// A view for a read that must see `index`, and the last entry in it.
    pub(crate) fn at_least(&self, index: Index) -> Option<(Index, View<M>)> {
        let slot = self.slot.try_read().ok()?;
        let Shared { applied, view } = slot.as_ref()?;
        let (applied, view) = (*applied, view.clone());
        drop(slot);
        // After the view was taken: what was begun before that is in it, or was answered later.
        if applied < index || applied.0 < self.begun.load(Ordering::Acquire) {
            return None;
        }
        if !self.is_used.load(Ordering::Relaxed) {
            self.is_used.store(true, Ordering::Relaxed);
        }
        Some((applied, view))
    }
}

impl<M> StateViews<M> {
    /// The applier begins to apply entries up to this one: no view without them serves a read any
    /// more. It answers no caller of these entries before.
    pub(crate) fn begin(&self, last: Index) {
        self.begun.store(last.0, Ordering::Release);
    }

    /// The applier begins to replace the state by that of a snapshot up to this entry. The view is
    /// dropped: memory may not hold both states.
    pub(crate) fn begin_restore(&self, last: Index) {
        self.begin(last);
        self.clear();
    }

    /// There is no state to read any more.
    pub(crate) fn end(&self) {
        self.begun.store(u64::MAX, Ordering::Release);
        self.clear();
    }

    /// Drops the view, after readers that hold the lock: they do for nanoseconds.
    fn clear(&self) {
        let view = self.slot.write().unwrap_or_else(PoisonError::into_inner).take();
        drop(view);
    }

    /// A read that could be served by a view came to the applier.
    pub(crate) fn is_wanted(&self) {
        self.is_used.store(true, Ordering::Relaxed);
    }

    /// Whether a read was served by a view, or came to the applier, since this was last asked.
    pub(crate) fn take_used(&self) -> bool {
        self.is_used.load(Ordering::Relaxed) && self.is_used.swap(false, Ordering::Relaxed)
    }

    /// Publishes the view of the state after this entry. Says whether it took place.
    pub(crate) fn publish(&self, applied: Index, view: View<M>) -> bool {
        self.replace(Some(Shared { applied, view }))
    }

    /// Drops the view, so that the machine shares its state with none.
    pub(crate) fn withdraw(&self) -> bool {
        self.replace(None)
    }

    fn replace(&self, next: Option<Shared<M>>) -> bool {
        let mut slot = None;
        for _ in 0..TRIES {
            slot = match self.slot.try_write() {
                Ok(slot) => Some(slot),
                Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => None,
            };
            if slot.is_some() {
                break;
            }
            std::hint::spin_loop();
        }
        let Some(mut slot) = slot else { return false };
        let before = std::mem::replace(&mut *slot, next);
        drop(slot);
        // Outside of the lock: it may be large.
        drop(before);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::{StateViews, View};
    use crate::machine::{At, StateMachine};
    use bytes::Bytes;
    use quorate_raft::Index;
    use std::sync::Arc;

    #[derive(Clone)]
    struct Number(u64);

    impl StateMachine for Number {
        fn apply(&mut self, _: &At, _: &[u8]) -> Bytes {
            Bytes::new()
        }
    }

    fn seen(views: &StateViews<Number>, index: u64) -> Option<(u64, u64)> {
        let (applied, view) = views.at_least(Index(index))?;
        Some((applied.0, view.holds::<Number>()?.0))
    }

    #[test]
    fn a_view_serves_a_read_only_if_it_contains_what_the_read_must_see() {
        let views = StateViews::new();
        assert_eq!(seen(&views, 0), None);
        views.begin(Index(7));
        assert!(views.publish(Index(7), View::of(Number(70))));
        assert_eq!((seen(&views, 0), seen(&views, 7), seen(&views, 8)), (Some((7, 70)), Some((7, 70)), None));
    }

    #[test]
    fn a_view_serves_no_read_once_later_entries_are_being_applied() {
        let views = StateViews::new();
        views.publish(Index(7), View::of(Number(70)));
        views.begin(Index(9));
        assert_eq!(seen(&views, 0), None);
        views.publish(Index(9), View::of(Number(90)));
        assert_eq!(seen(&views, 0), Some((9, 90)));
    }

    #[test]
    fn a_view_is_in_use_if_a_read_was_served_by_it_since_the_last_look() {
        let views = StateViews::new();
        views.publish(Index(7), View::of(Number(70)));
        assert!(!views.take_used());
        assert_eq!((seen(&views, 9), views.take_used()), (None, false));
        assert!(seen(&views, 7).is_some() && views.take_used() && !views.take_used());
    }

    #[test]
    fn no_view_serves_a_read_after_the_end_of_the_state() {
        let views = StateViews::new();
        views.publish(Index(7), View::of(Number(70)));
        views.end();
        assert_eq!((seen(&views, 0), seen(&views, 7)), (None, None));
    }

    #[test]
    fn no_view_of_the_old_state_is_left_while_a_snapshot_is_restored() {
        let (views, state) = (StateViews::new(), Arc::new(()));
        views.publish(Index(7), View::with(Arc::clone(&state)));
        views.begin_restore(Index(9));
        assert_eq!((seen(&views, 0), Arc::strong_count(&state)), (None, 1));
        views.publish(Index(9), View::of(Number(90)));
        assert_eq!(seen(&views, 9), Some((9, 90)));
    }

    #[test]
    fn a_view_that_readers_hold_is_replaced_by_no_other_and_serves_no_later_read() {
        let views = StateViews::new();
        views.publish(Index(7), View::of(Number(70)));
        views.begin(Index(8));
        let held = views.slot.try_read().expect("no writer");
        assert!(!views.publish(Index(8), View::of(Number(80))) && !views.withdraw());
        drop(held);
        assert_eq!(seen(&views, 0), None);
    }
}
