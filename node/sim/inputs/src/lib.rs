//! Inputs for the properties that fuzz targets and tests share: arbitrary bytes, valid inputs
//! that were changed, and the corpus in `node/sim/fuzz`. Only for tests in a checkout.
#![forbid(unsafe_code)]

use proptest::{collection::vec, prelude::*, sample::Index, sample::select};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Mostly some of `seeds`, changed in a few places; at times arbitrary bytes.
pub fn inputs(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let mutated = (select(seeds), vec(edit(), 0..6)).prop_map(|(mut bytes, edits)| {
        edits.iter().for_each(|edit| edit.apply(&mut bytes));
        bytes
    });
    prop_oneof![1 => vec(any::<u8>(), 0..600), 7 => mutated]
}

/// Runs a property over every file of a target's corpus.
///
/// # Panics
/// If the property panics, or there is no file.
pub fn replay(target: &str, promise: impl Fn(&[u8])) {
    let dir = corpus(target);
    let files = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{} is there: {error}", dir.display()));
    let mut count = 0;
    for file in files {
        let path = file.expect("an entry").path();
        // Only shown if it fails.
        println!("{}", path.display());
        promise(&fs::read(&path).expect("a file"));
        count += 1;
    }
    assert!(count > 0, "{} holds inputs", dir.display());
}

/// Writes the seeds of a target to its corpus, in place of earlier ones.
///
/// # Panics
/// If the directory can't be written.
pub fn plant(target: &str, seeds: &[Vec<u8>]) {
    let dir = corpus(target);
    fs::create_dir_all(&dir).expect("a directory");
    for file in fs::read_dir(&dir).expect("a directory") {
        let path = file.expect("an entry").path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("seed-")) {
            fs::remove_file(path).expect("removed");
        }
    }
    for (number, seed) in seeds.iter().enumerate() {
        fs::write(dir.join(format!("seed-{number:02}")), seed).expect("written");
    }
}

fn corpus(target: &str) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.ancestors().find(|dir| dir.join("node/sim/fuzz").is_dir()).expect("this is a checkout");
    root.join("node/sim/fuzz/corpus").join(target)
}

#[derive(Clone, Debug)]
enum Edit {
    Flip { at: Index, mask: u8 },
    Set { at: Index, bytes: Vec<u8> },
    Insert { at: Index, bytes: Vec<u8> },
    Remove { at: Index, count: usize },
    Copy { from: Index, to: Index, count: usize },
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = any::<Index>;
    // Values at the limits, where lengths and counters go wrong most often.
    let number = prop_oneof![
        select(vec![0u64, 1, 0x7f, 0x80, 0xff, 0xffff, 1 << 31, u64::from(u32::MAX), 1 << 63, u64::MAX - 1, u64::MAX]),
        any::<u64>(),
    ];
    let number =
        (number, select(vec![1usize, 2, 4, 8])).prop_map(|(number, width)| number.to_le_bytes()[..width].to_vec());
    let bytes = || prop_oneof![vec(any::<u8>(), 1..24), (1usize..600).prop_map(|count| vec![0; count])];
    prop_oneof![
        (at(), 1u8..).prop_map(|(at, mask)| Edit::Flip { at, mask }),
        (at(), prop_oneof![number, bytes()]).prop_map(|(at, bytes)| Edit::Set { at, bytes }),
        (at(), bytes()).prop_map(|(at, bytes)| Edit::Insert { at, bytes }),
        (at(), 1usize..80).prop_map(|(at, count)| Edit::Remove { at, count }),
        (at(), at(), 1usize..80).prop_map(|(from, to, count)| Edit::Copy { from, to, count }),
    ]
}

impl Edit {
    fn apply(&self, to: &mut Vec<u8>) {
        let length = to.len();
        let place = |at: &Index| at.index(length + 1);
        match self {
            Self::Flip { at, mask } if length > 0 => to[at.index(length)] ^= mask,
            Self::Flip { .. } => {}
            Self::Set { at, bytes } => {
                let at = place(at);
                let count = bytes.len().min(length - at);
                to[at..at + count].copy_from_slice(&bytes[..count]);
            }
            Self::Insert { at, bytes } => {
                let at = place(at);
                to.splice(at..at, bytes.iter().copied());
            }
            Self::Remove { at, count } => {
                let at = place(at);
                to.drain(at..length.min(at + count));
            }
            Self::Copy { from, to: at, count } => {
                let (from, at) = (place(from), place(at));
                let copied = to[from..length.min(from + count)].to_vec();
                to.splice(at..at, copied);
            }
        }
    }
}
