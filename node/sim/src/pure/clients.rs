//! The clients of a walk, which write and read. Each does one thing at a time, with the node that
//! it takes for the leader.

use super::{
    client::{Doing, PATIENCE},
    walk::{STEPS, TICK, Walk},
};
use crate::freshness;
use quorate::Consistency;
use quorate_raft::NodeId;
use rand::Rng;
use std::time::Duration;

/// The chance that a client leaves it to a node that does not lead to forward its commands.
const FORWARDED: f64 = 0.2;
/// Clients rest while the walk is more than this many steps ahead of schedule.
const SLACK: u64 = 300;

impl Walk<'_> {
    /// Lets each client go on: begin a request, take its result, or give it up.
    pub(super) fn tick_clients(&mut self) -> Result<(), String> {
        let now = self.now();
        let share = now.as_secs_f64() / self.plan.length.as_secs_f64().max(0.001);
        let ahead = self.steps > (STEPS as f64 * share) as u64 + SLACK;
        for at in 0..self.clients.clients.len() {
            match self.clients.clients[at].doing {
                Doing::Resting { until } if until <= now && ahead => self.let_rest(at, TICK),
                Doing::Resting { until } if until <= now => self.ask(at)?,
                Doing::Writing { since, .. } | Doing::Reading { since, .. } if since + PATIENCE <= now => {
                    self.clients.clients[at].leader = None;
                    self.let_rest(at, Duration::ZERO);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn let_rest(&mut self, at: usize, at_least: Duration) {
        let rest = self.random.random_range(Duration::ZERO..=self.plan.rest);
        self.clients.clients[at].doing = Doing::Resting { until: self.now() + at_least + rest };
    }

    /// Sends a request of a client: mostly to the node that it takes for the leader, else to
    /// a random one.
    fn ask(&mut self, at: usize) -> Result<(), String> {
        let anybody = NodeId(self.random.random_range(1..=self.plan.nodes));
        let known = self.clients.clients[at].leader.filter(|_| self.random.random_bool(0.9));
        let (to, since) = (known.unwrap_or(anybody), self.now());
        self.let_rest(at, TICK);
        let (is_idle, running) = (self.machines[to.0 as usize - 1].idle_until > since, self.world.running(to));
        let Some(running) = running.filter(|_| !is_idle) else {
            self.clients.clients[at].leader = None;
            return Ok(());
        };
        self.clients.clients[at].leader = running.replica.leader();
        if self.random.random_bool(0.4) {
            let token = self.clients.token();
            self.clients.clients[at].doing = Doing::Reading { since, token };
            let consistency = match token % 6 {
                0 => freshness::bounded(&mut self.random),
                // Most reads: a lease that is used for no read expires.
                1 | 2 | 4 | 5 if self.past.leases => Consistency::Lease,
                _ => Consistency::Linearizable,
            };
            return self.read(to, token, consistency);
        }
        // Most look for the leader, as the others' commands take a way of their own and wait for longer.
        if !running.leads() && !self.random.random_bool(FORWARDED) {
            return Ok(());
        }
        let count = self.random.random_range(1..4);
        let commands = self.clients.commands(count);
        self.clients.clients[at].doing = Doing::Writing { since, first: commands.start, left: count };
        self.offer(to, commands)
    }

    /// A command has an outcome.
    pub(super) fn written(&mut self, command: u64, is_acknowledged: bool) {
        if is_acknowledged {
            self.report.count("acknowledged", 1);
        }
        for at in 0..self.clients.clients.len() {
            let Doing::Writing { first, left, .. } = &mut self.clients.clients[at].doing else { continue };
            // A client writes at most three commands at a time, and no two the same ones.
            if (*first..*first + 3).contains(&command) {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    self.let_rest(at, Duration::ZERO);
                }
                return;
            }
        }
    }
}
