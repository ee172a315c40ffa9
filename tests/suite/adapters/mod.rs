//! Programs that know nothing of Holdfast, run by its adapters.

mod activate;
mod axum;
mod failures;
mod lines;
mod node;
mod profiles;
mod python;
mod relay;
mod tunnel;

use holdfast_tests::rig::http::{HttpConnection, Request, Response, ask};
use holdfast_tests::rig::{Front, Process, Program, Setup, State, Traffic};

use crate::quick;

/// A server that does not know of Holdfast; `src/bin/fixture-server/script.rs` lists its words.
fn server<W: AsRef<str>>(words: impl IntoIterator<Item = W>) -> Program {
    let program = Program::new(env!("CARGO_BIN_EXE_fixture-server"));
    words.into_iter().fold(program, |program, word| program.arg(word.as_ref()))
}

/// A front that runs the server under `activate`.
pub(crate) fn activated<W: AsRef<str>>(setup: Setup, words: impl IntoIterator<Item = W>) -> Setup {
    quick(setup).flag("--adapter", "activate").worker(server(words))
}

/// A front that runs the server under `relay`.
pub(crate) fn relayed<W: AsRef<str>>(setup: Setup, words: impl IntoIterator<Item = W>) -> Setup {
    quick(setup).flag("--adapter", "relay").worker(server(words))
}

/// So many takeovers while clients open connections all the time: each is served.
async fn loses_nobody(front: &Front, takeovers: usize) {
    let traffic = Traffic::to(front).with_new().with_new();
    for _ in 0..takeovers {
        traffic.flows(5).await;
        front.takeover().await.assert_committed();
    }
    traffic.flows(5).await;
    traffic.stop().await.assert_no_failures();
}

async fn get(front: &Front, path: &str) -> Response {
    ask(&front.address(), Request::get(path)).await.expect("it is answered")
}

/// Pauses while clients open connections all the time: newcomers wait, and each is served.
async fn is_paused_and_loses_nobody(front: &Front) {
    let traffic = Traffic::to(front).with_new();
    for _ in 0..3 {
        traffic.flows(2).await;
        front.run(&["pause"]).await.assert_code(0);
        let state = front.status().await.generations[0].state;
        assert_eq!(state, State::Stopped);
        front.run(&["resume"]).await.assert_code(0);
    }
    traffic.flows(2).await;
    traffic.stop().await.assert_no_failures();
}

/// What the program was given, the lines of one kind.
pub(crate) async fn given(front: &Front, kind: &str) -> Vec<String> {
    let text = get(front, "/given").await.text();
    text.lines().filter_map(|line| line.strip_prefix(kind)).map(|l| l.trim().to_owned()).collect()
}

/// The program that answers now.
async fn answering(front: &Front) -> Process {
    let pid = given(front, "pid ").await.join("").parse().expect("a pid");
    Process::find(pid).expect("who answers runs")
}

/// A request whose answer waits for the gate, and which the server is at.
async fn held(front: &Front, path: &str) -> HttpConnection {
    let mut connection = HttpConnection::open(&front.address()).await.expect("it is accepted");
    // An answer before tells who serves this connection, and that somebody does.
    connection.exchange(&Request::get("/")).await.expect("it is served");
    connection.send(&Request::get(path).parts().0).await.expect("a request can be sent");
    connection
}

/// Three takeovers under load, in each of which the program that answered is gone before the next one starts, and nobody is lost.
async fn replaces_one_at_a_time(front: &Front) {
    let traffic = Traffic::to(front).with_new();
    for _ in 0..3 {
        traffic.flows(5).await;
        let incumbent = answering(front).await;
        let mut takeover = front.begin_takeover();
        takeover.until("started").await;
        assert!(incumbent.is_gone(), "two instances ran at once");
        takeover.end().await.assert_committed();
    }
    traffic.flows(5).await;
    traffic.stop().await.assert_no_failures();
}
