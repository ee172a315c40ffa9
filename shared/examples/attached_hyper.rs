//! A hyper server whose connections move, and that somebody else than the front has started: a container engine, or
//! you.
//!
//! ```text
//! cargo build -p handoff --examples --features http1
//! holdfast run --listen 127.0.0.1:8080 --attach /tmp/front.sock
//! target/debug/examples/attached_hyper --attach /tmp/front.sock
//! target/debug/examples/attached_hyper --attach /tmp/front.sock      takes over from the first, which exits
//! ```
//!
//! | exit code | what has happened | start it again? |
//! | --- | --- | --- |
//! | 0 | it has drained: another one serves | no |
//! | 75 | there is no front, or it would not have this one | later |
//! | 1, 64 | it cannot serve, or its command line is wrong | no |
//!
//! Without `--attach` it is as `movable_hyper.rs`.

#![expect(
    clippy::print_stderr,
    reason = "it has no log, and whoever started it wants to know why it ends"
)]

#[path = "movable/server.rs"]
mod server;

use std::convert::Infallible;
use std::process::ExitCode;

use handoff::attach::{Attach, TURNED_AWAY};
use handoff::{Acceptor, StartFailed, Worker, chain};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};

/// The exit code of a command line that is not understood (`EX_USAGE`, sysexits(3)).
const USAGE: u8 = 64;

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let line = format!("{} by pid {}\n", request.uri().path(), std::process::id());
    Ok(Response::new(Full::from(line)))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let attach = match words[..] {
        [] => None,
        ["--attach", path] => Some(Attach::to(path)),
        _ => {
            eprintln!("attached_hyper [--attach PATH]");
            return ExitCode::from(USAGE);
        }
    };
    let (worker, acceptor) = match start(attach).await {
        Ok(started) => started,
        Err(failed) => {
            eprintln!("cannot serve: {}", chain(&failed));
            let again = failed.may_try_again();
            return if again { ExitCode::from(TURNED_AWAY) } else { ExitCode::FAILURE };
        }
    };
    // Whatever becomes of this worker: its front may turn it away later as well.
    let dismissal = worker.dismissal();
    server::run(worker, acceptor, "attached hyper example", service_fn(answer)).await;
    match dismissal.reason() {
        None => ExitCode::SUCCESS,
        Some(reason) => {
            eprintln!("turned away: {reason}");
            ExitCode::from(TURNED_AWAY)
        }
    }
}

async fn start(attach: Option<Attach>) -> Result<(Worker, Acceptor), StartFailed> {
    match attach {
        Some(attach) => attach.start().await,
        None => {
            let address = "127.0.0.1:8080".parse().expect("this is an address");
            Worker::start(&[address]).await
        }
    }
}
