//! One node of the job queues, and the command line of submitters and workers.

use quorate::{Builder, Index, Perform, Retry, Serve, ServiceNode, Ticket};
use quorate_host::{Answer, Failure, Front, WITHIN};
use quorate_jobs::{Change, Command, Id, Job, Jobs, Notice, Phase, Query, Reply, Signal, Work};
use serde::Deserialize;
use std::{io, path::PathBuf, process::ExitCode};
use tokio::{
    fs::OpenOptions,
    io::AsyncWriteExt,
    time::{Instant, timeout_at},
};

struct Queues;

#[tokio::main]
async fn main() -> ExitCode {
    quorate_host::main(Queues).await
}

impl Front for Queues {
    type Service = Jobs;
    type Settings = Settings;

    const USAGE: &'static str = "jobs --config FILE, or jobs DATA_DIRECTORY REQUEST, where REQUEST is one of: \
        submit QUEUE NAME BODY [priority=0] [delay=0] [attempts=5] [backoff=1000]; \
        take QUEUE WORKER MILLISECONDS [wait]; renew QUEUE NAME TOKEN MILLISECONDS; complete QUEUE NAME TOKEN; \
        fail QUEUE NAME TOKEN REASON; revive QUEUE NAME; discard QUEUE NAME; show QUEUE NAME; \
        list QUEUE [FROM_NAME]; dead QUEUE [FROM_NAME]; watch QUEUE [AFTER_INDEX]; leader. Times are milliseconds";
    const LINE_MAX: u64 = 8 * 1024;

    fn serve(&self, builder: Builder, settings: Settings) -> Serve<Jobs> {
        builder.serve(Jobs::default).effects(settings)
    }

    async fn answer(&self, node: &ServiceNode<Jobs>, words: &[&str]) -> Result<Answer, Failure> {
        let id = |queue: &str, name: &str| Id { queue: queue.into(), name: name.into() };
        let command = match *words {
            ["submit", queue, name, body, ref options @ ..] => {
                Command::Submit { id: id(queue, name), work: work(body, options)? }
            }
            ["take", queue, worker, ms] => {
                Command::Take { queue: queue.into(), worker: worker.into(), ms: ms.parse()? }
            }
            ["take", queue, worker, ms, "wait"] => return take(node, queue, worker, ms.parse()?).await,
            ["renew", queue, name, token, ms] => {
                Command::Renew { id: id(queue, name), token: token.parse()?, ms: ms.parse()? }
            }
            ["complete", queue, name, token] => Command::Complete { id: id(queue, name), token: token.parse()? },
            ["fail", queue, name, token, reason] => {
                Command::Fail { id: id(queue, name), token: token.parse()?, reason: reason.into() }
            }
            ["revive", queue, name] => Command::Revive { id: id(queue, name) },
            ["discard", queue, name] => Command::Discard { id: id(queue, name) },
            ["show", queue, name] => return show(node, queue, name).await,
            ["list", queue] => return list(node, queue, "", false).await,
            ["list", queue, from] => return list(node, queue, from, false).await,
            ["dead", queue] => return list(node, queue, "", true).await,
            ["dead", queue, from] => return list(node, queue, from, true).await,
            ["watch", queue] => return Ok(Answer::Watch(queue.into(), None)),
            ["watch", queue, after] => return Ok(Answer::Watch(queue.into(), Some(Index(after.parse()?)))),
            _ => return Err(Self::USAGE.into()),
        };
        Ok(answer(node.call(command).within(WITHIN).await?.reply))
    }

    fn show(&self, _: &str, Change(name, phase): &Change) -> String {
        let phase = phase.as_ref().map_or("discarded".into(), text);
        format!("{name} {phase}")
    }
}

/// The table `service` of the configuration file.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    /// The file to which the notices of dead jobs are appended; without one they go to the standard error of the leader.
    notices: Option<PathBuf>,
}

/// A notice is a line: its id, the fence, queue and name of the job, and the reason. It may be
/// there more than once, always with the same id.
impl Perform<Jobs> for Settings {
    async fn perform(&self, Notice(id, reason): Notice, ticket: Ticket) -> Result<Signal, Retry> {
        let line = format!("{} {} {} {} {reason}\n", ticket.id, ticket.fence, id.queue, id.name);
        match &self.notices {
            None => eprint!("dead: {line}"),
            Some(file) => append(file, &line).await.map_err(Retry::because)?,
        }
        Ok(Signal::Told(id))
    }
}

