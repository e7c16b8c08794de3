//! Requests of operators: where each of them is carried out, and what its operator is told
//! ([`Operators`]).
//!
//! Each change moves one of its members to an address that no other request names, and labels it
//! with its number, so that a configuration tells which requests took effect.

use super::{deciding::routing_of, machine::slot, walk::Walk};
use quorate::decisions::{
    membership_change,
    operators::{Effect, Operator, Operators, View},
};
use quorate_raft::{
    AdministerOutcome, Administration, Body, Change, ChangeRefused, Index, Membership, MetadataUpdate, Moment, NodeId,
    Outgoing, TransferRefused,
};

impl Walk<'_> {
    /// The operator asks a node, which must not have a request of the operator already.
    pub(super) fn administer(&mut self, id: NodeId, what: impl FnOnce(u64) -> Administration) -> Result<(), String> {
        let (now, Some(decisions)) = (self.world.now_of(id), &self.machines[slot(id)].decisions) else {
            return Ok(());
        };
        let timing = decisions.timing;
        let transfer = timing.leader_wait + timing.election_timeout.1 * 10;
        let wait = transfer.max(timing.catch_up_wait + timing.leader_wait * 2);
        let number = self.operator.number();
        let what = what(number);
        let is_change = matches!(what, Administration::Change(_));
        self.operator.asks(number, id, is_change, now.plus(timing.leader_wait + wait));
        self.mix(76, id);
        self.say(|| format!("{id} is given request {number}: {what:?}"));
        self.decide_operators(id, |operators, now, view, out| {
            operators.offered(what, Operator::Here(number), now, view, out);
        })
    }

    /// Calls one decision about operators' requests, and performs its effects.
    pub(super) fn decide_operators(
        &mut self,
        id: NodeId,
        event: impl FnOnce(&mut Operators<u64>, Moment, &View<'_>, &mut Vec<Effect<u64>>),
    ) -> Result<(), String> {
        let (now, mut out) = (self.world.now_of(id), Vec::new());
        let Some(running) = self.world.running(id) else { return Ok(()) };
        let Some(decisions) = &mut self.machines[slot(id)].decisions else { return Ok(()) };
        let replica = &running.replica;
        let change = membership_change::View {
            membership: replica.membership(),
            index: replica.membership_index(),
            is_settled: replica.is_settled(),
            is_leader: replica.is_leader(),
        };
        let view = View { this: id, routing: routing_of(running, decisions.stopping.is_stopping()), change };
        event(&mut decisions.operators, now, &view, &mut out);
        for effect in out {
            if self.world.running(id).is_none() {
                break; // it died with an effect
            }
            match effect {
                Effect::Send(outgoing) => self.send_for_operators(id, outgoing)?,
                Effect::Answer { waiter, outcome } => self.operator_hears(id, waiter, &outcome)?,
                Effect::Change(change) => self.try_change(id, &change)?,
                Effect::Transfer { to, operator } => self.try_transfer(id, to, operator)?,
                Effect::Duplicate { .. } => self.report.count("duplicate request", 1),
            }
        }
        Ok(())
    }

    /// Every request must have an answer by its deadline, unless its node is still about to carry
    /// a change out: that may take as long as a quorum takes.
    pub(super) fn expire_operators(&mut self, id: NodeId, now: Moment) -> Result<(), String> {
        self.decide_operators(id, Operators::expire)?;
        let Some(decisions) = &self.machines[slot(id)].decisions else { return Ok(()) };
        let overdue = self.operator.overdue(id, now).filter(|_| !decisions.operators.has_change());
        overdue
            .map_or(Ok(()), |number| Err(format!("answered requests: {id} has no answer to {number} by its deadline")))
    }

    /// The target of a transfer did not take over.
    pub(super) fn transfer_ended(&mut self, id: NodeId, to: NodeId) -> Result<(), String> {
        if let Some(decisions) = &mut self.machines[slot(id)].decisions {
            decisions.operators.transfer_ended(to);
        }
        self.decide_operators(id, |operators, _, view, out| operators.tell_of_ended_transfer(view, out))?;
        self.leader_reachable(id)
    }

    /// Changes that were refused must never take effect.
    pub(super) fn check_refused_changes(&self) -> Result<(), String> {
        let was_refused = |number: Option<u64>| number.is_some_and(|number| self.operator.was_refused(number));
        let members = self.world.members();
        let by_address = |(id, address): (&NodeId, &String)| was_refused(number_in(address)).then_some(*id);
        let by_label = |id: &NodeId| was_refused(label_of(members, *id)).then_some(*id);
        let taken = members.addresses().iter().find_map(by_address);
        let taken = taken.or_else(|| members.descriptions().keys().find_map(by_label));
        taken.map_or(Ok(()), |id| {
            let (address, label) = (members.address(id), label_of(members, id));
            Err(format!(
                "definite failures: a change that was refused took effect: member {id} is at {address:?} and has label {label:?}"
            ))
        })
    }

    fn try_change(&mut self, id: NodeId, change: &Change) -> Result<(), String> {
        let mut outcome = Err(ChangeRefused::NotReady);
        let stepped = self.world.change_members(id, change, &mut outcome);
        self.say(|| format!("{id} was to take {change:?}: {outcome:?}"));
        if outcome.is_ok() {
            self.report.fired("change");
        }
        self.after(id, stepped)?;
        self.decide_operators(id, |operators, now, view, out| operators.change_tried(outcome, now, view, out))
    }

    fn try_transfer(&mut self, id: NodeId, to: Option<NodeId>, operator: Operator<u64>) -> Result<(), String> {
        let mut outcome = Err(TransferRefused::NotLeader);
        let stepped = self.world.on(id, |node, context| {
            let now = context.now;
            node.rule(context, |replica, out| outcome = replica.transfer_leadership(now, to, out));
        });
        let number = match &operator {
            Operator::Here(number) => Some(*number),
            Operator::There { node, request } => self.operator.number_of(*node, *request),
        };
        if outcome.is_ok_and(|to| to != id) {
            self.report.fired("leadership-transfer");
            number.into_iter().for_each(|number| self.operator.begun(number));
        }
        self.say(|| format!("{id} was to transfer leadership to {to:?}: {outcome:?}"));
        self.after(id, stepped)?;
        self.decide_operators(id, |operators, now, view, out| {
            operators.transfer_tried(operator, outcome, now, view, out);
        })
    }

    fn send_for_operators(&mut self, id: NodeId, outgoing: Outgoing) -> Result<(), String> {
        match &outgoing.message.body {
            Body::Administer(administer) => self.operator.forwards(id, administer.request),
            Body::Administered(answer) => {
                if let (Some(number), AdministerOutcome::Changed(index)) =
                    (self.operator.number_of(outgoing.to, answer.request), &answer.outcome)
                {
                    self.must_have_changed(id, number, *index)?;
                }
            }
            _ => {}
        }
        self.send(id, outgoing)
    }

    /// Tells the operator the outcome of its request to a node.
    fn operator_hears(&mut self, id: NodeId, number: u64, outcome: &AdministerOutcome) -> Result<(), String> {
        self.say(|| format!("{id} answers request {number}: {outcome:?}"));
        let Some(was_forwarded) = self.operator.answered(id, number) else {
            return Err(format!("answered requests: {id} answers {number}, which does not wait there"));
        };
        match outcome {
            AdministerOutcome::Changed(index) => {
                self.report.count("changes made", 1);
                if !was_forwarded {
                    self.must_have_changed(id, number, *index)?;
                }
            }
            AdministerOutcome::ChangeRefused(_) => {
                self.report.count("changes refused", 1);
                self.operator.refused(number);
                self.check_refused_changes()?;
            }
            AdministerOutcome::Transferred(_) => self.report.count("transfers made", 1),
            AdministerOutcome::TransferRefused(TransferRefused::GivenUp { .. }) => {
                self.report.count("transfers given up", 1);
            }
            AdministerOutcome::TransferRefused(why) => {
                self.report.count("transfers refused", 1);
                if self.operator.has_begun(number) {
                    return Err(format!("definite failures: transfer {number} began, and is answered: {why}"));
                }
            }
            AdministerOutcome::Unknown => self.report.count("requests with unknown outcome", 1),
        }
        Ok(())
    }

    /// A leader says that a change is committed with the entry at `index`.
    fn must_have_changed(&self, leader: NodeId, number: u64, index: Index) -> Result<(), String> {
        let Some(running) = self.world.running(leader) else { return Ok(()) };
        let mut configurations = running.replica.configurations();
        let is_there = configurations.any(|(at, members)| {
            let is_of_it = |(id, address): (&NodeId, &String)| {
                number_in(address) == Some(number) && label_of(members, *id) == Some(number)
            };
            *at == index && members.addresses().iter().any(is_of_it)
        });
        if is_there && index <= self.world.oracle.last_committed().index {
            return Ok(());
        }
        Err(format!("acknowledged changes: {leader} says that {number} is in force with {index}, and it is not"))
    }
}

/// The label that tells the request which gave a member its address.
const REQUEST: &str = "request";

/// The part of a request that labels a member.
pub(super) fn labelled(member: NodeId, number: u64) -> Change {
    Change::describe(member, MetadataUpdate::default().with_label(REQUEST, number.to_string()))
}

/// The request that labelled a member last.
fn label_of(members: &Membership, id: NodeId) -> Option<u64> {
    members.metadata(id)?.labels().get(REQUEST)?.parse().ok()
}

/// The address that a request gives a member.
pub(super) fn address_of(member: NodeId, number: u64) -> String {
    format!("node-{member}-{number}")
}

/// The request that gave a member this address; none for an address of no request.
fn number_in(address: &str) -> Option<u64> {
    address.strip_prefix("node-")?.split_once('-')?.1.parse().ok()
}
