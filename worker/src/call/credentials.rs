//! The token that a call shows.
//!
//! ```text
//! --token-file → HOLDFAST_TOKEN → OPENCLAW_GATEWAY_TOKEN → gateway.auth.token of the configuration → <state dir>/token
//! ```
//!
//! **Invariants**
//! - It is never an argument, and its `Debug` says nothing.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use super::destination::settled;
use crate::state::config::Environment;

/// The longest token that is read from a file, in bytes.
const LONGEST: u64 = 4096;
/// The token's file in the state directory.
const FILE: &str = "token";

/// A token that is shown to the gateway.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Serialize for Token {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenUnreadable {
    /// There is nothing in it.
    #[error("{} is empty; write the gateway's token to it or remove it", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Not text.
    #[error("{} is no text in UTF-8 of at most {LONGEST} bytes", path.display())]
    NotText {
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
}

impl Token {
    /// The first that somebody has set; `None` when nobody has: the gateway then says what it wants.
    ///
    /// # Errors
    /// [`TokenUnreadable`].
    pub(super) fn find(
        file: Option<&Path>,
        state_dir: Option<&Path>,
        config: Option<&Path>,
        environment: &Environment,
    ) -> Result<Option<Self>, TokenUnreadable> {
        if let Some(path) = file {
            return Self::read(path).map(Some);
        }
        if let Some(token) = environment.token() {
            return Ok(Some(Self(token.trim().to_owned())));
        }
        // A configuration that cannot be used has no token; where it is needed for more, that is said.
        if let Ok(settled) = settled(config, environment) {
            let token = settled.config().gateway.auth.token.as_ref();
            let revealed = token.and_then(|token| settled.reveal(token)).map(str::trim);
            if let Some(token) = revealed.filter(|token| !token.is_empty()) {
                return Ok(Some(Self(token.to_owned())));
            }
        }
        let Some(dir) = state_dir else { return Ok(None) };
        match Self::read(&dir.join(FILE)) {
            Ok(token) => Ok(Some(token)),
            // Nobody has made one.
            Err(TokenUnreadable::Read { source, .. })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                Ok(None)
            }
            Err(unreadable) => Err(unreadable),
        }
    }

    fn read(path: &Path) -> Result<Self, TokenUnreadable> {
        let failed = |source| TokenUnreadable::Read { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(failed)?;
        file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
        let is_short = bytes.len() as u64 <= LONGEST;
        let Some(text) = String::from_utf8(bytes).ok().filter(|_| is_short) else {
            return Err(TokenUnreadable::NotText { path: path.to_owned() });
        };
        // An editor, `echo` or a mounted secret may have added a line end.
        match text.trim_ascii() {
            "" => Err(TokenUnreadable::Empty { path: path.to_owned() }),
            token => Ok(Self(token.to_owned())),
        }
    }
}
