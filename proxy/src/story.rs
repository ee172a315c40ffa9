//! What happened, for whoever asks: the log, the takeover being followed, and the last one.
//!
//! **Invariants**
//! - The log of a takeover that goes well is under ten lines, and the reason of one that does not is one line.

use std::time::{Duration, Instant};

use handoff::message::{Connections, Drained, GenerationId, Report, millis};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use crate::control::document::{
    LastFailure, LastTakeover, LeftProgram, Phases, ReexecCounts, TakeoverCounts,
};
use crate::control::protocol::{Answer, Outcome};
use crate::event::{Exit, Note, PauseEnd, TakeoverNumber};
use crate::followers::Followers;
use crate::history::History;
use crate::left::Left;
use crate::program::Program;
use crate::record::Record;

/// The front's memory of what happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Story {
    /// They ask again.
    #[serde(skip)]
    followers: Followers,
    running: Option<Record>,
    last: Option<Record>,
    failure: Option<Failure>,
    counts: TakeoverCounts,
    crashes: u64,
    hold: Option<Held>,
    turned_away: u64,
    #[serde(default)]
    reexecs: ReexecCounts,
    #[serde(default)]
    left: Option<Left>,
    #[serde(default)]
    pub(crate) history: History,
}

/// A time in which nobody accepts.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Held {
    #[serde(with = "crate::age")]
    began_at: Instant,
    turned_away: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Failure {
    generation: Option<GenerationId>,
    reason: String,
    #[serde(with = "crate::age")]
    at: Instant,
}

/// What the front still knows of a generation that is gone.
#[derive(Debug)]
pub(crate) struct Farewell {
    /// What it said of its drain, if it said anything.
    pub(crate) drained: Option<Drained>,
    /// What it last said it had open.
    pub(crate) report: Report,
}

impl Story {
    pub(crate) fn new() -> Self {
        Self {
            followers: Followers::default(),
            running: None,
            last: None,
            failure: None,
            counts: TakeoverCounts::default(),
            crashes: 0,
            hold: None,
            turned_away: 0,
            reexecs: ReexecCounts::default(),
            left: None,
            history: History::default(),
        }
    }

    pub(crate) fn reexecs(&self) -> ReexecCounts {
        self.reexecs
    }

    /// This image of the front is a new one.
    pub(crate) fn renewed(&mut self) {
        self.reexecs.done += 1;
        self.history.renewed();
    }

    /// This image of the front should have been replaced, and was not.
    pub(crate) fn not_renewed(&mut self, reason: String) {
        self.reexecs.failed += 1;
        self.history.not_renewed(&reason);
        self.remember(None, reason);
    }

    /// So many were turned away in a hold that another image of the front goes on with.
    pub(crate) fn turned_away_so_far(&mut self, connections: u64) {
        self.turned_away += connections;
    }

    /// Follows a takeover from here on.
    pub(crate) fn follow(&mut self, takeover: TakeoverNumber) -> mpsc::Receiver<Answer> {
        self.followers.follow(takeover)
    }

    /// Follows a takeover that was followed before, from where it has come to, with the generation that drains. `None`
    /// for one that is not remembered.
    pub(crate) fn follow_again(
        &mut self,
        takeover: TakeoverNumber,
    ) -> Option<(mpsc::Receiver<Answer>, Option<GenerationId>)> {
        if self.running.as_ref().is_some_and(|running| running.number == takeover) {
            return Some((self.follow(takeover), None));
        }
        let last = self.last.as_ref().filter(|last| last.number == takeover)?;
        if last.outcome == Outcome::Committed && last.phases.drained_ms.is_none() {
            let draining = last.incumbent;
            return Some((self.follow(takeover), draining));
        }
        let (outcome, reason) = (last.outcome, last.reason.clone());
        let cut = last.drained.map_or(0, |drained| drained.cut.total());
        let events = self.follow(takeover);
        self.done(takeover, outcome, cut, reason);
        Some((events, None))
    }

    pub(crate) fn counts(&self) -> TakeoverCounts {
        self.counts
    }

    /// Connections that were turned away, in all holds that are over.
    pub(crate) fn all_turned_away(&self) -> u64 {
        self.turned_away
    }

