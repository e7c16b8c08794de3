//! The hub of a node's watches: the history as the last batch left it, and the cursors that wait
//! for more of it.
//!
//! The applier's thread publishes a copy of the history, O(1), after each batch; so an event is
//! visible only after its entry was applied whole. A [`Cursor`] reads that copy from its position
//! on; a live one and one that catches up take the same path, and nothing is queued for either.
//! One task, on the applier's thread, wakes the cursors that have something new. It wakes a bounded
//! number in a row, so that entries are applied in between.
//!
//! **Lists.** A cursor that has read everything rests in one of 1,024 lists, by the hash of its
//! topic; a cursor of all topics or of a prefix rests in a list of its own kind. An event concerns
//! the list of its topic and that last list. So a cursor in another list needs no turn to know that
//! it missed nothing: while it rests, its position is the index up to which the task has looked.
//! A batch may be larger than the history, and the applier may apply many before the task gets a
//! turn. So each list has a floor, the last evicted entry that concerned it: a cursor that waits,
//! and stands at the floor of its list or above, has missed nothing.
//!
//! **No wake is lost.** A cursor first rests, then looks whether something was published since it
//! read. The task takes a publication first, then looks at the lists. One of the two notices.
//!
//! **Memory.** A cursor costs its entry in a list, which goes with it. A node that is not watched
//! has no hub.

use super::history::{Changes, Gone, History, Next, Topics};
use futures_util::task::AtomicWaker;
use quorate_raft::Index;
use rapidhash::v3::rapidhash_v3;
use std::{
    collections::BTreeMap,
    fmt,
    future::poll_fn,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

/// The lists of cursors of one topic.
const LISTS: usize = 1_024;
/// The list of cursors of all topics or of a prefix.
const WIDE: usize = LISTS;
/// The most cursors, or lists, that are looked at before other tasks of the thread get a turn.
const LOOK_MAX: usize = 128;

/// The machine's side: it publishes, and makes cursors. The watches end when it is dropped.
pub(super) struct Publisher<E> {
    hub: OnceLock<Arc<Hub<E>>>,
    applied: Index,
    halted: Option<Index>,
    /// The lists that evicted events concerned since the last publication, with the new floors.
    evicted: BTreeMap<usize, Index>,
    /// A snapshot replaced the history since then, so evictions may be unknown.
    is_restored: bool,
}

impl<E: Send + Sync + 'static> Publisher<E> {
    /// Publishes the history after a batch, the last index of which was `applied`, or a restored
    /// one. A machine that has halted has applied what is before that entry.
    pub(super) fn publish(&mut self, history: &History<E>, applied: Index, halted: Option<Index>) {
        self.applied = halted.map_or(applied, |at| Index(at.0.saturating_sub(1)));
        self.halted = halted;
        let (evicted, is_restored) = (mem::take(&mut self.evicted), mem::take(&mut self.is_restored));
        if let Some(hub) = self.hub.get() {
            hub.publish(history.clone(), self.applied, halted, |floors| match is_restored {
                true => floors.fill(history.floor()),
                false => evicted.into_iter().for_each(|(list, floor)| floors[list] = floor),
            });
        }
    }

    /// Notes that the history evicted an event. Evicted indexes never fall.
    pub(super) fn evicted(&mut self, index: Index, topic: &str) {
        if self.hub.get().is_some() {
            self.evicted.insert(list_of(topic), index);
            self.evicted.insert(WIDE, index);
        }
    }

    /// Notes that a snapshot has replaced the history.
    pub(super) fn restored(&mut self) {
        self.is_restored = true;
    }

    /// A cursor after this index, or after all that was applied. Runs on the applier's thread,
    /// between two batches.
    pub(super) fn watch(&self, history: &History<E>, topics: Topics, after: Option<Index>) -> Cursor<E> {
        let hub = self.hub.get_or_init(|| {
            let hub = Hub::new(history.clone(), self.applied, self.halted);
            actix::spawn(Arc::clone(&hub).run());
            hub
        });
        Cursor::new(Arc::clone(hub), topics, after.unwrap_or(self.applied))
    }
}

