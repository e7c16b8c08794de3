//! What operators want: other members, or another leader. Any node takes it and forwards it to the leader, which carries it out.
//!
//! A change may take more than one entry: members that are to vote and that nobody knows yet come in as learners first, and vote
//! as soon as they have caught up. This waits for that, for a bounded time, and answers when the last configuration is committed. If it
//! is refused after its first step, that is undone before the refusal is given, so that a refusal leaves nothing behind; if it can't be
//! undone, because the leadership ends or no quorum answers, the outcome is unknown.
//! One change at a time: whoever comes second is told so.

use super::{
    Consensus,
    automatic::{self, Step},
    request_ids::RequestIds,
};
use crate::actors::messages::{Administer, Operator};
use actix::Context;
use quorate_raft::{
    AdministerOutcome, Administered, Administration, Body, Change, ChangeRefused, HandoverRefused, Index, Member,
    NodeId, Replica,
};
use std::collections::BTreeMap;
use tokio::time::Instant;

/// The operators who wait.
pub(super) struct Operators {
    change: Option<UnderWay>,
    transfers: Vec<(Operator, NodeId, Instant)>,
    /// Nobody leads whom they could be forwarded to.
    deferred: Vec<(Administer, Instant)>,
    at_leader: BTreeMap<u64, (NodeId, Operator, Instant)>,
    /// The target of a transfer that came to nothing, until the operators are told.
    pub(super) ended_transfer: Option<NodeId>,
    ids: RequestIds,
}

/// The most that wait at a time: there are few operators.
const OPERATORS_MAX: usize = 64;

struct UnderWay {
    change: Change,
    operator: Operator,
    deadline: Instant,
    /// Where the configuration that it leads to was appended, or is joint still.
    appended: Option<Index>,
    /// The learners that its first step added.
    added: Vec<NodeId>,
    /// Why it is refused: those learners have to leave first.
    undone_for: Option<ChangeRefused>,
}

/// What a change under way needs next.
enum Next {
    /// Who is to vote and is not known yet comes in as a learner.
    Add(Change, Vec<NodeId>),
    /// The voters change.
    Last(Change),
    /// What its first step added leaves again.
    Undo(Change),
    /// That is under way, or through.
    Undone,
}

impl UnderWay {
    fn next(&self, replica: &Replica) -> Next {
        let Some((change, ids)) = self.undone_for.is_none().then(|| first_step(&self.change, replica)).flatten() else {
            return match (&self.undone_for, self.left_behind(replica).map(Change::remove).reduce(Change::and)) {
                (None, _) => Next::Last(self.change.clone()),
                (Some(_), Some(undo)) => Next::Undo(undo),
                (Some(_), None) => Next::Undone,
            };
        };
        Next::Add(change, ids)
    }

    /// The learners that it added and that have not become voters since.
    fn left_behind(&self, replica: &Replica) -> impl Iterator<Item = NodeId> {
        let learners = replica.membership().learners();
        self.added.iter().copied().filter(move |id| learners.contains(id))
    }
}

impl Operators {
    pub(super) fn new(life: u32) -> Self {
        Self {
            change: None,
            transfers: Vec::new(),
            deferred: Vec::new(),
            at_leader: BTreeMap::new(),
            ended_transfer: None,
            ids: RequestIds::new(life),
        }
    }

    /// Whether the leader owes no answer to anybody here.
    pub(super) fn are_answered(&self) -> bool {
        self.at_leader.is_empty()
    }

    fn count(&self) -> usize {
        self.transfers.len() + self.deferred.len() + self.at_leader.len()
    }
}

