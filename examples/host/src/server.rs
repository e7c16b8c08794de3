//! A node from its configuration file, and the socket for its clients.

use crate::{
    Answer, Failure, Front,
    client::{Line, too_long},
};
use quorate::{
    Index, Node, NodeId, ServiceNode, Topics,
    storage::Wal,
    transport::{Quic, QuicOptions},
};
use serde::Deserialize;
use std::{
    fs::{self, Permissions},
    io::{self, ErrorKind},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy, sink},
    net::{UnixListener, UnixStream, unix::OwnedWriteHalf},
    signal::unix::{SignalKind, signal},
    sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError},
    time::{sleep, timeout},
};

/// The most requests at a time; further connections wait to be accepted.
const REQUESTS_MAX: usize = 100;
/// The most watches at a time, beside the requests; further ones are refused. The sockets of both
/// leave a part of the usual limit of 1,024 open files to the log.
pub const WATCHES_MAX: usize = 500;
/// The time for a request to arrive, for its answer, and for a client to take a line.
const LIMIT: Duration = Duration::from_secs(10);

/// The configuration file. Paths are relative to the working directory.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config<T> {
    id: u64,
    cluster: String,
    data: PathBuf,
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
    members: Vec<Member>,
    #[serde(default)]
    service: T,
}

/// An initial voter. The node with this id listens at the address, UDP, and the others dial it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Member {
    id: u64,
    address: String,
}

pub(crate) async fn serve<F: Front>(front: F, file: &str) -> Result<(), Failure> {
    let text = fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let config: Config<F::Settings> = toml::from_str(&text).map_err(|error| format!("{file}: {error}"))?;
    let own = config.members.iter().find(|member| member.id == config.id);
    let own = own.ok_or_else(|| format!("{file}: no member has the id {}", config.id))?;
    let listen = own.address.parse().map_err(|error| format!("{file}: {}: {error}", own.address))?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // The mode of a socket is set only once it exists, so the directory keeps other users out.
    let is_private = fs::create_dir_all(&config.data);
    let is_private = is_private.and_then(|()| fs::set_permissions(&config.data, Permissions::from_mode(0o700)));
    is_private.map_err(|error| format!("{}: {error}", config.data.display()))?;
    let builder = Node::builder(NodeId(config.id), config.cluster)
        .voters(config.members.iter().map(|member| (NodeId(member.id), member.address.clone())))
        .network(Quic::new(QuicOptions::new(listen, config.ca, config.cert, config.key))?)
        .storage(Wal::at(config.data.join("log")));
    let node = front.serve(builder, config.service).start().await?;
    // A socket that is there was left by a killed node: the running one has the lock of the log.
    let socket = config.data.join("socket");
    let _ = fs::remove_file(&socket);
    let at_socket = |error| format!("{}: {error}", socket.display());
    let listener = UnixListener::bind(&socket).map_err(at_socket)?;
    fs::set_permissions(&socket, Permissions::from_mode(0o600)).map_err(at_socket)?;
    println!("node {} serves {}", config.id, socket.display());
    tokio::select! {
        () = answer_all(listener, &node, Arc::new(front)) => {}
        failure = node.failed() => return Err(failure.into()),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    // Before the end of the node, which lets another one start and put its own socket there.
    let removed = fs::remove_file(&socket);
    node.shutdown().await;
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(at_socket(error).into()),
        _ => Ok(()),
    }
}

async fn answer_all<F: Front>(listener: UnixListener, node: &ServiceNode<F::Service>, front: Arc<F>) {
    let places = Arc::new(Semaphore::new(REQUESTS_MAX));
    let watches = Arc::new(Semaphore::new(WATCHES_MAX));
    while let Ok(place) = places.clone().acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(Duration::from_millis(100)).await; // for a free file descriptor
            continue;
        };
        let (node, front) = (node.clone(), Arc::clone(&front));
        let mut room = Room { place, watches: Arc::clone(&watches) };
        tokio::spawn(async move {
            // A client without a reply knows that the outcome is unknown.
            let _ = answer(stream, &node, &*front, &mut room).await;
        });
    }
}

/// The place of a connection: that of a request, until it becomes a watch.
struct Room {
    place: OwnedSemaphorePermit,
    watches: Arc<Semaphore>,
}

impl Room {
    /// Exchanges the place for one of a watch, if there is one.
    fn become_watch(&mut self) -> Result<(), TryAcquireError> {
        self.place = Arc::clone(&self.watches).try_acquire_owned()?;
        Ok(())
    }
}

async fn answer<F: Front>(
    stream: UnixStream,
    node: &ServiceNode<F::Service>,
    front: &F,
    room: &mut Room,
) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let (mut read, mut line) = (BufReader::new(read), String::new());
    timeout(LIMIT, (&mut read).take(F::LINE_MAX).read_line(&mut line)).await??;
    let last = match line.strip_suffix('\n') {
        Some(line) => {
            let words: Vec<_> = line.split_whitespace().collect();
            let mut rest = sink();
            tokio::select! {
                last = last(&words, &mut write, node, front, room) => last?,
                _ = copy(&mut read, &mut rest) => return Ok(()), // the client has left
            }
        }
        None => Line::Error(too_long(F::LINE_MAX)),
    };
    send(&mut write, &last).await
}

/// Answers up to the last line, which is returned.
async fn last<F: Front>(
    words: &[&str],
    write: &mut OwnedWriteHalf,
    node: &ServiceNode<F::Service>,
    front: &F,
    room: &mut Room,
) -> io::Result<Line> {
    if *words == ["leader"] {
        let leader = node.status().borrow().leader;
        return Ok(leader.map_or(Line::No("unknown".into()), |leader| Line::Yes(format!("leader {leader}"))));
    }
    match timeout(LIMIT, front.answer(node, words)).await? {
        Ok(Answer::Yes(text)) => {
            let (lines, last) = text.rsplit_once('\n').unwrap_or(("", &text));
            for line in lines.lines() {
                send(write, &Line::Event(line.into())).await?;
            }
            Ok(Line::Yes(last.into()))
        }
        Ok(Answer::No(text)) => Ok(Line::No(text)),
        Ok(Answer::Watch(topics, after)) => match room.become_watch() {
            Ok(()) => watch(topics, after, write, node, front).await,
            Err(_) => Ok(Line::Error(format!("too many watches: {WATCHES_MAX} at most"))),
        },
        Err(error) => Ok(Line::Error(error.to_string())),
    }
}

async fn watch<F: Front>(
    topics: Topics,
    after: Option<Index>,
    write: &mut OwnedWriteHalf,
    node: &ServiceNode<F::Service>,
    front: &F,
) -> io::Result<Line> {
    let watching = node.watch(topics);
    let watch = match after {
        Some(index) => watching.after(index).await,
        None => watching.await,
    };
    let mut watch = match watch {
        Ok(watch) => watch,
        Err(error) => return Ok(Line::Error(error.to_string())),
    };
    send(write, &Line::Event(format!("{} watching", watch.position()))).await?;
    loop {
        let changes = match watch.next().await {
            Ok(changes) => changes,
            Err(error) => return Ok(Line::Error(error.to_string())),
        };
        for (topic, event) in &changes.events {
            send(write, &Line::Event(format!("{} {}", changes.index, front.show(topic, event)))).await?;
        }
    }
}

async fn send(write: &mut OwnedWriteHalf, line: &Line) -> io::Result<()> {
    timeout(LIMIT, write.write_all(line.encode().as_bytes())).await?
}