impl<E> Default for Publisher<E> {
    fn default() -> Self {
        Self { hub: OnceLock::new(), applied: Index(0), halted: None, evicted: BTreeMap::new(), is_restored: false }
    }
}

impl<E> Drop for Publisher<E> {
    fn drop(&mut self) {
        if let Some(hub) = self.hub.get() {
            hub.end();
        }
    }
}

/// The state that all cursors of a node share.
pub(super) struct Hub<E> {
    shared: Mutex<Shared<E>>,
    /// The last one is [`WIDE`].
    lists: Box<[Mutex<List>]>,
    /// The index up to which the task has looked, and has woken every cursor concerned.
    looked: AtomicU64,
    next_id: AtomicU64,
    task: AtomicWaker,
}

struct Shared<E> {
    published: Published<E>,
    /// The last evicted entry with an event of each list; it may be higher, where that is unknown.
    floors: Box<[Index]>,
}

/// The state of the machine at its last publication. A clone is O(1).
struct Published<E> {
    history: History<E>,
    applied: Index,
    halted: Option<Index>,
    has_ended: bool,
    /// Number of the publication.
    number: u64,
}

type List = BTreeMap<u64, Seat>;

/// The entry of a cursor in its list.
struct Seat {
    position: Index,
    /// Whether it waits: it had read everything that was published, and has returned nothing since.
    waits: bool,
    /// The waker of a cursor that rests: of its list, it has read everything up to its position,
    /// and nothing came up to the index up to which the task has looked.
    rests: Option<Waker>,
}

/// The news for a list.
#[derive(Clone, Copy)]
struct News {
    /// The first index that may have an event there.
    first: Index,
    /// The last one; `None` if the end of the watches is the news, which concerns every position.
    last: Option<Index>,
}

impl<E> Hub<E> {
    fn new(history: History<E>, applied: Index, halted: Option<Index>) -> Arc<Self> {
        let floors = vec![history.floor(); WIDE + 1].into();
        let published = Published { history, applied, halted, has_ended: false, number: 0 };
        Arc::new(Self {
            shared: Mutex::new(Shared { published, floors }),
            lists: (0..=WIDE).map(|_| Mutex::default()).collect(),
            looked: AtomicU64::new(applied.0),
            next_id: AtomicU64::new(0),
            task: AtomicWaker::new(),
        })
    }

    fn publish(&self, history: History<E>, applied: Index, halted: Option<Index>, raise: impl FnOnce(&mut [Index])) {
        let mut shared = lock(&self.shared);
        let Shared { published, floors } = &mut *shared;
        let old = mem::replace(&mut published.history, history);
        (published.applied, published.halted) = (applied, halted);
        published.number += 1;
        raise(floors);
        drop(shared);
        drop(old);
        self.task.wake();
    }

    /// Ends every watch, once it has read what was published.
    fn end(&self) {
        let mut shared = lock(&self.shared);
        shared.published.has_ended = true;
        shared.published.number += 1;
        drop(shared);
        self.task.wake();
    }

    /// What is published, with the floor of a list.
    fn published(&self, list: usize) -> (Published<E>, Index) {
        let shared = lock(&self.shared);
        (shared.published.clone(), shared.floors[list])
    }

    fn number(&self) -> u64 {
        lock(&self.shared).published.number
    }

    fn looked(&self) -> Index {
        Index(self.looked.load(Ordering::Acquire))
    }

    /// The task: after each publication it wakes the cursors concerned. It ends with the machine;
    /// if its thread ends first, so do the watches.
    fn run(self: Arc<Self>) -> impl Future<Output = ()> {
        // Also of a task that never gets a turn.
        let hub = EndsWithTask(self);
        async move { hub.0.follow().await }
    }

