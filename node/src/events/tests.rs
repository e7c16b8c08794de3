//! Every kind of event has a stable name, a sentence, and only references that exist.

use super::*;
use quorate_raft::{EntryId, Skip};
use serde::de::{self, Deserializer, Visitor};
use std::{collections::BTreeSet, fmt};

#[test]
fn the_kind_of_an_event_is_its_tag_and_there_is_a_sample_of_each() {
    let kinds: BTreeSet<_> = samples().iter().map(|what| event(what.clone()).kind()).collect();
    assert_eq!(kinds, tags(), "each variant has a sample, and its kind is its tag");
}

#[test]
fn every_sentence_names_its_node_and_ends_with_one_full_stop() {
    for what in samples() {
        let text = event(what).text();
        assert!(text.starts_with("Node 3 ") && text.ends_with('.') && !text.ends_with(".."), "{text}");
        assert!(!text.contains("  ") && !text.contains('\n'), "{text}");
    }
}

#[test]
fn every_explanation_is_one_or_two_sentences_and_its_sections_exist() {
    for what in samples() {
        let event = event(what);
        if let Some(why) = event.why() {
            assert!(why.ends_with('.') && why.chars().next().is_some_and(char::is_uppercase), "{why}");
        }
        for part in event.reference().into_iter().flat_map(|reference| reference.split("; ")) {
            let (text, sections) = part.split_once(' ').expect("a text and its sections");
            let known = match text {
                "paper" => PAPER,
                "thesis" => THESIS,
                other => panic!("{other} of {}", event.kind()),
            };
            for section in sections.split(", ") {
                assert!(known.contains(&section), "{text} {section} of {}", event.kind());
            }
        }
    }
}

#[test]
fn an_event_survives_postcard_and_so_does_its_text() {
    for what in samples() {
        let event = event(what);
        let bytes = postcard::to_allocvec(&event).expect("it is encoded");
        assert_eq!(postcard::from_bytes::<Event>(&bytes).as_ref(), Ok(&event));
        let told = event.told();
        let bytes = postcard::to_allocvec(&told).expect("it is encoded");
        assert_eq!(postcard::from_bytes::<Told>(&bytes).as_ref(), Ok(&told));
        assert_eq!((told.text, told.kind.as_str()), (event.text(), event.kind()));
    }
}

/// Sections of "In Search of an Understandable Consensus Algorithm (Extended Version)".
const PAPER: &[&str] = &[
    "§2",
    "§5.1",
    "§5.2",
    "§5.3",
    "§5.4",
    "§5.4.1",
    "§5.4.2",
    "§5.4.3",
    "§5.5",
    "§5.6",
    "§6",
    "§7",
    "§8",
    "§9.3",
    "Figure 2",
    "Figure 3",
    "Figure 7",
    "Figure 13",
];
/// Sections of "Consensus: Bridging Theory and Practice": 3.10 leadership transfer extension, 4.1
/// safety, 4.2.1 catching up new servers, 4.2.2 removing the current leader, 4.2.3 disruptive
/// servers, 4.3 arbitrary configuration changes, 6.2 routing requests to the leader, 6.4 read-only
/// queries, 6.4.1 clocks, 9.6 disruptions when a server rejoins, 10.2.1 writing to the leader's disk
/// in parallel.
const THESIS: &[&str] =
    &["§3.10", "§4.1", "§4.2.1", "§4.2.2", "§4.2.3", "§4.3", "§6.2", "§6.4", "§6.4.1", "§9.6", "§10.2.1"];

fn event(what: What) -> Event {
    Event { id: 7, node: NodeId(3), term: Term(8), at_ms: 61_200, wall_ms: 1_795_919_520_000, what }
}

