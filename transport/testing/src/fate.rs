//! The fate of a message on a link with faults: lost, late, twice, overtaken or damaged.
//!
//! A pure model: random numbers and the time come from its caller, messages stay with the caller.
//! [`FaultNetwork`](crate::FaultNetwork) and both simulated worlds of `node/sim` use it.

use quorate_raft::Message;
use quorate_transport::codec::{Decoder, Encoder, Frame, FrameError, Limits};
use rand::Rng;
use std::{ops::RangeInclusive, time::Duration};

/// Faults in one direction between two nodes. Probabilities lie in `0.0..=1.0`.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkFaults {
    /// Every message is lost, for this reason. `None` while the link is up.
    pub cut: Option<&'static str>,
    /// The probability that a message is lost.
    pub drop: f64,
    /// The probability that it arrives twice. The second copy is held back as by `reorder`.
    pub duplicate: f64,
    /// The probability that it may be overtaken: it is held back for up to `reorder_within` more.
    pub reorder: f64,
    /// See `reorder`. Default: 20 ms.
    pub reorder_within: Duration,
    /// The probability that one bit of it flips. The receiver's decoder finds that and drops it.
    pub corrupt: f64,
    /// How long it takes: drawn evenly from here. Without `reorder` the order within a lane stays.
    pub delay: RangeInclusive<Duration>,
}

impl Default for LinkFaults {
    /// A perfect link.
    fn default() -> Self {
        Self {
            cut: None,
            drop: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            reorder_within: Duration::from_millis(20),
            corrupt: 0.0,
            delay: Duration::ZERO..=Duration::ZERO,
        }
    }
}

impl LinkFaults {
    /// Whether no message is lost, late, repeated, overtaken or damaged.
    #[must_use]
    pub fn is_perfect(&self) -> bool {
        let chances = [self.drop, self.duplicate, self.reorder, self.corrupt];
        self.cut.is_none() && chances == [0.0; 4] && self.delay.end().is_zero()
    }

    /// Decides the fate of one message.
    ///
    /// It takes equally many random numbers with any faults, so that turning one fault on does not
    /// change which messages the others strike.
    pub fn fate(&self, random: &mut impl Rng) -> Fate {
        let [drop, duplicate, reorder, corrupt] = std::array::from_fn(|_| random.random::<f64>());
        let flipped_bit = random.random::<u64>();
        let mut arrival = |is_held_back: bool| {
            let (takes, held_back) = (random.random::<f64>(), random.random::<f64>());
            let (shortest, longest) = (*self.delay.start(), *self.delay.end());
            Arrival {
                takes: shortest + longest.saturating_sub(shortest).mul_f64(takes),
                held_back: is_held_back.then(|| self.reorder_within.mul_f64(held_back)),
            }
        };
        let (first, second) = (arrival(reorder < self.reorder), arrival(true));
        if let Some(reason) = self.cut {
            return Fate::Lost(Loss::Cut(reason));
        }
        if drop < self.drop {
            return Fate::Lost(Loss::Dropped);
        }
        Fate::Arrives {
            first,
            second: (duplicate < self.duplicate).then_some(second),
            flipped_bit: (corrupt < self.corrupt).then_some(flipped_bit),
        }
    }
}

/// The fate of one message.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    /// It never arrives.
    Lost(Loss),
    /// It arrives once or twice.
    Arrives {
        /// The times of the copy that always arrives.
        first: Arrival,
        /// Its second copy.
        second: Option<Arrival>,
        /// The bit that flips in all copies, modulo their length: see [`flip`].
        flipped_bit: Option<u64>,
    },
}

impl Fate {
    /// The fate of every message on a perfect link.
    pub const UNHARMED: Self =
        Self::Arrives { first: Arrival { takes: Duration::ZERO, held_back: None }, second: None, flipped_bit: None };
}

/// The reason for which a message is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Its link is cut, for the reason in [`LinkFaults::cut`].
    Cut(&'static str),
    /// By chance ([`LinkFaults::drop`]).
    Dropped,
}

/// The times that one copy of a message takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The time on the link, in the order of its lane.
    pub takes: Duration,
    /// The additional time of a copy that leaves this order.
    pub held_back: Option<Duration>,
}

/// The order of the messages on one lane of a link.
#[derive(Clone, Copy, Debug, Default)]
pub struct Order {
    /// When the last message that keeps its place arrives.
    last_due: Duration,
}

impl Order {
    /// The time at which a copy arrives that is sent at `now`, on any clock that does not run
    /// backwards: not before an earlier one, unless one of the two is held back.
    pub fn due(&mut self, arrival: Arrival, now: Duration) -> Duration {
        let due = (now + arrival.takes).max(self.last_due);
        match arrival.held_back {
            Some(more) => due + more,
            None => {
                self.last_due = due;
                due
            }
        }
    }
}

/// Flips one bit of a frame, modulo its length.
///
/// # Panics
/// If the frame is empty.
pub fn flip(frame: &mut [u8], bit: u64) {
    let bit = bit % (frame.len() as u64 * 8);
    frame[(bit / 8) as usize] ^= 1 << (bit % 8);
}

/// The frame that a receiver reads where `message` was sent and one bit flipped. `None` if the
/// codec notices the damage, as it must.
///
/// # Errors
/// If the message can't be encoded.
pub fn read_damaged(message: &Message, bit: u64) -> Result<Option<Frame>, FrameError> {
    let encoded = Encoder::default().message(message)?;
    let mut frame = [encoded.head, encoded.body].concat();
    flip(&mut frame, bit);
    // An incomplete frame counts as noticed: its receiver waits until it gives the connection up.
    let decoded = Decoder::new(Limits::default()).feed(&mut frame.into()).ok().flatten();
    Ok(decoded.map(|decoded| decoded.frame))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng, rngs::SmallRng};

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_fault_does_not_change_the_messages_that_another_one_strikes() {
        let dropped = |faults: &LinkFaults| {
            let mut random = SmallRng::seed_from_u64(1);
            (0..100).map(|_| faults.fate(&mut random) == Fate::Lost(Loss::Dropped)).collect::<Vec<_>>()
        };
        let drops = LinkFaults { drop: 0.3, ..LinkFaults::default() };
        let all = LinkFaults { duplicate: 0.5, reorder: 0.5, corrupt: 0.5, delay: MS..=9 * MS, ..drops.clone() };
        assert!(dropped(&drops).contains(&true) && dropped(&drops).contains(&false));
        assert_eq!(dropped(&drops), dropped(&all));
    }

    #[test]
    fn only_a_copy_that_is_held_back_leaves_the_order() {
        let (mut order, at) = (Order::default(), |takes, held_back| Arrival { takes: takes * MS, held_back });
        assert_eq!(order.due(at(9, None), MS), 10 * MS);
        assert_eq!(order.due(at(1, None), 2 * MS), 10 * MS, "it waits for the message before it");
        assert_eq!(order.due(at(9, Some(5 * MS)), 3 * MS), 17 * MS);
        assert_eq!(order.due(at(1, None), 10 * MS), 11 * MS, "it overtakes the one that is held back");
    }

    #[test]
    fn a_cut_link_loses_everything_for_its_reason() {
        let faults = LinkFaults { cut: Some("a cable"), drop: 1.0, ..LinkFaults::default() };
        assert_eq!(faults.fate(&mut SmallRng::seed_from_u64(1)), Fate::Lost(Loss::Cut("a cable")));
    }
}
