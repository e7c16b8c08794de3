//! The sentence of each event. The page, the log, `status --watch` and alerts show it as it is.

use super::what::{CampaignResult, LeaseEnd, SnapshotStep, TransferFailure, What};
use quorate_raft::{Denial, EntryId, NodeId, Phase, StepDown, Term};
use std::fmt;

/// The sentence of a fact that `node` states in `term`.
pub(super) struct Sentence<'a> {
    pub(super) node: NodeId,
    pub(super) term: Term,
    pub(super) what: &'a What,
}

impl fmt::Display for Sentence<'_> {
    #[expect(clippy::too_many_lines, reason = "a sentence for each kind")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, term, what } = self;
        write!(f, "Node {node} ")?;
        match what {
            What::CampaignStarted { phase: Phase::PreVote, for_term, silence_ms, .. } => {
                match silence_ms {
                    Some(silence) => write!(f, "heard no leader for {}", Ms(*silence))?,
                    None => f.write_str("hears no leader")?,
                }
                write!(f, ", and asks for pre-votes for term {for_term}.")
            }
            What::CampaignStarted { phase: Phase::Vote, for_term, .. } => {
                write!(f, "starts term {for_term}, votes for itself and asks for votes.")
            }
            What::CampaignEnded { phase, for_term, result, granted, denied } => {
                let votes = votes(*phase);
                match result {
                    CampaignResult::Won => {
                        write!(f, "has the {votes} of {} for term {for_term}: a majority.", Nodes(granted))
                    }
                    CampaignResult::Lost => {
                        write!(f, "is not elected in term {for_term}: {} denied their {votes}.", Nodes(denied))
                    }
                    CampaignResult::TimedOut => {
                        write!(f, "has the {votes} of {} alone for term {for_term}: no majority in time", Nodes(granted))?;
                        f.write_str(", so the next timeout decides which node tries again.")
                    }
                    CampaignResult::Superseded(cause) => {
                        write!(f, "ends its campaign for term {for_term}: {}.", Cause(*cause))
                    }
                }
            }
            What::VoteCast { phase: Phase::PreVote, candidate, for_term, denial: None, .. } => {
                write!(f, "would vote for node {candidate} in term {for_term}.")
            }
            What::VoteCast { phase: Phase::Vote, candidate, for_term, denial: None, .. } => {
                write!(f, "votes for node {candidate} in term {for_term}.")
            }
            What::VoteCast { phase, candidate, for_term, last, denial: Some(denial), more } => {
                let (vote, last) = (vote(*phase), *last);
                write!(f, "denies node {candidate} its {vote} for term {for_term}: ")?;
                Reason { node: *node, candidate: *candidate, last, denial: *denial }.fmt(f)?;
                match more {
                    0 => f.write_str("."),
                    more => write!(f, "; {more} more alike since it last said so."),
                }
            }
            What::VoteReceived { phase, voter, denial: None, took_ms, .. } => {
                write!(f, "has the {} of node {voter} after {}.", vote(*phase), Ms(*took_ms))
            }
            What::VoteReceived { phase, voter, denial: Some(denial), last, .. } => {
                write!(f, "is denied the {} of node {voter}: ", vote(*phase))?;
                Reason { node: *voter, candidate: *node, last: *last, denial: *denial }.fmt(f)?;
                f.write_str(".")
            }
            What::TermChanged { before, from, shown } if shown > term => {
                write!(f, "goes from term {before} to term {term} only, as node {from} showed it term {shown}.")
            }
            What::TermChanged { before, from, .. } => {
                write!(f, "goes from term {before} to term {term}, which node {from} showed it.")
            }
            What::LeaderElected { votes } => write!(f, "leads term {term}, with the votes of {}.", Nodes(votes)),
            What::LeaderFollowed { leader } => write!(f, "follows node {leader}, the leader of term {term}."),
            What::FirstCommit { index, after_ms } => {
                write!(f, "has committed entry {index}, the first of term {term}, {} after its election.", Ms(*after_ms))
            }
            What::SteppedDown { led, cause } => write!(f, "no longer leads term {led}: {}.", Cause(*cause)),
            What::MachineVersionUnknown { candidate, version, oldest, newest } => write!(
                f,
                "cannot vote for node {candidate}: that writes version {version}, and the state machine here applies {oldest} to \
                 {newest}; run a release here that applies it."
            ),

            What::TransferBegan { to, why: None } => write!(f, "begins to transfer leadership to node {to}."),
            What::TransferBegan { to, why: Some(why) } => {
                write!(f, "begins to transfer leadership to node {to}: {why}.")
            }
            What::TransferDone { to } => write!(f, "has transferred leadership to node {to}."),
            What::TransferFailed { to, cause } => {
                f.write_str("did not transfer leadership")?;
                if let Some(to) = to {
                    write!(f, " to node {to}")?;
                }
                match cause {
                    TransferFailure::TimedOut => f.write_str(": that did not take over in time."),
                    TransferFailure::AnotherLeads(leader) => write!(f, ": node {leader} leads now."),
                    TransferFailure::Refused(why) => write!(f, ": {why}."),
                }
            }

            What::MembersChanged { at, voters, outgoing, learners, witness, committed, only_described } => {
                match committed {
                    true => write!(f, "knows the configuration of entry {at} to be committed: ")?,
                    false => write!(f, "takes over the configuration of entry {at}: ")?,
                }
                if *only_described {
                    f.write_str("addresses or metadata changed, and still ")?;
                }
                if outgoing.is_empty() {
                    write!(f, "{} vote", Nodes(voters))?;
                } else {
                    write!(f, "{} vote, and so do {} until the change is done", Nodes(voters), Nodes(outgoing))?;
                }
                if let Some(witness) = witness {
                    write!(f, ", node {witness} as the witness")?;
                }
                match learners.is_empty() {
                    true => f.write_str("."),
                    false => write!(f, ", and {} only learn.", Nodes(learners)),
                }
            }
            What::ChangeRefused { why } => write!(f, "was asked for a change of the members, which was refused: {why}."),
            What::LearnerPromoted { learner, at } => {
                write!(f, "makes node {learner} a voter in entry {at}, as it kept up.")
            }
            What::LearnerHeldBack { learner, why } => {
                write!(f, "does not make node {learner} a voter yet, though it kept up: {why}.")
            }
            What::Removed { at } => write!(f, "was removed from the cluster by entry {at}: it stops."),
            What::AddedAgain => f.write_str("was added to the cluster again: it goes on."),
            What::ClusterIdKnown { id } => write!(f, "knows the id of its cluster to be {id}."),
            What::OnlyVoter { listed } => write!(
                f,
                "has a log that names this node as the only voter, though its settings list {}: they get no copy of the data until they are added as \
                 members.",
                Nodes(listed)
            ),
            What::AddressOverridden { peer, address, configured } => write!(
                f,
                "takes {address} for node {peer}, which is dialled where the members' list has it, not at {configured} as configured \
                 here."
            ),

            What::SnapshotBuilt { last, bytes, took_ms } => {
                write!(f, "wrote a snapshot up to {}, {} in {}.", Entry(*last), Bytes(*bytes), Ms(*took_ms))
            }
            What::SnapshotFailed { step, last, peer, why } => {
                match (step, peer) {
                    (SnapshotStep::Build, _) => f.write_str("could not write a snapshot")?,
                    (SnapshotStep::Send, Some(peer)) => write!(f, "could not send node {peer} a snapshot")?,
                    (SnapshotStep::Send, None) => f.write_str("could not send a snapshot")?,
                    (SnapshotStep::Receive, Some(peer)) => write!(f, "could not receive a snapshot of node {peer}")?,
                    (SnapshotStep::Receive, None) => f.write_str("could not receive a snapshot")?,
                }
                if let Some(last) = last {
                    write!(f, " up to {}", Entry(*last))?;
                }
                write!(f, ": {why}.")
            }
            What::SnapshotsUnsupported { peer: None } => {
                f.write_str("keeps its log in full: the state machine makes no snapshots.")
            }
            What::SnapshotsUnsupported { peer: Some(peer) } => write!(
                f,
                "cannot send node {peer} the snapshot that it needs: the state machine makes none; remove node {peer} and add a new \
                 member."
            ),
            What::SnapshotSending { peer, last, bytes } => {
                write!(f, "sends node {peer} a snapshot up to {}, {}.", Entry(*last), Bytes(*bytes))
            }
            What::SnapshotSent { peer, last, took_ms } => {
                write!(f, "has sent node {peer} a snapshot up to entry {last}, which that installed after {}.", Ms(*took_ms))
            }
            What::SnapshotReceiving { from, last, bytes } => {
                write!(f, "receives a snapshot up to {} from node {from}, {}.", Entry(*last), Bytes(*bytes))
            }
            What::SnapshotReceived { from, last, took_ms } => write!(
                f,
                "has the snapshot up to {} of node {from} on its disk, after {}.",
                Entry(*last),
                Ms(*took_ms)
            ),
            What::SnapshotInstalled { last } => write!(f, "has restored its state up to {}.", Entry(*last)),
            What::SnapshotPostponed { last } => write!(
                f,
                "does not restore the snapshot up to {}, as its state machine halted: the next start does.",
                Entry(*last)
            ),

            What::Recovered { last } if last.index.0 == 0 => f.write_str("starts with an empty log."),
            What::Recovered { last } => write!(f, "recovered a log that ends at {}.", Entry(*last)),
            What::RecoveryRepaired { what } => write!(f, "repaired its files: {what}."),
            What::AppendRejected { peer, previous, next } => write!(
                f,
                "hears that the log of node {peer} differs at entry {previous}, or lacks it, and sends from entry {next} on."
            ),
            What::EntriesRemoved { from, to, conflict } => {
                match from == to {
                    true => write!(f, "removes entry {from}, which was not committed")?,
                    false => write!(f, "removes entries {from} to {to}, which were not committed")?,
                }
                match (conflict, from == to) {
                    (true, true) => f.write_str(" and conflicts with the one that the leader sent."),
                    (true, false) => f.write_str(" and conflict with those that the leader sent."),
                    (false, _) => f.write_str(": its disk lost them, and a majority does not have them."),
                }
            }
            What::StateLost { up_to, found } => write!(
                f,
                "lost its state: the state up to entry {up_to} is lost here, and the log begins after it: {found}; any member that \
                 still has the state brings it back as soon as it leads; if none has, no node can lead: restore a backup \
                 (quorate-kv restore)."
            ),
            What::StateDiscarded { last } => write!(
                f,
                "discards its state up to {}, as this start was told: the leader's snapshot takes its place.",
                Entry(*last)
            ),
            What::EntriesLost { count, first } => write!(
                f,
                "lost the payload of {count} entries to its disk, from {} on: the other members are asked for them.",
                Entry(*first)
            ),
            What::EntriesRepaired => f.write_str("has its whole log again."),
            What::StuckWithoutData { why } => write!(f, "is stuck: {why}."),
            What::MemberLostData { member, last, held } => write!(
                f,
                "found that node {member} lost data: its log ends at entry {last}, and it had acknowledged committed entries up to \
                 {held}; its data directory was emptied or put back, so it counts for nothing here; remove it and add a new member \
                 under a new id."
            ),
            What::LastCopy => f.write_str(
                "found that too many members lost data to leave a quorum: this may be the last good copy; keep this data directory, \
                 stop the other members, and recover the cluster from it (quorate-kv recover).",
            ),
            What::LeaderLostData { leader, last, committed } => write!(
                f,
                "found that leader {leader} has committed nothing after entry {last}, and entry {committed} is committed here: the \
                 members that elected it lost data, and this may be the last good copy; keep this data directory, stop the other \
                 members, and recover the cluster from it (quorate-kv recover)."
            ),
            What::LogsDiffer { at, peer } => write!(
                f,
                "and node {peer} differ in {}: one of the two logs is damaged; nothing was overwritten; a node whose log contradicts a \
                 quorum stops.",
                Entry(*at)
            ),
            What::StorageFull => f.write_str("takes no commands: the disk is full."),
            What::StorageFree => f.write_str("takes commands again: the disk has space."),
            What::DiskSlow { took_ms, usual_us } => {
                write!(f, "has a slow disk: a sync takes {}, usually {}.", Ms(*took_ms), Us(*usual_us))
            }
            What::DiskFast { after_ms } => write!(f, "has a fast disk again, after {}.", Ms(*after_ms)),
            What::ThreadStalled { longest_ms, .. } => write!(
                f,
                "ran up to {} late: the machine is too busy, or stood still; give the node more of it, or raise election_timeout.",
                Ms(*longest_ms)
            ),

            What::LinkUp { peer } => write!(f, "is connected to node {peer}."),
            What::LinkDown { peer } => write!(f, "lost its connection to node {peer}."),
            What::FollowerSilent { peer } => write!(f, "hears nothing of node {peer}."),
            What::FollowerHeard { peer, lacks } => write!(f, "hears node {peer} again, which lacks {lacks} entries."),
            What::FollowerBehind { peer, lacks } => {
                write!(f, "is far ahead of node {peer}, which lacks {lacks} entries.")
            }
            What::FollowerCaughtUp { peer, after_ms } => {
                write!(f, "has brought node {peer} up to date, after {}.", Ms(*after_ms))
            }
            What::SettingDiffers { peer, setting, own, other, advice } => {
                write!(f, "has {setting} = {own:?}, and node {peer} has {other:?}: {advice}.")
            }
            What::SkipsDiffer { peer, theirs, own } => write!(
                f,
                "skips {own}, and node {peer} skips {theirs}: their states would differ, so nothing that node {peer} says is heard; \
                 name the same entries on every node (Builder::skip, [[skip]]) and restart those that change."
            ),
            What::SkipsAgree { peer } => {
                write!(f, "hears node {peer} again, which skips the same entries as this node now.")
            }

            What::OverloadBegan { inside } => {
                write!(f, "refuses callers: {inside} requests wait for an answer, and there is no room for more.")
            }
            What::OverloadEnded { after_ms } => {
                write!(f, "admits all callers again, after {}.", Ms(*after_ms))
            }
            What::LeaseHeld => f.write_str("holds a lease, and answers reads without asking others."),
            What::LeaseLost { cause } => {
                let cause = match cause {
                    LeaseEnd::NotLeading => "it no longer leads",
                    LeaseEnd::Transfer => "it transfers leadership",
                    LeaseEnd::NotRenewed => "no majority renewed it, or no read asked for that",
                };
                write!(f, "holds no lease any more: {cause}.")
            }

            What::Halted { why, .. } => write!(f, "halted: {why}."),
            What::EntrySkipped { entry } => write!(
                f,
                "skips {entry}: its caller is told so, and the state machine does not see it."
            ),
            What::SkipIgnored { named, found: Some(found) } => write!(
                f,
                "was told to skip {named}, but the log has {found}: it is applied; correct the list of entries to skip."
            ),
            What::SkipIgnored { named, found: None } => {
                write!(f, "was told to skip {named}, but that holds no command: nothing is skipped.")
            }
            What::CopiesDiffer { why } => write!(f, "found a difference: {why}."),
            What::CopiesAgree => f.write_str("sees the full copies agree again."),
            What::EffectRetried { effect, attempt, why } => {
                write!(f, "performs effect {effect} again, as attempt {attempt} failed: {why}.")
            }
            What::EffectTimedOut { effect } => {
                write!(f, "gives up a call for effect {effect}, which took too long, and makes it again.")
            }
            What::LeaderTaskPanicked => {
                f.write_str("leads, and a task of its leadership panicked: it rests until the next leadership.")
            }
            What::VersionRaised { version } => {
                write!(f, "raises the service to version {version}, which every member applies.")
            }

            What::ShuttingDown => f.write_str("shuts down."),
            What::Failed { why } => write!(f, "failed: {why}."),
        }
    }
}

