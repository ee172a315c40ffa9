//! Many WebSockets of one front, which say nothing until they are asked.
//!
//! **Invariants**
//! - Nobody connects again: a connection that ends is lost.
//! - Calls are numbered and so are events: what is lost, doubled or out of order is a fault.

use handoff::Address;
use holdfast_tests::rig::TOKEN;
use holdfast_tests::rig::moving::{BareWebSocket, Frame, Part, call, connect_call, frame};
use serde_json::{Value, json};

use crate::report::Report;

/// How many connect at once: a worker has 32 places for those of one address that have not.
const AT_ONCE: usize = 16;
/// How many faults are printed.
const SHOWN: usize = 10;

/// All of them, in the order in which they were accepted, but for those that connected at once.
#[derive(Default)]
pub(crate) struct Fleet {
    members: Vec<Member>,
}

/// One of them.
pub(crate) struct Member {
    /// Its place in the order.
    pub(crate) number: usize,
    socket: BareWebSocket,
    /// How many calls it has made, each with its number as its id.
    calls: u64,
    /// The last of the events.
    seq: u64,
    /// What a client would not see that notices no takeover; it says nothing more after the first.
    fault: Option<String>,
}

impl Fleet {
    /// So many clients with a name of `name` bytes each, which is part of what moves with them.
    pub(crate) async fn connect(address: &Address, clients: usize, name: usize) -> Self {
        let mut members = Vec::with_capacity(clients);
        while members.len() < clients {
            let first = members.len();
            let more = first..(first + AT_ONCE).min(clients);
            let connecting = Vec::from_iter(
                more.map(|number| tokio::spawn(Member::connect(address.clone(), number, name))),
            );
            for member in connecting {
                members.push(member.await.expect("a client is let in"));
            }
        }
        Self { members }
    }

    /// Takes every `nth` out, to be put back.
    pub(crate) fn take_every(&mut self, nth: usize) -> Vec<Member> {
        self.members.extract_if(.., |member| member.number.is_multiple_of(nth)).collect()
    }

    pub(crate) fn put_back(&mut self, members: Vec<Member>) {
        self.members.extend(members);
        self.members.sort_unstable_by_key(|member| member.number);
    }

    /// Has each of them call once and be answered. A second call shows what the first left behind.
    pub(crate) async fn call_each(&mut self) {
        for member in &mut self.members {
            member.send_call().await;
        }
        for member in &mut self.members {
            member.hear_answer().await;
        }
    }

    /// How many have a fault, with the first few in words.
    pub(crate) fn faults(&self, report: &Report) -> usize {
        let faults = || self.members.iter().filter_map(|m| Some((m.number, m.fault.as_ref()?)));
        for (number, fault) in faults().take(SHOWN) {
            report.note(&format!("connection {number}: {fault}"));
        }
        faults().count()
    }
}

impl Member {
    async fn connect(address: Address, number: usize, name: usize) -> Self {
        let mut socket = BareWebSocket::challenged(&address).await;
        let mut connect: Value =
            serde_json::from_str(&connect_call((4, 4), TOKEN)).expect("a call is JSON");
        if name > 0 {
            connect["params"]["client"]["displayName"] = "n".repeat(name).into();
        }
        socket.send(&frame(Part::Text, connect.to_string())).await;
        assert_eq!(socket.welcomed().await, 4);
        // The welcome was event 1.
        Self { number, socket, calls: 0, seq: 1, fault: None }
    }

    /// Makes a call and ends with its answer.
    pub(crate) async fn call(&mut self) {
        self.send_call().await;
        self.hear_answer().await;
    }

    /// Whether it has nothing to complain of.
    pub(crate) const fn is_well(&self) -> bool {
        self.fault.is_none()
    }

    async fn send_call(&mut self) {
        if self.is_well() {
            self.calls += 1;
            let text = call(&self.calls.to_string(), "health", json!({}));
            self.socket.send(&frame(Part::Text, text)).await;
        }
    }

    async fn hear_answer(&mut self) {
        while self.is_well() {
            match self.socket.next().await {
                Frame::Text(text) => {
                    let said: Value = serde_json::from_str(&text).expect("a message is JSON");
                    if said["type"] != "res" {
                        self.told(&said);
                    } else if said["id"] == *self.calls.to_string() && said["ok"] == true {
                        return;
                    } else {
                        self.fault = Some(format!("no answer to call {}: {said}", self.calls));
                    }
                }
                Frame::Ping(payload) => self.socket.send(&frame(Part::Pong, payload)).await,
                Frame::Pong(_) => {}
                Frame::Close(code, reason) => {
                    self.fault = Some(format!("closed with {code} {reason:?}"));
                }
                Frame::End(how) => self.fault = Some(how),
            }
        }
    }

    fn told(&mut self, said: &Value) {
        let seq = said["seq"].as_u64().unwrap_or(0);
        if seq != self.seq + 1 || said["event"] == "shutdown" {
            self.fault = Some(format!("after event {}: {said}", self.seq));
        }
        self.seq = seq;
    }
}
