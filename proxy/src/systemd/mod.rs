//! The service manager: what the front tells it (sd_notify(3)), and what it gives the front (sd_listen_fds(3)).
//!
//! ```text
//! starting ──► READY=1 ◄──────────────── the takeover is over, either way
//!                 │                            ▲
//!                 └─► RELOADING=1 + MONOTONIC_USEC: one was asked for
//! any ──► STOPPING=1          with each: STATUS=, and EXTEND_TIMEOUT_USEC while something is waited for
//! ```
//!
//! What is told follows from what the front is, looked at after everything that happens: nothing that was told need be
//! remembered across a re-exec, and saying it again does no harm.
//!
//! **Invariants**
//! - It never holds the front up: a message that finds the queue full is sent again later.
//! - Without NOTIFY_SOCKET nothing is sent, and without WATCHDOG_USEC no timer ticks.
//! - MAINPID is never sent: the front is always the process that was started.

mod datagram;
pub(crate) mod inherited;

use std::env;
use std::io;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use handoff::socket::ListeningSocket;
use tracing::{debug, warn};

use self::datagram::Destination;
use self::inherited::Names;
use crate::age::monotonic;

/// The pause before a message that found the queue full is sent again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// How much longer than its own deadlines the front asks the service manager to wait.
const SPARE: Duration = Duration::from_secs(5);
/// The longest STATUS line, in characters.
const LONGEST_STATUS: usize = 300;

/// What the front is to its service manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No worker has served yet.
    Starting,
    /// It serves, or did and will again.
    Ready,
    /// A takeover was asked for and is not over.
    Reloading,
    /// It ends.
    Stopping,
}

/// Everything the service manager may want to know of the front at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Picture {
    pub(crate) phase: Phase,
    pub(crate) status: String,
    /// When the last of the deadlines that are set passes.
    pub(crate) waits_until: Option<Instant>,
}

/// Whether there is a service manager that could keep sockets.
pub(crate) fn is_there() -> bool {
    env::var_os("NOTIFY_SOCKET").is_some()
}

/// The service manager, if there is one.
#[derive(Debug)]
pub(crate) struct Manager {
    destination: Option<Destination>,
    /// How often it is told that the front is alive.
    ping_every: Option<Duration>,
    ping_at: Option<Instant>,
    phase: Phase,
    status: String,
    /// Until when it was asked to wait.
    asked_until: Option<Instant>,
    /// When what could not be told is told again.
    again_at: Option<Instant>,
}

impl Manager {
    /// The one that the environment names; after a re-exec it is the same.
    pub(crate) fn from_environment() -> Self {
        let destination = env::var_os("NOTIFY_SOCKET").and_then(|name| {
            Destination::named(&name)
                .inspect_err(|error| warn!(%error, "nothing is told to the service manager"))
                .ok()
        });
        let number = |name| env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
        // Set for this process, or by a service manager that does not say for which (sd_watchdog_enabled(3)).
        let is_ours = env::var_os("WATCHDOG_PID").is_none()
            || number("WATCHDOG_PID") == Some(u64::from(std::process::id()));
        let timeout = number("WATCHDOG_USEC").filter(|timeout| is_ours && *timeout > 0);
        let ping_every = timeout
            .filter(|_| destination.is_some())
            .map(|timeout| Duration::from_micros(timeout / 2).max(Duration::from_millis(1)));
        Self {
            destination,
            ping_every,
            ping_at: ping_every.map(|every| Instant::now() + every),
            phase: Phase::Starting,
            status: String::new(),
            asked_until: None,
            again_at: None,
        }
    }

    /// Whether there is one.
    pub(crate) const fn is_there(&self) -> bool {
        self.destination.is_some()
    }

