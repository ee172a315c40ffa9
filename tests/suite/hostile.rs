//! A worker that means harm: the front answers, keeps its size, and replaces it when asked.

use holdfast_tests::rig::{Front, Gate, Process, Signal, State, eventually};

use crate::{fixture, quick};

/// How much more the front may have of its own afterwards: a page of the allocator here and there.
const GROWTH: u64 = 2 * 1024 * 1024;
/// How often it is asked how it is meanwhile.
const QUESTIONS: usize = 5;

/// What the front has when nobody does harm.
#[derive(Clone, Copy, Debug)]
struct Size {
    descriptors: usize,
    memory: u64,
}

impl Size {
    fn of(process: Process) -> Self {
        Self { descriptors: process.descriptors().len(), memory: process.anonymous_bytes() }
    }
}

/// A front that has its size: it has served, and taken over.
async fn warm(words: &[&str], gate: &Gate) -> (Front, Size) {
    let harmless_once = gate.word("until");
    let words = [&[harmless_once.as_str()], words].concat();
    let front = Front::with(|s| {
        quick(s.worker(fixture(["serve"])))
            .flag("--ready-timeout", "2s")
            .flag("--drain-timeout", "1s")
    })
    .await;
    for _ in 0..3 {
        front.takeover().await.assert_committed();
        front.until("the incumbent is gone", |s| s.is_settled()).await;
    }
    let size = Size::of(front.process());
    let takeover = front.begin_takeover_to(&fixture(words));
    eventually("the harm is done", async || {
        (front.log().lines_with("hostile: ") > 0).then_some(())
    })
    .await;
    // Whatever becomes of it: whoever asked for it may leave.
    drop(takeover);
    (front, size)
}

/// The front answers, is no larger, and takes over from whoever serves by then.
async fn bears(front: &Front, gate: &Gate, size: Size) {
    for _ in 0..QUESTIONS {
        let status = front.try_status();
        let status = holdfast_tests::rig::soon("the front says how it is", status).await;
        assert!(status.is_some(), "the front does not say how it is");
    }
    gate.open();
    let takeover = front.takeover_to(&fixture(["serve"])).await;
    // What a liar says was cut is shown as it says it.
    assert!(takeover.event("committed").is_some(), "{takeover:?}");
    front.until("the harmful one is gone", |s| s.is_settled()).await;
    eventually("the front holds no more descriptors than before", async || {
        (Size::of(front.process()).descriptors <= size.descriptors).then_some(())
    })
    .await;
    let now = Size::of(front.process());
    assert!(now.memory <= size.memory + GROWTH, "{size:?} became {now:?}");
    assert_eq!(front.log().lines_with("panicked at"), 0);
}

/// One that does harm instead of saying that it is ready.
async fn as_a_successor(way: &str) {
    let gate = Gate::closed();
    let (front, size) = warm(&[&format!("hostile-start:{way}")], &gate).await;
    if way == "numbers" {
        // It is granted the longest time there is to get ready; an operator would not wait for that.
        let starting = front
            .status_with("it is known", |s| {
                s.in_state(State::Starting).first().and_then(|g| g.worker())
            })
            .await;
        starting.signal(Signal::SIGKILL);
    }
    bears(&front, &gate, size).await;
}

/// One that does harm as soon as it is trusted, and is the incumbent of the next takeover.
async fn as_an_incumbent(way: &str) {
    let gate = Gate::closed();
    let (front, size) = warm(&[&format!("hostile:{way}")], &gate).await;
    bears(&front, &gate, size).await;
}

/// The claims for each way to do harm.
macro_rules! in_each_way {
    ($($name:ident: $way:literal;)+) => {
        $(mod $name {
            use super::{as_a_successor, as_an_incumbent};

            #[tokio::test]
            async fn harms_neither_the_front_nor_the_next_takeover() {
                // Side by side, since most of each is waiting.
                tokio::join!(as_a_successor($way), as_an_incumbent($way));
            }
        })+
    };
}

in_each_way! {
    thousands_of_descriptors: "descriptors";
    sockets_that_take_long_to_close: "lingering";
    sockets_behind_a_word_that_ends_the_link: "lingering-unread";
    the_largest_numbers: "numbers";
    packets_of_the_largest_size: "packets";
    a_flood_of_words: "flood";
    not_reading_at_all: "deaf";
    a_link_closed_for_reading: "half-read";
    a_link_closed_for_writing: "half-write";
}
