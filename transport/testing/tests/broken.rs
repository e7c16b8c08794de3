//! The suite for networks fails each network that is broken in one way.

mod support;

use quorate_raft::{Body, Heartbeat, Message, NodeId};
use quorate_transport::{
    MemoryNetwork, Network, NetworkObserver,
    network::{
        Delivered, Direction, DropReason, Event, Inbox, Introduction, Lane, Link, Links, LocalFuture, NetworkContext,
        NetworkError,
    },
};
use quorate_transport_testing::conformance::{self, Harness};
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeSet, VecDeque},
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use support::{CLUSTER, run_paused};
use tokio::{task::spawn_local, time::sleep};

/// A way in which a network can be broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    None,
    AnswersNothing,
    AnsweringDials,
    DroppedLinkDials,
    OtherIdIsBelieved,
    DialledIsNotIntroduced,
    DiallerIsNotIntroduced,
    SentBytesAreNotCounted,
    ReceivedBytesAreNotCounted,
    DropsAreNotCounted,
    LaneIsReordered,
    QueueIsUnbounded,
    SenderIsAltered,
    MessageIsAltered,
    DeliversAfterClose,
    HoldsNoCredit,
    LossIsNotTold,
    ReturnIsNotTold,
    FactsAreNotRenewed,
    SomeAreLost,
}

const FAULTS: [Fault; 19] = [
    Fault::AnswersNothing,
    Fault::AnsweringDials,
    Fault::DroppedLinkDials,
    Fault::OtherIdIsBelieved,
    Fault::DialledIsNotIntroduced,
    Fault::DiallerIsNotIntroduced,
    Fault::SentBytesAreNotCounted,
    Fault::ReceivedBytesAreNotCounted,
    Fault::DropsAreNotCounted,
    Fault::LaneIsReordered,
    Fault::QueueIsUnbounded,
    Fault::SenderIsAltered,
    Fault::MessageIsAltered,
    Fault::DeliversAfterClose,
    Fault::HoldsNoCredit,
    Fault::LossIsNotTold,
    Fault::ReturnIsNotTold,
    Fault::FactsAreNotRenewed,
    Fault::SomeAreLost,
];

#[test]
fn a_network_around_another_that_breaks_nothing_conforms() {
    run_paused(conformance::run(&mut Broken(MemoryNetwork::new(), Fault::None)));
}

#[test]
fn each_broken_network_fails_the_suite() {
    for fault in FAULTS {
        let run = || run_paused(conformance::run(&mut Broken(MemoryNetwork::new(), fault)));
        assert!(catch_unwind(AssertUnwindSafe(run)).is_err(), "{fault:?} passes the suite");
    }
}

struct Broken(MemoryNetwork, Fault);

impl Harness for Broken {
    fn network(&mut self, node: NodeId, _: Option<SocketAddr>) -> Box<dyn Network> {
        Box::new(BrokenNetwork { inner: Box::new(self.0.endpoint(node)), fault: self.1 })
    }

    fn cluster(&self) -> String {
        CLUSTER.into()
    }
}

struct BrokenNetwork {
    inner: Box<dyn Network>,
    fault: Fault,
}

impl Network for BrokenNetwork {
    fn start(self: Box<Self>, context: NetworkContext) -> LocalFuture<Result<Box<dyn Links>, NetworkError>> {
        let Self { inner, fault } = *self;
        let dialled = Rc::new(RefCell::new(BTreeSet::new()));
        let (outer, knows) = (context.inbox.clone(), Rc::clone(&dialled));
        let downs = Cell::new(0);
        let inbox = Inbox::new(move |event| {
            if let (Fault::OtherIdIsBelieved, Event::LinkUp { peer: NodeId(2) }) = (fault, &event)
                && knows.borrow().contains(&NodeId(9))
            {
                outer.link_up(NodeId(9));
            }
            let is_hidden = match &event {
                Event::Introduced { peer, .. } => match fault {
                    Fault::DialledIsNotIntroduced => knows.borrow().contains(peer) || peer.0 == 2,
                    Fault::DiallerIsNotIntroduced => !knows.borrow().contains(peer) && peer.0 == 1,
                    _ => false,
                },
                Event::LinkDown { .. } => {
                    downs.set(downs.get() + 1);
                    fault == Fault::LossIsNotTold
                }
                Event::LinkUp { .. } => fault == Fault::ReturnIsNotTold && downs.get() > 0,
                _ => false,
            };
            if !is_hidden {
                outer.put(altered(fault, event));
            }
        });
        let observer = Arc::new(BrokenObserver { inner: context.observer.clone(), fault });
        let outer = context.inbox.clone();
        let context = NetworkContext { inbox, observer, ..context };
        Box::pin(async move {
            let inner = inner.start(context).await?;
            Ok(Box::new(BrokenLinks { inner, fault, dialled, outer }) as Box<dyn Links>)
        })
    }
}