    /// Whether it has been told that the front serves.
    pub(crate) fn was_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready | Phase::Reloading)
    }

    /// When [`Self::on_time`] wants to be called; never without need.
    pub(crate) fn due_at(&self) -> Option<Instant> {
        self.ping_at.into_iter().chain(self.again_at).min()
    }

    /// Says that the front is alive, when it is time for that.
    pub(crate) fn on_time(&mut self) {
        let now = Instant::now();
        if self.ping_at.is_some_and(|at| at <= now) {
            // One that is lost is followed by another before the time is up.
            self.send("WATCHDOG=1");
            self.ping_at = self.ping_every.map(|every| now + every);
        }
        if self.again_at.is_some_and(|at| at <= now) {
            self.again_at = None;
        }
    }

    /// It has asked for a reload by SIGHUP, and waits until it is told that this was heard, even if another takeover
    /// is on its way already.
    pub(crate) fn hear_reload(&mut self) {
        if self.was_ready() {
            self.phase = Phase::Ready;
            self.tell(vec![reloading()], Phase::Reloading);
        }
    }

    /// Tells what has changed.
    pub(crate) fn show(&mut self, picture: Picture) {
        let mut lines = Vec::new();
        if picture.phase != self.phase {
            lines.extend(match picture.phase {
                Phase::Starting => None,
                Phase::Ready => Some("READY=1".to_owned()),
                Phase::Reloading => Some(reloading()),
                Phase::Stopping => Some("STOPPING=1".to_owned()),
            });
        }
        // One line of its own: nothing of what a worker said becomes another assignment.
        let status: String = picture.status.chars().filter(|c| !c.is_control()).collect();
        let status: String = status.chars().take(LONGEST_STATUS).collect();
        if status != self.status {
            lines.push(format!("STATUS={status}"));
        }
        let waits = picture.phase != Phase::Ready;
        let longer = picture.waits_until.filter(|until| {
            waits && self.asked_until.is_none_or(|asked| *until > asked + SPARE / 2)
        });
        if let Some(until) = longer {
            let time = until.saturating_duration_since(Instant::now()) + SPARE;
            lines.push(format!("EXTEND_TIMEOUT_USEC={}", time.as_micros()));
        }
        if !lines.is_empty() && self.tell(lines, picture.phase) {
            self.status = status;
            self.asked_until = if waits { longer.or(self.asked_until) } else { None };
        }
    }

    /// Whether it was told; what was not is told again later.
    fn tell(&mut self, lines: Vec<String>, phase: Phase) -> bool {
        let told = self.send(&lines.join("\n"));
        if told {
            self.phase = phase;
            self.again_at = None;
        } else {
            self.again_at = Some(Instant::now() + AGAIN_AFTER);
        }
        told
    }

    fn send(&self, text: &str) -> bool {
        let Some(destination) = &self.destination else { return true };
        match destination.send(text, &[]) {
            Ok(()) => true,
            Err(error) if is_full(&error) => false,
            Err(error) => {
                // One that is not there now is not waited for.
                debug!(%error, "could not notify the service manager");
                true
            }
        }
    }

    /// Has it keep the listening sockets, so that a front that is started anew finds them with whoever waits in their
    /// queues. It keeps each once, however often it is given.
    pub(crate) fn keep(&self, sockets: &[ListeningSocket], names: &Names) {
        let Some(destination) = &self.destination else { return };
        let mut rest = sockets;
        while let [first, ..] = rest {
            let of_one = rest.iter().take_while(|socket| socket.address == first.address).count();
            let (group, others) = rest.split_at(of_one);
            rest = others;
            let descriptors: Vec<_> = group.iter().map(|socket| socket.as_fd()).collect();
            // Without FDPOLL=0 it would let go of one that the kernel reports an error of.
            let text = format!("FDSTORE=1\nFDNAME={}\nFDPOLL=0", names.of(&first.address));
            if let Err(error) = destination.send(&text, &descriptors) {
                warn!(address = %first.address, %error, "the service manager does not keep this socket");
            }
        }
    }

    /// Has it let go of what it keeps under this name.
    pub(crate) fn forget(&self, name: &str) {
        let Some(destination) = &self.destination else { return };
        if let Err(error) = destination.send(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[]) {
            warn!(name, %error, "the service manager goes on keeping a socket");
        }
    }
}

/// The clock is what tells this word from one that was said before the reload was asked for.
fn reloading() -> String {
    format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic().as_micros())
}

fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    use super::*;

    /// A service manager, and the front's side of it.
    fn pair() -> (UnixDatagram, Manager) {
        let socket = rustix::net::socket_with(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::DGRAM,
            rustix::net::SocketFlags::NONBLOCK,
            None,
        )
        .unwrap();
        // No name at all asks for one (unix(7), "Autobind feature").
        rustix::net::bind(&socket, &rustix::net::SocketAddrUnix::new_unnamed()).unwrap();
        let socket = UnixDatagram::from(socket);
        let address: SocketAddr = socket.local_addr().unwrap();
        let name = String::from_utf8(address.as_abstract_name().unwrap().to_vec()).unwrap();
        let manager = Manager {
            destination: Some(Destination::named(format!("@{name}").as_ref()).unwrap()),
            ping_every: None,
            ping_at: None,
            phase: Phase::Starting,
            status: String::new(),
            asked_until: None,
            again_at: None,
        };
        (socket, manager)
    }

    fn received(socket: &UnixDatagram) -> Option<String> {
        let mut buffer = [0; 1024];
        let length = socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    fn picture(phase: Phase, status: &str) -> Picture {
        Picture { phase, status: status.into(), waits_until: None }
    }

    #[test]
    fn what_has_not_changed_is_not_told_again() {
        let (socket, mut manager) = pair();
        manager.show(picture(Phase::Ready, "serving g1"));
        assert_eq!(received(&socket).unwrap(), "READY=1\nSTATUS=serving g1");
        manager.show(picture(Phase::Ready, "serving g1"));
        assert_eq!(received(&socket), None);
        manager.show(picture(Phase::Ready, "serving g2"));
        assert_eq!(received(&socket).unwrap(), "STATUS=serving g2");
        assert_eq!(manager.due_at(), None, "a timer without need");
    }

    #[test]
    fn a_status_is_one_line_whatever_is_in_it() {
        let (socket, mut manager) = pair();
        manager.show(picture(Phase::Starting, "failed\nMAINPID=1"));
        assert_eq!(received(&socket).unwrap(), "STATUS=failedMAINPID=1");
    }

    #[test]
    fn a_reload_is_heard_even_while_another_is_on_its_way_and_ends_with_ready() {
        let (socket, mut manager) = pair();
        manager.hear_reload();
        assert_eq!(received(&socket), None, "one that is not ready does not reload");
        manager.show(picture(Phase::Ready, ""));
        for _ in 0..2 {
            received(&socket).unwrap();
            manager.hear_reload();
        }
        assert!(received(&socket).unwrap().starts_with("RELOADING=1\nMONOTONIC_USEC="));
        manager.show(picture(Phase::Reloading, ""));
        assert_eq!(received(&socket), None);
        manager.show(picture(Phase::Ready, ""));
        assert_eq!(received(&socket).unwrap(), "READY=1");
    }

    #[test]
    fn time_is_asked_for_while_something_is_waited_for_and_not_again_for_the_same() {
        let (socket, mut manager) = pair();
        let until = Some(Instant::now() + Duration::from_secs(60));
        let waiting = |phase| Picture { phase, status: String::new(), waits_until: until };
        manager.show(waiting(Phase::Starting));
        let asked = received(&socket).unwrap();
        let time: u64 = asked.strip_prefix("EXTEND_TIMEOUT_USEC=").unwrap().parse().unwrap();
        assert!((60_000_000..=65_000_000).contains(&time), "{asked}");
        manager.show(waiting(Phase::Starting));
        assert_eq!(received(&socket), None);
        manager.show(waiting(Phase::Ready));
        assert_eq!(received(&socket).unwrap(), "READY=1");
    }

    #[test]
    fn what_finds_the_queue_full_is_told_later_and_nobody_waits() {
        let (socket, mut manager) = pair();
        let filled = (0..10_000).take_while(|_| manager.send("STATUS=")).count();
        assert!(filled < 10_000, "the queue has no end");
        manager.show(picture(Phase::Ready, "serving g1"));
        assert!(manager.due_at().is_some() && !manager.was_ready());
        while received(&socket).is_some() {}
        manager.show(picture(Phase::Ready, "serving g1"));
        assert_eq!(received(&socket).unwrap(), "READY=1\nSTATUS=serving g1");
        assert_eq!(manager.due_at(), None);
    }
}
