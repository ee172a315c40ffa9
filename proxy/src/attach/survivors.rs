//! Workers that had attached themselves to a front that died: they call the next one, which waits for them before it opens
//! any socket, since they have the sockets.
//!
//! **Invariants**
//! - It waits only for generations of which there is a trace, and a moment longer than such a worker pauses between two
//!   calls.
//! - Sockets of another network namespace are not gone on with: nobody could connect to them here.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use ::handoff::attach::LONGEST_PAUSE;
use ::handoff::chain;
use ::handoff::link::Link;
use ::handoff::message::GenerationId;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{info, warn};

use super::{Attachments, Came, Peer, dismiss};
use crate::rescue::{ANSWER_TIMEOUT, Answer, Survivor, answer, sockets};
use crate::workers::Origin;

/// How much longer than its longest pause a worker is waited for.
const LEEWAY: Duration = Duration::from_secs(1);

impl Attachments {
    /// Those of these generations that call within a moment. Whoever else comes meanwhile waits for its turn.
    pub(crate) async fn gather(&mut self, expected: Vec<GenerationId>) -> Vec<Survivor> {
        let mut expected: BTreeSet<_> = expected.into_iter().collect();
        let mut survivors = Vec::new();
        if expected.is_empty() {
            return survivors;
        }
        info!(workers = expected.len(), "waits for workers that had attached to an earlier front");
        self.begin();
        let until = Instant::now() + LONGEST_PAUSE + LEEWAY;
        while !expected.is_empty() {
            let Ok(came) = timeout_at(until, self.came()).await else { break };
            match came {
                Came::Left(number) => self.waiting.retain(|one| one.number != number),
                Came::Applied(applied) => {
                    let (peer, link, application) = *applied;
                    match application.returned {
                        None => self.add(peer, link, None),
                        Some(account) if expected.remove(&account.generation) => {
                            survivors.extend(ask(account.generation, peer, link).await);
                        }
                        Some(account) => {
                            let id = account.generation;
                            dismiss(link, format!("no front before this one knew {id}"));
                        }
                    }
                }
            }
        }
        for generation in expected {
            info!(%generation, "is gone, or does not call");
        }
        survivors
    }
}

/// What it is, and its sockets.
async fn ask(id: GenerationId, peer: Peer, link: Link) -> Option<Survivor> {
    let reason = match timeout(ANSWER_TIMEOUT, answer(&link)).await {
        Ok(Ok(Answer::Is(account, descriptors))) if account.generation == id => {
            match sockets(&account, descriptors) {
                Ok(sockets) if sockets.iter().all(|s| s.inode().is_ok_and(is_of_this_network)) => {
                    let link = link.into_descriptor().ok()?;
                    return Some(Survivor {
                        origin: Origin::Attached(peer),
                        link,
                        account,
                        sockets,
                    });
                }
                Ok(_) => "its listening sockets are of another network namespace".to_owned(),
                Err(reason) => reason,
            }
        }
        Ok(Ok(Answer::Is(account, _))) => format!("it is {} now", account.generation),
        Ok(Ok(Answer::Refuses(reason))) => reason,
        Ok(Ok(Answer::Ends)) => return None,
        Ok(Err(error)) => chain(&error),
        Err(_) => format!("it does not say what it is within {ANSWER_TIMEOUT:?}"),
    };
    warn!(generation = %id, reason, "a worker of an earlier front is turned away");
    dismiss(link, reason);
    None
}

/// Whether a listening socket is one of this process's network namespace: the kernel lists no others (proc_net(5)).
fn is_of_this_network(inode: u64) -> bool {
    let inode = inode.to_string();
    ["tcp", "tcp6", "unix"].iter().any(|table| {
        let table = fs::read_to_string(format!("/proc/self/net/{table}")).unwrap_or_default();
        table.lines().any(|line| line.split_ascii_whitespace().any(|word| word == inode))
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use rustix::fs::fstat;

    use super::*;

    #[test]
    fn sockets_that_are_listened_on_here_are_of_this_network() {
        let directory = tempfile::tempdir().unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let unix = UnixListener::bind(directory.path().join("socket")).unwrap();
        for inode in [fstat(&tcp).unwrap().st_ino, fstat(&unix).unwrap().st_ino] {
            assert!(is_of_this_network(inode));
        }
        assert!(!is_of_this_network(u64::MAX));
    }
}
