//! The values that labels take: closed sets, each an enum, so that no text from outside ever becomes a series.

/// A label whose values are a closed set.
pub trait Label: Copy + Sized + 'static {
    /// Every value, in the order of their [`Label::position`].
    const ALL: &'static [Self];
    /// Every value as Prometheus sees it, in the same order.
    const VALUES: &'static [&'static str];

    /// Where this value stands in [`Label::ALL`].
    fn position(self) -> usize;

    /// This value as Prometheus sees it.
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

/// For sets that other packages name by text: what is not in the set is `other`.
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
    /// What a node is at the moment.
    pub Role {
        /// It replicates its log to the others.
        Leader = "leader",
        /// It follows a leader, or waits for one.
        Follower = "follower",
        /// It asks for votes in a term of its own.
        Candidate = "candidate",
        /// It asks whether it would get votes.
        PreCandidate = "pre_candidate",
        /// It receives the log and does not vote.
        Learner = "learner",
    }
}

label! {
    /// Why a node's term went up. A restart resumes the old term and is no change.
    pub TermChange {
        /// The node won a pre-vote, or was told to take over, and asks for votes in the next term.
        Campaign = "campaign",
        /// A message came from a higher term.
        HigherTerm = "higher_term",
    }
}

label! {
    /// Which of an election's two rounds.
    pub Phase {
        /// "Would you vote for me?" Changes no term.
        PreVote = "pre_vote",
        /// "Vote for me."
        Vote = "vote",
    }
}

label! {
    /// How a round ended for the node that asked.
    pub ElectionResult {
        /// A quorum granted.
        Won = "won",
        /// So many denied that no quorum is left.
        Lost = "lost",
        /// Too few answered until the election timeout.
        TimedOut = "timed_out",
        /// A leader or a higher term showed up meanwhile.
        Superseded = "superseded",
    }
}

label! {
    /// Which way a vote went.
    pub VoteDirection {
        /// This node decided on somebody's request.
        Cast = "cast",
        /// Somebody decided on this node's request.
        Received = "received",
    }
}

label! {
    /// Whether a vote was given.
    pub(crate) VoteResult {
        /// It was.
        Granted = "granted",
        /// It was not.
        Denied = "denied",
    }
}

label! {
    /// What a proposal's caller was told.
    pub ProposalResult {
        /// Committed and applied.
        Applied = "applied",
        /// It will not take effect: the node that was taken for the leader does not lead.
        NotLeader = "not_leader",
        /// It will not take effect: nobody is known to lead.
        NoLeader = "no_leader",
        /// It will not take effect: too much is in flight.
        Overloaded = "overloaded",
        /// It will not take effect: nobody had taken it when its deadline passed.
        DeadlinePassed = "deadline_passed",
        /// It will not take effect: it is larger than allowed.
        TooLarge = "too_large",
        /// It will not take effect: the disk is full.
        StorageFull = "storage_full",
        /// An operator had the entry skipped.
        Skipped = "skipped",
        /// It will not take effect: the node stops.
        Stopping = "stopping",
        /// It may or may not take effect.
        OutcomeUnknown = "outcome_unknown",
        /// It was not applied: its session is not known any more.
        SessionExpired = "session_expired",
        /// It was not applied now: its serial is older than what its session remembers.
        StaleSerial = "stale_serial",
    }
}

label! {
    /// A stretch of a proposal's way. `Persist` and `Commit` both begin when the proposal got its index; a quorum may
    /// commit before the leader's own disk is done.
    pub ProposalStage {
        /// From the call until it got its index.
        Queue = "queue",
        /// From its index until it is durable on the leader's own disk.
        Persist = "persist",
        /// From its index until it is committed.
        Commit = "commit",
        /// From its commit until it is applied.
        Apply = "apply",
        /// From the call to the answer.
        Total = "total",
    }
}

label! {
    /// How a read is made safe.
    pub ReadMode {
        /// The leader confirms with a quorum that it leads.
        Linearizable = "linearizable",
        /// The leader trusts its lease.
        Lease = "lease",
        /// Whatever this node has applied.
        Local = "local",
        /// What this node has applied, if it can prove that it is not too far behind.
        Bounded = "bounded",
    }
}

label! {
    /// What a read's caller was told.
    pub ReadResult {
        /// The answer.
        Served = "served",
        /// The node that was taken for the leader does not lead.
        NotLeader = "not_leader",
        /// Nobody is known to lead.
        NoLeader = "no_leader",
        /// Too much is in flight.
        Overloaded = "overloaded",
        /// Leadership could not be confirmed in time.
        TimedOut = "timed_out",
        /// The node can't prove that it is not too far behind.
        TooStale = "too_stale",
        /// The node did not apply in time what a leader confirmed.
        Behind = "behind",
        /// The node's disk is full, and it lacks entries that the read must see.
        StorageFull = "storage_full",
        /// The node is a witness, and has no state.
        Witness = "witness",
        /// The node stops.
        Stopping = "stopping",
    }
}

