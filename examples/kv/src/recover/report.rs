//! What `recover` found and does, for people and for machines.

use super::{Target, next_steps};
use quorate::{
    ClusterId, Membership, NodeId,
    storage::salvage::{Choice, Survey, Transplanted},
};
use serde::{Serialize, ser::SerializeStruct};
use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
};

/// All of it. It is displayed as text, and serialised for machines.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    directories: Vec<Directory>,
    plan: Option<Plan>,
    /// What was made; `None` until then.
    made: Option<Made>,
    next: Vec<String>,
}

/// One directory.
#[derive(Clone, Debug, Serialize)]
struct Directory {
    dir: String,
    /// Why it can't be used.
    error: Option<String>,
    found: Option<Found>,
}

#[derive(Clone, Debug, Serialize)]
struct Found {
    node_id: NodeId,
    cluster: String,
    term: u64,
    voted_for: Option<NodeId>,
    /// The log begins behind this entry.
    base: Entry,
    last: Entry,
    snapshot: Option<Entry>,
    /// Entries whose bytes the disk lost.
    faulty: Vec<Entry>,
    /// Who votes, as far as its data say.
    voters: Vec<NodeId>,
    learners: Vec<NodeId>,
    /// What a start would put right.
    notes: Vec<String>,
}

/// An entry's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Entry {
    index: u64,
    term: u64,
}

/// What is taken from where, and what that may cost.
#[derive(Clone, Debug, Serialize)]
struct Plan {
    chosen: String,
    chosen_last: Entry,
    /// The last entry that is kept.
    kept: Entry,
    snapshot_from: Option<String>,
    snapshot: Option<Entry>,
    healed: Vec<Healed>,
    /// The voters of the newest configuration; nothing if no data say.
    voters: Vec<NodeId>,
    /// Members that were known to have a log, whoever votes.
    known: Vec<NodeId>,
    /// Those of the voters whose directories are not among the usable ones.
    missing: Vec<NodeId>,
    /// Whether the usable directories are a quorum of it.
    has_quorum: bool,
    into: String,
    cluster: String,
    node_id: NodeId,
    addr: String,
}

#[derive(Clone, Debug, Serialize)]
struct Healed {
    entry: Entry,
    from: String,
}

#[derive(Clone, Copy, Debug)]
struct Made {
    last: Entry,
    cluster_id: ClusterId,
}

impl Serialize for Made {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // JSON's numbers end where ids go on.
        let mut made = serializer.serialize_struct("Made", 2)?;
        made.serialize_field("last", &self.last)?;
        made.serialize_field("cluster_id", &self.cluster_id.to_string())?;
        made.end()
    }
}

impl Report {
    /// What was found, and what would be done about it, if anything.
    pub(super) fn of(
        surveys: &[Survey],
        unusable: &[(PathBuf, String)],
        choice: Option<&Choice<'_>>,
        target: &Target,
    ) -> Self {
        let usable = surveys.iter().map(|survey| Directory {
            dir: shown(survey.dir()),
            error: None,
            found: Some(Found::of(survey)),
        });
        let unusable =
            unusable.iter().map(|(dir, why)| Directory { dir: shown(dir), error: Some(why.clone()), found: None });
        let plan = choice.map(|choice| Plan::of(surveys, choice, target));
        let mut next = if plan.is_some() { next_steps(target) } else { Vec::new() };
        let last = "keep the old directories, unchanged, until you are sure; never start a node on them again";
        next.extend(plan.is_some().then(|| last.to_owned()));
        Self { directories: usable.chain(unusable).collect(), plan, made: None, next }
    }

    /// It was done.
    pub(super) fn made(&mut self, made: Transplanted, cluster_id: ClusterId) {
        self.made = Some(Made { last: made.last.into(), cluster_id });
    }
}

impl Found {
    fn of(survey: &Survey) -> Self {
        let found = survey.found();
        let membership = survey.membership();
        Self {
            node_id: survey.member(),
            cluster: survey.cluster().to_owned(),
            term: survey.term().0,
            voted_for: found.hard_state.vote,
            base: found.base.into(),
            last: found.last.into(),
            snapshot: found.snapshot.as_ref().map(|snapshot| snapshot.base.last.into()),
            faulty: found.faulty.iter().map(|faulty| faulty.id.into()).collect(),
            voters: membership.map(Membership::voters).unwrap_or_default(),
            learners: membership.map(|membership| membership.learners().to_vec()).unwrap_or_default(),
            notes: found.repairs.clone(),
        }
    }
}

impl Plan {
    fn of(surveys: &[Survey], choice: &Choice<'_>, target: &Target) -> Self {
        let here: BTreeSet<NodeId> = surveys.iter().map(Survey::member).collect();
        let membership = choice.chosen().membership();
        let voters = membership.map(Membership::voters).unwrap_or_default();
        let snapshot = choice.snapshot();
        Self {
            chosen: shown(choice.chosen().dir()),
            chosen_last: choice.chosen().last().into(),
            kept: choice.last().into(),
            snapshot_from: snapshot.map(|(dir, _)| shown(dir)),
            snapshot: snapshot.map(|(_, snapshot)| snapshot.base.last.into()),
            healed: choice
                .healed()
                .into_iter()
                .map(|healed| Healed { entry: healed.id.into(), from: shown(&healed.from) })
                .collect(),
            missing: voters.iter().copied().filter(|id| !here.contains(id)).collect(),
            has_quorum: membership.is_some_and(|membership| has_quorum(membership, &here)),
            voters,
            known: choice.chosen().found().known.iter().map(|(member, _)| *member).collect(),
            into: shown(&target.into),
            cluster: target.cluster.clone(),
            node_id: target.node,
            addr: target.addr.clone(),
        }
    }
}

