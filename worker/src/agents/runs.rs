//! Runs: turns that agents work on, one at a time for each session, heard of by every client.
//!
//! ```text
//! begin ─► claims its key ─► waits for its lane ─► started ─► pieces … ─► finished, failed
//!                                 └──── abort ────────┴───────────┴────► aborted
//! ```
//!
//! **Invariants**
//! - A run goes on whatever becomes of the connection that asked for it, unless it is followed ([`super::follow`]); it
//!   ends with this generation at the latest.
//! - Its id is free again, and its lane left, whichever way it ends, also by a panic.
//! - Of all who ask for a run under one idempotency key, in whichever generation, one begins it; see [`super::run`].
//! - An abort reaches runs of the generation beside as well.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use handoff::migrate::{Neighbour, Post};
use tokio::sync::{Notify, oneshot, watch};
use tracing::{debug, warn};

use super::ending::{Ending, Outcome};
use super::ends::{Awaited, Ends};
use super::follow::{Followed, Follower, follower};
use super::harness::{Earlier, Harness, Turn};
use super::lane::{Consequence, Lanes, Ticket};
use super::neighbours::{Word, tell_of_end};
use super::releases::Releases;
use super::session::SessionKey;
use super::transcript::{Ended, clock_ms};
use super::{overview::Overview, run};
use crate::census::Census;
use crate::state::store::idempotency::{Claim, IdempotencyKey};
use crate::state::store::{Store, StoreFailed};

/// What a run is called in the census.
pub(crate) const IN_CENSUS: &str = "an agent's run";
/// How long an abort waits for those it ends.
const ABORT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a claim may wait for its run to end, in ms. It ends with its generation in any case.
const CLAIM_MS: i64 = 7 * 24 * 60 * 60 * 1000;

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
    /// What came before it, if whoever asks says so.
    pub(crate) earlier: Earlier,
    /// Under which key a repeat is recognized; without one there are no repeats.
    pub(crate) key: Option<IdempotencyKey>,
}

/// What became of asking for a run.
#[derive(Debug)]
pub(crate) enum Begun {
    /// It runs, or waits for its lane; how it ends comes here.
    Started(oneshot::Receiver<Outcome>),
    /// A run of this id is under way, here or in the generation beside.
    InFlight,
    /// It was run before, and has ended.
    Done(Ended),
    /// It was run before, and what is kept of it cannot be read here.
    DoneUnreadably,
    /// Too many wait in its lane.
    LaneFull,
}

/// Whether a session may have had a run before, anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Novelty {
    /// Its name was made for this run.
    New,
    /// Somebody else may know it.
    Known,
}

/// The runs of this generation.
#[derive(Debug)]
pub(crate) struct Runs {
    post: Post,
    census: Arc<Census>,
    store: Store,
    overview: Overview,
    /// Who looks after jobs here.
    jobs: OnceLock<Arc<Notify>>,
    releases: Releases,
    ends: Ends,
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
    end: Arc<watch::Sender<Option<Ending>>>,
}

impl Runs {
    /// No runs yet; those to come are told of by this post, counted in this census, and written down in this store.
    pub(crate) fn new(post: Post, census: Arc<Census>, store: Store) -> Self {
        let (overview, jobs, releases, ends, state) = Default::default();
        Self { post, census, store, overview, jobs, releases, ends, state }
    }

    /// How lanes go to the generation beside.
    pub(crate) const fn releases(&self) -> &Releases {
        &self.releases
    }

    /// The lane of this session is to be the successor's, if there is one, as soon as nobody runs in it.
    pub(crate) fn yield_lane(&self, session: &str) {
        let mut state = self.state();
        // Under the lock under which its end is heard of: a lane given to nobody would be lost.
        if self.post.is_linked(Neighbour::Successor) {
            let consequences = state.lanes.wanted(Neighbour::Successor, session);
            self.follow(&mut state, consequences);
        }
    }

    /// Whom to wake when the generation beside says that scheduled jobs have changed. It is said once.
    pub(crate) fn wake_for_jobs(&self, driver: Arc<Notify>) {
        let _ = self.jobs.set(driver);
    }

