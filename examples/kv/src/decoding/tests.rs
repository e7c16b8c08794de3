//! Checks the decoders' properties on arbitrary bytes, on mutated valid bytes, and on
//! the fuzzing corpus.

use super::{commands, config, http_bodies, kv_snapshot, seeds};
use proptest::prelude::*;

#[path = "../../../../node/sim/fuzz/mutations.rs"]
mod mutations;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn commands_keep_their_promises_whatever_the_bytes(input in mutations::inputs(seeds::commands())) {
        commands(&input);
    }

    #[test]
    fn a_snapshot_keeps_its_promises_whatever_the_bytes(input in mutations::inputs(seeds::kv_snapshot())) {
        kv_snapshot(&input);
    }

    #[test]
    fn a_configuration_keeps_its_promises_whatever_the_text(input in mutations::inputs(seeds::config())) {
        config(&input);
    }

    #[test]
    fn requests_and_answers_keep_their_promises_whatever_the_bytes(input in mutations::inputs(seeds::http_bodies())) {
        http_bodies(&input);
    }
}

#[test]
fn the_decoders_keep_their_promises_on_the_corpus() {
    mutations::replay("commands", commands);
    mutations::replay("kv_snapshot", kv_snapshot);
    mutations::replay("config", config);
    mutations::replay("http_bodies", http_bodies);
}

#[test]
#[ignore = "writes the seeds into the corpus; run it when they change"]
fn plant_the_corpus() {
    mutations::plant("commands", &seeds::commands());
    mutations::plant("kv_snapshot", &seeds::kv_snapshot());
    mutations::plant("config", &seeds::config());
    mutations::plant("http_bodies", &seeds::http_bodies());
}
