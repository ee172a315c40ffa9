//! Workers that nobody here has started: they connect to a socket, are judged, and wait for their turn.
//!
//! ```text
//! PATH ── accept, SO_PEERCRED, first word (5 s) ──► judged ──► waiting ──► a worker like any other
//!                                          refused: Dismiss ◄─┘   └ one that leaves is forgotten
//! ```
//!
//! | file | idea |
//! | --- | --- |
//! | `mod` | the socket, and what comes in there |
//! | `admission` | who may attach |
//! | `turn` | one that waits: its link, until it is its turn |
//! | `waiting` | all of them, in the front's hands |
//! | `joining` | one whose turn has come |
//! | `survivors` | those that serve without a front, when one is started anew |
//!
//! **Invariants**
//! - The front waits for nobody here: each caller has a task of its own, and a place among [`MOST_CALLERS`].
//! - Of a caller that is not judged yet one message is read, and no descriptor is received.

pub(crate) mod admission;
mod joining;
mod survivors;
mod turn;
mod waiting;

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ::handoff::attach::Application;
use ::handoff::chain;
use ::handoff::link::Link;
use ::handoff::message::{OLDEST_PROTOCOL, PROTOCOL, ToFront, ToWorker};
use ::handoff::socket::SocketFile;
use nix::unistd::chown;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tracing::{info, warn};

pub(crate) use self::admission::Admission;
pub(crate) use self::joining::came;
pub(crate) use self::turn::Applicant;
pub(crate) use self::waiting::{AttachState, Attachments, Parted};
use crate::claims;
use crate::control::server::{ControlFailed, ControlLock};

/// How many callers may be on their way to be judged; more wait in the socket's queue.
const MOST_CALLERS: usize = 8;
/// How many callers the kernel keeps for us.
const BACKLOG: i32 = 64;
/// How long a caller may take for its first word.
const WORD_TIMEOUT: Duration = Duration::from_secs(5);

/// Who is at the other end of an attached worker's link: what the kernel says, and what it says itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Peer {
    /// As it is called in this process's user namespace.
    pub(crate) user: u32,
    /// By its own account.
    pub(crate) program: String,
    /// Whether it was told to leave for good.
    #[serde(default)]
    pub(crate) dismissed: bool,
}

/// What the attach socket's task tells the front.
#[derive(Debug)]
pub(crate) enum Came {
    /// A worker that may attach.
    Applied(Box<(Peer, Link, Application)>),
    /// One that waited is gone.
    Left(u64),
}

/// Why workers cannot attach.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttachFailed {
    #[error(
        "another front{} has the attach socket {}; give this one its own",
        holder.map_or_else(String::new, |pid| format!(" (pid {pid})")),
        path.display()
    )]
    Owned { path: PathBuf, holder: Option<u32> },
    #[error("could not lock {}", path.display())]
    Lock { path: PathBuf, source: ControlFailed },
    #[error("{} exists and is no socket; it is left alone", path.display())]
    NotASocket { path: PathBuf },
    #[error("could not listen on {}", path.display())]
    Bind { path: PathBuf, source: io::Error },
}

/// The attach socket, while this front has it.
#[derive(Debug)]
pub(crate) struct AttachSocket {
    listener: OwnedFd,
    lock: OwnedFd,
    _file: SocketFile,
}

impl AttachSocket {
    /// Opens it; one that a dead front left behind is replaced.
    pub(crate) fn open(admission: &Admission) -> Result<Self, AttachFailed> {
        let path = &admission.path;
        let lock = ControlLock::take(path).map_err(|error| match error {
            ControlFailed::Owned { path, holder } => AttachFailed::Owned { path, holder },
            source => AttachFailed::Lock { path: path.clone(), source },
        })?;
        let failed = |source| AttachFailed::Bind { path: path.clone(), source };
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(AttachFailed::NotASocket { path: path.clone() });
            }
            // The lock says that its owner is gone.
            Ok(_) => fs::remove_file(path).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let listener = listen(path, admission).map_err(failed)?;
        let file = SocketFile::own(path.clone()).map_err(failed)?;
        info!(path = %path.display(), "workers may attach");
        Ok(Self { listener, lock: File::from(lock).into(), _file: file })
    }

    /// Goes on with it in another image of the front.
    pub(crate) fn resume(path: &Path, listener: OwnedFd, lock: OwnedFd) -> io::Result<Self> {
        Ok(Self { listener, lock, _file: SocketFile::own(path.to_owned())? })
    }
}

/// Nobody can connect before its file is whose it should be: until then nobody listens.
fn listen(path: &Path, admission: &Admission) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let listener =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    rustix::net::bind(&listener, &SocketAddrUnix::new(path)?)?;
    if let Some(group) = admission.group {
        chown(path, None, Some(group.into()))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(admission.mode))?;
    rustix::net::listen(&listener, BACKLOG)?;
    Ok(listener)
}

/// Listens there until whoever is told is gone.
async fn serve(listener: OwnedFd, admission: Arc<Admission>, front: mpsc::Sender<Came>) {
    let listener = match UnixListener::from_std(listener.into()) {
        Ok(listener) => listener,
        Err(error) => return warn!(%error, "nobody can attach: the socket cannot be polled"),
    };
    let places = Arc::new(Semaphore::new(MOST_CALLERS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = front.closed() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let (front, admission) = (front.clone(), Arc::clone(&admission));
                tokio::spawn(async move {
                    let _place = place;
                    receive(stream, &admission, &front).await;
                });
            }
            Err(error) => {
                warn!(%error, "could not accept a worker that attaches");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Hears one caller's first word, and judges.
async fn receive(stream: UnixStream, admission: &Admission, front: &mpsc::Sender<Came>) {
    let (user, link) = match introduced(stream) {
        Ok(introduced) => introduced,
        Err(error) => return warn!(%error, "a worker that attaches cannot be listened to"),
    };
    let refused = match timeout(WORD_TIMEOUT, link.receive_bare::<ToFront>()).await {
        Err(_) => format!("it says nothing within {WORD_TIMEOUT:?}"),
        Ok(Ok(None)) => return link.close_aside(),
        Ok(Err(error)) => chain(&error),
        Ok(Ok(Some(ToFront::Attach(application)))) => match judge(admission, user, &application) {
            Ok(()) => {
                let program = claims::name(&application.program);
                let peer = Peer { user, program, dismissed: false };
                // A front that is gone needs nobody.
                let _ = front.send(Came::Applied(Box::new((peer, link, application)))).await;
                return;
            }
            Err(reason) => reason,
        },
        Ok(Ok(Some(_))) => "it begins with another word than a worker that attaches".to_owned(),
    };
    warn!(user, reason = refused, "a worker may not attach");
    dismiss(link, refused);
}

fn introduced(stream: UnixStream) -> io::Result<(u32, Link)> {
    let user = stream.peer_cred()?.uid();
    Ok((user, Link::new(stream.into_std()?.into())?))
}

fn judge(admission: &Admission, user: u32, application: &Application) -> Result<(), String> {
    let theirs = application.protocol;
    if !(OLDEST_PROTOCOL..=PROTOCOL).contains(&theirs) {
        return Err(format!(
            "it speaks protocol {theirs}, and this front {OLDEST_PROTOCOL} to {PROTOCOL}"
        ));
    }
    admission.judge(user, application.token.as_deref()).map_err(|refused| refused.to_string())
}

/// Says why, and lets go.
fn dismiss(link: Link, reason: String) {
    // One that has no room for it has said too much itself.
    let _ = link.try_send(&ToWorker::Dismiss { reason }, &[]);
    link.close_aside();
}
