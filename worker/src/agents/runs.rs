//! Runs: turns that agents work on, one at a time for each session, heard of by every client.
//!
//! ```text
//! begin ─► waits for its lane ─► started ─► pieces … ─► finished, failed
//!              └───── abort ────────┴───────────┴────► aborted
//! ```
//!
//! **Invariants**
//! - A run goes on whatever becomes of the connection that asked for it; it ends with this generation at
//!   the latest.
//! - Its id is free again, and its lane left, whichever way it ends, also by a panic.
//! - An abort reaches runs of the generation beside as well.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use handoff::migrate::{Neighbour, Post};
use tokio::sync::{oneshot, watch};
use tracing::debug;

use super::harness::{Harness, Piece, Turn};
use super::lane::{Consequence, Lanes, Ticket};
use super::neighbours::Word;
use super::session::SessionKey;
use super::told::Told;
use crate::census::Census;

/// How long an abort waits for those it ends.
const ABORT_TIMEOUT: Duration = Duration::from_secs(2);

/// A run that somebody asks for.
#[derive(Debug)]
pub(crate) struct Asked {
    /// What it will be known by.
    pub(crate) run: String,
    /// Whose turn it is.
    pub(crate) session: SessionKey,
    /// What runs it.
    pub(crate) harness: Harness,
    /// What is to be answered.
    pub(crate) turn: Turn,
}

/// What became of asking for a run.
#[derive(Debug)]
pub(crate) enum Begun {
    /// It runs, or waits for its lane; how it ends comes here.
    Started(oneshot::Receiver<Outcome>),
    /// A run of this id is under way.
    InFlight,
    /// Too many wait in its lane.
    LaneFull,
}

/// How a run has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// With this answer.
    Finished(String),
    /// Somebody has ended it.
    Aborted,
    /// Without an answer, for this reason.
    Failed(String),
}

/// The runs of this generation.
#[derive(Debug)]
pub(crate) struct Runs {
    post: Post,
    census: Arc<Census>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    lanes: Lanes,
    /// Those that wait for a lane.
    waiting: HashMap<Ticket, oneshot::Sender<()>>,
    under_way: HashMap<String, UnderWay>,
    /// Aborts that a neighbour was asked for.
    asked: HashMap<u64, oneshot::Sender<Vec<String>>>,
    asks: u64,
}

#[derive(Debug)]
struct UnderWay {
    session: SessionKey,
    abort: Arc<watch::Sender<bool>>,
}

impl Runs {
    /// No runs yet; those to come are told of by this post, and counted in this census.
    pub(crate) fn new(post: Post, census: Arc<Census>) -> Self {
        Self { post, census, state: Mutex::default() }
    }

    /// By what they are told of.
    pub(crate) const fn post(&self) -> &Post {
        &self.post
    }

    /// Where they are counted.
    pub(crate) const fn census(&self) -> &Arc<Census> {
        &self.census
    }

    /// Begins a run.
    pub(crate) fn begin(self: &Arc<Self>, asked: Asked) -> Begun {
        let (grant, granted) = oneshot::channel();
        let (abort, aborted) = watch::channel(false);
        let mut state = self.state();
        if state.under_way.contains_key(&asked.run) {
            return Begun::InFlight;
        }
        let Some((ticket, consequences)) = state.lanes.enter(asked.session.as_str()) else {
            return Begun::LaneFull;
        };
        let under_way = UnderWay { session: asked.session.clone(), abort: Arc::new(abort) };
        state.under_way.insert(asked.run.clone(), under_way);
        state.waiting.insert(ticket, grant);
        self.follow(&mut state, consequences);
        drop(state);
        let place = Place {
            runs: Arc::clone(self),
            run: asked.run.clone(),
            session: asked.session.clone(),
            ticket,
        };
        let (outcome, told) = oneshot::channel();
        let seat = self.census.call("an agent's run");
        tokio::spawn(async move {
            let ended = carry_out(place, asked, granted, aborted).await;
            // Nobody may have stayed to hear it.
            let _ = outcome.send(ended);
            drop(seat);
        });
        Begun::Started(told)
    }

    /// Ends the runs of a session, or one of them, here and in the generation beside, and says which.
    pub(crate) async fn abort(&self, session: &SessionKey, run: Option<&str>) -> Vec<String> {
        let there: Vec<_> = [Neighbour::Incumbent, Neighbour::Successor]
            .into_iter()
            .filter_map(|neighbour| self.ask_to_abort(neighbour, session, run))
            .collect();
        let mut runs = self.abort_here(session, run).await;
        for answer in there {
            // A neighbour that does not answer has no runs that could be named.
            if let Ok(Ok(more)) = tokio::time::timeout(ABORT_TIMEOUT, answer).await {
                runs.extend(more);
            }
        }
        runs.sort_unstable();
        runs
    }

    fn ask_to_abort(
        &self,
        neighbour: Neighbour,
        session: &SessionKey,
        run: Option<&str>,
    ) -> Option<oneshot::Receiver<Vec<String>>> {
        let mut state = self.state();
        state.asks += 1;
        let ask = state.asks;
        let word = Word::AbortRun {
            ask,
            session: session.as_str().to_owned(),
            run: run.map(str::to_owned),
        };
        if !self.post.tell(neighbour, &word.written()) {
            return None;
        }
        let (answer, answered) = oneshot::channel();
        state.asked.insert(ask, answer);
        // Those that were given up are let go of at the next occasion.
        state.asked.retain(|_, answer| !answer.is_closed());
        Some(answered)
    }

