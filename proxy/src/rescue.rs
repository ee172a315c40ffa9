//! Finding the workers that outlived their front, asking each what it is, and making them this front's own.
//!
//! ```text
//! CONTROL.rescue/g7.sock ── call, SO_PEERCRED ──► pid ──► pidfd ──► Rescue ──► Rescued + sockets
//!   nobody listens: the file is removed            │ no answer: it is ended, and waited for
//!   another user's: it is left alone               └ the link answers after this: the pid is still its own
//! ```
//!
//! **Invariants**
//! - It happens under the control lock and before anything is bound: there is no other front, and no second socket.
//! - Workers serve all the while. Nothing is told to any before each has been asked.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown,
};

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ::handoff::fault::{self, Point};
use ::handoff::link::{Link, LinkError};
use ::handoff::message::{GenerationId, PROTOCOL, ToFront, ToWorker};
use ::handoff::rescue::{self, Rescue, Rescued};
use ::handoff::socket::ListeningSocket;
use nix::unistd::{Gid, Pid, Uid};
use rustix::fs::OFlags;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::adoption::Adopted;
use crate::age::ago;
use crate::event::EXIT_TIMEOUT;
use crate::rights::Rights;
use crate::workers::Origin;

/// How long a worker may take to say what it is. It serves meanwhile, so that patience costs nobody anything.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How the file ends that says that a generation was started.
const TRACE: &str = ".started";
/// How the file ends that says that a generation attached itself, and may call the next front.
const ATTACHED: &str = ".attached";

/// Why the workers of an earlier front could not be gone on with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RescueFailed {
    #[error("could not use the directory {}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("{} is another user's, or no directory; remove it, or name another control socket with --control", path.display())]
    NotOurs { path: PathBuf },
    #[error("could not ask {generation}, which serves without a front")]
    Ask { generation: GenerationId, source: io::Error },
    #[error(
        "{generation} (pid {pid}) serves without a front and does not work with this one: {reason}"
    )]
    Refused { generation: GenerationId, pid: i32, reason: String },
    #[error(
        "{generation} (pid {pid}) serves without a front, does not answer, and cannot be ended"
    )]
    Unending { generation: GenerationId, pid: i32 },
}

/// The directory of the workers' rescue sockets: theirs alone, which may be of another user than the front.
#[derive(Debug)]
pub(crate) struct RescueDirectory {
    path: PathBuf,
    /// Whose workers are, if not the front's own user's.
    owner: Option<(Uid, Gid)>,
}

/// A worker that outlived its front.
#[derive(Debug)]
pub(crate) struct Survivor {
    pub(crate) origin: Origin,
    pub(crate) link: OwnedFd,
    pub(crate) account: Rescued,
    pub(crate) sockets: Vec<ListeningSocket>,
}

/// All that was found.
#[derive(Debug, Default)]
pub(crate) struct Survivors {
    pub(crate) workers: Vec<Survivor>,
    /// The latest generation that left a trace.
    pub(crate) latest: Option<GenerationId>,
}

impl RescueDirectory {
    /// The one beside this control socket, for workers with these rights.
    pub(crate) fn beside(control: &Path, rights: &Rights) -> Self {
        let mut path = control.as_os_str().to_owned();
        path.push(".rescue");
        let path = PathBuf::from(path);
        // Workers are told of it, and may be elsewhere; it fails where the working directory is gone.
        Self { path: std::path::absolute(&path).unwrap_or(path), owner: rights.owner() }
    }

