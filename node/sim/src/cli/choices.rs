//! The choices that several commands offer: layers and threads.

use clap::ValueEnum;
use quorate_sim::Layer;
use std::{num::NonZeroUsize, thread};

/// The layers that carry plans out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(super) enum Layers {
    /// The pure pieces
    Pure,
    /// The real actors
    Actors,
    /// Both layers, for every seed
    #[default]
    Both,
}

/// The layer that carries a plan out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum OneLayer {
    /// The pure pieces
    Pure,
    /// The real actors
    Actors,
}

impl Layers {
    pub(super) fn all(self) -> Vec<Layer> {
        match self {
            Self::Pure => vec![Layer::Pure],
            Self::Actors => vec![Layer::Actors],
            Self::Both => vec![Layer::Pure, Layer::Actors],
        }
    }
}

impl From<OneLayer> for Layer {
    fn from(layer: OneLayer) -> Self {
        match layer {
            OneLayer::Pure => Self::Pure,
            OneLayer::Actors => Self::Actors,
        }
    }
}

/// The number of threads asked for, else one for each processor.
pub(super) fn threads(jobs: Option<NonZeroUsize>) -> NonZeroUsize {
    jobs.or_else(|| thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN)
}
