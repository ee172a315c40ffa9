//! Everything the front knows, written down for another image of itself.
//!
//! One JSON document in a memfd; the descriptors it speaks of are open under their numbers in the image that reads
//! it.
//!
//! **Invariants**
//! - A reader ignores fields it does not know, and a field added later has a default. So a state of this version is
//!   read by the version before, and one of the version before by this one; [`State::readable_from`] says where that
//!   ends.
//! - Every descriptor is named once.

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::{AsFd, AsRawFd as _, RawFd};
use std::path::PathBuf;
use std::time::Instant;

use ::handoff::message::{GenerationId, ToWorker};
use serde::{Deserialize, Serialize};

use crate::admin::keeper::KeeperState;
use crate::adoption::Recovered;
use crate::attach::AttachState;
use crate::front::Settings;
use crate::generation::Generations;
use crate::handoff::Word;
use crate::program::Programs;
use crate::story::Story;
use crate::tally::Tally;
use crate::timer::Timer;
use crate::workers::Worker;

/// The version of the state that this image writes.
pub(crate) const VERSION: u32 = 1;
/// The oldest version of the state that this image goes on with.
pub(crate) const OLDEST: u32 = VERSION - 1;

/// The whole front.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct State {
    /// The version of this document.
    pub(crate) version: u32,
    /// The oldest version whose readers understand it.
    #[serde(default)]
    pub(crate) readable_from: u32,
    /// The version of the front that wrote it.
    pub(crate) written_by: String,
    /// Where the front's binary is: what the next re-exec starts unless told otherwise.
    pub(crate) binary: PathBuf,
    /// Where the binary of the image is that reads this, unless that one could not go on.
    #[serde(default)]
    pub(crate) renewed_binary: Option<PathBuf>,
    pub(crate) settings: Settings,
    pub(crate) programs: Programs,
    pub(crate) generations: Generations,
    pub(crate) workers: Vec<WorkerState>,
    /// `None` once nobody accepts any more.
    pub(crate) listeners: Option<Vec<ListenerState>>,
    /// Each with how long it is still away, in ms.
    pub(crate) timers: Vec<(Timer, u64)>,
    pub(crate) story: Story,
    #[serde(default)]
    pub(crate) tally: Tally,
    /// What workers have said and the front has not acted on.
    pub(crate) words: Vec<Word>,
    #[serde(with = "crate::age")]
    pub(crate) started_at: Instant,
    pub(crate) greeted: bool,
    /// What it has gone on with when it was started.
    #[serde(default)]
    pub(crate) recovered: Option<Recovered>,
    pub(crate) control: ControlState,
    /// The status page.
    #[serde(default)]
    pub(crate) admin: Option<KeeperState>,
    /// Where workers attach, and who waits there.
    #[serde(default)]
    pub(crate) attach: Option<AttachState>,
    /// Who waits to hear how the re-exec went.
    #[serde(default)]
    pub(crate) caller: Option<RawFd>,
    /// When the exec began, on the monotonic clock, in ns.
    #[serde(default)]
    pub(crate) executed_at_ns: u64,
}

/// A worker and its link.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WorkerState {
    pub(crate) generation: GenerationId,
    pub(crate) worker: Worker,
    /// `None` once its link has ended.
    pub(crate) link: Option<LinkState>,
}

/// A link, and what is still to be told over it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LinkState {
    pub(crate) descriptor: RawFd,
    /// Each with the descriptor that goes along with it.
    #[serde(default)]
    pub(crate) unsent: Vec<(ToWorker, Option<RawFd>)>,
}

/// One listening socket.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ListenerState {
    pub(crate) address: String,
    pub(crate) shard: u32,
    pub(crate) descriptor: RawFd,
    /// Whether its file goes with the front.
    #[serde(default)]
    pub(crate) owns_file: bool,
}

/// The control socket and the lock beside it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ControlState {
    pub(crate) path: PathBuf,
    pub(crate) listener: RawFd,
    pub(crate) lock: RawFd,
}

/// Why a state is not gone on with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateFailed {
    #[error("could not write the state down")]
    Write { source: serde_json::Error },
    #[error("could not read the state")]
    Read { source: io::Error },
    #[error("the state is not understood")]
    Malformed { source: serde_json::Error },
    #[error(
        "reads states of version {OLDEST} to {VERSION}, and this one has version {version}, from {written_by}"
    )]
    Version { version: u32, written_by: String },
}

impl State {
    pub(crate) fn to_json(&self) -> Result<Vec<u8>, StateFailed> {
        serde_json::to_vec(self).map_err(|source| StateFailed::Write { source })
    }

    /// Reads a state, whichever of the versions that this image goes on with.
    pub(crate) fn from_json(text: &[u8]) -> Result<Self, StateFailed> {
        // The version first: another one may have another shape.
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
            #[serde(default)]
            readable_from: u32,
            #[serde(default)]
            written_by: String,
        }
        let malformed = |source| StateFailed::Malformed { source };
        let Versioned { version, readable_from, written_by } =
            serde_json::from_slice(text).map_err(malformed)?;
        if version.saturating_add(1) < VERSION || readable_from > VERSION {
            return Err(StateFailed::Version { version, written_by });
        }
        serde_json::from_slice(text).map_err(malformed)
    }

    /// As [`Self::from_json`], from a file's beginning.
    pub(crate) fn read(mut file: &File) -> Result<Self, StateFailed> {
        let mut text = Vec::new();
        file.rewind()
            .and_then(|()| file.read_to_end(&mut text))
            .map_err(|source| StateFailed::Read { source })?;
        Self::from_json(&text)
    }

    /// The numbers of every descriptor that it speaks of.
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        let attach = self.attach.iter();
        let waiting = attach.clone().flat_map(|attach| &attach.waiting).map(|one| &one.link);
        let links = self.workers.iter().filter_map(|worker| worker.link.as_ref()).chain(waiting);
        let of_link = |link: &LinkState| {
            let unsent: Vec<RawFd> = link.unsent.iter().filter_map(|(_, number)| *number).collect();
            std::iter::once(link.descriptor).chain(unsent)
        };
        links
            .flat_map(of_link)
            .chain(self.listeners.iter().flatten().map(|listener| listener.descriptor))
            .chain([self.control.listener, self.control.lock])
            .chain(self.admin.as_ref().map(|admin| admin.socket))
            .chain(attach.flat_map(|attach| [attach.listener, attach.lock]))
            .chain(self.caller)
            .collect()
    }
}

/// The number of a descriptor.
pub(crate) fn number(descriptor: &impl AsFd) -> RawFd {
    descriptor.as_fd().as_raw_fd()
}
