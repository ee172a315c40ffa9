//! Models that somebody has chosen for a session.

use serde_json::{Value, json};

use super::{Scene, turn};
use crate::agents::{refused, told};
use crate::rig::WebSocket;

/// A worker whose `main` is answered by a model that never does, and by another then.
async fn scene() -> Scene {
    Scene::with(json!({"primary": "gone/m", "fallbacks": ["fake/echo"]})).await
}

/// What the session asks for now, and what its list shows.
async fn patched(socket: &mut WebSocket, model: Value) -> (Value, Value) {
    let params = json!({"key": "main", "model": model});
    let patched = told(socket, "sessions.patch", params).await;
    let list = told(socket, "sessions.list", json!({})).await;
    let row = &list["sessions"][0];
    let shown = json!([row["modelProvider"], row["model"]]);
    let resolved = &patched["resolved"];
    assert_eq!(shown, json!([resolved["modelProvider"], resolved["model"]]));
    (patched["entry"].clone(), shown)
}

#[tokio::test]
async fn a_session_is_answered_by_the_model_chosen_for_it_alone() {
    let scene = scene().await;
    let mut socket = scene.socket().await;
    let (entry, shown) = patched(&mut socket, json!("echo")).await;
    assert_eq!(shown, json!(["holdfast", "echo"]));
    assert_eq!((&entry["providerOverride"], &entry["modelOverride"]), (&shown[0], &shown[1]));
    assert_eq!(turn(&mut socket, "one", "hello you").await.as_deref(), Ok("hello you"));
    assert!(scene.provider.heard().borrow().requests.is_empty(), "somebody else was asked");
    let (_, shown) = patched(&mut socket, json!("lost/m")).await;
    assert_eq!(shown, json!(["lost", "m"]));
    let words = turn(&mut socket, "two", "hello").await.unwrap_err();
    assert_eq!(words, "no model answered: lost/m: not asked: harness \"lost\" is not registered");
}

#[tokio::test]
async fn without_a_choice_it_is_the_agents_models_again() {
    let scene = scene().await;
    let mut socket = scene.socket().await;
    for none in [Value::Null, json!("gone/m")] {
        patched(&mut socket, json!("echo")).await;
        let (entry, shown) = patched(&mut socket, none).await;
        assert_eq!(shown, json!(["gone", "m"]));
        assert_eq!((entry.get("modelOverride"), entry.get("providerOverride")), (None, None));
    }
    assert!(turn(&mut socket, "one", "hello you").await.unwrap().contains("hello you"));
    let list = told(&mut socket, "sessions.list", json!({})).await;
    assert_eq!(list["sessions"][0].get("modelFallback"), None, "{list}");
    let got = told(&mut socket, "sessions.get", json!({"key": "main"})).await;
    assert_eq!(got["modelFallback"]["decisions"][0]["candidate"], "gone/m");
}

#[tokio::test]
async fn a_model_that_cannot_be_chosen_makes_no_session() {
    let scene = Scene::configured(|config| {
        config["agents"]["defaults"] = json!({"model": "fake/echo", "models": {"fake/echo": {}}});
    })
    .await;
    let mut socket = scene.socket().await;
    for (model, words) in [("other/m", "model not allowed: other/m"), (" ", "invalid model: empty")]
    {
        for method in ["sessions.patch", "sessions.create"] {
            let params = json!({"key": "fresh", "model": model});
            assert_eq!(refused(&mut socket, method, params).await, words);
        }
    }
    let list = told(&mut socket, "sessions.list", json!({})).await;
    assert_eq!(list["count"], 0, "{list}");
}

#[tokio::test]
async fn models_that_are_only_named_are_listed() {
    let scene = scene().await;
    let mut socket = scene.socket().await;
    let listed = told(&mut socket, "models.list", json!({})).await;
    let names = listed["models"].as_array().unwrap().iter();
    let names: Vec<_> = names.map(|model| (&model["provider"], &model["id"])).collect();
    assert_eq!(names, [(&json!("gone"), &json!("m")), (&json!("fake"), &json!("echo"))]);
}
