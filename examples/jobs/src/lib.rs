//! A service of job queues: priorities, visibility timeouts, retries with back-off, dead letters.
//!
//! A worker takes a job for the time of a lease, which is a timer in log time, and completes it by the
//! token of that lease. After the end of a lease the job goes to another worker under a higher token,
//! and the completion of the first worker is refused: each job is completed once, though its work
//! may be done more than once.

use quorate::{At, Cause, Context, EffectId, LogTime, Service};
use serde::{Deserialize, Serialize};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// The most jobs that are not done, dead ones among them; a further one is answered
/// [`Reply::Full`].
pub const JOBS_MAX: usize = 10_000;
/// The most jobs that are remembered as done; the oldest is forgotten for a further one. Then its
/// name is free again, and a repeated completion is answered [`Reply::NotHeld`].
pub const DONE_MAX: usize = 10_000;
/// The most bytes of the name of a queue, a job or a worker, and of a reason; a longer one is answered
/// [`Reply::TooLarge`], as a longer body is.
pub const NAME_MAX: usize = 256;
/// The most bytes of the body of a job.
pub const BODY_MAX: usize = 4_096;
/// The most jobs of one answer.
pub const LIST_MAX: usize = 100;
/// The longest lease, delay and back-off: a day. A longer one that is asked for lasts as long as this.
pub const MS_MAX: u32 = 24 * 60 * 60 * 1000;

/// The jobs of all queues. A queue exists so long as it has jobs.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub struct Jobs {
    jobs: BTreeMap<Id, Job>,
    /// The ready jobs of each queue: the highest priority first, then in the order of submission.
    ready: BTreeMap<(String, Reverse<u8>, u64), Id>,
    /// The taken jobs, by queue and worker.
    taken: BTreeMap<(String, String), Id>,
    /// The jobs that are done, in the order of their completion.
    done: VecDeque<Id>,
}

/// The identity of a job. Its submitter chooses the name, so a submission may be repeated.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Id {
    pub queue: String,
    pub name: String,
}

/// A job as its submitter describes it.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Work {
    /// The input of the worker. It is dropped when the job is done.
    pub body: String,
    /// Jobs of a higher priority are taken first.
    pub priority: u8,
    /// Milliseconds of log time until the job is ready for the first time.
    pub delay_ms: u32,
    /// The job is dead after this many failed attempts, and after one if this is 0.
    pub attempts_max: u32,
    /// Milliseconds of log time before the second attempt. They double with each further one, and
    /// up to a half is taken off at random: jobs that failed together return one by one.
    pub backoff_ms: u32,
}

/// A job in its queue.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Job {
    pub work: Work,
    /// Number of the attempts that were begun.
    pub attempts: u32,
    pub phase: Phase,
    /// Index of the entry that submitted it.
    number: u64,
}

/// The phase of a job.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Phase {
    /// The next worker may take it, in its turn.
    Ready,
    /// It becomes ready by itself at `until`; `reason` is that of the failed attempt.
    Resting { until: LogTime, reason: String },
    /// The worker has it until the end of its lease. The token is higher than that of every earlier
    /// lease of any job.
    Taken { worker: String, token: u128, until: LogTime },
    /// It was completed by this token.
    Done { token: u128 },
    /// Its last attempt failed, for this reason; `late` if the lease ended. The effect is its
    /// [`Notice`]; none if that was given, or waits for room in the outbox.
    Dead { reason: String, notice: Option<EffectId> },
}

/// Commands, each of which may be repeated when its outcome is unknown.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Command {
    Submit {
        id: Id,
        work: Work,
    },
    /// Takes the first ready job. A worker that has a job of the queue gets the same lease again,
    /// so a worker with several jobs at a time needs a name for each.
    Take {
        queue: String,
        worker: String,
        ms: u32,
    },
    /// Makes the lease last this long from now, unless it lasts longer, if the token is that of the
    /// present one. So for the next two.
    Renew {
        id: Id,
        token: u128,
        ms: u32,
    },
    Complete {
        id: Id,
        token: u128,
    },
    Fail {
        id: Id,
        token: u128,
        reason: String,
    },
    /// Makes a dead job ready, with all its attempts.
    Revive {
        id: Id,
    },
    /// Removes a dead job.
    Discard {
        id: Id,
    },
}

/// The replies to commands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Reply {
    /// The command took effect, or a completion by the same token did before.
    Ok,
    /// The name of the submitted job is taken, perhaps by one that is done. That was left as it is.
    Known,
    /// There are [`JOBS_MAX`] jobs that are not done.
    Full,
    /// A text of the command is larger than [`NAME_MAX`] or [`BODY_MAX`].
    TooLarge,
    /// The worker has this job; the lease is in its phase.
    Taken { name: String, job: Job },
    /// No job of the queue is ready.
    Empty,
    /// The token is not that of the present lease, or no lease is present.
    NotHeld,
    /// No dead job has this name.
    NotDead,
}

