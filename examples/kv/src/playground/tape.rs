//! The tape: a simulation that can be rewound. It keeps a copy now and then, and the moves since: to go
//! back, it takes the last copy before and repeats the moves. Equal moves have equal effects.
//!
//! **Bounds.** A copy for each [`COPY_EVERY`] moves, and at most [`COPIES_MAX`] of them: the last 8,192
//! moves at least can be taken back. A copy shares what did not change with the one before.

use super::{
    news::News,
    simulation::{Simulation, Trap},
};
use quorate::NodeId;
use quorate_raft::Moment;
use serde::Deserialize;
use std::{collections::VecDeque, time::Duration};

/// Moves between two copies.
const COPY_EVERY: u64 = 32;
/// The most copies.
const COPIES_MAX: usize = 257;

/// A deed of a reader of the page.
#[derive(Clone, Copy, PartialEq, Debug, Deserialize)]
#[serde(tag = "deed", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Deed {
    /// A client writes at a node, or at the leader.
    Write { node: Option<NodeId> },
    /// A message arrives now.
    Deliver { message: u64 },
    /// A message is lost.
    Drop { message: u64 },
    /// A message takes a second more.
    Delay { message: u64 },
    /// Nothing passes between two nodes.
    Cut { from: NodeId, to: NodeId },
    /// Everything passes between two nodes.
    Heal { from: NodeId, to: NodeId },
    /// A node loses everything but its disk.
    Crash { node: NodeId },
    /// The same, when its next write begins.
    CrashBeforeWrite { node: NodeId },
    /// The same, when its next write is on the disk and nothing was sent since.
    CrashAfterWrite { node: NodeId },
    /// A node that is down starts.
    Start { node: NodeId },
    /// The election timer of a node runs out now.
    Timeout { node: NodeId },
}

#[derive(Clone, Copy, Debug)]
enum Move {
    /// The next thing happens.
    Step,
    /// A deed at this time.
    Do(Duration, Deed),
}

/// A simulation and its past.
pub(super) struct Tape {
    pub(super) simulation: Simulation,
    /// Copies, each with the number of moves before it; the first has the oldest that is kept.
    copies: VecDeque<(u64, Simulation)>,
    /// The moves since the first copy.
    moves: VecDeque<Move>,
    /// Events that were not taken yet, each with the number of the move that led to it.
    news: Vec<(u64, News)>,
}

impl Tape {
    pub(super) fn new(mut simulation: Simulation) -> Self {
        let news = std::mem::take(&mut simulation.news).into_iter().map(|news| (0, news)).collect();
        let copies = VecDeque::from([(0, simulation.clone())]);
        Self { simulation, copies, moves: VecDeque::new(), news }
    }

    /// The number of moves since the begin.
    pub(super) fn position(&self) -> u64 {
        self.first() + self.moves.len() as u64
    }

    /// Whether the last move can be taken back.
    pub(super) fn has_past(&self) -> bool {
        !self.moves.is_empty()
    }

    /// Events since they were last taken, each with the number of the move that led to it.
    pub(super) fn take_news(&mut self) -> Vec<(u64, News)> {
        std::mem::take(&mut self.news)
    }

    /// The next thing happens. Whether anything did.
    pub(super) fn step(&mut self) -> bool {
        let happened = self.simulation.step();
        if happened {
            self.moved(Move::Step);
        }
        happened
    }

    /// Lets time pass, up to a number of things that happen.
    pub(super) fn pass(&mut self, time: Duration, steps_max: usize) {
        let to = self.simulation.now() + time;
        for _ in 0..steps_max {
            if self.simulation.next().is_none_or(|(due, _)| due > to) {
                break;
            }
            self.step();
        }
        self.simulation.pass_to(to);
    }

    /// Does something now.
    ///
    /// # Errors
    /// The reason for which it can't be done; then nothing was done.
    pub(super) fn perform(&mut self, deed: Deed) -> Result<(), String> {
        let at = self.simulation.now();
        self.attempt(deed)?;
        self.moved(Move::Do(at, deed));
        Ok(())
    }

