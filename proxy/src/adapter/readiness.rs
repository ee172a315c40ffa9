//! Whether the program could serve, found out from outside.
//!
//! | by | under `activate` | under `relay` | under `node` |
//! | --- | --- | --- | --- |
//! | READY=1 | the program says so | the program says so | the program says so |
//! | tcp | it accepted a connection to the shared socket | it listens on its private port | it says that it listens |
//! | http | the same, and answered with 200 to 399 | the same, and answered with 200 to 399 | the same, and answered |
//! | after | time has passed | time has passed | time has passed |
//!
//! **Invariants**
//! - Only the program itself is asked: the incumbent accepts from the same shared socket, and a private port may have
//!   been taken by a stranger, so who answers is looked up in the kernel's tables ([`census`]).
//! - A program that listens on the public address itself is found out in every round, whatever it answers.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use handoff::Address;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

use super::census::{self, Accepted};
use super::flags::ReadyBy;
use super::node::{self, Announced, Announcement, announced};

/// The pause after the first round; it grows by a half after each, as far as [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// The longest pause between two rounds.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// How long one round may take.
const ROUND: Duration = Duration::from_secs(2);
/// After how long is looked for the first time who has accepted; each time it is twice as long.
const GLANCE: Duration = Duration::from_millis(2);
/// The most of an answer that is read, in bytes.
const LONGEST_ANSWER: usize = 64 * 1024;

/// Where the program is asked.
#[derive(Clone, Debug)]
pub(crate) enum Where {
    /// At the sockets it shares with others: an answer counts when it accepted.
    Shared(Vec<Address>),
    /// Where it listens alone, after these bytes.
    Private { address: Address, preamble: Vec<u8> },
    /// Where it says that it listens alone, for each of the public ports.
    Announced(Announcement),
}

/// How readiness is found out.
#[derive(Clone, Debug)]
pub(crate) struct Readiness {
    pub(crate) by: ReadyBy,
    pub(crate) at: Where,
    /// The addresses the front listens on, and the inodes of its sockets.
    pub(crate) public: (Vec<Address>, Vec<u64>),
}

/// Why the program is not ready yet.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotYet {
    #[error("the program has not said READY=1")]
    Unsaid,
    #[error("the program has not had its time")]
    Early,
    #[error("the program accepts no connection")]
    NotAccepting,
    #[error("nobody listens on {address}")]
    NotListening { address: Address },
    #[error("the program listens on {found}, not on {address}")]
    ListensElsewhere { address: Address, found: String },
    #[error("{address} is another process's")]
    Stranger { address: Address },
    #[error("the program has not called listen({port}){}", elsewhere(found))]
    Unannounced { port: u16, found: Vec<SocketAddr> },
    #[error("the program is busy with its start: its thread is not free for clients")]
    Busy,
    #[error("GET {path} is answered with {status}")]
    Status { path: String, status: String },
    #[error("GET {path} is not answered: {reason}")]
    NoAnswer { path: String, reason: String },
}

/// Why a program will never be ready.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    /// It took an address for its own that the front listens on.
    #[error(
        "the program listens on {found} itself, and would take connections from Holdfast's {address}; {instead}"
    )]
    TookThePublicPort { found: SocketAddr, address: Address, instead: &'static str },
    /// It says so itself.
    #[error("the program cannot be served: {reason}")]
    Refused { reason: String },
}

/// Where a program listens that should listen elsewhere.
fn elsewhere(found: &[SocketAddr]) -> String {
    let found: Vec<String> = found.iter().map(SocketAddr::to_string).collect();
    if found.is_empty() {
        "; it has to be Node itself that is started, not npm or npx".to_owned()
    } else {
        format!("; it listens on {}", found.join(" and "))
    }
}

impl Readiness {
    /// What keeps the program from being ready before anybody has looked.
    pub(crate) const fn at_first(&self) -> NotYet {
        match self.by {
            ReadyBy::Notify => NotYet::Unsaid,
            ReadyBy::After(_) => NotYet::Early,
            ReadyBy::Tcp | ReadyBy::Http(_) => NotYet::NotAccepting,
        }
    }

    /// Waits for the program as long as it takes, and calls `tell` with why it is not ready. It never ends when only
    /// the program itself can say so. Cancel safe.
    pub(crate) async fn seen(&self, tell: impl Fn(NotYet)) {
        let round = async || match &self.by {
            ReadyBy::Notify => std::future::pending().await,
            ReadyBy::After(time) => {
                tokio::time::sleep(*time).await;
                Ok(())
            }
            ReadyBy::Tcp => self.ask(None).await,
            ReadyBy::Http(path) => self.ask(Some(path)).await,
        };
        let mut pause = FIRST_PAUSE;
        while let Err(not_yet) = round().await {
            tell(not_yet);
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        }
    }

