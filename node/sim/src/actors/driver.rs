//! The driver of a run: it lets time pass turn by turn, with the plan's faults and then without, and
//! checks the cluster after every turn and at the end.

use super::{
    cluster::Cluster,
    member::{Member, State},
    operators,
    process::Process,
    sessions, timers,
};
use crate::plan::Power;
use quorate::{
    NodeId, NodeRole,
    events::{Severity, What},
};
use rand::Rng;
use std::{collections::BTreeMap, time::Duration};

/// The cluster's time that passes in a turn.
const TURN: Duration = Duration::from_millis(1);
/// The time after the last fault within which the cluster must serve and agree.
const HEALS_WITHIN: Duration = Duration::from_secs(30);
/// The time of rest that follows: some metrics are sampled once per heartbeat.
const AT_REST: Duration = Duration::from_millis(120);
/// The longest time after which an operator mends the halt of a release that is too old.
const MENDED_WITHIN_MS: u64 = 800;
/// The number of writes that must be acknowledged after the last fault.
const SERVES: usize = 5;

impl Cluster<'_> {
    /// Runs with the plan's faults, then without: the cluster must then heal, settle and pass
    /// the final checks.
    pub(super) fn run(&mut self) -> Result<(), String> {
        while self.now < self.plan.length {
            self.begin_and_end_faults();
            self.let_outsiders_speak();
            self.turn()?;
        }
        self.calm_down();
        let (deadline, asked) = (self.now + HEALS_WITHIN, self.clients.count());
        while self.clients.served_since(asked) < SERVES {
            self.turn()?;
            if self.now > deadline {
                return Err(format!(
                    "liveness: nobody is served {HEALS_WITHIN:?} after the last fault: {}",
                    self.state()
                ));
            }
        }
        self.clients.close();
        self.settle_until(deadline)?;
        let belong = self.leader_knows();
        let mut asked = running(&mut self.members);
        asked.retain(|id, _| belong.contains(id));
        let dropped = self.clients.ask_and_leave(&mut asked);
        self.settle_until(deadline)?;
        let lost = dropped.into_iter().find(|operation| self.observer.lock().index_of(*operation).is_none());
        if let Some(operation) = lost {
            return Err(format!("dropped callers: nobody waited for {operation}, and it never took effect"));
        }
        self.check_credit()?;
        self.check_sessions(self.now + HEALS_WITHIN)?;
        self.observer.lock().twin.outside.check_end()?;
        self.clients.check_linearizable()
    }

    /// Runs until all members agree, and for `AT_REST` longer.
    fn settle_until(&mut self, deadline: Duration) -> Result<(), String> {
        let mut since = self.now;
        while self.now < since + AT_REST {
            self.turn()?;
            if !self.is_settled() {
                since = self.now;
            }
            if self.now > deadline {
                return Err(format!("liveness: no agreement {HEALS_WITHIN:?} after the last fault: {}", self.state()));
            }
        }
        Ok(())
    }

    fn turn(&mut self) -> Result<(), String> {
        self.observer.lock().now = self.now;
        self.start_due();
        self.operator.operate(self.now, &mut self.members, &self.observer);
        self.wire.deliver(self.now);
        self.observer.lock().outside_advances();
        // After the last fault clients ask only members: a removed node may never learn of its
        // removal, and serves no request.
        let belong = if self.now < self.plan.length { Vec::new() } else { self.leader_knows() };
        let mut asked = running(&mut self.members);
        asked.retain(|id, _| belong.is_empty() || belong.contains(id));
        self.clients.ask(self.now, &mut asked);
        for member in &mut self.members {
            member.run_for(TURN);
        }
        self.now += TURN;
        self.observer.lock().now = self.now;
        self.clients.hear(self.now);
        self.look()?;
        self.observer.lock().violation().map_or(Ok(()), Err)
    }

    /// Checks every node's state, and handles the end of each node that has ended.
    fn look(&mut self) -> Result<(), String> {
        self.hear_events()?;
        for at in 0..self.members.len() {
            let member = &mut self.members[at];
            let (id, disk) = (member.id, self.observer.lock().disk(member.id).disk.clone());
            let State::Up(process) = &member.state else { continue };
            let (status, failure, is_closed) = (process.status(), process.failure(), process.is_closed());
            if status.role == NodeRole::Leader {
                let known = self.leaders.insert(status.term, id);
                match known {
                    None => {
                        let mut observer = self.observer.lock();
                        observer.report.count("elections", 1);
                        observer.trace.hash(&(id, status.term));
                        observer.say(format_args!("{id} leads term {}", status.term));
                    }
                    Some(other) if other != id => {
                        return Err(format!("election safety: {other} and {id} both led term {}", status.term));
                    }
                    Some(_) => {}
                }
            }
            member.look_alive(self.plan, self.now, status.role == NodeRole::Leader, &self.wire, &self.observer)?;
            member.knows_full = member.is_full && (member.knows_full || status.storage_full);
            let (commit, applied, last) = (status.commit, status.applied, status.last_log);
            if applied > commit || commit > last {
                return Err(format!("order of indexes: {id} applied {applied}, committed {commit}, has {last}"));
            }
            let leads = (status.role == NodeRole::Leader).then_some(status.term);
            member.look_for_calls(leads, &self.observer)?;
            if let Some(halted) = status.halted.as_ref().filter(|_| member.mended_at.is_none()) {
                let mut observer = self.observer.lock();
                let needs = observer.releases.halted(member, &halted.cause)?;
                observer.report.count("releases too old", 1);
                observer.say(format_args!("{id}: {halted}"));
                let pause = Duration::from_millis(self.random.random_range(0..MENDED_WITHIN_MS));
                (member.mended_at, member.needs) = (Some(self.now + pause), needs);
            }
            if member.mended_at.is_some_and(|at| at <= self.now) && failure.is_none() {
                member.is_mended(member.needs);
                self.kill(id, Power::Kept, Duration::from_millis(20));
                continue;
            }
            let dies = disk.is_halted() || self.wire.has_died(id);
            match failure {
                _ if dies => {
                    self.observer.lock().report.fired("crash-at-effect");
                    let (power, down) = member.dies_with;
                    self.kill(id, power, down);
                }
                Some(failure) => self.failed(id, &failure)?,
                None if is_closed => {
                    let down = member.dies_with.1;
                    self.kill(id, Power::Kept, down);
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Adds the nodes' events to the trace, and checks that no term elects twice, also where the
    /// leadership was over before the next look at a status.
    fn hear_events(&mut self) -> Result<(), String> {
        for member in &mut self.members {
            let Some(process) = member.process_mut() else { continue };
            for event in process.take_events() {
                let mut observer = self.observer.lock();
                observer.trace.hash(&(event.node, event.id, event.term, event.at_ms, event.text()));
                if event.severity() > Severity::Debug {
                    observer.say(format_args!("{}", event.text()));
                }
                if matches!(event.what, What::LeaderElected { .. })
                    && let Some(other) = self.elected.insert(event.term, event.node)
                {
                    let term = event.term;
                    return Err(format!(
                        "election safety: {other} and {} were both elected in term {term}",
                        event.node
                    ));
                }
            }
        }
        Ok(())
    }

    /// Handles a node that ended by itself: an error unless the plan explains it.
    fn failed(&mut self, id: NodeId, failure: &quorate::Failure) -> Result<(), String> {
        let member = &mut self.members[id.0 as usize - 1];
        let is_damaged = self.observer.lock().disk(id).is_damaged;
        self.observer.lock().say(format_args!("{id} ends: {failure}"));
        let words = failure.to_string();
        if matches!(failure, quorate::Failure::Removed { .. }) && self.plan.changes_members() {
            self.observer.lock().report.count("removed", 1);
            self.kill(id, Power::Kept, Duration::ZERO);
            let member = self.member(id);
            (member.state, member.was_removed) = (State::Out, true);
        } else if let Some(kind) = member.lost_by {
            self.observer.lock().report.fired(kind);
            self.kill(id, Power::Kept, Duration::ZERO);
            self.member(id).state = State::Out;
        } else if let Some((power, down)) = member.fails_with.take() {
            self.observer.lock().report.fired("sync-failure");
            self.kill(id, power, down);
        } else if member.is_full
            && matches!(failure, quorate::Failure::Storage(_))
            && (member.knows_full || self.observer.lock().promised(id).needs_a_segment())
        {
            // A write under way when the disk reports that it is full may not fit, nor may
            // one that needs a segment before the next is allocated. The node reports that,
            // and loses nothing.
            self.observer.lock().report.count("ended by a full disk", 1);
            self.kill(id, Power::Kept, Duration::from_millis(100));
        } else if self.observer.lock().releases.explain(member, &words) {
            self.observer.lock().report.count("releases too old", 1);
            let version = self.observer.lock().twin.version();
            member.is_mended(version);
            self.kill(id, Power::Kept, Duration::from_millis(100));
        } else if is_damaged && matches!(failure, quorate::Failure::Storage(_)) {
            // Damage may be found only when the data is read.
            self.observer.lock().report.count("ended by damage", 1);
            self.kill(id, Power::Kept, Duration::from_millis(100));
        } else {
            return Err(format!("unexpected end: of node {id}: {words}"));
        }
        Ok(())
    }

    /// Ends all faults, and lets every node start that can.
    fn calm_down(&mut self) {
        for (_, fault) in std::mem::take(&mut self.under_way) {
            self.end(fault);
        }
        self.wire.set_faults(Vec::new());
        self.wire.forget_plans();
        self.observer.lock().say(format_args!("no more faults"));
        operators::upgrade_all(&mut self.members);
        self.observer.lock().twin.outside.calm_down();
        for member in &mut self.members {
            // Pending crashes and disk failures are cancelled; pending restarts are due at once.
            self.observer.lock().disk(member.id).disk.forget_plans();
            member.fails_with = None;
            if let State::Down { until } = &mut member.state {
                *until = self.now;
            }
        }
    }

    /// The voters and learners that the leader of the latest term knows; empty without a leader.
    fn leader_knows(&self) -> Vec<NodeId> {
        let leads = |status: &quorate::Status| status.role == NodeRole::Leader;
        let leaders = self.members.iter().filter_map(Member::status).filter(leads);
        let leader = leaders.max_by_key(|status| status.term);
        leader.map_or_else(Vec::new, |leader| [leader.voters, leader.learners].concat())
    }

    /// Whether all members that can run follow one leader and have applied its whole log.
    /// Removed nodes do not count: a node may never learn of its removal if all nodes that it
    /// knew were removed too.
    fn is_settled(&self) -> bool {
        // A node that is stopping will start again.
        if self.members.iter().any(|member| matches!(&member.state, State::Up(process) if process.is_stopping())) {
            return false;
        }
        let belong = self.leader_knows();
        let in_it = self.members.iter().filter(|it| belong.contains(&it.id) && !matches!(it.state, State::Out));
        let Some(statuses) = in_it.map(Member::status).collect::<Option<Vec<_>>>() else { return false };
        let Some(leader) = statuses.iter().find(|status| status.role == NodeRole::Leader) else { return false };
        let agrees = |status: &quorate::Status| {
            status.leader == Some(leader.node)
                && status.term == leader.term
                && status.last_log == leader.last_log
                && status.applied == leader.last_log
                && status.faulty == 0
                // A caller may wait for a write that a slow disk has not finished.
                && self.observer.lock().disk(status.node).waiting == 0
        };
        statuses.iter().all(agrees)
            && self.clients.are_idle()
            && self.operator.has_its_goal(&self.members)
            && self.observer.lock().timers.have_all_fired()
            && self.has_its_version(leader)
            && self.observer.lock().twin.is_idle()
    }

    /// Whether the typed service has reached the version that every member applies. A member that
    /// is out for good may not have stated its own.
    fn has_its_version(&self, leader: &quorate::Status) -> bool {
        let of = |id: &NodeId| &self.members[id.0 as usize - 1];
        let members: Vec<_> = leader.voters.iter().chain(&leader.learners).map(of).collect();
        let of_all = members.iter().map(|member| member.next_release()).min();
        !timers::are_used(self.plan)
            || members.iter().any(|member| matches!(member.state, State::Out))
            || of_all.is_none_or(|of_all| of_all <= leader.schema_version)
    }

    /// At rest no proposal is in flight at any member. A node that is being removed may not
    /// be at rest.
    fn check_credit(&self) -> Result<(), String> {
        let (page, belong) = (self.metrics.render(), self.leader_knows());
        let is_there = |member: &&Member| matches!(member.state, State::Up(_)) && belong.contains(&member.id);
        for member in self.members.iter().filter(is_there) {
            let gauge = format!("quorate_proposals_in_flight{{node=\"{}\"}}", member.id);
            match page.lines().find_map(|line| line.strip_prefix(&gauge)) {
                Some(" 0") => {}
                held => {
                    return Err(format!("credit: nobody waits at {}, and {held:?} proposals are in flight", member.id));
                }
            }
        }
        Ok(())
    }

    /// All nodes hold the same sessions, within their bound: their snapshots of one
    /// entry are compared.
    fn check_sessions(&mut self, deadline: Duration) -> Result<(), String> {
        let (page, max) = (self.metrics.render(), f64::from(sessions::bounds(self.plan).max_sessions));
        for member in &mut self.members {
            let gauge = format!("quorate_sessions{{node=\"{}\"}} ", member.id);
            let Some(process) = member.process_mut() else { continue };
            let held = page.lines().find_map(|line| line.strip_prefix(&gauge)?.parse::<f64>().ok());
            if held.is_none_or(|held| held > max) {
                return Err(format!("sessions: {} remembers {held:?}, and there may be {max}", member.id));
            }
            let handle = process.node().clone();
            // The watched storage compares the snapshot as it is written.
            process.call(async move { drop(handle.snapshot().await) });
        }
        self.settle_until(deadline)
    }

    fn state(&self) -> String {
        let words = self.members.iter().map(|member| match member.status() {
            Some(status) => format!("\n  {status:?}"),
            None => format!("\n  {} is {}", member.id, member.state.in_a_word()),
        });
        words.collect()
    }
}

fn running(members: &mut [Member]) -> BTreeMap<NodeId, &mut Process> {
    members.iter_mut().filter_map(|member| Some((member.id, member.process_mut()?))).collect()
}
