//! Waiting for a value, never for time.

use std::time::{Duration, Instant};

/// How long the rig waits for anything: far longer than it takes, so that only what never happens
/// fails a test.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How often a value is looked at that cannot announce its change.
const GLANCE: Duration = Duration::from_millis(10);

/// Ends with the value `look` finds.
///
/// # Panics
/// When there is none within [`PATIENCE`].
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let given_up_at = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = look().await {
            return value;
        }
        assert!(Instant::now() < given_up_at, "never happened within {PATIENCE:?}: {what}");
        tokio::time::sleep(GLANCE).await;
    }
}

/// The output of `future`.
///
/// # Panics
/// When there is none within [`PATIENCE`].
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("never happened within {PATIENCE:?}: {what}"),
    }
}
