//! The campaigns of an election in words: the candidates, and the votes of each.

use super::page::{Page, Votes};
use quorate::NodeId;
use std::collections::BTreeSet;

/// A campaign, with the term in which its candidate wants to lead.
pub(super) struct Campaign<'a> {
    term: u64,
    votes: &'a Votes,
    candidate: NodeId,
    /// Voters that answer and have not voted yet could make a majority.
    can_win: bool,
}

impl Campaign<'_> {
    fn what(&self) -> &'static str {
        if self.votes.kind == "pre_vote" { "pre-votes" } else { "votes" }
    }
}

/// The campaigns of the highest term in which nodes campaign, the candidates in order. Those that
/// have raised it come alone: a pre-vote for the same term is no rival.
pub(super) fn campaigns(page: &Page) -> Vec<Campaign<'_>> {
    let all = page.nodes.iter().filter(|(_, node)| node.up).filter_map(|(id, node)| {
        let state = node.state.as_ref()?;
        let votes = state.votes.as_ref()?;
        // A pre-vote asks about the term after the candidate's.
        let term = state.term.0.saturating_add(u64::from(votes.kind == "pre_vote"));
        Some(Campaign { candidate: *id, votes, term, can_win: true })
    });
    let mut all: Vec<_> = all.collect();
    let rank = |one: &Campaign<'_>| (one.term, one.votes.kind == "vote");
    let highest = all.iter().map(rank).max();
    all.retain(|one| Some(rank(one)) == highest);
    let voters = &page.config.voters;
    let granted: BTreeSet<_> = all.iter().flat_map(|one| &one.votes.yes).copied().collect();
    for one in all.iter_mut().filter(|one| one.votes.kind == "vote") {
        let is_open = |id: &&NodeId| {
            let answers = page.nodes.get(id).is_some_and(|node| node.up);
            answers && !granted.contains(id) && !one.votes.no.contains(id)
        };
        one.can_win = one.votes.yes.len() + voters.iter().filter(is_open).count() > voters.len() / 2;
    }
    all
}

/// Whether the voters of a term are divided among several candidates of which none can win any more:
/// a voter has one vote a term.
fn is_split(campaigns: &[Campaign<'_>]) -> bool {
    campaigns.len() > 1 && campaigns.iter().all(|one| !one.can_win)
}

/// The sentence about the candidates.
pub(super) fn asking(campaigns: &[Campaign<'_>]) -> String {
    match campaigns {
        [] => "Election timers run.".to_owned(),
        [one] => format!("Node {} asks for {} in term {}.", one.candidate, one.what(), one.term),
        [one, ..] => {
            let nodes = listed(campaigns.iter().map(|one| one.candidate.to_string()));
            if is_split(campaigns) {
                return format!("The votes of term {} are split between nodes {nodes}.", one.term);
            }
            format!("Nodes {nodes} ask for {} in term {}.", one.what(), one.term)
        }
    }
}

/// The sentence about their votes, after a space; empty without a candidate.
pub(super) fn votes(campaigns: &[Campaign<'_>], majority: usize) -> String {
    match campaigns {
        [] => String::new(),
        [one] => match majority.saturating_sub(one.votes.yes.len()) {
            0 => " The candidate has enough votes.".to_owned(),
            missing => format!(" The candidate lacks {missing} of {majority} votes."),
        },
        several => shares(several),
    }
}

/// The votes of several candidates of one term. Pre-votes are no promise: a voter has as many as are
/// asked for.
fn shares(campaigns: &[Campaign<'_>]) -> String {
    let share = |one: &Campaign<'_>| format!("node {} has {}", one.candidate, one.votes.yes.len());
    let shares = listed(campaigns.iter().map(share));
    format!(" Of {}, {shares}.", campaigns.first().map_or("votes", Campaign::what))
}

/// A list in words.
fn listed(of: impl Iterator<Item = String>) -> String {
    let mut of: Vec<_> = of.collect();
    let last = of.pop().unwrap_or_default();
    if of.is_empty() { last } else { format!("{} and {last}", of.join(", ")) }
}