    async fn follow(&self) {
        let mut seen = 0;
        loop {
            let (published, evicted) = poll_fn(|cx| {
                self.task.register(cx.waker());
                let shared = lock(&self.shared);
                match shared.published.number == seen {
                    true => Poll::Pending,
                    false => Poll::Ready((shared.published.clone(), shared.evicted_after(self.looked()))),
                }
            })
            .await;
            let Published { applied, has_ended, number, .. } = published;
            seen = number;
            for (nth, (list, news)) in self.news(published, evicted).into_iter().enumerate() {
                if nth % LOOK_MAX == LOOK_MAX - 1 {
                    tokio::task::yield_now().await;
                }
                let mut next = self.wake(list, news, 0);
                while let Some(id) = next {
                    tokio::task::yield_now().await;
                    next = self.wake(list, news, id);
                }
            }
            self.looked.store(applied.0, Ordering::Release);
            if has_ended {
                return;
            }
        }
    }

    /// The lists that a publication concerns, also by events that were evicted before the task saw
    /// them.
    fn news(&self, published: Published<E>, evicted: Vec<(usize, Index)>) -> BTreeMap<usize, News> {
        let looked = self.looked();
        let first = looked.next();
        if published.has_ended || published.halted.is_some() {
            return (0..=WIDE).map(|list| (list, News { first, last: None })).collect();
        }
        let lost = |(list, floor)| (list, News { first, last: Some(floor) });
        let mut lists: BTreeMap<_, _> = evicted.into_iter().map(lost).collect();
        for (index, topic) in published.history.topics_after(looked) {
            for list in [list_of(topic), WIDE] {
                lists.entry(list).or_insert(News { first: index, last: None }).last = Some(index);
            }
        }
        lists
    }

    /// Wakes, from this id on, the next cursors of a list for which there is news. Returns the id
    /// from which on to continue.
    fn wake(&self, list: usize, news: News, from: u64) -> Option<u64> {
        let (mut wakers, mut looked, mut last) = (Vec::new(), 0, from);
        for (id, seat) in lock(&self.lists[list]).range_mut(from..).take(LOOK_MAX) {
            (looked, last) = (looked + 1, *id);
            // One that rests since a later publication has read these events.
            if news.last.is_none_or(|last| seat.position < last) && seat.rests.is_some() {
                seat.position = seat.position.max(Index(news.first.0.saturating_sub(1)));
                wakers.extend(seat.rests.take());
            }
        }
        wakers.into_iter().for_each(Waker::wake);
        (looked == LOOK_MAX).then_some(last + 1)
    }
}

/// Ends the watches when the hub's task is dropped.
struct EndsWithTask<E>(Arc<Hub<E>>);

impl<E> Drop for EndsWithTask<E> {
    fn drop(&mut self) {
        self.0.end();
        let news = News { first: self.0.looked().next(), last: None };
        for list in 0..=WIDE {
            let mut next = Some(0);
            while let Some(id) = next {
                next = self.0.wake(list, news, id);
            }
        }
    }
}

/// A position in the history of a node, which moves forward over the entries that it has read.
pub(super) struct Cursor<E> {
    hub: Arc<Hub<E>>,
    topics: Topics,
    list: usize,
    id: u64,
}

/// The end of a cursor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// Events after the position were evicted.
    Gone { floor: Index, position: Index },
    /// Everything before the entry at which the machine halted was read.
    Halted { at: Index },
    /// The node has stopped, and everything that it had published was read.
    Stopped,
}

impl<E> Cursor<E> {
    fn new(hub: Arc<Hub<E>>, topics: Topics, position: Index) -> Self {
        let list = match &topics {
            Topics::One(topic) => list_of(topic),
            Topics::All | Topics::Prefix(_) => WIDE,
        };
        let id = hub.next_id.fetch_add(1, Ordering::Relaxed);
        lock(&hub.lists[list]).insert(id, Seat { position, waits: false, rests: None });
        Self { hub, topics, list, id }
    }

    /// The index up to which nothing selected is left to be read.
    pub(super) fn position(&self) -> Index {
        self.seat(|seat| self.hub.position_of(seat))
    }

