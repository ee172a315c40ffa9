//! What it costs a connection, all its life, that it could move: the same server with and without the
//! wrappers that make it movable.
//!
//! Both sides are in one process of their own with one thread, and take turns. The judged ratio is of
//! the rates in a closed loop that shares the machine; beside it stands what the server itself spends
//! on an answer, which others' work on the machine and the client's own cost move less.

use std::time::Duration;

use crate::closed_loop;
use crate::echo_loop::{self, CONNECTIONS};
use crate::echo_server::{EchoServer, Side, Speech};
use crate::http_loop::{self, Reuse, Visitor};
use crate::ledger::Promise;
use crate::pairs::{Pair, print_cost};
use crate::report::{Goal, Report};

/// How many pairs of each kind.
const PAIRS: usize = 11;
/// How long each side of a pair is driven in one of its two turns, once it is warm.
const TURN: Duration = Duration::from_millis(250);
/// The messages, in bytes.
const SIZES: [(usize, &str); 4] =
    [(128, "128 B"), (4096, "4 KiB"), (16 * 1024, "16 KiB"), (512 * 1024, "512 KiB")];
/// The least that is left of a plain WebSocket's throughput.
const WEBSOCKET_GOAL: f64 = 0.95;
/// The least that is left of plain HTTP's.
const HTTP_GOAL: f64 = 0.97;

pub(crate) async fn measure(report: &Report) -> Promise {
    report.heading(
        "wrappers: a server whose connections could move ÷ one whose connections could not",
        &format!(
            "One process with one thread; {PAIRS} pairs with a fresh process each, in turns of \
             {TURN:?}: A B B A, then B A A B. WebSockets: {CONNECTIONS} connections, each echoes one \
             text at a time. HTTP: {} kept connections. The client takes the same cores.",
            http_loop::CONNECTIONS
        ),
    );
    let mut echoes = SIZES.map(|_| Vec::new());
    let mut answers = Vec::new();
    for number in 0..PAIRS {
        let server = EchoServer::start().await;
        let sides = |speech| (server.at(speech, Side::Movable), server.at(speech, Side::Plain));
        let (movable, plain) = sides(Speech::WebSocket);
        for ((size, _), pairs) in SIZES.into_iter().zip(&mut echoes) {
            let drive = |side| echo_loop::drive(side, size, TURN);
            pairs.push(Pair::in_turns(number, movable, plain, drive).await);
        }
        let (movable, plain) = sides(Speech::Http);
        let drive = |side| closed_loop::drive::<Visitor>(side, Reuse::KeepAlive, TURN);
        answers.push(Pair::in_turns(number, movable, plain, drive).await);
    }
    for ((_, words), pairs) in SIZES.into_iter().zip(&echoes) {
        print(report, &format!("WebSocket, {words}"), pairs, ("≥ 0.95", WEBSOCKET_GOAL));
    }
    print(report, "HTTP/1.1", &answers, ("≥ 0.97", HTTP_GOAL));
    Promise::Kept
}

fn print(report: &Report, what: &str, pairs: &[Pair], (words, goal): (&'static str, f64)) {
    let ratio = Pair::ratios(pairs).median();
    report.figure_with_goal(
        &format!("{what}: ratio, median of pairs"),
        &format!("{ratio:.3}"),
        Goal::new(words, ratio >= goal),
    );
    print_cost(report, pairs, ("movable", "plain"), "server", "answer");
}
