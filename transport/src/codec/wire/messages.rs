//! Wire forms of the messages.

use super::{wire_enum, wire_number, wire_struct};
use quorate_raft::{
    Administer, Administered, Append, AppendOutcome, AppendReply, Body, ClusterId, Denial, Emptied, EntryId,
    ForwardedCommand, ForwardedOutcome, Heartbeat, HeartbeatReply, Holdings, Index, Kind, Membership, Message, NodeId,
    Observe, Phase, Promise, Propose, ProposeOutcome, ProposeReply, ReadIndex, ReadIndexReply, Removed, Repair,
    RepairOutcome, RepairReply, Report, RequestVote, Snapshot, SnapshotBase, SnapshotChunk, SnapshotOutcome,
    SnapshotReply, Term, TimeoutNow, Vote, Wanted,
};

wire_number!(NodeId(u64), Term(u64), Index(u64), Promise(u32), ClusterId(u128));

wire_struct!(EntryId { term: Term, index: Index });

wire_struct!(Message { term: Term, body: Body });

wire_enum!(Body {
    0 => RequestVote(message: RequestVote),
    1 => Vote(message: Vote),
    2 => Append(message: Append),
    3 => AppendReply(message: AppendReply),
    4 => Heartbeat(message: Heartbeat),
    5 => HeartbeatReply(message: HeartbeatReply),
    6 => Propose(message: Propose),
    7 => ProposeReply(message: ProposeReply),
    8 => ReadIndex(message: ReadIndex),
    9 => ReadIndexReply(message: ReadIndexReply),
    10 => SnapshotChunk(message: SnapshotChunk),
    11 => SnapshotReply(message: SnapshotReply),
    12 => Repair(message: Repair),
    13 => RepairReply(message: RepairReply),
    14 => Emptied(message: Emptied),
    15 => TimeoutNow(message: TimeoutNow),
    16 => Removed(message: Removed),
    17 => Administer(message: Administer),
    18 => Administered(message: Administered),
    19 => Holdings(message: Holdings),
    20 => Observe(message: Observe),
    21 => Report(message: Report),
});

// Elections.

wire_struct!(RequestVote { phase: Phase, campaign: u64, last: EntryId, by_transfer: bool, machine_version: u32 });

wire_struct!(Vote { phase: Phase, campaign: u64, denial: Option<Denial> });

wire_enum!(Denial {
    0 => HearsLeader { leader: Option<NodeId> },
    1 => LogBehind { last: EntryId },
    2 => VotedFor { candidate: NodeId },
    3 => OldTerm { term: Term },
    4 => MachineVersion { version: u32 },
    5 => LostData,
    6 => MayHaveLostData,
    7 => Removed,
    8 => CanLeadInstead,
});

wire_enum!(Phase {
    0 => PreVote,
    1 => Vote,
});

wire_struct!(TimeoutNow { last: EntryId });

// Replication.

wire_struct!(
    Append { epoch: u64, previous: EntryId, previous_checksum: Option<u32>, commit: Index },
    body batch
);

wire_struct!(AppendReply { epoch: u64, outcome: AppendOutcome });

wire_enum!(AppendOutcome {
    0 => Matched { matched: Index },
    1 => Rejected { previous: Index, conflict: EntryId, last: Index, log_last: Index },
    2 => Diverged { at: EntryId },
    3 => NeedsSnapshot { from: Index },
});

wire_struct!(Heartbeat { round: u64, commit: Index });

wire_struct!(HeartbeatReply { round: u64, promise: Promise });

// Clients' commands and reads.

wire_struct!(Propose { commands: Vec<ForwardedCommand> }, body payloads);

wire_struct!(ForwardedCommand { request: u64, length: u32, kind: Kind, waits_ms: u32 });

wire_enum!(Kind {
    0 => Noop,
    1 => Command,
    2 => Membership,
    3 => Session,
    4 => Stub,
    5 => Tick,
    6 => Internal,
});

wire_struct!(ProposeReply { outcomes: Vec<ForwardedOutcome> }, body replies);

wire_struct!(ForwardedOutcome { request: u64, outcome: ProposeOutcome });

wire_enum!(ProposeOutcome {
    0 => Applied { index: Index, reply_bytes: u32 },
    1 => NotLeader,
    2 => Overloaded,
    3 => Unknown,
    4 => SessionExpired,
    5 => StaleSerial,
    6 => DeadlinePassed,
    7 => TooLarge { max: u32 },
    8 => Skipped,
});

wire_struct!(ReadIndex { request: u64, by_lease: bool });

wire_struct!(ReadIndexReply { request: u64, index: Option<Index> });

// Snapshots and repairs.

wire_struct!(SnapshotChunk { epoch: u64, snapshot: Box<Snapshot>, offset: u64 }, body bytes);

wire_struct!(Snapshot { base: SnapshotBase, bytes: u64, checksum: u32 });

wire_struct!(SnapshotBase { last: EntryId, last_checksum: u32, membership: Membership, membership_index: Index });

wire_struct!(SnapshotReply { epoch: u64, last: EntryId, outcome: SnapshotOutcome });

wire_enum!(SnapshotOutcome {
    0 => Received { bytes: u64 },
    1 => Installed { index: Index },
    2 => Refused,
});

wire_struct!(Repair { from: EntryId, to: Index });

wire_struct!(RepairReply { from: EntryId, outcome: RepairOutcome }, body batch);

wire_enum!(RepairOutcome {
    0 => Here,
    1 => Absent,
    2 => Lost,
});

// Reports for operators.

wire_struct!(Observe { every_ms: u32, for_ms: u32, wanted: Vec<Wanted> });

wire_struct!(Wanted { node: NodeId, incarnation: u64, events_after: u64 });

wire_struct!(Report { of: NodeId, age_ms: u32 }, body bytes);
