//! A client that has connected: its requests are answered, its events numbered, its clocks kept.
//!
//! **Invariants**
//! - A request is answered here at once, or by letters from whoever began it, which may be another
//!   generation; a last answer is passed on once, and only while it is awaited.
//! - Events get their number here, as they are queued: whoever they come from, none is missing.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use handoff::migrate::{self, Delivery, Mailbox};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::Ending;
use super::farewell::{self, Close};
use super::frame::Request;
use super::hello::hello;
use super::socket::{Heard, SlowConsumer, Socket};
use super::standing::Standing;
use crate::census::CallSeat;
use crate::frames::{self, StateVersion};
use crate::letters::Letter;
use crate::methods::{
    Answering, Call, Method, Refusal, Reply, Work, now_ms, outcome_unknown, plugins,
};
use crate::metrics;
use crate::registry::{Dispatched, Registry};
use crate::serve::Gateway;
use crate::serve::moving::{DeviceState, LetIn, WebSocketState};
use crate::shape::Shape;

/// How long a client that may no longer be connected is still told what it had asked for.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// One connected client, being served.
#[derive(Debug)]
pub(super) struct Session<'a> {
    gateway: &'a Gateway,
    socket: &'a mut Socket,
    mailbox: &'a mut Mailbox,
    standing: &'a mut Standing,
}

impl<'a> Session<'a> {
    pub(super) const fn new(
        gateway: &'a Gateway,
        socket: &'a mut Socket,
        mailbox: &'a mut Mailbox,
        standing: &'a mut Standing,
    ) -> Self {
        Self { gateway, socket, mailbox, standing }
    }

    /// Welcomes the client by answering its `connect`.
    ///
    /// # Errors
    /// [`SlowConsumer`] when that is too much to be queued.
    pub(super) fn welcome(&mut self, connect_id: &str) -> Result<(), SlowConsumer> {
        let hello = hello(self.gateway, self.standing);
        self.socket.say(frames::response(connect_id, &hello))?;
        let health = self.gateway.knowledge.health();
        self.event("health", &health, Some(StateVersion::FIRST))
    }

    /// Serves the client until its connection ends or moves.
    pub(super) async fn serve(
        mut self,
        mut turn: Pin<&mut impl Future<Output = ()>>,
        berth: Option<&migrate::Seat>,
    ) -> Ending {
        let mut timer = std::pin::pin!(sleep_until(self.due_at()));
        let mut revoked = self.revoked();
        loop {
            // Whichever is ready, at random: neither a busy client nor busy calls keep the others waiting.
            let step = tokio::select! {
                () = &mut turn => return self.dismiss(),
                close = &mut revoked => return self.expel(close).await,
                () = &mut timer => {
                    let step = self.keep_time();
                    timer.as_mut().reset(self.due_at());
                    step
                }
                delivery = self.mailbox.next() => match delivery {
                    Delivery::Letter(letter) => self.pass_on(&letter),
                    Delivery::Severed { moves } => self.sever(moves),
                    Delivery::Lost => return Ending::Close(Close::LETTERS_LOST),
                },
                heard = self.socket.hear(berth) => match heard {
                    Heard::Text(message) => self.answer(&message),
                    Heard::Gone => return Ending::Gone,
                    Heard::Wrong(close) => return Ending::Close(close),
                    Heard::Wanted => {
                        let state = WebSocketState::Connected(Box::new(self.standing.frozen()));
                        return Ending::Move(Box::new(state));
                    }
                },
            };
            if let Err(SlowConsumer) = step {
                return Ending::Close(Close::SLOW_CONSUMER);
            }
        }
    }

    /// Ends when the client may no longer be connected, by which close it is told so.
    fn revoked(&self) -> Pin<Box<dyn Future<Output = Close> + Send>> {
        let device = self.device_revoked();
        let Some(shown) = self.standing.shared_token else {
            return Box::pin(device.map(|()| Close::DEVICE_REMOVED));
        };
        let replaced = self.gateway.knowledge.token.replaced(shown);
        Box::pin(async move {
            tokio::select! {
                () = device => Close::DEVICE_REMOVED,
                () = replaced => Close::AUTH_CHANGED,
            }
        })
    }

