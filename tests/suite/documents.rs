//! The commands in the documents do what they are there for.
//!
//! | a block that begins with | is |
//! | --- | --- |
//! | ```` ```sh ```` | run, line by line in the order of its page, beside a front that runs |
//! | ```` ```sh MARK ```` | looked at: the shell understands it, and whatever it asks of ours exists |
//!
//! [`MARKS`] are what a block may need that is not to be had here. A page's front is the bundled worker's until a line of the page
//! is `holdfast run …`; from then on it is that one. Ports that pages name are those of the front, and `target/release/` is where the
//! binaries of the suite are.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use holdfast_tests::rig::{Front, Outcome, Program, TOKEN, binaries};
use tokio::process::Command;

/// What a marked block needs.
const MARKS: [(&str, &str); 8] = [
    ("engine", "Docker or Podman"),
    ("cluster", "Kubernetes"),
    ("systemd", "a service manager"),
    ("network", "somebody else's server"),
    ("toolchain", "cargo, and minutes"),
    ("program", "a program that is not ours"),
    ("terminal", "somebody who looks on, and ends it"),
    ("root", "the rights of root"),
];
/// What else a block may be written in. Nothing of it is a command.
const OTHERS: [&str; 12] = [
    "text",
    "dockerfile",
    "json",
    "toml",
    "yaml",
    "ini",
    "rust",
    "promql",
    "nginx",
    "caddyfile",
    "diff",
    "mermaid",
];
/// The ports that pages name.
const PORTS: [&str; 2] = [":18789", ":8080"];
/// How long a block may take.
const LONG: Duration = Duration::from_secs(180);

/// A block of commands.
#[derive(Debug)]
struct Block {
    /// Where it begins, as `README.md:14`.
    place: String,
    mark: Option<String>,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The pages with commands: those of the root, and everything below `deploy`.
fn pages() -> Vec<PathBuf> {
    let mut folders = vec![root().join("deploy")];
    let mut pages = Vec::new();
    let page = |path: &Path| path.extension().is_some_and(|end| end == "md");
    let entries = |folder: &Path| -> Vec<PathBuf> {
        let listed = std::fs::read_dir(folder).expect("it is a folder").flatten();
        listed.map(|entry| entry.path()).collect()
    };
    pages.extend(entries(&root()).into_iter().filter(|path| page(path)));
    while let Some(folder) = folders.pop() {
        for path in entries(&folder) {
            if path.is_dir() {
                folders.push(path);
            } else if page(&path) {
                pages.push(path);
            }
        }
    }
    pages.sort();
    pages
}

/// The blocks of commands of a page.
fn blocks(name: &str, text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Option<Block>> = None;
    for (index, line) in text.lines().enumerate() {
        let Some(info) = line.trim_start().strip_prefix("```") else {
            if let Some(Some(block)) = &mut open {
                block.text.push_str(line);
                block.text.push('\n');
            }
            continue;
        };
        if let Some(closed) = open.take() {
            blocks.extend(closed);
            continue;
        }
        let place = format!("{name}:{}", index + 1);
        let words: Vec<_> = info.split_whitespace().collect();
        open = Some(match words[..] {
            ["sh"] => Some(Block { place, mark: None, text: String::new() }),
            ["sh", mark] => {
                let known = MARKS.iter().any(|(known, _)| *known == mark);
                assert!(known, "{place}: {mark} is no mark; there are {MARKS:?}");
                Some(Block { place, mark: Some(mark.to_owned()), text: String::new() })
            }
            [other, ..] if OTHERS.contains(&other) => None,
            [] => panic!("{place}: say what the block is written in: sh, text, …"),
            _ => panic!("{place}: commands are written in `sh`, with one mark at most: {info}"),
        });
    }
    assert!(open.is_none(), "{name}: a block has no end");
    blocks
}

fn all_blocks() -> Vec<Vec<Block>> {
    let of = |page: &PathBuf| {
        let name = page.strip_prefix(root()).expect("it is below").display().to_string();
        blocks(&name, &std::fs::read_to_string(page).expect("it is text"))
    };
    pages().iter().map(of).collect()
}

/// A text's lines, each with those that it goes on in.
fn lines(text: &str) -> Vec<String> {
    let joined = text.replace("\\\n", " ");
    joined.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// The commands in a line, each as its words; quotes hold words together.
fn commands(line: &str) -> Vec<Vec<String>> {
    let (mut all, mut command, mut word) = (Vec::new(), Vec::new(), String::new());
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '#') if word.is_empty() => break,
            (None, ' ' | '\t' | ';' | '|' | '&' | '(' | ')' | '<' | '>' | '`') => {
                if !word.is_empty() {
                    command.push(std::mem::take(&mut word));
                }
                if !matches!(c, ' ' | '\t') && !command.is_empty() {
                    all.push(std::mem::take(&mut command));
                }
            }
            (_, c) => word.push(c),
        }
    }
    if !word.is_empty() {
        command.push(word);
    }
    all.push(command);
    all.retain(|command: &Vec<String>| !command.is_empty());
    all
}