fn vote(phase: Phase) -> &'static str {
    match phase {
        Phase::PreVote => "pre-vote",
        Phase::Vote => "vote",
    }
}

fn votes(phase: Phase) -> &'static str {
    match phase {
        Phase::PreVote => "pre-votes",
        Phase::Vote => "votes",
    }
}

/// The reason of a denied vote.
struct Reason {
    node: NodeId,
    candidate: NodeId,
    last: EntryId,
    denial: Denial,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, candidate, last: theirs, denial } = self;
        match denial {
            Denial::HearsLeader { leader: Some(leader) } if leader == node => {
                f.write_str("it leads, and hears a majority")
            }
            Denial::HearsLeader { leader: Some(leader) } => write!(f, "it hears node {leader}, which leads"),
            Denial::HearsLeader { leader: None } => f.write_str("it heard a leader lately, and promised that to wait"),
            Denial::LogBehind { last } => {
                write!(f, "its own log ends at {}, that of node {candidate} at {}", Entry(*last), Entry(*theirs))
            }
            Denial::VotedFor { candidate } => write!(f, "it has voted for node {candidate} in this term"),
            Denial::OldTerm { term } => write!(f, "it is in term {term} already"),
            Denial::MachineVersion { version } => {
                write!(f, "its state machine cannot apply version {version}, which that writes")
            }
            Denial::LostData => write!(f, "node {candidate} once acknowledged more than it has, so its disk lost data"),
            Denial::MayHaveLostData => f.write_str("it may have lost its own data, so it cannot compare logs yet"),
            Denial::Removed => write!(f, "node {candidate} was removed from the cluster"),
            Denial::CanLeadInstead => {
                write!(f, "node {candidate} seems to have left the cluster, and node {node} can lead itself")
            }
        }
    }
}

