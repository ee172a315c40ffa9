//! What `holdfast` writes for others: completions for shells, manual pages, and the files of `init`.

use std::ffi::OsStr;
use std::path::Path;

use holdfast_tests::rig::{Outcome, binaries, soon};
use tokio::process::Command;

use crate::deploy::{accepted_manifests, validator};
use crate::skipped;

async fn holdfast(words: &[&str], directory: &Path) -> Outcome {
    let mut command = Command::new(binaries::holdfast());
    command.args(words).current_dir(directory).kill_on_drop(true);
    command.env_remove("HOLDFAST_STOP_TIMEOUT");
    soon("the command ends", command.output()).await.expect("it can be done").into()
}

/// What a program says, or `None` where it is not installed.
async fn outcome<W: AsRef<OsStr>>(
    program: &str,
    words: impl IntoIterator<Item = W>,
) -> Option<Outcome> {
    let mut command = Command::new(program);
    command.args(words).kill_on_drop(true).env("XDG_RUNTIME_DIR", std::env::temp_dir());
    soon("a program ends", command.output()).await.ok().map(Into::into)
}

async fn completions(shell: &str, place: &Path) -> String {
    let outcome = holdfast(&["completions", shell], place).await;
    outcome.assert_code(0);
    let path = place.join(shell);
    std::fs::write(&path, outcome.output).expect("it can be done");
    path.to_str().expect("it can be done").to_owned()
}

#[tokio::test]
async fn completions_load_in_bash_and_complete() {
    let place = tempfile::tempdir().unwrap();
    let script = completions("bash", place.path()).await;
    let ask = format!(
        "source {script} && complete -p holdfast && COMP_WORDS=(holdfast take) COMP_CWORD=1 && \
         _holdfast holdfast take holdfast && echo \"<${{COMPREPLY[*]}}>\""
    );
    outcome("bash", ["-n", &script]).await.expect("bash is installed").assert_code(0);
    let loaded = outcome("bash", ["--norc", "-c", &ask]).await.unwrap();
    loaded.assert_code(0);
    assert!(
        loaded.output.contains("_holdfast") && loaded.output.contains("takeover"),
        "{loaded:?}"
    );
}

#[tokio::test]
async fn completions_load_in_zsh_and_fish() {
    let place = tempfile::tempdir().unwrap();
    let script = completions("zsh", place.path()).await;
    let load = format!(
        "autoload -Uz compinit && compinit -u -d {script}.dump && source {script} && print $_comps[holdfast]"
    );
    match outcome("zsh", ["-f", "-c", &load]).await {
        Some(loaded) => {
            loaded.assert_code(0);
            assert!(loaded.output.contains("_holdfast"), "{loaded:?}");
        }
        None => skipped("zsh is not installed"),
    }
    let script = completions("fish", place.path()).await;
    let ask = format!("source {script}; complete --do-complete 'holdfast take'");
    match outcome("fish", ["--no-config", "-c", &ask]).await {
        Some(loaded) => {
            loaded.assert_code(0);
            assert!(loaded.output.contains("takeover"), "{loaded:?}");
        }
        None => skipped("fish is not installed"),
    }
}

#[tokio::test]
async fn every_command_has_a_page_that_man_can_show() {
    let place = tempfile::tempdir().unwrap();
    let pages = place.path().join("man1");
    holdfast(&["man", "--out", pages.to_str().unwrap()], place.path()).await.assert_code(0);
    let help = holdfast(&["--help"], place.path()).await.output;
    let list = help.split("Commands:").nth(1).expect("there are commands");
    let commands: Vec<_> = list
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|word| word.starts_with(|c: char| c.is_ascii_lowercase()))
        .collect();
    assert!(commands.len() > 12, "{commands:?}");
    for command in commands {
        let page = pages.join(format!("holdfast-{command}.1"));
        assert!(page.exists(), "{command} has no page");
        let shown = outcome("man", [OsStr::new("--warnings"), "-l".as_ref(), page.as_ref()]).await;
        let Some(shown) = shown else { return skipped("man is not installed") };
        shown.assert_code(0);
        assert!(shown.output.contains("Examples:") && shown.errors.is_empty(), "{shown:?}");
    }
    let one = holdfast(&["man", "takeover"], place.path()).await;
    assert!(one.output.contains(".TH holdfast-takeover 1"), "{one:?}");
    holdfast(&["man", "explode"], place.path()).await.assert_code(64);
}

