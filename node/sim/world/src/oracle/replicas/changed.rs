//! Incremental check: the same verdict as [`Replicas::check`], at the price of
//! one replica's changes.
//!
//! It is enough because every property concerns one replica, two replicas, or one replica and the
//! history. If only one replica changed since everything was checked, then the others were checked,
//! alone and against each other, and the history has only grown: by the entries that this replica
//! newly committed, against which the others are checked again. If a log only grew at its end, its
//! earlier part was checked too. In any case of doubt everything is checked.

use super::{Replicas, cut_behind_a_snapshot, log_matching, order_of_indexes, same_configuration, whole_before_used};
use quorate_raft::{EntryId, Index, NodeId, Replica, Role, Term};

/// The state of one replica when it was last checked.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub(crate) struct Seen(Option<Outline>);

#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
struct Outline {
    term: Term,
    /// Index of the leader's first entry, if it leads.
    leads_from: Option<Index>,
    commit: Index,
    base: EntryId,
    runs: Vec<(Index, Term)>,
    last: EntryId,
    /// It stands for the content of the whole log.
    last_checksum: u32,
}

impl Replicas {
    /// Checks every property, provided that only the replica of `changed` acted since the last
    /// check of either kind. `seen` is its state at that check, kept by the caller for each
    /// replica. A replica that is down is not among `replicas`.
    ///
    /// Returns the first and the last index newly known to be committed.
    ///
    /// # Errors
    /// Names the property that is violated, and the replicas.
    pub(crate) fn check_changed<'a>(
        &mut self,
        changed: NodeId,
        seen: &mut Seen,
        replicas: impl Iterator<Item = &'a Replica> + Clone,
    ) -> Result<Option<(Index, Index)>, String> {
        let replica = replicas.clone().find(|replica| replica.id() == changed);
        let leads = replica.filter(|replica| replica.is_leader()).map(Replica::term);
        if let Some(led) = seen.0.as_ref().filter(|seen| seen.leads_from.is_some() && leads != Some(seen.term)) {
            self.leading.remove(&led.term);
        }
        let Some(replica) = replica else {
            seen.0 = None;
            return Ok(None);
        };
        let grown_from = seen.grown_from(replica);
        self.election_safety(replica)?;
        self.as_it_led_before(replica)?;
        cut_behind_a_snapshot(replica)?;
        order_of_indexes(replica)?;
        whole_before_used(replica)?;
        let committed_from = match (&seen.0, grown_from) {
            (Some(seen), Some(_)) => seen.commit.next().max(replica.log().first()),
            _ => replica.log().first(),
        };
        let news = self.state_machine_safety(replica, committed_from)?;
        if news.is_some() || grown_from.is_none() {
            replicas.clone().try_for_each(|replica| self.base_was_committed(replica))?;
        }
        if let Some(news) = news {
            replicas.clone().try_for_each(|replica| self.leader_completeness(replica, news))?;
        }
        if grown_from.is_none() || !seen.leads_like(replica) {
            self.leader_completeness(replica, Index(0))?;
        }
        for other in replicas.filter(|other| other.id() != changed) {
            match grown_from {
                Some(from) if from > replica.log().last().index => {}
                from => log_matching(replica, other, from.unwrap_or_default())?,
            }
            same_configuration(replica, other)?;
        }
        seen.look_at(replica, grown_from);
        Ok(news.map(|from| (from, replica.commit())))
    }
}

impl Seen {
    /// The first index of the replica's log that is new, if its earlier part
    /// is certainly unchanged.
    fn grown_from(&self, replica: &Replica) -> Option<Index> {
        let (seen, log) = (self.0.as_ref()?, replica.log());
        let behind = seen.last.index.next();
        if seen.base != log.base() || log.runs().get(..seen.runs.len()) != Some(&seen.runs) {
            return None;
        }
        if seen.last == log.last() {
            let is_same = seen.last_checksum == log.last_checksum() && seen.runs.len() == log.runs().len();
            return is_same.then_some(behind);
        }
        let ends_there = log.runs().get(seen.runs.len()).is_none_or(|(first, _)| *first >= behind);
        // An entry that replaced one of the same id is cached, and its checksum known.
        let is_same = || log.checksum_of(seen.last.index).is_none_or(|checksum| checksum == seen.last_checksum);
        (log.last().index > seen.last.index && ends_there && is_same()).then_some(behind)
    }

    /// Whether the replica leads in the same leadership.
    fn leads_like(&self, replica: &Replica) -> bool {
        self.0.as_ref().is_some_and(|seen| seen.term == replica.term() && seen.leads_from == leads_from(replica))
    }

    fn look_at(&mut self, replica: &Replica, grown_from: Option<Index>) {
        let log = replica.log();
        let seen = self.0.get_or_insert_default();
        if grown_from.is_none() || seen.runs.len() != log.runs().len() {
            seen.runs.clear();
            seen.runs.extend_from_slice(log.runs());
        }
        seen.term = replica.term();
        seen.leads_from = leads_from(replica);
        seen.commit = replica.commit();
        (seen.base, seen.last, seen.last_checksum) = (log.base(), log.last(), log.last_checksum());
    }
}

fn leads_from(replica: &Replica) -> Option<Index> {
    match replica.role() {
        Role::Leader(leadership) => Some(leadership.first),
        _ => None,
    }
}
