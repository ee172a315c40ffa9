//! Waiting for the moment at which a connected device may no longer be connected, whoever decides so.
//!
//! ```text
//! subscribe ─► still admitted? ─► a revocation, by this process or found in paired.json
//!                  └ no: now                     ▲
//!                                looked at every two seconds while any device is connected
//! ```
//!
//! **Invariants**
//! - Nothing is missed between two generations: who asks has subscribed before.
//! - Without connected devices nobody looks and no clock ticks.

use std::time::Duration;

use tokio::task::AbortHandle;
use tracing::{debug, warn};

use super::devices::Devices;

/// How long a change by another process may stay unseen.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Has somebody look at the table; ends with its last owner.
#[derive(Debug)]
pub(super) struct Watch {
    task: AbortHandle,
}

impl Watch {
    pub(super) fn begin(devices: Devices) -> Self {
        Self { task: tokio::spawn(look(devices)).abort_handle() }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn look(devices: Devices) {
    let mut was_usable = true;
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let seen = devices.refresh().await;
        if let Err(reason) = &seen
            && was_usable
        {
            let reason = handoff::chain(reason);
            warn!(reason = %reason, "what was revoked in the table of devices cannot be seen");
        }
        was_usable = seen.is_ok();
    }
}

impl Devices {
    /// Ends when a device that was let in because it is paired, and whose token was issued then, may no longer
    /// be connected in this role; at once when it has come too late to hear of it. Cancel safe.
    pub(crate) async fn lost(&self, device_id: &str, role: &str, issued_at_ms: Option<u64>) {
        let _watch = self.watch();
        let mut revocations = self.revocations();
        loop {
            let (device_id, role) = (device_id.to_owned(), role.to_owned());
            match self.still_admits(device_id, role, issued_at_ms).await {
                Ok(true) => break,
                Ok(false) => return,
                // A table that was broken meanwhile takes nothing away from anybody.
                Err(reason) => debug!(reason = %handoff::chain(&reason), "asking again later"),
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        revocations.of(device_id, role).await;
    }

    /// The same for a device that needed not be paired to be let in, and may be meanwhile.
    pub(crate) async fn revoked(&self, device_id: &str, role: &str) {
        let _watch = self.watch();
        self.revocations().of(device_id, role).await;
    }
}
