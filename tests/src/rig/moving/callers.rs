//! WebSocket clients with numbered calls in flight, pings of their own, and an eye on `seq`. Some of them
//! ask for what takes its time: an agent, of which all the others hear, or the end of a run that never begins.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::clients::{Account, Desk, LongCall};
use super::{BareWebSocket, Frame, Part, call, frame};

/// Between two calls at most this long, in ms.
const PAUSE_MS: u64 = 300;
/// How many calls may wait for their answers.
const MOST_IN_FLIGHT: usize = 4;
/// How long an agent takes for a word, in ms.
const WORD_MS: u64 = 250;

/// What one client has said and heard.
struct Conversation {
    account: Account,
    /// Calls without an answer, the oldest first.
    waiting: VecDeque<String>,
    calls: u64,
    /// The last of the events.
    seq: u64,
    pings: u64,
    /// The last of its pings that was answered. A server may leave out all but the newest (RFC 6455,
    /// 5.5.3).
    pongs: u64,
    /// The call without an answer that takes long.
    long_call: Option<Long>,
    long_calls: u64,
    /// The last event of each run it has heard of.
    heard_of: BTreeMap<String, u64>,
}

/// A call that takes long, by its id.
enum Long {
    Run(String),
    /// It was accepted.
    Accepted(String),
    Wait(String),
}

impl Long {
    const fn id(&self) -> &String {
        match self {
            Self::Run(id) | Self::Accepted(id) | Self::Wait(id) => id,
        }
    }
}

