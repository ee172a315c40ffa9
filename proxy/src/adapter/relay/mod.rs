//! `relay`: the program listens on a private port of its own, and this adapter accepts in its place and copies bytes.
//!
//! ```text
//! client ──► shared socket ──► adapter ──► 127.0.0.1:PORT or a Unix socket ──► program
//!                                 │            (the PROXY protocol first, if it is wanted)
//! Drain: accept no more; what is open goes on ─► in the last quarter, at most 5 s: the stop signal ─► KILL
//! ```
//!
//! Nothing is changed on the way: no header is added, no Host replaced, and what the bytes mean is not known. So an
//! old connection stays with the old program until either side ends it, and a program that stops at once when it is
//! asked to is asked as late as can be.
//!
//! **Invariants**
//! - Only a program that is ready is relayed to: the adapter accepts when the front admits it, as any worker does.
//! - Every client looks like one of this machine to the program, so beyond loopback it needs the PROXY protocol, or
//!   somebody who says that this is meant.

mod counts;
mod pipe;
mod private;
mod proxy_protocol;
mod tunnel;

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use handoff::limits::DescriptorLimits;
use handoff::{Acceptor, Address, Connections, Peer, Report, Stream, Worker};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, warn};

use self::counts::{Counts, Open, Owed};
use self::private::PrivateAddress;
use self::proxy_protocol::{Ends, header, own_header};
use self::tunnel::{Ending, Tunnel, Workshop};
use super::flags::{Flags, Kind, ProxyVersion};
use super::life::{self, Life, Stopped, Turn};
use super::program::{Ended, Order, replaced};
use super::readiness::{Readiness, Where};

/// How long before a drain's deadline the program is asked to stop at the earliest, even if connections are open.
const LONGEST_NOTICE: Duration = Duration::from_secs(5);
/// The pause before connecting again to a program that refused.
const CONNECT_PAUSE: Duration = Duration::from_millis(20);
/// How long what a program that crashed has said last may take to reach its clients.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why `relay` is not for this program.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{address} can be reached from elsewhere, and every relayed client looks like one of this machine to the program, \
     which may trust those more: pass --proxy-protocol v1 or v2 if it reads that, or --trust-relay if it trusts nobody \
     for where they come from"
)]
pub(crate) struct NotTrusted {
    address: Address,
}

/// Whether clients of these addresses may be relayed.
///
/// # Errors
/// Why not.
pub(crate) fn check<'a>(
    flags: &Flags,
    addresses: impl IntoIterator<Item = &'a Address>,
) -> Result<(), NotTrusted> {
    if flags.trust_relay() || flags.proxy_protocol().is_some() {
        return Ok(());
    }
    match addresses.into_iter().find(|address| !address.is_local()) {
        Some(address) => Err(NotTrusted { address: address.clone() }),
        None => Ok(()),
    }
}

/// Runs `command` as this generation.
///
/// # Errors
/// The exit code, when it came to nothing.
pub(super) async fn run(
    worker: Worker,
    acceptor: Acceptor,
    flags: &Flags,
    command: &[OsString],
    limits: DescriptorLimits,
) -> Result<ExitCode, ExitCode> {
    if let Err(refused) = check(flags, worker.addresses()) {
        return Err(life::refuse(worker, refused.to_string()).await);
    }
    let private = match PrivateAddress::choose(flags.private()) {
        Ok(private) => private,
        Err(error) => {
            return Err(
                life::refuse(worker, format!("no private address can be had: {error}")).await
            );
        }
    };
    let preamble = flags.proxy_protocol().map(own_header).unwrap_or_default();
    let readiness = Readiness {
        by: flags.ready_by(Kind::Relay),
        at: Where::Private { address: private.address.clone(), preamble },
        public: (worker.addresses().to_vec(), Vec::new()),
    };
    let mut environment = vec![(flags.port_env().to_owned(), private.port())];
    environment.extend(private.host().map(|host| ("HOST".to_owned(), host)));
    let order = Order {
        words: replaced(command, &[("{port}".to_owned(), private.port())]),
        environment,
        sockets: Vec::new(),
        descriptors: limits.inherited,
    };
    let mut life = Life::begin(worker, order, flags, limits).await?.await_ready(&readiness).await?;
    let relay = Relay {
        program: private.address.clone(),
        connect_timeout: flags.connect_timeout(),
        idle_timeout: flags.idle_timeout(),
        proxy_protocol: flags.proxy_protocol(),
        workshop: Workshop::open(),
    };
    let mut relayed = Relayed {
        acceptor: Some(acceptor),
        relay: Arc::new(relay),
        counts: Counts::default(),
        tasks: JoinSet::new(),
    };
    relayed.report_to(&life.worker);
    match relayed.serve(&mut life).await {
        Turn::Ended(ended) => Err(relayed.crash(life, ended).await),
        Turn::Leaving => Ok(relayed.drain(life).await),
    }
}

