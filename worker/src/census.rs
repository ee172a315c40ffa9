//! Who is connected, what they wait for, and how their connections ended once a drain began.
//!
//! ```text
//! HTTP:  Idle ──first byte──► Head ──request──► Working ──body dropped──► Answered ──flushed──► Idle
//! WebSocket: Talking ──told to come back──► Told      either: ──frozen──► Away
//! ```
//!
//! **Invariants**
//! - Every open connection has exactly one [`Seat`]; dropping it, also by a panic, empties the seat.
//! - A [`Visitor`] is written by its own connection's task alone; others only look.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use handoff::{Connections, Drained, Report};
use tokio::sync::Notify;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// HTTP: nothing of a next request has come.
    Idle,
    /// HTTP: a request's head has begun.
    Head,
    /// HTTP: a request is being answered.
    Working,
    /// HTTP: the response is complete but not yet on its way.
    Answered,
    /// WebSocket: open.
    Talking,
    /// WebSocket: told to come back, waiting for the client to close.
    Told,
    /// It is no longer this task's: it was frozen, to be served elsewhere.
    Away,
}

impl Phase {
    const ALL: [Self; 7] = [
        Self::Idle,
        Self::Head,
        Self::Working,
        Self::Answered,
        Self::Talking,
        Self::Told,
        Self::Away,
    ];
}

/// What a request asks for, as the operator is shown it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Work {
    /// A health or readiness probe.
    Probe,
    /// The list of models, or one of them.
    Models,
    /// A completion.
    Completion,
    /// A WebSocket's beginning.
    Upgrade,
    /// What this worker has counted.
    Metrics,
    /// A path that is not served.
    Unknown,
}

impl Work {
    /// Each of them.
    pub(crate) const ALL: [Self; 6] =
        [Self::Probe, Self::Models, Self::Completion, Self::Upgrade, Self::Metrics, Self::Unknown];

    /// The work as a label.
    pub(crate) const fn route(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Models => "models",
            Self::Completion => "completion",
            Self::Upgrade => "upgrade",
            Self::Metrics => "metrics",
            Self::Unknown => "other",
        }
    }

    /// The work in words: no query, no token.
    pub(crate) const fn what(self) -> &'static str {
        match self {
            Self::Probe => "a probe",
            Self::Models => "GET /v1/models",
            Self::Completion => "POST /v1/chat/completions",
            Self::Upgrade => "GET /",
            Self::Metrics => "GET /metrics",
            Self::Unknown => "a request for an unknown path",
        }
    }
}

/// One connection, as others see it.
#[derive(Debug)]
pub(crate) struct Visitor {
    /// The first connection of this process is 0.
    pub(crate) number: u64,
    /// When it was opened; when it moved here, since when it had been in its phase by then.
    opened_at: Instant,
    phase: AtomicU8,
    /// When the phase began, in ms after `opened_at`.
    since_ms: AtomicU64,
    work: AtomicU8,
}

impl Visitor {
    /// What the connection is doing.
    pub(crate) fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Relaxed))]
    }

    /// Since when it has been doing that.
    pub(crate) fn phase_began_at(&self) -> Instant {
        self.opened_at + Duration::from_millis(self.since_ms.load(Relaxed))
    }

    /// A new phase begins.
    pub(crate) fn enter(&self, phase: Phase) {
        let since = u64::try_from(self.opened_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.since_ms.store(since, Relaxed);
        self.phase.store(phase as u8, Relaxed);
    }

    /// A request is being answered from now on.
    pub(crate) fn begin(&self, work: Work) {
        self.work.store(work as u8, Relaxed);
        self.enter(Phase::Working);
    }

    fn work(&self) -> Work {
        Work::ALL[usize::from(self.work.load(Relaxed))]
    }

    fn is_websocket(&self) -> bool {
        matches!(self.phase(), Phase::Talking | Phase::Told)
    }
}

