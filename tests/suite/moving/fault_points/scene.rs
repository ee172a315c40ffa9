//! A takeover with live connections of both kinds, in which a process fails at a point.

use std::time::Duration;

use holdfast_tests::rig::moving::{Account, Accounts, Clients};
use holdfast_tests::rig::{
    Front, Process, Program, RunningTakeover, Setup, Takeover, Tally, Traffic, eventually,
    sound_worker,
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
    lively(setup).flag("--soak", "150ms")
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
        let takeover = takeover.end().await;
        takeover.assert_committed();
        audience.callers.each_is_answered(1).await;
        audience.posters.each_is_answered(1).await;
        audience.newcomer.flows(2).await;
        audience.newcomer.stop().await.assert_no_failures();
        let all = handoff::Connections { http: CLIENTS as u64, websocket: CLIENTS as u64 };
        all_with(&front, generation(2), all).await;
        let moved = drained(&takeover, "moved").total();
        assert!((40..=41).contains(&moved), "{moved} have moved: {takeover:?}");
        assert_eq!(accounted(&takeover), moved, "{takeover:?}");
        audience.callers.stop().await.assert_nobody_noticed();
        audience.posters.stop().await.assert_nobody_noticed();
    }

    /// The incumbent has died: the successor serves what was its, and the rest has ended.
    pub(super) async fn the_incumbent_is_lost(self) {
        let Self { front, incumbent, takeover, audience } = self;
        eventually("it is gone", async || incumbent.is_gone().then_some(())).await;
        let takeover = takeover.end().await;
        let told = audience.settle(&front).await;
        assert_eq!(front.serving().await.generation, generation(2), "{takeover:?}");
        // It took its own account with it, so none is compared here.
        told.newcomer.assert_cut_at_most(1);
    }

    /// The successor has died: what was its has ended, and whoever else has was told so.
    pub(super) async fn the_successor_is_lost(self) {
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
            assert!((40..=41).contains(&accounted), "{accounted} are accounted for: {takeover:?}");
            let moved = drained(&takeover, "moved").total();
            let cut = drained(&takeover, "cut").total();
            let silent = told.lost_in_silence() as u64;
            assert!(silent <= moved + cut, "{silent} ended without a word: {takeover:?}");
        }
        told.newcomer.assert_cut_at_most(1);
    }
}

impl Audience {
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
    fn lost_in_silence(&self) -> usize {
        let silent = |account: &&Account| account.lost.is_some() && !account.told;
        self.accounts.iter().flat_map(Accounts::iter).filter(silent).count()
    }
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

/// The program of whoever reaches this point, with this fault; the other one's is sound.
pub(super) fn programs(point: &str, fault: &str) -> (Program, Program) {
    let faulty = holdfast_tests::rig::faulty_worker(&format!("{point}={fault}"));
    if point.starts_with("source.") { (faulty, sound_worker()) } else { (sound_worker(), faulty) }
}
