//! Just enough HTTP/1.1 to be traffic's other end.
//!
//! Every path is answered with the generation and pid; three do something first:
//! `/hold?FILE` waits until FILE exists, `/abort` dies, `/exit?CODE` exits.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use handoff::GenerationId;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;

use crate::bodily;

/// What every connection of this worker sees.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) generation: GenerationId,
    pub(crate) in_flight: AtomicU64,
    pub(crate) lease: watch::Sender<Option<u64>>,
    pub(crate) draining: watch::Sender<bool>,
    /// Set to a code by a client that wants this worker to exit.
    pub(crate) exit: watch::Sender<Option<u8>>,
    /// Each request of such a number is lost.
    pub(crate) loses: Option<u64>,
    pub(crate) asked: AtomicU64,
}

/// Serves one connection to its end.
pub(crate) async fn connection(mut io: impl AsyncRead + AsyncWrite + Unpin, facts: Arc<Facts>) {
    let mut draining = facts.draining.subscribe();
    let mut unread = Vec::new();
    // Who is accepted while the worker drains is a newcomer to be served.
    let mut owed = *draining.borrow();
    loop {
        let request = tokio::select! {
            request = receive(&mut io, &mut unread) => request,
            // Between two requests there is nothing to finish.
            _ = draining.wait_for(|draining| *draining), if !owed => return,
        };
        owed = false;
        let Some(path) = request else { return };
        let number = facts.asked.fetch_add(1, Ordering::Relaxed) + 1;
        if facts.loses.is_some_and(|each| number.is_multiple_of(each)) {
            return;
        }
        facts.in_flight.fetch_add(1, Ordering::Relaxed);
        act(&path, &facts).await;
        let closes = *facts.draining.borrow();
        let sent = io.write_all(&answer(&facts, closes)).await;
        facts.in_flight.fetch_sub(1, Ordering::Relaxed);
        if closes || sent.is_err() {
            return;
        }
    }
}

/// Receives one request whole and returns its path.
async fn receive(io: &mut (impl AsyncRead + Unpin), unread: &mut Vec<u8>) -> Option<String> {
    let end = loop {
        if let Some(at) = unread.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if io.read_buf(unread).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&unread[..end]).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.map_or(Some(0), |length| length.trim().parse().ok())?;
    let path = String::from_utf8_lossy(&unread[..end]).split(' ').nth(1)?.to_owned();
    while unread.len() < end + length {
        if io.read_buf(unread).await.ok()? == 0 {
            return None;
        }
    }
    unread.drain(..end + length);
    Some(path)
}

async fn act(path: &str, facts: &Facts) {
    match path.split_once('?').unwrap_or((path, "")) {
        ("/hold", file) => bodily::exists(Path::new(file)).await,
        ("/abort", _) => {
            bodily::die();
        }
        ("/exit", code) => {
            facts.exit.send_replace(code.parse().ok());
        }
        _ => {}
    }
}

fn answer(facts: &Facts, closes: bool) -> Vec<u8> {
    let body = serde_json::json!({
        "generation": facts.generation,
        "pid": std::process::id(),
        "lease": *facts.lease.borrow(),
    })
    .to_string();
    let connection = if closes { "close" } else { "keep-alive" };
    format!(
        "HTTP/1.1 200 OK\r\nx-holdfast-generation: {}\r\nconnection: {connection}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        facts.generation,
        body.len(),
    )
    .into_bytes()
}