    /// Whether the program can still become ready: it keeps off the public addresses, and did not refuse.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn is_possible(&self) -> Result<(), Unusable> {
        if let Where::Announced(announcement) = &self.at
            && let Some(reason) = announced(announcement).refused
        {
            return Err(Unusable::Refused { reason });
        }
        let (addresses, shared) = &self.public;
        for found in census::listens(shared) {
            if let Some(address) = addresses.iter().find(|address| census::covers(address, found)) {
                let instead = match self.at {
                    Where::Shared(_) => {
                        "it has to accept from the descriptors that LISTEN_FDS counts"
                    }
                    Where::Private { .. } => {
                        "it has to listen where PORT, {port} or --port-env says"
                    }
                    Where::Announced(_) => {
                        "it has to be Node itself that is started and that listens, not npm, npx or another process"
                    }
                };
                return Err(Unusable::TookThePublicPort {
                    found,
                    address: address.clone(),
                    instead,
                });
            }
        }
        Ok(())
    }

    async fn ask(&self, path: Option<&str>) -> Result<(), NotYet> {
        let tried = tokio::time::timeout(ROUND, async {
            match &self.at {
                Where::Shared(addresses) => {
                    // Where it cannot be told who accepts nobody is asked; `activate` refuses that earlier.
                    for address in addresses {
                        if let Address::Tcp(address) = address {
                            ask_shared(*address, path).await?;
                        }
                    }
                    Ok(())
                }
                Where::Private { address, preamble } => ask_private(address, preamble, path).await,
                Where::Announced(announcement) => {
                    ask_announced(announcement, &self.public, path).await
                }
            }
        });
        tried.await.unwrap_or_else(|_| {
            Err(match path {
                Some(path) => {
                    NotYet::NoAnswer { path: path.into(), reason: "it takes too long".into() }
                }
                None => NotYet::NotAccepting,
            })
        })
    }
}

/// Connects to a socket that others accept from too, until it is the program that does.
async fn ask_shared(address: SocketAddr, path: Option<&str>) -> Result<(), NotYet> {
    let address = reachable(address);
    let mut stream = TcpStream::connect(address).await.map_err(|_| NotYet::NotAccepting)?;
    let (Ok(ours), Ok(theirs)) = (stream.local_addr(), stream.peer_addr()) else {
        return Err(NotYet::NotAccepting);
    };
    let request = path.map(|path| request(&Address::Tcp(address), path));
    // All but the last byte: some kernels' sockets are accepted from only when something has come, and who is not the
    // program is not to answer.
    let (first, last) = request.as_ref().map_or((&[][..], &[][..]), |r| r.split_at(r.len() - 1));
    stream.write_all(first).await.map_err(|_| NotYet::NotAccepting)?;
    let mut glance = GLANCE;
    loop {
        tokio::time::sleep(glance).await;
        glance *= 2;
        match census::accepted_by(ours, theirs) {
            Accepted::Family => break,
            // Another one's turn; the next connection may be the program's.
            Accepted::Another => return Err(NotYet::NotAccepting),
            Accepted::Nobody => {}
        }
    }
    let Some(path) = path else { return Ok(()) };
    answered(&mut stream, last, path).await
}

/// Asks at every place that the program has said it listens at, and then whether it is free for clients: Node has one
/// thread, and who is admitted while that is taken has everybody wait.
async fn ask_announced(
    announcement: &Announcement,
    (addresses, shared): &(Vec<Address>, Vec<u64>),
    path: Option<&str>,
) -> Result<(), NotYet> {
    let Announced { places, .. } = announced(announcement);
    if let Some(port) = node::missing(&places, addresses) {
        return Err(NotYet::Unannounced { port, found: census::listens(shared) });
    }
    for private in places.values() {
        let address = Address::Tcp(*private);
        if path.is_some() {
            ask_private(&address, &[], path).await?;
        }
    }
    if announced(announcement).calm { Ok(()) } else { Err(NotYet::Busy) }
}

async fn ask_private(address: &Address, preamble: &[u8], path: Option<&str>) -> Result<(), NotYet> {
    match address {
        Address::Tcp(tcp) => {
            let listens = census::listens(&[]);
            if !listens.iter().any(|found| census::covers(address, *found)) {
                return Err(not_listening(address, &listens));
            }
            let mut stream = TcpStream::connect(tcp)
                .await
                .map_err(|_| NotYet::NotListening { address: address.clone() })?;
            ask_alone(&mut stream, address, preamble, path).await
        }
        Address::Unix(file) => {
            let mut stream = UnixStream::connect(file)
                .await
                .map_err(|_| NotYet::NotListening { address: address.clone() })?;
            ask_alone(&mut stream, address, preamble, path).await
        }
    }
}

