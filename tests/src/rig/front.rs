//! One front of one test, and everything below it.
//!
//! **Invariants**
//! - It has a directory, a control socket, ports and an environment of its own.
//! - When it is dropped, every process it started or adopted is ended by pid, and if the test failed
//!   the log is shown.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use handoff::Address;
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::attached::{ATTACH_SOCKET, Attached};
use super::cli::{self, Outcome};
use super::family::Family;
use super::log::Log;
use super::patience::{eventually, soon};
use super::process::Process;
use super::setup::{Expected, Listen, Program, Setup};
use super::status::{Generation, Status};
use super::takeover::{RunningTakeover, Takeover};

/// The token of every front the rig starts.
pub const TOKEN: &str = "the-token-of-the-suite-0123456789";

/// A running front.
#[derive(Debug)]
pub struct Front {
    // Dropped in this order: a child that is killed leaves its family to nobody.
    family: Family,
    child: Child,
    addresses: Vec<Address>,
    control: PathBuf,
    log: Log,
    directory: TempDir,
}

impl Front {
    /// A front on a free port, with the bundled worker serving.
    pub async fn start() -> Self {
        Self::with(|setup| setup).await
    }

    /// A front that differs from [`Self::start`]'s in what `choose` says.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn with(choose: impl FnOnce(Setup) -> Setup) -> Self {
        let setup = choose(Setup::default());
        let directory = tempfile::tempdir().expect("a directory can be made");
        let log = Log::in_directory(directory.path());
        let expected = setup.expected;
        let (command, control) = prepare(setup, directory.path());
        let child = spawned(command, &log);
        let family = Family::of(&child);
        let mut front = Self { family, child, addresses: Vec::new(), control, log, directory };
        front.await_start(expected).await;
        front
    }

    /// A front that refuses to start, and how it ended.
    pub async fn refused(choose: impl FnOnce(Setup) -> Setup) -> Outcome {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let log = Log::in_directory(directory.path());
        let (command, _) = prepare(choose(Setup::default()), directory.path());
        let mut child = spawned(command, &log);
        // Should it start all the same, nobody stays.
        let _family = Family::of(&child);
        let status = soon("the front refuses to start", child.wait()).await;
        let code = status.expect("a child can be waited for").code().unwrap_or(-1);
        Outcome { code, output: String::new(), errors: log.text() }
    }

    /// Kills it, and nobody else.
    pub async fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.exit_code().await;
    }

    /// Starts another one in the place of this one, which has ended: in its directory, by its control socket.
    pub async fn start_again(&mut self, choose: impl FnOnce(Setup) -> Setup) {
        let setup = choose(Setup::default());
        let expected = setup.expected;
        let (command, control) = prepare(setup, self.directory.path());
        self.child = spawned(command, &self.log);
        self.family.go_on_under(&self.child);
        self.control = control;
        self.await_start(expected).await;
    }

    /// As [`Self::start_again`], of one that ends before it serves; its exit code.
    pub async fn start_again_in_vain(&mut self, choose: impl FnOnce(Setup) -> Setup) -> i32 {
        let (command, _) = prepare(choose(Setup::default()), self.directory.path());
        self.child = spawned(command, &self.log);
        self.family.go_on_under(&self.child);
        self.exit_code().await
    }

    async fn await_start(&mut self, expected: Expected) {
        let status = eventually("the front comes up", async || {
            if let Some(status) = self.child.try_wait().expect("a child can be asked") {
                panic!("the front ended instead of starting: {status}");
            }
            let status = self.try_status().await?;
            (expected == Expected::Bound || status.serving().is_some()).then_some(status)
        })
        .await;
        let read = |word: &str| word.parse().expect("status lists addresses");
        self.addresses = status.listeners.iter().map(|l| read(&l.address)).collect();
    }

    /// The first address it listens on.
    #[must_use]
    pub fn address(&self) -> Address {
        self.addresses[0].clone()
    }

    /// One entry per listening socket.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The first TCP address it listens on.
    ///
    /// # Panics
    /// When it listens on none.
    #[must_use]
    pub fn tcp(&self) -> SocketAddr {
        let tcp = |address: &Address| match address {
            Address::Tcp(address) => Some(*address),
            Address::Unix(_) => None,
        };
        self.addresses.iter().find_map(tcp).expect("it listens on a TCP address")
    }

    /// Its own directory, for the test's files too.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Its control socket.
    #[must_use]
    pub fn control(&self) -> &Path {
        &self.control
    }

    /// What it and its workers have written.
    #[must_use]
    pub const fn log(&self) -> &Log {
        &self.log
    }

    /// The front's own process.
    #[must_use]
    pub const fn process(&self) -> Process {
        self.family.head()
    }

    /// Sends the front a signal.
    pub fn signal(&self, signal: Signal) {
        self.family.signal(signal);
    }

    /// How the front is.
    ///
    /// # Panics
    /// When it does not say.
    pub async fn status(&self) -> Status {
        let outcome = self.run(&["status", "--json"]).await;
        outcome.assert_code(0);
        self.read_status(&outcome.output)
    }

    /// How the front is, if it says.
    pub async fn try_status(&self) -> Option<Status> {
        let outcome = self.run(&["status", "--json"]).await;
        (outcome.code == 0).then(|| self.read_status(&outcome.output))
    }

    fn read_status(&self, json: &str) -> Status {
        let status = Status::read(json);
        self.family.remember(status.generations.iter().filter_map(Generation::worker));
        status
    }

    /// Ends with the first value `look` finds in the status.
    pub async fn status_with<T>(
        &self,
        what: &str,
        mut look: impl FnMut(&Status) -> Option<T>,
    ) -> T {
        eventually(what, async || look(&self.status().await)).await
    }

    /// Ends once this holds of the status, with that status.
    pub async fn until(&self, what: &str, mut holds: impl FnMut(&Status) -> bool) -> Status {
        self.status_with(what, |status| holds(status).then(|| status.clone())).await
    }

    /// The generation that serves, as soon as exactly one does.
    pub async fn serving(&self) -> Generation {
        self.status_with("a generation serves", |status| status.serving().cloned()).await
    }

    /// The processes of its generations.
    pub async fn workers(&self) -> Vec<Process> {
        self.status().await.generations.iter().filter_map(Generation::worker).collect()
    }

    /// Runs a subcommand against this front.
    pub async fn run(&self, words: &[&str]) -> Outcome {
        cli::run_to_end(self.command(words)).await
    }

    /// A subcommand against this front, to be run.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = cli::command(cli::environment(self.directory.path()));
        command.env("HOLDFAST_CONTROL", &self.control);
        command.args(words);
        command
    }

    /// A takeover by the program of the incumbent.
    pub async fn takeover(&self) -> Takeover {
        self.begin_takeover().end().await
    }

    /// A takeover by another program.
    pub async fn takeover_to(&self, program: &Program) -> Takeover {
        self.begin_takeover_to(program).end().await
    }

    /// A takeover with further flags.
    pub async fn takeover_with(&self, flags: &[&str]) -> Takeover {
        self.begin_takeover_with(flags).end().await
    }

    /// As [`Self::takeover`], without waiting for its end.
    #[must_use]
    pub fn begin_takeover(&self) -> RunningTakeover {
        self.begin_takeover_with(&[])
    }

    /// As [`Self::takeover_with`], without waiting for its end.
    #[must_use]
    pub fn begin_takeover_with(&self, flags: &[&str]) -> RunningTakeover {
        let mut command = self.command(&["takeover", "--json"]);
        command.args(flags);
        RunningTakeover::start(command)
    }

    /// As [`Self::takeover_to`], without waiting for its end.
    #[must_use]
    pub fn begin_takeover_to(&self, program: &Program) -> RunningTakeover {
        let mut command = self.command(&["takeover", "--json", "--"]);
        command.args(program.words());
        RunningTakeover::start(command)
    }

    /// Starts a worker that attaches itself to this front's socket at [`Setup::attachable`], with these further words.
    #[must_use]
    pub fn attach(&self, wrapper: &[&str], words: &[&str]) -> Attached {
        let program = super::binaries::holdfast_worker();
        self.attach_by(wrapper, &program, &[&["--attach", ATTACH_SOCKET], words].concat())
    }

    /// As [`Self::attach`], of another program, which is told everything by these words.
    #[must_use]
    pub fn attach_by(&self, wrapper: &[&str], program: &Path, words: &[&str]) -> Attached {
        Attached::start(self.directory.path(), &self.log, (wrapper, program, words))
    }

    /// The front's exit code, as soon as it has exited; -1 when a signal ended it.
    pub async fn exit_code(&mut self) -> i32 {
        let status = soon("the front exits", self.child.wait()).await;
        status.expect("a child can be waited for").code().unwrap_or(-1)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.log.print();
        }
    }
}

