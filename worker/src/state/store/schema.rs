//! The tables, and how they change while two generations use them.
//!
//! ```text
//!  version of the database     a worker that knows versions up to N
//!  ───────────────────────     ───────────────────────────────────────────
//!  less than N                 migrates it to N, before it is ready
//!  N                           uses it
//!  N + 1                       uses it as it is: that is what a rollback needs
//!  more                        refuses it
//! ```
//!
//! The successor migrates while the incumbent works on, and may then be rolled back. So the rules for
//! a migration from N to N + 1 are:
//! 1. It only adds: tables, indexes that are not unique, columns that may be NULL or have a default.
//! 2. It gives no column a new meaning and writes no word into it that N does not know, and what N writes
//!    still means what it meant.
//! 3. What N + 1 has no use for stays until N + 2, which no worker of version N opens.
//! 4. It is short: the incumbent's writes wait for it, and give up after `busy_timeout`.
//!
//! And for statements: columns are named, in `SELECT` and in `INSERT`, so that more of them do no harm.
//!
//! **Invariants**
//! - A migration happens wholly or not at all, and once, however many processes begin it at a time: it runs under
//!   the lock of `state.sqlite.migrating`, in a transaction that begins by reading the version again.
//! - A database that is up to date is opened without that lock.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::{BUSY_TIMEOUT, OpenFailed};

/// Each entry leads from the version that is its index to the next.
pub(super) const MIGRATIONS: &[&str] = &[V1];

