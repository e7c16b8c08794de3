//! Plans in files, so that a shortened plan can be kept, shared, edited by hand and run again.
//!
//! A file is JSON, with times in whole nanoseconds. Reading refuses plans that no cluster could
//! carry out: absent nodes, times out of order, chances above one.

use crate::plan::{Fault, Plan, Planned};
use quorate_raft::NodeId;
use std::{fmt, fs, io, path::Path, time::Duration};

/// The largest file that is read, in bytes; one of the longest plan is a hundredth of it.
const FILE_MAX: u64 = 1 << 20;
/// The most nodes of a cluster.
const NODES_MAX: u64 = 9;
/// The most clients, and the most keys.
const CLIENTS_MAX: u64 = 1_000;
/// The latest end of the faults.
const LENGTH_MAX: Duration = Duration::from_secs(3600);
/// Twice the interval of heartbeats: no node takes a shorter election timeout.
const RETIME_MIN: Duration = Duration::from_millis(100);
/// The most faults in a plan.
const FAULTS_MAX: usize = 10_000;

/// The reason why a plan can't be read or written.
#[derive(Debug)]
pub enum SavedError {
    /// The file can't be read or written.
    Io(io::Error),
    /// The file holds no plan: other JSON or none, or a plan that can't be carried out.
    Plan(String),
}

/// The plan as JSON text, the content of a file.
#[must_use]
pub fn to_text(plan: &Plan) -> String {
    // Infallible: a plan has no map and no float.
    serde_json::to_string_pretty(plan).unwrap_or_default() + "\n"
}

/// Reads a plan from JSON text.
///
/// # Errors
///
/// If the text holds no plan that can be carried out.
pub fn from_text(text: &str) -> Result<Plan, SavedError> {
    let plan = serde_json::from_str(text).map_err(|error| SavedError::Plan(error.to_string()))?;
    check(&plan).map_err(SavedError::Plan)?;
    Ok(plan)
}

/// Writes a plan to a file and replaces its content.
///
/// # Errors
///
/// If the file can't be written.
pub fn write(file: &Path, plan: &Plan) -> Result<(), SavedError> {
    fs::write(file, to_text(plan)).map_err(SavedError::Io)
}

/// Reads the plan in a file.
///
/// # Errors
///
/// If the file can't be read, or holds no plan that can be carried out.
pub fn read(file: &Path) -> Result<Plan, SavedError> {
    let size = fs::metadata(file).map_err(SavedError::Io)?.len();
    if size > FILE_MAX {
        return Err(SavedError::Plan(format!("{size} bytes are too many for a plan, {FILE_MAX} are the most")));
    }
    from_text(&fs::read_to_string(file).map_err(SavedError::Io)?)
}

/// Checks that a plan can be carried out.
///
/// # Errors
///
/// The reason why it can't be.
pub fn check(plan: &Plan) -> Result<(), String> {
    let within = |what: &str, value: u64, max: u64| match value {
        value if (1..=max).contains(&value) => Ok(()),
        value => Err(format!("{value} {what}, but there must be 1 to {max}")),
    };
    within("nodes", plan.nodes, NODES_MAX)?;
    let is_there =
        |witness: NodeId| plan.nodes >= 3 && (1..=plan.nodes).contains(&witness.0) && !plan.changes_members();
    if let Some(witness) = plan.witness.filter(|witness| !is_there(*witness)) {
        return Err(format!("{witness} is a witness, and there must be three nodes with it, of whom none is changed"));
    }
    within("clients", plan.clients, CLIENTS_MAX)?;
    within("keys", plan.keys, CLIENTS_MAX)?;
    if plan.length > LENGTH_MAX || plan.rest > LENGTH_MAX {
        return Err(format!("a time is above {LENGTH_MAX:?}"));
    }
    if plan.faults.len() > FAULTS_MAX {
        return Err(format!("{} faults, but {FAULTS_MAX} are the most", plan.faults.len()));
    }
    if !plan.faults.is_sorted_by_key(|planned| planned.at) {
        return Err("the faults are not in the order of `at_ns`".into());
    }
    plan.faults.iter().try_for_each(|planned| check_fault(planned, plan))
}

