//! One node of the reminder service, and the command line of its clients.

use quorate::{
    Index, Node, NodeId, ServiceNode, WatchError,
    metrics::{CONTENT_TYPE, Metrics},
    storage::Wal,
    transport::{Quic, QuicOptions, certificates::Authority},
};
use reminders::{Command, Reminders};
use serde::Deserialize;
use std::{error::Error, fs, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy, stdout},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};

const USAGE: &str = "reminders certs DIR ID..., reminders node FILE, or reminders ask ADDRESS REQUEST, where REQUEST \
                     is one of: add SECONDS TEXT; cancel NUMBER; list; watch [INDEX]";
/// The most bytes of a request.
const LINE_MAX: u64 = 2_048;
/// The most clients at a time; further ones wait to be accepted.
const CLIENTS_MAX: usize = 100;
/// The time for a request to come, a command to be applied, or a line to be written.
const WITHIN: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    id: u64,
    data: PathBuf,
    certs: PathBuf,
    clients: SocketAddr,
    members: Vec<Member>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Member {
    id: u64,
    address: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<_> = std::env::args().skip(1).collect();
    match &words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["certs", dir, ids @ ..] if !ids.is_empty() => certs(dir.into(), ids),
        ["node", file] => node(file).await,
        ["ask", address, request @ ..] => ask(address, &request.join(" ")).await,
        _ => Err(USAGE.into()),
    }
}

/// Makes the cluster's authority, and a certificate for each node.
fn certs(dir: PathBuf, ids: &[&str]) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(&dir)?;
    let authority = Authority::create("reminders")?;
    authority.write(&dir)?;
    for id in ids {
        authority.issue_node(NodeId(id.parse()?), &[])?.write(&dir, &format!("node-{id}"))?;
    }
    Ok(())
}

async fn node(file: &str) -> Result<(), Box<dyn Error>> {
    let config: Config = toml::from_str(&fs::read_to_string(file)?)?;
    let Config { id, data, certs, clients, members } = config;
    let own = members.iter().find(|member| member.id == id).ok_or("no member has the id of the node")?;
    let file = |name: String| certs.join(name);
    let (cert, key) = (file(format!("node-{id}.pem")), file(format!("node-{id}.key")));
    let options = QuicOptions::new(own.address.parse()?, file("ca.pem".into()), cert, key);
    let metrics = Metrics::new();
    let node = Node::builder(NodeId(id), "reminders")
        .voters(members.iter().map(|member| (NodeId(member.id), member.address.clone())))
        .network(Quic::new(options)?)
        .storage(Wal::at(data))
        .metrics(&metrics)
        .serve(Reminders::default)
        .start()
        .await?;
    let listener = TcpListener::bind(clients).await?;
    println!("node {id} serves {}", listener.local_addr()?);
    tokio::select! {
        () = serve(listener, &node, &metrics) => {}
        failure = node.failed() => return Err(failure.into()),
        _ = tokio::signal::ctrl_c() => {}
    }
    node.shutdown().await;
    Ok(())
}

async fn serve(listener: TcpListener, node: &ServiceNode<Reminders>, metrics: &Metrics) {
    let places = Arc::new(Semaphore::new(CLIENTS_MAX));
    while let Ok(place) = places.clone().acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(Duration::from_millis(100)).await; // for a free file descriptor
            continue;
        };
        let (node, metrics) = (node.clone(), metrics.clone());
        tokio::spawn(async move {
            let mut stream = stream;
            if let Err(error) = answer(&mut stream, &node, &metrics).await {
                let _ = timeout(WITHIN, stream.write_all(format!("error: {error}\n").as_bytes())).await;
            }
            drop(place);
        });
    }
}

async fn answer(
    stream: &mut TcpStream,
    node: &ServiceNode<Reminders>,
    metrics: &Metrics,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut line = String::new();
    timeout(WITHIN, BufReader::new((&mut *stream).take(LINE_MAX)).read_line(&mut line)).await??;
    let words: Vec<_> = line.split_whitespace().collect();
    let reply = match words[..] {
        ["add", seconds, ref text @ ..] => {
            let command = Command::Add { seconds: seconds.parse()?, text: text.join(" ") };
            format!("{:?}\n", node.call(command).within(WITHIN).await?.reply)
        }
        ["cancel", number] => {
            let command = Command::Cancel(number.parse()?);
            format!("{:?}\n", node.call(command).within(WITHIN).await?.reply)
        }
        ["list"] => {
            let pending = node.query(()).within(WITHIN).await?.value;
            pending.into_iter().map(|(number, reminder)| format!("{number} {}\n", reminder.text)).collect()
        }
        ["watch"] => return watch(stream, node, None).await,
        ["watch", after] => return watch(stream, node, Some(Index(after.parse()?))).await,
        ["GET", "/metrics", _] => {
            let page = metrics.render();
            let length = page.len();
            format!("HTTP/1.1 200 OK\r\ncontent-type: {CONTENT_TYPE}\r\ncontent-length: {length}\r\n\r\n{page}")
        }
        _ => return Err(USAGE.into()),
    };
    timeout(WITHIN, stream.write_all(reply.as_bytes())).await??;
    Ok(())
}

/// Writes a line for each reminder that is due, with the index at which to go on after it.
async fn watch(
    stream: &mut TcpStream,
    node: &ServiceNode<Reminders>,
    after: Option<Index>,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let watching = node.watch("reminders");
    let mut watch = match after {
        Some(index) => watching.after(index).await?,
        None => watching.await?,
    };
    loop {
        let next = tokio::select! {
            next = watch.next() => next,
            _ = stream.read_u8() => return Ok(()), // the client has left
        };
        let changes = match next {
            Ok(changes) => changes,
            Err(WatchError::Gone { floor, .. }) => {
                return Err(format!("events up to {floor} are gone: list anew").into());
            }
            Err(error) => return Err(format!("{error}; there, watch {}", watch.position()).into()),
        };
        let lines =
            changes.events.iter().map(|(_, event)| format!("{} {} {}\n", changes.index, event.token, event.text));
        timeout(WITHIN, stream.write_all(lines.collect::<String>().as_bytes())).await??;
    }
}

/// Sends one request to a node, and prints its answer.
async fn ask(address: &str, request: &str) -> Result<(), Box<dyn Error>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("{request}\n").as_bytes()).await?;
    copy(&mut stream, &mut stdout()).await?;
    stdout().flush().await?;
    Ok(())
}
