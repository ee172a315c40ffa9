//! What callers of the control socket, and the serving worker itself, ask of the front's task, and what they
//! are told at once.
//!
//! Whoever asked may have left before the answer; none of them is waited for.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use ::handoff::message::{GenerationId, Report};
use tokio::sync::oneshot;
use tracing::{debug, info, warn};

use crate::control::protocol::TakeoverRequest;
use crate::control::server::{Asked, StatusInParts, Watch};
use crate::event::{TakeoverDenied, TakeoverNumber};
use crate::front::{Front, Timer};
use crate::generation::State;
use crate::program::ProgramChange;

/// How old a worker is at least when it is replaced by its own wish: one that wishes so at each start must
/// not keep the front starting workers.
const LEAST_AGE: Duration = Duration::from_secs(5);

impl Front {
    /// A worker wants to be replaced by a fresh one.
    pub(crate) fn on_wanted(&mut self, id: GenerationId, reason: String) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        let old_enough_at = worker.started_at + LEAST_AGE;
        worker.wanted = Some(reason.chars().take(500).collect());
        if old_enough_at <= Instant::now() {
            self.replace_as_wanted(id);
        } else {
            self.timers.insert(Timer::Wanted(id), old_enough_at);
        }
    }

    /// Replaces a worker that wanted it, if it is the one that serves.
    pub(crate) fn replace_as_wanted(&mut self, id: GenerationId) {
        let Some(reason) = self.workers.get_mut(id).and_then(|worker| worker.wanted.take()) else {
            return;
        };
        if self.generations.serving() != Some(id) {
            debug!(generation = %id, reason, "wants to be replaced, and does not serve");
            return;
        }
        match self.generations.request_takeover(None) {
            Ok((takeover, actions)) => {
                info!(takeover = takeover.0, generation = %id, reason, "takeover requested by the worker");
                self.perform(actions);
            }
            Err(denied) => warn!(generation = %id, reason, %denied, "takeover denied"),
        }
    }

    pub(crate) fn on_asked(&mut self, asked: Asked) {
        match asked {
            Asked::Status { reply } => {
                let status = self.status();
                let reports = self.ask_everyone();
                let _ = reply.send(StatusInParts { status, reports });
            }
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
        let program = (change != ProgramChange::default())
            .then(|| self.programs.changed(self.generations.current, change));
        let (takeover, actions) = self.generations.request_takeover(program)?;
        info!(takeover = takeover.0, "takeover requested");
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
