//! The fixture's life from `Hello` to its exit, with the script's faults in their places.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use handoff::link::Link;
use handoff::message::{Hello, ToFront, ToWorker};
use handoff::{Address, Connections, Drain, Drained, GenerationId, Newcomers, Ready, Report};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::bodily;
use crate::hostile::{self, GoesOn};
use crate::script::{Admit, Backlog, OnceReady, Order, Script, Soak, Start};
use crate::serve::{self, Facts};

/// Lives one generation.
pub(crate) async fn run(script: Script) -> ExitCode {
    let descriptor = take_link().expect("descriptor 0 is the link");
    let raw = descriptor.try_clone().expect("the link can be duplicated");
    let link = Link::new(descriptor).expect("the link can be polled");
    let Some(received) = link.receive::<ToWorker>().await.expect("the front speaks") else {
        return ExitCode::FAILURE;
    };
    let ToWorker::Hello(hello) = received.message else { panic!("the front did not say hello") };
    let script = script.applied_to(hello.generation);
    note(hello.generation, "starts");
    if let Some(file) = &script.grandchild {
        bodily::show_to_grandchild(file);
    }
    if let Some(file) = &script.orphan {
        bodily::leave_orphan(file);
    }
    match start(&script, &link, &raw).await {
        Some(code) => code,
        None => Life::new(script, (link, raw), &hello, received.descriptors).live().await,
    }
}

/// Becomes ready, unless the script says otherwise; then with the exit code.
async fn start(script: &Script, link: &Link, raw: &OwnedFd) -> Option<ExitCode> {
    match &script.start {
        Start::Ready => {}
        Start::ReadyOnce(file) => tokio::select! {
            () = bodily::exists(file) => {}
            () = front_gone(link) => return Some(ExitCode::FAILURE),
        },
        Start::Exit(code) => return Some(ExitCode::from(*code)),
        Start::Hang => hang().await,
        Start::Refuse(reason) => {
            say(link, &ToFront::Refuse { reason: reason.clone() }).await;
            return Some(ExitCode::FAILURE);
        }
        Start::Say(bytes) => {
            // What the front does next is what is tested.
            let _ = rustix::net::send(raw, bytes, rustix::net::SendFlags::NOSIGNAL);
            hang::<()>().await;
        }
        Start::Hostile(way) => {
            hostile::act(way, link, raw).await;
            hang::<()>().await;
        }
        Start::Flood => loop {
            say(link, &ToFront::Failing { conditions: vec!["flood".into()] }).await;
        },
    }
    let free = script.free_descriptors;
    let free_descriptors = free.unwrap_or_else(|| handoff::limits::free_descriptors().unwrap_or(0));
    let ready = Ready { program: "fixture".into(), free_descriptors, ..Ready::default() };
    say(link, &ToFront::Ready(ready)).await;
    match script.once_ready {
        OnceReady::Listen => None,
        OnceReady::Die => Some(bodily::die()),
        OnceReady::CloseLink => {
            rustix::net::shutdown(raw, rustix::net::Shutdown::Both).expect("the link is a socket");
            hang::<Option<ExitCode>>().await
        }
    }
}

/// Ends with the link: a worker that was never admitted leaves with its front.
async fn front_gone(link: &Link) {
    while let Ok(Some(received)) = link.receive::<ToWorker>().await {
        if received.message == ToWorker::Report {
            say(link, &ToFront::Report(Report::default())).await;
        }
    }
}

/// A generation that has said it is ready.
struct Life {
    script: Script,
    link: Link,
    raw: OwnedFd,
    sockets: Vec<(Address, OwnedFd)>,
    facts: Arc<Facts>,
    /// Those that accept, one for each socket while it is admitted.
    doors: JoinSet<()>,
    arrivals: tokio::sync::mpsc::Sender<Arrival>,
    connections: JoinSet<()>,
    drain: Option<(Instant, Newcomers)>,
    drained: Drained,
    goes_on: GoesOn,
}

