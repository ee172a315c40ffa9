//! The command line, and what overrides what: a flag its environment variable, that the default.
//!
//! **Invariants**
//! - No secret is a flag: everybody on the machine can read another process's arguments.
//! - `--listen` has no variable: a worker inherits the front's environment, not its addresses.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use handoff::Address;
use tracing::level_filters::LevelFilter;

use crate::call::Asked;
use crate::check::Check;

/// Serves an OpenClaw-compatible gateway: under a Holdfast front on the front's sockets, or by itself.
///
/// The token that clients present comes from HOLDFAST_TOKEN, else OPENCLAW_GATEWAY_TOKEN, else gateway.auth.token
/// of the configuration, else the file `token` in the state directory, which is made with a fresh token when it
/// does not exist.
///
/// Exit codes: 0 after a drain, 1 when it could not run, 64 for a command line it does not
/// understand, 75 when the front that it attached to turned it away or is not there, 78 for a configuration it cannot use.
#[derive(Debug, Parser)]
#[command(name = "holdfast-worker", version)]
pub(crate) struct Args {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// OpenClaw's configuration. Default: openclaw.json in the state directory; for `check`, the one OpenClaw would
    /// use.
    #[arg(long, global = true, env = "OPENCLAW_CONFIG_PATH", value_name = "PATH")]
    pub(crate) config: Option<PathBuf>,
    /// Where to listen: `127.0.0.1:18789`, `[::1]:18789` or `unix:/path`; may be repeated. Not used under a
    /// front. Default: port 18789 on 127.0.0.1 and ::1.
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Vec<Address>,
    /// Become a worker of the front that listens at this path (`holdfast run --attach PATH`), from another container for
    /// example: it takes over from the one that serves. Default: the front that has started it, or none.
    #[arg(long, value_name = "PATH", env = "HOLDFAST_ATTACH")]
    pub(crate) attach: Option<PathBuf>,
    /// The file with the token that such a front may ask for.
    #[arg(long, value_name = "PATH", env = "HOLDFAST_ATTACH_TOKEN_FILE")]
    pub(crate) attach_token_file: Option<PathBuf>,
    /// Where the worker keeps what it remembers. Default: ~/.holdfast.
    #[arg(long, env = "HOLDFAST_STATE_DIR", value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// How many threads serve. Default: one per core.
    #[arg(long, env = "HOLDFAST_THREADS", value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,
    /// Log each request: generation, method, path without its query, status and duration.
    #[arg(
        long,
        env = "HOLDFAST_ACCESS_LOG",
        action = ArgAction::SetTrue,
        value_parser = clap::builder::FalseyValueParser::new(),
    )]
    pub(crate) access_log: bool,
    /// Whether open connections move to the next generation at a takeover. When they do not, they are
    /// finished or told to come back.
    #[arg(long, value_enum, value_name = "WHEN", env = "HOLDFAST_MIGRATE", default_value = "on")]
    pub(crate) migrate: Migrate,
    /// How log lines look on stderr.
    #[arg(long, env = "HOLDFAST_LOG_FORMAT", value_enum, default_value_t = LogFormat::Pretty)]
    pub(crate) log_format: LogFormat,
    /// The least important level that is logged: error, warn, info, debug or trace.
    #[arg(long, env = "HOLDFAST_LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: LevelFilter,
    /// How long the echo agent thinks before each word, in ms, unless a request says otherwise by its header
    /// `x-holdfast-echo-delay-ms`.
    #[arg(long, env = "HOLDFAST_ECHO_DELAY_MS", value_name = "MS", default_value_t = 0)]
    pub(crate) echo_delay_ms: u64,
    /// How long a wait for a run leaves the database alone at first. Ends are heard of; this is for what is not.
    #[arg(
        long,
        env = "HOLDFAST_WAIT_PAUSE",
        value_parser = duration,
        default_value = "20ms",
        hide = true,
    )]
    pub(crate) wait_pause: Duration,
    /// How clients are limited.
    #[command(flatten)]
    pub(crate) limits: Limits,
    /// How programs are kept that are agents.
    #[command(flatten)]
    pub(crate) cli: KeptClis,
}

/// How long programs that are agents are kept for further turns, and how many.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct KeptClis {
    /// How many programs of each CLI backend live at most; one that has rested longest goes first, and its conversation is
    /// resumed when it has another turn.
    #[arg(long, env = "HOLDFAST_CLI_SESSIONS", value_name = "N", default_value = "16")]
    pub(crate) cli_sessions: NonZeroUsize,
    /// A program that has had no turn for this long is ended.
    #[arg(long, env = "HOLDFAST_CLI_IDLE_TIMEOUT", value_parser = duration, default_value = "10m")]
    pub(crate) cli_idle_timeout: Duration,
}