    pub(crate) fn crashes(&self) -> u64 {
        self.crashes
    }

    pub(crate) fn last_takeover(&self) -> Option<LastTakeover> {
        self.last.as_ref().map(Record::told)
    }

    /// The takeover that is running, as far as it has come.
    pub(crate) fn running(&self) -> Option<LastTakeover> {
        self.running.as_ref().map(Record::told)
    }

    pub(crate) fn recent_takeovers(&self) -> Vec<LastTakeover> {
        self.history.takeovers(self.last.as_ref())
    }

    pub(crate) fn last_failure(&self) -> Option<LastFailure> {
        let failure = self.failure.as_ref()?;
        Some(LastFailure {
            generation: failure.generation,
            reason: failure.reason.clone(),
            age_ms: millis(failure.at.elapsed()),
        })
    }

    /// The program that was left in a crash loop, until another takeover is committed.
    pub(crate) fn left_program(&self) -> Option<LeftProgram> {
        self.left.as_ref().map(Left::told)
    }

    /// A program is left for the one that had served well before.
    pub(crate) fn went_back(&mut self, from: &Program, to: &Program) {
        let reason = self.failure.as_ref().map_or("", |last| &last.reason);
        self.left = Some(Left::now(from, to, reason));
        self.history.went_back(from, to);
    }

    /// Takes a note of the policy's into the log, the records, and to whoever follows.
    pub(crate) fn tell(&mut self, note: &Note, farewell: Option<&Farewell>) {
        self.history.take(note, farewell);
        match note {
            // Told by `waits`, which knows until when.
            Note::Waits { .. } => {}
            Note::Began { takeover, incumbent } => self.began(*takeover, *incumbent),
            Note::Emptying(id) => {
                info!(generation = %id, "emptying");
                self.send_running(Answer::Emptying { generation: *id });
            }
            Note::Started(id) => {
                info!(generation = %id, "started");
                if let Some(elapsed_ms) = self.reach(|p| &mut p.started_ms) {
                    if let Some(record) = &mut self.running {
                        record.phases.started_ms = Some(elapsed_ms);
                        record.successor = Some(*id);
                    }
                    self.send_running(Answer::Started { successor: *id });
                }
            }
            Note::Ready(id) => {
                info!(generation = %id, "ready");
                if let Some(elapsed_ms) = self.reach_as(*id, |p| &mut p.ready_ms) {
                    self.send_running(Answer::Ready { successor: *id, elapsed_ms });
                }
            }
            Note::Accepting(id) => {
                info!(generation = %id, "admitted");
                if let Some(elapsed_ms) = self.reach_as(*id, |p| &mut p.accepting_ms) {
                    self.send_running(Answer::Accepting { successor: *id, elapsed_ms });
                }
            }
            Note::Switched { successor } => {
                let elapsed_ms = self.reach(|p| &mut p.switched_ms).unwrap_or_default();
                info!(generation = %successor, elapsed_ms, "switched");
                self.send_running(Answer::Switched { successor: *successor, elapsed_ms });
            }
            Note::Unconfirmed(id) => {
                warn!(generation = %id, "did not confirm that it stopped accepting; going on");
            }
            Note::Committed { successor, .. } => self.committed(*successor),
            Note::RolledBack { successor, failure, .. } => {
                self.rolled_back(*successor, failure.to_string());
            }
            Note::Serving(id) => info!(generation = %id, "serving"),
            Note::NotServing { generation, failure } => {
                error!(%generation, reason = %failure, "a worker did not come to serve");
                self.remember(Some(*generation), failure.to_string());
            }
            Note::Crashed { generation, exit } => {
                error!(%generation, %exit, "the serving worker is gone");
                self.crashes += 1;
                self.remember(Some(*generation), format!("{exit} while it served"));
            }
            Note::AwaitsWorker => warn!("nobody serves; the front waits for a worker to attach"),
            Note::StartsOwn => {
                warn!("the attached worker is gone; the front starts its own program");
            }
            Note::Returned(id) => {
                info!(generation = %id, "a worker that had lost its link is here");
            }
            Note::Pausing(pause) => {
                warn!(pause_ms = millis(*pause), "the next start waits");
            }
            // Told by `went_back`, which knows the programs.
            Note::WentBack { .. } => {}
            Note::StandsBy(id) => info!(generation = %id, "stands by"),
            Note::StandbyCalled(id) => info!(generation = %id, "the standby is to serve"),
            Note::StandbyFailed { generation, failure } => {
                warn!(%generation, reason = %failure, "the standby failed");
                self.remember(Some(*generation), failure.to_string());
            }
            Note::StandbyEnded(id) => info!(generation = %id, "the standby is ended"),
            Note::StandbyWaits(pause) => {
                warn!(pause_ms = millis(*pause), "the next standby's start waits");
            }
            Note::PauseBegan { generation, timeout } => {
                info!(%generation, timeout_ms = millis(*timeout), "pausing");
            }
            Note::Paused(id) => info!(generation = %id, "paused: nobody accepts"),
            Note::PauseEnded { generation, why } => pause_ended(*generation, *why),
            Note::Resumed(id) => info!(generation = %id, "resumed"),
            Note::HoldBegan => {
                self.hold = Some(Held { began_at: Instant::now(), turned_away: 0 });
            }
            Note::HeldTooLong(limit) => {
                warn!(held_ms = millis(*limit), "nobody accepts: newcomers are turned away");
            }
            Note::HoldEnded => self.hold_ended(),
            Note::Overran(id) => warn!(generation = %id, "overran its drain and was killed"),
            Note::Gone { generation, exit } => self.gone(*generation, *exit, farewell),
        }
    }

