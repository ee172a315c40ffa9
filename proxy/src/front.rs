//! The front: the one task that owns every socket, every worker and every decision.
//!
//! ```text
//! signals ─┐                    ┌─► workers.rs   a process, an order on its link
//! control ─┤   Event            │
//! words   ─┼────────► generation.rs ─► Action ──► deadlines, kills
//! deadlines┘           (policy) └─► story.rs     the log, status, followers
//! ```
//!
//! **Invariants**
//! - It never reads a byte a client sent, and accepts only to close what has waited too long (`hold.rs`).
//! - Only this task changes anything; everybody else sends it a message.
//! - It waits for nobody: an order goes to a queue, an answer is an event, silence is a deadline.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::handoff::message::{GenerationId, Hello, PROTOCOL, SocketEntry, ToWorker, millis};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use crate::admin::keeper::Keeper;
use crate::adoption::Recovered;
use crate::asked::Waiting;
use crate::attach::{self, Admission, Attachments};
use crate::control::server::{ControlHold, ControlSocket};
use crate::event::{Action, Deadline, Event, Exit, Failure, Note, ProgramId, Rules};
use crate::generation::Generations;
use crate::handoff::Word;
use crate::listener::Listeners;
use crate::log::Log;
use crate::oom::KillsSeen;
use crate::program::{Program, Programs};
use crate::reap;
use crate::reexec::{Outcome, Reexec};
use crate::rescue::RescueDirectory;
use crate::signals::{Heeded, Signals};
use crate::spawn::Terms;
use crate::story::{Farewell, Story};
use crate::systemd::Manager;
use crate::tally::Tally;
use crate::timer::{Timer, until};
use crate::turning_away::TurningAway;
use crate::workers::{Killed, Workers, to_worker};

/// How many callers of the control socket may wait for the front's task.
const ASKED_QUEUE: usize = 32;
/// How many words of workers may wait for the front.
const WORD_QUEUE: usize = 64;

/// What the operator decided about this front.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) rules: Rules,
    pub(crate) max_connections: Option<u64>,
    pub(crate) terms: Terms,
    pub(crate) hangup: Hangup,
    pub(crate) log: Log,
    /// Set when workers may attach themselves.
    #[serde(default)]
    pub(crate) attach: Option<Admission>,
}

/// What SIGHUP means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Hangup {
    /// Someone asks for a takeover, as they would of any daemon.
    Takeover,
    /// The terminal's window was closed.
    Stop,
}

/// The front.
pub(crate) struct Front {
    pub(crate) settings: Settings,
    pub(crate) generations: Generations,
    pub(crate) programs: Programs,
    pub(crate) workers: Workers,
    /// `None` once nobody accepts any more.
    pub(crate) listeners: Option<Arc<Listeners>>,
    pub(crate) timers: BTreeMap<Timer, Instant>,
    pub(crate) story: Story,
    pub(crate) tally: Tally,
    pub(crate) started_at: Instant,
    pub(crate) manager: Manager,
    pub(crate) words: (mpsc::Sender<Word>, mpsc::Receiver<Word>),
    pub(crate) turning_away: Option<TurningAway>,
    pub(crate) waiting: Waiting,
    pub(crate) kills_seen: KillsSeen,
    pub(crate) greeted: bool,
    /// The control socket, for another image of the front.
    pub(crate) control: ControlHold,
    /// Where the front's own binary is.
    pub(crate) binary: PathBuf,
    pub(crate) reexec: Option<Reexec>,
    /// Where workers are found when this front has died.
    pub(crate) rescue: RescueDirectory,
    pub(crate) recovered: Option<Recovered>,
    pub(crate) attach: Option<Attachments>,
    /// Children that are no workers, and who waits for their ends.
    pub(crate) awaited: BTreeMap<Pid, oneshot::Sender<Exit>>,
    pub(crate) admin: Option<Keeper>,
    leaving: bool,
}

impl Front {
    /// A front that has not started anything; without a program it takes workers that attach themselves.
    pub(crate) fn new(
        settings: Settings,
        program: Option<Program>,
        listeners: Listeners,
        control: ControlHold,
        binary: PathBuf,
    ) -> Self {
        let (programs, first) = program.map_or_else(Programs::none, Programs::new);
        let generations = Generations::new(settings.rules, first);
        let front = Self::with(settings, programs, generations, control, binary);
        Self { listeners: Some(Arc::new(listeners)), ..front }
    }

