//! File descriptors: the system's limit, and the part of it that clients may use.
//!
//! A reserve is kept for the log, snapshots and other nodes: a log without a descriptor for its
//! next file waits, and so does every write.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The size of the reserve: one part in `RESERVE_PART` of the limit, within these bounds.
const RESERVE_PART: u64 = 4;
const RESERVE_MIN: u64 = 48;
const RESERVE_MAX: u64 = 1024;
/// The minimum for clients, for any limit.
const CONNECTIONS_MIN: u64 = 8;

/// The maximum number of client connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimit(usize);

impl ConnectionLimit {
    /// Raises the process's limit as far as permitted, and reserves up to `max`
    /// connections for clients.
    #[must_use]
    pub fn claim(max: usize) -> Self {
        let limit = raise();
        let connections = Self::within(limit, max);
        if connections.0 < max {
            tracing::warn!(
                "the limit of open files, {}, leaves {} of {max} HTTP connections; raise it (ulimit -n, LimitNOFILE)",
                limit.unwrap_or(u64::MAX),
                connections.0
            );
        }
        connections
    }

    /// The limit without `part` connections, or half of them if that is less, and this part. Each
    /// has a place if there are two.
    #[must_use]
    pub fn split(self, part: usize) -> (Self, Self) {
        debug_assert!(self.0 >= 2, "the configuration refuses less for two listeners");
        let part = part.min(self.0 / 2);
        (Self(self.0 - part), Self(part))
    }

    /// The number of connections.
    #[must_use]
    pub fn connections_max(self) -> usize {
        self.0
    }

    fn within(limit: Option<u64>, max: usize) -> Self {
        let Some(limit) = limit else { return Self(max) };
        let reserve = (limit / RESERVE_PART).clamp(RESERVE_MIN, RESERVE_MAX);
        let left = limit.saturating_sub(reserve).max(CONNECTIONS_MIN);
        Self(usize::try_from(left).unwrap_or(usize::MAX).min(max))
    }
}

/// Raises the soft limit to the hard limit; `None` if there is no limit.
fn raise() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum || current.is_none() {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!("cannot raise the limit of open files above {current:?}: {error}");
            current
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_a_reserve_and_are_never_more_than_configured() {
        for (limit, max, connections) in [
            (Some(1024), 4096, 768),
            (Some(256), 4096, 192),
            (Some(100), 4096, 52),
            (Some(20), 4096, 8),
            (Some(1 << 20), 4096, 4096),
            (Some(1 << 20), 10, 10),
            (None, 4096, 4096),
        ] {
            assert_eq!(ConnectionLimit::within(limit, max), ConnectionLimit(connections), "{limit:?} {max}");
        }
    }

    #[test]
    fn both_parts_of_a_split_have_a_place() {
        for (all, part, of_clients, of_admin) in [(2, 64, 1, 1), (3, 64, 2, 1), (128, 64, 64, 64), (4096, 64, 4032, 64)]
        {
            let split = ConnectionLimit(all).split(part);
            assert_eq!(split, (ConnectionLimit(of_clients), ConnectionLimit(of_admin)), "{all}");
        }
    }
}
