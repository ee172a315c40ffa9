//! What `holdfast status` tells: people, programs, and scripts that wait.

use std::process::Stdio;

use holdfast_tests::rig::{Front, Gate, soon};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

use crate::{fixture, good, held_request};

/// The whole document.
async fn document(front: &Front) -> Value {
    let outcome = front.run(&["status", "--json"]).await;
    outcome.assert_code(0);
    serde_json::from_str(&outcome.output).expect("status prints JSON")
}

fn kinds(document: &Value) -> Vec<&str> {
    let events = document["events"].as_array().expect("there are events");
    events.iter().map(|event| event["kind"].as_str().expect("each has a kind")).collect()
}

#[tokio::test]
async fn status_remembers_what_happened_and_so_does_the_next_image_of_the_front() {
    let front = Front::with(good).await;
    front.takeover().await.assert_committed();
    let broken = fixture(["exit:3"]);
    front.takeover_to(&broken).await.assert_rolled_back();
    front.run(&["reexec"]).await.assert_code(0);
    let document = document(&front).await;
    let told = kinds(&document);
    for kind in ["started", "serving", "takeover-began", "committed", "drained", "rolled-back"] {
        assert!(told.contains(&kind), "no {kind}: {told:?}");
    }
    assert_eq!(told.last(), Some(&"renewed"));
    let ages = document["events"].as_array().expect("there are events").iter();
    let ages: Vec<_> = ages.map(|event| event["age_ms"].as_u64()).collect();
    assert!(ages.is_sorted_by(|earlier, later| earlier >= later), "{ages:?}");
    let takeovers = document["recent_takeovers"].as_array().expect("there are takeovers");
    let outcomes: Vec<_> = takeovers.iter().map(|t| (&t["number"], &t["outcome"])).collect();
    assert_eq!(outcomes, [(&1.into(), &"committed".into()), (&2.into(), &"rolled-back".into())]);
    assert_eq!(takeovers[1], document["last_takeover"]);
}

#[tokio::test]
async fn the_document_has_every_field_that_its_schema_promises() {
    let front = Front::with(good).await;
    front.takeover().await.assert_committed();
    let schema: Value = serde_json::from_str(include_str!("../../deploy/status.schema.json"))
        .expect("the schema is JSON");
    let document = document(&front).await;
    let promised = |schema: &Value, document: &Value| {
        for name in schema["required"].as_array().expect("something is promised") {
            let name = name.as_str().expect("by name");
            assert!(document.get(name).is_some(), "no {name}: {document}");
        }
    };
    promised(&schema, &document);
    promised(&schema["properties"]["front"], &document["front"]);
    promised(&schema["properties"]["generations"]["items"], &document["generations"][0]);
    promised(&schema["$defs"]["takeover"], &document["last_takeover"]);
    promised(&schema["properties"]["events"]["items"], &document["events"][0]);
}

#[tokio::test]
async fn watch_prints_one_line_of_json_after_the_other_and_sees_what_changes() {
    let front = Front::with(good).await;
    let mut watch = Watch::of(&front, &["--json", "--watch", "0.1"]);
    watch.until(|document| document["generations"][0]["state"] == "serving").await;
    front.takeover().await.assert_committed();
    watch.until(|document| document["takeovers"]["committed"] == 1).await;
    // The front is another image in between, or not there at all: it is asked again.
    front.run(&["reexec"]).await.assert_code(0);
    watch.until(|document| document["reexecs"]["done"] == 1).await;
}

#[tokio::test]
async fn watch_ends_when_nobody_reads_it_and_when_there_is_nothing_to_watch() {
    let mut front = Front::with(good).await;
    for form in [&["--watch=0.1"][..], &["--watch=0.1", "--json"]] {
        let mut watch = Watch::of(&front, form);
        watch.line().await;
        assert_eq!(watch.close().await, Some(0));
    }
    front.kill().await;
    let outcome = front.run(&["status", "--watch"]).await;
    outcome.assert_code(1).assert_says("holdfast run");
}

