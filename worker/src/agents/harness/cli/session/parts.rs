//! A session between two owners: what of it crosses, and how it is taken apart and put together.
//!
//! **Invariants**
//! - Whoever has the parts owns nothing but descriptors: the directory is adopted with the rest, or comes back with what was
//!   [kept](Kept).
//! - Words of a version that is not known are refused, for that session alone.

use std::io;
use std::os::fd::OwnedFd;

use handoff::migrate::MAX_CARRIED;
use serde::{Deserialize, Serialize};
use tracing::debug;

use super::super::child::{Child, Pipes, Reaper};
use super::super::codec::Lines;
use super::super::mcp::{Endpoint, Toolbox};
use super::super::orphans::Orphans;
use super::super::scratch::{Life, Scratch, ScratchFailed, ScratchRoot, pid_namespace};
use super::{Origin, Session};

/// The version of [`SessionState`].
const VERSION: u32 = 1;

/// What crosses in words: everything that is neither a descriptor nor what was read or is to be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SessionState {
    /// Of these words; one that is not known is refused.
    pub(crate) version: u32,
    /// The process.
    pub(crate) life: Life,
    /// In which its id means this process; `None` from a worker that did not say so yet.
    #[serde(default)]
    pub(crate) namespace: Option<String>,
    /// Its directory.
    pub(crate) scratch: String,
    /// The token of its tools, if it has any. It crosses between two generations of one worker, and is never shown.
    pub(crate) token: Option<String>,
    /// What it was started for.
    pub(crate) fingerprint: String,
    /// What it calls its conversation.
    pub(crate) conversation: Option<String>,
    /// How many turns it has had: where it is in its transcript.
    pub(crate) turns: u64,
    /// The last of its standard error.
    pub(crate) complaint: String,
}

/// A session that nobody reads or writes: what crosses to its next owner.
#[derive(Debug)]
pub(crate) struct SessionParts {
    /// Where it is spoken to.
    pub(crate) stdin: OwnedFd,
    /// Where it answers.
    pub(crate) stdout: OwnedFd,
    /// Where it complains.
    pub(crate) stderr: OwnedFd,
    /// By which its end is heard of.
    pub(crate) pidfd: OwnedFd,
    /// Where it asks for tools, if it has any.
    pub(crate) listener: Option<OwnedFd>,
    /// Read, and not yet understood.
    pub(crate) read_ahead: Vec<u8>,
    /// To be written before anything else.
    pub(crate) unwritten: Vec<u8>,
    /// The rest.
    pub(crate) state: SessionState,
}

/// Why a session cannot be gone on with here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdoptFailed {
    /// Its words are another version's.
    #[error("a CLI session of version {version} is not known here")]
    Version {
        /// Which.
        version: u32,
    },
    /// It runs in another container.
    #[error("a CLI session runs in another pid namespace")]
    Elsewhere,
    /// Its words cannot be read.
    #[error("the words of a CLI session are none")]
    Words,
    /// Its program is not configured here.
    #[error("there is no CLI backend {backend}")]
    Backend {
        /// Whose it is.
        backend: String,
    },
    /// One of its descriptors is not what it should be.
    #[error("a descriptor of a CLI session cannot be used")]
    Descriptor {
        /// What the kernel said.
        source: io::Error,
    },
    /// Its directory is not here.
    #[error("the directory of a CLI session cannot be adopted")]
    Scratch {
        /// Why not.
        source: ScratchFailed,
    },
}

/// What its former owner keeps of a session until another has it.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(in super::super) scratch: Scratch,
    pub(in super::super) reaper: Reaper,
}

/// By what somebody goes on with a session.
#[derive(Debug)]
pub(in super::super) enum Claim<'a> {
    /// Another owner has given it away.
    Adopted(&'a ScratchRoot, &'a Orphans),
    /// It was to go to another owner, and did not.
    Returned(Kept),
}

