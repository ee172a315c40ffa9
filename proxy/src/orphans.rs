//! What workers left behind: the front is a subreaper, so whoever loses its parent below becomes its child.
//!
//! **Invariants**
//! - A front that stops leaves nobody behind.
//! - A program never outlives its adapter, whatever process groups it made.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::signal::unix::Signal as SignalStream;
use tracing::warn;

use crate::front::Front;
use crate::reap;

/// How long adopted processes may take to end once asked to.
const DESCENDANTS_TIMEOUT: Duration = Duration::from_secs(1);

impl Front {
    /// Ends what an adapter left behind that was killed. While it lives whoever is orphaned below it is its own child,
    /// so those that are the front's have no adapter any more, and would go on accepting.
    pub(crate) fn end_strays(&self) {
        if !self.runs_adapters() {
            return;
        }
        for pid in reap::children() {
            // A new front that is being looked at is nobody's stray, and nor is the status page.
            let expected = self.workers.with_pid(pid).is_some()
                || self.awaited.contains_key(&pid)
                || self.admin.as_ref().is_some_and(|keeper| keeper.is(pid));
            if !expected {
                warn!(pid = pid.as_raw(), "a process is ended that has no adapter any more");
                reap::end(pid);
            }
        }
    }

    /// Ends what workers left behind and the front adopted: politely, then not.
    pub(crate) async fn end_descendants(&self, child: &mut SignalStream) {
        for (signal, patience) in
            [(Signal::SIGTERM, DESCENDANTS_TIMEOUT), (Signal::SIGKILL, DESCENDANTS_TIMEOUT)]
        {
            let deadline = tokio::time::Instant::now() + patience;
            loop {
                while reap::ended().and_then(reap::reap).is_some() {}
                if reap::children().is_empty() {
                    return;
                }
                reap::signal_children(signal);
                if tokio::time::timeout_at(deadline, child.recv()).await.is_err() {
                    break;
                }
            }
        }
    }
}