/// What of a command is for one of our programs, and which.
fn ours(command: &[String]) -> Option<(PathBuf, &[String])> {
    let at = |name: &str| {
        let is_it = |word: &String| word == name || word.ends_with(&format!("/{name}"));
        command.iter().position(is_it)
    };
    let (at, program) = match (at("holdfast"), at("holdfast-worker")) {
        (Some(at), _) => (at, binaries::holdfast()),
        (None, Some(at)) => (at, binaries::holdfast_worker()),
        (None, None) => return None,
    };
    // It may as well be a folder, a container or an argument of somebody else.
    let words = &command[at + 1..];
    let plain = |word: &String| word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    let named = words.first().is_some_and(|word| plain(word) && !word.starts_with('-'));
    let flagged = words.first().is_some_and(|word| word.starts_with('-'));
    let is_first = command[..at].iter().all(|word| word.contains('='));
    let leads = ["kubectl", "docker", "podman", "sudo", "exec", "env"];
    let is_led = leads.contains(&command.first().map_or("", String::as_str));
    let is_called = is_first && (named || flagged) || is_led && named;
    is_called.then_some((program, words))
}

async fn ended(mut command: Command) -> Outcome {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(LONG, command.output());
    output.await.unwrap_or_else(|_| panic!("{command:?} has no end")).expect("it is there").into()
}

#[tokio::test]
async fn every_command_is_understood_by_the_shell_and_by_us() {
    let mut asked = 0;
    for block in all_blocks().into_iter().flatten() {
        let mut shell = Command::new("sh");
        shell.args(["-n", "-c", &block.text]);
        let outcome = ended(shell).await;
        assert_eq!(outcome.code, 0, "{}: {}", block.place, outcome.errors);
        for line in lines(&block.text) {
            for command in commands(&line) {
                let Some((program, words)) = ours(&command) else { continue };
                let own = words.iter().take_while(|word| *word != "--");
                // Help is given when everything before it was understood.
                let mut help = Command::new(program);
                help.args(own).arg("--help");
                let outcome = ended(help).await;
                assert_eq!(outcome.code, 0, "{}: {line}: {}", block.place, outcome.errors);
                asked += 1;
            }
        }
    }
    assert!(asked > 5, "only {asked} commands of ours were found");
}

/// The front that the commands of a page are for.
struct Stage {
    front: Front,
}

impl Stage {
    async fn new() -> Self {
        Self::with(Front::with(|setup| setup.flag("--soak", "20ms")).await)
    }

    /// As a line says that begins with `holdfast run`, but for the addresses.
    async fn run(words: &[String]) -> Self {
        let (flags, program) = match words.iter().position(|word| word == "--") {
            Some(at) => (&words[1..at], &words[at + 1..]),
            None => (&words[1..], &[][..]),
        };
        let mut named = false;
        let flags: Vec<_> = flags
            .iter()
            .filter(|word| !(std::mem::replace(&mut named, *word == "--listen") || named))
            .filter(|word| !word.starts_with("--listen="))
            .collect();
        let front = Front::with(|mut setup| {
            for flag in flags {
                setup = setup.switch(flag);
            }
            match program.split_first() {
                None => setup,
                Some((first, rest)) => {
                    let program = Program::new(first);
                    setup.worker(rest.iter().fold(program, |program, word| program.arg(word)))
                }
            }
        });
        Self::with(front.await)
    }

    /// What is found there that pages speak of.
    fn with(front: Front) -> Self {
        let place = front.directory();
        std::fs::create_dir_all(place.join("target")).expect("the directory is fresh");
        let release = binaries::holdfast().parent().expect("it lies in a folder").to_owned();
        symlink(release, place.join("target/release")).expect("the directory is fresh");
        symlink(root().join("deploy").canonicalize().expect("it is there"), place.join("deploy"))
            .expect("the directory is fresh");
        std::fs::create_dir(place.join(".holdfast")).expect("the directory is fresh");
        std::fs::write(place.join(".holdfast/token"), TOKEN).expect("the directory is fresh");
        symlink(front.control(), place.join(".holdfast/control.sock"))
            .expect("the directory is fresh");
        Self { front }
    }

