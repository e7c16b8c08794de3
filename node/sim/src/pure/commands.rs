//! Commands: where each of them goes, where it waits, and what its caller is told ([`Proposals`]).

use super::{
    deciding::routing_of,
    decisions::{Place, Waiter},
    machine::slot,
    walk::Walk,
};
use quorate::decisions::{
    callers::{Answer, Caller, Proposal},
    proposals::{Effect, Proposals, View},
};
use quorate_raft::{Batch, Body, Index, Kind, Lookup, Moment, NodeId, Outgoing, session::LogTime};
use quorate_world::world::Envelope;
use std::{ops::Range, sync::Arc, time::Duration};

impl Walk<'_> {
    /// A caller of a node proposes commands; nothing happens if the node is down.
    pub(super) fn offer(&mut self, id: NodeId, commands: Range<u64>) -> Result<(), String> {
        self.mix(60, id);
        self.say(|| format!("{id} is given commands {commands:?}"));
        let (now, is_healing) = (self.world.now_of(id), self.healing);
        let proposal = |command: u64| Proposal {
            kind: Kind::Command,
            payload: command.to_le_bytes().to_vec().into(),
            caller: Caller::Here { asked: now, waiter: command },
            // A quarter of the commands has a deadline, while faults last.
            until: (command.is_multiple_of(4) && !is_healing)
                .then(|| now.plus(Duration::from_millis(command * 37 % 300))),
        };
        let proposals = commands.clone().map(proposal).collect();
        if let Some(decisions) = &mut self.machines[slot(id)].decisions {
            decisions.callers += commands.end - commands.start;
        }
        self.decide(id, |commands, now, view, out| commands.offered(proposals, now, view, out))
    }

    /// The state machine of a node applied these entries: their callers are told.
    pub(super) fn commands_applied(&mut self, id: NodeId, batch: &Batch) -> Result<(), String> {
        let oracle = Arc::make_mut(&mut self.world.oracle);
        let mut applied = 0;
        for record in batch.records().filter(|record| record.kind == Kind::Command) {
            applied += 1;
            let Ok(command) = record.payload.try_into().map(u64::from_le_bytes) else {
                return Err(format!("outsiders: {id} applies {}, a command that no client proposed", record.id));
            };
            oracle.operations.applied(command, record.id.index)?;
        }
        self.report.count("applied commands", applied);
        if let Some(decisions) = &mut self.machines[slot(id)].decisions {
            decisions.snapshots.applying(batch.bytes().len() as u64);
        }
        if self.commands_of(id).is_none_or(Proposals::is_empty) {
            return Ok(());
        }
        let mut taken = Vec::new();
        self.decide(id, |commands, _, _, out| taken = commands.committed(batch, out))?;
        let mut answers = Vec::new();
        for callers in taken {
            let mut index = callers.first;
            for caller in callers.callers {
                let applied = quorate::Applied { index, reply: Default::default() };
                match caller {
                    Caller::Here { waiter, .. } => self.tell(id, waiter, Some(Ok(index)))?,
                    Caller::There { node, request, .. } => {
                        answers.push(Answer { node, request, outcome: Some(Ok(applied)) });
                    }
                }
                index = index.next();
            }
        }
        if answers.is_empty() {
            return Ok(());
        }
        self.decide(id, |commands, _, view, out| commands.applied(answers, view, out))
    }

    /// A snapshot took the place of a node's entries up to `index`.
    pub(super) fn commands_covered(&mut self, id: NodeId, index: Index) -> Result<(), String> {
        if let Some(decisions) = &mut self.machines[slot(id)].decisions {
            decisions.snapshots.restoring();
        }
        self.decide(id, |commands, _, view, out| commands.covered(index, view, out))
    }

    pub(super) fn decide_stranded(&mut self, id: NodeId) -> Result<(), String> {
        let (Some(running), Some(commands)) = (self.world.running(id), self.commands_of(id)) else { return Ok(()) };
        let (log, commit) = (running.replica.log(), running.replica.commit());
        let Some(term) = log.term_of(commit) else { return Ok(()) };
        let Some(after) = commands.stranded_after(term) else { return Ok(()) };
        let (mut batches, mut from) = (Vec::new(), after.next());
        while from <= commit {
            let Lookup::Cached(batch) = log.lookup(from, commit, usize::MAX) else { return Ok(()) };
            from = batch.last().next();
            batches.push(batch);
        }
        self.report.count("stranded commands decided", 1);
        self.decide(id, |commands, now, view, out| commands.decide_stranded(term, &batches, now, view, out))
    }

    pub(super) fn commands_of(&self, id: NodeId) -> Option<&Proposals<Waiter, Place>> {
        self.machines[slot(id)].decisions.as_ref().map(|decisions| &decisions.commands)
    }

    /// Calls one decision about commands, and performs its effects.
    pub(super) fn decide(
        &mut self,
        id: NodeId,
        event: impl FnOnce(&mut Proposals<Waiter, Place>, Moment, &View, &mut Vec<Effect<Waiter, Place>>),
    ) -> Result<(), String> {
        let (now, mut out) = (self.world.now_of(id), Vec::new());
        let Some(running) = self.world.running(id) else { return Ok(()) };
        let Some(decisions) = &mut self.machines[slot(id)].decisions else { return Ok(()) };
        let view = View {
            routing: routing_of(running, decisions.stopping.is_stopping()),
            last_log: running.replica.log().last().index,
            commit: running.replica.commit(),
        };
        event(&mut decisions.commands, now, &view, &mut out);
        for effect in out {
            if self.world.running(id).is_none() {
                break; // it died with an effect
            }
            match effect {
                Effect::Append(commands) => self.append(id, commands)?,
                Effect::Send(outgoing) => self.send(id, outgoing)?,
                Effect::Answer { waiter, outcome } => {
                    let outcome = match outcome {
                        Ok(Ok(applied)) => Some(Ok(applied.index)),
                        Ok(Err(refusal)) => return Err(format!("sessions: {waiter} has none, and hears {refusal:?}")),
                        Err(quorate::ProposeError::OutcomeUnknown) => None,
                        Err(error) => Some(Err(error)),
                    };
                    self.tell(id, waiter, outcome)?;
                }
                Effect::Duplicate { .. } => self.report.count("duplicate", 1),
            }
        }
        Ok(())
    }

    fn append(&mut self, id: NodeId, commands: Vec<Proposal<Waiter, Place>>) -> Result<(), String> {
        let mut commands = commands.into_iter().peekable();
        while commands.peek().is_some() {
            let (now, Some(running)) = (self.world.now_of(id), self.world.running(id)) else { return Ok(()) };
            let Some(decisions) = &mut self.machines[slot(id)].decisions else { return Ok(()) };
            let builder = |capacity| running.replica.next_batch(capacity);
            let time = (None, LogTime::default());
            let Some(laid_out) = decisions.commands.lay_out(&mut commands, builder, time, now) else {
                let left = commands.collect();
                return self.decide(id, |commands, now, view, out| commands.offered(left, now, view, out));
            };
            let stepped = self.world.propose_batch(id, laid_out.batch);
            self.after(id, stepped)?;
        }
        Ok(())
    }

    /// A node sends a request, or an answer to one, to another node.
    pub(super) fn send(&mut self, from: NodeId, Outgoing { to, message }: Outgoing) -> Result<(), String> {
        match &message.body {
            Body::Propose(_) => self.report.count("commands forwarded", 1),
            Body::ReadIndex(_) => self.report.count("reads forwarded", 1),
            _ => self.report.count("outcomes sent", 1),
        }
        if to.0 > self.plan.nodes {
            return Ok(()); // to a node outside
        }
        self.world.wire.push(Arc::new(Envelope { from, to, message, digest: 0 }));
        self.post(from)
    }

    /// Tells a caller the outcome of its command; `None` if it is unknown.
    fn tell(
        &mut self,
        id: NodeId,
        command: Waiter,
        outcome: Option<Result<Index, quorate::ProposeError>>,
    ) -> Result<(), String> {
        self.say(|| format!("{id} answers {command}: {outcome:?}"));
        let oracle = Arc::make_mut(&mut self.world.oracle);
        match outcome {
            Some(Ok(index)) => oracle.operations.acknowledged(command, index)?,
            Some(Err(_)) => {
                self.report.count("writes refused", 1);
                oracle.operations.refused(command)?;
            }
            None => self.report.count("writes unknown", 1),
        }
        if let Some(decisions) = &mut self.machines[slot(id)].decisions {
            decisions.callers = decisions.callers.saturating_sub(1);
        }
        self.written(command, matches!(outcome, Some(Ok(_))));
        Ok(())
    }
}
