//! Mutants: bugs planted on purpose, each of which the checks must catch.
//!
//! A test that never failed proves little. So each mutant is turned on alone, and seeds run until
//! one of them fails; a mutant that survives is a gap in the checks. Most come from bugs that other
//! systems shipped.
//!
//! The sources contain none of them. The [`table`] describes each as a small patch; [`plant`]
//! makes a copy of the workspace with all of them in it, each with a switch, so that one build
//! serves the whole [`hunt`].

pub mod hunt;
pub mod plant;
pub mod table;

pub use table::Mutant;
