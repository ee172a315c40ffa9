//! How a long-lived `holdfast` writes its log: the front, and the adapters it starts.

use std::ffi::OsString;
use std::io::IsTerminal as _;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use tracing::error;
use tracing::level_filters::LevelFilter;

use crate::outlet::{self, Outlet};

#[derive(Clone, Debug, Args, Serialize, Deserialize)]
pub(crate) struct Log {
    /// How the front writes its log, on stderr
    #[arg(long, value_name = "FORMAT", env = "HOLDFAST_LOG_FORMAT", default_value = "pretty")]
    log_format: LogFormat,
    /// How much the front writes in its log: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", env = "HOLDFAST_LOG_LEVEL", default_value = "info")]
    #[serde(with = "level")]
    log_level: LevelFilter,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, ValueEnum)]
enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

impl Log {
    /// Begins to write it.
    pub(crate) fn start(&self) {
        let Ok(outlet) = Outlet::beside(std::io::stderr()) else { return };
        let outlet = outlet::LOG.get_or_init(|| outlet);
        let log = tracing_subscriber::fmt()
            .with_writer(move || outlet)
            .with_max_level(self.log_level)
            .with_target(false)
            // Where stderr is broken, complaining about it there would panic.
            .log_internal_errors(false);
        match self.log_format {
            LogFormat::Pretty => {
                let colour = std::io::stderr().is_terminal()
                    && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
                log.with_ansi(colour).init();
            }
            LogFormat::Json => log.json().flatten_event(true).init(),
        }
        std::panic::set_hook(Box::new(|panic| error!(%panic, "panicked")));
    }

    /// The words that say the same on a command line.
    pub(crate) fn words(&self) -> Vec<OsString> {
        let format = match self.log_format {
            LogFormat::Pretty => "pretty",
            LogFormat::Json => "json",
        };
        let level = self.log_level.to_string();
        ["--log-format".into(), format.into(), "--log-level".into(), level.into()].into()
    }
}

/// A level is a word.
mod level {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};
    use tracing::level_filters::LevelFilter;

    pub(super) fn serialize<S: Serializer>(level: &LevelFilter, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(level)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<LevelFilter, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}
