//! Models under a configuration that changes all the time.

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Scene;
use crate::agents::told;
use crate::rig::{completion, saying};

/// How often it changes.
const CHANGES: usize = 10;

#[tokio::test]
async fn under_a_reload_loop_8_readers_are_never_told_of_a_missing_harness() {
    let scene = Scene::with(json!({"primary": "fake/echo", "fallbacks": ["hasty/echo"]})).await;
    let over = watch::Sender::new(false);
    let mut readers = JoinSet::new();
    for _ in 0..8 {
        let (mut client, over) = (scene.worker.connect().await, over.subscribe());
        readers.spawn(async move {
            let mut answered = 0;
            while !*over.borrow() {
                client.send(completion(&saying("hello"), "").as_bytes()).await;
                let reply = client.reply().await;
                assert_eq!(reply.status, 200, "{}", reply.body);
                answered += 1;
            }
            answered
        });
    }
    let path = scene.worker.dir.path().join("state/openclaw.json");
    let whole: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let mut socket = scene.socket().await;
    for change in 0..CHANGES {
        let mut config = whole.clone();
        config["models"]["providers"]["late"] =
            json!({"baseUrl": "http://h/v1", "models": [{"id": "m"}]});
        let config = if change % 2 == 0 { &config } else { &whole };
        let beside = path.with_extension("tmp");
        std::fs::write(&beside, config.to_string()).unwrap();
        std::fs::rename(&beside, &path).unwrap();
        // Until it holds: the watcher is as busy as everybody.
        let listed = usize::from(change % 2 == 0);
        let holds = |models: &Value| {
            let models = models["models"].as_array().unwrap();
            models.iter().filter(|model| model["provider"] == "late").count() == listed
        };
        while !holds(&told(&mut socket, "models.list", json!({})).await) {
            tokio::task::yield_now().await;
        }
    }
    over.send_replace(true);
    while let Some(answered) = readers.join_next().await {
        assert!(answered.unwrap() > 0);
    }
    let log = scene.log().await;
    assert!(!log.contains("not registered") && !log.contains("candidate_failed"), "{log}");
}
