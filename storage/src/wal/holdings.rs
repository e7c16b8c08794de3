//! Holdings: per member, the last committed entry that it is known to have acknowledged. They are
//! kept in a file of their own, written every few seconds at most.
//!
//! The other members store the same facts, so a damaged file is discarded.

use super::{
    BLOCK_BYTES, Failure, Identity, Outcome, SealedBlock, failed, hard_state, read_u32, read_u64, remove_if_there,
    shortage::sync_dir,
};
use crate::contract::StorageOp;
use crate::disk::{Disk, Pace};
use quorate_raft::{Index, NodeId};
use std::{
    collections::BTreeMap,
    io::{self, IoSlice},
    path::Path,
};

/// The name of the file in the directory of the log.
pub const NAME: &str = "known-members";
/// Its name until it is complete.
pub(crate) const UNFINISHED: &str = "known-members.new";

const MAGIC: [u8; 8] = *b"QUORKNOW";
const VERSION: u32 = 2;
/// A member's id and an index.
const MEMBER_BYTES: usize = 16;

/// Each member's holding.
pub type Holdings = BTreeMap<NodeId, Index>;

/// The holdings in the file; none, and a line for the operator, if it can't be used.
pub fn read(disk: &dyn Disk, dir: &Path, identity: &Identity) -> Outcome<(Holdings, Option<String>)> {
    let path = dir.join(NAME);
    match contents(disk, &path)? {
        Some(bytes) => holdings_in(&bytes, &path, identity),
        None => Ok(Default::default()),
    }
}

/// [`read`], for a directory without another file that says to which member it belongs: this one
/// says so from the first call on.
///
/// # Errors
/// If the directory belongs to another member, and as [`read`].
pub(crate) fn claim(disk: &dyn Disk, dir: &Path, identity: &Identity) -> Outcome<(Holdings, Option<String>)> {
    let path = dir.join(NAME);
    let Some(bytes) = contents(disk, &path)? else {
        return write(disk, dir, identity, &Holdings::new()).map(|()| Default::default());
    };
    let owner = SealedBlock::read(&bytes, MAGIC)
        .and_then(|block| Some(Identity { member: NodeId(block.u64(16)), cluster: block.name(24)? }));
    match owner.filter(|owner| owner != identity) {
        Some(owner) => Err(hard_state::mismatch(dir, &owner, identity)),
        None => holdings_in(&bytes, &path, identity),
    }
}

/// The bytes of the file, if it exists.
fn contents(disk: &dyn Disk, path: &Path) -> Outcome<Option<Vec<u8>>> {
    let file = match disk.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(StorageOp::Open, path)(error)),
    };
    let length = file.length().map_err(failed(StorageOp::Read, path))?.min(BYTES_MAX);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let count = file.read_at(&mut bytes, 0).map_err(failed(StorageOp::Read, path))?;
    bytes.truncate(count);
    Ok(Some(bytes))
}

fn holdings_in(bytes: &[u8], path: &Path, identity: &Identity) -> Outcome<(Holdings, Option<String>)> {
    let path = path.display();
    if let Some(version) = earlier_version(bytes) {
        return Err(Failure::open(format_args!(
            "{path} has format version {version}, which is of an earlier program; start it with the program that wrote it"
        )));
    }
    Ok(match decode(bytes, identity) {
        Some(holdings) => (holdings, None),
        None => (Holdings::new(), Some(format!("ignored {path}, which is damaged: it will be written again"))),
    })
}

/// More members than any cluster has.
const BYTES_MAX: u64 = 1 << 20;

/// Replaces the file, durably.
pub fn write(disk: &dyn Disk, dir: &Path, identity: &Identity, holdings: &Holdings) -> Outcome<()> {
    let (unfinished, path) = (dir.join(UNFINISHED), dir.join(NAME));
    remove_leftover(disk, dir)?;
    let file = disk.create(&unfinished).map_err(failed(StorageOp::Create, &unfinished))?;
    let bytes = encode(identity, holdings);
    file.allocate(bytes.len() as u64, Pace::AtOnce).map_err(failed(StorageOp::Write, &unfinished))?;
    file.write_at(&mut [IoSlice::new(&bytes)], 0).map_err(failed(StorageOp::Write, &unfinished))?;
    file.sync_data().map_err(failed(StorageOp::Sync, &unfinished))?;
    disk.rename(&unfinished, &path).map_err(failed(StorageOp::Rename, &path))?;
    sync_dir(disk, dir)
}

/// Writes the holdings. `false` if there is no space, or a shortage.
pub(crate) fn try_write(disk: &dyn Disk, dir: &Path, identity: &Identity, holdings: &Holdings) -> Outcome<bool> {
    match write(disk, dir, identity, holdings) {
        Err(failure) if failure.is_full || failure.is_shortage => {
            tracing::warn!(error = %failure.error, "can't keep for good what the members held");
            remove_leftover(disk, dir).map(|()| false)
        }
        outcome => outcome.map(|()| true),
    }
}

/// Raises holdings, and writes them if that changed any. For lack of space they stay as they were:
/// other members store them too.
pub(crate) fn remember(
    disk: &dyn Disk,
    dir: &Path,
    identity: &Identity,
    holdings: &mut Holdings,
    members: &[(NodeId, Index)],
) -> Outcome<()> {
    let is_news = |(member, index): &&(NodeId, Index)| holdings.get(member) < Some(index);
    let news: Vec<_> = members.iter().filter(is_news).copied().collect();
    if news.is_empty() {
        return Ok(());
    }
    let mut raised = holdings.clone();
    raised.extend(news);
    // If they were not written, the same holdings count as news the next time.
    if try_write(disk, dir, identity, &raised)? {
        *holdings = raised;
    }
    Ok(())
}

/// Removes an unfinished file of an earlier write.
pub(crate) fn remove_leftover(disk: &dyn Disk, dir: &Path) -> Outcome<()> {
    remove_if_there(disk, &dir.join(UNFINISHED))
}

/// The version of a file of an earlier program.
fn earlier_version(bytes: &[u8]) -> Option<u32> {
    SealedBlock::read(bytes, MAGIC).map(|block| block.u32(8)).filter(|version| *version < VERSION)
}

fn encode(identity: &Identity, holdings: &Holdings) -> Vec<u8> {
    let block = SealedBlock::new(MAGIC)
        .put_u32(8, VERSION)
        .put_u32(12, u32::try_from(holdings.len()).unwrap_or(u32::MAX))
        .put_u64(16, identity.member.0)
        .put_name(24, &identity.cluster)
        .close();
    let mut bytes = block.to_vec();
    for (member, index) in holdings {
        bytes.extend(member.0.to_le_bytes());
        bytes.extend(index.0.to_le_bytes());
    }
    let sum = crate::checksum(0, &bytes);
    bytes.extend(sum.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8], identity: &Identity) -> Option<Holdings> {
    let block = SealedBlock::read(bytes, MAGIC)?;
    let count = block.u32(12) as usize;
    let end = BLOCK_BYTES + count.checked_mul(MEMBER_BYTES)?;
    let is_whole = bytes.len() == end + 4 && crate::checksum(0, &bytes[..end]) == read_u32(bytes, end);
    let is_ours = block.u64(16) == identity.member.0 && block.name(24)? == identity.cluster;
    let members = bytes.get(BLOCK_BYTES..end)?.chunks_exact(MEMBER_BYTES);
    (block.u32(8) == VERSION && is_whole && is_ours)
        .then(|| members.map(|member| (NodeId(read_u64(member, 0)), Index(read_u64(member, 8)))).collect())
}