/// What every connection needs.
#[derive(Debug)]
struct Relay {
    program: Address,
    connect_timeout: Duration,
    idle_timeout: Option<Duration>,
    proxy_protocol: Option<ProxyVersion>,
    workshop: Arc<Mutex<Workshop>>,
}

/// The connections.
struct Relayed {
    /// `None` once nothing is accepted any more.
    acceptor: Option<Acceptor>,
    relay: Arc<Relay>,
    counts: Counts,
    tasks: JoinSet<()>,
}

impl Relayed {
    fn report_to(&self, worker: &Worker) {
        let counts = self.counts.clone();
        worker.on_report(move || Report {
            connections: Connections { http: counts.open(), websocket: 0 },
            ..Report::default()
        });
    }

    /// Relays until the adapter is to leave, or its program has ended.
    async fn serve(&mut self, life: &mut Life) -> Turn {
        loop {
            tokio::select! {
                turn = life.turn() => return turn,
                accepted = accept(&mut self.acceptor) => self.relay(accepted),
                Some(_) = self.tasks.join_next() => {}
            }
        }
    }

    fn relay(&mut self, (stream, peer): (Stream, Peer)) {
        let relay = Arc::clone(&self.relay);
        let counted = self.counts.enter();
        self.tasks.spawn(async move { relay.connection(stream, peer, counted).await });
    }

    /// Lets what is open come to its end, with newcomers if the front leaves them to nobody else.
    async fn drain(mut self, mut life: Life) -> ExitCode {
        let mut stance = life.worker.stance();
        let begun = Instant::now();
        let mut all = self.counts.open();
        loop {
            if !stance.borrow().accepts() {
                // Its copies of the sockets would keep a port open that the front has closed.
                self.acceptor = None;
            }
            let deadline = life.worker.drain_deadline();
            let notice = ((deadline - begun) / 4).min(LONGEST_NOTICE);
            tokio::select! {
                biased;
                Some(_) = self.tasks.join_next() => {}
                accepted = accept(&mut self.acceptor) => {
                    all += 1;
                    self.relay(accepted);
                }
                _ = life.program.ended() => break,
                () = tokio::time::sleep_until(deadline - notice) => break,
                Ok(()) = stance.changed() => {}
                () = std::future::ready(()), if self.tasks.is_empty() => break,
            }
        }
        self.acceptor = None;
        life.ask_to_stop();
        let counts = self.counts.clone();
        let cut = match life.stopped(|| counts.owed()).await {
            Stopped::Killed { cut } => cut,
            Stopped::InTime => {
                // What the program said last is still on its way to those who read slowly.
                let deadline = life.worker.drain_deadline();
                let _ = tokio::time::timeout_at(deadline, counts.nothing_owed()).await;
                counts.owed()
            }
        };
        life.leave(all.saturating_sub(cut), cut).await
    }

    /// The program is gone. What it had said reaches its clients, and then the adapter ends as it did.
    async fn crash(mut self, life: Life, ended: Ended) -> ExitCode {
        self.acceptor = None;
        let _ = tokio::time::timeout(LAST_WORDS, self.counts.nothing_owed()).await;
        life.crashed(ended).await
    }
}

/// The next client; never one once nothing is accepted any more.
async fn accept(acceptor: &mut Option<Acceptor>) -> (Stream, Peer) {
    if let Some(open) = acceptor
        && let Some(accepted) = open.accept().await
    {
        return accepted;
    }
    std::future::pending().await
}

