//! The product's decisions beside the rules, driven for every node of a walk: where a command goes,
//! where it waits and what its caller is told ([`Proposals`]); when a snapshot is due, and which
//! peers it helps ([`SnapshotPolicy`]); how a membership change goes on ([`ChangeUnderWay`]).
//!
//! The walk carries the decisions out, as the actors do. Their state is volatile: it ends with its
//! node.

use super::{
    Walk,
    machines::{id_of, slot},
};
use quorate::decisions::{
    callers::{Answer, Caller, Proposal},
    membership_change::{self, ChangeUnderWay, Next, Tried},
    proposals::{Effect, Proposals, Settings, View},
    routing,
    snapshot_policy::{self, Decision, Need, SnapshotPolicy, Taken},
};
use quorate_raft::{
    AdministerOutcome, Batch, Body, Change, ChangeRefused, Index, Kind, Lookup, Member, Moment, NodeId, Outgoing, Role,
    Term, session::LogTime,
};
use quorate_world::{events::Event, node::Running, world::Envelope};
use std::{ops::Range, sync::Arc, time::Duration};

/// A caller of a node: the number of its command, which is used for no other.
type Waiter = u64;
/// Other nodes' commands have no bound of their own here.
type Place = ();

/// The decisions of one node in one life.
pub(super) struct Decisions {
    commands: Proposals<Waiter, Place>,
    snapshots: SnapshotPolicy,
    /// An operator asked for a snapshot.
    is_asked_for_snapshot: bool,
    /// A snapshot is being written.
    builds: bool,
    /// The leader and the term that the commands were last told of.
    leader: (Option<NodeId>, Term),
    /// The commit index up to which stranded commands were decided.
    commit: Index,
    change: Option<ChangeUnderWay>,
    /// The time by which deadlines are looked at again, by the node's clock.
    expire_at: Moment,
}

/// Interval between two looks at deadlines.
const EXPIRE_EVERY: Duration = Duration::from_millis(50);
/// The longest wait of a change for its new members to catch up.
const CATCH_UP_WAIT: Duration = Duration::from_secs(2);
/// A caller gives up after this time, or as soon as no leader was known for half of it.
const PROPOSAL_TIMEOUT: Duration = Duration::from_millis(600);

