//! Which sessions live, and which of them goes when another is to: policy, with no process and no clock of its own.
//!
//! **Invariants**
//! - No more live than may, those apart that are at work: none of them is sent away.
//! - Of those at rest the one goes that has rested longest.
//! - What programs call their conversations is remembered longer than they live, and not without end.

use std::collections::HashMap;
use std::time::Instant;

/// The most conversations that are remembered.
const MOST_REMEMBERED: usize = 4096;

/// All that may live are at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    AtWork,
    AtRest { since: Instant },
}

/// The sessions that live, and what is remembered of those that do not.
#[derive(Debug)]
pub(super) struct Shelf {
    most: usize,
    places: HashMap<String, Place>,
    conversations: HashMap<String, (u64, String)>,
    told: u64,
}

impl Shelf {
    /// An empty one, for so many.
    pub(super) fn new(most: usize) -> Self {
        Self { most, places: HashMap::new(), conversations: HashMap::new(), told: 0 }
    }

    /// A session is to have a turn: it is at work, and this other one is to go.
    ///
    /// # Errors
    /// [`Full`]: nothing has changed.
    pub(super) fn take(&mut self, key: &str) -> Result<Option<String>, Full> {
        let mut leaves = None;
        if !self.places.contains_key(key) && self.places.len() >= self.most {
            let resting = self.places.iter().filter_map(|(key, place)| match place {
                Place::AtRest { since } => Some((since, key)),
                Place::AtWork => None,
            });
            let (_, longest) = resting.min().ok_or(Full)?;
            leaves = Some(longest.clone());
        }
        if let Some(leaves) = &leaves {
            self.places.remove(leaves);
        }
        self.places.insert(key.to_owned(), Place::AtWork);
        Ok(leaves)
    }

    /// Its turn is over, and it lives on; one that was sent away meanwhile does not come back.
    pub(super) fn rest(&mut self, key: &str, now: Instant) {
        if let Some(place) = self.places.get_mut(key) {
            *place = Place::AtRest { since: now };
        }
    }

    /// A session comes from another owner, at rest. There may be more than may live then, until they leave by themselves.
    pub(super) fn receive(&mut self, key: &str, now: Instant) {
        self.places.insert(key.to_owned(), Place::AtRest { since: now });
    }

    /// It lives no more.
    pub(super) fn leave(&mut self, key: &str) {
        self.places.remove(key);
    }

    /// How many live.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.places.len()
    }

    /// What the program of a session calls its conversation.
    pub(super) fn conversation(&self, key: &str) -> Option<&str> {
        self.conversations.get(key).map(|(_, conversation)| conversation.as_str())
    }

    /// Remembers that.
    pub(super) fn remember(&mut self, key: &str, conversation: &str) {
        self.told += 1;
        self.conversations.insert(key.to_owned(), (self.told, conversation.to_owned()));
        if self.conversations.len() > MOST_REMEMBERED {
            let oldest = self.conversations.iter().min_by_key(|(_, (told, _))| *told);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.conversations.remove(&oldest);
            }
        }
    }

    /// The program does not know it any more.
    pub(super) fn forget(&mut self, key: &str) {
        self.conversations.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Instant {
        static BEGUN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *BEGUN.get_or_init(Instant::now) + Duration::from_secs(seconds)
    }

    #[test]
    fn the_one_that_has_rested_longest_goes() {
        let mut shelf = Shelf::new(3);
        for (key, since) in [("a", 2), ("b", 1), ("c", 3)] {
            assert_eq!(shelf.take(key), Ok(None));
            shelf.rest(key, at(since));
        }
        assert_eq!(shelf.take("b"), Ok(None), "one that lives needs no place");
        shelf.rest("b", at(4));
        assert_eq!(shelf.take("d"), Ok(Some("a".to_owned())));
        assert_eq!(shelf.take("e"), Ok(Some("c".to_owned())));
        assert_eq!(shelf.count(), 3);
    }

    #[test]
    fn those_at_work_are_not_sent_away() {
        let mut shelf = Shelf::new(2);
        assert_eq!(shelf.take("a"), Ok(None));
        assert_eq!(shelf.take("b"), Ok(None));
        assert_eq!(shelf.take("c"), Err(Full));
        assert_eq!(shelf.count(), 2);
        shelf.leave("a");
        assert_eq!(shelf.take("c"), Ok(None));
    }

    #[test]
    fn one_that_was_sent_away_does_not_come_back_by_resting() {
        let mut shelf = Shelf::new(1);
        shelf.take("a").unwrap();
        shelf.rest("a", at(1));
        assert_eq!(shelf.take("b"), Ok(Some("a".to_owned())));
        shelf.rest("a", at(2));
        assert_eq!(shelf.count(), 1);
    }

    #[test]
    fn what_is_remembered_outlives_the_session_and_has_an_end() {
        let mut shelf = Shelf::new(1);
        shelf.remember("a", "1");
        shelf.leave("a");
        assert_eq!(shelf.conversation("a"), Some("1"));
        for n in 0..MOST_REMEMBERED {
            shelf.remember(&format!("k{n}"), "x");
        }
        assert_eq!(shelf.conversation("a"), None);
        assert_eq!(shelf.conversation("k0"), Some("x"));
        shelf.forget("k0");
        assert_eq!(shelf.conversation("k0"), None);
    }
}