/// The first [`LIST_MAX`] jobs of a queue from a name on, or the dead ones of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Query {
    pub queue: String,
    pub from: String,
    pub only_dead: bool,
}

/// The event: this job is in another phase, or was discarded (`None`). Its topic is the queue.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Change(pub String, pub Option<Phase>);

/// The effect: the outside is told that a job is dead, for this reason.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Notice(pub Id, pub String);

/// The inputs from inside.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Signal {
    /// The timer of a job: the end of its lease, its delay or its back-off.
    Due(Id),
    /// The notice of a dead job was given.
    Told(Id),
}

impl Service for Jobs {
    quorate::types!(Command => Reply, Query => Vec<(String, Job)>, event Change, signal Signal, effect Notice);

    fn apply(&mut self, command: Command, cx: &mut Context<'_, Self>) -> Reply {
        match command {
            command if command.is_too_large() => Reply::TooLarge,
            Command::Submit { id, work } => self.submit(id, work, cx),
            Command::Take { queue, worker, ms } => self.take(queue, worker, ms, cx),
            Command::Renew { id, token, ms } if self.is_held(&id, token) => self.renew(&id, ms, cx),
            Command::Complete { id, token } if self.is_held(&id, token) => self.complete(id, token, cx),
            Command::Complete { id, token } if self.phase(&id) == Some(&Phase::Done { token }) => Reply::Ok,
            Command::Fail { id, token, reason } if self.is_held(&id, token) => self.fail(&id, reason, cx),
            Command::Renew { .. } | Command::Complete { .. } | Command::Fail { .. } => Reply::NotHeld,
            Command::Revive { id } if self.is_dead(&id) => self.begin(&id, Phase::Ready, cx),
            Command::Discard { id } if self.is_dead(&id) => self.discard(id, cx),
            Command::Revive { .. } | Command::Discard { .. } => Reply::NotDead,
        }
    }

    fn signal(&mut self, signal: Signal, cx: &mut Context<'_, Self>) {
        let (Signal::Due(id) | Signal::Told(id)) = &signal;
        match self.phase(id).cloned() {
            Some(Phase::Taken { .. }) if cx.cause() == Cause::Timer => self.fail(id, "late".into(), cx),
            Some(Phase::Resting { .. }) if cx.cause() == Cause::Timer => self.begin(id, Phase::Ready, cx),
            Some(Phase::Dead { reason, .. }) if cx.cause() == Cause::Timer => self.bury(id, reason, cx),
            Some(Phase::Dead { reason, notice: Some(told) }) if cx.cause() == Cause::Effect(told) => {
                self.begin(id, Phase::Dead { reason, notice: None }, cx)
            }
            _ => Reply::NotDead, // it was revived or discarded before its notice was given
        };
    }

    fn query(&self, Query { queue, from, only_dead }: Query, _: At) -> Vec<(String, Job)> {
        let from = Id { queue, name: from };
        let jobs = self.jobs.range(&from..).take_while(|(id, _)| id.queue == from.queue);
        let asked = jobs.filter(|(_, job)| !only_dead || matches!(job.phase, Phase::Dead { .. }));
        asked.take(LIST_MAX).map(|(id, job)| (id.name.clone(), job.clone())).collect()
    }
}

impl Jobs {
    fn submit(&mut self, id: Id, work: Work, cx: &mut Context<'_, Self>) -> Reply {
        if self.jobs.contains_key(&id) {
            return Reply::Known;
        }
        if self.jobs.len() - self.done.len() == JOBS_MAX {
            return Reply::Full;
        }
        let resting = Phase::Resting { until: cx.now() + for_ms(work.delay_ms.into()), reason: "it is new".into() };
        let phase = if work.delay_ms == 0 { Phase::Ready } else { resting };
        self.jobs.insert(id.clone(), Job { work, attempts: 0, phase: phase.clone(), number: cx.at().index.0 });
        self.begin(&id, phase, cx)
    }

    fn take(&mut self, queue: String, worker: String, ms: u32, cx: &mut Context<'_, Self>) -> Reply {
        let by = (queue, worker);
        if !self.taken.contains_key(&by) {
            let mut ready = self.ready.range((by.0.clone(), Reverse(u8::MAX), 0)..).map(|(_, id)| id.clone());
            let Some(id) = ready.next().filter(|id| id.queue == by.0) else { return Reply::Empty };
            let (worker, token, until) = (by.1.clone(), cx.token().as_u128(), cx.now() + for_ms(ms.into()));
            self.begin(&id, Phase::Taken { worker, token, until }, cx);
        }
        let id = &self.taken[&by];
        Reply::Taken { name: id.name.clone(), job: self.jobs[id].clone() }
    }

