//! `holdfast-worker call`: one method of a gateway, from a shell, through its restarts and takeovers.
//!
//! ```text
//! open ──► challenge ──► connect ──► request ──► answer
//!   └──────────┴── ended ──┴───────────┴── policy: again after a pause, or over
//! ```
//!
//! **Invariants**
//! - A request that may have been sent is sent again only when that is harmless: [`repeat`] says when.
//! - stdout gets the answer and nothing else, stderr one line at most.
//! - It makes no file, no directory and no token.

mod credentials;
mod destination;
mod ended;
mod exchange;
mod parameters;
mod policy;
mod repeat;

use std::io::{self, IsTerminal as _, Write as _};
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use handoff::chain;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::Instant;

use self::credentials::{Token, TokenUnreadable};
use self::destination::{Destination, NoDestination};
use self::ended::{Ended, Verdict};
use self::exchange::{Exchange, Request, Sent};
use self::parameters::{NoParameters, Parameters};
use self::policy::Next;
use self::repeat::Repeat;
use crate::state::config::{self, Environment};

/// The gateway cannot be reached, or did not answer (sysexits.h, `EX_UNAVAILABLE`).
const UNAVAILABLE: u8 = 69;
/// The command line could not be understood (sysexits.h, `EX_USAGE`).
const USAGE: u8 = 64;
/// The configuration cannot be used (sysexits.h, `EX_CONFIG`).
const CONFIG: u8 = 78;
/// The longest that one attempt may take to be connected, unless it is the last.
const OPENING: Duration = Duration::from_secs(5);

/// What is asked.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Asked {
    /// The method, as `health` or `cron.list`.
    method: String,
    /// Its parameters: JSON, `@FILE`, or `-` for stdin.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    params: String,
    /// The gateway: `ws://HOST:PORT` or `unix:/PATH`. Default: `gateway.port` of the configuration on 127.0.0.1, else
    /// port 18789.
    #[arg(long, value_name = "URL")]
    url: Option<Destination>,
    /// A file that holds the token.
    #[arg(long, value_name = "PATH")]
    token_file: Option<PathBuf>,
    /// How long all of it may take, in ms.
    #[arg(long, value_name = "MS", default_value = "10000")]
    timeout: NonZeroU64,
    /// The version of the protocol to speak.
    #[arg(long, value_name = "N", default_value = "4")]
    protocol: NonZeroU32,
    /// Print the answer as it came, on one line; it is indented only on a terminal otherwise.
    #[arg(long)]
    json: bool,
    /// Wait for the last answer of a method that first says that it has accepted, as `agent` does.
    #[arg(long)]
    expect_final: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallFailed {
    /// The parameters are none.
    #[error(transparent)]
    Parameters(NoParameters),
    /// Nobody knows where the gateway is.
    #[error(transparent)]
    Destination(NoDestination),
    /// The token cannot be read.
    #[error(transparent)]
    Token(TokenUnreadable),
    /// No event loop.
    #[error("could not start the runtime")]
    Runtime {
        /// What the kernel said.
        source: io::Error,
    },
    /// The gateway refused.
    #[error(transparent)]
    Refused(Ended),
    /// The gateway refused a client that has no token.
    #[error("no token was found; set HOLDFAST_TOKEN or name a --token-file")]
    NoToken {
        /// What the gateway said.
        source: Ended,
    },
    /// The gateway was asked, and nobody knows what it did.
    #[error("outcome unknown: {method} was sent to {destination}")]
    OutcomeUnknown {
        /// The method.
        method: String,
        /// Where.
        destination: Destination,
        /// How it ended.
        source: Ended,
    },
    /// The gateway was not asked, or asking it changes nothing.
    #[error("no answer from {destination} after {attempts}")]
    Unavailable {
        /// Where it was looked for.
        destination: Destination,
        /// How often.
        attempts: Attempts,
        /// How the last attempt ended.
        source: Ended,
    },
    /// stdout cannot be written.
    #[error("could not write the answer")]
    Output {
        /// What the kernel said.
        source: io::Error,
    },
}

impl CallFailed {
    /// What the process says of it when it exits.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(_)
            | Self::NoToken { .. }
            | Self::Runtime { .. }
            | Self::Output { .. } => 1,
            Self::Parameters(_) => USAGE,
            Self::OutcomeUnknown { .. } | Self::Unavailable { .. } => UNAVAILABLE,
            Self::Destination(_) | Self::Token(_) => CONFIG,
        }
    }
}

/// How often something was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attempts(usize);

impl std::fmt::Display for Attempts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} attempt{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}

