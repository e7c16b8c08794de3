//! The planting of all mutants in a copy of the sources.
//!
//! Every hunk is placed in the file as it is without mutants, and the changes are merged by line.
//! So mutants may add lines at the same place, in the order of the table, and one may add lines
//! around a line that another replaces. Two can't replace the same line.

use super::{
    Mutant,
    table::{self, Hunk, Line},
};
use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

/// The files of a workspace, by their path from its root, with slashes.
pub type Sources = BTreeMap<String, Vec<u8>>;

/// A mutant that can't be planted, in one line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The name of the mutant.
    pub mutant: String,
    /// The file that it is to change.
    pub file: String,
    /// The reason, and the remedy.
    pub why: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mutant, file, why } = self;
        write!(f, "mutant {mutant} does not apply to {file}: {why}")
    }
}

/// Reads the sources of the workspace at `root`: all files but hidden ones, those below a folder
/// `target`, and those below `except`.
///
/// # Errors
/// If a file or folder can't be read.
pub fn read(root: &Path, except: &Path) -> io::Result<Sources> {
    let mut sources = Sources::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let (name, path) = (entry.file_name(), entry.path());
            let is_hidden = name.as_encoded_bytes().starts_with(b".");
            if is_hidden || name == "target" || path == except {
                continue;
            }
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else {
                let from_root = path.strip_prefix(root).map_err(io::Error::other)?;
                sources.insert(from_root.to_string_lossy().replace('\\', "/"), fs::read(&path)?);
            }
        }
    }
    Ok(sources)
}