    fn renew(&mut self, id: &Id, ms: u32, cx: &mut Context<'_, Self>) -> Reply {
        let Some(Phase::Taken { worker, token, until }) = self.phase(id).cloned() else { return Reply::NotHeld };
        // Never shorter: this may be an earlier renewal that was delayed.
        self.begin(id, Phase::Taken { worker, token, until: until.max(cx.now() + for_ms(ms.into())) }, cx)
    }

    fn complete(&mut self, id: Id, token: u128, cx: &mut Context<'_, Self>) -> Reply {
        self.begin(&id, Phase::Done { token }, cx);
        self.done.push_back(id);
        if self.done.len() > DONE_MAX {
            self.done.pop_front().map(|oldest| self.jobs.remove(&oldest));
        }
        Reply::Ok
    }

    fn fail(&mut self, id: &Id, reason: String, cx: &mut Context<'_, Self>) -> Reply {
        let Some(Job { work, attempts, .. }) = self.jobs.get(id) else { return Reply::NotHeld };
        if *attempts >= work.attempts_max {
            return self.bury(id, reason, cx);
        }
        let ms = (u64::from(work.backoff_ms) << (*attempts - 1).min(31)).min(MS_MAX.into());
        let until = cx.now() + for_ms(ms - cx.random().below(ms / 2 + 1));
        self.begin(id, Phase::Resting { until, reason }, cx)
    }

    /// Makes the job a dead letter, and asks for its notice; again in a second if the outbox is full.
    fn bury(&mut self, id: &Id, reason: String, cx: &mut Context<'_, Self>) -> Reply {
        let notice = cx.perform(&id.name, Notice(id.clone(), reason.clone())).ok();
        self.begin(id, Phase::Dead { reason, notice }, cx);
        if notice.is_none() {
            cx.after(Duration::from_secs(1), Signal::Due(id.clone()));
        }
        Reply::Ok
    }

    fn discard(&mut self, id: Id, cx: &mut Context<'_, Self>) -> Reply {
        self.jobs.remove(&id);
        cx.publish(&id.queue, Change(id.name, None));
        Reply::Ok
    }

    /// Begins a phase: of the job, in the indexes, of its timer, and for the watches.
    fn begin(&mut self, id: &Id, phase: Phase, cx: &mut Context<'_, Self>) -> Reply {
        let job = self.jobs.get_mut(id).expect("the caller has found the job");
        let place = (id.queue.clone(), Reverse(job.work.priority), job.number);
        match &job.phase {
            Phase::Ready => drop(self.ready.remove(&place)),
            Phase::Taken { worker, .. } => drop(self.taken.remove(&(id.queue.clone(), worker.clone()))),
            Phase::Resting { .. } | Phase::Done { .. } | Phase::Dead { .. } => {}
        }
        match (&job.phase, &phase) {
            (Phase::Ready, Phase::Taken { .. }) => job.attempts += 1,
            (Phase::Dead { .. }, Phase::Ready) => job.attempts = 0,
            _ => {}
        }
        match &phase {
            Phase::Ready => drop(self.ready.insert(place, id.clone())),
            Phase::Taken { worker, .. } => drop(self.taken.insert((id.queue.clone(), worker.clone()), id.clone())),
            Phase::Done { .. } => job.work.body = String::new(),
            Phase::Resting { .. } | Phase::Dead { .. } => {}
        }
        match phase {
            Phase::Resting { until, .. } | Phase::Taken { until, .. } => {
                cx.after(until.since(cx.now()), Signal::Due(id.clone()))
            }
            Phase::Ready | Phase::Done { .. } | Phase::Dead { .. } => drop(cx.cancel(&Signal::Due(id.clone()))),
        }
        job.phase = phase.clone();
        cx.publish(&id.queue, Change(id.name.clone(), Some(phase)));
        Reply::Ok
    }

    fn phase(&self, id: &Id) -> Option<&Phase> {
        self.jobs.get(id).map(|job| &job.phase)
    }

    fn is_held(&self, id: &Id, by: u128) -> bool {
        matches!(self.phase(id), Some(Phase::Taken { token, .. }) if *token == by)
    }

    fn is_dead(&self, id: &Id) -> bool {
        matches!(self.phase(id), Some(Phase::Dead { .. }))
    }
}

impl Command {
    fn is_too_large(&self) -> bool {
        match self {
            Self::Submit { id, work } => id.queue.len().max(id.name.len()) > NAME_MAX || work.body.len() > BODY_MAX,
            Self::Take { worker: text, .. } | Self::Fail { reason: text, .. } => text.len() > NAME_MAX,
            _ => false, // the state keeps nothing of it
        }
    }
}

fn for_ms(ms: u64) -> Duration {
    Duration::from_millis(ms.min(MS_MAX.into()))
}
