//! A session that is taken apart at every byte goes on as if it never was.

use std::sync::Arc;

use futures_util::FutureExt as _;
use serde_json::json;

use super::super::codec::{Answer, Heard, user_line};
use super::super::launch::Launcher;
use super::super::mcp::Toolbox;
use super::super::orphans::Orphans;
use super::super::rig::{Rig, keeping};
use super::parts::SessionState;
use super::*;
use crate::state::config::Environment;

/// A session without tools and directory: so it moves as fast as can be.
async fn bare(rig: &Rig) -> Session {
    let launcher = Launcher {
        backend: rig.backend.clone(),
        values: Environment::default(),
        root: rig.root.clone(),
        toolbox: Toolbox::default(),
    };
    let asked = super::super::program::Asked { system_prompt: None, ..rig.asked("a", "") };
    Arc::new(launcher).launch(asked, None).await.unwrap().0
}

fn adopted(parts: SessionParts, rig: &Rig, longest_line: usize) -> Result<Session, AdoptFailed> {
    let orphans = Orphans::default();
    let claim = Claim::Adopted(&rig.root, &orphans);
    Session::from_parts(parts, claim, &Toolbox::default(), longest_line)
}

async fn moved(session: Session, rig: &Rig) -> Session {
    let (mut parts, kept) = session.into_parts().await.unwrap();
    kept.scratch.hand_over();
    let words = serde_json::to_vec(&parts.state).unwrap();
    parts.state = serde_json::from_slice(&words).unwrap();
    adopted(parts, rig, 1 << 23).unwrap()
}

/// Hears the rest of a turn.
async fn rest(session: &mut Session, text: &mut String, answer: &mut Answer) {
    loop {
        match session.next().await {
            Event::Line(line) => match answer.hear(&line) {
                Heard::Text(more) => text.push_str(&more),
                Heard::End(more) => return text.push_str(&more),
                Heard::Nothing => {}
                Heard::Refused(said) => panic!("{said}"),
            },
            Event::Complained => {}
            Event::TooLong(_) | Event::Gone => panic!("it ended: {}", session.complaint()),
        }
    }
}

