//! The first frame in each direction of each lane, and what is checked about it.

use super::endpoint::{Close, Shared};
use crate::{
    codec::{Claimed, Decoder, Encoder, Frame, FrameError, Hello, Version},
    network::{Introduction, Lane},
};
use bytes::Bytes;
use quinn::{ConnectionError, RecvStream, SendStream};
use quorate_raft::NodeId;

/// One lane of a connection, opened and introduced. A lane that goes one way has `()` to send on.
pub(super) struct Opened<S = SendStream> {
    pub(super) lane: Lane,
    /// What is spoken on it.
    pub(super) version: Version,
    pub(super) send: S,
    pub(super) recv: RecvStream,
    pub(super) decoder: Decoder,
    /// What came in one piece with the hello and was not read yet.
    pub(super) rest: Bytes,
}

/// Why a connection did not come about.
#[derive(Debug)]
pub(super) struct Refusal {
    /// What it is counted as.
    pub(super) result: &'static str,
    /// How the peer is told.
    pub(super) close: Close,
    pub(super) why: String,
}

impl Refusal {
    pub(super) fn identity(why: impl Into<String>) -> Self {
        Self { result: "refused_identity", close: Close::Identity, why: why.into() }
    }

    pub(super) fn protocol(why: impl Into<String>) -> Self {
        Self { result: "refused_protocol", close: Close::Protocol, why: why.into() }
    }
}

/// The transport's errors, told apart: whom do they blame?
impl From<ConnectionError> for Refusal {
    fn from(error: ConnectionError) -> Self {
        // TLS alert 120, no_application_protocol: not a stranger, but one who speaks something else.
        const ALPN_ALERT: u64 = 0x178;
        // RFC 9001, 4.8: TLS alerts are the error codes 0x100 to 0x1ff.
        let of_tls = |code: u64| (0x100..0x200).contains(&code);
        let result = match &error {
            ConnectionError::TransportError(error) if u64::from(error.code) == ALPN_ALERT => "refused_protocol",
            ConnectionError::TransportError(error) if of_tls(error.code.into()) => "refused_certificate",
            ConnectionError::ConnectionClosed(close) if of_tls(close.error_code.into()) => "rejected",
            ConnectionError::ApplicationClosed(_) => "rejected",
            ConnectionError::VersionMismatch => "refused_protocol",
            ConnectionError::TimedOut | ConnectionError::Reset => "unreachable",
            _ => "handshake_failed",
        };
        Self { result, close: Close::Protocol, why: error.to_string() }
    }
}

impl From<FrameError> for Refusal {
    fn from(error: FrameError) -> Self {
        Self::protocol(error.to_string())
    }
}

/// Says hello on a lane.
pub(super) async fn say(send: &mut SendStream, shared: &Shared) -> Result<(), Refusal> {
    let frame = Encoder::new(shared.limits).hello(&shared.hello.borrow())?;
    send.write_chunk(frame.head).await.map_err(|error| match error {
        quinn::WriteError::ConnectionLost(error) => error.into(),
        other => Refusal::protocol(format!("no hello could be sent: {other}")),
    })
}

/// Hears the peer's hello on a lane, and holds it against who `proved` to be the peer. From then on the version that both speak is
/// spoken on the lane.
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
                decoder.expect(version);
                return Ok((hello, Opened { lane, version, send, recv, decoder, rest }));
            }
            Some(Frame::Message(_)) => return Err(FrameError::Unexpected("message before the hello").into()),
            None => {}
        }
    }
}

/// Holds what a hello claims against what is proved and spoken here, and says what to speak.
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

/// Refuses a peer that states another cluster's id: two clusters may have one name and one authority, after a restore, a recovery, or a
/// majority that lost its disks. The line fits into what a closed connection tells the peer.
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

/// All lanes of a connection speak the same.
pub(super) fn agree(one: Version, other: Version) -> Result<(), Refusal> {
    if one == other {
        return Ok(());
    }
    Err(Refusal::protocol(format!("its hellos lead to frame version {one} on one lane and {other} on another")))
}