/// The connections that are open, and the calls that are under way, whoever has their connections by now.
#[derive(Debug, Default)]
pub(crate) struct Census {
    open: Mutex<HashMap<u64, Arc<Visitor>>>,
    calls: Mutex<HashMap<u64, (&'static str, Instant)>>,
    next: AtomicU64,
    draining: AtomicBool,
    tally: Mutex<Drained>,
    emptied: Notify,
}

impl Census {
    /// A connection was accepted.
    pub(crate) fn seat(self: &Arc<Self>) -> Seat {
        self.seat_since(Phase::Idle, Instant::now())
    }

    /// A connection came from another generation, which has been in this phase since then.
    pub(crate) fn seat_since(self: &Arc<Self>, phase: Phase, since: Instant) -> Seat {
        let number = self.next.fetch_add(1, Relaxed);
        let visitor = Arc::new(Visitor {
            number,
            opened_at: since,
            phase: AtomicU8::new(phase as u8),
            since_ms: AtomicU64::new(0),
            work: AtomicU8::new(Work::Unknown as u8),
        });
        self.open().insert(number, Arc::clone(&visitor));
        Seat { census: Arc::clone(self), visitor }
    }

    /// A call has begun that takes its time; `what` is what the operator is shown.
    pub(crate) fn call(self: &Arc<Self>, what: &'static str) -> CallSeat {
        let number = self.next.fetch_add(1, Relaxed);
        self.calls().insert(number, (what, Instant::now()));
        CallSeat { census: Arc::clone(self), number }
    }

    /// How this worker is, for the front.
    pub(crate) fn report(&self) -> Report {
        let mut report = Report::default();
        for (what, begun_at) in self.calls().values() {
            report.in_flight += 1;
            make_oldest(&mut report, what, *begun_at);
        }
        for visitor in self.open().values().filter(|visitor| visitor.phase() != Phase::Away) {
            count(&mut report.connections, visitor);
            if visitor.phase() == Phase::Working {
                report.in_flight += 1;
                make_oldest(&mut report, visitor.work().what(), visitor.phase_began_at());
            }
        }
        report
    }

    /// How many answers somebody waits for: calls that are not of these kinds, and completions.
    pub(crate) fn replies_due(&self, others: &[&str]) -> usize {
        let calls = self.calls().values().filter(|(what, _)| !others.contains(what)).count();
        let completes = |visitor: &&Arc<Visitor>| {
            visitor.phase() == Phase::Working && visitor.work() == Work::Completion
        };
        calls + self.open().values().filter(completes).count()
    }

    /// How many connections are open.
    pub(crate) fn population(&self) -> usize {
        self.open().len()
    }

    /// Whether nothing is open and nothing under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.open().is_empty() && self.calls().is_empty()
    }

    /// From now on it is counted how connections end.
    pub(crate) fn begin_drain(&self) {
        self.draining.store(true, Relaxed);
    }

    /// How the drain went, if it ended at this instant.
    pub(crate) fn drained(&self) -> Drained {
        let mut drained = *self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        for visitor in self.open().values() {
            let ending = match visitor.phase() {
                Phase::Idle => &mut drained.finished,
                Phase::Told => &mut drained.closed,
                Phase::Away => continue,
                Phase::Head | Phase::Working | Phase::Answered | Phase::Talking => &mut drained.cut,
            };
            count(ending, visitor);
        }
        drained
    }

