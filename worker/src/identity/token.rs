//! The shared token: where it comes from, and how one that is presented is compared.
//!
//! ```text
//! HOLDFAST_TOKEN → OPENCLAW_GATEWAY_TOKEN → gateway.auth.token → <state dir>/token → generated into that file
//! ```
//!
//! The first of them that is set decides, also when it is set to something that cannot be used: nobody is to find
//! out by being let in which one it was. `gateway.auth.token` may name a variable, `${NAME}`, as all of the
//! configuration may.
//!
//! **Invariants**
//! - The token is never logged, printed or formatted: its `Debug` says nothing.
//! - Two workers that generate at the same time end with the same token: the file's creation
//!   decides, and both read it back.

use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::state::StateDir;
use crate::state::config::Settled;

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
    /// The configuration says where it is, and that is nowhere within reach.
    #[error(
        "gateway.auth.token names a place that this gateway cannot read; set {} instead",
        VARIABLES[1]
    )]
    Elsewhere,
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
    /// `gateway.auth.token` of the configuration at this path.
    Config(PathBuf),
    /// A file.
    File(PathBuf),
}

/// What tells a token from others without being one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fingerprint(u64);

/// The secret that every client of this gateway knows.
pub(crate) struct SharedToken {
    secret: Box<[u8]>,
    fingerprint: Fingerprint,
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
    pub(crate) fn find(
        state: &StateDir,
        config: &Settled,
        config_path: &Path,
    ) -> Result<Option<(Self, TokenSource)>, TokenUnusable> {
        for name in VARIABLES {
            if let Some(value) = std::env::var_os(name) {
                let token = Self::parse(value.as_bytes(), || name.to_owned())?;
                return Ok(Some((token, TokenSource::Variable(name))));
            }
        }
        if let Some(secret) = &config.config().gateway.auth.token {
            let revealed = config.reveal(secret).ok_or(TokenUnusable::Elsewhere)?;
            let token = Self::parse(revealed.as_bytes(), || "gateway.auth.token".to_owned())?;
            return Ok(Some((token, TokenSource::Config(config_path.to_owned()))));
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

    /// What tells it from others.
    pub(crate) const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    fn parse(bytes: &[u8], source_name: impl FnOnce() -> String) -> Result<Self, TokenUnusable> {
        // An editor, `echo` or a mounted secret may have added a line end.
        let secret = bytes.trim_ascii();
        if secret.is_empty() {
            return Err(TokenUnusable::Empty { source_name: source_name() });
        }
        let digest = Sha256::digest(secret);
        let first = digest.first_chunk().expect("a digest has more than eight bytes");
        let fingerprint = Fingerprint(u64::from_be_bytes(*first));
        Ok(Self { secret: secret.into(), fingerprint })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::config::{Environment, understand};

    fn state() -> (tempfile::TempDir, StateDir) {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(Some(dir.path().to_owned())).unwrap();
        (dir, state)
    }

    fn found(
        state: &StateDir,
        config: &str,
    ) -> Result<Option<(SharedToken, TokenSource)>, TokenUnusable> {
        let environment = Environment::of([("ITS_NAME", "of the config")]);
        let settled = understand(config, &environment).unwrap().settled;
        SharedToken::find(state, &settled, "/openclaw.json".as_ref())
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
        let refused = found(&state, "{}").unwrap_err();
        assert!(refused.to_string().contains("token is empty"), "{refused}");
        let refused = found(&state, "{gateway: {auth: {token: ' '}}}").unwrap_err();
        assert!(refused.to_string().contains("gateway.auth.token is empty"), "{refused}");
    }

    #[test]
    fn the_configurations_token_goes_before_the_file_and_may_name_a_variable() {
        let (_dir, state) = state();
        assert!(found(&state, "{}").unwrap().is_none());
        std::fs::write(state.path().join(FILE), "of the file").unwrap();
        let (token, source) = found(&state, "{}").unwrap().unwrap();
        assert!(token.is(b"of the file"));
        assert_eq!(source, TokenSource::File(state.path().join(FILE)));
        for text in [
            "{gateway: {auth: {token: 'of the config'}}}",
            "{gateway: {auth: {token: '${ITS_NAME}'}}}",
            "{gateway: {auth: {token: {source: 'env', id: 'ITS_NAME'}}}}",
        ] {
            let (token, source) = found(&state, text).unwrap().unwrap();
            assert!(token.is(b"of the config"), "{text}");
            assert_eq!(source, TokenSource::Config("/openclaw.json".into()));
        }
        let text = "{gateway: {auth: {token: {source: 'file', id: '/x'}}}}";
        let refused = found(&state, text).unwrap_err();
        assert!(refused.to_string().ends_with("set OPENCLAW_GATEWAY_TOKEN instead"), "{refused}");
    }

    #[test]
    fn tokens_are_told_apart_without_showing_them() {
        let [one, same, other] =
            ["one", " one\n", "other"].map(|secret| token(secret).fingerprint());
        assert_eq!(one, same);
        assert_ne!(one, other);
        assert_eq!(
            serde_json::from_str::<Fingerprint>(&serde_json::to_string(&one).unwrap()).unwrap(),
            one
        );
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
