//! Durability before messages: a node keeps its promises through a crash at any moment.

mod support;

use quorate::{
    NodeId, Term, Timing,
    storage::{StorageHandle, Wal},
};
use quorate_raft::{
    Append, Batch, BatchBuilder, Body, EntryId, Heartbeat, Index, Kind, Message, Outgoing, Phase, RequestVote, Vote,
};
use quorate_storage_testing::{Crash, SimulatedDisk};
use support::{Cluster, Interposed, Journal, Plan, Puppet, Seen, Verdict, matched, simulate};

const SUBJECT: NodeId = NodeId(1);
const TERM: Term = Term(5);

#[test]
fn a_vote_given_before_a_crash_is_never_given_to_another_in_that_term() {
    for crash in CRASHES {
        simulate(async {
            let mut world = World::new().await;
            // Killed when the vote is on the disk and its answer has not left.
            world.start_doomed(crash, |seen| matches!(seen, Seen::Durable(done) if done.then.iter().any(grants))).await;
            world.first.say(TERM, request_vote());
            assert_eq!(world.first.hear_for_a_second().await.iter().find_map(granted), None);
            world.restart().await;
            assert_eq!(world.cluster.status(SUBJECT).vote, Some(NodeId(2)), "{crash:?}");
            world.second.say(TERM, request_vote());
            assert_eq!(world.second.hear("an answer", vote_of).await, (TERM, false), "{crash:?}: a second vote");
            world.first.say(TERM, request_vote());
            assert_eq!(
                world.first.hear("an answer", vote_of).await,
                (TERM, true),
                "{crash:?}: the first may be repeated"
            );
        });
    }
}

#[test]
fn a_crash_before_the_sync_leaves_no_vote_behind_and_none_was_heard() {
    simulate(async {
        let mut world = World::new().await;
        let votes = |seen: &Seen<'_>| matches!(seen, Seen::Asked(persist) if persist.then.iter().any(grants));
        world.start_doomed(Crash::Lose, votes).await;
        world.first.say(TERM, request_vote());
        assert_eq!(world.first.hear_for_a_second().await.iter().find_map(granted), None);
        world.restart().await;
        assert_eq!(world.cluster.status(SUBJECT).vote, None);
        world.second.say(TERM, request_vote());
        assert_eq!(world.second.hear("an answer", vote_of).await, (TERM, true), "no candidate had this vote");
    });
}

#[test]
fn a_vote_that_was_heard_survives_any_crash() {
    for crash in CRASHES {
        simulate(async {
            let mut world = World::new().await;
            world.start_doomed(crash, |_| false).await;
            world.first.say(TERM, request_vote());
            assert_eq!(world.first.hear("an answer", vote_of).await, (TERM, true));
            world.crash(crash).await;
            world.restart().await;
            world.second.say(TERM, request_vote());
            assert_eq!(world.second.hear("an answer", vote_of).await, (TERM, false), "{crash:?}: a second vote");
        });
    }
}

#[test]
fn a_candidate_that_crashed_votes_for_no_other_in_its_term() {
    for crash in CRASHES {
        simulate(async {
            let mut world = World::new().await;
            // Killed when its term and its vote for itself are on the disk, and no
            // vote was requested.
            let asks = |seen: &Seen<'_>| matches!(seen, Seen::Durable(done) if done.then.iter().any(asks_for_vote));
            world.start_doomed(crash, asks).await;
            let pre_vote = |message: &Message| match message.body {
                Body::RequestVote(request) if request.phase == Phase::PreVote => Some((message.term, request)),
                _ => None,
            };
            let (term, request) = world.first.hear("a pre-vote", pre_vote).await;
            // A new node campaigns once all voters have answered: one of them might know that its
            // log was lost.
            let yes = Vote { phase: Phase::PreVote, campaign: request.campaign, denial: None };
            world.first.say(term, Body::Vote(yes));
            world.second.say(term, Body::Vote(yes));
            let said = world.first.hear_for_a_second().await;
            assert!(!said.iter().any(|said| matches!(said.body, Body::RequestVote(r) if r.phase == Phase::Vote)));
            world.restart().await;
            let status = world.cluster.status(SUBJECT);
            assert_eq!((status.term, status.vote), (term.next(), Some(SUBJECT)), "{crash:?}");
            world.second.say(term.next(), request_vote());
            assert_eq!(world.second.hear("an answer", vote_of).await, (term.next(), false));
        });
    }
}

#[test]
fn an_entry_that_was_acknowledged_survives_any_crash() {
    for crash in CRASHES {
        simulate(async {
            let mut world = World::new().await;
            world.start_doomed(crash, |_| false).await;
            world.first.say(TERM, append(1, EntryId::default(), Some(batch(3))));
            assert_eq!(world.first.hear("an acknowledgement", matched).await, Index(3));
            world.crash(crash).await;
            world.restart().await;
            let status = world.cluster.status(SUBJECT);
            assert_eq!((status.term, status.last_log, status.durable), (TERM, Index(3), Index(3)), "{crash:?}");
        });
    }
}