fn altered(fault: Fault, event: Event) -> Event {
    let Event::Delivered(Delivered { from, mut message, credit }) = event else { return event };
    let from = if fault == Fault::SenderIsAltered && from == NodeId(3) { NodeId(2) } else { from };
    if let (Fault::MessageIsAltered, Body::Append(append)) = (fault, &mut message.body) {
        append.epoch += 1;
    }
    let credit = credit.filter(|_| fault != Fault::HoldsNoCredit);
    Event::Delivered(Delivered { from, message, credit })
}

struct BrokenObserver {
    inner: Arc<dyn NetworkObserver>,
    fault: Fault,
}

impl NetworkObserver for BrokenObserver {
    fn bytes(&self, peer: NodeId, direction: Direction, lane: Lane, bytes: u64) {
        let is_lost = match direction {
            Direction::Sent => self.fault == Fault::SentBytesAreNotCounted,
            Direction::Received => self.fault == Fault::ReceivedBytesAreNotCounted,
        };
        if !is_lost {
            self.inner.bytes(peer, direction, lane, bytes);
        }
    }

    fn dropped(&self, peer: Option<NodeId>, reason: DropReason) {
        if self.fault != Fault::DropsAreNotCounted {
            self.inner.dropped(peer, reason);
        }
    }
}

struct BrokenLinks {
    inner: Box<dyn Links>,
    fault: Fault,
    dialled: Rc<RefCell<BTreeSet<NodeId>>>,
    outer: Inbox,
}

impl Links for BrokenLinks {
    fn introduce(&self, introduction: Introduction) {
        if self.fault != Fault::FactsAreNotRenewed {
            self.inner.introduce(introduction);
        }
    }

    fn link(&self, peer: NodeId, address: &str) -> Rc<dyn Link> {
        self.dialled.borrow_mut().insert(peer);
        let to = if self.fault == Fault::OtherIdIsBelieved && peer == NodeId(9) { NodeId(2) } else { peer };
        let link = self.inner.link(to, address);
        match self.fault {
            Fault::DroppedLinkDials => std::mem::forget(Rc::clone(&link)),
            Fault::LaneIsReordered | Fault::QueueIsUnbounded | Fault::SomeAreLost => {
                return Rc::new(BrokenLink {
                    inner: link,
                    fault: self.fault,
                    waiting: Rc::default(),
                    sent: Cell::new(0),
                });
            }
            _ => {}
        }
        link
    }

    fn reply_link(&self, peer: NodeId) -> Rc<dyn Link> {
        match self.fault {
            Fault::AnswersNothing => Rc::new(Deaf),
            Fault::AnsweringDials => self.inner.link(peer, ""),
            _ => self.inner.reply_link(peer),
        }
    }

    fn local_address(&self) -> Option<SocketAddr> {
        self.inner.local_address()
    }

    fn close(&self) -> LocalFuture<()> {
        if self.fault == Fault::DeliversAfterClose {
            let outer = self.outer.clone();
            spawn_local(async move {
                sleep(Duration::from_millis(100)).await;
                outer.deliver(NodeId(1), conformance::heartbeat(2), 64).await;
            });
        }
        self.inner.close()
    }
}

struct Deaf;

impl Link for Deaf {
    fn send(&self, _: Message) {}
}

struct BrokenLink {
    inner: Rc<dyn Link>,
    fault: Fault,
    waiting: Rc<RefCell<VecDeque<Message>>>,
    sent: Cell<u64>,
}

impl Link for BrokenLink {
    fn send(&self, message: Message) {
        self.sent.set(self.sent.get() + 1);
        match self.fault {
            // Now and then a heartbeat is overtaken by the next.
            Fault::LaneIsReordered => {
                let overtakes = matches!(&message.body, Body::Heartbeat(Heartbeat { round: 51, .. }));
                let is_held = matches!(&message.body, Body::Heartbeat(Heartbeat { round: 50, .. }));
                if is_held {
                    self.waiting.borrow_mut().push_back(message);
                    let (inner, waiting) = (Rc::clone(&self.inner), Rc::clone(&self.waiting));
                    spawn_local(async move {
                        let held = waiting.borrow_mut().pop_front();
                        held.into_iter().for_each(|message| inner.send(message));
                    });
                    return;
                }
                self.inner.send(message);
                if overtakes {
                    let held = self.waiting.borrow_mut().pop_front();
                    held.into_iter().for_each(|message| self.inner.send(message));
                }
            }
            Fault::QueueIsUnbounded => {
                let (inner, waiting) = (Rc::clone(&self.inner), Rc::clone(&self.waiting));
                waiting.borrow_mut().push_back(message);
                spawn_local(async move {
                    sleep(Duration::from_millis(1)).await;
                    let next = waiting.borrow_mut().pop_front();
                    next.into_iter().for_each(|message| inner.send(message));
                });
            }
            Fault::SomeAreLost if self.sent.get().is_multiple_of(1000) => {}
            _ => self.inner.send(message),
        }
    }
}
