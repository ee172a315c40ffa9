//! Sessions that live, with a program that misbehaves on request.

use serde_json::json;

use super::super::super::{Failure, Reason};
use super::super::rig::{Rig, begin, fixture, keeping, runs, turn, until};
use super::*;

/// As the user reads it.
fn detail(failure: &CliFailure) -> String {
    failure.told(&[]).detail
}

async fn first_text(said: &mut mpsc::Receiver<Fragment>) -> String {
    loop {
        match said.recv().await.unwrap() {
            Fragment::Called(_) => {}
            Fragment::Text(text) => return text,
            ended => panic!("{ended:?}"),
        }
    }
}

#[tokio::test]
async fn turns_of_a_session_are_answered_by_one_program_that_has_its_directory() {
    let rig = Rig::new(json!({}));
    let pool = rig.pool(keeping());
    for n in 1..=3 {
        // It reads its directory at each turn.
        let said = turn(&pool, rig.asked("a", "again")).await.unwrap();
        assert_eq!(said, format!("hello turn {n}: again"));
        assert_eq!(rig.directories(), 1);
    }
    assert_eq!(rig.starts().len(), 1);
    assert!(!rig.starts()[0].contains("--resume"));
    pool.close().await;
    rig.swept().await;
}

#[tokio::test]
async fn another_prompt_is_answered_by_another_program_that_resumes() {
    let rig = Rig::new(json!({}));
    let pool = rig.pool(keeping());
    turn(&pool, rig.asked("a", "one")).await.unwrap();
    let other = Asked { system_prompt: Some("Be brief.".into()), ..rig.asked("a", "two") };
    assert_eq!(turn(&pool, other).await.unwrap(), "hello turn 2: two");
    let starts = rig.starts();
    assert_eq!(starts.len(), 2);
    assert!(starts[1].contains("--resume conversation-"), "{}", starts[1]);
    assert_eq!(rig.directories(), 1, "that of the first program is gone with it");
    pool.close().await;
    rig.swept().await;
}

#[tokio::test]
async fn a_crash_says_what_the_program_said_of_it_and_the_next_turn_resumes() {
    let rig = Rig::new(json!({}));
    let pool = rig.pool(keeping());
    turn(&pool, rig.asked("a", "one")).await.unwrap();
    let failure = turn(&pool, rig.asked("a", "crash the disk is full")).await.unwrap_err();
    assert_eq!(detail(&failure), "it exited with 3 before it had answered: the disk is full");
    rig.swept().await;
    assert_eq!(turn(&pool, rig.asked("a", "two")).await.unwrap(), "hello turn 2: two");
    assert!(rig.starts()[1].contains("--resume"));
    pool.close().await;
}

#[tokio::test]
async fn a_program_that_ended_while_it_rested_is_started_again() {
    let rig = Rig::new(json!({}));
    let pool = rig.pool(keeping());
    turn(&pool, rig.asked("a", "exit")).await.unwrap();
    assert_eq!(turn(&pool, rig.asked("a", "two")).await.unwrap(), "hello turn 2: two");
    pool.close().await;
}

#[tokio::test]
async fn a_conversation_that_the_program_has_lost_begins_anew() {
    let rig = Rig::new(json!({}));
    let pool = rig.pool(keeping());
    let asked = Asked { conversation: Some("lost".to_owned()), ..rig.asked("a", "one") };
    assert_eq!(turn(&pool, asked).await.unwrap(), "hello turn 1: one");
    let starts = rig.starts();
    assert!(starts[0].contains("--resume lost") && !starts[1].contains("--resume"), "{starts:?}");
    pool.close().await;
    rig.swept().await;
}

#[tokio::test]
async fn silence_is_given_up_and_so_is_a_turn_without_end() {
    let silence = json!({"noOutputTimeoutMs": 1000});
    let watchdog = json!({"fresh": silence, "resume": silence});
    let rig = Rig::new(json!({"reliability": {"watchdog": watchdog}}));
    let pool = rig.pool(keeping());
    let failure = turn(&pool, rig.asked("a", "silent")).await.unwrap_err();
    assert_eq!(failure.told(&[]), Failure::new(Reason::NoOutput, "no output for 1 s"));
    let short = Asked { timeout: Duration::from_secs(1), ..rig.asked("b", "silent") };
    assert_eq!(turn(&pool, short).await.unwrap_err().told(&[]).reason, Reason::Timeout);
    rig.swept().await;
    pool.close().await;
}

#[tokio::test]
async fn more_output_than_may_be_ends_the_turn_and_less_does_not() {
    let limits = json!({"maxTurnRawChars": 20_000, "maxTurnLines": 100});
    let rig = Rig::new(json!({"reliability": {"outputLimits": limits}}));
    let pool = rig.pool(keeping());
    for message in ["many 50", "long 15000", "garbage", "complain me"] {
        let said = turn(&pool, rig.asked("a", message)).await.unwrap();
        assert!(said.starts_with("hello turn"), "{said}");
    }
    assert_eq!(rig.starts().len(), 1);
    for (message, expected) in [
        ("many 200", "more than 100 lines of output"),
        ("long 20001", "a line of its output had more than 20000 bytes"),
        ("long 19990", "more than 20000 bytes of output"),
    ] {
        let told = detail(&turn(&pool, rig.asked("a", message)).await.unwrap_err());
        assert!(told.contains(expected), "{told}");
    }
    pool.close().await;
    rig.swept().await;
}

