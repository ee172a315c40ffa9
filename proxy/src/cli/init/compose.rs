//! A compose file, for images that are there: who has the source builds them with the one in `deploy/`.

use std::path::Path;
use std::time::Duration;

use super::super::Failed;
use super::words::Words;
use super::{Made, replaced};

const COMPOSE: &str = include_str!("../../../../deploy/compose.yaml");

/// What an engine waits longer than the front may take.
const LONGER: Duration = Duration::from_secs(2);
/// Where the image listens.
const PORT: &str = "18789";

pub(super) fn made(words: &Words, out: &Path) -> Result<Made, Failed> {
    let port = words.port()?;
    let mut text = without_builds(COMPOSE);
    if words.has("--stop-timeout") {
        let stop = words.stop_timeout(&words.all(&[]))?;
        let time = format!("HOLDFAST_STOP_TIMEOUT: {}", humantime::format_duration(stop));
        text = replaced(&text, "HOLDFAST_STOP_TIMEOUT: 8s", &time);
        let grace = format!("stop_grace_period: {}s", (stop + LONGER).as_secs());
        text = replaced(&text, "stop_grace_period: 10s", &grace);
    }
    // It is a variable there.
    let said = words.without("--stop-timeout").all(&[]);
    let command = format!("command: {}", listed(&said, |word| word.replace('$', "$$")));
    text = replaced(&text, "command: [run]", &command);
    if let Some(port) = port {
        text = replaced(&text, &format!("{PORT}:{PORT}"), &format!("{port}:{port}"));
    }
    if !words.program.is_empty() {
        let image = "image: your-server\n    entrypoint: [/usr/local/bin/holdfast]";
        text = replaced(&text, "image: holdfast:${HOLDFAST_VERSION:-latest}", image);
    }
    let file = out.join("compose.yaml");
    let build = if words.program.is_empty() {
        "docker build -f deploy/container/Dockerfile -t holdfast .    # where Holdfast's source is"
    } else {
        "docker build -t your-server .    # with the front in it: deploy/README.md shows how"
    };
    let up = format!(
        "HOLDFAST_TOKEN=$(openssl rand -hex 32) docker compose -f {} up --detach",
        file.display()
    );
    Ok(Made { files: vec![("compose.yaml", text)], next: [build.to_owned(), up], note: None })
}

/// Leaves out every `build:` with what is below it, and the comment that speaks of it.
fn without_builds(text: &str) -> String {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let (mut kept, mut below) = (String::new(), None);
    for line in text.lines() {
        if below.is_some_and(|build| indent(line) > build && !line.trim().is_empty()) {
            continue;
        }
        below = None;
        if line.trim() == "build:" {
            below = Some(indent(line));
            continue;
        }
        let line = line.replace("deploy/compose.yaml", "compose.yaml").replace(" --build ", " ");
        let line = line.strip_suffix(" --build").map_or_else(|| line.clone(), str::to_owned);
        kept.push_str(&line);
        kept.push('\n');
    }
    kept
}

/// A list of words in YAML's flow style, which is JSON's where a word needs quotes.
pub(super) fn listed(words: &[String], meant: impl Fn(&str) -> String) -> String {
    let words: Vec<_> = words.iter().map(|word| scalar(&meant(word))).collect();
    format!("[{}]", words.join(", "))
}

/// Plain only where nobody could read anything else than a string.
fn scalar(word: &str) -> String {
    let first = word.chars().next();
    let flag = word.starts_with("--") && word.len() > 2 || word == "--";
    let time = word.ends_with(['s', 'm']) && first.is_some_and(|c| c.is_ascii_digit());
    let name = word == "run" || first == Some('/');
    let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./=".contains(c));
    if plain && (flag || time || name) {
        return word.to_owned();
    }
    serde_json::to_string(word).unwrap_or_default()
}
