//! Calls that are still running when their connection moves: who answers them, and what everybody hears.

use std::collections::BTreeMap;

use holdfast_tests::rig::moving::{BareWebSocket, Part, call, frame};
use holdfast_tests::rig::{Front, Setup, Signal};
use serde_json::{Value, json};

use super::{all_with, drained, websocket};
use crate::{generation, quick};

/// Asks an agent that takes `ms` for each word.
async fn ask_agent(socket: &mut BareWebSocket, run: &str, session: &str, ms: u32, words: &str) {
    let params = json!({
        "message": format!("/slow {ms} {words}"), "sessionKey": session, "idempotencyKey": run,
    });
    socket.send(&frame(Part::Text, call(run, "agent", params))).await;
}

/// What one client hears: events without a gap, and each run's in order.
#[derive(Default)]
struct Ear {
    seq: u64,
    runs: BTreeMap<String, u64>,
    /// Which runs have begun and ended, in order.
    phases: Vec<(String, String)>,
    answers: Vec<Value>,
    /// What was said of each run, piece by piece.
    deltas: BTreeMap<String, String>,
}

impl Ear {
    /// Of a client that was just welcomed.
    fn open() -> Self {
        Self { seq: 1, ..Self::default() }
    }

    /// Hears one message, and checks what can be checked of it.
    async fn hear(&mut self, socket: &mut BareWebSocket) -> Value {
        let said = socket.text().await.expect("the connection lives");
        if said["type"] == "res" {
            self.answers.push(said.clone());
            return said;
        }
        self.seq += 1;
        assert_eq!(said["seq"], self.seq, "a gap: {said}");
        assert_ne!(said["event"], "shutdown", "{said}");
        let payload = &said["payload"];
        if let Some(run) = payload["runId"].as_str() {
            if said["event"] == "agent" {
                let seq = self.runs.entry(run.to_owned()).or_default();
                *seq += 1;
                assert_eq!(payload["seq"], *seq, "of run {run}: {said}");
                if let Some(phase) = payload["data"]["phase"].as_str() {
                    self.phases.push((phase.to_owned(), run.to_owned()));
                }
            }
            if let Some(delta) = payload["deltaText"].as_str() {
                self.deltas.entry(run.to_owned()).or_default().push_str(delta);
            }
        }
        said
    }

    async fn until(&mut self, socket: &mut BareWebSocket, last: impl Fn(&Value) -> bool) -> Value {
        loop {
            let said = self.hear(socket).await;
            if last(&said) {
                return said;
            }
        }
    }

    async fn accepted(&mut self, socket: &mut BareWebSocket, run: &str) {
        let accepted = self.until(socket, |said| said["id"] == run).await;
        assert_eq!(accepted["payload"]["status"], "accepted", "{accepted}");
    }

    /// The last answer to this run.
    async fn answered(&mut self, socket: &mut BareWebSocket, run: &str) -> Value {
        let is_last = |said: &Value| said["id"] == run && said["payload"]["status"] != "accepted";
        let answer = self.until(socket, is_last).await;
        let answers = self.answers.iter().filter(|said| is_last(said)).count();
        assert_eq!(answers, 1, "{run} was answered more than once");
        answer
    }

    async fn chat_ended(&mut self, socket: &mut BareWebSocket, run: &str) -> Value {
        let ends = |said: &Value| {
            said["event"] == "chat"
                && said["payload"]["runId"] == run
                && said["payload"]["state"] != "delta"
        };
        self.until(socket, ends).await
    }
}

