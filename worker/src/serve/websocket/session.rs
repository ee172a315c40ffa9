//! A client that has connected: its requests are answered, its events numbered, its clocks kept.

use std::pin::Pin;
use std::time::Duration;

use handoff::message::millis;
use handoff::migrate;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::Ending;
use super::connect::{Admission, Client};
use super::farewell::{self, Close};
use super::frame::{self, Request, StateVersion};
use super::socket::{Heard, MAX_MESSAGE, SlowConsumer, Socket};
use crate::args::Limits;
use crate::identity::Scopes;
use crate::methods::{Refusal, VERSION, now_ms};
use crate::serve::Gateway;
use crate::serve::moving::{ClientState, ConnectedState, WebSocketState};

/// All that is known of a connected client: another generation can go on from it.
#[derive(Debug)]
pub(super) struct Standing {
    protocol: u64,
    client: Client,
    role: String,
    scopes: Scopes,
    /// The number of the last event; the first one is 1.
    seq: u64,
    tick_at: Instant,
    ping_at: Instant,
}

impl Standing {
    /// Of a client that was let in just now.
    pub(super) fn new(admission: Admission, limits: &Limits) -> Self {
        let Admission { protocol, client, role, scopes, .. } = admission;
        let now = Instant::now();
        let (tick_at, ping_at) = (now + limits.tick_interval, now + limits.ping_interval);
        Self { protocol, client, role, scopes, seq: 0, tick_at, ping_at }
    }

    /// Of a client that was let in by another generation.
    pub(super) fn resumed(state: ConnectedState) -> Self {
        let ClientState { id, display_name, version, platform, mode } = state.client;
        let now = Instant::now();
        Self {
            protocol: state.protocol,
            client: Client { id, display_name, version, platform, mode },
            role: state.role,
            scopes: Scopes::new(state.scopes),
            seq: state.seq,
            tick_at: now + Duration::from_millis(state.tick_in_ms),
            ping_at: now + Duration::from_millis(state.ping_in_ms),
        }
    }

    /// What another generation has to know.
    fn frozen(&self) -> ConnectedState {
        let Client { id, display_name, version, platform, mode } = &self.client;
        let due = |at: Instant| millis(at.saturating_duration_since(Instant::now()));
        ConnectedState {
            protocol: self.protocol,
            client: ClientState {
                id: id.clone(),
                display_name: display_name.clone(),
                version: version.clone(),
                platform: platform.clone(),
                mode: mode.clone(),
            },
            role: self.role.clone(),
            scopes: self.scopes.names().to_vec(),
            seq: self.seq,
            tick_in_ms: due(self.tick_at),
            ping_in_ms: due(self.ping_at),
        }
    }
}

/// One connected client, being served.
#[derive(Debug)]
pub(super) struct Session<'a> {
    gateway: &'a Gateway,
    socket: &'a mut Socket,
    standing: Standing,
}

impl<'a> Session<'a> {
    pub(super) const fn new(
        gateway: &'a Gateway,
        socket: &'a mut Socket,
        standing: Standing,
    ) -> Self {
        Self { gateway, socket, standing }
    }

    /// Welcomes the client by answering its `connect`, and serves it.
    pub(super) async fn welcome_and_serve(
        mut self,
        connect_id: &str,
        turn: Pin<&mut impl Future<Output = ()>>,
        berth: Option<&migrate::Seat>,
    ) -> Ending {
        match self.welcome(connect_id) {
            Ok(()) => self.serve(turn, berth).await,
            Err(SlowConsumer) => Ending::Close(Close::SLOW_CONSUMER),
        }
    }

    /// Serves the client until its connection ends or moves.
    pub(super) async fn serve(
        mut self,
        mut turn: Pin<&mut impl Future<Output = ()>>,
        berth: Option<&migrate::Seat>,
    ) -> Ending {
        let mut timer = std::pin::pin!(sleep_until(self.due_at()));
        loop {
            let step = tokio::select! {
                // First what a busy client must not keep from happening.
                biased;
                () = &mut turn => return self.dismiss(),
                () = &mut timer => {
                    let step = self.keep_time();
                    timer.as_mut().reset(self.due_at());
                    step
                }
                heard = self.socket.hear(berth) => match heard {
                    Heard::Text(message) => self.answer(&message),
                    Heard::Gone => return Ending::Gone,
                    Heard::Wrong(close) => return Ending::Close(close),
                    Heard::Wanted => {
                        let state = WebSocketState::Connected(self.standing.frozen());
                        return Ending::Move(Box::new(state));
                    }
                },
            };
            if let Err(SlowConsumer) = step {
                return Ending::Close(Close::SLOW_CONSUMER);
            }
        }
    }

