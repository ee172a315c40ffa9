//! Those that wait to become workers of this front, and the socket they came by.
//!
//! **Invariants**
//! - They are taken in the order in which they came; one that served before and returns comes first.
//! - There are [`MOST_WAITING`] at most; who comes then is told so, and may come again.

use std::collections::VecDeque;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use ::handoff::attach::Application;
use ::handoff::link::Link;
use ::handoff::message::{GenerationId, ToWorker};
use ::handoff::rescue::{Rescued, Standing};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::{Admission, Applicant, AttachSocket, Came, Peer, dismiss, serve};
use crate::event::{Attaching, Event};
use crate::front::Front;
use crate::generation::Course;
use crate::handoff::Recalled;
use crate::reexec::state::{LinkState, number};
use crate::workers::Origin;

/// How many may wait.
const MOST_WAITING: usize = 16;
/// A generation with a higher number is none of any front's.
const HIGHEST_GENERATION: u64 = u32::MAX as u64;

/// The attach socket and who waits there.
#[derive(Debug)]
pub(crate) struct Attachments {
    socket: AttachSocket,
    admission: Arc<Admission>,
    pub(super) waiting: VecDeque<Applicant>,
    came: (mpsc::Sender<Came>, mpsc::Receiver<Came>),
    next: u64,
    serving: Option<JoinHandle<()>>,
}

/// What another image of the front has to know of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AttachState {
    pub(crate) listener: RawFd,
    pub(crate) lock: RawFd,
    #[serde(default)]
    pub(crate) waiting: Vec<ApplicantState>,
}

/// One that waits.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ApplicantState {
    pub(crate) peer: Peer,
    #[serde(default)]
    pub(crate) returned: Option<Rescued>,
    pub(crate) link: LinkState,
}

/// The links of those that wait, while they are nobody's.
pub(crate) type Parted = Vec<(Peer, Option<Rescued>, Recalled)>;

impl Attachments {
    pub(crate) fn new(socket: AttachSocket, admission: Admission) -> Self {
        Self {
            socket,
            admission: Arc::new(admission),
            waiting: VecDeque::new(),
            came: mpsc::channel(MOST_WAITING),
            next: 0,
            serving: None,
        }
    }

    /// Begins to hear who comes, unless it has.
    pub(crate) fn begin(&mut self) {
        if self.serving.is_some() {
            return;
        }
        match self.socket.listener.try_clone() {
            Ok(listener) => {
                let task = serve(listener, Arc::clone(&self.admission), self.came.0.clone());
                self.serving = Some(tokio::spawn(task));
            }
            Err(error) => warn!(%error, "nobody can attach"),
        }
    }

    /// Who comes, or leaves. Cancel safe.
    pub(crate) async fn came(&mut self) -> Came {
        match self.came.1.recv().await {
            Some(came) => came,
            // There is always a sender: this has one itself.
            None => std::future::pending().await,
        }
    }

    pub(crate) fn admission(&self) -> &Admission {
        &self.admission
    }

    /// The programs of those that wait for a turn, in their order.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = &Peer> {
        self.waiting.iter().map(|applicant| &applicant.peer)
    }

    /// Who is next, as the policy sees it.
    fn next(&self) -> Attaching {
        match self.waiting.front().map(|applicant| &applicant.returned) {
            None => Attaching::Nobody,
            Some(None) => Attaching::Fresh,
            Some(Some(account)) => match account.standing {
                Standing::Draining(drain) => {
                    Attaching::Drains(account.generation, Duration::from_millis(drain.timeout_ms))
                }
                Standing::Admitted | Standing::Stopped => Attaching::Returned(account.generation),
            },
        }
    }

    pub(super) fn add(&mut self, peer: Peer, link: Link, returned: Option<Rescued>) {
        self.next += 1;
        let first = returned.is_some();
        let applicant = Applicant::new(self.next, (peer, link), returned, self.came.0.clone());
        if first {
            self.waiting.push_front(applicant);
        } else {
            self.waiting.push_back(applicant);
        }
    }

    /// The first of those that serve nobody yet.
    pub(crate) fn take_fresh(&mut self) -> Option<Applicant> {
        let at = self.waiting.iter().position(|applicant| applicant.returned.is_none())?;
        self.waiting.remove(at)
    }

    /// The one that is this generation.
    pub(crate) fn take(&mut self, id: GenerationId) -> Option<(Applicant, Rescued)> {
        let is_it = |a: &Applicant| a.returned.as_ref().is_some_and(|r| r.generation == id);
        let at = self.waiting.iter().position(is_it)?;
        let mut applicant = self.waiting.remove(at)?;
        let account = applicant.returned.take()?;
        Some((applicant, account))
    }

    fn dismiss_all(&mut self, reason: &str) {
        for applicant in self.waiting.drain(..) {
            // Its link ends behind this.
            applicant.tell(ToWorker::Dismiss { reason: reason.to_owned() });
        }
    }

    /// Takes the links of those that wait.
    pub(crate) async fn part(&mut self) -> Parted {
        let mut parted = Vec::new();
        for applicant in self.waiting.drain(..) {
            parted.extend(applicant.recall().await);
        }
        parted
    }

    /// Has those wait again whose links were taken.
    pub(crate) fn rejoin(&mut self, parted: Parted) {
        for (peer, returned, recalled) in parted {
            self.next += 1;
            let left = self.came.0.clone();
            match Applicant::resume(self.next, peer, recalled, returned, left) {
                Ok(applicant) => self.waiting.push_back(applicant),
                Err(error) => warn!(%error, "could not go on with a worker that waits"),
            }
        }
    }

    pub(crate) fn state(&self, parted: &Parted) -> AttachState {
        AttachState {
            listener: number(&self.socket.listener),
            lock: number(&self.socket.lock),
            waiting: parted
                .iter()
                .map(|(peer, returned, recalled)| ApplicantState {
                    peer: peer.clone(),
                    returned: returned.clone(),
                    link: LinkState::of(recalled),
                })
                .collect(),
        }
    }

    /// Goes on with it in another image of the front.
    pub(crate) fn resume(
        admission: Admission,
        (listener, lock): (OwnedFd, OwnedFd),
        parted: Parted,
    ) -> std::io::Result<Self> {
        let socket = AttachSocket::resume(&admission.path, listener, lock)?;
        let mut this = Self::new(socket, admission);
        this.rejoin(parted);
        Ok(this)
    }
}

