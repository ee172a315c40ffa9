//! One look at the front for all who want one.
//!
//! **Invariants**
//! - A look is shared for [`FRESH`]: the front is asked no more often than that, whoever asks.
//! - Nobody asks by themselves: without a viewer, a scrape or a probe the front hears nothing.
//! - A front that does not answer within [`LIMIT`] is told to be gone, as one that has ended is.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::control::client::{self, AskFailed};
use crate::control::protocol::{Answer, Command, Status};
use crate::tally::Tally;

/// How long a look is shared.
const FRESH: Duration = Duration::from_millis(900);
/// How long the front may take to answer. It gives its workers half a second of that.
const LIMIT: Duration = Duration::from_secs(2);

/// What the front said of itself.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) status: Status,
    /// `None` from a front that does not count yet.
    pub(super) tally: Option<Tally>,
}

/// What was seen, or why nothing was.
pub(super) type Look = Arc<Result<Seen, String>>;

/// Whoever looks at the front.
#[derive(Debug)]
pub(super) struct Looker {
    control: PathBuf,
    /// The last look and its moment. Whoever waits for it waits for the one that looks.
    last: Mutex<Option<(Instant, Look)>>,
}

impl Looker {
    pub(super) fn new(control: PathBuf) -> Self {
        Self { control, last: Mutex::new(None) }
    }

    /// A look that is not old.
    pub(super) async fn look(&self) -> Look {
        let mut last = self.last.lock().await;
        if let Some((at, look)) = &*last
            && at.elapsed() < FRESH
        {
            return Arc::clone(look);
        }
        let look = Arc::new(match timeout(LIMIT, self.ask()).await {
            Ok(Ok(seen)) => Ok(seen),
            Ok(Err(error)) => Err(handoff::chain(&error)),
            Err(_) => Err(format!("the front does not answer within {LIMIT:?}")),
        });
        *last = Some((Instant::now(), Arc::clone(&look)));
        look
    }

    async fn ask(&self) -> Result<Seen, AskFailed> {
        let (status, tally) = tokio::join!(
            client::ask(&self.control, Command::Status),
            client::ask(&self.control, Command::Metrics)
        );
        let Answer::Status(status) = status? else { return Err(AskFailed::Gone) };
        let tally = match tally {
            Ok(Answer::Metrics(tally)) => Some(*tally),
            // A front of an earlier version knows no such command.
            Ok(_) | Err(_) => None,
        };
        Ok(Seen { status: *status, tally })
    }
}
