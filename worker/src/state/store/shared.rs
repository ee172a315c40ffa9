//! A state directory that several stores share, for tests.

use rusqlite::Connection;
use tempfile::TempDir;

use super::messages::{AppendFailed, NewMessage, append};
use super::{FILE, OpenFailed, Store};
use crate::state::StateDir;

/// Removed with everything in it when dropped.
pub(crate) struct Shared {
    dir: TempDir,
}

impl Shared {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn at(&self) -> StateDir {
        StateDir::open(Some(self.dir.path().to_owned())).unwrap()
    }

    pub(crate) async fn open(&self, label: &str) -> Store {
        Store::open(&self.at(), label).await.unwrap()
    }

    pub(crate) async fn open_as(
        &self,
        label: &str,
        migrations: &'static [&'static str],
    ) -> Result<Store, OpenFailed> {
        Store::open_as(&self.at(), label, migrations).await
    }

    /// Looks into the database past the store.
    pub(crate) fn raw(&self) -> Connection {
        Connection::open(self.dir.path().join(FILE)).unwrap()
    }

    pub(crate) fn count(&self, table: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        self.raw().query_row(&sql, [], |row| row.get(0)).unwrap()
    }
}

impl Store {
    /// Appends messages to the life `session_id` of a session, all or none, as turns do in one step with all else.
    /// Says the `seq` of the last one.
    pub(crate) async fn append_messages(
        &self,
        key: &str,
        session_id: &str,
        messages: Vec<NewMessage>,
        now_ms: i64,
    ) -> Result<i64, AppendFailed> {
        let shown = key.to_owned();
        let (key, life) = (shown.clone(), session_id.to_owned());
        let work =
            move |connection: &Connection| append(connection, &key, &life, &messages, now_ms);
        self.write("append messages", work).await?.map_err(|refused| refused.into_failed(shown))
    }
}
