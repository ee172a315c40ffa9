//! What an operator says about a program that knows nothing of Holdfast: the same flags for `holdfast run
//! --adapter …` and for the `holdfast adapter …` which that becomes.
//!
//! **Invariants**
//! - [`Flags::words`] says again what was said, environment variables included: the adapter is told
//!   everything by its command line.
//! - A flag of another adapter is a mistake of usage, never ignored.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, ValueEnum};
use nix::sys::signal::Signal;

use super::profile::{Manner, Profile};
use crate::cli::duration;

/// Which adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// The program accepts from the listening sockets itself: descriptors 3…, LISTEN_FDS
    Activate,
    /// The program listens on a private port of its own, and bytes are relayed to it
    Relay,
    /// The program is Node's, and its listen(port) is made to accept from the listening sockets
    Node,
}

impl Kind {
    /// The word for it on the command line.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Activate => "activate",
            Self::Relay => "relay",
            Self::Node => "node",
        }
    }
}

/// Where a program under `relay` listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Private {
    /// A port of 127.0.0.1, in PORT and {port}
    Tcp,
    /// A Unix socket in a directory of its own, its path in PORT and {port}
    Unix,
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProxyVersion {
    /// The line of text
    V1,
    /// The binary header
    V2,
}

/// The flags of the adapters.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(next_help_heading = "Programs that know nothing of Holdfast")]
pub(crate) struct Flags {
    /// What is known of this program: how it is run, asked and stopped. openclaw: by --adapter node
    #[arg(long, value_name = "NAME", env = "HOLDFAST_PROFILE")]
    profile: Option<Profile>,
    /// The program is ready when it says READY=1 to NOTIFY_SOCKET [activate: the default]
    #[arg(long, env = "HOLDFAST_READY_NOTIFY")]
    ready_notify: bool,
    /// The program is ready when it answers GET PATH with a status of 200 to 399
    #[arg(long, value_name = "PATH", env = "HOLDFAST_READY_HTTP", value_parser = request_path)]
    ready_http: Option<String>,
    /// The program is ready when it accepts a connection [relay: the default; node: when it listens, the default]
    #[arg(long, env = "HOLDFAST_READY_TCP")]
    ready_tcp: bool,
    /// The program is taken to be ready after so long, whatever it does: for those that cannot be asked
    #[arg(long, value_name = "TIME", env = "HOLDFAST_READY_AFTER", value_parser = duration)]
    ready_after: Option<Duration>,
    /// The signal that has the program finish what it does and exit [default: TERM]
    #[arg(long, value_name = "SIGNAL", env = "HOLDFAST_STOP_SIGNAL", value_parser = signal)]
    stop_signal: Option<Signal>,
    /// activate: a name in LISTEN_FDNAMES for each listening socket, in their order [default: port-8080, unix]
    #[arg(long, value_name = "NAME", env = "HOLDFAST_FD_NAME", value_delimiter = ',')]
    #[arg(value_parser = socket_name)]
    fd_name: Vec<String>,
    /// relay: the variable that tells the program its port [default: PORT]
    #[arg(long, value_name = "NAME", env = "HOLDFAST_PORT_ENV", value_parser = variable)]
    port_env: Option<String>,
    /// relay: where the program listens [default: tcp]
    #[arg(long, value_name = "KIND", env = "HOLDFAST_PRIVATE")]
    private: Option<Private>,
    /// relay: tell the program who the client is, by the PROXY protocol
    #[arg(long, value_name = "VERSION", env = "HOLDFAST_PROXY_PROTOCOL")]
    proxy_protocol: Option<ProxyVersion>,
    /// relay: listen beyond this machine although every client looks local to the program
    #[arg(long, env = "HOLDFAST_TRUST_RELAY")]
    trust_relay: bool,
    /// relay: how long connecting to the program may take [default: 5s]
    #[arg(long, value_name = "TIME", env = "HOLDFAST_CONNECT_TIMEOUT", value_parser = duration)]
    connect_timeout: Option<Duration>,
    /// relay: close connections that were silent both ways for so long [default: never]
    #[arg(long, value_name = "TIME", env = "HOLDFAST_RELAY_IDLE_TIMEOUT", value_parser = duration)]
    idle_timeout: Option<Duration>,
}

