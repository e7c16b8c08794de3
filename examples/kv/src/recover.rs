//! `recover`: a new cluster of one node from surviving data, after the permanent loss of a quorum.
//!
//! It surveys the surviving data directories, and reports the chosen one and the possible losses.
//! With `--yes` it creates a new directory. It never changes an old one. The library
//! (`quorate::storage::salvage`) does the work; this module reports.

mod report;
#[cfg(test)]
mod tests;

pub use report::Report;

use crate::{
    config::{is_cluster_name, is_host_and_port},
    counted_disk::CountedDisk,
    output::PROGRAM,
};
use quorate::{
    Index, NodeId,
    storage::{
        StorageError, Wal,
        salvage::{self, Choice, NewMember, Survey, SurveyError, Transplanted},
    },
};
use quorate_progress::{Progress, Unit};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

/// The command's arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A surviving data directory; repeatable: each further directory can reduce the loss. No node
    /// may run on it; it is not changed
    #[arg(long = "from", value_name = "DIR", required = true)]
    pub from: Vec<PathBuf>,
    /// The first node of the new cluster
    #[command(flatten)]
    pub target: Target,
    /// Give up all entries after this one, although the chosen directory has them
    #[arg(long, value_name = "INDEX")]
    pub up_to: Option<u64>,
    /// Create the new directory; without this, nothing is changed
    #[arg(long)]
    pub yes: bool,
}

/// The new cluster's first node.
#[derive(Clone, Debug, clap::Args)]
pub struct Target {
    /// The data directory to create; it must be empty or not exist
    #[arg(long, value_name = "DIR")]
    pub into: PathBuf,
    /// The new cluster's name, different from the old one's: 1 to 63 of a-z, 0-9 and -
    #[arg(long, value_name = "NAME", value_parser = cluster_name)]
    pub cluster: String,
    /// The id of the node, the only voter
    #[arg(long, value_name = "ID", value_parser = node_id)]
    pub node: NodeId,
    /// The address at which other nodes will dial it (QUIC)
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    pub addr: String,
}

impl Target {
    pub(crate) fn wal(&self) -> Wal {
        Wal::at(&self.into)
    }

    pub(crate) fn new_member(&self) -> NewMember {
        let (cluster, address) = (self.cluster.clone(), self.addr.clone());
        // Drawn anew for each created directory: nodes of two restores never accept each other as
        // members.
        let random = rand::random();
        NewMember { cluster, member: self.node, address, now: SystemTime::now(), random }
    }
}

/// The result: always a report, and whether the plan was carried out.
#[derive(Debug)]
pub struct Recovered {
    /// The findings, and the plan that was or would be carried out.
    pub report: Report,
    /// The reason if nothing was changed.
    pub refused: Option<RecoverError>,
}

/// Surveys the directories, and creates the new one with `--yes`.
///
/// # Errors
/// If the directories cannot be surveyed: one is given twice or in use, or contains the new one.
pub fn run(args: &Args) -> Result<Recovered, RecoverError> {
    refuse_overlap(&args.from, &args.target.into)?;
    let (mut surveys, mut unusable) = (Vec::new(), Vec::new());
    for dir in &args.from {
        match survey(dir) {
            Ok(survey) => surveys.push(survey),
            Err(in_use @ SurveyError::InUse(_)) => return Err(RecoverError::InUse(in_use)),
            Err(why) => unusable.push((dir.clone(), why.to_string())),
        }
    }
    let choice = Choice::of(&surveys, args.up_to.map(Index));
    let mut report = Report::of(&surveys, &unusable, choice.as_ref().ok(), &args.target);
    let refused = match choice {
        Err(error) => Some(error.into()),
        Ok(choice) if choice.chosen().cluster() == args.target.cluster => {
            Some(RecoverError::SameCluster(args.target.cluster.clone()))
        }
        Ok(_) if !args.yes => {
            let occupied = salvage::check_target(&args.target.wal()).err();
            Some(occupied.map_or(RecoverError::NotTold, RecoverError::Occupied))
        }
        Ok(choice) => match salvage::check_target(&args.target.wal()).map_err(RecoverError::Occupied) {
            Err(occupied) => Some(occupied),
            Ok(()) => match transplant(&choice, &args.target) {
                Ok(made) => {
                    report.made(made);
                    None
                }
                Err(error) => Some(error.into()),
            },
        },
    };
    Ok(Recovered { report, refused })
}

/// Reads a directory, which takes as long as a node's start.
fn survey(dir: &Path) -> Result<Survey, SurveyError> {
    let what = format!("survey of {}", dir.display());
    let (_progress, read) = Progress::start(PROGRAM, what, Unit::Bytes, bytes_in(dir));
    Survey::on(Arc::new(CountedDisk::reads(read)), dir)
}

