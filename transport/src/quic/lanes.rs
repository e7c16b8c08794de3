//! A connection once both sides have introduced themselves: its lanes, and the tasks that write
//! and read them.
//!
//! One writer task a lane: it sleeps until something is queued, then takes all that is there into
//! one write. One reader task a lane: it reads frames and delivers them, waiting for the inbox's
//! credit; while it waits, QUIC's flow control holds the peer back. One keeper task a connection:
//! once a second it reports the round trip and looks for frames that do not end, and for the end of
//! the peer's certificate; more often, whether anything arrives.
//!
//! A connection may be succeeded by another of the same two processes because a certificate changed.
//! Then what is queued on the older is written, each lane ends with the end of its stream, and the
//! newer connection's lane is read after that. If that takes too long, or the older connection ends
//! first, messages may be lost: its dialler learns it. Chunks of snapshots that wait for the
//! inbox's credit as the older connection ends are lost without notice.
//!
//! **Invariant:** no lane waits for another. Each has its outbox, its stream's window, and credit
//! of its own in the inbox; what all lanes share, the connection's windows, has room for every
//! stream's window at once (`settings`).

use super::{
    backoff::{Silence, Traffic},
    close::Close,
    hello::{Opened, Refusal, agree, hear, judge, say},
    outbox::{Full, Outbox},
    reload::{Expiry, chain_of},
    settings::{Pace, SNAPSHOT_PRIORITY},
    shared::{Shared, one_line},
    turns::Measured,
};
use crate::{
    codec::{Decoder, Encoded, Frame, FrameError, Hello, Version},
    network::{Direction, DropReason, Introduction, Lane},
};
use bytes::Bytes;
use quinn::{Connection, ReadError, RecvStream, SendStream};
use quorate_raft::NodeId;
use rustls::pki_types::UnixTime;
use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    time::Duration,
};
use tokio::{sync::Notify, task::spawn_local, time::Instant};

/// The most bytes that wait on the control lane, and on the append lane.
const OUTBOX_BYTES: usize = 32 << 20;
/// The most bytes that wait on the snapshot lane. Its sender has a credit of a few MiB, so more
/// would not help.
const SNAPSHOT_OUTBOX_BYTES: usize = 8 << 20;
/// The factor by which a frame may take longer on the snapshot lane, which has the lowest priority.
const SNAPSHOT_PATIENCE: u32 = 6;

/// A connection that carries frames both ways. It ends when the connection ends, and never before.
pub(super) struct Carrier {
    pub(super) peer: NodeId,
    pub(super) side: Side,
    pub(super) connection: Connection,
    /// [`InUse::own_since`](super::reload::InUse::own_since) when its handshake began.
    pub(super) own_since: u64,
    /// The facts that the peer last stated on it.
    pub(super) introduction: Rc<RefCell<Introduction>>,
    /// The version that both sides speak on every lane.
    pub(super) version: Version,
    control: Rc<Outbox>,
    append: Rc<Outbox>,
    snapshot: Rc<Outbox>,
    succession: Rc<Succession>,
    /// The connection that this one succeeds, until it ends.
    before: RefCell<Weak<Carrier>>,
    silence: Cell<Silence>,
}

/// A connection whose both lanes are opened and introduced.
pub(super) struct Introduced {
    pub(super) peer: NodeId,
    pub(super) connection: Connection,
    pub(super) lanes: [Opened; 2],
    pub(super) introduction: Introduction,
    pub(super) own_since: u64,
}

/// The end of a connection after another has taken its place, lane by lane.
#[derive(Default)]
struct Succession {
    /// Its lanes may end.
    is_retired: Cell<bool>,
    read: [Gate; LANES],
    written: [Gate; LANES],
}

const LANES: usize = 3;

/// The end of one direction of a lane, which happens once.
#[derive(Default)]
struct Gate {
    /// Set at the end: whether nothing of the lane was lost.
    is_whole: Cell<Option<bool>>,
    opened: Notify,
}

