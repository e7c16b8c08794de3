//! Operators' requests: where a membership change or a leadership transfer is carried out, and the
//! answer to its operator.
//!
//! Any node takes a request and forwards it to the leader, which carries it out and answers when it
//! is committed, refused, or its outcome is unknown. [`ChangeUnderWay`] decides the steps of a
//! change. There is one change at a time: a second one is refused as pending. But members publish
//! their metadata by themselves, which no operator expects, so a change waits for one of metadata
//! alone.

use super::{
    membership_change::{self, ChangeUnderWay, Next, Tried},
    request_ids::{Arrival, DuplicateFilter, RequestIds},
    routing::{self, Route},
};
use crate::config::Timing;
use quorate_raft::{
    Administer, AdministerOutcome, Administered, Administration, Body, Change, ChangeRefused, Index, Message, Moment,
    NodeId, Outgoing, Term, TransferRefused,
};
use std::collections::BTreeMap;

/// The operators that wait for an answer. A method takes one event and pushes [`Effect`]s, which
/// its caller performs in order. `W` is the way to answer an operator of this node.
#[derive(Debug)]
pub struct Operators<W> {
    change: Option<(ChangeUnderWay, Operator<W>)>,
    /// The step of the change that the rules are asked to take.
    trying: Option<Next>,
    transfers: Vec<Transfer<W>>,
    /// Changes that wait for the one under way, which is of metadata alone, until their deadlines.
    waiting: Vec<(Change, Operator<W>, Moment)>,
    /// No leader can be reached: these wait for one, until their deadlines.
    deferred: Vec<(Administration, Operator<W>, Moment)>,
    /// The leader, the operator and the deadline, by the id of the request.
    at_leader: BTreeMap<u64, (NodeId, Operator<W>, Moment)>,
    /// The target of a transfer that was given up, until the operators are told.
    ended_transfer: Option<NodeId>,
    ids: RequestIds,
    duplicates: DuplicateFilter,
    timing: Timing,
}

/// The operator that waits for an answer.
#[derive(Debug)]
pub enum Operator<W> {
    /// A caller of this node's handle.
    Here(W),
    /// Another node, which forwarded the request.
    There { node: NodeId, request: u64 },
}

/// A transfer that the rules have begun.
#[derive(Debug)]
struct Transfer<W> {
    operator: Operator<W>,
    deadline: Moment,
}

/// The node's part in the cluster, and the configuration in force.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub this: NodeId,
    pub routing: routing::View,
    pub change: membership_change::View<'a>,
}

/// A decision, to be carried out.
#[derive(Debug)]
pub enum Effect<W> {
    Send(Outgoing),
    /// Tell an operator of this node.
    Answer {
        waiter: W,
        outcome: AdministerOutcome,
    },
    /// Ask the rules for this change: [`Operators::change_tried`] takes their answer.
    Change(Change),
    /// Ask the rules for a transfer: [`Operators::transfer_tried`] takes their answer.
    Transfer {
        to: Option<NodeId>,
        operator: Operator<W>,
    },
    /// Count a message that was dropped, because its request had arrived before.
    Duplicate {
        /// The node that sent it.
        from: NodeId,
    },
}

/// The most operators that wait at a time, besides that of the change under way.
const OPERATORS_MAX: usize = 64;

type Effects<W> = Vec<Effect<W>>;

impl<W> Operators<W> {
    /// `life` is random: it differs from that of every earlier process of this node. The node starts
    /// with what it had in `term`.
    pub fn new(life: u32, term: Term, timing: Timing) -> Self {
        Self {
            change: None,
            trying: None,
            transfers: Vec::new(),
            waiting: Vec::new(),
            deferred: Vec::new(),
            at_leader: BTreeMap::new(),
            ended_transfer: None,
            ids: RequestIds::new(life),
            duplicates: DuplicateFilter::since(term),
            timing,
        }
    }

    /// Whether no operator of this node waits for an answer of the leader.
    pub fn are_answered(&self) -> bool {
        self.at_leader.is_empty()
    }

    /// Whether a change is under way.
    pub fn has_change(&self) -> bool {
        self.change.is_some()
    }

    /// An operator of this node wants a change or a transfer.
    pub fn offered(
        &mut self,
        what: Administration,
        operator: Operator<W>,
        now: Moment,
        view: &View<'_>,
        out: &mut Effects<W>,
    ) {
        let waiting = self.waiting.len() + self.deferred.len();
        if self.transfers.len() + waiting + self.at_leader.len() >= OPERATORS_MAX {
            return answer(operator, refusal(&what), view, out);
        }
        match view.routing.route(matches!(operator, Operator::There { .. })) {
            Route::Here => match what {
                Administration::Change(change) => {
                    let until = now.plus(self.timing.leader_wait);
                    self.begin_change(change, (operator, until), now, view, out);
                }
                Administration::TransferLeadership(to) => out.push(Effect::Transfer { to, operator }),
            },
            Route::Forward(leader) => {
                let request = self.ids.next();
                // The leader may have to undo a change before it refuses it.
                let wait = self.timing.catch_up_wait + self.timing.leader_wait * 2;
                self.at_leader.insert(request, (leader, operator, now.plus(wait)));
                out.push(send(leader, Body::Administer(Administer { request, what }), view));
            }
            Route::Defer => self.deferred.push((what, operator, now.plus(self.timing.leader_wait))),
            Route::Refuse => answer(operator, refusal(&what), view, out),
        }
    }

