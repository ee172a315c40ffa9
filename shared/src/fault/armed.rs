//! The faults of this process, and what each does to it.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::str::FromStr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, raise};
use rustix::net::{SendFlags, Shutdown};

use super::Point;
use crate::link::Link;
use crate::migrate::Snapshot;

/// Names the faults of a process.
const VARIABLE: &str = "HOLDFAST_FAULT";
/// What is no word of any protocol.
const RUBBISH: &[u8] = b"\xff\x00{\"type\":\"rubbish\"";

/// What the environment says, read once.
pub(super) static FAULTS: LazyLock<Vec<Fault>> = LazyLock::new(|| {
    let Some(words) = std::env::var_os(VARIABLE) else { return Vec::new() };
    match read(&words.to_string_lossy()) {
        Ok(faults) => faults,
        // It reaches a test's log, and ends a process that would otherwise not fail as it was told.
        Err(error) => panic!("{VARIABLE}={}: {error}", words.display()),
    }
});

/// One fault.
#[derive(Debug)]
pub(super) struct Fault {
    point: Point,
    /// The name it was called by.
    name: &'static str,
    act: Act,
    /// How often the point is reached before it is met, that time included.
    turn: u32,
    reached: AtomicU32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Kill,
    Stop,
    Delay(Duration),
    DropLink,
    Garbage,
    Emfile,
    Panic,
    Segfault,
    Version(u32),
}

/// Why the environment's faults cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotAFault {
    #[error("{words:?} is no fault; write it as POINT=ACT or POINT=ACT@TURN")]
    Shape { words: String },
    #[error("there is no point {point:?}")]
    Point { point: String },
    #[error("there is no act {act:?}")]
    Act { act: String },
    #[error("{act:?} is not possible at {point}")]
    Impossible { point: &'static str, act: String },
}

fn read(words: &str) -> Result<Vec<Fault>, NotAFault> {
    words.split(',').map(str::parse).collect()
}

impl FromStr for Fault {
    type Err = NotAFault;

    fn from_str(words: &str) -> Result<Self, NotAFault> {
        let shape = || NotAFault::Shape { words: words.to_owned() };
        let (point, rest) = words.split_once('=').ok_or_else(shape)?;
        let (act, turn) = match rest.split_once('@') {
            Some((act, turn)) => (act, turn.parse().map_err(|_| shape())?),
            None => (rest, 1),
        };
        if turn == 0 {
            return Err(shape());
        }
        let named = Point::NAMED.iter().find(|(_, name)| *name == point);
        let (point, name) = *named.ok_or_else(|| NotAFault::Point { point: point.to_owned() })?;
        let impossible = || NotAFault::Impossible { point: name, act: act.to_owned() };
        let act: Act = act.parse()?;
        if act.is_possible_at(point, name) {
            Ok(Self { point, name, act, turn, reached: AtomicU32::new(0) })
        } else {
            Err(impossible())
        }
    }
}

impl FromStr for Act {
    type Err = NotAFault;

    fn from_str(words: &str) -> Result<Self, NotAFault> {
        let unknown = || NotAFault::Act { act: words.to_owned() };
        let number = |digits: &str| digits.parse::<u32>().map_err(|_| unknown());
        Ok(match words.split_once(':') {
            None => match words {
                "kill" => Self::Kill,
                "stop" => Self::Stop,
                "drop-link" => Self::DropLink,
                "garbage" => Self::Garbage,
                "emfile" => Self::Emfile,
                "panic" => Self::Panic,
                "segfault" => Self::Segfault,
                _ => return Err(unknown()),
            },
            Some(("delay", ms)) => Self::Delay(Duration::from_millis(number(ms)?.into())),
            Some(("version", version)) => Self::Version(number(version)?),
            Some(_) => return Err(unknown()),
        })
    }
}