/// What tells that the program could serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReadyBy {
    Notify,
    Http(String),
    Tcp,
    After(Duration),
}

/// Flags that make no sense together.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FlagsRefused {
    #[error("{flag} is for --adapter {adapter}")]
    ForAnother { flag: &'static str, adapter: &'static str },
    #[error("{flag} is for programs under --adapter activate, relay or node")]
    WithoutAdapter { flag: &'static str },
    #[error(
        "--profile {profile} is for --adapter node, which it means: under another one its clients are not told apart"
    )]
    NotByNode { profile: &'static str },
    #[error("--stop-signal is said by --profile {profile} already")]
    SignalOfProfile { profile: &'static str },
    #[error("{one} and {other} both say when the program is ready; choose one")]
    ReadyTwice { one: &'static str, other: &'static str },
}

impl Flags {
    /// What tells that the program could serve.
    pub(crate) fn ready_by(&self, kind: Kind) -> ReadyBy {
        match (&self.ready_http, self.ready_after, kind) {
            (Some(path), _, _) => ReadyBy::Http(path.clone()),
            (None, Some(after), _) => ReadyBy::After(after),
            (None, None, _) if self.ready_tcp => ReadyBy::Tcp,
            (None, None, _) if self.ready_notify => ReadyBy::Notify,
            (None, None, Kind::Activate) => ReadyBy::Notify,
            (None, None, Kind::Relay) => ReadyBy::Tcp,
            (None, None, Kind::Node) => match self.profile {
                Some(profile) => ReadyBy::Http(profile.ready_path().to_owned()),
                None => ReadyBy::Tcp,
            },
        }
    }

    /// The adapter that was chosen, or that the profile means.
    pub(crate) fn kind(&self, chosen: Option<Kind>) -> Option<Kind> {
        chosen.or_else(|| self.profile.map(|_| Kind::Node))
    }

    pub(crate) const fn profile(&self) -> Option<Profile> {
        self.profile
    }

    /// How the program has to be dealt with.
    pub(crate) fn manner(&self) -> Manner {
        self.profile.map(Profile::manner).unwrap_or_default()
    }

    pub(crate) fn stop_signal(&self) -> Signal {
        self.stop_signal.unwrap_or(Signal::SIGTERM)
    }

    pub(crate) fn fd_names(&self) -> &[String] {
        &self.fd_name
    }

    /// Calls the sockets as they were called when the front inherited them, unless they were given names here.
    pub(crate) fn name_sockets(&mut self, names: Vec<String>) {
        if self.fd_name.is_empty() {
            self.fd_name = names;
        }
    }

    pub(crate) fn port_env(&self) -> &str {
        self.port_env.as_deref().unwrap_or("PORT")
    }

    pub(crate) fn private(&self) -> Private {
        self.private.unwrap_or(Private::Tcp)
    }

    pub(crate) const fn proxy_protocol(&self) -> Option<ProxyVersion> {
        self.proxy_protocol
    }

    pub(crate) const fn trust_relay(&self) -> bool {
        self.trust_relay
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        self.connect_timeout.unwrap_or(Duration::from_secs(5))
    }

    pub(crate) const fn idle_timeout(&self) -> Option<Duration> {
        self.idle_timeout
    }

    /// Whether these are flags for this adapter, or for none.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn check(&self, kind: Option<Kind>) -> Result<(), FlagsRefused> {
        if let Some(profile) = self.profile.map(Profile::word) {
            if kind != Some(Kind::Node) {
                return Err(FlagsRefused::NotByNode { profile });
            }
            if self.stop_signal.is_some() {
                return Err(FlagsRefused::SignalOfProfile { profile });
            }
        }
        for (flag, of) in self.given() {
            match (kind, of) {
                (None, _) => return Err(FlagsRefused::WithoutAdapter { flag }),
                (Some(kind), Some(of)) if kind != of => {
                    return Err(FlagsRefused::ForAnother { flag, adapter: of.word() });
                }
                (Some(_), _) => {}
            }
        }
        let ready: Vec<_> = self.given().map(|(flag, _)| flag).collect();
        let mut ready = ready.into_iter().filter(|flag| flag.starts_with("--ready-"));
        match (ready.next(), ready.next()) {
            (Some(one), Some(other)) => Err(FlagsRefused::ReadyTwice { one, other }),
            _ => Ok(()),
        }
    }

    /// The flags that were given, and the one adapter each is for if it is not for all.
    fn given(&self) -> impl Iterator<Item = (&'static str, Option<Kind>)> {
        let (activate, relay) = (Some(Kind::Activate), Some(Kind::Relay));
        [
            ("--ready-notify", self.ready_notify, None),
            ("--ready-http", self.ready_http.is_some(), None),
            ("--ready-tcp", self.ready_tcp, None),
            ("--ready-after", self.ready_after.is_some(), None),
            ("--stop-signal", self.stop_signal.is_some(), None),
            ("--fd-name", !self.fd_name.is_empty(), activate),
            ("--port-env", self.port_env.is_some(), relay),
            ("--private", self.private.is_some(), relay),
            ("--proxy-protocol", self.proxy_protocol.is_some(), relay),
            ("--trust-relay", self.trust_relay, relay),
            ("--connect-timeout", self.connect_timeout.is_some(), relay),
            ("--idle-timeout", self.idle_timeout.is_some(), relay),
        ]
        .into_iter()
        .filter_map(|(flag, given, of)| given.then_some((flag, of)))
    }

    /// The words that say the same on a command line.
    pub(crate) fn words(&self) -> Vec<OsString> {
        let time = |time: Duration| humantime::format_duration(time).to_string();
        let word = |value: Option<String>| value.map(OsString::from);
        let named = |value: Option<clap::builder::PossibleValue>| {
            value.map(|value| OsString::from(value.get_name()))
        };
        let values = [
            ("--profile", word(self.profile.map(|profile| profile.word().to_owned()))),
            ("--ready-http", word(self.ready_http.clone())),
            ("--ready-after", self.ready_after.map(time).map(OsString::from)),
            ("--stop-signal", word(self.stop_signal.map(|signal| signal.to_string()))),
            ("--port-env", word(self.port_env.clone())),
            ("--private", named(self.private.and_then(|private| private.to_possible_value()))),
            ("--proxy-protocol", named(self.proxy_protocol.and_then(|v| v.to_possible_value()))),
            ("--connect-timeout", self.connect_timeout.map(time).map(OsString::from)),
            ("--idle-timeout", self.idle_timeout.map(time).map(OsString::from)),
        ];
        let switches = [
            ("--ready-notify", self.ready_notify),
            ("--ready-tcp", self.ready_tcp),
            ("--trust-relay", self.trust_relay),
        ];
        let names = self.fd_name.iter().flat_map(|name| ["--fd-name".into(), name.into()]);
        let values = values.into_iter().filter_map(|(flag, value)| Some([flag.into(), value?]));
        let switches = switches.into_iter().filter(|(_, on)| *on).map(|(flag, _)| flag.into());
        values.flatten().chain(switches).chain(names).collect()
    }
}

