//! The clients of HTTP: each does one thing again and again, at its pace, and enters what came of it.

use std::rc::Rc;
use std::time::Duration;

use handoff::Address;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;

use super::book::{Book, Failed, Kind, Load, Use};
use super::http::{Answer, Connection, Missed, Question};

/// Where completions are asked for.
const COMPLETIONS: &str = "/v1/chat/completions";
/// How many pieces a streamed answer has.
const PIECES: u32 = 8;
/// How long the echo agent takes for each of them, in ms.
const PIECE_MS: u32 = 250;

/// What a client works with.
pub(super) struct Desk {
    /// Tells it from the others of its load.
    pub(super) number: u32,
    /// How many of its load there are.
    pub(super) of: u32,
    pub(super) address: Address,
    pub(super) token: Option<String>,
    /// What is asked for where nothing else is.
    pub(super) get: Get,
    /// Between two requests.
    pub(super) pace: Duration,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) book: Rc<Book>,
}

/// A plain request, and the status of its answer as it was found at the beginning.
#[derive(Clone, Debug)]
pub(super) struct Get {
    pub(super) path: String,
    pub(super) status: u16,
}

/// What a client asks on the connection that it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// The plain request.
    Get,
    /// `POST` of a completion by a model that does not exist: the answer names it, and nobody has to think or pay.
    Post,
}

impl Desk {
    pub(super) fn is_to_stop(&self) -> bool {
        *self.stop.borrow()
    }

    /// Ends when it is to stop. Cancel safe.
    pub(super) async fn stopped(&mut self) {
        // An error means that nobody is left to tell it.
        let _ = self.stop.wait_for(|stops| *stops).await;
    }

    /// Not all begin at the same moment.
    pub(super) fn first_pause(&self) -> Duration {
        self.pace.mul_f64(f64::from(self.number % self.of.max(1)) / f64::from(self.of.max(1)))
    }

    /// Between two requests, or until it is to stop.
    pub(super) async fn pause(&mut self) {
        self.rest(self.pace).await;
    }

    async fn rest(&mut self, pause: Duration) {
        tokio::select! {
            () = sleep(pause) => {}
            () = self.stopped() => {}
        }
    }

    /// Enters an answer that has to have this status, and be right.
    fn enter(
        &self,
        load: Load,
        answer: &Answer,
        status: u16,
        is_right: impl FnOnce(&Answer) -> Result<(), Failed>,
        connection: Use,
    ) {
        let outcome = if answer.status == status {
            is_right(answer)
        } else {
            let words = format!("answered {} instead of {status}", answer.status);
            Err(Failed::new(Kind::WrongAnswer, words))
        };
        // A stream takes as long as it is meant to.
        let latency = if load == Load::Stream { answer.head_after } else { answer.after };
        match outcome {
            Ok(()) => self.book.answered(load, latency),
            Err(failed) => self.book.failed(load, failed, connection),
        }
    }
}

/// Asks on a connection of its own, which nobody else has used: whatever ends it is a failure.
async fn ask_alone(address: &Address, question: Question) -> Result<Answer, Failed> {
    let mut connection = Connection::open(address).await?;
    match connection.ask(&question.alone()).await {
        Ok(answer) => Ok(answer),
        Err(Missed::Failed(failed)) => Err(failed),
        Err(Missed::Unsent) => Err(Failed::new(Kind::ClosedEarly, "closed before the request")),
    }
}

/// Looks at how a request is answered.
pub(super) async fn look(address: &Address, question: Question) -> Result<Answer, Failed> {
    ask_alone(address, question).await
}

/// A new connection for each request.
pub(super) async fn connect_anew(mut desk: Desk) {
    desk.rest(desk.first_pause()).await;
    while !desk.is_to_stop() {
        match ask_alone(&desk.address, Question::get(&desk.get.path)).await {
            Ok(answer) => desk.enter(Load::New, &answer, desk.get.status, |_| Ok(()), Use::Fresh),
            Err(failed) => desk.book.failed(Load::New, failed, Use::Fresh),
        }
        desk.pause().await;
    }
}

/// One connection for all requests, for as long as the server keeps it.
pub(super) async fn keep_alive(mut desk: Desk, kept: Kept) {
    desk.rest(desk.first_pause()).await;
    let (mut present, mut asked) = (None, 0_u64);
    while !desk.is_to_stop() {
        asked += 1;
        present = ask_kept(present, &desk, kept, asked).await;
        desk.pause().await;
    }
}

async fn ask_kept(
    present: Option<Connection>,
    desk: &Desk,
    kept: Kept,
    asked: u64,
) -> Option<Connection> {
    let (question, status, named) = match kept {
        Kept::Get => (Question::get(&desk.get.path), desk.get.status, None),
        Kept::Post => {
            let (question, model) = numbered(desk.token.as_deref(), (desk.number, asked));
            (question, 404, Some(model))
        }
    };
    // One that the server has closed while it was idle is no loss.
    let mut present = present.filter(Connection::is_open);
    loop {
        let mut connection = match present.take() {
            Some(connection) => connection,
            None => match Connection::open(&desk.address).await {
                Ok(connection) => connection,
                Err(failed) => {
                    desk.book.failed(Load::KeepAlive, failed, Use::Fresh);
                    return None;
                }
            },
        };
        let usage = connection.usage();
        match connection.ask(&question).await {
            Ok(answer) => {
                let is_right = |answer: &Answer| match &named {
                    Some(model) => names(answer, model),
                    None => Ok(()),
                };
                desk.enter(Load::KeepAlive, &answer, status, is_right, usage);
                return Some(connection);
            }
            // It was closed while it was idle, and nothing was asked on it.
            Err(Missed::Unsent) if usage == Use::Used => {}
            Err(Missed::Unsent) => {
                let failed = Failed::new(Kind::ClosedEarly, "closed before the first request");
                desk.book.failed(Load::KeepAlive, failed, usage);
                return None;
            }
            Err(Missed::Failed(failed)) => {
                desk.book.failed(Load::KeepAlive, failed, usage);
                return None;
            }
        }
    }
}

