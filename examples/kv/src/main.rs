//! The `quorate-kv` binary: a server, its client and the demo. All code is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    quorate_kv::cli::run()
}
