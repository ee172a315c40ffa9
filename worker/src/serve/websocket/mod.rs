//! WebSockets: upgraded, challenged, connected, served, and closed with a word.
//!
//! ```text
//! 101, or from another generation at either stage:
//!     ─► challenge ─► connect ─► hello-ok, health ─► requests and events ─► close
//!            │            └ wrong: res with the reason, close 1008 or 1002
//!            ├ 15 s: close 1008 "handshake timeout"
//!            └ a drain, here or later: event shutdown, close 1012 "service restart"
//! ```
//!
//! **Invariants**
//! - Every close that we begin carries a code and a reason; a client's close is echoed.
//! - A client without a connection of its own rank holds at most 64 KiB and one place of its address.
//! - Events carry `seq` from 1 without a gap, from `hello-ok` on.

mod allowance;
mod antechamber;
mod connect;
mod farewell;
mod frame;
mod handshake;
mod hello;
mod session;
mod socket;
mod standing;

use std::pin::{Pin, pin};

use bytes::Bytes;
use handoff::message::millis;
use handoff::migrate::{self, Mailbox, Snapshot};
use handoff::{Arrival, Peer, Stream};
use serde_json::json;
use tokio::time::sleep_until;
use tracing::debug;

pub(crate) use antechamber::Antechamber;
pub(super) use handshake::{Upgrade, upgrade};

use self::connect::{Admission, Gate, Rejection};
use self::farewell::Close;
use self::frame::{NotARequest, Request};
use self::session::Session;
use self::socket::{Heard, MAX_FIRST_MESSAGE, SlowConsumer, Socket};
use self::standing::Standing;
use super::Gateway;
use super::moving::{self, Carried, ChallengedState, WebSocketState};
use crate::census::{Phase, Visitor};
use crate::frames;
use crate::identity::Locality;
use crate::methods::now_ms;

/// How a WebSocket ends.
#[derive(Debug)]
enum Ending {
    /// The client has closed, or is gone.
    Gone,
    /// We close it, for this reason.
    Close(Close),
    /// The client was told that this worker leaves.
    Told,
    /// It goes on elsewhere, from here.
    Move(Box<WebSocketState>),
}

/// Serves a connection as a WebSocket until it is closed or moves. `unread` is what came with the
/// upgrade; `berth` is its way to another generation.
pub(super) async fn serve(
    gateway: &Gateway,
    visitor: &Visitor,
    (stream, peer): (Stream, Peer),
    unread: Bytes,
    upgrade: Upgrade,
    berth: Option<migrate::Seat>,
) {
    visitor.enter(Phase::Talking);
    let mut socket = Socket::new(stream, unread, gateway.limits.max_buffered_bytes);
    let nonce = uuid::Uuid::new_v4().to_string();
    let challenge = json!({"nonce": nonce, "ts": now_ms()});
    let challenged = say(&mut socket, frames::event("connect.challenge", &challenge, None, None));
    let stage = Stage::Challenged(Guest { nonce, upgrade });
    match challenged {
        Ok(()) => live(gateway, visitor, (socket, peer), stage, berth).await,
        Err(ending) => end(visitor, (socket, peer), ending, None, berth).await,
    }
}

/// Serves a WebSocket from where another generation, or this one, froze it.
pub(super) async fn resume(
    gateway: &Gateway,
    visitor: &Visitor,
    stream: Stream,
    (snapshot, mailbox, arrival): (Snapshot, Option<Mailbox>, Arrival),
    berth: Option<migrate::Seat>,
) {
    visitor.enter(Phase::Talking);
    let Ok(state) = moving::read_state(&snapshot) else {
        debug!("a WebSocket came with a state that cannot be read, and is closed");
        return;
    };
    let peer = snapshot.peer;
    let (allowance, stage) = match state {
        WebSocketState::Challenged(state) => {
            let ChallengedState { nonce, local, age_ms, allowance } = state;
            let locality = if local { Locality::Local } else { Locality::Remote };
            let opened_at = moving::ago(age_ms);
            let place = gateway.antechamber.readmit(peer);
            let upgrade = Upgrade { place, locality, opened_at };
            (Some(allowance), Stage::Challenged(Guest { nonce, upgrade }))
        }
        WebSocketState::Connected(state) => {
            let mailbox = mailbox.unwrap_or_else(|| gateway.post.open());
            (None, Stage::Connected(Box::new(Standing::resumed(*state, arrival)), mailbox))
        }
    };
    let carried = Carried { read: snapshot.read, unsent: snapshot.unsent };
    let socket = Socket::thaw(stream, carried, allowance, gateway.limits.max_buffered_bytes);
    live(gateway, visitor, (socket, peer), stage, berth).await;
}

/// How far a WebSocket has come.
enum Stage {
    /// It was challenged.
    Challenged(Guest),
    /// It has connected, and gets letters.
    Connected(Box<Standing>, Mailbox),
}

/// A client that was challenged and has not connected.
struct Guest {
    nonce: String,
    upgrade: Upgrade,
}