/// A fact of each kind, and of each form that has words of its own.
fn samples() -> Vec<What> {
    let (peer, last, at, why) = (NodeId(1), EntryId::new(Term(7), Index(12)), Index(12), || "the cause".to_owned());
    let entry = Skip { index: Index(5), term: Term(2), checksum: 0xabcd };
    let nodes = || vec![NodeId(1), NodeId(3)];
    let both = [Phase::PreVote, Phase::Vote];
    let denials = [
        Denial::HearsLeader { leader: Some(NodeId(2)) },
        Denial::HearsLeader { leader: Some(NodeId(3)) },
        Denial::HearsLeader { leader: None },
        Denial::LogBehind { last },
        Denial::VotedFor { candidate: NodeId(2) },
        Denial::OldTerm { term: Term(9) },
        Denial::MachineVersion { version: 4 },
        Denial::LostData,
        Denial::MayHaveLostData,
        Denial::Removed,
        Denial::CanLeadInstead,
    ];
    let causes = [
        StepDown::LaterTerm { from: peer, term: Term(9) },
        StepDown::LeaderHeard { leader: peer },
        StepDown::VotedFor { candidate: peer },
        StepDown::Denied,
        StepDown::TimedOut,
        StepDown::NoQuorum,
        StepDown::DiskStalled,
        StepDown::MachineStalled,
        StepDown::StorageFull,
        StepDown::Removed,
        StepDown::SnapshotInstalled,
        StepDown::ToldToCampaign,
    ];
    let results = [CampaignResult::Won, CampaignResult::Lost, CampaignResult::TimedOut];
    let results = results.into_iter().chain(causes.map(CampaignResult::Superseded));
    let for_term = Term(8);
    let mut samples = Vec::new();
    for phase in both {
        samples.push(What::CampaignStarted { phase, for_term, last, silence_ms: Some(2_200) });
        samples.push(What::CampaignStarted { phase, for_term, last, silence_ms: None });
        samples.extend(results.clone().map(|result| What::CampaignEnded {
            phase,
            for_term,
            result,
            granted: nodes(),
            denied: Vec::new(),
        }));
        let denials = denials.into_iter().map(Some).chain([None]);
        let more = if phase == Phase::Vote { 3 } else { 0 };
        samples.extend(denials.map(|denial| What::VoteCast { phase, candidate: peer, for_term, last, denial, more }));
        samples.extend([None, Some(Denial::LostData)].map(|denial| What::VoteReceived {
            phase,
            voter: peer,
            last,
            denial,
            took_ms: 3,
        }));
    }
    samples.extend(causes.map(|cause| What::SteppedDown { led: Term(7), cause }));
    for cause in [TransferFailure::TimedOut, TransferFailure::AnotherLeads(peer), TransferFailure::Refused(why())] {
        samples.push(What::TransferFailed { to: Some(peer), cause });
    }
    for (outgoing, witness, committed) in [(nodes(), None, false), (Vec::new(), Some(peer), true)] {
        let (voters, learners) = (nodes(), vec![NodeId(4)]);
        let only_described = !committed;
        samples.push(What::MembersChanged { at, voters, outgoing, learners, witness, committed, only_described });
    }
    for step in [SnapshotStep::Build, SnapshotStep::Send, SnapshotStep::Receive] {
        samples.push(What::SnapshotFailed { step, last: Some(last), peer: Some(peer), why: why() });
        samples.push(What::SnapshotFailed { step, last: None, peer: None, why: why() });
    }
    for cause in [LeaseEnd::NotLeading, LeaseEnd::Transfer, LeaseEnd::NotRenewed] {
        samples.push(What::LeaseLost { cause });
    }
    samples.extend([
        What::TermChanged { before: Term(7), from: peer, shown: Term(8) },
        What::TermChanged { before: Term(7), from: peer, shown: Term(1 << 20) },
        What::LeaderElected { votes: nodes() },
        What::LeaderFollowed { leader: peer },
        What::FirstCommit { index: at, after_ms: 4 },
        What::MachineVersionUnknown { candidate: peer, version: 4, oldest: 1, newest: 3 },
        What::TransferBegan { to: peer, why: None },
        What::TransferBegan { to: peer, why: Some(why()) },
        What::TransferDone { to: peer },
        What::ChangeRefused { why: why() },
        What::LearnerPromoted { learner: peer, at },
        What::LearnerHeldBack { learner: peer, why: why() },
        What::Removed { at },
        What::AddedAgain,
        What::ClusterIdKnown { id: "0a".into() },
        What::OnlyVoter { listed: nodes() },
        What::AddressOverridden { peer, address: "a:1".into(), configured: "b:1".into() },
        What::SnapshotBuilt { last, bytes: 3 << 20, took_ms: 40 },
        What::SnapshotsUnsupported { peer: None },
        What::SnapshotsUnsupported { peer: Some(peer) },
        What::SnapshotSending { peer, last, bytes: 3 << 20 },
        What::SnapshotSent { peer, last: at, took_ms: 40 },
        What::SnapshotReceiving { from: peer, last, bytes: 3 << 20 },
        What::SnapshotReceived { from: peer, last, took_ms: 40 },
        What::SnapshotInstalled { last },
        What::SnapshotPostponed { last },
        What::Recovered { last },
        What::Recovered { last: EntryId::default() },
        What::RecoveryRepaired { what: why() },
        What::AppendRejected { peer, previous: at, next: Index(9) },
        What::EntriesRemoved { from: at, to: at, conflict: true },
        What::EntriesRemoved { from: at, to: Index(14), conflict: false },
        What::StateLost { up_to: at, found: why() },
        What::StateDiscarded { last },
        What::EntriesLost { count: 2, first: last },
        What::EntriesRepaired,
        What::StuckWithoutData { why: why() },
        What::MemberLostData { member: peer, last: Index(3), held: at },
        What::LastCopy,
        What::LeaderLostData { leader: peer, last: Index(3), committed: at },
        What::LogsDiffer { at: last, peer },
        What::StorageFull,
        What::StorageFree,
        What::DiskSlow { took_ms: 180, usual_us: 600 },
        What::DiskFast { after_ms: 4_000 },
        What::ThreadStalled { count: 2, longest_ms: 70 },
        What::LinkUp { peer },
        What::LinkDown { peer },
        What::FollowerSilent { peer },
        What::FollowerHeard { peer, lacks: 12 },
        What::FollowerBehind { peer, lacks: 12_000 },
        What::FollowerCaughtUp { peer, after_ms: 4_000 },
        What::SettingDiffers { peer, setting: "x".into(), own: "1".into(), other: "2".into(), advice: why() },
        What::SkipsDiffer { peer, theirs: "no entry".into(), own: entry.to_string() },
        What::SkipsAgree { peer },
        What::OverloadBegan { inside: 4_096 },
        What::OverloadEnded { after_ms: 4_000 },
        What::LeaseHeld,
        What::Halted { entry, why: why() },
        What::EntrySkipped { entry },
        What::SkipIgnored { named: entry, found: Some(entry) },
        What::SkipIgnored { named: entry, found: None },
        What::CopiesDiffer { why: why() },
        What::CopiesAgree,
        What::EffectRetried { effect: "12.0".into(), attempt: 2, why: why() },
        What::EffectTimedOut { effect: "12.0".into() },
        What::LeaderTaskPanicked,
        What::VersionRaised { version: 2 },
        What::ShuttingDown,
        What::Failed { why: why() },
    ]);
    samples
}

/// The tags of all variants of [`What`], as its decoder names them.
fn tags() -> BTreeSet<&'static str> {
    let Err(Tags(tags)) = What::deserialize(Asked) else { panic!("a decoder without data") };
    tags.iter().copied().collect()
}

/// A decoder that only learns which variants there are.
struct Asked;

#[derive(Debug)]
struct Tags(&'static [&'static str]);

impl fmt::Display for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl std::error::Error for Tags {}

impl de::Error for Tags {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self(&[])
    }
}

impl<'de> Deserializer<'de> for Asked {
    type Error = Tags;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Tags> {
        Err(Tags(&[]))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Tags> {
        Err(Tags(variants))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}