enum Arrival {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

impl Life {
    fn new(
        script: Script,
        (link, raw): (Link, OwnedFd),
        hello: &Hello,
        descriptors: Vec<OwnedFd>,
    ) -> Self {
        let addresses = hello.sockets.iter().map(|s| s.address.parse().expect("an address"));
        let facts = Facts {
            generation: hello.generation,
            in_flight: AtomicU64::new(0),
            lease: watch::Sender::new(None),
            draining: watch::Sender::new(false),
            exit: watch::Sender::new(None),
            loses: script.loses,
            asked: AtomicU64::new(0),
        };
        let (arrivals, _) = tokio::sync::mpsc::channel(1);
        Self {
            script,
            link,
            raw,
            sockets: addresses.zip(descriptors).collect(),
            facts: Arc::new(facts),
            doors: JoinSet::new(),
            arrivals,
            connections: JoinSet::new(),
            drain: None,
            drained: Drained::default(),
            goes_on: GoesOn::Honestly,
        }
    }

    async fn live(mut self) -> ExitCode {
        let (arrivals, mut arrived) = tokio::sync::mpsc::channel(64);
        self.arrivals = arrivals;
        let mut terminate = signal(SignalKind::terminate()).expect("signals can be listened for");
        let mut exit = self.facts.exit.subscribe();
        let mut front = true;
        loop {
            let deadline = self.drain.map(|(deadline, _)| deadline);
            let listens = front && self.goes_on != GoesOn::Deaf;
            tokio::select! {
                received = self.link.receive::<ToWorker>(), if listens => match received {
                    Ok(Some(received)) => {
                        if let Some(code) = self.obey(received.message).await {
                            return code;
                        }
                    }
                    Ok(None) | Err(_) => front = false,
                },
                Some(arrival) = arrived.recv() => self.serve(arrival),
                Some(_) = self.connections.join_next() => self.drained.finished.http += 1,
                () = terminated(&mut terminate) => {
                    if self.script.terminate == Order::Obey {
                        return ExitCode::SUCCESS;
                    }
                }
                Ok(_) = exit.changed() => return ExitCode::from(exit.borrow().unwrap_or(1)),
                () = at(deadline), if deadline.is_some() => {
                    self.drained.cut.http += self.connections.len() as u64;
                    self.connections.abort_all();
                    return self.leave().await;
                }
            }
            if deadline.is_some() && self.connections.is_empty() && arrived.is_empty() {
                // Whoever was accepted just now is served first.
                self.doors.shutdown().await;
                if arrived.is_empty() {
                    return self.leave().await;
                }
            }
        }
    }

    /// Does what the front orders, or what the script says instead.
    async fn obey(&mut self, order: ToWorker) -> Option<ExitCode> {
        match order {
            ToWorker::Admit => return self.admit().await,
            ToWorker::StopAccepting if self.script.stop == Order::Obey => {
                self.doors.shutdown().await;
                say(&self.link, &ToFront::Stopped).await;
            }
            ToWorker::Drain(drain) if self.script.drain == Order::Obey => {
                return self.begin_drain(drain).await;
            }
            ToWorker::Lease { epoch } => {
                self.facts.lease.send_replace(Some(epoch));
                if let Some(way) = &self.script.hostile {
                    self.goes_on = hostile::act(way, &self.link, &self.raw).await;
                }
            }
            ToWorker::Report if self.goes_on == GoesOn::Lying => {
                say(&self.link, &ToFront::Report(hostile::largest())).await;
            }
            ToWorker::Report => say(&self.link, &ToFront::Report(self.report())).await,
            // What the script ignores, and what a worker may do without.
            _ => {}
        }
        None
    }