    async fn perform(&self, text: &str) -> Outcome {
        let port = format!(":{}", self.front.tcp().port());
        let text = PORTS.iter().fold(text.to_owned(), |text, named| text.replace(named, &port));
        let place = self.front.directory();
        let mut path = vec![place.join("target/release")];
        path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
        let mut shell = Command::new("sh");
        shell.env_clear().current_dir(place);
        shell.env("PATH", std::env::join_paths(path).expect("no folder has a colon"));
        shell.env("HOME", place).env("TMPDIR", place);
        shell.env("HOLDFAST_STATE_DIR", place.join("state")).env("HOLDFAST_TOKEN", TOKEN);
        shell.env("HOLDFAST_CONTROL", self.front.control());
        shell.args(["-e", "-u", "-c", &text]);
        ended(shell).await
    }
}

/// Runs what a page says is run, and says how many blocks that were.
async fn perform(page: Vec<Block>) -> usize {
    let blocks = page.into_iter().filter(|block| block.mark.is_none());
    let mut stage: Option<Stage> = None;
    let mut performed = 0;
    for block in blocks {
        performed += 1;
        for line in lines(&block.text) {
            let commands = commands(&line);
            let Some(command) = commands.first() else { continue };
            if let Some((program, words)) = ours(command)
                && program == binaries::holdfast()
                && words[0] == "run"
            {
                assert_eq!(commands.len(), 1, "{}: `run` stands alone: {line}", block.place);
                stage = Some(Stage::run(words).await);
                continue;
            }
            // A line may have stopped it.
            let present = match stage.take() {
                Some(stage) if stage.front.try_status().await.is_some() => stage,
                Some(_) | None => Stage::new().await,
            };
            let outcome = present.perform(&line).await;
            assert_eq!(
                outcome.code, 0,
                "{}: {line}\nstdout: {}\nstderr: {}",
                block.place, outcome.output, outcome.errors
            );
            stage = Some(present);
        }
    }
    performed
}

#[tokio::test]
async fn every_command_that_needs_nothing_else_does_what_it_is_there_for() {
    let mut performed = 0;
    for page in all_blocks() {
        performed += Box::pin(perform(page)).await;
    }
    assert!(performed > 0, "no page has a block that is run");
}

#[test]
fn the_marks_are_explained_to_who_writes() {
    let text = std::fs::read_to_string(root().join("CONTRIBUTING.md")).expect("it is there");
    for (mark, _) in MARKS {
        assert!(text.contains(&format!("`{mark}`")), "CONTRIBUTING.md does not say what {mark} is");
    }
}

#[test]
fn the_recording_is_small_has_no_script_and_shows_what_held() {
    let picture =
        std::fs::read_to_string(root().join("tests/recording/prove.svg")).expect("it is there");
    assert!(picture.len() < 200_000, "{} bytes", picture.len());
    assert!(!picture.contains("<script") && !picture.contains("href"), "it reaches beyond itself");
    for part in [">held: nothing of ", "prefers-color-scheme:dark", "prefers-reduced-motion"] {
        assert!(picture.contains(part), "no {part}: see tests/recording/record");
    }
}

#[test]
fn a_line_is_read_as_the_shell_reads_it() {
    let words = |line: &str| commands(line).concat().join(" ");
    assert_eq!(commands("a b && c | d; e # f").len(), 4);
    assert_eq!(words("holdfast run --listen 1 # why"), "holdfast run --listen 1");
    assert_eq!(commands("x --a 'b c' \"d\"")[0], ["x", "--a", "b c", "d"]);
    let is_ours = |line: &str| ours(&commands(line)[0]).is_some();
    for line in [
        "holdfast status",
        "target/release/holdfast run",
        "A=1 holdfast status",
        "kubectl exec holdfast-0 -- holdfast takeover",
        "docker compose exec gateway holdfast reexec",
    ] {
        assert!(is_ours(line), "{line}");
    }
    for line in [
        "systemctl reload holdfast",
        "docker build -t holdfast .",
        "cd holdfast",
        "kubectl set image statefulset/holdfast holdfast=holdfast:1",
        "kubectl create secret generic holdfast --from-literal=a=b",
        "install holdfast /bin",
    ] {
        assert!(!is_ours(line), "{line}");
    }
}
