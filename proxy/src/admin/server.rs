//! The process of the status page: it accepts, and each caller has a task of its own.
//!
//! **Invariants**
//! - At most [`MOST_CONNECTIONS`] are open, and one that says nothing, or goes on for ever, is let go of.
//! - Started by a front it ends with it, however that ended.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::getppid;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::answer::Site;
use super::flags::{AdminFlags, AdminRefused};
use super::gate::Gate;
use super::look::Looker;

/// How many connections are open at once; more wait in the socket's queue.
const MOST_CONNECTIONS: usize = 64;
/// How long a request's head, or the next request, may be awaited.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection lasts: a little longer than anybody is told what has changed.
const LONGEST_CONNECTION: Duration = Duration::from_secs(16 * 60);
/// How large a request's head may be, in bytes.
const LARGEST_HEAD: usize = 16 * 1024;
/// How long what is being answered may take once this process is to end.
const LAST_ANSWERS: Duration = Duration::from_millis(500);
/// How long nothing is accepted after that had failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why there is no status page.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeFailed {
    #[error(transparent)]
    Refused {
        #[from]
        source: AdminRefused,
    },
    #[error("could not use the socket of the status page")]
    Socket { source: io::Error },
    #[error("the front that started the status page is gone")]
    FrontGone,
    #[error("could not listen for signals")]
    Signals { source: io::Error },
}

/// Where the socket comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// This process opens it, and is nobody's.
    Own(SocketAddr),
    /// A front has opened it, as stdin of this process, which is its child.
    Front(i32),
}

/// Serves the status page until it is told to end, or its front has ended.
///
/// # Errors
/// When it could not begin.
pub(crate) async fn serve(
    origin: Origin,
    flags: &AdminFlags,
    control: PathBuf,
) -> Result<(), ServeFailed> {
    let signals = |source| ServeFailed::Signals { source };
    let mut terminate = signal(SignalKind::terminate()).map_err(signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(signals)?;
    let gate = Gate::new(flags.token()?.as_ref());
    let listener = match origin {
        Origin::Own(address) => open(address)?,
        Origin::Front(front) => {
            end_with(front)?;
            io::stdin()
                .as_fd()
                .try_clone_to_owned()
                .map_err(|source| ServeFailed::Socket { source })?
                .into()
        }
    };
    // What is not needed cannot be taken: it starts nothing.
    let _ = prctl::set_no_new_privs();
    let socket = |source| ServeFailed::Socket { source };
    listener.set_nonblocking(true).map_err(socket)?;
    let listener = TcpListener::from_std(listener).map_err(socket)?;
    let address = listener.local_addr().map_err(socket)?;
    info!(%address, "status page");
    let (end, ending) = watch::channel(());
    let site = Arc::new(Site::new(gate, Looker::new(control), ending.clone()));
    let mut connections = JoinSet::new();
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let place = tokio::select! {
            Ok(place) = Arc::clone(&places).acquire_owned() => place,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%error, "could not accept a caller of the status page");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        };
        // Those that have ended.
        while connections.try_join_next().is_some() {}
        let (site, ending) = (Arc::clone(&site), ending.clone());
        connections.spawn(async move {
            let _place = place;
            converse(stream, site, ending).await;
        });
    }
    drop(listener);
    // Nobody may be left to hear it.
    let _ = end.send(());
    let _ = timeout(LAST_ANSWERS, async { while connections.join_next().await.is_some() {} }).await;
    Ok(())
}

/// Opens a socket to accept from.
///
/// # Errors
/// When the kernel refuses that, with the address.
pub(crate) fn open(address: SocketAddr) -> Result<std::net::TcpListener, AdminRefused> {
    std::net::TcpListener::bind(address).map_err(|source| AdminRefused::Listen { address, source })
}

/// Has this process end with the front that started it.
fn end_with(front: i32) -> Result<(), ServeFailed> {
    // Without it the socket would be held beyond the front by a process that has nothing to tell.
    prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(|error| ServeFailed::Socket { source: error.into() })?;
    // It may have ended before that.
    if getppid().as_raw() == front { Ok(()) } else { Err(ServeFailed::FrontGone) }
}

async fn converse(stream: TcpStream, site: Arc<Site>, mut ending: watch::Receiver<()>) {
    let service = service_fn(move |request| {
        let site = Arc::clone(&site);
        async move { Ok::<_, Infallible>(site.answer(request).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(LARGEST_HEAD);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let outcome = tokio::select! {
        outcome = timeout(LONGEST_CONNECTION, &mut connection) => outcome,
        _ = ending.changed() => {
            connection.as_mut().graceful_shutdown();
            timeout(LAST_ANSWERS, &mut connection).await
        }
    };
    if let Ok(Err(error)) = outcome {
        debug!(%error, "a caller of the status page left");
    }
}
