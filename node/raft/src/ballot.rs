//! The votes of one round of a campaign.

use crate::{
    ids::{NodeId, Term},
    membership::Membership,
    message::Phase,
    quorum,
};
use alloc::collections::BTreeMap;

/// Counts the votes of one round of one campaign (paper §5.2): the pure piece of a `VoteCollector`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Ballot {
    /// Pre-vote or vote.
    pub phase: Phase,
    /// Number of the round, counted by the candidate since its start: an answer to another
    /// round is ignored.
    pub campaign: u64,
    /// The candidate's term during the round.
    pub term: Term,
    membership: Membership,
    votes: BTreeMap<NodeId, bool>,
}

/// The present result of a ballot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BallotOutcome {
    /// A quorum granted its vote.
    Won,
    /// Enough voters denied that no quorum can grant any more.
    Lost,
    /// Neither is certain yet.
    Open,
}

impl Ballot {
    /// An empty ballot among the voters of `membership`.
    #[must_use]
    pub fn new(phase: Phase, campaign: u64, term: Term, membership: Membership) -> Self {
        Self { phase, campaign, term, membership, votes: BTreeMap::new() }
    }

    /// Counts the answer of `voter`. Its first answer stands; answers of nodes that do not
    /// vote are ignored.
    pub fn count(&mut self, voter: NodeId, granted: bool) -> BallotOutcome {
        if self.membership.is_voter(voter) {
            self.votes.entry(voter).or_insert(granted);
        }
        self.outcome()
    }

    /// The result of the votes counted.
    #[must_use]
    pub fn outcome(&self) -> BallotOutcome {
        let denied = |id| self.votes.get(&id) == Some(&false);
        if quorum::reached(&self.membership, |id| self.votes.get(&id) == Some(&true)) {
            BallotOutcome::Won
        } else if quorum::reached(&self.membership, |id| !denied(id)) {
            BallotOutcome::Open
        } else {
            BallotOutcome::Lost
        }
    }
}
