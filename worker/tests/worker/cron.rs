//! Scheduled jobs over a WebSocket: what clients are answered, what everybody is told, and what is remembered.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::rig::{Process, WebSocket, Worker, backend, command};

/// A client with a number for each of its calls.
struct Client {
    socket: WebSocket,
    calls: u64,
    /// The `cron` events it heard and nobody has looked at yet.
    told: Vec<Value>,
}

impl Client {
    async fn of(worker: &Worker) -> Self {
        let mut socket = worker.websocket().await;
        socket.connect().await;
        Self { socket, calls: 0, told: Vec::new() }
    }

    /// The whole answer to one call.
    async fn ask(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let id = self.calls.to_string();
        let request = json!({"type": "req", "id": id, "method": method, "params": params});
        self.socket.send(&request).await;
        loop {
            let frame = self.socket.frame().await;
            if frame["type"] == "res" {
                assert_eq!(frame["id"], id.as_str());
                return frame;
            }
            self.note(frame);
        }
    }

    /// The payload of an answer that is none of refusals.
    async fn call(&mut self, method: &str, params: Value) -> Value {
        let answer = self.ask(method, params).await;
        assert_eq!(answer["ok"], true, "{answer}");
        answer["payload"].clone()
    }

    async fn refused(&mut self, method: &str, params: Value) -> String {
        let answer = self.ask(method, params).await;
        assert_eq!(answer["error"]["code"], "INVALID_REQUEST", "{answer}");
        answer["error"]["message"].as_str().unwrap().to_owned()
    }

    fn note(&mut self, frame: Value) {
        if frame["event"] == "cron" {
            self.told.push(frame["payload"].clone());
        }
    }

    /// The next thing that it is told of jobs.
    async fn told(&mut self, action: &str) -> Value {
        while self.told.is_empty() {
            let frame = self.socket.frame().await;
            self.note(frame);
        }
        let told = self.told.remove(0);
        assert_eq!(told["action"], action, "{told}");
        told
    }
}

fn job(every_ms: u64) -> Value {
    json!({"name": "t1", "enabled": true, "schedule": {"kind": "every", "everyMs": every_ms},
        "sessionTarget": "isolated", "wakeMode": "now",
        "payload": {"kind": "agentTurn", "message": "hi there"}})
}

fn hourly() -> Value {
    job(3_600_000)
}

#[tokio::test]
async fn jobs_are_made_looked_up_changed_and_removed_in_the_recorded_shapes() {
    let worker = Worker::start().await;
    let mut client = Client::of(&worker).await;
    let empty = client.call("cron.list", json!({"includeDisabled": true})).await;
    let recorded = json!({"jobs": [], "total": 0, "offset": 0, "limit": 50, "hasMore": false,
        "nextOffset": null, "deliveryPreviews": {}});
    assert_eq!(empty, recorded);
    let status = client.call("cron.status", json!({})).await;
    let path = worker.dir.path().join("state/state.sqlite");
    let recorded = json!({"enabled": true, "storePath": path, "jobs": 0, "nextWakeAtMs": null});
    assert_eq!(status, recorded);

    let made = client.call("cron.add", hourly()).await;
    let (id, at) = (made["id"].clone(), made["createdAtMs"].as_u64().unwrap());
    let recorded = json!({"id": id, "name": "t1", "enabled": true, "createdAtMs": at,
        "updatedAtMs": at, "schedule": {"kind": "every", "everyMs": 3_600_000, "anchorMs": at},
        "sessionTarget": "isolated", "wakeMode": "now",
        "payload": {"kind": "agentTurn", "message": "hi there"}, "delivery": {"mode": "announce"},
        "state": {"nextRunAtMs": at + 3_600_000}});
    assert_eq!(made, recorded);
    let listed = client.call("cron.list", json!({})).await;
    assert_eq!((&listed["jobs"], &listed["limit"]), (&json!([recorded]), &json!(1)));
    let preview = &listed["deliveryPreviews"][id.as_str().unwrap()];
    assert_eq!(preview["label"], "announce -> last");
    assert_eq!(client.call("cron.get", json!({"id": id})).await, recorded);
    let status = client.call("cron.status", json!({})).await;
    assert_eq!(status["nextWakeAtMs"], at + 3_600_000);

    let patch = json!({"id": id, "patch": {"enabled": false}});
    let changed = client.call("cron.update", patch).await;
    assert_eq!((&changed["enabled"], &changed["state"]), (&json!(false), &json!({})));
    assert_eq!(client.call("cron.list", json!({})).await["total"], 0, "it is disabled");
    assert_eq!(client.call("cron.list", json!({"enabled": "disabled"})).await["total"], 1);
    let runs = client.call("cron.runs", json!({"id": id})).await;
    let recorded = json!({"entries": [], "total": 0, "offset": 0, "limit": 50, "hasMore": false,
        "nextOffset": null});
    assert_eq!(runs, recorded);
    let removed = client.call("cron.remove", json!({"jobId": id})).await;
    assert_eq!(removed, json!({"ok": true, "removed": true}));
    let removed = client.call("cron.remove", json!({"id": id})).await;
    assert_eq!(removed, json!({"ok": true, "removed": false}));
}

