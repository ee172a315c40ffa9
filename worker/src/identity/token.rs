//! The shared token: where it comes from, and how one that is presented is compared.
//!
//! ```text
//! HOLDFAST_TOKEN → OPENCLAW_GATEWAY_TOKEN → <state dir>/token → generated into <state dir>/token
//! ```
//!
//! **Invariants**
//! - The token is never logged, printed or formatted: its `Debug` says nothing.
//! - Two workers that generate at the same time end with the same token: the file's creation
//!   decides, and both read it back.

use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use subtle::ConstantTimeEq as _;

use crate::state::StateDir;

/// Where the environment may hold the token, the first one first.
pub(crate) const VARIABLES: [&str; 2] = ["HOLDFAST_TOKEN", "OPENCLAW_GATEWAY_TOKEN"];
/// The token's file in the state directory.
const FILE: &str = "token";
/// How much randomness a generated token holds, in bytes.
const RANDOM_BYTES: usize = 32;
/// The longest token that is read from a file, in bytes.
const LONGEST: usize = 4096;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenUnusable {
    /// Set, but to nothing.
    #[error("{source_name} is empty; set it to a secret or remove it")]
    Empty {
        /// The variable or file.
        source_name: String,
    },
    /// The file is no token.
    #[error("{} is longer than the {LONGEST} bytes a token may have", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("could not read the token from {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel gave no randomness.
    #[error("could not generate a token")]
    Random {
        /// What it said.
        source: getrandom::Error,
    },
    /// The file cannot be written.
    #[error("could not write the token to {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Where the token lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenSource {
    /// An environment variable of this name.
    Variable(&'static str),
    /// A file.
    File(PathBuf),
}

/// The secret that every client of this gateway knows.
pub(crate) struct SharedToken {
    secret: Box<[u8]>,
}

impl fmt::Debug for SharedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedToken(…)")
    }
}

impl SharedToken {
    /// The token somebody has set, or that an earlier start generated.
    ///
    /// # Errors
    /// [`TokenUnusable`], when one is set that cannot be used.
    pub(crate) fn find(state: &StateDir) -> Result<Option<(Self, TokenSource)>, TokenUnusable> {
        for name in VARIABLES {
            if let Some(value) = std::env::var_os(name) {
                let token = Self::parse(value.as_bytes(), || name.to_owned())?;
                return Ok(Some((token, TokenSource::Variable(name))));
            }
        }
        let path = state.path().join(FILE);
        match std::fs::read(&path) {
            Ok(content) if content.len() > LONGEST => Err(TokenUnusable::TooLong { path }),
            Ok(content) => {
                let token = Self::parse(&content, || path.display().to_string())?;
                Ok(Some((token, TokenSource::File(path))))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(TokenUnusable::Read { path, source }),
        }
    }

    /// Generates a token into the state directory, unless another worker was faster: then it is theirs.
    ///
    /// # Errors
    /// [`TokenUnusable`].
    pub(crate) fn generate(state: &StateDir) -> Result<(Self, TokenSource), TokenUnusable> {
        let path = state.path().join(FILE);
        let mut random = [0; RANDOM_BYTES];
        getrandom::fill(&mut random).map_err(|source| TokenUnusable::Random { source })?;
        let mut written = String::with_capacity(2 * RANDOM_BYTES + 1);
        for byte in random {
            written.extend(
                [byte >> 4, byte & 15]
                    .map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])),
            );
        }
        written.push('\n');
        state
            .create_once(FILE, written.as_bytes())
            .map_err(|source| TokenUnusable::Write { path: path.clone(), source })?;
        let content = std::fs::read(&path)
            .map_err(|source| TokenUnusable::Read { path: path.clone(), source })?;
        let token = Self::parse(&content, || path.display().to_string())?;
        Ok((token, TokenSource::File(path)))
    }

    /// Whether `presented` is the token. The time it takes depends on the lengths alone.
    pub(crate) fn is(&self, presented: &[u8]) -> bool {
        self.secret.ct_eq(presented).into()
    }

    fn parse(bytes: &[u8], source_name: impl FnOnce() -> String) -> Result<Self, TokenUnusable> {
        // An editor, `echo` or a mounted secret may have added a line end.
        let secret = bytes.trim_ascii();
        if secret.is_empty() {
            return Err(TokenUnusable::Empty { source_name: source_name() });
        }
        Ok(Self { secret: secret.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> (tempfile::TempDir, StateDir) {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(Some(dir.path().to_owned())).unwrap();
        (dir, state)
    }

    fn token(secret: &str) -> SharedToken {
        SharedToken::parse(secret.as_bytes(), String::new).unwrap()
    }

    #[test]
    fn only_the_whole_token_is_the_token() {
        let token = token("correct horse\n");
        assert!(token.is(b"correct horse"));
        for wrong in ["", "correct", "correct horse ", "correct horsf", "CORRECT HORSE"] {
            assert!(!token.is(wrong.as_bytes()), "{wrong}");
        }
    }

    #[test]
    fn a_token_is_never_formatted() {
        assert!(!format!("{:?}", token("hunter2")).contains("hunter2"));
    }

    #[test]
    fn an_empty_token_is_refused_by_the_name_of_where_it_was_found() {
        let (_dir, state) = state();
        std::fs::write(state.path().join(FILE), " \n").unwrap();
        let refused = SharedToken::find(&state).unwrap_err();
        assert!(refused.to_string().contains("token is empty"), "{refused}");
    }

    #[test]
    fn a_generated_token_is_long_found_again_and_not_generated_twice() {
        let (_dir, state) = state();
        let (first, source) = SharedToken::generate(&state).unwrap();
        assert_eq!(first.secret.len(), 2 * RANDOM_BYTES);
        let (again, _) = SharedToken::generate(&state).unwrap();
        assert!(again.is(&first.secret));
        let TokenSource::File(path) = source else { panic!("not in a file") };
        assert_eq!(std::fs::read(path).unwrap().trim_ascii(), &*first.secret);
    }
}