async fn live(
    gateway: &Gateway,
    visitor: &Visitor,
    (mut socket, peer): (Socket, Peer),
    stage: Stage,
    berth: Option<migrate::Seat>,
) {
    let mut turn = pin!(async {
        // Counted when clients are dismissed, not now; an error means the worker is gone.
        let _ = gateway.dismissal.subscribe().wait_for(|dismisses| *dismisses).await;
        let stance = gateway.stance.clone();
        farewell::turn(stance, visitor.number, gateway.census.population()).await;
    });
    let berth_there = berth.as_ref();
    let mut letters = None;
    let ending = match stage {
        Stage::Challenged(guest) => {
            match greet(gateway, &mut socket, &guest, turn.as_mut(), berth_there).await {
                Ok((admission, connect_id)) => {
                    let Upgrade { place, opened_at, .. } = guest.upgrade;
                    drop(place);
                    socket.trust();
                    debug!(
                        client = admission.client.id,
                        mode = admission.client.mode,
                        protocol = admission.protocol,
                        handshake_ms = (admission.admitted_at - opened_at).as_millis(),
                        "a WebSocket connected"
                    );
                    let standing = Standing::new(admission, &gateway.limits);
                    let mailbox = letters.insert(gateway.post.open());
                    let session = Session::new(gateway, &mut socket, mailbox, standing);
                    session.welcome_and_serve(&connect_id, turn, berth_there).await
                }
                Err(ending) => ending,
            }
        }
        Stage::Connected(standing, mailbox) => {
            let mailbox = letters.insert(mailbox);
            Session::new(gateway, &mut socket, mailbox, *standing).serve(turn, berth_there).await
        }
    };
    end(visitor, (socket, peer), ending, letters, berth).await;
}

async fn end(
    visitor: &Visitor,
    (socket, peer): (Socket, Peer),
    ending: Ending,
    letters: Option<Mailbox>,
    berth: Option<migrate::Seat>,
) {
    match ending {
        Ending::Gone => {}
        Ending::Close(close) => {
            debug!(code = close.code(), reason = close.reason(), "closing a WebSocket");
            socket.close(&close).await;
        }
        Ending::Told => {
            visitor.enter(Phase::Told);
            socket.close(&Close::RESTART).await;
        }
        Ending::Move(state) => match socket.freeze() {
            Ok((stream, carried)) => {
                visitor.enter(Phase::Away);
                let frozen = moving::freeze_websocket(stream, peer, carried, &state, letters);
                if let (Some(frozen), Some(berth)) = (frozen, berth) {
                    berth.give(frozen);
                }
            }
            // It broke while it was flushed into memory, so there is nobody left to tell.
            Err(_) => debug!("a WebSocket ended as it was to move"),
        },
    }
}

/// Waits for the `connect` of a client that was challenged; answers with who it is and that request's
/// id.
async fn greet(
    gateway: &Gateway,
    socket: &mut Socket,
    Guest { nonce, upgrade }: &Guest,
    mut turn: Pin<&mut impl Future<Output = ()>>,
    berth: Option<&migrate::Seat>,
) -> Result<(Admission, String), Ending> {
    let deadline = sleep_until((upgrade.opened_at + gateway.limits.handshake_timeout).into());
    let message = tokio::select! {
        biased;
        () = &mut turn => {
            say(socket, frames::event("shutdown", &session::shutdown(gateway), None, None))?;
            return Err(Ending::Told);
        }
        () = deadline => return Err(Ending::Close(Close::HANDSHAKE_TIMEOUT)),
        heard = socket.hear(berth) => match heard {
            Heard::Text(message) => message,
            Heard::Gone => return Err(Ending::Gone),
            Heard::Wrong(close) => return Err(Ending::Close(close)),
            Heard::Wanted => {
                let state = WebSocketState::Challenged(ChallengedState {
                    nonce: nonce.clone(),
                    local: upgrade.locality == Locality::Local,
                    age_ms: millis(upgrade.opened_at.elapsed()),
                    allowance: socket.allowance(),
                });
                return Err(Ending::Move(Box::new(state)));
            }
        },
    };
    if message.len() > MAX_FIRST_MESSAGE {
        return Err(Ending::Close(Close::TOO_LARGE_TOO_EARLY));
    }
    let request = Request::parse(&message).map_err(|no| {
        Ending::Close(match no {
            NotARequest::NotJson => Close::NOT_JSON,
            NotARequest::Misshapen { .. } => Close::NOT_A_REQUEST,
        })
    })?;
    match judge(gateway, &request, upgrade.locality, nonce).await {
        Ok(admission) => Ok((admission, request.id.into_owned())),
        Err(Rejection { refusal, close }) => {
            say(socket, frames::refusal(&request.id, &refusal))?;
            Err(Ending::Close(close))
        }
    }
}

async fn judge(
    gateway: &Gateway,
    request: &Request<'_>,
    locality: Locality,
    nonce: &str,
) -> Result<Admission, Rejection> {
    if request.method != "connect" {
        return Err(connect::not_connect());
    }
    let params = request.params.map_or("{}", |params| params.get());
    let Gateway { token, knowledge, post, .. } = gateway;
    let devices = &knowledge.devices;
    let gate = Gate { token, devices, post, locality, nonce, now_ms: now_ms() };
    connect::admit(params, &gate).await
}

fn say(socket: &mut Socket, message: String) -> Result<(), Ending> {
    socket.say(message).map_err(|SlowConsumer| Ending::Close(Close::SLOW_CONSUMER))
}
