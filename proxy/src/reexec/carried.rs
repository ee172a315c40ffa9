//! What is carried from image to image: the front as a state, and a state as the front.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::handoff::message::{GenerationId, millis};
use ::handoff::socket::{Address, ListeningSocket, NotAnAddress};

use super::Caller;
use super::image::Descriptors;
use super::state::{LinkState, ListenerState, OLDEST, State, VERSION, WorkerState, number};
use crate::admin::keeper::Keeper;
use crate::age::monotonic;
use crate::attach::{Attachments, Parted};
use crate::control::server::{ControlFailed, ControlSocket};
use crate::front::Front;
use crate::handoff::{Recalled, Word};
use crate::hold::Hold;
use crate::listener::{ListenFailed, Listeners};
use crate::turning_away::TurningAway;

/// Links that are nobody's for a moment.
#[derive(Debug, Default)]
pub(super) struct Links {
    workers: BTreeMap<GenerationId, Recalled>,
    /// Of those that have attached and wait for their turn.
    waiting: Parted,
}

impl Front {
    /// Takes the links from their conversations, and every word that was heard and not acted on.
    pub(super) async fn recall_conversations(&mut self) -> (Links, Vec<Word>) {
        let (mut links, mut words) = (Links::default(), Vec::new());
        for (id, conversation) in self.workers.take_conversations() {
            let mut recall = pin!(conversation.recall());
            let recalled = loop {
                tokio::select! {
                    biased;
                    recalled = &mut recall => break recalled,
                    // It may be waiting for somebody to take its last word.
                    Some(word) = self.words.1.recv() => words.push(word),
                }
            };
            links.workers.extend(recalled.map(|recalled| (id, recalled)));
        }
        if let Some(attach) = &mut self.attach {
            links.waiting = attach.part().await;
        }
        while let Ok(word) = self.words.1.try_recv() {
            words.push(word);
        }
        (links, words)
    }

    /// Gives the links back, and acts on the words.
    pub(super) fn go_on_with(&mut self, links: Links, words: Vec<Word>) {
        for (id, recalled) in links.workers {
            self.workers.reconnect(id, recalled, self.words.0.clone());
        }
        if let Some(attach) = &mut self.attach {
            attach.rejoin(links.waiting);
        }
        for word in words {
            self.on_word(word);
        }
        self.mind_waiting();
    }

    /// The whole front, written down. Without the links it is a copy that can be read and not gone on with.
    pub(super) fn state(&self, links: &Links, words: Vec<Word>) -> State {
        let now = Instant::now();
        let mut story = self.story.clone();
        if let Some(turning_away) = &self.turning_away {
            story.turned_away_so_far(turning_away.count());
        }
        State {
            version: VERSION,
            readable_from: OLDEST,
            written_by: crate::VERSION.to_owned(),
            binary: self.binary.clone(),
            renewed_binary: None,
            settings: self.settings.clone(),
            programs: self.programs.clone(),
            generations: self.generations.clone(),
            workers: self
                .workers
                .all()
                .iter()
                .map(|(id, worker)| WorkerState {
                    generation: *id,
                    worker: worker.without_conversation(),
                    link: links.workers.get(id).map(LinkState::of),
                })
                .collect(),
            listeners: self
                .listeners
                .as_deref()
                .map(|all| all.sockets.iter().map(|s| ListenerState::of(s, all)).collect()),
            timers: self
                .timers
                .iter()
                .filter(|(timer, _)| timer.is_carried())
                .map(|(timer, at)| (*timer, millis(at.saturating_duration_since(now))))
                .collect(),
            story,
            tally: self.tally.clone(),
            words,
            started_at: self.started_at,
            greeted: self.greeted,
            recovered: self.recovered.clone(),
            control: self.control.state(),
            admin: self.admin.as_ref().map(Keeper::state),
            attach: self.attach.as_ref().map(|attach| attach.state(&links.waiting)),
            caller: None,
            executed_at_ns: u64::try_from(monotonic().as_nanos()).unwrap_or(u64::MAX),
        }
    }
}

impl LinkState {
    pub(crate) fn of(recalled: &Recalled) -> Self {
        let parcel = |(order, descriptor): &(_, Option<_>)| {
            (Clone::clone(order), descriptor.as_ref().map(number))
        };
        Self {
            descriptor: number(&recalled.link),
            unsent: recalled.unsent.iter().map(parcel).collect(),
        }
    }

    fn taken(self, descriptors: &mut Descriptors) -> io::Result<Recalled> {
        let link = descriptors.remove(self.descriptor)?;
        let unsent = self
            .unsent
            .into_iter()
            .map(|(order, number)| Ok((order, number.map(|n| descriptors.remove(n)).transpose()?)))
            .collect::<io::Result<_>>()?;
        Ok(Recalled { link, unsent })
    }
}

