//! Reads: where each of them is asked, and from which index on it may be served ([`Reads`]).
//!
//! A read is served by the state machine of the node that its client asked, once that has applied
//! the index that was granted. Every read ends by its deadline: it is served or refused.

use super::{deciding::routing_of, decisions::Waiting, machine::slot, walk::Walk};
use quorate::{
    Consistency,
    decisions::{
        freshness::{Bounds, Granted},
        reads::{Effect, Reader, Reads, View, Wants},
    },
};
use quorate_raft::{Index, Moment, NodeId, ReadToken};
use quorate_world::events::Event;
use std::time::Duration;

impl Walk<'_> {
    /// A client asks a node for a read; nothing happens if the node is down.
    pub(super) fn read(&mut self, id: NodeId, token: ReadToken, consistency: Consistency) -> Result<(), String> {
        self.mix(63 + (token << 8), id);
        self.say(|| format!("{id} is asked for read {token}, {consistency:?}"));
        let (now, floor) = (self.world.now_of(id), self.past.floor(self.now(), consistency));
        let wants = match consistency {
            Consistency::Lease => Wants::ByLease,
            Consistency::Bounded { max_age, max_entries } => {
                Wants::Within { bounds: Bounds { max_age, max_entries }, called: now }
            }
            _ => Wants::Confirmed,
        };
        // A quarter of the reads has a deadline, while faults last.
        let has_deadline = token.is_multiple_of(4) && !self.healing;
        let until = has_deadline.then(|| now.plus(Duration::from_millis(token * 53 % 300)));
        let Some(decisions) = &mut self.machines[slot(id)].decisions else { return Ok(()) };
        decisions.waiting.push(Waiting { token, consistency, floor, until, asked: now, granted: None });
        let reader = Reader::Here { waiter: token, asked: now, wants, until };
        self.decide_reads(id, |reads, now, view, out| reads.offered(vec![reader], now, view, out))
    }

    /// Calls one decision about reads, and performs its effects.
    pub(super) fn decide_reads(
        &mut self,
        id: NodeId,
        event: impl FnOnce(&mut Reads<ReadToken>, Moment, &View, &mut Vec<Effect<ReadToken>>),
    ) -> Result<(), String> {
        let (now, mut out) = (self.world.now_of(id), Vec::new());
        let Some(running) = self.world.running(id) else { return Ok(()) };
        let Some(decisions) = &mut self.machines[slot(id)].decisions else { return Ok(()) };
        let replica = &running.replica;
        let view = View {
            routing: routing_of(running, decisions.stopping.is_stopping()),
            applied: replica.applied_index(),
            last_log: replica.log().last().index,
            committed: replica.known_committed(),
            is_confirming: replica.is_confirming(),
        };
        event(&mut decisions.reads, now, &view, &mut out);
        for effect in out {
            if self.world.running(id).is_none() {
                break; // it died with an effect
            }
            match effect {
                Effect::Ask { token, by_lease: true, .. } => {
                    self.report.count("asked to read by lease", 1);
                    self.step(id, Event::ReadByLease(id, token))?;
                }
                Effect::Ask { token, .. } => self.step(id, Event::Read(id, token))?,
                Effect::Send(outgoing) => self.send(id, outgoing)?,
                Effect::Answer { waiter, outcome: Ok(granted) } => self.granted(id, waiter, granted)?,
                Effect::Answer { waiter, outcome: Err(error) } => {
                    self.say(|| format!("{id} refuses read {waiter}: {error}"));
                    self.take_reader(id, waiter)?;
                    self.report.count("reads refused", 1);
                }
                // Every plan spares what a quorum needs.
                Effect::DataLost { leader, index, committed } => {
                    return Err(format!(
                        "covered: {id} knows that {committed} is committed, and {leader} names {index}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// The state machine of a node has applied more entries: reads that waited for them are served.
    pub(super) fn serve_reads(&mut self, id: NodeId) -> Result<(), String> {
        let Some(applied) = self.world.running(id).map(|running| running.applied) else { return Ok(()) };
        loop {
            let Some(decisions) = &self.machines[slot(id)].decisions else { return Ok(()) };
            let is_due = |read: &&Waiting| read.granted.is_some_and(|granted| granted.index <= applied);
            let Some((token, granted)) = decisions.waiting.iter().find(is_due).map(|read| (read.token, read.granted))
            else {
                return Ok(());
            };
            if let Some(granted) = granted {
                self.serve(id, token, granted, applied)?;
            }
        }
    }

    /// Refuses the reads of a node that have waited too long for entries. All others must have
    /// an answer by their deadlines.
    pub(super) fn expire_reads(&mut self, id: NodeId, now: Moment) -> Result<(), String> {
        let Some(decisions) = &mut self.machines[slot(id)].decisions else { return Ok(()) };
        let timing = decisions.timing;
        let late = decisions.waiting.extract_if(.., |read| read.is_overdue(now, &timing)).collect::<Vec<_>>();
        for Waiting { token, granted, .. } in late {
            if granted.is_none() {
                return Err(format!("answered reads: {id} has no answer to read {token} by its deadline"));
            }
            self.report.count("reads behind", 1);
            self.clients.answered(token);
        }
        Ok(())
    }

    fn granted(&mut self, id: NodeId, token: ReadToken, granted: Granted) -> Result<(), String> {
        self.say(|| format!("{id} may serve read {token} at {}", granted.index));
        let waiting = self.machines[slot(id)].decisions.as_mut().map(|decisions| &mut decisions.waiting);
        let read = waiting.and_then(|waiting| waiting.iter_mut().find(|read| read.token == token));
        match read {
            Some(read) if read.granted.is_none() => read.granted = Some(granted),
            _ => return Err(format!("answered reads: {id} answers read {token}, which does not wait there")),
        }
        self.serve_reads(id)
    }

    /// The state machine of a node, which has applied entries up to `applied`, runs a read.
    fn serve(&mut self, id: NodeId, token: ReadToken, granted: Granted, applied: Index) -> Result<(), String> {
        let (now, shows) = (self.now(), self.world.now_of(id));
        let Waiting { consistency, floor, .. } = self.take_reader(id, token)?;
        if granted.bounded.is_some_and(|bounded| !bounded.holds(shows)) {
            self.report.count("reads too stale", 1);
            return Ok(());
        }
        let (property, floor) = match consistency {
            // Its bound holds at this moment.
            Consistency::Bounded { max_age: Some(_), .. } => ("bounded reads", self.past.floor(now, consistency)),
            Consistency::Bounded { .. } => ("bounded reads", floor),
            _ => ("linearizable reads", floor),
        };
        if applied < floor {
            return Err(format!("{property}: {id} serves read {token} at {applied}, and it must see {floor}"));
        }
        self.report.count(if property == "bounded reads" { property } else { "reads" }, 1);
        self.clients.served(token);
        Ok(())
    }

    /// Takes a read that gets its answer now.
    fn take_reader(&mut self, id: NodeId, token: ReadToken) -> Result<Waiting, String> {
        self.clients.answered(token);
        let decisions = self.machines[slot(id)].decisions.as_mut();
        let waiting = decisions.map(|decisions| &mut decisions.waiting);
        let at = waiting.as_ref().and_then(|waiting| waiting.iter().position(|read| read.token == token));
        match (waiting, at) {
            (Some(waiting), Some(at)) => Ok(waiting.swap_remove(at)),
            _ => Err(format!("answered reads: {id} answers read {token}, which does not wait there")),
        }
    }
}
