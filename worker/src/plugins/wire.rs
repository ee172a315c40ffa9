//! The words of the worker and a plugin: JSON-RPC 2.0, one message a line.
//!
//! ```text
//! worker ─► initialize, call, run, health, shutdown (answered); cancel
//! plugin ─► answers; delta
//! ```
//!
//! **Invariants**
//! - What a plugin says is read from bytes that it chose: nothing of it makes this panic, and what is kept
//!   of an error for clients is bounded.
//! - A notification that is not known is skipped: the plugin may be made for a newer worker.

use serde::de::Deserializer;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The version that `initialize` says.
pub(super) const PROTOCOL: u32 = 1;
/// A message of JSON-RPC is no request.
const METHOD_NOT_FOUND: i64 = -32601;
/// Of a plugin's error message, so many characters are passed on.
const LONGEST_MESSAGE: usize = 1000;

/// A request's line.
pub(super) fn request(id: u64, method: &str, params: &impl Serialize) -> String {
    #[derive(Serialize)]
    struct Request<'a, P> {
        jsonrpc: &'static str,
        id: u64,
        method: &'a str,
        params: &'a P,
    }
    line(&Request { jsonrpc: "2.0", id, method, params })
}

/// A notification's line.
pub(super) fn notification(method: &str, params: &impl Serialize) -> String {
    #[derive(Serialize)]
    struct Notification<'a, P> {
        jsonrpc: &'static str,
        method: &'a str,
        params: &'a P,
    }
    line(&Notification { jsonrpc: "2.0", method, params })
}

/// The answer to a request of a plugin's: there is nothing that it could ask for.
pub(super) fn not_found(id: &RawValue) -> String {
    #[derive(Serialize)]
    struct Answer<'a> {
        jsonrpc: &'static str,
        id: &'a RawValue,
        error: Error,
    }
    #[derive(Serialize)]
    struct Error {
        code: i64,
        message: &'static str,
    }
    let error = Error { code: METHOD_NOT_FOUND, message: "plugins are asked, and do not ask" };
    line(&Answer { jsonrpc: "2.0", id, error })
}

fn line(message: &impl Serialize) -> String {
    // JSON has its line breaks escaped.
    let mut line = crate::frames::written(message);
    line.push('\n');
    line
}

/// What a plugin has said.
#[derive(Debug)]
pub(super) enum Said {
    /// The answer to a request of ours.
    Answer { id: u64, answer: Result<Box<RawValue>, Fault> },
    /// More of what a run says.
    Delta { run: u64, text: String },
    /// A request of its own.
    Request { id: Box<RawValue> },
    /// A notification that is not known here.
    Nothing,
}

/// Why a plugin did not do as it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// As JSON-RPC numbers them.
    pub(super) code: i64,
    /// In words.
    pub(super) message: String,
}

impl Fault {
    /// Whether the request was right and the moment wrong: JSON-RPC's internal error, and the numbers that
    /// it leaves to servers.
    pub(super) fn is_passing(&self) -> bool {
        self.code == -32603 || (-32099..=-32000).contains(&self.code)
    }
}

/// A line that is no message.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotAMessage {
    /// Not JSON, or no message of JSON-RPC.
    #[error("it is no message")]
    Json {
        /// Why.
        source: serde_json::Error,
    },
    /// An object that is neither a request nor an answer.
    #[error("it is neither a request nor an answer to one")]
    Shapeless,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    id: Option<Box<RawValue>>,
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    params: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "whatever_it_is")]
    result: Option<Box<RawValue>>,
    #[serde(default)]
    error: Option<ErrorObject>,
}

#[derive(Deserialize)]
struct ErrorObject {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Delta {
    run: u64,
    text: String,
}

/// `null` is a result like any other.
fn whatever_it_is<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(from).map(Some)
}

