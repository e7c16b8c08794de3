//! The codec keeps its promises on arbitrary bytes, on frames that were changed, and on all that
//! fuzzing ever found.

use super::{frames, seeds};
use proptest::prelude::*;

#[path = "../../../node/sim/fuzz/mutations.rs"]
mod mutations;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_codec_keeps_its_promises_whatever_the_bytes(input in mutations::inputs(seeds())) {
        frames(&input);
    }
}

#[test]
fn the_codec_keeps_its_promises_on_the_corpus() {
    mutations::replay("frames", frames);
}

#[test]
#[ignore = "writes the seeds into the corpus: to be run when they change"]
fn plant_the_corpus() {
    mutations::plant("frames", &seeds());
}
