//! `node`: a Node program that calls `server.listen(port)` accepts from the shared sockets itself, by a script that
//! Node loads before it (`preload.cjs`).
//!
//! ```text
//! start ───► the program calls listen(18789): it listens privately, and says so
//! Ready ◄─── all ports of the front are listened on, or answer as they are asked
//! Admit ───► accept: it accepts from the shared sockets        StopAccepting ───► stop: it does no more
//! Drain ───► leave: it lets go of the sockets, then its own signal has it finish and exit
//! ```
//!
//! So a takeover is what it is among workers: what is told the front has happened in the program, and a rolled back
//! incumbent accepts again.
//!
//! **Invariants**
//! - The program never binds a public port, and the adapter never accepts from the shared ones.
//! - A program that wants to be started anew is replaced; only one that fails has crashed.

mod channel;
mod script;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::process::ExitCode;
use std::sync::{Arc, PoisonError};

use handoff::limits::DescriptorLimits;
use handoff::socket::ListeningSocket;
use handoff::{Address, Connections, Report, Stance, Worker};
use tracing::info;

pub(crate) use self::channel::{Announced, Announcement};
use self::channel::{Channel, Word};
use self::script::Script;
use super::census::{self, Count};
use super::flags::{Flags, Kind};
use super::life::{self, Life, Stopped, Turn};
use super::profile::{CleanExit, Manner};
use super::program::{Ended, Order, replaced};
use super::readiness::{Readiness, Where};
use crate::event::Exit;

/// How often the program can be told to stop accepting and to begin again, and one: Node stops by closing a copy.
const COPIES: usize = 4;
/// The most descriptors that the sockets' copies take.
const MOST_DESCRIPTORS: usize = 200;

/// Why `node` is not for these addresses.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{address} is no port: --adapter node gives a program that calls listen(port) the front's sockets of that port"
)]
struct NoPort {
    address: Address,
}

/// Runs `command` as this generation.
///
/// # Errors
/// The exit code, when it came to nothing.
pub(super) async fn run(
    worker: Worker,
    sockets: Vec<Arc<ListeningSocket>>,
    flags: &Flags,
    command: &[OsString],
    limits: DescriptorLimits,
) -> Result<ExitCode, ExitCode> {
    let manner = flags.manner();
    let addresses: Vec<Address> = sockets.iter().map(|socket| socket.address.clone()).collect();
    if let Err(refused) = check(flags, &addresses, command) {
        return Err(life::refuse(worker, refused).await);
    }
    let announcement = Announcement::default();
    let opened = Channel::open(Arc::clone(&announcement), worker.accepts_elsewhere());
    let prepared = opened.and_then(|(channel, theirs)| {
        let script = Script::write()?;
        let variables = script.environment(&addresses, copies(sockets.len()), manner.restarts)?;
        Ok((channel, theirs, script, variables))
    });
    let (channel, theirs, _script, mut environment) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            let reason = format!("could not prepare what the program loads first: {error}");
            return Err(life::refuse(worker, reason).await);
        }
    };
    let port = port(&addresses[0]);
    environment.push(("PORT".to_owned(), port.clone()));
    environment.extend(manner.variables());
    let inodes = census::tcp_inodes(&sockets);
    let order = Order {
        words: replaced(command, &[("{port}".to_owned(), port)]),
        environment,
        sockets: descriptors(&sockets, theirs.as_fd()),
        descriptors: limits.inherited,
    };
    let begun = Life::begin(worker, order, flags, limits).await;
    drop((sockets, theirs));
    let readiness = Readiness {
        by: flags.ready_by(Kind::Node),
        at: Where::Announced(Arc::clone(&announcement)),
        public: (addresses.clone(), inodes.clone()),
    };
    let life = begun?.await_ready(&readiness).await?;
    let open = Arc::new(Count::of(addresses, inodes));
    Ok(Served { life, channel, announcement, manner, open }.serve().await)
}

/// Whether this program can be run on these addresses.
///
/// # Errors
/// Why not.
fn check(flags: &Flags, addresses: &[Address], command: &[OsString]) -> Result<(), String> {
    let no_port = addresses.iter().find(|address| matches!(address, Address::Unix(_)));
    if let Some(address) = no_port {
        return Err(NoPort { address: address.clone() }.to_string());
    }
    match flags.profile() {
        Some(profile) => profile.check(command).map_err(|forced| forced.to_string()),
        None => Ok(()),
    }
}

