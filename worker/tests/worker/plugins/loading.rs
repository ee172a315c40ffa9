//! What is loaded at a start, and what a worker waits for.

use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};
use tokio::process::Command;

use super::{House, ask, assert_invalid, dir, folder, install, is_ok, pid_of, until};
use crate::rig::{Client, command, get};

#[tokio::test]
async fn plugins_that_claim_one_method_are_both_named_and_neither_is_loaded() {
    let dir = dir();
    install(&dir, "one", &["echo"], |_| ());
    install(&dir, "two", &["echo"], |d| d["methods"][0]["name"] = json!("one.echo"));
    install(&dir, "three", &["echo"], |_| ());
    install(&dir, "four", &["echo"], |d| d["methods"][0]["name"] = json!("agents.list"));
    let house = House::start(dir).await;
    let both = r#"the plugins "one" and "two" both claim the method "one.echo""#;
    let mut socket = house.client().await;
    let listed = ask(&mut socket, "plugins.list", json!({})).await;
    let plugins = listed["payload"]["plugins"].as_array().unwrap();
    let of = |id: &str| plugins.iter().find(|plugin| plugin["id"] == id).unwrap();
    assert_eq!((&of("one")["state"], &of("one")["error"]), (&json!("refused"), &json!(both)));
    assert_eq!(of("two")["error"], both);
    let gateway =
        "the plugin \"four\" claims the method \"agents.list\", and so does the gateway itself";
    assert_eq!(of("four")["error"], gateway);
    assert!(is_ok(&ask(&mut socket, "three.echo", json!({})).await));
    assert!(is_ok(&ask(&mut socket, "agents.list", json!({})).await));
    assert_invalid(&ask(&mut socket, "one.echo", json!({})).await, "unknown method");
}

#[tokio::test]
async fn health_lists_the_plugins_that_are_loaded_and_those_that_do_not_run() {
    let dir = dir();
    install(&dir, "two", &["echo"], |_| ());
    install(&dir, "one", &["echo"], |_| ());
    install(&dir, "broken", &["echo"], |d| d["command"] = json!(["./nobody"]));
    install(&dir, "thief", &["echo"], |d| d["methods"][0]["name"] = json!("agents.list"));
    let house = House::start(dir).await;
    let mut socket = house.client().await;
    // For a moment now and then the broken one is being started again.
    let both =
        |health: &Value| health["payload"]["plugins"]["errors"].as_array().unwrap().len() == 2;
    let health = until(&mut socket, ("health", json!({})), both).await;
    let plugins = &health["payload"]["plugins"];
    assert_eq!(plugins["loaded"], json!(["one", "two"]), "{plugins}");
    let [broken, thief] = &plugins["errors"].as_array().unwrap()[..] else { panic!("{plugins}") };
    let theft =
        r#"the plugin "thief" claims the method "agents.list", and so does the gateway itself"#;
    let expected = json!({"id": "thief", "origin": "global", "activated": false, "error": theft});
    assert_eq!(*thief, expected);
    assert_eq!((&broken["id"], &broken["activated"]), (&json!("broken"), &json!(true)));
    assert!(broken["error"].as_str().unwrap().starts_with("could not start "), "{broken}");
}

#[tokio::test]
async fn a_declaration_that_is_wrong_is_placed_and_stops_nobody_else() {
    let dir = dir();
    install(&dir, "good", &["echo"], |_| ());
    std::fs::create_dir_all(folder(&dir, "bad")).unwrap();
    let path = folder(&dir, "bad").join("plugin.json");
    std::fs::write(&path, "{\n  \"command\": [\"x\"],\n  \"colour\": 1\n}").unwrap();
    let house = House::start(dir).await;
    let mut socket = house.client().await;
    let listed = ask(&mut socket, "plugins.list", json!({})).await;
    let error = listed["payload"]["plugins"][1]["error"].as_str().unwrap();
    assert!(error.ends_with("bad/plugin.json:3:3: colour: this key is not known"), "{error}");
    assert!(is_ok(&ask(&mut socket, "good.echo", json!({})).await));
    let refused = ask(&mut socket, "plugins.reload", json!({})).await;
    assert_invalid(&refused, "plugin.json:3:3: colour: this key is not known");
    assert!(is_ok(&ask(&mut socket, "good.echo", json!({})).await));
}

#[tokio::test]
async fn a_worker_is_ready_when_its_required_plugin_is_and_says_which_one_is_not() {
    let dir = dir();
    let gate = dir.path().join("gate");
    install(&dir, "late", &["who"], |d| {
        d["required"] = json!(true);
        d["startTimeoutMs"] = json!(60_000);
        d["environment"] = json!({"DEMO_GATE": gate});
    });
    install(&dir, "early", &["who"], |_| ());
    let house = House::spawn(dir);
    house.process.log.shows("a plugin runs plugin=early").await;
    assert!(!house.process.log.text().contains("listening"), "it is ready without its plugin");
    std::fs::write(&gate, "").unwrap();
    house.process.log.shows("listening").await;
    assert_eq!(house.ready().await.0, 200);
    let mut socket = house.client().await;
    let pid = pid_of(&mut socket, "late").await;
    std::fs::remove_file(&gate).unwrap();
    kill(pid, Signal::SIGKILL).unwrap();
    let told = house.until_ready_is(503).await;
    assert_eq!(told["failing"], json!(["plugin:late"]));
    let mut client = Client::connect(&house.socket()).await;
    client.send(get("/startupz").as_bytes()).await;
    assert_eq!(client.reply().await.status, 200, "it has started all the same");
    std::fs::write(&gate, "").unwrap();
    house.until_ready_is(200).await;
}

#[tokio::test]
async fn a_plugin_has_the_limit_of_descriptors_that_the_worker_was_started_with() {
    let dir = dir();
    install(&dir, "demo", &["who"], |_| ());
    let worker = command(&dir);
    let mut limited = Command::new("/bin/sh");
    limited.env_clear().args(["-c", "ulimit -Sn 777; exec \"$0\" \"$@\""]);
    limited.arg(worker.as_std().get_program()).stdin(Stdio::null()).stdout(Stdio::null());
    limited.stderr(Stdio::piped()).kill_on_drop(true);
    for (name, value) in worker.as_std().get_envs() {
        limited.env(name, value.expect("it is set"));
    }
    let house = House::spawn_by(&mut limited, dir);
    house.process.log.shows("listening").await;
    let who = ask(&mut house.client().await, "demo.who", json!({})).await;
    assert_eq!(who["payload"]["descriptors"], 777, "{who}");
}

#[tokio::test]
async fn a_worker_whose_required_plugin_was_left_out_is_never_ready_and_ends_when_it_is_told_to() {
    let dir = dir();
    install(&dir, "one", &["echo"], |d| d["methods"][0]["name"] = json!("a.b"));
    install(&dir, "two", &["echo"], |d| {
        d["methods"][0]["name"] = json!("a.b");
        d["required"] = json!(true);
    });
    let mut house = House::spawn(dir);
    house.process.log.shows("both claim the method").await;
    house.process.signal(Signal::SIGTERM);
    assert!(house.process.exited().await.success());
    assert!(!house.process.log.whole().await.contains("listening"));
}
