//! A split vote, made by a network that holds back answers: two candidates of one term, each with the
//! vote of one other node.

use super::{PATIENCE, Stream, api};
use crate::machine::Kv;
use quorate::{
    Node, NodeId, ServiceNode, Timing,
    storage::Memory,
    transport::{
        MemoryNetwork, Network, NetworkContext, NetworkError,
        memory::MemoryEndpoint,
        network::{Delivered, Event, Inbox, Links, LocalFuture},
    },
};
use quorate_raft::{Body, Phase};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::timeout};

#[tokio::test(flavor = "multi_thread")]
async fn a_split_vote_shows_two_candidates_of_one_term_each_with_its_votes_and_then_a_new_term() {
    let (split, nodes) = five().await;
    let mut status = nodes[&NodeId(1)].status();
    let old = timeout(PATIENCE, status.wait_for(|status| status.leader.is_some())).await;
    let old = old.expect("in time").expect("it runs").leader.expect("a leader");
    let rest: Vec<_> = nodes.keys().copied().filter(|id| *id != old).collect();
    let &[one, two, voter_of_one, voter_of_two] = &rest[..] else { panic!("{rest:?}") };
    let mut stream = Stream::open(&api(&nodes[&voter_of_one])).await;
    stream.until("all nodes", |stream| stream.page["verdict"]["word"] == "Healthy").await;

    split.begin([(one, voter_of_one), (two, voter_of_two)]);
    nodes[&old].shutdown().await;
    let votes = |page: &Value, id: NodeId| {
        let node = &page["nodes"][id.to_string()];
        (node["term"].clone(), node["votes"]["kind"].clone(), node["votes"]["yes"].clone())
    };
    let is_split = |page: &Value| {
        let (first, second) = (votes(page, one), votes(page, two));
        let has = |yes: &Value, voters: [NodeId; 2]| *yes == serde_json::json!(voters);
        first.0 == second.0
            && first.1 == "vote"
            && second.1 == "vote"
            && has(&first.2, [one, voter_of_one])
            && has(&second.2, [two, voter_of_two])
    };
    stream.until("a split vote", |stream| is_split(&stream.page)).await;
    let term = votes(&stream.page, one).0.as_u64().expect("a term");
    let verdict = &stream.page["verdict"];
    let (says, facts) = (verdict["says"].as_str().expect("text"), verdict["facts"].as_str().expect("text"));
    assert_eq!(verdict["word"], "No leader");
    assert!(says.ends_with(&format!("The votes of term {term} are split between nodes {one} and {two}.")), "{says}");
    let shares = format!("4 of 5 voters answer, 3 are needed. Of votes, node {one} has 2 and node {two} has 2.");
    assert!(facts.ends_with(&shares), "{facts}");
    let is_vote = |ballot: &Value, from: NodeId, to: NodeId| {
        ballot["kind"] == "vote"
            && (&ballot["from"], &ballot["to"], &ballot["answer"]) == (&from.0.into(), &to.0.into(), &"yes".into())
            && ballot["took_ms"].is_u64()
    };
    stream
        .until("the votes of both", |stream| {
            let has = |from, to| stream.ballots.iter().any(|ballot| is_vote(ballot, from, to));
            has(voter_of_one, one) && has(voter_of_two, two)
        })
        .await;

    split.end();
    stream
        .until("a leader of a later term", |stream| {
            let leader = stream.page["leader"].to_string();
            stream.page["nodes"][leader]["term"].as_u64().is_some_and(|later| later > term)
        })
        .await;
    let told = |stream: &Stream, kind: &str, text: &str| {
        let mut events = stream.events.iter();
        events.any(|event| event["kind"] == kind && event["text"].as_str().is_some_and(|said| said.contains(text)))
    };
    stream
        .until("the story of it", |stream| {
            let asks =
                |id| told(stream, "campaign_started", &format!("Node {id} starts term {term}, votes for itself"));
            let votes =
                |from, to| told(stream, "vote_cast", &format!("Node {from} votes for node {to} in term {term}."));
            let ends = told(stream, "campaign_ended", &format!("alone for term {term}: no majority in time"));
            asks(one) && asks(two) && votes(voter_of_one, one) && votes(voter_of_two, two) && ends
        })
        .await;
    for node in nodes.values() {
        node.shutdown().await;
    }
}