#[tokio::test]
async fn init_writes_units_that_systemd_has_nothing_to_say_about() {
    let place = tempfile::tempdir().unwrap();
    let words = ["--", "--drain-timeout", "2m", "--stop-timeout", "1m", "--", "sleep", "a b%$"];
    for (flag, whose) in [(None, "--user"), (Some("--system"), "--system")] {
        let out = place.path().join(whose.trim_start_matches('-'));
        let mut all = vec!["init", "systemd", "--out", out.to_str().unwrap()];
        all.extend(flag);
        let written = holdfast(&[&all[..], &words].concat(), place.path()).await;
        written.assert_code(0);
        let next: Vec<_> = written.output.split("Next:\n").nth(1).unwrap().lines().collect();
        assert!(next.len() == 2 && next[1].contains("enable --now holdfast"), "{written:?}");
        let unit = out.join("holdfast.service");
        let Some(verified) =
            outcome("systemd-analyze", ["verify", "--man=no", whose, unit.to_str().unwrap()]).await
        else {
            return skipped("systemd-analyze is not installed");
        };
        let complaints: Vec<_> =
            verified.errors.lines().filter(|line| !line.ends_with("notify-reload")).collect();
        assert!(verified.code == 0 && complaints.is_empty(), "{verified:?}");
    }
}

#[tokio::test]
async fn what_init_writes_for_containers_is_taken_by_those_who_know_and_says_what_was_said() {
    let Some(programs) = validator().await else {
        return skipped("Python's YAML and kubernetes-validate are not here, and could not be");
    };
    let listen = ["--", "--listen", "0.0.0.0:8080", "--stop-timeout", "1m"];
    let program = ["--", "--", "/srv/server", "--name", "yes", "a: b # c"];
    for said in [&[][..], &listen, &program] {
        let place = tempfile::tempdir().unwrap();
        for words in [&["compose"][..], &["kubernetes"], &["kubernetes", "--shared-nothing"]] {
            if words.len() == 2 && said != program {
                continue;
            }
            let line = [&["init"], words, &["--force", "--out", words[0]], said].concat();
            holdfast(&line, place.path()).await.assert_code(0);
        }
        accepted_manifests(&programs, place.path(), 4).await;
        let words = commands(&programs, place.path()).await;
        // In the compose file it is a variable.
        let elsewhere = ["--", "--stop-timeout", "1m"];
        for word in said.iter().filter(|word| !elsewhere.contains(word)) {
            assert!(words.contains(&format!("{word:?}").replace('"', "'")), "no {word}: {words}");
        }
    }
}

/// The command lines of every container below a directory, as Python shows them.
async fn commands(programs: &Path, directory: &Path) -> String {
    let read = "import sys, yaml, pathlib\n\
                for p in pathlib.Path(sys.argv[1]).rglob('*.yaml'):\n \
                  for d in yaml.safe_load_all(p.open()):\n  \
                    spec = (d.get('spec') or {}).get('template', {}).get('spec', {})\n  \
                    for c in list(d.get('services', {}).values()) + spec.get('containers', []):\n   \
                      print(c.get('command', []) + c.get('args', []))";
    let python = programs.join("python");
    let python = python.to_str().expect("it is UTF-8");
    let words = [OsStr::new("-c"), OsStr::new(read), directory.as_os_str()];
    let read = outcome(python, words).await.expect("it is installed");
    read.assert_code(0);
    read.output
}

#[tokio::test]
async fn init_writes_nothing_over_and_nothing_that_run_refuses() {
    let place = tempfile::tempdir().unwrap();
    holdfast(&["init", "compose"], place.path()).await.assert_code(0);
    let file = place.path().join("compose.yaml");
    std::fs::write(&file, "mine").unwrap();
    let refused = holdfast(&["init", "compose"], place.path()).await;
    refused.assert_code(78).assert_says("--force").assert_says("compose.yaml");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    holdfast(&["init", "compose", "--force"], place.path()).await.assert_code(0);
    for (words, says) in [
        (&["systemd", "--", "--explode"][..], "--explode"),
        (&["compose", "--system"], "holdfast init systemd --system"),
        (&["kubernetes", "--shared-nothing"], "-- -- PROGRAM"),
        (&["compose", "--", "--listen", "127.0.0.1:80"], "0.0.0.0:80"),
        (&["nomad"], "systemd"),
        (&[], "For example: holdfast init"),
    ] {
        let refused = holdfast(&[&["init"], words].concat(), place.path()).await;
        refused.assert_code(64).assert_says(says);
    }
}
