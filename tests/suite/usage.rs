//! The command line: what it refuses, and with which exit code.

use holdfast_tests::rig::{Front, Setup, TOKEN, eventually, soon};

use crate::{fixture, good, quick, skipped};

async fn refused(code: i32, setup: impl FnOnce(Setup) -> Setup) {
    let outcome = Front::refused(setup).await;
    outcome.assert_code(code);
    assert!(!outcome.errors.is_empty(), "nothing was said: {outcome:?}");
}

#[tokio::test]
async fn an_unknown_flag_is_a_mistake_of_usage() {
    refused(64, |s| good(s).flag("--explode", "now")).await;
}

#[tokio::test]
async fn values_that_make_no_sense_are_mistakes_of_usage() {
    refused(64, |s| good(s).flag("--soak", "soon")).await;
    refused(64, |s| good(s).flag("--takeover-order", "whenever")).await;
    refused(64, |s| good(s).flag("--shards", "0")).await;
    refused(64, |s| good(s).flag("--max-connections", "many")).await;
    refused(64, |s| good(s).flag("--unix-mode", "0999")).await;
    refused(64, |s| good(s).listen("nowhere")).await;
}

#[tokio::test]
async fn a_subcommand_that_does_not_exist_is_a_mistake_of_usage() {
    let front = Front::with(good).await;
    front.run(&["explode"]).await.assert_code(64);
    front.run(&["takeover", "--explode"]).await.assert_code(64);
    front.run(&["takeover", "--program"]).await.assert_code(64);
}

#[tokio::test]
async fn every_mistake_of_usage_shows_what_could_have_been_meant() {
    let front = Front::with(good).await;
    for (words, meant, example) in [
        (&["takeovr"][..], "'takeover'", "holdfast run"),
        (&["takeover", "--programm", "x"], "'--program'", "holdfast takeover"),
        (&["restart", "now"], "[-- <PROGRAM ARGS>...]", "holdfast takeover"),
        (&["drain", "g1"], "--now", "holdfast drain --now g7"),
        (&["drain", "--now", "seven"], "seven", "holdfast drain --now g7"),
        (&["pause", "--timeout", "60"], "write 20ms, 3s or 1m", "holdfast pause --timeout 30s"),
        (&["pause", "--timeout", "2h"], "1h at most", "holdfast pause --timeout 30s"),
        (&["reexec", "--binary"], "--binary", "holdfast reexec"),
        (&["status", "--jason"], "'--json'", "holdfast status"),
        (&["run", "node", "server.js"], "[-- <PROGRAM ARGS>...]", "holdfast run"),
        (&["run", "--listen", "8080"], "127.0.0.1:18789", "holdfast run"),
        (&["run", "--adapter", "relay"], "needs a program", "holdfast run"),
        (&["check", "--standby", "--exclusive"], "use one or the other", "holdfast check"),
        (&["logs", "--lines", "many"], "many", "holdfast logs --follow"),
        (&["completions", "tcsh"], "zsh", "holdfast completions bash"),
        (&["adapter", "relay"], "PROGRAM", "holdfast adapter"),
    ] {
        let outcome = front.run(words).await;
        outcome.assert_code(64).assert_says(meant);
        outcome.assert_says(&format!("For example: {example}"));
        assert!(outcome.output.is_empty(), "{words:?}: on stdout: {outcome:?}");
    }
    // Who says nothing is shown everything.
    front.run(&[]).await.assert_code(64).assert_says("Commands:");
}

#[tokio::test]
async fn every_command_is_helped_with_examples_and_the_flags_of_run_are_in_groups() {
    let front = Front::with(good).await;
    let help = front.run(&["run", "--help"]).await;
    help.assert_code(0);
    let adapters = "Programs that know nothing of Holdfast:";
    let groups =
        ["Listening:", "Takeovers:", "Workers:", "The front's log:", adapters, "Examples:"];
    let at = groups.map(|group| help.output.find(group).unwrap_or_else(|| panic!("no {group}")));
    assert!(at.is_sorted(), "{}", help.output);
    for command in ["check", "takeover", "drain", "pause", "status", "logs", "init", "man"] {
        let help = front.run(&[command, "--help"]).await;
        help.assert_code(0);
        assert!(
            help.output.contains(&format!("Examples:\n  holdfast {command}")),
            "{}",
            help.output
        );
    }
}

