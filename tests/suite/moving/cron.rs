//! Scheduled jobs while the schedule moves: each instant is somebody's, and nobody else's.

use std::collections::BTreeSet;

use handoff::Address;
use holdfast_tests::rig::moving::{BareWebSocket, Part, call, frame};
use holdfast_tests::rig::{Front, Signal};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{generation, quick};

const TAKEOVERS: usize = 5;
/// Who takes the writer lease says so.
const TAKES: &str = "runs the schedule";

/// A client, and what it hears of jobs.
struct Client {
    socket: BareWebSocket,
    calls: u64,
    /// The runs that have ended, in order.
    finished: Vec<String>,
}

impl Client {
    async fn of(address: &Address) -> Self {
        let socket = BareWebSocket::connected(address).await;
        Self { socket, calls: 0, finished: Vec::new() }
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let id = self.calls.to_string();
        self.socket.send(&frame(Part::Text, call(&id, method, params))).await;
        loop {
            let said = self.hear().await;
            if said["type"] == "res" {
                assert_eq!((&said["id"], &said["ok"]), (&json!(id), &json!(true)), "{said}");
                return said["payload"].clone();
            }
        }
    }

    async fn hear(&mut self) -> Value {
        let said = self.socket.text().await.expect("the connection lives");
        let payload = &said["payload"];
        if said["event"] == "cron" && payload["action"] == "finished" {
            assert_eq!(payload["status"], "ok", "{said}");
            self.finished.push(payload["runId"].as_str().expect("a run has an id").to_owned());
        }
        said
    }

    /// Ends when so many more runs have ended.
    async fn hears_of_runs(&mut self, more: usize) {
        let enough = self.finished.len() + more;
        while self.finished.len() < enough {
            self.hear().await;
        }
    }

    async fn add_job(&mut self, every_ms: u64) -> Value {
        let job = json!({
            "name": "often", "schedule": {"kind": "every", "everyMs": every_ms},
            "sessionTarget": "isolated", "wakeMode": "now",
            "payload": {"kind": "agentTurn", "message": "hello"},
        });
        self.call("cron.add", job).await
    }

    /// All runs, the first one first; none comes after them.
    async fn history(&mut self, job: &Value) -> Vec<Value> {
        let id = &job["id"];
        self.call("cron.update", json!({"id": id, "patch": {"enabled": false}})).await;
        let asked = json!({"id": id, "sortDir": "asc", "limit": 200});
        let page = self.call("cron.runs", asked).await;
        assert_eq!(page["hasMore"], false, "{page}");
        page["entries"].as_array().expect("a list").clone()
    }
}

#[tokio::test]
async fn a_job_runs_exactly_once_at_each_of_its_instants_across_takeovers() {
    const EVERY_MS: u64 = 1000;
    let front = Front::with(quick).await;
    let mut client = Client::of(&front.address()).await;
    let job = client.add_job(EVERY_MS).await;
    for _ in 0..TAKEOVERS {
        client.hears_of_runs(1).await;
        front.takeover().await.assert_committed();
    }
    client.hears_of_runs(2).await;
    let history = client.history(&job).await;

    let ms = |entry: &Value, field: &str| entry[field].as_u64().expect("a time in ms");
    let first = ms(&job["schedule"], "anchorMs") + EVERY_MS;
    assert_eq!(ms(&history[0], "dueAtMs"), first, "{history:?}");
    for pair in history.windows(2) {
        let (due, ran) = (ms(&pair[0], "dueAtMs"), ms(&pair[0], "runAtMs"));
        // Instants that had passed when a run began late are that run's.
        let late = ran.checked_sub(due).expect("nothing runs before its time") / EVERY_MS;
        assert!(late < 10, "nobody ran it for long: {pair:?}");
        assert_eq!(ms(&pair[1], "dueAtMs"), due + (late + 1) * EVERY_MS, "{pair:?}");
    }
    let run = |entry: &Value| entry["runId"].as_str().expect("a run has an id").to_owned();
    let runs: Vec<String> = history.iter().map(run).collect();
    assert_eq!(client.finished, runs[..client.finished.len()], "each end is heard of once");
    assert!(runs.len() - client.finished.len() <= 1, "and none is missed");
    assert_eq!(front.log().lines_with(TAKES), 1 + TAKEOVERS);
}

