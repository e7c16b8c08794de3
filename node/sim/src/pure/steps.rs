//! One step of a walk: an event, its results, and the checks that follow it.

use super::walk::Walk;
use crate::runs::property;
use quorate_raft::{MessageRefusal, NodeId};
use quorate_world::{
    events::Event,
    node::{Actor, Ask, Note},
    world::Envelope,
};
use std::sync::Arc;

/// Once in this many steps everything is checked, not only the changes.
const CHECK_ALL_EVERY: u64 = 2_048;

impl Walk<'_> {
    /// Lets an event happen to a node.
    pub(super) fn step(&mut self, id: NodeId, event: Event) -> Result<(), String> {
        self.mix(code_of(&event), id);
        let stepped = self.world.step(event);
        self.after(id, stepped)
    }

    /// Lets an actor of a node handle its next task.
    pub(super) fn act(&mut self, id: NodeId, actor: Actor) -> Result<(), String> {
        if actor == Actor::Disk && self.disk_is_next(id)? {
            return Ok(());
        }
        if matches!(actor, Actor::Disk | Actor::Keeper) {
            self.wrote(id);
        }
        self.step(id, Event::Act(id, actor))?;
        self.rest(id);
        Ok(())
    }

    /// Lets a node handle a message of one of its actors.
    pub(super) fn listen(&mut self, id: NodeId, actor: Actor) -> Result<(), String> {
        let led = || self.world.running(id).is_some_and(|running| running.leads());
        let may_be_elected = actor == Actor::Collector && !led();
        self.step(id, Event::Listen(id, actor))?;
        if may_be_elected && let Some(running) = self.world.running(id).filter(|running| running.leads()) {
            let term = running.replica.term();
            self.report.count("elections", 1);
            self.say(|| format!("{id} leads term {term}"));
            self.world.check_versions(id)?;
        }
        if matches!(actor, Actor::Applier | Actor::Keeper) {
            self.decide_snapshots(id)?;
        }
        self.rest(id);
        Ok(())
    }

    /// Delivers a message to its receiver.
    pub(super) fn arrive(&mut self, envelope: Arc<Envelope>) -> Result<(), String> {
        let to = envelope.to;
        self.mix(40 + envelope.from.0, to);
        self.say(|| {
            format!("{to} hears from {}: {:?} of term {}", envelope.from, envelope.message.body, envelope.message.term)
        });
        if envelope.message.is_forwarded() {
            self.forwarded_arrives(envelope)?;
        } else {
            let stepped = self.world.deliver(envelope);
            self.after(to, stepped)?;
        }
        self.rest(to);
        Ok(())
    }

    /// Handles the results of a step: violations, messages and notes.
    pub(super) fn after(&mut self, id: NodeId, stepped: Result<(), String>) -> Result<(), String> {
        self.steps += 1;
        self.compare_with_full_checks(&stepped)?;
        stepped?;
        if self.steps.is_multiple_of(CHECK_ALL_EVERY) {
            self.world.check_all()?;
        }
        if !self.world.wire.is_empty() {
            self.post(id)?;
        }
        if !self.world.notes.is_empty() {
            let mut notes = std::mem::take(&mut self.world.notes);
            notes.drain(..).try_for_each(|(id, note)| self.heed(id, &note))?;
            self.world.notes = notes;
        }
        self.decide_after(id)
    }

    pub(super) fn post(&mut self, id: NodeId) -> Result<(), String> {
        let mut envelopes = std::mem::take(&mut self.world.wire);
        let mut dies = false;
        let now = self.now();
        for envelope in envelopes.drain(..) {
            if self.trace.has_text() {
                let said = format!(
                    "{id} says to {}: {:?} of term {}",
                    envelope.to, envelope.message.body, envelope.message.term
                );
                self.trace.say(now, &said);
            }
            self.network.post(envelope, now, &mut self.random, &mut self.report)?;
            if self.dies_with_this_effect(id) {
                dies = true; // later messages of this step are never sent
                break;
            }
        }
        self.world.wire = envelopes;
        if dies { self.die_with_an_effect(id) } else { Ok(()) }
    }

    fn heed(&mut self, id: NodeId, note: &Note) -> Result<(), String> {
        match note {
            Note::ReadsReady { index, tokens } => {
                self.say(|| format!("{id} confirms {tokens:?} at {index}"));
                self.decide_reads(id, |reads, now, view, out| reads.ready(*index, tokens, now, view, out))?;
            }
            Note::ReadsFailed { tokens } => {
                self.decide_reads(id, |reads, now, view, out| reads.failed(tokens, now, view, out))?;
            }
            Note::Applied(batch) => {
                self.say(|| format!("{id} applied {batch:?}"));
                self.commands_applied(id, batch)?;
                self.serve_reads(id)?;
            }
            Note::Restored(base) => {
                self.report.count("restored", 1);
                self.say(|| format!("{id} restored a snapshot up to {}", base.last));
                self.commands_covered(id, base.last.index)?;
                self.serve_reads(id)?;
            }
            Note::SnapshotWanted { peer, term, at_least } => self.snapshot_wanted(id, *peer, *term, *at_least)?,
            Note::Refused(reason) => {
                if *reason == MessageRefusal::StorageFull {
                    self.report.fired("full");
                }
                self.say(|| format!("{id} refuses: {reason:?}"));
            }
            Note::MachineUnknown => self.say(|| format!("{id} can't apply what a candidate writes")),
            Note::Observed(_) => {}
            Note::Diverged { at, with } => self.say(|| format!("{id} and {with} hold different content at {at}")),
            Note::DataLost { member, last, held } => {
                self.report.count("lost data named", 1);
                self.say(|| format!("{id} names {member}, whose log ends at {last} and which held entry {held}"));
                let is_whole = !self.world.emptied.contains(member);
                self.report.count("lost data named of a whole member", u64::from(is_whole));
                // Without a leader an old request can't be told from one of an emptied member.
                if is_whole && self.world.is_led(id) {
                    return Err(format!("lost data: {id} is led, and names {member}, whose disk lost nothing"));
                }
            }
            Note::LeadershipTransferEnded { to } => {
                self.say(|| format!("{id} leads on: {to} did not take over"));
                self.transfer_ended(id, *to)?;
            }
            Note::Removed { at } => {
                self.say(|| format!("{id} learns that {at} removed it"));
                self.was_removed(id);
            }
            Note::Halt(violation) => {
                self.say(|| format!("{id} halts: {violation}"));
                self.went_out(id);
            }
        }
        Ok(())
    }

    /// The checks that look at changes, and those that look at everything, must find the same.
    fn compare_with_full_checks(&mut self, stepped: &Result<(), String>) -> Result<(), String> {
        let Some(full) = &mut self.full else { return Ok(()) };
        let checked = self.world.check_by(full);
        match (stepped, &checked) {
            (Ok(()), Err(violation)) => Err(format!("full checks: they found what was overlooked: {violation}")),
            (Err(violation), Ok(())) if is_of_both(violation) => {
                Err(format!("full checks: they found nothing wrong after: {violation}"))
            }
            _ => Ok(()),
        }
    }

    /// Draws the fate of the next task of the disk: its sync may fail, and the node may die with
    /// it. True if the node is down now.
    fn disk_is_next(&mut self, id: NodeId) -> Result<bool, String> {
        let Some(running) = self.world.running(id) else { return Ok(true) };
        let Some(Ask::Persist(persist)) = running.asked.of(Actor::Disk).next() else { return Ok(false) };
        let repairs = u64::from(persist.repair.is_some());
        if repairs > 0 {
            self.report.count("repaired", repairs);
        }
        if self.trace.has_text() {
            let said = format!("{id} writes {persist:?}");
            self.trace.say(self.now(), &said);
        }
        if self.sync_fails(id)? {
            return Ok(true);
        }
        if self.dies_with_this_effect(id) {
            self.die_with_an_effect(id)?;
            return Ok(true);
        }
        Ok(false)
    }
}

