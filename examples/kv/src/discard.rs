//! `discard-unproven`: the removal of a torn write at the end of a single voter's log after
//! a power cut.
//!
//! It shows the entries in doubt, and discards them with `--yes`. The library
//! (`quorate::storage::salvage`) decides which entries may be discarded; this module decides
//! whether the command is allowed at all, and reports.

use crate::{
    config::{Config, ConfigError, Overrides, State},
    environment,
};
use quorate::{
    EntryId, Membership, NodeId,
    storage::{
        StorageError, Wal,
        salvage::{Survey, SurveyError, discard_unproven},
    },
};
use serde_json::{Value, json};
use std::path::PathBuf;

/// The command's arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The node's configuration file, TOML; the node must not run
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Discard the entries; without this, they are shown and nothing is changed
    #[arg(long)]
    pub yes: bool,
    /// Values that take precedence over file and environment
    #[command(flatten)]
    pub overrides: Overrides,
}

/// The report for people and for machines, and the reason if nothing was changed.
pub type Report = (String, Value, Option<DiscardError>);

/// Searches for entries in doubt, and discards them if `args` ask for it.
///
/// # Errors
/// If the configuration or the directory cannot be used, or the node is not the only voter.
pub fn run(args: &Args) -> Result<Report, DiscardError> {
    let (config, _) = Config::load(&args.config, environment::variables()?, &args.overrides)?;
    let survey = Survey::of(&config.data_dir)?;
    refuse_unless_alone(&survey, &config)?;
    let faulty = &survey.found().faulty;
    let entries: Vec<EntryId> = faulty.iter().map(|entry| entry.id).collect();
    let dir = config.data_dir.display();
    let Some(first) = entries.first().copied() else {
        let human = format!("{dir} has no entries in doubt; there is nothing to discard");
        return Ok((human, json!({ "in_doubt": [], "discarded": false }), None));
    };
    if faulty.iter().any(|entry| entry.was_durable) {
        return Err(DiscardError::Acknowledged(first));
    }
    let last = survey.last();
    let listed = entries.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let in_doubt: Vec<_> = entries.iter().map(|id| json!({ "index": id.index, "term": id.term })).collect();
    let machine = |discarded| json!({ "in_doubt": in_doubt, "from": { "index": first.index, "term": first.term }, "last": { "index": last.index, "term": last.term }, "discarded": discarded });
    let human = format!(
        "{dir} lost the payload of {listed} (index@term), and nothing proves that these entries were ever durable.\n\
         If the power failed while they were written, no client got an acknowledgement. Discarding cuts the log before entry {first}: \
         all entries from there up to {last} are then lost."
    );
    if !args.yes {
        return Ok((human, machine(false), Some(DiscardError::NotTold)));
    }
    // The survey holds the lock on the directory.
    drop(survey);
    let wal = Wal::at(&config.data_dir).segment_bytes(config.storage.segment_bytes);
    let after = discard_unproven(&wal, &config.cluster, config.node_id)?;
    let human = format!("{human}\nDiscarded: the log now ends with entry {}. Start the node.", after.last);
    Ok((human, machine(true), None))
}

/// If there are other voters, they have copies and decide; an entry in doubt here may have counted
/// towards their commit.
fn refuse_unless_alone(survey: &Survey, config: &Config) -> Result<(), DiscardError> {
    let listed = || config.peers.iter().map(|peer| peer.id).collect();
    let voters: Vec<NodeId> = survey.membership().map_or_else(listed, Membership::voters);
    if voters == [config.node_id] && config.state == State::Member {
        return Ok(());
    }
    Err(DiscardError::NotAlone(voters.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")))
}

/// An error of `discard-unproven`.
#[derive(Debug, thiserror::Error)]
pub enum DiscardError {
    /// The configuration is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The directory cannot be read.
    #[error("{0}")]
    Survey(#[from] SurveyError),
    /// The directory cannot be written.
    #[error("{0}")]
    Storage(#[from] StorageError),
    /// `--yes` was not given.
    #[error("nothing was changed; to discard the entries above, run the command again with --yes")]
    NotTold,
    /// There are other voters.
    #[error("the voters are {0}: start the node; the other voters decide about entries in doubt")]
    NotAlone(String),
    /// The entry was durable once.
    #[error(
        "entry {0} was durable once, so a client may have got an acknowledgement: restore the data directory from a backup"
    )]
    Acknowledged(EntryId),
}
