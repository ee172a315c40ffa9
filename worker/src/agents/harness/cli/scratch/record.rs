//! Who owns a scratch directory, as written down beside it.

use std::io::{self, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::life::{Life, pid_namespace};

/// The longest record that is read, in bytes; today's have about 150.
const LONGEST: u64 = 4096;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    pub(super) version: u32,
    /// The worker.
    pub(super) owner: Life,
    /// Who lives in it, once somebody does.
    pub(super) child: Option<Life>,
    /// Where their ids mean something.
    pub(super) namespace: String,
}

impl Record {
    /// That this process owns it.
    pub(super) fn of_this_process(child: Option<Life>) -> io::Result<Self> {
        Ok(Self { version: 1, owner: Life::own()?, child, namespace: pid_namespace()? })
    }

    /// Reads one; `None` for what is none, or is of a version that is not known.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let mut text = String::new();
        let file = std::fs::File::open(path).ok()?;
        io::Read::read_to_string(&mut io::Read::take(file, LONGEST), &mut text).ok()?;
        serde_json::from_str(&text).ok().filter(|record: &Self| record.version == 1)
    }

    /// Writes it, whole or not at all. It need not outlast a power failure: no process does.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.persist(path).map_err(|refused| refused.error)?;
        Ok(())
    }
}