impl Gate {
    fn open(&self, is_whole: bool) {
        self.is_whole.set(Some(is_whole));
        self.opened.notify_waiters();
    }

    /// Waits for the end. Gives whether nothing was lost.
    async fn opened(&self) -> bool {
        loop {
            // Nothing runs between the look and the wait: all of it is on one thread.
            if let Some(is_whole) = self.is_whole.get() {
                return is_whole;
            }
            self.opened.notified().await;
        }
    }
}

/// Which end of a connection this node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    Dialler,
    Acceptor,
}

impl Carrier {
    /// Starts the lanes' tasks. All of them end with the connection. `before` is the connection that
    /// this one succeeds: its lanes are read to their ends first.
    pub(super) fn start(
        shared: &Rc<Shared>,
        side: Side,
        introduced: Introduced,
        before: Option<&Rc<Self>>,
    ) -> Rc<Self> {
        let Introduced { peer, connection, lanes, introduction, own_since } = introduced;
        let succession = Rc::<Succession>::default();
        let preceding = before.map(|before| Rc::clone(&before.succession));
        let introduction = Rc::new(RefCell::new(introduction));
        let [control, append, snapshot] =
            [OUTBOX_BYTES, OUTBOX_BYTES, SNAPSHOT_OUTBOX_BYTES].map(|bytes| Rc::new(Outbox::of_bytes(bytes)));
        let [control_lane, append_lane] = lanes.each_ref().map(|opened| (opened.lane, opened.version));
        let version = control_lane.1;
        // Frames are queued by lane, in one version; another would misread them.
        assert_eq!(control_lane.0, Lane::Control, "the first stream of a connection is its control lane");
        assert_eq!(append_lane, (Lane::Append, version), "the second is its append lane, of the same version");
        debug_assert_ne!(peer, shared.node, "a node has no connection to itself");
        let mut readers = Vec::new();
        for opened in lanes {
            let outbox = Rc::clone(if opened.lane == Lane::Control { &control } else { &append });
            let progress = Progress::within(shared.frame_timeout);
            readers.push(Rc::clone(&progress));
            let mut reader = Reader::new(shared, peer, opened.lane, opened.recv, opened.decoder, progress);
            reader.introduced = (opened.lane == Lane::Control).then(|| Rc::clone(&introduction));
            reader.answers = Some(Rc::clone(&outbox));
            let reading = reader.run(connection.clone(), opened.rest, Rc::clone(&succession), preceding.clone());
            spawn_local(Measured::new(shared, reading));
            let written = Rc::clone(&succession);
            let writing = write(Rc::clone(shared), peer, opened.lane, opened.send, outbox, written);
            spawn_local(Measured::new(shared, writing));
        }
        match side {
            Side::Dialler => {
                let (outbox, written) = (Rc::clone(&snapshot), Rc::clone(&succession));
                let writing = write_snapshots(Rc::clone(shared), peer, connection.clone(), outbox, written);
                spawn_local(Measured::new(shared, writing));
            }
            Side::Acceptor => {
                snapshot.close();
                let progress = Progress::within(shared.frame_timeout * SNAPSHOT_PATIENCE);
                readers.push(Rc::clone(&progress));
                let snapshots = Snapshots { version, progress, succession: Rc::clone(&succession), preceding };
                let reading = read_snapshots(Rc::clone(shared), peer, connection.clone(), snapshots);
                spawn_local(Measured::new(shared, reading));
            }
        }
        let before = RefCell::new(before.map(Rc::downgrade).unwrap_or_default());
        let carrier = Rc::new(Self {
            peer,
            side,
            connection,
            own_since,
            introduction,
            version,
            control,
            append,
            snapshot,
            succession,
            before,
            silence: Cell::default(),
        });
        let mut carriers = shared.carriers.borrow_mut();
        carriers.retain(|carrier| carrier.strong_count() > 0);
        carriers.push(Rc::downgrade(&carrier));
        drop(carriers);
        spawn_local(keep(Rc::clone(shared), peer, Rc::clone(&carrier), readers));
        carrier
    }

