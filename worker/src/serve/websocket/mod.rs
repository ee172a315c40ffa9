//! WebSockets: upgraded, challenged, connected, served, and closed with a word.
//!
//! ```text
//! 101, or from another generation at either stage:
//!     ─► challenge ─► connect ─► hello-ok, health ─► requests and events ─► close
//!       │    │            └ wrong: res with the reason, close 1008 or 1002
//!       │    ├ 15 s: close 1008 "handshake timeout"
//!       │    └ a drain, here or later: event shutdown, close 1012 "service restart"
//!       └ not ready: see [`threshold`]
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
mod threshold;

use std::pin::{Pin, pin};
use std::sync::Arc;

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
use crate::census::{Phase, Seat};
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

/// An HTTP connection that is a WebSocket from now on.
pub(super) struct Upgraded {
    pub(super) gateway: Arc<Gateway>,
    pub(super) seat: Seat,
    pub(super) stream: Stream,
    pub(super) peer: Peer,
    /// What came with the upgrade.
    pub(super) unread: Bytes,
    pub(super) upgrade: Upgrade,
    /// Its way to another generation.
    pub(super) berth: Option<migrate::Seat>,
}

/// Serves a connection as a WebSocket until it is closed or moves.
pub(super) fn serve(upgraded: Upgraded) -> impl Future<Output = ()> {
    let Upgraded { gateway, seat, stream, peer, unread, upgrade, berth } = upgraded;
    seat.visitor.enter(Phase::Talking);
    let mut socket = Socket::new(stream, unread, gateway.limits.max_buffered_bytes);
    let stage = if threshold::is_open(&gateway) {
        challenged(&mut socket, upgrade).map_or_else(Stage::Over, Stage::Challenged)
    } else {
        Stage::Early(Box::new(upgrade))
    };
    live(Line { gateway, seat, peer, socket: Box::new(socket), berth }, stage)
}

fn challenged(socket: &mut Socket, upgrade: Upgrade) -> Result<Box<Guest>, Ending> {
    let nonce = uuid::Uuid::new_v4().to_string();
    let challenge = json!({"nonce": nonce, "ts": now_ms()});
    say(socket, frames::event("connect.challenge", &challenge, None, None))?;
    Ok(Box::new(Guest { nonce, upgrade }))
}

/// Serves a WebSocket from where another generation, or this one, froze it.
pub(crate) fn resume(
    gateway: Arc<Gateway>,
    stream: Stream,
    (snapshot, mailbox, arrival): (Snapshot, Option<Mailbox>, Arrival),
    berth: Option<migrate::Seat>,
) -> impl Future<Output = ()> {
    let seat = gateway.census.seat();
    seat.visitor.enter(Phase::Talking);
    let peer = snapshot.peer;
    let (allowance, stage) = match moving::read_state(&snapshot) {
        Ok(WebSocketState::Challenged(state)) => {
            let ChallengedState { nonce, local, origin, remote_ip, age_ms, allowance } = state;
            let locality = if local { Locality::Local } else { Locality::Remote };
            let opened_at = moving::ago(age_ms);
            let place = gateway.antechamber.readmit(peer);
            let upgrade = Upgrade { place, locality, origin, remote_ip, opened_at };
            (Some(allowance), Stage::Challenged(Box::new(Guest { nonce, upgrade })))
        }
        Ok(WebSocketState::Connected(state)) => {
            let mailbox = mailbox.unwrap_or_else(|| gateway.post().open());
            (None, Stage::Connected(Box::new(Standing::resumed(*state, arrival)), mailbox))
        }
        Err(_) => {
            debug!("a WebSocket came with a state that cannot be read, and is to come back");
            (None, Stage::Over(Ending::Close(Close::RESTART)))
        }
    };
    let carried = Carried { read: snapshot.read, unsent: snapshot.unsent };
    let socket = Socket::thaw(stream, carried, allowance, gateway.limits.max_buffered_bytes);
    live(Line { gateway, seat, peer, socket: Box::new(socket), berth }, stage)
}

/// How far a WebSocket has come.
enum Stage {
    /// It has met a worker that is not ready.
    Early(Box<Upgrade>),
    /// It was challenged.
    Challenged(Box<Guest>),
    /// It has connected, and gets letters.
    Connected(Box<Standing>, Mailbox),
    /// It was over before it began.
    Over(Ending),
}

/// A client that was challenged and has not connected.
struct Guest {
    nonce: String,
    upgrade: Upgrade,
}

/// A WebSocket, whatever its stage.
struct Line {
    gateway: Arc<Gateway>,
    seat: Seat,
    peer: Peer,
    socket: Box<Socket>,
    berth: Option<migrate::Seat>,
}

