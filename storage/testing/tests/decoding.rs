//! Every decoder keeps its properties on random bytes, on edited good files, and on all inputs that
//! fuzzing ever found.

use proptest::prelude::*;
use quorate_inputs as inputs;
use quorate_storage_testing::decoding::{
    hard_state, known_members, records, recovery, seeds, segment, slots, snapshot,
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn records_keep_their_promises_whatever_the_bytes(input in inputs::inputs(seeds::records())) {
        records(&input);
    }

    #[test]
    fn slots_keep_their_promises_whatever_the_bytes(input in inputs::inputs(seeds::slots())) {
        slots(&input);
    }

    #[test]
    fn term_and_vote_keep_their_promises_whatever_the_bytes(input in inputs::inputs(seeds::hard_state())) {
        hard_state(&input);
    }

    #[test]
    fn known_members_keep_their_promises_whatever_the_bytes(input in inputs::inputs(seeds::known_members())) {
        known_members(&input);
    }

    #[test]
    fn a_segment_keeps_its_promises_whatever_the_bytes(input in inputs::inputs(seeds::segment())) {
        segment(&input);
    }

    #[test]
    fn a_snapshot_keeps_its_promises_whatever_the_bytes(input in inputs::inputs(seeds::snapshot())) {
        snapshot(&input);
    }

    #[test]
    fn recovery_keeps_its_promises_whatever_became_of_the_files(input in inputs::inputs(seeds::recovery())) {
        recovery(&input);
    }
}

#[test]
fn the_decoders_keep_their_promises_on_the_corpus() {
    inputs::replay("records", records);
    inputs::replay("slots", slots);
    inputs::replay("hard_state", hard_state);
    inputs::replay("known_members", known_members);
    inputs::replay("segment", segment);
    inputs::replay("snapshot", snapshot);
    inputs::replay("recovery", recovery);
}

#[test]
#[ignore = "writes the seeds into the corpus: to be run when they change"]
fn plant_the_corpus() {
    inputs::plant("records", &seeds::records());
    inputs::plant("slots", &seeds::slots());
    inputs::plant("hard_state", &seeds::hard_state());
    inputs::plant("known_members", &seeds::known_members());
    inputs::plant("segment", &seeds::segment());
    inputs::plant("snapshot", &seeds::snapshot());
    inputs::plant("recovery", &seeds::recovery());
}