    async fn admit(&mut self) -> Option<ExitCode> {
        match &self.script.admit {
            Admit::Accept => {}
            Admit::AcceptOnce(file) => bodily::exists(file).await,
            Admit::Ignore => return None,
            Admit::Die => return Some(bodily::die()),
        }
        for (address, descriptor) in &self.sockets {
            if matches!(self.script.backlog, Backlog::Shrink) {
                rustix::net::listen(descriptor, 1).expect("the socket listens");
            }
            let door = open(address, descriptor).expect("the socket can be polled");
            self.doors.spawn(accept(door, self.arrivals.clone()));
        }
        say(&self.link, &ToFront::Accepting).await;
        match &self.script.soak {
            Soak::Serve => None,
            Soak::WantTakeover(reason) => {
                say(&self.link, &ToFront::WantsTakeover { reason: reason.clone() }).await;
                None
            }
            Soak::Die => Some(bodily::die()),
            Soak::Fail => {
                let conditions = vec!["the fixture's own condition".into()];
                say(&self.link, &ToFront::Failing { conditions }).await;
                None
            }
        }
    }

    async fn begin_drain(&mut self, drain: Drain) -> Option<ExitCode> {
        let asked = Instant::now() + Duration::from_millis(drain.timeout_ms);
        let deadline = self.drain.map_or(asked, |(earlier, _)| earlier.min(asked));
        self.drain = Some((deadline, drain.newcomers));
        self.facts.lease.send_replace(None);
        self.facts.draining.send_replace(true);
        note(self.facts.generation, "drains");
        if drain.newcomers == Newcomers::Leave {
            self.doors.shutdown().await;
            // Held open they would queue connections for nobody once the front has closed its own.
            self.sockets.clear();
        }
        if self.connections.is_empty() { Some(self.leave().await) } else { None }
    }

    async fn leave(&mut self) -> ExitCode {
        let lies = self.goes_on == GoesOn::Lying;
        let drained = if lies { hostile::largest_drain() } else { self.drained };
        say(&self.link, &ToFront::Drained(drained)).await;
        ExitCode::SUCCESS
    }

    fn serve(&mut self, arrival: Arrival) {
        let facts = Arc::clone(&self.facts);
        match arrival {
            Arrival::Tcp(stream) => self.connections.spawn(serve::connection(stream, facts)),
            Arrival::Unix(stream) => self.connections.spawn(serve::connection(stream, facts)),
        };
    }

    fn report(&self) -> Report {
        Report {
            connections: Connections { http: self.connections.len() as u64, websocket: 0 },
            in_flight: self.facts.in_flight.load(Ordering::Relaxed),
            oldest: None,
        }
    }
}

enum Door {
    Tcp(TcpListener),
    Unix(UnixListener),
}

fn open(address: &Address, descriptor: &OwnedFd) -> io::Result<Door> {
    let copy = descriptor.try_clone()?;
    match address {
        Address::Tcp(_) => TcpListener::from_std(copy.into()).map(Door::Tcp),
        Address::Unix(_) => UnixListener::from_std(copy.into()).map(Door::Unix),
    }
}

/// Accepts until it is aborted; what it has accepted has been handed on by then.
async fn accept(door: Door, arrivals: tokio::sync::mpsc::Sender<Arrival>) {
    loop {
        let Ok(place) = arrivals.reserve().await else { return };
        let arrival = match &door {
            Door::Tcp(listener) => listener.accept().await.map(|(io, _)| Arrival::Tcp(io)),
            Door::Unix(listener) => listener.accept().await.map(|(io, _)| Arrival::Unix(io)),
        };
        if let Ok(arrival) = arrival {
            place.send(arrival);
        }
    }
}

/// Tells the log, where a test can wait for it.
fn note(generation: GenerationId, what: &str) {
    // A log that cannot be written is not what is tested.
    let _ = writeln!(io::stderr(), "fixture {generation} {what}");
}

/// Stays, and does nothing more.
async fn hang<T>() -> T {
    std::future::pending().await
}

async fn say(link: &Link, word: &ToFront) {
    // A front that is gone is met by the next receive.
    let _ = link.send(word, &[]).await;
}

async fn terminated(terminate: &mut Signal) {
    if terminate.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => hang().await,
    }
}

fn take_link() -> io::Result<OwnedFd> {
    let link = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(link)
}
