//! A report out of the facts that the actors of a node state.

use super::{
    events::EventsReport,
    report::{
        Campaign, Doing, ElectionDeadline, LinkReport, Members, NodeReport, ReplicationReport, ReportedTiming,
        SyncTimes, TermStart,
    },
    stage_times::StageTimes,
};
use crate::{config::Timing, status::Status};
use quorate_metrics::NodeRole;
use quorate_raft::{Index, NodeId};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// The facts that `Consensus` states about the node.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) status: Status,
    /// The last terms of the log.
    pub(crate) terms: Vec<TermStart>,
    pub(crate) campaign: Option<Campaign>,
    /// Of the snapshot that arrives: the bytes that have arrived, and all of them.
    pub(crate) receiving: Option<(u64, u64)>,
    pub(crate) is_restoring: bool,
    pub(crate) waiting: u64,
    /// The other members.
    pub(crate) peers: BTreeSet<NodeId>,
    /// Those with a link that is up.
    pub(crate) reachable: BTreeSet<NodeId>,
    pub(crate) round_trips: BTreeMap<NodeId, Duration>,
    /// The number of replicators that state theirs.
    pub(crate) replicators: usize,
}

/// All that a report is made of.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) incarnation: u64,
    pub(crate) sequence: u64,
    pub(crate) up: Duration,
    pub(crate) facts: &'a Facts,
    pub(crate) timer: Option<ElectionDeadline>,
    pub(crate) replications: &'a BTreeMap<NodeId, ReplicationReport>,
    pub(crate) sync: Option<SyncTimes>,
    pub(crate) stages: Option<StageTimes>,
    /// The last entry of the log at the start of the node.
    pub(crate) recovered: Index,
    pub(crate) timing: &'a Timing,
}

/// The report of a node, without events: those depend on its receiver.
pub(crate) fn compose(parts: &Parts<'_>) -> NodeReport {
    let Parts { incarnation, sequence, up, facts, timer, replications, sync, stages, recovered, timing } = parts;
    let status = &facts.status;
    let links = facts.peers.iter().map(|peer| LinkReport {
        peer: *peer,
        is_up: facts.reachable.contains(peer),
        round_trip: facts.round_trips.get(peer).copied(),
        replication: replications.get(peer).copied(),
    });
    NodeReport {
        node: status.node,
        incarnation: *incarnation,
        sequence: *sequence,
        up: *up,
        role: status.role,
        term: status.term,
        vote: status.vote,
        leader: status.leader,
        timer: *timer,
        first: status.first_log,
        snapshot: status.snapshot,
        applied: status.applied,
        commit: status.commit,
        durable: status.durable,
        last: status.last_log,
        terms: facts.terms.clone(),
        faulty: status.faulty,
        storage_full: status.storage_full,
        halted_at: status.halted.as_ref().map(|halted| halted.entry.index),
        doing: doing(facts, *recovered),
        campaign: facts.campaign.clone(),
        sync: *sync,
        // Those of an earlier leadership are no facts of the cluster any more.
        stages: stages.filter(|_| status.role == NodeRole::Leader),
        waiting: facts.waiting,
        links: links.collect(),
        members: Members {
            voters: status.voters.clone(),
            learners: status.learners.clone(),
            witness: status.witness,
            addresses: status.addresses.clone(),
            metadata: Arc::clone(&status.metadata),
            index: status.membership_index,
            is_settled: status.is_settled,
        },
        timing: ReportedTiming { heartbeat: timing.heartbeat_interval, election: timing.election_timeout },
        events: EventsReport::default(),
    }
}

/// The work that keeps a node from being up to date, the one that must be done first.
fn doing(facts: &Facts, recovered: Index) -> Option<Doing> {
    let status = &facts.status;
    let is_witness = status.witness == Some(status.node);
    match facts.receiving {
        Some((bytes, of)) => Some(Doing::Snapshot { part: Some(thousandths(bytes, of)) }),
        None if facts.is_restoring => Some(Doing::Snapshot { part: None }),
        None if status.faulty > 0 => Some(Doing::Repair),
        // A halted machine applies nothing, and a witness has none.
        None if status.halted.is_some() || is_witness => None,
        None => (status.applied < status.commit.min(recovered)).then_some(Doing::Recovery),
    }
}

