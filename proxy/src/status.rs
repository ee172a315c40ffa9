//! The front's own account of itself, as `holdfast status` shows it.

use std::time::Duration;

use handoff::message::{GenerationId, millis};

use crate::control::document::{
    AttachStatus, FrontStatus, GenerationStatus, LimitsStatus, ListenerStatus, NextTakeover,
    OriginStatus, Paused, Phases, RecoveredStatus, Respawn, Status, TakeoverStatus,
};
use crate::event::Deadline;
use crate::front::Front;
use crate::generation::Course;
use crate::outlet::{LOG, Outlet};
use crate::resident;
use crate::turning_away::TurningAway;
use crate::workers::Origin;

/// The version of the status document.
const SCHEMA: u32 = 1;

impl Front {
    /// Everything but what only the workers know.
    pub(crate) fn status(&self) -> Status {
        let takeover = match &self.generations.course {
            Course::Takeover(takeover) => Some(TakeoverStatus {
                step: takeover.step.word().to_owned(),
                incumbent: takeover.incumbent,
                successor: takeover.successor,
                pending: self.generations.pending.is_some(),
                number: takeover.number.0,
                age_ms: self.story.running().map_or(0, |running| running.age_ms),
                phases: self.story.running().map_or_else(Phases::default, |running| running.phases),
            }),
            _ => None,
        };
        let respawn_at =
            |deadline| self.remaining(deadline).map(|left| Respawn { in_ms: millis(left) });
        Status {
            schema: SCHEMA,
            front: FrontStatus {
                pid: std::process::id(),
                version: crate::VERSION.to_owned(),
                uptime_ms: millis(self.started_at.elapsed()),
                resident_bytes: resident::of(std::process::id()).unwrap_or_default(),
                descriptors: open_descriptors().unwrap_or_default(),
                log_file: self.log_file(),
                log_lines_lost: LOG.get().map_or(0, Outlet::lost),
                limits: Some(LimitsStatus {
                    descriptors: self.settings.terms.limits.current,
                    descriptors_at_start: self.settings.terms.limits.inherited,
                }),
                recovered: self.recovered.as_ref().map(|recovered| RecoveredStatus {
                    generations: recovered.generations.clone(),
                    age_ms: millis(recovered.at.elapsed()),
                }),
            },
            listeners: self.listener_statuses(),
            generations: self.generation_statuses(),
            takeover,
            takeover_pending: self.generations.pending.is_some(),
            last_takeover: self.story.last_takeover(),
            last_failure: self.story.last_failure(),
            next_takeover: self.next_takeover(),
            respawn: respawn_at(Deadline::Respawn),
            stopping: self.generations.course == Course::Leaving,
            takeovers: self.story.counts(),
            reexecs: self.story.reexecs(),
            crashes: self.story.crashes(),
            turned_away: self.story.all_turned_away()
                + self.turning_away.as_ref().map_or(0, TurningAway::count),
            paused: self.paused(),
            next_standby: respawn_at(Deadline::Standby),
            proven_program: self
                .generations
                .proven
                .map(|program| self.programs.get(program).to_string()),
            left_program: self.story.left_program(),
            events: self.story.history.events(),
            recent_takeovers: self.story.recent_takeovers(),
            attach: self.attach_status(),
        }
    }

    /// By a path that others can use, whose working directory is another.
    fn log_file(&self) -> Option<String> {
        let path = self.settings.terms.log_file.as_deref()?;
        Some(std::path::absolute(path).ok()?.to_string_lossy().into_owned())
    }

    fn listener_statuses(&self) -> Vec<ListenerStatus> {
        self.listeners
            .iter()
            .flat_map(|listeners| &listeners.sockets)
            .map(|socket| ListenerStatus {
                address: socket.address.to_string(),
                shard: socket.shard,
                inode: socket.inode().unwrap_or_default(),
            })
            .collect()
    }

    fn generation_statuses(&self) -> Vec<GenerationStatus> {
        self.generations
            .living
            .iter()
            .filter_map(|(id, generation)| {
                let (origin, age, program) = self.particulars(*id)?;
                let pid = origin.pid().map_or(0, |pid| pid.as_raw().unsigned_abs());
                Some(GenerationStatus {
                    generation: *id,
                    state: generation.state.word().to_owned(),
                    pid,
                    origin: Some(told(origin)),
                    age_ms: millis(age),
                    program,
                    lease: self.generations.lease == Some(*id),
                    failing: generation.failing.clone(),
                    connections: None,
                    in_flight: None,
                    oldest: None,
                    resident_bytes: origin.pid().and_then(|_| resident::of_family(pid)),
                    drains_within_ms: self.remaining(Deadline::Drained(*id)).map(millis),
                })
            })
            .collect()
    }

    /// The origin, age and program of a living generation, for status.
    fn particulars(&self, id: GenerationId) -> Option<(&Origin, Duration, String)> {
        let worker = self.workers.get(id)?;
        let program = match &worker.origin {
            Origin::Attached(peer) => peer.program.clone(),
            _ => self.programs.get(self.generations.living.get(&id)?.program).to_string(),
        };
        Some((&worker.origin, worker.started_at.elapsed(), program))
    }

    fn attach_status(&self) -> Option<AttachStatus> {
        let attach = self.attach.as_ref()?;
        Some(AttachStatus {
            path: attach.admission().path.display().to_string(),
            awaits_worker: self.generations.awaits_worker(),
            waiting: attach.waiting().map(|peer| peer.program.clone()).collect(),
        })
    }

    fn paused(&self) -> Option<Paused> {
        let Course::Paused(generation) = self.generations.course else { return None };
        let remaining = self.remaining(Deadline::Resume).unwrap_or_default();
        Some(Paused { generation, remaining_ms: millis(remaining) })
    }

    fn next_takeover(&self) -> NextTakeover {
        match &self.generations.course {
            Course::Leaving => NextTakeover::Never,
            Course::Takeover(_) | Course::Launching(_) | Course::Resuming(_) => {
                NextTakeover::AfterThisOne
            }
            Course::Paused(_) => NextTakeover::AfterPause,
            Course::Steady | Course::Pausing => match self.generations.holding_up() {
                Some(generation) => {
                    let within = self.remaining(Deadline::Drained(generation));
                    let within_ms = millis(within.unwrap_or(Duration::ZERO));
                    NextTakeover::After { generation, within_ms }
                }
                None => NextTakeover::Now,
            },
        }
    }
}

fn told(origin: &Origin) -> OriginStatus {
    match origin {
        Origin::Child(_) => OriginStatus::Started,
        Origin::Adopted(_) => OriginStatus::Adopted,
        Origin::Attached(peer) => OriginStatus::Attached { user: peer.user },
    }
}

fn open_descriptors() -> Option<u64> {
    // The listing's own descriptor is not counted.
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as u64)
}
