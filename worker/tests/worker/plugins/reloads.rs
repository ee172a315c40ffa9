//! Plugins that come, change and go while others are called.

use nix::sys::signal::kill;
use serde_json::json;

use super::{House, ask, assert_invalid, dir, folder, install, is_ok, pid_of, until};
use crate::rig::within;

#[tokio::test]
async fn a_reload_adds_and_removes_methods_at_once_while_others_call() {
    let dir = dir();
    install(&dir, "stays", &["who", "echo"], |_| ());
    let house = House::start(dir).await;
    let mut socket = house.client().await;
    let pid = pid_of(&mut socket, "stays").await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (mut caller, stopped) = (house.client().await, stopped.clone());
        callers.spawn(async move {
            let mut calls = 0;
            while !*stopped.borrow() {
                let answer = ask(&mut caller, "stays.echo", json!({"n": calls})).await;
                assert_eq!(answer["payload"], json!({"n": calls}), "{answer}");
                let answer = ask(&mut caller, "comes.echo", json!({})).await;
                let unknown = answer["error"]["message"] == "unknown method: comes.echo";
                assert!(is_ok(&answer) || unknown, "{answer}");
                calls += 1;
            }
            calls
        });
    }
    for round in 0..5 {
        install(&house.dir, "comes", &["echo"], |d| d["timeoutMs"] = json!(1000 + round));
        let answer = ask(&mut socket, "plugins.reload", json!({})).await;
        assert_eq!(answer["payload"], json!({"started": ["comes"], "ended": []}), "{answer}");
        assert!(is_ok(&ask(&mut socket, "comes.echo", json!({})).await));
        // Changed, it is replaced, and nobody notices.
        install(&house.dir, "comes", &["echo"], |d| d["timeoutMs"] = json!(2000 + round));
        let answer = ask(&mut socket, "plugins.reload", json!({})).await;
        assert_eq!(
            answer["payload"],
            json!({"started": ["comes"], "ended": ["comes"]}),
            "{answer}"
        );
        std::fs::remove_dir_all(folder(&house.dir, "comes")).unwrap();
        let answer = ask(&mut socket, "plugins.reload", json!({})).await;
        assert_eq!(answer["payload"], json!({"started": [], "ended": ["comes"]}), "{answer}");
        assert_invalid(&ask(&mut socket, "comes.echo", json!({})).await, "unknown method");
    }
    stop.send_replace(true);
    while let Some(calls) = callers.join_next().await {
        assert!(calls.unwrap() > 0, "somebody never called");
    }
    assert_eq!(pid_of(&mut socket, "stays").await, pid, "what did not change was left alone");
}

#[tokio::test]
async fn a_call_under_way_is_answered_by_the_plugin_that_was_removed() {
    let dir = dir();
    let journal = dir.path().join("journal");
    install(&dir, "demo", &["wait", "who"], |d| {
        d["environment"] = json!({"DEMO_JOURNAL": journal});
    });
    let house = House::start(dir).await;
    let (mut caller, mut socket) = (house.client().await, house.client().await);
    let pid = pid_of(&mut socket, "demo").await;
    caller
        .send(&json!({"type": "req", "id": "1", "method": "demo.wait", "params": {"ms": 300}}))
        .await;
    until(&mut socket, ("plugins.list", json!({})), |listed| {
        listed["payload"]["plugins"][0]["inFlight"] == 1
    })
    .await;
    std::fs::remove_dir_all(folder(&house.dir, "demo")).unwrap();
    assert!(is_ok(&ask(&mut socket, "plugins.reload", json!({})).await));
    assert_invalid(&ask(&mut socket, "demo.who", json!({})).await, "unknown method");
    assert!(is_ok(&caller.frame().await));
    within("the plugin to end", async {
        while kill(pid, None).is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(std::fs::read_to_string(&journal).unwrap().contains("stop"), "it was asked to");
}

#[tokio::test]
async fn a_reload_that_is_refused_leaves_everything_as_it_was() {
    let dir = dir();
    install(&dir, "one", &["who", "echo"], |_| ());
    let house = House::start(dir).await;
    let mut socket = house.client().await;
    let pid = pid_of(&mut socket, "one").await;
    install(&house.dir, "two", &["echo"], |d| d["methods"][0]["name"] = json!("one.echo"));
    let refused = ask(&mut socket, "plugins.reload", json!({})).await;
    assert_invalid(&refused, r#"the plugins "one" and "two" both claim the method "one.echo""#);
    install(&house.dir, "two", &["echo"], |d| d["command"] = json!(["./not-there"]));
    let refused = ask(&mut socket, "plugins.reload", json!({})).await;
    assert_eq!(refused["error"]["code"], "UNAVAILABLE", "{refused}");
    assert!(refused["error"]["message"].as_str().unwrap().contains("not-there"), "{refused}");
    // One that is not what it says: it answers `echo`, and declares something else.
    install(&house.dir, "two", &["echo"], |d| d["methods"][0]["name"] = json!("two.other"));
    let refused = ask(&mut socket, "plugins.reload", json!({})).await;
    assert!(refused["error"]["message"].as_str().unwrap().contains("two.other"), "{refused}");
    assert_eq!(pid_of(&mut socket, "one").await, pid);
    let listed = ask(&mut socket, "plugins.list", json!({})).await;
    assert_eq!(listed["payload"]["plugins"].as_array().map(Vec::len), Some(1), "{listed}");
}

#[tokio::test]
async fn plugins_go_on_through_a_change_of_the_configuration_which_may_forbid_them() {
    let dir = dir();
    install(&dir, "demo", &["who"], |_| ());
    let house = House::start(dir).await;
    let mut socket = house.client().await;
    let pid = pid_of(&mut socket, "demo").await;
    let created = json!({"name": "ops", "workspace": house.dir.path().join("ops")});
    assert!(is_ok(&ask(&mut socket, "agents.create", created).await));
    assert_eq!(pid_of(&mut socket, "demo").await, pid);
    let config = house.dir.path().join("state/openclaw.json");
    std::fs::write(&config, "{plugins: {deny: ['demo']}}").unwrap();
    until(&mut socket, ("agents.list", json!({})), |listed| {
        listed["payload"]["agents"].as_array().map(Vec::len) == Some(1)
    })
    .await;
    assert!(is_ok(&ask(&mut socket, "plugins.reload", json!({})).await));
    assert_invalid(&ask(&mut socket, "demo.who", json!({})).await, "unknown method");
}

#[tokio::test]
async fn the_configuration_has_plugins_end_and_start_without_a_call() {
    let dir = dir();
    install(&dir, "demo", &["who"], |_| ());
    install(&dir, "stays", &["who"], |_| ());
    let house = House::start(dir).await;
    let mut socket = house.client().await;
    let stays = pid_of(&mut socket, "stays").await;
    let configure = |enabled: bool| {
        let config = json!({"plugins": {"entries": {"demo": {"enabled": enabled}}}});
        let path = house.dir.path().join("state/openclaw.json");
        let beside = path.with_extension("next");
        std::fs::write(&beside, config.to_string()).unwrap();
        std::fs::rename(beside, path).unwrap();
    };
    for enabled in [false, true] {
        configure(enabled);
        let changed = async {
            while is_ok(&ask(&mut socket, "demo.who", json!({})).await) != enabled {
                tokio::task::yield_now().await;
            }
        };
        within("the configuration to hold", changed).await;
    }
    assert_eq!(pid_of(&mut socket, "stays").await, stays, "what did not change was left alone");
}
