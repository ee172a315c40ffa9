//! `deploy/container/update`, with an engine whose containers are processes.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use holdfast_tests::rig::{
    Front, Gate, Outcome, Process, Signal, Status, TOKEN, binaries, eventually, soon,
};
use tokio::process::Command;

use super::{attachable, until_serves};

/// What the script asks of an engine, and no more. A container is a process, and its id the process's.
const ENGINE: &str = r#"#!/bin/sh
set -eu
lives() { [ -e "/proc/$1" ] && [ "$(cut -d' ' -f3 "/proc/$1/stat")" != Z ]; }
if [ "$1" = compose ]; then shift 3; fi
case "$1 ${2:-}" in
    "exec -T") shift 4; exec "$HOLDFAST" "$@" ;;
    "ps --all") ls "$CONTAINERS" ;;
    "up --detach") $WORKER >>"$LOG" 2>&1 </dev/null & : >"$CONTAINERS/$!" ;;
    "ps --quiet") for id; do :; done; id=${id#id=}; if lives "$id"; then echo "$id"; fi ;;
    "wait $2") while lives "$2"; do sleep 0.02; done ;;
    "logs --tail") tail -n 20 "$LOG" ;;
    "rm --force") kill -9 "$3" 2>/dev/null || :; rm "$CONTAINERS/$3" ;;
    "rm $2") rm "$CONTAINERS/$2" ;;
    *) echo "the engine does not know $*" >&2; exit 125 ;;
esac
"#;

/// The engine, and what runs by it. Dropped, it ends that.
struct Engine {
    directory: PathBuf,
}

impl Engine {
    /// With a first worker, which serves.
    async fn beside(front: &Front) -> Self {
        let engine = Self { directory: front.directory().to_owned() };
        fs::create_dir(engine.containers()).expect("it is new");
        fs::write(engine.program(), ENGINE).expect("it can be written");
        fs::set_permissions(engine.program(), Permissions::from_mode(0o755)).expect("it is ours");
        let mut up = engine.command(&engine.program(), &good());
        let up = up.args(["compose", "--file", "none", "up", "--detach"]).status();
        assert!(soon("a container is started", up).await.expect("it runs").success());
        until_serves(front, 1).await;
        engine
    }

    fn containers(&self) -> PathBuf {
        self.directory.join("containers")
    }

    fn program(&self) -> PathBuf {
        self.directory.join("engine")
    }

    fn ids(&self) -> Vec<i32> {
        let entries = fs::read_dir(self.containers()).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }

    fn command(&self, program: &Path, worker: &str) -> Command {
        let mut command = Command::new(program);
        let engine = self.program().display().to_string();
        command
            .env_clear()
            .current_dir(&self.directory)
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.directory)
            .env("HOLDFAST_STATE_DIR", &self.directory)
            .env("HOLDFAST_TOKEN", TOKEN)
            .env("HOLDFAST", binaries::holdfast())
            .env("CONTAINERS", self.containers())
            .env("LOG", self.directory.join("containers.log"))
            .env("WORKER", worker)
            .env("COMPOSE", format!("{engine} compose"))
            .env("ENGINE", engine)
            .env("TIMEOUT", "3")
            .kill_on_drop(true);
        command
    }

    /// Runs the script, by which `worker` is to take over.
    async fn update(&self, worker: &str) -> Outcome {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/container/update");
        let output = soon("the update ends", self.command(&script, worker).output()).await;
        output.expect("the script runs").into()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        for process in self.ids().into_iter().filter_map(Process::find) {
            process.signal(Signal::SIGKILL);
        }
    }
}

fn good() -> String {
    format!("{} --attach attach.sock", binaries::holdfast_worker().display())
}

#[tokio::test]
async fn an_update_replaces_the_container_and_says_what_moved() {
    let front = Front::with(attachable).await;
    let engine = Engine::beside(&front).await;
    let first = engine.ids();
    let update = engine.update(&good()).await;
    update.assert_code(0);
    assert!(update.output.contains("committed: the new worker serves"), "{update:?}");
    assert!(update.output.contains("last takeover: g1 to g2, committed"), "{update:?}");
    until_serves(&front, 2).await;
    let second = engine.ids();
    assert_eq!((first.len(), second.len()), (1, 1));
    assert_ne!(first, second, "the first container was kept");
}

#[tokio::test]
async fn an_update_that_comes_to_nothing_leaves_the_container_that_serves() {
    let front = Front::with(attachable).await;
    let engine = Engine::beside(&front).await;
    let first = engine.ids();
    for (worker, why) in [
        ("sleep 1000", "does not serve after 3 s; the worker before serves on"),
        ("false", "has ended; the worker before serves on"),
    ] {
        engine.update(worker).await.assert_code(1).assert_says(why);
        assert_eq!(engine.ids(), first, "{worker}");
    }
    until_serves(&front, 1).await;
}

#[tokio::test]
async fn while_no_front_answers_nothing_is_committed_and_nothing_rolled_back() {
    let mut front = Front::with(attachable).await;
    let engine = Engine::beside(&front).await;
    let first = engine.ids();
    let update = engine.update("sleep 1000");
    let killed = async {
        let is_there = async || (engine.ids().len() == 2).then_some(());
        eventually("a second container is there", is_there).await;
        front.kill().await;
    };
    let (update, ()) = tokio::join!(update, killed);
    update.assert_code(1).assert_says("does not serve after 3 s; the worker before serves on");
    assert_eq!(engine.ids(), first);
}

#[tokio::test]
async fn a_worker_that_dies_while_it_is_replaced_does_not_cost_the_new_one() {
    let front = Front::with(attachable).await;
    let engine = Engine::beside(&front).await;
    let first = engine.ids();
    let gate = Gate::closed();
    let slow = front.directory().join("slow");
    let script =
        format!("until [ -e {} ]; do sleep 0.02; done\nexec {}\n", gate.file().display(), good());
    fs::write(&slow, script).expect("it can be written");
    let slow = format!("sh {}", slow.display());
    let update = engine.update(&slow);
    let dies = async {
        let is_there = async || (engine.ids().len() == 2).then_some(());
        eventually("a second container is there", is_there).await;
        let first = first.iter().filter_map(|pid| Process::find(*pid));
        first.for_each(|first| first.signal(Signal::SIGKILL));
        let waits = |status: &Status| status.attach.as_ref().is_some_and(|a| a.awaits_worker);
        front.until("nobody serves", waits).await;
        gate.open();
    };
    let (update, ()) = tokio::join!(update, dies);
    update.assert_code(0);
    until_serves(&front, 2).await;
    assert_eq!(engine.ids().len(), 1);
    assert_ne!(engine.ids(), first, "the first container was kept");
}
