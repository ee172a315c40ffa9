//! Waiting until a status says what a script wants to go on with.
//!
//! **Invariants**
//! - Every wait ends: when it is so, when it cannot come to be so, or at its timeout.
//! - A front that is not there yet, or is becoming another image, is waited for as well.

use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use crate::cli::Failed;
use crate::control::client::{self, AskFailed};
use crate::control::document::Status;
use crate::control::protocol::Outcome;
use crate::spoken;

/// How often the front is asked.
const GLANCE: Duration = Duration::from_millis(100);

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaited {
    /// A worker accepts.
    Ready,
    /// One serves, and fails at nothing.
    Serving,
    /// The same, and no takeover is on its way: the last one was committed.
    Committed,
    /// The same, and there is no other generation, unless it stands by.
    Settled,
}

impl Awaited {
    pub(super) fn read(word: &str) -> Result<Self, String> {
        match word {
            "ready" => Ok(Self::Ready),
            "serving" => Ok(Self::Serving),
            "committed" => Ok(Self::Committed),
            "settled" => Ok(Self::Settled),
            _ => Err("write ready, serving, committed or settled, as in \
                 `holdfast status --wait committed --timeout 60s`"
                .to_owned()),
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Serving => "serving",
            Self::Committed => "committed",
            Self::Settled => "settled",
        }
    }
}

/// A wait, and the takeovers that do not count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    pub(super) awaited: Awaited,
    /// The number of the last one that had begun before.
    pub(super) after: Option<u64>,
}

/// What a status says of a wait.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    ItIs,
    NotYet(String),
    Failed(String),
}

impl Wait {
    /// The first status in which it is so.
    pub(super) async fn until_so(mut self, path: &Path, limit: Duration) -> Result<Status, Failed> {
        let given_up_at = Instant::now() + limit;
        let mut seen_last = format!("no front answered on {}", path.display());
        let mut asked = false;
        loop {
            match timeout_at(given_up_at, client::status(path)).await {
                Ok(Ok(status)) => {
                    let numbers = status.last_takeover.as_ref().map_or(0, |last| last.number);
                    if !asked && self.after.is_none() && was_rolled_back(&status) {
                        // It is no news.
                        self.after = Some(numbers);
                    }
                    asked = true;
                    match self.look(&status) {
                        Seen::ItIs => return Ok(status),
                        Seen::NotYet(why) => seen_last = why,
                        Seen::Failed(reason) => return Err(Failed::Refused { reason }),
                    }
                }
                // Nobody is there, or somebody is about to be.
                Ok(Err(AskFailed::NoFront { .. } | AskFailed::Gone | AskFailed::Broken { .. })) => {
                    seen_last = format!("no front answers on {}", path.display());
                }
                Ok(Err(failed)) => return Err(failed.into()),
                Err(_) => {}
            }
            if Instant::now() + GLANCE > given_up_at {
                let limit = humantime::format_duration(limit);
                let reason = format!("not {} within {limit}: {seen_last}", self.awaited.word());
                return Err(Failed::Refused { reason });
            }
            sleep(GLANCE).await;
        }
    }

    fn look(self, status: &Status) -> Seen {
        let not = |why: &str| Seen::NotYet(why.to_owned());
        if self.awaited == Awaited::Ready {
            return if status.somebody_accepts() { Seen::ItIs } else { not(&nobody(status)) };
        }
        if self.awaited == Awaited::Committed
            && let Some(seen) = self.look_at_takeovers(status)
        {
            return seen;
        }
        let Some(serving) = status.generations.iter().find(|g| g.state == "serving") else {
            return not(&nobody(status));
        };
        if !serving.failing.is_empty() {
            let failing = serving.failing.join(", ");
            return not(&format!("{} fails at: {failing}", serving.generation));
        }
        if self.awaited != Awaited::Settled {
            return Seen::ItIs;
        }
        if let Some(way) = on_its_way(status) {
            return not(&way);
        }
        let other = status
            .generations
            .iter()
            .find(|g| g.generation != serving.generation && g.state != "standby");
        match other {
            Some(other) => not(&format!("{} is {}", other.generation, other.state)),
            None => Seen::ItIs,
        }
    }

    /// `None` when it depends on who serves only.
    fn look_at_takeovers(self, status: &Status) -> Option<Seen> {
        if let Some(way) = on_its_way(status) {
            return Some(Seen::NotYet(way));
        }
        let last = status.last_takeover.as_ref();
        let counts = last.filter(|last| self.after.is_none_or(|after| last.number > after));
        match counts {
            Some(last) if last.outcome == Outcome::RolledBack => {
                let reason = last.reason.as_deref().unwrap_or_default();
                let number = last.number;
                Some(Seen::Failed(format!("takeover {number} was rolled back: it {reason}")))
            }
            Some(_) => None,
            None => self
                .after
                .map(|after| Seen::NotYet(format!("no takeover has begun after number {after}"))),
        }
    }
}

fn was_rolled_back(status: &Status) -> bool {
    status.last_takeover.as_ref().is_some_and(|last| last.outcome == Outcome::RolledBack)
}