/// Plants the mutants. Each is on while [`quorate_switch`] has its place in `mutants`.
///
/// # Errors
/// All that can't be planted.
pub fn plant(mutants: &[Mutant], sources: &mut Sources) -> Result<(), Vec<Problem>> {
    let mut problems = Vec::new();
    let mut changed: BTreeMap<String, Changes> = BTreeMap::new();
    for (number, mutant) in mutants.iter().enumerate() {
        for hunk in &mutant.hunks {
            let done = place(hunk, sources).and_then(|at| {
                let text = text(sources, &hunk.file).unwrap_or_default();
                let changes = changed.entry(hunk.file.clone()).or_insert_with(|| Changes::new(text));
                changes.add(hunk, at, &mutant.name, &format!("quorate_switch::is_on({number})"))
            });
            if let Err(why) = done {
                let why = format!("{why}; adapt its entry in {}", mutant.entry);
                problems.push(Problem { mutant: mutant.name.clone(), file: hunk.file.clone(), why });
            }
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    for (file, changes) in changed {
        if let Some(manifest) = manifest_of(&file, sources) {
            depend_on_switch(&manifest, sources);
        }
        let planted = changes.apply(text(sources, &file).unwrap_or_default());
        sources.insert(file, planted.into_bytes());
    }
    if let Some(switch) = text(sources, SWITCH) {
        let planted = switch.replace("IS_PLANTED: bool = false", "IS_PLANTED: bool = true");
        sources.insert(SWITCH.into(), planted.into_bytes());
    }
    Ok(())
}

const SWITCH: &str = "node/sim/switch/src/lib.rs";

/// Makes the files below `folder` those of `sources`, and nothing else. Writes only those that
/// differ, so that a build after a small change is short.
///
/// # Errors
/// If a file can't be read, written or removed.
pub fn write(sources: &Sources, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let before = read(folder, Path::new(""))?;
    for gone in before.keys().filter(|file| !sources.contains_key(*file)) {
        fs::remove_file(folder.join(gone))?;
    }
    for (file, bytes) in sources.iter().filter(|(file, bytes)| before.get(*file) != Some(bytes)) {
        let path = folder.join(file);
        fs::create_dir_all(path.parent().unwrap_or(folder))?;
        fs::write(path, bytes)?;
    }
    Ok(())
}

/// The index of the line at which a hunk begins; or the reason that there is no single one.
fn place(hunk: &Hunk, sources: &Sources) -> Result<usize, String> {
    let wanted: Vec<&str> = hunk.lines.iter().filter_map(Line::in_file).collect();
    let first = wanted.first().copied().unwrap_or_default();
    match &matches(&wanted, text(sources, &hunk.file).unwrap_or_default())[..] {
        [at] => Ok(*at),
        [] => {
            let is_in = |file: &&String| {
                file.ends_with(".rs") && text(sources, file).is_some_and(|text| !matches(&wanted, text).is_empty())
            };
            let elsewhere = sources.keys().find(is_in);
            let lines = if wanted.len() > 1 { " and the lines after it are" } else { " is" };
            Err(match elsewhere {
                Some(file) => format!("`{first}`{lines} in {file} now"),
                None => format!("`{first}`{lines} not there as the entry has it"),
            })
        }
        [one, two, ..] => {
            Err(format!("`{first}` is there more than once (lines {}, {}); add lines around it", one + 1, two + 1))
        }
    }
}

/// The indexes of the lines from which on the text has the wanted lines.
fn matches(wanted: &[&str], text: &str) -> Vec<usize> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let found = lines.windows(wanted.len().max(1)).enumerate().filter(|(_, window)| *window == wanted);
    found.map(|(at, _)| at).collect()
}

/// The changes to one file, by the index of its line.
struct Changes {
    /// Added before the line; the last is for the end of the file.
    before: Vec<String>,
    /// The lines in place of the line, and the mutant that replaces it.
    instead: Vec<Option<(String, String)>>,
}

impl Changes {
    fn new(text: &str) -> Self {
        let lines = text.lines().count();
        Self { before: vec![String::new(); lines + 1], instead: vec![None; lines] }
    }

    /// Adds a hunk that begins at the line `at`.
    fn add(&mut self, hunk: &Hunk, mut at: usize, mutant: &str, switch: &str) -> Result<(), String> {
        let mut replaces = false;
        for line in &hunk.lines {
            match line {
                Line::Kept(_) => (replaces, at) = (false, at + 1),
                Line::Removed(code) => {
                    if let Some((_, other)) = &self.instead[at] {
                        let code = code.trim();
                        return Err(format!("`{code}` is replaced by {other} as well; let one add lines around it"));
                    }
                    self.instead[at] = Some((String::new(), mutant.to_owned()));
                    (replaces, at) = (true, at + 1);
                }
                Line::Added(code) => {
                    let words = table::words(code).map(|word| if word == table::SWITCH { switch } else { word });
                    let code: String = words.chain(["\n"]).collect();
                    match self.instead.get_mut(at.wrapping_sub(1)) {
                        // In place of the line, so that lines of others stay around it.
                        Some(Some((instead, _))) if replaces => instead.push_str(&code),
                        _ => self.before[at].push_str(&code),
                    }
                }
            }
        }
        Ok(())
    }

    fn apply(&self, text: &str) -> String {
        let mut planted = String::new();
        for (at, line) in text.lines().enumerate() {
            planted.push_str(&self.before[at]);
            match &self.instead[at] {
                Some((instead, _)) => planted.push_str(instead),
                None => planted.extend([line, "\n"]),
            }
        }
        planted + self.before.last().map_or("", String::as_str)
    }
}

impl Line {
    /// The line of the file, without its indentation; none if the mutant adds it.
    fn in_file(&self) -> Option<&str> {
        match self {
            Self::Kept(code) | Self::Removed(code) => Some(code.trim()),
            Self::Added(_) => None,
        }
    }
}

fn text<'a>(sources: &'a Sources, file: &str) -> Option<&'a str> {
    str::from_utf8(sources.get(file)?).ok()
}

/// The manifest of the package to which a file belongs.
fn manifest_of(file: &str, sources: &Sources) -> Option<String> {
    let manifest = |folder: &Path| PathBuf::from(folder).join("Cargo.toml").to_string_lossy().into_owned();
    Path::new(file).ancestors().skip(1).map(manifest).find(|manifest| sources.contains_key(manifest))
}

