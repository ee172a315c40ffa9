//! The front renews itself: another binary in the same process, and nobody can tell.
//!
//! ```text
//! old image                                     new image
//!  request ─► check.rs: the new binary reads a copy of the state, in a process of its own
//!          ─► frozen: links recalled, words kept
//!          ─► image.rs: state ─► memfd, execve ─► resume.rs: state ─► Front, READY
//!                                                     │ fails, crashes, hangs
//!             resume.rs, on the same state ◄──────────┘ fallback.rs
//! ```
//!
//! The process stays the same, and so do its children, its listening sockets, its links, its control socket and
//! the lock of that. What cannot be taken along is only the calls on the control socket that are being answered:
//! those callers ask again (`control/client.rs`).
//!
//! **Invariants**
//! - Nothing is closed, and nothing is told to anybody, before the new binary has read a copy of the state.
//! - From the exec until the new image is ready the old one can come back at every instant.
//! - A signal is heeded by one image or waits for the next.
//! - It is refused between a takeover's request and its commit: nothing of a takeover spans two images.

mod carried;
pub(crate) mod check;
mod fallback;
mod image;
pub(crate) mod resume;
pub(crate) mod state;

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::handoff::chain;
use ::handoff::fault::{self, Point};
use tokio::sync::oneshot;
use tracing::{info, warn};

use self::carried::Links;
use self::check::{CheckFailed, Checked};
use crate::control::protocol::Answer;
use crate::front::Front;
use crate::generation::{Course, Generations};
use crate::handoff::Word;
use crate::signals::Held;

/// Why the front does not renew itself now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReexecDenied {
    #[error("the front is stopping")]
    Stopping,
    #[error("a takeover is running; ask again when it is committed or rolled back")]
    Takeover,
    #[error("a takeover waits for a drain; ask again when it is committed or rolled back")]
    TakeoverPending,
    #[error("the front is renewing itself already")]
    Running,
}

impl Generations {
    /// Whether the policy could go on in another image of the front.
    pub(crate) const fn may_reexec(&self) -> Result<(), ReexecDenied> {
        match self.course {
            Course::Leaving => Err(ReexecDenied::Stopping),
            Course::Takeover(_) => Err(ReexecDenied::Takeover),
            _ if self.pending.is_some() => Err(ReexecDenied::TakeoverPending),
            _ => Ok(()),
        }
    }
}

/// Whoever asked for it, and waits to hear how it went. The stream goes from image to image.
#[derive(Debug)]
pub(crate) struct Caller(pub(crate) UnixStream);

impl Caller {
    /// Tells the caller. It may have left, and is not waited for.
    fn answer(mut self, answer: &Answer) {
        if let Ok(mut line) = serde_json::to_vec(answer) {
            line.push(b'\n');
            let _ = self.0.write_all(&line);
        }
    }
}

/// A re-exec whose new binary is being looked at.
#[derive(Debug)]
pub(crate) struct Reexec {
    binary: PathBuf,
    caller: Option<Caller>,
    checked: oneshot::Receiver<Outcome>,
}

/// What came of looking at a binary: what it is, and the signals, which wait for it.
pub(crate) type Outcome = Result<(Checked, Held), CheckFailed>;

impl Reexec {
    /// What came of the check. Cancel safe.
    pub(crate) async fn checked(&mut self) -> Outcome {
        (&mut self.checked).await.unwrap_or(Err(CheckFailed::Abandoned))
    }
}

impl Front {
    /// Begins to renew the front, by the binary it was started from unless another one is named.
    pub(crate) fn begin_reexec(&mut self, binary: Option<PathBuf>, caller: Option<Caller>) {
        let allowed = match self.reexec {
            Some(_) => Err(ReexecDenied::Running),
            None => self.generations.may_reexec(),
        };
        if let Err(denied) = allowed {
            return refuse(caller, &denied.to_string());
        }
        let binary = binary.unwrap_or_else(|| self.binary.clone());
        // The links stay where they are: a copy of the state is there to be read, not to be gone on with.
        let copy = match self.state(&Links::default(), Vec::new()).to_json() {
            Ok(copy) => copy,
            Err(error) => return refuse(caller, &chain(&error)),
        };
        info!(binary = %binary.display(), "a new front is being checked");
        match self.begin_check(&binary, copy) {
            Ok(checked) => self.reexec = Some(Reexec { binary, caller, checked }),
            Err(failed) => self.give_up(caller, &binary, &failed),
        }
    }

