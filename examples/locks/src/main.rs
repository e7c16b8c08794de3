//! One node of the lock service, and the command line of its clients.

use quorate::{Builder, Index, Serve, ServiceNode};
use quorate_host::{Answer, Asking, Failure, Front, Line, WITHIN, ask};
use quorate_locks::{Change, Command, Grant, Locks, Reply, Standing, Way, Wish, elect};
use std::{io, path::PathBuf, process::ExitCode, time::Duration};
use tokio::{
    process,
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::{sleep, timeout},
};

struct Requests;

#[tokio::main]
async fn main() -> ExitCode {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let [data, verb, name, owner, ttl_ms, program @ ..] = &words[..] else {
        return quorate_host::main(Requests).await;
    };
    if verb != "elect" || program.is_empty() {
        return quorate_host::main(Requests).await;
    }
    lead(data, name, owner, ttl_ms, program).await.unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::from(2)
    })
}

/// Runs a program while the lock is held, and again when it was lost. The exit code is the program's.
/// The program itself is killed when the lock is lost; its children are not.
async fn lead(data: &str, name: &str, owner: &str, ttl_ms: &str, program: &[String]) -> Result<ExitCode, Failure> {
    if [name, owner].iter().any(|word| word.is_empty() || word.contains(char::is_whitespace)) {
        return Err("a name is one word".into());
    }
    let (client, wish) = (Client(data.into()), Wish { owner: owner.into(), ttl_ms: ttl_ms.parse()? });
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (stop, stopped) = watch::channel(());
    let run = |token: u128| {
        let (mut command, mut stopped) = (process::Command::new(&program[0]), stopped.clone());
        command.args(&program[1..]).env("LOCK_TOKEN", token.to_string()).kill_on_drop(true);
        async move {
            tokio::select! {
                status = command.status() => status,
                _ = stopped.changed() => Err(io::Error::other("stopped by a signal")),
            }
        }
    };
    let status = tokio::select! {
        status = elect(&client, name, &wish, run) => status??,
        () = async {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            let _ = stop.send(());
            sleep(Duration::from_secs(1)).await; // to release the lock
        } => return Err("stopped by a signal".into()),
    };
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// The way of a candidate that is no node: the socket of the node with this data directory.
struct Client(PathBuf);

impl Way for Client {
    type Watch = Asking;

    async fn watch(&self, name: &str) -> Result<Asking, Failure> {
        let mut asking = ask(&self.0, &format!("watch {name}")).await?;
        match asking.next().await? {
            Line::Event(_) => Ok(asking), // it is open
            Line::Yes(text) | Line::No(text) | Line::Error(text) => Err(text.into()),
        }
    }

    async fn granted(watch: &mut Asking, owner: &str) -> Result<(), Failure> {
        loop {
            match watch.next().await? {
                Line::Event(text) if text.split(' ').skip(1).take(2).eq(["granted", owner]) => return Ok(()),
                Line::Event(_) => {}
                Line::Yes(text) | Line::No(text) | Line::Error(text) => return Err(text.into()),
            }
        }
    }

    async fn call(&self, command: Command) -> Result<Standing, Failure> {
        let request = match command {
            Command::Acquire { name, wish, .. } => format!("acquire {name} {} {} wait", wish.owner, wish.ttl_ms),
            Command::Renew { name, token, ttl_ms } => format!("renew {name} {token} {ttl_ms}"),
            Command::Release { name, token } => format!("release {name} {token}"),
        };
        let text = match timeout(WITHIN * 2, async { ask(&self.0, &request).await?.next().await }).await?? {
            Line::Yes(text) | Line::No(text) => text,
            Line::Event(text) | Line::Error(text) => return Err(text.into()),
        };
        Ok(match text.split(' ').collect::<Vec<_>>()[..] {
            ["granted", _, token] => Standing::Holds(token.parse()?),
            ["queued", _] => Standing::Waits,
            _ => Standing::Out,
        })
    }
}

impl Front for Requests {
    type Service = Locks;
    type Settings = ();

    const USAGE: &'static str = "locks --config FILE, or locks DATA_DIRECTORY REQUEST, where REQUEST is one of: \
                                 acquire NAME OWNER MILLISECONDS [wait]; renew NAME TOKEN MILLISECONDS; \
                                 release NAME TOKEN; holder NAME; watch NAME [AFTER_INDEX]; leader; \
                                 elect NAME OWNER MILLISECONDS PROGRAM [ARGUMENT...]";

    fn serve(&self, builder: Builder, (): ()) -> Serve<Locks> {
        builder.serve(Locks::default)
    }

    async fn answer(&self, node: &ServiceNode<Locks>, words: &[&str]) -> Result<Answer, Failure> {
        let acquire = |name: &str, owner: &str, ttl_ms: &str, wait| {
            let wish = Wish { owner: owner.into(), ttl_ms: ttl_ms.parse()? };
            Ok::<_, std::num::ParseIntError>(Command::Acquire { name: name.into(), wish, wait })
        };
        let command = match *words {
            ["acquire", name, owner, ttl_ms] => acquire(name, owner, ttl_ms, false)?,
            ["acquire", name, owner, ttl_ms, "wait"] => acquire(name, owner, ttl_ms, true)?,
            ["renew", name, token, ttl_ms] => {
                Command::Renew { name: name.into(), token: token.parse()?, ttl_ms: ttl_ms.parse()? }
            }
            ["release", name, token] => Command::Release { name: name.into(), token: token.parse()? },
            ["holder", name] => {
                let holder = node.query(name.into()).within(WITHIN).await?.value;
                return Ok(holder.map_or(Answer::No("free".into()), |grant| Answer::Yes(held("held", &grant))));
            }
            ["watch", name] => return Ok(Answer::Watch(name.into(), None)),
            ["watch", name, after] => return Ok(Answer::Watch(name.into(), Some(Index(after.parse()?)))),
            _ => return Err(Self::USAGE.into()),
        };
        Ok(match node.call(command).within(WITHIN).await?.reply {
            Reply::Granted(grant) => Answer::Yes(held("granted", &grant)),
            Reply::Queued { ahead } => Answer::No(format!("queued {ahead}")),
            Reply::Busy(grant) => Answer::No(held("busy", &grant)),
            Reply::Released => Answer::Yes("released".into()),
            Reply::NotHeld => Answer::No("not held".into()),
            Reply::Full => Answer::No("full".into()),
        })
    }

    fn show(&self, _: &str, change: &Change) -> String {
        match change {
            Change::Granted(grant) => held("granted", grant),
            Change::Freed => "freed".into(),
        }
    }
}

fn held(by: &str, grant: &Grant) -> String {
    format!("{by} {} {}", grant.owner, grant.token)
}