    /// Makes it, if it is not there.
    ///
    /// # Errors
    /// [`RescueFailed::NotOurs`]: what lies there is not trusted.
    pub(crate) fn prepare(&self) -> Result<(), RescueFailed> {
        let path = &self.path;
        let failed = |source| RescueFailed::Directory { path: path.clone(), source };
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(error));
            }
            _ => {}
        }
        // By its descriptor: with workers of another user, what lies at the path may be another thing a moment later.
        let flags = (OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC).bits().cast_signed();
        let not_ours = |_| RescueFailed::NotOurs { path: path.clone() };
        let there = File::options().read(true).custom_flags(flags).open(path).map_err(not_ours)?;
        let found = there.metadata().map_err(failed)?;
        if ![Uid::effective(), self.user()].contains(&Uid::from_raw(found.uid())) {
            return Err(RescueFailed::NotOurs { path: path.clone() });
        }
        if let Some((user, group)) = self.owner
            && found.uid() != user.as_raw()
        {
            fchown(&there, Some(user.as_raw()), Some(group.as_raw())).map_err(failed)?;
        }
        if found.mode() & 0o777 != 0o700 {
            there.set_permissions(fs::Permissions::from_mode(0o700)).map_err(failed)?;
        }
        Ok(())
    }

    /// The user of the workers. Nobody else's process is one, not even root's: what lies in a directory of theirs may
    /// lead anywhere.
    fn user(&self) -> Uid {
        self.owner.map_or_else(Uid::effective, |(user, _)| user)
    }

    /// As a worker is told it; `None` when it cannot be written in a message.
    pub(crate) fn name(&self) -> Option<String> {
        self.path.to_str().map(str::to_owned)
    }

    /// A worker is about to be started: whatever becomes of it and of this front, its number is not given again.
    pub(crate) fn expect(&self, generation: GenerationId) {
        let path = self.trace(generation);
        let failed = |source| RescueFailed::Directory { path: path.clone(), source };
        // What is there already is not written to: it may be a link of a worker's.
        let make = || File::options().write(true).create_new(true).open(&path);
        if let Err(error) = self.prepare().and_then(|()| make().map_err(failed)) {
            let error = ::handoff::chain(&error);
            warn!(%generation, error, "a front that comes after this one may not find a worker");
        }
        for earlier in self.traces().filter(|earlier| *earlier < generation) {
            // The later one says as much.
            let _ = fs::remove_file(self.trace(earlier));
        }
    }

    /// A worker has attached itself: a front that comes after this one has to wait for it.
    pub(crate) fn expect_attached(&self, generation: GenerationId) {
        let make = File::options().write(true).create_new(true).open(self.attached(generation));
        if let Err(error) = make {
            warn!(%generation, %error, "a front that comes after this one may not wait for a worker");
        }
    }

    fn attached(&self, generation: GenerationId) -> PathBuf {
        self.path.join(format!("{generation}{ATTACHED}"))
    }

    /// The generations that had attached themselves to an earlier front. What says so stays until [`Self::forget`]: this front
    /// may die as well, and the next one has to wait for them again.
    pub(crate) fn attached_before(&self) -> Vec<GenerationId> {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(ATTACHED)?.parse().ok())
            .collect()
    }

    fn trace(&self, generation: GenerationId) -> PathBuf {
        self.path.join(format!("{generation}{TRACE}"))
    }

    /// The generations that were started, as far as there are traces of it.
    fn traces(&self) -> impl Iterator<Item = GenerationId> {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(TRACE)?.parse().ok())
    }

    /// This front ends in good order, and nobody serves any more.
    pub(crate) fn remove(&self) {
        for generation in self.traces() {
            // What stays behind makes the next number a higher one.
            let _ = fs::remove_file(self.trace(generation));
        }
        // One that is not empty stays.
        let _ = fs::remove_dir(&self.path);
    }

    /// A worker is gone: so is its socket's file, which it could not remove if it was killed.
    pub(crate) fn forget(&self, generation: GenerationId) {
        // Usually it is gone already.
        let _ = fs::remove_file(rescue::socket_path(&self.path, generation));
        // Most had none.
        let _ = fs::remove_file(self.attached(generation));
    }

    /// Everybody who serves without a front. The files of those who are gone are removed.
    ///
    /// # Errors
    /// When there is somebody who can be neither gone on with nor ended.
    pub(crate) async fn search(&self) -> Result<Survivors, RescueFailed> {
        let failed = |source| RescueFailed::Directory { path: self.path.clone(), source };
        let mut survivors = Survivors { latest: self.traces().max(), ..Survivors::default() };
        let mut asked = JoinSet::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let Some(generation) = rescue::generation_of(&path) else { continue };
            survivors.latest = survivors.latest.max(Some(generation));
            if let Some(caller) = Caller::of(generation, &path, self.user())? {
                asked.spawn(caller.ask());
            }
        }
        while let Some(answer) = asked.join_next().await {
            let answer =
                answer.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
            if let Some(survivor) = answer? {
                survivors.workers.push(survivor);
            }
        }
        survivors.workers.sort_by_key(|survivor| survivor.account.generation);
        Ok(survivors)
    }
}

/// A call of one worker's rescue socket.
struct Caller {
    generation: GenerationId,
    process: Adopted,
    link: Link,
}

impl Caller {
    /// `None` when nobody is there, or somebody who is none of ours.
    fn of(generation: GenerationId, path: &Path, user: Uid) -> Result<Option<Self>, RescueFailed> {
        let failed = |source| RescueFailed::Ask { generation, source };
        let (end, peer) = match rescue::call(path) {
            Ok(called) => called,
            Err(error) if is_gone(&error) => {
                // Another one may have removed it.
                let _ = fs::remove_file(path);
                return Ok(None);
            }
            Err(error) => return Err(failed(error)),
        };
        let pid = peer.pid().filter(|pid| *pid > 0);
        let (true, Some(pid)) = (peer.uid() == user.as_raw(), pid) else {
            warn!(path = %path.display(), user = peer.uid(), pid, "a rescue socket is not a worker's of this front, and is left alone");
            return Ok(None);
        };
        let Some(process) = Adopted::open(pid).map_err(failed)? else { return Ok(None) };
        let link = Link::new(end).map_err(failed)?;
        Ok(Some(Self { generation, process, link }))
    }

