//! One campaign's votes.

use crate::{
    ids::{NodeId, Term},
    membership::Membership,
    message::Phase,
    quorum,
};
use alloc::collections::BTreeMap;

/// Counts one round of one campaign (paper §5.2): the pure piece of a `VoteCollector`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Ballot {
    /// Pre-vote or vote.
    pub phase: Phase,
    /// Which campaign of this candidate.
    pub campaign: u64,
    /// The candidate's term during the round.
    pub term: Term,
    membership: Membership,
    votes: BTreeMap<NodeId, bool>,
}

/// How a ballot stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// A quorum granted.
    Won,
    /// So many denied that no quorum can grant.
    Lost,
    /// Not decided yet.
    Open,
}

impl Ballot {
    /// An empty ballot among the voters of `membership`.
    #[must_use]
    pub fn new(phase: Phase, campaign: u64, term: Term, membership: Membership) -> Self {
        Self { phase, campaign, term, membership, votes: BTreeMap::new() }
    }

    /// Counts the answer of `voter`. Its first answer stands; those who do not vote do not count.
    pub fn count(&mut self, voter: NodeId, granted: bool) -> Outcome {
        if self.membership.is_voter(voter) {
            self.votes.entry(voter).or_insert(granted);
        }
        self.outcome()
    }

    /// How it stands.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let denied = |id| self.votes.get(&id) == Some(&false);
        if quorum::reached(&self.membership, |id| self.votes.get(&id) == Some(&true)) {
            Outcome::Won
        } else if quorum::reached(&self.membership, |id| !denied(id)) {
            Outcome::Open
        } else {
            Outcome::Lost
        }
    }
}