/// The reason for which a node leads or campaigns no more.
struct Cause(StepDown);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            StepDown::LaterTerm { from, term } => write!(f, "node {from} showed it term {term}"),
            StepDown::LeaderHeard { leader } => write!(f, "node {leader} leads this term"),
            StepDown::VotedFor { candidate } => write!(f, "it votes for node {candidate} instead"),
            StepDown::Denied => f.write_str("too many voters denied their vote"),
            StepDown::TimedOut => f.write_str("its election timeout passed"),
            StepDown::NoQuorum => f.write_str("it heard no majority for an election timeout"),
            StepDown::DiskStalled => f.write_str("its disk does not complete a write"),
            StepDown::MachineStalled => f.write_str("its state machine does not complete an entry"),
            StepDown::StorageFull => f.write_str("its disk is full"),
            StepDown::Removed => f.write_str("it is no longer a voter"),
            StepDown::SnapshotInstalled => f.write_str("it took over a snapshot"),
            StepDown::ToldToCampaign => f.write_str("the leader asked it to take over"),
            _ => f.write_str("a rule of a newer release says so"),
        }
    }
}

/// "node 2", "nodes 1 and 2", "nodes 1, 2 and 3".
struct Nodes<'a>(&'a [NodeId]);

impl fmt::Display for Nodes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("no node"),
            [one] => write!(f, "node {one}"),
            [first, middle @ .., last] => {
                write!(f, "nodes {first}")?;
                middle.iter().try_for_each(|id| write!(f, ", {id}"))?;
                write!(f, " and {last}")
            }
        }
    }
}

