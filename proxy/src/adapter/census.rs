//! Which sockets the program holds, as the kernel lists them: who accepted a probe, who listens where, and what is
//! open.
//!
//! A program that knows nothing of Holdfast says nothing of this, and a connection to a shared socket may be
//! accepted by the incumbent as well as by the program that is asked about.
//!
//! **Invariants**
//! - The family is every process below this one. The adapter is a subreaper, so that also those that were left
//!   alone are below it; it is not of the family itself.
//! - A socket is known by its inode; one that nobody has accepted yet has none (proc_pid_net(5)).
//! - The kernel lists the sockets of this process's network. Where the front is in another one, as in another container,
//!   what is accepted is of that one, and is known by not being listed here.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use handoff::Address;
use handoff::socket::ListeningSocket;
use nix::unistd::Pid;

use crate::reap;

/// `TCP_ESTABLISHED` and `TCP_LISTEN` of include/net/tcp_states.h.
const ESTABLISHED: &str = "01";
const CLOSE_WAIT: &str = "08";
const LISTEN: &str = "0A";
/// `TCP_TIME_WAIT`: it is nobody's any more, and there may be tens of thousands of them.
const TIME_WAIT: &str = "06";

/// Who has accepted a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// It waits in the queue, or is gone.
    Nobody,
    /// A process of the family.
    Family,
    /// Another process.
    Another,
}

/// Every process below this one.
pub(crate) fn family() -> Vec<Pid> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for pid in fs::read_dir("/proc").into_iter().flatten() {
        let pid = pid.ok().and_then(|entry| entry.file_name().to_str()?.parse().ok());
        if let Some((pid, parent)) = pid.and_then(|pid| Some((pid, reap::parent_of(pid)?))) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut family = Vec::new();
    let mut next = children.remove(&Pid::this().as_raw()).unwrap_or_default();
    while let Some(pid) = next.pop() {
        next.extend(children.remove(&pid).unwrap_or_default());
        family.push(Pid::from_raw(pid));
    }
    family
}

/// Who accepted the connection between `ours` and the listening socket at `theirs`.
pub(crate) fn accepted_by(ours: SocketAddr, theirs: SocketAddr) -> Accepted {
    let entries = connected(&[ours.port()]);
    let entry = entries.into_iter().find(|entry| entry.local == theirs && entry.remote == ours);
    match entry {
        None | Some(Entry { inode: 0, .. }) => Accepted::Nobody,
        Some(entry) if held().contains(&entry.inode) => Accepted::Family,
        Some(_) => Accepted::Another,
    }
}

/// Where the family listens, apart from the sockets with the inodes in `shared`.
pub(crate) fn listens(shared: &[u64]) -> Vec<SocketAddr> {
    let held = held();
    let of_its_own = |entry: &Entry| held.contains(&entry.inode) && !shared.contains(&entry.inode);
    listening().into_iter().filter(of_its_own).map(|entry| entry.local).collect()
}

/// Whether anybody listens on an address.
pub(crate) fn is_listened_on(address: &Address) -> bool {
    listening().iter().any(|entry| covers(address, entry.local))
}

/// Whether these listening sockets are of another network than this process.
pub(crate) fn are_elsewhere(sockets: &[u64]) -> bool {
    !sockets.is_empty() && !listening().iter().any(|entry| sockets.contains(&entry.inode))
}

/// The inodes of the listening sockets that the kernel's lists here could have, which are those of TCP.
pub(crate) fn tcp_inodes(sockets: &[Arc<ListeningSocket>]) -> Vec<u64> {
    let tcp = sockets.iter().filter(|socket| matches!(socket.address, Address::Tcp(_)));
    tcp.filter_map(|socket| socket.inode().ok()).collect()
}

