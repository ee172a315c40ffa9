//! How often a client may rewrite the configuration: three times in a minute.
//!
//! **Invariants**
//! - Pure: the caller says what time it is.
//! - However many callers there were, it remembers at most [`MOST_CALLERS`].

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How many writes a caller has in a window.
const WRITES: u32 = 3;
/// How long a window is, from its first write.
const WINDOW: Duration = Duration::from_secs(60);
/// How many callers are remembered; beyond, the one whose window began first is forgotten.
const MOST_CALLERS: usize = 1024;

/// A write that comes too soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooSoon {
    /// When the next one may come.
    pub(crate) retry_after: Duration,
}

/// The windows of all callers.
#[derive(Debug, Default)]
pub(crate) struct WriteBudget {
    windows: HashMap<String, Window>,
}

#[derive(Debug)]
struct Window {
    began_at: Instant,
    writes: u32,
}

impl WriteBudget {
    /// Takes one write from the budget of `caller`: its device and address.
    ///
    /// # Errors
    /// [`TooSoon`] when the window's writes are used up.
    pub(crate) fn take(&mut self, caller: &str, now: Instant) -> Result<(), TooSoon> {
        self.windows.retain(|_, window| now.duration_since(window.began_at) < WINDOW);
        if let Some(window) = self.windows.get_mut(caller) {
            if window.writes == WRITES {
                let retry_after = WINDOW.saturating_sub(now.duration_since(window.began_at));
                return Err(TooSoon { retry_after });
            }
            window.writes += 1;
            return Ok(());
        }
        if self.windows.len() == MOST_CALLERS {
            let first = self.windows.iter().min_by_key(|(_, window)| window.began_at);
            if let Some(caller) = first.map(|(caller, _)| caller.clone()) {
                self.windows.remove(&caller);
            }
        }
        self.windows.insert(caller.to_owned(), Window { began_at: now, writes: 1 });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fourth_write_in_a_minute_waits_for_the_rest_of_it() {
        let mut budget = WriteBudget::default();
        let begun_at = Instant::now();
        let at = |seconds| begun_at + Duration::from_secs(seconds);
        for seconds in [0, 1, 2] {
            assert_eq!(budget.take("a", at(seconds)), Ok(()));
        }
        let too_soon = TooSoon { retry_after: Duration::from_secs(50) };
        assert_eq!(budget.take("a", at(10)), Err(too_soon));
        assert_eq!(budget.take("b", at(10)), Ok(()), "each has a budget of its own");
        assert_eq!(budget.take("a", at(60)), Ok(()));
    }

    #[test]
    fn callers_are_forgotten_before_there_are_too_many() {
        let mut budget = WriteBudget::default();
        let now = Instant::now();
        for caller in 0..2 * MOST_CALLERS {
            budget.take(&caller.to_string(), now).unwrap();
        }
        assert_eq!(budget.windows.len(), MOST_CALLERS);
    }
}
