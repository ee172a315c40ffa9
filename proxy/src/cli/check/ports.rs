//! Whether the front could listen where it should. A port is bound for an instant, and never listened on.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;

use handoff::Address;
use handoff::fd_passing::MAX_DESCRIPTORS;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, bind, socket, sockopt};

use super::finding::{Finding, Subject};
use super::{Asked, Worker, places};
use crate::control::document::Status;
use crate::listener;

/// What is found of the addresses.
pub(super) fn of(asked: &Asked, front: Option<&Status>) -> Vec<Finding> {
    let chosen = !asked.listen.is_empty();
    let addresses = if chosen { asked.listen.clone() } else { listener::defaults().to_vec() };
    let own: HashSet<_> =
        front.iter().flat_map(|front| &front.listeners).map(|l| l.address.clone()).collect();
    let mut found: Vec<_> =
        [twice(&addresses), too_many(&addresses, asked.shards)].into_iter().flatten().collect();
    if let Some(exposed) = &asked.exposed {
        let advice = "add --proxy-protocol or --trust-relay, or listen on 127.0.0.1";
        found.push(Finding::error(Subject::Listen, handoff::chain(exposed).to_string(), advice));
    }
    for address in &addresses {
        found.push(if own.contains(&address.to_string()) {
            Finding::ok(Subject::Listen, format!("{address} is held by the front that runs here"))
        } else {
            match address {
                Address::Tcp(tcp) => self::tcp(address, *tcp, chosen),
                Address::Unix(path) => unix(address, path),
            }
        });
    }
    found.extend(token(asked, &addresses));
    found
}

fn twice(addresses: &[Address]) -> Option<Finding> {
    let mut seen = HashSet::new();
    let named = |address: &&Address| !matches!(address, Address::Tcp(tcp) if tcp.port() == 0);
    let twice = addresses.iter().filter(named).find(|address| !seen.insert(*address))?;
    Some(Finding::error(Subject::Listen, format!("{twice} is given twice"), "name it once"))
}

fn too_many(addresses: &[Address], shards: u32) -> Option<Finding> {
    let of = |address: &Address| match address {
        Address::Tcp(_) => shards as usize,
        Address::Unix(_) => 1,
    };
    let wanted: usize = addresses.iter().map(of).sum();
    (wanted > MAX_DESCRIPTORS).then(|| {
        let says =
            format!("{wanted} sockets are more than the {MAX_DESCRIPTORS} a worker can be given");
        Finding::error(Subject::Listen, says, "use fewer --shards or addresses")
    })
}

fn tcp(address: &Address, tcp: SocketAddr, chosen: bool) -> Finding {
    let error = match try_bind(tcp) {
        Ok(()) => return Finding::ok(Subject::Listen, format!("{address} is free")),
        Err(error) => error,
    };
    match error {
        Errno::ADDRINUSE => in_use(address),
        Errno::ACCESS => Finding::error(
            Subject::Listen,
            format!("{address} is a port that only root may take"),
            "use one from 1024 on, a socket unit of systemd, or CAP_NET_BIND_SERVICE",
        ),
        Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT if !chosen && tcp.is_ipv6() => {
            Finding::ok(Subject::Listen, "this machine has no IPv6: IPv4 only".to_owned())
        }
        error => Finding::error(
            Subject::Listen,
            format!("{address} is not available on this machine: {}", io::Error::from(error)),
            "name one of its own addresses with --listen: `ip address` lists them",
        ),
    }
}

/// Somebody who listens there is told by this even if they share the port: this socket shares nothing.
fn try_bind(address: SocketAddr) -> Result<(), Errno> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = socket(family, SocketType::STREAM, None)?;
    // Connections that are being closed are no hindrance to a front either.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    bind(&socket, &address)
}

fn in_use(address: &Address) -> Finding {
    let by = listener::holder_of(address);
    let by = by.map_or_else(String::new, |holder| format!(" by {holder}"));
    let advice = "stop who listens there, or name another address with --listen";
    Finding::error(Subject::Listen, format!("{address} is in use{by}"), advice)
}

