//! `VoteCollector`: counts the votes of one round of one campaign, and ends with that round.
//!
//! It holds no term or vote of its own, only the [`Ballot`]. It does not send the vote requests: a
//! vote may be requested only once the candidate's own term and vote are durable, so the requests
//! travel inside that `Persist`.

use super::messages::{ElectionLost, ElectionWon, VoteDenied, VoteGranted};
use crate::lifecycle::PanicGuard;
use actix::prelude::*;
use quorate_raft::{Ballot, BallotOutcome};

/// The actor that counts the votes of one round.
pub(crate) struct VoteCollector {
    ballot: Ballot,
    won: Recipient<ElectionWon>,
    lost: Recipient<ElectionLost>,
    _panic_guard: PanicGuard,
}

impl VoteCollector {
    pub(crate) fn new(
        ballot: Ballot,
        won: Recipient<ElectionWon>,
        lost: Recipient<ElectionLost>,
        panic_guard: PanicGuard,
    ) -> Self {
        Self { ballot, won, lost, _panic_guard: panic_guard }
    }

    fn count(&mut self, campaign: u64, voter: quorate_raft::NodeId, granted: bool, ctx: &mut Context<Self>) {
        if campaign != self.ballot.campaign {
            return;
        }
        let term = self.ballot.term;
        match self.ballot.count(voter, granted) {
            BallotOutcome::Open => return,
            BallotOutcome::Won => self.won.do_send(ElectionWon { term, campaign }),
            BallotOutcome::Lost => self.lost.do_send(ElectionLost { term, campaign }),
        }
        ctx.stop();
    }
}

impl Actor for VoteCollector {
    type Context = Context<Self>;
}

impl Handler<VoteGranted> for VoteCollector {
    type Result = ();

    fn handle(&mut self, VoteGranted { campaign, voter }: VoteGranted, ctx: &mut Self::Context) {
        self.count(campaign, voter, true, ctx);
    }
}

impl Handler<VoteDenied> for VoteCollector {
    type Result = ();

    fn handle(&mut self, VoteDenied { campaign, voter }: VoteDenied, ctx: &mut Self::Context) {
        self.count(campaign, voter, false, ctx);
    }
}
