//! What runs have said so far, in a file each, until they have ended: what is left of one whose generation is killed.
//!
//! ```text
//! <state>/said/<random>    a line that says whose it is, then a line for each piece
//!
//! begun ─► appended, before it is told ─► its end is in the database: removed
//!    └─ its generation dies ─► somebody finds it ─► what was said is in the database, and the run failed: removed
//! ```
//!
//! **Invariants**
//! - Whoever was told a piece of an answer finds it in the history, also after a SIGKILL. Nothing is forced to the disk: it outlasts
//!   the process, and no power failure.
//! - A run whose message is not the latest of its session any more was recovered by somebody else, or begun again.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension as _};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::messages::{self, NewMessage};
use super::session_run::{RunStatus, SessionRun};
use super::{Store, StoreFailed, sessions};

/// The longest text that is recovered, in bytes.
const MOST_RECOVERED: u64 = 32 * 1024 * 1024;
/// The longest first line, in bytes; today's have about 300.
const LONGEST_HEAD: u64 = 64 * 1024;

/// Whose words they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Speaker {
    /// The run.
    pub(crate) run: String,
    /// Its session.
    pub(crate) session: String,
    /// The life of the session that it began in.
    pub(crate) life: String,
    /// When it began.
    pub(crate) started_at_ms: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    version: u32,
    /// The life of the generation that writes.
    holder: String,
    speaker: Speaker,
}

/// One piece of it, and the number of the event that tells of it.
#[derive(Serialize, Deserialize)]
struct Piece(u64, String);

/// What a run says, as it does. Dropped before its end, it is left to whoever finds its generation dead.
#[derive(Debug)]
pub(crate) struct Said {
    path: PathBuf,
    head: String,
    /// Once there is something in it.
    file: Option<File>,
}

/// A run that was interrupted by the end of its generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interrupted {
    /// Which.
    pub(crate) speaker: Speaker,
    /// What it had said.
    pub(crate) text: String,
    /// The number of its last event that is known of.
    pub(crate) seq: u64,
    path: PathBuf,
}

impl Said {
    /// More of it, which an event of this number tells. A run goes on without what cannot be written.
    pub(crate) fn append(&mut self, seq: u64, text: &str) {
        if let Err(error) = self.try_append(seq, text) {
            warn!(
                error = &error as &dyn std::error::Error,
                "what a run says is not kept as it does"
            );
        }
    }

    fn try_append(&mut self, seq: u64, text: &str) -> io::Result<()> {
        let line = crate::frames::written(&Piece(seq, text.to_owned()));
        if let Some(file) = &mut self.file {
            return file.write_all(format!("{line}\n").as_bytes());
        }
        let mut options = OpenOptions::new();
        options.create_new(true).append(true).mode(0o600);
        let mut file = match options.open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(dir) = self.path.parent() {
                    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
                }
                options.open(&self.path)?
            }
            opened => opened?,
        };
        file.write_all(format!("{}\n{line}\n", self.head).as_bytes())?;
        self.file = Some(file);
        Ok(())
    }

    /// Its end is in the database.
    pub(crate) fn forget(self) {
        if self.file.is_some() {
            remove(&self.path);
        }
    }
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            warn!(error = &error as &dyn std::error::Error, "what a run has said stays");
        }
    }
}

impl Store {
    /// Where a run says what it does, from now on.
    pub(crate) fn hears(&self, speaker: Speaker) -> Said {
        let holder = self.presence.holder().as_str().to_owned();
        let head = crate::frames::written(&Head { version: 1, holder, speaker });
        let name = uuid::Uuid::new_v4().simple().to_string();
        Said { path: self.presence.said_dir().join(name), head, file: None }
    }

    /// What the runs of dead generations had said. It blocks.
    pub(crate) fn interrupted(&self) -> Vec<Interrupted> {
        let Ok(entries) = fs::read_dir(self.presence.said_dir()) else { return Vec::new() };
        let paths = entries.flatten().map(|entry| entry.path());
        let read = paths.filter_map(|path| read(&path, |holder| self.presence.is_alive(holder)));
        read.collect()
    }

    /// Writes down what an interrupted run had said, and that it has failed; says whether that was news.
    ///
    /// # Errors
    /// [`StoreFailed`]: somebody may try again.
    pub(crate) async fn recover(
        &self,
        interrupted: Interrupted,
        answer: Option<NewMessage>,
        now_ms: i64,
    ) -> Result<bool, StoreFailed> {
        let Interrupted { speaker, path, .. } = interrupted;
        let work = move |connection: &Connection| {
            recover(connection, &speaker, answer.as_slice(), now_ms).map(Ok::<_, super::Never>)
        };
        match self.write("recover what a run had said", work).await? {
            Ok(is_news) => {
                remove(&path);
                Ok(is_news)
            }
            Err(never) => match never {},
        }
    }
}