    /// Queues a frame, unless too much waits already.
    pub(super) fn send(&self, lane: Lane, frame: Encoded) -> Result<(), Full> {
        self.outbox(lane).push(frame)
    }

    /// Queues a frame with entries, of which the time until they are written is measured.
    pub(super) fn send_entries(&self, frame: Encoded) -> Result<(), Full> {
        self.outbox(Lane::Append).push_entries(frame)
    }

    /// Queues a frame that gives way to all others: only if hardly anything waits on its lane.
    pub(super) fn send_spare(&self, lane: Lane, frame: Encoded) -> Result<(), Full> {
        self.outbox(lane).push_spare(frame)
    }

    fn outbox(&self, lane: Lane) -> &Outbox {
        match lane {
            Lane::Control => &self.control,
            Lane::Append => &self.append,
            Lane::Snapshot => &self.snapshot,
        }
    }

    /// Whether another connection of the same two processes, begun with `own_since`, takes this one's
    /// place only because one of the two certificates changed.
    pub(super) fn may_be_succeeded(&self, connection: &Connection, incarnation: u64, own_since: u64) -> bool {
        let is_alive = self.connection.close_reason().is_none();
        let is_same_process = self.introduction.borrow().incarnation == incarnation;
        let is_changed = self.own_since != own_since || chain_of(&self.connection) != chain_of(connection);
        is_alive && is_same_process && is_changed
    }

    /// Whether nothing was answered lately: the path may be broken, and no lane should wait for this
    /// one's.
    pub(super) fn is_silent(&self, pace: Pace) -> bool {
        self.silence.get().looks >= pace.looks(self.connection.rtt())
    }

    /// The connection's traffic up to now.
    pub(super) fn traffic(&self) -> Traffic {
        let stats = self.connection.stats();
        // A probe for a lost packet has one of these frames, too; an acknowledgement alone has none.
        let asked = stats.frame_tx.stream + stats.frame_tx.ping;
        Traffic { received: stats.udp_rx.datagrams, asked }
    }

    /// Looks whether anything is unanswered: at intervals of [`Pace::look`].
    fn look(&self) {
        let mut silence = self.silence.get();
        silence.look(self.traffic(), false);
        self.silence.set(silence);
    }

    /// Another connection takes this one's place. What is queued here and on its way still arrives,
    /// if that takes no longer than `within`; then this connection is closed, or earlier if the one
    /// in its place ends. So of two processes, at most one connection ends in this way at a time.
    ///
    /// The dialler ends its lanes; the acceptor answers the end of each with that of its own, so the
    /// dialler, which closes, has then received all. The future gives the dialler whether nothing
    /// was lost on the control and append lanes; the acceptor can't tell, and gets `false`.
    pub(super) fn retire(self: &Rc<Self>, within: Duration) -> impl Future<Output = bool> + use<> {
        self.succession.is_retired.set(true);
        self.close_preceding();
        let carrier = Rc::clone(self);
        if self.side == Side::Dialler {
            for outbox in [&self.control, &self.append, &self.snapshot] {
                outbox.finish();
            }
        }
        async move {
            let Succession { read, written, .. } = &*carrier.succession;
            let ended = async {
                for gate in written.iter().chain([&read[Lane::Control as usize], &read[Lane::Append as usize]]) {
                    if !gate.opened().await {
                        return false;
                    }
                }
                carrier.connection.close_reason().is_none()
            };
            let is_whole = match carrier.side {
                Side::Dialler => tokio::time::timeout(within, ended).await.unwrap_or(false),
                Side::Acceptor => {
                    let _ = tokio::time::timeout(within * 2, carrier.connection.closed()).await;
                    false
                }
            };
            carrier.close(Close::Replaced);
            is_whole
        }
    }

    /// Closes the connection that this one succeeds, if it has not ended yet.
    fn close_preceding(&self) {
        if let Some(before) = self.before.take().upgrade() {
            before.close(Close::Replaced);
        }
    }

    /// Closes the connection; its tasks end.
    pub(super) fn close(&self, why: Close) {
        self.connection.close(why.code(), b"");
    }
}

