//! `holdfast check`: what is said beside a front, to people and to programs, and with which exit code.

use holdfast_tests::rig::{Front, Outcome};
use serde_json::Value;

use crate::{fixture, good};

async fn check(front: &Front, words: &[&str]) -> Outcome {
    front.run(&[&["check", "--listen", "127.0.0.1:0"], words].concat()).await
}

fn program() -> String {
    fixture(["serve"]).words()[0].clone().into_string().expect("it is there")
}

/// The findings about a subject: grade, words, advice.
fn findings(outcome: &Outcome, subject: &str) -> Vec<(String, String, Option<String>)> {
    let document: Value = serde_json::from_str(&outcome.output).expect("it is one JSON document");
    assert_eq!(document["schema"], 1);
    assert_eq!(
        document["usable"].as_bool().map(|usable| if usable { 0 } else { 78 }),
        Some(outcome.code)
    );
    let all = document["findings"].as_array().expect("a list").iter();
    let word = |finding: &Value, name: &str| finding[name].as_str().map(str::to_owned);
    all.filter(|finding| finding["subject"] == subject)
        .map(|f| {
            (
                word(f, "grade").expect("it is there"),
                word(f, "says").expect("it is there"),
                word(f, "advice"),
            )
        })
        .collect()
}

#[tokio::test]
async fn check_says_what_run_would_and_what_clients_would_notice() {
    let front = Front::with(good).await;
    let program = program();
    let outcome = check(&front, &["--exclusive", "--", &program]).await;
    outcome.assert_code(0);
    for words in
        ["warning: times: ", "1m 30s", "--drain-timeout", "--ready-timeout", "--hold-timeout"]
    {
        assert!(outcome.output.contains(words), "no {words:?}: {outcome:?}");
    }
    let short = ["--exclusive", "--drain-timeout", "10s", "--ready-timeout", "20s", "--", &program];
    for words in [&["--", &program][..], &short] {
        let outcome = check(&front, words).await;
        outcome.assert_code(0);
        assert!(!outcome.output.contains("warning: times"), "{outcome:?}");
        assert!(outcome.output.ends_with("holdfast run can be started with this\n"), "{outcome:?}");
    }
    check(&front, &["--", "/nonexistent/program"]).await.assert_code(78);
    check(&front, &["--adapter", "relay"]).await.assert_code(64);
    check(&front, &["--exclusive", "--takeover-order", "start-first", "--", &program])
        .await
        .assert_code(64);
}

#[tokio::test]
async fn what_the_front_that_runs_holds_is_no_hindrance_and_what_others_hold_is() {
    let front = Front::with(good).await;
    let own = front.address().to_string();
    let outcome = front.run(&["check", "--json", "--listen", &own]).await;
    outcome.assert_code(0);
    let listen = findings(&outcome, "listen");
    assert!(listen[0].1.contains("held by the front that runs here"), "{listen:?}");
    assert!(findings(&outcome, "control")[0].1.contains("a front runs at"), "{outcome:?}");

    let other = Front::with(good).await;
    let taken = other.address().to_string();
    let outcome = front.run(&["check", "--json", "--listen", &taken]).await;
    outcome.assert_code(78);
    let [(grade, says, advice)] = &findings(&outcome, "listen")[..] else { panic!("{outcome:?}") };
    assert_eq!(grade, "error");
    assert!(says.contains("is in use by holdfast"), "{says}");
    assert!(advice.as_ref().is_some_and(|advice| advice.contains("--listen")), "{advice:?}");
    // Neither noticed anything.
    assert_eq!(front.status().await.crashes + other.status().await.crashes, 0);
}

#[tokio::test]
async fn each_error_says_what_to_do_and_has_the_exit_code_of_a_configuration() {
    let front = Front::with(good).await;
    let in_a_file = format!("{}/control.sock", program());
    for (words, subject) in [
        (&["--", "/nonexistent/program"][..], "program"),
        (&["--user", "nobody-has-this-name"], "rights"),
        (&["--log-file", "/nonexistent/worker.log"], "log-file"),
        (&["--control", &in_a_file], "control"),
        (&["--listen", "192.0.2.1:1"], "listen"),
        (&["--adapter", "relay", "--ready-after", "2m", "--", "true"], "times"),
    ] {
        let outcome = check(&front, &[&["--json"], words].concat()).await;
        outcome.assert_code(78);
        let found = findings(&outcome, subject);
        let error = found.iter().find(|(grade, ..)| grade == "error");
        let (_, _, advice) = error.unwrap_or_else(|| panic!("no {subject} error: {outcome:?}"));
        assert!(advice.is_some(), "{outcome:?}");
    }
}

#[tokio::test]
async fn an_address_beyond_this_machine_wants_a_token_that_was_chosen() {
    let front = Front::with(good).await;
    let mut command = front.command(&["check", "--json", "--listen", "0.0.0.0:0"]);
    let output = command.env_remove("HOLDFAST_TOKEN").output().await.unwrap();
    let outcome = Outcome::from(output);
    outcome.assert_code(0);
    let [(grade, says, _)] = &findings(&outcome, "token")[..] else { panic!("{outcome:?}") };
    assert!(grade == "warning" && says.contains("0.0.0.0:0"), "{says}");
}

#[tokio::test]
async fn few_descriptors_are_told_of_and_nothing_is_coloured_that_is_not_a_terminals() {
    let front = Front::with(good).await;
    let mut command = tokio::process::Command::new("sh");
    command.arg("-c").arg("ulimit -n 1000; exec \"$@\"").arg("sh");
    command.arg(holdfast_tests::rig::binaries::holdfast());
    command.args(["check", "--listen", "127.0.0.1:0", "--max-connections", "5000"]);
    command.env("HOLDFAST_CONTROL", front.control()).env("HOLDFAST_STATE_DIR", front.directory());
    let outcome = Outcome::from(command.output().await.unwrap());
    outcome.assert_code(0);
    let says = "warning: limits: --max-connections 5000 needs more than the 1000 descriptors";
    assert!(outcome.output.contains(says), "{outcome:?}");
    assert!(!outcome.output.contains('\x1b'), "{outcome:?}");
}

/// What a command prints to a terminal.
async fn on_a_terminal(front: &Front, environment: &[(&str, &str)]) -> Option<String> {
    let program = holdfast_tests::rig::binaries::holdfast();
    let line = format!("{} check --listen 127.0.0.1:0", program.display());
    let mut command = tokio::process::Command::new("script");
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    command.env("HOLDFAST_CONTROL", front.control()).env("HOLDFAST_STATE_DIR", front.directory());
    command.env_remove("NO_COLOR").envs(environment.iter().copied());
    let output = command.stdin(std::process::Stdio::null()).output().await.ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test]
async fn a_terminal_is_shown_colours_unless_no_color_is_set() {
    let front = Front::with(good).await;
    let Some(shown) = on_a_terminal(&front, &[]).await else {
        return crate::skipped("script, which makes a terminal, is not installed");
    };
    assert!(shown.contains("\x1b[32mok\x1b[0m: "), "{shown:?}");
    let shown = on_a_terminal(&front, &[("NO_COLOR", "1")]).await.unwrap();
    assert!(shown.contains("ok: program: ") && !shown.contains('\x1b'), "{shown:?}");
}
