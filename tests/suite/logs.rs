//! `holdfast logs`: the workers' output of the front that runs, wherever it goes.

use std::fs::rename;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use holdfast_tests::rig::{Front, eventually};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

use crate::quick;

/// A front whose worker writes to a file of its own.
async fn logging(directory: &Path) -> Front {
    let file = directory.join("worker.log");
    Front::with(|s| quick(s).flag("--log-file", file)).await
}

fn append(file: &Path, words: &str) {
    let opened = std::fs::File::options().append(true).create(true).open(file);
    writeln!(opened.expect("the log can be opened"), "{words}").expect("it can be written");
}

/// `holdfast logs --follow`, and its lines.
fn following(front: &Front) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut command = front.command(&["logs", "--follow"]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("it can be started");
    let lines = BufReader::new(child.stdout.take().expect("it was asked for")).lines();
    (child, lines)
}

async fn until_line(lines: &mut Lines<BufReader<ChildStdout>>, words: &str) {
    holdfast_tests::rig::soon("a line of the log", async {
        while let Some(line) = lines.next_line().await.expect("it can be read") {
            if line.contains(words) {
                return;
            }
        }
        panic!("the log ended without {words:?}");
    })
    .await;
}

#[tokio::test]
async fn the_last_lines_of_the_workers_are_shown() {
    let place = tempfile::tempdir().unwrap();
    let front = logging(place.path()).await;
    let file = place.path().join("worker.log");
    eventually("the worker has opened it", async || file.exists().then_some(())).await;
    append(&file, "the line before\nthe last line");
    let outcome = front.run(&["logs"]).await;
    outcome.assert_code(0);
    assert!(outcome.output.ends_with("the line before\nthe last line\n"), "{outcome:?}");
    let last = front.run(&["logs", "-n", "1"]).await;
    assert_eq!(last.output, "the last line\n", "{last:?}");
    // The front's own log is where it always is.
    let own = front.run(&["logs", "--front", "--lines", "9999"]).await;
    own.assert_code(0);
    assert!(own.output.contains("\"version\""), "{own:?}");
}

#[tokio::test]
async fn a_log_is_followed_over_its_rotation_and_over_takeovers() {
    let place = tempfile::tempdir().unwrap();
    let front = logging(place.path()).await;
    let file = place.path().join("worker.log");
    eventually("the worker has written", async || file.exists().then_some(())).await;
    let (mut child, mut lines) = following(&front);
    append(&file, "before the rotation");
    until_line(&mut lines, "before the rotation").await;
    rename(&file, place.path().join("worker.log.1")).unwrap();
    // The successor makes the file anew.
    front.takeover().await.assert_committed();
    append(&file, "after the rotation");
    until_line(&mut lines, "after the rotation").await;
    std::fs::write(&file, "cut short\n").unwrap();
    until_line(&mut lines, "cut short").await;
    child.kill().await.unwrap();
}

#[tokio::test]
async fn without_a_log_file_what_goes_to_a_file_is_shown_and_of_all_else_is_said_who_has_it() {
    let front = Front::start().await;
    let outcome = front.run(&["logs", "--lines", "9999"]).await;
    outcome.assert_code(0);
    assert!(outcome.output.contains("listening"), "{outcome:?}");

    let silent = "exec \"$@\" 2>/dev/null >/dev/null";
    let front = Front::with(|s| quick(s).wrapped_in(&["bash", "-c", silent, "bash"])).await;
    let outcome = front.run(&["logs"]).await;
    outcome.assert_code(1).assert_says("/dev/null").assert_says("--log-file");
}