    /// By what they are told of.
    pub(crate) const fn post(&self) -> &Post {
        &self.post
    }

    /// Where they are counted.
    pub(crate) const fn census(&self) -> &Arc<Census> {
        &self.census
    }

    /// Where they are written down.
    pub(crate) const fn store(&self) -> &Store {
        &self.store
    }

    /// What is known of the sessions they belong to.
    pub(crate) const fn overview(&self) -> &Overview {
        &self.overview
    }

    /// Begins a run, unless it was begun before. Not cancel-safe: a claim may stay behind.
    ///
    /// # Errors
    /// [`StoreFailed`]: nothing has begun.
    pub(crate) async fn begin(self: &Arc<Self>, asked: Asked) -> Result<Begun, StoreFailed> {
        let (run, key) = (asked.run.clone(), asked.key.clone());
        if let Some(key) = key.clone() {
            let now = clock_ms();
            let expires_at = now.saturating_add(CLAIM_MS);
            match self.store.claim_key(key, &run, now, expires_at).await? {
                Claim::New => {}
                Claim::InFlight { .. } => return Ok(Begun::InFlight),
                Claim::Done { result, .. } => {
                    return Ok(Ended::read(&result).map_or(Begun::DoneUnreadably, Begun::Done));
                }
            }
        }
        let begun = self.enter(asked, Novelty::Known, None);
        if let (Begun::InFlight | Begun::LaneFull, Some(key)) = (&begun, key)
            && let Err(failed) = self.store.release_key(key, &run).await
        {
            warn!(
                error = &failed as &dyn Error,
                "an idempotency key is held until this worker ends"
            );
        }
        Ok(begun)
    }

    /// Begins a run that goes on only as long as it is followed; `None` when too many wait in its lane. Its id must
    /// be a fresh one: nobody recognizes a repeat.
    pub(crate) fn begin_followed(
        self: &Arc<Self>,
        asked: Asked,
        novelty: Novelty,
    ) -> Option<Follower> {
        let (follower, followed) = follower(&self.census);
        match self.enter(asked, novelty, Some(followed)) {
            // Its follower hears all that the outcome says.
            Begun::Started(_) => Some(follower),
            Begun::InFlight | Begun::Done(_) | Begun::DoneUnreadably | Begun::LaneFull => None,
        }
    }

    fn enter(
        self: &Arc<Self>,
        asked: Asked,
        novelty: Novelty,
        followed: Option<Followed>,
    ) -> Begun {
        let (grant, granted) = oneshot::channel();
        let (end, ended) = watch::channel(None);
        let session = asked.session.as_str();
        let mut state = self.state();
        if state.under_way.contains_key(&asked.run) {
            return Begun::InFlight;
        }
        let entered = match novelty {
            Novelty::New => Some(state.lanes.enter_new(session)),
            Novelty::Known => state.lanes.enter(session),
        };
        let Some((ticket, consequences)) = entered else { return Begun::LaneFull };
        let under_way = UnderWay { session: asked.session.clone(), end: Arc::new(end) };
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
        // One that is followed is counted as the request that follows it.
        let seat = followed.is_none().then(|| self.census.call(IN_CENSUS));
        tokio::spawn(async move {
            let ends = run::Ends { ended, followed };
            let outcome_of_run = run::carry_out(place, asked, granted, ends).await;
            let _ = outcome.send(outcome_of_run);
            drop(seat);
        });
        Begun::Started(told)
    }

    /// From now on the end of this run is not missed, here and in the generation beside.
    pub(crate) fn end_of(&self, run: String) -> Awaited {
        self.ends.of(run)
    }

    /// Whether runs of this session are under way here.
    pub(crate) fn any_of(&self, session: &str) -> bool {
        self.state().under_way.values().any(|under_way| under_way.session.as_str() == session)
    }

    /// How many wait for their lane, and how many go on.
    pub(crate) fn tally(&self) -> (usize, usize) {
        let state = self.state();
        let waiting = state.waiting.len();
        (waiting, state.under_way.len().saturating_sub(waiting))
    }

