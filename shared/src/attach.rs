//! How a worker that no front has started becomes a worker of one: over the front's attach socket, which may be all that
//! the two share, in another container for example.
//!
//! ```text
//! worker                                     front, `holdfast run --attach PATH`
//!   │ connect PATH, Attach{program, token} ───►│ SO_PEERCRED: may this user?
//!   │◄─── Waiting{ahead} ──────────────────────│ another one is before it
//!   │◄─── Hello + listening sockets ───────────│ its turn: from here on a worker like any other
//!   │◄─── Dismiss{reason} ─────────────────────│ it is not wanted, or failed: it exits, for nobody else can end it
//!   ✕ the link ends                            │
//!   │ never admitted: exits                    │
//!   │ admitted: serves on, and calls again ───►│ Attach{returned}
//! ```
//!
//! **Invariants**
//! - The link is all that the front knows of such a worker: neither has a pid of the other.
//! - One that serves goes on serving whatever becomes of its link; one that was told to go does not come back.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::{debug, info};

use crate::acceptor::Acceptor;
use crate::link::{Link, LinkError};
use crate::message::{PROTOCOL, ToFront};
use crate::rescue::{self, Rescued};
use crate::socket::ListeningSocket;
use crate::worker::{StartFailed, Worker};

/// Names the front's attach socket in the environment of a worker that is to attach itself.
pub const ATTACH_VARIABLE: &str = "HOLDFAST_ATTACH";
/// Names the file of the token, where one is needed.
pub const TOKEN_VARIABLE: &str = "HOLDFAST_ATTACH_TOKEN_FILE";
/// The exit code of a worker that was turned away, or found no front, and may come again (`EX_TEMPFAIL`, sysexits(3)).
pub const TURNED_AWAY: u8 = 75;

/// How long a worker looks for its front when it starts: the two may be started in any order.
const FIRST_CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a front may take to read the first word.
const WORD_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause before a call; it doubles, up to [`LONGEST_PAUSE`], as long as nobody is there.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// A front that was started anew waits a little longer than this for those who serve without one.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What a worker that attaches itself says of itself.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Application {
    /// The version of the link's protocol that it speaks.
    pub protocol: u32,
    /// The program, for the operator, until it says more in [`Ready`](crate::message::Ready).
    pub program: String,
    /// What proves that it may attach itself where its user cannot be told.
    #[serde(default)]
    pub token: Option<String>,
    /// Set by one that was introduced to this front, or to one before it, and has lost its link: what it is. Its
    /// sockets are not attached.
    #[serde(default)]
    pub returned: Option<Rescued>,
    /// The inode numbers of the sockets that such a one accepts from.
    #[serde(default)]
    pub sockets: Vec<u64>,
}

/// The token is a secret.
impl fmt::Debug for Application {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Application")
            .field("protocol", &self.protocol)
            .field("program", &self.program)
            .field("returned", &self.returned)
            .finish_non_exhaustive()
    }
}

/// Where a worker finds its front, and what it says there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attach {
    path: PathBuf,
    token_file: Option<PathBuf>,
}

/// What a worker is, and what it accepts from.
pub(crate) type Account = (Rescued, Vec<Arc<ListeningSocket>>);

/// Why a call did not become a link.
#[derive(Debug, thiserror::Error)]
pub enum CallFailed {
    /// Nobody could be called.
    #[error("nobody answers there")]
    Connect {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The token cannot be read.
    #[error("could not read the token from {}", path.display())]
    Token {
        /// Its file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The front is gone again, or does not read.
    #[error("the front does not listen to what is said")]
    Say {
        /// Why, unless it took too long.
        #[source]
        source: Option<LinkError>,
    },
}

impl Attach {
    /// By the front that listens at `path`.
    pub fn to(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), token_file: None }
    }

    /// With the token in this file, which is read anew for each call.
    #[must_use]
    pub fn with_token_file(self, file: Option<PathBuf>) -> Self {
        Self { token_file: file, ..self }
    }

