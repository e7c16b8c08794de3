//! How the clients of a run keep sessions, if they do: two of them share one, and ask again until they know.

use crate::plan::Plan;
use quorate::{Index, SessionKey, Sessions as Bounds};
use std::time::Duration;

/// The sessions of a run's clients.
pub(super) struct Sessions {
    kind: Kind,
    /// Of the first two clients, of the next two, and so on.
    pairs: Vec<Pair>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    None,
    /// They have names, and the bounds are wide: nothing is ever forgotten.
    Named,
    /// They are opened, and the bounds are so tight that they are forgotten all the time.
    Opened,
}

#[derive(Clone, Default)]
struct Pair {
    key: Option<SessionKey>,
    serial: u64,
}

/// What a client is to do next.
pub(super) enum Next {
    /// Ask without a session.
    Without,
    /// Open one.
    Open,
    /// Ask as this serial of this session.
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

    /// For a client's next change.
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

    /// A client's session is known no longer.
    pub(super) fn expired(&mut self, client: u64, key: &SessionKey) {
        self.pairs[client as usize / 2].key.take_if(|current| current == key);
    }
}

/// What the nodes of a run are started with.
pub(super) fn bounds(plan: &Plan) -> Bounds {
    match kind(plan) {
        Kind::None | Kind::Named => Bounds::default(),
        // One less than there would be, so that they make room for each other.
        Kind::Opened => Bounds {
            idle_limit: Duration::from_millis(500),
            max_sessions: (plan.clients.div_ceil(2) as u32).saturating_sub(1).max(1),
        },
    }
}

fn kind(plan: &Plan) -> Kind {
    match plan.seed % 8 {
        2 => Kind::Named,
        6 => Kind::Opened,
        _ => Kind::None,
    }
}