    fn begin_check(
        &mut self,
        binary: &Path,
        copy: Vec<u8>,
    ) -> Result<oneshot::Receiver<Outcome>, CheckFailed> {
        let candidate = check::start(binary, &copy)?;
        let (ended, exit) = oneshot::channel();
        self.awaited.insert(candidate.pid, ended);
        let (done, checked) = oneshot::channel();
        tokio::spawn(async move {
            let outcome = match candidate.outcome(exit).await {
                Ok(checked) => Ok((checked, Held::hold().await)),
                Err(failed) => Err(failed),
            };
            // Nobody waits any more when the front stops.
            let _ = done.send(outcome);
        });
        Ok(checked)
    }

    /// The new binary was looked at: becomes it, if nothing has come between.
    pub(crate) async fn on_checked(&mut self, outcome: Outcome) {
        let Some(Reexec { binary, caller, .. }) = self.reexec.take() else { return };
        // The signals wait until this is over, or for the next image.
        let (checked, _held) = match outcome {
            Ok(checked) => checked,
            Err(failed) => return self.give_up(caller, &binary, &failed),
        };
        if let Err(denied) = self.generations.may_reexec() {
            return refuse(caller, &denied.to_string());
        }
        info!(binary = %binary.display(), version = checked.version, "re-exec");
        // It only comes back when the kernel refuses.
        let (caller, reason) = self.become_image(binary.clone(), caller).await;
        self.give_up(caller, &binary, &CheckFailed::Exec { reason });
    }

    /// Becomes the new image. When the kernel refuses that, goes on as if nothing had been, and says why.
    async fn become_image(
        &mut self,
        binary: PathBuf,
        caller: Option<Caller>,
    ) -> (Option<Caller>, String) {
        let (links, words) = self.recall_conversations().await;
        fault::reach(Point::ReexecFrozen);
        let mut state = self.state(&links, words);
        state.renewed_binary = Some(binary.clone());
        state.caller = caller.as_ref().map(|caller| state::number(&caller.0));
        let reason = image::become_image(&binary, &state);
        self.go_on_with(links, state.words);
        (caller, reason)
    }

    fn give_up(&mut self, caller: Option<Caller>, binary: &Path, failed: &CheckFailed) {
        let reason = format!("{} {}; the front goes on as it is", binary.display(), chain(failed));
        self.on_reexec_failed(reason, caller);
    }

    /// The front goes on in the image it was.
    fn on_reexec_failed(&mut self, reason: String, caller: Option<Caller>) {
        warn!(reason, "not renewed");
        if let Some(caller) = caller {
            caller.answer(&Answer::Refused { reason: reason.clone() });
        }
        self.story.not_renewed(reason);
    }

    /// This image is ready, the new one or, when that `failed`, the old one again.
    fn go_on(
        &mut self,
        words: Vec<Word>,
        elapsed: Duration,
        caller: Option<Caller>,
        failed: Option<String>,
    ) {
        for word in words {
            self.on_word(word);
        }
        // What ended while nobody listened.
        self.on_children();
        self.tell_manager();
        if let Some(failed) = failed {
            let reason = format!("the new front {failed}; the old one goes on");
            return self.on_reexec_failed(reason, caller);
        }
        info!(version = crate::VERSION, elapsed_us = elapsed.as_micros(), "renewed");
        self.story.renewed();
        self.renew_admin();
        if let Some(caller) = caller {
            let elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
            caller.answer(&Answer::Renewed { version: crate::VERSION.to_owned(), elapsed_us });
        }
    }
}

fn refuse(caller: Option<Caller>, reason: &str) {
    warn!(reason, "re-exec denied");
    if let Some(caller) = caller {
        caller.answer(&Answer::Refused { reason: reason.to_owned() });
    }
}
