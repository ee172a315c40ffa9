//! How many connections a worker may hold open, and how many it does.
//!
//! **Invariants**
//! - Accepting never takes more than the most, however many acceptors there are; none of them sits on a place
//!   while it waits for a connection.
//! - A connection that moves here is taken whatever the number: nobody is cut off for having moved.
//!   Accepting waits until enough have left.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The places of one worker. A copy counts the same places.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    most: usize,
    taken: AtomicUsize,
    /// Somebody left a worker that was full.
    room: Notify,
}

/// A connection's place; it is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Places,
}

impl Places {
    /// `None` is as many as there are descriptors.
    pub(crate) fn new(most: Option<u64>) -> Self {
        let most = most.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
        let shared = Shared { most, taken: AtomicUsize::new(0), room: Notify::new() };
        Self { shared: Arc::new(shared) }
    }

    /// A place, if one is free.
    pub(crate) fn try_take(&self) -> Option<Place> {
        let within = |taken| (taken < self.shared.most).then_some(taken + 1);
        let taken = &self.shared.taken;
        taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, within).ok()?;
        Some(Place { places: self.clone() })
    }

    /// A place, free or not.
    pub(crate) fn take(&self) -> Place {
        self.shared.taken.fetch_add(1, Ordering::AcqRel);
        Place { places: self.clone() }
    }

    /// Ends when a full worker has room again. What became free before this was called does not
    /// count.
    pub(crate) fn room(&self) -> tokio::sync::futures::Notified<'_> {
        self.shared.room.notified()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let shared = &self.places.shared;
        if shared.taken.fetch_sub(1, Ordering::AcqRel) == shared.most {
            shared.room.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_connection_is_gone() {
        let places = Places::new(Some(2));
        let first = places.try_take().unwrap();
        let _second = places.try_take().unwrap();
        assert!(places.try_take().is_none());
        drop(first);
        assert!(places.try_take().is_some());
    }

    #[tokio::test]
    async fn whoever_moved_here_counts_and_accepting_waits_until_enough_have_left() {
        let places = Places::new(Some(1));
        let (first, second) = (places.take(), places.take());
        let mut room = std::pin::pin!(places.room());
        room.as_mut().enable();
        drop(first);
        assert!(places.try_take().is_none());
        drop(second);
        room.await;
        assert!(places.try_take().is_some());
    }
}