fn signal(word: &str) -> Result<Signal, String> {
    let upper = word.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    name.parse().map_err(|_| format!("{word:?} is no signal; write TERM, INT, QUIT, USR1, …"))
}

/// What can stand in a request's first line (RFC 9112 section 3.2.1).
fn request_path(word: &str) -> Result<String, String> {
    let fits = word.starts_with('/') && word.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| word.to_owned()).ok_or_else(|| format!("{word:?} is no path; write /healthz"))
}

fn variable(word: &str) -> Result<String, String> {
    let fits = !word.is_empty()
        && !word.starts_with(|c: char| c.is_ascii_digit())
        && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    fits.then(|| word.to_owned()).ok_or_else(|| format!("{word:?} names no variable"))
}

/// A name as sd_listen_fds_with_names(3) has it.
fn socket_name(word: &str) -> Result<String, String> {
    let fits = !word.is_empty()
        && word.len() <= 255
        && word.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
    fits.then(|| word.to_owned())
        .ok_or_else(|| format!("{word:?} names no socket; ASCII without blanks and colons does"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: Flags,
    }

    fn read(words: &[&str]) -> Flags {
        let line = [&["holdfast"], words].concat();
        Line::try_parse_from(line).unwrap_or_else(|error| panic!("{error}")).flags
    }

    fn said_again(flags: &Flags) -> Flags {
        let line = [OsString::from("holdfast")].into_iter().chain(flags.words());
        Line::try_parse_from(line).unwrap_or_else(|error| panic!("{error}")).flags
    }

    #[test]
    fn the_words_of_flags_say_the_same_again() {
        for words in [
            &[][..],
            &["--ready-http", "/healthz?full=1", "--stop-signal", "int"],
            &["--ready-tcp", "--port-env", "HTTP_PORT", "--private", "unix", "--trust-relay"],
            &["--ready-after", "1s 500ms", "--fd-name", "http,admin"],
            &["--ready-notify", "--proxy-protocol", "v2", "--connect-timeout", "20ms"],
            &["--idle-timeout", "1h", "--stop-signal", "SIGQUIT"],
            &["--profile", "openclaw"],
        ] {
            let flags = read(words);
            assert_eq!(said_again(&flags), flags, "{words:?}");
        }
    }

    #[test]
    fn what_tells_readiness_depends_on_the_adapter_unless_it_was_said() {
        assert_eq!(Flags::default().ready_by(Kind::Activate), ReadyBy::Notify);
        assert_eq!(Flags::default().ready_by(Kind::Relay), ReadyBy::Tcp);
        assert_eq!(read(&["--ready-tcp"]).ready_by(Kind::Activate), ReadyBy::Tcp);
        assert_eq!(read(&["--ready-http", "/x"]).ready_by(Kind::Relay), ReadyBy::Http("/x".into()));
    }

    #[test]
    fn a_profile_means_its_adapter_and_no_other() {
        let flags = read(&["--profile", "openclaw"]);
        assert_eq!(flags.kind(None), Some(Kind::Node));
        assert_eq!(flags.check(Some(Kind::Node)), Ok(()));
        assert_eq!(flags.ready_by(Kind::Node), ReadyBy::Http("/readyz".into()));
        for kind in [None, Some(Kind::Relay), Some(Kind::Activate)] {
            assert!(matches!(flags.check(kind), Err(FlagsRefused::NotByNode { .. })));
        }
        let flags = read(&["--profile", "openclaw", "--stop-signal", "int"]);
        assert!(matches!(flags.check(Some(Kind::Node)), Err(FlagsRefused::SignalOfProfile { .. })));
    }

    #[test]
    fn a_flag_of_another_adapter_or_of_none_is_refused() {
        let flags = read(&["--trust-relay"]);
        assert_eq!(flags.check(Some(Kind::Relay)), Ok(()));
        let refused = flags.check(Some(Kind::Activate)).unwrap_err().to_string();
        assert_eq!(refused, "--trust-relay is for --adapter relay");
        assert!(matches!(flags.check(None), Err(FlagsRefused::WithoutAdapter { .. })));
        assert_eq!(Flags::default().check(None), Ok(()));
        let twice = read(&["--ready-tcp", "--ready-after", "1s"]).check(Some(Kind::Relay));
        assert!(matches!(twice, Err(FlagsRefused::ReadyTwice { .. })));
    }

    #[test]
    fn values_that_make_no_sense_are_refused() {
        for words in [
            ["--ready-http", "healthz"],
            ["--ready-http", "/a b"],
            ["--stop-signal", "SIGNOTHING"],
            ["--port-env", "1PORT"],
            ["--fd-name", "a:b"],
            ["--private", "udp"],
            ["--proxy-protocol", "v3"],
        ] {
            assert!(Line::try_parse_from(["holdfast"].iter().chain(&words)).is_err(), "{words:?}");
        }
    }
}
