//! The table of the mutants, from the files in `node/sim/mutants`.
//!
//! An entry is a line `== name`, lines that describe the wrong behaviour, for a mutant that another
//! guard hides a line `test: ` with the arguments of `cargo test` that catch it, and one or more
//! hunks. A hunk is a line `@@ file` and lines of code: those that begin with a space or a `-` must be in
//! the file, in this order and with no others between them; the mutant leaves out those with `-`
//! and adds those with `+`. In an added line the word `LIVE` is true while the mutant is on. Lines
//! match with any indentation. Lines that begin with `#`, and empty lines, are ignored.

use std::mem;

/// The files, in the order in which their mutants are hunted.
const FILES: [(&str, &str); 12] = [
    ("node/sim/mutants/membership.mutants", include_str!("../../mutants/membership.mutants")),
    ("node/sim/mutants/elections.mutants", include_str!("../../mutants/elections.mutants")),
    ("node/sim/mutants/replication.mutants", include_str!("../../mutants/replication.mutants")),
    ("node/sim/mutants/reads.mutants", include_str!("../../mutants/reads.mutants")),
    ("node/sim/mutants/snapshots.mutants", include_str!("../../mutants/snapshots.mutants")),
    ("node/sim/mutants/storage.mutants", include_str!("../../mutants/storage.mutants")),
    ("node/sim/mutants/actors.mutants", include_str!("../../mutants/actors.mutants")),
    ("node/sim/mutants/decisions.mutants", include_str!("../../mutants/decisions.mutants")),
    ("node/sim/mutants/sessions.mutants", include_str!("../../mutants/sessions.mutants")),
    ("node/sim/mutants/time.mutants", include_str!("../../mutants/time.mutants")),
    ("node/sim/mutants/services.mutants", include_str!("../../mutants/services.mutants")),
    ("node/sim/mutants/comparison.mutants", include_str!("../../mutants/comparison.mutants")),
];

/// A planted bug, as the table describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mutant {
    /// The name on a command line, as in `minority-elects`.
    pub name: String,
    /// The wrong behaviour, in a sentence.
    pub description: String,
    /// The file of the table that has the entry, from the root of the workspace.
    pub entry: String,
    /// The arguments of `cargo test` that catch it; without them, seeds do.
    pub test: Option<String>,
    /// The changes, at least one.
    pub hunks: Vec<Hunk>,
}

/// A change of one place in the sources.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hunk {
    /// The file to change, from the root of the workspace.
    pub file: String,
    /// The lines of the place and of the change, in their order in the file.
    pub lines: Vec<Line>,
}

/// A line of a hunk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Line {
    /// A line of the file that stays.
    Kept(String),
    /// A line of the file that the mutant leaves out.
    Removed(String),
    /// A line that the mutant adds.
    Added(String),
}

/// All mutants: first those in the rules, then those in the storage, then those in the actors.
///
/// # Errors
/// The first malformed entry, in one line.
pub fn all() -> Result<Vec<Mutant>, String> {
    let mut mutants: Vec<Mutant> = Vec::new();
    for (file, text) in FILES {
        for mutant in parse(file, text)? {
            if mutants.iter().any(|before| before.name == mutant.name) {
                return Err(format!("{file}: there are two mutants `{}`; rename one", mutant.name));
            }
            mutants.push(mutant);
        }
    }
    Ok(mutants)
}

/// Reads one file of the table.
///
/// # Errors
/// The first malformed line or entry, in one line.
pub fn parse(file: &str, text: &str) -> Result<Vec<Mutant>, String> {
    let mut mutants: Vec<Mutant> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let wrong = |what: &str| format!("{file}:{}: {what}", at + 1);
        if let Some(name) = line.strip_prefix("== ") {
            let (name, entry) = (name.trim().to_owned(), file.to_owned());
            mutants.push(Mutant { name, description: String::new(), entry, test: None, hunks: Vec::new() });
            continue;
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mutant = mutants.last_mut().ok_or_else(|| wrong("no mutant yet; begin one with `== name`"))?;
        if let Some(file) = line.strip_prefix("@@ ") {
            mutant.hunks.push(Hunk { file: file.trim().to_owned(), lines: Vec::new() });
            continue;
        }
        if let Some(test) = line.strip_prefix("test: ").filter(|_| mutant.hunks.is_empty()) {
            mutant.test = Some(test.trim().to_owned());
            continue;
        }
        let Some(hunk) = mutant.hunks.last_mut() else {
            let before = mem::take(&mut mutant.description);
            mutant.description = [&before, line.trim()].join(" ").trim().to_owned();
            continue;
        };
        let code = line.get(1..).unwrap_or_default().to_owned();
        hunk.lines.push(match line.as_bytes()[0] {
            b' ' => Line::Kept(code),
            b'-' => Line::Removed(code),
            b'+' => Line::Added(code),
            _ => return Err(wrong("a line of a hunk begins with a space, `-` or `+`")),
        });
    }
    mutants.iter().try_for_each(|mutant| match mutant.flaw() {
        Some(flaw) => Err(format!("{file}: mutant {}: {flaw}", mutant.name)),
        None => Ok(()),
    })?;
    Ok(mutants)
}

