//! A takeover with live connections of both kinds, in which a process fails at a point.

use std::time::Duration;

use handoff::{Connections, GenerationId};
use holdfast_tests::rig::moving::{Account, Accounts, Clients};
use holdfast_tests::rig::{
    Front, Process, Program, RunningTakeover, Setup, Signal, Takeover, Tally, Traffic, eventually,
    faulty_worker, sound_worker,
};

use crate::generation;
use crate::moving::{all_with, drained, lively};

/// How many clients there are of each kind.
const CLIENTS: usize = 20;
/// How many connections go ahead of the others.
pub(super) const CANARY: usize = 8;
/// How long a process stands still. It is the fault itself: nothing is waited for by it.
const STANDSTILL: Duration = Duration::from_millis(300);

/// The takeover, and everybody who might notice it.
pub(super) struct Scene {
    pub(super) front: Front,
    pub(super) incumbent: Process,
    pub(super) takeover: RunningTakeover,
    audience: Audience,
}

/// Clients that keep their connections, and one that opens one after the other.
struct Audience {
    callers: Clients,
    posters: Clients,
    newcomer: Traffic,
}

/// What the audience has to tell.
pub(super) struct Told {
    accounts: Vec<Accounts>,
    pub(super) newcomer: Tally,
}

/// A soak that the canary's move fits into.
fn soaking(setup: Setup) -> Setup {
    lively(setup).flag("--soak", "300ms")
}

impl Scene {
    /// A takeover from one program to another has begun.
    pub(super) async fn begin(incumbent: Program, successor: &Program) -> Self {
        Self::begin_with(|setup| setup, incumbent, successor).await
    }

    /// As [`Self::begin`], of a front that differs in what `choose` says.
    pub(super) async fn begin_with(
        choose: impl FnOnce(Setup) -> Setup,
        incumbent: Program,
        successor: &Program,
    ) -> Self {
        let front = Front::with(|s| choose(soaking(s).worker(incumbent))).await;
        let audience = Audience {
            callers: Clients::calling(&front, CLIENTS).await,
            posters: Clients::posting(&front, CLIENTS).await,
            newcomer: Traffic::to(&front).with_new(),
        };
        audience.newcomer.flows(1).await;
        let incumbent = front.serving().await.worker().expect("the incumbent serves");
        let takeover = front.begin_takeover_to(successor);
        Self { front, incumbent, takeover, audience }
    }

    /// The successor's process, which even a front that waits for it would show too late.
    pub(super) async fn successor(&self) -> Process {
        eventually("the successor is there", async || {
            let workers = self.front.process().descendants();
            workers.into_iter().find(|process| *process != self.incumbent)
        })
        .await
    }

    /// Everything has moved, and nobody has noticed.
    pub(super) async fn nobody_notices(self) {
        let Self { front, takeover, audience, .. } = self;
        audience.notices_nothing_of(&front, takeover, generation(2)).await;
    }

    /// As [`Self::nobody_notices`], of this takeover and of another one after it.
    pub(super) async fn nobody_notices_either(self, another: RunningTakeover) {
        let Self { front, takeover, audience, .. } = self;
        takeover.end().await.assert_committed();
        audience.notices_nothing_of(&front, another, generation(3)).await;
    }

    /// The front has died: whoever serves serves on, and accepts.
    pub(super) async fn the_front_is_lost(self) {
        let Self { front, audience, .. } = self;
        // Only so are its workers known when it is gone.
        front.signal(Signal::SIGKILL);
        eventually("it is gone", async || front.process().is_gone().then_some(())).await;
        audience.callers.each_is_answered(2).await;
        audience.posters.each_is_answered(2).await;
        audience.newcomer.flows(2).await;
        audience.newcomer.stop().await.assert_no_failures();
        audience.callers.stop().await.assert_nobody_noticed();
        audience.posters.stop().await.assert_nobody_noticed();
    }

    /// The successor is dropped before it was anybody's: nobody has noticed.
    pub(super) async fn nothing_has_begun(self) {
        let Self { front, takeover, audience, .. } = self;
        takeover.end().await.assert_rolled_back();
        assert_eq!(front.serving().await.generation, generation(1));
        let told = audience.settle(&front).await;
        assert_eq!(told.lost(), 0);
        told.newcomer.assert_no_failures();
    }

    /// Whoever has not moved was told, or has ended; and is accounted for.
    pub(super) async fn not_everybody_has_moved(self) -> (Takeover, Told) {
        let Self { front, takeover, audience, .. } = self;
        let takeover = takeover.end().await;
        takeover.event("committed").unwrap_or_else(|| panic!("not committed: {takeover:?}"));
        let told = audience.settle(&front).await;
        assert_eq!(front.serving().await.generation, generation(2), "{takeover:?}");
        let accounted = accounted(&takeover);
        assert!(everybody(accounted), "{accounted} are accounted for: {takeover:?}");
        let (silent, cut) = (told.lost_in_silence() as u64, drained(&takeover, "cut").total());
        // The newcomer may be one of them.
        told.newcomer.assert_cut_at_most(usize::from(cut > 0));
        assert!(silent <= cut, "{silent} ended without a word: {takeover:?}");
        (takeover, told)
    }

