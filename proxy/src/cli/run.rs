//! `holdfast run`: becomes the front.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use handoff::limits;
use handoff::socket::Address;
use tracing::info;

use super::attach::AttachFlags;
use super::check::{Asked, Times, Worker};
use super::{Control, Failed, adapter, admin, configuration, duration};
use crate::adapter::flags::{Flags, Kind, ReadyBy};
use crate::adapter::profile::Profile;
use crate::adapter::relay;
use crate::admin::flags::AdminFlags;
use crate::admin::keeper::Keeper;
use crate::control::server::ControlLock;
use crate::event::{Rules, TakeoverOrder, WithStandby};
use crate::front::{Front, Hangup, Settings};
use crate::listener::{Files, Kept, Listeners, Wanted};
use crate::log::Log;
use crate::program::Program;
use crate::rescue::RescueDirectory;
use crate::rights::{NewPrivileges, Rights, RightsRefused};
use crate::spawn::Terms;
use crate::systemd;
use crate::systemd::inherited::{Inherited, Names};

/// Hold the port, and serve it with a worker.
///
/// Every flag can be set as an environment variable. Signals: USR1 replaces the worker; HUP too,
/// except on a terminal, where it stops the front; USR2 renews the front itself; TERM and INT drain
/// and stop it, a second one at once.
#[derive(Debug, Args)]
pub(super) struct Run {
    // No doc comment: rustdoc would take the brackets of an address for a link.
    #[arg(
        long,
        value_name = "ADDR",
        env = "HOLDFAST_LISTEN",
        value_delimiter = ',',
        help = "Where to listen: 127.0.0.1:18789, [::]:80, unix:/run/x.sock. May be repeated; the \
                variable separates by commas [default: 127.0.0.1:18789 and [::1]:18789]"
    )]
    listen: Vec<Address>,
    /// Listening sockets per TCP address, as one SO_REUSEPORT group: for workers that accept on
    /// several threads
    #[arg(long, value_name = "N", env = "HOLDFAST_SHARDS", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=253))]
    shards: u32,
    /// The mode of a unix: socket's file, in octal
    #[arg(long, value_name = "MODE", env = "HOLDFAST_UNIX_MODE", default_value = "0660")]
    #[arg(value_parser = mode)]
    unix_mode: u32,
    /// How long a new worker may take to be ready. One that takes longer is killed, and the takeover rolls
    /// back
    #[arg(long, value_name = "TIME", env = "HOLDFAST_READY_TIMEOUT", default_value = "60s")]
    #[arg(value_parser = duration)]
    ready_timeout: Duration,
    /// How long the old worker may take to finish what it has open after a takeover. What is left
    /// then is cut, and counted
    #[arg(long, value_name = "TIME", env = "HOLDFAST_DRAIN_TIMEOUT", default_value = "30s")]
    #[arg(value_parser = duration)]
    drain_timeout: Duration,
    /// How long stopping may take. What is left then is killed [default: the drain timeout]
    #[arg(long, value_name = "TIME", env = "HOLDFAST_STOP_TIMEOUT", value_parser = duration)]
    stop_timeout: Option<Duration>,
    /// How long a new worker has to serve well before the takeover is final. Failing within it
    /// rolls back
    #[arg(long, value_name = "TIME", env = "HOLDFAST_SOAK", default_value = "1s")]
    #[arg(value_parser = duration)]
    soak: Duration,
    /// Which comes first in a takeover. With stop-first nobody accepts between the two, and clients
    /// wait in the kernel's queue
    #[arg(
        long,
        value_name = "ORDER",
        env = "HOLDFAST_TAKEOVER_ORDER",
        default_value = "start-first"
    )]
    takeover_order: TakeoverOrder,
    /// The program allows one instance of itself: the same as --takeover-order stop-first
    #[arg(long, env = "HOLDFAST_EXCLUSIVE", conflicts_with = "takeover_order")]
    exclusive: bool,
    /// Keep a second worker ready, which serves at once when the one that serves crashes. It costs the memory of a
    /// worker, as `holdfast status` shows
    #[arg(long, env = "HOLDFAST_STANDBY")]
    standby: bool,
    /// How long clients may wait in the kernel's queue while nobody accepts, with stop-first. Longer ones
    /// are accepted and closed, and counted
    #[arg(long, value_name = "TIME", env = "HOLDFAST_HOLD_TIMEOUT", default_value = "60s")]
    #[arg(value_parser = duration)]
    hold_timeout: Duration,
    /// The most connections a worker may hold open; more wait in the kernel's queue
    #[arg(long, value_name = "N", env = "HOLDFAST_MAX_CONNECTIONS")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    max_connections: Option<u64>,
    #[command(flatten)]
    log: Log,
    /// Where workers' output goes instead of the front's own stdout and stderr; opened anew at each
    /// takeover
    #[arg(long, value_name = "PATH", env = "HOLDFAST_LOG_FILE")]
    log_file: Option<PathBuf>,
    /// Run a program that knows nothing of Holdfast, by this adapter
    #[arg(long, value_name = "ADAPTER", env = "HOLDFAST_ADAPTER")]
    adapter: Option<Kind>,
    #[command(flatten)]
    flags: Flags,
    /// Run workers as this user, NAME or NAME:GROUP, by name or number; only for a front that root starts
    #[arg(long, value_name = "NAME[:GROUP]", env = "HOLDFAST_USER")]
    user: Option<String>,
    /// Run workers as this group
    #[arg(long, value_name = "GROUP", env = "HOLDFAST_GROUP")]
    group: Option<String>,
    /// Have workers and what they start gain no rights by set-user-ID bits and the like
    #[arg(long, env = "HOLDFAST_NO_NEW_PRIVS")]
    no_new_privs: bool,
    #[command(flatten)]
    admin: AdminFlags,
    #[command(flatten)]
    attach: AttachFlags,
    #[arg(skip)]
    inherited: Inherited,
    /// The worker's program and its arguments [default: the bundled holdfast-worker; none with --attach]
    #[arg(last = true, value_name = "PROGRAM ARGS")]
    program: Vec<OsString>,
}