/// Writes a lane's outbox to its end.
async fn write(
    shared: Rc<Shared>,
    peer: NodeId,
    lane: Lane,
    mut stream: SendStream,
    outbox: Rc<Outbox>,
    succession: Rc<Succession>,
) {
    let is_whole = write_all(&shared, peer, lane, &mut stream, &outbox).await;
    succession.written[lane as usize].open(is_whole);
}

/// Writes until the outbox is closed, or is finished and everything has arrived: then `true`.
async fn write_all(shared: &Shared, peer: NodeId, lane: Lane, stream: &mut SendStream, outbox: &Outbox) -> bool {
    let mut batch = Vec::new();
    while let Some(taken) = outbox.take(&mut batch).await {
        if stream.write_all_chunks(&mut batch).await.is_err() {
            // The connection is lost, or the peer stopped reading the lane; either way the reader
            // or keeper ends it.
            return false;
        }
        batch.clear();
        outbox.written(taken);
        shared.observer.bytes(peer, Direction::Sent, lane, taken.bytes as u64);
        if let Some(since) = taken.entries_since {
            shared.observer.wrote_entries(peer, since.elapsed());
        }
    }
    // Of no effect on a connection that is closed.
    stream.finish().is_ok() && matches!(stream.stopped().await, Ok(None))
}

/// The dialler's snapshot lane.
async fn write_snapshots(
    shared: Rc<Shared>,
    peer: NodeId,
    connection: Connection,
    outbox: Rc<Outbox>,
    succession: Rc<Succession>,
) {
    let is_whole = write_all_snapshots(&shared, peer, &connection, &outbox).await;
    succession.written[Lane::Snapshot as usize].open(is_whole);
}

/// Opens the lane when there is something to send on it, which is rare. Gives whether all arrived.
async fn write_all_snapshots(shared: &Shared, peer: NodeId, connection: &Connection, outbox: &Outbox) -> bool {
    if !outbox.filled().await {
        return true; // nothing was ever queued
    }
    // A peer without such a lane never accepts it: the outbox stays full, and further
    // messages are dropped.
    let Ok(mut stream) = connection.open_uni().await else { return false };
    let _ = stream.set_priority(SNAPSHOT_PRIORITY);
    say(&mut stream, shared).await.is_ok() && write_all(shared, peer, Lane::Snapshot, &mut stream, outbox).await
}

/// The acceptor's end of the snapshot lane, before the dialler opens it.
struct Snapshots {
    version: Version,
    progress: Rc<Progress>,
    succession: Rc<Succession>,
    preceding: Option<Rc<Succession>>,
}

async fn read_snapshots(shared: Rc<Shared>, peer: NodeId, connection: Connection, snapshots: Snapshots) {
    let succession = Rc::clone(&snapshots.succession);
    read_all_snapshots(shared, peer, connection, snapshots).await;
    // No dialler waits for this one.
    succession.read[Lane::Snapshot as usize].open(false);
}

async fn read_all_snapshots(shared: Rc<Shared>, peer: NodeId, connection: Connection, snapshots: Snapshots) {
    let Snapshots { version, progress, succession, preceding } = snapshots;
    let Ok(stream) = connection.accept_uni().await else { return };
    progress.begun();
    let heard = async {
        let (_, opened) = hear(Lane::Snapshot, (), stream, &shared, peer).await?;
        agree(version, opened.version).map(|()| opened)
    };
    match heard.await {
        Ok(Opened { lane, recv, decoder, rest, .. }) => {
            progress.ended();
            let reader = Reader::new(&shared, peer, lane, recv, decoder, progress);
            reader.run(connection, rest, succession, preceding).await;
        }
        // Nothing is wrong with a connection that has ended.
        Err(Refusal { why, .. }) if connection.close_reason().is_none() => {
            shared.offended(peer, &why);
            connection.close(Close::Malformed.code(), why.as_bytes());
        }
        Err(_) => {}
    }
}

