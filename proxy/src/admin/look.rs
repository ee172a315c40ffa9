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
use crate::control::document::Status;
use crate::control::protocol::{Answer, Command};
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
            client::status(&self.control),
            client::ask(&self.control, Command::Metrics)
        );
        let tally = match tally {
            Ok(Answer::Metrics(tally)) => Some(*tally),
            // A front of an earlier version knows no such command.
            Ok(_) | Err(_) => None,
        };
        Ok(Seen { status: status?, tally })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::net::UnixListener;

    use super::*;
    use crate::admin::page::tests::status;

    /// A front that answers whatever it is asked, and how often it was.
    fn front(path: &std::path::Path) -> Arc<AtomicUsize> {
        let listener = UnixListener::bind(path).unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                stream.read_line(&mut line).await.unwrap();
                let answer = if line.contains("status") {
                    Answer::Status(Box::new(status()))
                } else {
                    Answer::Metrics(Box::default())
                };
                let text = format!("{}\n", serde_json::to_string(&answer).unwrap());
                stream.get_mut().write_all(text.as_bytes()).await.unwrap();
            }
        });
        asked
    }

    #[tokio::test]
    async fn however_many_look_at_once_the_front_is_asked_for_one_of_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let asked = front(&path);
        let looker = Looker::new(path);
        let looks = futures_util::future::join_all((0..50).map(|_| looker.look())).await;
        assert!(looks.iter().all(|look| look.is_ok()));
        assert!(looks.iter().all(|look| Arc::ptr_eq(look, &looks[0])));
        // Its status and its sums.
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_front_that_is_not_there_is_said_to_be_gone_with_its_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let look = Looker::new(path.clone()).look().await;
        let why = look.as_ref().as_ref().unwrap_err();
        assert!(why.contains(path.to_str().unwrap()), "{why}");
    }
}
