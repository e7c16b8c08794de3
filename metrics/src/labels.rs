//! The label values: closed sets, one enum each, so that no text from outside becomes a series.

/// A label with a closed set of values.
pub trait Label: Copy + Sized + 'static {
    /// All values, ordered by [`Label::position`].
    const ALL: &'static [Self];
    /// The exported texts of all values, in the same order.
    const VALUES: &'static [&'static str];

    /// The index of this value in [`Label::ALL`].
    fn position(self) -> usize;

    /// The exported text of this value.
    fn as_str(self) -> &'static str {
        Self::VALUES[self.position()]
    }
}

macro_rules! label {
    ($(#[$doc:meta])* $vis:vis $name:ident { $($(#[$value_doc:meta])* $value:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        $vis enum $name { $($(#[$value_doc])* $value,)+ }

        impl Label for $name {
            const ALL: &'static [Self] = &[$(Self::$value,)+];
            const VALUES: &'static [&'static str] = &[$($text,)+];

            fn position(self) -> usize {
                self as usize
            }
        }
    };
}

/// For sets of values that other packages name by text: unknown texts become `other`.
macro_rules! named_by_text {
    ($($name:ident)+) => {$(
        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                let position = Self::VALUES.iter().position(|value| *value == text);
                position.map_or(Self::Other, |position| Self::ALL[position])
            }
        }
    )+};
}

label! {
    /// The role of a node in its term, as its status and its metrics show it.
    #[non_exhaustive]
    #[derive(Default)]
    pub NodeRole {
        /// Replicates its log to the other nodes.
        Leader = "leader",
        /// Follows a leader, or waits for one.
        #[default]
        Follower = "follower",
        /// Requests votes in a new term.
        Candidate = "candidate",
        /// Requests pre-votes, without a new term.
        PreCandidate = "pre_candidate",
        /// Receives the log and does not vote.
        Learner = "learner",
    }
}

label! {
    /// The cause of an increase of a node's term. A restart resumes the old term and
    /// is not counted.
    pub TermChange {
        /// The node won a pre-vote, or was the target of a leadership transfer, and requests votes
        /// in the next term.
        Campaign = "campaign",
        /// A message with a higher term arrived.
        HigherTerm = "higher_term",
    }
}

label! {
    /// One of the two rounds of an election.
    pub Phase {
        /// The pre-vote round, which changes no term.
        PreVote = "pre_vote",
        /// The vote round, in a new term.
        Vote = "vote",
    }
}

label! {
    /// The result of a round for the node that started it.
    pub ElectionResult {
        /// A quorum granted its vote.
        Won = "won",
        /// Too many denials: a quorum is no longer possible.
        Lost = "lost",
        /// Too few answers within the election timeout.
        TimedOut = "timed_out",
        /// A leader or a higher term appeared during the round.
        Superseded = "superseded",
    }
}

label! {
    /// The direction of a vote.
    pub VoteDirection {
        /// This node answered another node's request.
        Cast = "cast",
        /// Another node answered this node's request.
        Received = "received",
    }
}

label! {
    /// The answer to a vote request.
    pub(crate) VoteResult {
        /// The vote was given.
        Granted = "granted",
        /// The vote was refused.
        Denied = "denied",
    }
}

label! {
    /// The end of a leadership transfer that this node was to make.
    pub TransferResult {
        /// The target leads.
        Done = "done",
        /// The target did not catch up, or did not take over in time; this node still leads.
        TimedOut = "timed_out",
        /// Another node than the target leads.
        AnotherLeads = "another_leads",
        /// It did not begin.
        Refused = "refused",
    }
}

label! {
    /// The answer to a proposal.
    pub ProposalResult {
        /// Committed and applied.
        Applied = "applied",
        /// It will not take effect: the node taken for the leader does not lead.
        NotLeader = "not_leader",
        /// It will not take effect: no leader is known.
        NoLeader = "no_leader",
        /// It will not take effect: too many proposals are in flight.
        Overloaded = "overloaded",
        /// It will not take effect: its deadline passed before a leader accepted it.
        DeadlinePassed = "deadline_passed",
        /// It will not take effect: it exceeds the size limit.
        TooLarge = "too_large",
        /// It will not take effect: the disk is full.
        StorageFull = "storage_full",
        /// It will not take effect: the leader's state machine has halted.
        Halted = "halted",
        /// An operator excluded the entry from being applied.
        Skipped = "skipped",
        /// It will not take effect: the node is stopping.
        Stopping = "stopping",
        /// It may or may not take effect.
        OutcomeUnknown = "outcome_unknown",
        /// It was not applied: its session is unknown or expired.
        SessionExpired = "session_expired",
        /// This attempt was not applied: its serial is older than those that its session remembers.
        StaleSerial = "stale_serial",
    }
}

