//! How a worker begins: as one that a front started, or by itself.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustix::net::SocketType;

use tracing::info;

use super::LINK_VARIABLE;
use crate::attach::CallFailed;
use crate::fault::{self, Point};
use crate::link::{Link, LinkError};
use crate::message::{Hello, OLDEST_PROTOCOL, PROTOCOL, ToFront, ToWorker};
use crate::socket::{Address, ListeningSocket, NotAnAddress, OpenFailed};

/// How long a worker waits for the front's [`Hello`].
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a worker could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartFailed {
    /// Descriptor 0 could not be taken as the link.
    #[error("could not take the link from descriptor 0")]
    TakeLink {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The front did not introduce itself in time.
    #[error("the front sent no hello within {HELLO_TIMEOUT:?}")]
    NoHello,
    /// The front closed the link instead of introducing itself.
    #[error("the front closed the link before its hello")]
    FrontGone,
    /// The link failed.
    #[error("could not receive the front's hello")]
    Link {
        /// Why.
        #[source]
        source: LinkError,
    },
    /// The front began with something else.
    #[error("the front began with another message than hello")]
    NotHello,
    /// The front speaks a protocol this worker does not.
    #[error("the front speaks protocol {theirs}, and this worker {OLDEST_PROTOCOL} to {PROTOCOL}")]
    Protocol {
        /// The front's version.
        theirs: u32,
    },
    /// The front named an address that is none, or not the sockets it sent.
    #[error("the front's sockets are not the ones it named: {reason}")]
    Sockets {
        /// What is wrong with them.
        reason: String,
    },
    /// The front's attach socket could not be called.
    #[error("could not attach to the front at {}", path.display())]
    Attach {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        #[source]
        source: CallFailed,
    },
    /// The front will not have this worker.
    #[error("the front turned this worker away: {reason}")]
    Dismissed {
        /// As the front says it.
        reason: String,
    },
    /// There is no front, and the address could not be opened.
    #[error("could not open the listening sockets")]
    Open {
        /// Which one, and why.
        #[source]
        source: OpenFailed,
    },
}

impl StartFailed {
    /// Whether another try, later, may go better: for the exit code.
    #[must_use]
    pub const fn may_try_again(&self) -> bool {
        matches!(self, Self::Attach { .. } | Self::Dismissed { .. } | Self::FrontGone)
    }
}

/// Takes the link from descriptor 0, if a front put one there, and leaves `/dev/null` in its place.
pub(super) fn take_link() -> Result<Option<Link>, StartFailed> {
    let taken = || -> io::Result<Option<Link>> {
        if std::env::var_os(LINK_VARIABLE).is_none_or(|value| value != "stdin") {
            return Ok(None);
        }
        // The variable also reaches what a worker spawns; the link itself does not.
        let stdin = io::stdin();
        if !rustix::net::sockopt::socket_type(&stdin)
            .is_ok_and(|kind| kind == SocketType::SEQPACKET)
        {
            return Ok(None);
        }
        let link = rustix::io::fcntl_dupfd_cloexec(&stdin, 3)?;
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        Link::new(link).map(Some)
    };
    taken().map_err(|source| StartFailed::TakeLink { source })
}

pub(super) async fn receive_hello(
    link: &Link,
) -> Result<(Hello, Vec<ListeningSocket>), StartFailed> {
    let mut limit = Some(HELLO_TIMEOUT);
    let (hello, descriptors) = loop {
        let received = within(limit, link.receive::<ToWorker>())
            .await?
            .map_err(|source| StartFailed::Link { source })?
            .ok_or(StartFailed::FrontGone)?;
        match received.message {
            ToWorker::Hello(hello) => break (hello, received.descriptors),
            ToWorker::Waiting { ahead } => {
                info!(ahead, "attached, and waits for its turn");
                // Others may take as long as they need; the front's end is the link's.
                limit = None;
            }
            ToWorker::Dismiss { reason } => return Err(StartFailed::Dismissed { reason }),
            _ => return Err(StartFailed::NotHello),
        }
    };
    fault::reach(Point::HelloReceived);
    if !(OLDEST_PROTOCOL..=PROTOCOL).contains(&hello.protocol) {
        let refused = StartFailed::Protocol { theirs: hello.protocol };
        // The front also learns it from the exit; in words it can show them.
        let _ = link.send(&ToFront::Refuse { reason: refused.to_string() }, &[]).await;
        return Err(refused);
    }
    if hello.sockets.len() != descriptors.len() {
        return Err(StartFailed::Sockets {
            reason: format!("{} were named and {} came", hello.sockets.len(), descriptors.len()),
        });
    }
    let mut sockets = Vec::with_capacity(hello.sockets.len());
    for (entry, descriptor) in hello.sockets.iter().zip(descriptors) {
        let address = entry
            .address
            .parse()
            .map_err(|error: NotAnAddress| StartFailed::Sockets { reason: error.to_string() })?;
        sockets.push(ListeningSocket::adopt(address, entry.shard, descriptor));
    }
    Ok((hello, sockets))
}

async fn within<T>(
    limit: Option<Duration>,
    waited: impl Future<Output = T>,
) -> Result<T, StartFailed> {
    match limit {
        Some(limit) => tokio::time::timeout(limit, waited).await.map_err(|_| StartFailed::NoHello),
        None => Ok(waited.await),
    }
}

pub(super) fn open_all(addresses: &[Address]) -> Result<Vec<ListeningSocket>, StartFailed> {
    let mut sockets = Vec::new();
    for address in addresses {
        match ListeningSocket::open(address, 1, 0o600) {
            Ok(group) => sockets.extend(group),
            Err(source) => return Err(StartFailed::Open { source }),
        }
    }
    Ok(sockets)
}