    /// What the worker is; `None` when it ends, or had to be ended.
    async fn ask(self) -> Result<Option<Survivor>, RescueFailed> {
        let Self { generation, process, link } = self;
        let pid = process.pid().as_raw();
        let reason = match tokio::time::timeout(ANSWER_TIMEOUT, answer(&link)).await {
            Ok(Ok(Answer::Is(account, descriptors))) => {
                match sockets(&account, descriptors) {
                    // Only the worker holds the other end, so the pid is its own to this moment.
                    Ok(sockets) if account.generation == generation => {
                        let link = link
                            .into_descriptor()
                            .map_err(|source| RescueFailed::Ask { generation, source })?;
                        let origin = Origin::Adopted(process);
                        return Ok(Some(Survivor { origin, link, account, sockets }));
                    }
                    Ok(_) => format!("it is {}", account.generation),
                    Err(reason) => reason,
                }
            }
            Ok(Ok(Answer::Refuses(reason))) => {
                return Err(RescueFailed::Refused { generation, pid, reason });
            }
            // It was never admitted, or leaves.
            Ok(Ok(Answer::Ends)) => return Ok(None),
            Ok(Err(error)) => ::handoff::chain(&error),
            Err(_) => format!("it does not say what it is within {ANSWER_TIMEOUT:?}"),
        };
        warn!(%generation, pid, reason, "a worker without a front is ended");
        process.kill_group();
        match tokio::time::timeout(EXIT_TIMEOUT, process.ended()).await {
            Ok(()) => Ok(None),
            Err(_) => Err(RescueFailed::Unending { generation, pid }),
        }
    }
}

pub(crate) enum Answer {
    Is(Rescued, Vec<OwnedFd>),
    Refuses(String),
    Ends,
}

pub(crate) async fn answer(link: &Link) -> Result<Answer, LinkError> {
    // One that is gone is met by the receive.
    let _ = link.send(&ToWorker::Rescue(Rescue { protocol: PROTOCOL }), &[]).await;
    fault::reach(Point::RescueSent);
    loop {
        let received = match link.receive::<ToFront>().await {
            Ok(Some(received)) => received,
            Ok(None) => return Ok(Answer::Ends),
            Err(LinkError::Socket { source }) if is_gone(&source) => return Ok(Answer::Ends),
            Err(error) => return Err(error),
        };
        match received.message {
            ToFront::Rescued(account) => return Ok(Answer::Is(account, received.descriptors)),
            ToFront::Refuse { reason } => return Ok(Answer::Refuses(reason)),
            _ => {}
        }
    }
}

/// Whether an error says that nobody is there, or not any more.
fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound};
    matches!(error.kind(), NotFound | ConnectionRefused | ConnectionReset | BrokenPipe)
}

/// The sockets that came with an account.
pub(crate) fn sockets(
    account: &Rescued,
    descriptors: Vec<OwnedFd>,
) -> Result<Vec<ListeningSocket>, String> {
    if account.sockets.len() != descriptors.len() {
        let (named, came) = (account.sockets.len(), descriptors.len());
        return Err(format!("it named {named} sockets, and {came} came"));
    }
    let mut sockets = Vec::with_capacity(descriptors.len());
    for (entry, descriptor) in account.sockets.iter().zip(descriptors) {
        let address = entry.address.parse().map_err(|error| format!("{error}"))?;
        if !rustix::net::sockopt::socket_acceptconn(&descriptor).unwrap_or(false) {
            return Err(format!("what it sent as {} does not listen", entry.address));
        }
        sockets.push(ListeningSocket::adopt(address, entry.shard, descriptor));
    }
    Ok(sockets)
}

impl Survivors {
    /// The sockets of all of them, each once; and those whose own are not these. Who has the lease is believed first,
    /// then who is newer.
    pub(crate) fn take_sockets(&mut self) -> (Vec<ListeningSocket>, Vec<GenerationId>) {
        let mut order: Vec<&mut Survivor> = self.workers.iter_mut().collect();
        order.sort_by_key(|survivor| {
            let account = &survivor.account;
            (
                account.standing.is_draining(),
                account.lease.is_none(),
                std::cmp::Reverse(account.generation),
            )
        });
        let (mut kept, mut astray) = (Vec::<ListeningSocket>::new(), Vec::new());
        for survivor in order {
            let generation = survivor.account.generation;
            for socket in survivor.sockets.drain(..) {
                let same = |other: &&ListeningSocket| {
                    (&other.address, other.shard) == (&socket.address, socket.shard)
                };
                match kept.iter().find(same) {
                    None => kept.push(socket),
                    Some(other) if other.inode().ok() == socket.inode().ok() => {}
                    Some(_) => {
                        warn!(%generation, address = %socket.address, "its socket is another one; it drains");
                        astray.push(generation);
                        break;
                    }
                }
            }
        }
        (kept, astray)
    }

    /// Says who was found.
    pub(crate) fn tell(&self) {
        for Survivor { origin, account, .. } in &self.workers {
            info!(
                generation = %account.generation,
                pid = origin.pid().map(Pid::as_raw),
                standing = account.standing.word(),
                lease = account.lease,
                "found a worker of an earlier front"
            );
        }
        fault::reach((!self.workers.is_empty()).then_some(Point::Found));
    }
}

impl Survivor {
    /// When it was started.
    pub(crate) fn started_at(&self) -> Instant {
        ago(Duration::from_millis(self.account.age_ms))
    }
}