    /// A takeover waits for a drain, at the latest for so long.
    pub(crate) fn waits(
        &mut self,
        takeover: TakeoverNumber,
        draining: GenerationId,
        within: Duration,
    ) {
        let within_ms = millis(within);
        info!(draining = %draining, within_ms, "the takeover waits for a drain");
        self.send(takeover, Answer::Waiting { r#for: draining, within_ms });
    }

    fn began(&mut self, number: TakeoverNumber, incumbent: Option<GenerationId>) {
        info!(takeover = number.0, incumbent = incumbent.map(tracing::field::display), "takeover");
        self.running = Some(Record::begun(number, incumbent));
    }

    /// Somebody accepts again, and so many had waited too long for that.
    pub(crate) fn turned_away(&mut self, connections: u64) {
        warn!(connections, "nobody is turned away any more");
        self.turned_away += connections;
        if let Some(hold) = &mut self.hold {
            hold.turned_away = connections;
        }
    }

    fn hold_ended(&mut self) {
        let Some(hold) = self.hold.take() else { return };
        let elapsed_ms = millis(hold.began_at.elapsed());
        // The first start has no takeover.
        if let Some(record) = &mut self.running {
            record.held_ms = record.held_ms.max(Some(elapsed_ms));
            record.turned_away += hold.turned_away;
            info!(elapsed_ms, "newcomers were held");
            self.send_running(Answer::Held { elapsed_ms, turned_away: hold.turned_away });
        }
    }

    /// What the incumbent of the running takeover had given to a successor that is gone.
    pub(crate) fn lost(&mut self, incumbent: GenerationId, connections: Connections) {
        if let Some(record) = self.running.as_mut().filter(|r| r.incumbent == Some(incumbent)) {
            record.lost = connections;
        }
    }

    fn committed(&mut self, successor: GenerationId) {
        let elapsed_ms = self.reach(|p| &mut p.committed_ms).unwrap_or_default();
        info!(generation = %successor, elapsed_ms, "committed");
        let Some(mut record) = self.running.take() else { return };
        record.outcome = Outcome::Committed;
        // Of one that an earlier front had begun.
        record.successor = record.successor.or(Some(successor));
        self.counts.committed += 1;
        self.left = None;
        let (number, incumbent) = (record.number, record.incumbent);
        self.history.keep(self.last.replace(record));
        self.send(number, Answer::Committed { successor, incumbent, elapsed_ms });
    }

    /// The takeover that was just committed has no incumbent left to drain.
    pub(crate) fn nothing_drains(&mut self) {
        let Some(last) = &mut self.last else { return };
        last.phases.drained_ms = last.phases.drained_ms.or(last.phases.committed_ms);
        let number = last.number;
        let cut = last.drained.map_or(0, |drained| drained.cut.total());
        self.done(number, Outcome::Committed, cut, None);
    }

    fn rolled_back(&mut self, successor: Option<GenerationId>, reason: String) {
        let Some(mut record) = self.running.take() else { return };
        let successor = successor.or(record.successor);
        let lost = record.lost;
        warn!(
            generation = successor.map(tracing::field::display),
            reason,
            lost = lost.total(),
            "takeover rolled back"
        );
        record.reason = Some(reason.clone());
        self.counts.rolled_back += 1;
        let number = record.number;
        self.history.keep(self.last.replace(record));
        self.remember(successor, reason.clone());
        self.send(number, Answer::RolledBack { successor, reason: reason.clone(), lost });
        self.done(number, Outcome::RolledBack, 0, Some(reason));
    }

    /// A generation that was to go is gone; perhaps a takeover waited for that.
    fn gone(&mut self, id: GenerationId, exit: Exit, farewell: Option<&Farewell>) {
        let drained = farewell.map_or_else(Drained::default, |farewell| {
            // One that said nothing took with it whatever it had open.
            let cut = farewell.report.connections;
            farewell.drained.unwrap_or_else(|| Drained { cut, ..Drained::default() })
        });
        let awaits = |record: &&mut Record| {
            record.incumbent == Some(id) && record.phases.drained_ms.is_none()
        };
        // With `stop-first` the incumbent goes before the takeover is committed.
        let running = self.running.as_mut().filter(awaits);
        let is_over = running.is_none();
        let committed = self.last.as_mut().filter(|last| last.outcome == Outcome::Committed);
        let Some(record) = running.or_else(|| committed.filter(awaits)) else {
            info!(generation = %id, %exit, "gone");
            return;
        };
        let elapsed_ms = millis(record.began_at.elapsed());
        record.phases.drained_ms = Some(elapsed_ms);
        record.drained = Some(drained);
        let number = record.number;
        let Drained { moved, sessions, finished, closed, cut } = drained;
        info!(
            generation = %id,
            moved = moved.total(),
            sessions,
            finished = finished.total(),
            closed = closed.total(),
            cut = cut.total(),
            elapsed_ms,
            "drained"
        );
        self.send(
            number,
            Answer::Drained { generation: id, moved, sessions, finished, closed, cut, elapsed_ms },
        );
        if is_over {
            self.done(number, Outcome::Committed, cut.total(), None);
        }
    }

    fn remember(&mut self, generation: Option<GenerationId>, reason: String) {
        self.failure = Some(Failure { generation, reason, at: Instant::now() });
    }

    /// Records when the running takeover reached a phase, in ms since it began.
    fn reach(&mut self, phase: impl FnOnce(&mut Phases) -> &mut Option<u64>) -> Option<u64> {
        let record = self.running.as_mut()?;
        let elapsed_ms = millis(record.began_at.elapsed());
        *phase(&mut record.phases) = Some(elapsed_ms);
        Some(elapsed_ms)
    }

    /// As [`Self::reach`], if it is the successor that reached it.
    fn reach_as(
        &mut self,
        id: GenerationId,
        phase: impl FnOnce(&mut Phases) -> &mut Option<u64>,
    ) -> Option<u64> {
        if self.running.as_ref()?.successor == Some(id) { self.reach(phase) } else { None }
    }

    fn done(&mut self, number: TakeoverNumber, outcome: Outcome, cut: u64, reason: Option<String>) {
        self.send(number, Answer::Done { outcome, cut, reason });
        self.followers.end(number);
    }

    fn send_running(&mut self, answer: Answer) {
        if let Some(number) = self.running.as_ref().map(|record| record.number) {
            self.send(number, answer);
        }
    }

    fn send(&mut self, number: TakeoverNumber, answer: Answer) {
        self.followers.tell(number, &answer);
    }
}

fn pause_ended(generation: GenerationId, why: PauseEnd) {
    match why {
        PauseEnd::Asked => info!(%generation, "the pause is over"),
        PauseEnd::Expired => warn!(%generation, "the pause has lasted as long as it may: resuming"),
        PauseEnd::WorkerGone => warn!(%generation, "the pause is over: its worker is gone"),
        PauseEnd::Stopping => info!(%generation, "the pause is over: the front stops"),
    }
}
