//! One turn of a session: from what was said to it to the end of its answer, within its limits.
//!
//! **Invariants**
//! - A turn ends: by its answer, its failure, one of its limits, or because nobody listens any more.
//! - Who listens slowly slows it down; that time is not the program's silence, but it is the turn's.

use std::pin::pin;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::backend::Output;
use super::codec::{Answer, Heard, Usage};
use super::failure::CliFailure;
use super::session::{Event, Session};

/// What whoever asked for a turn hears of it.
#[derive(Debug)]
pub(super) enum Fragment {
    /// More of the answer.
    Text(String),
    /// The program calls the conversation this.
    Called(String),
    /// The answer is complete.
    End {
        /// What it has cost, if that is known.
        usage: Option<Usage>,
    },
    /// There is none.
    Failed(CliFailure),
}

/// What a turn may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) timeout: Duration,
    pub(super) silence: Duration,
    pub(super) bytes: usize,
    pub(super) lines: usize,
}

/// How an answer is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// It ends at its result, and the program stays.
    Live,
    /// It ends with the program.
    OneShot(Output),
}

/// How a turn has ended.
#[derive(Debug)]
pub(super) enum Over {
    /// With its answer.
    Answered,
    /// The program says that there is none, and why.
    Refused(String),
    /// Without one. Unless it is [`CliFailure::Ended`], the program is still at it.
    Failed(CliFailure),
    /// Nobody listens any more.
    Cancelled,
}

/// Listens to a turn's answer and passes it on. Not cancel-safe: the rest of the answer would be heard as the next one's.
pub(super) async fn listen(
    session: &mut Session,
    limits: Limits,
    reading: Reading,
    answer: &mut Answer,
    fragments: &mpsc::Sender<Fragment>,
) -> Over {
    let mut timeout = pin!(sleep(limits.timeout));
    let mut silence = pin!(sleep(limits.silence));
    let (mut bytes, mut lines, mut is_called) = (0, 0, false);
    let mut whole = Vec::new();
    loop {
        let event = tokio::select! {
            biased;
            () = fragments.closed() => return Over::Cancelled,
            () = &mut timeout => {
                return Over::Failed(CliFailure::Timeout { limit: limits.timeout });
            }
            event = session.next() => event,
            () = &mut silence => {
                return Over::Failed(CliFailure::NoOutput { limit: limits.silence });
            }
        };
        let heard = match event {
            Event::Complained => Heard::Nothing,
            Event::TooLong(source) => return Over::Failed(CliFailure::LineTooLong { source }),
            Event::Line(line) => {
                bytes += line.len() + 1;
                lines += 1;
                if bytes > limits.bytes {
                    return too_much(limits.bytes, "bytes");
                }
                if lines > limits.lines {
                    return too_much(limits.lines, "lines");
                }
                match reading {
                    Reading::Live | Reading::OneShot(Output::Jsonl) => answer.hear(&line),
                    Reading::OneShot(Output::Json | Output::Text) => {
                        whole.extend_from_slice(&line);
                        whole.push(b'\n');
                        Heard::Nothing
                    }
                }
            }
            Event::Gone => {
                let status = session.status().await;
                let is_done = match reading {
                    Reading::Live => false,
                    Reading::OneShot(Output::Jsonl) => answer.has_text() && status.is_success(),
                    Reading::OneShot(Output::Json | Output::Text) => status.is_success(),
                };
                if !is_done {
                    let stderr = session.complaint();
                    return Over::Failed(CliFailure::Ended { status, stderr });
                }
                match reading {
                    Reading::OneShot(Output::Json) => answer.hear_whole(&whole),
                    Reading::OneShot(Output::Text) => {
                        Heard::End(String::from_utf8_lossy(&whole).trim_end().to_owned())
                    }
                    Reading::Live | Reading::OneShot(Output::Jsonl) => Heard::End(String::new()),
                }
            }
        };
        if let Some(id) = answer.session_id().filter(|_| !is_called) {
            is_called = true;
            if fragments.send(Fragment::Called(id.to_owned())).await.is_err() {
                return Over::Cancelled;
            }
        }
        let (text, is_end) = match heard {
            Heard::Nothing => (String::new(), false),
            Heard::Text(text) => (text, false),
            Heard::End(text) => (text, true),
            Heard::Refused(said) => return Over::Refused(said),
        };
        if !text.is_empty() {
            let sent = tokio::select! {
                sent = fragments.send(Fragment::Text(text)) => sent,
                () = &mut timeout => {
                    return Over::Failed(CliFailure::Timeout { limit: limits.timeout });
                }
            };
            if sent.is_err() {
                return Over::Cancelled;
            }
        }
        if is_end {
            return Over::Answered;
        }
        silence.as_mut().reset(Instant::now() + limits.silence);
    }
}

const fn too_much(most: usize, unit: &'static str) -> Over {
    Over::Failed(CliFailure::TooMuch { most, unit })
}