#[tokio::test]
async fn wait_ends_when_it_is_so() {
    let front = Front::with(good).await;
    for state in ["ready", "serving", "committed", "settled"] {
        front.run(&["status", "--wait", state]).await.assert_code(0);
    }
    let gate = Gate::closed();
    let held = held_request(&front, &gate).await;
    front.run(&["takeover", "--no-wait"]).await.assert_code(0);
    let committed = ["status", "--json", "--wait", "committed", "--after", "0"];
    let outcome = front.run(&committed).await;
    outcome.assert_code(0);
    let document: Value = serde_json::from_str(&outcome.output).expect("it is the document");
    assert_eq!(document["takeovers"]["committed"], 1);
    let settled = ["status", "--wait", "settled", "--timeout", "300ms"];
    front
        .run(&settled)
        .await
        .assert_code(1)
        .assert_says("not settled within 300ms: g1 is draining");
    gate.open();
    front.run(&["status", "--wait", "settled"]).await.assert_code(0);
    drop(held);
    let next = ["status", "--wait", "committed", "--after", "1", "--timeout", "200ms"];
    front.run(&next).await.assert_code(1).assert_says("no takeover has begun after number 1");
}

#[tokio::test]
async fn wait_for_a_takeover_that_is_rolled_back_ends_at_once_with_its_reason() {
    let front = Front::with(good).await;
    front.takeover_to(&fixture(["exit:3"])).await.assert_rolled_back();
    let outcome = front.run(&["status", "--wait", "committed", "--after", "0"]).await;
    outcome.assert_code(1).assert_says("takeover 1 was rolled back").assert_says("code 3");
    // Of one that was over before it is no news: the next one is waited for.
    front.run(&["status", "--wait", "committed", "--timeout", "0s"]).await.assert_code(1);
}

#[tokio::test]
async fn wait_is_for_a_front_that_is_still_to_come_too() {
    let mut front = Front::with(good).await;
    front.kill().await;
    let control = front.control().to_str().expect("a path is text").to_owned();
    let waits = front.command(&["status", "--wait", "serving"]).output();
    front
        .run(&["status", "--wait", "ready", "--timeout", "200ms"])
        .await
        .assert_code(1)
        .assert_says(&control);
    let (waited, ()) = tokio::join!(waits, front.start_again(good));
    assert!(waited.expect("it can be run").status.success());
}

#[tokio::test]
async fn a_mistake_is_answered_with_what_was_meant_and_an_example() {
    let front = Front::with(good).await;
    for (words, example) in [
        (&["--wait", "done"][..], "holdfast status --wait committed --timeout 60s"),
        (&["--wait"], "--wait <STATE>"),
        (&["--wait", "ready", "--timeout", "5"], "write 20ms, 3s or 1m"),
        (&["--watch", "soon"], "holdfast status --watch 2"),
        (&["--timeout", "5s"], "--wait <STATE>"),
        (&["--watch", "--wait", "ready"], "cannot be used with"),
    ] {
        let outcome = front.run(&[&["status"], words].concat()).await;
        outcome.assert_code(64).assert_says(example);
    }
}

/// A `status --watch` whose output is read.
struct Watch {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watch {
    fn of(front: &Front, words: &[&str]) -> Self {
        let mut command = front.command(&[&["status"], words].concat());
        let mut child = command.stdout(Stdio::piped()).spawn().expect("holdfast can be started");
        let stdout = child.stdout.take().expect("its stdout is a pipe");
        Self { child, lines: BufReader::new(stdout).lines() }
    }

    async fn line(&mut self) -> String {
        let line = soon("a line", self.lines.next_line()).await;
        line.expect("it can be read").expect("it goes on")
    }

    async fn until(&mut self, mut holds: impl FnMut(&Value) -> bool) {
        loop {
            let line = self.line().await;
            if holds(&serde_json::from_str(&line).expect("each line is a document")) {
                return;
            }
        }
    }

    /// Reads no more; its exit code.
    async fn close(self) -> Option<i32> {
        let Self { mut child, lines } = self;
        drop(lines);
        soon("it ends", child.wait()).await.expect("it can be waited for").code()
    }
}