fn check_fault(planned: &Planned, plan: &Plan) -> Result<(), String> {
    let Planned { at, lasts, fault } = planned;
    let wrong = |why: String| Err(format!("{} at {at:?}: {why}", fault.kind()));
    if *at > plan.length || *lasts > plan.length - *at {
        return wrong(format!("not within the {:?} that faults go on", plan.length));
    }
    if let Some(stranger) = nodes_of(fault).into_iter().find(|node| !(1..=plan.nodes).contains(&node.0)) {
        return wrong(format!("there is no node {stranger} among {}", plan.nodes));
    }
    match fault {
        Fault::Drop { per_mille, .. }
        | Fault::Duplicate { per_mille, .. }
        | Fault::Reorder { per_mille, .. }
        | Fault::Corrupt { per_mille, .. }
            if *per_mille > 1000 =>
        {
            wrong(format!("{per_mille} of 1000"))
        }
        Fault::Drift { per_mille, .. } if !(-900..=1000).contains(per_mille) => {
            wrong(format!("a drift of {per_mille} is not within -900 and 1000"))
        }
        // A heartbeat is sent every 50 ms.
        Fault::Retime { shortest, .. } if *shortest < RETIME_MIN || *shortest > LENGTH_MAX => {
            wrong(format!("{shortest:?} is not within {RETIME_MIN:?} and {LENGTH_MAX:?}"))
        }
        Fault::Flap { every: time, .. }
        | Fault::Delay { up_to: time, .. }
        | Fault::SlowLink { by: time, .. }
        | Fault::SlowNode { by: time, .. }
        | Fault::SlowDisk { by: time, .. }
        | Fault::Jump { by: time, .. }
            if time.is_zero() || *time > LENGTH_MAX =>
        {
            wrong(format!("{time:?} is not above 0 and at most {LENGTH_MAX:?}"))
        }
        _ => Ok(()),
    }
}

/// The nodes that a fault names.
pub(crate) fn nodes_of(fault: &Fault) -> Vec<NodeId> {
    match fault {
        Fault::Drop { way, .. }
        | Fault::Duplicate { way, .. }
        | Fault::Reorder { way, .. }
        | Fault::Corrupt { way, .. }
        | Fault::Delay { way, .. }
        | Fault::SlowLink { way, .. } => way.from.into_iter().chain(way.to).collect(),
        Fault::CutOneWay { from: one, to: other } | Fault::CutLink { one, other } | Fault::Flap { one, other, .. } => {
            vec![*one, *other]
        }
        Fault::Partition { some: nodes } | Fault::Change { voters: nodes } => nodes.clone(),
        Fault::CrashAll { .. } | Fault::RestartAll => Vec::new(),
        Fault::Crash { node, .. }
        | Fault::CrashAtEffect { node, .. }
        | Fault::Pause { node }
        | Fault::SlowNode { node, .. }
        | Fault::Flip { node }
        | Fault::Zero { node }
        | Fault::Misdirect { node }
        | Fault::ReadError { node }
        | Fault::SyncFailure { node, .. }
        | Fault::Full { node }
        | Fault::SlowDisk { node, .. }
        | Fault::Drift { node, .. }
        | Fault::Jump { node, .. }
        | Fault::Restart { node }
        | Fault::Snapshot { node }
        | Fault::LeadershipTransfer { to: node }
        | Fault::Outsider { to: node }
        | Fault::Wipe { node }
        | Fault::PutBack { node }
        | Fault::Upgrade { node }
        | Fault::Retime { node, .. } => vec![*node],
    }
}

impl fmt::Display for SavedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Plan(why) => write!(f, "no plan: {why}"),
        }
    }
}

impl std::error::Error for SavedError {}