    /// Ends the runs of a session, or one of them, here and in the generation beside, and says which.
    pub(crate) async fn abort(
        &self,
        session: &SessionKey,
        run: Option<&str>,
        ending: Ending,
    ) -> Vec<String> {
        let there: Vec<_> = [Neighbour::Incumbent, Neighbour::Successor]
            .into_iter()
            .filter_map(|neighbour| self.ask_to_abort(neighbour, (session, run), ending))
            .collect();
        let mut runs = self.abort_here(session, run, ending).await;
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
        (session, run): (&SessionKey, Option<&str>),
        ending: Ending,
    ) -> Option<oneshot::Receiver<Vec<String>>> {
        let mut state = self.state();
        state.asks += 1;
        let ask = state.asks;
        let word = Word::AbortRun {
            ask,
            session: session.as_str().to_owned(),
            run: run.map(str::to_owned),
            ending,
        };
        if !self.post.tell(neighbour, &word.written()) {
            return None;
        }
        let (answer, answered) = oneshot::channel();
        state.asked.insert(ask, answer);
        state.asked.retain(|_, answer| !answer.is_closed());
        Some(answered)
    }

    async fn abort_here(
        &self,
        session: &SessionKey,
        run: Option<&str>,
        ending: Ending,
    ) -> Vec<String> {
        let chosen: Vec<(String, Arc<watch::Sender<Option<Ending>>>)> = self
            .state()
            .under_way
            .iter()
            .filter(|(id, under_way)| {
                under_way.session == *session && run.is_none_or(|run| run == *id)
            })
            .map(|(id, under_way)| (id.clone(), Arc::clone(&under_way.end)))
            .collect();
        for (_, end) in &chosen {
            end.send_replace(Some(ending));
        }
        let all_ended = async {
            for (_, end) in &chosen {
                end.closed().await;
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
    pub(crate) fn unlinked(self: &Arc<Self>, neighbour: Neighbour) {
        let mut state = self.state();
        let consequences = state.lanes.unlinked(neighbour);
        self.follow(&mut state, consequences);
        // Nobody answers these any more.
        state.asked.clear();
        drop(state);
        self.ends.neighbour_gone();
        let runs = Arc::clone(self);
        tokio::spawn(async move { runs.overview.refresh(&runs.store).await });
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
            Word::JobsChanged => {
                if let Some(driver) = self.jobs.get() {
                    driver.notify_one();
                }
                return;
            }
            Word::RunEnded { run } => return self.ends.ended(&run),
            Word::RunsAborted { ask, runs } => {
                if let Some(answer) = state.asked.remove(&ask) {
                    // Who asked may have waited long enough.
                    let _ = answer.send(runs);
                }
                return;
            }
            Word::AbortRun { ask, session, run, ending } => {
                let runs = Arc::clone(self);
                tokio::spawn(async move {
                    let session = SessionKey::named(&session);
                    let ended = runs.abort_here(&session, run.as_deref(), ending).await;
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
                        let _ = grant.send(());
                    }
                }
                Consequence::Want(neighbour, session) => {
                    self.post.tell(neighbour, &Word::LaneWanted { session }.written());
                }
                Consequence::Release(neighbour, session) => {
                    self.releases.release(&self.post, neighbour, session);
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
pub(super) struct Place {
    runs: Arc<Runs>,
    run: String,
    session: SessionKey,
    ticket: Ticket,
}

impl Place {
    /// The runs it is one of.
    pub(super) fn runs(&self) -> Arc<Runs> {
        Arc::clone(&self.runs)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.runs.state();
        state.under_way.remove(&self.run);
        self.runs.ends.ended(&self.run);
        tell_of_end(&self.runs.post, &self.run);
        // Whoever waits no more was granted the lane.
        if state.waiting.remove(&self.ticket).is_some() {
            state.lanes.give_up(self.session.as_str(), self.ticket);
        } else {
            let consequences = state.lanes.leave(self.session.as_str());
            self.runs.follow(&mut state, consequences);
        }
    }
}
