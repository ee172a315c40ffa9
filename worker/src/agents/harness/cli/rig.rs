//! What the tests of CLI agents need: the fixture program, a place for it, and turns of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::super::{Past, Piece};
use super::backend::tests::read;
use super::backend::{CLAUDE, CliBackend};
use super::child::Patience;
use super::failure::CliFailure;
use super::mcp::Toolbox;
use super::pool::{Keeping, Pool};
use super::program::Asked;
use super::run::{Cli, CliRun};
use super::scratch::ScratchRoot;
use super::turn::Fragment;
use crate::state::config::Environment;

/// How long a test waits for what is to come.
const DEADLINE: Duration = Duration::from_secs(60);

/// A place in which programs are run.
pub(super) struct Rig {
    dir: tempfile::TempDir,
    pub(super) backend: CliBackend,
    pub(super) root: ScratchRoot,
}

impl Rig {
    /// With the fixture as `claude-cli`, but for what is configured otherwise.
    pub(super) fn new(configured: Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("workspace")).unwrap();
        std::fs::create_dir(dir.path().join("scratch")).unwrap();
        let root = ScratchRoot::at(dir.path().join("scratch"));
        let mut entry = Map::from_iter([("command".to_owned(), json!(fixture()))]);
        entry.extend(configured.as_object().unwrap().clone());
        let backend = read(&json!({CLAUDE: entry})).remove(CLAUDE).unwrap().unwrap();
        Self { dir, backend, root }
    }

    pub(super) fn pool(&self, keeping: Keeping) -> Pool {
        let (backend, root) = (self.backend.clone(), self.root.clone());
        let kept = (keeping, Arc::default());
        Pool::new(CLAUDE, backend, Environment::default(), root, Toolbox::default(), kept)
    }

    pub(super) fn workspace(&self) -> PathBuf {
        self.dir.path().join("workspace")
    }

    /// What came before a turn of this session.
    pub(super) fn past(&self, session: &str) -> Past {
        Past {
            session: session.to_owned(),
            life: format!("life of {session}"),
            agent: "main".to_owned(),
            workspace: self.workspace(),
            system: Some("You are a fixture.".into()),
            ..Past::default()
        }
    }

    pub(super) fn asked(&self, session: &str, message: &str) -> Asked {
        Asked::of(&self.past(session), CLAUDE, message.to_owned(), None, DEADLINE)
    }

    /// The arguments of each program that was started.
    pub(super) fn starts(&self) -> Vec<String> {
        let starts = std::fs::read_to_string(self.workspace().join("starts")).unwrap_or_default();
        starts.lines().map(str::to_owned).collect()
    }

    /// How many scratch directories there are.
    pub(super) fn directories(&self) -> usize {
        let entries = std::fs::read_dir(self.dir.path().join("scratch")).unwrap();
        entries.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count()
    }

    /// Waits until no directory, and no record of one, is left.
    pub(super) async fn swept(&self) {
        let scratch = self.dir.path().join("scratch");
        until("the scratch directories are gone", || {
            std::fs::read_dir(&scratch).unwrap().count() == 0
        })
        .await;
    }
}

/// The program that Cargo has built as an example, beside the tests.
pub(super) fn fixture() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let built = tests.ancestors().nth(2).unwrap().join("examples/fixture-cli");
    assert!(built.exists(), "`cargo test -p holdfast-worker` builds {}", built.display());
    built
}

/// Ends briefly, and asks politely only for a moment.
pub(super) fn keeping() -> Keeping {
    let patience = Patience {
        interrupted: Duration::from_millis(200),
        terminated: Duration::from_millis(500),
    };
    Keeping { patience, ..Keeping::default() }
}

/// Begins a turn; what it says comes here.
pub(super) fn begin(pool: &Pool, asked: Asked) -> mpsc::Receiver<Fragment> {
    let (fragments, said) = mpsc::channel(16);
    pool.begin(asked, fragments);
    said
}

/// Hears a turn to its end.
pub(super) async fn hear(mut said: mpsc::Receiver<Fragment>) -> Result<String, CliFailure> {
    let mut answer = String::new();
    loop {
        let next = tokio::time::timeout(DEADLINE, said.recv()).await.expect("it says something");
        match next.expect("it has an end") {
            Fragment::Called(_) => {}
            Fragment::Text(text) => answer.push_str(&text),
            Fragment::End { .. } => return Ok(answer),
            Fragment::Failed(failure) => return Err(failure),
        }
    }
}

/// A whole turn.
pub(super) async fn turn(pool: &Pool, asked: Asked) -> Result<String, CliFailure> {
    hear(begin(pool, asked)).await
}

/// A whole turn, as a harness runs it.
pub(super) async fn begin_run(cli: &Cli, message: &str, past: &Past) -> Result<String, String> {
    let mut run = cli.run(message.to_owned(), past);
    let mut answer = String::new();
    while let Some(text) = next_piece(&mut run).await {
        answer.push_str(&text?);
    }
    Ok(answer)
}

/// What a run says next, or why it has failed; nothing at its end.
pub(super) async fn next_piece(run: &mut CliRun) -> Option<Result<String, String>> {
    std::future::poll_fn(|context| {
        run.poll_piece(context).map(|piece| match piece {
            Piece::Text(text) => Some(Ok(text.to_owned())),
            Piece::End => None,
            Piece::Failed(failure) => Some(Err(failure.to_string())),
        })
    })
    .await
}

/// Waits until this holds.
pub(super) async fn until(what: &str, holds: impl Fn() -> bool) {
    let mut looks = tokio::time::interval(Duration::from_millis(10));
    let wait = async {
        while !holds() {
            looks.tick().await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, wait).await.is_ok(), "{what}: never");
}

/// Whether a process of this id is there, zombies apart.
pub(super) fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z"))
}
