//! WebSockets: upgraded, challenged, connected, served, and closed with a word.
//!
//! ```text
//! 101 ─► challenge ─► connect ─► hello-ok, health ─► requests and events ─► close
//!            │            └ wrong: res with the reason, close 1008 or 1002
//!            ├ 15 s: close 1008 "handshake timeout"
//!            └ a drain, here or later: event shutdown, close 1012 "service restart"
//! ```
//!
//! **Invariants**
//! - Every close that we begin carries a code and a reason; a client's close is echoed.
//! - A client without a connection of its own rank holds at most 64 KiB and one place of its address.
//! - Events carry `seq` from 1 without a gap, from `hello-ok` on.

mod antechamber;
mod connect;
mod farewell;
mod frame;
mod handshake;
mod meter;
mod session;
mod socket;

use std::pin::{Pin, pin};

use bytes::Bytes;
use handoff::Stream;
use serde_json::json;
use tokio::time::sleep_until;
use tracing::debug;

pub(crate) use antechamber::Antechamber;
pub(super) use handshake::{Upgrade, upgrade};

use self::connect::{Admission, Rejection};
use self::farewell::Close;
use self::frame::{NotARequest, Request};
use self::session::Session;
use self::socket::{Heard, MAX_FIRST_MESSAGE, SlowConsumer, Socket};
use super::Gateway;
use crate::census::{Phase, Visitor};
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
}

/// Serves a connection as a WebSocket until it is closed. `unread` is what came with the upgrade.
pub(super) async fn serve(
    gateway: &Gateway,
    visitor: &Visitor,
    stream: Stream,
    unread: Bytes,
    upgrade: Upgrade,
) {
    visitor.enter(Phase::Talking);
    let mut socket = Socket::new(stream, unread, gateway.limits.max_buffered_bytes).await;
    let mut turn = pin!(async {
        let mut stance = gateway.stance.clone();
        // Counted when the drain begins, not now.
        let _ = stance.wait_for(|stance| stance.deadline().is_some()).await;
        farewell::turn(stance, visitor.number, gateway.census.population()).await;
    });
    let ending = match greet(gateway, &mut socket, &upgrade, turn.as_mut()).await {
        Ok((admission, connect_id)) => {
            drop(upgrade.place);
            socket.trust();
            debug!(
                client = admission.client.id,
                mode = admission.client.mode,
                protocol = admission.protocol,
                handshake_ms = (admission.admitted_at - upgrade.opened_at).as_millis(),
                "a WebSocket connected"
            );
            Session::new(gateway, &mut socket, admission).run(&connect_id, turn).await
        }
        Err(ending) => ending,
    };
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
    }
}

/// Challenges the client and waits for its `connect`; answers with who it is and that request's id.
async fn greet(
    gateway: &Gateway,
    socket: &mut Socket,
    upgrade: &Upgrade,
    mut turn: Pin<&mut impl Future<Output = ()>>,
) -> Result<(Admission, String), Ending> {
    let challenge = json!({"nonce": uuid::Uuid::new_v4(), "ts": now_ms()});
    say(socket, frame::event("connect.challenge", &challenge, None, None))?;
    let deadline = sleep_until((upgrade.opened_at + gateway.limits.handshake_timeout).into());
    let message = tokio::select! {
        biased;
        () = &mut turn => {
            say(socket, frame::event("shutdown", &session::shutdown(gateway), None, None))?;
            return Err(Ending::Told);
        }
        () = deadline => return Err(Ending::Close(Close::HANDSHAKE_TIMEOUT)),
        heard = socket.hear() => match heard {
            Heard::Text(message) => message,
            Heard::Gone => return Err(Ending::Gone),
            Heard::Wrong(close) => return Err(Ending::Close(close)),
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
    match judge(gateway, &request, upgrade.locality) {
        Ok(admission) => Ok((admission, request.id.into_owned())),
        Err(Rejection { refusal, close }) => {
            say(socket, frame::refusal(&request.id, &refusal))?;
            Err(Ending::Close(close))
        }
    }
}

fn judge(
    gateway: &Gateway,
    request: &Request<'_>,
    locality: Locality,
) -> Result<Admission, Rejection> {
    if request.method != "connect" {
        return Err(connect::not_connect());
    }
    let params = request.params.map_or("{}", |params| params.get());
    connect::admit(params, &gateway.token, locality)
}

fn say(socket: &mut Socket, message: String) -> Result<(), Ending> {
    socket.say(message).map_err(|SlowConsumer| Ending::Close(Close::SLOW_CONSUMER))
}
