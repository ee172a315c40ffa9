//! What `deploy/` says, as far as it can be told without an engine, a cluster or a service manager: its commands and variables
//! exist, its times fit together, and those who know a format take it.
//!
//! Who cannot be asked here is said to be skipped. `HOLDFAST_TEST_IMAGE` names an image of Holdfast that an engine can run.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use holdfast_tests::rig::{Front, Process, Signal, binaries, eventually};
use tokio::process::Command;

use crate::{fixture, quick, skipped};

/// How long something that is not ours may take: an installation, an engine.
const LONG: Duration = Duration::from_secs(180);
/// Before this version systemd does not know what a reload that is told of is.
const KNOWS_RELOADS: u32 = 253;

fn deployed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

fn read(name: &str) -> String {
    let path = deployed().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("it is a directory").flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// What a command says when it is run to its end, or `None` where it does not exist.
async fn outcome<W: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    words: impl IntoIterator<Item = W>,
) -> Option<Output> {
    let mut command = Command::new(program);
    command.args(words).kill_on_drop(true);
    // For systemd, which would ask a user's own manager.
    command.env("XDG_RUNTIME_DIR", std::env::temp_dir());
    tokio::time::timeout(LONG, command.output()).await.expect("it ends").ok()
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}

async fn help(program: PathBuf, words: &[&str]) -> String {
    let output = outcome(program, [words, &["--help"]].concat()).await.expect("it is built");
    assert!(output.status.success(), "{words:?}: {}", said(&output));
    said(&output)
}

/// The subcommands of Holdfast in a line, each with its flags. A list of words is read as a command line.
fn commands<'l>(line: &'l str, known: &[String]) -> Vec<(&'l str, Vec<&'l str>)> {
    // What ends a command ends up as an empty word.
    let words: Vec<_> = line
        .split([' ', '[', ']', '"', ',', '\'', '(', ')'])
        .flat_map(|word| word.split_inclusive(['`', ';', '|']))
        .filter(|word| !word.is_empty())
        .collect();
    let begins = |word: &str| {
        word.trim_start_matches('`').ends_with("holdfast")
            || ["CMD", "args:", "command:"].contains(&word)
    };
    let named = |word: &'l str| word.trim_end_matches(['`', ';', '|']);
    let mut found = Vec::new();
    for (at, pair) in words.windows(2).enumerate() {
        let command = named(pair[1]);
        if !begins(pair[0]) || !known.iter().any(|known| known == command) {
            continue;
        }
        let mut flags = Vec::new();
        for word in &words[at + 1..] {
            if word.starts_with("--") && word.len() > 2 {
                flags.push(named(word).split('=').next().unwrap_or_default());
            }
            if ["--", "#", "&&"].contains(word) || word.ends_with(['`', ';', '|']) {
                break;
            }
        }
        found.push((command, flags));
    }
    found
}

/// Every variable of ours that a text names.
fn variables(text: &str) -> impl Iterator<Item = &str> {
    let part = |c: char| c.is_ascii_uppercase() || c == '_';
    text.split(move |c| !part(c)).filter(|word| word.starts_with("HOLDFAST_") && word.len() > 9)
}

#[tokio::test]
async fn every_command_flag_and_variable_that_is_deployed_exists() {
    let all = help(binaries::holdfast(), &[]).await;
    let list = all.split("Commands:").nth(1).expect("there are commands");
    let known: Vec<_> = list
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|word| word.starts_with(|c: char| c.is_ascii_lowercase()))
        .map(str::to_owned)
        .collect();
    let mut environment = help(binaries::holdfast_worker(), &[]).await;
    environment += &help(binaries::holdfast(), &["run"]).await;
    // Of the compose file alone, of what builds the package, and of this test.
    environment += "HOLDFAST_VERSION HOLDFAST_TEST_IMAGE HOLDFAST_CONTROL";
    environment += "HOLDFAST_BINARIES HOLDFAST_DEB_VERSION HOLDFAST_KEEP_SYMBOLS";

    let (mut flags_seen, mut variables_seen) = (0, 0);
    for path in files(&deployed()) {
        if path.extension() == Some(OsStr::new("png")) {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("it is text");
        for line in text.lines() {
            for (command, flags) in commands(line, &known) {
                let help = help(binaries::holdfast(), &[command]).await;
                for flag in flags {
                    let part = |c: char| c.is_ascii_lowercase() || c == '-';
                    assert!(
                        help.split(|c| !part(c)).any(|word| word == flag),
                        "{}: {command} has no {flag}: {line}",
                        path.display()
                    );
                    flags_seen += 1;
                }
            }
        }
        for variable in variables(&text) {
            assert!(environment.contains(variable), "{}: no {variable}", path.display());
            variables_seen += 1;
        }
    }
    assert!(flags_seen > 20 && variables_seen > 10, "{flags_seen} and {variables_seen} were found");
}

