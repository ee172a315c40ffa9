//! Timeouts of HTTP connections that move: they go on where they were, or a client could hold a connection for
//! ever by being moved in time.

use std::pin::pin;
use std::time::{Duration, Instant};

use holdfast_tests::rig::Front;
use holdfast_tests::rig::http::{HttpConnection, Request};

use crate::quick;

/// Longer than several takeovers, so that each of them would be in time to renew it.
const TIMEOUT: Duration = Duration::from_secs(4);

/// What comes of `waiting` while one takeover follows the other, and how many there were.
async fn through_takeovers<T>(front: &Front, waiting: impl Future<Output = T>) -> (T, u32) {
    let mut waiting = pin!(waiting);
    let mut takeovers = 0;
    loop {
        tokio::select! {
            outcome = &mut waiting => return (outcome, takeovers),
            takeover = front.takeover() => {
                takeover.assert_committed();
                takeovers += 1;
            }
        }
    }
}

/// It took as long as one timeout, and not as two.
fn assert_in_time(begun_at: Instant, takeovers: u32) {
    let took = begun_at.elapsed();
    assert!(takeovers > 0, "there was no takeover within {TIMEOUT:?}");
    // The worker's clock began a moment before this one, and counts in ms.
    assert!(took >= TIMEOUT - Duration::from_millis(100), "it was over after {took:?}");
    assert!(took < TIMEOUT * 2, "after {took:?} and {takeovers} takeovers: the clock was renewed");
}

#[tokio::test]
async fn a_head_that_stalls_is_given_no_more_time_by_takeovers() {
    let front = Front::with(|s| quick(s).environment("HOLDFAST_HEADER_TIMEOUT", "4s")).await;
    let mut connection = HttpConnection::open(&front.address()).await.unwrap();
    connection.exchange(&Request::get("/healthz")).await.unwrap();
    let begun_at = Instant::now();
    connection.send(b"GET /hea").await.unwrap();
    let (answer, takeovers) = through_takeovers(&front, connection.receive()).await;
    assert_eq!(answer.unwrap().code, 408);
    assert_in_time(begun_at, takeovers);
}

#[tokio::test]
async fn an_idle_connection_is_given_no_more_time_by_takeovers() {
    let front = Front::with(|s| quick(s).environment("HOLDFAST_IDLE_TIMEOUT", "4s")).await;
    let mut connection = HttpConnection::open(&front.address()).await.unwrap();
    connection.exchange(&Request::get("/healthz")).await.unwrap();
    let begun_at = Instant::now();
    let (end, takeovers) = through_takeovers(&front, connection.closed()).await;
    assert_eq!(end, Ok(Vec::new()));
    assert_in_time(begun_at, takeovers);
}