/// The time since which a frame is begun and not complete; the keeper checks it.
struct Progress {
    since: Cell<Option<Instant>>,
    within: Duration,
}

impl Progress {
    fn within(within: Duration) -> Rc<Self> {
        Rc::new(Self { since: Cell::new(None), within })
    }

    fn begun(&self) {
        if self.since.get().is_none() {
            self.since.set(Some(Instant::now()));
        }
    }

    fn ended(&self) {
        self.since.set(None);
    }

    fn is_late(&self) -> bool {
        self.since.get().is_some_and(|since| since.elapsed() > self.within)
    }
}

struct Reader {
    shared: Rc<Shared>,
    peer: NodeId,
    lane: Lane,
    recv: RecvStream,
    decoder: Decoder,
    progress: Rc<Progress>,
    /// The facts that further hellos replace. `None` on a lane that has no further hellos.
    introduced: Option<Rc<RefCell<Introduction>>>,
    /// The lane's other direction, which ends after this one. `None` on a lane that goes one way.
    answers: Option<Rc<Outbox>>,
    hellos: u32,
}

impl Reader {
    /// Hellos after the first that a peer may send on a connection: the facts of a
    /// node rarely change.
    const HELLOS_MAX: u32 = 64;
    /// Pieces of a stream taken at a time; each is at most a datagram long.
    const PIECES: usize = 32;

    fn new(
        shared: &Rc<Shared>,
        peer: NodeId,
        lane: Lane,
        recv: RecvStream,
        decoder: Decoder,
        progress: Rc<Progress>,
    ) -> Self {
        let shared = Rc::clone(shared);
        Self { shared, peer, lane, recv, decoder, progress, introduced: None, answers: None, hellos: 0 }
    }

    /// Reads the lane to its end, after that of the connection that this one succeeds.
    async fn run(
        mut self,
        connection: Connection,
        rest: Bytes,
        succession: Rc<Succession>,
        preceding: Option<Rc<Succession>>,
    ) {
        if let Some(preceding) = preceding {
            preceding.read[self.lane as usize].opened().await;
        }
        let is_whole = self.read_to_end(connection, rest, &succession).await;
        succession.read[self.lane as usize].open(is_whole);
    }

    /// Gives whether the lane ended because another connection took this one's place.
    async fn read_to_end(&mut self, connection: Connection, rest: Bytes, succession: &Succession) -> bool {
        match self.read(rest, &connection).await {
            // The peer knows that another connection has taken this one's place.
            Ok(End::OfStream) if succession.is_retired.get() => {
                if let Some(answers) = &self.answers {
                    answers.finish();
                }
                return true;
            }
            Ok(End::OfStream) => {
                let why = FrameError::Unexpected("end of a lane").to_string();
                self.shared.offended(self.peer, &why);
                connection.close(Close::Malformed.code(), why.as_bytes());
            }
            Ok(End::OfConnection) | Err(Bad::Lost) => {}
            Err(Bad::Frame(error)) => {
                let why = error.to_string();
                self.shared.offended(self.peer, &why);
                connection.close(Close::Malformed.code(), why.as_bytes());
            }
            Err(Bad::Hello(refusal)) => {
                self.shared.refused(Some(self.peer), refusal.result, connection.remote_address(), &refusal.why);
                connection.close(refusal.close.code(), refusal.why.as_bytes());
            }
        }
        false
    }

    /// Reads until the connection ends, or until the peer sends something that it must not: the
    /// latter is an error.
    async fn read(&mut self, rest: Bytes, connection: &Connection) -> Result<End, Bad> {
        self.deliver(rest, connection).await?;
        let mut pieces: [Bytes; Self::PIECES] = std::array::from_fn(|_| Bytes::new());
        loop {
            match self.recv.read_chunks(&mut pieces).await {
                Ok(Some(count)) => {
                    for piece in &mut pieces[..count] {
                        self.deliver(std::mem::take(piece), connection).await?;
                    }
                }
                Ok(None) => {
                    self.decoder.finish()?;
                    return Ok(End::OfStream);
                }
                Err(ReadError::Reset(_)) => return Err(FrameError::Unexpected("end of a lane").into()),
                Err(_) => return Ok(End::OfConnection),
            }
        }
    }

