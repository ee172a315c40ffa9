//! The proof: clients that never retry, takeovers while they ask, and the count of what they lost.
//!
//! ```text
//! survey ─► WebSockets connect ─► clients at work ─► a quiet while ─► takeover, pause, takeover … ─► clients finish ─► judged
//!                                                                     └── interrupted, or out of time ──┘
//! ```
//!
//! **Invariants**
//! - Bounded: so many clients, so many requests a second, so many takeovers, so much time.
//! - What is lost is lost: no client asks again for what was not answered.
//! - An end before its time is an end like any other: what has come by then is judged and told.

mod book;
mod clients;
mod http;
mod latency;
pub(crate) mod private;
pub(crate) mod report;
mod survey;
mod takeovers;
mod websocket;

use std::convert::Infallible;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use handoff::Address;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};

use self::book::{Book, Failed, Load, Use};
use self::clients::Desk;
use self::report::{Ended, LoadReport, Report};
pub(crate) use self::survey::NothingToAsk;
use self::survey::{Offer, Survey};
use self::takeovers::{Taken, take_over};
use self::websocket::{Scope, Socket};
use crate::control::client::AskFailed;

/// How long clients are at work before the first takeover.
const QUIET: Duration = Duration::from_secs(2);
/// The pause between two takeovers.
const PAUSE: Duration = Duration::from_millis(300);
/// How often whoever watches is told.
const TELL: Duration = Duration::from_millis(200);
/// How long clients may take to finish.
const FINISH: Duration = Duration::from_secs(15);
/// One of so many connections streams, if that many can.
const ONE_STREAMS: u32 = 40;
/// How many WebSockets hear of the answers that are streamed, times how many that are: each event goes to all.
const HEARERS: u32 = 1000;

/// What is to be done.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) takeovers: u32,
    /// Of HTTP.
    pub(crate) connections: u32,
    pub(crate) websockets: u32,
    /// Requests a second, of all clients together.
    pub(crate) rate: u32,
    /// How long it may take.
    pub(crate) limit: Duration,
    /// What to ask for, when only plain requests are to be made.
    pub(crate) path: Option<String>,
}

/// The front it is done to.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) control: PathBuf,
    pub(crate) address: Address,
    pub(crate) token: Option<String>,
}

/// How far it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    pub(crate) takeovers: u32,
    pub(crate) answered: u64,
    /// Not answered, whatever will be said of it.
    pub(crate) missed: u64,
}

/// Why nothing was proved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotProved {
    #[error("there is nothing to prove")]
    NothingToAsk { source: NothingToAsk },
}

/// How the takeovers went.
#[derive(Debug, Default)]
struct Taking {
    committed: u32,
    not_made: Vec<String>,
    cut: u64,
}

/// Proves it, or not. `interrupted` ends it before its time, and when it is called a second time at once.
pub(crate) async fn prove(
    plan: &Plan,
    target: &Target,
    mut interrupted: impl AsyncFnMut(),
    tell: impl Fn(Progress),
) -> Result<Report, NotProved> {
    let token = target.token.as_deref();
    let survey = survey::survey(&target.address, plan.path.as_deref(), token)
        .await
        .map_err(|source| NotProved::NothingToAsk { source })?;
    let (book, stop) = (Rc::new(Book::new()), watch::Sender::new(false));
    let mut crowd = Crowd { tasks: JoinSet::new(), loads: Vec::new() };
    let mut taking = Taking::default();
    let ended = tokio::select! {
        ended = timeout(plan.limit, async {
            crowd.gather(plan, target, &survey, &book, &stop).await;
            take_all(plan, target, &book, &mut taking).await
        }) => ended.unwrap_or(Ended::OutOfTime),
        () = interrupted() => Ended::Interrupted,
        never = tell_of(&book, tell) => match never {},
    };
    stop.send_replace(true);
    tokio::select! {
        () = async {
            crowd.finish().await;
            crowd.forget(target).await;
        } => {}
        () = interrupted() => {}
    }
    let judged = |(load, clients, doing): &(Load, u32, String)| LoadReport {
        load: *load,
        clients: *clients,
        doing: doing.clone(),
        tally: book.judge(*load),
    };
    let [before, during] = book.latencies();
    Ok(Report {
        wanted: plan.takeovers,
        committed: taking.committed,
        not_made: taking.not_made,
        cut: taking.cut,
        loads: crowd.loads.iter().map(judged).collect(),
        not_run: survey.not_run(),
        before,
        during,
        ended,
    })
}

/// The clients at work.
struct Crowd {
    tasks: JoinSet<()>,
    /// Which there are, how many of each, and what they do.
    loads: Vec<(Load, u32, String)>,
}

