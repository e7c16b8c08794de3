//! A file system of its own for a node's data, whose size can change.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A file system in memory, which takes memory for what is written only.
pub(super) struct SmallDisk {
    at: PathBuf,
}

/// Far above the space at which the rules warn.
const AMPLE: u64 = 16 << 30;

impl SmallDisk {
    /// `None`, with a message, if mounting is not permitted.
    pub(super) fn mount(at: &Path) -> Option<Self> {
        fs::create_dir_all(at).expect("made");
        if mount(at, "-t", "tmpfs", &format!("size={AMPLE}")) {
            return Some(Self { at: at.to_owned() });
        }
        eprintln!("skipped: a file system can't be mounted (that takes root)");
        None
    }

    /// Leaves this much free space.
    pub(super) fn leave(at: &Path, bytes: u64) {
        let stat = rustix::fs::statvfs(at).expect("mounted");
        let used = (stat.f_blocks - stat.f_bfree) * stat.f_frsize;
        assert!(mount(at, "-o", "remount", &format!("size={}", used + bytes)), "the size is changed");
    }

    /// Gives all space back.
    pub(super) fn free(at: &Path) {
        assert!(mount(at, "-o", "remount", &format!("size={AMPLE}")), "the size is changed");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a node that is about to be killed may still have files open.
        let _ = Command::new("umount").arg("-l").arg(&self.at).output();
    }
}

fn mount(at: &Path, flag: &str, value: &str, size: &str) -> bool {
    let mut command = Command::new("mount");
    match flag {
        "-t" => command.args([flag, value, "-o", size, value]),
        _ => command.args([flag, &format!("{value},{size}")]),
    };
    command.arg(at).output().is_ok_and(|output| output.status.success())
}
