//! What `--help` says beyond each flag: which flags belong together, and an example for every command.
//!
//! A command line that was not understood is answered with the first example of its command, so that what was meant
//! can be seen.
//!
//! **Invariants**
//! - Every command that is shown has an example, and every example is understood.

use std::ffi::OsString;

use clap::{Command, CommandFactory as _};

use super::Cli;

/// The command line with all that help says of it.
pub(super) fn command() -> Command {
    let mut command = Cli::command().after_help(
        "Exit codes: 0 done · 1 it failed · 3 a takeover's drain cut something · 64 the command line is wrong · 78 the \
         configuration cannot be used",
    );
    for (name, examples) in EXAMPLES {
        command = command.mut_subcommand(name, |command| command.after_help(shown(examples)));
    }
    for name in ["run", "check"] {
        command = command.mut_subcommand(name, grouped);
    }
    command
}

/// The flags of `run` under headings; those of adapters have theirs.
fn grouped(mut command: Command) -> Command {
    for (heading, flags) in GROUPS {
        for flag in *flags {
            command = command.mut_arg(flag, |arg| arg.help_heading(*heading));
        }
    }
    // Headings come in the order of their first flag, and a flag that was changed is the last one.
    let ours = |heading: &str| GROUPS.iter().any(|(group, _)| *group == heading);
    let others: Vec<_> = command
        .get_arguments()
        .filter(|arg| arg.get_help_heading().is_some_and(|heading| !ours(heading)))
        .map(|arg| arg.get_id().clone())
        .collect();
    others.into_iter().fold(command, |command, flag| command.mut_arg(flag, |arg| arg))
}

const GROUPS: &[(&str, &[&str])] = &[
    ("Listening", &["listen", "shards", "unix_mode", "max_connections"]),
    (
        "Takeovers",
        &[
            "ready_timeout",
            "soak",
            "drain_timeout",
            "stop_timeout",
            "takeover_order",
            "exclusive",
            "hold_timeout",
            "standby",
        ],
    ),
    ("Workers", &["user", "group", "no_new_privs", "adapter", "log_file"]),
    (
        "Workers that attach themselves",
        &["attach", "attach_mode", "attach_group", "attach_uid", "attach_token_file"],
    ),
    ("The status page", &["address", "token_file"]),
    ("The front's log", &["log_format", "log_level"]),
];

/// Each command's examples, the plainest first.
const EXAMPLES: [(&str, &[&str]); 18] = [
    (
        "run",
        &[
            "holdfast run",
            "holdfast run --listen 127.0.0.1:8080 -- ./my-worker --verbose",
            "holdfast run --admin 127.0.0.1:18790",
            "holdfast run --attach /run/holdfast/attach.sock",
            "holdfast run --profile openclaw -- openclaw gateway run",
            "holdfast run --adapter relay --listen 127.0.0.1:8080 -- python3 -m http.server {port}",
        ],
    ),
    ("check", &["holdfast check --listen 0.0.0.0:18789", "holdfast check --json -- ./my-worker"]),
    (
        "takeover",
        &[
            "holdfast takeover",
            "holdfast takeover --program ./my-worker-2",
            "holdfast takeover --env-file worker.env --json",
            "holdfast takeover -- ./my-worker-2 --verbose",
        ],
    ),
    ("drain", &["holdfast drain --now g7"]),
    ("reexec", &["holdfast reexec", "holdfast reexec --binary /opt/holdfast/0.2.0/holdfast"]),
    ("pause", &["holdfast pause --timeout 30s"]),
    ("resume", &["holdfast resume"]),
    ("status", &["holdfast status", "holdfast status --json"]),
    ("top", &["holdfast top"]),
    (
        "prove",
        &[
            "holdfast prove --private --takeovers 5",
            "holdfast prove --yes --connections 50 --rate 100",
        ],
    ),
    ("admin", &["holdfast admin --admin 127.0.0.1:18790"]),
    ("stop", &["holdfast stop", "holdfast stop --now"]),
    ("healthcheck", &["holdfast healthcheck && echo somebody accepts"]),
    ("adapter", &["holdfast adapter activate -- ./my-server"]),
    ("logs", &["holdfast logs --follow", "holdfast logs --lines 200"]),
    (
        "init",
        &[
            "holdfast init systemd",
            "holdfast init systemd --system --out /etc/systemd/system",
            "holdfast init compose -- --listen 0.0.0.0:8080 --drain-timeout 2m",
            "holdfast init systemd -- --profile openclaw -- openclaw gateway run",
        ],
    ),
    (
        "completions",
        &["holdfast completions bash > ~/.local/share/bash-completion/completions/holdfast"],
    ),
    ("man", &["holdfast man takeover | man -l -", "holdfast man --out ~/.local/share/man/man1"]),
];

fn shown(examples: &[&str]) -> String {
    let lines = examples.iter().map(|example| format!("\n  {example}"));
    ["Examples:".to_owned()].into_iter().chain(lines).collect()
}

/// An example of what these words, which were not understood, may have meant.
pub(super) fn example_for(words: impl IntoIterator<Item = OsString>) -> Option<&'static str> {
    let command = Cli::command();
    let meant = words.into_iter().find_map(|word| {
        let found = command.find_subcommand(word)?;
        Some(found.get_name().to_owned())
    });
    let meant = meant.as_deref().unwrap_or("run");
    EXAMPLES.iter().find(|(name, _)| *name == meant)?.1.first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_that_is_shown_has_an_example() {
        let named: Vec<_> = EXAMPLES.iter().map(|(name, _)| *name).collect();
        let command = Cli::command();
        for shown in command.get_subcommands().filter(|command| !command.is_hide_set()) {
            assert!(named.contains(&shown.get_name()), "{} has none", shown.get_name());
        }
    }

    #[test]
    fn every_example_is_understood_and_is_one_of_its_command() {
        for (name, examples) in EXAMPLES {
            for example in examples {
                let words = example.split(' ').take_while(|word| !["|", "&&", ">"].contains(word));
                let matches = command().try_get_matches_from(words);
                let matches = matches.unwrap_or_else(|error| panic!("{example}: {error}"));
                assert_eq!(matches.subcommand_name(), Some(name), "{example}");
            }
        }
    }

    #[test]
    fn what_was_not_understood_is_answered_by_an_example_of_the_same_command() {
        let example = |line: &str| example_for(line.split(' ').map(Into::into));
        assert_eq!(example("takeover --explode"), Some("holdfast takeover"));
        assert_eq!(example("--control /x restart now"), Some("holdfast takeover"));
        assert_eq!(example("explode"), Some("holdfast run"));
    }

    #[test]
    fn no_help_of_a_command_is_wider_than_its_words_need() {
        // An example that has to be scrolled is none.
        for (_, examples) in EXAMPLES {
            assert!(examples.iter().all(|example| example.len() <= 90), "{examples:?}");
        }
    }
}
