//! `holdfast completions`: what a shell has to know to complete our words.

use std::process::ExitCode;

use clap::{Args, Command, ValueEnum};

use super::{Failed, help, print};

/// Print the completions of a shell
///
/// bash: into ~/.local/share/bash-completion/completions/holdfast. zsh: into a directory of $fpath, as _holdfast. fish:
/// into ~/.config/fish/completions/holdfast.fish.
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// For which shell
    shell: Shell,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Completions {
    pub(super) fn perform(&self) -> Result<ExitCode, Failed> {
        print(&self.script());
        Ok(ExitCode::SUCCESS)
    }

    fn script(&self) -> Vec<u8> {
        use clap_complete::{generate, shells};
        let (mut command, mut script) = (shown(help::command()), Vec::new());
        match self.shell {
            Shell::Bash => generate(shells::Bash, &mut command, "holdfast", &mut script),
            Shell::Zsh => generate(shells::Zsh, &mut command, "holdfast", &mut script),
            Shell::Fish => generate(shells::Fish, &mut command, "holdfast", &mut script),
        }
        script
    }
}

/// The command line without what only holdfast says to itself.
pub(super) fn shown(command: Command) -> Command {
    let subcommands: Vec<_> =
        command.get_subcommands().filter(|command| !command.is_hide_set()).cloned().collect();
    let about = command.get_about().cloned().unwrap_or_default();
    let after = command.get_after_help().cloned().unwrap_or_default();
    Command::new("holdfast")
        .version(crate::VERSION)
        .about(about)
        .after_help(after)
        .disable_help_subcommand(true)
        .propagate_version(true)
        .args(command.get_arguments().cloned().collect::<Vec<_>>())
        .subcommands(subcommands)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holdfast_says_to_itself_is_not_completed() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = String::from_utf8(Completions { shell }.script()).unwrap();
            assert!(script.contains("takeover"), "{shell:?}");
            for hidden in ["adapter-stage", "worker-stage", "reexec-check"] {
                assert!(!script.contains(hidden), "{shell:?}: {hidden}");
            }
        }
    }
}
