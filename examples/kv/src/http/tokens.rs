//! Bearer tokens of the HTTP interface, from a file that its owner alone can read.
//!
//! A line of the file is `ROLE NAME TOKEN`; blank lines, and lines that begin with `#`, are skipped.
//! Several lines may have the same role and name, so that a token can be replaced while the one
//! before it still counts. Tokens are looked up by their digest, so that the time of a look-up says
//! nothing about their texts, and the texts are not kept.

use super::permission::Permission;
use crate::config::ConfigError;
use quorate::transport::certificates::read_private;
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use std::{collections::HashMap, fmt, path::Path, str, sync::Arc};

/// The key of the configuration, for errors.
const KEY: &str = "http_auth.tokens";
/// The minimum length in characters: 32 hexadecimal digits are 128 random bits.
const TOKEN_CHARS_MIN: usize = 32;
const TOKEN_CHARS_MAX: usize = 1024;
const NAME_CHARS_MAX: usize = 64;
/// The maximum number, far more than a cluster needs; bounds the memory.
const TOKENS_MAX: usize = 1000;

/// SHA-256 of a token. A token has 128 random bits or more, so its digest needs no salt.
type Digest = [u8; SHA256_OUTPUT_LEN];

/// All tokens that count.
#[derive(Default)]
pub struct Tokens(HashMap<Digest, Arc<Token>>);

/// A token and its holder.
pub(super) struct Token {
    pub(super) role: TokenRole,
    pub(super) name: String,
    digest: Digest,
}

/// The role of a token's holder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TokenRole {
    /// Probes, status and metrics only.
    Monitor,
    Client,
    Operator,
}

impl TokenRole {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Monitor => "monitor",
            Self::Client => "client",
            Self::Operator => "operator",
        }
    }

    pub(super) const fn may(self) -> Permission {
        match self {
            Self::Monitor => Permission::Monitor,
            Self::Client => Permission::Write,
            Self::Operator => Permission::Operate,
        }
    }
}

impl Tokens {
    /// Reads a file.
    ///
    /// # Errors
    /// With the key, the file and the line, if it cannot be read, other users can read it, or a
    /// line is not understood.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        let at = file.display();
        let refuse = |problem: &dyn fmt::Display| {
            ConfigError::new(
                KEY,
                format_args!("{at}: {problem}"),
                "write ROLE NAME TOKEN on each line of a private file",
            )
        };
        let bytes = read_private(file).map_err(|problem| refuse(&problem))?;
        let text = str::from_utf8(&bytes).map_err(|_| refuse(&"it is not text"))?;
        Self::parse(text).map_err(|(line, problem)| refuse(&format_args!("line {line}: {problem}")))
    }

    /// The error is the number of a line, from 1, and the problem, without any part of the line:
    /// it may be a token.
    pub(super) fn parse(text: &str) -> Result<Self, (usize, &'static str)> {
        let mut tokens = HashMap::new();
        for (line, text) in (1..).zip(text.lines()) {
            let mut words = text.split_whitespace();
            let Some(role) = words.next().filter(|word| !word.starts_with('#')) else { continue };
            let (Some(name), Some(secret), None) = (words.next(), words.next(), words.next()) else {
                return Err((line, "it has not three words"));
            };
            let role = [TokenRole::Monitor, TokenRole::Client, TokenRole::Operator]
                .into_iter()
                .find(|known| known.name() == role)
                .ok_or((line, "the role is not monitor, client or operator"))?;
            let is_named = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if name.len() > NAME_CHARS_MAX || !name.chars().all(is_named) {
                return Err((line, "the name has not 1 to 64 of A-Z a-z 0-9 - _ ."));
            }
            if !(TOKEN_CHARS_MIN..=TOKEN_CHARS_MAX).contains(&secret.len()) || !is_token(secret) {
                return Err((line, "the token has not 32 to 1024 of A-Z a-z 0-9 - . _ ~ + / ="));
            }
            let digest = digest_of(secret.as_bytes());
            if tokens.contains_key(&digest) {
                return Err((line, "the token is also on an earlier line"));
            }
            if tokens.len() == TOKENS_MAX {
                return Err((line, "there are more than 1000 tokens"));
            }
            tokens.insert(digest, Arc::new(Token { role, name: name.to_owned(), digest }));
        }
        if tokens.is_empty() { Err((1, "it has no token")) } else { Ok(Self(tokens)) }
    }

    /// The holder of a token.
    pub(super) fn holder(&self, given: &[u8]) -> Option<&Arc<Token>> {
        self.0.get(&digest_of(given))
    }

    /// Whether a token counts, with the same role and name.
    pub(super) fn have(&self, token: &Token) -> bool {
        let holder = self.0.get(&token.digest);
        holder.is_some_and(|holder| (holder.role, &holder.name) == (token.role, &token.name))
    }
}

