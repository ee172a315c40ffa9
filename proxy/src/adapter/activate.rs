//! `activate`: the program accepts from the shared sockets itself, which it finds as descriptors 3… with LISTEN_FDS
//! (sd_listen_fds(3)), or by `{fd}` in its arguments.
//!
//! ```text
//!            successor's program          incumbent's program
//! start ───► accepts when it can          accepts                both do, each client is served by either
//! Ready ◄─── READY=1, or it accepted a probe
//! Admit, StopAccepting: heard, and nothing to be done
//! soak       accepts                      accepts
//! Drain ──────────────────────────────────► the stop signal: accepts no more, finishes, exits
//! ```
//!
//! A program that knows nothing of Holdfast can be told one thing only, to stop, and that cannot be taken back. So it
//! is told so when nothing is rolled back any more, at `Drain`, and not at `StopAccepting`: until then the incumbent
//! is whole, and a successor that fails costs what it had itself accepted and nothing else. Nothing is lost in
//! between: the queue belongs to the socket, and whoever stops only closes its copy of that.
//!
//! **Invariants**
//! - The adapter never accepts. It keeps a copy of the shared sockets for a front that comes after its own, and only
//!   until it drains: what the front has closed is closed.
//! - Every shared socket is the program's: one that it does not take would be a queue that nobody empties, so
//!   arguments that name some of them by `{fd}` have to name all.
//! - With `stop-first` the stop signal is all there is, too: newcomers wait in the queue from then on.

use std::ffi::OsString;
use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::sync::Arc;

use handoff::limits::DescriptorLimits;
use handoff::socket::ListeningSocket;
use handoff::{Address, Connections, Report, Worker};

use super::census::{self, Count};
use super::flags::{Flags, Kind, ReadyBy};
use super::life::{self, Life, Stopped, Turn};
use super::program::{Order, replaced};
use super::readiness::{Readiness, Where};
use super::stage::FIRST;

/// Runs `command` as this generation.
///
/// # Errors
/// The exit code, when it came to nothing.
pub(super) async fn run(
    worker: Worker,
    sockets: Vec<Arc<ListeningSocket>>,
    flags: &Flags,
    command: &[OsString],
    limits: DescriptorLimits,
) -> Result<ExitCode, ExitCode> {
    let addresses: Vec<Address> = sockets.iter().map(|socket| socket.address.clone()).collect();
    let by = flags.ready_by(Kind::Activate);
    let shared = census::tcp_inodes(&sockets);
    let given = may_probe(&by, &shared).and_then(|()| given(command, &addresses, &by));
    let words = match given {
        Ok(words) => words,
        Err(refused) => return Err(life::refuse(worker, refused.to_string()).await),
    };
    let inodes = sockets.iter().filter_map(|socket| socket.inode().ok()).collect();
    let readiness =
        Readiness { by, at: Where::Shared(addresses.clone()), public: (addresses.clone(), inodes) };
    let order = Order {
        words,
        environment: vec![
            ("LISTEN_FDS".into(), sockets.len().to_string().into()),
            ("LISTEN_FDNAMES".into(), names(&addresses, flags.fd_names()).into()),
        ],
        sockets: sockets.iter().map(|socket| socket.as_fd()).collect(),
        descriptors: limits.inherited,
    };
    let begun = Life::begin(worker, order, flags, limits).await;
    drop(sockets);
    let mut life = begun?.await_ready(&readiness).await?;
    let open = Arc::new(Count::of(addresses, shared));
    let report = Arc::clone(&open);
    life.worker.on_report(move || Report {
        connections: Connections { http: report.lately(), websocket: 0 },
        ..Report::default()
    });
    match life.turn().await {
        Turn::Ended(ended) => Err(life.crashed(ended).await),
        Turn::Leaving => {
            // First the deed: on a busy machine counting takes a while.
            life.ask_to_stop();
            let before = open.lately();
            let cut = match life.stopped(|| open.now()).await {
                Stopped::InTime => 0,
                Stopped::Killed { cut } => cut,
            };
            Ok(life.leave(before.saturating_sub(cut), cut).await)
        }
    }
}

/// Why the program is not started.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Refused {
    #[error(
        "the program is given {named} of the {all} listening sockets: write {placeholders} in its arguments, listen on \
         one address, or let it read LISTEN_FDS"
    )]
    NotAll { named: usize, all: usize, placeholders: String },
    #[error(
        "{flag} finds out who accepts, which can be told of TCP only, and {address} is none: use READY=1"
    )]
    CannotProbe { flag: &'static str, address: Address },
    #[error(
        "{flag} connects to the front's sockets, and those are of another network than this process: use READY=1 or \
         --ready-after"
    )]
    OtherNetwork { flag: &'static str },
}

