//! The faults of a plan on one link, for the model of a message's fate that both layers use.

use super::Fault;
use quorate_raft::NodeId;
use quorate_transport_testing::{
    LinkFaults,
    fate::{Fate, Loss},
};
use std::time::Duration;

/// The longest additional time of a message that leaves the order of its lane.
const HELD_BACK_MAX: Duration = Duration::from_millis(100);

/// The faults of the link from one node to another at a moment, while these are active. Of two
/// faults of a kind the worse counts.
pub(crate) fn on_link<'a>(
    active: impl Iterator<Item = &'a Fault>,
    from: NodeId,
    to: NodeId,
    now: Duration,
) -> LinkFaults {
    let mut link = LinkFaults { reorder_within: HELD_BACK_MAX, ..LinkFaults::default() };
    let (mut slow, mut delay) = (Duration::ZERO, Duration::ZERO);
    let worst = |chance: &mut f64, per_mille: u16| *chance = chance.max(f64::from(per_mille) / 1_000.0);
    for fault in active.filter(|fault| fault.concerns(from, to)) {
        match fault {
            Fault::Drop { per_mille, .. } => worst(&mut link.drop, *per_mille),
            Fault::Duplicate { per_mille, .. } => worst(&mut link.duplicate, *per_mille),
            Fault::Reorder { per_mille, .. } => worst(&mut link.reorder, *per_mille),
            Fault::Corrupt { per_mille, .. } => worst(&mut link.corrupt, *per_mille),
            Fault::Delay { up_to, .. } => delay = delay.max(*up_to),
            Fault::SlowLink { by, .. } => slow = slow.max(*by),
            Fault::Flap { every, .. } if !is_down(now, *every) => {}
            Fault::CutOneWay { .. } | Fault::CutLink { .. } | Fault::Partition { .. } | Fault::Flap { .. } => {
                link.cut = Some(fault.kind());
            }
            _ => {}
        }
    }
    link.delay = slow..=slow + delay;
    link
}

/// The kinds of faults that had an effect on a message with this fate.
pub(crate) fn fired(link: &LinkFaults, fate: &Fate) -> impl Iterator<Item = &'static str> {
    let kinds = match fate {
        Fate::Lost(Loss::Cut(kind)) => [Some(*kind), None, None, None, None],
        Fate::Lost(Loss::Dropped) => [Some("drop"), None, None, None, None],
        Fate::Arrives { first, second, flipped_bit } => [
            second.map(|_| "duplicate"),
            first.held_back.map(|_| "reorder"),
            flipped_bit.map(|_| "corrupt"),
            (!link.delay.start().is_zero()).then_some("slow-link"),
            (link.delay.start() < link.delay.end()).then_some("delay"),
        ],
    };
    kinds.into_iter().flatten()
}

/// Whether a link that goes down and up again, each for the duration `every`, is down.
fn is_down(now: Duration, every: Duration) -> bool {
    (now.as_nanos() / every.as_nanos().max(1)) % 2 == 1
}

impl Fault {
    /// Whether the fault is one of the link from one node to another.
    fn concerns(&self, from: NodeId, to: NodeId) -> bool {
        let is_between = |one: NodeId, other: NodeId| (from, to) == (one, other) || (from, to) == (other, one);
        match self {
            Self::Drop { way, .. }
            | Self::Duplicate { way, .. }
            | Self::Reorder { way, .. }
            | Self::Corrupt { way, .. }
            | Self::Delay { way, .. }
            | Self::SlowLink { way, .. } => way.leads(from, to),
            Self::CutOneWay { from: one, to: other } => (from, to) == (*one, *other),
            Self::CutLink { one, other } | Self::Flap { one, other, .. } => is_between(*one, *other),
            Self::Partition { some } => some.contains(&from) != some.contains(&to),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Way;

    const ONE: NodeId = NodeId(1);
    const TWO: NodeId = NodeId(2);
    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn of_two_faults_of_a_kind_the_worse_counts_and_delays_add_to_a_slow_link() {
        let way = Way { from: Some(ONE), to: None };
        let active = [
            Fault::Drop { way, per_mille: 100 },
            Fault::Drop { way, per_mille: 50 },
            Fault::Delay { way, up_to: 3 * MS },
            Fault::SlowLink { way, by: 20 * MS },
        ];
        let link = on_link(active.iter(), ONE, TWO, MS);
        assert_eq!((link.drop, link.delay), (0.1, 20 * MS..=23 * MS));
        assert!(on_link(active.iter(), TWO, ONE, MS).is_perfect(), "the opposite direction works");
    }

    #[test]
    fn a_link_that_flaps_is_up_and_down_for_equal_times() {
        let flap = Fault::Flap { one: ONE, other: TWO, every: 10 * MS };
        let is_cut = |at: u32| on_link([&flap].into_iter(), TWO, ONE, at * MS).cut == Some("flap");
        let expected: Vec<bool> = (0..40).map(|at| at / 10 % 2 == 1).collect();
        assert_eq!((0..40).map(is_cut).collect::<Vec<_>>(), expected);
    }
}
