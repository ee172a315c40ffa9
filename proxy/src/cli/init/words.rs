//! The words of `holdfast run` that were given, and those that a file of `deploy/` has.

use std::time::Duration;

use clap::{Command, FromArgMatches as _};
use handoff::Address;

use super::super::{Cli, Command as Line, Failed, help};

/// What `run` is to be given.
#[derive(Clone, Debug)]
pub(super) struct Words {
    flags: Vec<String>,
    pub(super) program: Vec<String>,
    pub(super) listen: Vec<Address>,
}

impl Words {
    /// Those that were said, if `run` understands them.
    pub(super) fn read(said: &[String]) -> Result<Self, Failed> {
        let flags = said.iter().take_while(|word| *word != "--").cloned().collect();
        let program = said.iter().skip_while(|word| *word != "--").skip(1).cloned().collect();
        let words = Self { flags, program, listen: Vec::new() };
        let listen = words.understood(&words.all(&[]))?.listen;
        Ok(Self { listen, ..words })
    }

    /// Whether a flag was said.
    pub(super) fn has(&self, flag: &str) -> bool {
        let value =
            |word: &String| word.strip_prefix(flag).is_some_and(|rest| rest.starts_with('='));
        self.flags.iter().any(|word| word == flag || value(word))
    }

    /// The same without a flag and its value.
    pub(super) fn without(&self, flag: &str) -> Self {
        let mut flags = self.flags.clone();
        if let Some(at) = flags.iter().position(|word| word == flag) {
            flags.drain(at..(at + 2).min(flags.len()));
        }
        flags.retain(|word| !word.starts_with(&format!("{flag}=")));
        Self { flags, ..self.clone() }
    }

    /// `run`, these flags unless they were said otherwise, what was said, and the program.
    pub(super) fn all(&self, defaults: &[(String, String)]) -> Vec<String> {
        let mut words = vec!["run".to_owned()];
        for (flag, value) in defaults.iter().filter(|(flag, _)| !self.has(flag)) {
            words.extend([flag.clone(), value.clone()]);
        }
        words.extend(self.flags.iter().cloned());
        if !self.program.is_empty() {
            words.push("--".to_owned());
            words.extend(self.program.iter().cloned());
        }
        words
    }

    /// How long stopping may take by these words.
    pub(super) fn stop_timeout(&self, words: &[String]) -> Result<Duration, Failed> {
        Ok(self.understood(words)?.times.stop)
    }

    fn understood(&self, words: &[String]) -> Result<super::super::check::Asked, Failed> {
        let line = ["holdfast".to_owned()].into_iter().chain(words.iter().cloned());
        let read = unset(help::command())
            .try_get_matches_from(line)
            .and_then(|matches| Cli::from_arg_matches(&matches));
        match read.map(|cli| cli.command) {
            Ok(Line::Run(run)) => run.asked(),
            Ok(_) => Err(usage("`--help` and the like are for `holdfast run`")),
            Err(error) => {
                let told = error.to_string();
                let first = told.lines().next().unwrap_or_default();
                Err(usage(first.strip_prefix("error: ").unwrap_or(first)))
            }
        }
    }

    /// The port of the container that clients come to; `None` if that was not said.
    pub(super) fn port(&self) -> Result<Option<u16>, Failed> {
        let mut ports = self.listen.iter().filter_map(|address| match address {
            Address::Tcp(tcp) => Some(*tcp),
            Address::Unix(_) => None,
        });
        let Some(first) = ports.next() else { return Ok(None) };
        if first.ip().is_loopback() {
            let meant = format!(
                "{first} is the container's own machine, and nobody else reaches it; write --listen 0.0.0.0:{}",
                first.port()
            );
            return Err(Failed::Usage { meant });
        }
        Ok(Some(first.port()))
    }
}

/// The command line without the environment.
fn unset(command: Command) -> Command {
    command.mut_subcommand("run", |run| {
        run.mut_args(|arg| arg.env(clap::builder::Resettable::<clap::builder::OsStr>::Reset))
    })
}

fn usage(meant: &str) -> Failed {
    Failed::Usage { meant: format!("for `holdfast run`: {meant}") }
}

/// The flags of a line of `deploy/` and their values: `run --log-format json --stop-timeout 25s`.
pub(super) fn flags_of<'l>(words: impl IntoIterator<Item = &'l str>) -> Vec<(String, String)> {
    let words: Vec<_> = words.into_iter().take_while(|word| *word != "--").collect();
    let pairs = words.windows(2).filter(|pair| pair[0].starts_with("--"));
    pairs.map(|pair| (pair[0].to_owned(), pair[1].to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Words {
        let words: Vec<_> = line.split(' ').map(Into::into).collect();
        Words::read(&words).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    #[test]
    fn what_was_said_takes_the_place_of_what_deploy_says() {
        let defaults = flags_of("holdfast run --log-format json --stop-timeout 25s".split(' '));
        let all = |line: &str| read(line).all(&defaults).join(" ");
        assert_eq!(all("--exclusive"), "run --log-format json --stop-timeout 25s --exclusive");
        assert_eq!(all("--log-format=pretty"), "run --stop-timeout 25s --log-format=pretty");
        assert_eq!(
            all("--stop-timeout 1m -- /x --stop-timeout 3"),
            "run --log-format json --stop-timeout 1m -- /x --stop-timeout 3"
        );
    }

    #[test]
    fn a_flag_is_taken_out_with_its_value() {
        for line in ["--stop-timeout 1m --exclusive", "--stop-timeout=1m --exclusive"] {
            assert_eq!(read(line).without("--stop-timeout").all(&[]).join(" "), "run --exclusive");
        }
    }

    #[test]
    fn the_stop_timeout_is_the_one_that_would_be_in_force() {
        let stop = |line: &str| {
            let words = read(line);
            words.stop_timeout(&words.all(&[])).unwrap().as_secs()
        };
        assert_eq!(stop("--drain-timeout 2m"), 120);
        assert_eq!(stop("--drain-timeout 2m --stop-timeout 5s"), 5);
    }
}
