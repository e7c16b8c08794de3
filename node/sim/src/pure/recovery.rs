//! The end of a walk, without faults: within a bound a leader is elected, commits and serves, every
//! member has applied all that is committed, and nothing is left in flight.

use super::{
    machine::{Machine, id_of},
    walk::Walk,
};
use quorate::Consistency;
use quorate_raft::{NodeId, Term};
use quorate_world::node::Running;
use std::time::Duration;

/// The cluster has this much of its own time to recover.
const RECOVERY: Duration = Duration::from_secs(20);
/// The most steps that recovery may take: the cluster must not be busy with itself.
const STEPS_MAX: u64 = 150_000;
/// The longest average step of a recovery, in nanoseconds.
const PACE_MAX: u64 = 20_000;
/// Pause between two looks at the cluster; a new leader is asked to serve at such a look.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The requests that were made of one leader in one term.
#[derive(Clone, Copy)]
struct Asked {
    leader: NodeId,
    term: Term,
}

impl Walk<'_> {
    pub(super) fn recover(&mut self) -> Result<(), String> {
        self.end_faults()?;
        let (began, steps_before) = (self.now(), self.steps);
        let before = self.world.oracle.last_committed();
        let mut asked: Option<Asked> = None;
        let mut next_look = began;
        while self.now() < began + RECOVERY && self.steps < steps_before + STEPS_MAX {
            self.go_on(next_look)?;
            if self.now() < next_look {
                continue;
            }
            next_look = self.now() + LOOK_EVERY;
            let Some((term, leader)) = self.world.leaders().first().copied() else { continue };
            if self.world.running(leader).is_some_and(|running| running.replica.holds_proposals()) {
                continue; // leadership is about to move
            }
            match asked {
                Some(asked) if asked.term == term && !self.clients.is_refused() => {
                    let is_new = self.world.oracle.last_committed() > before;
                    if is_new
                        && self.clients.is_served()
                        && self.agree()
                        && self.is_at_rest(asked.leader)
                        && self.is_led_as_preferred(asked.leader)
                    {
                        return self.last_look(began);
                    }
                }
                _ => {
                    let token = self.clients.awaited_token();
                    let commands = self.clients.commands(1);
                    self.offer(leader, commands)?;
                    self.read(leader, token, Consistency::Linearizable)?;
                    asked = Some(Asked { leader, term });
                }
            }
        }
        let states = self.world.nodes.iter().map(|node| match &node.running {
            None => format!("; {} is down", node.id),
            Some(running) => format!("; {}", in_words(running)),
        });
        let took = self.now() - began;
        Err(format!(
            "recovery: not within {took:?} and {} steps{}",
            self.steps - steps_before,
            states.collect::<String>()
        ))
    }

    fn end_faults(&mut self) -> Result<(), String> {
        self.say(|| "the faults are over".into());
        self.healing = true;
        self.agenda.finish();
        let held_back = self.machines.iter().filter(|machine| machine.empties || machine.puts_back).count();
        self.report.count("held back", held_back as u64);
        self.machines.iter_mut().for_each(Machine::heal);
        self.now_at_work()?;
        self.pace = self.pace.min(PACE_MAX);
        self.end_pauses();
        self.upgrade_all()?;
        for at in 0..self.machines.len() {
            if !self.machines[at].out && self.world.running(id_of(at)).is_none() {
                self.restart(at)?;
            }
        }
        Ok(())
    }

    /// Whether every member has applied the longest log in full and lacks no entry, every emptied
    /// node was told of its loss, and the members are those that the operator wants.
    fn agree(&self) -> bool {
        let is_member = |id: NodeId| self.is_member(id.0 as usize - 1) && !self.world.emptied.contains(&id);
        let members = || self.world.nodes.iter().filter(|node| is_member(node.id));
        let replicas = self.world.replicas().filter(|replica| is_member(replica.id()));
        let last = replicas.map(|replica| replica.log().last()).max();
        let has_all = |running: &Running| {
            Some(running.replica.log().last()) == last && Some(running.applied) == last.map(|last| last.index)
        };
        let whole =
            |running: &Running| running.replica.first_faulty().is_none() && running.replica.lost_up_to().is_none();
        members().all(|node| node.running.as_ref().is_some_and(|running| has_all(running) && whole(running)))
            && self.world.emptied.iter().all(|id| self.machines[id.0 as usize - 1].out)
            && self.is_as_wanted()
    }

    /// Whether the leader has nothing in flight: all credit of its peers has come back.
    fn is_at_rest(&self, leader: NodeId) -> bool {
        let Some(running) = self.world.running(leader) else { return false };
        let members = running.replicators.iter().filter(|(peer, _)| !self.world.emptied.contains(peer));
        members.map(|(_, replicator)| replicator.progress()).all(|peer| peer.in_flight_bytes() == 0 && peer.lag() == 0)
    }

    fn last_look(&mut self, began: Duration) -> Result<(), String> {
        self.world.check_all()?;
        self.check_refused_changes()?;
        let took = self.now() - began;
        self.report.count("recovery ms", u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        self.say(|| format!("recovered after {took:?}"));
        for running in self.world.nodes.iter().filter_map(|node| node.running.as_ref()) {
            self.trace.hash(&(running.applied, running.state, running.replica.term()));
        }
        Ok(())
    }
}

fn in_words(running: &Running) -> String {
    let replica = &running.replica;
    let (id, term, log) = (replica.id(), replica.term(), replica.log());
    let (faulty, lost, new) = (replica.first_faulty(), replica.lost_up_to(), replica.is_new());
    let role = match replica.is_leader() {
        true => "leads",
        false => "is in",
    };
    format!(
        "{id} {role} term {term}, log {}..{}, commit {}, applied {}, snapshot {}, faulty {faulty:?}, lost {lost:?}, new {new}",
        log.base(),
        log.last(),
        replica.commit(),
        running.applied,
        replica.snapshot_index()
    )
}