    /// Another node forwarded an operator's request, in a message of `term`. `is_outside` says that
    /// the configuration does not name it. The answer to a second copy could say that the request
    /// was refused while the first is carried out, so it gets none.
    pub fn arrived(
        &mut self,
        (from, term, is_outside): (NodeId, Term, bool),
        Administer { request, what }: Administer,
        now: Moment,
        view: &View<'_>,
        out: &mut Effects<W>,
    ) {
        let operator = Operator::There { node: from, request };
        match self.duplicates.arrived(from, request, term, is_outside) {
            Arrival::Duplicate => out.push(Effect::Duplicate { from }),
            Arrival::MayBeTaken => answer(operator, AdministerOutcome::Unknown, view, out),
            Arrival::FromOutside => answer(operator, refusal(&what), view, out),
            Arrival::New => self.offered(what, operator, now, view, out),
        }
    }

    /// The leader answered a request that was forwarded to it.
    pub fn answered(
        &mut self,
        from: NodeId,
        Administered { request, outcome }: Administered,
        view: &View<'_>,
        out: &mut Effects<W>,
    ) {
        if self.at_leader.get(&request).is_some_and(|(leader, ..)| *leader == from)
            && let Some((_, operator, _)) = self.at_leader.remove(&request)
        {
            answer(operator, outcome, view, out);
        }
    }

    /// The rules took a step of the change under way, or refused it.
    pub fn change_tried(
        &mut self,
        outcome: Result<Index, ChangeRefused>,
        now: Moment,
        view: &View<'_>,
        out: &mut Effects<W>,
    ) {
        let (Some(step), Some((change, _))) = (self.trying.take(), &mut self.change) else { return };
        match change.tried(step, outcome, now, now.plus(self.timing.leader_wait)) {
            Tried::Over(outcome) => self.end_change(outcome, now, view, out),
            Tried::Wait => self.end_change_if_done(now, view, out),
            Tried::Again => self.continue_change(now, view, out),
        }
    }

    /// The rules began a transfer to a node, or refused it.
    pub fn transfer_tried(
        &mut self,
        operator: Operator<W>,
        outcome: Result<NodeId, TransferRefused>,
        now: Moment,
        view: &View<'_>,
        out: &mut Effects<W>,
    ) {
        match outcome {
            Ok(to) if to == view.this => answer(operator, AdministerOutcome::Transferred(to), view, out),
            Ok(_) => {
                let wait = self.timing.leader_wait + self.timing.election_timeout.1 * 10;
                self.transfers.push(Transfer { operator, deadline: now.plus(wait) });
            }
            Err(why) => answer(operator, AdministerOutcome::TransferRefused(why), view, out),
        }
    }

    /// The target of a transfer did not take over.
    pub fn transfer_ended(&mut self, to: NodeId) {
        self.ended_transfer = Some(to);
    }

    /// Whether a transfer was given up, and its operators were not told.
    pub fn has_ended_transfer(&self) -> bool {
        self.ended_transfer.is_some()
    }

    /// Tells the operators of a transfer that was given up.
    pub fn tell_of_ended_transfer(&mut self, view: &View<'_>, out: &mut Effects<W>) {
        let Some(to) = self.ended_transfer.take() else { return };
        for Transfer { operator, .. } in std::mem::take(&mut self.transfers) {
            answer(operator, AdministerOutcome::TransferRefused(TransferRefused::GivenUp { to }), view, out);
        }
    }

    /// Another node leads, or none.
    pub fn leader_changed(&mut self, now: Moment, view: &View<'_>, out: &mut Effects<W>) {
        let Some(leader) = view.routing.known_leader else { return };
        // If the leader before is still there, its answer comes within this time.
        let soon = now.plus(self.timing.election_timeout.1 * 2);
        for (asked, _, deadline) in self.at_leader.values_mut() {
            if *asked != leader {
                *deadline = (*deadline).min(soon);
            }
        }
        if leader != view.this {
            for Transfer { operator, .. } in std::mem::take(&mut self.transfers) {
                answer(operator, AdministerOutcome::Transferred(leader), view, out);
            }
        }
        for (what, operator, _) in std::mem::take(&mut self.deferred) {
            self.offered(what, operator, now, view, out);
        }
    }

