//! Many clients at once, and what each of them has to tell.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use handoff::GenerationId;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{BareWebSocket, callers, posters};
use crate::rig::front::Front;
use crate::rig::http::HttpConnection;
use crate::rig::patience::{eventually, soon};

/// So many clients, or fewer, and nobody has to slow down.
const EASY: u64 = 200;
/// One of so many clients asks for what takes long.
const LONG_CALLERS: u64 = 10;
/// How many clients hear of the runs that are under way, times how many runs that is: each event goes to all.
const HEARERS: u64 = 2_000;
/// The count of a client that is answered no more.
const NO_MORE: u64 = u64::MAX;
/// How many crowds there have been: none asks for what another has asked for, or it gets that one's answer.
static CROWDS: AtomicU64 = AtomicU64::new(0);

/// Clients at work, a connection each.
#[derive(Debug)]
pub struct Clients {
    tasks: JoinSet<Account>,
    stop: watch::Sender<bool>,
    answered: Vec<Arc<AtomicU64>>,
    load: Load,
    crowd: u64,
}

/// What the clients ask for, so that many of them ask for no more in all than a few.
#[derive(Clone, Copy, Debug)]
struct Load {
    clients: u64,
    longest_call_ms: u64,
}

/// What a client asks for beside what is answered at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LongCall {
    None,
    /// An answer of an agent, of which all clients hear.
    Run,
    /// The end of a run that never begins.
    Wait,
}

/// What became of one client and its only connection.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// How often it was answered.
    pub answered: u64,
    /// Whatever a client that notices no takeover would not see.
    pub faults: Vec<String>,
    /// Whether it was told of a shutdown, or to come back on another connection.
    pub told: bool,
    /// How its connection ended, if it did.
    pub lost: Option<String>,
    /// Who answered, where answers say so.
    pub generations: BTreeSet<GenerationId>,
}

/// What became of all of them.
#[derive(Clone, Debug)]
pub struct Accounts(Vec<Account>);

/// What a client works with.
pub(super) struct Desk {
    /// Tells it from the others.
    pub(super) number: u64,
    /// Tells them from the others.
    pub(super) crowd: u64,
    pub(super) stop: watch::Receiver<bool>,
    /// What it asks for that takes its time, and how long at most, in ms.
    pub(super) long_call: (LongCall, u64),
    /// How much longer its pauses are than those of one among few.
    pub(super) leisure: u64,
    answered: Arc<AtomicU64>,
    seed: u64,
}

impl Clients {
    /// Keep-alive connections that `POST` at random times.
    pub async fn posting(front: &Front, clients: usize) -> Self {
        let mut pool = Self::none(clients, 0);
        for _ in 0..clients {
            let connection = HttpConnection::open(&front.address()).await;
            let connection = connection.expect("it is accepted");
            let desk = pool.desk();
            pool.tasks.spawn(posters::post(connection, desk));
        }
        pool.each_is_answered(1).await;
        pool
    }

    /// Connected WebSockets that call at random times what is answered at once.
    pub async fn calling(front: &Front, clients: usize) -> Self {
        Self::calling_for_long(front, clients, 0).await
    }

    /// The same, and some of them also what takes up to `longest_call_ms`.
    pub async fn calling_for_long(front: &Front, clients: usize, longest_call_ms: u64) -> Self {
        let mut pool = Self::none(clients, longest_call_ms);
        for _ in 0..clients {
            let socket = BareWebSocket::connected(&front.address()).await;
            let desk = pool.desk();
            pool.tasks.spawn(callers::call_on(socket, desk));
        }
        pool.each_is_answered(1).await;
        pool
    }

    fn none(clients: usize, longest_call_ms: u64) -> Self {
        let (tasks, stop) = (JoinSet::new(), watch::Sender::new(false));
        let load = Load { clients: clients as u64, longest_call_ms };
        let crowd = CROWDS.fetch_add(1, Ordering::Relaxed);
        Self { tasks, stop, answered: Vec::new(), load, crowd }
    }

    fn desk(&mut self) -> Desk {
        let number = self.answered.len() as u64;
        let answered = Arc::<AtomicU64>::default();
        self.answered.push(Arc::clone(&answered));
        // Any odd number does; the same one each time makes a failure easier to see again.
        let seed = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let long_call = (self.load.long_call(number), self.load.longest_call_ms);
        let leisure = self.load.clients.div_ceil(EASY);
        let (stop, crowd) = (self.stop.subscribe(), self.crowd);
        Desk { number, crowd, stop, long_call, leisure, answered, seed }
    }

    /// Ends once each client that still has its connection was answered `times` more.
    pub async fn each_is_answered(&self, times: u64) {
        let count = |counter: &Arc<AtomicU64>| counter.load(Ordering::Relaxed);
        let before: Vec<u64> = self.answered.iter().map(count).collect();
        eventually("each client is answered", async || {
            let mut pairs = before.iter().zip(self.answered.iter().map(count));
            pairs.all(|(before, now)| now >= before.saturating_add(times)).then_some(())
        })
        .await;
    }

    /// How many have lost their connections, or were told to stop and have.
    #[must_use]
    pub fn ended(&self) -> usize {
        self.answered.iter().filter(|counter| counter.load(Ordering::Relaxed) == NO_MORE).count()
    }

    /// Lets each client finish what it has begun, make one last request, and give account.
    pub async fn stop(mut self) -> Accounts {
        self.stop.send_replace(true);
        let mut accounts = Vec::new();
        soon("the clients finish", async {
            while let Some(ended) = self.tasks.join_next().await {
                accounts.push(ended.expect("a client does not panic"));
            }
        })
        .await;
        Accounts(accounts)
    }
}

impl Load {
    const fn long_call(self, number: u64) -> LongCall {
        if self.longest_call_ms == 0 || !number.is_multiple_of(LONG_CALLERS) {
            LongCall::None
        } else if number / LONG_CALLERS < HEARERS / self.clients {
            LongCall::Run
        } else {
            LongCall::Wait
        }
    }
}

impl Desk {
    pub(super) fn is_to_stop(&self) -> bool {
        *self.stop.borrow()
    }

    pub(super) fn was_answered(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// A number below `most`, by Marsaglia's xorshift.
    pub(super) const fn random(&mut self, most: u64) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed % most
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.answered.store(NO_MORE, Ordering::Relaxed);
    }
}

impl Accounts {
    /// # Panics
    /// When any of the clients saw anything of a takeover.
    #[track_caller]
    pub fn assert_nobody_noticed(&self) -> &Self {
        self.assert_no_faults();
        let told = self.0.iter().filter(|account| account.told).count();
        assert_eq!(told, 0, "clients were told of a shutdown");
        let lost: Vec<_> = self.0.iter().filter_map(|account| account.lost.as_ref()).collect();
        assert!(lost.is_empty(), "{} connections ended: {lost:?}", lost.len());
        self
    }

    /// # Panics
    /// When a client was told something it should not have been; connections may have ended.
    #[track_caller]
    pub fn assert_no_faults(&self) -> &Self {
        let faults: Vec<_> = self.0.iter().flat_map(|account| &account.faults).collect();
        let shown = &faults[..faults.len().min(20)];
        assert!(faults.is_empty(), "{} faults: {shown:#?}", faults.len());
        self
    }

    /// How many connections ended.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.0.iter().filter(|account| account.lost.is_some()).count()
    }

    /// How many answers there were.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.0.iter().map(|account| account.answered).sum()
    }

    /// One for each client.
    pub fn iter(&self) -> impl Iterator<Item = &Account> {
        self.0.iter()
    }
}