    /// The incumbent has died: the successor serves what was its, and the rest has ended.
    pub(super) async fn the_incumbent_is_lost(self) -> Told {
        let Self { front, incumbent, takeover, audience } = self;
        eventually("it is gone", async || incumbent.is_gone().then_some(())).await;
        let takeover = takeover.end().await;
        let told = audience.settle(&front).await;
        assert_eq!(front.serving().await.generation, generation(2), "{takeover:?}");
        // It took its own account with it, so none is compared here.
        told.newcomer.assert_cut_at_most(1);
        told
    }

    /// The successor has died: what was its has ended, and whoever else has was told so.
    pub(super) async fn the_successor_is_lost(self) -> Told {
        let Self { front, takeover, audience, .. } = self;
        let takeover = takeover.end().await;
        let told = audience.settle(&front).await;
        let lost = told.lost();
        if takeover.event("committed").is_none() {
            takeover.assert_rolled_back();
            assert_eq!(front.serving().await.generation, generation(1), "{takeover:?}");
            assert!(lost <= CANARY, "{lost} were lost: {takeover:?}");
        } else {
            let accounted = accounted(&takeover);
            assert!(everybody(accounted), "{accounted} are accounted for: {takeover:?}");
            let moved = drained(&takeover, "moved").total();
            let cut = drained(&takeover, "cut").total();
            let silent = told.lost_in_silence() as u64;
            assert!(silent <= moved + cut, "{silent} ended without a word: {takeover:?}");
        }
        told.newcomer.assert_cut_at_most(1);
        told
    }
}

impl Audience {
    /// Everything moves to this generation, and nobody notices.
    async fn notices_nothing_of(
        self,
        front: &Front,
        takeover: RunningTakeover,
        successor: GenerationId,
    ) {
        let takeover = takeover.end().await;
        takeover.assert_committed();
        self.callers.each_is_answered(1).await;
        self.posters.each_is_answered(1).await;
        self.newcomer.flows(2).await;
        self.newcomer.stop().await.assert_no_failures();
        let all = Connections { http: CLIENTS as u64, websocket: CLIENTS as u64 };
        all_with(front, successor, all).await;
        let moved = drained(&takeover, "moved").total();
        assert!(moved >= 2 * CLIENTS as u64, "{moved} have moved: {takeover:?}");
        // The newcomer's may have come to its own end.
        let accounted = accounted(&takeover);
        assert!(everybody(accounted), "{accounted} are accounted for: {takeover:?}");
        self.callers.stop().await.assert_nobody_noticed();
        self.posters.stop().await.assert_nobody_noticed();
    }

    /// Ends once the front has settled and each client is answered or has lost its connection.
    async fn settle(self, front: &Front) -> Told {
        front.until("one generation serves", |s| s.is_settled()).await;
        self.callers.each_is_answered(1).await;
        self.posters.each_is_answered(1).await;
        self.newcomer.flows(2).await;
        let newcomer = self.newcomer.stop().await;
        // Asked to stop, a client still has its connection, until its account is given.
        let kept = (2 * CLIENTS - self.callers.ended() - self.posters.ended()) as u64;
        front
            .until("whoever kept a connection is served", |s| {
                let open = s.serving().and_then(|serving| serving.connections);
                open.is_some_and(|open| open.total() == kept)
            })
            .await;
        let accounts = vec![self.callers.stop().await, self.posters.stop().await];
        for accounts in &accounts {
            accounts.assert_no_faults();
        }
        Told { accounts, newcomer }
    }
}

impl Told {
    /// How many connections have ended.
    pub(super) fn lost(&self) -> usize {
        self.accounts.iter().map(Accounts::lost).sum()
    }

    /// How many have ended without a word.
    pub(super) fn lost_in_silence(&self) -> usize {
        let silent = |account: &&Account| account.lost.is_some() && !account.told;
        self.accounts.iter().flat_map(Accounts::iter).filter(silent).count()
    }
}

/// Whether so many are all of the clients; the newcomer may have been there too.
const fn everybody(connections: u64) -> bool {
    connections == 2 * CLIENTS as u64 || connections == 2 * CLIENTS as u64 + 1
}

/// How many connections the incumbent has accounted for.
fn accounted(takeover: &Takeover) -> u64 {
    ["moved", "finished", "closed", "cut"].iter().map(|way| drained(takeover, way).total()).sum()
}

/// Continues a process that stands still already, after a while.
pub(super) async fn while_it_stands(process: Process) {
    tokio::time::sleep(STANDSTILL).await;
    process.go_on();
}

/// The programs of the incumbent and the successor, the one with this fault that reaches this point.
pub(super) fn programs(point: &str, fault: &str) -> (Program, Program) {
    const INCUMBENTS: [&str; 3] =
        ["worker.stop-received", "worker.drain-received", "worker.leaving"];
    let faulty = faulty_worker(&format!("{point}={fault}"));
    if point.starts_with("source.") || INCUMBENTS.contains(&point) {
        (faulty, sound_worker())
    } else {
        (sound_worker(), faulty)
    }
}
