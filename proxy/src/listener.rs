//! The listening sockets: opened once at the start of the front, inherited, or kept from a front that died; and closed
//! when it stops.
//!
//! **Invariants**
//! - What the front was given is not opened again: whoever waits in its queue is served.
//! - An address on which anybody else listens is refused before anything is opened beside it.
//! - All sockets fit into one message, so a worker gets every one of them or none.

use std::collections::HashSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use handoff::fd_passing::MAX_DESCRIPTORS;
use handoff::socket::{Address, ListeningSocket, OpenFailed, SocketFile};
use tracing::{info, warn};

use crate::recovery::Sockets;
use crate::systemd::inherited::{Inherited, Names};

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

/// Where to listen, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// None means what was inherited, or the default ones.
    pub(crate) addresses: &'a [Address],
    pub(crate) shards: u32,
    pub(crate) unix_mode: u32,
    pub(crate) files: Files,
}

/// What becomes of the file of a Unix socket when the front stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Files {
    /// It is removed.
    Removed,
    /// It stays: the service manager keeps the socket for the next front, which clients find by this file.
    Kept,
}

impl Listeners {
    /// Goes on with what workers have kept, adopts what was inherited and wanted, and opens what is wanted besides.
    pub(crate) fn open(
        wanted: Wanted<'_>,
        kept: &mut Kept,
        inherited: &mut Inherited,
        names: &mut Names,
    ) -> Result<Self, ListenFailed> {
        let given = inherited.addresses();
        let addresses = if wanted.addresses.is_empty() { &given[..] } else { wanted.addresses };
        let mut listeners = Self { sockets: Vec::new(), files: Vec::new() };
        if addresses.is_empty() {
            listeners.enough_room(2 * wanted.shards as usize)?;
            let [first, second] = defaults();
            listeners.keep_or_add(&first, kept.take(&first), wanted, kept)?;
            match listeners.keep_or_add(&second, kept.take(&second), wanted, kept) {
                Err(ListenFailed::Open { source: OpenFailed::Unavailable { .. } }) => {
                    warn!(address = %second, "this machine has no IPv6; listening on IPv4 only");
                }
                outcome => outcome?,
            }
            return Ok(listeners);
        }
        let mut seen = HashSet::new();
        for address in addresses {
            if !is_any_port(address) && !seen.insert(address) {
                return Err(ListenFailed::Twice { address: address.clone() });
            }
        }
        // An address of any port is content with what nobody else names.
        let mut groups: Vec<_> = addresses.iter().map(|address| kept.take(address)).collect();
        for (address, group) in addresses.iter().zip(&mut groups) {
            if group.is_empty() && is_any_port(address) {
                *group = kept.take_any(address);
            }
        }
        for (address, held) in addresses.iter().zip(groups) {
            let group = inherited.adopt(address, names);
            if group.is_empty() || !held.is_empty() {
                // What was inherited besides is the same sockets again: the service manager kept them too.
                listeners.enough_room(held.len().max(wanted.shards as usize))?;
                listeners.keep_or_add(address, held, wanted, kept)?;
            } else {
                listeners.enough_room(group.len())?;
                kept.opened_more = true;
                info!(%address, shards = group.len(), name = names.of(address), "listening, as inherited");
                listeners.sockets.extend(group);
            }
        }
        Ok(listeners)
    }

    /// Takes over sockets that are open already, and the files of those that `owns` them.
    pub(crate) fn adopt(
        sockets: Vec<ListeningSocket>,
        owns: impl Fn(&Address) -> bool,
    ) -> Result<Self, ListenFailed> {
        let mut files = Vec::new();
        for socket in &sockets {
            if let Address::Unix(path) = &socket.address
                && owns(&socket.address)
            {
                files.push(own_file(path)?);
            }
        }
        Ok(Self { sockets, files })
    }

    /// Whether the file of this socket goes with the front.
    pub(crate) fn owns_file(&self, socket: &ListeningSocket) -> bool {
        matches!(&socket.address, Address::Unix(path) if self.files.iter().any(|f| f.is_at(path)))
    }

    /// Whether so many more fit into a message.
    fn enough_room(&self, more: usize) -> Result<(), ListenFailed> {
        let wanted = self.sockets.len() + more;
        if wanted > MAX_DESCRIPTORS { Err(ListenFailed::TooMany { wanted }) } else { Ok(()) }
    }

    fn keep_or_add(
        &mut self,
        address: &Address,
        held: Vec<ListeningSocket>,
        wanted: Wanted<'_>,
        kept: &mut Kept,
    ) -> Result<(), ListenFailed> {
        if held.is_empty() {
            kept.opened_more = true;
            return self.add(address, wanted);
        }
        self.keep(held, wanted);
        Ok(())
    }

