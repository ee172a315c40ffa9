//! Plugins that die, that cannot be understood, and that end.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::{House, advertised, ask, assert_come_back, dir, folder, install, is_ok, pid_of, until};
use crate::rig::within;

#[tokio::test]
async fn a_plugin_that_is_killed_takes_its_own_methods_with_it_and_comes_back() {
    let dir = dir();
    install(&dir, "mortal", &["who", "echo"], |_| ());
    install(&dir, "other", &["who"], |_| ());
    let house = House::start(dir).await;
    let mut socket = house.client().await;
    let (mortal, other) = (pid_of(&mut socket, "mortal").await, pid_of(&mut socket, "other").await);
    kill(mortal, Signal::SIGKILL).unwrap();
    let call = ("mortal.echo", json!({}));
    let answer = until(&mut socket, call.clone(), |answer| answer["error"]["retryable"] == true);
    assert_come_back(&answer.await);
    let listed = ask(&mut socket, "plugins.list", json!({})).await;
    let states = |listed: &Value| {
        let plugins = listed["payload"]["plugins"].as_array().unwrap().clone();
        plugins.iter().map(|plugin| plugin["state"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(states(&listed)[1], "running", "{listed}");
    assert!(advertised(&house).await.contains(&"mortal.echo".to_owned()));
    until(&mut socket, call, is_ok).await;
    assert_eq!(pid_of(&mut socket, "other").await, other);
    assert_ne!(pid_of(&mut socket, "mortal").await, mortal);
}

#[tokio::test]
async fn a_call_whose_plugin_ends_is_told_that_nobody_knows() {
    let dir = dir();
    install(&dir, "demo", &["exit", "echo"], |_| ());
    let house = House::start(dir).await;
    let mut socket = house.client().await;
    let answer = ask(&mut socket, "demo.exit", json!({})).await;
    assert_eq!(answer["error"]["code"], "UNAVAILABLE", "{answer}");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("whether it was done is unknown"), "{message}");
    house.process.log.shows("it was asked to end").await;
    until(&mut socket, ("demo.echo", json!({})), is_ok).await;
}

#[tokio::test]
async fn a_plugin_that_says_what_is_no_message_or_too_long_a_line_is_started_again() {
    for line in ["this is no JSON".to_owned(), "[]".to_owned(), "x".repeat(1024 * 1024 + 1)] {
        let dir = dir();
        install(&dir, "demo", &["say", "who"], |_| ());
        let house = House::start(dir).await;
        let mut socket = house.client().await;
        let pid = pid_of(&mut socket, "demo").await;
        let answer = ask(&mut socket, "demo.say", json!({"line": line})).await;
        assert_eq!(answer["error"]["code"], "UNAVAILABLE", "{answer}");
        let who = until(&mut socket, ("demo.who", json!({})), is_ok).await;
        assert_ne!(who["payload"]["pid"], pid.as_raw(), "{who}");
        house.process.log.shows("a plugin does not run").await;
    }
}

#[tokio::test]
async fn a_plugin_that_closes_its_stdin_is_ended_and_started_again() {
    let dir = dir();
    let introduction =
        r#"{"jsonrpc":"2.0","id":1,"result":{"protocol":1,"methods":["deaf.echo"]}}"#;
    // It hears who it is, and nothing more; it would stay all the same.
    let script =
        format!("read asked; exec 0<&-; echo $$ >>lives; echo '{introduction}'; exec sleep 600");
    install(&dir, "deaf", &["echo"], |d| d["command"] = json!(["/bin/sh", "-c", script]));
    let lives = folder(&dir, "deaf").join("lives");
    let house = House::start(dir).await;
    let answer = ask(&mut house.client().await, "deaf.echo", json!({})).await;
    assert_eq!(answer["error"]["code"], "UNAVAILABLE", "{answer}");
    house.process.log.shows("it does not hear what it is told").await;
    let begun_again = async {
        loop {
            let lives = std::fs::read_to_string(&lives).unwrap();
            let pids: Vec<i32> = lives.lines().map(|pid| pid.parse().unwrap()).collect();
            if let [first, _, ..] = pids[..] {
                return first;
            }
            tokio::task::yield_now().await;
        }
    };
    let first = within("another life of it", begun_again).await;
    let gone = async {
        while kill(Pid::from_raw(first), None).is_ok() {
            tokio::task::yield_now().await;
        }
    };
    within("the end of the first one", gone).await;
}

#[tokio::test]
async fn a_plugin_that_does_not_say_how_it_is_is_started_again() {
    let dir = dir();
    install(&dir, "demo", &["who"], |d| d["healthIntervalMs"] = json!(10));
    let house = House::start(dir).await;
    let mut socket = house.client().await;
    let pid = pid_of(&mut socket, "demo").await;
    kill(pid, Signal::SIGSTOP).unwrap();
    house.process.log.shows("it did not say within").await;
    let who = until(&mut socket, ("demo.who", json!({})), is_ok).await;
    assert_ne!(who["payload"]["pid"], pid.as_raw());
}

#[tokio::test]
async fn plugins_end_with_their_worker() {
    let dir = dir();
    install(&dir, "demo", &["who"], |_| ());
    install(&dir, "stuck", &["who"], |_| ());
    let mut house = House::start(dir).await;
    let mut socket = house.client().await;
    let demo = pid_of(&mut socket, "demo").await;
    let stuck = pid_of(&mut socket, "stuck").await;
    kill(stuck, Signal::SIGSTOP).unwrap();
    drop(socket);
    house.process.signal(Signal::SIGTERM);
    house.process.exited().await;
    for pid in [demo, stuck] {
        within("the plugin to end", async {
            while std::fs::read_to_string(format!("/proc/{pid}/stat"))
                .is_ok_and(|stat| !stat.contains(") Z "))
            {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}