/// The public port that the program is told of, of several the first.
fn port(address: &Address) -> OsString {
    match address {
        Address::Tcp(address) => address.port().to_string().into(),
        Address::Unix(path) => path.as_os_str().to_owned(),
    }
}

/// How many copies there are of each of so many sockets.
fn copies(sockets: usize) -> usize {
    (MOST_DESCRIPTORS / sockets.max(1)).clamp(1, COPIES)
}

/// What the program inherits: each socket as often as it needs it, then its end of the channel.
fn descriptors<'a>(
    sockets: &'a [Arc<ListeningSocket>],
    channel: BorrowedFd<'a>,
) -> Vec<BorrowedFd<'a>> {
    let copies = copies(sockets.len());
    let copied = |socket: &'a Arc<ListeningSocket>| std::iter::repeat_n(socket.as_fd(), copies);
    sockets.iter().flat_map(copied).chain([channel]).collect()
}

/// A program that is ready, and whoever speaks with it.
struct Served {
    life: Life,
    channel: Channel,
    announcement: Announcement,
    manner: Manner,
    /// Its connections.
    open: Arc<Count>,
}

impl Served {
    /// Serves until the program is gone.
    async fn serve(mut self) -> ExitCode {
        let open = Arc::clone(&self.open);
        self.life.worker.on_report(move || Report {
            connections: Connections { http: open.lately(), websocket: 0 },
            ..Report::default()
        });
        let mut stance = self.life.worker.stance();
        // It may have been admitted since it was ready.
        self.tell(*stance.borrow_and_update()).await;
        loop {
            tokio::select! {
                turn = self.life.turn() => match turn {
                    Turn::Leaving => return self.leave().await,
                    Turn::Ended(Ended::Exited(Exit::Code(0)))
                        if self.manner.clean_exit == CleanExit::Restart =>
                    {
                        return self.life.leave_to_be_replaced().await;
                    }
                    Turn::Ended(ended) => return self.life.crashed(ended).await,
                },
                Ok(()) = stance.changed() => {
                    let now = *stance.borrow_and_update();
                    self.tell(now).await;
                }
                Some(word) = self.channel.words.recv() => self.heed(word).await,
            }
        }
    }

    async fn tell(&mut self, stance: Stance) {
        match stance {
            Stance::Admitted => self.channel.tell("accept").await,
            Stance::Stopped => self.channel.tell("stop").await,
            Stance::Waiting | Stance::Draining { .. } | Stance::Dismissed => {}
        }
    }

    async fn heed(&mut self, word: Word) {
        let reason = match word {
            Word::Restart { signal } => format!("the program restarts itself by {signal}"),
            Word::Closed { port } => format!("the program listens on port {port} no more"),
            Word::Listening { .. }
            | Word::Calm
            | Word::Busy
            | Word::Accepting
            | Word::Stopped
            | Word::Leaving { .. }
            | Word::Refuse { .. } => return,
        };
        // It goes on meanwhile, or clients wait in the queue: its successor can be there first.
        self.life.worker.wants_takeover(reason).await;
    }

    /// Has the program finish what it does, without newcomers: those wait for the next one.
    async fn leave(mut self) -> ExitCode {
        let open = Arc::clone(&self.open);
        let before = open.now();
        let signals = match self.manner.drain {
            [] => self.life.stop_signal().to_string(),
            signals => signals.join(" "),
        };
        info!(signals, connections = before, "the program is asked to finish");
        let listens = !announced(&self.announcement).places.is_empty();
        if listens {
            self.channel.tell(&format!("leave {signals}")).await;
        } else {
            // Whoever told that it is ready without listening was never heard of.
            self.life.ask_to_stop();
        }
        let cut = match self.life.stopped(|| open.now()).await {
            Stopped::InTime => 0,
            Stopped::Killed { cut } => cut,
        };
        self.life.leave(before.saturating_sub(cut), cut).await
    }
}

/// What the program has announced by now.
pub(crate) fn announced(announcement: &Announcement) -> Announced {
    announcement.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// The first port of these addresses that the program has not announced.
pub(crate) fn missing(places: &BTreeMap<u16, SocketAddr>, addresses: &[Address]) -> Option<u16> {
    let ports = addresses.iter().filter_map(|address| match address {
        Address::Tcp(address) => Some(address.port()),
        Address::Unix(_) => None,
    });
    ports.into_iter().find(|port| !places.contains_key(port))
}
