//! The antechamber: where WebSockets wait until they have connected. Each address has so many places.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use handoff::Peer;

/// Counts the WebSockets that have not connected yet, by where they come from.
#[derive(Debug)]
pub(crate) struct Antechamber {
    most: u32,
    waiting: Arc<Mutex<HashMap<Origin, u32>>>,
}

/// Who shares the places: an address, or all clients of Unix sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Origin {
    Address(IpAddr),
    Unix,
}

/// A place in the antechamber; it is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    origin: Origin,
    waiting: Arc<Mutex<HashMap<Origin, u32>>>,
}

impl Antechamber {
    /// With `most` places for each address.
    pub(crate) fn new(most: u32) -> Self {
        Self { most, waiting: Arc::default() }
    }

    /// How many places each address has.
    pub(crate) const fn most(&self) -> u32 {
        self.most
    }

    /// Takes a place, unless the peer's address has none left.
    pub(crate) fn enter(&self, peer: Peer) -> Option<Place> {
        self.enter_within(peer, self.most)
    }

    /// Takes a place for one that had a place in another generation: it is not sent away for having
    /// moved.
    pub(crate) fn readmit(&self, peer: Peer) -> Place {
        self.enter_within(peer, u32::MAX).expect("nobody has so many connections")
    }

    fn enter_within(&self, peer: Peer, most: u32) -> Option<Place> {
        let origin = match peer {
            Peer::Tcp(address) => Origin::Address(address.ip().to_canonical()),
            Peer::Unix => Origin::Unix,
        };
        let mut waiting = lock(&self.waiting);
        let taken = waiting.entry(origin).or_default();
        if *taken >= most {
            return None;
        }
        *taken += 1;
        Some(Place { origin, waiting: Arc::clone(&self.waiting) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = lock(&self.waiting);
        // An address without anybody takes no memory.
        if let Some(taken) = waiting.get_mut(&self.origin) {
            *taken -= 1;
            if *taken == 0 {
                waiting.remove(&self.origin);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic between two of its operations leaves the map whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str) -> Peer {
        Peer::Tcp(address.parse().unwrap())
    }

    #[test]
    fn each_address_has_its_own_places_and_gets_them_back() {
        let antechamber = Antechamber::new(2);
        let first = antechamber.enter(peer("192.0.2.1:1")).unwrap();
        let _second = antechamber.enter(peer("192.0.2.1:2")).unwrap();
        assert!(antechamber.enter(peer("192.0.2.1:3")).is_none());
        assert!(antechamber.enter(peer("[::ffff:192.0.2.1]:3")).is_none(), "the same address");
        assert!(antechamber.enter(peer("192.0.2.2:1")).is_some());
        assert!(antechamber.enter(Peer::Unix).is_some());
        drop(first);
        assert!(antechamber.enter(peer("192.0.2.1:3")).is_some());
    }

    #[test]
    fn nobody_waiting_takes_no_memory() {
        let antechamber = Antechamber::new(2);
        drop(antechamber.enter(Peer::Unix));
        assert!(lock(&antechamber.waiting).is_empty());
    }
}