#[tokio::test]
async fn an_address_this_machine_does_not_have_is_unusable() {
    // Of the block for documentation (RFC 5737): nobody has it.
    refused(78, |s| good(s).listen("192.0.2.1:0")).await;
}

#[tokio::test]
async fn a_control_path_that_cannot_be_made_is_unusable() {
    refused(78, |s| good(s).control("/proc/nonexistent/control.sock".as_ref())).await;
}

#[tokio::test]
async fn every_flag_is_a_variable_too_and_the_flag_wins() {
    let front = Front::with(|s| {
        s.worker(fixture(["first-good", "hang"]))
            .environment("HOLDFAST_SHARDS", "3")
            .environment("HOLDFAST_READY_TIMEOUT", "10m")
            .flag("--ready-timeout", "200ms")
    })
    .await;
    assert_eq!(front.addresses().len(), 3);
    let takeover = front.takeover().await;
    takeover.assert_rolled_back();
    assert!(takeover.reason().contains("200ms"), "{takeover:?}");
}

#[tokio::test]
async fn help_says_what_happens_at_a_timeout() {
    let front = Front::with(good).await;
    for (words, says) in [
        (&["run", "--help"][..], "--drain-timeout"),
        (&["run", "--help"], "--ready-timeout"),
        (&["takeover", "--help"], "--no-wait"),
        (&["drain", "--help"], "--now"),
    ] {
        let outcome = front.run(words).await;
        outcome.assert_code(0);
        assert!(outcome.output.contains(says), "{}", outcome.output);
    }
}

#[tokio::test]
async fn the_version_carries_the_commit() {
    let front = Front::with(good).await;
    let outcome = front.run(&["--version"]).await;
    outcome.assert_code(0);
    assert!(outcome.output.starts_with("holdfast "), "{}", outcome.output);
    assert_eq!(outcome.output.trim(), format!("holdfast {}", front.status().await.front.version));
}

#[tokio::test]
async fn status_is_a_table_for_people() {
    let front = Front::with(good).await;
    let outcome = front.run(&["status"]).await;
    outcome.assert_code(0);
    for words in ["g1", "serving", &front.address().to_string(), &front.process().pid().to_string()]
    {
        assert!(outcome.output.contains(words), "no {words:?}: {}", outcome.output);
    }
}

#[tokio::test]
async fn the_first_words_of_a_front_hold_a_curl_that_works_and_no_token() {
    if tokio::process::Command::new("curl").arg("--version").output().await.is_err() {
        return skipped("curl is not installed");
    }
    let front = Front::start().await;
    let curl = eventually("the greeting", async || {
        front.log().text().lines().find(|line| line.starts_with("curl ")).map(str::to_owned)
    })
    .await;
    let mut shell = tokio::process::Command::new("sh");
    shell.arg("-c").arg(&curl).env("HOLDFAST_TOKEN", TOKEN);
    let output = soon("the answer to curl", shell.output()).await.unwrap();
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && answer.contains("holdfast"), "{curl}: {output:?}");
    front.takeover().await.assert_committed();
    let log = front.log().text();
    assert!(log.contains(&front.address().to_string()), "where it listens is not said");
    assert!(!log.contains(TOKEN), "the token is in the log");
    assert_eq!(log.matches("curl ").count(), 1, "a takeover greeted again");
}

#[tokio::test]
async fn a_token_nobody_chose_is_made_once_and_kept_from_others() {
    let front = Front::with(|s| quick(s).wrapped_in(&["env", "-u", "HOLDFAST_TOKEN"])).await;
    let state = front.directory().join("state");
    let mode = |path: &std::path::Path| {
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path).unwrap().permissions())
    };
    assert_eq!(mode(&state) & 0o777, 0o700);
    let files = || -> Vec<_> { std::fs::read_dir(&state).unwrap().flatten().collect() };
    let token = files().into_iter().find(|file| file.file_name() == "token").expect("a token");
    assert_eq!(mode(&token.path()) & 0o777, 0o600);
    let chosen = std::fs::read_to_string(token.path()).unwrap();
    front.takeover().await.assert_committed();
    assert_eq!(std::fs::read_to_string(token.path()).unwrap(), chosen);
    assert!(!front.log().text().contains(chosen.trim()), "the token is in the log");
}
