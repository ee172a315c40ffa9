//! A server that knows nothing of Holdfast, and misbehaves in the ways its words say.
//!
//! It listens where it is told as such programs are: on descriptors (`LISTEN_FDS`, `fd:3`), on a port or a path in a
//! variable (`PORT`, `port:HTTP_PORT`), or at an address (`at:127.0.0.1:80`).

mod script;
mod serve;

use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use script::{Script, Start, Terminate};
use serve::Facts;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let script = Script::read(std::env::args().skip(1));
    match script.start {
        Start::Serve => {}
        Start::Exit(code) => return ExitCode::from(code),
        Start::Hang => std::future::pending::<()>().await,
        Start::Fork => {
            #[expect(clippy::zombie_processes, reason = "it is to be left behind")]
            let child = again("fork").spawn().expect("this binary can be started");
            note(&format!("forks {}", child.id()));
            return ExitCode::SUCCESS;
        }
        Start::Apart => {
            let child = again("apart").process_group(0).status();
            let code = child.expect("this binary can be started").code();
            return ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1));
        }
    }
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be listened for");
    let mut doors = serve::open(&script).expect("it can listen where it is told");
    let facts = Arc::new(Facts { script: script.clone(), draining: watch::Sender::new(false) });
    let mut connections = JoinSet::new();
    if let Some(status) = &script.status {
        notify(&format!("STATUS={status}"));
    }
    ask_for_time(&script);
    if script.says_ready {
        notify("READY=1");
    }
    let mut ready_at = std::pin::pin!(ready_at(script.ready_at.clone()));
    let mut awaits_ready = script.ready_at.is_some();
    loop {
        tokio::select! {
            accepted = serve::accept(&mut doors) => {
                connections.spawn(serve::connection(accepted, Arc::clone(&facts)));
            }
            Some(_) = connections.join_next() => {}
            () = &mut ready_at, if awaits_ready => {
                awaits_ready = false;
                notify("READY=1");
            }
            _ = terminate.recv() => match script.terminate {
                Terminate::Finish => break,
                Terminate::Ignore => {}
            }
        }
    }
    drop(doors);
    note("finishes");
    ask_for_time(&script);
    facts.draining.send_replace(true);
    while connections.join_next().await.is_some() {}
    ExitCode::SUCCESS
}

/// This server once more, without this word.
fn again(without: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this binary has a path"));
    command.args(std::env::args().skip(1).filter(|word| word != without)).stdin(Stdio::null());
    command
}

/// Asks whoever waits to wait longer.
fn ask_for_time(script: &Script) {
    if let Some(seconds) = script.extend {
        notify(&format!("EXTEND_TIMEOUT_USEC={}", seconds * 1_000_000));
    }
}

/// Ends once the file is there; at once when there is none to wait for.
async fn ready_at(file: Option<PathBuf>) {
    while file.as_ref().is_some_and(|file| !file.exists()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Tells the log, where a test can wait for it.
fn note(what: &str) {
    // A log that cannot be written is not what is tested.
    let _ = writeln!(io::stderr(), "fixture server {} {what}", std::process::id());
}

/// Tells whoever gave it NOTIFY_SOCKET (sd_notify(3)).
fn notify(words: &str) {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let Ok(name) = std::env::var("NOTIFY_SOCKET") else { return };
    let name = name.strip_prefix('@').expect("the name is abstract");
    let address = SocketAddr::from_abstract_name(name).expect("the name is one");
    let socket = UnixDatagram::unbound().expect("a socket can be had");
    socket.send_to_addr(words.as_bytes(), &address).expect("somebody listens");
}