#[tokio::test]
async fn it_may_move_after_any_byte_of_an_answer() {
    let rig = Rig::new(json!({"bundleMcp": false}));
    let mut session = bare(&rig).await;
    let mut cut = 0;
    let mut turn = 0;
    loop {
        turn += 1;
        session.say(&user_line("x"));
        let (mut heard, mut is_whole) = (0, false);
        let (mut text, mut answer) = (String::new(), Answer::default());
        // Exactly so many bytes, and the lines that are whole by then.
        while heard < cut && !is_whole {
            std::future::poll_fn(|context| {
                session.write(context);
                if session.listen(context, 1) { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            heard += 1;
            while let Some(line) = session.lines.next() {
                match answer.hear(line.unwrap()) {
                    Heard::Text(more) => text.push_str(&more),
                    Heard::End(_) => is_whole = true,
                    Heard::Nothing | Heard::Refused(_) => {}
                }
            }
        }
        session = moved(session, &rig).await;
        if !is_whole {
            rest(&mut session, &mut text, &mut answer).await;
        }
        assert_eq!(text, format!("hello turn {turn}: x"), "cut after {cut} bytes");
        session.end_turn(answer.session_id());
        if is_whole {
            break;
        }
        cut += 1;
    }
    assert!(cut > 500, "{cut} bytes are no whole answer");
    session.end(Manner::Terminate, keeping().patience).await;
    assert_eq!(rig.starts().len(), 1);
}

#[tokio::test]
async fn it_may_move_after_any_part_of_a_message() {
    let rig = Rig::new(json!({"bundleMcp": false}));
    let mut session = bare(&rig).await;
    let message = "y".repeat(500_000);
    session.say(&user_line(&message));
    let mut moves = 0;
    while !session.unwritten.is_empty() {
        assert!(session.next().now_or_never().is_none(), "it has not heard all of it");
        session = moved(session, &rig).await;
        moves += 1;
        // The runtime hears of pipes between polls only.
        tokio::task::yield_now().await;
    }
    assert!(moves > 1, "a pipe holds less than that");
    let (mut text, mut answer) = (String::new(), Answer::default());
    rest(&mut session, &mut text, &mut answer).await;
    assert_eq!(text.len(), "hello turn 1: ".len() + message.len());
    session.end(Manner::Terminate, keeping().patience).await;
}

#[tokio::test]
async fn what_it_has_complained_of_moves_as_well() {
    let rig = Rig::new(json!({"bundleMcp": false}));
    let mut session = bare(&rig).await;
    let (mut text, mut answer) = (String::new(), Answer::default());
    session.say(&user_line("complain of the weather"));
    rest(&mut session, &mut text, &mut answer).await;
    while session.complaint().is_empty() {
        assert!(matches!(session.next().await, Event::Complained));
    }
    let mut session = moved(session, &rig).await;
    assert_eq!(session.complaint(), "of the weather");
    session.begin_turn();
    session.say(&user_line("crash and burn"));
    while !matches!(session.next().await, Event::Gone) {}
    assert_eq!(session.complaint(), "and burn");
    session.end(Manner::Terminate, keeping().patience).await;
}

#[tokio::test]
async fn one_that_is_gone_does_not_move_and_one_of_another_version_is_refused() {
    let rig = Rig::new(json!({}));
    let mut session = bare(&rig).await;
    let parts = {
        let (parts, kept) = session.into_parts().await.unwrap();
        kept.scratch.hand_over();
        let elsewhere =
            SessionState { namespace: Some("pid:[1]".to_owned()), ..parts.state.clone() };
        assert!(matches!(elsewhere.judge(), Err(AdoptFailed::Elsewhere)));
        let state = SessionState { version: 2, ..parts.state.clone() };
        SessionParts { state, ..parts }
    };
    let (name, life) = (parts.state.scratch.clone(), parts.state.life);
    let refused = adopted(parts, &rig, 1000).unwrap_err();
    assert!(matches!(refused, AdoptFailed::Version { version: 2 }), "{refused}");
    // Its input has ended with its parts.
    super::super::rig::until("it has ended", || life.is_over()).await;
    drop(rig.root.adopt(&name, life).unwrap());
    rig.swept().await;

    session = bare(&rig).await;
    session.end_input();
    while !matches!(session.next().await, Event::Gone) {}
    let session = session.into_parts().await.unwrap_err();
    drop(session);
    rig.swept().await;
}

#[tokio::test]
async fn one_that_comes_back_still_hears_how_its_child_ends() {
    let rig = Rig::new(json!({"bundleMcp": false}));
    let session = bare(&rig).await;
    let (parts, kept) = session.into_parts().await.unwrap();
    let claim = Claim::Returned(kept);
    let mut session = Session::from_parts(parts, claim, &Toolbox::default(), 1 << 23).unwrap();
    session.say(&user_line("crash now"));
    while !matches!(session.next().await, Event::Gone) {}
    assert_eq!(session.status().await, Status::Exited(3));
    drop(session);
    rig.swept().await;
}

#[tokio::test]
async fn one_that_has_more_to_write_than_can_be_carried_stays() {
    let rig = Rig::new(json!({"bundleMcp": false}));
    let mut session = bare(&rig).await;
    session.say(&vec![b'x'; handoff::migrate::MAX_CARRIED + 1]);
    let session = session.into_parts().await.unwrap_err();
    session.end(Manner::Terminate, keeping().patience).await;
    rig.swept().await;
}

#[test]
fn the_words_of_a_session_are_read_as_they_were_written() {
    let text = r#"{"version":1,"life":{"pid":42,"started":7},"scratch":"s","token":null,"fingerprint":"f","conversation":"c","turns":3,"complaint":"","later":true}"#;
    let state: SessionState = serde_json::from_str(text).unwrap();
    assert_eq!((state.life.pid, state.turns, state.conversation.as_deref()), (42, 3, Some("c")));
    let again: SessionState =
        serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
    assert_eq!(again, state);
}
