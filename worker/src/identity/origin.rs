//! Where a page lies whose script opens a WebSocket: browsers say so by `Origin`, and nothing else can be believed
//! about who is behind it.
//!
//! ```text
//! no Origin ─► no browser      listed in gateway.controlUi.allowedOrigins, or `*` ─► allowed
//!                              a page of this machine, opened on this machine ─────► allowed
//!                              anything else, also the host that the request names ─► refused
//! ```
//!
//! **Invariants**
//! - A page of another site is never let in for naming itself in `Host`: a name that is rebound to 127.0.0.1 does.
//! - Programs that are no browsers send no `Origin`, and nothing changes for them.

use hyper::Uri;
use hyper::header::{HeaderMap, ORIGIN};
use serde::{Deserialize, Serialize};

use super::locality::{Locality, is_loopback_host};

/// Whether a browser's page may connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PageOrigin {
    /// No page is said to be there.
    #[default]
    Absent,
    /// It may.
    Allowed,
    /// What is said is no origin.
    Invalid,
    /// It may not.
    Foreign,
}

impl PageOrigin {
    /// Judges a request by what it says of itself, where it comes from, and the origins that are listed.
    pub(crate) fn of(headers: &HeaderMap, locality: Locality, listed: &[String]) -> Self {
        let mut said = headers.get_all(ORIGIN).iter();
        let origin = match (said.next(), said.next()) {
            (None, _) => return Self::Absent,
            (Some(origin), None) => origin.to_str().unwrap_or("null").trim(),
            // A browser says one.
            (Some(_), Some(_)) => return Self::Invalid,
        };
        if origin.is_empty() {
            return Self::Absent;
        }
        let Some(origin) = Origin::read(origin) else { return Self::Invalid };
        let is_listed = listed.iter().map(|listed| listed.trim()).any(|listed| {
            listed == "*" || Origin::read(listed).is_some_and(|listed| listed == origin)
        });
        let is_here = locality == Locality::Local && is_loopback_host(&origin.host);
        if is_listed || is_here { Self::Allowed } else { Self::Foreign }
    }
}

/// An origin (RFC 6454), whose default port is the same as none.
#[derive(Debug, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

impl Origin {
    fn read(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let host = uri.host()?.to_ascii_lowercase();
        let usual = match scheme.as_str() {
            "http" | "ws" => Some(80),
            "https" | "wss" => Some(443),
            _ => None,
        };
        let port = uri.port_u16().filter(|port| Some(*port) != usual);
        Some(Self { scheme, host, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(origins: &[&str], locality: Locality, listed: &[&str]) -> PageOrigin {
        let mut headers = HeaderMap::new();
        for origin in origins {
            headers.append(ORIGIN, origin.parse().unwrap());
        }
        let listed: Vec<_> = listed.iter().map(|listed| (*listed).to_owned()).collect();
        PageOrigin::of(&headers, locality, &listed)
    }

    #[test]
    fn a_page_of_this_machine_may_connect_on_this_machine_and_no_other_unless_it_is_listed() {
        use PageOrigin::{Absent, Allowed, Foreign, Invalid};
        let none = &[][..];
        for (origin, locality, listed, expected) in [
            (none, Locality::Remote, none, Absent),
            (&[""], Locality::Local, none, Absent),
            (&["http://localhost:3000"], Locality::Local, none, Allowed),
            (&["http://127.0.0.1:18789"], Locality::Local, none, Allowed),
            (&["http://[::1]:18789"], Locality::Local, none, Allowed),
            (&["http://localhost:3000"], Locality::Remote, none, Foreign),
            (&["http://evil.example:18789"], Locality::Local, none, Foreign),
            (&["http://localhost.evil.example"], Locality::Local, none, Foreign),
            (&["https://a.example"], Locality::Remote, &["https://a.example"], Allowed),
            (&["https://A.example:443"], Locality::Remote, &[" https://a.example/ "], Allowed),
            (&["https://a.example:8443"], Locality::Remote, &["https://a.example"], Foreign),
            (&["http://a.example"], Locality::Remote, &["https://a.example"], Foreign),
            (&["https://a.example"], Locality::Remote, &["*"], Allowed),
            (&["null"], Locality::Local, &["*"], Invalid),
            (&["a.example"], Locality::Local, &["*"], Invalid),
            (&["http://localhost", "http://localhost"], Locality::Local, &["*"], Invalid),
        ] {
            assert_eq!(judged(origin, locality, listed), expected, "{origin:?} {listed:?}");
        }
    }
}
