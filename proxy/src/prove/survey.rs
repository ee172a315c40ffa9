//! What the worker behind the front speaks, found out by asking it, before it is put under load.
//!
//! **Invariants**
//! - Nothing asked here costs anybody anything: no model is asked but the echo.
//! - Answers of an agent are streamed only where the echo agent gives them.

use handoff::Address;
use serde_json::json;

use super::book::{Failed, Load};
use super::clients::{self, Get, Kept};
use super::http::{By, Question};
use super::websocket::{NotLetIn, Scope, Socket};

/// The paths that are tried when none is named.
const PATHS: [&str; 2] = ["/healthz", "/"];
/// Whose model the echo agent is, and what it is called, as sessions say it.
const ECHO: (&str, &str) = ("holdfast", "echo");

/// What can be asked of the worker.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) get: Get,
    pub(super) kept: Kept,
    /// Whether answers can be streamed.
    pub(super) streams: Offer,
    /// Whether WebSockets are let in.
    pub(super) websockets: Offer,
}

/// Whether a load can be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    Yes,
    /// Not, for this reason.
    No(String),
}

/// Why there is nothing to prove.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NothingToAsk {
    #[error("GET {path} is not answered: {how}")]
    NoAnswer { path: String, how: String },
    #[error("GET {path} is answered {status}; name a path that is served with --path /PATH")]
    Status { path: String, status: u16 },
}

/// Looks at what is answered there.
pub(super) async fn survey(
    address: &Address,
    path: Option<&str>,
    token: Option<&str>,
) -> Result<Survey, NothingToAsk> {
    let (get, by) = find_path(address, path).await?;
    if path.is_some() {
        let no = || Offer::No("--path asks for plain requests alone".to_owned());
        return Ok(Survey { get, kept: Kept::Get, streams: no(), websockets: no() });
    }
    if by == By::Program {
        let no = || Offer::No("it is no worker, and its connections end with it".to_owned());
        return Ok(Survey { get, kept: Kept::Get, streams: no(), websockets: no() });
    }
    let (question, model) = clients::numbered(token, (0, 0));
    let kept = match clients::look(address, question).await {
        Ok(answer) if answer.status == 404 && clients::names(&answer, &model).is_ok() => Kept::Post,
        Ok(_) | Err(_) => Kept::Get,
    };
    let (websockets, model) = match Socket::open(address, token, Scope::Read).await {
        Ok(mut socket) => {
            let model = default_model(&mut socket).await;
            socket.close().await;
            (Offer::Yes, model)
        }
        Err(NotLetIn::Refused(reason)) => (Offer::No(reason), None),
        Err(NotLetIn::Failed(Failed { detail, .. })) => (Offer::No(detail), None),
    };
    let streams = match (kept, &model) {
        (Kept::Get, _) => Offer::No("no completions can be asked for with this token".to_owned()),
        (Kept::Post, None) => Offer::No("who would answer is not known".to_owned()),
        (Kept::Post, Some((provider, model))) if (&**provider, &**model) == ECHO => {
            echoes(address, token).await
        }
        (Kept::Post, Some((provider, model))) => {
            Offer::No(format!("{provider}/{model} would answer, and is not to be troubled"))
        }
    };
    Ok(Survey { get, kept, streams, websockets })
}

impl Survey {
    /// The loads that are not run, and why.
    pub(super) fn not_run(&self) -> Vec<(Load, String)> {
        [(Load::Stream, &self.streams), (Load::WebSocket, &self.websockets)]
            .into_iter()
            .filter_map(|(load, offer)| match offer {
                Offer::Yes => None,
                Offer::No(reason) => Some((load, reason.clone())),
            })
            .collect()
    }
}

async fn find_path(address: &Address, named: Option<&str>) -> Result<(Get, By), NothingToAsk> {
    let mut last = None;
    let tried = named.map_or_else(|| PATHS.to_vec(), |path| vec![path]);
    for path in tried {
        let path = path.to_owned();
        last = Some(match clients::look(address, Question::get(&path)).await {
            Ok(answer) if (200..400).contains(&answer.status) => {
                return Ok((Get { path, status: answer.status }, answer.by));
            }
            Ok(answer) => NothingToAsk::Status { path, status: answer.status },
            Err(failed) => {
                let how = format!("{} ({})", failed.kind.name(), failed.detail);
                NothingToAsk::NoAnswer { path, how }
            }
        });
    }
    Err(last.expect("a path was tried"))
}

/// Whether the echo agent answers in a stream.
async fn echoes(address: &Address, token: Option<&str>) -> Offer {
    let message = "is anybody there?";
    match clients::look(address, clients::spoken(token, 0, message)).await {
        Ok(answer) => match clients::streamed(&answer.body, message) {
            Ok(()) => Offer::Yes,
            Err(failed) => Offer::No(failed.detail),
        },
        Err(failed) => Offer::No(failed.detail),
    }
}

/// Who answers the main agent's sessions, as the gateway says it.
async fn default_model(socket: &mut Socket) -> Option<(String, String)> {
    let answer = socket.call("sessions", "sessions.list", json!({"limit": 1})).await.ok()?;
    let said = |name: &str| answer["payload"]["defaults"][name].as_str().map(str::to_owned);
    Some((said("modelProvider")?, said("model")?))
}