fn unix(address: &Address, path: &Path) -> Finding {
    use std::os::unix::fs::FileTypeExt as _;
    if let Some(finding) = places::too_long(Subject::Listen, path) {
        return finding;
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => Finding::error(
            Subject::Listen,
            format!("{} exists and is no socket", path.display()),
            "it would be left alone: remove it, or name another path with --listen",
        ),
        Ok(_) if UnixStream::connect(path).is_ok() => in_use(address),
        _ => match path.parent().map(places::writable) {
            Some(Err(error)) => Finding::error(
                Subject::Listen,
                format!("no socket can be made at {}: {error}", path.display()),
                "make its directory, or give it to the front's user",
            ),
            _ => Finding::ok(Subject::Listen, format!("{address} is free")),
        },
    }
}

/// The bundled worker makes a token up only where nobody else connects.
fn token(asked: &Asked, addresses: &[Address]) -> Option<Finding> {
    let open = addresses.iter().find(|address| !address.is_local())?;
    let variable = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let set = variable("HOLDFAST_TOKEN")
        || variable("OPENCLAW_GATEWAY_TOKEN")
        || super::super::state_directory().is_some_and(|state| state.join("token").exists());
    (asked.worker == Worker::Bundled && !set).then(|| {
        let says = format!(
            "{open} is open to other machines and no token was chosen; the worker refuses that"
        );
        let advice = "set HOLDFAST_TOKEN, unless gateway.auth.token of its configuration is set";
        Finding::warning(Subject::Token, says, advice)
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::super::finding::Grade;
    use super::*;

    fn chosen(address: &str) -> Finding {
        let address: Address = address.parse().unwrap();
        match &address {
            Address::Tcp(tcp) => self::tcp(&address, *tcp, true),
            Address::Unix(path) => unix(&address, path),
        }
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_in_use_and_they_are_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let found = chosen(&taken.local_addr().unwrap().to_string());
        assert_eq!(found.grade, Grade::Error);
        let pid = format!("(pid {})", std::process::id());
        assert!(found.says.contains(&pid) && found.advice.is_some(), "{found:?}");
    }

    #[test]
    fn a_free_port_is_free_and_stays_so() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(chosen(&address.to_string()).grade, Grade::Ok);
        TcpListener::bind(address).unwrap();
    }

    #[test]
    fn an_address_of_another_machine_is_not_available() {
        let found = chosen("192.0.2.1:1");
        assert!(found.grade == Grade::Error && found.says.contains("not available"), "{found:?}");
    }

    #[test]
    fn an_address_that_is_given_twice_and_more_sockets_than_fit_are_errors() {
        let address: Address = "127.0.0.1:1".parse().unwrap();
        assert!(twice(&[address.clone(), address.clone()]).is_some());
        let any: Address = "127.0.0.1:0".parse().unwrap();
        assert_eq!(twice(&[any.clone(), any]), None);
        assert!(too_many(std::slice::from_ref(&address), 254).is_some());
        assert_eq!(too_many(&[address], 253), None);
    }

    #[test]
    fn a_unix_socket_needs_a_free_path_in_a_directory_that_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| chosen(&format!("unix:{}", directory.path().join(name).display()));
        assert_eq!(at("free").grade, Grade::Ok);
        assert_eq!(at("missing/x").grade, Grade::Error);
        std::fs::write(directory.path().join("file"), "").unwrap();
        assert!(at("file").says.contains("no socket"));
        let listener = UnixListener::bind(directory.path().join("taken")).unwrap();
        assert!(at("taken").says.contains("in use"));
        drop(listener);
        // What a dead process left is replaced.
        assert_eq!(at("taken").grade, Grade::Ok);
        assert!(at(&"x".repeat(108)).says.contains("107 at most"));
    }
}
