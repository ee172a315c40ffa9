//! What all generations remember together: one SQLite database in the state directory.
//!
//! ```text
//!   generation 7                          generation 8
//!   methods, cron                         methods, cron
//!      │ typed operations                    │
//!   Store ─► writer thread ─┐             Store ─► writer thread ─┐
//!        └─► reader thread ─┤                  └─► reader thread ─┤
//!                           └──► state.sqlite (WAL) ◄─────────────┘
//! ```
//!
//! Both generations may write what clients ask for. What the schedule writes is for the holder of the
//! writer lease alone, which each such write checks in its own transaction (`lease`).
//!
//! **Invariants**
//! - What was answered survives a power failure (`schema::open` says how), as far as the disk keeps what it was told
//!   to keep.
//! - No SQL outside this folder; no operation is half done.
//! - A worker opens the database of the next version, so a takeover to it can be rolled back (`schema`).

#[cfg(test)]
mod conversations;
pub(crate) mod cron_afterwards;
pub(crate) mod cron_jobs;
pub(crate) mod cron_runs;
mod filesystem;
#[cfg(test)]
mod hammer;
pub(crate) mod idempotency;
mod lane;
pub(crate) mod lease;
pub(crate) mod messages;
mod presence;
pub(crate) mod run_list;
pub(crate) mod said;
mod schema;
pub(crate) mod session_list;
pub(crate) mod session_run;
pub(crate) mod sessions;
#[cfg(test)]
pub(crate) mod shared;
pub(crate) mod turns;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};

use self::filesystem::Unsuitable;
use self::lane::{Access, Lane, SqlError};
pub(crate) use self::presence::Holder;
use self::presence::Presence;
use super::StateDir;

/// The database's name in the state directory.
pub(crate) const FILE: &str = "state.sqlite";
/// How long a write waits for another process's write.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenFailed {
    /// It would lie where it cannot be shared.
    #[error("the state directory cannot hold a database")]
    Unsuitable {
        /// Why.
        source: Unsuitable,
    },
    /// A file could not be made.
    #[error("could not create {}", path.display())]
    Create {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is no thread for it.
    #[error("could not start a thread for the database")]
    Thread {
        /// What the kernel said.
        source: io::Error,
    },
    /// SQLite would not.
    #[error("could not {doing}")]
    Sql {
        /// What we were doing.
        doing: &'static str,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// It cannot be shared without its write-ahead log.
    #[error("the database cannot use a write-ahead log here; its journal mode stays {mode}")]
    NoWal {
        /// What it uses.
        mode: String,
    },
    /// It was written by a worker that is too new.
    #[error(
        "the database has version {found}, and this worker knows versions up to {newest}; \
         start a newer worker, or go back one release at a time"
    )]
    TooNew {
        /// Its version.
        found: i64,
        /// Ours.
        newest: i64,
    },
    /// A migration failed, and changed nothing.
    #[error("could not migrate the database to version {to}")]
    Migrate {
        /// To which version.
        to: i64,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// It took too long.
    #[error("the database was not open within {limit:?}; another process may hold it")]
    TimedOut {
        /// The limit.
        limit: Duration,
    },
    /// Its thread ended.
    #[error("the database's thread panicked")]
    Panicked,
}

/// Why an operation did not happen, whatever it was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreFailed {
    /// Another process wrote all the time.
    #[error("could not {doing}: another process kept the database for {BUSY_TIMEOUT:?}")]
    Busy {
        /// What we were doing.
        doing: &'static str,
    },
    /// SQLite would not.
    #[error("could not {doing}")]
    Sql {
        /// What we were doing.
        doing: &'static str,
        /// What SQLite said.
        source: SqlError,
    },
    /// There is nobody to do it.
    #[error("could not {doing}: the database is closed")]
    Gone {
        /// What we were doing.
        doing: &'static str,
    },
}

impl StoreFailed {
    fn from_sql(doing: &'static str, source: SqlError) -> Self {
        match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy) => Self::Busy { doing },
            _ => Self::Sql { doing, source },
        }
    }
}

/// The database, open. Copies share its two threads.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    writer: Lane,
    reader: Lane,
    presence: Arc<Presence>,
}

impl Store {
    /// Opens the database in `state`, creating or migrating it, and says that a generation named `label` is alive.
    /// Call it before ready: a migration takes its time, and the incumbent serves meanwhile.
    ///
    /// # Errors
    /// [`OpenFailed`]. Within 30 s, also when another process does not let go.
    pub(crate) async fn open(state: &StateDir, label: &str) -> Result<Self, OpenFailed> {
        Self::open_as(state, label, schema::MIGRATIONS).await
    }

    async fn open_as(
        state: &StateDir,
        label: &str,
        migrations: &'static [&'static str],
    ) -> Result<Self, OpenFailed> {
        filesystem::check(state.path()).map_err(|source| OpenFailed::Unsuitable { source })?;
        let path = state.path().join(FILE);
        // Empty is a database too. SQLite would make it readable for everybody, as the umask has it; the log and the
        // index beside it get the mode of this file.
        state
            .create_once(FILE, b"")
            .map_err(|source| OpenFailed::Create { path: path.clone(), source })?;
        let presence = Presence::announce(state.path(), label)
            .map_err(|source| OpenFailed::Create { path: state.path().join("holders"), source })?;
        let opening = path.clone();
        let writer = Lane::start(Access::Write, move || schema::open(&opening, migrations)).await?;
        let reader = Lane::start(Access::Read, move || schema::open_to_read(&path)).await?;
        Ok(Self { writer, reader, presence: Arc::new(presence) })
    }

    /// Who we are to the others.
    pub(crate) fn holder(&self) -> &Holder {
        self.presence.holder()
    }

    /// Whether another generation has the database open.
    pub(crate) fn others_are_alive(&self) -> bool {
        self.presence.others_are_alive()
    }

    async fn write<T: Send + 'static, R: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Connection) -> rusqlite::Result<Result<T, R>> + Send + 'static,
    ) -> Result<Result<T, R>, StoreFailed> {
        self.writer.run(doing, work).await
    }

    async fn read<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreFailed> {
        let work = move |connection: &Connection| work(connection).map(Ok::<T, Never>);
        match self.reader.run(doing, work).await? {
            Ok(found) => Ok(found),
            Err(never) => match never {},
        }
    }
}

/// The refusal of what cannot refuse.
enum Never {}