    /// Ends when the client's device may no longer be connected.
    fn device_revoked(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let Some(DeviceState { id, let_in, issued_at_ms }) = self.standing.device.clone() else {
            return Box::pin(std::future::pending());
        };
        let devices = self.gateway.knowledge.devices.clone();
        let role = self.standing.role.clone();
        match let_in {
            LetIn::ByOwnToken | LetIn::BySharedToken => {
                Box::pin(async move { devices.lost(&id, &role, issued_at_ms).await })
            }
            LetIn::Unpaired => Box::pin(async move { devices.revoked(&id, &role).await }),
        }
    }

    /// Closes, and hears nothing more. What was asked for is still answered if that comes soon: it may be
    /// the client itself that gave up its token, or chose another for all.
    async fn expel(&mut self, close: Close) -> Ending {
        let deadline = Instant::now() + LAST_ANSWERS;
        while self.standing.outstanding.is_any() {
            let delivery = tokio::time::timeout_at(deadline, self.mailbox.next()).await;
            let Ok(Delivery::Letter(letter)) = delivery else { break };
            let is_answer = !matches!(Letter::read(&letter), Some(Letter::Event { .. }));
            if is_answer && self.pass_on(&letter).is_err() {
                break;
            }
        }
        Ending::Close(close)
    }

    fn due_at(&self) -> Instant {
        self.standing.tick_at.min(self.standing.ping_at)
    }

    fn keep_time(&mut self) -> Result<(), SlowConsumer> {
        let now = Instant::now();
        if now >= self.standing.ping_at {
            self.standing.ping_at = now + self.gateway.limits.ping_interval;
            self.socket.ping();
        }
        if now >= self.standing.tick_at {
            self.standing.tick_at = now + self.gateway.limits.tick_interval;
            self.event("tick", &json!({"ts": now_ms()}), None)?;
        }
        Ok(())
    }

    fn answer(&mut self, message: &str) -> Result<(), SlowConsumer> {
        let request = match Request::parse(message) {
            Ok(request) => request,
            Err(no) => {
                let refusal = Refusal::invalid(format!("invalid request frame: {no}"));
                return self.socket.say(frames::refusal(no.id(), &refusal));
            }
        };
        match self.call(&request) {
            Ok(Some(payload)) => self.socket.say(frames::response(&request.id, &payload)),
            Ok(None) => Ok(()),
            Err(refusal) => self.socket.say(frames::refusal(&request.id, &refusal)),
        }
    }

    /// Does what is asked for, or has it done: then the answer comes by letter.
    fn call(&mut self, request: &Request<'_>) -> Result<Option<Box<RawValue>>, Refusal> {
        let name = &*request.method;
        metrics::call(name);
        let registry = self.gateway.registry();
        let Some(method) = registry.method(name) else {
            return Err(match name {
                "connect" => Refusal::invalid("connect is only valid as the first request"),
                _ => {
                    let shown: String = name.chars().take(100).collect();
                    Refusal::invalid(format!("unknown method: {shown}"))
                }
            });
        };
        if !self.standing.scopes.allow(method.needs()) {
            return Err(Refusal::invalid(format!("missing scope: {}", method.needs().name())));
        }
        let knowledge = Arc::clone(&self.gateway.knowledge);
        match method {
            Dispatched::Bundled(Method { work: Work::Now(answer), .. }) => {
                answer(&knowledge).map(Some)
            }
            Dispatched::Bundled(method @ Method { work: Work::Later(answer), .. }) => {
                let params = params(method.name, method.params, request)?;
                let (call, seat) = self.begin(request, params, &registry, method.name)?;
                set_going(answer(knowledge, call), seat);
                Ok(None)
            }
            Dispatched::Plugin(method) => {
                let params = params(&method.name, None, request)?;
                let (call, seat) = self.begin(request, params, &registry, "a plugin's method")?;
                let method = method.clone();
                set_going(Box::pin(plugins::call(knowledge, method, call)), seat);
                Ok(None)
            }
        }
    }

