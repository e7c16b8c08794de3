//! The player: the tape, whether and how fast it runs, and the messages for the page.

use super::{
    news::millis,
    scenarios::Scenario,
    tape::{Deed, Tape},
    view,
};
use crate::live::simulated::Simulated;
use axum::body::Bytes;
use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;

/// The most things that happen between two messages.
const STEPS_MAX: usize = 500;
/// The speeds, at least and at most: simulated seconds in a second.
const SPEEDS: (f64, f64) = (0.05, 5.0);

/// A command of a reader of the page.
#[derive(Clone, Copy, PartialEq, Debug, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Command {
    /// Time passes.
    Run {},
    /// Time stands.
    Pause {},
    /// Time stands, and the next thing happens.
    Step {},
    /// Time stands, and the last move is taken back.
    Back {},
    /// Time passes at another speed.
    Speed {
        /// Simulated seconds in a second.
        of: f64,
    },
    /// A scenario begins, and time passes.
    Scenario {
        /// Its name.
        name: Scenario,
    },
}

/// A request of a page.
#[derive(Clone, Copy, PartialEq, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Asked {
    Command(Command),
    Deed(Deed),
}

/// The tape that is played, its pace, and its page.
pub(super) struct Player {
    tape: Tape,
    page: Simulated,
    nodes: u64,
    seed: u64,
    plays: u64,
    is_running: bool,
    speed: f64,
}

impl Player {
    pub(super) fn new(nodes: u64, seed: u64) -> Self {
        let tape = Tape::new(Scenario::Election.begin(nodes, seed));
        let page = Simulated::default();
        let mut player = Self { tape, page, nodes, seed, plays: 0, is_running: true, speed: 1.0 };
        player.show();
        player
    }

    /// The page as it is now.
    pub(super) fn snapshot(&self) -> Option<Bytes> {
        self.page.snapshot()
    }

    /// Real time passed. The messages for the page; none while the simulated time stands.
    pub(super) fn pass(&mut self, real: Duration) -> Vec<Bytes> {
        if !self.is_running {
            return Vec::new();
        }
        self.tape.pass(real.mul_f64(self.speed), STEPS_MAX);
        self.show()
    }

    /// Does what a page asks for. The messages for the page.
    ///
    /// # Errors
    /// The reason for which it can't be done; then nothing was done.
    pub(super) fn ask(&mut self, asked: Asked) -> Result<Vec<Bytes>, String> {
        match asked {
            Asked::Deed(deed) => self.tape.perform(deed)?,
            Asked::Command(Command::Run {}) => self.is_running = true,
            Asked::Command(Command::Pause {}) => self.is_running = false,
            Asked::Command(Command::Step {}) => {
                self.is_running = false;
                if !self.tape.step() {
                    return Err("nothing can happen".to_owned());
                }
            }
            Asked::Command(Command::Back {}) => {
                if !self.tape.back() {
                    return Err("the begin of the scenario is reached".to_owned());
                }
                self.is_running = false;
                self.page.rewind(millis(self.tape.simulation.now()), self.tape.position());
                self.show();
                return Ok(self.page.snapshot().into_iter().collect());
            }
            Asked::Command(Command::Speed { of }) => {
                if !(SPEEDS.0..=SPEEDS.1).contains(&of) {
                    return Err(format!("a speed is between {} and {}", SPEEDS.0, SPEEDS.1));
                }
                self.speed = of;
            }
            Asked::Command(Command::Scenario { name }) => {
                self.plays += 1;
                self.tape = Tape::new(name.begin(self.nodes, self.seed.wrapping_add(self.plays)));
                (self.page, self.is_running) = (Simulated::default(), true);
                self.show();
                return Ok(self.page.snapshot().into_iter().collect());
            }
        }
        Ok(self.show())
    }

    fn show(&mut self) -> Vec<Bytes> {
        let news = self.tape.take_news();
        let simulation = &self.tape.simulation;
        let extra = view::extra(&self.tape, self.is_running, self.speed);
        let extra = serde_json::to_value(extra).unwrap_or(Value::Null);
        self.page.viewed(millis(simulation.now()), &view::view(simulation), news, extra)
    }
}
