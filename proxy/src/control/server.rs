//! The front's side of the control socket: one short-lived task per caller, none of which can hold
//! the front up.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use handoff::message::{GenerationId, Report};
use handoff::socket::SocketFile;
use nix::unistd::Uid;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::control::MAX_REQUEST;
use crate::control::document::Status;
use crate::control::protocol::{Answer, Command, TakeoverRequest};
use crate::control::understood::understood;
use crate::reexec::Caller;
use crate::reexec::state::{ControlState, number};
use crate::tally::Tally;

/// How many callers are served at once; more wait in the socket's queue.
const MOST_CALLERS: usize = 32;
/// How long a caller may take to send its request, or to read a line of the answer.
const CALLER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a worker may take to tell how it is, before status does without.
const REPORT_TIMEOUT: Duration = Duration::from_millis(500);
/// How often a caller that waits for a drain is told what it waits for.
const DRAIN_INTERVAL: Duration = Duration::from_millis(250);

/// The control socket, while this front owns it.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    path: PathBuf,
    listener: UnixListener,
    _file: SocketFile,
    lock: File,
}

/// Why this front cannot own the control socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlFailed {
    #[error(
        "another front{} owns {}; stop it with `holdfast stop`, or give this one its own with --control",
        holder.map_or_else(String::new, |pid| format!(" (pid {pid})")),
        path.display()
    )]
    Owned { path: PathBuf, holder: Option<u32> },
    #[error("could not make the directory {}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("could not lock {}", path.display())]
    Lock { path: PathBuf, source: io::Error },
    #[error("{} is {length} bytes long, and a socket's path has {MAX_PATH} at most; name a shorter one with --control", path.display())]
    TooLong { path: PathBuf, length: usize },
    #[error("{} exists and is no socket; it is left alone", path.display())]
    NotASocket { path: PathBuf },
    #[error("could not listen on {}", path.display())]
    Bind { path: PathBuf, source: io::Error },
}

/// `sun_path` with its terminator (unix(7)).
pub(crate) const MAX_PATH: usize = 107;

/// The right to own the control socket at a path: a lock, which dies with its process.
#[derive(Debug)]
pub(crate) struct ControlLock {
    path: PathBuf,
    lock: File,
}

impl ControlLock {
    /// Takes the lock beside `path`, and says who holds it otherwise.
    pub(crate) fn take(path: &Path) -> Result<Self, ControlFailed> {
        use std::io::{Seek as _, Write as _};
        let length = path.as_os_str().len();
        if length > MAX_PATH {
            return Err(ControlFailed::TooLong { path: path.to_owned(), length });
        }
        if let Some(directory) = path.parent() {
            make_private_directory(directory).map_err(|source| ControlFailed::Directory {
                path: directory.to_owned(),
                source,
            })?;
        }
        let mut lock_path = path.as_os_str().to_owned();
        lock_path.push(".lock");
        let lock_path = PathBuf::from(lock_path);
        let failed = |source| ControlFailed::Lock { path: lock_path.clone(), source };
        let mut lock = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&lock_path)
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                let holder = std::fs::read_to_string(&lock_path).ok();
                let holder = holder.and_then(|text| text.trim().parse().ok());
                return Err(ControlFailed::Owned { path: path.to_owned(), holder });
            }
            Err(std::fs::TryLockError::Error(source)) => return Err(failed(source)),
        }
        lock.set_len(0).map_err(failed)?;
        lock.rewind().map_err(failed)?;
        writeln!(lock, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { path: path.to_owned(), lock })
    }

    /// Opens the socket; one that a dead front left behind is replaced.
    pub(crate) fn open(self) -> Result<ControlSocket, ControlFailed> {
        use std::os::unix::fs::FileTypeExt as _;
        let Self { path, lock } = self;
        let failed = |source| ControlFailed::Bind { path: path.clone(), source };
        match std::fs::symlink_metadata(&path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(ControlFailed::NotASocket { path });
            }
            // The lock says that its owner is gone.
            Ok(_) => std::fs::remove_file(&path).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let listener = UnixListener::bind(&path).map_err(failed)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let file = SocketFile::own(path.clone()).map_err(failed)?;
        Ok(ControlSocket { path, listener, _file: file, lock })
    }
}

/// The lock alone, for another socket than the control socket.
impl From<ControlLock> for File {
    fn from(lock: ControlLock) -> Self {
        lock.lock
    }
}

/// Copies of what makes a front the owner of its control socket, for another image of it.
#[derive(Debug)]
pub(crate) struct ControlHold {
    path: PathBuf,
    listener: OwnedFd,
    lock: OwnedFd,
}

impl ControlHold {
    /// Where the socket is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What another image is told of it.
    pub(crate) fn state(&self) -> ControlState {
        ControlState {
            path: self.path.clone(),
            listener: number(&self.listener),
            lock: number(&self.lock),
        }
    }
}

