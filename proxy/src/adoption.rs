//! Workers that are no children of this front: an earlier one had started them, and this one goes on with them.
//!
//! **Invariants**
//! - The end of such a worker is seen by its pidfd; nothing ticks for it. How it ended is not known: only its parent,
//!   whoever that is by now, was told.
//! - A pid is signalled only while its pidfd says that it is still the worker's.
//! - What such a worker leaves behind is not this front's either, but for its process group.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use ::handoff::message::GenerationId;
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tracing::info;

use crate::event::Exit;
use crate::front::Front;
use crate::generation::Generations;
use crate::handoff::Word;
use crate::reap;
use crate::recovery::{Found, Sockets};
use crate::rescue::{Survivor, Survivors};
use crate::spawn;
use crate::workers::Origin;

/// What this front has gone on with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Recovered {
    pub(crate) generations: Vec<GenerationId>,
    #[serde(with = "crate::age")]
    pub(crate) at: Instant,
}

/// A process that is not a child of this one. Written down it is what another image of the front finds it by.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Adopted {
    pid: i32,
    /// When it was started, in ticks since the machine was: its number may be another's later.
    born: u64,
    /// Readable once it has ended (pidfd_open(2)). It is no pipe, but nothing else is asked of it. `None` when it has
    /// ended unseen.
    #[serde(skip)]
    pidfd: Option<Arc<pipe::Receiver>>,
}

impl Adopted {
    /// Keeps an eye on a process; `None` when there is none.
    pub(crate) fn open(pid: i32) -> io::Result<Option<Self>> {
        let Some(wanted) = rustix::process::Pid::from_raw(pid) else { return Ok(None) };
        let pidfd = match pidfd_open(wanted, PidfdFlags::empty()) {
            Ok(pidfd) => Arc::new(pipe::Receiver::from_owned_fd_unchecked(pidfd)?),
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let born = reap::born(pid);
        Ok(born.map(|born| Self { pid, born, pidfd: Some(pidfd) }))
    }

    /// The same in another image of the front.
    pub(crate) fn reopen(&mut self) {
        let there = Self::open(self.pid).ok().flatten();
        self.pidfd = there.filter(|there| there.born == self.born).and_then(|there| there.pidfd);
    }

    pub(crate) const fn pid(&self) -> Pid {
        Pid::from_raw(self.pid)
    }

    /// Has the front told when it has ended.
    pub(crate) fn watch(&self, id: GenerationId, words: mpsc::Sender<Word>) {
        let watched = self.clone();
        tokio::spawn(async move {
            watched.ended().await;
            // A front that is gone needs to know of no end.
            let _ = words.send(Word::Exited(id)).await;
        });
    }

    /// Ends once it has ended. Cancel safe.
    pub(crate) async fn ended(&self) {
        if let Some(pidfd) = &self.pidfd
            && pidfd.readable().await.is_err()
        {
            // The event loop ends, and with it whoever waits.
            std::future::pending::<()>().await;
        }
    }

    fn has_ended(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let Some(pidfd) = &self.pidfd else { return true };
        let mut polled = [PollFd::new(&**pidfd, PollFlags::IN)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut polled, Some(&at_once)).is_ok_and(|ready| ready > 0)
    }

    /// Ends it and everything it started and did not set apart, unless it has ended: its pid may be another's then.
    pub(crate) fn kill_group(&self) {
        if !self.has_ended() {
            spawn::kill_group(self.pid());
        }
    }

    /// Ends what is left of its group, now that it has ended itself.
    pub(crate) fn end_what_it_left(&self) {
        reap::end_group_of_the_gone(self.pid());
    }
}

impl Front {
    /// Goes on with the workers of an earlier front; without any it starts as ever.
    pub(crate) fn recover(
        &mut self,
        survivors: Survivors,
        astray: Vec<GenerationId>,
        sockets: Sockets,
    ) {
        let Survivors { workers, latest } = survivors;
        if workers.is_empty() {
            self.generations.next = latest.map_or(self.generations.next, GenerationId::next);
            return self.start();
        }
        let accounts: Vec<_> = workers.iter().map(|survivor| survivor.account.clone()).collect();
        let ids: Vec<_> = accounts.iter().map(|account| account.generation).collect();
        info!(workers = ids.len(), ?sockets, "recovered");
        self.story.history.recovered(&ids);
        self.recovered = Some(Recovered { generations: ids, at: Instant::now() });
        let came = |survivor: &&Survivor| matches!(survivor.origin, Origin::Attached(_));
        let attached =
            workers.iter().filter(came).map(|survivor| survivor.account.generation).collect();
        let found = Found { workers: accounts, astray, attached, latest, sockets };
        let (rules, program) = (self.settings.rules, self.generations.current);
        let (generations, actions) = Generations::recover(rules, program, &found);
        self.generations = generations;
        for survivor in workers {
            self.workers.adopt(survivor, &self.words.0);
        }
        self.perform(actions);
    }

    /// As for a child that has ended.
    pub(crate) fn on_adopted_exit(&mut self, id: GenerationId) {
        if let Some(Origin::Adopted(process)) = self.workers.get(id).map(|worker| &worker.origin)
            && (!self.generations.is_trusted(id) || self.runs_adapters())
        {
            process.end_what_it_left();
        }
        self.on_reaped(id, Exit::Unknown);
    }
}