impl Crowd {
    /// Sets all clients to work, those with WebSockets as soon as they are let in.
    async fn gather(
        &mut self,
        plan: &Plan,
        target: &Target,
        survey: &Survey,
        book: &Rc<Book>,
        stop: &watch::Sender<bool>,
    ) {
        let websockets = if survey.websockets == Offer::Yes { plan.websockets } else { 0 };
        let streams = match survey.streams {
            Offer::Yes => streams(plan.connections, websockets),
            Offer::No(_) => 0,
        };
        let new = (plan.connections - streams).div_ceil(2);
        let kept = plan.connections - streams - new;
        let asking = new + kept + websockets;
        let desk = |(number, of): (u32, u32)| Desk {
            number,
            of,
            address: target.address.clone(),
            token: target.token.clone(),
            get: survey.get.clone(),
            pace: websocket::pace(asking, plan.rate),
            stop: stop.subscribe(),
            book: Rc::clone(book),
        };
        self.loads = loads(survey, [new, kept, streams, websockets]);
        for number in 0..websockets {
            match Socket::open(&target.address, target.token.as_deref(), Scope::Read).await {
                Ok(socket) => {
                    let desk = desk((number, websockets));
                    self.tasks.spawn_local(websocket::call_on(socket, desk));
                }
                Err(reason) => book.failed(Load::WebSocket, Failed::from(reason), Use::Fresh),
            }
        }
        for number in 0..new {
            self.tasks.spawn_local(clients::connect_anew(desk((number, new))));
        }
        for number in 0..kept {
            self.tasks.spawn_local(clients::keep_alive(desk((number, kept)), survey.kept));
        }
        for number in 0..streams {
            self.tasks.spawn_local(clients::stream(desk((number, streams))));
        }
        sleep(QUIET).await;
    }

    /// Has each finish what it has begun; who does not in time is given up.
    async fn finish(&mut self) {
        let all = async {
            while let Some(ended) = self.tasks.join_next().await {
                if let Err(panicked) = ended {
                    std::panic::resume_unwind(panicked.into_panic());
                }
            }
        };
        // Whoever has not finished by then has been late, and has said so.
        let _ = timeout(FINISH, all).await;
    }
}

impl Crowd {
    /// Removes the sessions of the streams. Where that cannot be, they stay: nobody has lost anything by that.
    async fn forget(&self, target: &Target) {
        let streams = self.loads.iter().find(|(load, ..)| *load == Load::Stream);
        let Some((_, clients, _)) = streams else { return };
        let token = target.token.as_deref();
        let Ok(mut socket) = Socket::open(&target.address, token, Scope::Admin).await else {
            return;
        };
        for client in 0..*clients {
            let key = json!({"key": clients::session(client)});
            let forgotten = socket.call("forget", "sessions.delete", key);
            if !matches!(timeout(TELL * 10, forgotten).await, Ok(Ok(_))) {
                return;
            }
        }
        socket.close().await;
    }
}

/// How many of the connections stream, so that those that hear of it are not flooded.
fn streams(connections: u32, websockets: u32) -> u32 {
    let most = HEARERS / websockets.max(1);
    if connections < 3 { 0 } else { (connections / ONE_STREAMS).clamp(1, most.max(1)) }
}

fn loads(survey: &Survey, [new, kept, streams, websockets]: [u32; 4]) -> Vec<(Load, u32, String)> {
    let get = format!("GET {}", survey.get.path);
    let kept_does = match survey.kept {
        clients::Kept::Get => get.clone(),
        clients::Kept::Post => "POST of numbered completions, each refused by its name".to_owned(),
    };
    [
        (Load::New, new, get),
        (Load::KeepAlive, kept, kept_does),
        (Load::Stream, streams, "answers of the echo agent, in numbered pieces".to_owned()),
        (Load::WebSocket, websockets, "numbered calls, and the events beside them".to_owned()),
    ]
    .into_iter()
    .filter(|(_, clients, _)| *clients > 0)
    .collect()
}

/// Asks for the takeovers, one after the other.
async fn take_all(plan: &Plan, target: &Target, book: &Rc<Book>, taking: &mut Taking) -> Ended {
    book.begin_takeovers();
    for number in 0..plan.takeovers {
        if number > 0 {
            sleep(PAUSE).await;
        }
        let taken = take_over(&target.control, book).await;
        book.takeover_ends();
        match taken {
            Ok(Taken::Committed { cut }) => {
                taking.committed += 1;
                taking.cut += cut;
            }
            Ok(Taken::NotMade { reason }) => taking.not_made.push(reason),
            Err(error) => return front_is_gone(&error),
        }
    }
    Ended::AsPlanned
}

/// Tells how far it is, again and again.
async fn tell_of(book: &Book, tell: impl Fn(Progress)) -> Infallible {
    let mut ticks = interval(TELL);
    loop {
        ticks.tick().await;
        let (answered, missed) = book.so_far();
        tell(Progress { takeovers: book.takeovers(), answered, missed });
    }
}

fn front_is_gone(error: &AskFailed) -> Ended {
    Ended::FrontGone { reason: handoff::chain(error).to_string() }
}

/// How many descriptors so many clients need of this process, and of the worker that serves them.
pub(crate) const fn descriptors(plan: &Plan) -> u64 {
    const OWN: u64 = 64;
    plan.connections as u64 + plan.websockets as u64 + OWN
}

/// When it will be over at the latest.
pub(crate) fn latest_end(plan: &Plan) -> Duration {
    plan.limit + QUIET + FINISH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_hears_of_streams_is_not_flooded_by_them() {
        assert_eq!(streams(200, 200), 5);
        assert_eq!(streams(200, 0), 5);
        assert_eq!(streams(2000, 1000), 1);
        assert_eq!(streams(2, 0), 0);
        assert_eq!(streams(10, 10_000), 1);
    }
}