impl Relay {
    async fn connection(&self, client: Stream, peer: Peer, (_open, owed): (Open, Owed)) {
        let preamble = self.preamble(&client, peer);
        let program = match self.connect().await {
            Ok(Some(program)) => program,
            Ok(None) => {
                return warn!("a client was not connected to the program in time, and is let go");
            }
            Err(error) => return warn!(%error, "could not connect a client to the program"),
        };
        let workshop = Arc::clone(&self.workshop);
        let ending =
            Tunnel::new(client, program, preamble, workshop, self.idle_timeout, owed).await;
        if ending != Ending::Finished {
            debug!(?ending, "a connection did not end by itself");
        }
    }

    /// A connection to the program, or nothing when it took too long.
    async fn connect(&self) -> io::Result<Option<Stream>> {
        // A program that listens is connected to before connect(2) returns, and nothing is waited for: a timer for
        // each client would cost a write to wake the runtime.
        if let Some(stream) = self.connect_at_once() {
            return Ok(Some(stream));
        }
        tokio::time::timeout(self.connect_timeout, self.connect_in_time()).await.ok().transpose()
    }

    /// A program whose queue is full, or that is about to listen again, refuses for a moment.
    async fn connect_in_time(&self) -> io::Result<Stream> {
        loop {
            match self.connect_once().await {
                Err(error) if is_passing(&error) => tokio::time::sleep(CONNECT_PAUSE).await,
                outcome => return outcome,
            }
        }
    }

    /// A connection that takes no waiting.
    fn connect_at_once(&self) -> Option<Stream> {
        match &self.program {
            Address::Tcp(address) => {
                let socket = unconnected(if address.is_ipv4() {
                    AddressFamily::INET
                } else {
                    AddressFamily::INET6
                })?;
                match connect(&socket, address) {
                    // The other half of the handshake may be done by now, which asking again tells.
                    Err(Errno::INPROGRESS) => connect(&socket, address).ok()?,
                    outcome => outcome.ok()?,
                }
                let stream = TcpStream::from_std(socket.into()).ok()?;
                stream.set_nodelay(true).ok()?;
                Some(stream.into())
            }
            Address::Unix(path) => {
                let socket = unconnected(AddressFamily::UNIX)?;
                connect(&socket, &SocketAddrUnix::new(path).ok()?).ok()?;
                Some(UnixStream::from_std(socket.into()).ok()?.into())
            }
        }
    }

    async fn connect_once(&self) -> io::Result<Stream> {
        match &self.program {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(stream.into())
            }
            Address::Unix(path) => Ok(UnixStream::connect(path).await?.into()),
        }
    }

    fn preamble(&self, client: &Stream, peer: Peer) -> Vec<u8> {
        let Some(version) = self.proxy_protocol else { return Vec::new() };
        let ends = match peer {
            Peer::Tcp(client_address) => rustix::net::getsockname(client)
                .ok()
                .and_then(|listener| listener.try_into().ok())
                .map(|listener| Ends { client: client_address, listener }),
            Peer::Unix => None,
        };
        header(version, ends)
    }
}

fn unconnected(family: AddressFamily) -> Option<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    socket_with(family, SocketType::STREAM, flags, None).ok()
}

/// Whether trying again may help: its queue may have room again, and this process descriptors.
fn is_passing(error: &io::Error) -> bool {
    let exhausted = error
        .raw_os_error()
        .map(Errno::from_raw_os_error)
        .is_some_and(|errno| matches!(errno, Errno::MFILE | Errno::NFILE));
    exhausted
        || matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_loopback_it_has_to_be_said_that_clients_look_local() {
        let check = |words: &[&str]| {
            let addresses: Vec<Address> = words.iter().map(|word| word.parse().unwrap()).collect();
            check(&Flags::default(), &addresses)
        };
        assert_eq!(check(&["127.0.0.1:80", "[::1]:80", "unix:/run/x.sock"]), Ok(()));
        for beyond in ["0.0.0.0:80", "[::]:80", "192.0.2.1:80"] {
            let refused = check(&["127.0.0.1:80", beyond]).unwrap_err().to_string();
            for words in
                [beyond, "--proxy-protocol", "--trust-relay", "looks like one of this machine"]
            {
                assert!(refused.contains(words), "{refused}");
            }
        }
    }
}