/// The part in thousandths, at most 1,000; all of nothing.
pub(crate) fn thousandths(bytes: u64, of: u64) -> u16 {
    let part = u128::from(bytes.min(of)) * 1_000 / u128::from(of.max(1));
    if of == 0 { 1_000 } else { part as u16 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_raft::Term;

    #[test]
    fn a_link_is_up_if_the_network_says_so_and_has_what_its_replicator_states() {
        let replication = ReplicationReport {
            matched: Index(90),
            next: Index(97),
            silent: Duration::from_millis(30),
            snapshot_part: None,
            acknowledged: None,
        };
        let replications = [(NodeId(2), replication)].into();
        let facts = facts(|_| {});
        let report = compose(&parts(&facts, &replications));
        let [two, three] = &report.links[..] else { panic!("{:?}", report.links) };
        assert_eq!((two.peer, two.is_up, two.replication), (NodeId(2), true, Some(replication)));
        assert_eq!(two.round_trip, Some(Duration::from_micros(400)));
        assert_eq!((three.peer, three.is_up, three.replication), (NodeId(3), false, None));
        assert_eq!(replication.in_flight(), 6);
        assert_eq!((report.role, report.last, report.doing), (NodeRole::Leader, Index(100), None));
    }

    #[test]
    fn a_node_says_what_it_does_before_it_is_up_to_date() {
        let none = BTreeMap::new();
        let doing = |change: fn(&mut Facts)| compose(&parts(&facts(change), &none)).doing;
        assert_eq!(doing(|facts| facts.status.applied = Index(40)), Some(Doing::Recovery));
        assert_eq!(doing(|facts| facts.status.applied = Index(60)), None, "its log had 50 entries at its start");
        assert_eq!(doing(|facts| facts.status.faulty = 3), Some(Doing::Repair));
        assert_eq!(doing(|facts| facts.receiving = Some((1, 4))), Some(Doing::Snapshot { part: Some(250) }));
        assert_eq!(doing(|facts| facts.is_restoring = true), Some(Doing::Snapshot { part: None }));
        let witness = |facts: &mut Facts| {
            facts.status.applied = Index(0);
            facts.status.witness = Some(NodeId(1));
        };
        assert_eq!(doing(witness), None, "a witness applies nothing");
    }

    #[test]
    fn a_leader_alone_states_the_stages_of_a_write() {
        let none = BTreeMap::new();
        let stages = |role| compose(&parts(&facts(|facts| facts.status.role = role), &none)).stages;
        assert_eq!(stages(NodeRole::Leader), Some(StageTimes::default()));
        assert_eq!(stages(NodeRole::Follower), None, "it led a moment ago");
    }

    #[test]
    fn parts_are_in_thousandths_whatever_a_peer_claims() {
        assert_eq!(thousandths(0, 10), 0);
        assert_eq!(thousandths(5, 10), 500);
        assert_eq!(thousandths(u64::MAX, 10), 1_000);
        assert_eq!(thousandths(u64::MAX, u64::MAX), 1_000);
        assert_eq!(thousandths(0, 0), 1_000);
    }

    fn parts<'a>(facts: &'a Facts, replications: &'a BTreeMap<NodeId, ReplicationReport>) -> Parts<'a> {
        static TIMING: std::sync::OnceLock<Timing> = std::sync::OnceLock::new();
        Parts {
            incarnation: 1,
            sequence: 1,
            up: Duration::from_secs(1),
            facts,
            timer: None,
            replications,
            sync: None,
            stages: Some(StageTimes::default()),
            recovered: Index(50),
            timing: TIMING.get_or_init(Timing::default),
        }
    }

    /// Node 1 leads nodes 2 and 3 and hears 2; it has applied all of its 100 entries.
    fn facts(change: impl FnOnce(&mut Facts)) -> Facts {
        let status = Status {
            node: NodeId(1),
            role: NodeRole::Leader,
            term: Term(3),
            vote: Some(NodeId(1)),
            leader: Some(NodeId(1)),
            commit: Index(100),
            applied: Index(100),
            durable: Index(100),
            last_log: Index(100),
            first_log: Index(1),
            snapshot: Index(0),
            faulty: 0,
            lost_up_to: None,
            storage_full: false,
            halted: None,
            disagreement: None,
            voters: [1, 2, 3].map(NodeId).to_vec(),
            learners: Vec::new(),
            witness: None,
            addresses: BTreeMap::new(),
            metadata: Arc::default(),
            membership_index: Index(1),
            is_settled: true,
            cluster_id: None,
            schema_version: 0,
            machine_versions: None,
        };
        let mut facts = Facts {
            status,
            terms: Vec::new(),
            campaign: None,
            receiving: None,
            is_restoring: false,
            waiting: 0,
            peers: [NodeId(2), NodeId(3)].into(),
            reachable: [NodeId(2)].into(),
            round_trips: [(NodeId(2), Duration::from_micros(400))].into(),
            replicators: 2,
        };
        change(&mut facts);
        facts
    }
}
