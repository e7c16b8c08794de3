//! One node of the lock service, and the command line of its clients.
//!
//! Clients reach a node through a Unix socket in its data directory, which is closed to other users
//! of the machine: one request, a line of words, and one line of reply for each connection.

use quorate::{
    Node, NodeId, ServiceNode,
    storage::Wal,
    transport::{Quic, QuicOptions},
};
use quorate_locks::{Command, Grant, Locks, Reply, Wish};
use serde::Deserialize;
use std::{
    error::Error,
    fs::{self, Permissions},
    io::ErrorKind,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    signal::unix::{SignalKind, signal},
    sync::Semaphore,
    time::{sleep, timeout},
};

const USAGE: &str = "locks --config FILE, or locks DATA_DIRECTORY REQUEST, where REQUEST is one of: \
                     acquire NAME OWNER MILLISECONDS [wait]; renew NAME TOKEN MILLISECONDS; \
                     release NAME TOKEN; holder NAME; leader";
/// The most bytes of a request, with its line feed.
const LINE_MAX: u64 = 1024;
/// The most requests at a time; further connections wait to be accepted.
const REQUESTS_MAX: usize = 100;
/// The time for a command to be accepted by a leader, or a query to be answered.
const WITHIN: Duration = Duration::from_secs(5);
/// The time from connection to reply. A client that sends nothing is disconnected then.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// The configuration file. Paths are relative to the working directory.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    id: u64,
    cluster: String,
    data: PathBuf,
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
    members: Vec<Member>,
}

/// An initial voter. The node with this id listens at the address, UDP, and the others dial it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Member {
    id: u64,
    address: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let done = match &words[..] {
        [flag, file] if flag == "--config" => serve(file).await.map(|()| ExitCode::SUCCESS),
        [data, request @ ..] if !request.is_empty() && !data.starts_with('-') => ask(data, request).await,
        _ => Err(USAGE.into()),
    };
    done.unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::from(2)
    })
}

async fn serve(file: &str) -> Result<(), Box<dyn Error>> {
    let text = fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let config: Config = toml::from_str(&text).map_err(|error| format!("{file}: {error}"))?;
    let own = config.members.iter().find(|member| member.id == config.id);
    let own = own.ok_or_else(|| format!("{file}: no member has the id {}", config.id))?;
    let listen = own.address.parse().map_err(|error| format!("{file}: {}: {error}", own.address))?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // The mode of a socket is set only once it exists, so the directory keeps other users out.
    let is_private = fs::create_dir_all(&config.data);
    let is_private = is_private.and_then(|()| fs::set_permissions(&config.data, Permissions::from_mode(0o700)));
    is_private.map_err(|error| format!("{}: {error}", config.data.display()))?;
    let node = Node::builder(NodeId(config.id), config.cluster)
        .voters(config.members.iter().map(|member| (NodeId(member.id), member.address.clone())))
        .network(Quic::new(QuicOptions::new(listen, config.ca, config.cert, config.key))?)
        .storage(Wal::at(config.data.join("log")))
        .serve(Locks::default)
        .start()
        .await?;
    // A socket that is there was left by a killed node: the running one has the lock of the log.
    let socket = config.data.join("socket");
    let _ = fs::remove_file(&socket);
    let at_socket = |error| format!("{}: {error}", socket.display());
    let listener = UnixListener::bind(&socket).map_err(at_socket)?;
    fs::set_permissions(&socket, Permissions::from_mode(0o600)).map_err(at_socket)?;
    println!("node {} serves {}", config.id, socket.display());
    tokio::select! {
        () = answer_all(listener, &node) => {}
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

async fn answer_all(listener: UnixListener, node: &ServiceNode<Locks>) {
    let places = Arc::new(Semaphore::new(REQUESTS_MAX));
    while let Ok(place) = places.clone().acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(Duration::from_millis(100)).await; // for a free file descriptor
            continue;
        };
        let node = node.clone();
        tokio::spawn(async move {
            // A client without a reply knows that the outcome is unknown.
            let _ = timeout(REQUEST_LIMIT, answer(stream, &node)).await;
            drop(place);
        });
    }
}