#[test]
fn an_entry_is_acknowledged_only_when_the_disk_has_it() {
    for nth in 0..2 {
        simulate(async {
            let mut world = World::new().await;
            let is_it = move |seen: &Seen<'_>| match seen {
                Seen::Asked(persist) => nth == 0 && persist.batch.is_some(),
                Seen::Durable(done) => nth == 1 && done.then.iter().any(acknowledges),
            };
            world.start_doomed(Crash::Lose, is_it).await;
            world.first.say(TERM, append(1, EntryId::default(), Some(batch(3))));
            let said = world.first.hear_for_a_second().await;
            assert_eq!(said.iter().find_map(matched), None);
            world.restart().await;
            let kept = if nth == 0 { Index(0) } else { Index(3) };
            assert_eq!(world.cluster.status(SUBJECT).last_log, kept);
            // The leader sends again what was not acknowledged.
            world.first.say(TERM, append(1, EntryId::default(), Some(batch(3))));
            assert_eq!(world.first.hear("an acknowledgement", matched).await, Index(3));
        });
    }
}

#[test]
fn nothing_is_promised_in_a_term_that_is_not_durable() {
    simulate(async {
        let mut world = World::new().await;
        // The disk is stuck from the write of the new term on.
        world
            .start_doomed(Crash::Lose, |seen| matches!(seen, Seen::Asked(persist) if persist.hard_state.is_some()))
            .await;
        world.first.say(TERM, Body::Heartbeat(Heartbeat { round: 1, commit: Index(0) }));
        world.first.say(TERM, append(1, EntryId::default(), None));
        world.first.say(TERM, append(2, EntryId::new(TERM, Index(9)), None));
        world.second.say(Term(6), request_vote());
        for puppet in [&mut world.first, &mut world.second] {
            let said = puppet.hear_for_a_second().await;
            // A pre-vote request promises nothing.
            let asks = |body: &Body| matches!(body, Body::RequestVote(request) if request.phase == Phase::PreVote);
            let in_new_term = said.iter().find(|message| message.term > Term(0) && !asks(&message.body));
            assert_eq!(in_new_term, None, "a term that a crash would forget was promised");
        }
    });
}

const CRASHES: [Crash; 5] =
    [Crash::Lose, Crash::Keep, Crash::Torn { bytes: 100 }, Crash::Scatter { seed: 1 }, Crash::Scatter { seed: 2 }];

/// One node on a disk that may crash, and two puppets as its peers.
struct World {
    cluster: Cluster,
    disk: SimulatedDisk,
    first: Puppet,
    second: Puppet,
}

impl World {
    async fn new() -> Self {
        let cluster = Cluster::vacant(Plan::default());
        let first = Puppet::start(&cluster.network, NodeId(2), SUBJECT).await;
        let second = Puppet::start(&cluster.network, NodeId(3), SUBJECT).await;
        Self { cluster, disk: SimulatedDisk::new(), first, second }
    }

    fn wal(&self) -> StorageHandle {
        Wal::at("data").segment_bytes(32 << 10).on(self.disk.clone()).storage()
    }

    /// Starts the node. The power fails at the moment that `doom` selects.
    async fn start_doomed(&mut self, crash: Crash, mut doom: impl FnMut(&Seen<'_>) -> bool + Send + Unpin + 'static) {
        let disk = self.disk.clone();
        let storage = Interposed::around(self.wal(), move |seen| {
            if doom(&seen) {
                disk.crash(crash);
                return Verdict::Kill;
            }
            Verdict::GoOn
        });
        self.cluster.start_as(SUBJECT, Journal::default(), |builder| builder.storage(storage)).await;
    }

    /// Cuts the power now: no later message of the node is heard.
    async fn crash(&mut self, crash: Crash) {
        self.cluster.faults.isolate(SUBJECT);
        self.disk.crash(crash);
    }

    /// Starts the node again on the content that the disk still has.
    async fn restart(&mut self) {
        self.cluster.stop(SUBJECT).await;
        self.cluster.faults.heal();
        for puppet in [&mut self.first, &mut self.second] {
            puppet.hear_for_a_second().await;
        }
        let storage = self.wal();
        self.cluster.start_as(SUBJECT, Journal::default(), |builder| builder.storage(storage)).await;
        // Before that the node grants no vote, even if its disk shows none.
        tokio::time::sleep(Timing::default().election_timeout.0).await;
    }
}

fn request_vote() -> Body {
    Body::RequestVote(RequestVote {
        phase: Phase::Vote,
        campaign: 1,
        last: EntryId::default(),
        by_transfer: false,
        machine_version: 0,
    })
}

fn vote_of(message: &Message) -> Option<(Term, bool)> {
    match message.body {
        Body::Vote(vote) if vote.phase == Phase::Vote => Some((message.term, vote.granted())),
        _ => None,
    }
}

fn granted(message: &Message) -> Option<()> {
    vote_of(message).filter(|(_, granted)| *granted).map(drop)
}

fn grants(outgoing: &Outgoing) -> bool {
    granted(&outgoing.message).is_some()
}

fn asks_for_vote(outgoing: &Outgoing) -> bool {
    matches!(outgoing.message.body, Body::RequestVote(request) if request.phase == Phase::Vote)
}

fn append(epoch: u64, previous: EntryId, batch: Option<Batch>) -> Body {
    Body::Append(Append { epoch, previous, previous_checksum: None, commit: Index(0), batch })
}

fn batch(count: u64) -> Batch {
    let mut builder = BatchBuilder::new(quorate::storage::checksum, TERM, Index(1), 0, 64);
    (0..count).for_each(|_| builder.push(Kind::Command, b"command"));
    builder.finish().expect("a batch")
}

fn acknowledges(outgoing: &Outgoing) -> bool {
    matched(&outgoing.message).is_some()
}
