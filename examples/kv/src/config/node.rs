//! The node that a configuration describes: one translation, used by `serve` and checked
//! by `serve --check`.

use super::{Config, Limits, SkippedEntry, State};
use crate::machine::COMMAND_OVERHEAD_BYTES;
use quorate::{Builder, Index, MemberMetadata, MetadataFlaw, Node, Snapshots, Term, Timing, storage::Wal};

impl Config {
    /// A builder of the node with all settings of this configuration, except the network.
    #[must_use]
    pub fn builder(&self) -> Builder {
        let builder = Node::builder(self.node_id, &self.cluster);
        let builder = match self.state {
            State::Member => builder,
            State::Join => builder.join(true),
        };
        let builder = match self.witness() {
            Some(witness) => builder.witness(witness),
            None => builder,
        };
        let builder = self.skip.iter().fold(builder, |builder, SkippedEntry { index, term, checksum }| {
            builder.skip(Index(*index), Term(*term), *checksum)
        });
        let [shortest, longest] = self.timing.election_timeout;
        builder
            .voters(self.peers.iter().map(|peer| (peer.id, peer.addr.clone())))
            .preferred_leaders(self.prefers.iter().copied())
            .storage(Wal::at(&self.data_dir).segment_bytes(self.storage.segment_bytes))
            .timing(
                Timing::default()
                    .with_heartbeat_interval(self.timing.heartbeat_interval)
                    .with_election_timeout((shortest, longest))
                    .with_leader_wait(self.timing.leader_wait)
                    .with_promote_after(self.timing.promote_after),
            )
            .snapshots(
                Snapshots::default()
                    .with_every_entries(self.snapshot.every_entries)
                    .with_every_bytes(self.snapshot.every_bytes)
                    .with_keep_entries(self.snapshot.keep_entries)
                    .with_bytes_per_second(self.snapshot.max_bytes_per_second),
            )
            .limits(
                quorate::Limits::default()
                    .with_max_command_bytes(self.limits.command_bytes_max())
                    .with_max_in_flight_proposals(self.limits.max_in_flight_proposals)
                    .with_max_in_flight_bytes(self.limits.max_in_flight_bytes),
            )
    }
}

impl Config {
    /// The metadata that the node publishes, if `http` listens at the URL `listens_at`.
    ///
    /// # Errors
    /// The bound that it breaks; none in a checked configuration.
    pub fn metadata(&self, listens_at: &str) -> Result<MemberMetadata, MetadataFlaw> {
        let own = || (!self.http.ip().is_unspecified()).then(|| listens_at.to_owned());
        MemberMetadata::new(self.advertise_http.clone().or_else(own), self.labels.clone())
    }
}

impl Limits {
    /// The upper limit of `limits.max_value_bytes`: a compare-and-swap has two values
    /// in one command.
    pub const VALUE_BYTES_MAX: usize = (quorate::Limits::COMMAND_BYTES_MAX - COMMAND_OVERHEAD_BYTES) / 2;

    /// The length of the longest command: a compare-and-swap of two values of the maximum length.
    #[must_use]
    pub const fn command_bytes_max(&self) -> usize {
        self.max_value_bytes.saturating_mul(2).saturating_add(COMMAND_OVERHEAD_BYTES)
    }
}
