//! They keep their promises on arbitrary bytes, on valid ones that were changed, and on all that
//! fuzzing ever found.

use super::{session_seeds, sessions};
use proptest::prelude::*;
use quorate_inputs as inputs;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn sessions_keep_their_promises_whatever_the_bytes(input in inputs::inputs(session_seeds())) {
        sessions(&input);
    }
}

#[test]
fn the_decoder_keeps_its_promises_on_the_corpus() {
    inputs::replay("sessions", sessions);
}

#[test]
#[ignore = "writes the seeds into the corpus: to be run when they change"]
fn plant_the_corpus() {
    inputs::plant("sessions", &session_seeds());
}