/// A file mode in octal.
pub(super) fn mode(word: &str) -> Result<u32, String> {
    u32::from_str_radix(word, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| format!("{word:?} is no mode; write it in octal, as 0660"))
}

impl Run {
    /// Takes the listening sockets that the caller gave, before the runtime has descriptors of its own.
    pub(super) fn inherit(&mut self) -> Result<(), Failed> {
        self.inherited = Inherited::take().map_err(configuration)?;
        Ok(())
    }

    pub(super) async fn perform(mut self, control: &Control) -> Result<ExitCode, Failed> {
        self.check_flags()?;
        self.log.start();
        // What the caller left open is not for workers.
        handoff::fd_passing::close_on_exec_from(3)
            .map_err(|source| Failed::Runtime { doing: "could not set up descriptors", source })?;
        // A wrong command line is told before anything is opened; the adapter's words are not known yet.
        self.program()?;
        self.check_addresses(&self.listen)?;
        // A state directory that is missing is made for the workers before the front makes one for its control socket.
        let rights = self.rights()?;
        let limits = limits::raise_descriptor_limit().map_err(|source| Failed::Runtime {
            doing: "could not raise the limit of descriptors",
            source,
        })?;
        let path = control.path()?;
        let terms = Terms { log_file: self.log_file.clone(), rights, limits };
        let lock = ControlLock::take(&path).map_err(configuration)?;
        let rescue = RescueDirectory::beside(&path, &terms.rights);
        rescue.prepare().map_err(configuration)?;
        let mut survivors = rescue.search().await.map_err(configuration)?;
        let mut attachments = self.attach.open().map_err(configuration)?;
        if let Some(attachments) = &mut attachments {
            let expected = rescue.attached_before();
            let came = attachments.gather(expected.clone()).await;
            let is_there = |id| came.iter().any(|survivor| survivor.account.generation == id);
            for gone in expected.into_iter().filter(|id| !is_there(*id)) {
                rescue.forget(gone);
            }
            survivors.workers.extend(came);
        }
        survivors.tell();
        let (sockets, astray) = survivors.take_sockets();
        let mut kept = Kept::new(sockets);
        let mut names = Names::default();
        let listeners = self.listen(&mut kept, &mut names)?;
        // The adapter is told the names of its sockets, which are known now.
        let program = self.program()?;
        let settings = self.settings(terms)?;
        let keeper = Keeper::open(&self.admin).await.map_err(admin::refused)?;
        let control = lock.open().map_err(configuration)?;
        let own =
            |source| Failed::Runtime { doing: "could not keep hold of what is its own", source };
        let hold = control.hold().map_err(own)?;
        let binary = std::env::current_exe().map_err(own)?;
        info!(version = crate::VERSION, pid = std::process::id(), "front");
        let mut front = Front::new(settings, program, listeners, hold, binary);
        front.admin = keeper;
        front.attach = attachments;
        front.settle_with_manager(self.inherited, &names);
        front
            .run(control, |front| front.recover(survivors, astray, kept.settle()))
            .await
            .map(|()| ExitCode::SUCCESS)
            .map_err(|source| Failed::Runtime { doing: "the front could not run", source })
    }

    /// What `holdfast check` looks into, once the words make sense.
    pub(super) fn asked(&self) -> Result<Asked, Failed> {
        self.check_flags()?;
        self.attach.admission().map_err(configuration)?;
        let ready_after = self.kind().and_then(|kind| match self.flags.ready_by(kind) {
            ReadyBy::After(after) => Some(after),
            ReadyBy::Notify | ReadyBy::Http(_) | ReadyBy::Tcp => None,
        });
        Ok(Asked {
            program: self.program()?,
            worker: match (self.flags.profile(), self.program.is_empty()) {
                (Some(Profile::OpenClaw), _) => Worker::OpenClaw,
                (None, true) => Worker::Bundled,
                (None, false) => Worker::Other,
            },
            rights: self.rights_of(),
            listen: self.listen.clone(),
            shards: self.shards,
            exposed: self.check_addresses(&self.listen).err(),
            max_connections: self.max_connections,
            log_file: self.log_file.clone(),
            times: Times {
                order: self.order(),
                ready: self.ready_timeout,
                ready_after,
                soak: self.soak,
                drain: self.drain_timeout,
                stop: self.stop_timeout.unwrap_or(self.drain_timeout),
                hold: self.hold_timeout,
            },
        })
    }

