//! The order of a walk: which event happens next, and when the walk is over.

use super::walk::Walk;
use crate::Outcome;
use quorate_raft::NodeId;
use quorate_world::queues::{self, WRITERS};
use rand::Rng;
use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

/// The faults end early after this many steps, so that every plan ends.
const STEPS_MAX: u64 = 60_000;
impl Walk<'_> {
    pub(super) fn ended(mut self) -> Outcome {
        // The pieces panic where they see something impossible: that is a violation, too.
        let walked = catch_unwind(AssertUnwindSafe(|| self.walk()));
        let ended = walked.unwrap_or_else(|panic| Err(format!("panic: {}", words_of(&*panic))));
        if let Err(violation) = &ended {
            self.trace.say(self.now(), violation);
        }
        self.report.steps = self.steps;
        self.report.simulated = self.now();
        self.report.count("commits", self.world.oracle.last_committed().index.0);
        self.report.count("terms", self.world.replicas().map(|replica| replica.term().0).max().unwrap_or_default());
        self.trace.hash(&(self.digest, self.steps, self.now()));
        Outcome { report: self.report, violation: ended.err() }
    }

    fn walk(&mut self) -> Result<(), String> {
        for at in 0..self.machines.len() {
            self.restart(at)?;
        }
        while self.now() < self.plan.length && self.steps < STEPS_MAX {
            self.go_on(self.plan.length)?;
        }
        self.recover()
    }

    /// Makes one event happen; if none can, time leaps to the next one, but not past `end`.
    pub(super) fn go_on(&mut self, end: Duration) -> Result<(), String> {
        if self.now() >= self.next_tick {
            self.tick()?;
        }
        let mut passed = Duration::from_nanos(self.random.random_range(0..2 * self.pace));
        if !self.choose()? {
            passed = self.next_wake().min(end).saturating_sub(self.now()).max(Duration::from_micros(1));
            self.next_tick = self.now() + passed;
        }
        self.world.now = self.world.now.plus(passed);
        Ok(())
    }

    /// Draws the next event and makes it happen; false if there is none.
    fn choose(&mut self) -> Result<bool, String> {
        const NODES_MAX: usize = 5;
        let now = self.now();
        let mut envelopes = self.network.ready(now);
        let mut work = [(0, 0); NODES_MAX];
        let mut all = 0;
        for (at, machine) in self.machines.iter_mut().enumerate() {
            if machine.idle_until > now {
                envelopes &= !machine.lanes_to;
            } else if let Some(running) = &self.world.nodes[at].running {
                let mut asked = running.asked.waiting();
                if asked & WRITERS != 0 && machine.disk_is_slow(now, &mut self.report) {
                    asked &= !WRITERS;
                }
                work[at] = (asked, running.told.waiting());
                all += work[at].0.count_ones() + work[at].1.count_ones();
            }
        }
        let strays = u32::from(self.network.has_stray(now));
        all += envelopes.count_ones() + strays;
        if all == 0 {
            return Ok(false);
        }
        let mut nth = self.random.random_range(0..all);
        for (at, (asked, told)) in work.into_iter().enumerate() {
            let id = NodeId(at as u64 + 1);
            if nth < asked.count_ones() {
                self.act(id, queues::nth(asked, nth))?;
                return Ok(true);
            }
            nth -= asked.count_ones();
            if nth < told.count_ones() {
                self.listen(id, queues::nth(told, nth))?;
                return Ok(true);
            }
            nth -= told.count_ones();
        }
        let envelope = if nth < envelopes.count_ones() {
            (0..nth).for_each(|_| envelopes &= envelopes - 1);
            self.network.take(envelopes.trailing_zeros() as usize, now)
        } else {
            let machines = &self.machines;
            let idle_until = |to: NodeId| machines[to.0 as usize - 1].idle_until;
            self.network.take_stray(now, idle_until)
        };
        match envelope {
            Some(envelope) => self.arrive(envelope)?,
            None => self.steps += 1,
        }
        Ok(true)
    }
}

fn words_of(panic: &(dyn Any + Send)) -> &str {
    let words = panic.downcast_ref::<String>().map(String::as_str);
    words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("of something that is no text")
}
