//! Quorate, a Raft node runtime, which makes a [`StateMachine`] a replicated service.
//!
//! ```no_run
//! use quorate::{At, Consistency, Node, NodeId, StateMachine, storage::Wal, transport::{Quic, QuicOptions}};
//!
//! struct Counter(u64);
//!
//! impl StateMachine for Counter {
//!     fn apply(&mut self, _: &At, _: &[u8]) -> bytes::Bytes {
//!         self.0 += 1;
//!         self.0.to_string().into()
//!     }
//! }
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let node = Node::builder(NodeId(1), "demo")
//!     .voters([(NodeId(1), "10.0.0.1:7001"), (NodeId(2), "10.0.0.2:7001"), (NodeId(3), "10.0.0.3:7001")])
//!     .network(Quic::new(QuicOptions::new("0.0.0.0:7001".parse()?, "ca.pem", "node-1.pem", "node-1.key"))?)
//!     .storage(Wal::at("data"))
//!     .start(Counter(0))
//!     .await?;
//!
//! let applied = node.propose("increment").await?;
//! let read = node.read(Consistency::Linearizable, |counter| counter.0).await?;
//! # Ok(()) }
//! ```
//!
//! # The tour
//!
//! - [`Node`] is the handle: propose, read, status, shutdown. [`Builder`] makes one.
//! - [`Node::session`] opens a [`Session`]: commands through it are sent again until their
//!   outcome is known, and take effect once. [`Proposing::by_session`] is for callers that number
//!   and repeat their commands themselves. Without a session [`ProposeError::OutcomeUnknown`] is the
//!   caller's to resolve.
//! - Every role of Raft is an actor (in `actors`), and every actor is a thin shell around one pure
//!   piece of [`quorate_raft`]. `ARCHITECTURE.md` beside this crate has the map: every actor, every
//!   message, every flow.
//! - [`transport`] and [`storage`] are the seams: any [`transport::network::Network`],
//!   any storage actor.
//! - [`metrics`] has the Prometheus metrics of a node; [`Node::events`] is the stream of its
//!   [`events`], from elections to full disks, as typed facts and as sentences.
//!
//! A node runs on a thread of its own, with an actix `System` inside; its handle works from any
//! tokio runtime.

mod actors;
mod admission;
mod backup;
mod builder;
mod comparison;
mod config;
#[doc(hidden)]
pub mod decisions;
mod error;
pub mod events;
mod lease_cell;
#[cfg(test)]
mod lease_model;
mod lifecycle;
mod losses;
mod machine;
mod node;
mod observe;
mod propose;
mod publication;
mod read_gate;
mod reading;
mod reports;
mod results;
#[doc(hidden)]
pub mod service;
mod session;
#[doc(hidden)]
pub mod sessions;
mod settings;
mod status;
mod turns;
mod views;

/// The atomics of [`lease_cell`]; its model in the tests has others.
mod atomics {
    pub(crate) use std::sync::atomic::{AtomicU64, Ordering, fence};
}

pub use builder::Builder;
pub use comparison::Disagreement;
pub use config::{Limits, Sessions, Snapshots, Timing};
pub use error::{
    BackupError, ChangeError, Failure, ProposeError, ReadError, RestoreError, SessionError, SnapshotError, StartError,
    TransferError,
};
pub use machine::{At, Halt, HaltCause, StateMachine, WriteState};
pub use node::Node;
pub use propose::Proposing;
pub use quorate_metrics::{self as metrics, NodeRole};
pub use quorate_raft::{
    Change, ChangeRefused, ClockDrift, ClusterId, EntryId, Index, Malformed, Member, MemberKind, MemberMetadata,
    Membership, MetadataFlaw, MetadataUpdate, NodeId, Skip, Term, TransferRefused, Violation, address,
    session::{LogTime, SessionKey},
};
pub use quorate_storage as storage;
pub use quorate_transport as transport;
pub use reports::{
    events::{BallotMessage, Happened, ReportedEvent},
    report::{
        Campaign, Doing, ElectionDeadline, LinkReport, Members, NodeReport, ReplicationReport, ReportedTiming,
        SyncTimes, TermStart,
    },
    stage_times::{StageTime, StageTimes},
    view::{ClusterView, Seen},
    watch::ClusterWatch,
};
pub use results::{Applied, Consistency, MembersChanged, Read, SnapshotTaken};
pub use service::{
    call::{Ask, Asking, Call, ServiceNode},
    context::{Cause, Context, Token, TokenMalformed},
    effects::{Perform, Retry, Ticket},
    errors::{CallError, QueryError, Refused},
    history::{Changes, Topics},
    hosted::Hosted,
    interface::{Message, Never, Service},
    leaderships::LeaderTask,
    outbox::{EffectId, OutboxFull},
    random::Random,
    serve::Serve,
    state::State,
    watch::{Watch, WatchError, Watching},
};
pub use session::Session;
pub use status::{Halted, Status};
pub use turns::Turns;
pub use views::View;