    fn add(&mut self, address: &Address, wanted: Wanted<'_>) -> Result<(), ListenFailed> {
        let Wanted { shards, unix_mode, files, .. } = wanted;
        let group =
            ListeningSocket::open(address, shards, unix_mode).map_err(|source| match source {
                OpenFailed::InUse { address } => {
                    ListenFailed::InUse { holder: holder_of(&address), address }
                }
                source => ListenFailed::Open { source },
            })?;
        if let (Address::Unix(path), Files::Removed) = (address, files) {
            self.files.push(own_file(path)?);
        }
        if let Some(first) = group.first() {
            info!(address = %first.address, shards, "listening");
        }
        self.sockets.extend(group);
        Ok(())
    }

    /// Goes on with the sockets of an address. Their number stays: to close one would reset who waits there.
    fn keep(&mut self, group: Vec<ListeningSocket>, wanted: Wanted<'_>) {
        let Some(first) = group.first() else { return };
        let (address, shards) = (first.address.clone(), wanted.shards);
        if let (Address::Unix(path), Files::Removed) = (&address, wanted.files) {
            match SocketFile::own(path.clone()) {
                Ok(file) => self.files.push(file),
                Err(error) => warn!(%address, %error, "its file is gone: nobody can connect there"),
            }
        }
        if matches!(address, Address::Tcp(_)) && group.len() != shards as usize {
            warn!(%address, shards = group.len(), wanted = shards, "it keeps its shards until the front is stopped");
        }
        info!(%address, shards = group.len(), "listening as before");
        self.sockets.extend(group);
    }

    /// Each address once, in the order they were given.
    pub(crate) fn addresses(&self) -> Vec<&Address> {
        self.sockets.iter().filter(|s| s.shard == 0).map(|s| &s.address).collect()
    }
}

/// Sockets that are open already, from the workers of an earlier front.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    sockets: Vec<ListeningSocket>,
    opened_more: bool,
}

impl Kept {
    pub(crate) const fn new(sockets: Vec<ListeningSocket>) -> Self {
        Self { sockets, opened_more: false }
    }

    /// Whether the workers listen where they should; what nobody wants any more is let go of.
    pub(crate) fn settle(self) -> Sockets {
        for socket in &self.sockets {
            warn!(address = %socket.address, shard = socket.shard, "not listened on any more, once the worker is replaced");
        }
        if self.opened_more || !self.sockets.is_empty() {
            Sockets::Changed
        } else {
            Sockets::AsWanted
        }
    }

    fn take(&mut self, address: &Address) -> Vec<ListeningSocket> {
        let mut group: Vec<_> =
            self.sockets.extract_if(.., |socket| socket.address == *address).collect();
        group.sort_by_key(|socket| socket.shard);
        group
    }

    /// Those of some port of the same host.
    fn take_any(&mut self, wanted: &Address) -> Vec<ListeningSocket> {
        let host = |address: &Address| match address {
            Address::Tcp(address) => Some(address.ip()),
            Address::Unix(_) => None,
        };
        let of_host = |socket: &&ListeningSocket| host(&socket.address) == host(wanted);
        let found = self.sockets.iter().find(of_host).map(|socket| socket.address.clone());
        found.map(|address| self.take(&address)).unwrap_or_default()
    }
}

/// Whether the kernel chooses the port.
fn is_any_port(address: &Address) -> bool {
    matches!(address, Address::Tcp(address) if address.port() == 0)
}

fn own_file(path: &Path) -> Result<SocketFile, ListenFailed> {
    SocketFile::own(path.to_owned())
        .map_err(|source| ListenFailed::File { address: Address::Unix(path.to_owned()), source })
}

/// Where a front listens that is not told.
pub(crate) fn defaults() -> [Address; 2] {
    [default(Ipv4Addr::LOCALHOST.into()), default(Ipv6Addr::LOCALHOST.into())]
}

fn default(ip: IpAddr) -> Address {
    Address::Tcp(SocketAddr::new(ip, DEFAULT_PORT))
}

/// Who listens on an address, as far as this user may see: `nginx (pid 4711)`.
pub(crate) fn holder_of(address: &Address) -> Option<String> {
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

    fn open(addresses: &[Address], shards: u32) -> Result<Listeners, ListenFailed> {
        let wanted = Wanted { addresses, shards, unix_mode: 0o600, files: Files::Removed };
        Listeners::open(
            wanted,
            &mut Kept::default(),
            &mut Inherited::default(),
            &mut Names::default(),
        )
    }

    #[test]
    fn the_holder_of_a_port_is_named() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(taken.local_addr().unwrap());
        let refused = open(&[address], 1).unwrap_err();
        let expected = format!("(pid {})", std::process::id());
        assert!(refused.to_string().contains(&expected), "{refused}");
    }

    #[test]
    fn an_address_given_twice_is_refused() {
        let address: Address = "127.0.0.1:1".parse().unwrap();
        let refused = open(&[address.clone(), address], 1).unwrap_err();
        assert!(matches!(refused, ListenFailed::Twice { .. }));
    }

    #[test]
    fn more_sockets_than_one_message_carries_are_refused() {
        let address: Address = "127.0.0.1:0".parse().unwrap();
        let refused = open(&[address], 254).unwrap_err();
        assert!(matches!(refused, ListenFailed::TooMany { wanted: 254 }));
    }
}
