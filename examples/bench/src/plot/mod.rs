//! A drawing of latency against throughput, from the lines that benchmarks print.
//!
//! - `figures`: the lines, and the medians of repeated rounds. Pure.
//! - `chart`: the drawing. Pure.

mod chart;
mod figures;

use crate::workload::Failed;
use figures::{Figures, Series};
use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

/// The size of the largest file that is read.
const FILE_BYTES_MAX: u64 = 16 << 20;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Files of JSON lines, as the benchmarks and the comparison scripts print them; rounds may be
    /// repeated.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The SVG file to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The title of the drawing.
    #[arg(long, value_name = "TEXT", default_value = "Latency against throughput")]
    title: String,
}

/// Reads the lines and draws them.
pub(crate) fn run(options: &Options) -> Result<(), Failed> {
    let mut figures = Figures::default();
    for path in &options.files {
        let text = read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        figures.add(&text).map_err(|error| format!("{}:{error}", path.display()))?;
    }
    let series = figures.series()?;
    let drawn = chart::draw(&options.title, &figures.common(), &series)?;
    write(&options.out, &drawn).map_err(|error| format!("{}: {error}", options.out.display()))?;
    let points: usize = series.iter().map(Series::len).sum();
    eprintln!("{}: {points} points of {} series in {}", crate::PROGRAM, series.len(), options.out.display());
    Ok(())
}

fn read(path: &Path) -> Result<String, Failed> {
    let mut text = String::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("longer than {FILE_BYTES_MAX} bytes").into());
    }
    Ok(text)
}

fn write(path: &Path, text: &str) -> Result<(), Failed> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    Ok(fs::write(path, text)?)
}
