//! What the worker adds to a model that answers: from the provider's first word to the client's.
//!
//! Provider and client are this process, so both instants are of one clock. The same client asks the provider itself in
//! turns with the worker: what it takes processes to notice one another is not the worker's.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use holdfast_tests::rig::http::Request;
use holdfast_tests::rig::{Front, TOKEN};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::figures::{Durations, in_ms};
use crate::ledger::Promise;
use crate::report::{Goal, Report};

/// How many answers of each.
const ANSWERS: usize = 1000;
/// The longest that half of the first words may take through the worker.
const GOAL: Duration = Duration::from_millis(1);
/// What is said first.
const WORD: &str = "quixotic";
/// What an answer ends with.
const END: &str = "data: [DONE]\n\n";

pub(crate) async fn measure(report: &Report) -> Promise {
    report.heading(
        "models: a provider's first word, and when the client has it",
        &format!(
            "{ANSWERS} streamed completions, one after the other, each over a connection of its own, of a provider in the \
             client's process; in turns with the same asked of the provider itself."
        ),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
    let provider = listener.local_addr().expect("it is bound");
    let (spoke, mut spoken) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, spoke.clone()));
        }
    });
    let config = json!({
        "agents": {"defaults": {"model": "bench/m"}},
        "models": {"providers": {"bench": {"baseUrl": format!("http://{provider}/v1")}}},
    });
    let directory = tempfile::tempdir().expect("there is room for a file");
    let path = directory.path().join("openclaw.json");
    std::fs::write(&path, config.to_string()).expect("there is room for a file");
    let front = Front::with(|setup| setup.environment("OPENCLAW_CONFIG_PATH", &path)).await;
    let (mut direct, mut through, mut asked) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ANSWERS {
        for (address, firsts) in [(provider, &mut direct), (front.tcp(), &mut through)] {
            let begun_at = Instant::now();
            let heard_at = heard(address).await.expect("the model answers");
            let spoke_at: Instant = spoken.recv().await.expect("it has said so");
            firsts.push(heard_at.duration_since(spoke_at));
            if address != provider {
                asked.push(spoke_at.duration_since(begun_at));
            }
        }
    }
    let (direct, through) = (Durations::from_iter(direct), Durations::from_iter(through));
    report.figure("provider's first word → the client has it", &through.summary());
    report.figure("    the same without a worker", &direct.summary());
    let goal = Goal::new("≤ 1 ms", through.median() <= GOAL);
    report.figure_with_goal("    median", &in_ms(through.median()), goal);
    let asked = Durations::from_iter(asked);
    report.figure("client connects and asks → the provider has read it", &asked.summary());
    Promise::Kept
}

/// Asks, and says when the first word had come.
async fn heard(address: SocketAddr) -> io::Result<Instant> {
    let body = json!({
        "model": "openclaw", "stream": true, "messages": [{"role": "user", "content": "hello"}],
    });
    let request = Request::post("/v1/chat/completions", body.to_string())
        .header("authorization", &format!("Bearer {TOKEN}"));
    let (mut bytes, body) = request.parts();
    bytes.extend_from_slice(body);
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    stream.write_all(&bytes).await?;
    let mut read = Vec::new();
    until(&mut stream, &mut read, WORD).await?;
    let heard_at = Instant::now();
    until(&mut stream, &mut read, END).await?;
    Ok(heard_at)
}

/// Answers one request, and says when it began to.
async fn answer(mut stream: TcpStream, spoke: mpsc::Sender<Instant>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut read = Vec::new();
    until(&mut stream, &mut read, "hello").await?;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    let delta = json!({"index": 0, "delta": {"content": WORD}, "finish_reason": null});
    let said = format!("data: {}\n\n", json!({ "choices": [delta] }));
    // There is room: one answer is asked for at a time. Nobody listens any more when the measurement is over.
    let _ = spoke.send(Instant::now()).await;
    stream.write_all(said.as_bytes()).await?;
    let stop = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
    stream.write_all(format!("data: {stop}\n\n{END}").as_bytes()).await
}

/// Reads until this has come.
async fn until(stream: &mut TcpStream, read: &mut Vec<u8>, text: &str) -> io::Result<()> {
    while !read.windows(text.len()).any(|window| window == text.as_bytes()) {
        if stream.read_buf(read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}
