//! Keep-alive clients that stop in the middle of what they say.

use std::time::Duration;

use tokio::time::sleep;

use super::clients::{Account, Desk};
use crate::rig::http::{HttpConnection, Request, Response};

/// Between two requests at most this long, in ms.
const PAUSE_MS: u64 = 120;
/// Between two pieces of a request at most this long, in ms.
const GAP_MS: u64 = 40;

/// How a request is sent.
enum Manner {
    /// In one piece.
    Whole,
    /// Three at once, before the first answer.
    Pipelined,
    /// Half a head, then the rest.
    SplitHead,
    /// The head and half a body, then the rest.
    SplitBody,
}

/// Posts until it is told to stop, and once more.
pub(super) async fn post(mut connection: HttpConnection, mut desk: Desk) -> Account {
    let mut account = Account::default();
    let mut sent = 0;
    loop {
        let last = desk.is_to_stop();
        let manner = match desk.random(10) {
            _ if last => Manner::Whole,
            0 => Manner::Pipelined,
            1 | 2 => Manner::SplitHead,
            3 => Manner::SplitBody,
            _ => Manner::Whole,
        };
        let requests = if matches!(manner, Manner::Pipelined) { 3 } else { 1 };
        let words: Vec<String> =
            (0..requests).map(|n| format!("client {} request {}", desk.number, sent + n)).collect();
        sent += requests;
        if let Err(failure) = send(&mut connection, &manner, &words, &mut desk).await {
            account.lost = Some(failure.to_string());
            return account;
        }
        for words in &words {
            match connection.receive().await {
                Ok(answer) => enter(&mut account, &answer, words),
                Err(failure) => {
                    account.lost = Some(failure.to_string());
                    return account;
                }
            }
            desk.was_answered();
        }
        if last {
            return account;
        }
        sleep(Duration::from_millis(desk.random(PAUSE_MS))).await;
    }
}

async fn send(
    connection: &mut HttpConnection,
    manner: &Manner,
    words: &[String],
    desk: &mut Desk,
) -> Result<(), crate::rig::http::Failure> {
    let mut bytes = Vec::new();
    let mut head_length = 0;
    for words in words {
        let request = Request::chat(words);
        let (head, body) = request.parts();
        head_length = head.len();
        bytes.extend(head);
        bytes.extend(body);
    }
    let cut = match manner {
        Manner::Whole | Manner::Pipelined => return connection.send(&bytes).await,
        Manner::SplitHead => head_length / 2,
        Manner::SplitBody => head_length.midpoint(bytes.len()),
    };
    connection.send(&bytes[..cut]).await?;
    sleep(Duration::from_millis(desk.random(GAP_MS))).await;
    connection.send(&bytes[cut..]).await
}

fn enter(account: &mut Account, answer: &Response, words: &str) {
    account.answered += 1;
    let body = answer.text();
    if answer.code != 200 {
        account.faults.push(format!("{words:?} was answered with {}: {body}", answer.code));
    } else if !body.contains(&format!("{words}\"")) {
        account.faults.push(format!("{words:?} got another's answer: {body}"));
    }
    account.told |= answer.closes();
    let generation = answer.generation();
    if account.generations.last().is_some_and(|last| *last > generation) {
        account.faults.push(format!("{words:?} went back to {generation}"));
    }
    account.generations.insert(generation);
}
