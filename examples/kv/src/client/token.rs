//! A bearer token, from a file that its owner alone can read.

use crate::http::is_token;
use hyper::header::HeaderValue;
use quorate::transport::certificates::read_private;
use std::{fmt, path::Path, str};
use zeroize::Zeroizing;

/// A bearer token of a client, which proves its identity to a node.
#[derive(Clone)]
pub struct Token(HeaderValue);

impl Token {
    /// Reads a file whose only line is the token.
    ///
    /// # Errors
    /// In one line, if the file cannot be read, other users can read it, or it has no token.
    pub fn read(file: &Path) -> Result<Self, String> {
        let refuse = |problem: &dyn fmt::Display| format!("{}: {problem}", file.display());
        let bytes = read_private(file).map_err(|problem| refuse(&problem))?;
        let token = str::from_utf8(&bytes).ok().map(str::trim).filter(|text| is_token(text));
        let value = token.map(|token| Zeroizing::new(format!("Bearer {token}")));
        let value = value.and_then(|value| HeaderValue::from_str(&value).ok());
        let mut value = value.ok_or_else(|| refuse(&"it is not one token; write the token alone into it"))?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

impl From<&Token> for HeaderValue {
    fn from(token: &Token) -> Self {
        token.0.clone()
    }
}

/// Shows no token.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt};

    #[test]
    fn a_private_file_with_one_token_is_read_and_never_shown() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("token");
        let read = |text: &str, mode| {
            fs::write(&file, text).expect("written");
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("changed");
            Token::read(&file)
        };
        let token = read("secret-1\n", 0o600).expect("valid");
        assert_eq!(HeaderValue::from(&token), "Bearer secret-1");
        assert!(!format!("{token:?} {:?}", HeaderValue::from(&token)).contains("secret"));
        for (text, mode, problem) in
            [("secret-1", 0o644, "chmod 600"), ("", 0o600, "one token"), ("monitor a secret-1", 0o600, "one token")]
        {
            let error = read(text, mode).expect_err("bad");
            assert!(error.contains(problem) && !error.contains("secret"), "{error}");
        }
    }
}