fn digest_of(token: &[u8]) -> Digest {
    let mut bytes = [0; SHA256_OUTPUT_LEN];
    bytes.copy_from_slice(digest(&SHA256, token).as_ref());
    bytes
}

/// Shows no token.
impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.values().map(|token| (token.role, &token.name))).finish()
    }
}

/// Shows no token.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Token").field(&self.role).field(&self.name).finish()
    }
}

/// Whether a text can stand in an `Authorization` header after `Bearer` (RFC 6750).
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt};

    const A: &str = "0123456789abcdef0123456789abcdef";
    const B: &str = "fedcba9876543210fedcba9876543210";

    #[test]
    fn a_token_has_the_role_and_the_name_of_its_line_and_another_one_has_none() {
        let text = format!("# of the scraper\nmonitor prometheus {A}\n\n  operator alice\t{B}  \nclient a.b {A}{B}\n");
        let tokens = Tokens::parse(&text).expect("valid");
        for (given, role, name) in [
            (A.to_owned(), TokenRole::Monitor, "prometheus"),
            (B.to_owned(), TokenRole::Operator, "alice"),
            (format!("{A}{B}"), TokenRole::Client, "a.b"),
        ] {
            let holder = tokens.holder(given.as_bytes()).expect("known");
            assert_eq!((holder.role, &*holder.name), (role, name));
        }
        for given in ["", &A[1..], &format!("{A} "), &A.to_uppercase(), &format!("{B}{A}")] {
            assert!(tokens.holder(given.as_bytes()).is_none(), "{given}");
        }
        assert!(!format!("{tokens:?}").contains(A));
    }

    #[test]
    fn a_line_that_is_not_understood_is_named_by_its_number_and_not_shown() {
        let short = &A[1..];
        for (line, problem) in [
            (format!("client a {short}"), "the token has"),
            (format!("client a {A}!"), "the token has"),
            (format!("client a {}", "a".repeat(1025)), "the token has"),
            (format!("admin a {A}"), "the role is"),
            (format!("Client a {A}"), "the role is"),
            (format!("client a/b {A}"), "the name has"),
            (format!("client {} {A}", "a".repeat(65)), "the name has"),
            (format!("client {A}"), "three words"),
            (format!("client a {A} # of a"), "three words"),
            (format!("client b {B}"), "earlier line"),
        ] {
            let (number, why) = Tokens::parse(&format!("client a {B}\n{line}\n")).expect_err(&line);
            assert!(number == 2 && why.contains(problem), "{line}: {why}");
        }
        assert_eq!(Tokens::parse("\n# none\n").map(drop), Err((1, "it has no token")));
        let many: String = (0..1001).map(|number| format!("client a {A}{number}\n")).collect();
        assert_eq!(Tokens::parse(&many).map(drop), Err((1001, "there are more than 1000 tokens")));
    }

    #[test]
    fn a_file_that_other_users_can_read_is_refused_by_name() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("tokens");
        fs::write(&file, format!("client a {A}\n")).expect("written");
        let at_mode = |mode| {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("changed");
            Tokens::read(&file).map(drop)
        };
        assert_eq!(at_mode(0o600), Ok(()));
        let error = at_mode(0o644).expect_err("open").to_string();
        assert!(error.starts_with("http_auth.tokens: ") && error.contains("chmod 600"), "{error}");
        fs::write(&file, format!("client {A}\n")).expect("written");
        let error = at_mode(0o600).expect_err("bad").to_string();
        assert!(error.contains("line 1: it has not three words") && !error.contains(A), "{error}");
        assert!(Tokens::read(&dir.path().join("none")).is_err());
    }
}
