//! How a generation came to its front: the one difference between a worker that was started and one that came.
//!
//! | | started here | by an earlier front | by somebody else |
//! | --- | --- | --- | --- |
//! | its end | it is reaped | its pidfd | the end of its link |
//! | how it ended | known | unknown | unknown |
//! | when it has to go | SIGKILL | SIGKILL | it is told so, and let go of |
//! | what the kernel says of it | all | all | its user |

use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::adoption::Adopted;
use crate::attach::Peer;

/// How a generation came to this front, and with that what the front has of it besides its link.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub(crate) enum Origin {
    /// This process has started it, and reaps it.
    Child(Pid),
    /// An earlier front has started it: its end is seen, and not how.
    Adopted(Adopted),
    /// Somebody else has, and it came by itself: the end of its link is its end.
    Attached(Peer),
}

impl Origin {
    /// Its process, if it is one of this front's: nobody else's is signalled or looked at.
    pub(crate) const fn pid(&self) -> Option<Pid> {
        match self {
            Self::Child(pid) => Some(*pid),
            Self::Adopted(process) => Some(process.pid()),
            Self::Attached(_) => None,
        }
    }
}

/// Whether the end of a worker that was killed will be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Killed {
    WillEnd,
    /// Nothing more can be done about it: it is as good as gone.
    LetGo,
}

/// The number of no process (`PID_MAX_LIMIT` in proc(5)): what a version that knows no attached workers may look for, and
/// signal.
const NOBODY: i32 = i32::MAX;

/// The same as states of every version have it.
#[derive(Serialize, Deserialize)]
struct Written {
    pid: i32,
    #[serde(default)]
    adopted: Option<Adopted>,
    #[serde(default)]
    attached: Option<Peer>,
}

impl From<Origin> for Written {
    fn from(origin: Origin) -> Self {
        let pid = origin.pid().map_or(NOBODY, Pid::as_raw);
        match origin {
            Origin::Child(_) => Self { pid, adopted: None, attached: None },
            Origin::Adopted(process) => Self { pid, adopted: Some(process), attached: None },
            Origin::Attached(peer) => Self { pid, adopted: None, attached: Some(peer) },
        }
    }
}

impl From<Written> for Origin {
    fn from(Written { pid, adopted, attached }: Written) -> Self {
        match (attached, adopted) {
            (Some(peer), _) => Self::Attached(peer),
            (None, Some(process)) => Self::Adopted(process),
            (None, None) => Self::Child(Pid::from_raw(pid)),
        }
    }
}