impl Consensus {
    /// Somebody wants something.
    pub(super) fn administer(&mut self, Administer { what, operator }: Administer, ctx: &mut Context<Self>) {
        if self.operators.count() >= OPERATORS_MAX {
            return self.tell_operator(operator, refused(&what));
        }
        if self.replica.is_leader() {
            return match what {
                Administration::Change(change) => self.begin_change(change, operator, ctx),
                Administration::HandOver(to) => self.begin_transfer(to, operator, ctx),
            };
        }
        let Operator::Here(_) = operator else { return self.tell_operator(operator, refused(&what)) };
        // A change may have to be undone before it is refused.
        let wait = self.node.timing.catch_up_wait + self.node.timing.leader_wait * 2;
        match self.reachable_leader() {
            Some(leader) => {
                let request = self.operators.ids.next();
                self.operators.at_leader.insert(request, (leader, operator, Instant::now() + wait));
                self.say(leader, Body::Administer(quorate_raft::Administer { request, what }));
            }
            None => {
                let deadline = Instant::now() + self.node.timing.leader_wait;
                self.operators.deferred.push((Administer { what, operator }, deadline));
            }
        }
    }

    /// Another node's operator wants something.
    pub(super) fn administer_forwarded(
        &mut self,
        node: NodeId,
        quorate_raft::Administer { request, what }: quorate_raft::Administer,
        ctx: &mut Context<Self>,
    ) {
        self.administer(Administer { what, operator: Operator::There { node, request } }, ctx);
    }

    /// Refuses what an operator of a node outside the configuration wants.
    pub(super) fn refuse_administer(
        &mut self,
        node: NodeId,
        quorate_raft::Administer { request, what }: &quorate_raft::Administer,
    ) {
        self.tell_operator(Operator::There { node, request: *request }, refused(what));
    }

    /// The leader answered what was forwarded to it.
    pub(super) fn administered(&mut self, from: NodeId, Administered { request, outcome }: Administered) {
        if self.operators.at_leader.get(&request).is_some_and(|(leader, ..)| *leader == from)
            && let Some((_, operator, _)) = self.operators.at_leader.remove(&request)
        {
            self.tell_operator(operator, outcome);
        }
    }

    fn begin_change(&mut self, change: Change, operator: Operator, ctx: &mut Context<Self>) {
        let index = self.replica.membership_index();
        if self.operators.change.is_some() {
            return self.tell_operator(operator, AdministerOutcome::ChangeRefused(ChangeRefused::Pending { index }));
        }
        // What makes no sense is said at once; and what it was made for is looked at once, for its own first step moves it.
        if let Err(why) = change.target(self.replica.membership(), index) {
            return self.tell_operator(operator, AdministerOutcome::ChangeRefused(why));
        }
        let deadline = Instant::now() + self.node.timing.catch_up_wait;
        let change = change.resumed();
        self.operators.change =
            Some(UnderWay { change, operator, deadline, appended: None, added: Vec::new(), undone_for: None });
        self.go_on_with_change(ctx);
    }

    /// Does what the change under way needs next, if it can be done now.
    fn go_on_with_change(&mut self, ctx: &mut Context<Self>) {
        self.look_at_change();
        // Taken out meanwhile: what the rule brings about is looked at below.
        let Some(mut under_way) = self.operators.change.take_if(|under_way| under_way.appended.is_none()) else {
            return;
        };
        let next = under_way.next(&self.replica);
        let step = match &next {
            Next::Add(step, _) | Next::Last(step) | Next::Undo(step) => step,
            Next::Undone => {
                self.operators.change = Some(under_way);
                return self.look_at_change();
            }
        };
        let now = self.node.clock.now();
        let mut outcome = Err(ChangeRefused::NotReady);
        self.rule(ctx, |replica, out| outcome = replica.change(now, step, out));
        let may_wait = under_way.deadline > Instant::now();
        match (outcome, next) {
            (Ok(_), Next::Add(_, ids)) => under_way.added.extend(ids),
            (Ok(index), Next::Last(_)) => under_way.appended = Some(index),
            (Ok(_), Next::Undo(_) | Next::Undone) => {}
            (Err(why), _) if is_passing(&why) && may_wait => {}
            (Err(_), Next::Undo(_) | Next::Undone) => {
                return self.tell_operator(under_way.operator, AdministerOutcome::Unknown);
            }
            (Err(why), _) if under_way.added.is_empty() => {
                return self.tell_operator(under_way.operator, AdministerOutcome::ChangeRefused(why));
            }
            (Err(why), _) => {
                under_way.undone_for = Some(why);
                under_way.deadline = Instant::now() + self.node.timing.leader_wait;
                self.operators.change = Some(under_way);
                return self.go_on_with_change(ctx);
            }
        }
        self.operators.change = Some(under_way);
        self.look_at_change();
    }

