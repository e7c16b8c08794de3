//! The place of each value (line of the file, environment variable or flag), for error messages.

use super::{ConfigError, KEYS, Overrides};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use toml::de::{DeTable, DeValue};

/// The places of all values of a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    file: PathBuf,
    /// The line of each path in the file, such as `peers[1].addr`, counted from 1.
    lines: BTreeMap<String, usize>,
    /// The variable or flag that overrides each key.
    overrides: BTreeMap<&'static str, (Strength, String)>,
}

/// The kinds of source, in order of precedence: later ones override earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Strength {
    Default,
    File,
    Variable,
    Flag,
}

impl Sources {
    /// The places of the values in `text`, the contents of `file`, and of the values
    /// that override it.
    pub(super) fn of(file: &Path, text: &str, environment: &Overrides, flags: &Overrides) -> Self {
        let mut lines = BTreeMap::new();
        if let Ok(table) = DeTable::parse(text) {
            add_lines(&mut lines, "", table.get_ref(), text);
        }
        let variables = environment.sources().map(|(key, source)| (key, (Strength::Variable, source)));
        let overrides = variables.chain(flags.sources().map(|(key, source)| (key, (Strength::Flag, source)))).collect();
        Self { file: file.to_owned(), lines, overrides }
    }

    /// The place of a value that was given or has a default.
    pub(super) fn of_value(&self, path: &str) -> String {
        let key = KEYS.iter().find(|key| is_within(path, key.path));
        if let Some((_, source)) = key.and_then(|key| self.overrides.get(key.path)) {
            return source.clone();
        }
        match (self.line(path), key) {
            (Some(line), _) => format!("{}:{line}: {path}", self.file.display()),
            (None, Some(_)) => format!("{path} (default)"),
            (None, None) => format!("{}: {path}", self.file.display()),
        }
    }

    /// The place of a missing key: the table that lacks it.
    pub(super) fn of_missing(&self, path: &str) -> String {
        match path.rsplit_once('.').and_then(|(table, _)| self.line(table)) {
            Some(line) => format!("{}:{line}: {path}", self.file.display()),
            None => format!("{}: {path}", self.file.display()),
        }
    }

    /// The same error with the place of its key, if it names one.
    #[must_use]
    pub fn locate(&self, error: ConfigError) -> ConfigError {
        let error = match error.other_side.clone() {
            Some(other) if self.strength(&other.place) > self.strength(&error.place) => *other,
            _ => error,
        };
        match KEYS.iter().any(|key| is_within(&error.place, key.path) || is_within(key.path, &error.place)) {
            true => ConfigError { place: self.of_value(&error.place), ..error },
            false => error,
        }
    }

    fn strength(&self, path: &str) -> Strength {
        match (self.overrides.get(path), self.lines.contains_key(path)) {
            (Some((strength, _)), _) => *strength,
            (None, true) => Strength::File,
            (None, false) => Strength::Default,
        }
    }

    /// The line of a path, or of the innermost enclosing path that is in the file.
    fn line(&self, path: &str) -> Option<usize> {
        let mut path = path;
        loop {
            if let Some(line) = self.lines.get(path) {
                return Some(*line);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }
}

/// Whether `path` is `key` or part of its value.
fn is_within(path: &str, key: &str) -> bool {
    path.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn add_lines(lines: &mut BTreeMap<String, usize>, outer: &str, table: &DeTable<'_>, text: &str) {
    for (key, value) in table {
        let name = key.get_ref();
        let path = if outer.is_empty() { name.to_string() } else { format!("{outer}.{name}") };
        lines.insert(path.clone(), line_at(text, key.span().start));
        match value.get_ref() {
            DeValue::Table(inner) => add_lines(lines, &path, inner, text),
            DeValue::Array(elements) => {
                for (at, element) in elements.iter().enumerate() {
                    let path = format!("{path}[{at}]");
                    lines.insert(path.clone(), line_at(text, element.span().start));
                    if let DeValue::Table(inner) = element.get_ref() {
                        add_lines(lines, &path, inner, text);
                    }
                }
            }
            _ => {}
        }
    }
}

/// The line that contains a byte, counted from 1.
pub(super) fn line_at(text: &str, byte: usize) -> usize {
    text.get(..byte).unwrap_or_default().matches('\n').count() + 1
}