/// Calls the method and prints its answer.
///
/// # Errors
/// [`CallFailed`]; the process should exit with its [`CallFailed::exit_code`].
pub(crate) fn call(
    asked: Asked,
    config: Option<PathBuf>,
    state_dir: Option<PathBuf>,
) -> Result<(), CallFailed> {
    let params = Parameters::read(&asked.params).map_err(CallFailed::Parameters)?;
    let environment = Environment::inherited();
    let state_dir = state_dir.or_else(|| std::env::home_dir().map(|home| home.join(".holdfast")));
    let config = config.or_else(|| state_dir.as_ref().map(|dir| dir.join(config::NAME)));
    let destination = match asked.url {
        Some(destination) => destination,
        None => Destination::configured(config.as_deref(), &environment)
            .map_err(CallFailed::Destination)?,
    };
    let token = Token::find(
        asked.token_file.as_deref(),
        state_dir.as_deref(),
        config.as_deref(),
        &environment,
    )
    .map_err(CallFailed::Token)?;
    let repeat = repeat::repeat(&asked.method, params.idempotency_key());
    let request = Request {
        method: asked.method,
        params: params.into_text(),
        token,
        protocol: asked.protocol,
        answer: if asked.expect_final { Answer::Final } else { Answer::First },
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| CallFailed::Runtime { source })?;
    let timeout = Duration::from_millis(asked.timeout.get());
    let payload = runtime.block_on(answered(&request, &destination, timeout, repeat))?;
    let look = if asked.json || !io::stdout().is_terminal() { Look::Raw } else { Look::Indented };
    print(&payload, look).map_err(|source| CallFailed::Output { source })
}

/// Which of a method's answers is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// The first.
    First,
    /// The one that does not only say that the call was accepted.
    Final,
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// As it came.
    Raw,
    /// For people.
    Indented,
}

fn print(payload: &RawValue, look: Look) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match (look, serde_json::from_str::<Value>(payload.get())) {
        (Look::Indented, Ok(value)) => writeln!(out, "{value:#}")?,
        (Look::Raw, _) | (Look::Indented, Err(_)) => writeln!(out, "{payload}")?,
    }
    out.flush()
}

/// The answer, after as many attempts as the policy allows.
async fn answered(
    request: &Request,
    destination: &Destination,
    timeout: Duration,
    repeat: Repeat,
) -> Result<Box<RawValue>, CallFailed> {
    let deadline = Instant::now().checked_add(timeout);
    // Some 30 years from now is for ever, and no clock overflows by it.
    let deadline = deadline.unwrap_or_else(|| Instant::now() + Duration::from_hours(24 * 365 * 30));
    let mut sent = Sent::Nothing;
    let mut pauses = policy::PAUSES.iter();
    let mut attempts = Attempts(0);
    loop {
        attempts.0 += 1;
        let opened_by = if pauses.len() == 0 {
            deadline
        } else {
            deadline.min(Instant::now() + OPENING.min(timeout / 3))
        };
        let mut exchange = Exchange { request, destination, opened_by, deadline, sent: &mut sent };
        let ended = match exchange.run().await {
            Ok(payload) => return Ok(payload),
            Err(ended) => ended,
        };
        let pause = match policy::next(ended.means(), sent, repeat) {
            Next::AfterPause => pauses.next().copied(),
            Next::After(pause) => Some(pause),
            Next::Never => None,
        };
        match pause {
            Some(pause) if Instant::now() + pause < deadline => tokio::time::sleep(pause).await,
            Some(_) | None => {
                return Err(over(request, destination, ended, (sent, repeat), attempts));
            }
        }
    }
}

/// What is said of the last attempt.
fn over(
    request: &Request,
    destination: &Destination,
    source: Ended,
    sent: (Sent, Repeat),
    attempts: Attempts,
) -> CallFailed {
    let destination = destination.clone();
    match (source.verdict(), sent) {
        (Verdict::Refusal, (Sent::Nothing, _)) if request.token.is_none() => {
            CallFailed::NoToken { source }
        }
        (Verdict::Refusal, _) => CallFailed::Refused(source),
        (Verdict::NoAnswer, (Sent::Request, Repeat::Keyed | Repeat::Harmful)) => {
            CallFailed::OutcomeUnknown { method: request.method.clone(), destination, source }
        }
        (Verdict::NoAnswer, _) => CallFailed::Unavailable { destination, attempts, source },
    }
}

/// Says on stderr why there is no answer.
pub(crate) fn say(failed: &CallFailed) {
    // A gateway may have written anything into its reason; it stays one line.
    let line = chain(failed).replace(['\n', '\r'], " ");
    // Nobody is left to tell when it cannot be written.
    let _ = writeln!(io::stderr().lock(), "error: {line}");
}