    /// Answers whoever waits for a change that is through, or that this node can't bring about any more.
    pub(super) fn look_at_change(&mut self) {
        let Some(under_way) = &self.operators.change else { return };
        let index = self.replica.membership_index();
        let is_settled = self.replica.is_settled();
        let is_undone = is_settled && under_way.left_behind(&self.replica).next().is_none();
        let is_late = under_way.deadline <= Instant::now();
        let outcome = match (under_way.appended, &under_way.undone_for) {
            (Some(appended), _) if is_settled && index >= appended => AdministerOutcome::Changed(index),
            (_, Some(why)) if self.replica.is_leader() && is_undone => AdministerOutcome::ChangeRefused(why.clone()),
            (_, Some(_)) if is_late || !self.replica.is_leader() => AdministerOutcome::Unknown,
            (Some(_), _) if !self.replica.is_leader() => AdministerOutcome::Unknown,
            // What its first step added may stay: no other leader knows that it is to be undone.
            (None, _) if !self.replica.is_leader() && !under_way.added.is_empty() => AdministerOutcome::Unknown,
            (None, _) if !self.replica.is_leader() => AdministerOutcome::ChangeRefused(ChangeRefused::NotLeader),
            _ => return,
        };
        if let Some(under_way) = self.operators.change.take() {
            self.tell_operator(under_way.operator, outcome);
        }
    }

    fn begin_transfer(&mut self, to: Option<NodeId>, operator: Operator, ctx: &mut Context<Self>) {
        let now = self.node.clock.now();
        let mut outcome = Err(HandoverRefused::NotLeader);
        self.rule(ctx, |replica, out| outcome = replica.hand_over(now, to, out));
        match outcome {
            Ok(to) if to == self.replica.id() => self.tell_operator(operator, AdministerOutcome::HandedOver(to)),
            Ok(to) => {
                let deadline = Instant::now() + self.node.timing.leader_wait + self.node.timing.election_timeout.1 * 10;
                self.operators.transfers.push((operator, to, deadline));
            }
            Err(why) => self.tell_operator(operator, AdministerOutcome::HandoverRefused(why)),
        }
    }

    /// The target of a handover did not take over.
    pub(super) fn transfer_ended(&mut self, to: NodeId, ctx: &mut Context<Self>) {
        for (operator, ..) in std::mem::take(&mut self.operators.transfers) {
            let why = HandoverRefused::GivenUp { to };
            self.tell_operator(operator, AdministerOutcome::HandoverRefused(why));
        }
        self.retry_deferred(ctx);
    }

    /// Another leads, or nobody is known to.
    pub(super) fn leader_changed_for_operators(&mut self, ctx: &mut Context<Self>) {
        let Some(leader) = self.replica.leader() else { return };
        // The one before may be gone. If it is not, its answer comes within this time.
        let soon = Instant::now() + self.node.timing.election_timeout.1 * 2;
        for (asked, _, deadline) in self.operators.at_leader.values_mut() {
            if *asked != leader {
                *deadline = (*deadline).min(soon);
            }
        }
        if leader != self.replica.id() {
            for (operator, ..) in std::mem::take(&mut self.operators.transfers) {
                self.tell_operator(operator, AdministerOutcome::HandedOver(leader));
            }
        }
        for (administer, _) in std::mem::take(&mut self.operators.deferred) {
            self.administer(administer, ctx);
        }
    }

    /// Nobody waits for ever.
    pub(super) fn expire_operators(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        for (administer, _) in
            self.operators.deferred.extract_if(.., |(_, deadline)| *deadline <= now).collect::<Vec<_>>()
        {
            let outcome = refused(&administer.what);
            self.tell_operator(administer.operator, outcome);
        }
        let late = self.operators.transfers.extract_if(.., |(_, _, deadline)| *deadline <= now);
        let late: Vec<_> = late.map(|(operator, ..)| operator).collect();
        let lost = self.operators.at_leader.extract_if(.., |_, (_, _, deadline)| *deadline <= now);
        let lost: Vec<_> = lost.map(|(_, (_, operator, _))| operator).collect();
        for operator in late.into_iter().chain(lost) {
            self.tell_operator(operator, AdministerOutcome::Unknown);
        }
        // Whoever has to catch up may have.
        self.go_on_with_change(ctx);
    }