fn bearer(token: Option<&str>) -> String {
    format!("Bearer {}", token.unwrap_or_default())
}

/// A request for a completion that nobody gives, and the model that its refusal names.
pub(super) fn numbered(token: Option<&str>, (client, asked): (u32, u64)) -> (Question, String) {
    let model = format!("openclaw/holdfast-prove-{client}-{asked}");
    let messages = json!([{"role": "user", "content": "is anybody there?"}]);
    let body = json!({"model": model, "messages": messages}).to_string();
    let question = Question::post(COMPLETIONS, body).header("authorization", bearer(token));
    (question, model)
}

/// Whether it is the answer to this request, and not to another one.
pub(super) fn names(answer: &Answer, model: &str) -> Result<(), Failed> {
    let text = String::from_utf8_lossy(&answer.body);
    if text.contains(&format!("`{model}`")) {
        return Ok(());
    }
    Err(Failed::new(Kind::Events, format!("the answer does not name {model}: {text:.80}")))
}

/// The session in which a client's answers are streamed: the main agent answers there, whoever is the default one.
pub(super) fn session(client: u32) -> String {
    format!("agent:main:holdfast-prove-{client}")
}

/// A request for the streamed answer to a message.
pub(super) fn spoken(token: Option<&str>, client: u32, message: &str) -> Question {
    let messages = json!([{"role": "user", "content": message}]);
    let body = json!({"model": "openclaw", "stream": true, "messages": messages});
    Question::post(COMPLETIONS, body.to_string())
        .header("authorization", bearer(token))
        .header("x-openclaw-session-key", session(client))
}

/// Answers that come piece by piece, each on a connection of its own.
pub(super) async fn stream(mut desk: Desk) {
    desk.rest(desk.first_pause()).await;
    let mut asked = 0_u64;
    while !desk.is_to_stop() {
        asked += 1;
        let words = (1..=PIECES).map(|piece| format!(" {asked}.{piece}")).collect::<String>();
        let message = format!("holdfast prove{words}");
        let question = spoken(desk.token.as_deref(), desk.number, &message);
        let question = question.header("x-holdfast-echo-delay-ms", PIECE_MS.to_string());
        match ask_alone(&desk.address, question).await {
            Ok(answer) => {
                let is_right = |answer: &Answer| streamed(&answer.body, &message);
                desk.enter(Load::Stream, &answer, 200, is_right, Use::Fresh);
            }
            Err(failed) => desk.book.failed(Load::Stream, failed, Use::Fresh),
        }
        desk.pause().await;
    }
}

/// Whether the events of a stream make up what was to be said, once and in order.
pub(super) fn streamed(body: &[u8], message: &str) -> Result<(), Failed> {
    let text = String::from_utf8_lossy(body);
    let (mut said, mut ended) = (String::new(), false);
    for event in text.lines().filter_map(|line| line.strip_prefix("data: ")) {
        if event == "[DONE]" {
            ended = true;
            continue;
        }
        let event: Value = serde_json::from_str(event).map_err(|_| {
            Failed::new(Kind::WrongAnswer, format!("an event is no JSON: {event:.80}"))
        })?;
        said.push_str(event["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
    }
    if said != message {
        return Err(Failed::new(Kind::Events, format!("{message:?} was streamed as {said:?}")));
    }
    if ended { Ok(()) } else { Err(Failed::new(Kind::ClosedEarly, "a stream without its end")) }
}

#[cfg(test)]
mod tests {
    use super::super::http::By;
    use super::*;

    fn event(content: &str) -> String {
        format!("data: {}\n\n", json!({"choices": [{"delta": {"content": content}}]}))
    }

    #[test]
    fn a_stream_is_right_when_each_piece_came_once_in_order_and_then_its_end() {
        let [one, two, done] = [event("1.1"), event(" 1.2"), "data: [DONE]\n\n".to_owned()];
        let kind = |events: &[&str]| {
            streamed(events.concat().as_bytes(), "1.1 1.2").map_err(|failed| failed.kind)
        };
        assert_eq!(kind(&[&one, &two, &done]), Ok(()));
        for wrong in [&[&*one, &done][..], &[&one, &two, &two, &done], &[&two, &one, &done]] {
            assert_eq!(kind(wrong), Err(Kind::Events), "{wrong:?}");
        }
        assert_eq!(kind(&[&one, &two]), Err(Kind::ClosedEarly));
        assert_eq!(kind(&["data: {\n\n"]), Err(Kind::WrongAnswer));
    }

    #[test]
    fn an_answer_to_another_request_is_no_answer() {
        let answer = |text: &'static str| Answer {
            status: 404,
            by: By::Worker,
            body: text.into(),
            head_after: Duration::ZERO,
            after: Duration::ZERO,
        };
        assert!(
            names(&answer("The model `openclaw/a-1-2` does not exist."), "openclaw/a-1-2").is_ok()
        );
        for other in ["The model `openclaw/a-1-23` does not exist.", ""] {
            assert!(names(&answer(other), "openclaw/a-1-2").is_err(), "{other}");
        }
    }
}
