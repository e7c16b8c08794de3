//! Snapshots survive, or are refused; never half.
