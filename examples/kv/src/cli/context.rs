//! `context`: named connections in a file of the user, so that an operator types them once.
//!
//! The file has the paths of certificates, keys and tokens, never their contents. A context counts
//! as a whole: options override its values, and variables are not read beside it, so that a token
//! for one cluster is not sent to another one. The file has no secret, but another user that could
//! change it would choose the endpoint that gets a token, so one that others can write is refused.

use super::connection::Connection;
use crate::{
    exit::{Exit, Failure},
    output,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{
    collections::BTreeMap,
    env, fmt,
    fs::{DirBuilder, File},
    io::{self, Read, Write},
    ops::Not,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

const NAME_CHARS_MAX: usize = 64;

/// The subcommands of `context`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum ContextCommand {
    /// Save the endpoints and files of these options under a name. The first one is used at once
    Add {
        /// The name: 1 to 64 of A-Z a-z 0-9 - _ .
        name: String,
        #[command(flatten)]
        connection: Connection,
    },
    /// Use a context in all client commands that name no endpoint
    Use {
        /// The name of the context
        name: String,
    },
    /// List the contexts; the one in use has a star
    List,
    /// Remove a context
    Remove {
        /// The name of the context
        name: String,
    },
}

/// The file of contexts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Contexts {
    /// The name of the one in use.
    current: Option<String>,
    #[serde(default)]
    contexts: BTreeMap<String, Context>,
}

/// A named connection. Paths are absolute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Context {
    pub(super) endpoints: Vec<String>,
    pub(super) ca: Option<PathBuf>,
    pub(super) cert: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) token_file: Option<PathBuf>,
    /// Whether the token is also for `http` endpoints on other machines.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub(super) allow_plaintext_token: bool,
    /// Such as `5s`.
    pub(super) timeout: Option<String>,
}

/// Runs a subcommand.
pub(super) fn run(command: ContextCommand, json: bool) -> Result<(), Failure> {
    let file = file().ok_or_else(|| {
        Failure::new(Exit::Usage, "contexts have no place: set XDG_CONFIG_HOME or HOME to a directory of your own")
    })?;
    let mut contexts = Contexts::read(&file)?;
    let said = match command {
        ContextCommand::Add { name, connection } => {
            contexts.add(&name, connection.to_context()?)?;
            contexts.write(&file)?;
            let used = if contexts.current.as_deref() == Some(&*name) { ", and is in use" } else { "" };
            format!("context {name} is saved in {}{used}", file.display())
        }
        ContextCommand::Use { name } => {
            contexts.get(&name)?;
            contexts.current = Some(name.clone());
            contexts.write(&file)?;
            format!("context {name} is in use")
        }
        ContextCommand::Remove { name } => {
            contexts.get(&name)?;
            contexts.contexts.remove(&name);
            contexts.current.take_if(|current| *current == name);
            contexts.write(&file)?;
            format!("context {name} is removed")
        }
        ContextCommand::List if json => return Ok(output::line(json!(contexts))?),
        ContextCommand::List => {
            for (name, context) in &contexts.contexts {
                let star = if contexts.current.as_ref() == Some(name) { '*' } else { ' ' };
                output::line(format_args!("{star} {name}  {}", context.endpoints.join(",")))?;
            }
            return Ok(());
        }
    };
    Ok(output::line(if json { json!({ "context": said }).to_string() } else { said })?)
}

impl Contexts {
    /// The user's contexts; none if there is no file.
    pub(super) fn of_user() -> Result<Self, Failure> {
        file().map_or(Ok(Self::default()), |file| Self::read(&file))
    }

