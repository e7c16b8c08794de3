//! The speed of this machine: reference figures, measured in the same run.

use crate::workload::Failed;
use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// The size of one read or write.
const PIECE_BYTES: usize = 1 << 20;

/// Writes a file of this size in order, and syncs it once. Returns the time taken.
pub(crate) fn write_sequentially(dir: &Path, bytes: u64) -> Result<Duration, Failed> {
    let path = dir.join("sequential");
    let piece = noise(PIECE_BYTES);
    let begun = Instant::now();
    let mut file = File::create(&path)?;
    let mut left = bytes;
    while left > 0 {
        let next = usize::try_from(left)?.min(piece.len());
        file.write_all(&piece[..next])?;
        left -= next as u64;
    }
    file.sync_data()?;
    let took = begun.elapsed();
    fs::remove_file(path)?;
    Ok(took)
}

/// Reads files to their end, from the disk as far as the kernel drops its cache. Returns the time
/// taken and the number of bytes.
pub(crate) fn read_sequentially(files: &[PathBuf]) -> Result<(Duration, u64), Failed> {
    let (mut piece, mut bytes) = (vec![0; PIECE_BYTES], 0);
    forget(files)?;
    let begun = Instant::now();
    for path in files {
        let mut file = File::open(path)?;
        loop {
            match file.read(&mut piece)? {
                0 => break,
                read => bytes += read as u64,
            }
        }
    }
    Ok((begun.elapsed(), bytes))
}

/// Asks the kernel to drop these files from its cache.
pub(crate) fn forget(files: &[PathBuf]) -> Result<(), Failed> {
    for path in files {
        let file = File::open(path)?;
        file.sync_all()?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    Ok(())
}

/// All files in a directory and its subdirectories.
pub(crate) fn files_in(dir: &Path) -> Result<Vec<PathBuf>, Failed> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { files.extend(files_in(&entry.path())?) } else { files.push(entry.path()) }
    }
    files.sort();
    Ok(files)
}

/// Sends this many bytes over one TCP connection on loopback. Returns the time taken.
pub(crate) fn send_over_loopback(bytes: u64) -> Result<Duration, Failed> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let sender = std::thread::spawn(move || -> std::io::Result<()> {
        let mut stream = TcpStream::connect(address)?;
        let (piece, mut left) = (noise(PIECE_BYTES), bytes);
        while left > 0 {
            let next = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
            stream.write_all(&piece[..next])?;
            left -= next as u64;
        }
        Ok(())
    });
    let (mut stream, _) = listener.accept()?;
    let (mut piece, mut received) = (vec![0; PIECE_BYTES], 0);
    let begun = Instant::now();
    while received < bytes {
        match stream.read(&mut piece)? {
            0 => return Err("the connection on loopback ended early".into()),
            read => received += read as u64,
        }
    }
    let took = begun.elapsed();
    sender.join().map_err(|_| "the sender's thread panicked")??;
    Ok(took)
}

/// Bytes that cannot be compressed.
pub(crate) fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(bytes).collect()
}

/// The resident memory of a process in bytes; 0 if it has ended.
pub(crate) fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok()).map_or(0, |kib: u64| kib << 10)
}

/// The rate in megabytes per second.
pub(crate) fn speed(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / 1e6 / took.as_secs_f64()
}

/// Rounds to three decimal places for printing.
pub(crate) fn round(figure: f64) -> f64 {
    (figure * 1000.0).round() / 1000.0
}
