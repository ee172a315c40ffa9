//! Two hundred takeovers in a row, and nothing to show for it.

use std::time::Duration;

use holdfast_tests::rig::{Front, Traffic, eventually, listening_inodes};

/// How many takeovers.
const TAKEOVERS: u64 = 200;
/// After how many of them the front has reached its size.
const WARM: u64 = 20;
/// Every how many of them a slow request is under way.
const SLOW_EVERY: u64 = 10;
/// How much the front may have grown since, in bytes: a page of the allocator here and there.
const GROWTH: u64 = 512 * 1024;
/// How often status is looked at meanwhile.
const SAMPLE: Duration = Duration::from_millis(100);

#[tokio::test]
async fn two_hundred_takeovers_under_traffic_lose_nothing_and_leave_nothing_behind() {
    let front = Front::with(|s| s.flag("--drain-timeout", "3s").flag("--soak", "20ms")).await;
    let inodes = front.status().await.inodes();
    let mut traffic = Traffic::of_every_kind(&front);
    traffic.flows(1).await;
    let takeovers = async {
        let mut warm = None;
        for number in 1..=TAKEOVERS {
            if number % SLOW_EVERY == 0 {
                traffic.send_slow();
            }
            front.takeover().await.assert_committed();
            if number == WARM {
                warm = Some(size(&front));
            }
        }
        warm.expect("more takeovers than that were done")
    };
    let samples = async {
        loop {
            let status = front.status().await;
            assert!(status.admitted_or_draining() <= 2, "{status:?}");
            assert!(status.generations.iter().filter(|g| g.lease).count() <= 1, "{status:?}");
            assert_eq!(status.inodes(), inodes);
            tokio::time::sleep(SAMPLE).await;
        }
    };
    let warm = tokio::select! {
        warm = takeovers => warm,
        () = samples => unreachable!("the samples never end"),
    };
    traffic.flows(3).await;
    let tally = traffic.stop().await;
    tally.assert_no_failures();
    let raced = tally.raced();
    eprintln!("{} answered, {raced} met the race of a drained connection", tally.answered());
    assert_eq!(tally.generations().len() as u64, TAKEOVERS + 1, "a generation answered nobody");
    // Once, and not in the samples: the kernel's list is as long as its closed connections are many,
    // and reading it would hold the clients up.
    assert_eq!(listening_inodes(front.tcp()), inodes);
    let status = front.until("the last incumbent is gone", |s| s.is_settled()).await;
    assert_eq!((status.takeovers.committed, status.takeovers.rolled_back), (TAKEOVERS, 0));
    assert_eq!(status.crashes, 0);
    assert_eq!(front.process().descendants().len(), 1, "somebody was left behind");
    // The connection of the last command may take a moment to go.
    let memory = eventually("the front holds no more descriptors than before", async || {
        let (descriptors, memory) = size(&front);
        (descriptors <= warm.0).then_some(memory)
    })
    .await;
    assert!(memory <= warm.1 + GROWTH, "{} bytes became {memory}", warm.1);
}

/// The front's descriptors and the bytes of its own.
fn size(front: &Front) -> (usize, u64) {
    (front.process().descriptors().len(), front.process().anonymous_bytes())
}