impl Act {
    /// Whether what it is done to is there.
    fn is_possible_at(self, point: Point, name: &str) -> bool {
        match self {
            Self::Kill
            | Self::Stop
            | Self::Delay(_)
            | Self::Emfile
            | Self::Panic
            | Self::Segfault => true,
            Self::DropLink | Self::Garbage => {
                name.starts_with("source.") || name.starts_with("target.")
            }
            Self::Version(_) => point == Point::Frozen,
        }
    }
}

/// Does what is to be done here, and this time.
pub(super) fn reach(point: Point, link: Option<&Link>, mut snapshot: Option<&mut Snapshot>) {
    for fault in FAULTS.iter().filter(|fault| fault.point == point) {
        if fault.reached.fetch_add(1, Ordering::Relaxed) + 1 == fault.turn {
            let Fault { name, act, .. } = fault;
            let line = format!("fault met: {name} {act:?} in {}\n", std::process::id());
            // In one write, so that no other process's line comes between. Unsaid, the test fails.
            let _ = io::stderr().write_all(line.as_bytes());
            act.happen(link, snapshot.as_deref_mut());
        }
    }
}

impl Act {
    fn happen(self, link: Option<&Link>, snapshot: Option<&mut Snapshot>) {
        match self {
            // Neither can fail for the process itself.
            Self::Kill => drop(raise(Signal::SIGKILL)),
            Self::Stop => drop(raise(Signal::SIGSTOP)),
            Self::Delay(duration) => {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "to hold the thread up is the fault"
                )]
                std::thread::sleep(duration);
            }
            Self::DropLink => {
                // A link that is gone already is as good as dropped.
                let _ = link.map(|link| rustix::net::shutdown(link, Shutdown::Both));
            }
            Self::Garbage => {
                // One that is gone hears no rubbish either.
                let _ = link.map(|link| rustix::net::send(link, RUBBISH, SendFlags::NOSIGNAL));
            }
            Self::Emfile => exhaust().expect("the limit of descriptors can be lowered"),
            Self::Panic => panic!("as told"),
            Self::Segfault => drop(raise(Signal::SIGSEGV)),
            Self::Version(version) => {
                if let Some(snapshot) = snapshot {
                    snapshot.version = version;
                }
            }
        }
    }
}

/// Lowers the soft limit to the lowest number that is not in use: every descriptor gets the lowest
/// (open(2)), so nothing can be opened until something is closed.
fn exhaust() -> io::Result<()> {
    let lowest = File::open("/dev/null")?.as_raw_fd();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, u64::from(lowest.unsigned_abs()), hard)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_with_their_turns() {
        let faults = read("source.offer-sent=stop@2,front.spawned=delay:40").unwrap();
        let read: Vec<_> = faults.iter().map(|f| (f.point, f.act, f.turn)).collect();
        assert_eq!(
            read,
            [
                (Point::OfferSent, Act::Stop, 2),
                (Point::Spawned, Act::Delay(Duration::from_millis(40)), 1)
            ]
        );
    }

    #[test]
    fn what_is_misspelt_is_refused_in_words() {
        let refused = |words: &str| read(words).unwrap_err().to_string();
        assert_eq!(refused("source.offer-snet=kill"), r#"there is no point "source.offer-snet""#);
        assert_eq!(refused("source.offer-sent=kil"), r#"there is no act "kil""#);
        for words in ["", "source.offer-sent", "source.offer-sent=kill@0", "front.spawned=kill@x"] {
            assert!(refused(words).contains("write it as"), "{words:?}: {}", refused(words));
        }
        for words in ["delay", "delay:", "delay:-1", "version:x", "kill:1"] {
            let words = format!("source.frozen={words}");
            assert!(refused(&words).contains("there is no act"), "{words:?}");
        }
    }

    #[test]
    fn an_act_on_what_is_not_there_is_refused() {
        for words in
            ["front.spawned=drop-link", "worker.leaving=garbage", "target.resumed=version:2"]
        {
            assert!(matches!(read(words), Err(NotAFault::Impossible { .. })), "{words}");
        }
    }

    #[test]
    fn names_of_points_differ() {
        let mut names: Vec<_> = Point::NAMED.iter().map(|(_, name)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Point::NAMED.len());
    }
}
