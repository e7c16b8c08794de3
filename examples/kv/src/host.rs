//! The machine of the node: free space and pressure, measured for the metrics.

use quorate::metrics::NodeMetrics;
use std::{path::PathBuf, thread, time::Duration};

const EVERY: Duration = Duration::from_secs(5);

/// Measures until the process ends, on a thread of its own: a file system that hangs delays nothing
/// else, nor the end of the process.
pub(crate) fn watch(data_dir: PathBuf, metrics: NodeMetrics) {
    let look = move || {
        loop {
            if let Ok(of) = rustix::fs::statvfs(&data_dir) {
                metrics.free_space(of.f_bavail.saturating_mul(of.f_frsize));
            }
            metrics.read_pressure();
            thread::sleep(EVERY);
        }
    };
    if let Err(error) = thread::Builder::new().name("host".to_owned()).spawn(look) {
        tracing::warn!("free space and pressure are not measured: no thread: {error}");
    }
}