label! {
    /// A stage of a batch of proposals, on the leader. Each begins where the one before ends, and
    /// their sum is `Total`; `Persist` runs beside `Quorum`, which may be reached first.
    pub ProposalStage {
        /// From the call, as the mean of the batch, until the leader takes it. Zero for a batch of
        /// forwarded commands alone.
        Queue = "queue",
        /// Until the batch is encoded and has its indexes.
        Encode = "encode",
        /// Until it is durable on a quorum.
        Quorum = "quorum",
        /// Until the state machine begins with it.
        Commit = "commit",
        /// Until it is applied.
        Apply = "apply",
        /// Until its last caller has its answer; of forwarded commands, until that leaves the node.
        Reply = "reply",
        /// From the call to the answer: the sum of the stages above.
        Total = "total",
        /// From the end of `Encode` until the batch is durable on the leader's own disk.
        Persist = "persist",
    }
}

label! {
    /// The consistency of a read.
    pub ReadMode {
        /// The leader confirms with a quorum that it leads.
        Linearizable = "linearizable",
        /// The leader relies on its lease.
        Lease = "lease",
        /// The state that this node has applied.
        Local = "local",
        /// The state that this node has applied, if it provably lags by no more than
        /// the given bounds.
        Bounded = "bounded",
    }
}

label! {
    /// The answer to a read.
    pub ReadResult {
        /// The value was returned.
        Served = "served",
        /// The node taken for the leader does not lead.
        NotLeader = "not_leader",
        /// No leader is known.
        NoLeader = "no_leader",
        /// Too many reads are in flight.
        Overloaded = "overloaded",
        /// Leadership was not confirmed in time.
        TimedOut = "timed_out",
        /// The node cannot prove that its lag is within the bounds.
        TooStale = "too_stale",
        /// The node did not apply in time the index that a leader confirmed.
        Behind = "behind",
        /// The node's disk is full, and it lacks entries that the read must see.
        StorageFull = "storage_full",
        /// The node's state machine has halted.
        Halted = "halted",
        /// The node is a witness and has no state.
        Witness = "witness",
        /// The node is stopping.
        Stopping = "stopping",
    }
}

label! {
    /// A kind of storage operation.
    pub StorageOp {
        /// Opening and recovering the log.
        Open = "open",
        /// Reading entries from the log.
        Read = "read",
        /// Writing to a file.
        Write = "write",
        /// An `fdatasync` or `fsync` call.
        Sync = "sync",
        /// All other operations.
        Other = "other",
    }
}

label! {
    /// The state of replication from the leader to a peer.
    pub PeerState {
        /// The leader searches for the last index at which both logs agree.
        Probe = "probe",
        /// The leader sends new entries, pipelined.
        Replicate = "replicate",
        /// The leader sends a snapshot.
        Snapshot = "snapshot",
    }
}

label! {
    /// The direction of a transfer.
    pub Direction {
        /// From the peer to this node.
        Received = "received",
        /// From this node to the peer.
        Sent = "sent",
    }
}

label! {
    /// A lane of a connection.
    pub Lane {
        /// Votes, heartbeats, read index.
        Control = "control",
        /// Entries and forwarded proposals.
        Append = "append",
        /// Chunks of snapshots, on a stream of the lowest priority.
        Snapshot = "snapshot",
    }
}

label! {
    /// The result of a connection attempt.
    pub ConnectionResult {
        /// This node dialled, and the connection is up.
        Connected = "connected",
        /// The peer dialled, and the connection is up.
        Accepted = "accepted",
        /// Refused: no certificate, one of another authority, or one that is no member's.
        RefusedCertificate = "refused_certificate",
        /// Refused: a certificate of another node or another cluster than claimed or expected.
        RefusedIdentity = "refused_identity",
        /// Refused: another live process uses the peer's id, and is connected.
        RefusedTwin = "refused_twin",
        /// Refused: another protocol or version.
        RefusedProtocol = "refused_protocol",
        /// Refused for now: it sent malformed bytes a moment ago.
        RefusedBackOff = "refused_back_off",
        /// Refused for now: too many handshakes are under way.
        RefusedBusy = "refused_busy",
        /// Refused for now: too many handshakes of its address are under way.
        RefusedAddress = "refused_address",
        /// More attempts arrived at once than are looked into; counted once for all that were ignored.
        RefusedBurst = "refused_burst",
        /// The peer refused this node.
        Rejected = "rejected",
        /// No answer from the address.
        Unreachable = "unreachable",
        /// The handshake broke off without a fault of either side.
        HandshakeFailed = "handshake_failed",
        /// All other results.
        Other = "other",
    }
}

