//! One node of the lock service, and the command line of its clients.

use quorate::{Builder, Index, Serve, ServiceNode};
use quorate_host::{Answer, Failure, Front, WITHIN};
use quorate_locks::{Change, Command, Grant, Locks, Reply, Wish};
use std::process::ExitCode;

struct Requests;

#[tokio::main]
async fn main() -> ExitCode {
    quorate_host::main(Requests).await
}

impl Front for Requests {
    type Service = Locks;

    const USAGE: &'static str = "locks --config FILE, or locks DATA_DIRECTORY REQUEST, where REQUEST is one of: \
                                 acquire NAME OWNER MILLISECONDS [wait]; renew NAME TOKEN MILLISECONDS; \
                                 release NAME TOKEN; holder NAME; watch NAME [AFTER_INDEX]; leader";

    fn serve(&self, builder: Builder) -> Serve<Locks> {
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