#[tokio::test]
async fn a_job_runs_again_and_again_and_others_hear_of_it() {
    let worker = Worker::start().await;
    let mut client = Client::of(&worker).await;
    let mut other = Client::of(&worker).await;
    let made = client.call("cron.add", job(50)).await;
    let id = &made["id"];
    let added = other.told("added").await;
    assert_eq!((&added["jobId"], &added["job"]), (id, &made));
    let first = other.told("started").await;
    let ended = other.told("finished").await;
    assert_eq!(ended["runId"], first["runId"]);
    assert_eq!((&ended["status"], &ended["summary"]), (&json!("ok"), &json!("hi there")));
    let session = format!("agent:main:cron:{}", id.as_str().unwrap());
    assert_eq!(ended["sessionKey"], session.as_str());
    other.told("started").await;
    let second = other.told("finished").await;
    assert_ne!(second["runId"], first["runId"]);
    client.call("cron.update", json!({"id": id, "patch": {"enabled": false}})).await;
    let runs = client.call("cron.runs", json!({"id": id, "sortDir": "asc"})).await;
    assert_eq!(runs["entries"][0]["runId"], first["runId"], "{runs}");
    let due = |at: usize| runs["entries"][at]["dueAtMs"].as_u64().unwrap();
    assert_eq!(due(0), made["createdAtMs"].as_u64().unwrap() + 50);
    assert!(due(1) > due(0));
}

#[tokio::test]
async fn a_run_is_begun_by_whoever_asks_for_it_and_fails_with_its_reason() {
    let worker = Worker::start().await;
    let mut client = Client::of(&worker).await;
    let id = client.call("cron.add", hourly()).await["id"].clone();
    client.told("added").await;
    let not_due = client.call("cron.run", json!({"id": id, "mode": "due"})).await;
    assert_eq!(not_due, json!({"ok": true, "ran": false, "reason": "not-due"}));
    let asked = client.call("cron.run", json!({"id": id})).await;
    assert_eq!((&asked["ok"], &asked["enqueued"]), (&json!(true), &json!(true)));
    client.told("started").await;
    assert_eq!(client.told("finished").await["runId"], asked["runId"]);

    let slow = json!({"kind": "agentTurn", "message": "/slow 60000 never said"});
    client.call("cron.update", json!({"id": id, "patch": {"payload": slow}})).await;
    client.told("updated").await;
    client.call("cron.run", json!({"id": id})).await;
    client.told("started").await;
    let again = client.call("cron.run", json!({"id": id})).await;
    assert_eq!(again, json!({"ok": true, "ran": false, "reason": "already-running"}));
    let session = format!("agent:main:cron:{}", id.as_str().unwrap());
    client.call("chat.abort", json!({"sessionKey": session})).await;
    assert_eq!(client.told("finished").await["error"], "somebody has ended it");

    client.call("cron.update", json!({"id": id, "patch": {"agentId": "ghost"}})).await;
    client.told("updated").await;
    client.call("cron.run", json!({"id": id})).await;
    client.told("started").await;
    assert_eq!(client.told("finished").await["error"], "unknown agent id \"ghost\"");
    let failed = client.call("cron.runs", json!({"jobId": id, "status": "error"})).await;
    assert_eq!((&failed["total"], &failed["entries"][0]["jobId"]), (&json!(2), &id));
    assert_eq!(client.call("cron.runs", json!({"scope": "all"})).await["total"], 3);
}

