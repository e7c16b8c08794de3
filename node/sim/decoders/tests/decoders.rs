//! Checks the decoders' properties on arbitrary bytes, on mutated valid bytes, and on
//! the fuzzing corpus.

use proptest::prelude::*;
use quorate_decoders::{commands, config, http_bodies, kv_snapshot, seeds, sessions};
use quorate_inputs as inputs;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn commands_keep_their_promises_whatever_the_bytes(input in inputs::inputs(seeds::commands())) {
        commands(&input);
    }

    #[test]
    fn a_snapshot_keeps_its_promises_whatever_the_bytes(input in inputs::inputs(seeds::kv_snapshot())) {
        kv_snapshot(&input);
    }

    #[test]
    fn a_configuration_keeps_its_promises_whatever_the_text(input in inputs::inputs(seeds::config())) {
        config(&input);
    }

    #[test]
    fn requests_and_answers_keep_their_promises_whatever_the_bytes(input in inputs::inputs(seeds::http_bodies())) {
        http_bodies(&input);
    }

    #[test]
    fn sessions_keep_their_promises_whatever_the_bytes(input in inputs::inputs(seeds::sessions())) {
        sessions(&input);
    }
}

#[test]
fn the_decoders_keep_their_promises_on_the_corpus() {
    inputs::replay("commands", commands);
    inputs::replay("kv_snapshot", kv_snapshot);
    inputs::replay("config", config);
    inputs::replay("http_bodies", http_bodies);
    inputs::replay("sessions", sessions);
}

#[test]
#[ignore = "writes the seeds into the corpus; run it when they change"]
fn plant_the_corpus() {
    inputs::plant("commands", &seeds::commands());
    inputs::plant("kv_snapshot", &seeds::kv_snapshot());
    inputs::plant("config", &seeds::config());
    inputs::plant("http_bodies", &seeds::http_bodies());
    inputs::plant("sessions", &seeds::sessions());
}
