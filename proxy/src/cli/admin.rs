//! `holdfast admin`: the status page and the metrics, as a process beside the front.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use clap::Args;
use handoff::chain;

use super::{Control, Failed, configuration};
use crate::admin::flags::{AdminFlags, AdminRefused};
use crate::admin::keeper::OF_FRONT;
use crate::admin::server::{self, Origin, ServeFailed};
use crate::log::Log;

/// Where the page is unless told otherwise.
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 18790);

/// Serve the status page and the metrics of a front that runs: what `run --admin` has the front start.
///
/// Started by itself it stays when the front goes, says so, and finds the next one [default address: 127.0.0.1:18790].
#[derive(Debug, Args)]
pub(super) struct Admin {
    #[command(flatten)]
    flags: AdminFlags,
    #[command(flatten)]
    log: Log,
    /// The front that started this process, with a listening socket as its stdin
    #[arg(long = OF_FRONT.split_at(2).1, value_name = "PID", hide = true)]
    of_front: Option<i32>,
}

impl Admin {
    pub(super) async fn perform(mut self, control: &Control) -> Result<ExitCode, Failed> {
        let control = control.path()?;
        let origin = match self.of_front {
            Some(front) => Origin::Front(front),
            None => {
                let address = *self.flags.address.get_or_insert(ADDRESS);
                check(&self.flags)?;
                Origin::Own(address)
            }
        };
        self.log.start();
        match server::serve(origin, &self.flags, control).await {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(ServeFailed::Refused { source }) => Err(refused(source)),
            Err(failed) => Err(Failed::Refused { reason: chain(&failed) }),
        }
    }
}

/// Whether the page can be served as it was said.
///
/// # Errors
/// Why not.
pub(super) fn check(flags: &AdminFlags) -> Result<(), Failed> {
    flags.check().map(drop).map_err(refused)
}

/// A word that is missing is a mistake of the command line; what it names is the configuration.
pub(super) fn refused(refused: AdminRefused) -> Failed {
    match refused {
        AdminRefused::NoToken { .. } | AdminRefused::TokenAlone => {
            Failed::Usage { meant: refused.to_string() }
        }
        AdminRefused::Unreadable { .. }
        | AdminRefused::NotAToken { .. }
        | AdminRefused::Listen { .. } => configuration(refused),
    }
}
