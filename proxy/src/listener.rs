//! The listening sockets: opened once at the start of the front, closed when it stops.
//!
//! **Invariants**
//! - An address on which anybody else listens is refused before anything is opened beside it.
//! - All sockets fit into one message, so a worker gets every one of them or none.

use std::collections::HashSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use handoff::fd_passing::MAX_DESCRIPTORS;
use handoff::socket::{Address, ListeningSocket, OpenFailed, SocketFile};
use tracing::{info, warn};

/// The port of OpenClaw's gateway.
const DEFAULT_PORT: u16 = 18789;

/// The sockets, and the files of those that have one.
#[derive(Debug)]
pub(crate) struct Listeners {
    pub(crate) sockets: Vec<ListeningSocket>,
    files: Vec<SocketFile>,
}

/// Why the front cannot listen as it was told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenFailed {
    #[error("{address} is given twice")]
    Twice { address: Address },
    #[error(
        "{wanted} sockets are more than the {MAX_DESCRIPTORS} a worker can be given; use fewer shards"
    )]
    TooMany { wanted: usize },
    #[error("{address} is in use{}", by(holder.as_ref()))]
    InUse { address: Address, holder: Option<String> },
    #[error("could not open a listening socket")]
    Open { source: OpenFailed },
    #[error("could not keep hold of {address}")]
    File { address: Address, source: std::io::Error },
}

fn by(holder: Option<&String>) -> String {
    holder.map_or_else(String::new, |holder| format!(" by {holder}"))
}

impl Listeners {
    /// Opens every address, or the default ones when none is named.
    pub(crate) fn open(
        addresses: &[Address],
        shards: u32,
        unix_mode: u32,
    ) -> Result<Self, ListenFailed> {
        let wanted = addresses.len().max(1) * shards as usize;
        if wanted > MAX_DESCRIPTORS {
            return Err(ListenFailed::TooMany { wanted });
        }
        let mut listeners = Self { sockets: Vec::new(), files: Vec::new() };
        if addresses.is_empty() {
            listeners.add(&default(Ipv4Addr::LOCALHOST.into()), shards, unix_mode)?;
            let second = default(Ipv6Addr::LOCALHOST.into());
            match listeners.add(&second, shards, unix_mode) {
                Err(ListenFailed::Open { source: OpenFailed::Unavailable { .. } }) => {
                    warn!(address = %second, "this machine has no IPv6; listening on IPv4 only");
                }
                outcome => outcome?,
            }
            return Ok(listeners);
        }
        let mut seen = HashSet::new();
        for address in addresses {
            let any_port = matches!(address, Address::Tcp(a) if a.port() == 0);
            if !any_port && !seen.insert(address) {
                return Err(ListenFailed::Twice { address: address.clone() });
            }
        }
        for address in addresses {
            listeners.add(address, shards, unix_mode)?;
        }
        Ok(listeners)
    }

    /// Takes over sockets that are open already, and the files of those that have one.
    pub(crate) fn adopt(sockets: Vec<ListeningSocket>) -> Result<Self, ListenFailed> {
        let mut files = Vec::new();
        for socket in &sockets {
            if let Address::Unix(path) = &socket.address {
                files.push(own_file(path)?);
            }
        }
        Ok(Self { sockets, files })
    }

    fn add(&mut self, address: &Address, shards: u32, unix_mode: u32) -> Result<(), ListenFailed> {
        let group =
            ListeningSocket::open(address, shards, unix_mode).map_err(|source| match source {
                OpenFailed::InUse { address } => {
                    ListenFailed::InUse { holder: holder_of(&address), address }
                }
                source => ListenFailed::Open { source },
            })?;
        if let Address::Unix(path) = address {
            self.files.push(own_file(path)?);
        }
        if let Some(first) = group.first() {
            info!(address = %first.address, shards, "listening");
        }
        self.sockets.extend(group);
        Ok(())
    }

    /// Each address once, in the order they were given.
    pub(crate) fn addresses(&self) -> Vec<&Address> {
        self.sockets.iter().filter(|s| s.shard == 0).map(|s| &s.address).collect()
    }
}

fn own_file(path: &Path) -> Result<SocketFile, ListenFailed> {
    SocketFile::own(path.to_owned())
        .map_err(|source| ListenFailed::File { address: Address::Unix(path.to_owned()), source })
}

fn default(ip: IpAddr) -> Address {
    Address::Tcp(SocketAddr::new(ip, DEFAULT_PORT))
}

/// Who listens on an address, as far as this user may see: `nginx (pid 4711)`.
fn holder_of(address: &Address) -> Option<String> {
    let inodes = match address {
        Address::Tcp(address) => listening_inodes(address.port()),
        Address::Unix(path) => unix_inodes(path.to_str()?),
    };
    let links: HashSet<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        let holds = descriptors.flatten().any(|descriptor| {
            fs::read_link(descriptor.path())
                .is_ok_and(|link| link.to_str().is_some_and(|link| links.contains(link)))
        });
        if holds {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (pid {pid})", name.trim()));
        }
    }
    None
}

/// The inodes of the sockets that listen on a TCP port: state 0A of `/proc/net/tcp` (proc_pid_net(5)).
fn listening_inodes(port: u16) -> Vec<u64> {
    let port = format!(":{port:04X}");
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| {
            table.lines().filter_map(|l| listening_inode(l, &port)).collect::<Vec<_>>()
        })
        .collect()
}

fn listening_inode(line: &str, port: &str) -> Option<u64> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let listens = fields.get(1)?.ends_with(port) && *fields.get(3)? == "0A";
    if listens { fields.get(9)?.parse().ok() } else { None }
}

/// The inodes of the sockets bound to a path, from `/proc/net/unix`.
fn unix_inodes(path: &str) -> Vec<u64> {
    let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    table
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if fields.get(7) == Some(&path) { fields.get(6)?.parse().ok() } else { None }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_port_is_named() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(taken.local_addr().unwrap());
        let refused = Listeners::open(&[address], 1, 0o600).unwrap_err();
        let expected = format!("(pid {})", std::process::id());
        assert!(refused.to_string().contains(&expected), "{refused}");
    }

    #[test]
    fn an_address_given_twice_is_refused() {
        let address: Address = "127.0.0.1:1".parse().unwrap();
        let refused = Listeners::open(&[address.clone(), address], 1, 0o600).unwrap_err();
        assert!(matches!(refused, ListenFailed::Twice { .. }));
    }

    #[test]
    fn more_sockets_than_one_message_carries_are_refused() {
        let address: Address = "127.0.0.1:0".parse().unwrap();
        let refused = Listeners::open(&[address], 254, 0o600).unwrap_err();
        assert!(matches!(refused, ListenFailed::TooMany { wanted: 254 }));
    }
}