label! {
    /// What storage was doing.
    pub StorageOp {
        /// Opening or recovering.
        Open = "open",
        /// Reading entries back.
        Read = "read",
        /// Writing.
        Write = "write",
        /// `fdatasync`.
        Sync = "sync",
        /// Anything else.
        Other = "other",
    }
}

label! {
    /// How a leader replicates to a peer.
    pub PeerState {
        /// It looks for where the logs agree.
        Probe = "probe",
        /// It sends what is new, pipelined.
        Replicate = "replicate",
        /// It sends a snapshot.
        Snapshot = "snapshot",
    }
}

label! {
    /// Which way bytes went.
    pub Direction {
        /// From the peer to this node.
        Received = "received",
        /// From this node to the peer.
        Sent = "sent",
    }
}

label! {
    /// Which lane of a connection.
    pub Lane {
        /// Votes, heartbeats, read index.
        Control = "control",
        /// Appends, forwarded proposals.
        Append = "append",
        /// Snapshots.
        Snapshot = "snapshot",
    }
}

label! {
    /// How an attempt at a connection ended.
    pub ConnectionResult {
        /// This node dialled, and it stands.
        Connected = "connected",
        /// The peer dialled, and it stands.
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
        /// The peer refused this node.
        Rejected = "rejected",
        /// Nobody answered at the address.
        Unreachable = "unreachable",
        /// It broke off before it stood, for a reason that blames nobody.
        HandshakeFailed = "handshake_failed",
        /// Anything else.
        Other = "other",
    }
}

label! {
    /// Why a message was dropped.
    pub DropReason {
        /// No connection to the peer.
        Unconnected = "unconnected",
        /// Too much waits for the peer already.
        QueueFull = "queue_full",
        /// It can't be read, or breaks the format.
        Malformed = "malformed",
        /// It is larger than allowed.
        TooLong = "too_long",
        /// The connection was lost while it waited to be written.
        ConnectionLost = "connection_lost",
        /// Whoever sent it is no member of the cluster.
        Stranger = "stranger",
        /// It carried commands that had arrived before.
        Duplicate = "duplicate",
        /// Too much that was accepted is not durable yet; the leader sends it again.
        Unpersisted = "unpersisted",
        /// The disk is full; the leader sends it again.
        StorageFull = "storage_full",
        /// A piece of a snapshot that nobody waits for: an earlier one is being restored, or too much waits to be written.
        SnapshotBusy = "snapshot_busy",
        /// It asked for a vote, and its sender's state machine writes what the one here can't apply.
        MachineVersion = "machine_version",
        /// The sender skips other entries than this node.
        SkipList = "skip_list",
        /// An in-memory network was told to cut the link.
        FaultCut = "fault_cut",
        /// An in-memory network was told to lose some messages.
        FaultDrop = "fault_drop",
        /// Anything else.
        Other = "other",
    }
}

label! {
    /// What became of an entry that a node's disk had lost the payload of.
    pub Repair {
        /// Another member sent it.
        Healed = "healed",
        /// It was the remains of a write that a crash tore, and nobody was ever told of it: it was cut off.
        Discarded = "discarded",
    }
}

label! {
    /// A stretch of a snapshot's life.
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
    /// An actor of a node; those of one kind (a replicator a peer) count together.
    pub ActorName {
        /// Term, vote, role, membership, commit index.
        Consensus = "consensus",
        /// The election deadline.
        ElectionTimer = "election_timer",
        /// A campaign's votes.
        VoteCollector = "vote_collector",
        /// Replication to a peer.
        Replicator = "replicator",
        /// The durable log.
        LogWriter = "log_writer",
        /// The state machine.
        Applier = "applier",
        /// A snapshot's arrival.
        SnapshotReceiver = "snapshot_receiver",
        /// A connection to a peer.
        PeerLink = "peer_link",
    }
}

label! {
    /// What could not be opened or started because the system was short of descriptors, threads or memory.
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
    /// A thread of a node that must take turns.
    pub NodeThread {
        /// Consensus, the network and what shares their thread.
        Consensus = "consensus",
        /// The durable log's.
        LogWriter = "log_writer",
        /// The state machine's.
        Applier = "applier",
    }
}

named_by_text! { StorageOp ConnectionResult DropReason }
