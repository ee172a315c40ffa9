//! Where the stderr of a front goes, and how that is read.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Who has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Whereabouts {
    File(PathBuf),
    /// systemd's journal, by the unit's name.
    Journal {
        unit: String,
        manager: Manager,
    },
    /// The engine that runs the container of which the front is the first process.
    Engine,
    Terminal(PathBuf),
    Nowhere,
    /// A pipe or socket to whoever started the front.
    Starter {
        pid: u32,
    },
    /// This user may not look.
    Unknown {
        pid: u32,
    },
}

/// Which systemd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manager {
    System,
    User,
}

impl Whereabouts {
    /// Those of the process with this pid.
    pub(super) fn of_stderr(pid: u32) -> Self {
        let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        match fs::read_link(format!("/proc/{pid}/fd/2")) {
            Ok(target) => Self::of(pid, &target, &cgroup),
            Err(_) => Self::Unknown { pid },
        }
    }

    fn of(pid: u32, target: &Path, cgroup: &str) -> Self {
        if target == Path::new("/dev/null") {
            return Self::Nowhere;
        }
        if target.starts_with("/dev/pts") || target.starts_with("/dev/tty") {
            return Self::Terminal(target.to_owned());
        }
        if target.is_absolute() {
            return Self::File(target.to_owned());
        }
        if pid == 1 {
            return Self::Engine;
        }
        let socket = target.to_string_lossy().starts_with("socket:");
        match unit(cgroup).filter(|_| socket) {
            Some((unit, manager)) => Self::Journal { unit, manager },
            None => Self::Starter { pid },
        }
    }
}

/// The service that a process belongs to, by its control group (cgroups(7)).
fn unit(cgroup: &str) -> Option<(String, Manager)> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    let unit = path.rsplit('/').find(|part| part.ends_with(".service"))?;
    let manager = if path.contains("/user@") { Manager::User } else { Manager::System };
    Some((unit.to_owned(), manager))
}

impl fmt::Display for Whereabouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the front and its workers write to its stderr, ")?;
        match self {
            Self::File(path) => write!(f, "which is {}", path.display()),
            Self::Journal { unit, manager: Manager::System } => {
                write!(f, "which the journal keeps: journalctl -u {unit} -f")
            }
            Self::Journal { unit, manager: Manager::User } => {
                write!(f, "which the journal keeps: journalctl --user -u {unit} -f")
            }
            Self::Engine => f.write_str(
                "which the engine of this container keeps: docker logs, podman logs, kubectl logs -f",
            ),
            Self::Terminal(path) => write!(f, "which is the terminal {}", path.display()),
            Self::Nowhere => f.write_str(
                "which is thrown away (/dev/null): start it with --log-file, or with its stderr somewhere else",
            ),
            Self::Starter { pid } => write!(
                f,
                "which is read by whoever started it (pid {pid}); with --log-file its workers write to a file"
            ),
            Self::Unknown { pid } => {
                write!(f, "and this user may not see where that goes: ls -l /proc/{pid}/fd/2")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(pid: u32, target: &str, cgroup: &str) -> String {
        Whereabouts::of(pid, Path::new(target), cgroup).to_string()
    }

    #[test]
    fn who_has_it_is_named_with_the_command_that_shows_it() {
        let system = "0::/system.slice/holdfast.service\n";
        let user = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/gateway.service\n";
        for (pid, target, cgroup, says) in [
            (7, "socket:[1]", system, "journalctl -u holdfast.service -f"),
            (7, "socket:[1]", user, "journalctl --user -u gateway.service -f"),
            (1, "pipe:[1]", "0::/\n", "docker logs"),
            (7, "pipe:[1]", system, "whoever started it (pid 7)"),
            (7, "/dev/pts/3", "", "the terminal /dev/pts/3"),
            (7, "/dev/null", "", "--log-file"),
        ] {
            let told = told(pid, target, cgroup);
            assert!(told.contains(says), "{told}");
        }
    }

    #[test]
    fn a_file_is_a_file_and_a_process_that_is_gone_is_unknown() {
        let file = Whereabouts::of(7, Path::new("/var/log/x"), "");
        assert_eq!(file, Whereabouts::File("/var/log/x".into()));
        assert_eq!(Whereabouts::of_stderr(u32::MAX), Whereabouts::Unknown { pid: u32::MAX });
    }
}
