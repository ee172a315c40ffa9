//! What it costs to run a program that knows nothing of Holdfast: `relay` beside HAProxy in `mode tcp`, both before the
//! same process, and `activate` beside that program's own socket.
//!
//! The program listens where its adapter says and at an address of its own, which is how HAProxy and the clients of
//! the comparison come to it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use holdfast_tests::rig::{Front, Process, Program, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::closed_loop::{self, Client as _};
use crate::cpu::cpu_time;
use crate::figures::{Durations, Ratios, grouped};
use crate::http_loop::{CONNECTIONS, Reuse, Visitor};
use crate::ledger::Promise;
use crate::pairs::{Pair, print_cost};
use crate::peers::{TcpProxy, free_address};
use crate::report::{Goal, Report};
use crate::scale::Scale;
use crate::size::{Size, in_mb};

/// How many pairs of each kind.
const PAIRS: usize = 9;
/// How long each side of a pair is driven in one of its two turns, once it is warm.
const TURN: Duration = Duration::from_millis(400);
/// How many requests of one connection are timed in a turn, and how many go before them.
const TIMED: usize = 1500;
const WARM: usize = 150;
/// What is downloaded in a turn of bulk, in bytes.
const BULK: usize = 256 * 1024 * 1024;
/// How many connections are silent.
const IDLE: usize = 10_000;
/// The most that the adapter may have resident with so many, in bytes.
const IDLE_GOAL: u64 = 60_000_000;

/// A side of a comparison: whose CPU time counts, and where its clients go.
type Side = (Process, SocketAddr);

/// A front that runs the program by an adapter.
struct Adapted {
    front: Front,
    adapter: Process,
    program: Process,
    /// Where the program listens beside that.
    direct: SocketAddr,
}

impl Adapted {
    async fn start(adapter: &str, listens: &[&str]) -> Self {
        let direct = free_address();
        let program = Program::new(env!("CARGO_BIN_EXE_fixture-server"));
        let program = listens.iter().fold(program, |program, word| program.arg(*word));
        let program = program.arg(format!("at:{direct}"));
        let front = Front::with(|s| s.flag("--adapter", adapter).worker(program)).await;
        let adapter = front.serving().await.worker().expect("who serves is there");
        let program = adapter.descendants().pop().expect("the program runs");
        Self { front, adapter, program, direct }
    }
}

pub(crate) async fn measure(report: &Report, scale: Scale) -> Promise {
    report.heading(
        "adapters: relay ÷ HAProxy, and activate ÷ the program's own socket",
        &format!(
            "One program behind both sides. Requests: GET in a closed loop of {CONNECTIONS} connections, \
             {PAIRS} pairs in turns of {TURN:?}: A B B A, then B A A B. Latency: one kept connection, \
             {TIMED} requests a turn. Bulk: {} MiB a turn. HAProxy has one thread, as the relay has. The \
             clients and the program take the same cores.",
            BULK / (1024 * 1024)
        ),
    );
    activate(report).await;
    let relayed = Adapted::start("relay", &["port:PORT"]).await;
    match TcpProxy::start(relayed.direct).await {
        Some(proxy) => {
            let relay = (relayed.adapter, relayed.front.tcp());
            let haproxy = (proxy.process(), proxy.address);
            rates(report, relay, haproxy).await;
            latency(report, relayed.direct, relay.1, haproxy.1).await;
            bulk(report, relay, haproxy).await;
        }
        None => report.note("relay ÷ HAProxy was not measured: haproxy is not installed"),
    }
    idle(report, &relayed, scale).await;
    Promise::Kept
}

async fn activate(report: &Report) {
    let activated = Adapted::start("activate", &["listen-fds", "ready"]).await;
    let (with, without) =
        ((activated.program, activated.front.tcp()), (activated.program, activated.direct));
    for (reuse, words) in KINDS {
        let pairs = in_pairs(with, without, reuse).await;
        let ratio = Pair::ratios(&pairs).median();
        report.figure_with_goal(
            &format!("activate, {words}: ratio, median of pairs"),
            &format!("{ratio:.3}"),
            Goal::new("≥ 0.98", ratio >= 0.98),
        );
        print_cost(report, &pairs, ("activated", "direct"), "program", "answer");
    }
}

const KINDS: [(Reuse, &str); 2] = [
    (Reuse::KeepAlive, "requests per kept connection"),
    (Reuse::NewConnections, "a new connection per request"),
];

async fn in_pairs(with: Side, without: Side, reuse: Reuse) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for number in 0..PAIRS {
        let drive = |side| closed_loop::drive::<Visitor>(side, reuse, TURN);
        pairs.push(Pair::in_turns(number, with, without, drive).await);
    }
    pairs
}

