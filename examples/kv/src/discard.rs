//! `discard-unproven`: what a power cut left of a write at the end of the only voter's log.
//!
//! It shows the entries in doubt, and discards them if it is told to. What may be discarded is the library's decision
//! (`quorate::storage::salvage`); here is whether it may be done at all, and what is said about it.

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
    /// Do it; without this, the entries in doubt are shown and nothing is changed
    #[arg(long)]
    pub yes: bool,
    /// Values that take precedence over file and environment
    #[command(flatten)]
    pub overrides: Overrides,
}

/// What was found or done, for people and for machines; and why nothing was changed.
pub type Said = (String, Value, Option<DiscardError>);

/// Looks for entries in doubt, and discards them if `args` say so.
///
/// # Errors
/// If the configuration or the directory can't be used, or the node is not the only voter.
pub fn run(args: &Args) -> Result<Said, DiscardError> {
    let (config, _) = Config::load(&args.config, environment::variables()?, &args.overrides)?;
    let survey = Survey::of(&config.data_dir)?;
    refuse_unless_alone(&survey, &config)?;
    let faulty = &survey.found().faulty;
    let entries: Vec<EntryId> = faulty.iter().map(|entry| entry.id).collect();
    let dir = config.data_dir.display();
    let Some(first) = entries.first().copied() else {
        let human = format!("{dir} has no entries in doubt: there is nothing to discard");
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
        "{dir} lost the payload of {listed} (index@term), and nothing proves that this was ever durable.\n\
         If the power failed while it was written, no client was told that it was. To discard it cuts the log before entry {first}: of \
         the entries up to {last}, all are gone then."
    );
    if !args.yes {
        return Ok((human, machine(false), Some(DiscardError::NotTold)));
    }
    // It holds the lock on the directory.
    drop(survey);
    let wal = Wal::at(&config.data_dir).segment_bytes(config.storage.segment_bytes);
    let after = discard_unproven(&wal, &config.cluster, config.node_id)?;
    let human = format!("{human}\nDiscarded: the log ends with entry {} now. Start the node.", after.last);
    Ok((human, machine(true), None))
}

/// Where others vote, they have copies and decide; what is in doubt here may be an entry that they counted on.
fn refuse_unless_alone(survey: &Survey, config: &Config) -> Result<(), DiscardError> {
    let listed = || config.peers.iter().map(|peer| peer.id).collect();
    let voters: Vec<NodeId> = survey.membership().map_or_else(listed, Membership::voters);
    if voters == [config.node_id] && config.state == State::Member {
        return Ok(());
    }
    Err(DiscardError::NotAlone(voters.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")))
}

/// Why nothing was discarded.
#[derive(Debug, thiserror::Error)]
pub enum DiscardError {
    /// The configuration can't be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The directory can't be read.
    #[error("{0}")]
    Survey(#[from] SurveyError),
    /// The directory can't be written.
    #[error("{0}")]
    Storage(#[from] StorageError),
    /// It was only asked what would be done.
    #[error("nothing was changed; read the above, and run it again with --yes to discard")]
    NotTold,
    /// There are others.
    #[error("the voters are {0}: start the node, and the others say what becomes of an entry that is in doubt here")]
    NotAlone(String),
    /// It was durable once.
    #[error(
        "entry {0} was durable once, so that a client may have been told: put the data directory back from a backup"
    )]
    Acknowledged(EntryId),
}