/// The numbers that follow these words.
fn figures(text: &str, words: &str) -> Vec<u64> {
    let number = |rest: &str| {
        let rest = rest.trim_start_matches([' ', '"', ',', ':', '=']);
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse().ok()
    };
    text.split(words).skip(1).filter_map(number).collect()
}

#[test]
fn whoever_stops_a_front_gives_it_the_time_it_takes() {
    // Unit, drop-ins: systemd kills at TimeoutStopSec=, also with other words for the front.
    for unit in ["systemd/holdfast.service", "systemd/system/holdfast.service"] {
        let kill = figures(&read(unit), "TimeoutStopSec");
        for said in [unit, "systemd/holdfast.service.d/openclaw.conf"] {
            let stop = figures(&read(said), "--stop-timeout");
            assert!(stop.len() == 1 && kill[0] >= stop[0] + 5, "{said}: {stop:?}, {kill:?}");
        }
    }
    let stop = figures(&read("container/Dockerfile"), "--stop-timeout");
    assert!(stop.len() == 1 && stop[0] < 10, "an engine kills after 10 s, not {stop:?}");
    let compose = read("compose.yaml");
    let stop = figures(&compose, "HOLDFAST_STOP_TIMEOUT");
    let kill = figures(&compose, "stop_grace_period:");
    assert!(stop.len() == 1 && stop[0] < kill[0], "{stop:?}, {kill:?}");
    for pods in
        ["kubernetes/one-writer/statefulset.yaml", "kubernetes/shared-nothing/deployment.yaml"]
    {
        let text = read(pods);
        let [kill, before, stop] =
            ["terminationGracePeriodSeconds:", " seconds:", "--stop-timeout"].map(|w| {
                let [figure] = figures(&text, w)[..] else { panic!("{pods}: one {w}") };
                figure
            });
        assert!(kill >= before + stop + 10, "{pods}: {kill} < {before} + {stop} + 10");
    }
}

/// What is always the same in the messages of an `enum`'s variants.
fn messages(source: &str, of: &str) -> Vec<String> {
    let body = source.split(&format!("enum {of} {{")).nth(1).expect("there is one");
    let body = body.split("\n}").next().unwrap_or_default();
    let quoted = body.split("#[error(").skip(1).filter_map(|rest| rest.split('"').nth(1));
    quoted
        .flat_map(|message| message.split_inclusive('}'))
        .map(constant)
        .filter(|s| s.len() > 5)
        .collect()
}

/// A message up to its first value.
fn constant(message: &str) -> String {
    message.split('{').next().unwrap_or_default().trim().to_owned()
}

#[test]
fn the_runbook_has_every_failure_that_status_can_show() {
    let source = |name: &str| {
        let path = deployed().join("../proxy/src").join(name);
        std::fs::read_to_string(path).expect("it is there")
    };
    // Of a message only what is before the value: it depends on the case.
    let runbook = read("RUNBOOK.md").replace("\n", " ");
    let events = source("event.rs");
    let mut messages = messages(&events, "Failure");
    assert!(messages.len() > 6, "{messages:?}");
    let during = events.split("impl fmt::Display for During").nth(1).expect("it is shown");
    messages.extend(during.split('"').skip(1).step_by(2).take(5).map(str::to_owned));
    for shown in [
        "nobody serves; the next start is in",
        "paused: nobody accepts,",
        "nobody stands by; the next standby is started in",
        "went back to",
        "connections waited too long for a worker, and were closed",
        "fails at:",
        "waits for",
        "recovered",
        "a takeover waits",
        "nobody serves; waits for a worker to attach",
        "attached, and waiting for a turn",
        "rolled back: it",
    ] {
        assert!(
            source("cli/status/table.rs").contains(shown),
            "status does not say {shown:?} any more"
        );
        messages.push(shown.to_owned());
    }
    for message in messages {
        assert!(runbook.contains(&message), "nothing is said of {message:?}");
    }
}

