//! What callers of the control socket, and the serving worker itself, ask of the front's task, and what they
//! are told at once.
//!
//! Whoever asked may have left before the answer; none of them is waited for.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use ::handoff::message::{GenerationId, Report, millis};
use tokio::sync::oneshot;
use tracing::{debug, info};

use crate::claims;
use crate::control::protocol::TakeoverRequest;
use crate::control::server::{Asked, StatusInParts, Watch};
use crate::event::{Granted, Note, PauseEnd, TakeoverDenied, TakeoverNumber};
use crate::front::Front;
use crate::generation::State;
use crate::program::ProgramChange;
use crate::timer::Timer;
use crate::workers::Wish;

/// How old a worker is at least when it is replaced by its own wish: one that wishes so at each start must
/// not keep the front starting workers.
const LEAST_AGE: Duration = Duration::from_secs(5);

/// The longest pause before the wish of a worker whose replacement failed is heeded again.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// How long after a takeover was rolled back its worker's wish is heeded again.
fn pause_after(asked: u32) -> Duration {
    LEAST_AGE.saturating_mul(1 << asked.saturating_sub(1).min(16)).min(LONGEST_PAUSE)
}

/// Where the outcome of what was asked is told.
type Reply = oneshot::Sender<Result<(), String>>;

/// Callers that wait until nobody accepts any more, or somebody does again.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    for_pause: Vec<Reply>,
    for_resumption: Vec<Reply>,
}

impl Waiting {
    /// Tells those whose wait is over.
    pub(crate) fn heed(&mut self, note: &Note) {
        let gone = "the worker is gone; the next one accepts as soon as it is ready";
        match note {
            Note::Paused(_) => self.for_pause.drain(..).for_each(|reply| tell(reply, Ok(()))),
            Note::Resumed(_) => self.for_resumption.drain(..).for_each(|reply| tell(reply, Ok(()))),
            Note::PauseEnded { why, .. } => {
                let reason = match why {
                    PauseEnd::Asked => "the pause was ended by another caller",
                    PauseEnd::Expired => "the pause was over before it had begun",
                    PauseEnd::WorkerGone => gone,
                    PauseEnd::Stopping => "the front is stopping",
                };
                self.for_pause.drain(..).for_each(|reply| tell(reply, Err(reason.to_owned())));
            }
            Note::Crashed { .. } => {
                self.for_resumption.drain(..).for_each(|reply| tell(reply, Err(gone.to_owned())));
            }
            _ => {}
        }
    }
}

/// Whoever asked may have left.
fn tell(reply: Reply, outcome: Result<(), String>) {
    let _ = reply.send(outcome);
}

