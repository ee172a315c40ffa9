//! The command line of adapters: what it refuses, and with which exit code.

use holdfast_tests::rig::{Front, Setup};

use super::{activated, relayed, server};
use crate::{good, quick};

async fn refused(code: i32, says: &[&str], setup: impl FnOnce(Setup) -> Setup) {
    let outcome = Front::refused(setup).await;
    outcome.assert_code(code);
    for words in says {
        outcome.assert_says(words);
    }
}

#[tokio::test]
async fn an_unknown_adapter_is_a_mistake_of_usage_and_the_known_ones_are_listed() {
    let setup = |s| quick(s).flag("--adapter", "explode").worker(server(["listen-fds"]));
    refused(64, &["explode", "activate", "relay"], setup).await;
}

#[tokio::test]
async fn an_adapter_without_a_program_is_a_mistake_of_usage() {
    let says = ["--adapter relay needs a program", "-- PROGRAM"];
    refused(64, &says, |s| quick(s).flag("--adapter", "relay")).await;
}

#[tokio::test]
async fn a_flag_of_another_adapter_is_a_mistake_of_usage() {
    let setup = |s| activated(s, ["listen-fds"]).switch("--trust-relay");
    refused(64, &["--trust-relay is for --adapter relay"], setup).await;
    refused(64, &["--ready-tcp", "--adapter"], |s| good(s).switch("--ready-tcp")).await;
}

#[tokio::test]
async fn beyond_loopback_relay_needs_a_word_of_trust() {
    let beyond = |s: Setup| relayed(s.listen("0.0.0.0:0"), ["port:PORT"]);
    let says = ["0.0.0.0:0", "one of this machine", "--proxy-protocol", "--trust-relay"];
    refused(78, &says, beyond).await;
    let front = Front::with(|s| beyond(s).switch("--trust-relay")).await;
    front.takeover().await.assert_committed();
}

#[tokio::test]
async fn an_adapter_without_a_front_says_who_starts_it() {
    let front = Front::with(good).await;
    let program = server(["listen-fds"]);
    let program = program.words()[0].to_str().unwrap();
    let outcome = front.run(&["adapter", "activate", "--", program]).await;
    outcome.assert_code(64).assert_says("holdfast run --adapter");
}

#[tokio::test]
async fn a_time_in_place_of_a_question_is_said_to_be_one() {
    let front = Front::with(|s| activated(s, ["listen-fds"]).flag("--ready-after", "200ms")).await;
    assert_eq!(front.log().lines_with("nobody asks the program whether it is ready"), 1);
    front.takeover().await.assert_committed();
}
