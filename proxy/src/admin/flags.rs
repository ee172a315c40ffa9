//! Where the status page is, and who may see it.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;

/// The variable with the token itself.
pub(crate) const TOKEN_VARIABLE: &str = "HOLDFAST_ADMIN_TOKEN";
/// What is written with a port and no more.
const EXAMPLE: &str = "127.0.0.1:18790";

/// What the operator said about the status page.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct AdminFlags {
    // No doc comment: rustdoc would take the brackets of an address for a link.
    #[arg(
        long = "admin",
        value_name = "ADDR",
        env = "HOLDFAST_ADMIN",
        value_parser = address,
        help = "Serve a status page, metrics and probes here, by a process of its own: 127.0.0.1:18790, [::1]:18790. Other \
                addresses than those of this machine alone need a token"
    )]
    pub(crate) address: Option<SocketAddr>,
    /// A file with the token that the status page and the metrics ask for, as HTTP's Bearer or as the password of
    /// the user `holdfast`; $HOLDFAST_ADMIN_TOKEN is the token itself
    #[arg(long = "admin-token-file", value_name = "PATH", env = "HOLDFAST_ADMIN_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

fn address(word: &str) -> Result<SocketAddr, String> {
    word.parse().map_err(|_| format!("{word:?} is no address with a port; write {EXAMPLE}"))
}

/// Why the status page cannot be served as it was said.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdminRefused {
    #[error(
        "others can reach {address}, so it needs a token: --admin-token-file PATH, or {TOKEN_VARIABLE}; or keep it to \
         this machine: --admin {EXAMPLE}"
    )]
    NoToken { address: SocketAddr },
    #[error("could not read the token of the status page in {}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("the token of the status page in {from} is {what}")]
    NotAToken { from: String, what: &'static str },
    #[error(
        "--admin-token-file is for the status page, which is off; turn it on: --admin {EXAMPLE}"
    )]
    TokenAlone,
    #[error("could not listen on {address} for the status page")]
    Listen { address: SocketAddr, source: io::Error },
}

/// The fewest characters of a token.
const SHORTEST: usize = 16;

/// What callers have to know.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(String);

/// It is a secret.
impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    fn new(word: &str, from: impl Fn() -> String) -> Result<Self, AdminRefused> {
        let word = word.trim();
        let what = if word.is_empty() {
            "empty"
        } else if word.len() < SHORTEST {
            "shorter than 16 characters"
        } else if !word.bytes().all(|byte| byte.is_ascii_graphic()) {
            "not made of ASCII characters without spaces"
        } else {
            return Ok(Self(word.to_owned()));
        };
        Err(AdminRefused::NotAToken { from: from(), what })
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl AdminFlags {
    /// The address to serve at, and the token that is asked for; `None` when nobody wants a page.
    ///
    /// # Errors
    /// What is missing, or cannot be used.
    pub(crate) fn check(&self) -> Result<Option<SocketAddr>, AdminRefused> {
        let Some(address) = self.address else {
            return match self.token_file {
                Some(_) => Err(AdminRefused::TokenAlone),
                None => Ok(None),
            };
        };
        if self.token()?.is_none() && !address.ip().to_canonical().is_loopback() {
            return Err(AdminRefused::NoToken { address });
        }
        Ok(Some(address))
    }

    /// The token that is asked for, if any is.
    ///
    /// # Errors
    /// When one was named that cannot be used.
    pub(crate) fn token(&self) -> Result<Option<Token>, AdminRefused> {
        if let Some(path) = &self.token_file {
            return token_in(path).map(Some);
        }
        match std::env::var(TOKEN_VARIABLE) {
            Ok(word) => Token::new(&word, || format!("${TOKEN_VARIABLE}")).map(Some),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => {
                let from = format!("${TOKEN_VARIABLE}");
                Err(AdminRefused::NotAToken { from, what: "not text" })
            }
        }
    }
}

fn token_in(path: &Path) -> Result<Token, AdminRefused> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| AdminRefused::Unreadable { path: path.to_owned(), source })?;
    Token::new(&text, || path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(address: &str, token: Option<&str>) -> (AdminFlags, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let token_file = token.map(|token| {
            let path = directory.path().join("token");
            std::fs::write(&path, token).unwrap();
            path
        });
        (AdminFlags { address: Some(address.parse().unwrap()), token_file }, directory)
    }

    #[test]
    fn an_address_that_others_can_reach_needs_a_token() {
        for (address, token, fine) in [
            ("127.0.0.1:0", None, true),
            ("[::1]:0", None, true),
            ("[::ffff:127.0.0.1]:0", None, true),
            ("0.0.0.0:0", None, false),
            ("[::]:0", None, false),
            ("192.0.2.1:80", None, false),
            ("0.0.0.0:0", Some("0123456789abcdef\n"), true),
            ("0.0.0.0:0", Some("0123456789abcde\n"), false),
            ("127.0.0.1:0", Some(" \n"), false),
            ("127.0.0.1:0", Some("two words are no token"), false),
        ] {
            let (flags, _directory) = flags(address, token);
            assert_eq!(flags.check().is_ok(), fine, "{address} {token:?}: {:?}", flags.check());
        }
    }

    #[test]
    fn a_token_is_never_printed() {
        let (flags, _directory) = flags("0.0.0.0:0", Some("a-secret-of-the-test"));
        let token = flags.token().unwrap().unwrap();
        assert!(!format!("{token:?} {flags:?}").contains("secret"));
        let wrong = Token::new("secret", || "it".to_owned()).unwrap_err();
        assert!(!format!("{wrong} {wrong:?}").contains("secret"));
    }

    #[test]
    fn a_token_without_a_page_is_a_mistake() {
        let flags = AdminFlags { address: None, token_file: Some("/nonexistent".into()) };
        assert!(matches!(flags.check(), Err(AdminRefused::TokenAlone)));
    }
}