    /// The link to `peer` was lost, and with it the answers that were on their way.
    pub(super) fn operators_peer_lost(&mut self, peer: NodeId) {
        let lost = self.operators.at_leader.extract_if(.., |_, (leader, ..)| *leader == peer);
        for operator in lost.map(|(_, (_, operator, _))| operator).collect::<Vec<_>>() {
            self.tell_operator(operator, AdministerOutcome::Unknown);
        }
    }

    /// About once a heartbeat interval: takes the step that automatic promotion or transfer has due.
    pub(super) fn take_automatic_step(&mut self, ctx: &mut Context<Self>) {
        if !self.replica.is_leader() || self.stopping.is_stopping() {
            return self.automation.reset();
        }
        let now = self.node.clock.now();
        let membership = self.replica.membership();
        let view = automatic::View {
            this: self.replica.id(),
            voters: membership.incoming(),
            learners: membership.learners(),
            witness: membership.witness(),
            is_idle: self.replica.is_settled()
                && self.replica.handing_over_to().is_none()
                && self.operators.change.is_none(),
            keeps_up: &|id| self.replica.keeps_up(now, id),
        };
        match self.automation.next(Instant::now(), self.node.timing.promote_after, &view) {
            None => {}
            Some(Step::Promote(learner)) => {
                let change = Change::promote(learner);
                let mut outcome = Ok(self.replica.membership_index());
                self.rule(ctx, |replica, out| outcome = replica.change(now, &change, out));
                match outcome {
                    Ok(index) => tracing::info!(%learner, %index, "a learner that kept up votes from now on"),
                    Err(why) => tracing::warn!(%learner, "a learner that kept up does not vote yet: {why}"),
                }
            }
            Some(Step::Transfer(to)) => {
                tracing::info!(%to, "leadership goes to a node that is preferred");
                self.rule(ctx, |replica, out| {
                    // A refused transfer is tried again later.
                    let _ = replica.hand_over(now, Some(to), out);
                });
            }
        }
    }

    fn tell_operator(&mut self, operator: Operator, outcome: AdministerOutcome) {
        match operator {
            // Whoever asked may have lost patience.
            Operator::Here(answer) => drop(answer.send(outcome)),
            Operator::There { node, request } => self.say(node, Body::Administered(Administered { request, outcome })),
        }
    }
}

/// Who is to vote and is not known yet comes in as a learner first. `None` if there is nobody left.
fn first_step(change: &Change, replica: &Replica) -> Option<(Change, Vec<NodeId>)> {
    let current = replica.membership();
    let target = change.target(current, replica.membership_index()).ok()?;
    let newcomers: Vec<_> = change.newcomers(current).into_iter().filter(|member| target.is_voter(member.id)).collect();
    let ids = newcomers.iter().map(|member| member.id).collect();
    let add = |Member { id, address }| match target.witness() == Some(id) {
        true => Change::add_witness(id, address.unwrap_or_default()),
        false => Change::add(id, address.unwrap_or_default()),
    };
    Some((newcomers.into_iter().map(add).reduce(Change::and)?, ids))
}

/// Whether the reason may be gone soon, so that it is worth waiting.
fn is_passing(why: &ChangeRefused) -> bool {
    matches!(
        why,
        ChangeRefused::NotReady
            | ChangeRefused::Pending { .. }
            | ChangeRefused::HandingOver
            | ChangeRefused::Behind { .. }
    )
}

fn refused(what: &Administration) -> AdministerOutcome {
    match what {
        Administration::Change(_) => AdministerOutcome::ChangeRefused(ChangeRefused::NotLeader),
        Administration::HandOver(_) => AdministerOutcome::HandoverRefused(HandoverRefused::NotLeader),
    }
}
