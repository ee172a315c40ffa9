//! The words that tell the server what to do.
//!
//! | word | it |
//! | --- | --- |
//! | `listen-fds`, `fd:N`, `port:NAME`, `at:ADDRESS` | listens there; each adds a place |
//! | `ready` | says `READY=1` once it listens |
//! | `ready-at:FILE` | says `READY=1` once FILE exists |
//! | `extend:N` | asks for N seconds more when it starts, and when it is to stop |
//! | `status:WORDS` | says `STATUS=WORDS` |
//! | `exit:N`, `hang` | does that instead of listening |
//! | `fork` | goes on in a child, and exits 0 |
//! | `apart` | goes on in a child with a process group of its own, and waits for it |
//! | `never-accept` | listens and does not accept |
//! | `ignore-term` | does not end at SIGTERM |
//! | `echo` | sends back every byte, and `bye` after the last |
//! | `proxied` | reads a line of the PROXY protocol first, or the binary header |
//! | `from:N=WORD` | does WORD from generation N on |
//! | `only:N=WORD` | does WORD in generation N |

use std::path::PathBuf;

/// What the server does.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) places: Vec<Place>,
    pub(crate) start: Start,
    pub(crate) says_ready: bool,
    pub(crate) ready_at: Option<PathBuf>,
    pub(crate) extend: Option<u64>,
    pub(crate) status: Option<String>,
    pub(crate) accepts: bool,
    pub(crate) terminate: Terminate,
    pub(crate) speaks: Speaks,
    pub(crate) proxied: bool,
}

/// Where it listens.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    ListenFds,
    Descriptor(i32),
    Variable(String),
    Address(String),
}

/// How it begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start {
    Serve,
    Exit(u8),
    Hang,
    Fork,
    Apart,
}

/// What SIGTERM does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Terminate {
    Finish,
    Ignore,
}

/// What it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    Http,
    Echo,
}

/// Which generation this is, as its adapter says.
fn generation() -> u64 {
    let word = std::env::var("HOLDFAST_GENERATION").unwrap_or_default();
    word.strip_prefix('g').and_then(|number| number.parse().ok()).unwrap_or(0)
}

impl Script {
    pub(crate) fn read(words: impl Iterator<Item = String>) -> Self {
        let mut script = Self {
            places: Vec::new(),
            start: Start::Serve,
            says_ready: false,
            ready_at: None,
            extend: None,
            status: None,
            accepts: true,
            terminate: Terminate::Finish,
            speaks: Speaks::Http,
            proxied: false,
        };
        words.for_each(|word| script.heed(&word));
        script
    }

    fn heed(&mut self, word: &str) {
        let (name, value) = word.split_once(':').unwrap_or((word, ""));
        let number = || value.parse::<i32>().expect("a number");
        match name {
            "listen-fds" => self.places.push(Place::ListenFds),
            "fd" => self.places.push(Place::Descriptor(number())),
            "port" => self.places.push(Place::Variable(value.to_owned())),
            "at" => self.places.push(Place::Address(value.to_owned())),
            "ready" => self.says_ready = true,
            "ready-at" => self.ready_at = Some(value.into()),
            "extend" => self.extend = Some(value.parse().expect("seconds")),
            "status" => self.status = Some(value.to_owned()),
            "exit" => self.start = Start::Exit(value.parse().expect("a code")),
            "hang" => self.start = Start::Hang,
            "fork" => self.start = Start::Fork,
            "apart" => self.start = Start::Apart,
            "never-accept" => self.accepts = false,
            "ignore-term" => self.terminate = Terminate::Ignore,
            "echo" => self.speaks = Speaks::Echo,
            "proxied" => self.proxied = true,
            "from" | "only" => {
                let (since, word) = value.split_once('=').expect("N=WORD");
                let since = since.parse::<u64>().expect("a generation");
                let own = generation();
                if own == since || (own > since && name == "from") {
                    self.heed(word);
                }
            }
            _ => panic!("{word:?} means nothing to the fixture server"),
        }
    }
}