impl Mutant {
    /// Whether it lies in the rules, so that the pure layer can show it.
    #[must_use]
    pub fn is_of_rules(&self) -> bool {
        self.hunks.iter().any(|hunk| hunk.file.starts_with("node/raft/"))
    }

    /// Whether it lies in a decision that the pure layer judges sooner than whole nodes do.
    #[must_use]
    pub fn is_of_judged_decisions(&self) -> bool {
        let judged = [
            "decisions/automatic.rs",
            "decisions/claims.rs",
            "decisions/operators.rs",
            "decisions/reads.rs",
            "decisions/stopping.rs",
            "service/windows.rs",
        ];
        let mut files = self.hunks.iter().filter_map(|hunk| hunk.file.strip_prefix("node/src/"));
        files.any(|file| judged.contains(&file))
    }

    fn flaw(&self) -> Option<&'static str> {
        let is_switched = |line: &Line| matches!(line, Line::Added(code) if words(code).any(|word| word == SWITCH));
        let is_placed = |hunk: &Hunk| hunk.lines.iter().any(|line| !matches!(line, Line::Added(_)));
        if self.description.is_empty() {
            return Some("it has no description");
        }
        if !self.hunks.iter().flat_map(|hunk| &hunk.lines).any(is_switched) {
            return Some("no added line has the word LIVE, so it could not be turned off");
        }
        (!self.hunks.iter().all(is_placed)).then_some("a hunk has no line of the file, so it has no place")
    }
}

/// The word that stands for the question whether the mutant is on.
pub(super) const SWITCH: &str = "LIVE";

/// The code in pieces that are words and pieces that are not; together they are the code.
pub(super) fn words(code: &str) -> impl Iterator<Item = &str> {
    let is_of_word = |char: char| char.is_alphanumeric() || char == '_';
    let mut rest = code;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let end = rest.find(|char| is_of_word(char) != is_of_word(first)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = after;
        Some(word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_a_name_a_description_and_hunks() {
        let text = "# notes\n\n== one-bug\nIt is\nwrong.\n@@ a/b.rs\n x\n-y\n+if LIVE { y }\n@@ c.rs\n z\n+w\n";
        let mutants = parse("t", text).expect("well-formed");
        let [one] = &mutants[..] else { panic!("{mutants:?}") };
        assert_eq!((&*one.name, &*one.description), ("one-bug", "It is wrong."));
        assert_eq!(one.hunks.iter().map(|hunk| &*hunk.file).collect::<Vec<_>>(), ["a/b.rs", "c.rs"]);
        let lines = [Line::Kept("x".into()), Line::Removed("y".into()), Line::Added("if LIVE { y }".into())];
        assert_eq!(one.hunks[0].lines, lines);
        assert_eq!(one.test, None);
        let tested = parse("t", "== a\nBad.\ntest: -p x --lib y\n@@ f\n x\n+LIVE\n").expect("well-formed");
        assert_eq!((tested[0].test.as_deref(), &*tested[0].description), (Some("-p x --lib y"), "Bad."));
    }

    #[test]
    fn a_malformed_entry_is_refused_by_name_or_line() {
        let refused = |text: &str| parse("t", text).expect_err("malformed");
        assert!(refused("nothing\n").contains("t:1: no mutant yet"));
        assert!(refused("== a\nBad.\n@@ f\nx\n").contains("t:4: a line of a hunk begins with"));
        assert!(refused("== a\n@@ f\n x\n+LIVE\n").contains("mutant a: it has no description"));
        assert!(refused("== a\nBad.\n@@ f\n x\n+ALIVE\n").contains("mutant a: no added line has the word LIVE"));
        assert!(refused("== a\nBad.\n@@ f\n+LIVE\n").contains("mutant a: a hunk has no line of the file"));
    }

    #[test]
    fn every_file_of_mutants_is_in_the_table() {
        let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/mutants")).expect("the folder");
        let mut found: Vec<_> =
            folder.map(|file| file.expect("a file").file_name().into_string().expect("a name")).collect();
        let mut listed: Vec<_> =
            FILES.iter().map(|(path, _)| path.rsplit('/').next().expect("a name").to_owned()).collect();
        found.sort();
        listed.sort();
        assert_eq!(found, listed);
    }

    #[test]
    fn the_table_is_well_formed() {
        let mutants = all().expect("well-formed");
        assert!(mutants.len() > 100, "{}", mutants.len());
        let rules = mutants.iter().take_while(|mutant| mutant.is_of_rules()).count();
        assert!(mutants[rules..].iter().all(|mutant| !mutant.is_of_rules()), "first the rules, then all others");
    }
}