    /// The peer's facts changed. It says so on the control lane, and not often.
    fn introduce_again(&mut self, hello: &Hello) -> Result<(), Bad> {
        self.hellos += 1;
        let Some(introduced) = self.introduced.as_ref().filter(|_| self.hellos <= Self::HELLOS_MAX) else {
            return Err(FrameError::Unexpected("further hello").into());
        };
        judge(hello, &self.shared, self.peer).map_err(Bad::Hello)?;
        if introduced.replace(hello.introduction.clone()) != hello.introduction {
            self.shared.inbox.introduced(self.peer, hello.introduction.clone());
        }
        Ok(())
    }

    async fn deliver(&mut self, mut piece: Bytes, connection: &Connection) -> Result<(), Bad> {
        while let Some(decoded) = self.decoder.feed(&mut piece)? {
            self.progress.ended();
            let message = match decoded.frame {
                Frame::Message(message) => message,
                Frame::Hello(hello) => {
                    self.introduce_again(&hello)?;
                    continue;
                }
            };
            if Lane::of(&message) != self.lane {
                return Err(FrameError::Unexpected("message of another lane").into());
            }
            self.shared.observer.bytes(self.peer, Direction::Received, self.lane, decoded.bytes as u64);
            // A message waits for credit so long as its connection lasts: else a peer that connects
            // again and again would pile up messages beyond the credit.
            tokio::select! {
                biased;
                () = self.shared.inbox.deliver(self.peer, message, decoded.bytes) => {}
                _ = connection.closed() => {
                    self.shared.observer.dropped(Some(self.peer), DropReason::ConnectionLost);
                    return Err(Bad::Lost);
                }
            }
        }
        if self.decoder.is_within_frame() {
            self.progress.begun();
        }
        Ok(())
    }
}

/// The end of a lane that is in order.
enum End {
    OfStream,
    OfConnection,
}

/// The reason for which a lane is read no further.
enum Bad {
    Frame(FrameError),
    Hello(Refusal),
    /// The connection ended while a message waited for the inbox's credit.
    Lost,
}

impl From<FrameError> for Bad {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}

/// Looks after a connection until it ends, then empties its queues.
async fn keep(shared: Rc<Shared>, peer: NodeId, carrier: Rc<Carrier>, readers: Vec<Rc<Progress>>) {
    let every = Duration::from_secs(1).min(shared.frame_timeout / 2).max(Duration::from_millis(1));
    let mut expiry = Expiry::of(&carrier.connection);
    let mut due = Instant::now() + every;
    let look = tokio::time::sleep_until(shared.next_look());
    tokio::pin!(look);
    loop {
        tokio::select! {
            biased;
            ended = carrier.connection.closed() => {
                tracing::debug!(peer = peer.0, "connection ended: {}", one_line(&ended.to_string()));
                break;
            }
            () = &mut look => {
                look.as_mut().reset(shared.next_look());
                carrier.look();
                if Instant::now() < due {
                    continue;
                }
                due = Instant::now() + every;
                shared.observer.round_trip(peer, carrier.connection.rtt());
                if expiry.is_due(UnixTime::now().as_secs()) {
                    let judged = shared.credentials().judge(&carrier.connection, carrier.side, peer, &shared.cluster);
                    shared.close_if_refused(&carrier.connection, peer, judged);
                }
                if readers.iter().any(|progress| progress.is_late()) {
                    shared.offended(peer, "a frame was begun and not ended in time");
                    carrier.close(Close::Stalled);
                }
            }
        }
    }
    // Else connections that are succeeded pile up while their successors come and go.
    carrier.close_preceding();
    for outbox in [&carrier.control, &carrier.append, &carrier.snapshot] {
        for _ in 0..outbox.close() {
            shared.observer.dropped(Some(peer), DropReason::ConnectionLost);
        }
    }
}
