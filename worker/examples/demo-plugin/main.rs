//! A plugin to read before writing one, and to test with. `PLUGINS.md` says what it has to do.
//!
//! It is installed by putting the program and `plugin.json` in `plugins/demo/` of the state directory. Its
//! arguments say what it answers, as methods `ID.WORD`:
//!
//! ```text
//! echo  what it was called with          wait  the same, after `ms`
//! who   its process and generation       deny  a refusal of the plugin's own
//! say   `line` on its stdout, as it is   exit  nothing: it ends
//! ```
//!
//! `DEMO_HARNESSES` names harnesses that say everything twice, word by word, every `DEMO_PAUSE_MS`. To the file
//! `DEMO_JOURNAL` it writes when it starts, stops, and is told that nobody waits any more. It answers no `initialize` before
//! the file `DEMO_GATE` is there.

#![expect(clippy::disallowed_methods, reason = "each call has a thread, and there is no runtime")]

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{self, BufRead as _, Write as _};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

/// What all threads share.
struct Plugin {
    id: String,
    words: Vec<String>,
    harnesses: Vec<String>,
    pause: Duration,
    generation: Mutex<String>,
    /// The requests that nobody waits for any more.
    cancelled: Mutex<BTreeSet<u64>>,
}

fn main() -> ExitCode {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let harnesses = variable("DEMO_HARNESSES");
    let plugin = Arc::new(Plugin {
        id: variable("HOLDFAST_PLUGIN"),
        words: std::env::args().skip(1).collect(),
        harnesses: harnesses.split_whitespace().map(str::to_owned).collect(),
        pause: Duration::from_millis(variable("DEMO_PAUSE_MS").parse().unwrap_or(0)),
        generation: Mutex::default(),
        cancelled: Mutex::default(),
    });
    // The end of stdin is the end of the plugin: the worker is gone, or has said that it is to end.
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let Ok(message) = serde_json::from_str::<Value>(&line) else { break };
        if message["method"] == "shutdown" {
            plugin.say(&json!({"jsonrpc": "2.0", "id": message["id"], "result": null}));
            break;
        }
        let plugin = Arc::clone(&plugin);
        if message["id"].is_null() {
            plugin.note(&message);
        } else {
            // One thread for each: a call that takes its time holds nobody else up.
            thread::spawn(move || plugin.answer(&message));
        }
    }
    plugin.write_down("stop");
    ExitCode::SUCCESS
}

impl Plugin {
    /// Hears a notification.
    fn note(&self, message: &Value) {
        if message["method"] == "cancel"
            && let Some(id) = message["params"]["id"].as_u64()
        {
            self.cancelled.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
            self.write_down("cancel");
        }
    }

    /// Answers a request.
    fn answer(&self, message: &Value) {
        let params = &message["params"];
        let answer = match message["method"].as_str() {
            Some("initialize") => Ok(self.introduce(params)),
            Some("health") => Ok(json!({"ok": true})),
            Some("call") => self.call(params),
            Some("run") => Ok(self.run(params)),
            _ => Err((-32601, "unknown method")),
        };
        let mut said = json!({"jsonrpc": "2.0", "id": message["id"]});
        match answer {
            Ok(result) => said["result"] = result,
            Err((code, reason)) => said["error"] = json!({"code": code, "message": reason}),
        }
        self.say(&said);
    }

    fn introduce(&self, params: &Value) -> Value {
        let gate = std::env::var_os("DEMO_GATE");
        while gate.as_ref().is_some_and(|gate| !std::path::Path::new(gate).exists()) {
            thread::sleep(Duration::from_millis(5));
        }
        let generation = params["generation"].as_str().unwrap_or_default();
        generation.clone_into(&mut self.generation.lock().unwrap_or_else(PoisonError::into_inner));
        self.write_down("start");
        let methods: Vec<String> =
            self.words.iter().map(|word| format!("{}.{word}", self.id)).collect();
        json!({"protocol": 1, "methods": methods, "harnesses": self.harnesses})
    }

    fn call(&self, params: &Value) -> Result<Value, (i64, &'static str)> {
        let (method, given) = (params["method"].as_str().unwrap_or_default(), &params["params"]);
        match method.rsplit('.').next() {
            Some("wait") => {
                thread::sleep(Duration::from_millis(given["ms"].as_u64().unwrap_or(0)));
                Ok(given.clone())
            }
            Some("who") => {
                let generation = self.generation.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(json!({
                    "plugin": self.id, "pid": std::process::id(), "generation": *generation,
                    "descriptors": descriptors(),
                    "environment": std::env::vars().map(|(name, _)| name).collect::<Vec<_>>(),
                }))
            }
            Some("deny") => match given["code"].as_i64() {
                Some(code) => Err((code, "it would rather not")),
                None => Err((-32602, "`code` is missing")),
            },
            Some("say") => {
                let mut out = io::stdout().lock();
                // Nobody is left to tell when it cannot be written.
                let _ = writeln!(out, "{}", given["line"].as_str().unwrap_or_default());
                let _ = out.flush();
                Ok(Value::Null)
            }
            Some("exit") => {
                let _ = writeln!(io::stderr(), "it was asked to end");
                std::process::abort();
            }
            _ => Ok(given.clone()),
        }
    }

    /// Says every word twice, as long as anybody listens.
    fn run(&self, params: &Value) -> Value {
        let run = params["run"].as_u64().unwrap_or(0);
        for word in params["message"].as_str().unwrap_or_default().split_whitespace() {
            thread::sleep(self.pause);
            if self.cancelled.lock().unwrap_or_else(PoisonError::into_inner).contains(&run) {
                break;
            }
            let params = json!({"run": run, "text": format!("{word} {word} ")});
            self.say(&json!({"jsonrpc": "2.0", "method": "delta", "params": params}));
        }
        Value::Null
    }

    fn say(&self, message: &Value) {
        let mut out = io::stdout().lock();
        // The end of stdin says that nobody reads.
        let _ = writeln!(out, "{message}");
        let _ = out.flush();
    }

    fn write_down(&self, what: &str) {
        let Some(journal) = std::env::var_os("DEMO_JOURNAL") else { return };
        let generation = self.generation.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = format!("{what} {} {generation}\n", std::process::id());
        let opened = OpenOptions::new().create(true).append(true).open(journal);
        // A demonstration goes on without its journal.
        let _ = opened.and_then(|mut file| file.write_all(entry.as_bytes()));
    }
}

/// How many descriptors this process may hold, as proc(5) has it.
fn descriptors() -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}