async fn ask_alone(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    address: &Address,
    preamble: &[u8],
    path: Option<&str>,
) -> Result<(), NotYet> {
    let Some(path) = path else { return Ok(()) };
    let request = [preamble, &request(address, path)].concat();
    answered(stream, &request, path).await
}

/// Why nobody of the program listens where it should. Nobody connects to find that out: the address is one of those
/// that the kernel chooses from for the near end, and a socket can be connected to itself.
fn not_listening(address: &Address, listens: &[SocketAddr]) -> NotYet {
    let address = address.clone();
    match listens.first() {
        _ if census::is_listened_on(&address) => NotYet::Stranger { address },
        Some(found) => NotYet::ListensElsewhere { address, found: found.to_string() },
        None => NotYet::NotListening { address },
    }
}

/// Sends the rest of a request, and reads whether its answer is good.
async fn answered(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    rest: &[u8],
    path: &str,
) -> Result<(), NotYet> {
    let no_answer =
        |error: io::Error| NotYet::NoAnswer { path: path.into(), reason: error.to_string() };
    stream.write_all(rest).await.map_err(no_answer)?;
    let mut answer = Vec::new();
    // To its end, so that the program does not find itself cut off.
    while answer.len() < LONGEST_ANSWER {
        match stream.read_buf(&mut answer).await {
            Ok(0) => break,
            Ok(_) => {}
            Err(_) if !answer.is_empty() => break,
            Err(error) => return Err(no_answer(error)),
        }
    }
    match status(&answer) {
        Some(200..400) => Ok(()),
        Some(status) => Err(NotYet::Status { path: path.into(), status: status.to_string() }),
        None => Err(no_answer(io::Error::other("that is no HTTP"))),
    }
}

fn request(host: &Address, path: &str) -> Vec<u8> {
    let host = match host {
        Address::Tcp(address) => address.to_string(),
        Address::Unix(_) => "localhost".to_owned(),
    };
    format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: holdfast\r\nconnection: close\r\n\r\n"
    )
    .into_bytes()
}

/// The status of `HTTP/1.1 200 OK`.
fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?;
    line.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()
}

/// Where an address can be connected to: the wildcard is none (RFC 1122 section 3.2.1.3).
const fn reachable(mut address: SocketAddr) -> SocketAddr {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    if address.ip().is_unspecified() {
        let loopback = match address.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        address.set_ip(loopback);
    }
    address
}

/// What is told the front of a program that is not ready, as often as it may be told.
#[derive(Debug, Default)]
pub(crate) struct Conditions {
    told: Vec<String>,
    told_at: Option<Instant>,
}

impl Conditions {
    /// Whether these are news, and enough time has passed since the last ones: a worker may say one word a second.
    pub(crate) fn are_news(&mut self, conditions: &[String]) -> bool {
        let rests = self.told_at.is_some_and(|at| at.elapsed() < Duration::from_secs(1));
        if rests || self.told == conditions {
            return false;
        }
        self.told = conditions.to_vec();
        self.told_at = Some(Instant::now());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_an_answer_is_read_from_its_first_line() {
        assert_eq!(status(b"HTTP/1.1 204 No Content\r\n\r\n"), Some(204));
        assert_eq!(status(b"HTTP/1.0 503\r\n"), Some(503));
        for none in [&b""[..], b"SSH-2.0-x\r\n", b"HTTP/1.1\r\n", b"\xff\xff"] {
            assert_eq!(status(none), None);
        }
    }

    #[test]
    fn the_wildcard_is_reached_over_loopback() {
        let reached = |address: &str| reachable(address.parse().unwrap()).to_string();
        assert_eq!(reached("0.0.0.0:80"), "127.0.0.1:80");
        assert_eq!(reached("[::]:80"), "[::1]:80");
        assert_eq!(reached("10.0.0.1:80"), "10.0.0.1:80");
    }

    #[test]
    fn conditions_are_told_when_they_change_and_not_all_the_time() {
        let mut conditions = Conditions::default();
        let of = |word: &str| [word.to_owned()];
        assert!(conditions.are_news(&of("a")));
        assert!(!conditions.are_news(&of("a")));
        assert!(!conditions.are_news(&of("b")));
    }
}
