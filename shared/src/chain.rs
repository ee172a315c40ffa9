//! An error and everything that caused it, in one line: what a log or a refusal shows.

use std::error::Error;

/// The error's message and those of its sources, joined by `: `.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line.push_str(": ");
        line.push_str(&cause.to_string());
        source = cause.source();
    }
    line
}