label! {
    /// The reason for dropping a message.
    pub DropReason {
        /// No connection to the peer.
        Unconnected = "unconnected",
        /// The queue to the peer is full.
        QueueFull = "queue_full",
        /// The message cannot be parsed, or violates the format.
        Malformed = "malformed",
        /// The message is longer than allowed.
        TooLong = "too_long",
        /// The connection was lost while the message waited to be written.
        ConnectionLost = "connection_lost",
        /// The sender is not a member of the cluster.
        Stranger = "stranger",
        /// The commands in it had arrived before.
        Duplicate = "duplicate",
        /// Too many accepted entries are not durable yet; the leader sends the message again.
        Unpersisted = "unpersisted",
        /// The disk is full; the leader sends the message again.
        StorageFull = "storage_full",
        /// A piece of a snapshot that cannot be accepted now: an earlier snapshot is being
        /// restored, or too many pieces wait to be written.
        SnapshotBusy = "snapshot_busy",
        /// A vote request from a node whose state machine writes a version that this
        /// node cannot apply.
        MachineVersion = "machine_version",
        /// The sender's list of skipped entries differs from this node's.
        SkipList = "skip_list",
        /// An in-memory network was told to cut the link.
        FaultCut = "fault_cut",
        /// An in-memory network was told to lose some messages.
        FaultDrop = "fault_drop",
        /// All other reasons.
        Other = "other",
    }
}

label! {
    /// The end of an entry whose payload was lost to the node's disk.
    pub Repair {
        /// Another member sent the payload.
        Healed = "healed",
        /// The rest of a write that was torn by a crash and never reported as durable: it was cut
        /// from the log.
        Discarded = "discarded",
    }
}

label! {
    /// A phase in the life of a snapshot.
    pub SnapshotPhase {
        /// The state machine writes it.
        Build = "build",
        /// A leader sends it.
        Send = "send",
        /// A follower receives and checks it.
        Receive = "receive",
        /// The state machine is restored from it.
        Restore = "restore",
    }
}

label! {
    /// A resource of the machine that tasks may wait for.
    pub Resource {
        /// A processor.
        Cpu = "cpu",
        /// A device, such as a disk.
        Io = "io",
        /// Memory.
        Memory = "memory",
    }
}

label! {
    /// The tasks that wait at the same time.
    pub Waiting {
        /// At least one.
        One = "some",
        /// All that are not idle.
        All = "full",
    }
}

label! {
    /// An actor that counts the messages that it takes from its mailbox, so that the number of
    /// waiting ones is known.
    pub CountedMailbox {
        /// Term, vote, role, membership, commit index.
        Consensus = "consensus",
        /// The durable log and snapshots.
        LogWriter = "log_writer",
        /// The state machine.
        Applier = "applier",
    }
}

label! {
    /// A kind of actor of a node; actors of one kind (such as one replicator per peer)
    /// are counted together.
    pub ActorName {
        /// Term, vote, role, membership, commit index.
        Consensus = "consensus",
        /// The election deadline.
        ElectionTimer = "election_timer",
        /// The votes of one round.
        VoteCollector = "vote_collector",
        /// Replication to one peer.
        Replicator = "replicator",
        /// The durable log and snapshots.
        LogWriter = "log_writer",
        /// The state machine.
        Applier = "applier",
        /// Arrival of a snapshot.
        SnapshotReceiver = "snapshot_receiver",
        /// Reports for members that look at the cluster.
        Reporter = "reporter",
        /// The connections with peers.
        PeerLink = "peer_link",
    }
}

label! {
    /// The object that could not be opened or started because the system was short of descriptors,
    /// threads or memory.
    pub Shortage {
        /// A file of the log or of a snapshot, or a thread that prepares one.
        Storage = "storage",
        /// A thread that writes, reads or sends a snapshot.
        Thread = "thread",
        /// A client's connection.
        Connection = "connection",
    }
}

label! {
    /// A set of credentials that a node reads from files, and again while it runs.
    pub CredentialsOf {
        /// Certificate, key, authorities and revocation lists of the network between nodes.
        Nodes = "nodes",
        /// The same of the HTTPS port.
        Http = "http",
        /// The bearer tokens of the HTTP port.
        Tokens = "tokens",
    }
}

label! {
    /// The result of reading credentials again.
    pub ReloadResult {
        /// They are in use.
        Loaded = "loaded",
        /// They can't be used, and the former ones stay in use.
        Failed = "failed",
    }
}

label! {
    /// The reason for which a client's request or connection was refused or cut off.
    pub HttpRefusal {
        /// The request proves no identity, and needs one.
        Unauthenticated = "unauthenticated",
        /// The caller is known and has not the role.
        Forbidden = "forbidden",
        /// The `Host` is not one of the server's names.
        Host = "host",
        /// The request is of a page of another site.
        Origin = "origin",
        /// The body has not the required type.
        ContentType = "content_type",
        /// The request cannot be parsed, or has an unknown part.
        BadRequest = "bad_request",
        /// The body, the key or the value is too large.
        TooLarge = "too_large",
        /// The head of a request did not arrive in time.
        Slow = "slow",
        /// Too much is in progress.
        Overloaded = "overloaded",
        /// TLS failed: a certificate that does not count, or no TLS at all.
        Handshake = "handshake",
        /// The connection was closed for a new one.
        Replaced = "replaced",
    }
}

label! {
    /// A thread of a node whose responsiveness is monitored.
    pub NodeThread {
        /// Consensus, network, and the other actors on their thread.
        Consensus = "consensus",
        /// The durable log's thread.
        LogWriter = "log_writer",
        /// The state machine's thread.
        Applier = "applier",
    }
}

named_by_text! { StorageOp ConnectionResult DropReason }
