//! Reservations between processes. Alone in its binary: see the tests of the library.
#![cfg(target_os = "linux")]

use quorate_ports::{Port, reserve_one};
use std::process::Command;

/// The port that this test asks another process for.
const ASKED: &str = "QUORATE_PORTS_ASKED";

#[test]
fn a_port_is_reserved_for_other_processes_too() {
    if let Some(asked) = std::env::var_os(ASKED) {
        let number = asked.to_str().and_then(|text| text.parse().ok()).expect("a port");
        Port::at(number).expect("free for this process");
        return;
    }
    let port = reserve_one().expect("a free port");
    let mut other = Command::new(std::env::current_exe().expect("this binary"));
    other.arg("a_port_is_reserved_for_other_processes_too").env(ASKED, port.number().to_string());
    let mut is_free = || other.output().expect("it runs").status.success();
    assert!(!is_free());
    drop(port);
    assert!(is_free());
}