#[tokio::test]
async fn what_is_wrong_with_a_call_is_named() {
    let worker = Worker::start().await;
    let mut client = Client::of(&worker).await;
    let mut wrong = hourly();
    wrong["schedule"]["everyMs"] = json!(0);
    let nobody = json!({"id": "x"});
    for (method, params, message) in [
        ("cron.add", wrong, "invalid cron.add params: at /schedule/everyMs: must be >= 1"),
        (
            "cron.add",
            json!({}),
            "invalid cron.add params: must have required property 'name'; \
             must have required property 'schedule'; \
             must have required property 'sessionTarget'; \
             must have required property 'wakeMode'; must have required property 'payload'",
        ),
        ("cron.update", json!({"patch": {}}), "invalid cron.update params: missing id"),
        ("cron.update", json!({"id": "x", "patch": {}}), "cron job not found: x"),
        ("cron.get", nobody.clone(), "cron job not found: x"),
        ("cron.run", nobody, "cron job not found: x"),
        (
            "cron.run",
            json!({"id": "x", "mode": "soon"}),
            "invalid cron.run params: at /mode: must be equal to one of the allowed values",
        ),
        ("cron.runs", json!({"scope": "job"}), "invalid cron.runs params: missing id"),
        (
            "cron.list",
            json!({"foo": 1}),
            "invalid cron.list params: at root: unexpected property 'foo'",
        ),
    ] {
        assert_eq!(client.refused(method, params).await, message, "{method}");
    }
    let id = client.call("cron.add", hourly()).await["id"].clone();
    let patch = json!({"id": id, "patch": {"sessionTarget": "main"}});
    let refused = client.refused("cron.update", patch).await;
    assert!(refused.starts_with("invalid cron.update params: main cron jobs"), "{refused}");
}

#[tokio::test]
async fn jobs_are_looked_up_by_readers_and_changed_by_administrators() {
    let worker = Worker::start().await;
    let mut client = Client::of(&worker).await;
    let mut reader = worker.websocket().await;
    let mut params = backend();
    params["scopes"] = json!(["operator.read", "operator.write"]);
    reader.connect_as(params).await;
    let mut reader = Client { socket: reader, calls: 0, told: Vec::new() };
    for method in ["cron.list", "cron.status", "cron.runs"] {
        reader.call(method, json!({})).await;
    }
    for method in ["cron.add", "cron.update", "cron.remove", "cron.run"] {
        let refused = reader.refused(method, json!({})).await;
        assert_eq!(refused, "missing scope: operator.admin", "{method}");
    }
    client.call("cron.add", hourly()).await;
    reader.told("added").await;
}

#[tokio::test]
async fn jobs_and_their_runs_are_remembered_by_the_next_worker() {
    let mut worker = Worker::start().await;
    let mut client = Client::of(&worker).await;
    let id = client.call("cron.add", hourly()).await["id"].clone();
    client.told("added").await;
    client.call("cron.run", json!({"id": id})).await;
    client.told("started").await;
    client.told("finished").await;
    let job = client.call("cron.get", json!({"id": id})).await;
    assert_eq!(job["state"]["lastRunStatus"], "ok");
    // It does not drain: what was answered is on disk.
    worker.process.signal(Signal::SIGKILL);
    worker.process.exited().await;
    let socket = worker.dir.path().join("worker.sock");
    let listen = format!("unix:{}", socket.display());
    worker.process = Process::spawn(command(&worker.dir).args(["--listen", &listen]));
    worker.process.log.shows("listening").await;
    let mut client = Client::of(&worker).await;
    assert_eq!(client.call("cron.get", json!({"id": id})).await, job);
    assert_eq!(client.call("cron.runs", json!({"id": id})).await["total"], 1);
}

#[tokio::test]
async fn a_drain_waits_for_a_run_and_its_end_is_recorded() {
    let mut worker = Worker::start().await;
    let mut client = Client::of(&worker).await;
    let mut job = hourly();
    job["payload"]["message"] = json!("/slow 300 one two three");
    let id = client.call("cron.add", job).await["id"].clone();
    client.told("added").await;
    client.call("cron.run", json!({"id": id})).await;
    client.told("started").await;
    worker.process.signal(Signal::SIGTERM);
    assert!(worker.process.exited().await.success());
    let socket = worker.dir.path().join("worker.sock");
    let listen = format!("unix:{}", socket.display());
    worker.process = Process::spawn(command(&worker.dir).args(["--listen", &listen]));
    worker.process.log.shows("listening").await;
    let mut client = Client::of(&worker).await;
    let runs = client.call("cron.runs", json!({"id": id})).await;
    let entry = &runs["entries"][0];
    assert_eq!((&entry["status"], &entry["summary"]), (&json!("ok"), &json!("one two three")));
}