    /// A front with this policy, that has nothing else yet.
    pub(crate) fn with(
        settings: Settings,
        programs: Programs,
        generations: Generations,
        control: ControlHold,
        binary: PathBuf,
    ) -> Self {
        let rescue = RescueDirectory::beside(control.path(), &settings.terms.rights);
        Self {
            settings,
            generations,
            programs,
            workers: Workers::default(),
            listeners: None,
            timers: BTreeMap::new(),
            story: Story::new(),
            tally: Tally::default(),
            started_at: Instant::now(),
            manager: Manager::from_environment(),
            words: mpsc::channel(WORD_QUEUE),
            turning_away: None,
            waiting: Waiting::default(),
            kills_seen: KillsSeen::default(),
            greeted: false,
            rescue,
            recovered: None,
            attach: None,
            control,
            binary,
            reexec: None,
            awaited: BTreeMap::new(),
            admin: None,
            leaving: false,
        }
    }

    /// Starts the first generation.
    pub(crate) fn start(&mut self) {
        let first = self.generations.start();
        self.perform(first);
    }

    /// Serves, from `beginning` on, until the front has been stopped and everything below it has ended.
    ///
    /// # Errors
    /// When signals cannot be listened for.
    pub(crate) async fn run(
        mut self,
        control: ControlSocket,
        beginning: impl FnOnce(&mut Self),
    ) -> io::Result<()> {
        let mut signals = Signals::listen()?;
        reap::become_subreaper()?;
        let (asked, mut callers) = mpsc::channel(ASKED_QUEUE);
        let serving = tokio::spawn(control.serve(asked));
        if let Some(attach) = &mut self.attach {
            attach.begin();
        }
        beginning(&mut self);
        self.keep_admin();
        self.mind_waiting();
        self.rest_later();
        while !self.leaving {
            let next = self.timers.values().min().copied();
            tokio::select! {
                // In this order: no signal that was caught is left to an image that knows nothing of it. Nobody
                // starves: the first ones are refilled only while this task waits.
                biased;
                signal = signals.next() => self.on_signal(signal),
                Some(asked) = callers.recv() => self.on_asked(asked),
                outcome = checked(&mut self.reexec) => self.on_checked(outcome).await,
                () = until(next), if next.is_some() => self.on_time(),
                Some(word) = self.words.1.recv() => self.on_word(word),
                // Behind the words: one that returns is met when the end of its former link is.
                came = attach::came(&mut self.attach) => self.on_came(came),
            }
        }
        // Whatever is held for it would be waited for here.
        self.reexec = None;
        self.end_descendants(&mut signals.child).await;
        self.rescue.remove();
        info!("stopped");
        serving.abort();
        // The control socket's file goes with its task; a panic of it was logged.
        let _ = serving.await;
        Ok(())
    }

    fn on_signal(&mut self, signal: Heeded) {
        match signal {
            Heeded::Child => self.on_children(),
            Heeded::Takeover => self.on_takeover_signal("SIGUSR1"),
            Heeded::Reexec => self.begin_reexec(None, None),
            Heeded::Hangup => match self.settings.hangup {
                Hangup::Takeover => self.on_reload(),
                Hangup::Stop => self.stop(),
            },
            Heeded::Stop => self.stop(),
        }
    }

    /// Feeds one event to the policy and does what comes of it.
    pub(crate) fn feed(&mut self, event: Event) {
        let actions = self.generations.on(event);
        self.perform(actions);
    }

    /// Performs actions in order. One that fails at once is an event of its own, fed after them.
    pub(crate) fn perform(&mut self, actions: Vec<Action>) {
        self.rest_later();
        let mut queue = VecDeque::from(actions);
        while let Some(action) = queue.pop_front() {
            match action {
                Action::Spawn { generation, program } => match self.spawn(generation, program) {
                    Ok(()) => {
                        self.on_note(&Note::Started(generation));
                        if program == ProgramId::ATTACHED {
                            let next = self.next_waiting();
                            queue.extend(self.generations.on(next));
                        }
                    }
                    Err(failure) => {
                        queue.extend(self.generations.on(Event::Unfit(generation, failure)));
                    }
                },
                Action::Tell(id, order) => self.workers.tell(id, to_worker(order)),
                Action::Introduce { incumbent, successor } => {
                    self.workers.introduce(incumbent, successor);
                }
                Action::TakeBack(id) => {
                    let actions = self.take_back(id);
                    queue.extend(actions);
                }
                Action::Kill(id) => {
                    if self.workers.kill(id) == Killed::LetGo {
                        self.timers.insert(Timer::LastWords(id), Instant::now());
                    }
                }
                Action::RestoreBacklog => self.restore_backlog(),
                Action::TurnAway => {
                    self.turning_away = self.listeners.as_deref().map(TurningAway::from);
                }
                Action::TurnNobodyAway => {
                    let turned_away = self.turning_away.take();
                    self.story.turned_away(turned_away.map_or(0, |away| away.count()));
                }
                Action::CloseListeners => {
                    if self.listeners.take().is_some() {
                        info!("no longer listening");
                    }
                }
                Action::SetDeadline(deadline, after) => {
                    self.timers.insert(Timer::Policy(deadline), Instant::now() + after);
                }
                Action::ExtendDeadline(deadline, after) => {
                    if let Some(at) = self.timers.get_mut(&Timer::Policy(deadline)) {
                        *at = (*at).max(Instant::now() + after);
                    }
                }
                Action::ClearDeadline(deadline) => {
                    self.timers.remove(&Timer::Policy(deadline));
                }
                Action::Note(note) => self.on_note(&note),
                Action::Leave => self.leaving = true,
            }
        }
        self.tell_manager();
    }