/// Creates the new directory. Its length is not known before: the log is written anew.
fn transplant(choice: &Choice<'_>, target: &Target) -> Result<Transplanted, StorageError> {
    let (_progress, written) = Progress::start(PROGRAM, "recovery", Unit::Bytes, None);
    salvage::transplant(choice, &target.wal().on(CountedDisk::writes(written)), &target.new_member())
}

/// The length of all files of a directory.
fn bytes_in(dir: &Path) -> Option<u64> {
    let files = fs::read_dir(dir).ok()?;
    Some(files.filter_map(|file| file.ok()?.metadata().ok()).map(|file| file.len()).sum())
}

/// Old directories must not change, and each must be counted once.
fn refuse_overlap(from: &[PathBuf], into: &Path) -> Result<(), RecoverError> {
    let real = |path: &Path| path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or(path.to_owned());
    // A path that does not exist yet is resolved through its nearest existing ancestor.
    let absolute = std::path::absolute(into).unwrap_or(into.to_owned());
    let new = absolute.ancestors().find_map(|above| {
        let rest = absolute.strip_prefix(above).ok()?;
        Some(above.canonicalize().ok()?.join(rest))
    });
    let new = new.unwrap_or(absolute.clone());
    let mut seen: Vec<PathBuf> = Vec::new();
    for dir in from {
        let dir_real = real(dir);
        if new.starts_with(&dir_real) {
            return Err(RecoverError::Within { into: into.to_owned(), dir: dir.clone() });
        }
        if seen.contains(&dir_real) {
            return Err(RecoverError::Twice(dir.clone()));
        }
        seen.push(dir_real);
    }
    Ok(())
}

/// The remaining steps once the new directory exists.
pub(crate) fn next_steps(target: &Target) -> Vec<String> {
    let Target { into, cluster, node, addr } = target;
    let host = addr.rsplit_once(':').map_or(&**addr, |(host, _)| host).trim_matches(['[', ']']);
    vec![
        format!("quorate-kv certs --dir certs-{cluster} --cluster {cluster} --node {node}={host}"),
        format!(
            "write a configuration for it: node_id = {node}, cluster = \"{cluster}\", data_dir = \"{}\", the new certificates, and one \
             [[peers]]: id = {node}, addr = \"{addr}\"",
            into.display()
        ),
        "start it with `quorate-kv serve`, and check the important data".to_owned(),
        "quorate-kv backup --out FILE: until other members join, this is the only copy".to_owned(),
        format!(
            "add members with empty data directories, one by one, under ids other than {node}; a directory that is restored or \
             recovered again belongs to another cluster, and its node is refused"
        ),
    ]
}

/// An error of `recover`.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// `--yes` was not given.
    #[error("nothing was changed; to carry out the plan above, run the command again with --yes")]
    NotTold,
    /// A node runs on one of the directories.
    #[error("{0}; the cluster may still be alive: recover only after a permanent loss")]
    InUse(SurveyError),
    /// A directory was named twice.
    #[error("{} is given twice; name every directory once", .0.display())]
    Twice(PathBuf),
    /// The new directory lies within an old one.
    #[error("--into {} lies within {}, which must stay as it is; choose another place", into.display(), dir.display())]
    Within {
        /// The path given by `--into`.
        into: PathBuf,
        /// The old directory that contains it.
        dir: PathBuf,
    },
    /// The new directory is not empty, or cannot be read.
    #[error("--into {0}")]
    Occupied(StorageError),
    /// The new cluster has the old one's name, so its members could join.
    #[error(
        "--cluster {0} is the old cluster's name, so its members could join the new one by accident; choose another name"
    )]
    SameCluster(String),
    /// The directories cannot be used, or the new one could not be created.
    #[error("{0}")]
    Storage(#[from] StorageError),
}

fn cluster_name(text: &str) -> Result<String, String> {
    let remedy = || "it becomes part of a host name; use 1 to 63 of a-z, 0-9 and, inside, -".to_owned();
    if is_cluster_name(text) { Ok(text.to_owned()) } else { Err(remedy()) }
}

fn node_id(text: &str) -> Result<NodeId, String> {
    let id = text.parse().ok().filter(|id| *id > 0);
    id.map(NodeId).ok_or_else(|| "a node id is a number of 1 or more".to_owned())
}

fn address(text: &str) -> Result<String, String> {
    let remedy = || "write HOST:PORT, for example 10.0.0.1:7001".to_owned();
    if is_host_and_port(text) && quorate::address::is_dialable(text) { Ok(text.to_owned()) } else { Err(remedy()) }
}
