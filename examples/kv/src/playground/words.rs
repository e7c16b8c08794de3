//! Messages and steps in words, for the list of the messages that are on their way.

use super::simulation::{Next, Simulation};
use quorate::{NodeId, events::Phase};
use quorate_raft::{AppendOutcome, Body, Persist, Role};
use quorate_world::{
    events::{Actor, Ask},
    world::Envelope,
};

/// The kind of a message, a word for its picture, and the message as a noun.
pub(super) fn message(envelope: &Envelope) -> (&'static str, &'static str, String) {
    let (from, to, term) = (envelope.from, envelope.to, envelope.message.term);
    let route = |what: &str| format!("{what} of node {from} to node {to}, term {term}");
    match &envelope.message.body {
        Body::RequestVote(request) if request.phase == Phase::PreVote => {
            ("pre_vote", "Pre-vote?", format!("pre-vote request of node {from} to node {to}, for term {}", term.next()))
        }
        Body::RequestVote(_) => ("vote", "Vote?", route("vote request")),
        Body::Vote(vote) => {
            let name = if vote.phase == Phase::PreVote { "pre-vote" } else { "vote" };
            match vote.granted() {
                true => ("yes", "Yes", route(&format!("granted {name}"))),
                false => ("no", "No", route(&format!("denied {name}"))),
            }
        }
        Body::Append(append) => match &append.batch {
            None => ("probe", "Probe", route(&format!("probe at entry {}", append.previous.index))),
            Some(batch) if batch.first() == batch.last() => {
                ("append", "Append", route(&format!("entry {} of term {}", batch.first(), batch.term())))
            }
            Some(batch) => {
                let what = format!("entries {} to {} of term {}", batch.first(), batch.last(), batch.term());
                ("append", "Append", route(&what))
            }
        },
        Body::AppendReply(reply) => match reply.outcome {
            AppendOutcome::Matched { matched } => {
                ("ack", "Ack", route(&format!("acknowledgement up to entry {matched}")))
            }
            AppendOutcome::Rejected { previous, .. } => {
                ("reject", "Reject", route(&format!("rejection, for lack of the leader's entry {previous},")))
            }
            _ => ("reject", "Reject", route("refusal")),
        },
        Body::Heartbeat(_) => ("beat", "Heartbeat", route("heartbeat")),
        Body::HeartbeatReply(_) => ("beat_ack", "Answer", route("answer to a heartbeat")),
        Body::SnapshotChunk(_) => ("append", "Snapshot", route("part of a snapshot")),
        Body::SnapshotReply(_) => ("ack", "Ack", route("answer to a part of a snapshot")),
        Body::TimeoutNow(_) => ("append", "Campaign!", route("request to campaign")),
        Body::Removed(_) => ("no", "Removed", route("news of a removal")),
        Body::Holdings(_) => ("beat", "Holdings", route("note of the entries that each member holds")),
        _ => ("beat", "Message", route("message")),
    }
}

/// A step as a sentence, before it is taken.
pub(super) fn step(simulation: &Simulation, next: Next) -> String {
    match next {
        Next::Arrival(id) => {
            let flight = simulation.flights.iter().find(|flight| flight.id == id);
            let Some(flight) = flight else { return String::new() };
            let (from, to) = (flight.envelope.from, flight.envelope.to);
            let what = message(&flight.envelope).2;
            if simulation.world.cut.contains(&(from, to)) {
                format!("The {what} is lost: the link is cut.")
            } else if !simulation.is_up(to) {
                format!("The {what} is lost: node {to} is down.")
            } else {
                format!("Node {to} gets the {what}.")
            }
        }
        Next::Timer(id) => match simulation.world.running(id).map(|running| running.replica.role()) {
            Some(Role::Leader(_)) => format!("Node {id}, the leader, checks that a majority still answers."),
            _ => format!("The election timer of node {id} runs out."),
        },
        Next::Heartbeat(id) => format!("Node {id} sends heartbeats."),
        Next::Disk(id) => disk(simulation, id),
        Next::Keeper(id) => format!("Node {id} has a snapshot on its disk."),
        Next::Snapshot(id) => format!("Node {id} begins to take a snapshot."),
    }
}

fn disk(simulation: &Simulation, id: NodeId) -> String {
    let first = simulation.world.running(id).and_then(|running| running.asked.of(Actor::Disk).next());
    let Some(Ask::Persist(persist)) = first else { return format!("Node {id} has read from its disk.") };
    let Persist { truncate_from, batch, hard_state, cut, .. } = persist;
    let known = simulation.world.node(id).disk.hard_state;
    let mut parts = Vec::new();
    if cut.is_some() {
        parts.push("a log without the entries that its snapshot covers".to_owned());
    }
    if let Some(from) = truncate_from {
        parts.push(format!("the removal of its entries from {from} on"));
    }
    if let Some(batch) = batch {
        parts.push(match batch.first() == batch.last() {
            true => format!("entry {}", batch.first()),
            false => format!("entries {} to {}", batch.first(), batch.last()),
        });
    }
    match hard_state {
        Some(state) if (state.term, state.vote) != (known.term, known.vote) => parts.push(match state.vote {
            Some(vote) => format!("term {} and its vote for node {vote}", state.term),
            None => format!("term {}", state.term),
        }),
        _ => {}
    }
    match parts.is_empty() {
        true => format!("Node {id} has written to its disk."),
        false => format!("Node {id} has {} on its disk.", parts.join(" and ")),
    }
}
