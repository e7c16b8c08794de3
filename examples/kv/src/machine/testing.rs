//! The service under a log of its own, for unit tests: commands, without a node.

use super::{Command, Reply};
use quorate::{At, Hosted, StateMachine};
use std::ops::Deref;

pub(crate) struct Kv {
    hosted: Hosted<super::Kv>,
    at: At,
}

impl Kv {
    pub(crate) fn execute(&mut self, command: Command) -> Reply {
        self.at.index = self.at.index.next();
        let outcome = self.hosted.apply(&self.at, &Hosted::<super::Kv>::encode(&command));
        Hosted::<super::Kv>::decode(&outcome).expect("an outcome").expect("a reply")
    }
}

impl Default for Kv {
    fn default() -> Self {
        Self { hosted: Hosted::new(super::Kv::default), at: At::default() }
    }
}

impl Deref for Kv {
    type Target = super::Kv;

    fn deref(&self) -> &super::Kv {
        self.hosted.service()
    }
}
