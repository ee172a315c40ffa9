//! Programs that know nothing of Holdfast, whose adapters attach themselves: each adapter keeps here what it promises of
//! programs that the front starts.

use holdfast_tests::rig::http::{HttpConnection, Request};
use holdfast_tests::rig::{Attached, Front, Gate, Process, Signal, Status, Traffic, binaries};

use super::loss::cut;
use super::{attachable, until_serves};
use crate::adapters::given;
use crate::{generation, skipped};

/// How a program is run, by the words of `holdfast adapter`.
#[derive(Clone, Copy)]
pub(super) struct Adapted {
    pub(super) kind: &'static str,
    /// The program when it is as it should be, and one that never gets ready.
    pub(super) good: &'static [&'static str],
    never_ready: &'static [&'static str],
}

const SERVER: &str = env!("CARGO_BIN_EXE_fixture-server");
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/suite/adapters/server.cjs");

pub(super) const ACTIVATE: Adapted = Adapted {
    kind: "activate",
    good: &[SERVER, "listen-fds", "ready"],
    never_ready: &[SERVER, "listen-fds"],
};
const RELAY: Adapted =
    Adapted { kind: "relay", good: &[SERVER, "port:PORT"], never_ready: &[SERVER, "hang"] };
const NODE: Adapted = Adapted {
    kind: "node",
    good: &["node", SCRIPT, "port", "finish"],
    never_ready: &["node", SCRIPT, "elsewhere"],
};

/// The adapters whose programs can be had here; says which one cannot.
pub(super) async fn all() -> Vec<Adapted> {
    let mut all = vec![ACTIVATE, RELAY];
    let found = tokio::process::Command::new("node").arg("--version").output().await;
    if found.is_ok() {
        all.push(NODE);
    } else {
        skipped("node is not installed");
    }
    all
}

impl Adapted {
    /// Starts the program beside the front.
    fn attach(self, front: &Front) -> Attached {
        self.attach_with(front, &[], self.good)
    }

    pub(super) fn attach_with(self, front: &Front, wrapper: &[&str], program: &[&str]) -> Attached {
        let words = ["adapter", self.kind, "--attach", "attach.sock", "--"];
        front.attach_by(wrapper, &binaries::holdfast(), &[&words, program].concat())
    }

    /// A front with the program as its first generation.
    async fn served(self) -> (Front, Attached) {
        // What stays open under `relay` is asked to end in the last quarter.
        let front = Front::with(|s| attachable(s).flag("--drain-timeout", "4s")).await;
        let first = self.attach(&front);
        until_serves(&front, 1).await;
        (front, first)
    }
}

/// A request that the program is at, and whose answer waits for the gate.
async fn held(front: &Front, gate: &Gate) -> HttpConnection {
    let mut connection = HttpConnection::open(&front.address()).await.expect("it is accepted");
    connection.exchange(&Request::get("/")).await.expect("it is served");
    let request = Request::get(&gate.hold()).parts().0;
    connection.send(&request).await.expect("a request can be sent");
    connection
}

/// Four programs, one after the other, while clients come and stay.
pub(super) async fn succeed_each_other(adapted: Adapted, wrapper: &[&str]) {
    let front = Front::with(|s| attachable(s).flag("--drain-timeout", "4s")).await;
    let mut program = adapted.attach_with(&front, wrapper, adapted.good);
    let inodes = until_serves(&front, 1).await.inodes();
    let traffic = Traffic::to(&front).with_new().with_keep_alive();
    for number in 2..=4 {
        traffic.flows(5).await;
        let gate = Gate::closed();
        let mut held = held(&front, &gate).await;
        let next = adapted.attach_with(&front, wrapper, adapted.good);
        let serves = |s: &Status| s.takeovers.committed == number - 1;
        front.until("the next program serves", serves).await;
        gate.open();
        let answer = held.receive().await.expect("a request is finished by who has it");
        assert_eq!(answer.generation(), generation(number - 1), "{}", adapted.kind);
        drop(held);
        assert_eq!(program.exit_code().await, 0, "{}: {number}", adapted.kind);
        assert_eq!(until_serves(&front, number).await.inodes(), inodes);
        program = next;
    }
    traffic.flows(5).await;
    traffic.stop().await.assert_no_failures();
    let status = front.status().await;
    assert_eq!((status.takeovers.rolled_back, status.crashes), (0, 0), "{}", adapted.kind);
}

#[tokio::test]
async fn activated_programs_succeed_each_other_and_lose_nobody() {
    succeed_each_other(ACTIVATE, &[]).await;
}

#[tokio::test]
async fn relayed_programs_succeed_each_other_and_lose_nobody() {
    succeed_each_other(RELAY, &[]).await;
}

#[tokio::test]
async fn node_servers_succeed_each_other_and_lose_nobody() {
    if all().await.len() == 3 {
        succeed_each_other(NODE, &[]).await;
    }
}