/// Serves a WebSocket to its end.
///
/// What is short and large, its beginning and its end, is boxed: in between it is one of ten thousand, for
/// hours.
#[expect(clippy::manual_async_fn, reason = "an async fn holds its arguments twice")]
fn live(mut line: Line, stage: Stage) -> impl Future<Output = ()> {
    async move {
        let mut letters = None;
        let ending = {
            let Line { gateway, seat, socket, berth, .. } = &mut line;
            let (gateway, berth) = (&**gateway, berth.as_ref());
            let mut turn = pin!(turn(gateway, seat.visitor.number));
            let connected = match stage {
                Stage::Challenged(guest) => {
                    Box::pin(welcome(gateway, socket, guest, turn.as_mut(), berth)).await
                }
                Stage::Early(upgrade) => {
                    Box::pin(threshold::opened(gateway, berth)).await;
                    match challenged(socket, *upgrade) {
                        Ok(guest) => {
                            Box::pin(welcome(gateway, socket, guest, turn.as_mut(), berth)).await
                        }
                        Err(ending) => Err(ending),
                    }
                }
                Stage::Connected(standing, mailbox) => Ok((standing, mailbox)),
                Stage::Over(ending) => Err(ending),
            };
            match connected {
                Ok((mut standing, mailbox)) => {
                    let mailbox = letters.insert(mailbox);
                    let _listed = gateway.knowledge.attendance.enter(standing.attendee());
                    let session = Session::new(gateway, socket, mailbox, &mut standing);
                    session.serve(turn, berth).await
                }
                Err(ending) => ending,
            }
        };
        Box::pin(end(line, ending, letters)).await;
    }
}

/// Ends when it is this connection's turn to be told of a drain. Cancel safe.
async fn turn(gateway: &Gateway, number: u64) {
    // Counted when clients are dismissed, not now.
    gateway.dismissed().await;
    let stance = gateway.stance.clone();
    Box::pin(farewell::turn(stance, number, gateway.census.population())).await;
}

/// Waits for the `connect` of a client that was challenged, and answers it.
async fn welcome(
    gateway: &Gateway,
    socket: &mut Socket,
    guest: Box<Guest>,
    turn: Pin<&mut impl Future<Output = ()>>,
    berth: Option<&migrate::Seat>,
) -> Result<(Box<Standing>, Mailbox), Ending> {
    let (admission, connect_id) = greet(gateway, socket, &guest, turn, berth).await?;
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
    let mut standing = Box::new(Standing::new(admission, &gateway.limits));
    let mut mailbox = gateway.post().open();
    Session::new(gateway, socket, &mut mailbox, &mut standing)
        .welcome(&connect_id)
        .map_err(|SlowConsumer| Ending::Close(Close::SLOW_CONSUMER))?;
    Ok((standing, mailbox))
}

async fn end(line: Line, ending: Ending, letters: Option<Mailbox>) {
    match ending {
        Ending::Gone => {}
        Ending::Close(close) => {
            debug!(code = close.code(), reason = close.reason(), "closing a WebSocket");
            line.socket.close(&close).await;
        }
        Ending::Told => {
            line.seat.visitor.enter(Phase::Told);
            line.socket.close(&Close::RESTART).await;
        }
        Ending::Move(state) => match line.socket.freeze() {
            Ok((stream, carried)) => {
                line.seat.visitor.enter(Phase::Away);
                let frozen = moving::freeze_websocket(stream, line.peer, carried, &state, letters);
                if let (Some(frozen), Some(berth)) = (frozen, line.berth) {
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
                    origin: upgrade.origin,
                    remote_ip: upgrade.remote_ip,
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
    if request.method == "connect" && !threshold::is_open(gateway) {
        say(socket, threshold::too_early(&request.id))?;
        return Err(Ending::Close(Close::STARTING));
    }
    match judge(gateway, &request, upgrade, nonce).await {
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
    &Upgrade { locality, origin, remote_ip, .. }: &Upgrade,
    nonce: &str,
) -> Result<Admission, Rejection> {
    if request.method != "connect" {
        return Err(connect::not_connect());
    }
    let params = request.params.map_or("{}", |params| params.get());
    let knowledge = &gateway.knowledge;
    let token = &*knowledge.token.current();
    let post = gateway.post();
    let devices = &knowledge.devices;
    let now_ms = now_ms();
    let gate = Gate { token, devices, post, locality, origin, remote_ip, nonce, now_ms };
    connect::admit(params, &gate).await
}

fn say(socket: &mut Socket, message: String) -> Result<(), Ending> {
    socket.say(message).map_err(|SlowConsumer| Ending::Close(Close::SLOW_CONSUMER))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How large the futures are that a function makes, in bytes.
    const fn room<A, B, F>(_makes: &impl Fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn ten_thousand_idle_clients_take_little_room() {
        // What a task holds, and what it holds boxed. Before they were looked at, it was 15 KiB.
        let (future, socket, standing) = (room(&live), size_of::<Socket>(), size_of::<Standing>());
        assert!(future <= 1024, "the future has {future} bytes");
        assert!(socket <= 640, "the socket has {socket} bytes");
        assert!(standing <= 384, "the standing has {standing} bytes");
    }
}
