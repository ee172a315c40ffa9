//! systemd's side of a service: the socket that it is notified by, and the descriptors that it passes on.
//!
//! **Invariants**
//! - Everything that arrives is read at once, so nothing is lost because a test was at something else.

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use handoff::fd_passing;
use handoff::link;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::task::JoinHandle;

use super::binaries;
use super::patience::eventually;
use super::setup::Setup;

/// The variable that names the socket.
const VARIABLE: &str = "NOTIFY_SOCKET";
/// The longest message that is read.
const LONGEST: usize = 4096;

/// Somebody who plays systemd.
#[derive(Debug)]
pub struct ServiceManager {
    name: String,
    heard: Arc<Mutex<Vec<Notice>>>,
    reader: JoinHandle<()>,
}

/// One message.
#[derive(Clone, Debug)]
pub struct Notice {
    /// Its assignments.
    pub lines: Vec<String>,
    /// What came with it.
    pub descriptors: Vec<Arc<OwnedFd>>,
    /// When it was read.
    pub at: Instant,
}

impl Notice {
    /// Whether it makes this assignment.
    #[must_use]
    pub fn says(&self, assignment: &str) -> bool {
        self.lines.iter().any(|line| line == assignment)
    }

    /// What it assigns to this name.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    }
}

impl ServiceManager {
    /// Begins to listen, at an abstract address.
    ///
    /// # Panics
    /// When there is no socket to be had.
    #[must_use]
    pub fn start() -> Self {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None);
        let socket = socket.expect("a socket can be opened");
        // No name at all asks for one (unix(7), "Autobind feature").
        bind(&socket, &SocketAddrUnix::new_unnamed()).expect("the kernel has a name left");
        let socket = std::os::unix::net::UnixDatagram::from(socket);
        let address = socket.local_addr().expect("it has an address");
        let name = address.as_abstract_name().expect("it is abstract").to_vec();
        let name = String::from_utf8(name).expect("the kernel's names are hexadecimal");
        let socket = UnixDatagram::from_std(socket).expect("it can be waited for");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let reader = tokio::spawn(read(socket, Arc::clone(&heard)));
        Self { name: format!("@{name}"), heard, reader }
    }

    /// Starts the front as its service.
    #[must_use]
    pub fn serves(&self, setup: Setup) -> Setup {
        setup.environment(VARIABLE, &self.name)
    }

    /// Everything it was told up to now, in order.
    #[must_use]
    pub fn heard(&self) -> Vec<Notice> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends once so many messages make this assignment, with all there were until then.
    pub async fn told(&self, assignment: &str, times: usize) -> Vec<Notice> {
        eventually(&format!("{assignment} is told {times} times"), async || {
            let heard = self.heard();
            let told = heard.iter().filter(|notice| notice.says(assignment)).count();
            (told >= times).then_some(heard)
        })
        .await
    }

    /// The last word it was told by this name.
    #[must_use]
    pub fn last(&self, name: &str) -> Option<String> {
        self.heard().iter().rev().find_map(|notice| notice.value(name).map(str::to_owned))
    }

    /// What it was given to keep under each name.
    #[must_use]
    pub fn kept(&self) -> Vec<(String, Vec<Arc<OwnedFd>>)> {
        let stores = self.heard().into_iter().filter(|notice| notice.says("FDSTORE=1"));
        stores
            .map(|n| (n.value("FDNAME").unwrap_or_default().to_owned(), n.descriptors.clone()))
            .collect()
    }
}

impl Drop for ServiceManager {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn read(socket: UnixDatagram, heard: Arc<Mutex<Vec<Notice>>>) {
    loop {
        let mut buffer = [0; LONGEST];
        let received = socket
            .async_io(Interest::READABLE, || fd_passing::receive(&socket, &mut buffer))
            .await
            .expect("a message can be read");
        let text = String::from_utf8_lossy(&buffer[..received.bytes]).into_owned();
        let notice = Notice {
            lines: text.lines().map(str::to_owned).collect(),
            descriptors: received.descriptors.into_iter().map(Arc::new).collect(),
            at: Instant::now(),
        };
        heard.lock().unwrap_or_else(PoisonError::into_inner).push(notice);
    }
}

/// Starts the front with these descriptors as 3, 4, … and the names of them, as a socket unit does.
///
/// # Panics
/// When they cannot be passed on.
#[must_use]
pub fn inheriting(setup: Setup, descriptors: &[&OwnedFd], names: &str) -> Setup {
    let (ours, theirs) = link::pair().expect("a pair can be had");
    let ours = std::os::unix::net::UnixDatagram::from(ours);
    let descriptors: Vec<_> = descriptors.iter().map(|descriptor| descriptor.as_fd()).collect();
    fd_passing::send(&ours, &[0], &descriptors).expect("there is room for one packet");
    let holdfast = binaries::holdfast();
    let holdfast = holdfast.to_str().expect("its path is plain");
    // What gives a program its descriptors, and says in LISTEN_PID which process it is, works for this one too.
    setup
        .wrapped_in(&[holdfast, "adapter-stage", "--descriptors", "1024", "--"])
        .stdin(theirs)
        .environment("LISTEN_FDS", descriptors.len().to_string())
        .environment("LISTEN_FDNAMES", names)
}