/// The flag that has a connection tell whether the program is ready.
const fn probe(by: &ReadyBy) -> Option<&'static str> {
    match by {
        ReadyBy::Tcp => Some("--ready-tcp"),
        ReadyBy::Http(_) => Some("--ready-http"),
        ReadyBy::Notify | ReadyBy::After(_) => None,
    }
}

/// Whether the program can be asked as it is to be; `sockets` are the inodes of those of TCP.
fn may_probe(by: &ReadyBy, sockets: &[u64]) -> Result<(), Refused> {
    match probe(by) {
        Some(flag) if census::are_elsewhere(sockets) => Err(Refused::OtherNetwork { flag }),
        _ => Ok(()),
    }
}

/// The program's words, with the numbers of its descriptors in them.
fn given(
    command: &[OsString],
    addresses: &[Address],
    by: &ReadyBy,
) -> Result<Vec<OsString>, Refused> {
    let unix = addresses.iter().find(|address| matches!(address, Address::Unix(_)));
    if let (Some(flag), Some(address)) = (probe(by), unix) {
        return Err(Refused::CannotProbe { flag, address: address.clone() });
    }
    let placeholders: Vec<(String, OsString)> = (0..addresses.len())
        .map(|index| (placeholder(index), (FIRST + index).to_string().into()))
        .collect();
    let all = placeholders.len();
    let names = |placeholder: &(String, OsString)| {
        replaced(command, std::slice::from_ref(placeholder)) != command
    };
    let named = placeholders.iter().filter(|placeholder| names(placeholder)).count();
    if named > 0 && named < all {
        let placeholders: Vec<_> = placeholders.into_iter().map(|(word, _)| word).collect();
        return Err(Refused::NotAll { named, all, placeholders: placeholders.join(" and ") });
    }
    Ok(replaced(command, &placeholders))
}

/// `{fd}` is the first socket, `{fd2}` the second.
fn placeholder(index: usize) -> String {
    if index == 0 { "{fd}".to_owned() } else { format!("{{fd{}}}", index + 1) }
}

/// What LISTEN_FDNAMES says: the names that were chosen, then those made of the addresses.
fn names(addresses: &[Address], chosen: &[String]) -> String {
    let own = |address: &Address| match address {
        Address::Tcp(address) => format!("port-{}", address.port()),
        Address::Unix(_) => "unix".to_owned(),
    };
    let name = |(index, address)| chosen.get(index).cloned().unwrap_or_else(|| own(address));
    let names: Vec<_> = addresses.iter().enumerate().map(name).collect();
    names.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(words: &[&str]) -> Vec<Address> {
        words.iter().map(|word| word.parse().unwrap()).collect()
    }

    fn given_to(words: &[&str], listen: &[&str]) -> Result<Vec<OsString>, Refused> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        given(&words, &addresses(listen), &ReadyBy::Notify)
    }

    #[test]
    fn descriptors_are_named_by_their_numbers() {
        let two = ["127.0.0.1:1", "[::1]:1"];
        assert_eq!(given_to(&["a", "--fd={fd}"], &two[..1]).unwrap(), ["a", "--fd=3"]);
        assert_eq!(given_to(&["a", "{fd},{fd2}"], &two).unwrap(), ["a", "3,4"]);
        assert_eq!(given_to(&["a", "-x"], &two).unwrap(), ["a", "-x"]);
    }

    #[test]
    fn a_program_that_is_given_some_of_the_sockets_only_is_refused() {
        let refused = given_to(&["a", "{fd}"], &["127.0.0.1:1", "[::1]:1"]).unwrap_err();
        let said = refused.to_string();
        assert!(said.contains("1 of the 2") && said.contains("{fd} and {fd2}"), "{said}");
    }

    #[test]
    fn a_probe_needs_sockets_of_which_can_be_told_who_accepts() {
        let listen = addresses(&["unix:/run/x.sock"]);
        let of = |by| given(&["a".into()], &listen, &by);
        assert!(matches!(of(ReadyBy::Tcp), Err(Refused::CannotProbe { .. })));
        assert!(of(ReadyBy::Notify).is_ok());
    }

    #[test]
    fn a_probe_needs_the_network_of_the_sockets() {
        let elsewhere = [u64::MAX];
        let refused = may_probe(&ReadyBy::Http("/".into()), &elsewhere).unwrap_err().to_string();
        assert!(refused.contains("--ready-http") && refused.contains("READY=1"), "{refused}");
        assert_eq!(may_probe(&ReadyBy::Notify, &elsewhere), Ok(()));
    }

    #[test]
    fn each_socket_has_a_name() {
        let listen = addresses(&["127.0.0.1:80", "[::1]:81", "unix:/run/x.sock"]);
        assert_eq!(names(&listen, &[]), "port-80:port-81:unix");
        assert_eq!(names(&listen, &["http".into()]), "http:port-81:unix");
    }
}
