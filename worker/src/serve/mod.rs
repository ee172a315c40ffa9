//! Bytes in and out: HTTP/1.1 and WebSockets over the connections that the lifecycle accepts.

mod answer;
mod chosen;
mod completions;
mod connection;
mod conversation;
mod events;
mod http;
mod models;
mod moving;
mod presence;
mod probes;
mod readiness;
mod upload;
mod watched;
mod websocket;

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use handoff::migrate::{Moved, Neighbour, Post};
use handoff::{GenerationId, Stance};
use hyper::header::HeaderValue;
use tokio::sync::watch;

pub(crate) use connection::{accept, resume as resume_http};
pub(crate) use moving::judge;
pub(crate) use readiness::{Gauge, Readiness};

use crate::args::Limits;
use crate::census::Census;
use crate::methods::{self, Knowledge};
use crate::metrics;
use crate::registry::Registry;
use websocket::Antechamber;
pub(crate) use websocket::resume as resume_websocket;

/// Whether requests are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AccessLog {
    /// Each one, when its response is complete.
    On,
    /// None.
    Off,
}

/// What every connection of this worker shares.
#[derive(Debug)]
pub(crate) struct Gateway {
    /// `g7`, as each response says it; `g0` without a front.
    generation: HeaderValue,
    /// Who is connected.
    pub(crate) census: Arc<Census>,
    /// Whether this worker could serve.
    pub(crate) readiness: Readiness,
    knowledge: Arc<Knowledge>,
    limits: Limits,
    access_log: AccessLog,
    antechamber: Antechamber,
    stance: watch::Receiver<Stance>,
    dismissal: watch::Sender<bool>,
    /// How moving goes; empty when connections do not move.
    moved: OnceLock<watch::Receiver<Moved>>,
    started_at: Instant,
}

impl Gateway {
    /// A gateway with what comes with the worker.
    pub(crate) fn new(
        generation: Option<GenerationId>,
        knowledge: Arc<Knowledge>,
        (limits, access_log): (Limits, AccessLog),
        stance: watch::Receiver<Stance>,
    ) -> Self {
        let generation = generation.unwrap_or(GenerationId::new(0)).to_string();
        Self {
            generation: HeaderValue::try_from(generation).expect("a letter and digits"),
            census: Arc::clone(knowledge.runs.census()),
            readiness: knowledge.plugins.readiness().clone(),
            knowledge,
            antechamber: Antechamber::new(limits.preauth_per_address),
            limits,
            access_log,
            stance,
            dismissal: watch::Sender::new(false),
            moved: OnceLock::new(),
            started_at: Instant::now(),
        }
    }

    /// Where letters for clients are sent from.
    pub(crate) fn post(&self) -> &Post {
        self.knowledge.runs.post()
    }

    /// The snapshot in force: a call stays with the one it began on.
    pub(crate) fn registry(&self) -> Arc<Registry> {
        self.knowledge.registry.load_full()
    }

    /// Connections move from now on, and how that goes.
    pub(crate) fn moves(&self, moved: watch::Receiver<Moved>) {
        // It is said once.
        let _ = self.moved.set(moved);
    }

    /// There is a generation beside from now on.
    pub(crate) fn linked(&self, neighbour: Neighbour) {
        self.knowledge.runs.linked(neighbour);
    }

    /// The generation beside has said something.
    pub(crate) fn heard(&self, neighbour: Neighbour, text: &str) {
        let is_known = self.knowledge.heard(neighbour, text)
            || methods::plugins::heard(&self.knowledge, neighbour, text);
        if !is_known {
            self.knowledge.runs.heard(neighbour, text);
        }
    }

    /// The generation beside is gone.
    pub(crate) fn unlinked(&self, neighbour: Neighbour) {
        self.knowledge.plugins.beside().unlinked(neighbour);
        self.knowledge.runs.unlinked(neighbour);
    }

    /// From now on clients are told to come back: their connections cannot move.
    pub(crate) fn dismiss(&self) {
        self.dismissal.send_replace(true);
    }

    /// Whether clients are told to come back.
    fn dismisses(&self) -> bool {
        let has_successor = || self.moved.get().is_some_and(|moved| moved.borrow().linked);
        *self.dismissal.borrow() || (self.is_draining() && !has_successor())
    }

    /// Ends when clients are told to come back. Cancel safe.
    fn dismissed(&self) -> impl Future<Output = ()> + use<> {
        let mut dismissal = self.dismissal.subscribe();
        async move {
            // An error means the worker is gone.
            let _ = dismissal.wait_for(|dismisses| *dismisses).await;
        }
    }

    fn is_draining(&self) -> bool {
        self.stance.borrow().deadline().is_some()
    }

    /// What this worker has counted, and what is open now.
    fn metrics(&self) -> answer::Response {
        let sessions = self.knowledge.runs.overview().seen().count;
        answer::exposition(metrics::exposition(&self.census.report(), sessions))
    }

    fn uptime_ms(&self) -> u64 {
        u64::try_from(self.started_at.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