fn depend_on_switch(manifest: &str, sources: &mut Sources) {
    let Some(text) = text(sources, manifest) else { return };
    if !text.contains("quorate-switch") {
        let planted = text.replacen("[dependencies]\n", "[dependencies]\nquorate-switch.workspace = true\n", 1);
        sources.insert(manifest.into(), planted.into_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "fn f() {\n    one();\n    two();\n    three();\n    two();\n}\n";

    #[test]
    fn mutants_of_the_same_lines_are_planted_together() {
        let table = "== a\nA.\n@@ p/src/f.rs\n     one();\n+    if LIVE { return }\n\n\
                     == b\nB.\n@@ p/src/f.rs\n-    one();\n+    if !LIVE { one() }\n\n\
                     == c\nC.\n@@ p/src/f.rs\n+    if LIVE { zero() } else {\n one();\n+    }\n two();\n three();\n";
        let mut sources = sources();
        plant(&table::parse("t", table).expect("well-formed"), &mut sources).expect("they apply");
        let planted = "fn f() {\n    if quorate_switch::is_on(2) { zero() } else {\n    if !quorate_switch::is_on(1) { one() }\n    \
                       if quorate_switch::is_on(0) { return }\n    }\n    two();\n    three();\n    two();\n}\n";
        assert_eq!(text(&sources, "p/src/f.rs"), Some(planted));
        assert_eq!(
            text(&sources, "p/Cargo.toml"),
            Some("[package]\n\n[dependencies]\nquorate-switch.workspace = true\nserde = \"1\"\n")
        );
    }

    #[test]
    fn a_mutant_that_does_not_apply_says_so_in_one_line() {
        let problems = |hunk: &str| {
            let entry = format!("== a\nA.\n@@ {hunk}+LIVE\n== b\nB.\n@@ p/src/f.rs\n-three();\n+LIVE\n");
            let mutants = table::parse("t", &entry).expect("well-formed");
            let mut planted = sources();
            let problems = plant(&mutants, &mut planted).expect_err("one does not apply");
            assert_eq!(planted, sources(), "nothing is planted by half");
            problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
        };
        let begin = "mutant a does not apply to p/src/f.rs: ";
        let end = "; adapt its entry in t";
        assert_eq!(
            problems("p/src/f.rs\n four();\n"),
            format!("{begin}`four();` is not there as the entry has it{end}")
        );
        let twice = "`two();` is there more than once (lines 3, 5); add lines around it";
        assert_eq!(problems("p/src/f.rs\n two();\n"), format!("{begin}{twice}{end}"));
        let moved = "`one();` and the lines after it are in p/src/f.rs now";
        assert_eq!(
            problems("p/old.rs\n one();\n two();\n"),
            format!("mutant a does not apply to p/old.rs: {moved}{end}")
        );
        let both =
            "mutant b does not apply to p/src/f.rs: `three();` is replaced by a as well; let one add lines around it";
        assert_eq!(problems("p/src/f.rs\n-three();\n"), format!("{both}{end}"));
    }

    #[test]
    fn a_copy_is_written_only_where_it_differs() {
        let dir = tempfile::tempdir().expect("a directory");
        let folder = dir.path().join("copy");
        write(&sources(), &folder).expect("written");
        fs::write(folder.join("stale.rs"), "").expect("written");
        let kept = folder.join("p/Cargo.toml");
        let before = fs::metadata(&kept).and_then(|it| it.modified()).expect("a time");
        let mut sources = sources();
        sources.insert("p/src/f.rs".into(), b"fn g() {}\n".to_vec());
        write(&sources, &folder).expect("written");
        assert_eq!(read(&folder, Path::new("")).expect("read"), sources);
        assert_eq!(fs::metadata(&kept).and_then(|it| it.modified()).expect("a time"), before);
    }

    fn sources() -> Sources {
        let manifest = "[package]\n\n[dependencies]\nserde = \"1\"\n";
        let files = [("Cargo.toml", "[workspace]\n"), ("p/Cargo.toml", manifest), ("p/src/f.rs", FILE)];
        files.map(|(file, text)| (file.into(), text.as_bytes().to_vec())).into()
    }
}