impl Decisions {
    /// Of a node that starts. No earlier life of any node has the number `life`.
    pub(super) fn new(life: u32, running: &Running, snapshot_every: u64, now: Moment) -> Self {
        let mut timing = quorate::Timing::default();
        let settings = &running.rules.settings;
        timing.election_timeout = (settings.election_timeout_min, settings.election_timeout_max);
        (timing.proposal_timeout, timing.leader_wait) = (PROPOSAL_TIMEOUT, PROPOSAL_TIMEOUT / 2);
        let settings = Settings { timing, limits: quorate::Limits::default(), sessions: quorate::Sessions::default() };
        let mut snapshots = quorate::Snapshots::default();
        (snapshots.every_entries, snapshots.every_bytes) = (snapshot_every, 0);
        let term = running.replica.term();
        Self {
            commands: Proposals::new(life, term, settings),
            snapshots: SnapshotPolicy::new(snapshots),
            is_asked_for_snapshot: false,
            builds: false,
            leader: (None, term),
            commit: Index(0),
            change: None,
            expire_at: now,
        }
    }
}

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
        let proposals = commands.map(proposal).collect();
        self.decide(id, |commands, now, view, out| commands.offered(proposals, now, view, out))
    }

    /// An operator asks a leader that these nodes vote, unless a change is under way there.
    pub(super) fn begin_change(&mut self, id: NodeId, voters: Vec<NodeId>) {
        let (now, Some(running)) = (self.world.now_of(id), self.world.running(id)) else { return };
        let Some(decisions) = self.machines[slot(id)].decisions.as_mut().filter(|it| it.change.is_none()) else {
            return;
        };
        let membership = running.replica.membership();
        let member = |id| match membership.contains(id) {
            true => Member::from(id),
            false => Member::from((id, format!("node-{id}"))),
        };
        let change = Change::set_voters(voters.into_iter().map(member));
        let begun = ChangeUnderWay::begin(change.clone(), now.plus(CATCH_UP_WAIT), &changing(running));
        let refused = begun.as_ref().err().cloned();
        decisions.change = begun.ok();
        self.say(|| format!("{id} is asked for {change:?}, refused: {refused:?}"));
    }

    /// Takes the next steps of the change that a node carries out, as far as they can be taken now.
    pub(super) fn continue_change(&mut self, id: NodeId) -> Result<(), String> {
        loop {
            self.end_change_if_done(id);
            let (now, Some(running)) = (self.world.now_of(id), self.world.running(id)) else { return Ok(()) };
            let Some(decisions) = &mut self.machines[slot(id)].decisions else { return Ok(()) };
            let Some(change) = &decisions.change else { return Ok(()) };
            let next = match change.next(&changing(running)) {
                None | Some(Next::Undone) => return Ok(()),
                Some(next) => next,
            };
            let mut outcome = Err(ChangeRefused::NotReady);
            if let Next::Add(step, _) | Next::Last(step) | Next::Undo(step) = &next {
                self.mix(76, id);
                self.say(|| format!("{id} is to take {next:?}"));
                let stepped = self.world.change_members(id, step, &mut outcome);
                self.after(id, stepped)?;
            }
            if outcome.is_ok() {
                self.report.fired("change");
            }
            self.say(|| format!("{id} took it: {outcome:?}"));
            let Some(decisions) = &mut self.machines[slot(id)].decisions else { return Ok(()) };
            let Some(change) = &mut decisions.change else { return Ok(()) };
            match change.tried(next, outcome, now, now.plus(PROPOSAL_TIMEOUT / 2)) {
                Tried::Wait => {
                    self.end_change_if_done(id);
                    return Ok(());
                }
                Tried::Again => {}
                Tried::Over(_) => {
                    decisions.change = None;
                    return Ok(());
                }
            }
        }
    }

    /// Ends the change under way, if it is committed or can't be carried out by this node any more.
    fn end_change_if_done(&mut self, id: NodeId) {
        let (now, Some(running)) = (self.world.now_of(id), self.world.running(id)) else { return };
        let Some(decisions) = &mut self.machines[slot(id)].decisions else { return };
        let outcome = decisions.change.as_ref().and_then(|change| change.outcome(now, &changing(running)));
        if let Some(outcome) = outcome {
            decisions.change = None;
            let kind = match outcome {
                AdministerOutcome::Changed(_) => "changes made",
                AdministerOutcome::ChangeRefused(_) => "changes refused",
                _ => "changes with unknown outcome",
            };
            self.report.count(kind, 1);
            self.say(|| format!("{id} tells the operator {outcome:?}"));
        }
    }

    /// Serves a message that carries commands or their outcomes. The rules see its term first.
    pub(super) fn commands_arrive(&mut self, envelope: Arc<Envelope>) -> Result<(), String> {
        let (from, to, term) = (envelope.from, envelope.to, envelope.message.term);
        let Some(running) = self.world.running(to) else { return Ok(()) };
        let is_outside = running.replica.is_outside(from);
        // An answer counts if this node asked its sender, even if the sender has left since; its
        // term does not.
        if !is_outside || matches!(envelope.message.body, Body::Propose(_)) {
            let stepped = self.world.deliver(Arc::clone(&envelope));
            self.after(to, stepped)?;
        }
        match Arc::unwrap_or_clone(envelope).message.body {
            Body::Propose(propose) => self.decide(to, |commands, now, view, out| {
                commands.arrived((from, term, is_outside), propose, |_| Some(()), now, view, out);
            }),
            Body::ProposeReply(reply) => self.decide(to, |commands, now, view, out| {
                commands.answered((from, term), reply, Duration::from_millis(50), now, view, out);
            }),
            _ => Ok(()),
        }
    }

    /// Lets the decisions of a node follow a step of it.
    pub(super) fn decide_after(&mut self, id: NodeId) -> Result<(), String> {
        let Some(running) = self.world.running(id) else { return Ok(()) };
        let (replica, Some(decisions)) = (&running.replica, &mut self.machines[slot(id)].decisions) else {
            return Ok(());
        };
        let (leader, commit) = ((replica.leader(), replica.term()), replica.commit());
        let (is_new, changes) = (leader != decisions.leader, decisions.change.is_some());
        let advanced = commit > decisions.commit;
        (decisions.leader, decisions.commit) = (leader, commit);
        if is_new {
            self.decide(id, |commands, now, view, _| commands.leader_changed(now, view))?;
            if leader.0.is_some() {
                self.decide(id, Proposals::leader_reachable)?;
            }
        }
        if changes {
            self.end_change_if_done(id);
        }
        if advanced {
            self.decide_stranded(id)?;
            if self.commands_of(id).is_some_and(|commands| commands.is_large_due(commit)) {
                self.decide(id, Proposals::large_due)?;
            }
        }
        Ok(())
    }

    /// Lets the decisions of a node see that time passes.
    pub(super) fn decide_in_time(&mut self, at: usize) -> Result<(), String> {
        let (id, now) = (id_of(at), self.world.now_of(id_of(at)));
        let Some(decisions) = self.machines[at].decisions.as_mut().filter(|decisions| decisions.expire_at <= now)
        else {
            return Ok(());
        };
        decisions.expire_at = now.plus(EXPIRE_EVERY);
        if decisions.commands.is_empty() {
            return Ok(());
        }
        self.decide(id, |commands, now, view, out| commands.expire(EXPIRE_EVERY, now, view, out))
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
            oracle.operation_applied(command, record.id.index)?;
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
                        answers.push(Answer { node, request, outcome: Ok(applied) });
                    }
                }
                index = index.next();
            }
        }
        if answers.is_empty() {
            return Ok(());
        }
        self.decide(id, |commands, now, view, out| commands.applied(LogTime::default(), answers, now, view, out))
    }

    /// A snapshot took the place of a node's entries up to `index`.
    pub(super) fn commands_covered(&mut self, id: NodeId, index: Index) -> Result<(), String> {
        if let Some(decisions) = &mut self.machines[slot(id)].decisions {
            decisions.snapshots.restoring();
        }
        self.decide(id, |commands, _, view, out| commands.covered(index, view, out))
    }

    /// A peer of a leader needs a snapshot that covers this entry.
    pub(super) fn snapshot_wanted(
        &mut self,
        id: NodeId,
        peer: NodeId,
        term: Term,
        at_least: Index,
    ) -> Result<(), String> {
        if let Some(decisions) = &mut self.machines[slot(id)].decisions {
            decisions.snapshots.needed(peer, Need { term, at_least, anew: false });
        }
        self.decide_snapshots(id)
    }

    /// An operator asks a node for a snapshot; false if there is none to be taken now.
    pub(super) fn ask_for_snapshot(&mut self, id: NodeId) -> Result<bool, String> {
        let Some(decisions) = &mut self.machines[slot(id)].decisions else { return Ok(false) };
        decisions.is_asked_for_snapshot = true;
        let builds = decisions.builds;
        self.decide_snapshots(id)?;
        Ok(!builds && self.machines[slot(id)].decisions.as_ref().is_some_and(|decisions| decisions.builds))
    }

    /// Takes a snapshot of a node if one is due, and offers the newest one to the peers that
    /// it helps.
    pub(super) fn decide_snapshots(&mut self, id: NodeId) -> Result<(), String> {
        let (now, Some(running)) = (self.world.now_of(id), self.world.running(id)) else { return Ok(()) };
        let Some(decisions) = &mut self.machines[slot(id)].decisions else { return Ok(()) };
        let (replica, policy) = (&running.replica, &mut decisions.snapshots);
        if decisions.builds && !running.saving {
            decisions.builds = false;
            policy.built();
        }
        let (applied, newest) = (replica.applied_index(), replica.snapshot_index());
        let view = snapshot_policy::View {
            applied,
            newest,
            knows_members: !replica.membership_at(applied).is_empty(),
            is_restoring: newest > applied,
            has_callers: decisions.is_asked_for_snapshot,
        };
        let builds = policy.decide(|| now, &view) == Decision::Build;
        if builds {
            decisions.is_asked_for_snapshot = false;
        }
        match policy.state_taken(running.applied, newest).filter(|_| builds) {
            Some(Taken::Write) => self.build(id)?,
            Some(Taken::Covered) => policy.built(),
            None => {}
        }
        self.offer_snapshots(id)
    }

    fn build(&mut self, id: NodeId) -> Result<(), String> {
        self.step(id, Event::Snapshot(id))?;
        let (now, saves) = (self.world.now_of(id), self.world.running(id).is_some_and(|running| running.saving));
        let Some(decisions) = &mut self.machines[slot(id)].decisions else { return Ok(()) };
        decisions.builds = saves;
        if saves {
            self.report.count("snapshots", 1);
        } else {
            decisions.snapshots.failed(now);
        }
        Ok(())
    }

    fn offer_snapshots(&mut self, id: NodeId) -> Result<(), String> {
        let Some(running) = self.world.running(id).filter(|running| running.leads()) else { return Ok(()) };
        let (term, newest, base) =
            (running.replica.term(), running.replica.snapshot_index(), running.replica.log().base().index);
        let Some(decisions) = &mut self.machines[slot(id)].decisions else { return Ok(()) };
        let found = self.world.node(id).disk.snapshot.as_ref().map(|snapshot| snapshot.last.index);
        let mut helped = decisions.snapshots.helped(term, newest);
        helped.retain(|(peer, need)| decisions.snapshots.opened(*peer, *need, found, base));
        for (peer, _) in helped {
            let stepped = self.world.offer_snapshot(id, peer);
            self.after(id, stepped)?;
        }
        Ok(())
    }

    /// Leadership stays where it is: commands that waited for the transfer are taken again.
    pub(super) fn commands_released(&mut self, id: NodeId) -> Result<(), String> {
        self.decide(id, Proposals::leader_reachable)
    }

    /// The link from a node to a peer was lost, and with it answers on their way.
    pub(super) fn commands_lose(&mut self, id: NodeId, peer: NodeId) -> Result<(), String> {
        self.decide(id, |commands, _, _, out| commands.peer_lost(peer, out))
    }

    fn decide_stranded(&mut self, id: NodeId) -> Result<(), String> {
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

    fn commands_of(&self, id: NodeId) -> Option<&Proposals<Waiter, Place>> {
        self.machines[slot(id)].decisions.as_ref().map(|decisions| &decisions.commands)
    }

    /// Calls one decision about commands, and performs its effects.
    fn decide(
        &mut self,
        id: NodeId,
        event: impl FnOnce(&mut Proposals<Waiter, Place>, Moment, &View, &mut Vec<Effect<Waiter, Place>>),
    ) -> Result<(), String> {
        let (now, mut out) = (self.world.now_of(id), Vec::new());
        let Some(running) = self.world.running(id) else { return Ok(()) };
        let view = view_of(running);
        let Some(decisions) = &mut self.machines[slot(id)].decisions else { return Ok(()) };
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
            let Some(laid_out) = decisions.commands.lay_out(&mut commands, builder, now) else {
                let left = commands.collect();
                return self.decide(id, |commands, now, view, out| commands.offered(left, now, view, out));
            };
            let stepped = self.world.propose_batch(id, laid_out.batch);
            self.after(id, stepped)?;
        }
        Ok(())
    }

    fn send(&mut self, from: NodeId, Outgoing { to, message }: Outgoing) -> Result<(), String> {
        let kind = if matches!(message.body, Body::Propose(_)) { "commands forwarded" } else { "outcomes sent" };
        self.report.count(kind, 1);
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
            Some(Ok(index)) => oracle.operation_acknowledged(command, index)?,
            Some(Err(_)) => {
                self.report.count("writes refused", 1);
                oracle.operation_refused(command)?;
            }
            None => self.report.count("writes unknown", 1),
        }
        self.written(command, matches!(outcome, Some(Ok(_))));
        Ok(())
    }
}

fn changing(running: &Running) -> membership_change::View<'_> {
    let replica = &running.replica;
    membership_change::View {
        membership: replica.membership(),
        index: replica.membership_index(),
        is_settled: replica.is_settled(),
        is_leader: replica.is_leader(),
    }
}

fn view_of(running: &Running) -> View {
    let replica = &running.replica;
    let is_leader = matches!(replica.role(), Role::Leader(_));
    let routing = routing::View {
        is_leader,
        term: replica.term(),
        known_leader: replica.leader(),
        leader: replica.leader().filter(|_| !is_leader),
        is_stopping: false,
        holds_proposals: replica.holds_proposals(),
        is_storage_full: replica.is_storage_full(),
        // It matters only where the storage is full.
        is_alone: replica.is_storage_full() && replica.peers().is_empty(),
    };
    View { routing, last_log: replica.log().last().index, commit: replica.commit() }
}
