//! `restore`: the data directory of a new cluster's first node, from a backup alone.

use crate::recover::{Target, next_steps};
use quorate::storage::{
    StorageError,
    salvage::{self, Transplanted},
    snapshots::Backup,
};
use serde_json::{Value, json};
use std::path::PathBuf;

/// The command's arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The backup; or a `.snapshot` file of a data directory
    #[arg(long, value_name = "FILE")]
    pub from: PathBuf,
    /// The new node
    #[command(flatten)]
    pub target: Target,
}

/// Checks every byte of a backup and makes a data directory from it. Says what it did, for people and for machines.
///
/// # Errors
/// If the backup is not whole, or the directory can't be made.
pub fn run(args: &Args) -> Result<(String, Value), RestoreError> {
    let Args { from, target } = args;
    let backup = Backup::open(from)?;
    if backup.cluster() == target.cluster {
        return Err(RestoreError::SameCluster(target.cluster.clone()));
    }
    salvage::check_target(&target.wal()).map_err(RestoreError::Occupied)?;
    let (cluster, member, bytes) = (backup.cluster().to_owned(), backup.member(), backup.file_bytes());
    let new = target.new_member();
    let Transplanted { kept, last } = salvage::restore(backup, &target.wal(), &new)?;
    let (into, steps) = (target.into.display(), next_steps(target));
    let mut human = format!(
        "{} is whole: node {member} of cluster {cluster}, everything up to entry {kept}, {bytes} bytes\n\
         {into} is made: node {} of cluster {}, id {}, the only voter, its log ends with entry {last}\n\
         What was written behind entry {kept} is not in it.\n\
         Next:",
        from.display(),
        target.node,
        target.cluster,
        new.cluster_id,
    );
    steps.iter().zip(1..).for_each(|(step, number)| human += &format!("\n  {number}. {step}"));
    let machine = json!({
        "from": from.display().to_string(), "of_cluster": cluster, "of_node": member, "into": into.to_string(), "cluster": target.cluster, "node": target.node, "cluster_id": new.cluster_id.to_string(),
        "kept": { "index": kept.index, "term": kept.term }, "last": { "index": last.index, "term": last.term }, "next": steps,
    });
    Ok((human, machine))
}

/// Why there is no new directory.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Members of the backup's cluster could join the new one.
    #[error(
        "--cluster {0} is the old cluster's name: its members could join the new one by accident; choose another name"
    )]
    SameCluster(String),
    /// The new directory is not empty, or can't be read.
    #[error("--into {0}")]
    Occupied(StorageError),
    /// The backup does not do, or the directory could not be made.
    #[error("{0}")]
    Storage(#[from] StorageError),
}