impl ControlSocket {
    /// Goes on as the owner.
    pub(crate) fn resume(
        path: PathBuf,
        listener: OwnedFd,
        lock: OwnedFd,
    ) -> Result<Self, ControlFailed> {
        let failed = |source| ControlFailed::Bind { path: path.clone(), source };
        let listener = UnixListener::from_std(listener.into()).map_err(failed)?;
        let file = SocketFile::own(path.clone()).map_err(failed)?;
        Ok(Self { path, listener, _file: file, lock: lock.into() })
    }

    /// Copies for another image.
    ///
    /// # Errors
    /// When the process may open no more descriptors.
    pub(crate) fn hold(&self) -> io::Result<ControlHold> {
        let listener = self.listener.as_fd().try_clone_to_owned()?;
        let lock = self.lock.as_fd().try_clone_to_owned()?;
        Ok(ControlHold { path: self.path.clone(), listener, lock })
    }
}

/// Makes a directory that is the owner's alone; one that exists is left as it is.
fn make_private_directory(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// What a caller asks of the front's task.
#[derive(Debug)]
pub(crate) enum Asked {
    Status { reply: oneshot::Sender<StatusInParts> },
    Metrics { reply: oneshot::Sender<Tally> },
    Takeover { request: TakeoverRequest, reply: oneshot::Sender<Result<Watch, String>> },
    Follow { takeover: u64, reply: oneshot::Sender<Result<Watch, String>> },
    Reexec { binary: Option<String>, caller: Caller },
    Report { generation: GenerationId, reply: oneshot::Sender<Report> },
    Drain { generation: GenerationId, reply: oneshot::Sender<Result<(), String>> },
    Pause { timeout: Duration, reply: oneshot::Sender<Result<(), String>> },
    Resume { reply: oneshot::Sender<Result<(), String>> },
    Stop { now: bool, reply: oneshot::Sender<()> },
}

/// A status whose generations have been asked how they are.
#[derive(Debug)]
pub(crate) struct StatusInParts {
    pub(crate) status: Status,
    pub(crate) reports: Vec<(GenerationId, oneshot::Receiver<Report>)>,
}

/// A takeover to follow.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) takeover: u64,
    pub(crate) events: mpsc::Receiver<Answer>,
    /// Who drains, of one that is committed already.
    pub(crate) draining: Option<GenerationId>,
}