/// Reads one of a dead holder's; `None` for what is somebody's, or of a version that is not known.
fn read(path: &Path, is_alive: impl Fn(&str) -> bool) -> Option<Interrupted> {
    let mut reader = BufReader::new(File::open(path).ok()?);
    let mut head = String::new();
    reader.by_ref().take(LONGEST_HEAD).read_line(&mut head).ok()?;
    let head: Head = serde_json::from_str(&head).ok()?;
    if head.version != 1 || is_alive(&head.holder) {
        return None;
    }
    let (mut seq, mut text) = (0, String::new());
    // The last line may be cut short.
    for line in reader.take(MOST_RECOVERED).lines().map_while(Result::ok) {
        let Ok(Piece(number, said)) = serde_json::from_str(&line) else { break };
        seq = number;
        text.push_str(&said);
    }
    Some(Interrupted { speaker: head.speaker, text, seq, path: path.to_owned() })
}

fn recover(
    connection: &Connection,
    speaker: &Speaker,
    answer: &[NewMessage],
    now_ms: i64,
) -> rusqlite::Result<bool> {
    let Speaker { run, session, life, started_at_ms } = speaker;
    let latest: Option<Option<String>> = connection
        .prepare_cached(
            "SELECT run_id FROM messages WHERE session_key = ?1 AND role = 'user' AND seq = \
             (SELECT max(seq) FROM messages WHERE session_key = ?1)",
        )?
        .query_row([session], |row| row.get(0))
        .optional()?;
    if latest.flatten().as_deref() != Some(run) {
        return Ok(false);
    }
    if messages::append(connection, session, life, answer, now_ms)?.is_err() {
        // The session was reset or deleted: nobody misses it.
        return Ok(false);
    }
    let (status, started_at_ms) = (RunStatus::Failed, *started_at_ms);
    let run = SessionRun { status, started_at_ms, ended_at_ms: Some(now_ms) };
    sessions::note_run(connection, session, run, (0, 0), now_ms)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::super::messages::HistoryWindow;
    use super::super::sessions::NewSession;
    use super::super::shared::Shared;
    use super::super::turns::NewTurn;
    use super::*;

    const ALL: HistoryWindow = HistoryWindow { limit: 10, max_bytes: 1 << 20, before_seq: None };

    fn said(role: &str, text: &str) -> NewMessage {
        NewMessage {
            role: role.to_owned(),
            content: format!("\"{text}\""),
            run_id: Some("r".to_owned()),
        }
    }

    async fn begun(store: &Store) -> Speaker {
        let session = NewSession {
            key: "k".to_owned(),
            session_id: "life".to_owned(),
            agent_id: "main".to_owned(),
            ..NewSession::default()
        };
        let turn = NewTurn { session, message: said("user", "hello"), at_ms: 1 };
        let life = store.begin_turn(turn).await.unwrap().session_id;
        Speaker { run: "r".to_owned(), session: "k".to_owned(), life, started_at_ms: 1 }
    }

    #[tokio::test]
    async fn what_a_dead_generation_had_said_is_in_the_history_once() {
        let shared = Shared::new();
        let (dead, alive) = (shared.open("g1").await, shared.open("g2").await);
        let mut words = dead.hears(begun(&dead).await);
        for (seq, text) in [(1, "Well, "), (2, "then\n")] {
            words.append(seq, text);
        }
        assert_eq!(alive.interrupted(), [], "it lives");
        words.file.as_mut().unwrap().write_all(b"[3,\"cut").unwrap();
        drop((words, dead));
        let found = alive.interrupted();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].text.as_str(), found[0].seq), ("Well, then\n", 2));
        for is_news in [true, false] {
            let answer = Some(said("assistant", "Well, then"));
            assert_eq!(alive.recover(found[0].clone(), answer, 9).await.unwrap(), is_news);
        }
        assert_eq!(alive.interrupted(), []);
        let history = alive.history("k", ALL).await.unwrap();
        let roles: Vec<&str> = history.iter().map(|message| message.role.as_str()).collect();
        assert_eq!(roles, ["user", "assistant"]);
        let run = alive.session("k").await.unwrap().unwrap().latest_run.unwrap();
        assert_eq!((run.status, run.ended_at_ms), (RunStatus::Failed, Some(9)));
    }

    #[tokio::test]
    async fn what_has_ended_leaves_nothing_and_who_says_nothing_writes_nothing() {
        let shared = Shared::new();
        let store = shared.open("g1").await;
        let speaker = begun(&store).await;
        let mut words = store.hears(speaker.clone());
        words.append(1, "x");
        let path = words.path.clone();
        assert!(path.exists());
        words.forget();
        assert!(!path.exists());
        store.hears(speaker).forget();
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
    }
}