/// The takeover that runs or waits.
fn on_its_way(status: &Status) -> Option<String> {
    match &status.takeover {
        Some(takeover) => {
            let to = takeover.successor.map_or_else(String::new, |id| format!(" to {id}"));
            Some(format!("takeover {}{to}: {}", takeover.number, takeover.step))
        }
        None => status.takeover_pending.then(|| "a takeover waits for a drain".to_owned()),
    }
}

/// Why nobody serves.
fn nobody(status: &Status) -> String {
    if let Some(paused) = &status.paused {
        return format!("the front is paused for {}", spoken::time(paused.remaining_ms));
    }
    if status.attach.as_ref().is_some_and(|attach| attach.awaits_worker) {
        return "nobody serves; the front waits for a worker to attach".to_owned();
    }
    match (&status.generations[..], &status.last_failure) {
        ([.., last], _) => format!("{} is {}", last.generation, last.state),
        ([], Some(failure)) => format!("nobody serves; the last one {}", failure.reason),
        ([], None) => "nobody serves".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::document::{GenerationStatus, LastTakeover};

    fn status() -> Status {
        let text = include_str!("../../../tests/status/draining.json");
        serde_json::from_str(text).unwrap()
    }

    fn wait(awaited: Awaited) -> Wait {
        Wait { awaited, after: None }
    }

    /// One that has settled after its third takeover.
    fn settled() -> Status {
        let mut status = status();
        status.generations.retain(|generation| generation.state == "serving");
        status.generations[0].failing.clear();
        status.takeover = None;
        status.takeover_pending = false;
        status.last_takeover.as_mut().unwrap().outcome = Outcome::Committed;
        status
    }

    fn last(status: &mut Status) -> &mut LastTakeover {
        status.last_takeover.as_mut().unwrap()
    }

    fn waits(seen: Seen, words: &str) -> bool {
        matches!(seen, Seen::NotYet(why) if why.contains(words))
    }

    #[test]
    fn everything_is_so_of_a_front_that_has_settled() {
        for awaited in [Awaited::Ready, Awaited::Serving, Awaited::Committed, Awaited::Settled] {
            assert_eq!(wait(awaited).look(&settled()), Seen::ItIs, "{awaited:?}");
            assert_eq!(Awaited::read(awaited.word()), Ok(awaited));
        }
        assert!(Awaited::read("done").unwrap_err().contains("--wait committed"));
    }

    #[test]
    fn a_front_that_drains_is_committed_and_not_settled() {
        let mut status = settled();
        let draining = GenerationStatus {
            generation: handoff::GenerationId::new(1),
            state: "draining".to_owned(),
            ..status.generations[0].clone()
        };
        status.generations.insert(0, draining);
        assert_eq!(wait(Awaited::Committed).look(&status), Seen::ItIs);
        assert!(waits(wait(Awaited::Settled).look(&status), "g1 is draining"));
        status.generations[0].state = "standby".to_owned();
        assert_eq!(wait(Awaited::Settled).look(&status), Seen::ItIs);
    }

    #[test]
    fn a_takeover_that_waits_or_runs_is_not_committed() {
        let mut status = settled();
        status.takeover_pending = true;
        assert!(waits(wait(Awaited::Committed).look(&status), "waits for a drain"));
        assert!(waits(wait(Awaited::Settled).look(&status), "waits for a drain"));
        assert_eq!(wait(Awaited::Serving).look(&status), Seen::ItIs);
    }

    #[test]
    fn only_a_takeover_after_the_named_one_counts_and_one_that_was_rolled_back_ends_the_wait() {
        let mut status = settled();
        last(&mut status).number = 3;
        let after = |after| Wait { awaited: Awaited::Committed, after: Some(after) };
        assert!(waits(after(3).look(&status), "after number 3"));
        assert_eq!(after(2).look(&status), Seen::ItIs);
        last(&mut status).outcome = Outcome::RolledBack;
        last(&mut status).reason = Some("exited with code 3".to_owned());
        assert!(waits(after(3).look(&status), "after number 3"));
        let Seen::Failed(reason) = after(2).look(&status) else { panic!("it waits on") };
        assert_eq!(reason, "takeover 3 was rolled back: it exited with code 3");
    }

    #[test]
    fn one_that_fails_at_something_accepts_and_does_not_serve() {
        let mut status = settled();
        status.generations[0].failing = vec!["store".to_owned()];
        assert_eq!(wait(Awaited::Ready).look(&status), Seen::ItIs);
        assert!(waits(wait(Awaited::Serving).look(&status), "fails at: store"));
    }

    #[test]
    fn nobody_who_serves_is_waited_for_and_the_reason_is_told() {
        let mut status = settled();
        status.generations.clear();
        status.paused = None;
        assert!(waits(wait(Awaited::Ready).look(&status), "waits for a worker to attach"));
        status.attach = None;
        assert!(waits(wait(Awaited::Ready).look(&status), "nobody serves; the last one"));
    }
}
