//! The credit of the inbox: each lane waits for its own.

use quorate_raft::{Body, Heartbeat, Index, Message, NodeId, Propose, Term};
use quorate_transport::network::Inbox;
use quorate_transport_testing::conformance::{append, piece as piece_of};
use std::{cell::RefCell, rc::Rc};

#[tokio::test]
async fn a_heartbeat_never_waits_for_the_credit_of_bulk() {
    let unhandled = Rc::new(RefCell::new(Vec::new()));
    let kept = Rc::clone(&unhandled);
    let inbox = Inbox::new(move |event| kept.borrow_mut().push(event));
    let bulk = Body::Propose(Propose { commands: Vec::new(), payloads: bytes::Bytes::new() });
    inbox.deliver(NodeId(2), Message { term: Term(1), body: bulk.clone() }, Inbox::CREDIT_BYTES).await;

    let heartbeat = Body::Heartbeat(Heartbeat { round: 1, commit: Index(0) });
    inbox.deliver(NodeId(2), Message { term: Term(1), body: heartbeat }, 64).await;
    assert_eq!(unhandled.borrow().len(), 2);

    let more = inbox.deliver(NodeId(2), Message { term: Term(1), body: bulk }, 1);
    assert!(futures_util::FutureExt::now_or_never(more).is_none(), "bulk waits until some of it was handled");
}

#[tokio::test]
async fn an_append_never_waits_for_the_credit_of_snapshots() {
    let unhandled = Rc::new(RefCell::new(Vec::new()));
    let kept = Rc::clone(&unhandled);
    let inbox = Inbox::new(move |event| kept.borrow_mut().push(event));
    let piece = piece_of(0, 100);
    inbox.deliver(NodeId(2), piece.clone(), Inbox::SNAPSHOT_CREDIT_BYTES).await;

    inbox.deliver(NodeId(2), append(1, 1, 10), Inbox::CREDIT_BYTES).await;
    assert_eq!(unhandled.borrow().len(), 2);
    let more = inbox.deliver(NodeId(2), piece.clone(), 1);
    assert!(futures_util::FutureExt::now_or_never(more).is_none(), "pieces wait until some were handled");
    unhandled.borrow_mut().remove(0);
    inbox.deliver(NodeId(2), piece, 1).await;
}
