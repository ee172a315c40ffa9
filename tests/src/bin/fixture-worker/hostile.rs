//! What a worker may do to its front that means harm, or has been taken over by somebody who does.
//!
//! | word | what it does |
//! | --- | --- |
//! | `descriptors` | attaches thousands of descriptors to its words |
//! | `lingering` | attaches sockets whose closing takes the closer ten minutes (`SO_LINGER` in socket(7)) |
//! | `lingering-unread` | the same behind a word after which nobody listens to it any more |
//! | `numbers` | says the largest number of everything |
//! | `packets` | says words of 128 KiB, of as many parts as fit |
//! | `flood` | says words as fast as it can |
//! | `deaf` | reads no more |
//! | `half-read` `half-write` | closes one direction of the link |
//! | `escapes` | says what would move a terminal's cursor |

use std::fs::File;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use handoff::link::Link;
use handoff::message::{OldestWork, ToFront};
use handoff::{Connections, Drained, Ready, Report};
use rustix::net::Shutdown;
use rustix::process::{Signal, getppid, kill_process};

/// How many descriptors a word carries at most.
const MOST: usize = 253;
/// How many words with descriptors: fewer than it may say at once.
const WORDS: usize = 20;
/// How long closing takes, in seconds.
const LINGER: u64 = 600;

/// Does harm in this way, and says what comes after.
pub(crate) async fn act(way: &str, link: &Link, raw: &OwnedFd) -> GoesOn {
    told("begins");
    match way {
        "descriptors" => {
            let null = File::open("/dev/null").expect("it is there");
            for _ in 0..WORDS {
                let _ = link.send(&report(), &vec![null.as_fd(); MOST]).await;
            }
        }
        "lingering" => lingering(link, None).await,
        "lingering-unread" => lingering(link, Some("nothing of this protocol")).await,
        "numbers" => numbers(link).await,
        "packets" => packets(link).await,
        "flood" => while link.send(&report(), &[]).await.is_ok() {},
        "deaf" => {}
        "half-read" => drop(rustix::net::shutdown(raw, Shutdown::Read)),
        "half-write" => drop(rustix::net::shutdown(raw, Shutdown::Write)),
        "escapes" => {
            let conditions = vec!["\u{1b}[2J\u{1b}[H\u{7}all is well".into()];
            let _ = link.send(&ToFront::Failing { conditions }, &[]).await;
        }
        unknown => panic!("the fixture knows no harm called {unknown:?}"),
    }
    told("ends");
    match way {
        "deaf" => GoesOn::Deaf,
        "numbers" => GoesOn::Lying,
        _ => GoesOn::Honestly,
    }
}

/// Tells the log, where a test waits for it.
fn told(what: &str) {
    // A log that cannot be written is not what is tested.
    let _ = writeln!(std::io::stderr(), "hostile: {what}");
}

/// What it is from then on, while it does what it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GoesOn {
    Honestly,
    /// It says of itself what cannot be.
    Lying,
    /// It hears nothing more.
    Deaf,
}

fn report() -> ToFront {
    ToFront::Report(Report::default())
}

/// Sends sockets with bytes that nobody will ever read, and keeps no copy: the last to close one waits. Ahead of
/// them goes something else, if there is that.
async fn lingering(link: &Link, ahead: Option<&str>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let mut peers = Vec::new();
    let sockets: Vec<TcpStream> = (0..4)
        .map(|_| {
            let address = listener.local_addr().expect("it is bound");
            let mut socket = TcpStream::connect(address).expect("it listens");
            peers.push(listener.accept().expect("it is there").0);
            let seconds = std::time::Duration::from_secs(LINGER);
            rustix::net::sockopt::set_socket_linger(&socket, Some(seconds)).expect("it may");
            socket.set_nonblocking(true).expect("it may");
            while socket.write(&[0; 64 * 1024]).is_ok() {}
            socket
        })
        .collect();
    let attached: Vec<BorrowedFd<'_>> = sockets.iter().map(|s| s.as_fd()).collect();
    // The front is to be the last, which otherwise takes a few attempts.
    let front = getppid().expect("the front is there");
    let _ = kill_process(front, Signal::STOP);
    if let Some(ahead) = ahead {
        let _ = link.send(&ahead, &[]).await;
    }
    let _ = link.send(&report(), &attached).await;
    drop(sockets);
    let _ = kill_process(front, Signal::CONT);
    // Nobody reads there until the fixture ends.
    keep(peers);
}

const ALL: Connections = Connections { http: u64::MAX, websocket: u64::MAX };

/// The report of a worker that has more of everything than there can be.
pub(crate) fn largest() -> Report {
    let oldest = Some(OldestWork { what: "x".into(), age_ms: u64::MAX });
    Report { connections: ALL, in_flight: u64::MAX, oldest }
}

/// The account of one that has drained more than there can be.
pub(crate) const fn largest_drain() -> Drained {
    Drained { moved: ALL, sessions: u64::MAX, finished: ALL, closed: ALL, cut: ALL }
}

async fn numbers(link: &Link) {
    for word in
        [ToFront::Report(largest()), ToFront::Extend { timeout_ms: u64::MAX }, ToFront::Lost(ALL)]
    {
        let _ = link.send(&word, &[]).await;
    }
}

async fn packets(link: &Link) {
    let greeting = vec![String::new(); 40_000];
    let _ = link.send(&ToFront::Ready(Ready { greeting, ..Ready::default() }), &[]).await;
    let what = "x".repeat(120_000);
    let oldest = Some(OldestWork { what, age_ms: 0 });
    let _ = link.send(&ToFront::Report(Report { oldest, ..Report::default() }), &[]).await;
    for _ in 0..WORDS {
        let conditions = vec![String::new(); 40_000];
        let _ = link.send(&ToFront::Failing { conditions }, &[]).await;
    }
}

/// Keeps these open as long as the process.
fn keep(peers: Vec<TcpStream>) {
    std::thread::spawn(move || {
        let _kept = peers;
        loop {
            std::thread::park();
        }
    });
}