    /// Takes the last move back. Whether there was one.
    pub(super) fn back(&mut self) -> bool {
        if self.moves.pop_back().is_none() {
            return false;
        }
        let position = self.position();
        while self.copies.len() > 1 && self.copies.back().is_some_and(|(at, _)| *at > position) {
            self.copies.pop_back();
        }
        let Some((at, copy)) = self.copies.back().cloned() else { return false };
        self.simulation = copy;
        let known = usize::try_from(at - self.first()).unwrap_or(usize::MAX);
        for index in known..self.moves.len() {
            match self.moves[index] {
                Move::Step => _ = self.simulation.step(),
                Move::Do(at, deed) => {
                    self.simulation.world.now = Moment(at);
                    // It could be done before, and so it can now.
                    let _ = self.attempt(deed);
                }
            }
        }
        self.simulation.news.clear();
        self.news.retain(|(by_move, _)| *by_move <= position);
        true
    }

    /// The number of moves that can be taken back.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.moves.len()
    }

    fn first(&self) -> u64 {
        self.copies.front().map_or(0, |(at, _)| *at)
    }

    fn moved(&mut self, made: Move) {
        self.moves.push_back(made);
        let position = self.position();
        self.news.extend(std::mem::take(&mut self.simulation.news).into_iter().map(|news| (position, news)));
        if position.is_multiple_of(COPY_EVERY) {
            self.copies.push_back((position, self.simulation.clone()));
        }
        if self.copies.len() > COPIES_MAX {
            let before = self.first();
            self.copies.pop_front();
            let forgotten = usize::try_from(self.first() - before).unwrap_or(usize::MAX);
            self.moves.drain(..forgotten.min(self.moves.len()));
        }
    }

    fn attempt(&mut self, deed: Deed) -> Result<(), String> {
        let simulation = &mut self.simulation;
        let exists = |id: NodeId| match simulation.ids().contains(&id) {
            true => Ok(id),
            false => Err(format!("there is no node {id}")),
        };
        let up = |id| {
            exists(id).and_then(|id| if simulation.is_up(id) { Ok(id) } else { Err(format!("node {id} is down")) })
        };
        let sent =
            |is_there: bool| if is_there { Ok(()) } else { Err("that message is no longer on its way".to_owned()) };
        match deed {
            Deed::Write { node } => {
                let Some(id) = node.or(simulation.leader()) else { return Err("no node leads".to_owned()) };
                let id = up(id)?;
                if !simulation.propose(id) {
                    return Err(format!("node {id} does not lead: writes go to the leader"));
                }
                simulation.last = format!("A client writes at node {id}.");
            }
            Deed::Deliver { message } => sent(simulation.deliver(message))?,
            Deed::Drop { message } => sent(simulation.lose(message))?,
            Deed::Delay { message } => sent(simulation.delay(message))?,
            Deed::Cut { from, to } | Deed::Heal { from, to } => {
                let (from, to) = (exists(from)?, exists(to)?);
                if from == to {
                    return Err("a link has two ends".to_owned());
                }
                match deed {
                    Deed::Cut { .. } => simulation.cut(from, to),
                    _ => simulation.heal(from, to),
                }
            }
            Deed::Crash { node } => {
                let node = up(node)?;
                simulation.crash(node);
            }
            Deed::CrashBeforeWrite { node } => {
                let node = up(node)?;
                simulation.traps.insert(node, Trap::BeforeWrite);
            }
            Deed::CrashAfterWrite { node } => {
                let node = up(node)?;
                simulation.traps.insert(node, Trap::AfterWrite);
            }
            Deed::Start { node } => {
                let node = exists(node)?;
                if simulation.is_up(node) {
                    return Err(format!("node {node} runs"));
                }
                simulation.start(node);
            }
            Deed::Timeout { node } => {
                let node = up(node)?;
                simulation.fire_timer(node);
            }
        }
        self.simulation.follow_script();
        Ok(())
    }
}