impl ListenerState {
    fn of(socket: &ListeningSocket, all: &Listeners) -> Self {
        Self {
            owns_file: all.owns_file(socket),
            address: socket.address.to_string(),
            shard: socket.shard,
            descriptor: number(socket),
        }
    }

    fn taken(self, descriptors: &mut Descriptors) -> Result<ListeningSocket, NotResumed> {
        let address: Address =
            self.address.parse().map_err(|source| NotResumed::Address { source })?;
        Ok(ListeningSocket::adopt(address, self.shard, descriptors.remove(self.descriptor)?))
    }
}

/// Why a state is no front.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotResumed {
    #[error("could not take what the state speaks of")]
    Take {
        #[from]
        source: io::Error,
    },
    #[error("the state has an address that is none")]
    Address { source: NotAnAddress },
    #[error("could not use the listening sockets")]
    Listeners { source: ListenFailed },
    #[error("could not use the control socket")]
    Control { source: ControlFailed },
}

/// The front that a state speaks of, with what it has to do first.
pub(super) struct Image {
    pub(super) front: Front,
    pub(super) control: ControlSocket,
    /// What workers had said.
    pub(super) words: Vec<Word>,
    pub(super) caller: Option<Caller>,
    /// When the exec began, on the monotonic clock.
    pub(super) executed_at_ns: u64,
}

impl Image {
    /// Puts everything that the state speaks of in its place. Needs a runtime around it.
    pub(super) fn build(
        state: State,
        descriptors: &mut Descriptors,
        comes_back: ComesBack,
    ) -> Result<Self, NotResumed> {
        let now = Instant::now();
        let control = ControlSocket::resume(
            state.control.path,
            descriptors.remove(state.control.listener)?,
            descriptors.remove(state.control.lock)?,
        )
        .map_err(|source| NotResumed::Control { source })?;
        let hold = control.hold()?;
        let listeners = match state.listeners {
            None => None,
            Some(sockets) => {
                let (mut taken, mut owned) = (Vec::new(), BTreeSet::new());
                for socket in sockets {
                    if socket.owns_file {
                        owned.insert(socket.address.clone());
                    }
                    taken.push(socket.taken(descriptors)?);
                }
                let owns = |address: &Address| owned.contains(&address.to_string());
                let listeners = Listeners::adopt(taken, owns)
                    .map_err(|source| NotResumed::Listeners { source })?;
                Some(Arc::new(listeners))
            }
        };
        let caller = state.caller.map(|number| descriptors.remove(number)).transpose()?;
        let mut programs = state.programs;
        let binary = match (state.renewed_binary, comes_back) {
            (Some(renewed), ComesBack::No) => {
                programs.move_adapters(&state.binary, &renewed);
                renewed
            }
            _ => state.binary,
        };
        let turns_away = state.generations.hold == Hold::TurnedAway;
        let mut front = Front::with(state.settings, programs, state.generations, hold, binary);
        front.turning_away = listeners.as_deref().filter(|_| turns_away).map(TurningAway::from);
        front.listeners = listeners;
        front.timers = state
            .timers
            .into_iter()
            .map(|(timer, ms)| (timer, now + Duration::from_millis(ms)))
            .collect();
        front.story = state.story;
        front.tally = state.tally;
        front.started_at = state.started_at;
        front.greeted = state.greeted;
        for WorkerState { generation, worker, link } in state.workers {
            let recalled = link.map(|link| link.taken(descriptors)).transpose()?;
            front.kills_seen.since(generation);
            front.workers.resume(generation, worker, recalled, front.words.0.clone());
        }
        front.workers.watch_adopted(&front.words.0);
        if let (Some(attach), Some(admission)) = (state.attach, front.settings.attach.clone()) {
            let socket = (descriptors.remove(attach.listener)?, descriptors.remove(attach.lock)?);
            let waiting = attach.waiting.into_iter();
            let parted = waiting
                .map(|one| Ok((one.peer, one.returned, one.link.taken(descriptors)?)))
                .collect::<io::Result<_>>()?;
            front.attach = Some(Attachments::resume(admission, socket, parted)?);
        }
        front.recovered = state.recovered;
        if let Some(admin) = state.admin {
            let socket = descriptors.remove(admin.socket)?;
            front.admin = Some(Keeper::resume(admin, socket));
        }
        Ok(Self {
            front,
            control,
            words: state.words,
            caller: caller.map(|stream| Caller(UnixStream::from(stream))),
            executed_at_ns: state.executed_at_ns,
        })
    }

    /// How long it took from the exec until now.
    pub(super) fn since_exec(executed_at_ns: u64) -> Duration {
        monotonic().saturating_sub(Duration::from_nanos(executed_at_ns))
    }
}

/// Whether the image is an old one, which a new one could not replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ComesBack {
    Yes,
    No,
}
