//! What the fixture is told to do, word by word.
//!
//! `fixture-worker WORD…`: each word changes one thing of a worker that otherwise does everything right.
//!
//! | word | what it does |
//! | --- | --- |
//! | `serve` | nothing wrong |
//! | `first-good` | the words apply from the second generation on |
//! | `until:FILE` | the words apply until FILE exists |
//! | `exit:CODE` | exits before it is ready |
//! | `hang` | is never ready |
//! | `ready-once:FILE` | is ready once FILE exists |
//! | `refuse:REASON` | says `Refuse` and exits |
//! | `garbage` `unknown` `oversized` `flood` | says that instead of `Ready` |
//! | `descriptors:N` | says it could open N more |
//! | `die-when-ready` | is killed right after `Ready` |
//! | `close-link` | closes the link after `Ready` and stays |
//! | `never-accepts` `die-when-admitted` | at `Admit` |
//! | `accept-once:FILE` | says `Accepting` once FILE exists |
//! | `die-in-soak` `fail-in-soak` | right after `Accepting` |
//! | `wants-takeover:REASON` | asks to be replaced right after `Accepting` |
//! | `hostile-start:WAY` | instead of `Ready`, what `hostile.rs` lists |
//! | `hostile:WAY` | the same once it has the lease |
//! | `shrink-backlog` | listens again with a backlog of 1 before it accepts |
//! | `loses:N` | closes the connection of each Nth request instead of answering |
//! | `never-stops` | does not answer `StopAccepting` |
//! | `never-drains` | does not leave after `Drain` |
//! | `ignore-term` | does nothing at SIGTERM |
//! | `grandchild:FILE` | has a child write to FILE what it was given |
//! | `library:FILE` | alone: is a plain [`handoff::Worker`], ready once FILE exists |
//! | `orphan:FILE` | leaves a process behind that outlives it, its pid in FILE |

use std::path::{Path, PathBuf};

use handoff::GenerationId;

/// What a fixture does at each of its steps.
#[derive(Debug, Default)]
pub(crate) struct Script {
    good_at_first: bool,
    bad_until: Option<PathBuf>,
    pub(crate) grandchild: Option<PathBuf>,
    pub(crate) orphan: Option<PathBuf>,
    pub(crate) hostile: Option<String>,
    pub(crate) start: Start,
    pub(crate) free_descriptors: Option<u64>,
    pub(crate) once_ready: OnceReady,
    pub(crate) backlog: Backlog,
    pub(crate) admit: Admit,
    pub(crate) soak: Soak,
    pub(crate) loses: Option<u64>,
    pub(crate) stop: Order,
    pub(crate) drain: Order,
    pub(crate) terminate: Order,
}

/// Instead of being ready.
#[derive(Debug, Default)]
pub(crate) enum Start {
    #[default]
    Ready,
    ReadyOnce(PathBuf),
    Exit(u8),
    Hang,
    Refuse(String),
    Say(Vec<u8>),
    Flood,
    Hostile(String),
}

/// Once it is ready.
#[derive(Debug, Default)]
pub(crate) enum OnceReady {
    #[default]
    Listen,
    Die,
    CloseLink,
}

/// What happens to the sockets before it accepts.
#[derive(Debug, Default)]
pub(crate) enum Backlog {
    #[default]
    Keep,
    Shrink,
}

/// At `Admit`.
#[derive(Debug, Default)]
pub(crate) enum Admit {
    #[default]
    Accept,
    AcceptOnce(PathBuf),
    Ignore,
    Die,
}

/// After it was admitted.
#[derive(Debug, Default)]
pub(crate) enum Soak {
    #[default]
    Serve,
    Die,
    Fail,
    WantTakeover(String),
}

/// What becomes of an order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Order {
    #[default]
    Obey,
    Ignore,
}

impl Script {
    /// Reads the words of the command line.
    pub(crate) fn read(words: &[String]) -> Self {
        let mut script = Self::default();
        for word in words {
            let (name, rest) = word.split_once(':').unwrap_or((word, ""));
            script.change(name, rest);
        }
        script
    }

    fn change(&mut self, name: &str, rest: &str) {
        let number = || rest.parse().expect("a number");
        match name {
            "serve" => {}
            "first-good" => self.good_at_first = true,
            "until" => self.bad_until = Some(rest.into()),
            "exit" => self.start = Start::Exit(rest.parse().expect("an exit code")),
            "hang" => self.start = Start::Hang,
            "ready-once" => self.start = Start::ReadyOnce(rest.into()),
            "refuse" => self.start = Start::Refuse(rest.into()),
            "garbage" => self.start = Start::Say(vec![0xff; 64]),
            "unknown" => self.start = Start::Say(br#"{"type":"explode"}"#.into()),
            "oversized" => self.start = Start::Say(vec![b' '; 160 * 1024]),
            "flood" => self.start = Start::Flood,
            "descriptors" => self.free_descriptors = Some(number()),
            "die-when-ready" => self.once_ready = OnceReady::Die,
            "close-link" => self.once_ready = OnceReady::CloseLink,
            "shrink-backlog" => self.backlog = Backlog::Shrink,
            "never-accepts" => self.admit = Admit::Ignore,
            "accept-once" => self.admit = Admit::AcceptOnce(rest.into()),
            "die-when-admitted" => self.admit = Admit::Die,
            "die-in-soak" => self.soak = Soak::Die,
            "fail-in-soak" => self.soak = Soak::Fail,
            "wants-takeover" => self.soak = Soak::WantTakeover(rest.into()),
            "hostile-start" => self.start = Start::Hostile(rest.into()),
            "hostile" => self.hostile = Some(rest.into()),
            "loses" => self.loses = Some(number()),
            "never-stops" => self.stop = Order::Ignore,
            "never-drains" => self.drain = Order::Ignore,
            "ignore-term" => self.terminate = Order::Ignore,
            "grandchild" => self.grandchild = Some(rest.into()),
            "orphan" => self.orphan = Some(rest.into()),
            unknown => panic!("the fixture does not know {unknown:?}"),
        }
    }

    /// What of it applies to this generation, at this moment.
    pub(crate) fn applied_to(self, generation: GenerationId) -> Self {
        let good = self.good_at_first && generation == GenerationId::new(1)
            || self.bad_until.as_deref().is_some_and(Path::exists);
        if good { Self::default() } else { self }
    }
}