#[test]
fn the_image_is_built_by_a_compiler_that_is_new_enough() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let needed = figures(&std::fs::read_to_string(manifest).unwrap(), "rust-version = \"1.");
    let used = figures(&read("container/Dockerfile"), "RUST_VERSION=1.");
    assert!(used[0] >= needed[0], "1.{} < 1.{}", used[0], needed[0]);
}

#[tokio::test]
async fn systemd_has_nothing_to_say_about_the_units() {
    let Some(version) = outcome("systemd-analyze", ["--version"]).await else {
        return skipped("systemd-analyze is not installed");
    };
    let version = figures(&said(&version), "systemd")[0];
    for (folder, whose) in [("systemd", "--user"), ("systemd/system", "--system")] {
        for drop_ins in [&[][..], &["systemd-252.conf"], &["systemd-252.conf", "openclaw.conf"]] {
            let directory = tempfile::tempdir().unwrap();
            let beside = directory.path().join("holdfast.service.d");
            std::fs::create_dir(&beside).unwrap();
            let copy = |from: String, to: PathBuf| {
                // That program has to exist, and is not installed here.
                let program = binaries::holdfast();
                let text =
                    read(&from).replace("/usr/local/bin/holdfast", program.to_str().unwrap());
                std::fs::write(&to, text).unwrap();
                to
            };
            for drop_in in drop_ins {
                copy(format!("systemd/holdfast.service.d/{drop_in}"), beside.join(drop_in));
            }
            let units = ["holdfast.service", "holdfast.socket"]
                .map(|unit| copy(format!("{folder}/{unit}"), directory.path().join(unit)));
            let words = ["verify", "--man=no", whose].map(OsStr::new);
            let words = words.into_iter().chain(units.iter().map(|unit| unit.as_os_str()));
            let output = outcome("systemd-analyze", words).await.expect("it is installed");
            let said = said(&output);
            let known = |line: &&str| {
                version < u64::from(KNOWS_RELOADS) && line.ends_with("ignoring: notify-reload")
            };
            let complaints: Vec<_> = said.lines().filter(|line| !known(line)).collect();
            assert!(
                output.status.success() && complaints.is_empty(),
                "{folder}, {drop_ins:?}: {said}"
            );
        }
    }
}

/// The directory of a Python that knows YAML and what Kubernetes takes.
pub(super) async fn validator() -> Option<PathBuf> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kubernetes-validate");
    let programs = directory.join("bin");
    if !programs.join("kubernetes-validate").exists() {
        let made =
            outcome("python3", [OsStr::new("-m"), OsStr::new("venv"), directory.as_os_str()]);
        made.await.filter(|output| output.status.success())?;
        let words = [
            "install",
            "--quiet",
            "--retries",
            "1",
            "--timeout",
            "5",
            "kubernetes-validate==1.37.0",
        ];
        let installed = outcome(programs.join("pip"), words).await?;
        installed.status.success().then_some(())?;
    }
    Some(programs)
}

async fn accepted<W: AsRef<OsStr>>(program: PathBuf, words: impl IntoIterator<Item = W>) {
    let output = outcome(program, words).await.expect("it is installed");
    assert!(output.status.success(), "{}", said(&output));
}

