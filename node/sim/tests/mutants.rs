//! The mutants and the sources of today.

use quorate_sim::mutants::{plant, table};
use std::path::Path;

/// The copy is built by the hunt alone; a mutant that its file has outgrown must show at once.
#[test]
fn every_mutant_applies_to_the_sources() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut sources = plant::read(&root, Path::new("")).expect("the sources");
    let mutants = table::all().expect("well-formed");
    let planted = plant::plant(&mutants, &mut sources)
        .map_err(|problems| problems.iter().map(plant::Problem::to_string).collect::<Vec<_>>().join("\n"));
    planted.unwrap_or_else(|problems| panic!("{problems}"));
    let asks = |file: &str| String::from_utf8_lossy(&sources[file]).matches("quorate_switch::is_on(").count();
    assert!(asks("node/raft/src/quorum.rs") >= 3, "the copy asks for its mutants");
}

/// The product has none of them.
#[test]
fn the_sources_have_no_switch() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let sources = plant::read(&root, Path::new("")).expect("the sources");
    let is_product = |file: &str| {
        ["node/raft/", "node/src/", "storage/", "transport/", "metrics/"].iter().any(|it| file.starts_with(it))
    };
    for (file, bytes) in sources.iter().filter(|(file, _)| is_product(file)) {
        assert!(!String::from_utf8_lossy(bytes).contains("quorate_switch"), "{file}");
    }
}