    fn spawn(&mut self, id: GenerationId, program: ProgramId) -> Result<(), Failure> {
        let Some(listeners) = self.listeners.clone() else {
            return Err(Failure::NotStarted { reason: "the front no longer listens".into() });
        };
        self.rescue.expect(id);
        let hello = self.hello(id, &listeners);
        if program == ProgramId::ATTACHED {
            return self.join(hello, listeners);
        }
        let program = self.programs.get(program);
        let terms = &self.settings.terms;
        self.workers.start(program, terms, hello, listeners, self.words.0.clone())?;
        self.kills_seen.since(id);
        Ok(())
    }

    fn hello(&self, generation: GenerationId, listeners: &Listeners) -> Hello {
        let entry = |socket: &::handoff::socket::ListeningSocket| SocketEntry {
            address: socket.address.to_string(),
            shard: socket.shard,
        };
        Hello {
            protocol: PROTOCOL,
            generation,
            sockets: listeners.sockets.iter().map(entry).collect(),
            ready_timeout_ms: millis(self.settings.rules.ready_timeout),
            drain_timeout_ms: millis(self.settings.rules.drain_timeout),
            max_connections: self.settings.max_connections,
            rescue: self.rescue.name(),
        }
    }

    fn restore_backlog(&self) {
        for socket in self.listeners.iter().flat_map(|listeners| &listeners.sockets) {
            if let Err(error) = socket.restore_backlog() {
                warn!(address = %socket.address, %error, "could not set the backlog");
            }
        }
    }

    pub(crate) fn on_takeover_signal(&mut self, name: &'static str) {
        match self.generations.request_takeover(None) {
            Ok((takeover, actions)) => {
                info!(takeover = takeover.0, signal = name, "takeover requested");
                self.perform(actions);
            }
            Err(denied) => warn!(reason = %denied, signal = name, "takeover denied"),
        }
    }

    pub(crate) fn stop(&mut self) {
        info!("stopping");
        let actions = self.generations.stop();
        self.perform(actions);
        self.mind_waiting();
    }

    pub(crate) fn stop_now(&mut self) {
        info!("stopping at once");
        let actions = self.generations.stop_now();
        self.perform(actions);
        self.mind_waiting();
    }

    fn on_note(&mut self, note: &Note) {
        let farewell = match note {
            Note::Gone { generation, .. } => self
                .workers
                .get(*generation)
                .map(|worker| Farewell { drained: worker.drained, report: worker.report.clone() }),
            _ => None,
        };
        self.story.tell(note, farewell.as_ref());
        self.tally.heed(note, farewell.as_ref(), || self.story.last_takeover());
        self.waiting.heed(note);
        match note {
            Note::WentBack { from, to } => {
                let (left, to) = (self.programs.get(*from), self.programs.get(*to));
                self.story.went_back(left, to);
            }
            Note::Waits { takeover, draining } => {
                let within = self.remaining(Deadline::Drained(*draining)).unwrap_or_default();
                self.story.waits(*takeover, *draining, within);
            }
            // Its number of connections is what a successor needs descriptors for.
            Note::Began { incumbent: Some(incumbent), .. } => {
                self.workers.tell(*incumbent, ToWorker::Report);
            }
            Note::Committed { .. } => {
                // One that died on the way has nothing left to drain.
                let incumbent = self.story.last_takeover().and_then(|last| last.incumbent);
                if incumbent.is_none_or(|id| self.generations.state(id).is_none()) {
                    self.story.nothing_drains();
                }
            }
            Note::RolledBack { .. } => self.want_again(),
            Note::Serving(id) if !self.greeted => {
                self.greeted = true;
                self.greet(*id);
            }
            _ => {}
        }
    }

    /// How long a deadline of the policy's is still away.
    pub(crate) fn remaining(&self, deadline: Deadline) -> Option<Duration> {
        let at = self.timers.get(&Timer::Policy(deadline))?;
        Some(at.saturating_duration_since(Instant::now()))
    }
}

/// What comes of looking at a new binary, if one is looked at.
async fn checked(reexec: &mut Option<Reexec>) -> Outcome {
    match reexec {
        Some(reexec) => reexec.checked().await,
        None => std::future::pending().await,
    }
}
