//! What plugins answer, and what they are given.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{
    House, advertised, ask, assert_invalid, dir, folder, install, is_ok, pid_of, program, until,
};
use crate::rig::{Client, completion, saying, within};

#[tokio::test]
async fn what_is_advertised_can_be_called_and_is_answered_by_the_plugin() {
    let dir = dir();
    install(&dir, "one", &["echo", "who"], |_| ());
    install(&dir, "two", &["echo"], |_| ());
    let house = House::start(dir).await;
    let advertised = advertised(&house).await;
    let mut socket = house.client().await;
    for name in &advertised {
        let answer = ask(&mut socket, name, json!({"no": "such"})).await;
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(!message.starts_with("unknown method"), "{name}: {answer}");
    }
    for name in ["one.echo", "two.echo"] {
        assert!(advertised.iter().any(|one| one == name), "{advertised:?}");
        let answer = ask(&mut socket, name, json!({"a": [1, null, "ä"]})).await;
        assert_eq!(answer["payload"], json!({"a": [1, null, "ä"]}), "{answer}");
    }
    assert_invalid(&ask(&mut socket, "two.who", json!({})).await, "unknown method: two.who");
}

#[tokio::test]
async fn the_plugin_that_ships_is_declared_well() {
    let dir = dir();
    let folder = folder(&dir, "demo");
    std::fs::create_dir_all(&folder).unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/demo-plugin/plugin.json");
    std::fs::copy(shipped, folder.join("plugin.json")).unwrap();
    std::os::unix::fs::symlink(program(), folder.join("demo-plugin")).unwrap();
    let house = House::start(dir).await;
    let mut socket = house.client().await;
    let said = ask(&mut socket, "demo.wait", json!({"ms": 1})).await;
    assert_eq!(said["payload"], json!({"ms": 1}), "{said}");
}

