//! `restore`: the data directory of a new cluster's first node, from a backup only.

use crate::{
    counted_disk::CountedDisk,
    output::PROGRAM,
    recover::{Target, next_steps},
};
use quorate::storage::{
    StorageError,
    salvage::{self, Transplanted},
    snapshots::Backup,
};
use quorate_progress::{Progress, Unit};
use serde_json::{Value, json};
use std::{fs, path::PathBuf};

/// The command's arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The backup, or a `.snapshot` file of a data directory
    #[arg(long, value_name = "FILE")]
    pub from: PathBuf,
    /// The first node of the new cluster
    #[command(flatten)]
    pub target: Target,
}

/// Checks all bytes of a backup and creates a data directory from it. Returns a report for people
/// and one for programs.
///
/// # Errors
/// If the backup is damaged, or the directory cannot be created.
pub fn run(args: &Args) -> Result<(String, Value), RestoreError> {
    let Args { from, target } = args;
    let size = fs::metadata(from).map(|file| file.len()).ok();
    let (progress, read) = Progress::start(PROGRAM, "check of the backup", Unit::Bytes, size);
    let backup = Backup::open_on(&CountedDisk::reads(read), from)?;
    drop(progress);
    if backup.cluster() == target.cluster {
        return Err(RestoreError::SameCluster(target.cluster.clone()));
    }
    salvage::check_target(&target.wal()).map_err(RestoreError::Occupied)?;
    // The state is most of what is written, and of what is read back.
    let (progress, written) = Progress::start(PROGRAM, "restore", Unit::Bytes, Some(backup.file_bytes()));
    let into = target.wal().on(CountedDisk::writes(written));
    let (cluster, member, bytes) = (backup.cluster().to_owned(), backup.member(), backup.file_bytes());
    let Transplanted { kept, last, cluster_id, .. } = salvage::restore(backup, &into, &target.new_member())?;
    drop(progress);
    let (into, steps) = (target.into.display(), next_steps(target));
    let mut human = format!(
        "{} is complete: node {member} of cluster {cluster}, everything up to entry {kept}, {bytes} bytes\n\
         {into} is created: node {} of cluster {}, id {cluster_id}, the only voter, its log ends with entry {last}\n\
         Writes after entry {kept} are not included.\n\
         Next:",
        from.display(),
        target.node,
        target.cluster,
    );
    steps.iter().zip(1..).for_each(|(step, number)| human += &format!("\n  {number}. {step}"));
    let machine = json!({
        "from": from.display().to_string(), "of_cluster": cluster, "of_node": member, "into": into.to_string(), "cluster": target.cluster, "node": target.node, "cluster_id": cluster_id.to_string(),
        "kept": { "index": kept.index, "term": kept.term }, "last": { "index": last.index, "term": last.term }, "next": steps,
    });
    Ok((human, machine))
}

/// An error of `restore`.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The new cluster has the backup's cluster name, so its members could join.
    #[error(
        "--cluster {0} is the old cluster's name, so its members could join the new one by accident; choose another name"
    )]
    SameCluster(String),
    /// The new directory is not empty, or cannot be read.
    #[error("--into {0}")]
    Occupied(StorageError),
    /// The backup is damaged, or the directory could not be created.
    #[error("{0}")]
    Storage(#[from] StorageError),
}
