//! Properties of the decoders of client sessions and of the key-value server, for arbitrary bytes.
//!
//! Each property is a function of an input that panics if a promise is broken. The fuzz targets in
//! `node/sim/fuzz` and the tests of this package call the same functions. Those of the wire and of
//! the disk are in `quorate-transport-testing` and `quorate-storage-testing`.
#![forbid(unsafe_code)]

mod http;
mod kv;
mod sessions;

pub use http::http_bodies;
pub use kv::{commands, config, kv_snapshot};
pub use sessions::sessions;

/// Seed inputs, one list per property.
pub mod seeds {
    pub use crate::{
        http::seeds as http_bodies,
        kv::{command_seeds as commands, config_seeds as config, kv_snapshot_seeds as kv_snapshot},
        sessions::session_seeds as sessions,
    };
}
