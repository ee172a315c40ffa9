//! Where the gateway is.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::state::config::{Environment, Finding, ReadFailed, Settled, read, understand};

/// Where a gateway is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// A host and port, as a URL has them.
    Tcp(String),
    /// A Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(authority) => write!(f, "ws://{authority}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A word that names no gateway.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotADestination {
    /// Neither of the two forms.
    #[error("write it as ws://HOST:PORT or unix:/PATH")]
    Malformed,
    /// This client has no TLS.
    #[error("wss:// is not spoken; use ws:// on the same machine, or through a tunnel")]
    Encrypted,
    /// Everybody on the machine could read it.
    #[error("a URL holds no secrets; use --token-file or HOLDFAST_TOKEN")]
    Secret,
}

impl FromStr for Destination {
    type Err = NotADestination;

    fn from_str(word: &str) -> Result<Self, NotADestination> {
        if let Some(path) = word.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return if path.is_absolute() {
                Ok(Self::Unix(path))
            } else {
                Err(NotADestination::Malformed)
            };
        }
        if word.starts_with("wss:") {
            return Err(NotADestination::Encrypted);
        }
        let authority = word.strip_prefix("ws://").ok_or(NotADestination::Malformed)?;
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        if authority.contains(['@', '?', '#']) {
            return Err(NotADestination::Secret);
        }
        let (host, port) = authority.rsplit_once(':').ok_or(NotADestination::Malformed)?;
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let is_host = !host.is_empty() && (bracketed || !host.contains(':'));
        if !is_host || host.contains(['/', ' ']) || port.parse::<u16>().is_err() {
            return Err(NotADestination::Malformed);
        }
        Ok(Self::Tcp(authority.to_owned()))
    }
}

/// Why nobody knows where the gateway is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoDestination {
    /// The configuration cannot be read.
    #[error("the configuration cannot be read; name the gateway with --url")]
    Read {
        /// Why.
        source: ReadFailed,
    },
    /// The configuration cannot be used.
    #[error("{}: {finding}; name the gateway with --url", path.display())]
    Unusable {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it, first of all.
        finding: Box<Finding>,
    },
}

impl Destination {
    /// Where a gateway with this configuration is, on this machine.
    ///
    /// # Errors
    /// [`NoDestination`].
    pub(super) fn configured(
        config: Option<&Path>,
        environment: &Environment,
    ) -> Result<Self, NoDestination> {
        let settled = settled(config, environment)?;
        let port = settled.config().gateway.port;
        Ok(Self::Tcp(format!("{}:{port}", Ipv4Addr::LOCALHOST)))
    }
}

/// What holds because of the configuration at this path.
///
/// # Errors
/// [`NoDestination`].
pub(super) fn settled(
    config: Option<&Path>,
    environment: &Environment,
) -> Result<Settled, NoDestination> {
    let Some(path) = config else { return Ok(Settled::defaults(environment)) };
    let text = read(path).map_err(|source| NoDestination::Read { source })?;
    let Some(text) = text else { return Ok(Settled::defaults(environment)) };
    match understand(&text, environment) {
        Ok(understood) => Ok(understood.settled),
        Err(findings) => match findings.into_iter().next() {
            Some(finding) => {
                Err(NoDestination::Unusable { path: path.to_owned(), finding: Box::new(finding) })
            }
            None => Ok(Settled::defaults(environment)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_host_and_a_port_or_a_socket_and_nothing_else() {
        for word in ["ws://127.0.0.1:18789", "ws://[::1]:1", "ws://gateway.local:80"] {
            assert_eq!(word.parse::<Destination>().unwrap().to_string(), word);
            assert_eq!(format!("{word}/").parse::<Destination>().unwrap().to_string(), word);
        }
        assert_eq!("unix:/run/x.sock".parse(), Ok(Destination::Unix(PathBuf::from("/run/x.sock"))));
        for (word, refused) in [
            ("127.0.0.1:1", NotADestination::Malformed),
            ("ws://", NotADestination::Malformed),
            ("ws://host", NotADestination::Malformed),
            ("ws://host:port", NotADestination::Malformed),
            ("ws://::1:80", NotADestination::Malformed),
            ("ws://host:1/path", NotADestination::Malformed),
            ("unix:relative", NotADestination::Malformed),
            ("wss://host:1", NotADestination::Encrypted),
            ("ws://token@host:1", NotADestination::Secret),
            ("ws://host:1/?token=x", NotADestination::Secret),
        ] {
            assert_eq!(word.parse::<Destination>(), Err(refused), "{word}");
        }
    }

    #[test]
    fn the_configured_port_is_the_default() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("openclaw.json");
        let environment = Environment::default();
        let configured = |path| Destination::configured(path, &environment);
        assert_eq!(configured(None).unwrap().to_string(), "ws://127.0.0.1:18789");
        assert_eq!(configured(Some(&path)).unwrap().to_string(), "ws://127.0.0.1:18789");
        std::fs::write(&path, "{gateway: {port: 19001}}").unwrap();
        assert_eq!(configured(Some(&path)).unwrap().to_string(), "ws://127.0.0.1:19001");
        std::fs::write(&path, "{gateway: {port: 'x'}}").unwrap();
        let refused = configured(Some(&path)).unwrap_err().to_string();
        assert!(refused.contains("gateway.port"), "{refused}");
    }
}