    /// The next entry with selected events. A pending cursor is woken when there may be one.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Changes<E>, End>> {
        let (mut position, mut waits) = self.leave();
        loop {
            let (published, list_floor) = self.hub.published(self.list);
            let (number, applied) = (published.number, published.applied);
            let ends = published.ends();
            let reached = match self.read(published, position, waits.then_some(list_floor)) {
                Ok(Next::Changes(changes)) => return Poll::Ready(Ok(changes)),
                Ok(Next::Nothing(reached)) => reached,
                Err(end) => return Poll::Ready(Err(end)),
            };
            if reached < applied {
                // There is more to look at; others get a turn first.
                self.seat(|seat| seat.position = reached);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if let Some(end) = ends {
                self.seat(|seat| seat.position = reached);
                return Poll::Ready(Err(end));
            }
            self.rest(reached, cx.waker().clone());
            if self.hub.number() == number {
                return Poll::Pending;
            }
            // The task may have looked at the list before the cursor rested there.
            self.leave();
            (position, waits) = (reached, true);
        }
    }

    /// Leaves its rest, if it rests. Returns its position, and whether it waits.
    fn leave(&self) -> (Index, bool) {
        let (position, waits, waker) = self.seat(|seat| {
            seat.position = self.hub.position_of(seat);
            (seat.position, seat.waits, seat.rests.take())
        });
        // Not with the list locked: it may be the last owner of a task that owns other cursors.
        drop(waker);
        (position, waits)
    }

    /// Rests: it has read everything up to this position.
    fn rest(&self, position: Index, waker: Waker) {
        let old = self.seat(|seat| {
            (seat.position, seat.waits) = (position, true);
            seat.rests.replace(waker)
        });
        drop(old);
    }

    /// Reads on from a position, at which the seat stands again after an error. One that waits has
    /// missed nothing unless its list has its floor above it.
    fn read(
        &self,
        Published { history, applied, .. }: Published<E>,
        mut position: Index,
        list_floor: Option<Index>,
    ) -> Result<Next<E>, End> {
        if list_floor.is_some_and(|floor| floor <= position) {
            position = position.max(history.floor());
        }
        let next = history.read(position, applied, &self.topics);
        self.seat(|seat| match &next {
            Ok(Next::Changes(changes)) => (seat.position, seat.waits) = (changes.index, false),
            Ok(Next::Nothing(_)) | Err(_) => seat.position = position,
        });
        next.map_err(|Gone { floor }| End::Gone { floor, position })
    }

    fn seat<T>(&self, with: impl FnOnce(&mut Seat) -> T) -> T {
        let mut list = lock(&self.hub.lists[self.list]);
        with(list.get_mut(&self.id).expect("a cursor has a seat until it is dropped"))
    }
}

impl<E> Shared<E> {
    /// The lists with a floor above this index, and their floors.
    fn evicted_after(&self, index: Index) -> Vec<(usize, Index)> {
        if self.published.history.floor() <= index {
            return Vec::new();
        }
        (0..).zip(&self.floors).map(|(list, floor)| (list, *floor)).filter(|(_, floor)| *floor > index).collect()
    }
}

impl<E> Published<E> {
    /// The end of a cursor that has read everything.
    fn ends(&self) -> Option<End> {
        self.halted.map(|at| End::Halted { at }).or(self.has_ended.then_some(End::Stopped))
    }
}

impl<E> Hub<E> {
    /// The position of a cursor whose list is locked: so the task has not looked further in it.
    fn position_of(&self, seat: &Seat) -> Index {
        if seat.rests.is_some() { seat.position.max(self.looked()) } else { seat.position }
    }
}

impl<E> Drop for Cursor<E> {
    fn drop(&mut self) {
        let seat = lock(&self.hub.lists[self.list]).remove(&self.id);
        // The lock is free again: see `leave`.
        drop(seat);
    }
}

impl<E> fmt::Debug for Cursor<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let position = self.position();
        f.debug_struct("Cursor").field("topics", &self.topics).field("position", &position).finish_non_exhaustive()
    }
}

impl<E> Clone for Published<E> {
    fn clone(&self) -> Self {
        let Self { history, applied, halted, has_ended, number } = self;
        Self { history: history.clone(), applied: *applied, halted: *halted, has_ended: *has_ended, number: *number }
    }
}

fn list_of(topic: &str) -> usize {
    (rapidhash_v3(topic.as_bytes()) % LISTS as u64) as usize
}

/// No code panics with a lock held, so a lock is never poisoned.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