    fn due_at(&self) -> Instant {
        self.standing.tick_at.min(self.standing.ping_at)
    }

    fn welcome(&mut self, connect_id: &str) -> Result<(), SlowConsumer> {
        let hello = self.hello();
        self.socket.say(frame::response(connect_id, &hello))?;
        let health = self.gateway.knowledge.health();
        self.event("health", &health, Some(StateVersion::FIRST))
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
        let response = match Request::parse(message) {
            Ok(request) => match self.call(&request.method) {
                Ok(payload) => frame::response(&request.id, &payload),
                Err(refusal) => frame::refusal(&request.id, &refusal),
            },
            Err(no) => {
                let refusal = Refusal::invalid(format!("invalid request frame: {no}"));
                frame::refusal(no.id(), &refusal)
            }
        };
        self.socket.say(response)
    }

    fn call(&self, name: &str) -> Result<Box<serde_json::value::RawValue>, Refusal> {
        let registry = self.gateway.registry();
        match registry.method(name) {
            Some(method) if !self.standing.scopes.allow(method.needs) => {
                Err(Refusal::invalid(format!("missing scope: {}", method.needs.name())))
            }
            Some(method) => (method.answer)(&self.gateway.knowledge),
            None if name == "connect" => {
                Err(Refusal::invalid("connect is only valid as the first request"))
            }
            None => {
                let shown: String = name.chars().take(100).collect();
                Err(Refusal::invalid(format!("unknown method: {shown}")))
            }
        }
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
        self.socket.say(frame::event(name, payload, seq, state_version))
    }

    fn hello(&self) -> Value {
        let gateway = self.gateway;
        let Standing { protocol, client, role, scopes, .. } = &self.standing;
        let now = now_ms();
        let client_name = client.display_name.as_ref().unwrap_or(&client.id);
        let mut snapshot = json!({
            "presence": [
                {
                    "host": "holdfast", "version": VERSION, "platform": std::env::consts::OS,
                    "mode": "gateway", "reason": "self", "ts": now,
                    "text": format!("Gateway: holdfast · app {VERSION} · mode gateway · reason self"),
                },
                {
                    "host": client_name, "version": client.version, "platform": client.platform,
                    "mode": client.mode, "roles": [role], "scopes": scopes.names(),
                    "reason": "connect", "ts": now,
                    "text": format!("Node: {client_name} · mode {}", client.mode),
                },
            ],
            "health": gateway.knowledge.health(),
            "stateVersion": StateVersion::FIRST,
            "uptimeMs": gateway.uptime_ms(),
            "sessionDefaults": {
                "defaultAgentId": "main", "mainKey": "main", "mainSessionKey": "agent:main:main",
                "scope": "per-sender",
            },
        });
        // Where things lie on this machine is an administrator's business.
        if scopes.administer() {
            snapshot["stateDir"] = json!(gateway.knowledge.state_dir);
            snapshot["authMode"] = json!("token");
        }
        json!({
            "type": "hello-ok",
            "protocol": protocol,
            "server": {"version": VERSION, "connId": uuid::Uuid::new_v4()},
            "features": gateway.registry().features(),
            "snapshot": snapshot,
            "auth": {"role": role, "scopes": scopes.names()},
            "policy": {
                "maxPayload": MAX_MESSAGE,
                "maxBufferedBytes": gateway.limits.max_buffered_bytes,
                "tickIntervalMs": millis(gateway.limits.tick_interval),
            },
        })
    }
}

/// What a client is told of a drain.
pub(super) fn shutdown(gateway: &Gateway) -> Value {
    let expected_ms = farewell::restart_expected_ms(*gateway.stance.borrow());
    json!({"reason": "gateway restarting", "restartExpectedMs": expected_ms})
}