    /// Gives up on requests past their deadlines, and continues the change under way: its new
    /// members may have caught up.
    pub fn expire(&mut self, now: Moment, view: &View<'_>, out: &mut Effects<W>) {
        for (what, operator, _) in self.deferred.extract_if(.., |(_, _, deadline)| *deadline <= now) {
            answer(operator, refusal(&what), view, out);
        }
        for (_, operator, _) in self.waiting.extract_if(.., |(_, _, until)| *until <= now) {
            let pending = ChangeRefused::Pending { index: view.change.index };
            answer(operator, AdministerOutcome::ChangeRefused(pending), view, out);
        }
        let late = self.transfers.extract_if(.., |transfer| transfer.deadline <= now);
        let lost = self.at_leader.extract_if(.., |_, (_, _, deadline)| *deadline <= now);
        for operator in late.map(|transfer| transfer.operator).chain(lost.map(|(_, (_, operator, _))| operator)) {
            answer(operator, AdministerOutcome::Unknown, view, out);
        }
        self.continue_change(now, view, out);
    }

    /// The link to `peer` was lost, and with it answers that may have been on their way.
    pub fn peer_lost(&mut self, peer: NodeId, view: &View<'_>, out: &mut Effects<W>) {
        for (_, (_, operator, _)) in self.at_leader.extract_if(.., |_, (leader, ..)| *leader == peer) {
            answer(operator, AdministerOutcome::Unknown, view, out);
        }
    }

    /// Answers the operator of a change that is committed, or that this node can't bring
    /// about any more. The effects of a step are judged when all of them are performed.
    pub fn end_change_if_done(&mut self, now: Moment, view: &View<'_>, out: &mut Effects<W>) {
        if self.trying.is_none()
            && let Some(outcome) = self.change.as_ref().and_then(|(change, _)| change.outcome(now, &view.change))
        {
            self.end_change(outcome, now, view, out);
        }
    }

    /// Begins a change, or lets it wait until then for one of metadata alone.
    fn begin_change(
        &mut self,
        change: Change,
        (operator, until): (Operator<W>, Moment),
        now: Moment,
        view: &View<'_>,
        out: &mut Effects<W>,
    ) {
        let begun = match &self.change {
            Some((under_way, _)) if under_way.is_of_metadata() && until > now => {
                return self.waiting.push((change, operator, until));
            }
            Some(_) => Err(ChangeRefused::Pending { index: view.change.index }),
            None => ChangeUnderWay::begin(change, now.plus(self.timing.catch_up_wait), &view.change),
        };
        match begun {
            Ok(change) => {
                self.change = Some((change, operator));
                self.continue_change(now, view, out);
            }
            Err(why) => answer(operator, AdministerOutcome::ChangeRefused(why), view, out),
        }
    }

    /// Takes the next step of the change under way, if it can be taken now.
    fn continue_change(&mut self, now: Moment, view: &View<'_>, out: &mut Effects<W>) {
        self.end_change_if_done(now, view, out);
        if self.trying.is_some() {
            return;
        }
        let Some((change, _)) = &self.change else { return };
        match change.next(&view.change) {
            None | Some(Next::Undone) => {}
            Some(next @ (Next::Add(..) | Next::Last(_) | Next::Undo(_))) => {
                if let Next::Add(step, _) | Next::Last(step) | Next::Undo(step) = &next {
                    out.push(Effect::Change(step.clone()));
                }
                self.trying = Some(next);
            }
        }
    }

    fn end_change(&mut self, outcome: AdministerOutcome, now: Moment, view: &View<'_>, out: &mut Effects<W>) {
        if let Some((_, operator)) = self.change.take() {
            answer(operator, outcome, view, out);
        }
        for (change, operator, until) in std::mem::take(&mut self.waiting) {
            match view.routing.route(matches!(operator, Operator::There { .. })) {
                Route::Here => self.begin_change(change, (operator, until), now, view, out),
                _ => self.offered(Administration::Change(change), operator, now, view, out),
            }
        }
    }
}

fn answer<W>(operator: Operator<W>, outcome: AdministerOutcome, view: &View<'_>, out: &mut Effects<W>) {
    out.push(match operator {
        Operator::Here(waiter) => Effect::Answer { waiter, outcome },
        Operator::There { node, request } => send(node, Body::Administered(Administered { request, outcome }), view),
    });
}

fn send<W>(to: NodeId, body: Body, view: &View<'_>) -> Effect<W> {
    Effect::Send(Outgoing { to, message: Message { term: view.routing.term, body } })
}

/// The refusal of a request that no leader has seen.
fn refusal(what: &Administration) -> AdministerOutcome {
    match what {
        Administration::Change(_) => AdministerOutcome::ChangeRefused(ChangeRefused::NotLeader),
        Administration::TransferLeadership(_) => AdministerOutcome::TransferRefused(TransferRefused::NotLeader),
    }
}

#[cfg(test)]
mod tests;
