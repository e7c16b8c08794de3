//! The metrics that are made of events: a count of the same facts, and the time between two of them.

use super::what::{TransferFailure, What};
use quorate_metrics::{NodeMetrics, TransferResult};
use std::time::Duration;

/// Counts events.
pub(super) struct Counted {
    metrics: NodeMetrics,
    /// When the transfer under way began, on the node's clock.
    transfer_began: Option<Duration>,
}

impl Counted {
    pub(super) fn new(metrics: NodeMetrics) -> Self {
        Self { metrics, transfer_began: None }
    }

    /// A fact is told at this time of the node's clock.
    pub(super) fn told(&mut self, what: &What, at: Duration) {
        match what {
            What::TransferBegan { .. } => self.transfer_began = Some(at),
            What::TransferDone { .. } => self.transfer_ended(TransferResult::Done, at),
            What::TransferFailed { cause: TransferFailure::TimedOut, .. } => {
                self.transfer_ended(TransferResult::TimedOut, at);
            }
            What::TransferFailed { cause: TransferFailure::AnotherLeads(_), .. } => {
                self.transfer_ended(TransferResult::AnotherLeads, at);
            }
            // Another transfer may be under way.
            What::TransferFailed { cause: TransferFailure::Refused(_), .. } => {
                self.metrics.transfer_ended(TransferResult::Refused, None);
            }
            What::LeaseLost { .. } => self.metrics.lease_lost(),
            _ => {}
        }
    }

    fn transfer_ended(&mut self, result: TransferResult, at: Duration) {
        let took = self.transfer_began.take().map(|began| at.saturating_sub(began));
        self.metrics.transfer_ended(result, took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::LeaseEnd;
    use quorate_metrics::Metrics;
    use quorate_raft::NodeId;

    #[test]
    fn transfers_are_counted_by_result_with_their_time_and_leases_at_their_end() {
        let (metrics, to) = (Metrics::new(), NodeId(2));
        let mut counted = Counted::new(metrics.node(1));
        let failed = |cause| What::TransferFailed { to: Some(to), cause };
        let began = || What::TransferBegan { to, why: None };
        let facts = [
            began(),
            failed(TransferFailure::Refused("another is under way".into())),
            What::TransferDone { to },
            failed(TransferFailure::Refused("it does not lead".into())),
            began(),
            failed(TransferFailure::AnotherLeads(NodeId(3))),
            began(),
            What::LeaseLost { cause: LeaseEnd::Transfer },
            What::LeaseHeld,
            failed(TransferFailure::TimedOut),
        ];
        for (second, what) in (0..).zip(&facts) {
            counted.told(what, Duration::from_secs(second));
        }
        let page = metrics.render();
        let read = |series: &str| page.lines().find_map(|line| line.strip_prefix(series)).expect("a series").trim();
        let transfers = |result| read(&format!("quorate_leadership_transfers_total{{node=\"1\",result=\"{result}\"}}"));
        assert_eq!(["done", "timed_out", "another_leads", "refused"].map(transfers), ["1", "1", "1", "2"]);
        let duration = |of| read(&format!("quorate_leadership_transfer_duration_seconds_{of}{{node=\"1\"}}"));
        assert_eq!((duration("count"), duration("sum")), ("3", "6"), "2, 1 and 3 seconds");
        assert_eq!(read("quorate_lease_losses_total{node=\"1\"}"), "1");
    }
}