    /// As the environment says; `None` when it says nothing.
    #[must_use]
    pub fn from_environment() -> Option<Self> {
        let named = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let path = named(ATTACH_VARIABLE)?;
        Some(Self::to(path).with_token_file(named(TOKEN_VARIABLE).map(PathBuf::from)))
    }

    /// Where the front is to be found.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Becomes a worker of the front, as [`Worker::start`] does of the one that started it. It waits for its turn.
    ///
    /// # Errors
    /// [`StartFailed`]; the process should exit then, with [`TURNED_AWAY`] if it
    /// [may try again](StartFailed::may_try_again).
    pub async fn start(self) -> Result<(Worker, Acceptor), StartFailed> {
        Ok(Worker::attached(self).await?.together())
    }

    /// As [`Worker::start_sharded`].
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_sharded(self) -> Result<(Worker, Vec<Acceptor>), StartFailed> {
        Ok(Worker::attached(self).await?.sharded())
    }

    /// As [`Worker::start_for_another`].
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_for_another(
        self,
    ) -> Result<(Worker, Vec<Arc<ListeningSocket>>), StartFailed> {
        Ok(Worker::attached(self).await?.for_another())
    }

    /// The link to the front, which may not be there yet.
    pub(crate) async fn first_call(&self) -> Result<Link, StartFailed> {
        let failed = |source| StartFailed::Attach { path: self.path.clone(), source };
        let until = Instant::now() + FIRST_CALL_TIMEOUT;
        let mut pause = FIRST_PAUSE;
        loop {
            match self.call(None).await {
                Ok(link) => return Ok(link),
                // Waiting makes no difference to a file.
                Err(error @ CallFailed::Token { .. }) => return Err(failed(error)),
                Err(error) if Instant::now() >= until => return Err(failed(error)),
                Err(_) if pause == FIRST_PAUSE => {
                    info!(path = %self.path.display(), "no front is there yet");
                }
                Err(_) => {}
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The link to a front again, for one that has lost it; `account` says what it is at that moment, and `None` of one
    /// that is nothing a front would go on with. Cancel safe.
    pub(crate) async fn call_again(&self, account: impl Fn() -> Option<Account>) -> Link {
        let mut pause = FIRST_PAUSE;
        loop {
            tokio::time::sleep(pause).await;
            let Some(account) = account() else { return std::future::pending().await };
            match self.call(Some(account)).await {
                Ok(link) => return link,
                Err(error) => debug!(error = crate::chain(&error), "no front is there"),
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn call(&self, returned: Option<Account>) -> Result<Link, CallFailed> {
        let connect = |source| CallFailed::Connect { source };
        let token = self.token_file.as_ref().map(|path| {
            std::fs::read_to_string(path)
                .map(|text| text.trim().to_owned())
                .map_err(|source| CallFailed::Token { path: path.clone(), source })
        });
        let token = token.transpose()?;
        let (end, _) = rescue::call(&self.path).map_err(connect)?;
        let link = Link::new(end).map_err(connect)?;
        let (returned, sockets) = returned.unzip();
        let inode = |socket: &Arc<ListeningSocket>| socket.inode().ok();
        let sockets = sockets.iter().flatten().filter_map(inode).collect();
        let program = own_name();
        let application = Application { protocol: PROTOCOL, program, token, returned, sockets };
        let word = ToFront::Attach(application);
        match tokio::time::timeout(WORD_TIMEOUT, link.send(&word, &[])).await {
            Ok(Ok(())) => Ok(link),
            Ok(Err(source)) => Err(CallFailed::Say { source: Some(source) }),
            Err(_) => Err(CallFailed::Say { source: None }),
        }
    }
}

/// What this process is called.
fn own_name() -> String {
    let path = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// Whether, and why, the front has told a worker that attached itself to leave for good.
#[derive(Clone, Debug, Default)]
pub struct Dismissal(Arc<OnceLock<String>>);

impl Dismissal {
    /// The reason, once there is one. The process should exit with [`TURNED_AWAY`] then.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }

    pub(crate) fn tell(&self, reason: impl Into<String>) {
        // The first reason is the reason.
        let _ = self.0.set(reason.into());
    }
}
