//! The report of `recover`: findings and plan, for people and for programs.

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

/// The complete report. Displayed as text, serialized for programs.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    directories: Vec<Directory>,
    plan: Option<Plan>,
    /// The created directory; `None` if nothing was created.
    made: Option<Made>,
    next: Vec<String>,
}

/// The findings in one directory.
#[derive(Clone, Debug, Serialize)]
struct Directory {
    dir: String,
    /// The reason if the directory cannot be used.
    error: Option<String>,
    found: Option<Found>,
}

#[derive(Clone, Debug, Serialize)]
struct Found {
    node_id: NodeId,
    cluster: String,
    term: u64,
    voted_for: Option<NodeId>,
    /// The last entry before the log's first one.
    base: Entry,
    last: Entry,
    snapshot: Option<Entry>,
    /// Entries whose bytes the disk lost.
    faulty: Vec<Entry>,
    /// The voters, as far as the directory's data tell.
    voters: Vec<NodeId>,
    learners: Vec<NodeId>,
    /// Problems that a start on the directory would repair.
    notes: Vec<String>,
}

/// The index and term of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Entry {
    index: u64,
    term: u64,
}

/// The plan: the entries that are kept, their sources, and the possible losses.
#[derive(Clone, Debug, Serialize)]
struct Plan {
    chosen: String,
    chosen_last: Entry,
    /// The last entry that is kept.
    kept: Entry,
    snapshot_from: Option<String>,
    snapshot: Option<Entry>,
    healed: Vec<Healed>,
    /// The voters of the newest configuration; empty if no data contain one.
    voters: Vec<NodeId>,
    /// Members that are known to have had a log, voters or not.
    known: Vec<NodeId>,
    /// Voters without a usable directory.
    missing: Vec<NodeId>,
    /// Whether the usable directories form a quorum of the voters.
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
        // A string, because JSON's numbers cannot hold a cluster id.
        let mut made = serializer.serialize_struct("Made", 2)?;
        made.serialize_field("last", &self.last)?;
        made.serialize_field("cluster_id", &self.cluster_id.to_string())?;
        made.end()
    }
}

impl Report {
    /// A report of the findings, and of the plan if there is one.
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
        let last = "keep the old directories unchanged until the data is verified; never start a node on them again";
        next.extend(plan.is_some().then(|| last.to_owned()));
        Self { directories: usable.chain(unusable).collect(), plan, made: None, next }
    }

    /// Records that the plan was carried out.
    pub(super) fn made(&mut self, made: Transplanted) {
        self.made = Some(Made { last: made.last.into(), cluster_id: made.cluster_id });
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
            known: choice.chosen().found().holdings.iter().map(|(member, _)| *member).collect(),
            into: shown(&target.into),
            cluster: target.cluster.clone(),
            node_id: target.node,
            addr: target.addr.clone(),
        }
    }
}

/// Whether these nodes could elect a leader: a majority of the voters, in each half of
/// a joint configuration.
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
                write!(f, "\n{} cannot be used: {error}", dir)?;
            }
            for note in found.iter().flat_map(|found| &found.notes) {
                write!(f, "\n{}: a start would report: {note}", dir)?;
            }
        }
        let Some(plan) = &self.plan else { return Ok(()) };
        write!(f, "\n\n{plan}")?;
        let Plan { into, node_id, cluster, .. } = plan;
        match self.made {
            Some(Made { last, cluster_id }) => write!(
                f,
                "\n\nCreated: {}, node {node_id} of cluster {cluster}, id {cluster_id}, its only voter. Its log ends with entry {last}.\nNext:",
                into
            )?,
            None => write!(f, "\n\nWith --yes, {} is created. Then:", into)?,
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
                    "\n  Kept: the snapshot of {from}, up to entry {snapshot}, and the log after it, up to entry {kept}."
                )?;
            }
            _ => write!(f, "\n  Kept: the log from its first entry on, up to entry {kept}.")?,
        }
        if kept != chosen_last {
            write!(f, "\n  GIVEN UP, as requested: all entries after {kept}, up to {chosen_last}.")?;
        }
        for Healed { entry, from } in &self.healed {
            write!(f, "\n  Entry {entry} is lost there, and is taken from {from}.")?;
        }
        self.what_may_be_lost(f)?;
        f.write_str(
            "\n\nWHAT MAY COME BACK\
             \n  Every entry that is kept becomes committed: also writes without an answer, or whose outcome was\
             \n  reported as unknown.\
             \n\nBEFORE YOU GO ON\
             \n  Make sure that no member of the old cluster runs and serves clients, now or later: both clusters would accept\
             \n  writes. Old members cannot join the new one by accident, because its name differs; but they are not stopped.",
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
                "\n  No acknowledged write, if these directories are as their nodes left them: a quorum of the voters {}\
                 \n  is listed above. BUT THEN NOTHING NEEDS TO BE RECOVERED: start those nodes, and they elect a leader.",
                ids(voters)
            );
        }
        match (&voters[..], &known[..]) {
            ([], []) => {
                write!(f, "\n  The data do not name the voters; compare with [[peers]] of the old configuration.")?
            }
            ([], known) => write!(
                f,
                "\n  The data do not name the voters; compare with [[peers]] of the old configuration. Known to have had a log: {}.",
                ids(known)
            )?,
            _ => write!(f, "\n  Of the voters {} these are not listed above: {}.", ids(voters), ids(missing))?,
        }
        write!(
            f,
            "\n  Entries that were committed by voters that are not listed, and did not reach {chosen}, are lost, although\
             \n  clients got an acknowledgement. They cannot be listed. Naming more surviving directories reduces the loss."
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

/// A path as text, because JSON has no other type for it.
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
