//! Agents that answer with models: of a provider that is there, one that fails in each of its ways, and several in
//! turn.

mod chosen;
mod https;
mod reload;
// The same provider as the suite's and a program of its own; it needs nothing of that package.
#[path = "../../../../tests/src/bin/fixture-provider/script.rs"]
mod script;
#[path = "../../../../tests/src/bin/fixture-provider/server.rs"]
mod server;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use self::server::{FixtureProvider, Heard};
use crate::agents::told;
use crate::rig::{Process, WebSocket, Worker, command, completion, saying, streaming, within};

/// What the provider is shown, and nobody else may read.
const KEY: &str = "key-0123456789-hunter2";

/// Whom the worker trusts with https; nobody until a test writes it.
const AUTHORITIES: &str = "authorities.pem";

/// A provider, and a worker whose `main` has these models.
struct Scene {
    provider: FixtureProvider,
    worker: Worker,
}

impl Scene {
    async fn with(model: Value) -> Self {
        Self::configured(|config| config["agents"]["defaults"]["model"] = model).await
    }

    async fn configured(change: impl FnOnce(&mut Value)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let provider = FixtureProvider::serve(listener).unwrap();
        let at = |key: Value| json!({"baseUrl": provider.base_url(), "apiKey": key});
        let mut config = json!({
            "agents": {"defaults": {}},
            "models": {"providers": {
                "fake": at(json!("${FAKE_KEY}")),
                "hasty": at(json!(KEY)),
            }},
        });
        config["models"]["providers"]["hasty"]["timeoutSeconds"] = json!(1);
        change(&mut config);
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("state")).unwrap();
        std::fs::write(dir.path().join("state/openclaw.json"), config.to_string()).unwrap();
        Self { provider, worker: started(dir).await }
    }

    async fn socket(&self) -> WebSocket {
        let mut socket = self.worker.websocket().await;
        socket.connect().await;
        socket
    }

    /// Ends when this is true of what the provider has heard.
    async fn until(&self, what: &str, is_so: impl FnMut(&Heard) -> bool) -> Heard {
        let mut heard = self.provider.heard();
        within(what, heard.wait_for(is_so)).await.unwrap().clone()
    }

    /// The worker's log, after its end; without the key in any case.
    async fn log(mut self) -> String {
        self.worker.process.signal(nix::sys::signal::Signal::SIGTERM);
        self.worker.process.exited().await;
        let log = self.worker.process.log.whole().await;
        assert!(!log.contains(KEY), "{log}");
        log
    }
}

async fn started(dir: TempDir) -> Worker {
    let listen = format!("unix:{}", dir.path().join("worker.sock").display());
    let mut command = command(&dir);
    command.args(["--listen", &listen]).env("FAKE_KEY", KEY);
    command.env("SSL_CERT_FILE", dir.path().join(AUTHORITIES)).env_remove("SSL_CERT_DIR");
    let process = Process::spawn(&mut command);
    process.log.shows("listening").await;
    Worker { process, dir }
}

/// What an agent answers in the end, or the words in which it fails.
async fn turn(socket: &mut WebSocket, run: &str, message: &str) -> Result<String, String> {
    let params = json!({"message": message, "idempotencyKey": run});
    socket.send(&json!({"type": "req", "id": run, "method": "agent", "params": params})).await;
    loop {
        let frame = socket.frame().await;
        assert!(!frame.to_string().contains(KEY), "{frame}");
        if frame["id"] == run && frame["payload"]["status"] != "accepted" {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            return match frame["ok"] == true {
                true => Ok(text(&frame["payload"]["result"]["payloads"][0]["text"])),
                false => Err(text(&frame["error"]["message"])),
            };
        }
    }
}

#[tokio::test]
async fn a_model_answers_and_is_told_what_came_before() {
    let scene = Scene::with(json!("fake/echo")).await;
    let mut socket = scene.socket().await;
    let workspace = scene.worker.dir.path().join("state/workspace");
    std::fs::create_dir_all(&workspace).unwrap();
    std::fs::write(workspace.join("SOUL.md"), "be kind").unwrap();
    assert_eq!(turn(&mut socket, "1", "hello there").await.as_deref(), Ok("hello there"));
    assert_eq!(turn(&mut socket, "2", "and again").await.as_deref(), Ok("and again"));
    let heard = scene.until("two requests", |heard| heard.open == 0).await;
    let system = json!({"role": "system", "content": "# SOUL.md\n\nbe kind"});
    let said = |role: &str, text: &str| json!({"role": role, "content": text});
    assert_eq!(
        heard.requests[1],
        json!({
            "model": "echo", "stream": true, "stream_options": {"include_usage": true},
            "messages": [
                system, said("user", "hello there"), said("assistant", "hello there"),
                said("user", "and again"),
            ],
        })
    );
    let session = told(&mut socket, "sessions.describe", json!({"key": "agent:main:main"})).await;
    // As the provider has counted: three words of the soul and what was said by then, and the same again.
    assert_eq!(session["session"]["inputTokens"], (3 + 2) + (3 + 2 + 2 + 2), "{session}");
    assert_eq!(session["session"]["outputTokens"], 2 + 2, "{session}");
    scene.log().await;
}