/// Whether both kinds of checks see this violation; the others are seen only as they happen.
fn is_of_both(violation: &str) -> bool {
    const SEEN_AS_THEY_HAPPEN: [&str; 16] = [
        "changes",
        "durable promises",
        "one vote",
        "linearizable reads",
        "bounded queues",
        "credit",
        "window",
        "halt",
        "up-to-date votes",
        "protected leaders",
        "read index",
        "lease",
        "covered",
        "discards",
        "epochs",
        "outsiders",
    ];
    !SEEN_AS_THEY_HAPPEN.contains(&property(violation)) && !violation.contains(" is in state ")
}

fn code_of(event: &Event) -> u64 {
    let actor = |actor: &Actor| match actor {
        Actor::Collector => 0,
        Actor::Disk => 1,
        Actor::Keeper => 2,
        Actor::Applier => 3,
        Actor::Replicator(peer) => 3 + peer.0,
    };
    match event {
        Event::Act(_, who) => actor(who),
        Event::Listen(_, who) => 20 + actor(who),
        Event::Timeout(_) => 61,
        Event::Heartbeat(_) => 62,
        Event::Read(_, token) => 63 + (token << 8),
        Event::Snapshot(_) => 64,
        Event::Full(_, full) => 65 + u64::from(*full),
        Event::Lose(_, index, fault) => 67 + (index.0 << 8) + (*fault as u64),
        Event::LoseSnapshot(_) => 71,
        Event::Change(..) => 75,
        Event::TransferLeadership(..) => 76,
        Event::Crash(..) => 72,
        Event::Restart(_) => 73,
        Event::ReadByLease(_, token) => 75 + (token << 8),
        _ => 74,
    }
}