    fn check_flags(&self) -> Result<(), Failed> {
        if self.standby && self.order() == TakeoverOrder::StopFirst {
            let meant = "--standby keeps a second worker beside the one that serves, and with stop-first \
                         (--exclusive) the program allows one instance of itself: use one or the other";
            return Err(Failed::Usage { meant: meant.to_owned() });
        }
        admin::check(&self.admin)?;
        self.attach.check()?;
        if self.starts_nothing() && self.standby {
            let meant = "--standby keeps a second worker of the front's own program, and with --attach alone it has \
                         none: name one after --";
            return Err(Failed::Usage { meant: meant.to_owned() });
        }
        adapter::check(self.kind(), &self.flags)
    }

    /// Whether every worker attaches itself.
    fn starts_nothing(&self) -> bool {
        self.attach.is_wanted() && self.program.is_empty() && self.kind().is_none()
    }

    /// Opens the listening sockets, but for those that were inherited.
    fn listen(&mut self, kept: &mut Kept, names: &mut Names) -> Result<Listeners, Failed> {
        let files = if systemd::is_there() { Files::Kept } else { Files::Removed };
        let Self { shards, unix_mode, .. } = *self;
        let wanted = Wanted { addresses: &self.listen, shards, unix_mode, files };
        let listeners =
            Listeners::open(wanted, kept, &mut self.inherited, names).map_err(configuration)?;
        let addresses: Vec<Address> = listeners.addresses().into_iter().cloned().collect();
        self.check_addresses(&addresses)?;
        if self.kind() == Some(Kind::Activate) && !names.is_empty() {
            let all = listeners.sockets.iter().map(|socket| names.of(&socket.address)).collect();
            self.flags.name_sockets(all);
        }
        Ok(listeners)
    }

    fn check_addresses(&self, addresses: &[Address]) -> Result<(), Failed> {
        match self.kind() {
            Some(Kind::Relay) => relay::check(&self.flags, addresses).map_err(configuration),
            Some(Kind::Activate | Kind::Node) | None => Ok(()),
        }
    }

    /// The adapter that runs the program.
    fn kind(&self) -> Option<Kind> {
        self.flags.kind(self.adapter)
    }

    /// What the front starts; `None` when every worker attaches itself.
    fn program(&self) -> Result<Option<Program>, Failed> {
        if self.starts_nothing() {
            return Ok(None);
        }
        let adapter = match self.kind() {
            Some(kind) => adapter::words(kind, &self.flags, &self.log)?,
            None => Vec::new(),
        };
        match (self.program.split_first(), self.kind()) {
            (Some((path, arguments)), _) => Ok(Some(Program {
                adapter,
                path: path.into(),
                arguments: arguments.to_vec(),
                environment: Vec::new(),
            })),
            (None, None) => Program::bundled().map(Some).map_err(configuration),
            (None, Some(kind)) => {
                let kind = kind.word();
                let meant = format!(
                    "--adapter {kind} needs a program: holdfast run --adapter {kind} -- PROGRAM ARGS"
                );
                Err(Failed::Usage { meant })
            }
        }
    }

    const fn order(&self) -> TakeoverOrder {
        if self.exclusive { TakeoverOrder::StopFirst } else { self.takeover_order }
    }

    fn rights_of(&self) -> Result<Rights, RightsRefused> {
        let new_privileges =
            if self.no_new_privs { NewPrivileges::Never } else { NewPrivileges::Gained };
        Rights::of(self.user.as_deref(), self.group.as_deref(), new_privileges)
    }

    /// As whom workers run, once they can write where they have to.
    fn rights(&self) -> Result<Rights, Failed> {
        let rights = self.rights_of().map_err(configuration)?;
        let named = std::env::var_os("HOLDFAST_STATE_DIR").filter(|path| !path.is_empty());
        if let Some(path) = named {
            rights.prepare_state_directory(Path::new(&path)).map_err(configuration)?;
        }
        Ok(rights)
    }

    fn settings(&self, terms: Terms) -> Result<Settings, Failed> {
        Ok(Settings {
            rules: Rules {
                order: self.order(),
                ready_timeout: self.ready_timeout,
                drain_timeout: self.drain_timeout,
                stop_timeout: self.stop_timeout.unwrap_or(self.drain_timeout),
                soak: self.soak,
                hold_timeout: self.hold_timeout,
                standby: if self.standby { WithStandby::Yes } else { WithStandby::No },
            },
            max_connections: self.max_connections,
            terms,
            // Only a process with a controlling terminal can open it (tty(4)).
            hangup: if File::open("/dev/tty").is_ok() { Hangup::Stop } else { Hangup::Takeover },
            log: self.log.clone(),
            attach: self.attach.admission().map_err(configuration)?,
        })
    }
}
