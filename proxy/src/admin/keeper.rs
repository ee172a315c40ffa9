//! The front's side of the status page: its socket, its process, and the next one when that ends.
//!
//! ```text
//! None ── start ──► Running ──ends──► a pause that grows ──► Running …
//!                      └─ the front was renewed: ended ──► Running, by the new binary
//! ```
//!
//! **Invariants**
//! - It is no worker: no generation, no link, and its end is nobody's event.
//! - The socket is open from the front's start to its end, over all its images: who comes in between waits.
//! - It ends with the front: as all children do when the front stops (`orphans.rs`), else by the kernel.

use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tracing::{debug, warn};

use super::flags::{AdminFlags, AdminRefused, TOKEN_VARIABLE};
use super::server;
use crate::event::{Exit, SHORT_LIFE, respawn_pause};
use crate::front::Front;
use crate::generation::Course;
use crate::reexec::state::number;
use crate::spawn;
use crate::timer::Timer;

/// The word that has this binary serve the status page.
pub(crate) const COMMAND: &str = "admin";
/// The flag that names the front that starts it.
pub(crate) const OF_FRONT: &str = "--of-front";
/// How long the address is waited for while somebody has it: the page of a front that was just killed.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(1);
/// How often it is tried meanwhile.
const ADDRESS_INTERVAL: Duration = Duration::from_millis(20);

/// The status page, as the front knows it.
#[derive(Debug)]
pub(crate) struct Keeper {
    socket: OwnedFd,
    pub(crate) address: SocketAddr,
    token_file: Option<PathBuf>,
    process: Option<Process>,
    /// Lives in a row that were short.
    short_lives: u32,
}

#[derive(Clone, Copy, Debug)]
struct Process {
    pid: Pid,
    started_at: Instant,
    /// Whether it was told to end, so that another one takes its place.
    replaced: bool,
}

/// The same, for another image of the front.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct KeeperState {
    pub(crate) socket: RawFd,
    pub(crate) address: SocketAddr,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) pid: Option<i32>,
}

impl Keeper {
    /// Opens the socket that the operator asked for, if one is.
    ///
    /// # Errors
    /// When the page may not be served so, or the address cannot be had.
    pub(crate) async fn open(flags: &AdminFlags) -> Result<Option<Self>, AdminRefused> {
        let Some(address) = flags.check()? else { return Ok(None) };
        let given_up_at = Instant::now() + ADDRESS_TIMEOUT;
        let socket = loop {
            match server::open(address) {
                Err(AdminRefused::Listen { source, .. })
                    if source.kind() == std::io::ErrorKind::AddrInUse
                        && Instant::now() < given_up_at =>
                {
                    tokio::time::sleep(ADDRESS_INTERVAL).await;
                }
                opened => break opened?,
            }
        };
        let listen = |source| AdminRefused::Listen { address, source };
        let address = socket.local_addr().map_err(listen)?;
        let token_file = flags.token_file.clone();
        Ok(Some(Self { socket: socket.into(), address, token_file, process: None, short_lives: 0 }))
    }

    /// Whether this child is the page's.
    pub(crate) fn is(&self, pid: Pid) -> bool {
        self.process.is_some_and(|process| process.pid == pid)
    }

    /// What another image of the front is told.
    pub(crate) fn state(&self) -> KeeperState {
        KeeperState {
            socket: number(&self.socket),
            address: self.address,
            token_file: self.token_file.clone(),
            pid: self.process.map(|process| process.pid.as_raw()),
        }
    }

    /// Goes on with what another image had.
    pub(crate) fn resume(state: KeeperState, socket: OwnedFd) -> Self {
        let process = state.pid.map(|pid| Process {
            pid: Pid::from_raw(pid),
            started_at: Instant::now(),
            replaced: false,
        });
        let KeeperState { address, token_file, .. } = state;
        Self { socket, address, token_file, process, short_lives: 0 }
    }

    fn spawn(&self, words: Vec<OsString>) -> std::io::Result<Pid> {
        let socket: TcpListener = self.socket.as_fd().try_clone_to_owned()?.into();
        // The binary that this image is, wherever that lies by now.
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("holdfast")
            .args(words)
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(socket)));
        spawn::keep_what_is_the_fronts(&mut command);
        // That is for this child.
        if let Some(token) = std::env::var_os(TOKEN_VARIABLE) {
            command.env(TOKEN_VARIABLE, token);
        }
        let child = command.spawn()?;
        // `child` is only a number from here on: reap.rs waits for every child alike.
        Ok(Pid::from_raw(child.id().cast_signed()))
    }
}

impl Front {
    /// Has the status page served, if it is wanted and nobody does.
    pub(crate) fn keep_admin(&mut self) {
        let mut words: Vec<OsString> = vec![COMMAND.into(), "--control".into()];
        words.push(self.control.path().into());
        words.extend([OF_FRONT.into(), std::process::id().to_string().into()]);
        words.extend(self.settings.log.words());
        let Some(keeper) = self.admin.as_mut().filter(|keeper| keeper.process.is_none()) else {
            return;
        };
        if let Some(path) = &keeper.token_file {
            words.extend(["--admin-token-file".into(), path.into()]);
        }
        match keeper.spawn(words) {
            Ok(pid) => {
                debug!(pid = pid.as_raw(), address = %keeper.address, "the status page was started");
                let started_at = Instant::now();
                keeper.process = Some(Process { pid, started_at, replaced: false });
            }
            Err(error) => {
                warn!(%error, "could not start the status page");
                self.keep_admin_later();
            }
        }
    }

    /// A child has ended; whether it was the status page's.
    pub(crate) fn is_admins_end(&mut self, pid: Pid, exit: Exit) -> bool {
        let Some(keeper) = self.admin.as_mut().filter(|keeper| keeper.is(pid)) else {
            return false;
        };
        let Some(process) = keeper.process.take() else { return false };
        // Whoever stops the front may have told all its processes.
        if self.generations.course == Course::Leaving {
            return true;
        }
        if process.replaced {
            self.keep_admin();
            return true;
        }
        if process.started_at.elapsed() >= SHORT_LIFE {
            keeper.short_lives = 0;
        }
        warn!(pid = pid.as_raw(), %exit, "the status page is gone; it is started again");
        self.tally.admin_restarts += 1;
        self.keep_admin_later();
        true
    }

    fn keep_admin_later(&mut self) {
        let Some(keeper) = &mut self.admin else { return };
        keeper.short_lives = keeper.short_lives.saturating_add(1);
        self.timers.insert(Timer::Admin, Instant::now() + respawn_pause(keeper.short_lives));
    }

    /// This image is a new one: the status page is to be served by it.
    pub(crate) fn renew_admin(&mut self) {
        if let Some(process) = self.admin.as_mut().and_then(|keeper| keeper.process.as_mut()) {
            process.replaced = true;
            // One that has ended is noticed all the same.
            let _ = kill(process.pid, Signal::SIGTERM);
        }
    }
}
