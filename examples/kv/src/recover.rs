//! `recover`: when a quorum is lost for good, a cluster of one from what survived.
//!
//! It surveys the surviving data directories, says which one is taken, and what may be lost or come back; and only if it is told to
//! goes on and makes a new directory. It never changes an old one. What is done is the library's (`quorate::storage::salvage`); this
//! is what is said about it.

mod report;
#[cfg(test)]
mod tests;

pub use report::Report;

use crate::config::{is_cluster_name, is_host_and_port};
use quorate::{
    ClusterId, Index, NodeId,
    storage::{
        StorageError, Wal,
        salvage::{self, Choice, NewMember, Survey, SurveyError},
    },
};
use std::path::{Path, PathBuf};

/// The command's arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A data directory that survived; repeatable, the more the better. No node may run on it, and it is not changed
    #[arg(long = "from", value_name = "DIR", required = true)]
    pub from: Vec<PathBuf>,
    /// The new node
    #[command(flatten)]
    pub target: Target,
    /// Give up everything behind this entry, though the chosen directory has it
    #[arg(long, value_name = "INDEX")]
    pub up_to: Option<u64>,
    /// Do it; without this, nothing is changed
    #[arg(long)]
    pub yes: bool,
}

/// The new cluster's first node.
#[derive(Clone, Debug, clap::Args)]
pub struct Target {
    /// Where its data go: a directory that is empty or does not exist
    #[arg(long, value_name = "DIR")]
    pub into: PathBuf,
    /// The new cluster's name, never the old one's: 1 to 63 of a-z, 0-9 and -
    #[arg(long, value_name = "NAME", value_parser = cluster_name)]
    pub cluster: String,
    /// The node's id, its only voter
    #[arg(long, value_name = "ID", value_parser = node_id)]
    pub node: NodeId,
    /// Where other nodes will dial it (QUIC)
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    pub addr: String,
}

impl Target {
    pub(crate) fn wal(&self) -> Wal {
        Wal::at(&self.into)
    }

    pub(crate) fn new_member(&self) -> NewMember {
        let (cluster, address) = (self.cluster.clone(), self.addr.clone());
        // Drawn for each directory that is made: those of two restores never take each other for members.
        let cluster_id = ClusterId(rand::random());
        NewMember { cluster, member: self.node, address, cluster_id }
    }
}

/// What comes of it: a report in any case, and whether it was carried out.
#[derive(Debug)]
pub struct Recovered {
    /// What was found, and what was or would be done.
    pub report: Report,
    /// Why nothing was done.
    pub refused: Option<RecoverError>,
}

/// Surveys the directories, and makes the new one if `args` say so.
///
/// # Errors
/// If the directories can't even be looked at: one is given twice, in use, or the new one lies within.
pub fn run(args: &Args) -> Result<Recovered, RecoverError> {
    refuse_overlap(&args.from, &args.target.into)?;
    let (mut surveys, mut unusable) = (Vec::new(), Vec::new());
    for dir in &args.from {
        match Survey::of(dir) {
            Ok(survey) => surveys.push(survey),
            Err(SurveyError::Unusable(why)) => unusable.push((dir.clone(), why)),
            Err(in_use @ SurveyError::InUse(_)) => return Err(RecoverError::InUse(in_use)),
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
            Ok(()) => {
                let member = args.target.new_member();
                match salvage::transplant(&choice, &args.target.wal(), &member) {
                    Ok(made) => {
                        report.made(made, member.cluster_id);
                        None
                    }
                    Err(error) => Some(error.into()),
                }
            }
        },
    };
    Ok(Recovered { report, refused })
}

/// Nothing may be written into an old directory, and each counts once.
fn refuse_overlap(from: &[PathBuf], into: &Path) -> Result<(), RecoverError> {
    let real = |path: &Path| path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or(path.to_owned());
    // What does not exist yet is where its nearest ancestor is.
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

/// What is left to do once the new directory is there.
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
        "quorate-kv serve with it, and read back what matters".to_owned(),
        "quorate-kv backup --out FILE: until there are others, this is the only copy".to_owned(),
        format!(
            "add members with empty data directories, one by one, under ids other than {node}; a directory that is restored or \
             recovered again is another cluster, and its node is refused"
        ),
    ]
}

/// Why no new directory was made.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// It was only asked what would be done.
    #[error("nothing was changed; read the above, and run it again with --yes to do it")]
    NotTold,
    /// A node runs on one of them.
    #[error("{0}; the cluster may still live: recover only what is lost for good")]
    InUse(SurveyError),
    /// A directory was named twice.
    #[error("{} is given twice; name every directory once", .0.display())]
    Twice(PathBuf),
    /// The new directory would change an old one.
    #[error("--into {} lies within {}, which must stay as it is; choose another place", into.display(), dir.display())]
    Within {
        /// The new one.
        into: PathBuf,
        /// The old one.
        dir: PathBuf,
    },
    /// The new directory is not empty, or can't be read.
    #[error("--into {0}")]
    Occupied(StorageError),
    /// Its members could join the new one.
    #[error(
        "--cluster {0} is the old cluster's name: its members could join the new one by accident; choose another name"
    )]
    SameCluster(String),
    /// The directories don't do, or the new one could not be made.
    #[error("{0}")]
    Storage(#[from] StorageError),
}

fn cluster_name(text: &str) -> Result<String, String> {
    let remedy = || "it becomes part of a host name: use 1 to 63 of a-z, 0-9 and, inside, -".to_owned();
    if is_cluster_name(text) { Ok(text.to_owned()) } else { Err(remedy()) }
}

fn node_id(text: &str) -> Result<NodeId, String> {
    let id = text.parse().ok().filter(|id| *id > 0);
    id.map(NodeId).ok_or_else(|| "a node's id is a number from 1 on".to_owned())
}

fn address(text: &str) -> Result<String, String> {
    let remedy = || "write HOST:PORT, for example 10.0.0.1:7001".to_owned();
    if is_host_and_port(text) && quorate::address::is_dialable(text) { Ok(text.to_owned()) } else { Err(remedy()) }
}
