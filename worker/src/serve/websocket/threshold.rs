//! The threshold: clients that meet a worker which is not ready, be it that it has just started by itself or that
//! something it needs has gone.
//!
//! ```text
//! upgraded ─► ready? ── yes ─────────────────────► challenge ─► connect ─► ready? ─► judged
//!               └ no: the challenge waits, 3 s at most ┘                     └ no: UNAVAILABLE, retryable; 1013
//! ```
//!
//! Real clients wait for the challenge, and ask again after a refusal in these words: so they are held where they
//! lose nothing, and never meet a worker that could not answer them.
//!
//! **Invariants**
//! - A connection that waits here still moves, and is still told of a drain: its challenge is sent for that.

use std::future::{pending, poll_fn};
use std::time::Duration;

use handoff::migrate::Seat;
use serde_json::json;

use crate::frames;
use crate::methods::Refusal;
use crate::serve::Gateway;

/// How long a challenge waits for a worker to become ready: less than any client waits for its challenge.
const PATIENCE: Duration = Duration::from_secs(3);
/// When a client should ask again; real ones take what lies between 100 ms and 2 s.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Whether clients are let further.
pub(super) fn is_open(gateway: &Gateway) -> bool {
    gateway.readiness.failing().is_empty()
}

/// Ends when the worker is ready, or the client should be challenged all the same. Cancel safe.
pub(super) async fn opened(gateway: &Gateway, berth: Option<&Seat>) {
    tokio::select! {
        () = gateway.readiness.opened() => {}
        () = tokio::time::sleep(PATIENCE) => {}
        () = wanted(berth) => {}
        () = gateway.dismissed() => {}
    }
}

/// Ends when the connection is to move. Cancel safe.
async fn wanted(berth: Option<&Seat>) {
    match berth {
        Some(berth) => poll_fn(|context| berth.poll_wanted(context)).await,
        None => pending().await,
    }
}