async fn rates(report: &Report, relay: Side, haproxy: Side) {
    for (reuse, words) in KINDS {
        let pairs = in_pairs(relay, haproxy, reuse).await;
        let ratio = Pair::ratios(&pairs).median();
        report.figure_with_goal(
            &format!("relay ÷ HAProxy, {words}"),
            &format!("{ratio:.3}"),
            Goal::new("≥ 1.0", ratio >= 1.0),
        );
        print_cost(report, &pairs, ("relay", "haproxy"), "proxy", "answer");
    }
}

async fn latency(report: &Report, direct: SocketAddr, relay: SocketAddr, haproxy: SocketAddr) {
    let (mut alone, mut relayed, mut proxied) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        alone.extend(timed(direct).await);
        relayed.extend(timed(relay).await);
        proxied.extend(timed(haproxy).await);
    }
    let [alone, relayed, proxied] =
        [alone, relayed, proxied].map(|times| Durations::from_iter(times).median());
    let added = |median: Duration| median.saturating_sub(alone).as_secs_f64() * 1e6;
    report.figure("median of an answer, direct", &format!("{:.1} µs", alone.as_secs_f64() * 1e6));
    report.figure_with_goal(
        "added to it by the relay, by HAProxy",
        &format!("{:.1} µs, {:.1} µs", added(relayed), added(proxied)),
        Goal::new("≤ HAProxy's", relayed <= proxied),
    );
}

async fn timed(address: SocketAddr) -> Vec<Duration> {
    let mut visitor = Visitor::open(address, Reuse::KeepAlive).await.expect("a client is let in");
    let mut times = Vec::with_capacity(TIMED);
    for number in 0..WARM + TIMED {
        let began_at = Instant::now();
        visitor.exchange().await.expect("a request is answered");
        if number >= WARM {
            times.push(began_at.elapsed());
        }
    }
    times
}

async fn bulk(report: &Report, relay: Side, haproxy: Side) {
    let (mut relayed, mut proxied) = (Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        relayed.push(per_gigabyte(relay).await);
        proxied.push(per_gigabyte(haproxy).await);
    }
    let ratio = relayed.iter().zip(&proxied).map(|(relay, haproxy)| relay / haproxy);
    let ratio = ratio.collect::<Ratios>().median();
    let median = |of: Vec<f64>| of.into_iter().collect::<Ratios>().median();
    report.figure_with_goal(
        "relay ÷ HAProxy, CPU time per GB of bulk",
        &format!("{ratio:.3}"),
        Goal::new("≤ 1.0", ratio <= 1.0),
    );
    report.figure(
        "    CPU time per GB, relay, haproxy",
        &format!("{:.0} ms, {:.0} ms", median(relayed), median(proxied)),
    );
}

/// What the side spends on a GB (a billion bytes) that is downloaded, in ms of CPU time.
#[expect(clippy::cast_precision_loss, reason = "three digits of it are shown")]
async fn per_gigabyte((process, address): Side) -> f64 {
    const PIECE: usize = 32 * 1024 * 1024;
    let before = cpu_time(process);
    let mut buffer = vec![0; 256 * 1024];
    for _ in 0..BULK / PIECE {
        let mut stream = TcpStream::connect(address).await.expect("a client is let in");
        let request = format!("GET /bytes?{PIECE} HTTP/1.1\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("a request can be sent");
        let mut read = 0;
        loop {
            match stream.read(&mut buffer).await.expect("an answer can be read") {
                0 => break,
                more => read += more,
            }
        }
        assert!(read > PIECE, "an answer was cut");
    }
    let spent = cpu_time(process).saturating_sub(before);
    spent.as_secs_f64() * 1e3 / (BULK as f64 / 1e9)
}

async fn idle(report: &Report, relayed: &Adapted, scale: Scale) {
    let count = scale.connections(IDLE);
    let before = Size::of(relayed.adapter);
    let mut kept = Vec::with_capacity(count);
    for _ in 0..count {
        kept.push(TcpStream::connect(relayed.front.tcp()).await.expect("a client is let in"));
    }
    let program = relayed.program;
    eventually("all of them are relayed", async || {
        (program.descriptors().len() > count).then_some(())
    })
    .await;
    let with = Size::of(relayed.adapter);
    report.figure("the relay before them", &before.to_string());
    report.figure_with_goal(
        &format!("the relay with {} idle connections", grouped(count as u64)),
        &in_mb(with.resident),
        Goal::new("< 60 MB", with.resident < IDLE_GOAL),
    );
}