/// Has YAML read by those who know it, and what is Kubernetes' by those who know that, below a directory.
pub(super) async fn accepted_manifests(programs: &Path, directory: &Path, at_least: usize) {
    let yaml = |path: &PathBuf| path.extension() == Some(OsStr::new("yaml"));
    let all: Vec<_> = files(directory).into_iter().filter(yaml).collect();
    let parse = "import sys, yaml\nfor p in sys.argv[1:]: list(yaml.safe_load_all(open(p)))";
    let words = [OsStr::new("-c"), OsStr::new(parse)];
    accepted(programs.join("python"), words.into_iter().chain(all.iter().map(|p| p.as_os_str())))
        .await;
    let resource = |path: &&PathBuf| {
        path.components().any(|part| part.as_os_str() == "kubernetes")
            && !path.ends_with("kustomization.yaml")
    };
    let resources: Vec<_> = all.iter().filter(resource).map(|p| p.as_os_str()).collect();
    assert!(resources.len() >= at_least, "{resources:?}");
    let strict = STRICT.map(OsStr::new);
    accepted(programs.join("kubernetes-validate"), strict.into_iter().chain(resources)).await;
}

/// For which version, and that nothing unknown is passed over.
const STRICT: [&str; 4] = ["-k", "1.34", "--strict", "--quiet"];

#[tokio::test]
async fn kubernetes_takes_the_manifests_and_what_is_made_of_them() {
    let json = read("kubernetes/one-writer/programs.json");
    serde_json::from_str::<serde_json::Value>(&json).expect("it is JSON");
    let Some(programs) = validator().await else {
        return skipped("kubernetes-validate is not installed here, and could not be");
    };
    accepted_manifests(&programs, &deployed(), 6).await;
    let strict = STRICT.map(OsStr::new);
    for folder in ["one-writer", "shared-nothing", "attached"] {
        let from = deployed().join("kubernetes").join(folder);
        let Some(made) = outcome("kubectl", [OsStr::new("kustomize"), from.as_os_str()]).await
        else {
            return skipped("kubectl is not installed, so nothing was made of the manifests");
        };
        assert!(made.status.success(), "{}", said(&made));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), made.stdout).unwrap();
        let words = strict.into_iter().chain([file.path().as_os_str()]);
        accepted(programs.join("kubernetes-validate"), words).await;
    }
}

/// Starts a front as the first process of a namespace, as an engine does; what was started is its parent.
const AS_PID_1: [&str; 5] = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];

#[tokio::test]
async fn the_first_process_of_a_namespace_reaps_what_is_left_to_it_and_ends_with_0() {
    let possible = outcome(AS_PID_1[0], [&AS_PID_1[1..], &["true"]].concat()).await;
    if possible.is_none_or(|output| !output.status.success()) {
        return skipped("no namespace of its own for processes can be had here");
    }
    let place = tempfile::tempdir().unwrap();
    let leaves = format!("orphan:{}", place.path().join("orphan").display());
    let program = fixture(["first-good", &leaves]);
    let mut front = Front::with(|s| quick(s.worker(program)).wrapped_in(&AS_PID_1)).await;
    assert_eq!(front.status().await.front.pid, 1);
    front.takeover().await.assert_committed();
    front.takeover_to(&fixture(["serve"])).await.assert_committed();

    let outer = front.process();
    let children = |of: Process| {
        let below = outer.descendants().into_iter();
        below.filter(|process| process.parent() == Some(of.pid())).collect::<Vec<_>>()
    };
    let [first] = children(outer)[..] else { panic!("there is one first process") };
    let sleeps = |child: &Process| child.arguments().iter().any(|word| word == "sleep");
    let orphan = children(first).into_iter().find(sleeps).expect("it is the first process's now");
    orphan.signal(Signal::SIGKILL);
    eventually("it is reaped", async || Process::find(orphan.pid()).is_none().then_some(())).await;

    front.run(&["stop"]).await.assert_code(0);
    assert_eq!(front.exit_code().await, 0);
    assert!(first.is_gone(), "the first process lives on");
}

#[tokio::test]
async fn an_image_does_what_is_expected_of_the_first_process() {
    let Some(image) = std::env::var_os("HOLDFAST_TEST_IMAGE") else {
        return skipped("HOLDFAST_TEST_IMAGE names no image to be run by an engine");
    };
    accepted(deployed().join("container/try"), [image]).await;
}
