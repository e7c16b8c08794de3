//! Hellos: the first frame in each direction of each lane, and the checks of it.

use super::{close::Close, shared::Shared};
use crate::{
    certificates::{RefusedBy, explain_dates},
    codec::{Claimed, Decoder, Encoder, Frame, FrameError, Hello, Version},
    network::{ConnectionResult, Introduction, Lane},
};
use bytes::Bytes;
use quinn::{ConnectionError, RecvStream, SendStream};
use quorate_raft::NodeId;

/// One lane of a connection, opened and introduced. A lane that goes one way has `()` to send on.
pub(super) struct Opened<S = SendStream> {
    pub(super) lane: Lane,
    /// The version agreed on.
    pub(super) version: Version,
    pub(super) send: S,
    pub(super) recv: RecvStream,
    pub(super) decoder: Decoder,
    /// Bytes that came in one piece with the hello and are not decoded yet.
    pub(super) rest: Bytes,
}

/// The reason for which a connection is refused.
#[derive(Debug)]
pub(super) struct Refusal {
    /// The result under which it is counted.
    pub(super) result: ConnectionResult,
    /// The error code that the peer sees.
    pub(super) close: Close,
    pub(super) why: String,
}

impl Refusal {
    pub(super) fn identity(why: impl Into<String>) -> Self {
        Self { result: ConnectionResult::RefusedIdentity, close: Close::Identity, why: why.into() }
    }

    /// The end of an attempt to replace a connection that works after all. It is not counted.
    pub(super) fn not_needed() -> Self {
        let (result, why) = (ConnectionResult::Connected, "the older connection works".into());
        Self { result, close: Close::Goodbye, why }
    }

    pub(super) fn is_not_needed(&self) -> bool {
        matches!(self.close, Close::Goodbye)
    }

    pub(super) fn protocol(why: impl Into<String>) -> Self {
        Self { result: ConnectionResult::RefusedProtocol, close: Close::Protocol, why: why.into() }
    }
}

/// Classifies the errors of QUIC by their cause.
impl From<ConnectionError> for Refusal {
    fn from(error: ConnectionError) -> Self {
        // TLS alert 120, no_application_protocol: a known peer with another protocol.
        const ALPN_ALERT: u64 = 0x178;
        // RFC 9001, 4.8: TLS alerts are the error codes 0x100 to 0x1ff.
        let of_tls = |code: u64| (0x100..0x200).contains(&code);
        let by = match &error {
            ConnectionError::ConnectionClosed(_) => RefusedBy::Peer,
            _ => RefusedBy::ThisMachine,
        };
        let result = match &error {
            ConnectionError::TransportError(error) if u64::from(error.code) == ALPN_ALERT => {
                ConnectionResult::RefusedProtocol
            }
            ConnectionError::TransportError(error) if of_tls(error.code.into()) => ConnectionResult::RefusedCertificate,
            ConnectionError::ConnectionClosed(close) if of_tls(close.error_code.into()) => ConnectionResult::Rejected,
            ConnectionError::ApplicationClosed(_) => ConnectionResult::Rejected,
            ConnectionError::VersionMismatch => ConnectionResult::RefusedProtocol,
            ConnectionError::TimedOut | ConnectionError::Reset => ConnectionResult::Unreachable,
            _ => ConnectionResult::HandshakeFailed,
        };
        Self { result, close: Close::Protocol, why: explain_dates(&error.to_string(), by) }
    }
}

impl From<FrameError> for Refusal {
    fn from(error: FrameError) -> Self {
        Self::protocol(error.to_string())
    }
}

/// Sends this node's hello on a lane.
pub(super) async fn say(send: &mut SendStream, shared: &Shared) -> Result<(), Refusal> {
    let frame = Encoder::new(shared.limits).hello(&shared.hello.borrow())?;
    send.write_chunk(frame.head).await.map_err(|error| match error {
        quinn::WriteError::ConnectionLost(error) => error.into(),
        other => Refusal::protocol(format!("no hello could be sent: {other}")),
    })
}

/// Receives the peer's hello on a lane and compares it with `proved`, the peer that the certificate
/// names. The lane speaks the version agreed on from then on.
pub(super) async fn hear<S>(
    lane: Lane,
    send: S,
    mut recv: RecvStream,
    shared: &Shared,
    proved: NodeId,
) -> Result<(Hello, Opened<S>), Refusal> {
    let mut decoder = Decoder::new(shared.limits);
    loop {
        let read = recv.read_chunk(usize::MAX, true).await.map_err(|error| match error {
            quinn::ReadError::ConnectionLost(error) => error.into(),
            other => Refusal::protocol(format!("no hello came: {other}")),
        })?;
        let Some(chunk) = read else {
            return Err(Refusal::protocol("the stream ended before a hello"));
        };
        let mut rest = chunk.bytes;
        match decoder.feed(&mut rest)?.map(|decoded| decoded.frame) {
            Some(Frame::Hello(hello)) => {
                let version = judge(&hello, shared, proved)?;
                debug_assert!(!decoder.is_within_frame(), "a version is agreed on within a frame");
                decoder.expect(version);
                return Ok((hello, Opened { lane, version, send, recv, decoder, rest }));
            }
            Some(Frame::Message(_)) => return Err(FrameError::Unexpected("message before the hello").into()),
            None => {}
        }
    }
}

/// Compares a hello with the proved identity and with the versions spoken here; gives the
/// version to speak.
pub(super) fn judge(hello: &Hello, shared: &Shared, proved: NodeId) -> Result<Version, Refusal> {
    let (cluster, speaks) = (&shared.cluster, shared.speaks);
    if hello.cluster != *cluster || hello.node != proved {
        return Err(Refusal::identity(format!(
            "the certificate is of node {proved} in cluster {cluster:?}, but the hello claims node {} in {:?}",
            hello.node, hello.cluster
        )));
    }
    same_cluster(&shared.hello.borrow().introduction, &hello.introduction, cluster, proved)?;
    let (min, max) = (hello.protocol_min, hello.protocol_max);
    speaks.shared_with(min, max).ok_or_else(|| {
        let claimed = Claimed(min, max);
        Refusal::protocol(format!(
            "node {proved} speaks frame {claimed}, this node {speaks}: run releases on both that share one"
        ))
    })
}

/// Refuses a peer that states another cluster's id. Two clusters may have one name and one
/// authority: after a restore, a recovery, or the loss of a majority's disks. The line fits into a
/// connection's close frame.
pub(super) fn same_cluster(
    ours: &Introduction,
    theirs: &Introduction,
    cluster: &str,
    peer: NodeId,
) -> Result<(), Refusal> {
    let (true, Some(ours_id), Some(theirs_id)) =
        (ours.is_of_another_cluster(theirs), ours.cluster_id, theirs.cluster_id)
    else {
        return Ok(());
    };
    Err(Refusal::identity(format!(
        "node {peer} is of cluster id {theirs_id}, this node of {ours_id}: two clusters are named {cluster:?}; keep one, and mind that \
         either may be the last good copy"
    )))
}

/// Refuses a connection with different versions on two lanes.
pub(super) fn agree(one: Version, other: Version) -> Result<(), Refusal> {
    if one == other {
        return Ok(());
    }
    Err(Refusal::protocol(format!("its hellos lead to frame version {one} on one lane and {other} on another")))
}