    /// Ends when no connection is open and no call under way. Cancel safe.
    pub(crate) async fn emptied(&self) {
        loop {
            // Registered before looking, so that the last departure is not missed in between.
            let emptied = self.emptied.notified();
            if self.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    fn calls(&self) -> MutexGuard<'_, HashMap<u64, (&'static str, Instant)>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_departure(&self) {
        if self.is_empty() {
            self.emptied.notify_waiters();
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, Arc<Visitor>>> {
        // A panic between two of its operations leaves the map whole.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make_oldest(report: &mut Report, what: &str, since: Instant) {
    let age_ms = handoff::message::millis(since.elapsed());
    if report.oldest.as_ref().is_none_or(|oldest| oldest.age_ms < age_ms) {
        report.oldest = Some(handoff::message::OldestWork { what: what.to_owned(), age_ms });
    }
}

fn count(connections: &mut Connections, visitor: &Visitor) {
    if visitor.is_websocket() {
        connections.websocket += 1;
    } else {
        connections.http += 1;
    }
}

/// One connection's place in the census.
#[derive(Debug)]
pub(crate) struct Seat {
    census: Arc<Census>,
    /// The connection.
    pub(crate) visitor: Arc<Visitor>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.census.open().remove(&self.visitor.number);
        if self.census.draining.load(Relaxed) && self.visitor.phase() != Phase::Away {
            let mut tally = self.census.tally.lock().unwrap_or_else(PoisonError::into_inner);
            let ending = match self.visitor.phase() {
                Phase::Told => &mut tally.closed,
                _ => &mut tally.finished,
            };
            count(ending, &self.visitor);
        }
        self.census.note_departure();
    }
}

/// One call's place in the census.
#[derive(Debug)]
pub(crate) struct CallSeat {
    census: Arc<Census>,
    number: u64,
}

impl Drop for CallSeat {
    fn drop(&mut self) {
        self.census.calls().remove(&self.number);
        self.census.note_departure();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_and_work_are_stored_by_their_own_number() {
        for (index, phase) in Phase::ALL.into_iter().enumerate() {
            assert_eq!(phase as usize, index);
        }
        for (index, work) in Work::ALL.into_iter().enumerate() {
            assert_eq!(work as usize, index);
        }
    }

    #[test]
    fn the_report_names_the_oldest_work() {
        let census = Arc::new(Census::default());
        let first = census.seat();
        let second = census.seat();
        let third = census.seat();
        first.visitor.begin(Work::Completion);
        first.visitor.since_ms.store(0, Relaxed);
        second.visitor.begin(Work::Probe);
        second.visitor.since_ms.store(60_000, Relaxed);
        third.visitor.enter(Phase::Talking);
        let report = census.report();
        assert_eq!(report.connections, Connections { http: 2, websocket: 1 });
        assert_eq!(report.in_flight, 2);
        assert_eq!(report.oldest.unwrap().what, "POST /v1/chat/completions");
    }

    #[test]
    fn at_the_deadline_the_idle_are_finished_and_the_busy_are_cut() {
        let census = Arc::new(Census::default());
        let seats: Vec<_> = Phase::ALL.iter().map(|_| census.seat()).collect();
        drop(census.seat());
        census.begin_drain();
        for (seat, phase) in seats.iter().zip(Phase::ALL) {
            seat.visitor.enter(phase);
        }
        drop(census.seat());
        let drained = census.drained();
        assert_eq!(drained.finished, Connections { http: 2, websocket: 0 });
        assert_eq!(drained.closed, Connections { http: 0, websocket: 1 });
        assert_eq!(drained.cut, Connections { http: 3, websocket: 1 });
    }

    #[test]
    fn a_connection_that_came_is_in_its_phase_since_it_was_elsewhere() {
        let since = Instant::now().checked_sub(Duration::from_secs(5)).unwrap();
        let seat = Arc::new(Census::default()).seat_since(Phase::Head, since);
        assert_eq!((seat.visitor.phase(), seat.visitor.phase_began_at()), (Phase::Head, since));
        seat.visitor.enter(Phase::Idle);
        assert!(seat.visitor.phase_began_at().elapsed() < Duration::from_secs(5));
    }

    #[tokio::test]
    async fn the_census_is_empty_when_the_last_seat_is() {
        let census = Arc::new(Census::default());
        let seat = census.seat();
        let waiting = tokio::spawn({
            let census = Arc::clone(&census);
            async move { census.emptied().await }
        });
        tokio::task::yield_now().await;
        drop(seat);
        tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
    }
}
