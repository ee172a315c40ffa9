//! The life that every adapter leads with its program: start it, wait until it could serve, serve, stop it.
//!
//! ```text
//! Program::start ─► await_ready ─► (activate or relay serves) ─► stop ─► Drained, exit 0
//!        │              │                     │
//!        └──────────────┴─────────────────────┴─► fail: everybody below is killed, Refuse, exit 1
//! ```
//!
//! **Invariants**
//! - Nobody below the adapter is left when it tells the front of its end.
//! - Why the program cannot serve is a sentence for the operator, which the front shows as it is.
//! - The adapter keeps no deadline of its own while the program gets ready: the front's holds.

use std::cell::RefCell;
use std::process::ExitCode;
use std::time::Duration;

use handoff::limits::DescriptorLimits;
use handoff::message::LONGEST_EXTENSION;
use handoff::{Connections, Drained, GenerationId, Ready, Worker};
use nix::sys::signal::Signal;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{debug, error, info, warn};

use super::flags::{Flags, ReadyBy};
use super::notify::{self, Notice, Notify};
use super::program::{Ended, Order, Program};
use super::readiness::{Conditions, NotYet, Readiness};

/// How often is looked whether the program took what is not its own, and the front told why it is not ready.
const ROUND: Duration = Duration::from_millis(200);
/// How much later the program has to be waited for before the front is told again.
const ONCE_A_SECOND: Duration = Duration::from_secs(1);

/// The program, and everything that speaks of it.
pub(crate) struct Life {
    pub(crate) worker: Worker,
    pub(crate) program: Program,
    generation: GenerationId,
    notify: Notify,
    stop_signal: Signal,
    /// Until when the front was last asked to wait.
    extended: Option<Instant>,
}

/// What happens to an adapter that serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// A drain has begun.
    Leaving,
    /// The program has ended by itself.
    Ended(Ended),
}

/// How a program's last moments went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// It ended by itself.
    InTime,
    /// It was killed at the deadline, and so many connections with it.
    Killed { cut: u64 },
}

impl Life {
    /// Starts the program.
    ///
    /// # Errors
    /// The adapter's exit code, when that is all there is left to do.
    pub(crate) async fn begin(
        worker: Worker,
        mut order: Order<'_>,
        flags: &Flags,
        limits: DescriptorLimits,
    ) -> Result<Self, ExitCode> {
        order.descriptors = limits.inherited;
        let notify = match Notify::open() {
            Ok(notify) => notify,
            Err(error) => {
                return Err(refuse(worker, format!("could not open NOTIFY_SOCKET: {error}")).await);
            }
        };
        order.environment.push((notify::VARIABLE.into(), notify.name()));
        let generation = worker.generation().unwrap_or(GenerationId::new(0));
        order.environment.push(("HOLDFAST_GENERATION".into(), generation.to_string().into()));
        match Program::start(order).await {
            Ok(program) => {
                info!(%generation, pid = program.pid().as_raw(), "program started");
                let stop_signal = flags.stop_signal();
                Ok(Self { worker, program, generation, notify, stop_signal, extended: None })
            }
            Err(not_started) => Err(refuse(worker, not_started.reason()).await),
        }
    }

    /// Waits until the program could serve, and tells the front.
    ///
    /// # Errors
    /// The adapter's exit code, when it never will.
    pub(crate) async fn await_ready(mut self, readiness: &Readiness) -> Result<Self, ExitCode> {
        if let ReadyBy::After(time) = readiness.by {
            warn!(
                generation = %self.generation,
                ?time,
                "nobody asks the program whether it is ready: it is taken to be after a time"
            );
        }
        match self.become_ready(readiness).await {
            Ok(()) => {
                // What was told while it was not ready holds no more.
                self.worker.failing(Vec::new()).await;
                let program = format!("holdfast adapter {}", crate::VERSION);
                self.worker.ready(Ready { program, ..Ready::default() }).await;
                Ok(self)
            }
            Err(Some(reason)) => Err(self.fail(reason).await),
            Err(None) => {
                info!(generation = %self.generation, "called off before the program was ready");
                self.program.end().await;
                self.worker.leave(Drained::default()).await;
                Err(ExitCode::SUCCESS)
            }
        }
    }