    async fn abort_here(&self, session: &SessionKey, run: Option<&str>) -> Vec<String> {
        let chosen: Vec<(String, Arc<watch::Sender<bool>>)> = self
            .state()
            .under_way
            .iter()
            .filter(|(id, under_way)| {
                under_way.session == *session && run.is_none_or(|run| run == *id)
            })
            .map(|(id, under_way)| (id.clone(), Arc::clone(&under_way.abort)))
            .collect();
        for (_, abort) in &chosen {
            abort.send_replace(true);
        }
        let all_ended = async {
            for (_, abort) in &chosen {
                abort.closed().await;
            }
        };
        // One that takes longer was told to end all the same.
        let _ = tokio::time::timeout(ABORT_TIMEOUT, all_ended).await;
        chosen.into_iter().map(|(id, _)| id).collect()
    }

    /// There is a generation beside from now on.
    pub(crate) fn linked(&self, neighbour: Neighbour) {
        self.state().lanes.linked(neighbour);
    }

    /// The generation beside is gone.
    pub(crate) fn unlinked(&self, neighbour: Neighbour) {
        let mut state = self.state();
        let consequences = state.lanes.unlinked(neighbour);
        self.follow(&mut state, consequences);
        // Nobody answers these any more.
        state.asked.clear();
    }

    /// The generation beside has said something.
    pub(crate) fn heard(self: &Arc<Self>, neighbour: Neighbour, text: &str) {
        let Some(word) = Word::read(text) else {
            debug!("a word of another generation is not known here");
            return;
        };
        let mut state = self.state();
        let consequences = match word {
            Word::LaneWanted { session } => state.lanes.wanted(neighbour, &session),
            Word::LaneReleased { session } => state.lanes.released(neighbour, &session),
            Word::RunsAborted { ask, runs } => {
                if let Some(answer) = state.asked.remove(&ask) {
                    // Who asked may have waited long enough.
                    let _ = answer.send(runs);
                }
                return;
            }
            Word::AbortRun { ask, session, run } => {
                let runs = Arc::clone(self);
                tokio::spawn(async move {
                    let session = SessionKey::named(&session);
                    let ended = runs.abort_here(&session, run.as_deref()).await;
                    let word = Word::RunsAborted { ask, runs: ended };
                    runs.post.tell(neighbour, &word.written());
                });
                return;
            }
        };
        self.follow(&mut state, consequences);
    }

    /// Does what follows from a change of the lanes.
    fn follow(&self, state: &mut State, consequences: Vec<Consequence>) {
        for consequence in consequences {
            match consequence {
                Consequence::Granted(ticket) => {
                    if let Some(grant) = state.waiting.remove(&ticket) {
                        // Its task holds the other end until it has left the lane.
                        let _ = grant.send(());
                    }
                }
                Consequence::Want(neighbour, session) => {
                    self.post.tell(neighbour, &Word::LaneWanted { session }.written());
                }
                Consequence::Release(neighbour, session) => {
                    self.post.tell(neighbour, &Word::LaneReleased { session }.written());
                }
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic between two of its operations leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A run's place in its lane, and its id.
struct Place {
    runs: Arc<Runs>,
    run: String,
    session: SessionKey,
    ticket: Ticket,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.runs.state();
        state.under_way.remove(&self.run);
        // Whoever waits no more was granted the lane.
        if state.waiting.remove(&self.ticket).is_some() {
            state.lanes.give_up(self.session.as_str(), self.ticket);
        } else {
            let consequences = state.lanes.leave(self.session.as_str());
            self.runs.follow(&mut state, consequences);
        }
    }
}

async fn carry_out(
    place: Place,
    asked: Asked,
    granted: oneshot::Receiver<()>,
    mut aborted: watch::Receiver<bool>,
) -> Outcome {
    let mut told = Told::new(place.runs.post.clone(), asked.run, asked.session);
    let ended_early = tokio::select! {
        biased;
        () = until_aborted(&mut aborted) => true,
        _ = granted => false,
    };
    if ended_early {
        told.aborted();
        return Outcome::Aborted;
    }
    told.started();
    let mut run = asked.harness.run(asked.turn);
    loop {
        let next = poll_fn(|context| {
            run.poll_piece(context).map(|piece| match piece {
                Piece::Text(text) => {
                    told.piece(text);
                    None
                }
                Piece::End => Some(None),
                Piece::Failed(reason) => Some(Some(reason.to_owned())),
            })
        });
        let ended = tokio::select! {
            biased;
            () = until_aborted(&mut aborted) => {
                told.aborted();
                return Outcome::Aborted;
            }
            ended = next => ended,
        };
        match ended {
            None => {}
            Some(None) => {
                told.finished();
                return Outcome::Finished(told.into_text());
            }
            Some(Some(reason)) => {
                told.failed(&reason);
                return Outcome::Failed(reason);
            }
        }
    }
}

async fn until_aborted(aborted: &mut watch::Receiver<bool>) {
    // The sender lives as long as the run's place.
    if aborted.wait_for(|aborted| *aborted).await.is_err() {
        std::future::pending::<()>().await;
    }
}