    /// A call that is answered by letter.
    fn begin(
        &mut self,
        request: &Request<'_>,
        params: Value,
        registry: &Arc<Registry>,
        what: &'static str,
    ) -> Result<(Call, CallSeat), Refusal> {
        if !self.standing.outstanding.begin(&request.id) {
            return Err(Refusal::unavailable("too many calls of this client are under way"));
        }
        let reply = Reply::new(self.mailbox.recipient(), request.id.to_string());
        let seat = self.gateway.census.call(what);
        let caller = self.standing.caller();
        let client = self.standing.client.who();
        let registry = Arc::clone(registry);
        Ok((Call { params, registry, caller, client, reply }, seat))
    }

    /// Says what a letter says, if the client is to hear it.
    fn pass_on(&mut self, letter: &str) -> Result<(), SlowConsumer> {
        match Letter::read(letter) {
            Some(Letter::Final { id, frame }) if self.standing.outstanding.end(&id) => {
                self.socket.say(frame.to_owned())
            }
            Some(Letter::Interim { id, frame }) if self.standing.outstanding.awaits(&id) => {
                self.socket.say(frame.to_owned())
            }
            Some(Letter::Event { needs, opened }) if self.standing.scopes.allow(needs) => {
                self.standing.seq += 1;
                self.socket.say(frames::numbered(opened, self.standing.seq))
            }
            Some(Letter::Final { .. } | Letter::Interim { .. } | Letter::Event { .. }) => Ok(()),
            None => {
                debug!("a letter of a kind that is not known here");
                Ok(())
            }
        }
    }

    /// The generation this connection was with so many moves ago is gone, with the calls it had begun.
    fn sever(&mut self, moves: u32) -> Result<(), SlowConsumer> {
        for id in self.standing.outstanding.sever(moves) {
            self.socket.say(frames::refusal(&id, &outcome_unknown()))?;
        }
        Ok(())
    }

    /// The drain has come to this client: somebody else will be there when it comes back.
    fn dismiss(&mut self) -> Ending {
        let payload = shutdown(self.gateway);
        match self.event("shutdown", &payload, None) {
            Ok(()) => Ending::Told,
            Err(SlowConsumer) => Ending::Close(Close::SLOW_CONSUMER),
        }
    }

    fn event(
        &mut self,
        name: &'static str,
        payload: &Value,
        state_version: Option<StateVersion>,
    ) -> Result<(), SlowConsumer> {
        self.standing.seq += 1;
        let seq = Some(self.standing.seq);
        self.socket.say(frames::event(name, payload, seq, state_version))
    }
}

/// Begins here and now: what a client asks for one after the other begins in that order.
fn set_going(mut work: Answering, seat: CallSeat) {
    if work.as_mut().now_or_never().is_none() {
        tokio::spawn(async move {
            work.await;
            drop(seat);
        });
    }
}

/// A request's parameters, in the shape its method asks for.
fn params(
    method: &str,
    shape: Option<&'static Shape>,
    request: &Request<'_>,
) -> Result<Value, Refusal> {
    let wrong =
        |what: &dyn std::fmt::Display| Refusal::invalid(format!("invalid {method} params: {what}"));
    let params = match request.params {
        Some(params) => serde_json::from_str(params.get()).map_err(|error| wrong(&error))?,
        None => json!({}),
    };
    match shape.map(|shape| shape.check(&params)) {
        Some(Err(violations)) => Err(wrong(&violations)),
        Some(Ok(())) | None => Ok(params),
    }
}

/// What a client is told of a drain.
pub(super) fn shutdown(gateway: &Gateway) -> Value {
    let expected_ms = farewell::restart_expected_ms(*gateway.stance.borrow());
    json!({"reason": "gateway restarting", "restartExpectedMs": expected_ms})
}