#[tokio::test]
async fn a_call_that_takes_too_long_is_given_up_and_the_plugin_told() {
    let dir = dir();
    let journal = dir.path().join("journal");
    install(&dir, "demo", &["wait", "echo"], |d| {
        d["methods"][0]["timeoutMs"] = json!(50);
        d["environment"] = json!({"DEMO_JOURNAL": journal});
    });
    let house = House::start(dir).await;
    let mut socket = house.client().await;
    let answer = ask(&mut socket, "demo.wait", json!({"ms": 60_000})).await;
    assert_eq!(answer["error"]["code"], "UNAVAILABLE", "{answer}");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("did not answer within 50ms"), "{message}");
    assert!(is_ok(&ask(&mut socket, "demo.echo", json!({})).await), "it is as alive as before");
    within("the plugin to be told", async {
        while !std::fs::read_to_string(&journal).unwrap().contains("cancel") {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_a_plugin_refuses_is_refused_in_its_own_words() {
    let dir = dir();
    install(&dir, "demo", &["deny"], |_| ());
    let house = House::start(dir).await;
    let mut socket = house.client().await;
    for (code, known_as) in
        [(-32602, "INVALID_REQUEST"), (7, "INVALID_REQUEST"), (-32000, "UNAVAILABLE")]
    {
        let answer = ask(&mut socket, "demo.deny", json!({"code": code})).await;
        let expected = json!({
            "code": known_as, "message": "it would rather not",
            "details": {"plugin": "demo", "code": code},
        });
        assert_eq!(answer["error"], expected);
    }
}

#[tokio::test]
async fn a_plugin_is_given_no_token_and_nothing_that_it_did_not_ask_for() {
    let dir = dir();
    install(&dir, "plain", &["who"], |_| ());
    install(&dir, "trusted", &["who"], |d| d["inherit"] = json!(["HOLDFAST_TOKEN"]));
    let house = House::start(dir).await;
    let mut socket = house.client().await;
    let environment = |who: &Value| -> Vec<String> {
        serde_json::from_value(who["payload"]["environment"].clone()).unwrap()
    };
    let plain = environment(&ask(&mut socket, "plain.who", json!({})).await);
    assert_eq!(plain, ["HOLDFAST_PLUGIN"], "the tests' worker has nothing else that is passed on");
    let trusted = environment(&ask(&mut socket, "trusted.who", json!({})).await);
    assert!(trusted.contains(&"HOLDFAST_TOKEN".to_owned()), "{trusted:?}");
    let pid = pid_of(&mut socket, "plain").await;
    let descriptors = |pid: &str| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        entries.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok()).collect()
    };
    // What whoever started the tests gave to everybody below is not the worker's.
    let (given, ours) = (descriptors(&pid.to_string()), descriptors("self"));
    assert_eq!(given.iter().filter(|target| !ours.contains(target)).count(), 3, "{given:?}");
    assert!(!given.iter().any(|target| target.starts_with("socket:")), "{given:?}");
    let group = nix::unistd::getpgid(Some(pid)).unwrap();
    assert_eq!(group, pid, "it leads a group of its own");
}

#[tokio::test]
async fn an_agent_whose_model_is_a_plugins_harness_is_run_by_it() {
    let dir = dir();
    let journal = dir.path().join("journal");
    install(&dir, "demo", &[], |d| {
        d["harnesses"] = json!(["parrot"]);
        d["environment"] = json!({
            "DEMO_HARNESSES": "parrot", "DEMO_JOURNAL": journal, "DEMO_PAUSE_MS": "20",
        });
    });
    std::fs::write(
        dir.path().join("state/openclaw.json"),
        "{agents: {list: [
            {id: 'main', model: 'plugin-harness/parrot'}, {id: 'lost', model: 'plugin-harness/x'},
            {id: 'backed', model: {primary: 'plugin-harness/x', fallbacks: ['plugin-harness/parrot']}},
        ]}}",
    )
    .unwrap();
    let house = House::start(dir).await;
    let mut client = Client::connect(&house.socket()).await;
    let complete = |text: &str| completion(&saying(text), "");
    client.send(complete("hello there").as_bytes()).await;
    let said = client.reply().await.json();
    assert_eq!(said["choices"][0]["message"]["content"], "hello hello there there ", "{said}");

    // A run that is aborted is told to the plugin.
    let mut socket = house.client().await;
    let many = "word ".repeat(10_000);
    let params = json!({"sessionKey": "main", "message": many, "idempotencyKey": "k"});
    assert!(is_ok(&ask(&mut socket, "chat.send", params).await));
    until(&mut socket, ("plugins.list", json!({})), |listed| {
        listed["payload"]["plugins"][0]["inFlight"] == 1
    })
    .await;
    let aborted = ask(&mut socket, "chat.abort", json!({"sessionKey": "main"})).await;
    assert_eq!(aborted["payload"]["runIds"], json!(["k"]), "{aborted}");
    within("the plugin to be told", async {
        while !std::fs::read_to_string(&journal).unwrap().contains("cancel") {
            tokio::task::yield_now().await;
        }
    })
    .await;

    let params = json!({"sessionKey": "agent:lost:main", "message": "hi", "idempotencyKey": "l"});
    assert!(is_ok(&ask(&mut socket, "chat.send", params).await));
    let ended = ask(&mut socket, "agent.wait", json!({"runId": "l"})).await;
    assert_eq!(ended["payload"]["status"], "error", "{ended}");
    let words = "harness \\\"plugin-harness/x\\\" is not registered";
    assert!(ended.to_string().contains(words), "{ended}");

    // Another harness of plugins is not missing with it.
    let mut backed = saying("hi");
    backed["model"] = json!("openclaw/backed");
    client.send(completion(&backed, "").as_bytes()).await;
    let said = client.reply().await.json();
    assert_eq!(said["choices"][0]["message"]["content"], "hi hi ", "{said}");
}
