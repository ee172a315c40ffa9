//! One call of a method that takes its time: its parameters, and the way back to who asked.

use std::sync::Arc;

use handoff::migrate::Recipient;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Refusal;
use crate::identity::Caller;
use crate::registry::Registry;
use crate::{frames, letters};

/// A call.
#[derive(Debug)]
pub(crate) struct Call {
    /// What it was called with, in the shape its method asks for.
    pub(crate) params: Value,
    /// The snapshot it began on.
    pub(crate) registry: Arc<Registry>,
    /// Who calls.
    pub(crate) caller: Caller,
    /// Who asks, as far as a connection that moved still knows.
    pub(crate) client: String,
    /// The way back.
    pub(crate) reply: Reply,
}

impl Call {
    /// The parameters as the method reads them.
    ///
    /// # Errors
    /// Never seen where the shape says the same as the type; a refusal in words then.
    pub(super) fn read<P: DeserializeOwned>(&self) -> Result<P, Refusal> {
        serde_json::from_value(self.params.clone())
            .map_err(|error| Refusal::invalid(format!("invalid params: {error}")))
    }
}

/// The way back to who asked: a connection, wherever it is served by then.
///
/// A call that ends without an answer, be it by a panic, answers that its outcome is unknown.
#[derive(Debug)]
pub(crate) struct Reply {
    to: Recipient,
    id: String,
    answered: Answered,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answered {
    NotYet,
    Finally,
}

impl Reply {
    /// The way back to this request.
    pub(crate) fn new(to: Recipient, id: String) -> Self {
        Self { to, id, answered: Answered::NotYet }
    }

    /// Answers, and will answer again.
    pub(super) fn interim(&self, payload: &impl Serialize) {
        self.to.send(letters::interim(&self.id, &frames::response(&self.id, payload)));
    }

    /// Answers for the last time.
    pub(super) fn payload(mut self, payload: &impl Serialize) {
        self.last(&frames::response(&self.id, payload));
    }

    /// Says for the last time why there is no answer.
    pub(super) fn refusal(mut self, refusal: &Refusal) {
        self.last(&frames::refusal(&self.id, refusal));
    }

    /// As [`Self::refusal`], with what is known of it all the same.
    pub(super) fn failure(mut self, payload: &impl Serialize, refusal: &Refusal) {
        self.last(&frames::failure(&self.id, payload, refusal));
    }

    /// Answers in whichever way it went.
    pub(super) fn outcome(self, outcome: Result<impl Serialize, Refusal>) {
        match outcome {
            Ok(payload) => self.payload(&payload),
            Err(refusal) => self.refusal(&refusal),
        }
    }

    fn last(&mut self, frame: &str) {
        self.answered = Answered::Finally;
        self.to.send(letters::last(&self.id, frame));
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if self.answered == Answered::NotYet {
            self.last(&frames::refusal(&self.id, &outcome_unknown()));
        }
    }
}

/// What is said of a call that somebody began and did not finish.
pub(crate) fn outcome_unknown() -> Refusal {
    Refusal::unavailable("the gateway stopped before it answered; whether it was done is unknown")
}