#[tokio::test]
async fn jobs_can_be_listed_at_any_instant_of_a_takeover() {
    let front = Front::with(quick).await;
    let job = Client::of(&front.address()).await.add_job(3_600_000).await;
    let (stop, stopped) = watch::channel(false);
    let stays = tokio::spawn(list_over_one(front.address(), job["id"].clone(), stopped.clone()));
    let comes = tokio::spawn(list_over_many(front.address(), job["id"].clone(), stopped));
    for _ in 0..TAKEOVERS {
        front.takeover().await.assert_committed();
    }
    stop.send_replace(true);
    for lists in [stays, comes] {
        let listed = lists.await.expect("every list is answered");
        assert!(listed > TAKEOVERS, "it was asked for too seldom: {listed}");
    }
}

/// Lists the jobs all the time over one connection, and says how often.
async fn list_over_one(address: Address, id: Value, stopped: watch::Receiver<bool>) -> usize {
    let mut client = Client::of(&address).await;
    let mut listed = 0;
    while !*stopped.borrow() {
        let page = client.call("cron.list", json!({"includeDisabled": true})).await;
        assert_eq!((&page["total"], &page["jobs"][0]["id"]), (&json!(1), &id), "{page}");
        listed += 1;
    }
    listed
}

/// The same, each time over a connection of its own.
async fn list_over_many(address: Address, id: Value, stopped: watch::Receiver<bool>) -> usize {
    let mut listed = 0;
    while !*stopped.borrow() {
        let mut client = Client::of(&address).await;
        let page = client.call("cron.list", json!({})).await;
        assert_eq!((&page["total"], &page["jobs"][0]["id"]), (&json!(1), &id), "{page}");
        listed += 1;
    }
    listed
}

#[tokio::test]
async fn only_the_generation_with_the_writer_lease_runs_the_schedule() {
    let front = Front::with(|s| s.flag("--soak", "10m")).await;
    let mut client = Client::of(&front.address()).await;
    let job = client.add_job(100).await;
    let mut takeover = front.begin_takeover();
    takeover.until("switched").await;
    client.hears_of_runs(3).await;
    let status = front.status().await;
    let lease = |number| status.generation(generation(number)).map(|g| g.lease);
    assert_eq!((lease(1), lease(2)), (Some(true), Some(false)), "{status:?}");
    assert_eq!(front.log().lines_with(TAKES), 1, "the successor accepts, and schedules nothing");

    let successor = status.generation(generation(2)).and_then(|g| g.worker());
    successor.expect("it has a process").signal(Signal::SIGKILL);
    takeover.end().await.assert_rolled_back();
    let mut client = Client::of(&front.address()).await;
    client.hears_of_runs(3).await;
    assert_eq!(front.log().lines_with(TAKES), 1, "the schedule has never moved");
    let runs = client.history(&job).await;
    let due: BTreeSet<u64> = runs.iter().filter_map(|run| run["dueAtMs"].as_u64()).collect();
    assert_eq!(due.len(), runs.len(), "an instant was run twice: {runs:?}");
}

#[tokio::test]
async fn when_the_holder_of_the_writer_lease_dies_the_next_generation_runs_the_schedule() {
    let front = Front::with(quick).await;
    let mut client = Client::of(&front.address()).await;
    let job = client.add_job(200).await;
    client.hears_of_runs(1).await;
    let holder = front.serving().await.worker().expect("it has a process");
    holder.signal(Signal::SIGKILL);
    front.until("it was replaced", |status| status.crashes == 1 && status.is_settled()).await;
    let mut client = Client::of(&front.address()).await;
    client.hears_of_runs(2).await;
    let runs = client.history(&job).await;
    let due: BTreeSet<u64> = runs.iter().filter_map(|run| run["dueAtMs"].as_u64()).collect();
    assert_eq!(due.len(), runs.len(), "an instant was run twice: {runs:?}");
    assert_eq!(front.log().lines_with(TAKES), 2);
}
