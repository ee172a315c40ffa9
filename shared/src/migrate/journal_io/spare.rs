//! Buffers that came back, for the next messages on the same thread.
//!
//! What is large is not allocated for each message (measured: 340 µs of page faults for 512 KiB), nor held
//! by a connection in between. There are several, since the messages of several connections come in
//! pieces by turns (measured with one: 20 page faults for each message of 512 KiB).
//!
//! **Invariants**
//! - A thread holds no more spare buffers than [`MOST`], and no more in all than [`MAX_SPARE`].

use std::cell::RefCell;
use std::ops::RangeInclusive;

use super::journal::MAX_JOURNAL;

/// The most that all spare buffers of a thread hold, in bytes.
const MAX_SPARE: usize = 2 * MAX_JOURNAL;
/// How many there are.
const MOST: usize = 16;
/// What is smaller is left to the allocator, in bytes.
const LEAST_SIZE: usize = 4 * 1024;

thread_local! {
    /// The smallest first.
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// The largest spare buffer of these sizes.
pub(super) fn take(sizes: RangeInclusive<usize>) -> Option<Vec<u8>> {
    SPARE.with_borrow_mut(|spare| {
        let place = spare.partition_point(|buffer| buffer.len() <= *sizes.end()).checked_sub(1)?;
        (spare[place].len() >= *sizes.start()).then(|| spare.remove(place))
    })
}

/// Keeps a buffer for a next message, at the cost of smaller ones.
pub(super) fn give_back(buffer: Vec<u8>) {
    // What is larger came from elsewhere.
    if !(LEAST_SIZE..=MAX_JOURNAL).contains(&buffer.len()) {
        return;
    }
    SPARE.with_borrow_mut(|spare| {
        let place = spare.partition_point(|other| other.len() < buffer.len());
        spare.insert(place, buffer);
        while spare.len() > MOST || spare.iter().map(Vec::len).sum::<usize>() > MAX_SPARE {
            spare.remove(0);
        }
    });
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_thread_holds_only_so_much_and_so_many() {
        let sizes = || SPARE.with_borrow(|spare| Vec::from_iter(spare.iter().map(Vec::len)));
        for size in [5000, 300_000, MAX_JOURNAL, 700_000, MAX_JOURNAL, MAX_JOURNAL + 1] {
            give_back(vec![0; size]);
        }
        assert_eq!(sizes(), [MAX_JOURNAL, MAX_JOURNAL]);
        while take(0..=MAX_JOURNAL).is_some() {}
        for size in 0..10_000 {
            give_back(vec![0; size]);
        }
        assert_eq!(sizes(), Vec::from_iter(10_000 - MOST..10_000));
    }

    #[test]
    fn the_largest_that_is_small_enough_is_taken() {
        for size in [5000, 7000, 9000] {
            give_back(vec![0; size]);
        }
        let taken = |sizes| take(sizes).map(|buffer| buffer.len());
        assert_eq!(taken(6000..=8000), Some(7000));
        assert_eq!(taken(6000..=8000), None);
        assert_eq!(taken(0..=4999), None);
        assert_eq!(taken(6000..=10_000), Some(9000));
    }

    /// Where this thread's spare buffers lie.
    pub(in super::super) fn addresses() -> BTreeSet<*const u8> {
        SPARE.with_borrow(|spare| spare.iter().map(|buffer| buffer.as_ptr()).collect())
    }
}