/// How many connections the family has open that came by these listening sockets, which are of another network: it has
/// no other sockets from there.
fn connections_from_elsewhere(listening: &[u64]) -> u64 {
    let mut foreign = held();
    for (table, column) in EVERY_TABLE {
        // A kernel without that kind of socket has no list of them.
        let table = fs::read_to_string(format!("/proc/self/net/{table}")).unwrap_or_default();
        for line in table.lines().skip(1) {
            if let Some(inode) = line.split_whitespace().nth(column).and_then(|w| w.parse().ok()) {
                foreign.remove(&inode);
            }
        }
    }
    foreign.iter().filter(|inode| !listening.contains(inode)).count() as u64
}

/// How many connections to these addresses the family has open.
fn connections(addresses: &[Address]) -> u64 {
    let port = |address: &Address| match address {
        Address::Tcp(address) => Some(address.port()),
        Address::Unix(_) => None,
    };
    let ports: Vec<u16> = addresses.iter().filter_map(port).collect();
    let held = held();
    let open = |entry: &Entry| {
        [ESTABLISHED, CLOSE_WAIT].contains(&entry.state.as_str()) && held.contains(&entry.inode)
    };
    let to_us = |entry: &Entry| addresses.iter().any(|address| covers(address, entry.local));
    connected(&ports).iter().filter(|entry| open(entry) && to_us(entry)).count() as u64
}

/// How many connections to these addresses the family has open, counted again at most a tenth of the time: a busy
/// machine has tens of thousands of sockets, and the front may ask often.
#[derive(Debug)]
pub(crate) struct Count {
    by: Clue,
    /// What was counted last, and when it may be again.
    last: Mutex<Option<(u64, Instant)>>,
}

/// What tells a connection to the shared sockets from others.
#[derive(Debug)]
enum Clue {
    Addresses(Vec<Address>),
    /// That it is of the network of these listening sockets, which is not this process's.
    Network(Vec<u64>),
}

impl Count {
    /// Of connections to these addresses, which come by listening sockets with these inodes.
    pub(crate) fn of(addresses: Vec<Address>, sockets: Vec<u64>) -> Self {
        let elsewhere = are_elsewhere(&sockets);
        let by = if elsewhere { Clue::Network(sockets) } else { Clue::Addresses(addresses) };
        Self { by, last: Mutex::new(None) }
    }

    /// As it is, or was not long ago.
    pub(crate) fn lately(&self) -> u64 {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match last {
            Some((count, again_at)) if Instant::now() < again_at => count,
            _ => self.now(),
        }
    }

    /// As it is.
    pub(crate) fn now(&self) -> u64 {
        let began_at = Instant::now();
        let count = match &self.by {
            Clue::Addresses(addresses) => connections(addresses),
            Clue::Network(sockets) => connections_from_elsewhere(sockets),
        };
        let again_at = Instant::now() + 9 * began_at.elapsed();
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((count, again_at));
        count
    }
}

/// Whether a socket at `other` would be given connections to `address`, or could.
pub(crate) fn covers(address: &Address, other: SocketAddr) -> bool {
    let Address::Tcp(address) = address else { return false };
    let (ip, other_ip) = (address.ip().to_canonical(), other.ip().to_canonical());
    let overlap = ip == other_ip
        || (ip.is_unspecified() && (ip.is_ipv6() || other_ip.is_ipv4()))
        || (other_ip.is_unspecified() && (other_ip.is_ipv6() || ip.is_ipv4()));
    address.port() == other.port() && overlap
}

/// The inodes of the sockets that the family holds.
fn held() -> HashSet<u64> {
    family()
        .into_iter()
        .filter_map(|pid| fs::read_dir(format!("/proc/{pid}/fd")).ok())
        .flat_map(|descriptors| descriptors.flatten())
        .filter_map(|descriptor| {
            let link = fs::read_link(descriptor.path()).ok()?;
            link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        })
        .collect()
}

/// A TCP socket of this network.
struct Entry {
    local: SocketAddr,
    remote: SocketAddr,
    state: String,
    inode: u64,
}

/// The kernel's lists (proc_pid_net(5)).
const TABLES: [&str; 2] = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];

/// The kernel's lists of sockets of every kind that a program may have, and in which column each has the inodes.
const EVERY_TABLE: [(&str, usize); 9] = [
    ("tcp", 9),
    ("tcp6", 9),
    ("udp", 9),
    ("udp6", 9),
    ("raw", 9),
    ("raw6", 9),
    ("unix", 6),
    ("netlink", 9),
    ("packet", 8),
];