/// "entry 12 of term 3".
struct Entry(EntryId);

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entry {} of term {}", self.0.index, self.0.term)
    }
}

/// A time in milliseconds, in its plain unit.
struct Ms(u64);

impl fmt::Display for Ms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ms @ ..1_000 => write!(f, "{ms} ms"),
            ms @ ..120_000 => write!(f, "{}.{} s", ms / 1_000, ms % 1_000 / 100),
            ms => write!(f, "{} min", ms / 60_000),
        }
    }
}

/// A time in microseconds, in its plain unit.
struct Us(u64);

impl fmt::Display for Us {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            us @ ..1_000 => write!(f, "{us} µs"),
            us @ ..10_000 => write!(f, "{}.{} ms", us / 1_000, us % 1_000 / 100),
            us => Ms(us / 1_000).fmt(f),
        }
    }
}

/// A size, in its plain unit.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
        if self.0 < 1 << 10 {
            return write!(f, "{} bytes", self.0);
        }
        // Tenths of the unit, so that no float is needed.
        let (mut tenths, mut unit) = ((self.0 * 10) >> 10, 0);
        while tenths >= 10 << 10 && unit + 1 < UNITS.len() {
            (tenths, unit) = (tenths >> 10, unit + 1);
        }
        write!(f, "{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_unit_that_is_read_most_easily() {
        let ms = [(7, "7 ms"), (2_230, "2.2 s"), (119_999, "119.9 s"), (600_000, "10 min")];
        ms.iter().for_each(|(ms, text)| assert_eq!(Ms(*ms).to_string(), *text));
        let us = [(640, "640 µs"), (2_200, "2.2 ms"), (180_000, "180 ms")];
        us.iter().for_each(|(us, text)| assert_eq!(Us(*us).to_string(), *text));
        let bytes = [(1_023, "1023 bytes"), (1_536, "1.5 KiB"), (3 << 20, "3.0 MiB"), (1 << 31, "2.0 GiB")];
        bytes.iter().for_each(|(bytes, text)| assert_eq!(Bytes(*bytes).to_string(), *text));
    }

    #[test]
    fn nodes_are_listed_in_words() {
        let lists: [(&[u64], &str); 4] =
            [(&[], "no node"), (&[2], "node 2"), (&[1, 2], "nodes 1 and 2"), (&[1, 2, 3], "nodes 1, 2 and 3")];
        for (ids, text) in lists {
            let ids: Vec<_> = ids.iter().copied().map(NodeId).collect();
            assert_eq!(Nodes(&ids).to_string(), text);
        }
    }
}
