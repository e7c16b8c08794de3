//! The properties of the codec, for arbitrary bytes, for frames that were changed, and for all
//! inputs that fuzzing ever found.

use proptest::prelude::*;
use quorate_inputs as inputs;
use quorate_transport_testing::decoding::{frames, seeds};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_codec_keeps_its_promises_whatever_the_bytes(input in inputs::inputs(seeds())) {
        frames(&input);
    }
}

#[test]
fn the_codec_keeps_its_promises_on_the_corpus() {
    inputs::replay("frames", frames);
}

#[test]
#[ignore = "writes the seeds into the corpus: to be run when they change"]
fn plant_the_corpus() {
    inputs::plant("frames", &seeds());
}
