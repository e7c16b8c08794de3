//! The layout of ticks: the entries with which a leader moves log time on.
//!
//! This module owns the layout alone. The leader's node decides when to append a tick, and the node
//! that applies it decides what is due. The payload of an entry of
//! [`Kind::Tick`](crate::Kind::Tick), little-endian:
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 8 | log time, in milliseconds |
//! | 8 | 8 | the leader's wall clock, in milliseconds since 1970 |
//! | 16 | 8 | random bytes |
//! | 24 | 4 | most events in the history of a service |
//! | 28 | 4 | most bytes of those events |
//! | 32 | 4 | most effects in the outbox of a service |
//! | 36 | 4 | most bytes of those effects |
//!
//! The bounds stand in each tick, so that all nodes agree on them even if they are configured
//! differently.

use crate::{entry::Malformed, session::LogTime};

/// Length of a tick's payload.
pub const TICK_BYTES: usize = 40;

/// The content of a tick.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Tick {
    /// Log time from this entry on, unless the state machine leaves a part of what is due.
    pub time: LogTime,
    /// The leader's wall clock, in milliseconds since 1970; for display alone.
    pub unix_ms: u64,
    /// From the leader's source of randomness: not known before the tick is appended.
    pub random: [u8; 8],
    /// Bounds of what a service keeps.
    pub bounds: Bounds,
}

/// The most that a service keeps of the events and effects that it produced.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Bounds {
    /// Events in its history; 16,384 by default.
    pub history_events: u32,
    /// Bytes of those events; 8 MiB by default.
    pub history_bytes: u32,
    /// Effects in its outbox; 65,536 by default.
    pub outbox_effects: u32,
    /// Bytes of those effects; 64 MiB by default.
    pub outbox_bytes: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { history_events: 16_384, history_bytes: 8 << 20, outbox_effects: 65_536, outbox_bytes: 64 << 20 }
    }
}

impl Tick {
    /// The payload of its entry.
    #[must_use]
    pub fn encode(&self) -> [u8; TICK_BYTES] {
        let mut bytes = [0; TICK_BYTES];
        bytes[..8].copy_from_slice(&self.time.0.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.unix_ms.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.random);
        let Bounds { history_events, history_bytes, outbox_effects, outbox_bytes } = self.bounds;
        let numbers = [history_events, history_bytes, outbox_effects, outbox_bytes];
        for (to, number) in bytes[24..].chunks_exact_mut(4).zip(numbers) {
            to.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// Reads the payload of a tick.
    ///
    /// # Errors
    /// If it does not have 40 bytes.
    pub fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let bytes: &[u8; TICK_BYTES] =
            payload.try_into().map_err(|_| Malformed { offset: payload.len().min(TICK_BYTES), what: "tick" })?;
        let u64_at = |at: usize| u64::from_le_bytes(core::array::from_fn(|byte| bytes[at + byte]));
        let u32_at = |at: usize| u32::from_le_bytes(core::array::from_fn(|byte| bytes[at + byte]));
        Ok(Self {
            time: LogTime(u64_at(0)),
            unix_ms: u64_at(8),
            random: core::array::from_fn(|byte| bytes[16 + byte]),
            bounds: Bounds {
                history_events: u32_at(24),
                history_bytes: u32_at(28),
                outbox_effects: u32_at(32),
                outbox_bytes: u32_at(36),
            },
        })
    }
}
