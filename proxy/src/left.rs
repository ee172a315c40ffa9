//! A program that crashed again and again, and was left for the one that had served well before: what the operator is
//! told of that.

use std::time::Instant;

use handoff::message::millis;
use serde::{Deserialize, Serialize};
use tracing::error;

use crate::control::document::LeftProgram;
use crate::event::CRASH_LOOP;
use crate::program::Program;

/// Which program was left, for which, why and when.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Left {
    program: String,
    back_to: String,
    reason: String,
    #[serde(with = "crate::age")]
    at: Instant,
}

impl Left {
    /// `from` is left for `to`, for it `reason` the last time.
    pub(crate) fn now(from: &Program, to: &Program, reason: &str) -> Self {
        let (mut program, back_to) = (from.to_string(), to.to_string());
        error!(
            program,
            back_to,
            reason,
            lives = CRASH_LOOP,
            "a crash loop: back to the previous program"
        );
        if program == back_to {
            // Which ones is not told: they may hold secrets.
            program.push_str(" with other arguments or another environment");
        }
        Self { program, back_to, reason: reason.to_owned(), at: Instant::now() }
    }

    /// The same for status.
    pub(crate) fn told(&self) -> LeftProgram {
        LeftProgram {
            program: self.program.clone(),
            back_to: self.back_to.clone(),
            reason: self.reason.clone(),
            age_ms: millis(self.at.elapsed()),
        }
    }
}
