//! The listening sockets that the front was started with: those of socket units, and those that a front before it had
//! the service manager keep. Both come as descriptors 3, 4, … (sd_listen_fds(3)).
//!
//! **Invariants**
//! - They are taken before anything else is opened, so a number that nobody gave is nobody's.
//! - One that cannot be listened on is refused and named, not passed over: its clients would wait for ever.

use std::collections::{BTreeMap, HashSet};
use std::env;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use handoff::fd_passing::MAX_DESCRIPTORS;
use handoff::socket::{Address, ListeningSocket};
use listenfd::ListenFd;
use nix::libc;
use rustix::net::{AddressFamily, SocketAddrUnix, getsockname, sockopt};

/// The number of the first one: `SD_LISTEN_FDS_START`.
const FIRST: usize = 3;
/// What a service manager calls one that has no name.
const NAMELESS: &str = "unknown";

/// Every socket that was inherited and is not taken over yet.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    sockets: Vec<Given>,
}

#[derive(Debug)]
struct Given {
    address: Address,
    name: Option<String>,
    descriptor: OwnedFd,
    inode: u64,
}

/// Why what was inherited cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotListening {
    #[error(
        "LISTEN_FDS promises {promised:?} sockets, and a worker can be given {MAX_DESCRIPTORS} at most"
    )]
    Number { promised: String },
    #[error("{given} is no TCP or Unix stream socket; the front listens on nothing else")]
    NotAStream { given: Which, source: io::Error },
    #[error("{given} does not listen; a socket unit needs Accept=no")]
    Connected { given: Which },
    #[error("{given} listens where no client can be told to connect: {family}")]
    NoAddress { given: Which, family: String },
    #[error("could not look at {given}")]
    Look { given: Which, source: io::Error },
}

/// One of the descriptors, as the service manager named it.
#[derive(Clone, Debug)]
pub(crate) struct Which {
    number: usize,
    name: Option<String>,
}

impl std::fmt::Display for Which {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "inherited descriptor {}", self.number)?;
        self.name.as_ref().map_or(Ok(()), |name| write!(f, " ({name})"))
    }
}

impl Inherited {
    /// Takes what this process was given, if anything was given to it. To be called once, before there are other
    /// descriptors and threads: the promise is taken out of the environment with it.
    ///
    /// # Errors
    /// [`NotListening`], with the descriptor.
    pub(crate) fn take() -> Result<Self, NotListening> {
        let Some(promised) = promised()? else { return Ok(Self::default()) };
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names: Vec<&str> = names.split(':').collect();
        let mut given = ListenFd::from_env();
        let mut sockets = Vec::new();
        let mut seen = HashSet::new();
        for index in 0..promised {
            let name = names.get(index).filter(|name| !name.is_empty() && **name != NAMELESS);
            let which = Which { number: FIRST + index, name: name.map(|&name| name.to_owned()) };
            let descriptor = take_stream(&mut given, index)
                .map_err(|source| NotListening::NotAStream { given: which.clone(), source })?;
            let look = |source: rustix::io::Errno| NotListening::Look {
                given: which.clone(),
                source: source.into(),
            };
            let inode = rustix::fs::fstat(&descriptor).map_err(look)?.st_ino;
            // A socket unit's that is kept by the service manager besides comes twice.
            if !seen.insert(inode) {
                continue;
            }
            if !sockopt::socket_acceptconn(&descriptor).map_err(look)? {
                return Err(NotListening::Connected { given: which });
            }
            let address = address_of(&descriptor, &which)?;
            prepare(&descriptor, &address).map_err(look)?;
            sockets.push(Given { address, name: which.name, descriptor, inode });
        }
        Ok(Self { sockets })
    }

    /// Where they listen, each address once.
    pub(crate) fn addresses(&self) -> Vec<Address> {
        let mut addresses: Vec<Address> = Vec::new();
        for socket in &self.sockets {
            if !addresses.contains(&socket.address) {
                addresses.push(socket.address.clone());
            }
        }
        addresses
    }

    /// The group of sockets that listen at this address; none when nobody gave one.
    pub(crate) fn adopt(&mut self, address: &Address, names: &mut Names) -> Vec<ListeningSocket> {
        let mut group = Vec::new();
        for given in self.sockets.extract_if(.., |given| given.address == *address) {
            if let Some(name) = given.name {
                names.known.entry(given.address.clone()).or_insert(name);
            }
            // A file that is gone is found by no client; another one is made.
            if let Address::Unix(path) = &given.address
                && !path.exists()
            {
                continue;
            }
            let shard = u32::try_from(group.len()).unwrap_or(u32::MAX);
            group.push(ListeningSocket::adopt(given.address, shard, given.descriptor));
        }
        group
    }

