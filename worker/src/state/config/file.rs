//! The configuration's file: where it is and what it says.
//!
//! **Invariants**
//! - However long a file is, no more than [`LARGEST`] bytes of it are read.
//! - A file that is not there is an empty configuration; its hash is that of nothing.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// The longest file, in bytes.
pub(crate) const LARGEST: u64 = 4 * 1024 * 1024;
/// The file's name in OpenClaw's directory.
/// What the configuration is called.
pub(crate) const NAME: &str = "openclaw.json";

/// Why a file says nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadFailed {
    /// It cannot be read.
    #[error("could not read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Nobody writes that much by hand.
    #[error("{} is longer than {LARGEST} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Not UTF-8.
    #[error("{} is no text in UTF-8", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
}

/// Where the configuration is when nobody says: where OpenClaw has it. `None` without a home.
pub(crate) fn usual_path() -> Option<PathBuf> {
    let directory = match std::env::var_os("OPENCLAW_STATE_DIR").filter(|dir| !dir.is_empty()) {
        Some(directory) => PathBuf::from(directory),
        None => std::env::home_dir()?.join(".openclaw"),
    };
    Some(directory.join(NAME))
}

/// The file's text; `None` when there is no file.
///
/// # Errors
/// [`ReadFailed`].
pub(crate) fn read(path: &Path) -> Result<Option<String>, ReadFailed> {
    let failed = |source| ReadFailed::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if bytes.len() as u64 > LARGEST {
        return Err(ReadFailed::TooLarge { path: path.to_owned() });
    }
    String::from_utf8(bytes).map(Some).map_err(|_| ReadFailed::NotText { path: path.to_owned() })
}

/// What clients know a text by: the SHA-256 of its bytes, in hex.
pub(crate) fn hash(text: Option<&str>) -> String {
    let digest = Sha256::digest(text.unwrap_or_default());
    digest.iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_the_sha_256_of_the_bytes() {
        let of_nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hash(None), of_nothing);
        assert_eq!(hash(Some("")), of_nothing);
        let of_abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash(Some("abc")), of_abc);
    }

    #[test]
    fn a_file_that_is_no_text_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        std::fs::write(&path, [0xff]).unwrap();
        assert!(matches!(read(&path), Err(ReadFailed::NotText { .. })));
        File::create(&path).unwrap().set_len(LARGEST + 1).unwrap();
        assert!(matches!(read(&path), Err(ReadFailed::TooLarge { .. })));
    }
}