async fn answer(mut stream: UnixStream, node: &ServiceNode<Locks>) -> std::io::Result<()> {
    let (read, mut write) = stream.split();
    let mut line = String::new();
    BufReader::new(read.take(LINE_MAX)).read_line(&mut line).await?;
    let reply = match line.strip_suffix('\n') {
        Some(line) => reply(line, node).await.unwrap_or_else(|error| format!("error: {error}")),
        None => format!("error: {}", too_long()),
    };
    write.write_all(format!("{reply}\n").as_bytes()).await
}

fn too_long() -> String {
    format!("a request is one line of at most {LINE_MAX} bytes")
}

async fn reply(line: &str, node: &ServiceNode<Locks>) -> Result<String, Box<dyn Error + Send + Sync>> {
    let words: Vec<_> = line.split_whitespace().collect();
    let acquire = |name: &str, owner: &str, ttl_ms: &str, wait| {
        let wish = Wish { owner: owner.into(), ttl_ms: ttl_ms.parse()? };
        Ok::<_, std::num::ParseIntError>(Command::Acquire { name: name.into(), wish, wait })
    };
    let held = |by: &str, grant: &Grant| format!("{by} {} {}", grant.owner, grant.token);
    let command = match words[..] {
        ["acquire", name, owner, ttl_ms] => acquire(name, owner, ttl_ms, false)?,
        ["acquire", name, owner, ttl_ms, "wait"] => acquire(name, owner, ttl_ms, true)?,
        ["renew", name, token, ttl_ms] => {
            Command::Renew { name: name.into(), token: token.parse()?, ttl_ms: ttl_ms.parse()? }
        }
        ["release", name, token] => Command::Release { name: name.into(), token: token.parse()? },
        ["holder", name] => {
            let holder = node.query(name.into()).within(WITHIN).await?.value;
            return Ok(holder.map_or("free".into(), |grant| held("held", &grant)));
        }
        ["leader"] => {
            let leader = node.status().borrow().leader;
            return Ok(leader.map_or("unknown".into(), |leader| format!("leader {leader}")));
        }
        _ => return Err(USAGE.into()),
    };
    Ok(match node.call(command).within(WITHIN).await?.reply {
        Reply::Granted(grant) => held("granted", &grant),
        Reply::Queued { ahead } => format!("queued {ahead}"),
        Reply::Busy(grant) => held("busy", &grant),
        Reply::Released => "released".into(),
        Reply::NotHeld => "not held".into(),
        Reply::Full => "full".into(),
    })
}

/// Prints the reply. Exit codes: 0 if the request is fulfilled, 1 if not, 2 on an error.
async fn ask(data: &str, request: &[String]) -> Result<ExitCode, Box<dyn Error>> {
    if request.iter().any(|word| word.is_empty() || word.contains(char::is_whitespace)) {
        return Err("a name is one word".into());
    }
    let line = format!("{}\n", request.join(" "));
    // A node that closes with a part of the line unread would make its answer unreadable.
    if line.len() as u64 > LINE_MAX {
        return Err(too_long().into());
    }
    let socket = Path::new(data).join("socket");
    let stream = UnixStream::connect(&socket).await;
    let mut stream = stream.map_err(|error| format!("no node serves {}: {error}", socket.display()))?;
    stream.write_all(line.as_bytes()).await?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await?;
    match reply.strip_suffix('\n').map(|reply| (reply, reply.split(' ').next().unwrap_or_default())) {
        None => Err("no reply: the outcome is unknown; ask again".into()),
        Some((error, "error:")) => Err(error.into()),
        Some((reply, verdict)) => {
            println!("{reply}");
            let is_fulfilled = matches!(verdict, "granted" | "released" | "held" | "leader");
            Ok(if is_fulfilled { ExitCode::SUCCESS } else { ExitCode::from(1) })
        }
    }
}
