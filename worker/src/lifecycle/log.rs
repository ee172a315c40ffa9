//! What a worker says of itself while it lives: on stderr, and to clients that ask for its last lines.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::args::{Args, LogFormat};
use crate::log_ring::LogRing;

/// Logs to stderr from now on, and keeps the last lines for clients.
pub(super) fn begin(args: &Args) -> LogRing {
    let ring = LogRing::default();
    let builder = tracing_subscriber::fmt()
        .with_max_level(args.log_level)
        .with_writer(io::stderr)
        // It would complain about a broken stderr on stderr, and panic because that is broken.
        .log_internal_errors(false);
    match args.log_format {
        LogFormat::Pretty => {
            builder.with_ansi(io::stderr().is_terminal()).finish().with(ring.clone()).init();
        }
        LogFormat::Json => {
            builder.json().flatten_event(true).finish().with(ring.clone()).init();
        }
    }
    ring
}
