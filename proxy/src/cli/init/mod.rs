//! `holdfast init`: the files by which a service manager, an engine or a cluster runs the front.
//!
//! What is written is what `deploy/` has, but for what was said: those files are in this binary, and the flags take the place
//! of theirs.
//!
//! **Invariants**
//! - Only words that `run` understands are written.
//! - Times fit together: who stops the front waits longer than `--stop-timeout`.
//! - Nothing is written over that is there, unless asked for.

mod compose;
mod kubernetes;
mod systemd;
mod words;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use self::words::Words;
use super::{Failed, configuration, say};

/// Write the files that have systemd, an engine or Kubernetes run the front
///
/// With the flags of `run` that follow `--`, which are checked, and what fits them. Variables are not looked at: what is not
/// said here is not written.
#[derive(Debug, Args)]
pub(super) struct Init {
    /// What runs it
    target: Target,
    /// Where the files go; made if need be
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// systemd: a unit of the system, with a user of its own, instead of one of yours
    #[arg(long)]
    system: bool,
    /// kubernetes: pods of a server that keeps its state elsewhere, instead of the one that writes
    #[arg(long)]
    shared_nothing: bool,
    /// Write over files that are there
    #[arg(long)]
    force: bool,
    /// Flags of `holdfast run`, and after another -- the program
    #[arg(last = true, value_name = "FLAGS OF RUN")]
    run: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Target {
    Systemd,
    Compose,
    Kubernetes,
}

/// Files, and what to type to have them used.
#[derive(Debug)]
struct Made {
    /// By their path below the directory.
    files: Vec<(&'static str, String)>,
    next: [String; 2],
    /// What stands in the way on this machine.
    note: Option<String>,
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
enum InitFailed {
    #[error("{} is there already, and differs; write over it with --force, or elsewhere with --out", path.display())]
    There { path: PathBuf },
    #[error("could not write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("could not tell where this binary is")]
    Own { source: io::Error },
}

impl Init {
    pub(super) fn perform(&self) -> Result<ExitCode, Failed> {
        let made = self.made()?;
        write(&made.files, &self.out, self.force).map_err(configuration)?;
        for (name, _) in &made.files {
            say(&format!("wrote {}", self.out.join(name).display()));
        }
        if let Some(note) = &made.note {
            say(&format!("\nNote: {note}"));
        }
        say("\nNext:");
        made.next.iter().for_each(|command| say(&format!("  {command}")));
        Ok(ExitCode::SUCCESS)
    }

    fn made(&self) -> Result<Made, Failed> {
        for (given, flag, of) in [
            (self.system, "--system", Target::Systemd),
            (self.shared_nothing, "--shared-nothing", Target::Kubernetes),
        ] {
            if given && self.target != of {
                let of = format!("{of:?}").to_lowercase();
                let meant = format!("{flag} is for {of}: holdfast init {of} {flag}");
                return Err(Failed::Usage { meant });
            }
        }
        let words = Words::read(&self.run)?;
        match self.target {
            Target::Systemd => {
                let own = std::env::current_exe()
                    .map_err(|source| configuration(InitFailed::Own { source }))?;
                systemd::made(&words, &own, &self.out, self.system)
            }
            Target::Compose => compose::made(&words, &self.out),
            Target::Kubernetes => kubernetes::made(&words, &self.out, self.shared_nothing),
        }
    }
}

/// Puts `new` in the place of `old`, which these files have.
fn replaced(text: &str, old: &str, new: &str) -> String {
    assert!(text.contains(old), "deploy/ has {old:?}, as the tests see");
    text.replacen(old, new, 1)
}

/// Writes all of them, or none.
fn write(
    files: &[(&'static str, String)],
    directory: &Path,
    force: bool,
) -> Result<(), InitFailed> {
    for (name, text) in files {
        let path = directory.join(name);
        let other = std::fs::read(&path).is_ok_and(|there| there != text.as_bytes());
        if other && !force {
            return Err(InitFailed::There { path });
        }
    }
    for (name, text) in files {
        let path = directory.join(name);
        let failed = |source| InitFailed::Write { path: path.clone(), source };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        std::fs::write(&path, text).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployed(path: &str) -> String {
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
        std::fs::read_to_string(deploy.join(path)).unwrap()
    }

    fn words(line: &str) -> Words {
        let words: Vec<_> =
            line.split(' ').filter(|word| !word.is_empty()).map(Into::into).collect();
        Words::read(&words).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    fn units(line: &str, system: bool) -> Result<Made, Failed> {
        let own = Path::new("/usr/local/bin/holdfast");
        systemd::made(&words(line), own, Path::new("."), system)
    }

    fn text(made: Made, name: &str) -> String {
        let found = made.files.into_iter().find(|(file, _)| *file == name);
        found.unwrap_or_else(|| panic!("no {name}")).1
    }

    #[test]
    fn without_flags_the_units_and_the_manifests_are_those_of_deploy() {
        assert_eq!(
            text(units("", false).unwrap(), "holdfast.service"),
            deployed("systemd/holdfast.service")
        );
        for (name, text) in units("", true).unwrap().files {
            assert_eq!(text, deployed(&format!("systemd/system/{name}")), "{name}");
        }
        let one = kubernetes::made(&words(""), Path::new("."), false).unwrap();
        let program = "-- /usr/local/bin/your-server";
        let shared = kubernetes::made(&words(program), Path::new("."), true).unwrap();
        for (name, text) in one.files.into_iter().chain(shared.files) {
            assert_eq!(text, deployed(&format!("kubernetes/{name}")), "{name}");
        }
    }

    #[test]
    fn without_flags_the_compose_file_is_that_of_deploy_but_for_how_images_are_built() {
        let made = text(compose::made(&words(""), Path::new(".")).unwrap(), "compose.yaml");
        let deployed = deployed("compose.yaml");
        let rest: Vec<_> =
            deployed.lines().filter(|line| !made.lines().any(|l| l == *line)).collect();
        for line in &rest {
            let of_builds = ["build", "context:", "dockerfile:", "target:", "args:", "VERSION:"];
            let comment = line.trim_start().starts_with('#');
            assert!(comment || of_builds.iter().any(|word| line.contains(word)), "{line}");
        }
        assert!(rest.len() >= 8 && !made.contains("build:"), "{rest:?}");
        let comment = |line: &str| line.trim_start().starts_with('#');
        let is_new = |line: &&str| !deployed.lines().any(|l| l == *line) && !comment(line);
        assert_eq!(made.lines().find(is_new), None);
    }

    #[test]
    fn who_stops_the_front_waits_longer_than_it_may_take() {
        let unit = text(units("--stop-timeout 2m", false).unwrap(), "holdfast.service");
        assert!(unit.contains("holdfast run --log-format json --stop-timeout 2m\n"), "{unit}");
        assert!(unit.contains("TimeoutStopSec=125s\n"), "{unit}");
        let compose = compose::made(&words("--stop-timeout=20s"), Path::new(".")).unwrap();
        let compose = text(compose, "compose.yaml");
        assert!(compose.contains("HOLDFAST_STOP_TIMEOUT: 20s\n"), "{compose}");
        assert!(compose.contains("stop_grace_period: 22s\n"), "{compose}");
        let pods = kubernetes::made(&words("--stop-timeout 60s"), Path::new("."), false).unwrap();
        let pods = text(pods, "one-writer/statefulset.yaml");
        assert!(pods.contains("terminationGracePeriodSeconds: 75\n"), "{pods}");
    }

    #[test]
    fn a_program_goes_with_the_path_it_is_found_by() {
        let unit = text(units("-- node server.js", false).unwrap(), "holdfast.service");
        assert!(unit.contains(" -- node server.js\n"), "{unit}");
        let path = std::env::var("PATH").unwrap();
        assert!(unit.contains(&format!("Environment=PATH={path}\n")), "{unit}");
        let unit = text(units("-- ./server", false).unwrap(), "holdfast.service");
        let absolute = std::path::absolute("./server").unwrap();
        assert!(unit.contains(&format!(" -- {}\n", absolute.display())), "{unit}");
        assert!(!unit.contains("PATH="), "{unit}");
    }

    #[test]
    fn a_unit_of_the_system_that_could_not_reach_the_binary_says_so() {
        let home = Path::new("/home/somebody/target/release/holdfast");
        let made = |system| systemd::made(&words(""), home, Path::new("."), system).unwrap();
        assert!(made(true).note.is_some_and(|note| note.contains("/usr/local/bin")));
        assert_eq!(made(false).note, None);
        assert_eq!(units("", true).unwrap().note, None);
    }

    #[test]
    fn openclaw_is_given_the_time_that_deploy_gives_it() {
        let line = "--profile openclaw -- openclaw gateway run";
        let unit = text(units(line, false).unwrap(), "holdfast.service");
        let deployed = deployed("systemd/holdfast.service.d/openclaw.conf");
        let start = |text: &str| {
            let line = text.lines().rfind(|line| line.starts_with("ExecStart=/")).unwrap();
            let mut words: Vec<_> = line.split(' ').map(str::to_owned).collect();
            words.sort();
            words
        };
        assert_eq!(start(&unit), start(&deployed));
    }

    #[test]
    fn words_are_quoted_as_their_reader_wants_it() {
        let made = |target: fn(&Words) -> Made| {
            let words = Words::read(&["--".into(), "/x".into(), "a b$c%d\"".into()]).unwrap();
            target(&words).files.remove(0).1
        };
        let unit = made(|words| {
            let own = Path::new("/usr/local/bin/holdfast");
            systemd::made(words, own, Path::new("."), false).unwrap()
        });
        assert!(unit.contains(r#" -- /x "a b$$c%%d\"""#), "{unit}");
        let compose = made(|words| compose::made(words, Path::new(".")).unwrap());
        assert!(compose.contains(r#"command: [run, --, /x, "a b$$c%d\""]"#), "{compose}");
    }

    #[test]
    fn addresses_in_a_container_are_its_ports_and_one_that_nobody_reaches_is_refused() {
        let compose = compose::made(&words("--listen 0.0.0.0:8080"), Path::new(".")).unwrap();
        let compose = text(compose, "compose.yaml");
        assert!(compose.contains("- \"127.0.0.1:8080:8080\"\n"), "{compose}");
        assert!(!compose.contains("18789"), "{compose}");
        let pods =
            || kubernetes::made(&words("--listen 0.0.0.0:8080"), Path::new("."), false).unwrap();
        let pod = text(pods(), "one-writer/statefulset.yaml");
        assert!(pod.contains("containerPort: 8080\n"), "{pod}");
        let pods = pods();
        let service = text(pods, "common/service.yaml");
        assert!(service.contains("port: 8080\n"), "{service}");
        let local = words("--listen 127.0.0.1:8080");
        let refused = compose::made(&local, Path::new(".")).unwrap_err();
        assert!(refused.to_string().contains("0.0.0.0:8080"), "{refused}");
        assert_eq!(refused.exit_code(), 64);
        assert!(kubernetes::made(&local, Path::new("."), false).is_err());
    }

    #[test]
    fn words_that_run_would_refuse_are_not_written() {
        for line in [&["--explode"][..], &["--soak", "soon"], &["--exclusive", "--standby"]] {
            let words: Vec<_> = line.iter().map(|word| (*word).to_owned()).collect();
            let refused = Words::read(&words).unwrap_err();
            assert_eq!(refused.exit_code(), 64, "{line:?}: {refused}");
        }
    }

    #[test]
    fn what_is_there_is_written_over_only_if_asked_for_and_all_or_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("b"), "mine").unwrap();
        let files = [("a", "1".to_owned()), ("b", "2".to_owned())];
        let refused = write(&files, directory.path(), false).unwrap_err();
        assert!(refused.to_string().contains("--force"), "{refused}");
        assert!(!at("a").exists());
        write(&files, directory.path(), true).unwrap();
        assert_eq!(std::fs::read_to_string(at("b")).unwrap(), "2");
        // The same again is no harm.
        write(&files, directory.path(), false).unwrap();
    }
}