/// Calls until it is told to stop, and once more. The event of the welcome was read.
pub(super) async fn call_on(mut socket: BareWebSocket, mut desk: Desk) -> Account {
    let mut talk = Conversation {
        account: Account::default(),
        waiting: VecDeque::new(),
        calls: 0,
        seq: 1,
        pings: 0,
        pongs: 0,
        long_call: None,
        long_calls: 0,
        heard_of: BTreeMap::new(),
    };
    let mut call_at = Instant::now();
    let mut last_call = None;
    loop {
        let stopping = desk.is_to_stop();
        if stopping && last_call.is_none() {
            talk.say_one(&mut socket).await;
            last_call = Some(talk.calls);
        }
        let is_answered = talk.waiting.is_empty() && talk.long_call.is_none();
        if stopping && is_answered && talk.pings == talk.pongs {
            return talk.account;
        }
        let may_call = !stopping && talk.waiting.len() < MOST_IN_FLIGHT;
        tokio::select! {
            frame = socket.next() => {
                if talk.hear(frame, &mut socket, &desk).await == Heard::TheEnd {
                    return talk.account;
                }
            }
            () = sleep_until(call_at), if may_call => {
                if talk.long_call.is_none() {
                    talk.ask_for_long(&mut socket, &mut desk).await;
                }
                // Now and then several at once.
                for _ in 0..=desk.random(3) {
                    talk.say_one(&mut socket).await;
                }
                call_at = Instant::now() + Duration::from_millis(desk.random(PAUSE_MS * desk.leisure));
            }
            // An error means that the test has given up.
            _ = desk.stop.changed(), if !stopping => {}
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Something,
    TheEnd,
}

impl Conversation {
    async fn say_one(&mut self, socket: &mut BareWebSocket) {
        self.calls += 1;
        let id = format!("call {}", self.calls);
        let mut bytes = frame(Part::Text, call(&id, "health", json!({})));
        self.waiting.push_back(id);
        if self.calls.is_multiple_of(3) {
            self.pings += 1;
            bytes.extend(frame(Part::Ping, self.pings.to_be_bytes()));
        }
        socket.send(&bytes).await;
    }

    async fn ask_for_long(&mut self, socket: &mut BareWebSocket, desk: &mut Desk) {
        let (kind, longest_ms) = desk.long_call;
        self.long_calls += 1;
        let id = format!("long call {} of {}", self.long_calls, desk.number);
        let (method, params, long) = match kind {
            LongCall::None => return,
            LongCall::Run => {
                let words = 1 + desk.random(longest_ms / WORD_MS);
                let words = " word".repeat(usize::try_from(words).unwrap_or(1));
                let session = format!("client {}", desk.number);
                let params = json!({
                    "message": format!("/slow {WORD_MS}{words}"),
                    "sessionKey": session,
                    "idempotencyKey": format!("{id} in crowd {}", desk.crowd),
                });
                ("agent", params, Long::Run(id.clone()))
            }
            LongCall::Wait => {
                let params = json!({"runId": "none", "timeoutMs": desk.random(longest_ms)});
                ("agent.wait", params, Long::Wait(id.clone()))
            }
        };
        socket.send(&frame(Part::Text, call(&id, method, params))).await;
        self.long_call = Some(long);
    }

    async fn hear(&mut self, heard: Frame, socket: &mut BareWebSocket, desk: &Desk) -> Heard {
        match heard {
            Frame::Text(text) => {
                let said: Value = serde_json::from_str(&text).expect("a message is JSON");
                if said["type"] == "res" {
                    self.answered(&said);
                    desk.was_answered();
                } else {
                    self.told(&said);
                }
            }
            Frame::Ping(payload) => socket.send(&frame(Part::Pong, payload)).await,
            Frame::Pong(payload) => {
                let number = payload.try_into().map_or(0, u64::from_be_bytes);
                if number <= self.pongs || number > self.pings {
                    let (last, pings) = (self.pongs, self.pings);
                    self.fault(format!("pong {number} after {last}, of {pings} pings"));
                }
                self.pongs = number;
            }
            Frame::Close(code, reason) => {
                self.account.lost = Some(format!("closed with {code} {reason:?}"));
                return Heard::TheEnd;
            }
            Frame::End(how) => {
                self.account.lost = Some(how);
                return Heard::TheEnd;
            }
        }
        Heard::Something
    }

    fn answered(&mut self, said: &Value) {
        if let Some(long) = self.long_call.take_if(|long| said["id"] == long.id().as_str()) {
            match (said["payload"]["status"].as_str(), long) {
                (Some("accepted"), Long::Run(id)) => self.long_call = Some(Long::Accepted(id)),
                (Some("ok"), Long::Accepted(_)) | (Some("timeout"), Long::Wait(_)) => {}
                _ => self.fault(format!("the answer to a long call: {said}")),
            }
            return;
        }
        self.account.answered += 1;
        let expected = self.waiting.pop_front();
        if said["id"].as_str() != expected.as_deref() || said["ok"] != true {
            self.fault(format!("expected an answer to {expected:?}, got {said}"));
        }
    }

    fn told(&mut self, said: &Value) {
        let seq = said["seq"].as_u64().unwrap_or(0);
        if seq != self.seq + 1 {
            self.fault(format!("event {seq} after {}: {said}", self.seq));
        }
        self.seq = seq;
        self.account.told |= said["event"] == "shutdown";
        if said["event"] == "agent" {
            self.told_of_run(&said["payload"]);
        }
    }

    /// A run's events come in order; one that has begun before this client did is joined in the middle. One whose worker
    /// was killed may have had more to say than anybody heard: its end counts that too.
    fn told_of_run(&mut self, payload: &Value) {
        let run = payload["runId"].as_str().unwrap_or_default().to_owned();
        let seq = payload["seq"].as_u64().unwrap_or(0);
        let interrupted =
            payload["data"]["error"].as_str().is_some_and(|why| why.starts_with("interrupted"));
        if let Some(before) = self.heard_of.insert(run, seq)
            && (seq <= before || (seq > before + 1 && !interrupted))
        {
            self.fault(format!("a run's event {seq} after {before}: {payload}"));
        }
    }

    fn fault(&mut self, what: String) {
        self.account.faults.push(what);
    }
}
