//! The sessions of a run's clients, in the runs that have them: two clients share a session, and
//! each retries until it knows the outcome.

use crate::plan::Plan;
use quorate::{Index, SessionKey, Sessions as Bounds};
use std::time::Duration;

pub(super) struct Sessions {
    kind: Kind,
    /// One entry for each two clients, in order.
    pairs: Vec<Pair>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    None,
    /// Sessions have names, and wide bounds: none ever expires.
    Named,
    /// Sessions are opened, and the bounds are tight enough that they expire all the time.
    Opened,
}

#[derive(Clone, Default)]
struct Pair {
    key: Option<SessionKey>,
    serial: u64,
}

/// The next step of a client.
pub(super) enum Next {
    /// Propose without a session.
    Without,
    /// Open a session first.
    Open,
    /// Propose with this serial of this session.
    As(SessionKey, u64),
}

impl Sessions {
    /// A quarter of the runs have sessions.
    pub(super) fn new(plan: &Plan) -> Self {
        let kind = kind(plan);
        let pair = |nth: u64| Pair {
            key: SessionKey::named(format!("clients {nth}").as_bytes()).filter(|_| kind == Kind::Named),
            serial: 0,
        };
        Self { kind, pairs: (0..plan.clients.div_ceil(2)).map(pair).collect() }
    }

    /// The step for a client's next change; takes a new serial.
    pub(super) fn next(&mut self, client: u64) -> Next {
        let pair = &mut self.pairs[client as usize / 2];
        match &pair.key {
            _ if self.kind == Kind::None => Next::Without,
            None => Next::Open,
            Some(key) => {
                pair.serial += 1;
                Next::As(key.clone(), pair.serial)
            }
        }
    }

    /// A client's session was opened by the entry at `index`.
    pub(super) fn opened(&mut self, client: u64, index: Index) {
        self.pairs[client as usize / 2] = Pair { key: Some(SessionKey::opened(index)), serial: 0 };
    }

    /// A client's session has expired.
    pub(super) fn expired(&mut self, client: u64, key: &SessionKey) {
        self.pairs[client as usize / 2].key.take_if(|current| current == key);
    }
}

/// The session bounds of a run's nodes.
pub(super) fn bounds(plan: &Plan) -> Bounds {
    match kind(plan) {
        Kind::None | Kind::Named => Bounds::default(),
        // One less than the clients need, so that sessions displace each other.
        Kind::Opened => {
            let fewer = (plan.clients.div_ceil(2) as u32).saturating_sub(1).max(1);
            Bounds::default().with_idle_limit(Duration::from_millis(500)).with_max_sessions(fewer)
        }
    }
}

fn kind(plan: &Plan) -> Kind {
    match plan.seed % 8 {
        2 => Kind::Named,
        6 => Kind::Opened,
        _ => Kind::None,
    }
}