    /// # Errors
    /// Why it never will be; nothing when that was called off.
    async fn become_ready(&mut self, readiness: &Readiness) -> Result<(), Option<String>> {
        let mut pending = Pending::default();
        let not_yet = RefCell::new(readiness.at_first());
        let seen = readiness.seen(|seen| drop(not_yet.replace(seen)));
        let mut seen = std::pin::pin!(seen);
        let mut rounds = tokio::time::interval(ROUND);
        // What is looked for takes a while on a machine with many processes.
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = &mut seen => break,
                ended = self.program.ended() => {
                    return Err(Some(format!("the program {ended} before it was ready")));
                }
                () = self.worker.leaving() => return Err(None),
                notice = self.notify.next() => {
                    pending.note(&notice);
                    self.heed(&notice).await;
                    if notice.ready && readiness.by == ReadyBy::Notify {
                        break;
                    }
                }
                _ = rounds.tick() => {
                    readiness.is_possible().map_err(|unusable| Some(unusable.to_string()))?;
                    let conditions = pending.conditions(&not_yet.borrow());
                    if pending.told.are_news(&conditions) {
                        self.worker.failing(conditions).await;
                    }
                }
            }
        }
        readiness.is_possible().map_err(|unusable| Some(unusable.to_string()))
    }

    /// What happens next to an adapter that serves. Cancel safe.
    pub(crate) async fn turn(&mut self) -> Turn {
        loop {
            tokio::select! {
                () = self.worker.leaving() => return Turn::Leaving,
                ended = self.program.ended() => return Turn::Ended(ended),
                notice = self.notify.next() => {
                    if let Some(status) = notice.status {
                        info!(generation = %self.generation, status, "the program says");
                    }
                    if notice.stopping {
                        // It will be gone; another one can be there first.
                        self.worker.wants_takeover("the program says that it is stopping").await;
                    }
                }
            }
        }
    }

    /// Asks the program to stop.
    pub(crate) fn ask_to_stop(&mut self) {
        info!(generation = %self.generation, signal = %self.stop_signal, "the program is asked to stop");
        self.program.signal(self.stop_signal);
        // What it was given to get ready is of no account any more.
        self.extended = None;
    }

    /// Waits until the program and all it started have ended, at most until the drain's deadline, and kills whoever
    /// is left.
    pub(crate) async fn stopped(&mut self, counted: impl Fn() -> u64) -> Stopped {
        let mut stance = self.worker.stance();
        let mut longer = None;
        loop {
            let deadline = self.worker.drain_deadline();
            let deadline = longer.map_or(deadline, |longer| deadline.max(longer));
            tokio::select! {
                () = self.program.all_gone(self.stop_signal) => return Stopped::InTime,
                () = tokio::time::sleep_until(deadline) => break,
                // A drain is cut short, whatever the program wanted.
                Ok(()) = stance.changed() => longer = None,
                notice = self.notify.next() => {
                    longer = self.heed(&notice).await.or(longer);
                }
            }
        }
        let cut = counted();
        warn!(
            generation = %self.generation,
            signal = %self.stop_signal,
            connections = cut,
            "the program did not end by the deadline after it was asked to, and is killed"
        );
        self.program.end().await;
        Stopped::Killed { cut }
    }

    /// The signal that has the program stop.
    pub(crate) const fn stop_signal(&self) -> Signal {
        self.stop_signal
    }

    /// The program has ended in order to be started again. A takeover does that, of which this is the incumbent that
    /// has nothing left to do; newcomers wait in the queue meanwhile.
    pub(crate) async fn leave_to_be_replaced(self) -> ExitCode {
        info!(generation = %self.generation, "the program has exited to be started again");
        self.worker.wants_takeover("the program has exited to be started again").await;
        self.leave(0, 0).await
    }

    /// Has the front wait for the program as long as it asks for (`EXTEND_TIMEOUT_USEC`); until when. It is told once a
    /// second at most, however often the program asks.
    async fn heed(&mut self, notice: &Notice) -> Option<Instant> {
        let wanted = notice.extend?.min(LONGEST_EXTENSION);
        let until = Instant::now() + wanted;
        if self.extended.is_none_or(|told| until > told + ONCE_A_SECOND) {
            info!(generation = %self.generation, ?wanted, "the program asks for more time");
            self.extended = Some(until);
            self.worker.extend(wanted).await;
        }
        Some(until)
    }

    /// Says goodbye after a drain.
    pub(crate) async fn leave(mut self, finished: u64, cut: u64) -> ExitCode {
        self.program.end().await;
        let count = |http| Connections { http, websocket: 0 };
        let drained = Drained { finished: count(finished), cut: count(cut), ..Drained::default() };
        self.worker.leave(drained).await;
        ExitCode::SUCCESS
    }

    /// Says why the program cannot serve.
    pub(crate) async fn fail(mut self, reason: String) -> ExitCode {
        error!(generation = %self.generation, reason, "the program cannot serve");
        self.program.end().await;
        refuse(self.worker, reason).await
    }

    /// Says that the program ended while it served.
    pub(crate) async fn crashed(self, ended: Ended) -> ExitCode {
        self.fail(format!("the program {ended} while it served")).await;
        ExitCode::from(ended.code())
    }
}

/// Refuses for this reason.
pub(crate) async fn refuse(worker: Worker, reason: String) -> ExitCode {
    debug!(reason, "refused");
    worker.refuse(reason).await;
    ExitCode::FAILURE
}

/// What the program itself says of not being ready, and what the front was told.
#[derive(Default)]
struct Pending {
    status: Option<String>,
    extend: Option<Duration>,
    told: Conditions,
}

impl Pending {
    fn note(&mut self, notice: &Notice) {
        if let Some(status) = &notice.status {
            self.status = Some(format!("the program says: {status}"));
        }
        self.extend = notice.extend.or(self.extend);
    }

    fn conditions(&self, not_yet: &NotYet) -> Vec<String> {
        let longer = |more| format!("it asks for {more:?} more");
        let conditions = [Some(not_yet.to_string()), self.status.clone(), self.extend.map(longer)];
        conditions.into_iter().flatten().collect()
    }
}
