//! A unit, of the user or of the system.

use std::path::Path;
use std::time::Duration;

use super::super::Failed;
use super::words::{Words, flags_of};
use super::{Made, replaced};

const USER: &str = include_str!("../../../../deploy/systemd/holdfast.service");
const SYSTEM: &str = include_str!("../../../../deploy/systemd/system/holdfast.service");
const SYSUSERS: &str = include_str!("../../../../deploy/systemd/system/holdfast.sysusers");
const OPENCLAW: &str = include_str!("../../../../deploy/systemd/holdfast.service.d/openclaw.conf");

/// What systemd waits longer than the front may take.
const LONGER: Duration = Duration::from_secs(5);

pub(super) fn made(words: &Words, own: &Path, out: &Path, system: bool) -> Result<Made, Failed> {
    let template = if system { SYSTEM } else { USER };
    let start = start_of(template);
    let defaults =
        flags_of(if words.has("--profile") { start_of(OPENCLAW) } else { start }.split(' '));
    let mut words = words.clone();
    let found_by_path = match words.program.first_mut() {
        Some(program) if program.contains('/') => {
            let path = super::super::absolute(Path::new(program))?;
            *program = path;
            false
        }
        Some(_) => true,
        None => false,
    };
    let all = words.all(&defaults);
    let stop = words.stop_timeout(&all)?;
    let note = unreachable(own).filter(|_| system);
    let own = quoted(&own.to_string_lossy());
    let line: Vec<_> = [own].into_iter().chain(all.iter().map(|word| quoted(word))).collect();
    let mut line = format!("ExecStart={}", line.join(" "));
    if found_by_path && let Some(path) = std::env::var("PATH").ok().filter(|path| !path.is_empty())
    {
        line.push_str(&format!("\nEnvironment={}", assigned("PATH", &path)));
    }
    let unit = replaced(template, &format!("ExecStart={start}"), &line);
    let unit = replaced(
        &unit,
        "TimeoutStopSec=30s",
        &format!("TimeoutStopSec={}s", (stop + LONGER).as_secs()),
    );
    let mut files = vec![("holdfast.service", unit)];
    if system {
        files.push(("holdfast.sysusers", SYSUSERS.to_owned()));
    }
    Ok(Made { files, next: next(out, system), note })
}

/// The system's unit sees no home directories (ProtectHome=).
fn unreachable(own: &Path) -> Option<String> {
    let hidden = ["/home", "/root", "/run/user", "/tmp"].iter().any(|place| own.starts_with(place));
    hidden.then(|| {
        format!(
            "the unit does not see {}; put holdfast and holdfast-worker into /usr/local/bin, and run `init` from there",
            own.display()
        )
    })
}

/// The command line of a unit.
fn start_of(unit: &str) -> &str {
    let start = unit.lines().rev().find_map(|line| line.strip_prefix("ExecStart=/"));
    let start = start.expect("each of them has one");
    // With its first letter.
    let at = unit.rfind(&format!("/{start}")).expect("it was found");
    &unit[at..=at + start.len()]
}

/// A word of ExecStart= (systemd.service(5), "COMMAND LINES"): specifiers and variables are not meant.
fn quoted(word: &str) -> String {
    let meant = word.replace('%', "%%").replace('$', "$$");
    if !meant.is_empty() && meant.chars().all(|c| c.is_ascii_graphic() && !"\"'\\;".contains(c)) {
        return meant;
    }
    format!("\"{}\"", escaped(&meant))
}

/// A variable of Environment=, where `$` means nothing (systemd.exec(5)).
fn assigned(name: &str, value: &str) -> String {
    let meant = value.replace('%', "%%");
    let plain = meant.chars().all(|c| c.is_ascii_graphic() && !"\"'\\".contains(c));
    if plain { format!("{name}={meant}") } else { format!("\"{name}={}\"", escaped(&meant)) }
}

fn escaped(word: &str) -> String {
    word.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn next(out: &Path, system: bool) -> [String; 2] {
    let from = out.display();
    let there = out.ends_with("systemd/user") || out == Path::new("/etc/systemd/system");
    let install = |to: &str| format!("install -D -m 0644 -t {to} {from}/holdfast.service");
    match (system, there) {
        (false, false) => {
            [install("~/.config/systemd/user"), "systemctl --user enable --now holdfast".to_owned()]
        }
        (false, true) => [
            "systemctl --user daemon-reload".to_owned(),
            "systemctl --user enable --now holdfast".to_owned(),
        ],
        (true, there) => {
            let users = format!(
                "install -D -m 0644 {from}/holdfast.sysusers /etc/sysusers.d/holdfast.conf && systemd-sysusers"
            );
            let unit = install("/etc/systemd/system");
            let first = if there { users } else { format!("{unit} && {users}") };
            [first, "systemctl daemon-reload && systemctl enable --now holdfast".to_owned()]
        }
    }
}