fn text_of(answer: &Value) -> &str {
    answer["payload"]["result"]["payloads"][0]["text"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_call_in_flight_does_not_hold_its_connection_and_is_answered_over_it_once() {
    let front = Front::with(quick).await;
    let mut socket = BareWebSocket::connected(&front.address()).await;
    let mut ear = Ear::open();
    ask_agent(&mut socket, "run", "main", 300, "one two three four five six").await;
    ear.accepted(&mut socket, "run").await;
    let mut takeover = front.begin_takeover();
    takeover.until("draining").await;
    front
        .until("the successor has it while the incumbent works on", |status| {
            let open = |id| status.generation(generation(id)).and_then(|g| g.connections);
            open(2) == Some(websocket(1))
                && status.generation(generation(1)).is_some_and(|g| g.in_flight > Some(0))
        })
        .await;
    let meanwhile = socket_health(&mut ear, &mut socket).await;
    assert_eq!(meanwhile["ok"], true, "{meanwhile}");
    let answer = ear.answered(&mut socket, "run").await;
    assert_eq!(text_of(&answer), "one two three four five six", "{answer}");
    assert_eq!(ear.deltas["run"], "one two three four five six");
    let takeover = takeover.end().await;
    takeover.assert_committed();
    assert_eq!(drained(&takeover, "moved"), websocket(1), "{takeover:?}");
    assert_eq!(socket_health(&mut ear, &mut socket).await["ok"], true);
}

/// Calls something that is answered at once, between whatever else is heard.
async fn socket_health(ear: &mut Ear, socket: &mut BareWebSocket) -> Value {
    let id = format!("health {}", ear.answers.len());
    socket.send(&frame(Part::Text, call(&id, "health", json!({})))).await;
    ear.until(socket, |said| said["id"] == id.as_str()).await
}

#[tokio::test]
async fn a_run_is_heard_of_by_connections_that_move_and_by_new_ones() {
    let front = Front::with(|s| s.flag("--soak", "1s")).await;
    let mut asker = BareWebSocket::connected(&front.address()).await;
    let mut other = BareWebSocket::connected(&front.address()).await;
    let (mut asker_ear, mut other_ear) = (Ear::open(), Ear::open());
    ask_agent(&mut asker, "run", "main", 300, "a b c d e f g h i j").await;
    asker_ear.accepted(&mut asker, "run").await;
    let mut takeover = front.begin_takeover();
    takeover.until("switched").await;
    let mut newcomer = BareWebSocket::connected(&front.address()).await;
    assert_eq!(front.status().await.generations.len(), 2);
    // The newcomer has missed the beginning, and nothing of the rest.
    let first = loop {
        let said = newcomer.text().await.unwrap();
        if said["event"] == "chat" {
            break said;
        }
    };
    let heard_from = first["payload"]["seq"].as_u64().unwrap();
    let mut last = heard_from;
    loop {
        let said = newcomer.text().await.unwrap();
        if said["event"] == "agent" {
            last += 1;
            assert_eq!(said["payload"]["seq"], last, "{said}");
        }
        if said["payload"]["state"] == "final" {
            break;
        }
    }
    for (ear, socket) in [(&mut asker_ear, &mut asker), (&mut other_ear, &mut other)] {
        ear.chat_ended(socket, "run").await;
        assert_eq!(ear.deltas["run"], "a b c d e f g h i j");
    }
    assert!(heard_from < last, "it was over before anybody new came");
    takeover.end().await.assert_committed();
}

#[tokio::test]
async fn a_run_of_the_successor_is_heard_of_by_a_connection_that_cannot_move() {
    let front = Front::with(quick).await;
    let mut pinned = BareWebSocket::connected(&front.address()).await;
    let padding = json!({"padding": "x".repeat(2 * 1024 * 1024)});
    let huge = frame(Part::Text, call("huge", "health", padding));
    let (most, rest) = huge.split_at(huge.len() - 10);
    pinned.send(most).await;
    let mut takeover = front.begin_takeover();
    takeover.until("draining").await;
    let mut newcomer = BareWebSocket::connected(&front.address()).await;
    let mut newcomer_ear = Ear::open();
    ask_agent(&mut newcomer, "run", "main", 10, "a b c").await;
    newcomer_ear.answered(&mut newcomer, "run").await;
    let mut ear = Ear::open();
    ear.chat_ended(&mut pinned, "run").await;
    assert_eq!(ear.deltas["run"], "a b c");
    pinned.send(rest).await;
    ear.until(&mut pinned, |said| said["id"] == "huge").await;
    takeover.end().await.assert_committed();
    assert_eq!(socket_health(&mut ear, &mut pinned).await["ok"], true);
}

#[tokio::test]
async fn when_the_incumbent_dies_its_calls_are_answered_unavailable_once_and_nothing_else_is() {
    let front = Front::with(quick).await;
    let mut socket = BareWebSocket::connected(&front.address()).await;
    let mut ear = Ear::open();
    for run in ["one", "two"] {
        ask_agent(&mut socket, run, run, 60_000, "never said").await;
        ear.accepted(&mut socket, run).await;
    }
    let incumbent = front.serving().await.worker().expect("it has a process");
    let mut takeover = front.begin_takeover();
    takeover.until("draining").await;
    all_moved(&front).await;
    incumbent.signal(Signal::SIGKILL);
    for run in ["one", "two"] {
        let answer = ear.answered(&mut socket, run).await;
        assert_eq!(answer["error"]["code"], "UNAVAILABLE", "{answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains("unknown"), "{message}");
    }
    ask_agent(&mut socket, "three", "one", 1, "said").await;
    assert_eq!(text_of(&ear.answered(&mut socket, "three").await), "said");
    assert_eq!(ear.answers.iter().filter(|answer| answer["id"] == "one").count(), 2);
    takeover.end().await;
}

/// Ends once the only connection is the successor's.
async fn all_moved(front: &Front) {
    front
        .until("the connection has moved", |status| {
            let successor = status.generation(generation(2));
            successor.and_then(|g| g.connections) == Some(websocket(1))
        })
        .await;
}

#[tokio::test]
async fn a_run_of_the_incumbent_is_ended_through_the_successor() {
    let front = Front::with(quick).await;
    let mut socket = BareWebSocket::connected(&front.address()).await;
    let mut ear = Ear::open();
    ask_agent(&mut socket, "run", "main", 60_000, "never said").await;
    ear.accepted(&mut socket, "run").await;
    let mut takeover = front.begin_takeover();
    takeover.until("draining").await;
    all_moved(&front).await;
    let abort = call("abort", "chat.abort", json!({"sessionKey": "main"}));
    socket.send(&frame(Part::Text, abort)).await;
    let aborted = ear.until(&mut socket, |said| said["id"] == "abort").await;
    assert_eq!(aborted["payload"], json!({"ok": true, "aborted": true, "runIds": ["run"]}));
    let status = |said: &Value| said["payload"]["status"].clone();
    let ended =
        match ear.answers.iter().rfind(|said| said["id"] == "run" && status(said) != "accepted") {
            Some(said) => said.clone(),
            None => ear.answered(&mut socket, "run").await,
        };
    assert_eq!(status(&ended), "aborted", "{ended}");
    // Nothing holds the incumbent any more.
    takeover.end().await.assert_committed();
}

#[tokio::test]
async fn a_wait_at_the_successor_is_told_when_a_run_of_the_incumbent_ends() {
    // Whoever only looked now and then would look too late.
    let rarely = |s: Setup| quick(s).environment("HOLDFAST_WAIT_PAUSE", "1h");
    let front = Front::with(rarely).await;
    let mut socket = BareWebSocket::connected(&front.address()).await;
    let mut ear = Ear::open();
    // The link stays, for one goes on.
    for run in ["one", "other"] {
        ask_agent(&mut socket, run, run, 60_000, "never said").await;
        ear.accepted(&mut socket, run).await;
    }
    let mut takeover = front.begin_takeover();
    takeover.until("draining").await;
    all_moved(&front).await;
    let wait = call("wait", "agent.wait", json!({"runId": "one", "timeoutMs": 20_000}));
    socket.send(&frame(Part::Text, wait)).await;
    // The wait has begun by then: calls of one client begin in their order.
    socket_health(&mut ear, &mut socket).await;
    for run in ["one", "other"] {
        let abort = call("abort", "chat.abort", json!({"sessionKey": run}));
        socket.send(&frame(Part::Text, abort)).await;
        if run == "one" {
            let waited = ear.until(&mut socket, |said| said["id"] == "wait").await;
            assert_eq!(waited["payload"]["runId"], "one", "{waited}");
            // A wait that gives up knows of no end.
            assert_eq!(waited["payload"]["stopReason"], "rpc", "{waited}");
            let incumbent = front.status().await;
            let incumbent = incumbent.generation(generation(1)).expect("it is still there");
            assert!(incumbent.in_flight > Some(0), "nothing went on there: {incumbent:?}");
        }
    }
    takeover.end().await.assert_committed();
}

#[tokio::test]
async fn a_sessions_next_turn_waits_for_the_one_that_the_incumbent_is_at() {
    let front = Front::with(quick).await;
    let mut socket = BareWebSocket::connected(&front.address()).await;
    let mut ear = Ear::open();
    ask_agent(&mut socket, "first", "main", 300, "a b c d e").await;
    ear.accepted(&mut socket, "first").await;
    let mut takeover = front.begin_takeover();
    takeover.until("draining").await;
    all_moved(&front).await;
    ask_agent(&mut socket, "second", "main", 10, "f g").await;
    ask_agent(&mut socket, "elsewhere", "other", 1, "h").await;
    assert_eq!(text_of(&ear.answered(&mut socket, "second").await), "f g");
    let order: Vec<(&str, &str)> =
        ear.phases.iter().map(|(phase, run)| (phase.as_str(), run.as_str())).collect();
    let at = |what| order.iter().position(|phase| *phase == what).expect("it happened");
    assert!(at(("end", "first")) < at(("start", "second")), "{order:?}");
    assert!(at(("end", "elsewhere")) < at(("end", "first")), "{order:?}");
    takeover.end().await.assert_committed();
}

#[tokio::test]
async fn a_call_that_the_drains_deadline_cuts_is_answered_unavailable_and_its_connection_stays() {
    let short = |s: Setup| quick(s).flag("--drain-timeout", "2s");
    let front = Front::with(short).await;
    let mut socket = BareWebSocket::connected(&front.address()).await;
    let mut ear = Ear::open();
    ask_agent(&mut socket, "run", "main", 60_000, "never said").await;
    ear.accepted(&mut socket, "run").await;
    let takeover = front.takeover().await;
    takeover.assert_committed();
    let answer = ear.answered(&mut socket, "run").await;
    assert_eq!(answer["error"]["code"], "UNAVAILABLE", "{answer}");
    all_with(&front, generation(2), websocket(1)).await;
    assert_eq!(socket_health(&mut ear, &mut socket).await["ok"], true);
}