impl Drop for Attachments {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

impl Front {
    /// Somebody came to the attach socket, or left.
    pub(crate) fn on_came(&mut self, came: Came) {
        match came {
            Came::Left(number) => {
                let Some(attach) = &mut self.attach else { return };
                let before = attach.waiting.len();
                attach.waiting.retain(|applicant| applicant.number != number);
                if attach.waiting.len() < before {
                    info!("a worker that waited has left");
                }
            }
            Came::Applied(applied) => {
                let (peer, link, application) = *applied;
                if let Err((link, reason)) = self.apply(peer, link, application) {
                    warn!(reason, "a worker that attaches is turned away");
                    return dismiss(link, reason);
                }
            }
        }
        self.mind_waiting();
    }

    /// Has one wait that may attach.
    fn apply(
        &mut self,
        peer: Peer,
        link: Link,
        application: Application,
    ) -> Result<(), (Link, String)> {
        let refused = |reason: &str| reason.to_owned();
        if self.generations.course == Course::Leaving {
            return Err((link, refused("the front is stopping")));
        }
        if let Some(account) = &application.returned
            && let Err(reason) = self.recognize(account, &application.sockets)
        {
            return Err((link, reason));
        }
        let Some(attach) = &mut self.attach else { return Err((link, refused("nobody attaches"))) };
        if attach.waiting.len() >= MOST_WAITING {
            return Err((link, format!("{MOST_WAITING} workers wait already")));
        }
        info!(user = peer.user, program = peer.program, "a worker attaches");
        attach.add(peer, link, application.returned);
        Ok(())
    }

    /// Whether one that says it served before can be gone on with.
    fn recognize(&mut self, account: &Rescued, sockets: &[u64]) -> Result<(), String> {
        let id = account.generation;
        if id.number() > HIGHEST_GENERATION || account.latest_epoch > HIGHEST_GENERATION {
            return Err(format!("{id} is no generation of any front's"));
        }
        let held = self.listeners.iter().flat_map(|all| &all.sockets);
        let ours: Vec<u64> = held.filter_map(|socket| socket.inode().ok()).collect();
        if !sockets.iter().all(|inode| ours.contains(inode)) {
            return Err("its listening sockets are not this front's any more".to_owned());
        }
        match self.workers.get(id).map(|worker| &worker.origin) {
            None => {}
            Some(Origin::Attached(_)) => {
                // The end of its former link is on its way here.
                self.workers.end_conversation(id);
                self.bury(id);
            }
            Some(_) => return Err(format!("{id} is another worker of this front's")),
        }
        if let Some(attach) = &mut self.attach {
            // One of two that say so is gone: the one that came first.
            drop(attach.take(id));
        }
        self.generations.has_known(id, account.latest_epoch);
        Ok(())
    }

    /// Tells the policy who waits, and those who have to wait that they do.
    pub(crate) fn mind_waiting(&mut self) {
        let Some(attach) = &self.attach else { return };
        let next = attach.next();
        self.feed(Event::Attaching(next));
        let Some(attach) = &mut self.attach else { return };
        if self.generations.course == Course::Leaving {
            return attach.dismiss_all("the front is stopping");
        }
        for (ahead, applicant) in (0..).zip(&mut attach.waiting) {
            if applicant.told != Some(ahead) && applicant.returned.is_none() {
                applicant.told = Some(ahead);
                applicant.tell(ToWorker::Waiting { ahead });
            }
        }
    }

    /// Who is next, after one was taken.
    pub(crate) fn next_waiting(&self) -> Event {
        Event::Attaching(self.attach.as_ref().map_or(Attaching::Nobody, Attachments::next))
    }
}