#[tokio::test]
async fn a_refusal_is_a_failure_and_the_session_lives_on() {
    let rig = Rig::new(json!({}));
    let pool = rig.pool(keeping());
    let refused =
        turn(&pool, rig.asked("a", "refuse Credit balance is too low")).await.unwrap_err();
    let told = Failure::new(Reason::Billing, "Credit balance is too low");
    assert_eq!(refused.told(&[]), told);
    turn(&pool, rig.asked("a", "two")).await.unwrap();
    assert_eq!(rig.starts().len(), 1);
    pool.close().await;
}

#[tokio::test]
async fn a_cancelled_turn_ends_the_whole_group_though_it_does_not_listen() {
    let rig = Rig::new(json!({}));
    let pool = rig.pool(keeping());
    let grandchild = turn(&pool, rig.asked("a", "child")).await.unwrap();
    assert!(runs(&grandchild));
    let mut said = begin(&pool, rig.asked("a", "stubborn"));
    assert_eq!(first_text(&mut said).await, "no");
    drop(said);
    rig.swept().await;
    until("the group is gone", || !runs(&grandchild)).await;
    assert_eq!(turn(&pool, rig.asked("a", "two")).await.unwrap(), "hello turn 1: two");
    pool.close().await;
}

#[tokio::test]
async fn the_next_turn_waits_for_the_end_of_the_one_that_was_cancelled() {
    let rig = Rig::new(json!({}));
    let pool = rig.pool(keeping());
    let mut said = begin(&pool, rig.asked("a", "stubborn"));
    first_text(&mut said).await;
    drop(said);
    assert_eq!(turn(&pool, rig.asked("a", "two")).await.unwrap(), "hello turn 1: two");
    assert_eq!(rig.directories(), 1);
    pool.close().await;
    rig.swept().await;
}

#[tokio::test]
async fn one_that_rests_too_long_is_ended_with_its_directory() {
    let rig = Rig::new(json!({}));
    let pool = rig.pool(Keeping { idle: Duration::from_millis(50), ..keeping() });
    turn(&pool, rig.asked("a", "one")).await.unwrap();
    rig.swept().await;
    assert_eq!(turn(&pool, rig.asked("a", "two")).await.unwrap(), "hello turn 2: two");
    assert!(rig.starts()[1].contains("--resume"));
    pool.close().await;
}

#[tokio::test]
async fn the_one_that_has_rested_longest_makes_room_and_those_at_work_do_not() {
    let rig = Rig::new(json!({}));
    let pool = rig.pool(Keeping { most: 2, ..keeping() });
    for session in ["a", "b", "c"] {
        turn(&pool, rig.asked(session, "one")).await.unwrap();
    }
    until("the first has made room", || rig.directories() == 2).await;
    assert_eq!(turn(&pool, rig.asked("a", "two")).await.unwrap(), "hello turn 2: two");
    let at_work = ["a", "c"].map(|session| begin(&pool, rig.asked(session, "silent")));
    let refused = turn(&pool, rig.asked("d", "one")).await.unwrap_err();
    let told = Failure::new(Reason::Config, "all 2 sessions that may live are at work");
    assert_eq!(refused.told(&[]), told);
    drop(at_work);
    pool.close().await;
    rig.swept().await;
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named_and_leaves_nothing() {
    let rig = Rig::new(json!({"command": "/nowhere/claude"}));
    let failure = turn(&rig.pool(keeping()), rig.asked("a", "one")).await.unwrap_err();
    let told = Failure::new(Reason::HarnessMissing, "there is no program /nowhere/claude");
    assert_eq!(failure.told(&[]), told);
    let rig = Rig::new(json!({}));
    let nowhere = Asked { workspace: "/dev/null/workspace".into(), ..rig.asked("a", "one") };
    let failure = turn(&rig.pool(keeping()), nowhere).await.unwrap_err();
    assert_eq!(failure.told(&[]).reason, Reason::Config);
    rig.swept().await;
}

#[tokio::test]
async fn a_program_that_does_not_stay_has_its_directory_for_one_turn() {
    let rig = Rig::new(json!({"liveSession": null}));
    let pool = rig.pool(keeping());
    assert_eq!(turn(&pool, rig.asked("a", "one")).await.unwrap(), "hello turn 1: one");
    rig.swept().await;
    assert_eq!(turn(&pool, rig.asked("a", "two")).await.unwrap(), "hello turn 2: two");
    let starts = rig.starts();
    assert!(starts[0].contains("--session-id") && starts[1].contains("--resume"), "{starts:?}");
    let failure = turn(&pool, rig.asked("a", "crash no")).await.unwrap_err();
    assert_eq!(detail(&failure), "it exited with 3 before it had answered: no");
    rig.swept().await;
}

#[tokio::test]
async fn a_program_may_take_the_message_as_an_argument_and_answer_in_plain_text() {
    let rig = Rig::new(json!({
        "args": ["--plain"], "resumeArgs": ["--plain", "--resume", "{sessionId}"], "liveSession": null,
        "output": "text", "input": "arg", "bundleMcp": false, "systemPromptFileArg": null,
    }));
    let pool = rig.pool(keeping());
    assert_eq!(turn(&pool, rig.asked("a", "say this")).await.unwrap(), "say this\n1");
    assert_eq!(turn(&pool, rig.asked("a", "and this")).await.unwrap(), "and this\n2");
    assert_eq!(rig.directories(), 0);
}

#[tokio::test]
async fn tools_are_answered_to_the_child() {
    let rig = Rig::new(json!({"command": fixture()}));
    let pool = rig.pool(keeping());
    let tools = turn(&pool, rig.asked("a", "tools")).await.unwrap();
    assert!(tools.contains(r#""tools":[]"#), "{tools}");
    pool.close().await;
}