/// Whether these could elect a leader: a majority of the voters, in each half of a joint configuration.
pub(super) fn has_quorum(membership: &Membership, here: &BTreeSet<NodeId>) -> bool {
    let halves = [membership.incoming(), membership.outgoing()];
    let is_majority = |half: &[NodeId]| half.iter().filter(|id| here.contains(id)).count() > half.len() / 2;
    !membership.incoming().is_empty() && halves.iter().all(|half| half.is_empty() || is_majority(half))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        table(f, &self.directories)?;
        for Directory { dir, error, found } in &self.directories {
            if let Some(error) = error {
                write!(f, "\n{} can't be used: {error}", dir)?;
            }
            for note in found.iter().flat_map(|found| &found.notes) {
                write!(f, "\n{}: a start would say: {note}", dir)?;
            }
        }
        let Some(plan) = &self.plan else { return Ok(()) };
        write!(f, "\n\n{plan}")?;
        let Plan { into, node_id, cluster, .. } = plan;
        match self.made {
            Some(Made { last, cluster_id }) => write!(
                f,
                "\n\nMade: {}, node {node_id} of cluster {cluster}, id {cluster_id}, its only voter. Its log ends with entry {last}.\nNext:",
                into
            )?,
            None => write!(f, "\n\nWith --yes, {} is made. Then:", into)?,
        }
        self.next.iter().zip(1..).try_for_each(|(step, number)| write!(f, "\n  {number}. {step}"))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { chosen, chosen_last, kept, .. } = self;
        write!(
            f,
            "CHOSEN: {chosen}\n  Its last entry, {chosen_last}, is the most advanced: the highest term, then the highest index."
        )?;
        match (&self.snapshot, &self.snapshot_from) {
            (Some(snapshot), Some(from)) if snapshot == kept => {
                write!(f, "\n  Kept: the snapshot of {from}, up to entry {kept}.")?
            }
            (Some(snapshot), Some(from)) => {
                write!(
                    f,
                    "\n  Kept: the snapshot of {from}, up to entry {snapshot}, and the log behind it, up to entry {kept}."
                )?;
            }
            _ => write!(f, "\n  Kept: the log from its first entry on, up to entry {kept}.")?,
        }
        if kept != chosen_last {
            write!(f, "\n  GIVEN UP, as asked: everything behind entry {kept}, up to {chosen_last}.")?;
        }
        for Healed { entry, from } in &self.healed {
            write!(f, "\n  Entry {entry} is lost there, and comes from {from}.")?;
        }
        self.what_may_be_lost(f)?;
        f.write_str(
            "\n\nWHAT MAY COME BACK\
             \n  Every entry that is kept becomes committed: also writes whose clients were told nothing, or that the\
             \n  outcome is unknown.\
             \n\nBEFORE YOU GO ON\
             \n  Be sure that no member of the old cluster runs and serves clients, now or later: both clusters would take\
             \n  writes. Old members can't join the new one by accident, for it has another name; they are not stopped by this.",
        )
    }
}

impl Plan {
    fn what_may_be_lost(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { chosen, voters, missing, known, .. } = self;
        write!(f, "\n\nWHAT MAY BE LOST")?;
        if self.has_quorum {
            return write!(
                f,
                "\n  Nothing that was acknowledged, if these directories are as their nodes left them: of the voters {} a quorum\
                 \n  is listed above. BUT THEN NOTHING NEEDS TO BE RECOVERED: start those nodes, and they elect a leader.",
                ids(voters)
            );
        }
        match (&voters[..], &known[..]) {
            ([], []) => write!(f, "\n  No data say who votes: compare with [[peers]] of the old configuration.")?,
            ([], known) => write!(
                f,
                "\n  No data say who votes: compare with [[peers]] of the old configuration. Known to have had a log: {}.",
                ids(known)
            )?,
            _ => write!(f, "\n  Of the voters {} these are not listed above: {}.", ids(voters), ids(missing))?,
        }
        write!(
            f,
            "\n  What was committed by voters that are not listed, and did not reach {chosen}, is gone, although\
             \n  clients were told that it was written. Nobody can say what it was. Name more surviving directories, and it is less."
        )
    }
}

fn table(f: &mut fmt::Formatter<'_>, directories: &[Directory]) -> fmt::Result {
    let head = ["directory", "node", "cluster", "term", "log", "last", "snapshot", "lost", "voters"].map(str::to_owned);
    let rows = directories.iter().map(|Directory { dir, found, .. }| {
        let dir = dir.clone();
        let Some(found) = found else {
            return [dir].into_iter().chain((1..9).map(|_| "-".to_owned())).collect();
        };
        let or_none = |text: String| if text.is_empty() { "-".to_owned() } else { text };
        vec![
            dir,
            found.node_id.to_string(),
            found.cluster.clone(),
            found.term.to_string(),
            format!("{}..{}", found.base.index.saturating_add(1), found.last.index),
            found.last.to_string(),
            or_none(found.snapshot.map(|snapshot| snapshot.to_string()).unwrap_or_default()),
            found.faulty.len().to_string(),
            or_none(found.voters.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")),
        ]
    });
    let rows: Vec<Vec<String>> = std::iter::once(head.to_vec()).chain(rows).collect();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..head.len()).map(|column| width(column).unwrap_or(0)).collect();
    for (number, row) in rows.iter().enumerate() {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        write!(f, "{}{}", if number == 0 { "" } else { "\n" }, line.trim_end())?;
    }
    Ok(())
}

/// A path as text, of which JSON knows no other kind.
fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn ids(ids: &[NodeId]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

impl From<quorate::EntryId> for Entry {
    fn from(id: quorate::EntryId) -> Self {
        Self { index: id.index.0, term: id.term.0 }
    }
}
