//! What has to be there before anybody is served: addresses, a state directory, a token, a configuration and
//! the database.
//!
//! **Invariants**
//! - A worker never listens for other machines with a token that it made up by itself.

use handoff::Address;
use handoff::socket::ListeningSocket;
use tracing::warn;

use crate::args::Args;
use crate::identity::{MayGenerate, TokenInForce, TokenPlaces, TokenSource, TokenUnusable};
use crate::state::config::{self, ConfigUnusable, CurrentConfig, Environment};
use crate::state::store::OpenFailed;
use crate::state::{DirUnusable, StateDir};

/// The port of the gateway that this one is compatible with.
const DEFAULT_LISTEN: [&str; 2] = ["127.0.0.1:18789", "[::1]:18789"];

/// A part of the configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    /// The state directory.
    #[error("no state directory")]
    State {
        /// Why.
        source: DirUnusable,
    },
    /// The token.
    #[error("no token")]
    Token {
        /// Why.
        source: TokenUnusable,
    },
    /// Other machines could connect, and nobody has chosen a token.
    #[error(
        "{address} is open to other machines and no token was set; set HOLDFAST_TOKEN or gateway.auth.token, or write one to {}, or listen on 127.0.0.1",
        token_file.display()
    )]
    Exposed {
        /// The address.
        address: Address,
        /// Where a token would have been found.
        token_file: std::path::PathBuf,
    },
    /// OpenClaw's configuration.
    #[error("the configuration cannot be used")]
    Config {
        /// Why.
        source: ConfigUnusable,
    },
    /// The database.
    #[error("no database")]
    Store {
        /// Why.
        source: OpenFailed,
    },
}

impl Unusable {
    /// The readiness condition that it fails.
    pub(crate) const fn condition(&self) -> &'static str {
        match self {
            Self::State { .. } => "state-directory",
            Self::Token { .. } | Self::Exposed { .. } => "token",
            Self::Config { .. } => "config",
            Self::Store { .. } => "store",
        }
    }
}

/// Where to listen without a front: as asked, or on the loopback addresses that this machine has.
pub(crate) fn addresses(args: &Args, under_front: bool) -> Vec<Address> {
    if !args.listen.is_empty() {
        return args.listen.clone();
    }
    let mut addresses: Vec<Address> = DEFAULT_LISTEN
        .into_iter()
        .map(|address| address.parse().expect("these are addresses"))
        .collect();
    let any_port = Address::Tcp(([0, 0, 0, 0, 0, 0, 0, 1], 0).into());
    // Under a front it makes no difference.
    if !under_front && let Err(reason) = ListeningSocket::open(&any_port, 1, 0o600) {
        warn!(
            error = &reason as &dyn std::error::Error,
            "there is no IPv6 here; listening on 127.0.0.1 alone"
        );
        addresses.pop();
    }
    addresses
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Configured {
    /// Where everything is kept.
    pub(crate) state: StateDir,
    /// What clients have to show.
    pub(crate) token: TokenInForce,
    /// Where it is from.
    pub(crate) source: TokenSource,
    /// OpenClaw's configuration.
    pub(crate) config: CurrentConfig,
}

/// Opens the state directory, reads the configuration, and finds the token or generates one.
///
/// # Errors
/// [`Unusable`]; the operator has to change something.
pub(crate) fn configure(args: &Args, addresses: &[Address]) -> Result<Configured, Unusable> {
    let state =
        StateDir::open(args.state_dir.clone()).map_err(|source| Unusable::State { source })?;
    let path = args.config.clone().unwrap_or_else(|| state.path().join(config::NAME));
    let config = CurrentConfig::open(path, Environment::inherited())
        .map_err(|source| Unusable::Config { source })?;
    let exposed = addresses.iter().find(|address| !address.is_local());
    let may_generate = exposed.map_or(MayGenerate::Yes, |_| MayGenerate::No);
    let places =
        TokenPlaces { state: state.clone(), config_path: config.path().to_owned(), may_generate };
    let found =
        places.find(&config.holds().settled).map_err(|source| Unusable::Token { source })?;
    match (found, exposed) {
        (Some((token, source)), _) => {
            let token = TokenInForce::new(token, places);
            Ok(Configured { state, token, source, config })
        }
        (None, exposed) => Err(Unusable::Exposed {
            address: exposed.expect("a token is made up where nobody else connects").clone(),
            token_file: state.path().join("token"),
        }),
    }
}