#[tokio::test]
async fn one_adapter_succeeds_another_and_a_worker_that_needs_none_the_last() {
    let (front, mut serving) = ACTIVATE.served().await;
    let traffic = Traffic::to(&front).with_new();
    let mut number = 1;
    for adapted in all().await.into_iter().rev() {
        traffic.flows(5).await;
        let next = adapted.attach(&front);
        number += 1;
        until_serves(&front, number).await;
        assert_eq!(serving.exit_code().await, 0, "before {}", adapted.kind);
        serving = next;
    }
    let _worker = front.attach(&[], &[]);
    until_serves(&front, number + 1).await;
    assert_eq!(serving.exit_code().await, 0);
    traffic.flows(5).await;
    traffic.stop().await.assert_no_failures();
}

#[tokio::test]
async fn an_adapter_whose_link_breaks_is_the_same_generation_afterwards_and_its_program_serves_on()
{
    for adapted in all().await {
        let (front, mut first) = adapted.served().await;
        let traffic = Traffic::to(&front).with_new();
        traffic.flows(5).await;
        if !cut(first.process().await) {
            return skipped("the link of another process cannot be had here");
        }
        front.until("the end of the link is noticed", |status| status.crashes == 1).await;
        traffic.flows(5).await;
        until_serves(&front, 1).await;
        let _next = adapted.attach(&front);
        until_serves(&front, 2).await;
        assert_eq!(first.exit_code().await, 0, "{}", adapted.kind);
        traffic.flows(5).await;
        traffic.stop().await.assert_no_failures();
    }
}

#[tokio::test]
async fn the_next_front_goes_on_with_adapters_and_their_programs() {
    for adapted in all().await {
        let (mut front, mut first) = adapted.served().await;
        let inodes = front.status().await.inodes();
        let address = front.address().to_string();
        let traffic = Traffic::to(&front).with_new();
        traffic.flows(5).await;
        front.kill().await;
        traffic.flows(5).await;
        front.start_again(|s| attachable(s).listen(address)).await;
        assert_eq!(until_serves(&front, 1).await.inodes(), inodes, "{}", adapted.kind);
        let _next = adapted.attach(&front);
        until_serves(&front, 2).await;
        assert_eq!(first.exit_code().await, 0, "{}", adapted.kind);
        traffic.flows(5).await;
        traffic.stop().await.assert_no_failures();
    }
}

#[tokio::test]
async fn a_program_that_never_gets_ready_ends_its_adapter_and_who_served_serves_on() {
    for adapted in all().await {
        let front = Front::with(|s| attachable(s).flag("--ready-timeout", "3s")).await;
        let _first = adapted.attach(&front);
        until_serves(&front, 1).await;
        let traffic = Traffic::to(&front).with_new();
        let mut never = adapted.attach_with(&front, &[], adapted.never_ready);
        assert_eq!(never.exit_code().await, 75, "{}", adapted.kind);
        let mut exits = adapted.attach_with(&front, &[], &["false"]);
        assert_eq!(exits.exit_code().await, 1, "{}", adapted.kind);
        let rolled_back = |status: &Status| status.takeovers.rolled_back == 2;
        front.until("both takeovers are rolled back", rolled_back).await;
        until_serves(&front, 1).await;
        traffic.flows(5).await;
        traffic.stop().await.assert_no_failures();
    }
}

#[tokio::test]
async fn a_program_that_dies_ends_its_adapter_and_newcomers_wait_for_the_next_one() {
    for adapted in all().await {
        let (front, mut first) = adapted.served().await;
        let pid = given(&front, "pid ").await.join("").parse().expect("a pid");
        let program = Process::find(pid).expect("who answers runs");
        program.signal(Signal::SIGKILL);
        assert_eq!(first.exit_code().await, 137, "{}", adapted.kind);
        let waits = |status: &Status| status.attach.as_ref().is_some_and(|a| a.awaits_worker);
        front.until("the front waits for a worker", waits).await;
        let said = "the program was ended by SIGKILL while it served";
        assert!(front.log().lines_with(said) > 0, "{}", adapted.kind);
        let traffic = Traffic::to(&front).with_new();
        let _next = adapted.attach(&front);
        until_serves(&front, 2).await;
        traffic.flows(5).await;
        traffic.stop().await.assert_no_failures();
    }
}

#[tokio::test]
async fn a_program_is_not_told_where_its_adapter_has_attached_itself() {
    for adapted in all().await {
        let front = Front::with(attachable).await;
        std::fs::write(front.directory().join("token"), "of no account").expect("it is written");
        let wrapper = ["env", "HOLDFAST_ATTACH=attach.sock", "HOLDFAST_ATTACH_TOKEN_FILE=token"];
        let words = ["adapter", adapted.kind, "--"];
        let words = [&words, adapted.good].concat();
        let _first = front.attach_by(&wrapper, &binaries::holdfast(), &words);
        until_serves(&front, 1).await;
        let environment = given(&front, "environment ").await;
        assert!(!environment.is_empty());
        let told = environment.iter().find(|variable| variable.starts_with("HOLDFAST_ATTACH"));
        assert_eq!(told, None, "{}: it would attach itself", adapted.kind);
    }
}