fn spawned(mut command: Command, log: &Log) -> Child {
    let writer = || log.writer().expect("the log can be written");
    command.stdout(writer()).stderr(writer());
    command.spawn().expect("holdfast can be started")
}

/// `holdfast run` as `setup` wants it, and where its control socket will be.
fn prepare(setup: Setup, directory: &Path) -> (Command, PathBuf) {
    let environment = cli::environment(directory);
    let mut command = match setup.wrapper.split_first() {
        None => cli::command(environment),
        Some((first, rest)) => {
            let mut command = Command::new(first);
            cli::bare(&mut command);
            command.args(rest).arg(super::binaries::holdfast()).envs(environment);
            command
        }
    };
    command.env("HOLDFAST_LOG_FORMAT", "json");
    command.envs(setup.environment);
    command.current_dir(setup.directory.as_deref().unwrap_or(directory));
    command.stdin(setup.stdin.map_or_else(Stdio::null, Stdio::from));
    let control = setup.control.unwrap_or_else(|| directory.join("control.sock"));
    command.arg("run").arg("--control").arg(&control);
    let listen = match setup.listen {
        Listen::Anywhere => vec!["127.0.0.1:0".to_owned()],
        Listen::On(addresses) => addresses,
        Listen::Untold => Vec::new(),
    };
    for address in listen {
        command.arg("--listen").arg(address);
    }
    for (flag, value) in setup.flags {
        command.arg(flag).arg(value);
    }
    command.args(setup.switches);
    if let Some(program) = &setup.program {
        command.arg("--").args(program.words());
    }
    (command, control)
}
