//! Sessions and their messages, as methods use them.

use serde_json::{Value, json};

use super::messages::{AppendFailed, HistoryWindow, NewMessage};
use super::session_run::{RunStatus, SessionRun};
use super::sessions::{ChangeFailed, NewSession, SessionPatch};
use super::shared::Shared;
use super::turns::EndedTurn;

fn new(key: &str, label: Option<&str>) -> NewSession {
    NewSession {
        key: key.to_owned(),
        session_id: "first".to_owned(),
        agent_id: "main".to_owned(),
        label: label.map(str::to_owned),
        ..NewSession::default()
    }
}

fn said(content: &str) -> NewMessage {
    NewMessage {
        role: "user".to_owned(),
        content: content.to_owned(),
        run_id: Some("r".to_owned()),
    }
}

const ALL: HistoryWindow = HistoryWindow { limit: 1000, max_bytes: 1 << 20, before_seq: None };

#[tokio::test]
async fn a_key_and_a_label_name_one_session() {
    let shared = Shared::new();
    let store = shared.open("g1").await;
    let made = store.ensure_session(new("k", Some("work")), 5).await.unwrap();
    assert_eq!(store.session("k").await.unwrap().as_ref(), Some(&made));
    assert_eq!(store.ensure_session(new("k", None), 6).await.unwrap(), made);
    let taken = store.ensure_session(new("l", Some("work")), 6).await.unwrap_err();
    assert_eq!(taken.to_string(), "label already in use: work");
    store.ensure_session(new("l", None), 6).await.unwrap();
    let label = Some(Some("work".to_owned()));
    let patch = SessionPatch { label, ..SessionPatch::default() };
    let taken = store.patch_session("l", patch.clone(), 7).await.unwrap_err();
    assert!(matches!(taken, ChangeFailed::LabelInUse { .. }));
    assert_eq!(store.patch_session("k", patch, 7).await.unwrap().label.unwrap(), "work");
}

#[tokio::test]
async fn a_patch_changes_what_it_names_and_nothing_else() {
    let shared = Shared::new();
    let store = shared.open("g1").await;
    store.ensure_session(new("k", Some("work")), 5).await.unwrap();
    let attributes = json!({"thinkingLevel": "high", "fastMode": true});
    let patch = SessionPatch {
        model: Some(Some("m1".to_owned())),
        attributes: attributes.as_object().unwrap().clone(),
        ..SessionPatch::default()
    };
    store.patch_session("k", patch, 6).await.unwrap();
    let attributes = json!({"thinkingLevel": null});
    let patch = SessionPatch {
        label: Some(None),
        attributes: attributes.as_object().unwrap().clone(),
        ..SessionPatch::default()
    };
    let now = store.patch_session("k", patch, 4).await.unwrap();
    assert_eq!((now.label, now.model.as_deref()), (None, Some("m1")));
    assert_eq!(Value::Object(now.attributes), json!({"fastMode": true}));
    assert_eq!(now.updated_at_ms, 6, "a clock that went back takes nothing back");
    let gone = store.patch_session("x", SessionPatch::default(), 7).await.unwrap_err();
    assert_eq!(gone.to_string(), "session not found: x");
}

#[tokio::test]
async fn a_reset_begins_another_life_and_refuses_what_an_earlier_one_still_says() {
    let shared = Shared::new();
    let store = shared.open("g1").await;
    store.ensure_session(new("k", Some("work")), 5).await.unwrap();
    let said_twice = vec![said("1"), said("2")];
    assert_eq!(store.append_messages("k", "first", said_twice, 6).await.unwrap(), 2);
    let run = SessionRun { status: RunStatus::Done, started_at_ms: 6, ended_at_ms: Some(7) };
    let turn = EndedTurn {
        key: "k".to_owned(),
        life: "first".to_owned(),
        answer: None,
        run,
        tokens: (3, 4),
        kept: None,
        at_ms: 7,
    };
    store.end_turn(turn).await.unwrap();
    let noted = store.session("k").await.unwrap().unwrap();
    assert_eq!((noted.message_count, noted.input_tokens, noted.output_tokens), (2, 3, 4));
    assert_eq!(noted.latest_run, Some(run));
    let reset = store.reset_session("k", "second", 8).await.unwrap();
    assert_eq!((reset.message_count, reset.latest_run), (0, None));
    assert_eq!(reset.label.as_deref(), Some("work"));
    assert!(store.history("k", ALL).await.unwrap().is_empty());
    let late = store.append_messages("k", "first", vec![said("3")], 9).await.unwrap_err();
    assert!(matches!(late, AppendFailed::Superseded { .. }));
    let seq = store.append_messages("k", "second", vec![said("4")], 9).await.unwrap();
    assert_eq!(seq, 3, "a number is not used twice");
    assert!(store.delete_session("k").await.unwrap());
    assert!(!store.delete_session("k").await.unwrap());
    let gone = store.append_messages("k", "second", vec![said("5")], 9).await.unwrap_err();
    assert!(matches!(gone, AppendFailed::NoSession { .. }));
    assert_eq!(shared.count("messages"), 0);
}

#[tokio::test]
async fn a_history_is_the_latest_part_within_its_limits() {
    let shared = Shared::new();
    let store = shared.open("g1").await;
    store.ensure_session(new("k", None), 5).await.unwrap();
    let messages = (1..=5).map(|n| said(&n.to_string().repeat(10))).collect();
    store.append_messages("k", "first", messages, 6).await.unwrap();
    let seqs = |window| {
        let store = store.clone();
        async move {
            let messages = store.history("k", window).await.unwrap();
            messages.into_iter().map(|message| message.seq).collect::<Vec<_>>()
        }
    };
    assert_eq!(seqs(ALL).await, [1, 2, 3, 4, 5]);
    assert_eq!(seqs(HistoryWindow { limit: 2, ..ALL }).await, [4, 5]);
    assert_eq!(seqs(HistoryWindow { limit: 2, before_seq: Some(4), ..ALL }).await, [2, 3]);
    assert_eq!(seqs(HistoryWindow { max_bytes: 30, ..ALL }).await, [3, 4, 5]);
    assert_eq!(seqs(HistoryWindow { max_bytes: 1, ..ALL }).await, [5]);
}