    fn read(file: &Path) -> Result<Self, Failure> {
        let mut opened = match File::open(file) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(Self::default());
            }
            opened => opened.map_err(|error| unusable(file, &error))?,
        };
        let metadata = opened.metadata().map_err(|error| unusable(file, &error))?;
        check_ours(metadata.mode(), metadata.uid(), rustix::process::geteuid().as_raw())
            .map_err(|problem| Failure::new(Exit::Usage, format_args!("{}: {problem}", file.display())))?;
        let mut text = String::new();
        opened.read_to_string(&mut text).map_err(|error| unusable(file, &error))?;
        toml::from_str(&text).map_err(|error| unusable(file, &error.message()))
    }

    fn write(&self, file: &Path) -> Result<(), Failure> {
        let text = toml::to_string(self).map_err(|error| unusable(file, &error))?;
        let dir = file.parent().unwrap_or(Path::new("."));
        let written = || {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
            // A temporary file has mode 0600.
            let mut new = tempfile::NamedTempFile::new_in(dir)?;
            new.write_all(text.as_bytes())?;
            new.as_file().sync_all()?;
            new.persist(file).map(drop).map_err(|error| error.error)
        };
        written().map_err(|error: io::Error| Failure::new(Exit::Failed, format_args!("{}: {error}", file.display())))
    }

    fn add(&mut self, name: &str, context: Context) -> Result<(), Failure> {
        let is_named = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if !(1..=NAME_CHARS_MAX).contains(&name.len()) || !name.chars().all(is_named) {
            return Err(Failure::new(Exit::Usage, format_args!("context {name:?}: use 1 to 64 of A-Z a-z 0-9 - _ .")));
        }
        if self.contexts.contains_key(name) {
            let problem = format_args!("context {name} exists; remove it first, or choose another name");
            return Err(Failure::new(Exit::Conflict, problem));
        }
        self.contexts.insert(name.to_owned(), context);
        self.current.get_or_insert_with(|| name.to_owned());
        Ok(())
    }

    /// The context with this name.
    pub(super) fn get(&self, name: &str) -> Result<&Context, Failure> {
        let missing =
            || Failure::new(Exit::NotFound, format_args!("no context {name:?}; see `quorate-kv context list`"));
        self.contexts.get(name).ok_or_else(missing)
    }

    /// The name of the one in use.
    pub(super) fn current(&self) -> Option<&str> {
        self.current.as_deref()
    }
}

/// The path of the file: `quorate/contexts.toml` in `XDG_CONFIG_HOME`, or else in `~/.config`.
fn file() -> Option<PathBuf> {
    let dir = |name: &str| env::var_os(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
    let config = dir("XDG_CONFIG_HOME").or_else(|| Some(dir("HOME")?.join(".config")))?;
    Some(config.join("quorate/contexts.toml"))
}

/// Whether only `user` and root can change a file with this mode and owner.
fn check_ours(mode: u32, owner: u32, user: u32) -> Result<(), String> {
    if owner != user && owner != 0 {
        return Err(format!("the file is of user {owner}, and the command runs as user {user}; chown it"));
    }
    if mode & 0o022 != 0 {
        return Err(format!("other users can change the file (mode {:04o}); chmod 600 it", mode & 0o777));
    }
    Ok(())
}

fn unusable(file: &Path, problem: &dyn fmt::Display) -> Failure {
    Failure::new(Exit::Usage, format_args!("{}: {problem}; correct or remove the file", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt};

    #[test]
    fn contexts_are_kept_in_a_private_file_and_the_first_one_is_in_use() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("new/quorate/contexts.toml");
        let mut contexts = Contexts::read(&file).expect("none yet");
        assert_eq!(contexts, Contexts::default());
        let context = |url: &str| Context { endpoints: vec![url.to_owned()], ..Context::default() };
        contexts.add("prod", context("https://a:1")).expect("added");
        contexts.add("test.1", context("https://b:1")).expect("added");
        assert_eq!(contexts.add("prod", context("https://c:1")).expect_err("twice").exit, Exit::Conflict);
        for name in ["", "a b", "a/b", &"a".repeat(65)] {
            assert_eq!(contexts.add(name, context("https://c:1")).expect_err(name).exit, Exit::Usage);
        }
        contexts.write(&file).expect("written");
        assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
        let read = Contexts::read(&file).expect("valid");
        assert_eq!((&read, read.current()), (&contexts, Some("prod")));
        assert_eq!(read.get("test.1"), Ok(&context("https://b:1")));
        assert_eq!(read.get("other").expect_err("none").exit, Exit::NotFound);
        fs::write(&file, "currant = \"prod\"").expect("written");
        let failure = Contexts::read(&file).expect_err("unknown key");
        assert!(failure.exit == Exit::Usage && failure.message.contains("contexts.toml: "), "{failure:?}");
    }

    #[test]
    fn a_file_that_another_user_can_change_is_refused() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("contexts.toml");
        Contexts::default().write(&file).expect("written");
        for (mode, is_ours) in [(0o600, true), (0o644, true), (0o660, false), (0o602, false)] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("changed");
            match Contexts::read(&file) {
                Ok(_) => assert!(is_ours, "{mode:o}"),
                Err(failure) => {
                    assert!(!is_ours && failure.exit == Exit::Usage, "{mode:o}: {failure:?}");
                    assert!(failure.message.ends_with("chmod 600 it"), "{failure:?}");
                }
            }
        }
        for (owner, user, is_ours) in [(7, 7, true), (0, 7, true), (8, 7, false), (7, 0, false)] {
            assert_eq!(check_ours(0o600, owner, user).is_ok(), is_ours, "{owner} {user}");
        }
    }
}