/// The sockets that listen. They are listed first, and no more is read: what follows may be tens of thousands of
/// connections that have ended not long ago.
fn listening() -> Vec<Entry> {
    let mut listening = Vec::new();
    for table in TABLES.iter().filter_map(|table| File::open(table).ok()) {
        let lines = BufReader::new(table).lines().map_while(Result::ok).skip(1);
        let entries = lines.map_while(|line| entry(&line));
        listening.extend(entries.take_while(|entry| entry.state == LISTEN));
    }
    listening
}

/// The connections that have one of these ports at either end, and perhaps some others.
fn connected(ports: &[u16]) -> Vec<Entry> {
    let written: Vec<String> = ports.iter().map(|port| format!(":{port:04X} ")).collect();
    let mut connected = Vec::new();
    for table in TABLES.iter().filter_map(|table| fs::read_to_string(table).ok()) {
        // Of most lines no more is looked at than this.
        let lines = table.lines().filter(|line| written.iter().any(|port| line.contains(port)));
        connected.extend(lines.filter_map(entry).filter(|entry| entry.state != LISTEN));
    }
    connected
}

fn entry(line: &str) -> Option<Entry> {
    let mut fields = line.split_whitespace().skip(1);
    let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
    if state == TIME_WAIT {
        return None;
    }
    let inode = fields.nth(5)?.parse().ok()?;
    Some(Entry { local: address(local)?, remote: address(remote)?, state: state.to_owned(), inode })
}

/// `0100007F:4965`: each four bytes of the address as the number they are on this machine.
fn address(word: &str) -> Option<SocketAddr> {
    let (ip, port) = word.split_once(':')?;
    let bytes: Vec<u8> = ip
        .as_bytes()
        .chunks(8)
        .map(|word| u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok())
        .collect::<Option<Vec<u32>>>()?
        .into_iter()
        .flat_map(u32::to_ne_bytes)
        .collect();
    let ip: IpAddr = match *bytes.as_slice() {
        [a, b, c, d] => Ipv4Addr::new(a, b, c, d).into(),
        _ => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into(),
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn addresses_are_read_as_the_kernel_writes_them() {
        for place in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(place) else { continue };
            let address = listener.local_addr().unwrap();
            assert!(listening().iter().any(|e| e.local == address), "{address}");
        }
    }

    #[test]
    fn a_listening_socket_that_is_not_listed_is_of_another_network() {
        use rustix::fs::fstat;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(!are_elsewhere(&[u64::MAX, fstat(&listener).unwrap().st_ino]));
        assert!(are_elsewhere(&[u64::MAX]));
        // One that cannot be told of is as good as here.
        assert!(!are_elsewhere(&[]));
    }

    #[test]
    fn a_connection_is_nobodys_until_it_is_accepted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let ours = client.local_addr().unwrap();
        assert_eq!(accepted_by(ours, address), Accepted::Nobody);
        let _accepted = listener.accept().unwrap();
        // This process is above its family, not of it.
        assert_eq!(accepted_by(ours, address), Accepted::Another);
    }

    #[test]
    fn the_family_are_the_processes_below() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed());
        assert!(family().contains(&pid));
        assert!(!family().contains(&Pid::this()));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_wildcard_covers_what_it_would_be_given() {
        let covers =
            |ours: &str, other: &str| covers(&ours.parse().unwrap(), other.parse().unwrap());
        assert!(covers("127.0.0.1:80", "127.0.0.1:80"));
        assert!(covers("127.0.0.1:80", "0.0.0.0:80"));
        assert!(covers("127.0.0.1:80", "[::]:80"));
        assert!(covers("0.0.0.0:80", "127.0.0.1:80"));
        assert!(!covers("127.0.0.1:80", "127.0.0.1:81"));
        assert!(!covers("127.0.0.1:80", "[::1]:80"));
        assert!(!covers("[::1]:80", "0.0.0.0:80"));
    }
}
