//! Which sessions there are.

use rusqlite::Connection;

use super::sessions::{COLUMNS, Session, from_row, unsigned};
use super::{Store, StoreFailed};

/// As many sessions as a list holds unless told otherwise.
pub(crate) const LIST_LIMIT: u32 = 100;

/// Which sessions, the most recently used first.
#[derive(Clone, Debug, Default)]
pub(crate) struct SessionFilter {
    /// Only this agent's.
    pub(crate) agent_id: Option<String>,
    /// Only the one with this label.
    pub(crate) label: Option<String>,
    /// Only those that this session made.
    pub(crate) spawned_by: Option<String>,
    /// Only those with this in their key, label or id, in capitals or not.
    pub(crate) search: Option<String>,
    /// Only those used since then.
    pub(crate) active_since_ms: Option<i64>,
    /// Also the session `global`.
    pub(crate) include_global: bool,
    /// Also the session `unknown`.
    pub(crate) include_unknown: bool,
    /// At most so many; [`LIST_LIMIT`] when `None`.
    pub(crate) limit: Option<u32>,
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SessionPage {
    /// The sessions.
    pub(crate) sessions: Vec<Session>,
    /// How many there are without the limit.
    pub(crate) total: u64,
    /// The limit that was applied.
    pub(crate) limit: u32,
}

impl Store {
    /// The sessions that pass `filter`, the most recently used first.
    ///
    /// # Errors
    /// [`StoreFailed`]
    pub(crate) async fn sessions(&self, filter: SessionFilter) -> Result<SessionPage, StoreFailed> {
        self.read("list sessions", move |connection| list(connection, &filter)).await
    }

    /// How many sessions there are, of this agent or of all.
    ///
    /// # Errors
    /// [`StoreFailed`]
    pub(crate) async fn session_count(&self, agent_id: Option<&str>) -> Result<u64, StoreFailed> {
        let agent = agent_id.map(str::to_owned);
        let work = move |connection: &Connection| {
            connection
                .prepare_cached("SELECT count(*) FROM sessions WHERE ?1 IS NULL OR agent_id = ?1")?
                .query_row([agent], |row| row.get(0).map(unsigned))
        };
        self.read("count sessions", work).await
    }
}

fn list(connection: &Connection, filter: &SessionFilter) -> rusqlite::Result<SessionPage> {
    const WHERE: &str = "FROM sessions WHERE (?1 IS NULL OR agent_id = ?1) \
         AND (?2 IS NULL OR label = ?2) \
         AND (?3 IS NULL OR spawned_by = ?3) \
         AND (?4 IS NULL OR instr(lower(key || ' ' || coalesce(label, '') || ' ' || session_id), lower(?4)) > 0) \
         AND (?5 IS NULL OR updated_at_ms >= ?5) \
         AND (?6 OR key <> 'global') AND (?7 OR key <> 'unknown')";
    let SessionFilter { agent_id, label, spawned_by, search, active_since_ms, .. } = filter;
    let which = (
        agent_id,
        label,
        spawned_by,
        search,
        active_since_ms,
        filter.include_global,
        filter.include_unknown,
    );
    let limit = filter.limit.unwrap_or(LIST_LIMIT);
    let total = connection
        .prepare_cached(&format!("SELECT count(*) {WHERE}"))?
        .query_row(which, |row| row.get(0).map(unsigned))?;
    let (a, b, c, d, e, f, g) = which;
    let sessions = connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} {WHERE} ORDER BY updated_at_ms DESC, key LIMIT ?8"
        ))?
        .query_map((a, b, c, d, e, f, g, limit), from_row)?
        .collect::<rusqlite::Result<_>>()?;
    Ok(SessionPage { sessions, total, limit })
}

#[cfg(test)]
mod tests {
    use super::super::sessions::NewSession;
    use super::super::shared::Shared;
    use super::*;

    fn session(key: &str, agent_id: &str) -> NewSession {
        NewSession {
            key: key.to_owned(),
            session_id: format!("id-{key}"),
            agent_id: agent_id.to_owned(),
            ..NewSession::default()
        }
    }

    async fn keys(store: &Store, filter: SessionFilter) -> Vec<String> {
        let page = store.sessions(filter).await.unwrap();
        page.sessions.into_iter().map(|session| session.key).collect()
    }

    #[tokio::test]
    async fn the_most_recently_used_come_first_and_filters_add_up() {
        let shared = Shared::new();
        let store = shared.open("g1").await;
        let label = Some("Tax Return".to_owned());
        let new = NewSession { label, ..session("agent:main:a", "main") };
        store.ensure_session(new, 1).await.unwrap();
        let spawned_by = Some("agent:main:a".to_owned());
        let new = NewSession { spawned_by, ..session("agent:beta:b", "beta") };
        store.ensure_session(new, 3).await.unwrap();
        for (key, at) in [("agent:main:c", 2), ("global", 4), ("unknown", 5)] {
            store.ensure_session(session(key, "main"), at).await.unwrap();
        }
        let filter = SessionFilter::default;
        let all = ["agent:beta:b", "agent:main:c", "agent:main:a"];
        assert_eq!(keys(&store, filter()).await, all);
        let main = Some("main".to_owned());
        let of_main = SessionFilter { agent_id: main.clone(), ..filter() };
        assert_eq!(keys(&store, of_main).await, ["agent:main:c", "agent:main:a"]);
        let found = SessionFilter { search: Some("tax r".to_owned()), ..filter() };
        assert_eq!(keys(&store, found).await, ["agent:main:a"]);
        let labelled = SessionFilter { label: Some("Tax Return".to_owned()), ..filter() };
        assert_eq!(keys(&store, labelled).await, ["agent:main:a"]);
        let spawned = Some("agent:main:a".to_owned());
        let spawned = SessionFilter { spawned_by: spawned, ..filter() };
        assert_eq!(keys(&store, spawned).await, ["agent:beta:b"]);
        let recent = SessionFilter { active_since_ms: Some(2), agent_id: main, ..filter() };
        assert_eq!(keys(&store, recent).await, ["agent:main:c"]);
        let every = SessionFilter { include_global: true, include_unknown: true, ..filter() };
        assert_eq!(keys(&store, every).await[..2], ["unknown", "global"]);
    }

    #[tokio::test]
    async fn a_limit_shortens_the_list_and_not_the_count() {
        let shared = Shared::new();
        let store = shared.open("g1").await;
        for n in 0..5 {
            store.ensure_session(session(&format!("agent:main:{n}"), "main"), n).await.unwrap();
        }
        let filter = SessionFilter { limit: Some(2), ..SessionFilter::default() };
        let page = store.sessions(filter).await.unwrap();
        assert_eq!((page.sessions.len(), page.total, page.limit), (2, 5, 2));
        assert_eq!(store.sessions(SessionFilter::default()).await.unwrap().limit, LIST_LIMIT);
        assert_eq!(store.session_count(None).await.unwrap(), 5);
        assert_eq!(store.session_count(Some("beta")).await.unwrap(), 0);
    }
}