#[tokio::test]
async fn a_completion_is_the_models_whole_and_streamed() {
    let scene = Scene::with(json!("fake/echo")).await;
    let whole = scene.worker.complete(&saying("a b c")).await;
    assert_eq!(whole.json()["choices"][0]["message"]["content"], "a b c");
    let streamed = scene.worker.complete(&streaming("a b c")).await;
    let said: String = streamed
        .events()
        .iter()
        .filter_map(|event| serde_json::from_str::<Value>(event).ok())
        .filter_map(|event| event["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
        .collect();
    assert_eq!((said.as_str(), streamed.events().last()), ("a b c", Some(&"[DONE]")));
    scene.log().await;
}

#[tokio::test]
async fn a_model_is_told_what_a_client_says_came_before_or_else_what_the_session_knows() {
    let scene = Scene::with(json!("fake/echo")).await;
    let said = |role: &str, text: &str| json!({"role": role, "content": text});
    let told = |messages: Value| {
        let body = json!({"model": "openclaw", "user": "alice", "messages": messages});
        let scene = &scene;
        async move {
            let answer = scene.worker.complete(&body).await;
            let content = answer.json()["choices"][0]["message"]["content"].clone();
            assert_eq!(content, messages[messages.as_array().unwrap().len() - 1]["content"]);
            let heard = scene.until("the end of the answer", |heard| heard.open == 0).await;
            heard.requests.last().unwrap()["messages"].clone()
        }
    };
    let whole = json!([
        said("system", "be brief"),
        said("user", "a"),
        said("assistant", "b"),
        said("user", "c"),
    ]);
    assert_eq!(told(whole.clone()).await, whole);
    // Of that conversation the session has what was asked and answered.
    let known = json!([said("user", "c"), said("assistant", "c"), said("user", "d")]);
    assert_eq!(told(json!([said("user", "d")])).await, known);
    assert_eq!(told(whole.clone()).await, whole);
    scene.log().await;
}

#[tokio::test]
async fn a_completion_costs_what_its_provider_says() {
    let scene = Scene::with(json!("fake/thoughtful")).await;
    let cost = json!({"prompt_tokens": 5, "completion_tokens": 700, "total_tokens": 705});
    let whole = scene.worker.complete(&saying("a b c")).await;
    assert_eq!(whole.json()["usage"], cost);
    let mut ask = streaming("a b c");
    ask["stream_options"] = json!({"include_usage": true});
    let streamed = scene.worker.complete(&ask).await;
    let events = streamed.events();
    let last: Value = serde_json::from_str(events[events.len() - 2]).unwrap();
    assert_eq!((&last["usage"], &last["choices"]), (&cost, &json!([])));
    scene.log().await;
}

#[tokio::test]
async fn when_all_models_fail_the_user_reads_why_each_of_them_did() {
    let fallbacks = ["fake/unauthorized", "fake/overloaded", "fake/unauthorized"];
    let scene = Scene::with(json!({"primary": "hasty/silent", "fallbacks": fallbacks})).await;
    let mut socket = scene.socket().await;
    let failed = turn(&mut socket, "1", "hello").await.unwrap_err();
    assert_eq!(
        failed,
        "all 3 models failed: hasty/silent: no output for 1 s; fake/unauthorized: 401 invalid key [redacted]; fake/overloaded: 529 overloaded"
    );
    let kept = told(&mut socket, "sessions.get", json!({"key": "agent:main:main"})).await;
    let kept = &kept["modelFallback"];
    assert_eq!(kept["runId"], "1");
    assert_eq!(
        kept["decisions"][1],
        json!({
            "candidate": "fake/unauthorized", "reason": "auth", "status": 401,
            "detail": "invalid key [redacted]", "next": "fake/overloaded",
        })
    );
    assert_eq!(kept["decisions"][2].get("next"), None);
    let log = scene.log().await;
    assert_eq!(log.matches("model fallback decision").count(), 3, "{log}");
}

#[tokio::test]
async fn a_model_that_fails_is_followed_by_one_that_answers() {
    for (first, words) in [
        ("fake/unauthorized", "auth"),
        ("fake/limited", "rate-limit"),
        ("fake/unpaid", "billing"),
        ("fake/empty", "no-output"),
        ("fake/nothing-like-it", "unknown"),
        ("gone/model", "harness-missing"),
    ] {
        let model = json!({"primary": first, "fallbacks": ["gone/other", "fake/echo"]});
        let scene = Scene::with(model).await;
        let mut socket = scene.socket().await;
        assert_eq!(turn(&mut socket, "1", "hello").await.as_deref(), Ok("hello"), "{first}");
        let kept = told(&mut socket, "sessions.get", json!({"key": "agent:main:main"})).await;
        assert_eq!(kept["modelFallback"]["decisions"][0]["reason"], words, "{first}");
        let log = scene.log().await;
        assert!(log.contains("candidate_succeeded"), "{log}");
        // Once for the incident, whether one or two models wanted it.
        assert_eq!(log.matches("is not registered").count(), 1, "{log}");
    }
}

#[tokio::test]
async fn what_a_single_model_says_of_its_failure_is_what_the_user_reads() {
    for (model, words) in [
        ("fake/long", "fake/long failed: 400 maximum context length is 8 tokens"),
        ("fake/limited", "fake/limited failed: 429 slow down"),
        ("fake/empty", "fake/empty failed: an empty answer"),
        (
            "gone/model",
            "no model answered: gone/model: not asked: harness \"gone\" is not registered",
        ),
    ] {
        let scene = Scene::with(json!(model)).await;
        let mut socket = scene.socket().await;
        assert_eq!(turn(&mut socket, "1", "hello").await.unwrap_err(), words);
        scene.log().await;
    }
}

#[tokio::test]
async fn a_model_that_wants_to_be_asked_again_at_once_is() {
    let scene = Scene::with(json!("fake/limited-once")).await;
    let mut socket = scene.socket().await;
    assert_eq!(turn(&mut socket, "1", "hello").await.as_deref(), Ok("hello"));
    assert_eq!(scene.until("two requests", |heard| heard.open == 0).await.requests.len(), 2);
    scene.log().await;
}

#[tokio::test]
async fn once_something_was_said_nobody_else_is_asked_and_what_was_said_stays() {
    for (model, words) in [
        ("fake/cut", "fake/cut failed: its answer broke off"),
        ("hasty/stuck", "hasty/stuck failed: no end within 1 s; not asked: fake/echo"),
    ] {
        let scene = Scene::with(json!({"primary": model, "fallbacks": ["fake/echo"]})).await;
        let mut socket = scene.socket().await;
        let failed = turn(&mut socket, "1", "hello").await.unwrap_err();
        assert!(
            failed.starts_with(words) && failed.ends_with("; not asked: fake/echo"),
            "{failed}"
        );
        let history = told(&mut socket, "sessions.get", json!({"key": "agent:main:main"})).await;
        assert_eq!(history["messages"][1]["content"][0]["text"], "one", "{history}");
        let heard = scene.until("the end of the answer", |heard| heard.open == 0).await;
        assert_eq!(heard.requests.len(), 1);
        scene.log().await;
    }
}

#[tokio::test]
async fn a_run_that_is_aborted_closes_the_providers_connection() {
    for model in ["fake/silent", "fake/stuck", "fake/endless"] {
        let scene = Scene::with(json!(model)).await;
        let mut socket = scene.socket().await;
        let params = json!({"sessionKey": "main", "message": "hello", "idempotencyKey": "1"});
        told(&mut socket, "chat.send", params).await;
        scene.until("the request", |heard| heard.open == 1).await;
        let aborted = told(&mut socket, "chat.abort", json!({"sessionKey": "main"})).await;
        assert_eq!(aborted["runIds"], json!(["1"]));
        scene.until("the end of the answer", |heard| heard.open == 0).await;
        scene.log().await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_its_completion_closes_the_providers_connection() {
    let scene = Scene::with(json!("fake/endless")).await;
    let mut client = scene.worker.connect().await;
    client.send(completion(&streaming("hello"), "").as_bytes()).await;
    client.head().await;
    client.chunk().await;
    scene.until("the request", |heard| heard.open == 1).await;
    drop(client);
    scene.until("the end of the answer", |heard| heard.open == 0).await;
    scene.log().await;
}

#[tokio::test]
async fn an_agent_of_its_own_model_asks_nobody_else() {
    let scene = Scene::configured(|config| {
        config["agents"] = json!({
            "defaults": {"model": {"primary": "fake/echo", "fallbacks": ["fake/echo"]}},
            "list": [{"id": "main"}, {"id": "strict", "model": "fake/overloaded"}],
        });
    })
    .await;
    let mut body = saying("hello");
    assert_eq!(scene.worker.complete(&body).await.status, 200);
    body["model"] = json!("openclaw/strict");
    let failed = scene.worker.complete(&body).await;
    let words = failed.json()["error"]["message"].clone();
    assert_eq!((failed.status, words), (500, json!("fake/overloaded failed: 529 overloaded")));
    scene.log().await;
}