/// What a client is answered that asks to connect too early, in the words on which real ones ask again.
pub(super) fn too_early(id: &str) -> String {
    let refusal = Refusal::unavailable("gateway starting; retry shortly")
        .with_details(json!({"reason": "startup-sidecars"}))
        .retry_after(RETRY_AFTER);
    frames::refusal(id, &refusal)
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::sync::{Arc, Mutex};
    use std::time::Instant;

    use arc_swap::ArcSwap;
    use clap::Parser as _;
    use futures_util::{SinkExt as _, StreamExt as _};
    use handoff::migrate::Post;
    use handoff::{Peer, Stance, Stream};
    use serde_json::Value;
    use tokio::net::UnixStream;
    use tokio::sync::watch;
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;
    use crate::agents::Runs;
    use crate::agents::fallback::Stock;
    use crate::agents::harness::Keeping;
    use crate::args::Args;
    use crate::attendance::Attendance;
    use crate::identity::{Devices, Locality, MayGenerate, PageOrigin, TokenInForce, TokenPlaces};
    use crate::log_ring::LogRing;
    use crate::methods::Knowledge;
    use crate::neighbourhood::Neighbourhood;
    use crate::plugins::Plugins;
    use crate::registry::Registry;
    use crate::serve::AccessLog;
    use crate::serve::websocket::{Upgrade, Upgraded, serve};
    use crate::state::StateDir;
    use crate::state::config::{CurrentConfig, Environment};
    use crate::state::store::Store;
    use crate::timetable::Timetable;

    /// A gateway of its own, whose only condition is not met yet.
    struct House {
        _dir: tempfile::TempDir,
        _stance: watch::Sender<Stance>,
        gateway: Arc<Gateway>,
    }

    impl House {
        async fn build() -> Self {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("token"), "secret").unwrap();
            let state = StateDir::open(Some(dir.path().to_owned())).unwrap();
            let store = Store::open(&state, "g0").await.unwrap();
            let config_path = dir.path().join("openclaw.json");
            let config = CurrentConfig::open(config_path.clone(), Environment::default()).unwrap();
            let holds = config.holds();
            let may_generate = MayGenerate::No;
            let places = TokenPlaces { state, config_path: config_path.clone(), may_generate };
            let (token, _) = places.find(&holds.settled).unwrap().unwrap();
            let post = Post::default();
            let lease = watch::channel(None).1;
            let plugins = Plugins::new(dir.path(), "g0".to_owned(), lease, post.clone());
            let knowledge = Knowledge {
                state_dir: dir.path().to_owned(),
                jobs: Timetable::new(store.clone(), post.clone()).jobs(),
                runs: Arc::new(Runs::new(post.clone(), Arc::default(), store.clone())),
                wants_takeover: None,
                wait_pause: Duration::from_millis(20),
                attendance: Attendance::default(),
                neighbourhood: Neighbourhood::new(post),
                log: LogRing::default(),
                store,
                token: TokenInForce::new(token, places),
                devices: Devices::of_state(dir.path()),
                registry: ArcSwap::from_pointee(Registry::of(
                    &holds,
                    Arc::new(Stock::new(dir.path().to_owned(), Keeping::default(), Duration::ZERO)),
                    Arc::default(),
                )),
                plugins,
                config: ArcSwap::new(holds),
                config_path,
                current_config: Mutex::new(config),
                config_writes: Mutex::default(),
            };
            let limits = Args::parse_from(["holdfast-worker"]).limits;
            let (stance_sender, stance) = watch::channel(Stance::Admitted);
            let knowledge = Arc::new(knowledge);
            let gateway = Gateway::new(None, knowledge, (limits, AccessLog::Off), stance);
            Self { _dir: dir, _stance: stance_sender, gateway: Arc::new(gateway) }
        }

        /// A client whose connection was upgraded just now.
        async fn visit(&self) -> WebSocketStream<UnixStream> {
            let (client, server) = std::os::unix::net::UnixStream::pair().unwrap();
            for end in [&client, &server] {
                end.set_nonblocking(true).unwrap();
            }
            let upgrade = Upgrade {
                place: self.gateway.antechamber.enter(Peer::Unix).unwrap(),
                locality: Locality::Local,
                origin: PageOrigin::Absent,
                remote_ip: None,
                opened_at: Instant::now(),
            };
            tokio::spawn(serve(Upgraded {
                gateway: Arc::clone(&self.gateway),
                seat: self.gateway.census.seat(),
                stream: Stream::adopt(OwnedFd::from(server)).unwrap(),
                peer: Peer::Unix,
                unread: bytes::Bytes::new(),
                upgrade,
                berth: None,
            }));
            let client = UnixStream::from_std(client).unwrap();
            WebSocketStream::from_raw_socket(client, Role::Client, None).await
        }
    }

    async fn heard(client: &mut WebSocketStream<UnixStream>) -> Value {
        let heard = tokio::time::timeout(Duration::from_secs(20), client.next()).await;
        match heard.expect("something comes").unwrap().unwrap() {
            Message::Text(text) => serde_json::from_str(&text).unwrap(),
            Message::Close(Some(close)) => {
                json!({"code": u16::from(close.code), "reason": close.reason.as_str()})
            }
            other => panic!("{other:?}"),
        }
    }

    async fn connect(client: &mut WebSocketStream<UnixStream>) {
        let params = json!({
            "minProtocol": 4, "maxProtocol": 4, "role": "operator", "scopes": [],
            "client": {"id": "gateway-client", "version": "1", "platform": "linux", "mode": "backend"},
            "auth": {"token": "secret"},
        });
        let call = json!({"type": "req", "id": "c", "method": "connect", "params": params});
        client.send(Message::text(call.to_string())).await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_meets_a_worker_not_ready_is_challenged_when_it_is() {
        let house = House::build().await;
        let condition = house.gateway.readiness.require("harness");
        let mut client = house.visit().await;
        let early = tokio::time::timeout(Duration::from_millis(100), client.next()).await;
        assert!(early.is_err(), "{early:?}");
        condition.met();
        assert_eq!(heard(&mut client).await["event"], "connect.challenge");
        connect(&mut client).await;
        assert_eq!(heard(&mut client).await["payload"]["type"], "hello-ok");
    }

    #[tokio::test]
    async fn a_client_that_connects_to_a_worker_not_ready_is_told_to_ask_again() {
        let house = House::build().await;
        let mut challenged = house.visit().await;
        assert_eq!(heard(&mut challenged).await["event"], "connect.challenge");
        let _unmet = house.gateway.readiness.require("harness");
        // One that it has met when it was ready, and one that it has kept waiting for as long as it may.
        let mut delayed = house.visit().await;
        assert_eq!(heard(&mut delayed).await["event"], "connect.challenge");
        for client in [&mut challenged, &mut delayed] {
            connect(client).await;
            let answer = heard(client).await;
            assert_eq!(answer["error"]["details"]["reason"], "startup-sidecars", "{answer}");
            assert_eq!(answer["error"]["retryable"], true);
            let close = json!({"code": 1013, "reason": "gateway starting"});
            assert_eq!(heard(client).await, close);
        }
    }

    #[tokio::test]
    async fn a_websocket_that_waits_for_its_challenge_is_closed_with_1012_by_a_drain() {
        let house = House::build().await;
        let _unmet = house.gateway.readiness.require("harness");
        let mut client = house.visit().await;
        house.gateway.dismiss();
        assert_eq!(heard(&mut client).await["event"], "connect.challenge");
        assert_eq!(heard(&mut client).await["event"], "shutdown");
        let close = json!({"code": 1012, "reason": "service restart"});
        assert_eq!(heard(&mut client).await, close);
    }

    #[test]
    fn who_is_too_early_is_answered_in_the_words_on_which_real_clients_ask_again() {
        let answer: Value = serde_json::from_str(&too_early("c")).unwrap();
        let expected = json!({"type": "res", "id": "c", "ok": false, "error": {
            "code": "UNAVAILABLE", "message": "gateway starting; retry shortly",
            "details": {"reason": "startup-sidecars"}, "retryable": true, "retryAfterMs": 500,
        }});
        assert_eq!(answer, expected);
    }
}