async fn append(file: &PathBuf, line: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(file).await?;
    file.write_all(line.as_bytes()).await?;
    file.flush().await?; // the write's own result: it only began before, and a sync does not tell it
    file.sync_data().await
}

/// Takes a job, and waits for one if none is ready.
async fn take(node: &ServiceNode<Jobs>, queue: &str, worker: &str, ms: u32) -> Result<Answer, Failure> {
    let deadline = Instant::now() + WITHIN;
    let mut watch = node.watch(queue).await?; // before asking, so that no job is missed
    loop {
        let command = Command::Take { queue: queue.into(), worker: worker.into(), ms };
        let reply = node.call(command).within(WITHIN).await?.reply;
        if reply != Reply::Empty {
            return Ok(answer(reply));
        }
        let ready = async {
            while !watch.next().await?.events.iter().any(|(_, change)| change.1 == Some(Phase::Ready)) {}
            Ok::<_, Failure>(())
        };
        match timeout_at(deadline, ready).await {
            Ok(ready) => ready?,
            Err(_) => return Ok(answer(Reply::Empty)),
        }
    }
}

async fn show(node: &ServiceNode<Jobs>, queue: &str, name: &str) -> Result<Answer, Failure> {
    let query = Query { queue: queue.into(), from: name.into(), only_dead: false };
    Ok(match node.query(query).within(WITHIN).await?.value.first() {
        Some((found, job)) if found == name => Answer::Yes(line(name, job)),
        _ => Answer::No("unknown".into()),
    })
}

async fn list(node: &ServiceNode<Jobs>, queue: &str, from: &str, only_dead: bool) -> Result<Answer, Failure> {
    let query = Query { queue: queue.into(), from: from.into(), only_dead };
    let jobs = node.query(query).within(WITHIN).await?.value;
    let lines = jobs.iter().map(|(name, job)| line(name, job) + "\n");
    Ok(Answer::Yes(format!("{}{} jobs", lines.collect::<String>(), jobs.len())))
}

fn work(body: &str, options: &[&str]) -> Result<Work, Failure> {
    let body = body.to_owned();
    let mut work = Work { body, priority: 0, delay_ms: 0, attempts_max: 5, backoff_ms: 1_000 };
    for option in options {
        match option.split_once('=') {
            Some(("priority", value)) => work.priority = value.parse()?,
            Some(("delay", value)) => work.delay_ms = value.parse()?,
            Some(("attempts", value)) => work.attempts_max = value.parse()?,
            Some(("backoff", value)) => work.backoff_ms = value.parse()?,
            _ => return Err(format!("no option of a job: {option}").into()),
        }
    }
    Ok(work)
}

fn answer(reply: Reply) -> Answer {
    match reply {
        Reply::Ok => Answer::Yes("ok".into()),
        Reply::Known => Answer::Yes("known".into()),
        Reply::Taken { name, job } => Answer::Yes(line(&name, &job)),
        Reply::Full => Answer::No("full".into()),
        Reply::TooLarge => Answer::No("too large".into()),
        Reply::Empty => Answer::No("empty".into()),
        Reply::NotHeld => Answer::No("not held".into()),
        Reply::NotDead => Answer::No("not dead".into()),
    }
}

fn line(name: &str, Job { work, attempts, phase, .. }: &Job) -> String {
    let Work { body, priority, attempts_max, .. } = work;
    format!("{name} {} priority {priority} attempt {attempts} of {attempts_max}: {body}", text(phase))
}

fn text(phase: &Phase) -> String {
    match phase {
        Phase::Ready => "ready".into(),
        Phase::Resting { until, reason } => format!("resting {} {reason}", until.0),
        Phase::Taken { worker, token, .. } => format!("taken {worker} {token}"),
        Phase::Done { token } => format!("done {token}"),
        Phase::Dead { reason, notice: None } => format!("dead {reason}"),
        Phase::Dead { reason, notice: Some(notice) } => format!("dead {reason} (notice {notice} is to be given)"),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
    use std::{fs, os::fd::AsRawFd};

    #[tokio::test]
    async fn a_notice_that_is_not_written_is_not_given() {
        let file = memfd_create("notices", MemfdFlags::ALLOW_SEALING).expect("a file");
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        append(&path, "one\n").await.expect("written");
        // It refuses each further write and no sync, as a full disk may.
        fcntl_add_seals(&file, SealFlags::WRITE).expect("sealed");
        append(&path, "two\n").await.expect_err("it is not written");
        assert_eq!(fs::read_to_string(&path).expect("readable"), "one\n");
    }
}
