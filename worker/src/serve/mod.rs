//! Bytes in and out: HTTP/1.1 and WebSockets over the connections that the lifecycle accepts.

mod answer;
mod completions;
mod connection;
mod http;
mod models;
mod probes;
mod readiness;
mod upload;
mod watched;
mod websocket;

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use handoff::{GenerationId, Stance};
use hyper::header::HeaderValue;
use tokio::sync::watch;

pub(crate) use connection::serve;
pub(crate) use readiness::Readiness;

use crate::args::Limits;
use crate::census::Census;
use crate::identity::SharedToken;
use crate::methods::Knowledge;
use crate::registry::Registry;
use websocket::Antechamber;

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
    token: SharedToken,
    registry: ArcSwap<Registry>,
    /// Who is connected.
    pub(crate) census: Arc<Census>,
    /// Whether this worker could serve.
    pub(crate) readiness: Readiness,
    knowledge: Knowledge,
    limits: Limits,
    access_log: AccessLog,
    antechamber: Antechamber,
    stance: watch::Receiver<Stance>,
    started_at: Instant,
}

impl Gateway {
    /// A gateway with what comes with the worker.
    pub(crate) fn new(
        generation: Option<GenerationId>,
        token: SharedToken,
        registry: Registry,
        knowledge: Knowledge,
        (limits, access_log): (Limits, AccessLog),
        stance: watch::Receiver<Stance>,
    ) -> Self {
        let generation = generation.unwrap_or(GenerationId::new(0)).to_string();
        Self {
            generation: HeaderValue::try_from(generation).expect("a letter and digits"),
            token,
            registry: ArcSwap::from_pointee(registry),
            census: Arc::default(),
            readiness: Readiness::default(),
            knowledge,
            antechamber: Antechamber::new(limits.preauth_per_address),
            limits,
            access_log,
            stance,
            started_at: Instant::now(),
        }
    }

    /// The snapshot in force: a call stays with the one it began on.
    fn registry(&self) -> arc_swap::Guard<Arc<Registry>> {
        self.registry.load()
    }

    fn is_draining(&self) -> bool {
        self.stance.borrow().deadline().is_some()
    }

    fn uptime_ms(&self) -> u64 {
        u64::try_from(self.started_at.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