    /// Where the ones that nobody wants listen, and their names. Another copy of one that the front holds already, by
    /// whatever way it came to it, is none of them.
    pub(crate) fn rest(self, held: &[ListeningSocket]) -> Vec<(Address, Option<String>)> {
        let held: HashSet<u64> = held.iter().filter_map(|socket| socket.inode().ok()).collect();
        let rest = self.sockets.into_iter().filter(|given| !held.contains(&given.inode));
        rest.map(|given| (given.address, given.name)).collect()
    }
}

/// What the listening sockets are called.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    known: BTreeMap<Address, String>,
}

impl Names {
    /// The name that an address was inherited with, or one made of it.
    pub(crate) fn of(&self, address: &Address) -> String {
        let own = || match address {
            Address::Tcp(address) => format!("port-{}", address.port()),
            Address::Unix(_) => "unix".to_owned(),
        };
        self.known.get(address).cloned().unwrap_or_else(own)
    }

    /// Whether any was inherited.
    pub(crate) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

/// How many sockets this process was promised; what was meant for another one is not its own.
fn promised() -> Result<Option<usize>, NotListening> {
    let own = |pid: String| pid.parse() == Ok(std::process::id());
    if !env::var("LISTEN_PID").is_ok_and(own) {
        return Ok(None);
    }
    let Ok(promised) = env::var("LISTEN_FDS") else { return Ok(None) };
    match promised.parse() {
        Ok(number) if number <= MAX_DESCRIPTORS => Ok(Some(number)),
        _ => Err(NotListening::Number { promised }),
    }
}

fn take_stream(given: &mut ListenFd, index: usize) -> io::Result<OwnedFd> {
    let gone = || io::Error::other("it was taken already");
    // Of TCP, both families.
    let tcp = given.take_custom(index, libc::AF_INET, libc::SOCK_STREAM, "TCP socket");
    match tcp {
        Ok(socket) => socket.ok_or_else(gone),
        Err(_) => given
            .take_custom(index, libc::AF_UNIX, libc::SOCK_STREAM, "stream socket")?
            .ok_or_else(gone),
    }
}

fn address_of(descriptor: &OwnedFd, given: &Which) -> Result<Address, NotListening> {
    let look = |source| NotListening::Look { given: given.clone(), source };
    let local = getsockname(descriptor).map_err(|source| look(source.into()))?;
    if local.address_family() == AddressFamily::UNIX {
        let local = SocketAddrUnix::try_from(local).map_err(|source| look(source.into()))?;
        let path = local.path_bytes().filter(|path| path.first() == Some(&b'/'));
        let no_path = || "an abstract, relative or missing Unix address".to_owned();
        let path = path
            .ok_or_else(|| NotListening::NoAddress { given: given.clone(), family: no_path() })?;
        return Ok(Address::Unix(PathBuf::from(std::ffi::OsStr::from_bytes(path))));
    }
    let local = SocketAddr::try_from(local).map_err(|source| look(source.into()))?;
    Ok(Address::Tcp(local))
}

/// Has it behave as one that the front opened.
fn prepare(descriptor: &OwnedFd, address: &Address) -> rustix::io::Result<()> {
    // Workers wait for it by epoll.
    rustix::io::ioctl_fionbio(descriptor.as_fd(), true)?;
    match address {
        // Accepted connections inherit it.
        Address::Tcp(_) => sockopt::set_tcp_nodelay(descriptor, true),
        Address::Unix(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening() -> ListeningSocket {
        let any: Address = "127.0.0.1:0".parse().unwrap();
        ListeningSocket::open(&any, 1, 0o600).unwrap().remove(0)
    }

    fn given(sockets: &[&ListeningSocket]) -> Inherited {
        let given = |socket: &&ListeningSocket| Given {
            address: socket.address.clone(),
            name: Some("web".into()),
            descriptor: socket.duplicate().unwrap(),
            inode: socket.inode().unwrap(),
        };
        Inherited { sockets: sockets.iter().map(given).collect() }
    }

    #[test]
    fn what_is_adopted_keeps_its_name_and_its_inode() {
        let (first, second) = (listening(), listening());
        let (mut inherited, mut names) = (given(&[&first, &second]), Names::default());
        assert_eq!(inherited.addresses(), [first.address.clone(), second.address.clone()]);
        let adopted = inherited.adopt(&first.address, &mut names);
        assert_eq!(adopted[0].inode().unwrap(), first.inode().unwrap());
        assert_eq!(names.of(&first.address), "web");
        assert!(names.of(&second.address).starts_with("port-"));
        assert!(inherited.adopt(&first.address, &mut names).is_empty());
        assert_eq!(inherited.rest(&adopted), [(second.address.clone(), Some("web".into()))]);
    }

    #[test]
    fn a_copy_of_what_the_front_holds_already_is_not_unwanted() {
        let (held, other) = (listening(), listening());
        let rest = given(&[&held, &other]).rest(&[held]);
        assert_eq!(rest, [(other.address.clone(), Some("web".into()))]);
    }
}
