//! A client that has connected: its requests are answered, its events numbered, its clocks kept.

use std::pin::Pin;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::Ending;
use super::connect::Admission;
use super::farewell::{self, Close};
use super::frame::{self, Request, StateVersion};
use super::socket::{Heard, MAX_MESSAGE, SlowConsumer, Socket};
use crate::methods::{Refusal, VERSION, now_ms};
use crate::serve::Gateway;

/// One connected client. All of it is state that another generation could take over.
#[derive(Debug)]
pub(super) struct Session<'a> {
    gateway: &'a Gateway,
    socket: &'a mut Socket,
    admission: Admission,
    /// The number of the last event; the first one is 1.
    seq: u64,
}

impl<'a> Session<'a> {
    pub(super) const fn new(
        gateway: &'a Gateway,
        socket: &'a mut Socket,
        admission: Admission,
    ) -> Self {
        Self { gateway, socket, admission, seq: 0 }
    }

    /// Welcomes the client by answering its `connect`, and serves it until its connection ends.
    pub(super) async fn run(
        mut self,
        connect_id: &str,
        turn: Pin<&mut impl Future<Output = ()>>,
    ) -> Ending {
        match self.welcome(connect_id) {
            Ok(()) => self.serve(turn).await,
            Err(SlowConsumer) => Ending::Close(Close::SLOW_CONSUMER),
        }
    }

    async fn serve(&mut self, mut turn: Pin<&mut impl Future<Output = ()>>) -> Ending {
        let limits = &self.gateway.limits;
        let began_at = Instant::now();
        let mut tick_at = began_at + limits.tick_interval;
        let mut ping_at = began_at + limits.ping_interval;
        let mut timer = std::pin::pin!(sleep_until(tick_at.min(ping_at)));
        loop {
            let step = tokio::select! {
                // First what a busy client must not keep from happening.
                biased;
                () = &mut turn => return self.dismiss(),
                () = &mut timer => {
                    let step = self.keep_time(&mut tick_at, &mut ping_at);
                    timer.as_mut().reset(tick_at.min(ping_at));
                    step
                }
                heard = self.socket.hear() => match heard {
                    Heard::Text(message) => self.answer(&message),
                    Heard::Gone => return Ending::Gone,
                    Heard::Wrong(close) => return Ending::Close(close),
                },
            };
            if let Err(SlowConsumer) = step {
                return Ending::Close(Close::SLOW_CONSUMER);
            }
        }
    }

    fn welcome(&mut self, connect_id: &str) -> Result<(), SlowConsumer> {
        let hello = self.hello();
        self.socket.say(frame::response(connect_id, &hello))?;
        let health = self.gateway.knowledge.health();
        self.event("health", &health, Some(StateVersion::FIRST))
    }

    fn keep_time(
        &mut self,
        tick_at: &mut Instant,
        ping_at: &mut Instant,
    ) -> Result<(), SlowConsumer> {
        let now = Instant::now();
        if now >= *ping_at {
            *ping_at = now + self.gateway.limits.ping_interval;
            self.socket.ping();
        }
        if now >= *tick_at {
            *tick_at = now + self.gateway.limits.tick_interval;
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
            Some(method) if !self.admission.scopes.allow(method.needs) => {
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
        self.seq += 1;
        self.socket.say(frame::event(name, payload, Some(self.seq), state_version))
    }

    fn hello(&self) -> Value {
        let gateway = self.gateway;
        let Admission { protocol, client, role, scopes, .. } = &self.admission;
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
                "tickIntervalMs": handoff::message::millis(gateway.limits.tick_interval),
            },
        })
    }
}

/// What a client is told of a drain.
pub(super) fn shutdown(gateway: &Gateway) -> Value {
    let expected_ms = farewell::restart_expected_ms(*gateway.stance.borrow());
    json!({"reason": "gateway restarting", "restartExpectedMs": expected_ms})
}
