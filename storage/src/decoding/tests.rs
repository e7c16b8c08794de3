//! Every decoder keeps its properties on random bytes, on edited good files, and on all inputs that
//! fuzzing ever found.

use super::{hard_state, known_members, records, recovery, seeds, segment, slots, snapshot};
use proptest::prelude::*;

#[path = "../../../node/sim/fuzz/mutations.rs"]
mod mutations;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn records_keep_their_promises_whatever_the_bytes(input in mutations::inputs(seeds::records())) {
        records(&input);
    }

    #[test]
    fn slots_keep_their_promises_whatever_the_bytes(input in mutations::inputs(seeds::slots())) {
        slots(&input);
    }

    #[test]
    fn term_and_vote_keep_their_promises_whatever_the_bytes(input in mutations::inputs(seeds::hard_state())) {
        hard_state(&input);
    }

    #[test]
    fn known_members_keep_their_promises_whatever_the_bytes(input in mutations::inputs(seeds::known_members())) {
        known_members(&input);
    }

    #[test]
    fn a_segment_keeps_its_promises_whatever_the_bytes(input in mutations::inputs(seeds::segment())) {
        segment(&input);
    }

    #[test]
    fn a_snapshot_keeps_its_promises_whatever_the_bytes(input in mutations::inputs(seeds::snapshot())) {
        snapshot(&input);
    }

    #[test]
    fn recovery_keeps_its_promises_whatever_became_of_the_files(input in mutations::inputs(seeds::recovery())) {
        recovery(&input);
    }
}

#[test]
fn the_decoders_keep_their_promises_on_the_corpus() {
    mutations::replay("records", records);
    mutations::replay("slots", slots);
    mutations::replay("hard_state", hard_state);
    mutations::replay("known_members", known_members);
    mutations::replay("segment", segment);
    mutations::replay("snapshot", snapshot);
    mutations::replay("recovery", recovery);
}

#[test]
#[ignore = "writes the seeds into the corpus: to be run when they change"]
fn plant_the_corpus() {
    mutations::plant("records", &seeds::records());
    mutations::plant("slots", &seeds::slots());
    mutations::plant("hard_state", &seeds::hard_state());
    mutations::plant("known_members", &seeds::known_members());
    mutations::plant("segment", &seeds::segment());
    mutations::plant("snapshot", &seeds::snapshot());
    mutations::plant("recovery", &seeds::recovery());
}
