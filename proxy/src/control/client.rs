//! The operator's side of the control socket.

use std::io;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::control::document::Status;
use crate::control::protocol::{Answer, Command, Request, VERSION};

/// Why the front could not be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskFailed {
    #[error(
        "no front answers on {}; start one with `holdfast run`, or name its socket with --control{}",
        path.display(),
        if *systems { " (the system's front: HOLDFAST_STATE_DIR=/var/lib/holdfast)" } else { "" }
    )]
    NoFront {
        path: PathBuf,
        /// Whether there is one at the place of the system's unit.
        systems: bool,
        source: io::Error,
    },
    #[error(
        "user {user} may not ask the front on {}, which is user {owner}'s; ask as that user, or as root",
        path.display()
    )]
    NotAllowed { path: PathBuf, user: u32, owner: u32, source: io::Error },
    #[error("could not speak with the front")]
    Broken { source: io::Error },
    #[error(
        "the front answered with words of another version, and this command is holdfast {}; ask the front by its own binary: \
         /proc/PID/exe, with the pid of its process",
        crate::VERSION
    )]
    Unreadable { source: serde_json::Error },
    #[error("{reason}")]
    Refused { reason: String },
    #[error("the front went away before it answered")]
    Gone,
}

/// Where the system's unit has its socket.
const SYSTEMS: &str = "/var/lib/holdfast/control.sock";

/// How often a question is asked again that a front did not answer because it became another image.
const TIMES: usize = 3;

/// Asks what can be asked twice, and returns the answer.
pub(crate) async fn ask(path: &Path, command: Command) -> Result<Answer, AskFailed> {
    for _ in 1..TIMES {
        match Conversation::begin(path, command.clone()).await?.expect().await {
            Err(AskFailed::Gone) => {}
            outcome => return outcome,
        }
    }
    Conversation::begin(path, command).await?.expect().await
}

/// The status of the front that owns the control socket at `path`.
pub(crate) async fn status(path: &Path) -> Result<Status, AskFailed> {
    match ask(path, Command::Status).await? {
        Answer::Status(status) => Ok(*status),
        _ => Err(AskFailed::Gone),
    }
}

/// A request and the answers to it.
pub(crate) struct Conversation {
    lines: Lines<BufReader<OwnedReadHalf>>,
    /// Kept open: a front takes a caller that closes its side for one that has left.
    _request: OwnedWriteHalf,
}

impl Conversation {
    /// Asks the front that owns the control socket at `path`.
    pub(crate) async fn begin(path: &Path, command: Command) -> Result<Self, AskFailed> {
        let stream = UnixStream::connect(path).await.map_err(|source| not_there(path, source))?;
        let (read, mut write) = stream.into_split();
        let request = Request { version: VERSION, command };
        let mut line = serde_json::to_vec(&request)
            .map_err(|source| AskFailed::Broken { source: source.into() })?;
        line.push(b'\n');
        // A front that refuses may have closed before it read everything: its answer says why.
        let sent = write.write_all(&line).await;
        if let Err(source) = sent
            && source.kind() != io::ErrorKind::BrokenPipe
        {
            return Err(AskFailed::Broken { source });
        }
        Ok(Self { lines: BufReader::new(read).lines(), _request: write })
    }

    /// The next line of the answer; `None` at its end. What only later versions say is passed over.
    pub(crate) async fn next(&mut self) -> Result<Option<Answer>, AskFailed> {
        loop {
            let line = match self.lines.next_line().await {
                Ok(line) => line,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => None,
                Err(source) => return Err(AskFailed::Broken { source }),
            };
            let Some(line) = line else { return Ok(None) };
            match serde_json::from_str(&line) {
                Ok(Answer::Later) => {}
                Ok(Answer::Refused { reason }) => return Err(AskFailed::Refused { reason }),
                Ok(answer) => return Ok(Some(answer)),
                Err(source) => return Err(AskFailed::Unreadable { source }),
            }
        }
    }

    /// The next line of an answer that has one.
    pub(crate) async fn expect(&mut self) -> Result<Answer, AskFailed> {
        self.next().await?.ok_or(AskFailed::Gone)
    }
}

/// Why nobody answers at a path.
fn not_there(path: &Path, source: io::Error) -> AskFailed {
    use std::os::unix::fs::MetadataExt as _;
    let path = path.to_owned();
    // What cannot be looked at lies in a directory that can.
    let owner = path.ancestors().find_map(|at| std::fs::metadata(at).ok()).map(|found| found.uid());
    match (source.kind(), owner) {
        (io::ErrorKind::PermissionDenied, Some(owner)) => {
            let user = rustix::process::geteuid().as_raw();
            AskFailed::NotAllowed { path, user, owner, source }
        }
        _ => {
            let other = Path::new(SYSTEMS);
            AskFailed::NoFront { systems: path != other && other.exists(), path, source }
        }
    }
}
