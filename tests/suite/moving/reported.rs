//! What users of such gateways have reported, each as the claim that it does not happen here.
//!
//! Others are proved beside what they are about: `moving::agents` (a new agent closes no port), `moving::call_command`
//! (a command that meets a restart), `stopping` (who has not connected yet is told 1012 too).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use holdfast_tests::rig::http::{HttpConnection, Request, ask};
use holdfast_tests::rig::{Front, TOKEN, WebSocket};
use serde_json::{Value, json};

use super::devices::Device;
use crate::{generation, quick};

/// Clients that ask at any moment.
const CLIENTS: usize = 3;
/// After how many takeovers methods were once unknown: after the first.
const MANY: usize = 50;

/// The methods that a new connection is told of.
async fn advertised(front: &Front) -> BTreeSet<String> {
    let mut socket = WebSocket::challenged(&front.address()).await;
    let hello = json!({
        "minProtocol": 4, "maxProtocol": 4,
        "client": {"id": "gateway-client", "version": "1", "platform": "linux", "mode": "backend"},
        "caps": [], "role": "operator", "scopes": ["operator.admin"], "auth": {"token": TOKEN},
    });
    let hello = socket.call("connect", hello).await;
    let methods = hello["payload"]["features"]["methods"].as_array();
    let methods = methods.unwrap_or_else(|| panic!("{hello}"));
    methods.iter().map(|name| name.as_str().expect("a name is text").to_owned()).collect()
}

#[tokio::test]
async fn after_fifty_takeovers_each_advertised_method_dispatches() {
    let front = Front::with(|setup| quick(setup).flag("--soak", "1ms")).await;
    let before = advertised(&front).await;
    let mut kept = WebSocket::connected(&front.address()).await;
    for _ in 0..MANY {
        front.takeover().await.assert_committed();
    }
    let methods = advertised(&front).await;
    assert_eq!(methods, before);
    assert!(methods.len() > 30, "{methods:?}");
    let mut fresh = WebSocket::connected(&front.address()).await;
    for socket in [&mut kept, &mut fresh] {
        for method in &methods {
            // What has a shape refuses it, so that nothing is deleted on the way.
            let answer = socket.call(method, json!({"no such parameter": 1})).await;
            let words = answer["error"]["message"].as_str().unwrap_or_default();
            assert!(!words.contains("unknown method"), "{method}: {answer}");
        }
        let answer = socket.call("no.such", json!({})).await;
        assert_eq!(answer["error"]["message"], "unknown method: no.such");
    }
}

#[tokio::test]
async fn cron_list_at_any_instant_of_a_takeover_succeeds() {
    let front = Arc::new(Front::with(quick).await);
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (front, over) = (Arc::clone(&front), Arc::clone(&over));
            tokio::spawn(async move {
                let mut answered = 0;
                while !over.load(Ordering::Relaxed) || answered == 0 {
                    // As the command does: a connection of its own, and no second attempt.
                    let mut socket = WebSocket::connected(&front.address()).await;
                    let answer = socket.call("cron.list", json!({})).await;
                    assert_eq!(answer["payload"]["jobs"], json!([]), "{answer}");
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    for _ in 0..10 {
        front.takeover().await.assert_committed();
    }
    over.store(true, Ordering::Relaxed);
    let mut answered: u64 = 0;
    for client in clients {
        answered += client.await.expect("each of its calls is answered");
    }
    assert!(answered > 10, "only {answered} calls met ten takeovers");
}

#[tokio::test]
async fn gateway_ready_is_503_in_the_generation_that_leaves_and_200_in_the_one_that_serves() {
    let front = Front::with(|setup| quick(setup).environment("HOLDFAST_MIGRATE", "off")).await;
    let ready = || Request::get("/gateway/ready");
    let mut kept = HttpConnection::open(&front.address()).await.unwrap();
    assert_eq!(kept.exchange(&ready()).await.unwrap().code, 200);
    // It stays for as long as this is not answered.
    let mut busy = HttpConnection::open(&front.address()).await.unwrap();
    let body = json!({
        "model": "openclaw", "messages": [{"role": "user", "content": "one two three four five"}],
    });
    let request = Request::post("/v1/chat/completions", body.to_string())
        .header("authorization", &format!("Bearer {TOKEN}"))
        .header("x-holdfast-echo-delay-ms", "400");
    let (head, rest) = request.parts();
    busy.send(&head).await.unwrap();
    busy.send(rest).await.unwrap();
    front
        .until("it is being answered", |status| {
            status.generation(generation(1)).is_some_and(|g| g.in_flight == Some(1))
        })
        .await;
    let mut takeover = front.begin_takeover();
    takeover.until("draining").await;
    let leaving = kept.exchange(&ready()).await.unwrap();
    let said = leaving.json();
    assert_eq!((leaving.code, &said["ready"]), (503, &json!(false)), "{said}");
    assert_eq!(said["failing"], json!(["draining"]));
    assert_eq!(ask(&front.address(), ready()).await.unwrap().code, 200);
    takeover.end().await.assert_committed();
}

#[tokio::test]
async fn a_device_token_that_another_program_adds_is_accepted_at_the_next_handshake_without_a_takeover()
 {
    let front = Front::with(quick).await;
    let (first, second) = (Device::new(1), Device::new(2));
    drop(first.connected(&front, TOKEN).await);
    let path = front.directory().join("state/devices/paired.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut table: Value = serde_json::from_str(&text).unwrap();
    let mut entry = table[&first.id].clone();
    entry["deviceId"] = json!(second.id);
    entry["publicKey"] = json!(second.public_key());
    entry["tokens"]["operator"]["token"] = json!("written-by-another-program");
    table[&second.id] = entry;
    let beside = path.with_extension("new");
    std::fs::write(&beside, table.to_string()).unwrap();
    std::fs::rename(&beside, &path).unwrap();
    let (_, own) = second.connected(&front, "written-by-another-program").await;
    assert_eq!(own, "written-by-another-program");
    let status = front.status().await;
    assert_eq!((status.takeovers.committed, status.generations.len()), (0, 1));
}

#[tokio::test]
async fn a_file_of_an_agent_that_is_set_again_and_again_is_never_read_in_halves() {
    let front = Arc::new(Front::with(|setup| quick(setup).flag("--soak", "1ms")).await);
    let mut socket = WebSocket::connected(&front.address()).await;
    let workspace = front.directory().join("ws");
    let made = socket.call("agents.create", json!({"name": "a", "workspace": workspace})).await;
    assert_eq!(made["ok"], true, "{made}");
    let texts = ["a".repeat(200_000), "b".repeat(1_000)];
    let set = |text: &str| json!({"agentId": "a", "name": "SOUL.md", "content": text});
    socket.call("agents.files.set", set(&texts[0])).await;
    let over = Arc::new(AtomicBool::new(false));
    let reader = {
        let (over, texts, path) = (Arc::clone(&over), texts.clone(), workspace.join("SOUL.md"));
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let read = std::fs::read_to_string(&path).expect("it is there at any instant");
                assert!(texts.contains(&read), "{} bytes of a half", read.len());
            }
        })
    };
    for round in 0..60 {
        let takeover = (round % 20 == 0).then(|| front.begin_takeover());
        let answer = socket.call("agents.files.set", set(&texts[round % 2])).await;
        assert_eq!(answer["ok"], true, "{answer}");
        if let Some(takeover) = takeover {
            takeover.end().await.assert_committed();
        }
    }
    over.store(true, Ordering::Relaxed);
    reader.join().expect("each read is whole");
}