/// What to do instead of serving.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    /// Call a method of a gateway and print its answer, also while that gateway restarts.
    ///
    /// The token is that of `--token-file`, else HOLDFAST_TOKEN, else OPENCLAW_GATEWAY_TOKEN, else `gateway.auth.token`
    /// of the configuration, else the file `token` in the state directory: those of the gateway.
    ///
    /// While a gateway restarts, the call is repeated after 150, 350, 750 and 1500 ms, within --timeout: always when the
    /// request was not sent yet; when it was, only if the method changes nothing or the parameters have an
    /// `idempotencyKey`.
    ///
    /// Exit codes: 0 with the answer on stdout; 1 when the gateway refused; 64 for a command line or parameters that are
    /// wrong; 69 when the gateway could not be reached or did not answer, and "outcome unknown" on stderr if it may have
    /// done what it was asked; 78 when the token or the configuration cannot be read.
    Call(Asked),
    /// Say what is wrong with a configuration, where, and what to do. Exits 0 when it can be used, else 78.
    Check(Check),
}

/// How long clients may take and how much they may hold.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Limits {
    /// A request head that was begun and is not complete after this long is answered 408.
    #[arg(long, env = "HOLDFAST_HEADER_TIMEOUT", value_parser = duration, default_value = "10s")]
    pub(crate) header_timeout: Duration,
    /// A request body of which nothing more comes for this long is answered 408.
    #[arg(long, env = "HOLDFAST_BODY_TIMEOUT", value_parser = duration, default_value = "30s")]
    pub(crate) body_timeout: Duration,
    /// A connection without a request is closed after this long.
    #[arg(long, env = "HOLDFAST_IDLE_TIMEOUT", value_parser = duration, default_value = "75s")]
    pub(crate) idle_timeout: Duration,
    /// A WebSocket that has not connected after this long is closed.
    #[arg(long, env = "HOLDFAST_HANDSHAKE_TIMEOUT", value_parser = duration, default_value = "15s")]
    pub(crate) handshake_timeout: Duration,
    /// How often a WebSocket gets a `tick` event.
    #[arg(long, env = "HOLDFAST_TICK_INTERVAL", value_parser = interval, default_value = "30s")]
    pub(crate) tick_interval: Duration,
    /// How often a WebSocket is pinged.
    #[arg(long, env = "HOLDFAST_PING_INTERVAL", value_parser = interval, default_value = "25s")]
    pub(crate) ping_interval: Duration,
    /// How many WebSockets of one address may be open without having connected.
    #[arg(long, env = "HOLDFAST_PREAUTH_PER_ADDRESS", value_name = "N", default_value_t = 32)]
    pub(crate) preauth_per_address: u32,
    /// How many bytes may wait for a WebSocket client that does not read, before it is closed.
    #[arg(
        long,
        env = "HOLDFAST_MAX_BUFFERED_BYTES",
        value_name = "N",
        default_value_t = 52_428_800
    )]
    pub(crate) max_buffered_bytes: u64,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people; coloured on a terminal.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// Whether connections move at a takeover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Migrate {
    /// They do.
    On,
    /// They are finished, or told to come back.
    Off,
}

/// A word that was meant as a duration and is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotADuration {
    /// No number with a known unit.
    #[error("write a duration as 250ms, 10s, 5m or 1h")]
    Malformed,
    /// Nothing may be repeated without a pause.
    #[error("an interval is longer than nothing")]
    Nothing,
}

/// Reads `250ms`, `10s`, `5m` or `1h`.
fn duration(word: &str) -> Result<Duration, NotADuration> {
    let digits = word.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = word.split_at(digits);
    let number: u64 = number.parse().map_err(|_| NotADuration::Malformed)?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(NotADuration::Malformed),
    };
    // A year is for ever here, and no clock overflows by it.
    let longest = Duration::from_hours(24 * 365);
    number
        .checked_mul(unit_ms)
        .map(Duration::from_millis)
        .filter(|duration| *duration <= longest)
        .ok_or(NotADuration::Malformed)
}

/// Reads a duration that is not zero.
fn interval(word: &str) -> Result<Duration, NotADuration> {
    duration(word).and_then(|d| if d.is_zero() { Err(NotADuration::Nothing) } else { Ok(d) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_unit_and_never_without() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("5m"), Ok(Duration::from_mins(5)));
        assert_eq!(duration("1h"), Ok(Duration::from_hours(1)));
        for word in
            ["", "10", "s", "-1s", "1.5s", "10 s", "1d", "99999999999999999999s", "9999999h"]
        {
            assert_eq!(duration(word), Err(NotADuration::Malformed), "{word}");
        }
        assert_eq!(interval("0ms"), Err(NotADuration::Nothing));
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Args::command().debug_assert();
    }
}