/// Reads a line without its end.
///
/// # Errors
/// [`NotAMessage`].
pub(super) fn read(line: &[u8]) -> Result<Said, NotAMessage> {
    let message: Message =
        serde_json::from_slice(line).map_err(|source| NotAMessage::Json { source })?;
    match message {
        Message { method: Some(_), id: Some(id), .. } => Ok(Said::Request { id }),
        Message { method: Some(name), params, .. } => Ok(match (&*name, params) {
            ("delta", Some(params)) => {
                let Delta { run, text } = serde_json::from_str(params.get())
                    .map_err(|source| NotAMessage::Json { source })?;
                Said::Delta { run, text }
            }
            _ => Said::Nothing,
        }),
        Message { id: Some(id), result, error, .. } => {
            let id =
                serde_json::from_str(id.get()).map_err(|source| NotAMessage::Json { source })?;
            let answer = match (result, error) {
                (_, Some(ErrorObject { code, message })) => {
                    let message = message.chars().take(LONGEST_MESSAGE).collect();
                    Err(Fault { code, message })
                }
                (Some(result), None) => Ok(result),
                (None, None) => return Err(NotAMessage::Shapeless),
            };
            Ok(Said::Answer { id, answer })
        }
        Message { method: None, id: None, .. } => Err(NotAMessage::Shapeless),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn answer(line: &str) -> Result<String, Fault> {
        match read(line.as_bytes()).unwrap() {
            Said::Answer { id: 7, answer } => answer.map(|result| result.get().to_owned()),
            other => panic!("{other:?} is no answer"),
        }
    }

    #[test]
    fn what_is_said_is_a_line() {
        let said = request(7, "call", &json!({"params": "a\nb"}));
        assert_eq!(said.matches('\n').count(), 1);
        let read: Value = serde_json::from_str(&said).unwrap();
        let expected = json!({
            "jsonrpc": "2.0", "id": 7, "method": "call", "params": {"params": "a\nb"},
        });
        assert_eq!(read, expected);
        assert!(notification("cancel", &json!({"id": 7})).ends_with("}\n"));
    }

    #[test]
    fn an_answer_has_a_result_whatever_it_is_or_an_error() {
        assert_eq!(answer("{\"id\": 7, \"result\": null}").unwrap(), "null");
        assert_eq!(answer("{\"id\": 7, \"result\": {\"a\": [1]}}").unwrap(), "{\"a\": [1]}");
        let fault = answer("{\"id\": 7, \"error\": {\"code\": -32602, \"message\": \"no\"}}");
        assert_eq!(fault, Err(Fault { code: -32602, message: "no".to_owned() }));
        let long = json!({"id": 7, "error": {"message": "ä".repeat(5000)}}).to_string();
        assert_eq!(answer(&long).unwrap_err().message.chars().count(), LONGEST_MESSAGE);
        for line in ["", "7", "[]", "{}", "{\"id\": 7}", "{\"id\": \"7\", \"result\": 1}", "\u{0}"]
        {
            assert!(read(line.as_bytes()).is_err(), "{line}");
        }
        assert!(read(b"\xff\xfe").is_err());
    }

    #[test]
    fn faults_of_the_server_pass_and_those_of_the_caller_stay() {
        let passing = |code| Fault { code, message: String::new() }.is_passing();
        assert!([-32603, -32000, -32099].into_iter().all(passing));
        assert!(![-32602, -32601, -32700, -32100, -31999, 0, 1].into_iter().any(passing));
    }

    #[test]
    fn a_delta_is_heard_and_unknown_notifications_are_skipped() {
        let delta =
            b"{\"method\": \"delta\", \"params\": {\"run\": 3, \"text\": \"hi\", \"new\": 1}}";
        assert!(matches!(read(delta).unwrap(), Said::Delta { run: 3, text } if text == "hi"));
        assert!(matches!(read(b"{\"method\": \"dance\"}").unwrap(), Said::Nothing));
        let Said::Request { id } = read(b"{\"method\": \"x\", \"id\": \"a\"}").unwrap() else {
            panic!()
        };
        assert!(not_found(&id).contains("\"id\":\"a\""));
    }

    #[test]
    fn whatever_a_plugin_says_is_read_or_refused() {
        use proptest::prelude::*;
        let config =
            proptest::test_runner::Config { failure_persistence: None, ..Default::default() };
        let mut runner = proptest::test_runner::TestRunner::new(config);
        let bytes = proptest::collection::vec(any::<u8>(), 0..200);
        runner
            .run(&bytes, |bytes| {
                let _ = read(&bytes);
                Ok(())
            })
            .unwrap();
        let words = proptest::sample::select(vec![
            "{",
            "}",
            "\"id\"",
            ":",
            "1",
            ",",
            "\"method\"",
            "\"delta\"",
            "\"result\"",
            "null",
            "\"error\"",
            "\"params\"",
            "[",
            "]",
            "-1",
            "1e99",
            "\"\\ud800\"",
        ]);
        runner
            .run(&proptest::collection::vec(words, 0..16), |words| {
                let _ = read(words.concat().as_bytes());
                Ok(())
            })
            .unwrap();
        runner
            .run(&(any::<u64>(), ".*"), |(run, text)| {
                let params = json!({"run": run, "text": text});
                let line = notification("delta", &params);
                let Ok(Said::Delta { run: heard, text: words }) = read(line.trim_end().as_bytes())
                else {
                    panic!("{line}");
                };
                prop_assert_eq!((heard, words), (run, text));
                Ok(())
            })
            .unwrap();
    }
}