impl Front {
    /// A worker wants to be replaced by a fresh one.
    pub(crate) fn on_wanted(&mut self, id: GenerationId, reason: String) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        let old_enough_at = worker.started_at + LEAST_AGE;
        let reason = claims::sentence(&reason);
        let asked = worker.wish.as_ref().map_or(0, |wish| wish.asked);
        worker.wish = Some(Wish { reason, asked });
        if old_enough_at <= Instant::now() {
            self.replace_as_wanted(id);
        } else {
            self.timers.insert(Timer::Wanted(id), old_enough_at);
        }
    }

    /// Replaces a worker that wanted it, if it is the one that serves.
    pub(crate) fn replace_as_wanted(&mut self, id: GenerationId) {
        let serves = self.generations.serving() == Some(id);
        let Some(wish) = self.workers.get_mut(id).and_then(|worker| worker.wish.as_mut()) else {
            return;
        };
        if serves {
            wish.asked = wish.asked.saturating_add(1);
        }
        let reason = wish.reason.clone();
        let (granted, actions) = self.generations.grant(id);
        match granted {
            Granted::Takeover(takeover) => {
                info!(takeover = takeover.0, generation = %id, reason, "takeover requested by the worker");
            }
            Granted::OnceResumed => {
                info!(generation = %id, reason, "takeover requested by the worker, for after the pause");
            }
            Granted::Standby => info!(generation = %id, reason, "the standby wants to be replaced"),
            Granted::Nothing => {
                debug!(generation = %id, reason, "wants to be replaced, and does not serve");
            }
        }
        self.perform(actions);
    }

    /// A takeover was rolled back: a worker that wanted one and serves on still wants it, but not at once, for the
    /// next successor may fail as this one did.
    pub(crate) fn want_again(&mut self) {
        let Some(id) = self.generations.serving() else { return };
        let Some(wish) = self.workers.get(id).and_then(|worker| worker.wish.as_ref()) else {
            return;
        };
        let pause = pause_after(wish.asked);
        info!(generation = %id, reason = wish.reason, ?pause, "still wants to be replaced");
        self.timers.insert(Timer::Wanted(id), Instant::now() + pause);
    }

    pub(crate) fn on_asked(&mut self, asked: Asked) {
        self.rest_later();
        match asked {
            Asked::Status { reply } => {
                let status = self.status();
                let reports = self.ask_everyone();
                let _ = reply.send(StatusInParts { status, reports });
            }
            // Whoever asked may have left.
            Asked::Metrics { reply } => drop(reply.send(self.tally.clone())),
            Asked::Takeover { request, reply } => {
                let _ = reply.send(self.begin_takeover(request).map_err(|d| d.to_string()));
            }
            Asked::Follow { takeover, reply } => {
                let _ = reply.send(self.follow(takeover));
            }
            Asked::Reexec { binary, caller } => {
                self.begin_reexec(binary.map(PathBuf::from), Some(caller));
            }
            Asked::Report { generation, reply } => self.workers.ask(generation, reply),
            Asked::Drain { generation, reply } => {
                let outcome = self.generations.drain_now(generation);
                let _ = reply.send(match outcome {
                    Ok(actions) => {
                        info!(%generation, "drain cut short");
                        self.perform(actions);
                        Ok(())
                    }
                    Err(denied) => Err(denied.to_string()),
                });
            }
            Asked::Pause { timeout, reply } => self.begin_pause(timeout, reply),
            Asked::Resume { reply } => self.end_pause(reply),
            Asked::Stop { now, reply } => {
                let _ = reply.send(());
                if now {
                    self.stop_now();
                } else {
                    self.stop();
                }
            }
        }
    }

    fn begin_takeover(&mut self, request: TakeoverRequest) -> Result<Watch, TakeoverDenied> {
        let change = ProgramChange {
            path: request.program.map(PathBuf::from),
            arguments: request.arguments.map(|a| a.into_iter().map(Into::into).collect()),
            environment: request
                .environment
                .map(|e| e.into_iter().map(|(n, v)| (n.into(), v.into())).collect()),
        };
        let program = if change == ProgramChange::default() {
            None
        } else {
            let base = self.generations.startable().ok_or(TakeoverDenied::OnlyAttached)?;
            Some(self.programs.changed(base, change))
        };
        let (takeover, actions) = self.generations.request_takeover(program)?;
        info!(takeover = takeover.0, "takeover requested");
        self.programs.keep_only(&self.generations.programs());
        let events = self.story.follow(takeover);
        self.perform(actions);
        Ok(Watch { takeover: takeover.0, events, draining: None })
    }

    fn follow(&mut self, takeover: u64) -> Result<Watch, String> {
        let number = TakeoverNumber(takeover);
        let followed = self.story.follow_again(number);
        let (events, draining) =
            followed.ok_or_else(|| format!("there is no takeover {takeover} to follow"))?;
        Ok(Watch { takeover, events, draining })
    }

    fn begin_pause(&mut self, timeout: Duration, reply: Reply) {
        match self.generations.pause(timeout) {
            Ok(actions) => {
                info!(timeout_ms = millis(timeout), "pause requested");
                self.waiting.for_pause.push(reply);
                self.perform(actions);
            }
            Err(denied) => tell(reply, Err(denied.to_string())),
        }
    }

    fn end_pause(&mut self, reply: Reply) {
        match self.generations.resume() {
            Ok(actions) => {
                self.waiting.for_resumption.push(reply);
                self.perform(actions);
            }
            Err(denied) => tell(reply, Err(denied.to_string())),
        }
    }

    fn ask_everyone(&mut self) -> Vec<(GenerationId, oneshot::Receiver<Report>)> {
        let ids: Vec<_> = self
            .generations
            .living
            .iter()
            .filter(|(_, g)| g.state != State::Ending)
            .map(|(id, _)| *id)
            .collect();
        ids.into_iter()
            .map(|id| {
                let (reply, report) = oneshot::channel();
                self.workers.ask(id, reply);
                (id, report)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_heeded_again_after_a_pause_that_doubles_to_five_minutes() {
        let seconds: Vec<_> = (0..=8).map(|asked| pause_after(asked).as_secs()).collect();
        assert_eq!(seconds, [5, 5, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(pause_after(u32::MAX), LONGEST_PAUSE);
    }
}