impl SessionState {
    /// Whether these words are known here.
    ///
    /// # Errors
    /// [`AdoptFailed::Version`]
    pub(in super::super) fn judge(&self) -> Result<(), AdoptFailed> {
        if self.version != VERSION {
            return Err(AdoptFailed::Version { version: self.version });
        }
        match (&self.namespace, pid_namespace()) {
            // One that cannot be looked after is ended where it is, and resumed here.
            (Some(theirs), Ok(ours)) if *theirs != ours => Err(AdoptFailed::Elsewhere),
            _ => Ok(()),
        }
    }
}

impl Session {
    /// Takes it apart, for its next owner.
    ///
    /// # Errors
    /// The session itself, when it cannot go on elsewhere: it is ending, or its input has, or it has too much to be carried.
    pub(in super::super) async fn into_parts(mut self) -> Result<(SessionParts, Kept), Box<Self>> {
        let is_light = self.lines.ahead() <= MAX_CARRIED && self.unwritten.len() <= MAX_CARRIED;
        if self.is_gone || self.ends_input || self.stdin.is_none() || !is_light {
            return Err(Box::new(self));
        }
        let (listener, token) = match self.endpoint.take() {
            Some(endpoint) => match endpoint.into_parts().await {
                Some((listener, token)) => (Some(listener), Some(token)),
                None => return Err(Box::new(self)),
            },
            None => (None, None),
        };
        let state = SessionState {
            version: VERSION,
            life: self.child.life(),
            namespace: pid_namespace().ok(),
            scratch: self.scratch.name().to_owned(),
            token,
            complaint: self.complaint(),
            fingerprint: self.fingerprint,
            conversation: self.conversation,
            turns: self.turns,
        };
        let stdin = self.stdin.expect("it was looked at above");
        let parts = || -> io::Result<(SessionParts, Reaper)> {
            let (pidfd, reaper) = self.child.into_parts()?;
            let parts = SessionParts {
                stdin: stdin.into_nonblocking_fd()?,
                stdout: self.stdout.pipe.into_nonblocking_fd()?,
                stderr: self.stderr.pipe.into_nonblocking_fd()?,
                pidfd,
                listener,
                read_ahead: self.lines.into_read_ahead(),
                unwritten: self.unwritten,
                state,
            };
            Ok((parts, reaper))
        };
        let (parts, reaper) = parts().expect("a pipe that was nonblocking can be made so");
        Ok((parts, Kept { scratch: self.scratch, reaper }))
    }

    /// Goes on with a session that was taken apart. It blocks for as long as a small file is written.
    ///
    /// # Errors
    /// [`AdoptFailed`]: nobody owns it any more, and its input ends; its directory is left to a sweep.
    pub(in super::super) fn from_parts(
        parts: SessionParts,
        claim: Claim<'_>,
        toolbox: &Toolbox,
        longest_line: usize,
    ) -> Result<Self, AdoptFailed> {
        let state = parts.state;
        state.judge()?;
        let descriptor = |source| AdoptFailed::Descriptor { source };
        let (child, scratch) = match claim {
            Claim::Adopted(root, orphans) => {
                let child = Child::adopt(state.life, parts.pidfd, orphans).map_err(descriptor)?;
                let scratch = root.adopt(&state.scratch, state.life);
                (child, scratch.map_err(|source| AdoptFailed::Scratch { source })?)
            }
            Claim::Returned(Kept { scratch, reaper }) => {
                let child = Child::resume(state.life, parts.pidfd, reaper).map_err(descriptor)?;
                (child, scratch)
            }
        };
        let endpoint = match (parts.listener, state.token) {
            (Some(listener), Some(token)) => {
                Some(Endpoint::resume(listener, token, toolbox.clone()).map_err(descriptor)?)
            }
            _ => None,
        };
        let pipes = Pipes { stdin: parts.stdin, stdout: parts.stdout, stderr: parts.stderr };
        let origin = Origin {
            scratch,
            endpoint,
            fingerprint: state.fingerprint,
            conversation: state.conversation,
            longest_line,
        };
        let mut session = Self::new(child, pipes, origin).map_err(descriptor)?;
        session.lines = Lines::resumed(longest_line, parts.read_ahead);
        session.unwritten = parts.unwritten;
        session.complaint = state.complaint.into_bytes();
        session.turns = state.turns;
        debug!(pid = state.life.pid, turns = state.turns, "a CLI session goes on here");
        Ok(session)
    }
}