const V1: &str = "
CREATE TABLE lease (
    name TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    front_grant INTEGER NOT NULL,
    epoch INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE sessions (
    key TEXT PRIMARY KEY,
    session_id TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    label TEXT,
    model TEXT,
    model_provider TEXT,
    spawned_by TEXT,
    attributes TEXT NOT NULL DEFAULT '{}',
    last_seq INTEGER NOT NULL DEFAULT 0,
    message_count INTEGER NOT NULL DEFAULT 0,
    input_tokens INTEGER NOT NULL DEFAULT 0,
    output_tokens INTEGER NOT NULL DEFAULT 0,
    run_status TEXT,
    run_started_at_ms INTEGER,
    run_ended_at_ms INTEGER,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX sessions_by_label ON sessions (agent_id, label);
CREATE INDEX sessions_by_update ON sessions (updated_at_ms);

CREATE TABLE messages (
    session_key TEXT NOT NULL REFERENCES sessions (key) ON DELETE CASCADE,
    seq INTEGER NOT NULL,
    session_id TEXT NOT NULL,
    role TEXT NOT NULL,
    content TEXT NOT NULL,
    run_id TEXT,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (session_key, seq)
) STRICT;

CREATE TABLE idempotency (
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    run_id TEXT NOT NULL,
    holder TEXT NOT NULL,
    result TEXT,
    expires_at_ms INTEGER NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_by_expiry ON idempotency (expires_at_ms);

CREATE TABLE cron_jobs (
    id TEXT PRIMARY KEY,
    definition TEXT NOT NULL,
    enabled INTEGER NOT NULL,
    revision INTEGER NOT NULL DEFAULT 1,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    next_run_at_ms INTEGER,
    next_set_at_ms INTEGER,
    requested_run TEXT,
    running_run TEXT,
    running_holder TEXT,
    running_at_ms INTEGER,
    last_run_at_ms INTEGER,
    last_status TEXT,
    last_error TEXT,
    last_duration_ms INTEGER,
    consecutive_errors INTEGER NOT NULL DEFAULT 0,
    consecutive_skipped INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE cron_runs (
    run_id TEXT PRIMARY KEY,
    job_id TEXT NOT NULL,
    holder TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    due_at_ms INTEGER,
    started_at_ms INTEGER NOT NULL,
    finished_at_ms INTEGER,
    status TEXT,
    error TEXT,
    summary TEXT,
    session_id TEXT,
    session_key TEXT,
    model TEXT,
    provider TEXT,
    next_run_at_ms INTEGER
) STRICT;
CREATE INDEX cron_runs_by_job ON cron_runs (job_id, finished_at_ms);
CREATE INDEX cron_runs_by_time ON cron_runs (finished_at_ms);
";

/// Opens the database for writing, and migrates it when it is of an earlier version.
///
/// `FULL` makes every commit wait until the log is on the disk. With `NORMAL` a power failure would take back
/// what a client has been told; batches (see `lane`) make the wait bearable.
pub(super) fn open(path: &Path, migrations: &[&str]) -> Result<Connection, OpenFailed> {
    let mut connection = connect(path)?;
    connection
        .pragma_update(None, "synchronous", "FULL")
        // What a long reader has made the log grow to is given back.
        .and_then(|()| connection.pragma_update(None, "journal_size_limit", 16 << 20))
        .and_then(|()| connection.pragma_update(None, "foreign_keys", true))
        // What a savepoint may have to undo beyond 64 KiB would go to a file, for which there may be no descriptor.
        .and_then(|()| connection.pragma_update(None, "temp_store", "memory"))
        .map_err(|source| OpenFailed::Sql { doing: "set up the database", source })?;
    if needs_migration(&connection, migrations)? {
        let _lock = lock(path)?;
        // Once for all: it is a property of the file, and changing it must not meet another opener.
        connection
            .pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0))
            .map_err(|source| OpenFailed::Sql { doing: "switch the database to WAL", source })
            .and_then(|mode| match mode.as_str() {
                "wal" => Ok(()),
                _ => Err(OpenFailed::NoWal { mode }),
            })?;
        migrate(&mut connection, migrations)?;
    }
    Ok(connection)
}

/// Opens a database that has been opened before, for reading alone.
pub(super) fn open_to_read(path: &Path) -> Result<Connection, OpenFailed> {
    let connection = connect(path)?;
    connection
        .pragma_update(None, "query_only", true)
        .map_err(|source| OpenFailed::Sql { doing: "set up the database", source })?;
    Ok(connection)
}

fn connect(path: &Path) -> Result<Connection, OpenFailed> {
    // Not CREATE: the file exists, with the mode it should have. Not a URI: a path may hold a `?`.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(connection)
    };
    open().map_err(|source| OpenFailed::Sql { doing: "open the database", source })
}

fn needs_migration(connection: &Connection, migrations: &[&str]) -> Result<bool, OpenFailed> {
    let read = || -> rusqlite::Result<(i64, String)> {
        let mode = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
        Ok((version(connection)?, mode))
    };
    let (found, mode) = read()
        .map_err(|source| OpenFailed::Sql { doing: "read the database's version", source })?;
    let newest = i64::try_from(migrations.len()).unwrap_or(i64::MAX);
    // What is negative is none of ours.
    if found < 0 || found > newest + 1 {
        return Err(OpenFailed::TooNew { found, newest });
    }
    Ok(found < newest || mode != "wal")
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// One process at a time migrates. Whoever opens has a deadline, and gives up on this when it is over.
fn lock(path: &Path) -> Result<File, OpenFailed> {
    let mut lock = PathBuf::from(path).into_os_string();
    lock.push(".migrating");
    let failed = |source| OpenFailed::Create { path: PathBuf::from(&lock), source };
    let file = File::options().create(true).append(true).mode(0o600).open(&lock).map_err(failed)?;
    file.lock().map_err(failed)?;
    Ok(file)
}

/// Each step in a transaction of its own, so that the incumbent gets its turn in between.
fn migrate(connection: &mut Connection, migrations: &[&str]) -> Result<(), OpenFailed> {
    for (to, sql) in (1..).zip(migrations) {
        let mut step = || {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if version(&transaction)? == to - 1 {
                transaction.execute_batch(sql)?;
                transaction.pragma_update(None, "user_version", to)?;
            }
            transaction.commit()
        };
        step().map_err(|source| OpenFailed::Migrate { to, source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::cron_afterwards::Afterwards;
    use super::super::cron_jobs::{Edit, JobId, NextRun, RunId, Which};
    use super::super::cron_runs::{Cause, RunClaim, RunOutcome, Status};
    use super::super::idempotency::{Claim, IdempotencyKey};
    use super::super::messages::{HistoryWindow, NewMessage};
    use super::super::run_list::RunFilter;
    use super::super::session_list::SessionFilter;
    use super::super::sessions::{NewSession, SessionPatch};
    use super::super::shared::Shared;
    use super::super::{OpenFailed, Store};
    use super::*;

    /// What a next release might do, in each of the ways that the rules allow, to each table.
    const NEXT: &str = "
        ALTER TABLE lease ADD COLUMN extra TEXT;
        ALTER TABLE sessions ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE messages ADD COLUMN tokens INTEGER;
        ALTER TABLE idempotency ADD COLUMN extra TEXT NOT NULL DEFAULT '';
        ALTER TABLE cron_jobs ADD COLUMN extra TEXT;
        ALTER TABLE cron_runs ADD COLUMN extra TEXT;
        CREATE TABLE pictures (id TEXT PRIMARY KEY, session_key TEXT REFERENCES sessions (key)) STRICT;
        CREATE INDEX messages_by_run ON messages (run_id);
    ";
    const WITH_NEXT: &[&str] = &[V1, NEXT];
    const WITH_TWO: &[&str] = &[V1, NEXT, "CREATE TABLE third (id TEXT) STRICT;"];
    const BROKEN: &[&str] =
        &[V1, "CREATE TABLE half (id TEXT) STRICT; CREATE TABLE half (id TEXT);"];

    #[test]
    fn however_much_a_part_of_a_batch_changes_no_file_is_opened_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.sqlite");
        std::fs::write(&path, "").unwrap();
        let connection = open(&path, &["CREATE TABLE t (a BLOB) STRICT"]).unwrap();
        let fill = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
                    INSERT INTO t SELECT zeroblob(4000) FROM n";
        connection.execute(fill, []).unwrap();
        connection
            .execute_batch("BEGIN; SAVEPOINT part; UPDATE t SET a = randomblob(4000)")
            .unwrap();
        let targets = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let files = targets.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        // A file without a name, and one with a name of SQLite's.
        let is_temporary = |file: &PathBuf| {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with('#') || name.starts_with("etilqs_")
        };
        let temporary: Vec<_> = files.filter(is_temporary).collect();
        assert!(temporary.is_empty(), "{temporary:?}");
    }

    /// Every operation once, with what it must answer.
    async fn use_everything(store: &Store, tag: &str) {
        let key = format!("agent:main:{tag}");
        let new = NewSession {
            key: key.clone(),
            session_id: "s1".to_owned(),
            agent_id: "main".to_owned(),
            label: Some(tag.to_owned()),
            ..NewSession::default()
        };
        store.ensure_session(new, 1).await.unwrap();
        let message = NewMessage { role: "user".to_owned(), content: "1".to_owned(), run_id: None };
        assert_eq!(store.append_messages(&key, "s1", vec![message], 2).await.unwrap(), 1);
        let window = HistoryWindow { limit: 10, max_bytes: 100, before_seq: None };
        assert_eq!(store.history(&key, window).await.unwrap().len(), 1);
        let patch = SessionPatch { model: Some(Some("m".to_owned())), ..SessionPatch::default() };
        assert_eq!(store.patch_session(&key, patch, 3).await.unwrap().model.unwrap(), "m");
        store.reset_session(&key, "s2", 4).await.unwrap();
        assert!(store.sessions(SessionFilter::default()).await.unwrap().total >= 1);

        let idempotent = IdempotencyKey { scope: "s".to_owned(), key: tag.to_owned() };
        let claim = store.claim_key(idempotent.clone(), "r", 0, 9).await.unwrap();
        assert_eq!(claim, Claim::New);
        store.finish_key(idempotent, "r", "1".to_owned(), 9).await.unwrap();

        let held = store.take_lease(u64::try_from(tag.len()).unwrap()).await.unwrap();
        let (id, run_id) = (JobId(format!("j-{tag}")), RunId(format!("r-{tag}")));
        let next = Some(NextRun { at_ms: 10, set_at_ms: 5 });
        let edit = Edit { definition: "{}".to_owned(), enabled: true, next };
        let job = store.add_job(id.clone(), edit.clone(), 5).await.unwrap();
        let job = store.edit_job(id.clone(), job.revision, edit, 6).await.unwrap();
        assert!(store.jobs(Which::Scheduled).await.unwrap().contains(&job));
        let cause = Cause::Due { at_ms: 10, next: None };
        let revision = job.revision;
        let claim =
            RunClaim { job: id.clone(), revision, cause, run_id: run_id.clone(), now_ms: 10 };
        assert!(store.claim_run(held, claim).await.unwrap().running.is_some());
        let outcome = RunOutcome::of(Status::Ok);
        store.finish_run(run_id, revision, outcome, Afterwards::Disable, 12).await.unwrap();
        let filter = RunFilter { job: Some(id.clone()), ..RunFilter::default() };
        assert_eq!(store.runs(filter).await.unwrap().total, 1);
        assert!(store.remove_job(id).await.unwrap().is_some());
        assert!(store.delete_session(&key).await.unwrap());
    }

    #[tokio::test]
    async fn the_incumbent_works_on_while_the_successor_migrates_and_after_a_rollback() {
        let shared = Shared::new();
        let incumbent = shared.open("g1").await;
        use_everything(&incumbent, "a").await;
        let successor = shared.open_as("g2", WITH_NEXT).await.unwrap();
        use_everything(&incumbent, "ab").await;
        use_everything(&successor, "abc").await;
        drop(successor);
        use_everything(&incumbent, "abcd").await;
        drop(incumbent);
        // Back for good: a worker of this version opens the database of the next.
        let back = shared.open("g3").await;
        use_everything(&back, "abcde").await;
        assert_eq!(version(&shared.raw()).unwrap(), 2, "and does not take the version back");
    }

    #[tokio::test]
    async fn a_database_two_versions_ahead_is_refused() {
        let shared = Shared::new();
        drop(shared.open_as("g2", WITH_TWO).await.unwrap());
        let refused = shared.open_as("g1", MIGRATIONS).await.unwrap_err();
        assert!(matches!(refused, OpenFailed::TooNew { found: 3, newest: 1 }), "{refused}");
        shared.open_as("g3", WITH_NEXT).await.unwrap();
    }

    #[tokio::test]
    async fn a_migration_that_fails_changes_nothing() {
        let shared = Shared::new();
        let incumbent = shared.open("g1").await;
        let failed = shared.open_as("g2", BROKEN).await.unwrap_err();
        assert!(matches!(failed, OpenFailed::Migrate { to: 2, .. }), "{failed}");
        assert_eq!(version(&shared.raw()).unwrap(), 1);
        use_everything(&incumbent, "a").await;
        use_everything(&shared.open_as("g3", WITH_NEXT).await.unwrap(), "ab").await;
    }

    #[tokio::test]
    async fn many_who_open_at_once_migrate_once() {
        let shared = Shared::new();
        let opening = (0..6).map(|n| {
            let migrations = if n % 2 == 0 { MIGRATIONS } else { WITH_NEXT };
            shared.open_as("g", migrations)
        });
        for opened in futures_util::future::join_all(opening).await {
            opened.unwrap();
        }
        assert_eq!(version(&shared.raw()).unwrap(), 2);
    }

    #[tokio::test]
    async fn the_database_and_what_lies_beside_it_are_the_owners_alone() {
        use std::os::unix::fs::PermissionsExt as _;

        let shared = Shared::new();
        let store = shared.open("g1").await;
        use_everything(&store, "a").await;
        let mut seen = 0;
        for entry in std::fs::read_dir(shared.at().path()).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            let private = if entry.path().is_dir() { 0o700 } else { 0o600 };
            assert_eq!(mode, private, "{}", entry.path().display());
            seen += 1;
        }
        assert_eq!(seen, 5, "the database, its log and index, the lock and the holders");
    }
}