/// Five nodes with a leader, on a network that can split votes.
async fn five() -> (Arc<Split>, BTreeMap<NodeId, ServiceNode<Kv>>) {
    let (network, split, mut nodes) = (MemoryNetwork::new(), Arc::new(Split::default()), BTreeMap::new());
    let (ids, ms) = ([1, 2, 3, 4, 5].map(NodeId), Duration::from_millis);
    for id in ids {
        let node = Node::builder(id, "testing").voters(ids.map(|id| (id, "")));
        let splitting = Splitting { inner: network.endpoint(id), split: Arc::clone(&split) };
        let node = node.network(splitting).storage(Memory::new());
        let node = node.timing(Timing::default().with_election_timeout((ms(600), ms(1_200))));
        nodes.insert(id, node.serve(Kv::default).start().await.expect("a node"));
    }
    (split, nodes)
}

/// The rule that splits votes. Both candidates hear the same two nodes, one of which each of them may
/// ask for its vote; the answers to their pre-votes wait until both have two of one term, so that both
/// stand for election at once. No other node campaigns.
#[derive(Default)]
struct Split {
    state: Mutex<State>,
    /// Whether held answers may pass, and the round of pre-votes in which they were held.
    gate: watch::Sender<(bool, u64)>,
}

#[derive(Default)]
struct State {
    /// Each candidate, and the node that may vote for it.
    voters: BTreeMap<NodeId, NodeId>,
    /// The pre-votes that each candidate was granted: its term, its campaign, and the voters.
    granted: BTreeMap<NodeId, (u64, u64, BTreeSet<NodeId>)>,
}

/// The way of a message.
enum Way {
    Passes,
    Waits(watch::Receiver<(bool, u64)>),
    Ends,
}

impl Split {
    fn begin(&self, voters: [(NodeId, NodeId); 2]) {
        self.state().voters = voters.into();
    }

    fn end(&self) {
        self.state().voters.clear();
        self.gate.send_modify(|(is_open, _)| *is_open = true);
    }

    fn way(&self, to: NodeId, Delivered { from, message, .. }: &Delivered) -> Way {
        let mut state = self.state();
        if state.voters.is_empty() {
            return Way::Passes;
        }
        match &message.body {
            Body::RequestVote(request) => match state.voters.get(from) {
                Some(voter) if request.phase == Phase::Vote && *voter == to => Way::Passes,
                Some(_) if request.phase == Phase::PreVote && !state.voters.contains_key(&to) => {
                    if self.gate.borrow().0 {
                        // One of them came too late for the answers that were held.
                        state.granted.clear();
                        self.gate.send_modify(|(is_open, round)| (*is_open, *round) = (false, *round + 1));
                    }
                    Way::Passes
                }
                _ => Way::Ends,
            },
            Body::Vote(vote) if vote.phase == Phase::PreVote && vote.granted() && state.voters.contains_key(&to) => {
                let (term, campaign) = (message.term.0, vote.campaign);
                let granted = state.granted.entry(to).or_default();
                if (granted.0, granted.1) != (term, campaign) {
                    *granted = (term, campaign, BTreeSet::new());
                }
                granted.2.insert(*from);
                let is_ready = state.granted.values().filter(|(of, _, voters)| *of == term && voters.len() == 2);
                if is_ready.count() == 2 {
                    self.gate.send_modify(|(is_open, _)| *is_open = true);
                }
                Way::Waits(self.gate.subscribe())
            }
            _ => Way::Passes,
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The network of a node, whose messages arrive by the rule of [`Split`].
struct Splitting {
    inner: MemoryEndpoint,
    split: Arc<Split>,
}

impl Network for Splitting {
    fn start(self: Box<Self>, mut context: NetworkContext) -> LocalFuture<Result<Box<dyn Links>, NetworkError>> {
        let Self { inner, split } = *self;
        let (inbox, to) = (context.inbox.clone(), context.node);
        context.inbox = Inbox::new(move |event| {
            let way = match &event {
                Event::Delivered(delivered) => split.way(to, delivered),
                _ => Way::Passes,
            };
            match way {
                Way::Passes => inbox.put(event),
                Way::Ends => {}
                Way::Waits(mut gate) => {
                    let (inbox, round) = (inbox.clone(), gate.borrow().1);
                    tokio::task::spawn_local(async move {
                        let opened = gate.wait_for(|(is_open, now)| *is_open || *now != round).await;
                        if opened.is_ok_and(|state| state.1 == round) {
                            inbox.put(event);
                        }
                    });
                }
            }
        });
        Box::new(inner).start(context)
    }
}
