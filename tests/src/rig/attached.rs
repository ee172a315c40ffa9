//! A worker that the test starts itself, and that attaches itself to a front.

use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::Signal;
use tokio::process::{Child, Command};

use super::cli;
use super::log::Log;
use super::patience::{eventually, soon};
use super::process::Process;

/// The attach socket, in the directory of the front.
pub(super) const ATTACH_SOCKET: &str = "attach.sock";

/// What starts a program in a network, processes and mounts of its own, as a container is; what lies in the front's
/// directory is shared.
pub const ELSEWHERE: [&str; 6] =
    ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"];

/// The same with a loopback device that is up, as it is in a container: for programs that listen there.
pub const CONTAINER: [&str; 10] = [
    "unshare",
    "--net",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
    "sh",
    "-c",
    "ip link set lo up && exec \"$@\"",
    "sh",
];

/// Whether [`ELSEWHERE`] works here.
pub async fn elsewhere_is_there() -> bool {
    starts_programs(&ELSEWHERE).await
}

/// Whether such a wrapper works here.
pub async fn starts_programs(wrapper: &[&str]) -> bool {
    let [first, rest @ ..] = wrapper else { return true };
    let there = Command::new(first).args(rest).arg("true").status().await;
    there.is_ok_and(|status| status.success())
}

/// Such a worker. Dropped, it is ended with everything below it.
#[derive(Debug)]
pub struct Attached {
    child: Child,
    outer: Process,
}

impl Attached {
    pub(super) fn start(
        directory: &Path,
        log: &Log,
        (wrapper, program, words): (&[&str], &Path, &[&str]),
    ) -> Self {
        let mut command = match wrapper.split_first() {
            None => Command::new(program),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
        };
        cli::bare(&mut command);
        let writer = || log.writer().expect("the log can be written");
        command.args(words).envs(cli::environment(directory)).current_dir(directory);
        command.stdin(Stdio::null()).stdout(writer()).stderr(writer());
        let child = command.spawn().expect("a worker can be started");
        let pid =
            child.id().and_then(|pid| i32::try_from(pid).ok()).expect("it was not waited for");
        let outer = Process::find(pid).expect("a child that was not waited for has an entry");
        Self { child, outer }
    }

    /// Its exit code; -1 when a signal ended it.
    pub async fn exit_code(&mut self) -> i32 {
        let status = soon("the worker exits", self.child.wait()).await;
        status.expect("a child can be waited for").code().unwrap_or(-1)
    }

    /// The worker itself: the innermost process of the wrapper.
    pub async fn process(&self) -> Process {
        eventually("the worker runs", async || {
            let mut all = std::iter::once(self.outer).chain(self.outer.descendants());
            let is_worker = |p: &Process| {
                let path = p.executable();
                path.is_some_and(|path| !path.ends_with("unshare"))
            };
            all.find(is_worker)
        })
        .await
    }

    /// Sends the worker a signal.
    pub async fn signal(&self, signal: Signal) {
        self.process().await.signal(signal);
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        for below in self.outer.descendants() {
            below.signal(Signal::SIGKILL);
        }
        self.outer.signal(Signal::SIGKILL);
    }
}