impl ControlSocket {
    /// Serves callers until the front ends.
    pub(crate) async fn serve(self, front: mpsc::Sender<Asked>) {
        let places = Arc::new(Semaphore::new(MOST_CALLERS));
        loop {
            let place = Arc::clone(&places).acquire_owned().await;
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let front = front.clone();
                    tokio::spawn(async move {
                        let _place = place;
                        if let Err(error) = serve_caller(stream, front).await {
                            debug!(%error, "a control caller left");
                        }
                    });
                }
                Err(error) => {
                    warn!(%error, "could not accept a control caller");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn serve_caller(stream: UnixStream, front: mpsc::Sender<Asked>) -> io::Result<()> {
    let caller = stream.peer_cred()?.uid();
    let (read, write) = stream.into_split();
    let mut caller_side = CallerSide { read, write };
    if caller != 0 && caller != Uid::effective().as_raw() {
        let reason = format!("user {caller} may not control this front");
        return caller_side.say(&Answer::Refused { reason }).await;
    }
    let command = match read_request(&mut caller_side.read).await? {
        Ok(command) => command,
        Err(reason) => return caller_side.say(&Answer::Refused { reason }).await,
    };
    match command {
        Command::Status => caller_side.status(&front).await,
        Command::Metrics => {
            let (reply, tally) = oneshot::channel();
            ask(&front, Asked::Metrics { reply }).await?;
            let Ok(tally) = tally.await else { return Ok(()) };
            caller_side.say(&Answer::Metrics(Box::new(tally))).await
        }
        Command::Takeover(request) => {
            let wait = request.wait;
            let (reply, watch) = oneshot::channel();
            ask(&front, Asked::Takeover { request, reply }).await?;
            caller_side.follow(watch, wait, &front).await
        }
        Command::Follow { takeover } => {
            let (reply, watch) = oneshot::channel();
            ask(&front, Asked::Follow { takeover, reply }).await?;
            caller_side.follow(watch, true, &front).await
        }
        Command::Reexec { binary } => {
            let stream = caller_side.read.reunite(caller_side.write).map_err(io::Error::other)?;
            let caller = Caller(stream.into_std()?);
            ask(&front, Asked::Reexec { binary, caller }).await
        }
        Command::Drain { generation } => {
            let (reply, answer) = oneshot::channel();
            ask(&front, Asked::Drain { generation, reply }).await?;
            let answer = match answer.await {
                Ok(Err(reason)) => Answer::Refused { reason },
                Ok(Ok(())) | Err(_) => Answer::Accepted,
            };
            caller_side.say(&answer).await
        }
        Command::Pause { timeout_ms } => {
            let timeout = Duration::from_millis(timeout_ms);
            caller_side.ask(&front, |reply| Asked::Pause { timeout, reply }).await
        }
        Command::Resume => caller_side.ask(&front, |reply| Asked::Resume { reply }).await,
        Command::Stop { now } => {
            let (reply, answer) = oneshot::channel();
            ask(&front, Asked::Stop { now, reply }).await?;
            // An error means the front is gone already, which is what was asked.
            let _ = answer.await;
            caller_side.say(&Answer::Accepted).await?;
            // The end of the stream tells the caller that the front is gone.
            caller_side.has_left().await;
            Ok(())
        }
    }
}

async fn ask(front: &mpsc::Sender<Asked>, asked: Asked) -> io::Result<()> {
    front.send(asked).await.map_err(|_| io::Error::other("the front is gone"))
}

/// The command of a request, or what is wrong with it.
async fn read_request(read: &mut OwnedReadHalf) -> io::Result<Result<Command, String>> {
    let mut line = Vec::new();
    let limit = MAX_REQUEST as u64 + 1;
    let mut reader = BufReader::new(read.take(limit));
    match timeout(CALLER_TIMEOUT, reader.read_until(b'\n', &mut line)).await {
        Err(_) => return Ok(Err(format!("no whole request within {CALLER_TIMEOUT:?}"))),
        Ok(outcome) => outcome?,
    };
    if line.len() > MAX_REQUEST {
        return Ok(Err(format!("a request has at most {MAX_REQUEST} bytes")));
    }
    Ok(understood(&line))
}

struct CallerSide {
    read: OwnedReadHalf,
    write: OwnedWriteHalf,
}

impl CallerSide {
    async fn say(&mut self, answer: &Answer) -> io::Result<()> {
        let mut line = serde_json::to_vec(answer)?;
        line.push(b'\n');
        timeout(CALLER_TIMEOUT, self.write.write_all(&line)).await?
    }

    /// Passes on what comes of a question.
    async fn ask(
        &mut self,
        front: &mpsc::Sender<Asked>,
        asked: impl FnOnce(oneshot::Sender<Result<(), String>>) -> Asked,
    ) -> io::Result<()> {
        let (reply, answer) = oneshot::channel();
        ask(front, asked(reply)).await?;
        let answer = match answer.await {
            Ok(Ok(())) => Answer::Accepted,
            Ok(Err(reason)) => Answer::Refused { reason },
            Err(_) => Answer::Refused { reason: "the front is gone".to_owned() },
        };
        self.say(&answer).await
    }

    /// Ends when the caller has closed its side.
    async fn has_left(&mut self) {
        let mut byte = [0; 64];
        while self.read.read(&mut byte).await.is_ok_and(|n| n > 0) {}
    }

    async fn status(&mut self, front: &mpsc::Sender<Asked>) -> io::Result<()> {
        let (reply, answer) = oneshot::channel();
        ask(front, Asked::Status { reply }).await?;
        let Ok(StatusInParts { mut status, reports }) = answer.await else { return Ok(()) };
        let deadline = tokio::time::Instant::now() + REPORT_TIMEOUT;
        for (id, report) in reports {
            let Ok(Ok(report)) = tokio::time::timeout_at(deadline, report).await else { continue };
            if let Some(shown) = status.generations.iter_mut().find(|g| g.generation == id) {
                shown.connections = Some(report.connections);
                shown.in_flight = Some(report.in_flight);
                shown.oldest = report.oldest;
            }
        }
        self.say(&Answer::Status(Box::new(status))).await
    }

    async fn follow(
        &mut self,
        watch: oneshot::Receiver<Result<Watch, String>>,
        wait: bool,
        front: &mpsc::Sender<Asked>,
    ) -> io::Result<()> {
        let Ok(answer) = watch.await else { return Ok(()) };
        let mut watch = match answer {
            Ok(watch) => watch,
            Err(reason) => return self.say(&Answer::Refused { reason }).await,
        };
        self.say(&Answer::Requested { takeover: watch.takeover }).await?;
        if !wait {
            return Ok(());
        }
        let mut draining = watch.draining;
        let mut interval = tokio::time::interval(DRAIN_INTERVAL);
        loop {
            let answer = tokio::select! {
                event = watch.events.recv() => match event {
                    Some(event) => event,
                    None => return Ok(()),
                },
                _ = interval.tick(), if draining.is_some() => {
                    match report(front, draining).await {
                        Some(answer) => answer,
                        None => continue,
                    }
                }
                () = self.has_left() => return Ok(()),
            };
            match &answer {
                Answer::Committed { incumbent, .. } => draining = *incumbent,
                Answer::Drained { .. } => draining = None,
                _ => {}
            }
            self.say(&answer).await?;
            if let Answer::Done { .. } = answer {
                return Ok(());
            }
        }
    }
}

/// What a draining generation still works on.
async fn report(front: &mpsc::Sender<Asked>, draining: Option<GenerationId>) -> Option<Answer> {
    let generation = draining?;
    let (reply, answer) = oneshot::channel();
    ask(front, Asked::Report { generation, reply }).await.ok()?;
    let report = timeout(REPORT_TIMEOUT, answer).await.ok()?.ok()?;
    Some(Answer::Draining {
        generation,
        connections: report.connections,
        in_flight: report.in_flight,
        oldest: report.oldest,
    })
}
